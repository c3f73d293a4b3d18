"""VGICv5: the in-kernel GICv5 (``Documentation/virt/kvm/devices/arm-vgic-v5.rst``, Linux 7.2).

Unproved: written from the kernel's document; no GICv5 host, real or emulated, was to be had.
"""

from vgicmgr.kvm.attribute import attribute
from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.vm import VM

DEVICE_TYPE = "KVM_DEV_TYPE_ARM_VGIC_V5"

CTRL_INIT = attribute("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_VGIC_CTRL_INIT")
USERSPACE_PPIS = attribute("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_VGIC_USERSPACE_PPIS", "2Q")
"""Read-only: mask of the PPIs that KVM_IRQ_LINE may drive, PPIs 0 to 63 first, then 64 to 127."""


class VGICv5(Descriptor):
    """A VM's GICv5: PPIs only so far; :data:`CTRL_INIT` after all vCPUs are made."""

    def __init__(self, vm: VM) -> None:
        """KVM_CREATE_DEVICE; raises :class:`~vgicmgr.kvm.errors.KvmError` (ENODEV: this host or kernel cannot)."""
        super().__init__(vm.create_device(DEVICE_TYPE))
