"""A throw-away VM as QEMU makes it of a domain here: one vCPU and the interrupt controller, and nothing is run.

The vCPU's list of registers is taken where QEMU takes it (kvm_arch_init_vcpu, before there is a GIC), the values after
all is made, as after QEMU's reset (kvm_arm_reset_vcpu).
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise

from vgicmgr.migration.record import ABIRecord
from vgicmgr.kvm.refusal import Refusal, register_layout
from vgicmgr.dataclass import dataclass
from vgicmgr.domain.settings import DomainSettings
from vgicmgr.kvm import its, uapi, vcpu, vgic_v2, vgic_v3
from vgicmgr.kvm.attribute import Attribute
from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.its import ITS
from vgicmgr.kvm.registers import PMCR_EL0, PMCR_EL0_N
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vcpu import VCPU, sve_vector_lengths
from vgicmgr.kvm.vgic_v2 import VGICv2
from vgicmgr.kvm.vgic_v3 import VGICv3
from vgicmgr.kvm.vm import VM
from vgicmgr.qemu.cpu import CPU, cpu_of, has_steal_time, psci_version, sve_wishes, vcpu_features, vector_lengths
from vgicmgr.qemu.registers import migrates_in_list
from vgicmgr.guest.start import resolve_gic_version

NR_IRQS = 288
"""SGIs, PPIs and the 256 SPIs of QEMU's ``virt`` (hw/arm/virt.c, NUM_IRQS)."""
PMU_INTID = 23
"""INTID of VIRTUAL_PMU_IRQ, a PPI."""
_GIC_BASE = 0x0800_0000
_GICC_BASE = 0x0801_0000
_ITS_BASE = 0x0808_0000


@dataclass(frozen=True)
class Scratch:
    """What was made: descriptors to ask, and what QEMU chose. ``ids`` are the registers in QEMU's list, ascending."""

    vm: VM
    vcpu: VCPU
    gic: Descriptor
    its: Descriptor | None
    cpu: CPU
    gic_version: int
    features: tuple[str, ...]
    sve: tuple[int, ...]
    steal_time: bool
    ids: tuple[int, ...]

    @property
    def own_cpu(self) -> bool:
        """Whether the guest has the host's own CPU."""
        return self.cpu.own

    @property
    def page_size(self) -> int:
        """The host's, in bytes."""
        return os.sysconf("SC_PAGE_SIZE")

    @property
    def ipa_bits(self) -> int:
        """Largest guest physical address size here, in bits."""
        return self.vm.check_extension("KVM_CAP_ARM_VM_IPA_SIZE") or 40  # 0 before Linux 4.20

    def registers(self) -> tuple[tuple[int, int], ...]:
        """The registers in QEMU's list with their values now."""
        return tuple((number, self.vcpu.get_register(number)) for number in self.ids)

    def gicd_iidr(self) -> int:
        """GICD_IIDR."""
        module = vgic_v2 if self.gic_version == 2 else vgic_v3
        return self.gic.get_attribute(module.distributor_register(module.GICD_IIDR))

    def icc_ctlr_el1(self) -> int | None:
        """ICC_CTLR_EL1 of a GICv3."""
        if self.gic_version == 2:
            return None
        return self.gic.get_attribute(vgic_v3.cpu_interface_register(vgic_v3.ICC_CTLR_EL1))

    def gits_iidr(self) -> int | None:
        """GITS_IIDR, if there is an ITS."""
        return self.its.get_attribute(its.register(its.GITS_IIDR)) if self.its else None

    def gits_typer(self) -> int | None:
        """GITS_TYPER, if there is an ITS."""
        return self.its.get_attribute(its.register(its.GITS_TYPER)) if self.its else None

    def refuses_icc_ctlr_el1(self, value: int) -> str:
        """The errno's name with which the GICv3 refuses this value; empty where it takes it."""
        return _refusal_of(self.gic, vgic_v3.cpu_interface_register(vgic_v3.ICC_CTLR_EL1), value)

    def refuses_gicd_iidr(self, value: int) -> str:
        """As :meth:`refuses_icc_ctlr_el1`, for GICD_IIDR."""
        module = vgic_v2 if self.gic_version == 2 else vgic_v3
        return _refusal_of(self.gic, module.distributor_register(module.GICD_IIDR), value)

    def refuses_gits_iidr(self, value: int) -> str:
        """As :meth:`refuses_icc_ctlr_el1`, for GITS_IIDR of the ITS there is."""
        return _refusal_of(self.its, its.register(its.GITS_IIDR), value) if self.its else ""

    def pmu_counters(self, wanted: int) -> int:
        """What the kernel makes of a PMCR_EL0.N of ``wanted``: it takes any (arch/arm64/kvm/sys_regs.c, set_pmcr)."""
        before = self.vcpu.get_register(PMCR_EL0)
        try:
            self.vcpu.set_register(PMCR_EL0, before & ~PMCR_EL0_N.mask | wanted << PMCR_EL0_N.lsb)
        except KvmError:  # no kernel known does this; it would be among the registers refused
            return PMCR_EL0_N.of(before)
        kept = PMCR_EL0_N.of(self.vcpu.get_register(PMCR_EL0))
        self.vcpu.set_register(PMCR_EL0, before)
        return kept

    def refused(self, registers: Sequence[tuple[int, int]]) -> tuple[Refusal, ...]:
        """The registers that are here, too, but do not take the value they come with.

        The rest of the list is written back as it is, as QEMU does; a field is found by writing it alone.
        """
        values = dict(registers)
        refusals = []
        for number in self.ids:
            before = self.vcpu.get_register(number)
            value = values.get(number, before)
            try:
                self.vcpu.set_register(number, value)
            except KvmError as error:
                if number in values:
                    refusals.append(self._refusal(number, before, value, error.errno_name))
        return tuple(refusals)

    def _refusal(self, number: int, before: int, value: int, errno_name: str) -> Refusal:
        fields = []
        layout = register_layout(number)
        for field in layout.differing_fields(before, value) if layout else ():
            try:
                self.vcpu.set_register(number, before & ~field.mask | value & field.mask)
            except KvmError:
                fields.append(field)
            else:
                self.vcpu.set_register(number, before)
        return Refusal(number, before, value, tuple(fields), errno_name)


