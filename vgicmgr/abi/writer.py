"""Writing a running guest's ABI record into its live ``<metadata>``, by libvirt.

libvirt's Python binding is imported where it is needed: it is slow to start, and may not be installed.

A record says what a guest has seen since it was booted, so only a guest that was booted on this host gets one. Whether
it was is told by libvirt's reason for the domain's state, and by the mark that the hook leaves for each guest that
arrives by migration or from a file (:func:`arrival_mark`), since the reason is lost when a guest is paused.
"""

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgicmgr.abi.incoming import RecordElement, read_incoming
from vgicmgr.abi.record import ABIRecord, Place, same_guest, to_xml
from vgicmgr.abi.scratch import record_of, scratch
from vgicmgr.domain.settings import DomainSettings, read_domain
from vgicmgr.errors import CannotTell, RecordError, VgicmgrError
from vgicmgr.host.qemu import remembered_cpu
from vgicmgr.kvm.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM = "qemu:///system"
MARKS = Path("/run/vgicmgr/arrived")
"""The marks of guests that arrived here, for as long as they run."""
TRIES = 5
PAUSE_SECONDS = 1.0


def arrival_mark(name: str, folder: Path = MARKS) -> Path:
    """The mark that says that the guest of this name arrived here; the hook makes and removes it."""
    return folder / f"domain-{name}"


def versions(connection: Any) -> tuple[str, str]:
    """QEMU's and libvirt's versions, as ``10.0.2``."""
    return _dotted(connection.getVersion()), _dotted(connection.getLibVersion())


def _dotted(number: int) -> str:
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"


@contextmanager
def connected(uri: str = SYSTEM) -> "Iterator[Any]":
    """A read-write connection to libvirt; raises :class:`~vgicmgr.errors.CannotTell`."""
    try:
        import libvirt
    except ImportError:
        raise CannotTell(
            "libvirt's Python binding is not installed", "install python3-libvirt (libvirt-python)"
        ) from None
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        connection = libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise CannotTell(f"libvirt at {uri} cannot be reached: {error}") from None
    try:
        yield connection
    finally:
        connection.close()


def live_domain(connection: Any, name: str) -> Any:
    """The running domain called ``name`` (or with that UUID); raises :class:`~vgicmgr.errors.CannotTell`."""
    import libvirt

    for look_up in (connection.lookupByName, connection.lookupByUUIDString):
        try:
            domain = look_up(name)
        except libvirt.libvirtError:
            continue
        if domain.isActive():
            return domain
        raise CannotTell(f"domain '{name}' does not run")
    raise CannotTell(f"libvirt knows no domain '{name}'")


def read_record(domain: Any) -> ABIRecord | None:
    """The record of a running domain, if it has one; raises :class:`~vgicmgr.errors.RecordError` for a bad one."""
    element = read_incoming(domain.XMLDesc(0).encode()).element
    return element.record() if element else None


def take_record(connection: Any, xml: bytes, settings: DomainSettings) -> ABIRecord:
    """What the guest sees if it was booted on this host, by QEMU's own word where ``check-host`` has asked it.

    Raises :class:`~vgicmgr.kvm.errors.KvmError`.
    """
    qemu, libvirt = versions(connection)
    answered, arguments = remembered_cpu(settings.emulator), read_incoming(xml).arguments
    with System() as system, scratch(system, settings, arguments, answered) as made:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return record_of(made, settings, time=now, kernel=os.uname().release, qemu=qemu, libvirt=libvirt)


def write_record(connection: Any, name: str, *, force: bool = False) -> str:
    """Write the record of the running guest ``name``, unless it has a good one, and say in a word what was done.

    A guest that arrived here keeps the record of its boot, and gets a second one of this host beside it.

    ``force``: even where it is not known that the guest was booted here. Raises
    :class:`~vgicmgr.errors.VgicmgrError`.
    """
    domain = live_domain(connection, name)
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
    try:
        domain.setMetadata(kind, xml, place.prefix, place.value, live)
    except libvirt.libvirtError as error:
        raise RecordError(f"libvirt does not take the ABI record: {error}") from None


def main(name: str) -> None:
    """What the hook starts: write the record of ``name`` as soon as libvirt lets it, and log what came of it."""
    import syslog

    syslog.openlog("vgicmgr", syslog.LOG_PID, syslog.LOG_DAEMON)
    shown = ascii(name)
    for attempt in range(TRIES):
        try:
            with connected() as connection:
                done = write_record(connection, name)
        except VgicmgrError as error:
            if attempt == TRIES - 1:
                syslog.syslog(syslog.LOG_WARNING, f"record domain={shown} not-written: {str(error)!a}")
            time.sleep(PAUSE_SECONDS * (attempt + 1))
        else:
            syslog.syslog(syslog.LOG_INFO, f"record domain={shown} {done}")
            return
