"""What a running QEMU configured, held against the configuration that a domain's settings come to; pure."""

from collections.abc import Iterator, Mapping
from enum import Enum
from html import escape
from typing import TYPE_CHECKING

from vgicmgr.dataclass import dataclass
from vgicmgr.guest.configuration import VGICConfiguration
from vgicmgr.qemu.gic import MSIController
from vgicmgr.qemu.machine import machine_version

if TYPE_CHECKING:
    from vgicmgr.guest.resolve import Resolution
    from vgicmgr.host.facts import HostFacts
    from vgicmgr.qemu.devicetree import GuestTree
    from vgicmgr.qemu.running import RunningMachine, Value


class Basis(Enum):
    """What the configuration that QEMU is held against was derived from."""

    DOMAIN_XML = "domain XML"
    QEMU = "QEMU's properties"
    """The machine's own properties, where no domain XML was given: whether QEMU's devices are what they come to."""


@dataclass(frozen=True)
class Row:
    """One subject as each side has it; None where a side does not say."""

    subject: str
    expected: str | None
    running: str | None
    device_tree: str | None = None

    @property
    def differs(self) -> bool:
        """Whether two sides that say something say different things."""
        said = {value for value in (self.expected, self.running, self.device_tree) if value is not None}
        return len(said) > 1


@dataclass(frozen=True)
class Inspection:
    """A running machine beside what it should be."""

    running: "RunningMachine"
    resolution: "Resolution"
    basis: Basis
    rows: tuple[Row, ...]

    @property
    def same(self) -> bool:
        """Whether no row differs; not so where the settings come to no configuration at all."""
        return self.resolution.configuration is not None and not any(row.differs for row in self.rows)


def inspect_machine(running: "RunningMachine", xml: bytes = b"", *, host: "HostFacts | None" = None) -> Inspection:
    """Hold what QEMU configured against a domain XML, or without one against the machine's own properties.

    ``host``: the host it runs on, where it is known. Raises
    :class:`~vgicmgr.errors.DomainXMLError`.
    """
    from vgicmgr.domain.metadata import read_wishes
    from vgicmgr.domain.xml import read_domain
    from vgicmgr.guest.resolve import resolve
    from vgicmgr.host.assumed import ASSUMED_HOST
    from vgicmgr.qemu.program import KnownQEMU

    document = xml or domain_of(running)
    resolution = resolve(
        read_domain(document),
        host or ASSUMED_HOST,
        wished=read_wishes(document),
        qemu=KnownQEMU(version=running.version),
    )
    return inspect_running(running, resolution, Basis.DOMAIN_XML if xml else Basis.QEMU)


def inspect_running(running: "RunningMachine", resolution: "Resolution", basis: Basis) -> Inspection:
    """Hold what QEMU configured, and what it tells the guest, against a resolved configuration."""
    return Inspection(running, resolution, basis, tuple(_rows(running, resolution)))


def _rows(running: "RunningMachine", resolution: "Resolution") -> Iterator[Row]:
    tree, expected = running.device_tree, _expected(resolution)
    told = _told(tree, running.gic_version) if tree else {}
    for subject, value in _configured(running).items():
        wanted = expected.get(subject)
        if {value, wanted, told.get(subject)} <= {_NO, None} or (subject in _FEATURES and wanted is None):
            continue
        yield Row(subject, wanted, value, told.get(subject))
    for name, value in resolution.cpu.properties if resolution.cpu else ():
        if name != "pmu":
            has = running.cpu_properties.get(name, _NO)
            yield Row(f"CPU property {name}", value, _on(has) if isinstance(has, bool) else str(has))


_NO = "no"
_FEATURES = ("SVE vectors", "pointer authentication", "64-bit EL1")
"""Of a vCPU under KVM; TCG's CPUs have whatever their model has."""


def _expected(resolution: "Resolution") -> dict[str, str]:
    """What the settings say, by subject; without those that they, or an unknown host, leave open."""
    configuration, machine = resolution.configuration, resolution.machine
    if configuration is None or machine is None:
        return {}
    found = {
        "accelerator": "KVM" if machine.kvm else "TCG",
        "GIC version": str(configuration.gic_version),
        "GIC is in": "KVM" if machine.in_kernel else "QEMU",
        "MSI controller": _MSI[configuration.msi],
        "distributor": hex(configuration.distributor.base),
        "CPU interface": hex(configuration.cpu_interface.base) if configuration.cpu_interface else _NO,
        "redistributors": _join(hex(region.base) for region in configuration.redistributors),
        "vCPUs of each": _join(str(region.count) for region in configuration.redistributors),
        "ITS": hex(configuration.its.base) if configuration.its else _NO,
        "GICv2m": hex(configuration.gicv2m.base) if configuration.gicv2m else _NO,
        "interrupts": str(configuration.nr_irqs),
        "vCPUs": str(configuration.vcpus),
        "vCPUs at most": str(configuration.max_vcpus),
        "PMU interrupt": _pmu(configuration.pmu_intid),
    }
    if machine_version(machine.type):
        found["machine type"] = machine.type
    if resolution.cpu and resolution.cpu.model:
        found["CPU"] = resolution.cpu.model
    if machine.kvm:
        found |= _features(configuration)
    if not resolution.host_asked:
        for subject in _FEATURES[:2]:
            found.pop(subject, None)
    return found


