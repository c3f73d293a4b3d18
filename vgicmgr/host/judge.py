"""What is missing or suspicious on a host: capabilities in, findings out."""

from collections.abc import Iterator

from vgicmgr.findings import Finding, Verdict, finding
from vgicmgr.host.capabilities import ITS, GICv3, HostCapabilities
from vgicmgr.kvm import uapi

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.qemu.emulator import Emulator

NEEDED = {
    "KVM_CAP_DEVICE_CTRL": "QEMU makes the GIC through the device control API",
    "KVM_CAP_ONE_REG": "QEMU reads and writes the registers of a vCPU by it",
    "KVM_CAP_ARM_PSCI_0_2": "guests start their other vCPUs and power off by PSCI",
    "KVM_CAP_VCPU_ATTRIBUTES": "the PMU's interrupt is set by it",
    "KVM_CAP_IRQ_ROUTING": "MSIs are routed to the ITS by it",
    "KVM_CAP_IRQFD": "vhost and VFIO raise interrupts by it",
    "KVM_CAP_SIGNAL_MSI": "MSIs of emulated devices are raised by it",
}
"""Capabilities without which guests do not run as they normally do, and why."""

NORMAL_IPA_BITS = 40
"""With fewer, QEMU leaves out the virt machine's 512 GiB of high PCI MMIO space (hw/arm/virt.c)."""


def judge_host(host: HostCapabilities) -> Verdict:
    """Whether all that guests normally need is there; every finding has a remedy or says that there is none."""
    return Verdict((*_kvm(host), *_gic(host), *_its(host), *_pmu(host), *_qemu(host), *_unanswered(host)))


_NEWER_KERNEL = "boot a newer kernel"


def _kvm(host: HostCapabilities) -> Iterator[Finding]:
    if host.api_version != uapi.KVM_API_VERSION:
        yield finding(
            "kvm-api-version",
            f"KVM_GET_API_VERSION is {host.api_version}, not {uapi.KVM_API_VERSION}",
            "this is no KVM that QEMU can use: boot a current kernel",
        )
    for name, purpose in NEEDED.items():
        if not host.capabilities.get(name):
            yield finding("capability-missing", f"{name} is 0: {purpose}", _NEWER_KERNEL)
    if host.ipa_bits < NORMAL_IPA_BITS:
        yield finding(
            "ipa-size-small",
            f"guest physical addresses have {host.ipa_bits} bits (KVM_CAP_ARM_VM_IPA_SIZE)",
            "a limit of this CPU: guests have less room for memory and no high PCI MMIO space, "
            "and must not come from or go to hosts with more",
        )
    if len(host.machine.core_types) > 1:
        kinds = ", ".join(f"{core.midr:#010x}" for core in host.machine.core_types)
        yield finding(
            "cpu-types-mixed",
            f"the cores are of different types (MIDR_EL1 {kinds})",
            "pin each guest to cores of one type (<vcpu cpuset='…'>): elsewhere its vCPUs may fail to start, "
            "and its PMU does not count",
        )


def _gic(host: HostCapabilities) -> Iterator[Finding]:
    if not host.gic_versions and not host.unanswered:
        yield finding(
            "gic-missing",
            "no guest can have a GIC in the kernel: KVM_CREATE_DEVICE refuses KVM_DEV_TYPE_ARM_VGIC_V2 and _V3",
            "see 'dmesg | grep -e kvm -e GIC': the firmware must describe the GIC's virtualization extensions "
            "and their maintenance interrupt",
        )
    elif not host.gicv3 and host.gicv2:
        yield finding(
            "gicv3-missing",
            f"guests cannot have a GICv3 (KVM_DEV_TYPE_ARM_VGIC_V3): no ITS, at most {host.gicv2.max_vcpus} vCPUs",
            "needs a host with a GICv3 or later; on this one give domains <gic version='2'/>",
        )
    for gic, name in ((host.gicv2, "GICv2"), (host.gicv3, "GICv3")):
        if gic is not None and not gic.registers:
            yield finding(
                "gic-registers-missing",
                f"the {name}'s state cannot be saved (KVM_DEV_ARM_VGIC_GRP_DIST_REGS): guests cannot migrate",
                _NEWER_KERNEL,
            )
    if host.gicv3 is not None:
        yield from _gicv3(host.gicv3)


def _gicv3(gic: GICv3) -> Iterator[Finding]:
    if not gic.redistributor_regions:
        yield finding(
            "redistributor-regions-missing",
            "a GICv3 has only one region of redistributors (KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION): "
            "at most 123 vCPUs in a guest",
            f"{_NEWER_KERNEL} (4.18 or later)",
        )
    if not gic.line_level:
        yield finding(
            "line-level-missing",
            "the input levels of interrupts cannot be saved (KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO)",
            _NEWER_KERNEL,
        )
    if not gic.save_pending_tables:
        yield finding(
            "pending-tables-missing",
            "pending LPIs cannot be saved (KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES): guests with an ITS cannot migrate",
            _NEWER_KERNEL,
        )


