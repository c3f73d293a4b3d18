"""A file descriptor of the kernel's: owned, closed exactly once, and asked by ioctl; and KVM's."""

import fcntl
import os
from array import array
from struct import calcsize, pack, unpack
from types import ModuleType, TracebackType

from vgicmgr.kvm import uapi
from vgicmgr.kvm.attribute import Attribute
from vgicmgr.kvm.errors import IoctlError, KvmError

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from typing import Self


class FileDescriptor:
    """Owner of one file descriptor; a context manager.

    ``numbers`` is the module that has the ioctls' numbers by their names in the header, ``refusal`` what is raised when
    the kernel refuses one.
    """

    numbers: ModuleType
    refusal: type[IoctlError]
    _fd = -1  # where opening failed, there is nothing to close

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def fileno(self) -> int:
        """The file descriptor; -1 once closed."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def ioctl(self, call: str, argument: int | bytearray = 0, subject: str = "", group: str = "") -> int:
        """Carry out the ioctl called ``call`` in the header; a ``bytearray`` receives what the kernel writes.

        Raises ``refusal`` when the kernel refuses. ``subject`` and ``group`` say in that error what it was about.
        """
        request: int = getattr(self.numbers, call)
        try:
            return fcntl.ioctl(self._fd, request, argument)
        except OSError as error:
            raise self.refusal(call, subject, error.errno or 0, group) from None


class Descriptor(FileDescriptor):
    """Owner of one KVM file descriptor.

    The kernel keeps a VM alive until its vCPUs' and devices' descriptors are closed, too, so all of them are closed.
    """

    numbers = uapi
    refusal = KvmError

    # Device control API: works on devices, vCPUs and VMs alike (api.rst, 4.80 and 4.81)

    def has_attribute(self, attribute: Attribute) -> bool:
        """KVM_HAS_DEVICE_ATTR: whether the attribute is implemented here (not whether it can be used in this state)."""
        try:
            self._attribute_ioctl("KVM_HAS_DEVICE_ATTR", attribute, 0)
        except KvmError:
            return False
        return True

    def get_attribute(self, attribute: Attribute, preset: int = 0) -> int:
        """KVM_GET_DEVICE_ATTR: read an attribute of one number; ``preset`` is what the kernel finds there first."""
        value: int = self.get_attribute_fields(attribute, preset)[0]
        return value

    def get_attribute_fields(self, attribute: Attribute, *preset: int) -> tuple[int, ...]:
        """KVM_GET_DEVICE_ATTR: read an attribute whose data has several members."""
        fields = preset or (0,) * len(unpack("=" + attribute.data, bytes(calcsize("=" + attribute.data))))
        data = array("B", pack("=" + attribute.data, *fields))
        self._attribute_ioctl("KVM_GET_DEVICE_ATTR", attribute, data.buffer_info()[0])
        return unpack("=" + attribute.data, data)

    def set_attribute(self, attribute: Attribute, *fields: int | bytes) -> None:
        """KVM_SET_DEVICE_ATTR: write an attribute, or trigger one that has no data."""
        data = array("B", pack("=" + attribute.data, *fields))
        self._attribute_ioctl("KVM_SET_DEVICE_ATTR", attribute, data.buffer_info()[0] if fields else 0)

    def _attribute_ioctl(self, call: str, attribute: Attribute, address: int) -> None:
        argument = bytearray(uapi.kvm_device_attr.layout.pack(0, attribute.group_number, attribute.number, address))
        self.ioctl(call, argument, str(attribute), attribute.group)
