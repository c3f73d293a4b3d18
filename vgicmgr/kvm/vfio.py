"""The KVM side of VFIO: which VFIO files a VM uses (``Documentation/virt/kvm/devices/vfio.rst``)."""

from vgicmgr.kvm.attribute import attribute
from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.vm import VM

DEVICE_TYPE = "KVM_DEV_TYPE_VFIO"

FILE_ADD = attribute("KVM_DEV_VFIO_FILE", "KVM_DEV_VFIO_FILE_ADD", "i")
"""Register the VFIO group's or device's file descriptor; the group was called KVM_DEV_VFIO_GROUP before Linux 6.6."""
FILE_DEL = attribute("KVM_DEV_VFIO_FILE", "KVM_DEV_VFIO_FILE_DEL", "i")


class VFIODevice(Descriptor):
    """A VM's VFIO pseudo device."""

    def __init__(self, vm: VM) -> None:
        """KVM_CREATE_DEVICE; raises :class:`~vgicmgr.kvm.errors.KvmError` (ENODEV: kernel without CONFIG_KVM_VFIO)."""
        super().__init__(vm.create_device(DEVICE_TYPE))
