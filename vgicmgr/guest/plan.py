"""The call plan: the KVM calls with which QEMU brings a vGIC configuration up, in QEMU's order. Values only.

Sources: QEMU's ``accel/kvm/kvm-all.c``, ``target/arm/kvm.c``, ``hw/arm/virt.c`` and ``hw/intc/arm_gic*_kvm.c``;
``tests/lab/test_plan.py`` holds the plan against what QEMU really calls. Not in it are what QEMU only asks
(KVM_HAS_DEVICE_ATTR …), capabilities it enables for its own sake, guest memory and what needs that
(KVM_ARM_VCPU_PVTIME_IPA), registers, and what comes after the machine is made.
"""

from collections.abc import Iterable, Iterator

from vgicmgr.dataclass import dataclass
from vgicmgr.guest.configuration import VGICConfiguration
from vgicmgr.kvm import its, vcpu, vfio, vgic_v2, vgic_v3
from vgicmgr.kvm.attribute import Attribute
from vgicmgr.kvm.vgic_v3 import RedistributorRegion
from vgicmgr.qemu.gic import MSIController
from vgicmgr.qemu.virt import MAINTENANCE_INTID


@dataclass(frozen=True)
class CreateVM:
    """KVM_CREATE_VM with a type of ``ipa_bits`` (0: the kernel's default of 40)."""

    ipa_bits: int

    def __str__(self) -> str:
        return f"KVM_CREATE_VM with an IPA size of {self.ipa_bits or 40} bits"


@dataclass(frozen=True)
class EnableCapability:
    """KVM_ENABLE_CAP of ``capability`` (KVM_CAP_*), one by which the guest's vCPUs change."""

    capability: str

    def __str__(self) -> str:
        return f"KVM_ENABLE_CAP {self.capability}"


@dataclass(frozen=True)
class CreateVCPU:
    """KVM_CREATE_VCPU with the id ``vcpu``."""

    vcpu: int

    def __str__(self) -> str:
        return f"KVM_CREATE_VCPU {self.vcpu}"


@dataclass(frozen=True)
class InitVCPU:
    """KVM_ARM_VCPU_INIT with ``features`` (KVM_ARM_VCPU_*) in the order of their bits.

    ``target`` is a KVM_ARM_TARGET_*; empty: what KVM_ARM_PREFERRED_TARGET says.
    """

    vcpu: int
    features: tuple[str, ...]
    target: str = ""

    def __str__(self) -> str:
        target = f" for {self.target}" if self.target else ""
        return f"KVM_ARM_VCPU_INIT of vCPU {self.vcpu}{target} with {', '.join(self.features) or 'no features'}"


@dataclass(frozen=True)
class SetVectorLengths:
    """KVM_SET_ONE_REG of KVM_REG_ARM64_SVE_VLS: the vCPU has the SVE vector ``lengths``, in bits and ascending."""

    vcpu: int
    lengths: tuple[int, ...]

    def __str__(self) -> str:
        return f"KVM_SET_ONE_REG KVM_REG_ARM64_SVE_VLS of vCPU {self.vcpu} = {', '.join(map(str, self.lengths))} bits"


@dataclass(frozen=True)
class FinalizeVCPU:
    """KVM_ARM_VCPU_FINALIZE of ``feature``."""

    vcpu: int
    feature: str

    def __str__(self) -> str:
        return f"KVM_ARM_VCPU_FINALIZE of vCPU {self.vcpu}: {self.feature}"


@dataclass(frozen=True)
class SetPSCIVersion:
    """KVM_SET_ONE_REG of KVM_REG_ARM_PSCI_VERSION: major number in bits 31 to 16, then the minor one."""

    vcpu: int
    version: int

    def __str__(self) -> str:
        version = f"{self.version >> 16}.{self.version & 0xFFFF}"
        return f"KVM_SET_ONE_REG KVM_REG_ARM_PSCI_VERSION of vCPU {self.vcpu} = {version}"


@dataclass(frozen=True)
class GetRegisterList:
    """KVM_GET_REG_LIST of a vCPU: the registers that QEMU carries over in a migration, as it takes them."""

    vcpu: int

    def __str__(self) -> str:
        return f"KVM_GET_REG_LIST of vCPU {self.vcpu}"


@dataclass(frozen=True)
class CreateDevice:
    """KVM_CREATE_DEVICE of ``device_type`` (KVM_DEV_TYPE_*)."""

    device_type: str

    def __str__(self) -> str:
        return f"KVM_CREATE_DEVICE {self.device_type}"


