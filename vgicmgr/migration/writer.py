"""Writing a running guest's ABI record into its live ``<metadata>``, by libvirt.

A record says what a guest has seen since it was booted, so only a guest that was booted on this host gets one. Whether
it was is told by libvirt's reason for the domain's state, and by the mark that the hook leaves for each guest that
arrives by migration or from a file (:func:`arrival_mark`), since the reason is lost when a guest is paused.
"""

import os
import time
from pathlib import Path
from typing import Any

from vgicmgr.migration.incoming import RecordElement, read_incoming
from vgicmgr.migration.record import ABIRecord, Place, same_guest, to_xml
from vgicmgr.migration.scratch import record_of, scratch
from vgicmgr.domain.connection import SYSTEM, Connection, connect, refusals
from vgicmgr.domain.settings import DomainSettings, read_domain
from vgicmgr.errors import RecordError, VgicmgrError
from vgicmgr.host.qemu import remembered_cpu
from vgicmgr.kvm.system import System

MARKS = Path("/run/vgicmgr/arrived")
"""The marks of guests that arrived here, for as long as they run."""
TRIES = 5
PAUSE_SECONDS = 1.0


def arrival_mark(name: str, folder: Path = MARKS) -> Path:
    """The mark that says that the guest of this name arrived here; the hook makes and removes it."""
    return folder / f"domain-{name}"


def take_record(connection: Connection, xml: bytes, settings: DomainSettings) -> ABIRecord:
    """What the guest sees if it was booted on this host, by QEMU's own word where ``check-host`` has asked it.

    Raises :class:`~vgicmgr.domain.connection.LibvirtError` and :class:`~vgicmgr.kvm.errors.KvmError`.
    """
    qemu, libvirt = connection.versions()
    answered, arguments = remembered_cpu(settings.emulator), read_incoming(xml).arguments
    with System() as system, scratch(system, settings, arguments, answered) as made:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return record_of(made, settings, time=now, kernel=os.uname().release, qemu=qemu, libvirt=libvirt)


def write_record(connection: Connection, name: str, *, force: bool = False) -> str:
    """Write the record of the running guest ``name``, unless it has a good one, and say in a word what was done.

    A guest that arrived here keeps the record of its boot, and gets a second one of this host beside it.

    ``force``: even where it is not known that the guest was booted here. Raises
    :class:`~vgicmgr.errors.VgicmgrError`.
    """
    domain = connection.running_domain(name)
    with refusals(f"domain '{name}'"):
        xml = domain.XMLDesc(0).encode()
    settings = read_domain(xml)
    if not settings.needs_gic:
        return "not-needed"
    incoming = read_incoming(xml)
    booted_here = force or _booted_here(domain, settings.name, incoming.element)
    if not booted_here and incoming.element is None:
        return "unknown-origin"
    record = take_record(connection, xml, settings)
    place, element = (Place.BOOT, incoming.element) if booted_here else (Place.HOST, incoming.host)
    if booted_here and incoming.host:
        _set_metadata(domain, Place.HOST, None)
    if element and _says(element, record):
        return "kept"
    _set_metadata(domain, place, to_xml(record, namespace=False))
    return "written" if booted_here else "moved"


def _booted_here(domain: Any, name: str, element: RecordElement | None) -> bool:
    import libvirt

    if arrival_mark(name).exists():
        return False
    with refusals(f"domain '{name}'"):
        state, reason = domain.state()
    if state == libvirt.VIR_DOMAIN_RUNNING:
        arrived = (
            libvirt.VIR_DOMAIN_RUNNING_MIGRATED,
            libvirt.VIR_DOMAIN_RUNNING_MIGRATION_CANCELED,
            libvirt.VIR_DOMAIN_RUNNING_RESTORED,
            libvirt.VIR_DOMAIN_RUNNING_FROM_SNAPSHOT,
            libvirt.VIR_DOMAIN_RUNNING_POSTCOPY,
        )
        # what a canceled migration leaves may have been booted anywhere; a record, if there is one, knows
        return reason not in arrived and (reason == libvirt.VIR_DOMAIN_RUNNING_BOOTED or element is None)
    return bool(state == libvirt.VIR_DOMAIN_PAUSED) and reason in (
        libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
        libvirt.VIR_DOMAIN_PAUSED_USER,
    )


def _says(element: RecordElement, record: ABIRecord) -> bool:
    try:
        return same_guest(element.record(), record)
    except RecordError:
        return False


def _set_metadata(domain: Any, place: Place, xml: str | None) -> None:
    import libvirt

    kind, live = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_LIVE
    with refusals("libvirt does not take the ABI record"):
        domain.setMetadata(kind, xml, place.prefix, place.value, live)


def main(name: str) -> None:
    """What the hook starts: write the record of ``name`` as soon as libvirt lets it, and log what came of it."""
    import syslog

    syslog.openlog("vgicmgr", syslog.LOG_PID, syslog.LOG_DAEMON)
    shown = ascii(name)
    for attempt in range(TRIES):
        try:
            with connect(SYSTEM, read_only=False) as connection:
                done = write_record(connection, name)
        except VgicmgrError as error:
            if attempt == TRIES - 1:
                syslog.syslog(syslog.LOG_WARNING, f"record domain={shown} not-written: {str(error)!a}")
            time.sleep(PAUSE_SECONDS * (attempt + 1))
        else:
            syslog.syslog(syslog.LOG_INFO, f"record domain={shown} {done}")
            return
