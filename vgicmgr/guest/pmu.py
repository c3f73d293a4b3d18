"""The guest's PMU and its interrupt.

Sources: QEMU's ``hw/arm/virt.c`` (virt_cpu_post_init), ``target/arm/kvm.c`` (kvm_arm_pmu_init) and
``target/arm/cpu.c`` (the property ``pmu``); ``Documentation/virt/kvm/devices/vcpu.rst``.
"""

from vgicmgr.findings import Severity
from vgicmgr.guest.addressmap import AddressMap
from vgicmgr.guest.configuration import Source
from vgicmgr.guest.machine import Machine
from vgicmgr.guest.notes import Notes
from vgicmgr.qemu import virt
from vgicmgr.qemu.cpu import takes_pmu_off

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts
    from vgicmgr.qemu.cpu import CPU

SUBJECT = "PMU interrupt"


def resolve_pmu(cpu: "CPU", machine: Machine, host: "HostFacts", address_map: AddressMap, notes: Notes) -> int | None:
    """The INTID of the PMU's interrupt on QEMU's ``virt``; None without a PMU."""
    if not machine.since(virt.PMU_SINCE):
        if cpu.get("pmu") is not None and cpu.on("pmu"):
            notes.find(
                "pmu-unsupported",
                f"a PMU is asked for, but the machine type {machine.type} has none, and QEMU ignores the wish",
                "use a newer machine type",
                severity=Severity.WARNING,
            )
        notes.decide("PMU", "none", Source.MACHINE)
        return None
    if machine.kvm and not host.capability("KVM_CAP_ARM_PMU_V3"):
        _check_without(cpu, machine, host, notes)
        notes.decide("PMU", "none", host_source(host))
        return None
    if not cpu.on("pmu"):
        notes.decide("PMU", "none", Source.XML)
        return None
    return _with(cpu, address_map, Source.MACHINE, notes)


def resolve_pmu_by_map(cpu: "CPU", host: "HostFacts", address_map: AddressMap, notes: Notes) -> int | None:
    """As :func:`resolve_pmu`, under another VMM than QEMU."""
    if not cpu.on("pmu") or not host.capability("KVM_CAP_ARM_PMU_V3"):
        if cpu.get("pmu") is not None and cpu.on("pmu"):
            _find_unsupported(host, notes)
        notes.decide("PMU", "none", host_source(host) if cpu.on("pmu") else Source.XML)
        return None
    return _with(cpu, address_map, Source.MAP, notes)


def host_source(host: "HostFacts") -> Source:
    """Who is said to have decided what the host decides."""
    return Source.KERNEL if host.asked else Source.ASSUMED


def intid_words(intid: int) -> str:
    """An INTID with what kind it is of."""
    return f"INTID {intid} (PPI {intid - 16})" if intid < 32 else f"INTID {intid} (SPI {intid - 32})"


def check_intid(intid: int, vcpus: int, address_map: AddressMap, notes: Notes) -> None:
    """Whether the kernel takes this INTID as the PMU's (vcpu.rst, KVM_ARM_VCPU_PMU_V3_IRQ)."""
    asked = f"{intid_words(intid)} is asked for as the PMU's interrupt"
    if owner := address_map.reserved.get(intid):
        notes.find("pmu-interrupt-clash", f"{asked}, but belongs to {owner}", "choose a PPI that is free")
    if intid >= 32 and vcpus > 1:
        notes.find(
            "pmu-interrupt-shared",
            f"{asked} of {vcpus} vCPUs, but an SPI must differ on each vCPU (only a PPI is the same on all)",
            "choose a PPI, 16 to 31",
        )
    if intid >= address_map.nr_irqs:
        notes.find("pmu-interrupt-range", f"{asked}, but the GIC has {address_map.nr_irqs}", "choose a PPI, 16 to 31")


def _with(cpu: "CPU", address_map: AddressMap, source: Source, notes: Notes) -> int:
    notes.decide("PMU", "PMUv3", Source.XML if cpu.get("pmu") else Source.QEMU)
    notes.decide(SUBJECT, intid_words(address_map.pmu_intid), source)
    return address_map.pmu_intid


def _check_without(cpu: "CPU", machine: Machine, host: "HostFacts", notes: Notes) -> None:
    """KVM has no PMU for guests: QEMU then has no property to turn it on by, nor, since 9.1, off."""
    takes = takes_pmu_off(machine.qemu_version) if cpu.host_cpu else True
    if cpu.get("pmu") is not None and cpu.on("pmu"):
        _find_unsupported(host, notes)
    elif cpu.get("pmu") is not None and takes is False:
        notes.find(
            "pmu-unsupported",
            f"<pmu state='off'/> is asked for, but KVM on {host.name} has no PMU for guests (KVM_CAP_ARM_PMU_V3 is 0), "
            f"and there QEMU {'.'.join(map(str, machine.qemu_version or ()))} has no property pmu to switch off",
            _NO_ELEMENT,
        )
    elif cpu.get("pmu") is not None and takes is None:
        notes.find(
            "pmu-off",
            f"<pmu state='off'/> is asked for, but KVM on {host.name} has no PMU for guests (KVM_CAP_ARM_PMU_V3 is 0), "
            "and there QEMU 9.1 and later have no property pmu to switch off",
            _NO_ELEMENT,
        )


_NO_ELEMENT = "remove <pmu> from <features>: the guest has no PMU there"


def _find_unsupported(host: "HostFacts", notes: Notes) -> None:
    notes.find(
        "pmu-unsupported",
        f"a PMU is asked for, but KVM on {host.name} has none for guests (KVM_CAP_ARM_PMU_V3 is 0)",
        f"{_NO_ELEMENT}; or use a host whose 'vgicmgr check-host' shows a PMU",
    )
