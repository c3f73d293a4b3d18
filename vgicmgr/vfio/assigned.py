"""What this host says of the devices that a domain is to be given. No device is opened, so that none is reset."""

import errno
import re
from collections.abc import Iterable
from pathlib import Path

from vgicmgr.dataclass import dataclass
from vgicmgr.errors import VgicmgrError
from vgicmgr.vfio import sysfs
from vgicmgr.vfio.container import Group
from vgicmgr.vfio.device import joined
from vgicmgr.vfio.errors import VfioError
from vgicmgr.vfio.inventory import Device


@dataclass(frozen=True)
class AssignedDevice:
    """A device of this host; None where this host cannot tell."""

    name: str
    """As in sysfs, or an mdev's UUID."""
    driver: str | None = None
    group: int | None = None
    """Number of its IOMMU group."""
    vectors: int | None = None
    """As many as the larger of its MSI and MSI-X capabilities offers."""
    intx: bool | None = None
    """Whether it has an interrupt line; virtual functions have none."""
    migration: tuple[str, ...] | None = None
    """As :attr:`vgicmgr.vfio.inventory.Device.migration`: empty where it cannot migrate."""
    in_the_way: tuple[tuple[str, str], ...] = ()
    """Members of its group that are bound to a driver of the host's, with the driver."""
    msi_isolated: bool | None = None
    """Whether its MSIs can be none but its own (interrupt remapping): VFIO's answer for a group that nobody uses."""


@dataclass(frozen=True)
class AssignedDevices:
    """Those of a domain, as far as they are on this host."""

    devices: tuple[AssignedDevice, ...] = ()
    unsafe_interrupts: bool = False
    """allow_unsafe_interrupts of vfio_iommu_type1."""

    def get(self, name: str) -> AssignedDevice | None:
        """The device of this name."""
        return next((device for device in self.devices if device.name == name), None)


def read_assigned(names: Iterable[str], sys: Path = sysfs.SYS) -> AssignedDevices:
    """What sysfs says of the PCI devices, platform devices and mdevs called so, and VFIO of their groups."""
    unsafe = bool(sysfs.read_host(sys).allow_unsafe_interrupts)
    found = (_read(name, sys, unsafe) for name in dict.fromkeys(names))
    return AssignedDevices(tuple(device for device in found if device), unsafe)


_MDEV = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _read(name: str, sys: Path, unsafe: bool) -> AssignedDevice | None:
    if _MDEV.fullmatch(name):
        group = sysfs.group_of(sys / "bus" / "mdev" / "devices" / name)
        return None if group is None else AssignedDevice(name, group=group)
    device = sysfs.read_device(name, sys)
    if device is None:
        return None
    members = sysfs.read_group(device.group, sys).in_the_way if device.group is not None else ()
    isolated = None
    if device.vfio and device.group is not None:
        path = f"/dev/vfio/{device.group}"
        if members and viable(path):
            members = ()  # the kernel knows the drivers better
        if not members and not unsafe:  # where they are allowed, VFIO takes every group and does not tell
            isolated = msi_isolated(path)
    return AssignedDevice(
        name=name,
        driver=device.driver,
        group=device.group,
        vectors=_vectors(device),
        intx=None if device.lines is None or not device.pci else device.lines > 0,
        migration=device.migration,
        in_the_way=tuple(member for member in members if member[0] != name),
        msi_isolated=isolated,
    )


def _vectors(device: Device) -> int | None:
    return None if device.msi is None or device.msix is None else max(device.msi, device.msix)


def viable(path: str) -> bool | None:
    """Whether VFIO says so of the group at ``path`` (VFIO_GROUP_GET_STATUS); None where it cannot be asked."""
    try:
        with Group(path) as group:
            return group.viable()
    except VgicmgrError:
        return None


def msi_isolated(path: str) -> bool | None:
    """Whether VFIO lets the group at ``path`` have an IOMMU (VFIO_SET_IOMMU); None where it cannot be asked.

    It refuses with EPERM where the platform cannot isolate MSIs and vfio_iommu_type1 does not allow unsafe interrupts
    (``drivers/vfio/vfio_iommu_type1.c``); Linux 6.1 lets pass, too, where no device at all can send MSIs.
    """
    try:
        with Group(path) as group, joined(group):
            return True
    except VfioError as error:
        return False if (error.call, error.errno) == ("VFIO_SET_IOMMU", errno.EPERM) else None
    except VgicmgrError:
        return None
