"""``vgicmgr check-migration``: whether a guest would arrive on another host, by that host's document."""

import json
import sys
from argparse import Namespace, _SubParsersAction
from typing import TYPE_CHECKING, Any

from vgicmgr.cli.inputs import MAX_DOCUMENT_BYTES, add_guest, is_file, is_remote, read_file, read_input
from vgicmgr.dataclass import replace
from vgicmgr.errors import CannotTell

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterable

    from vgicmgr.domain.domain import Domain
    from vgicmgr.findings import Finding
    from vgicmgr.guest.resolve import Resolution
    from vgicmgr.host.documented import DocumentedHost
    from vgicmgr.host.facts import HostFacts
    from vgicmgr.migration.record import ABIRecord
    from vgicmgr.qemu.program import QEMUFacts


def add_parser(commands: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "check-migration",
        help="tell whether a guest would arrive on another host",
        description="Judge from documents whether a running guest, or the guest of an ABI record ('vgicmgr record show "
        "--format json'), would arrive on the host that a capabilities document ('vgicmgr check-host --format json') "
        "shows, and could start there. Exits 0 when it would, 1 when it would not, 2 when it cannot be told. The hook "
        "on that host has the last word: it asks the kernel itself.",
    )
    add_guest(parser, "guest", "a running domain, or a file with a record in JSON", (".json",))
    parser.add_argument("--to", metavar="HOST.json", required=True, help="the destination's document")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="HOST.json",
        help="the document of the host that the guest of a record in a file has moved to since its boot",
    )
    parser.add_argument("--xml", metavar="FILE", help="the domain XML that belongs to a record in a file")
    parser.add_argument("--connect", metavar="URI", default="qemu:///system", help="libvirt's (default: %(default)s)")
    parser.add_argument(
        "--ask-qemu",
        action="store_true",
        help="ask the running guest's QEMU, too, whether it lets the guest leave: by libvirt's monitor passthrough, "
        "which marks the domain as tainted",
    )
    parser.add_argument("--qmp", metavar="SOCKET", help="ask it by this monitor: a UNIX socket's path, or HOST:PORT")
    parser.add_argument("--explain", action="store_true", help="show each register that the two sides differ in")
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Judge and print; raises :class:`~vgicmgr.errors.VgicmgrError`."""
    from vgicmgr.findings import Verdict
    from vgicmgr.guest.resolve import resolve
    from vgicmgr.migration.arrival import judge_arrival
    from vgicmgr.migration.departure import not_migratable

    guest, record = _guest(options)
    host = _host(options.to)
    domain = guest or _domain_of(record, host)
    resolution = resolve(domain, host)
    blocked = any(not_migratable(resolution))  # of such vCPUs documents need not tell
    if options.source and not blocked:
        source = _host(options.source)
        record = _from_source(guest or _domain_of(record, source), record, source)
    arrival = judge_arrival(domain, record, host)
    verdict = Verdict((*arrival.findings, *_blocked_by_qemu(options), *_assigned(options, resolution)))
    for finding in verdict.findings:
        print(f"{finding.severity.value}: {finding}")
    if options.explain and not blocked:
        explain(record, resolution, host)
    print(f"the guest {'would' if verdict.ok else 'would not'} arrive on the host with Linux {host.kernel}")
    return 0 if verdict.ok else 1


def _host(path: str) -> "DocumentedHost":
    from vgicmgr.host.documented import read_document

    return read_document(read_file(path, MAX_DOCUMENT_BYTES))


def _from_source(domain: "Domain", record: "ABIRecord", source: "DocumentedHost") -> "ABIRecord":
    """The record with the registers that QEMU sends from the host that the guest has moved to."""
    from vgicmgr.guest.resolve import resolve
    from vgicmgr.migration.destination import open_destination
    from vgicmgr.migration.record import after_move

    resolution = resolve(domain, source)
    with open_destination(resolution, source) as (destination, _):
        if destination is None:
            raise CannotTell("by its document, the guest cannot run on the host that it is said to be on")
        qemu = source_release(resolution.machine.qemu, record) if resolution.machine else "unknown"
        return after_move(record, replace(record, registers=destination.first_values(), qemu=qemu))


def source_release(qemu: "QEMUFacts", record: "ABIRecord") -> str:
    """The source's QEMU; where its document has no release, that of the guest's boot if it is of the same version."""
    version = ".".join(map(str, qemu.version or ()))
    booted = record.qemu if version and record.qemu.startswith(f"{version}.") else ""
    return qemu.release or booted or version or "unknown"


def _blocked_by_qemu(options: Namespace) -> "Iterable[Finding]":
    """What the QEMU of the running guest says, where it is to be asked."""
    from vgicmgr.migration.departure import blocked_by_qemu

    if options.qmp:
        from vgicmgr.qemu.running import ask_socket_blocked_reasons

        return blocked_by_qemu(ask_socket_blocked_reasons(options.qmp))
    if not options.ask_qemu:
        return ()
    if is_file(options.guest, options):
        raise CannotTell("the guest of a record in a file has no QEMU to ask", "name its monitor: --qmp SOCKET")
    from vgicmgr.domain.connection import connect
    from vgicmgr.qemu.running import ask_domain_blocked_reasons

    with connect(options.connect, read_only=False) as connection:
        return blocked_by_qemu(ask_domain_blocked_reasons(connection.running_domain(options.guest)))


def _assigned(options: Namespace, resolution: "Resolution") -> "Iterable[Finding]":
    """What stands against the guest's assigned devices, which are on the host that it leaves."""
    from vgicmgr.guest.devices import host_devices

    devices = host_devices(resolution.domain, resolution.machine) if resolution.machine else ()
    if not devices:
        return ()
    from vgicmgr.guest.assignment import migration_findings
    from vgicmgr.host.linux import read_kernel_log
    from vgicmgr.vfio.assigned import AssignedDevices, read_assigned

    here = not is_file(options.guest, options) and not is_remote(options.connect)
    assigned = read_assigned(device.address for device in devices) if here else AssignedDevices()
    direct_injection = ""
    if options.source:
        direct_injection = _host(options.source).direct_injection
    elif here and (log := read_kernel_log()).gicv4:
        direct_injection = log.gicv4_version or ""
    return migration_findings(devices, assigned, direct_injection)


