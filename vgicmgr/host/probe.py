"""Probing: what the kernel answers on throw-away VMs, as :class:`~vgicmgr.host.capabilities.HostCapabilities`.

Every VM is closed again and no vCPU is ever run.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack

from vgicmgr.errors import CannotTell
from vgicmgr.host import capabilities as host
from vgicmgr.host.linux import read_kernel_log, read_machine
from vgicmgr.kvm import its, uapi, vcpu, vgic_v2, vgic_v3, vgic_v5
from vgicmgr.kvm.attribute import Attribute
from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.registers import PMCR_EL0, PMCR_EL0_N, register_name
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vm import VM
from vgicmgr.qemu.registers import migrates_in_list

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from typing import TypeVar

    Part = TypeVar("Part")

CAPABILITIES = tuple(name for name in vars(uapi) if name.startswith("KVM_CAP_"))
"""The capabilities asked for: all that :mod:`vgicmgr.kvm.uapi` declares."""

MAX_INTIDS = 1024
"""Largest number of SGIs, PPIs and SPIs by the kernel's document; its code stops at 992 (VGIC_MAX_RESERVED)."""

_GIC_BASE = 0x0800_0000
"""Any aligned place below 4 GiB serves for a device that is never used."""


def probe_host() -> host.HostCapabilities:
    """Ask this host's kernel; raises :class:`~vgicmgr.errors.CannotTell` where it cannot be asked.

    A part that the kernel promises and then refuses is ``None``, and the refusal stands in ``unanswered``.
    """
    architecture = os.uname().machine
    if architecture != "aarch64":
        raise CannotTell(
            f"this host is {architecture}, not aarch64: it has no GIC, and its KVM knows none",
            "run vgicmgr on an arm64 KVM host",
        )
    unanswered: list[str] = []

    def answer(part: "Callable[..., Part]", *arguments: object) -> "Part | None":
        try:
            return part(*arguments)
        except KvmError as error:
            unanswered.append(str(error))
            return None

    with System() as system:
        answers = probe_capabilities(system)
        with system.create_vm() as vm:
            devices = {module: vm.test_device(module.DEVICE_TYPE) for module in (vgic_v2, vgic_v3, vgic_v5, its)}
        return host.HostCapabilities(
            machine=read_machine(),
            log=read_kernel_log(),
            api_version=system.api_version(),
            ipa_bits=answers["KVM_CAP_ARM_VM_IPA_SIZE"] or 40,  # 0 before Linux 4.20
            capabilities=answers,
            gicv2=answer(probe_gicv2, system) if devices[vgic_v2] else None,
            gicv3=answer(probe_gicv3, system) if devices[vgic_v3] else None,
            gicv5=devices[vgic_v5],
            its=answer(probe_its, system) if devices[its] else None,
            pmu=answer(probe_pmu, system) if answers["KVM_CAP_ARM_PMU_V3"] else None,
            vcpu=answer(probe_vcpu, system, answers),
            unanswered=tuple(unanswered),
        )


def probe_capabilities(system: System) -> dict[str, int]:
    """KVM_CHECK_EXTENSION of every capability; on a VM, where all of them answer."""
    with system.create_vm() as vm:
        return {name: vm.check_extension(name) for name in CAPABILITIES}


def probe_gicv2(system: System) -> host.GICv2:
    """A GICv2, as a VM with one vCPU gets it; raises :class:`~vgicmgr.kvm.errors.KvmError`."""
    with ExitStack() as stack:
        vm = stack.enter_context(system.create_vm())
        gic = stack.enter_context(vgic_v2.VGICv2(vm))
        _initialized_vcpu(vm, stack)
        gic.set_attribute(vgic_v2.DIST_ADDR, _GIC_BASE)
        gic.set_attribute(vgic_v2.CPU_ADDR, _GIC_BASE + 0x1_0000)
        max_intids = _largest_nr_irqs(gic, vgic_v2.NR_IRQS)
        gic.set_attribute(vgic_v2.CTRL_INIT)
        iidr = vgic_v2.distributor_register(vgic_v2.GICD_IIDR)
        typer = vgic_v2.distributor_register(vgic_v2.GICD_TYPER)
        return host.GICv2(
            max_vcpus=vm.check_extension("KVM_CAP_MAX_VCPUS"),
            max_intids=max_intids,
            gicd_iidr=gic.get_attribute(iidr),
            iidr_revisions=_accepted_revisions(gic, iidr),
            gicd_typer=gic.get_attribute(typer),
            registers=gic.has_attribute(vgic_v2.distributor_register(vgic_v2.GICD_CTLR)),
        )