def _features(configuration: VGICConfiguration) -> dict[str, str]:
    return {
        "SVE vectors": _join(str(bits) for bits in configuration.sve_vector_lengths),
        "pointer authentication": _on("KVM_ARM_VCPU_PTRAUTH_ADDRESS" in configuration.features),
        "64-bit EL1": _on("KVM_ARM_VCPU_EL1_32BIT" not in configuration.features),
    }


def _configured(running: "RunningMachine") -> dict[str, str]:
    """What QEMU says, by subject, in the order in which it is shown."""
    controller = _controller(its=running.its is not None, gicv2m=running.gicv2m is not None)
    cpu = running.cpu_properties
    return {
        "machine type": running.machine,
        "accelerator": running.accelerator.upper(),
        "GIC version": str(running.gic_version),
        "GIC is in": "KVM" if running.gic_in_kernel else "QEMU",
        "MSI controller": _MSI[controller],
        "distributor": hex(running.distributor.base),
        "CPU interface": hex(running.cpu_interface.base) if running.cpu_interface else _NO,
        "redistributors": _join(hex(region.base) for region, _ in running.redistributors),
        "vCPUs of each": _join(str(count) for _, count in running.redistributors),
        "ITS": hex(running.its.base) if running.its else _NO,
        "GICv2m": hex(running.gicv2m.base) if running.gicv2m else _NO,
        "interrupts": str(running.nr_irqs),
        "vCPUs": str(len(running.vcpus)),
        "vCPUs at most": str(running.max_vcpus),
        "PMU interrupt": _join(dict.fromkeys(_pmu(vcpu.pmu_intid) for vcpu in running.vcpus)),
        "CPU": _join(dict.fromkeys(vcpu.cpu_type.removesuffix("-arm-cpu") for vcpu in running.vcpus)),
        "SVE vectors": _join(str(bits) for bits in running.sve_vector_lengths),
        "pointer authentication": _on(cpu.get("pauth") is True),
        "64-bit EL1": _on(cpu.get("aarch64") is not False),
    }


def _told(tree: "GuestTree", gic_version: int) -> dict[str, str]:
    """What the device tree tells the guest, by subject; it has no word for a GICv4 but GICv3's."""
    controller = _controller(its=tree.its is not None, gicv2m=tree.gicv2m is not None)
    return {
        "GIC version": str(gic_version if tree.gic_version == min(gic_version, 3) else tree.gic_version),
        "MSI controller": _MSI[controller],
        "distributor": hex(tree.distributor),
        "CPU interface": _NO if tree.cpu_interface is None else hex(tree.cpu_interface),
        "redistributors": _join(map(hex, tree.redistributors)),
        "ITS": _NO if tree.its is None else hex(tree.its),
        "GICv2m": _NO if tree.gicv2m is None else hex(tree.gicv2m),
        "vCPUs": str(tree.vcpus),
        "PMU interrupt": _pmu(tree.pmu_intid),
    }


def _controller(*, its: bool, gicv2m: bool) -> MSIController:
    return MSIController.ITS if its else MSIController.GICV2M if gicv2m else MSIController.NONE


_MSI = {MSIController.ITS: "an ITS", MSIController.GICV2M: "a GICv2m", MSIController.NONE: "none"}


def _join(words: "Iterator[str] | Mapping[str, None]") -> str:
    return ", ".join(words) or _NO


def _on(value: bool) -> str:
    return "on" if value else "off"


def _pmu(intid: int | None) -> str:
    return "no PMU" if intid is None else f"INTID {intid}"


def domain_of(running: "RunningMachine") -> bytes:
    """A domain XML that asks for what the machine's own properties say, for where there is no other."""
    kvm, model = running.accelerator == "kvm", running.vcpus[0].cpu_type.removesuffix("-arm-cpu")
    mode = {"host": "host-passthrough", "max": "maximum"}.get(model, "custom")
    named = f"<model>{escape(model)}</model>" if mode == "custom" else ""
    aarch32 = "<feature policy='disable' name='aarch64'/>" if running.cpu_properties.get("aarch64") is False else ""
    growth = ""
    if running.max_memory > running.memory:
        growth = f"<maxMemory slots='{running.memory_slots}' unit='B'>{running.max_memory}</maxMemory>"
    pmu = running.cpu_properties.get("pmu")
    features = f"<pmu state='{_on(pmu)}'/>" if isinstance(pmu, bool) else ""
    options = "".join(
        f"<q:arg value='-machine'/><q:arg value='{escape(option)}'/>" for option in _options(running.properties)
    )
    return f"""\
<domain type='{"kvm" if kvm else "qemu"}' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{escape(running.monitor)}</name>
  <memory unit='B'>{running.memory}</memory>{growth}
  <vcpu current='{len(running.vcpus)}'>{running.max_vcpus}</vcpu>
  <os><type arch='aarch64' machine='{escape(running.machine)}'>hvm</type></os>
  <features>{features}</features>
  <cpu mode='{mode}'>{named}{aarch32}</cpu>
  <q:commandline>{options}</q:commandline>
</domain>
""".encode(errors="replace")


def _options(properties: "Mapping[str, Value]") -> Iterator[str]:
    """Those that bear on the interrupt controller; where there is ``msi``, ``its`` only repeats it."""
    for name, value in properties.items():
        if not (name == "its" and "msi" in properties) and value != "":
            yield f"{name}={_on(value) if isinstance(value, bool) else value}"
