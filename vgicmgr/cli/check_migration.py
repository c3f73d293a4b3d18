"""``vgicmgr check-migration``: whether a guest would arrive on another host, by that host's document."""

import json
from argparse import Namespace, _SubParsersAction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgicmgr.dataclass import replace
from vgicmgr.errors import CannotTell

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterable, Sequence

    from vgicmgr.migration.hostdocument import DocumentHost
    from vgicmgr.migration.record import ABIRecord
    from vgicmgr.domain.settings import DomainSettings
    from vgicmgr.findings import Finding

_MOST_BYTES = 64 << 20


def add_parser(commands: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "check-migration",
        help="tell whether a guest would arrive on another host",
        description="Judge from documents whether a running guest, or the guest of an ABI record ('vgicmgr record show "
        "--format json'), would arrive on the host that a capabilities document ('vgicmgr check-host --format json') "
        "shows. Exits 0 when it would, 1 when it would not, 2 when it cannot be told. The hook on that host has the "
        "last word: it asks the kernel itself.",
    )
    parser.add_argument("guest", metavar="DOMAIN|RECORD", help="a running domain, or a file with a record in JSON")
    parser.add_argument("--to", metavar="HOST.json", required=True, type=Path, help="the destination's document")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="HOST.json",
        type=Path,
        help="the document of the host that the guest of a record in a file has moved to since its boot",
    )
    parser.add_argument("--xml", metavar="FILE", type=Path, help="the domain XML that belongs to a record in a file")
    parser.add_argument("--connect", metavar="URI", default="qemu:///system", help="libvirt's (default: %(default)s)")
    parser.add_argument("--explain", action="store_true", help="show each register that the two sides differ in")
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Judge and print; raises :class:`~vgicmgr.errors.VgicmgrError`."""
    from vgicmgr.migration.arrival import findings
    from vgicmgr.migration.hostdocument import host_of
    from vgicmgr.migration.record import after_move
    from vgicmgr.migration.scratch import wants_its
    from vgicmgr.findings import Verdict
    from vgicmgr.qemu.cpu import cpu_of

    record, settings, arguments = _guest(options)
    cpu = cpu_of(settings, arguments)
    if options.source:
        # QEMU sends the registers of the host that the guest is on
        source, _ = host_of(_json(options.source), settings, cpu, with_its=wants_its(arguments))
        record = after_move(record, replace(record, registers=source.first_values()))
    host, rules = host_of(_json(options.to), settings, cpu, with_its=wants_its(arguments))
    verdict = Verdict((*findings(record, settings, rules, host), *_assigned(options, settings, arguments)))
    for finding in verdict.findings:
        print(f"{finding.severity.value}: {finding}")
    if options.explain:
        explain(record, host)
    name = f"on the host with Linux {host.kernel} and {rules.value} rules in QEMU"
    print(f"the guest {'would' if verdict.ok else 'would not'} arrive {name}")
    return 0 if verdict.ok else 1


def _assigned(options: Namespace, settings: "DomainSettings", arguments: "Sequence[str]") -> "Iterable[Finding]":
    """What stands against the guest's assigned devices, which are on the host that it leaves."""
    from vgicmgr.domain.hostdevices import devices_of_arguments

    devices = (*settings.host_devices, *devices_of_arguments(arguments))
    if not devices:
        return ()
    from vgicmgr.cli.translate import is_remote
    from vgicmgr.host.linux import read_kernel_log
    from vgicmgr.vfio.assigned import AssignedDevices, read_assigned
    from vgicmgr.guest.assignment import migration_findings
    from vgicmgr.guest.hostfacts import facts_of_document

    here = not Path(options.guest).is_file() and not is_remote(options.connect)
    assigned = read_assigned(device.address for device in devices) if here else AssignedDevices()
    direct_injection = ""
    if options.source:
        direct_injection = facts_of_document(_json(options.source)).direct_injection
    elif here and (log := read_kernel_log()).gicv4:
        direct_injection = log.gicv4_version or ""
    return migration_findings(devices, assigned, direct_injection)


def explain(record: "ABIRecord", host: "DocumentHost") -> None:
    """Print, a line each, the registers that differ, and why that matters or not."""
    from vgicmgr.kvm.registers import register_name

    refused = {refusal.number: str(refusal) for refusal in host.refused(record.registers)}
    values = dict(record.registers)
    for number in sorted(values.keys() | host.registers.keys()):
        name = register_name(number)
        if number not in host.registers:
            words = "only the guest has it"
        elif number not in values:
            words = "only the host has it: it keeps the value it has there"
        elif number in refused:
            words = f"refused: {refused[number]}"
        elif values[number] != host.registers[number].value:
            words = f"guest has {values[number]:#x}, the host {host.registers[number].value:#x}, and takes the guest's"
        else:
            continue
        print(f"  {name:36} {words}")


def _guest(options: Namespace) -> "tuple[ABIRecord, DomainSettings, tuple[str, ...]]":
    from vgicmgr.migration.document import from_document
    from vgicmgr.migration.incoming import read_incoming
    from vgicmgr.domain.settings import read_domain

    path = Path(options.guest)
    if path.is_file():
        record = from_document(_json(path))
        if options.xml is None:
            return record, _settings_of(record), ()
        xml = _read(options.xml)
        return record, read_domain(xml), read_incoming(xml).arguments
    from vgicmgr.domain.connection import connect

    with connect(options.connect) as connection:
        xml = connection.running_xml(options.guest)
    incoming = read_incoming(xml)
    record_sent = incoming.sent()
    if record_sent is None:
        raise CannotTell(f"domain '{options.guest}' has no ABI record", "write it: vgicmgr record write DOMAIN")
    return record_sent, read_domain(xml), incoming.arguments


def _settings_of(record: "ABIRecord") -> "DomainSettings":
    """What the record alone says of the domain: features that it has not are off, the memory is the least."""
    from vgicmgr.domain.settings import CpuFeature, DomainSettings

    def feature(name: str, *, on: bool) -> CpuFeature:
        return CpuFeature(name, "require" if on else "disable")

    return DomainSettings(
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
        pmu="KVM_ARM_VCPU_PMU_V3" in record.features,
        cpu_mode="host-passthrough",
        cpu_model="",
        cpu_features=(
            feature("sve", on="KVM_ARM_VCPU_SVE" in record.features),
            feature("pauth", on="KVM_ARM_VCPU_PTRAUTH_ADDRESS" in record.features),
            feature("kvm-steal-time", on=record.steal_time),
        ),
        qemu_arguments=False,
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError):
        raise CannotTell(f"{path} is no JSON document") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise CannotTell(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _MOST_BYTES:
        raise CannotTell(f"{path} is larger than {_MOST_BYTES >> 20} MiB")
    return content