@dataclass(frozen=True)
class SetDeviceAttribute:
    """KVM_SET_DEVICE_ATTR on the device of ``device_type``; ``value`` is None where the attribute has no data."""

    device_type: str
    attribute: Attribute
    value: int | None = None

    def __str__(self) -> str:
        return f"KVM_SET_DEVICE_ATTR of {self.device_type}: {_setting(self.attribute, self.value)}"


@dataclass(frozen=True)
class SetVCPUAttribute:
    """KVM_SET_DEVICE_ATTR on a vCPU; ``value`` is None where the attribute has no data."""

    vcpu: int
    attribute: Attribute
    value: int | None = None

    def __str__(self) -> str:
        return f"KVM_SET_DEVICE_ATTR of vCPU {self.vcpu}: {_setting(self.attribute, self.value)}"


@dataclass(frozen=True)
class CreateIRQChip:
    """KVM_CREATE_IRQCHIP: a GICv2 as it was made before the device control API."""

    def __str__(self) -> str:
        return "KVM_CREATE_IRQCHIP"


@dataclass(frozen=True)
class SetDeviceAddress:
    """KVM_ARM_SET_DEVICE_ADDR of ``address_type`` (KVM_VGIC_V2_ADDR_TYPE_*), for a GICv2 by KVM_CREATE_IRQCHIP."""

    address_type: str
    address: int

    def __str__(self) -> str:
        return f"KVM_ARM_SET_DEVICE_ADDR {self.address_type} = {self.address:#x}"


@dataclass(frozen=True)
class AddVFIOFile:
    """KVM_SET_DEVICE_ATTR of KVM_DEV_VFIO_FILE_ADD on KVM's VFIO device, with a descriptor of ``file``."""

    file: str

    def __str__(self) -> str:
        return f"KVM_SET_DEVICE_ATTR of {vfio.DEVICE_TYPE}: {vfio.FILE_ADD} = {self.file}"


VCPUCall = InitVCPU | SetVectorLengths | FinalizeVCPU | SetPSCIVersion | GetRegisterList | SetVCPUAttribute
"""A call on a vCPU that there is."""
Call = (
    CreateVM
    | EnableCapability
    | CreateVCPU
    | VCPUCall
    | CreateDevice
    | SetDeviceAttribute
    | CreateIRQChip
    | SetDeviceAddress
    | AddVFIOFile
)


def call_plan(
    configuration: VGICConfiguration,
    *,
    vcpus: Iterable[int] | None = None,
    device_control: bool = True,
    register_list: bool = False,
) -> tuple[Call, ...]:
    """The calls that bring ``configuration`` up, as QEMU makes them.

    ``vcpus`` are the vCPUs to make (default: all that exist at boot), see :func:`representative_vcpus`. Without
    ``device_control`` (KVM_CAP_DEVICE_CTRL, before Linux 3.10) a GICv2 is made the older way; then, its number of
    interrupts cannot be chosen. ``register_list``: with the first vCPU's list of registers, taken where QEMU takes it.
    """
    chosen = range(configuration.vcpus) if vcpus is None else tuple(vcpus)
    legacy = configuration.gic_version == 2 and not device_control
    return (
        CreateVM(configuration.ipa_bits),
        *([CreateIRQChip()] if legacy and configuration.in_kernel else []),
        # before any vCPU, after which the kernel refuses it (machvirt_init, kvm_arm_enable_mte)
        *([EnableCapability("KVM_CAP_ARM_MTE")] if configuration.mte else []),
        *(call for number in chosen for call in _vcpu(configuration, number, register_list=register_list)),
        *_controller(configuration, chosen, legacy=legacy),
    )


def representative_vcpus(configuration: VGICConfiguration) -> tuple[int, ...]:
    """The vCPUs that stand for all of them: the first and the last, of a GICv2 all.

    They all are made alike, ids are counted from 0, and a limit on their number is one on their ids, too
    (kvm_arch_vcpu_precreate in ``arch/arm64/kvm/arm.c``). Only KVM_CREATE_DEVICE of a GICv2 counts them by itself, and
    with more than 8 it fails (kvm_vgic_create). PPIs are held against those of one other vCPU.
    """
    if configuration.gic_version == 2:
        return tuple(range(min(configuration.vcpus, vgic_v2.MAX_VCPUS + 1)))
    return tuple(sorted({0, configuration.vcpus - 1}))