def explain(record: "ABIRecord", resolution: "Resolution", host: "HostFacts") -> None:
    """Print, a line each, the registers that differ, and why that matters or not."""
    from vgicmgr.kvm.registers import register_name
    from vgicmgr.migration.destination import open_destination

    with open_destination(resolution, host) as (destination, _):
        if destination is None:
            return
    refused = {refusal.number: str(refusal) for refusal in destination.refused(record.registers)}
    values, first = dict(record.registers), dict(destination.first_values())
    for number in sorted(values.keys() | first.keys()):
        name = register_name(number)
        if number not in first:
            words = "only the guest has it"
        elif number not in values:
            words = "only the host has it: it keeps the value it has there"
        elif number in refused:
            words = f"refused: {refused[number]}"
        elif values[number] != first[number]:
            words = f"guest has {values[number]:#x}, the host {first[number]:#x}, and takes the guest's"
        else:
            continue
        print(f"  {name:36} {words}")


def _guest(options: Namespace) -> "tuple[Domain | None, ABIRecord]":
    """The guest and its record; None where the record is all that is known of it."""
    from vgicmgr.domain.xml import read_domain
    from vgicmgr.migration.document import from_document
    from vgicmgr.migration.record import as_migrated

    if is_file(options.guest, options):
        record = from_document(_json(options.guest))
        if options.xml is not None:
            return read_domain(read_file(options.xml)), record
        print(
            "vgicmgr: without --xml the guest is taken for one of 1 GiB, with ACPI and without devices, besides what "
            "its record says",
            file=sys.stderr,
        )
        return None, record
    from vgicmgr.domain.connection import connect

    with connect(options.connect) as connection:
        domain = read_domain(connection.running_xml(options.guest))
    migrated = as_migrated(domain)
    if migrated is None:
        raise CannotTell(f"domain '{options.guest}' has no ABI record", "write it: vgicmgr record write DOMAIN")
    return domain, migrated


def _domain_of(record: "ABIRecord", host: "DocumentedHost") -> "Domain":
    """What the record alone says of the domain: features that it does not have are off, the memory is the least.

    A guest without a PMU may have been booted where KVM has none; newer QEMUs have nothing to switch off there. Whether
    there is ACPI the record does not say: most guests have it, and it is what does not fit smaller pages.
    """
    from vgicmgr.domain.domain import CpuFeature, Domain
    from vgicmgr.kvm.registers import register_id

    without_pmu = "KVM_ARM_VCPU_PMU_V3" not in record.features and host.capability("KVM_CAP_ARM_PMU_V3")
    options = []
    if record.gic_version == 3:
        options.append(f"its={'off' if record.gits_iidr is None else 'on'}")
    if "KVM_ARM_VCPU_HAS_EL2" in record.features:
        options.append("virtualization=on")
    if (record.value(register_id("ID_AA64PFR1_EL1")) or 0) >> 8 & 0xF:  # MTE: 0 without KVM_CAP_ARM_MTE
        options.append("mte=on")

    def feature(name: str, *, on: bool) -> CpuFeature:
        return CpuFeature(name, "require" if on else "disable")

    return Domain(
        name="",
        uuid="",
        virt_type="kvm",
        arch="armv7l" if "KVM_ARM_VCPU_EL1_32BIT" in record.features else "aarch64",
        machine=record.machine,
        emulator="",
        vcpus=record.vcpus,
        current_vcpus=record.vcpus,
        memory=1 << 30,
        max_memory=0,
        memory_slots=0,
        gic_version=str(record.gic_version),
        pmu=False if without_pmu else None,
        cpu_mode="host-passthrough",
        cpu_model="",
        cpu_features=(
            *(() if "KVM_ARM_VCPU_SVE" in record.features else (feature("sve", on=False),)),
            *(() if "KVM_ARM_VCPU_PTRAUTH_ADDRESS" in record.features else (feature("pauth", on=False),)),
            *(() if record.steal_time else (feature("kvm-steal-time", on=False),)),
        ),
        qemu_arguments=("-machine", ",".join(options)) if options else (),
        acpi=True,
    )


def _json(name: str) -> Any:
    try:
        return json.loads(read_input(name, MAX_DOCUMENT_BYTES))
    except (ValueError, RecursionError):
        raise CannotTell(f"{name} is no JSON document") from None
