"""Probing: what the kernel answers on throw-away VMs, as :class:`~vgicmgr.host.capabilities.HostCapabilities`.

Every VM is closed again and no vCPU is ever run. There are four: one that only answers, one for each GIC version, and
one for a vCPU with all features, since a VM has its vCPU 0 and its GIC once and for good.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from vgicmgr.dataclass import dataclass
from vgicmgr.errors import CannotTell
from vgicmgr.host import capabilities as host
from vgicmgr.host import counter
from vgicmgr.host.facts import DEFAULT_IPA_BITS
from vgicmgr.host.linux import read_kernel_log, read_machine
from vgicmgr.kvm import its, uapi, vcpu, vgic_v2, vgic_v3, vgic_v5
from vgicmgr.kvm.attribute import Attribute
from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.registers import PMCR_EL0, PMCR_EL0_N, register_name
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vcpu import VCPU
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

GIC_BASE = 0x0800_0000
"""Any aligned place below 4 GiB serves for a device that is never used."""
GICC_BASE = 0x0801_0000
_PLAIN = ("KVM_ARM_VCPU_PSCI_0_2",)


@dataclass(frozen=True)
class ProbeVM:
    """A throw-away VM with one vCPU, and a GIC that is made but not initialized; None without one.

    ``ids`` are the registers that the vCPU lists where QEMU asks for them: before there is a GIC.
    """

    vm: VM
    vcpu: VCPU
    ids: tuple[int, ...]
    sve_vector_lengths: tuple[int, ...]
    gic: Descriptor | None
    gic_version: int


@contextmanager
def probe_vm(system: System, features: Sequence[str] = _PLAIN, gic_version: int = 0) -> Iterator[ProbeVM]:
    """Make a VM whose vCPU has these KVM_ARM_VCPU_* features, and a GIC of this version (0: none).

    In QEMU's order: the vCPU, all SVE vector lengths, the list of registers, the GIC. Raises
    :class:`~vgicmgr.kvm.errors.KvmError`.
    """
    with ExitStack() as stack:
        vm = stack.enter_context(system.create_vm())
        processor = stack.enter_context(vm.create_vcpu())
        processor.init(vm.preferred_target(), features)
        lengths: tuple[int, ...] = ()
        if "KVM_ARM_VCPU_SVE" in features:
            lengths = vcpu.sve_vector_lengths(processor.get_register(uapi.KVM_REG_ARM64_SVE_VLS))
            processor.finalize("KVM_ARM_VCPU_SVE")
        ids = processor.register_ids()
        gic = stack.enter_context(_GICS[gic_version](vm)) if gic_version else None
        yield ProbeVM(vm, processor, ids, lengths, gic, gic_version)


_GICS: dict[int, Callable[[VM], Descriptor]] = {2: vgic_v2.VGICv2, 3: vgic_v3.VGICv3}


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
    with System() as system:
        return probe_system(system)


def probe_system(system: System) -> host.HostCapabilities:
    """As :func:`probe_host`, whatever the architecture."""
    unanswered: list[str] = []

    def answer(part: "Callable[..., Part]", *arguments: object) -> "Part | None":
        try:
            return part(*arguments)
        except KvmError as error:
            unanswered.append(str(error))
            return None

    with system.create_vm() as vm:
        answers = {name: vm.check_extension(name) for name in CAPABILITIES}  # on a VM, where all of them answer
        devices = {module: vm.test_device(module.DEVICE_TYPE) for module in (vgic_v2, vgic_v3, vgic_v5, its)}
        targets = answer(probe_targets, vm)
    log = read_kernel_log()
    gicv2 = gicv3 = translation = processor = pmu = frequency = None
    if devices[vgic_v2]:
        with ExitStack() as stack:
            if here := answer(stack.enter_context, probe_vm(system, gic_version=2)):
                gicv2 = answer(probe_gicv2, here)
    if devices[vgic_v3]:
        with ExitStack() as stack:
            if here := answer(stack.enter_context, probe_vm(system, gic_version=3)):
                gicv3 = answer(probe_gicv3, here)
            if here and gicv3 and devices[its]:
                translation = answer(probe_its, here)
        if gicv3 is None and devices[its]:
            translation = answer(_probe_its_alone, system)
    with ExitStack() as stack:
        features = all_features(answers)
        if here := answer(stack.enter_context, probe_vm(system, features)):
            processor = answer(probe_vcpu, here, features)
            pmu = answer(probe_pmu, here) if "KVM_ARM_VCPU_PMU_V3" in features else None
            frequency = answer(counter.measure, here.vcpu, log.counter_frequency)
    return host.HostCapabilities(
        machine=read_machine(),
        log=log,
        api_version=system.api_version(),
        ipa_bits=answers["KVM_CAP_ARM_VM_IPA_SIZE"] or DEFAULT_IPA_BITS,
        capabilities=answers,
        gicv2=gicv2,
        gicv3=gicv3,
        gicv5=devices[vgic_v5],
        its=translation,
        pmu=pmu,
        vcpu=processor,
        targets=targets,
        counter_frequency=frequency,
        unanswered=tuple(dict.fromkeys(unanswered)),
    )


def probe_targets(vm: VM) -> tuple[str, ...]:
    """Of the CPU targets that QEMU asks for by name, those with which this VM's vCPU 0 can be made.

    The kernel takes that of the core it runs on (``arch/arm64/kvm/arm.c``, kvm_vcpu_set_target), so that at most one
    answers. Raises :class:`~vgicmgr.kvm.errors.KvmError`.
    """
    taken = []
    with vm.create_vcpu() as processor:
        for target in host.TARGETS:
            try:
                processor.init(getattr(uapi, target), _PLAIN)
            except KvmError:
                continue
            taken.append(target)
    return tuple(taken)


def probe_gicv2(here: ProbeVM) -> host.GICv2:
    """A GICv2, as a VM with one vCPU gets it; raises :class:`~vgicmgr.kvm.errors.KvmError`."""
    gic = _gic(here)
    gic.set_attribute(vgic_v2.DIST_ADDR, GIC_BASE)
    gic.set_attribute(vgic_v2.CPU_ADDR, GICC_BASE)
    max_intids = _largest_nr_irqs(gic, vgic_v2.NR_IRQS)
    gic.set_attribute(vgic_v2.CTRL_INIT)
    iidr = vgic_v2.distributor_register(vgic_v2.GICD_IIDR)
    typer = vgic_v2.distributor_register(vgic_v2.GICD_TYPER)
    return host.GICv2(
        max_vcpus=here.vm.check_extension("KVM_CAP_MAX_VCPUS"),
        max_intids=max_intids,
        gicd_iidr=gic.get_attribute(iidr),
        iidr_revisions=_accepted_revisions(gic, iidr),
        gicd_typer=gic.get_attribute(typer),
        registers=gic.has_attribute(vgic_v2.distributor_register(vgic_v2.GICD_CTLR)),
    )


def probe_gicv3(here: ProbeVM) -> host.GICv3:
    """A GICv3, as a VM with one vCPU gets it; raises :class:`~vgicmgr.kvm.errors.KvmError`."""
    gic = _gic(here)
    max_intids = _largest_nr_irqs(gic, vgic_v3.NR_IRQS)
    gic.set_attribute(vgic_v3.CTRL_INIT)
    iidr = vgic_v3.distributor_register(vgic_v3.GICD_IIDR)
    typer = vgic_v3.distributor_register(vgic_v3.GICD_TYPER)
    return host.GICv3(
        max_vcpus=here.vm.check_extension("KVM_CAP_MAX_VCPUS"),
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


def probe_its(here: ProbeVM) -> host.ITS:
    """An ITS, as a VM with a GICv3 that is initialized gets it; raises :class:`~vgicmgr.kvm.errors.KvmError`."""
    with its.ITS(here.vm) as device:
        device.set_attribute(its.CTRL_INIT)
        # the ITS's registers cannot be read before it has an address (vgic_its_attr_regs_access)
        device.set_attribute(its.ADDR, GIC_BASE)
        iidr = its.register(its.GITS_IIDR)
        return host.ITS(
            gits_iidr=device.get_attribute(iidr),
            abi_revisions=_accepted_revisions(device, iidr),
            gits_typer=device.get_attribute(its.register(its.GITS_TYPER)),
            registers=device.has_attribute(its.register(its.GITS_CTLR)),
            save_tables=device.has_attribute(its.SAVE_TABLES),
            restore_tables=device.has_attribute(its.RESTORE_TABLES),
            reset=device.has_attribute(its.CTRL_RESET),
            msi_devid=bool(here.vm.check_extension("KVM_CAP_MSI_DEVID")),
        )


def _probe_its_alone(system: System) -> host.ITS:
    """For where the GICv3 did not tell all of itself."""
    with probe_vm(system, gic_version=3) as here:
        _gic(here).set_attribute(vgic_v3.CTRL_INIT)
        return probe_its(here)


def probe_pmu(here: ProbeVM) -> host.PMU:
    """A PMU, as a vCPU made with KVM_ARM_VCPU_PMU_V3 has it; raises :class:`~vgicmgr.kvm.errors.KvmError`."""
    return host.PMU(
        interrupt=here.vcpu.has_attribute(vcpu.PMU_IRQ),
        filter=here.vcpu.has_attribute(vcpu.PMU_FILTER),
        choice=here.vcpu.has_attribute(vcpu.PMU_SET_PMU),
        counter_limit=here.vcpu.has_attribute(vcpu.PMU_SET_NR_COUNTERS),
        counters=PMCR_EL0_N.of(here.vcpu.get_register(PMCR_EL0)),
    )


def all_features(answers: dict[str, int]) -> tuple[str, ...]:
    """The KVM_ARM_VCPU_* features that QEMU's ``-cpu host`` turns on by these capabilities."""
    from vgicmgr.qemu.cpu import CPU, vcpu_features

    return vcpu_features(CPU("host"), answers.__getitem__, pmu=True, el2=False)


def probe_vcpu(here: ProbeVM, features: tuple[str, ...]) -> host.VCPU:
    """A vCPU with these features; raises :class:`~vgicmgr.kvm.errors.KvmError`."""
    firmware = (uapi.KVM_REG_ARM_FW, uapi.KVM_REG_ARM_FW_FEAT_BMAP)
    return host.VCPU(
        features=features,
        sve_vector_lengths=here.sve_vector_lengths,
        steal_time=here.vcpu.has_attribute(vcpu.PVTIME_IPA),
        firmware=tuple(
            (register_name(number), here.vcpu.get_register(number))
            for number in here.ids
            if number & uapi.KVM_REG_ARM_COPROC_MASK in firmware
        ),
        listed_registers=len(here.ids),
        migrated_registers=sum(map(migrates_in_list, here.ids)),
    )


def _gic(here: ProbeVM) -> Descriptor:
    assert here.gic is not None, "this VM was made with a GIC"  # noqa: S101
    return here.gic


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