def _refusal_of(device: Descriptor, attribute: Attribute, value: int) -> str:
    try:
        device.set_attribute(attribute, value)
    except KvmError as error:
        return error.errno_name
    return ""


@contextmanager
def scratch(
    system: System, settings: DomainSettings, arguments: Sequence[str] = (), answered: Mapping[str, bool] | None = None
) -> Iterator[Scratch]:
    """Make the VM that QEMU would make of the domain, as far as a migration depends on it.

    ``answered``: what the host's QEMU, if it was asked, says that the host's CPU has.

    Raises :class:`~vgicmgr.kvm.errors.KvmError` when the kernel refuses some of it (ask
    :func:`vgicmgr.guest.start.judge_settings` first, which says why).
    """
    with made(
        system,
        cpu_of(settings, arguments).as_answered(answered or {}),
        lambda supported: resolve_gic_version(settings, supported),
        with_its=wants_its(arguments),
        machine=settings.machine,
        aarch32=settings.arch == "armv7l",
    ) as here:
        yield here


@contextmanager
def made(
    system: System,
    cpu: CPU,
    choose_gic: Callable[[list[int]], int],
    *,
    with_its: bool = True,
    machine: str = "",
    aarch32: bool = False,
) -> Iterator[Scratch]:
    """Make a VM with this CPU and the GIC version that is chosen among the supported; errors as :func:`scratch`."""
    with ExitStack() as stack:
        vm = stack.enter_context(system.create_vm())
        modules = {2: vgic_v2, 3: vgic_v3}
        gic_version = choose_gic([version for version, module in modules.items() if vm.test_device(module.DEVICE_TYPE)])
        target = getattr(uapi, cpu.target) if cpu.target else vm.preferred_target()
        features = vcpu_features(cpu, vm.check_extension, aarch32=aarch32)
        processor = stack.enter_context(vm.create_vcpu())
        processor.init(target, features)
        lengths = _finalize_sve(processor, cpu) if "KVM_ARM_VCPU_SVE" in features else ()
        if (version := psci_version(cpu)) is not None:
            processor.set_register(uapi.KVM_REG_ARM_PSCI_VERSION, version)
        ids = tuple(sorted(filter(migrates_in_list, processor.register_ids())))
        gic = _gicv2(vm, stack) if gic_version == 2 else _gicv3(vm, stack)
        has_its = gic_version == 3 and with_its and vm.test_device(its.DEVICE_TYPE)
        translation = _its(vm, stack) if has_its else None
        if "KVM_ARM_VCPU_PMU_V3" in features:
            processor.set_attribute(vcpu.PMU_IRQ, PMU_INTID)
            processor.set_attribute(vcpu.PMU_INIT)
        steal_time = has_steal_time(cpu, machine, vm.check_extension)
        yield Scratch(vm, processor, gic, translation, cpu, gic_version, features, lengths, steal_time, ids)