def _its(host: HostCapabilities) -> Iterator[Finding]:
    if host.its is None:
        if host.gicv3 is not None and not host.unanswered:
            yield finding(
                "its-missing",
                "guests cannot have an ITS (KVM_DEV_TYPE_ARM_VGIC_ITS), so their PCI devices have no MSIs",
                _NEWER_KERNEL,
            )
        return
    yield from _present_its(host.its)


def _present_its(its: ITS) -> Iterator[Finding]:
    if not its.msi_devid:
        yield finding(
            "msi-devid-missing",
            "MSIs carry no device id (KVM_CAP_MSI_DEVID), by which the ITS translates them",
            _NEWER_KERNEL,
        )
    if not (its.registers and its.save_tables and its.restore_tables):
        yield finding(
            "its-state-missing",
            "the ITS's state cannot be saved and restored (KVM_DEV_ARM_VGIC_GRP_ITS_REGS, KVM_DEV_ARM_ITS_SAVE_TABLES, "
            "KVM_DEV_ARM_ITS_RESTORE_TABLES): guests cannot migrate",
            _NEWER_KERNEL,
        )


def _pmu(host: HostCapabilities) -> Iterator[Finding]:
    if not host.capabilities.get("KVM_CAP_ARM_PMU_V3"):
        yield finding(
            "pmu-missing",
            "guests cannot have a PMU (KVM_CAP_ARM_PMU_V3): no performance counters in them, "
            "and a domain that names <pmu> (even state='off') does not start",
            "the firmware must describe the PMU and the kernel needs CONFIG_HW_PERF_EVENTS and its driver "
            "('dmesg | grep -i pmu'); or take <pmu> out of the domains",
        )
    elif host.pmu is not None and not host.pmu.interrupt:
        yield finding(
            "pmu-interrupt-missing",
            "the PMU's interrupt cannot be set (KVM_ARM_VCPU_PMU_V3_IRQ)",
            "needs a GIC in the kernel; see the group GIC",
        )


def _qemu(host: HostCapabilities) -> Iterator[Finding]:
    """Where a QEMU and the kernel disagree: libvirt goes by what QEMU says, and so do guests."""
    if host.qemu is None:
        return
    for one in host.qemu.not_asked:
        if one.failed:
            yield finding("qemu-unanswered", one.why, one.remedy or "see whether it starts by itself")
    for qemu in host.qemu.answered:
        if qemu.kvm:
            yield from _disagreements(host, qemu)
        else:
            yield finding(
                "qemu-kvm",
                f"{qemu.path} does not use this host's KVM (query-kvm): guests of type 'kvm' do not start with it",
                f"see what '{qemu.path} -machine none -accel kvm -display none' says; it may be built without KVM",
            )


def _disagreements(host: HostCapabilities, qemu: "Emulator") -> Iterator[Finding]:
    kernel = tuple(version for version in host.gic_versions if version in _GICS_QEMU_NAMES)
    if qemu.gic_kernel != kernel:
        yield finding(
            "qemu-gic",
            f"this kernel makes a GIC of version {_listed(kernel)}, and {qemu.path} finds {_listed(qemu.gic_kernel)} "
            "(query-gic-capabilities), by which libvirt goes",
            "use a QEMU that fits this kernel; where that says what another kernel had, restart libvirtd",
        )
    if not qemu.cpu:
        yield finding(
            "qemu-cpu",
            f"{qemu.path} does not say what its CPU 'host' has (query-cpu-model-expansion)",
            "see whether a guest with <cpu mode='host-passthrough'/> starts",
        )
        return
    for name, capability in (("pmu", "KVM_CAP_ARM_PMU_V3"), ("pauth", "KVM_CAP_ARM_PTRAUTH_ADDRESS")):
        there = bool(host.capabilities.get(capability))
        if qemu.cpu.get(name, False) != there:
            yield finding(
                f"qemu-{name}",
                f"{capability} is {int(there)}, and the CPU 'host' of {qemu.path} has {name}="
                f"{'off' if there else 'on'} (query-cpu-model-expansion)",
                "use a QEMU that fits this kernel",
            )
    lengths = host.vcpu.sve_vector_lengths if host.vcpu else qemu.sve_vector_lengths
    if qemu.sve_vector_lengths != lengths:
        yield finding(
            "qemu-sve",
            f"this kernel gives SVE vectors of {_listed(lengths)} bits (KVM_REG_ARM64_SVE_VLS), and the CPU 'host' of "
            f"{qemu.path} has {_listed(qemu.sve_vector_lengths)} (query-cpu-model-expansion)",
            "name the lengths that a domain is to have (<feature policy='require' name='sve<N>'/>)",
        )
    for difference in qemu.program_differs:
        yield finding(
            "qemu-program",
            f"{qemu.path}: {difference}; the hook, which must not start QEMU, goes by the program file",
            "name QEMU's own program in <emulator>, and not a script in front of it",
        )


_GICS_QEMU_NAMES = (2, 3)
"""query-gic-capabilities knows no others (qapi/misc-arm.json)."""


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _unanswered(host: HostCapabilities) -> Iterator[Finding]:
    for sentence in host.unanswered:
        yield finding(
            "probe-refused",
            f"the kernel promises this and refuses it: {sentence}",
            "see 'dmesg | grep kvm'; report it with the output of 'vgicmgr check-host --format json'",
        )