def _vcpu(configuration: VGICConfiguration, number: int, *, register_list: bool) -> Iterator[Call]:
    """A vCPU as its thread makes it (kvm_init_vcpu, kvm_arch_init_vcpu); KVM_ARM_VCPU_POWER_OFF comes at its reset."""
    yield CreateVCPU(number)
    yield InitVCPU(number, vcpu.in_bit_order(configuration.features), configuration.target)
    if "KVM_ARM_VCPU_SVE" in configuration.features:
        if configuration.sve_vector_lengths:
            yield SetVectorLengths(number, tuple(sorted(configuration.sve_vector_lengths)))
        yield FinalizeVCPU(number, "KVM_ARM_VCPU_SVE")
    if configuration.psci_version is not None:
        yield SetPSCIVersion(number, configuration.psci_version)
    if register_list and number == 0:
        yield GetRegisterList(number)


def _controller(configuration: VGICConfiguration, vcpus: Iterable[int], *, legacy: bool) -> Iterator[Call]:
    """The interrupt controller; where QEMU emulates it, KVM makes the PMUs alone (virt_cpu_post_init)."""
    if configuration.in_kernel:
        yield from _legacy_addresses(configuration) if legacy else _devices(configuration, vcpus)
        return
    if configuration.pmu_intid is not None:
        for number in vcpus:
            yield SetVCPUAttribute(number, vcpu.PMU_INIT)
    yield from _vfio(configuration)


def _devices(configuration: VGICConfiguration, vcpus: Iterable[int]) -> Iterator[Call]:
    """GIC, ITS and PMU as virt's machvirt_init makes them, addresses when the machine is done.

    QEMU gathers the addresses in a list that it adds to at the front (kvm_arm_register_device): the last device made
    gets its address first. Redistributor regions it registers backwards, so that the kernel sees them ascend.
    """
    gic = vgic_v2 if configuration.gic_version == 2 else vgic_v3
    yield CreateDevice(gic.DEVICE_TYPE)
    if "KVM_ARM_VCPU_HAS_EL2" in configuration.features:
        yield SetDeviceAttribute(gic.DEVICE_TYPE, vgic_v3.MAINT_IRQ, MAINTENANCE_INTID)
    yield SetDeviceAttribute(gic.DEVICE_TYPE, gic.NR_IRQS, configuration.nr_irqs)
    yield SetDeviceAttribute(gic.DEVICE_TYPE, gic.CTRL_INIT)
    has_its = configuration.msi is MSIController.ITS
    if has_its:
        yield CreateDevice(its.DEVICE_TYPE)
        yield SetDeviceAttribute(its.DEVICE_TYPE, its.CTRL_INIT)
    if configuration.pmu_intid is not None:
        for number in vcpus:
            yield SetVCPUAttribute(number, vcpu.PMU_IRQ, configuration.pmu_intid)
            yield SetVCPUAttribute(number, vcpu.PMU_INIT)
    yield from _vfio(configuration)
    if has_its and configuration.its:
        yield SetDeviceAttribute(its.DEVICE_TYPE, its.ADDR, configuration.its.base)
    if gic is vgic_v2:
        if configuration.cpu_interface:
            yield SetDeviceAttribute(gic.DEVICE_TYPE, vgic_v2.CPU_ADDR, configuration.cpu_interface.base)
    else:
        for region in sorted(configuration.redistributors, key=lambda region: region.index):
            yield SetDeviceAttribute(gic.DEVICE_TYPE, vgic_v3.REDIST_REGION, region.encode())
    yield SetDeviceAttribute(gic.DEVICE_TYPE, gic.DIST_ADDR, configuration.distributor.base)


def _vfio(configuration: VGICConfiguration) -> Iterator[Call]:
    """KVM's VFIO device, which comes with the first assigned device (hw/vfio/helpers.c, vfio_kvm_device_add_fd)."""
    if configuration.vfio_files:
        yield CreateDevice(vfio.DEVICE_TYPE)
        yield from map(AddVFIOFile, configuration.vfio_files)


def _legacy_addresses(configuration: VGICConfiguration) -> Iterator[Call]:
    yield from _vfio(configuration)
    if configuration.cpu_interface:
        yield SetDeviceAddress("KVM_VGIC_V2_ADDR_TYPE_CPU", configuration.cpu_interface.base)
    yield SetDeviceAddress("KVM_VGIC_V2_ADDR_TYPE_DIST", configuration.distributor.base)


def _setting(attribute: Attribute, value: int | None) -> str:
    if value is None:
        return str(attribute)
    if attribute.name == "KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION":
        region = RedistributorRegion.decode(value)
        return f"{attribute} = index {region.index}, base {region.base:#x}, count {region.count}"
    return f"{attribute} = {value:#x}" if attribute.group == "KVM_DEV_ARM_VGIC_GRP_ADDR" else f"{attribute} = {value}"