def wants_its(arguments: Sequence[str]) -> bool:
    """Whether QEMU is to give a guest with a GICv3 an ITS: unless ``-machine its=off`` (or ``msi=``) says otherwise."""
    wanted = True
    for option, value in pairwise(arguments):
        if option.lstrip("-") in ("machine", "M"):
            for word in value.split(","):
                if word in ("its=off", "msi=off", "msi=gicv2m"):
                    wanted = False
                elif word in ("its=on", "msi=its", "msi=auto"):
                    wanted = True
    return wanted


def record_of(made: Scratch, settings: DomainSettings, *, time: str, kernel: str, qemu: str, libvirt: str) -> ABIRecord:
    """The record of a guest that is booted as this VM was made; the versions and the time are the caller's to say.

    Raises :class:`~vgicmgr.kvm.errors.KvmError`.
    """
    return ABIRecord(
        time=time,
        kernel=kernel,
        qemu=qemu,
        libvirt=libvirt,
        machine=settings.machine,
        vcpus=settings.vcpus,
        features=made.features,
        sve=made.sve,
        steal_time=made.steal_time,
        ipa_bits=made.ipa_bits,
        page_size=made.page_size,
        gic_version=made.gic_version,
        gicd_iidr=made.gicd_iidr(),
        icc_ctlr_el1=made.icc_ctlr_el1(),
        gits_iidr=made.gits_iidr(),
        gits_typer=made.gits_typer(),
        registers=made.registers(),
    )


def _finalize_sve(processor: VCPU, cpu: CPU) -> tuple[int, ...]:
    supported = sve_vector_lengths(processor.get_register(uapi.KVM_REG_ARM64_SVE_VLS))
    lengths = vector_lengths(sve_wishes(cpu), supported)
    if lengths != supported:
        processor.set_register(uapi.KVM_REG_ARM64_SVE_VLS, sum(1 << bits // 128 - 1 for bits in lengths))
    processor.finalize("KVM_ARM_VCPU_SVE")
    return lengths


def _gicv2(vm: VM, stack: ExitStack) -> Descriptor:
    gic = stack.enter_context(VGICv2(vm))
    gic.set_attribute(vgic_v2.NR_IRQS, NR_IRQS)
    gic.set_attribute(vgic_v2.DIST_ADDR, _GIC_BASE)
    gic.set_attribute(vgic_v2.CPU_ADDR, _GICC_BASE)
    gic.set_attribute(vgic_v2.CTRL_INIT)
    return gic


def _gicv3(vm: VM, stack: ExitStack) -> Descriptor:
    gic = stack.enter_context(VGICv3(vm))
    gic.set_attribute(vgic_v3.NR_IRQS, NR_IRQS)
    gic.set_attribute(vgic_v3.CTRL_INIT)
    return gic


def _its(vm: VM, stack: ExitStack) -> Descriptor:
    device = stack.enter_context(ITS(vm))
    device.set_attribute(its.CTRL_INIT)
    # the ITS's registers cannot be read before it has an address (vgic_its_attr_regs_access)
    device.set_attribute(its.ADDR, _ITS_BASE)
    return device
