"""What a refusal by VFIO means: the errno of each call.

Sources: ``include/uapi/linux/vfio.h``, ``Documentation/driver-api/vfio.rst`` and
``Documentation/userspace-api/iommufd.rst``; these name few errnos, so most are from ``drivers/vfio`` and
``drivers/iommu`` (Linux 6.1 to 7.2).
"""

import errno
from collections.abc import Mapping

from vgicmgr.errors import CannotTell
from vgicmgr.kvm.errors import IoctlError


class VfioUnavailable(CannotTell):
    """A file of VFIO's cannot be opened, so no question can be put to the kernel."""


class VfioError(IoctlError):
    """An ioctl or open that VFIO refused; ``call`` is ``open`` for the latter, ``subject`` the file."""

    @property
    def meanings(self) -> Mapping[str, Mapping[int, str]]:
        """What VFIO's errnos say."""
        return MEANINGS

    @property
    def busy(self) -> bool:
        """Whether somebody else uses the group or device."""
        return self.errno == errno.EBUSY or (self.call, self.errno) == ("VFIO_DEVICE_BIND_IOMMUFD", errno.EINVAL)


_NOT_VIABLE = "a device of the group is bound to a driver of the host's, so that the group is not viable"
_UNSAFE = "or the platform cannot isolate MSIs and allow_unsafe_interrupts is off"

MEANINGS: dict[str, dict[int, str]] = {
    "open": {
        errno.ENOENT: "not there: no device of the group is bound to VFIO, or the module is not loaded",
        errno.ENODEV: "no device of the group is bound to VFIO any more",
        errno.EBUSY: "in use: a group can be open only once",
        errno.EACCES: "this user may not open it; run as root",
        errno.EPERM: "a group without IOMMU needs CAP_SYS_RAWIO",
    },
    "VFIO_GROUP_GET_STATUS": {errno.ENODEV: "no device of the group is bound to VFIO any more"},
    "VFIO_GROUP_SET_CONTAINER": {
        errno.EPERM: _NOT_VIABLE,
        errno.EBUSY: "the group's DMA is in use by another owner",
        errno.EINVAL: "the group has a container already",
        errno.EBADFD: "not a container's descriptor",
    },
    "VFIO_SET_IOMMU": {
        errno.ENODEV: "no IOMMU driver of this type: vfio_iommu_type1 is not loaded",
        errno.EPERM: "the platform cannot isolate MSIs (interrupt remapping), and allow_unsafe_interrupts is off",
        errno.EINVAL: "the container has no group, or its IOMMU type is set already",
        errno.EBUSY: "the container's IOMMU driver is in use",
    },
    "VFIO_GROUP_GET_DEVICE_FD": {
        errno.ENODEV: "no such device in this group that is bound to VFIO",
        errno.EINVAL: "the group has no container with an IOMMU type, or the device does not open",
        errno.EACCES: "a virtual function whose physical function is in use with a token",
        errno.EPERM: _NOT_VIABLE,
        errno.EAGAIN: "the device is locked by a reset",
    },
    "VFIO_DEVICE_BIND_IOMMUFD": {
        errno.EBUSY: "in use: the device's group is open",
        errno.EINVAL: "in use, or its DMA is not coherent",
        errno.EPERM: f"{_NOT_VIABLE}, {_UNSAFE}",
        errno.EACCES: "a virtual function whose physical function is in use with a token",
        errno.EBADFD: "not an iommufd descriptor",
        errno.ENOTTY: "this kernel binds no device to an iommufd (CONFIG_VFIO_DEVICE_CDEV, Linux 6.6)",
    },
    "VFIO_DEVICE_GET_REGION_INFO": {errno.EINVAL: "no such region"},
    "VFIO_DEVICE_GET_IRQ_INFO": {errno.EINVAL: "no such interrupt"},
    "VFIO_DEVICE_FEATURE": {
        errno.ENOTTY: "the device's driver has no such feature",
        errno.EINVAL: "the feature cannot be used this way",
    },
}