def probe_gicv3(system: System) -> host.GICv3:
    """A GICv3, as a VM with one vCPU gets it; raises :class:`~vgicmgr.kvm.errors.KvmError`."""
    with ExitStack() as stack:
        vm = stack.enter_context(system.create_vm())
        gic = stack.enter_context(vgic_v3.VGICv3(vm))
        _initialized_vcpu(vm, stack)
        max_intids = _largest_nr_irqs(gic, vgic_v3.NR_IRQS)
        gic.set_attribute(vgic_v3.CTRL_INIT)
        iidr = vgic_v3.distributor_register(vgic_v3.GICD_IIDR)
        typer = vgic_v3.distributor_register(vgic_v3.GICD_TYPER)
        return host.GICv3(
            max_vcpus=vm.check_extension("KVM_CAP_MAX_VCPUS"),
            max_intids=max_intids,
            gicd_iidr=gic.get_attribute(iidr),
            iidr_revisions=_accepted_revisions(gic, iidr),
            gicd_typer=gic.get_attribute(typer),
            registers=gic.has_attribute(vgic_v3.distributor_register(vgic_v3.GICD_CTLR)),
            icc_ctlr_el1=gic.get_attribute(vgic_v3.cpu_interface_register(vgic_v3.ICC_CTLR_EL1)),
            redistributor_regions=gic.has_attribute(vgic_v3.REDIST_REGION),
            line_level=gic.has_attribute(vgic_v3.line_level(32)),
            save_pending_tables=gic.has_attribute(vgic_v3.SAVE_PENDING_TABLES),
        )


def probe_its(system: System) -> host.ITS:
    """An ITS, as a VM with a GICv3 gets it; raises :class:`~vgicmgr.kvm.errors.KvmError`."""
    with ExitStack() as stack:
        vm = stack.enter_context(system.create_vm())
        gic = stack.enter_context(vgic_v3.VGICv3(vm))
        _initialized_vcpu(vm, stack)
        gic.set_attribute(vgic_v3.CTRL_INIT)
        device = stack.enter_context(its.ITS(vm))
        device.set_attribute(its.CTRL_INIT)
        # the ITS's registers cannot be read before it has an address (vgic_its_attr_regs_access)
        device.set_attribute(its.ADDR, _GIC_BASE)
        iidr = its.register(its.GITS_IIDR)
        return host.ITS(
            gits_iidr=device.get_attribute(iidr),
            abi_revisions=_accepted_revisions(device, iidr),
            gits_typer=device.get_attribute(its.register(its.GITS_TYPER)),
            registers=device.has_attribute(its.register(its.GITS_CTLR)),
            save_tables=device.has_attribute(its.SAVE_TABLES),
            restore_tables=device.has_attribute(its.RESTORE_TABLES),
            reset=device.has_attribute(its.CTRL_RESET),
            msi_devid=bool(vm.check_extension("KVM_CAP_MSI_DEVID")),
        )


def probe_pmu(system: System) -> host.PMU:
    """A PMU, as a vCPU made with KVM_ARM_VCPU_PMU_V3 has it; raises :class:`~vgicmgr.kvm.errors.KvmError`."""
    with ExitStack() as stack:
        vm = stack.enter_context(system.create_vm())
        cpu = stack.enter_context(vm.create_vcpu())
        cpu.init(vm.preferred_target(), ["KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_PMU_V3"])
        return host.PMU(
            interrupt=cpu.has_attribute(vcpu.PMU_IRQ),
            filter=cpu.has_attribute(vcpu.PMU_FILTER),
            choice=cpu.has_attribute(vcpu.PMU_SET_PMU),
            counter_limit=cpu.has_attribute(vcpu.PMU_SET_NR_COUNTERS),
            counters=PMCR_EL0_N.of(cpu.get_register(PMCR_EL0)),
        )


