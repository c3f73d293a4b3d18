"""Writing a running guest's ABI record into its live ``<metadata>``, by libvirt.

A record says what a guest has seen since it was booted, so only a guest that was booted on this host gets one; where it
was, :mod:`vgicmgr.migration.origin` tells. One that arrived gets this host's beside the one that it has.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from vgicmgr.dataclass import replace
from vgicmgr.domain.connection import (
    SYSTEM,
    Connection,
    DomainNotRunning,
    LibvirtError,
    connect,
    refusals,
)
from vgicmgr.domain.domain import Domain, RecordElement
from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import RecordError, VgicmgrError
from vgicmgr.findings import Severity
from vgicmgr.guest.resolve import resolve
from vgicmgr.host.counter import same_frequency
from vgicmgr.host.kernel import Kernel
from vgicmgr.host.linux import read_kernel_log
from vgicmgr.migration import marks
from vgicmgr.migration.destination import open_destination
from vgicmgr.migration.origin import Evidence, Origin, Told, tell_origin
from vgicmgr.migration.record import ABIRecord, RecordKind, read_record, same_guest, to_xml
from vgicmgr.qemu.process import QEMUProcess, find_process
from vgicmgr.qemu.program import InstalledQEMU

TRIES = 5
PAUSE_SECONDS = 1.0


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
            counter_frequency=_as_told(destination.counter_frequency()),
        )


def _as_told(measured: int | None) -> int | None:
    """A frequency as the kernel log has it, which is more precise, where that is what was measured."""
    told = read_kernel_log().counter_frequency
    return told if told and measured and same_frequency(told, measured) else measured


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
    process = find_process(guest.name, guest.uuid)
    if not force and _is_of(guest.host_record or guest.record, guest, process):
        return "kept"
    booted_here = force or origin_of(domain, guest, process).origin is Origin.BOOTED_HERE
    if not booted_here and guest.record is None:
        return "unknown-origin"
    with Kernel() as host:
        taken = take_record(guest, host, libvirt=connection.libvirt_version())
    record = replace(
        taken, uuid=guest.uuid, host=os.uname().nodename, process=process.identity if process is not None else ""
    )
    kind, element = (RecordKind.BOOT, guest.record) if booted_here else (RecordKind.HOST, guest.host_record)
    if booted_here and guest.host_record:
        _set_metadata(domain, RecordKind.HOST, None)
    if element and _says(element, record):
        return "kept"
    _set_metadata(domain, kind, to_xml(record, namespace=False))
    # libvirt has taken it when it had done what it was at: it may have loaded a snapshot meanwhile
    new = booted_here and not force and element is None
    if new and origin_of(domain, guest, process).origin is Origin.ARRIVED:
        _set_metadata(domain, kind, None)
        return "unknown-origin"
    return "written" if booted_here else "moved"


def origin_of(domain: Any, guest: Domain, process: QEMUProcess | None) -> Told:
    """Where a running guest (libvirt's ``virDomain``) was booted; raises :class:`LibvirtError`."""
    with refusals(f"domain '{guest.name}'"):
        state, reason = domain.state()
    return tell_origin(
        Evidence(
            state,
            reason,
            process.arguments if process is not None else None,
            marks.is_marked(guest.name),
            guest.record is not None,
        )
    )


def _is_of(element: RecordElement | None, guest: Domain, process: QEMUProcess | None) -> bool:
    """Whether a record was written for this domain and this very QEMU."""
    if element is None or process is None:
        return False
    try:
        record = read_record(element)
    except RecordError:
        return False
    return (record.uuid, record.process) == (guest.uuid, process.identity)


def _says(element: RecordElement, record: ABIRecord) -> bool:
    """Whether a record says this already, of the same domain and, as far as that is known, the same QEMU."""
    try:
        former = read_record(element)
    except RecordError:
        return False
    return (
        same_guest(former, record)
        and former.uuid == record.uuid
        and (not record.process or former.process == record.process)
    )


def _set_metadata(domain: Any, kind_of_record: RecordKind, xml: str | None) -> None:
    import libvirt

    kind, live = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_LIVE
    with refusals("libvirt does not take the ABI record"):
        domain.setMetadata(kind, xml, kind_of_record.prefix, kind_of_record.value, live)


def write_when_free(name: str, uri: str = SYSTEM, *, sleep: Callable[[float], None] = time.sleep) -> str:
    """As :func:`write_record`, again while libvirt is busy or cannot be reached; "gone" where the guest no longer runs.

    The one policy of retries, with systemd and without. Raises :class:`~vgicmgr.errors.VgicmgrError`.
    """
    for attempt in range(1, TRIES + 1):
        try:
            with connect(uri, read_only=False) as connection:
                return write_record(connection, name)
        except DomainNotRunning:
            return "gone"
        except LibvirtError:
            if attempt == TRIES:
                raise
            sleep(PAUSE_SECONDS * attempt)
    raise AssertionError("not reached")


def main(name: str) -> int:
    """What the hook starts where systemd does not: write the record of ``name``, and log what came of it."""
    import syslog

    syslog.openlog("vgicmgr", syslog.LOG_PID, syslog.LOG_DAEMON)
    shown = ascii(name)
    try:
        done = write_when_free(name)
    except VgicmgrError as error:
        syslog.syslog(syslog.LOG_WARNING, f"record domain={shown} not-written: {str(error)!a}")
        return 1
    syslog.syslog(syslog.LOG_INFO, f"record domain={shown} {done}")
    return 0
