"""VGICv3: the in-kernel GICv3 (``Documentation/virt/kvm/devices/arm-vgic-v3.rst``)."""

from vgicmgr.dataclass import dataclass
from vgicmgr.kvm import uapi
from vgicmgr.kvm.attribute import Attribute, attribute
from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.vm import VM

DEVICE_TYPE = "KVM_DEV_TYPE_ARM_VGIC_V3"

DIST_ADDR = attribute("KVM_DEV_ARM_VGIC_GRP_ADDR", "KVM_VGIC_V3_ADDR_TYPE_DIST", "Q")
"""Address of the distributor: 64 KiB, 64 KiB aligned."""
REDIST_ADDR = attribute("KVM_DEV_ARM_VGIC_GRP_ADDR", "KVM_VGIC_V3_ADDR_TYPE_REDIST", "Q")
"""Address of the only redistributor region: 128 KiB for each vCPU, 64 KiB aligned."""
REDIST_REGION = attribute("KVM_DEV_ARM_VGIC_GRP_ADDR", "KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION", "Q")
"""One of several redistributor regions, see :class:`RedistributorRegion`; never mixed with REDIST_ADDR."""
NR_IRQS = attribute("KVM_DEV_ARM_VGIC_GRP_NR_IRQS", data="I")
"""Number of INTIDs (SGIs, PPIs and SPIs): 64 to 1024 in steps of 32."""
CTRL_INIT = attribute("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_VGIC_CTRL_INIT")
SAVE_PENDING_TABLES = attribute("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES")
DIST_REGS = attribute("KVM_DEV_ARM_VGIC_GRP_DIST_REGS", data="I")
REDIST_REGS = attribute("KVM_DEV_ARM_VGIC_GRP_REDIST_REGS", data="I")
CPU_SYSREGS = attribute("KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS", data="Q")
LEVEL_INFO = attribute("KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO", data="I")
MAINT_IRQ = attribute("KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ", data="I")
"""INTID of the maintenance interrupt, a PPI; for guests with EL2."""

# Offsets in the distributor (Arm IHI 0069, table 12-25)
GICD_CTLR = 0x0000
GICD_TYPER = 0x0004
GICD_IIDR = 0x0008
GICD_TYPER2 = 0x000C

# Offset in a redistributor (Arm IHI 0069, table 12-27)
GICR_TYPER = 0x0008

ICC_CTLR_EL1 = 3 << 14 | 0 << 11 | 12 << 7 | 12 << 3 | 4
"""S3_0_C12_C12_4: what the CPU interface offers (PRIbits, IDbits, SEIS, A3V)."""

_NAMES = {
    GICD_CTLR: "GICD_CTLR",
    GICD_TYPER: "GICD_TYPER",
    GICD_IIDR: "GICD_IIDR",
    GICD_TYPER2: "GICD_TYPER2",
}


def affinity(mpidr: int) -> int:
    """The affinity of MPIDR_EL1 as attributes encode it: Aff3.Aff2.Aff1.Aff0 in bits 63 to 32."""
    return (mpidr >> 8 & 0xFF000000 | mpidr & 0xFFFFFF) << uapi.KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT


def distributor_register(offset: int) -> Attribute:
    """The distributor register at ``offset``; 32 bits (of wider ones the half at that offset)."""
    return DIST_REGS.at(offset, _NAMES.get(offset, f"GICD+{offset:#x}"))


def redistributor_register(offset: int, mpidr: int = 0) -> Attribute:
    """The register at ``offset`` of the redistributor of the vCPU with this MPIDR_EL1; 32 bits."""
    return REDIST_REGS.at(affinity(mpidr) | offset, f"GICR+{offset:#x}")


def cpu_interface_register(encoding: int, mpidr: int = 0) -> Attribute:
    """The ICC_* (or ICH_*) register with this op0:op1:CRn:CRm:op2 ``encoding`` (16 bits); 64 bits wide."""
    name = "ICC_CTLR_EL1" if encoding == ICC_CTLR_EL1 else f"ICC encoding {encoding:#x}"
    return CPU_SYSREGS.at(affinity(mpidr) | encoding, name)


def line_level(first_intid: int, mpidr: int = 0) -> Attribute:
    """The input levels of the 32 interrupts from ``first_intid`` (a multiple of 32) on, one bit each."""
    info = uapi.VGIC_LEVEL_INFO_LINE_LEVEL << uapi.KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT
    return LEVEL_INFO.at(affinity(mpidr) | info | first_intid, f"line level of INTIDs from {first_intid}")


@dataclass(frozen=True)
class RedistributorRegion:
    """One region of contiguous redistributors: ``index``, guest physical ``base`` (64 KiB aligned), ``count``."""

    index: int
    base: int
    count: int

    def encode(self) -> int:
        """The data of :data:`REDIST_REGION`: count in bits 63 to 52, base in 51 to 16, index in 11 to 0."""
        return self.count << 52 | self.base | self.index

    @classmethod
    def decode(cls, value: int) -> "RedistributorRegion":
        """The region that such data describe."""
        return cls(value & 0xFFF, value & 0xF_FFFF_FFFF_0000, value >> 52)


class VGICv3(Descriptor):
    """A VM's GICv3. Make it, make the vCPUs, then :data:`CTRL_INIT`; addresses before the first run."""

    def __init__(self, vm: VM) -> None:
        """KVM_CREATE_DEVICE; raises :class:`~vgicmgr.kvm.errors.KvmError` (ENODEV: this host cannot)."""
        super().__init__(vm.create_device(DEVICE_TYPE))
