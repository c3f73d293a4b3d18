"""Writing a running guest's ABI record into its live ``<metadata>``, by libvirt.

A record says what a guest has seen since it was booted, so only a guest that was booted on this host gets one. Whether
it was is told by libvirt's reason for the domain's state, and by the mark that the hook leaves for each guest that
arrives by migration or from a file (:func:`arrival_mark`), since the reason is lost when a guest is paused.
"""

import time
from pathlib import Path
from typing import Any

from vgicmgr.domain.connection import SYSTEM, Connection, connect, refusals
from vgicmgr.domain.domain import Domain, RecordElement
from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import RecordError, VgicmgrError
from vgicmgr.findings import Severity
from vgicmgr.guest.resolve import resolve
from vgicmgr.host.kernel import Kernel
from vgicmgr.migration.destination import open_destination
from vgicmgr.migration.record import ABIRecord, RecordKind, read_record, same_guest, to_xml
from vgicmgr.qemu.program import InstalledQEMU

MARKS = Path("/run/vgicmgr/arrived")
"""The marks of guests that arrived here, for as long as they run."""
TRIES = 5
PAUSE_SECONDS = 1.0


def arrival_mark(name: str, folder: Path = MARKS) -> Path:
    """The mark that says that the guest of this name arrived here; the hook makes and removes it."""
    return folder / f"domain-{name}"


def take_record(domain: Domain, host: Kernel, *, libvirt: str) -> ABIRecord:
    """What a guest booted on this host sees; ``libvirt`` is the version it was booted under.

    Raises :class:`~vgicmgr.errors.RecordError` where such a guest does not come up here, and
    :class:`~vgicmgr.kvm.errors.KvmError`.
    """
    resolution = resolve(domain, host)
    with open_destination(resolution, host) as (destination, refusals):
        configuration = resolution.configuration
        if destination is None or configuration is None:
            errors = [found for found in (*resolution.findings, *refusals) if found.severity is Severity.ERROR]
            raise RecordError(f"no record can be taken: {'; '.join(found.evidence for found in errors)}")
        if resolution.machine is not None and (unread := resolution.machine.arguments.unread):
            options = ", ".join(f"-{option}" for option in unread)
            raise RecordError(f"no record can be taken: {options} may change the vCPUs in ways that are not known")
        return ABIRecord(
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            kernel=host.kernel,
            qemu=InstalledQEMU(domain.emulator).release or "unknown",
            libvirt=libvirt,
            machine=domain.machine,
            vcpus=domain.vcpus,
            features=configuration.features,
            sve=configuration.sve_vector_lengths,
            steal_time=configuration.steal_time,
            ipa_bits=host.ipa_bits,
            page_size=host.page_size,
            gic_version=configuration.gic_version,
            gicd_iidr=destination.gicd_iidr() or 0,
            icc_ctlr_el1=destination.icc_ctlr_el1(),
            gits_iidr=destination.gits_iidr(),
            gits_typer=destination.gits_typer(),
            registers=destination.first_values(),
            counter_frequency=destination.counter_frequency(),
        )


def write_record(connection: Connection, name: str, *, force: bool = False) -> str:
    """Write the record of the running guest ``name``, unless it has a good one, and say in a word what was done.

    A guest that arrived here keeps the record of its boot, and gets a second one of this host beside it.

    ``force``: even where it is not known that the guest was booted here. Raises
    :class:`~vgicmgr.errors.VgicmgrError`.
    """
    domain = connection.running_domain(name)
    with refusals(f"domain '{name}'"):
        xml = domain.XMLDesc(0).encode()
    guest = read_domain(xml)
    if not guest.needs_gic:
        return "not-needed"
    booted_here = force or _booted_here(domain, guest.name, guest.record)
    if not booted_here and guest.record is None:
        return "unknown-origin"
    with Kernel() as host:
        record = take_record(guest, host, libvirt=connection.libvirt_version())
    kind, element = (RecordKind.BOOT, guest.record) if booted_here else (RecordKind.HOST, guest.host_record)
    if booted_here and guest.host_record:
        _set_metadata(domain, RecordKind.HOST, None)
    if element and _says(element, record):
        return "kept"
    _set_metadata(domain, kind, to_xml(record, namespace=False))
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
        return same_guest(read_record(element), record)
    except RecordError:
        return False


def _set_metadata(domain: Any, kind_of_record: RecordKind, xml: str | None) -> None:
    import libvirt

    kind, live = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_LIVE
    with refusals("libvirt does not take the ABI record"):
        domain.setMetadata(kind, xml, kind_of_record.prefix, kind_of_record.value, live)


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