_FEATURES = {
    "KVM_ARM_VCPU_PSCI_0_2": ("KVM_CAP_ARM_PSCI_0_2",),
    "KVM_ARM_VCPU_PMU_V3": ("KVM_CAP_ARM_PMU_V3",),
    "KVM_ARM_VCPU_SVE": ("KVM_CAP_ARM_SVE",),
    "KVM_ARM_VCPU_PTRAUTH_ADDRESS": ("KVM_CAP_ARM_PTRAUTH_ADDRESS", "KVM_CAP_ARM_PTRAUTH_GENERIC"),
    "KVM_ARM_VCPU_PTRAUTH_GENERIC": ("KVM_CAP_ARM_PTRAUTH_ADDRESS", "KVM_CAP_ARM_PTRAUTH_GENERIC"),
}
"""What QEMU's ``-cpu host`` turns on, and on which capabilities (target/arm/kvm.c, kvm_arm_get_host_cpu_features)."""


def probe_vcpu(system: System, answers: dict[str, int]) -> host.VCPU:
    """A vCPU with all features; ``answers`` are the capabilities. Raises :class:`~vgicmgr.kvm.errors.KvmError`."""
    features = [feature for feature, needed in _FEATURES.items() if all(answers[name] for name in needed)]
    sve = "KVM_ARM_VCPU_SVE" in features
    with ExitStack() as stack:
        vm = stack.enter_context(system.create_vm())
        cpu = stack.enter_context(vm.create_vcpu())
        cpu.init(vm.preferred_target(), features)
        lengths = vcpu.sve_vector_lengths(cpu.get_register(uapi.KVM_REG_ARM64_SVE_VLS)) if sve else ()
        if sve:
            cpu.finalize("KVM_ARM_VCPU_SVE")
        ids = cpu.register_ids()
        firmware = (uapi.KVM_REG_ARM_FW, uapi.KVM_REG_ARM_FW_FEAT_BMAP)
        return host.VCPU(
            features=tuple(features),
            sve_vector_lengths=lengths,
            steal_time=cpu.has_attribute(vcpu.PVTIME_IPA),
            firmware=tuple(
                (register_name(number), cpu.get_register(number))
                for number in ids
                if number & uapi.KVM_REG_ARM_COPROC_MASK in firmware
            ),
            listed_registers=len(ids),
            migrated_registers=sum(map(migrates_in_list, ids)),
        )


def _initialized_vcpu(vm: VM, stack: ExitStack) -> None:
    """Give the VM its vCPU: the GIC's registers are out of reach without one."""
    cpu = stack.enter_context(vm.create_vcpu())
    cpu.init(vm.preferred_target(), ["KVM_ARM_VCPU_PSCI_0_2"])


def _largest_nr_irqs(gic: Descriptor, nr_irqs: Attribute) -> int:
    """Set the largest number of INTIDs that the kernel accepts, and say which it is."""
    for count in range(MAX_INTIDS, 64, -32):
        try:
            gic.set_attribute(nr_irqs, count)
        except KvmError:
            continue
        return count
    gic.set_attribute(nr_irqs, 64)
    return 64


def _accepted_revisions(device: Descriptor, iidr: Attribute) -> tuple[int, ...]:
    """The revisions of an IIDR that the kernel lets user space restore: each is written, then read back."""
    original = device.get_attribute(iidr)
    accepted = []
    for revision in range(16):
        wanted = host.with_iidr_revision(original, revision)
        try:
            device.set_attribute(iidr, wanted)
        except KvmError:
            continue
        if device.get_attribute(iidr) == wanted:
            accepted.append(revision)
    device.set_attribute(iidr, original)
    return tuple(accepted)
