"""VGICv2: the in-kernel GICv2 (``Documentation/virt/kvm/devices/arm-vgic.rst``)."""

from vgicmgr.kvm import uapi
from vgicmgr.kvm.attribute import Attribute, attribute
from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.vm import VM

DEVICE_TYPE = "KVM_DEV_TYPE_ARM_VGIC_V2"

DIST_ADDR = attribute("KVM_DEV_ARM_VGIC_GRP_ADDR", "KVM_VGIC_V2_ADDR_TYPE_DIST", "Q")
"""Address of the distributor: 4 KiB, 4 KiB aligned."""
CPU_ADDR = attribute("KVM_DEV_ARM_VGIC_GRP_ADDR", "KVM_VGIC_V2_ADDR_TYPE_CPU", "Q")
"""Address of the CPU interface: 8 KiB, 4 KiB aligned."""
NR_IRQS = attribute("KVM_DEV_ARM_VGIC_GRP_NR_IRQS", data="I")
"""Number of INTIDs (SGIs, PPIs and SPIs): 64 to 1024 in steps of 32."""
CTRL_INIT = attribute("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_VGIC_CTRL_INIT")
DIST_REGS = attribute("KVM_DEV_ARM_VGIC_GRP_DIST_REGS", data="I")
CPU_REGS = attribute("KVM_DEV_ARM_VGIC_GRP_CPU_REGS", data="I")

MAX_VCPUS = 8
"""A GICv2 has one bit a CPU in GICD_ITARGETSR (Arm IHI 0048B, 4.3.12); the kernel's VGIC_V2_MAX_CPUS."""

# Offsets in the distributor (Arm IHI 0048B, table 4-1)
GICD_CTLR = 0x000
GICD_TYPER = 0x004
GICD_IIDR = 0x008


def distributor_register(offset: int, vcpu_index: int = 0) -> Attribute:
    """The distributor register at ``offset``, as the CPU numbered ``vcpu_index`` sees it; 32 bits."""
    return DIST_REGS.at(
        vcpu_index << uapi.KVM_DEV_ARM_VGIC_CPUID_SHIFT | offset, _NAMES.get(offset, f"GICD+{offset:#x}")
    )


def cpu_interface_register(offset: int, vcpu_index: int = 0) -> Attribute:
    """The CPU interface register at ``offset`` of the CPU numbered ``vcpu_index``; 32 bits."""
    return CPU_REGS.at(vcpu_index << uapi.KVM_DEV_ARM_VGIC_CPUID_SHIFT | offset, f"GICC+{offset:#x}")


_NAMES = {GICD_CTLR: "GICD_CTLR", GICD_TYPER: "GICD_TYPER", GICD_IIDR: "GICD_IIDR"}


class VGICv2(Descriptor):
    """A VM's GICv2. Make it, make the vCPUs, give addresses, then :data:`CTRL_INIT`."""

    def __init__(self, vm: VM) -> None:
        """KVM_CREATE_DEVICE; raises :class:`~vgicmgr.kvm.errors.KvmError` (ENODEV: this host cannot)."""
        super().__init__(vm.create_device(DEVICE_TYPE))
