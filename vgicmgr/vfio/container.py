"""/dev/vfio/vfio, groups and iommufd: what a device must be joined to before it can be asked.

Joining has an effect on nothing but the group itself: its devices' DMA is blocked until all descriptors are closed.
"""

import errno
import os
from struct import pack

from vgicmgr.kvm.descriptor import FileDescriptor
from vgicmgr.vfio import uapi
from vgicmgr.vfio.errors import VfioError, VfioUnavailable

DEV_VFIO = "/dev/vfio/vfio"
DEV_IOMMU = "/dev/iommu"


class VfioDescriptor(FileDescriptor):
    """Owner of one VFIO file descriptor."""

    numbers = uapi
    refusal = VfioError


def open_file(path: str) -> int:
    """A descriptor of ``path``, which the caller owns; raises :class:`VfioError`."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise VfioError("open", path, error.errno or 0) from None


def _open_or_explain(path: str) -> int:
    try:
        return open_file(path)
    except VfioError as error:
        raise VfioUnavailable(*_why_not(path, error)) from None


class Container(VfioDescriptor):
    """An address space for groups' DMA, of its own; nothing is mapped."""

    def __init__(self, path: str = DEV_VFIO) -> None:
        """Open ``path``; raises :class:`VfioUnavailable` with what to do."""
        super().__init__(_open_or_explain(path))

    def api_version(self) -> int:
        """VFIO_GET_API_VERSION: 0."""
        return self.ioctl("VFIO_GET_API_VERSION")

    def check_extension(self, extension: str) -> bool:
        """VFIO_CHECK_EXTENSION by the extension's name in the header, such as ``VFIO_TYPE1v2_IOMMU``."""
        return self.ioctl("VFIO_CHECK_EXTENSION", getattr(uapi, extension), extension) > 0

    def set_iommu(self, extension: str) -> None:
        """VFIO_SET_IOMMU: the kind of IOMMU of the groups joined."""
        self.ioctl("VFIO_SET_IOMMU", getattr(uapi, extension), extension)


class Group(VfioDescriptor):
    """An IOMMU group; the kernel lets it be open only once at a time."""

    def __init__(self, path: str) -> None:
        """Open ``/dev/vfio/NUMBER``; raises :class:`VfioError` (EBUSY: in use)."""
        super().__init__(open_file(path))

    def viable(self) -> bool:
        """VFIO_GROUP_GET_STATUS: whether no member is bound to a driver that does DMA for the host."""
        answer = bytearray(uapi.vfio_group_status.layout.pack(uapi.vfio_group_status.size, 0))
        self.ioctl("VFIO_GROUP_GET_STATUS", answer)
        return bool(uapi.vfio_group_status.layout.unpack(answer)[1] & uapi.VFIO_GROUP_FLAGS_VIABLE)

    def set_container(self, container: Container) -> None:
        """VFIO_GROUP_SET_CONTAINER; raises :class:`VfioError` (EPERM: not viable)."""
        self.ioctl("VFIO_GROUP_SET_CONTAINER", bytearray(pack("=i", container.fileno())))

    def device_fd(self, name: str) -> int:
        """VFIO_GROUP_GET_DEVICE_FD: a descriptor of the member called ``name`` in sysfs; the caller owns it."""
        return self.ioctl("VFIO_GROUP_GET_DEVICE_FD", bytearray(name.encode() + b"\0"), name)


class Iommufd(VfioDescriptor):
    """What devices opened by their own character device are bound to."""

    def __init__(self, path: str = DEV_IOMMU) -> None:
        """Open ``path``; raises :class:`VfioUnavailable` with what to do."""
        super().__init__(_open_or_explain(path))


def _why_not(path: str, error: VfioError) -> tuple[str, str]:
    """Why a file of VFIO's cannot be opened, and what to do."""
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        module = "iommufd" if path == DEV_IOMMU else "vfio"
        return f"{path} is not there: the kernel has no {module}, or its module is not loaded", "modprobe vfio-pci"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path} may not be opened by this user", "run as root"
    return f"{path} cannot be opened: {os.strerror(error.errno)}", ""
