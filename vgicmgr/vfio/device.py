"""A VFIO device that is open: its regions, interrupts and features.

The kernel itself resets a PCI device that can be reset when it is opened first and closed last (``vfio_pci_core.c``);
nothing here asks for it. So a device is opened only where nobody has it, and it belongs to VFIO anyway.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import pack_into, unpack_from
from typing import TypeVar

from vgicmgr.vfio import decode, uapi
from vgicmgr.vfio.container import Container, Group, Iommufd, VfioDescriptor, open_file
from vgicmgr.vfio.errors import VfioError
from vgicmgr.vfio.inventory import DeviceInfo, Irq, Region

DEV_CDEV = "/dev/vfio/devices"
Answer = TypeVar("Answer")


class Device(VfioDescriptor):
    """A device; :func:`open_by_group` and :func:`open_by_cdev` give one that answers."""

    def describe(self) -> DeviceInfo:
        """All that can be asked without changing anything; raises :class:`VfioError`."""
        flags, regions, irqs = self.info()
        pci = bool(flags & uapi.VFIO_DEVICE_FLAGS_PCI)
        return DeviceInfo(
            kind=decode.kind(flags),
            reset=bool(flags & uapi.VFIO_DEVICE_FLAGS_RESET),
            regions=tuple(
                region for index in range(regions) if (region := _unless_absent(self.region, index, pci)) is not None
            ),
            irqs=tuple(irq for index in range(irqs) if (irq := _unless_absent(self.irq, index, pci)) is not None),
            migration=self.migration(),
            dirty_tracking=self.has_feature("VFIO_DEVICE_FEATURE_DMA_LOGGING_START", "VFIO_DEVICE_FEATURE_SET"),
        )

    def info(self) -> tuple[int, int, int]:
        """VFIO_DEVICE_GET_INFO: flags, number of regions, number of interrupts (the highest index and 1)."""
        answer = bytearray(uapi.vfio_device_info.layout.pack(uapi.vfio_device_info.size, 0, 0, 0, 0))
        self.ioctl("VFIO_DEVICE_GET_INFO", answer)
        _, flags, regions, irqs, _ = uapi.vfio_device_info.layout.unpack(answer)
        return flags, regions, irqs

    def region(self, index: int, pci: bool) -> Region:
        """VFIO_DEVICE_GET_REGION_INFO with all its capabilities; raises :class:`VfioError` (EINVAL: no such region)."""
        size = uapi.vfio_region_info.size
        while True:
            answer = bytearray(size)
            uapi.vfio_region_info.layout.pack_into(answer, 0, size, 0, index, 0, 0, 0)
            self.ioctl("VFIO_DEVICE_GET_REGION_INFO", answer, f"region {index}")
            wanted: int = unpack_from("=I", answer)[0]
            if wanted <= size:
                return decode.region(bytes(answer), pci=pci)
            size = wanted

    def irq(self, index: int, pci: bool) -> Irq:
        """VFIO_DEVICE_GET_IRQ_INFO; raises :class:`VfioError` (EINVAL: no such interrupt)."""
        answer = bytearray(uapi.vfio_irq_info.layout.pack(uapi.vfio_irq_info.size, 0, index, 0))
        self.ioctl("VFIO_DEVICE_GET_IRQ_INFO", answer, f"interrupt {index}")
        return decode.irq(bytes(answer), pci=pci)

    def has_feature(self, feature: str, method: str) -> bool:
        """VFIO_DEVICE_FEATURE with VFIO_DEVICE_FEATURE_PROBE: whether ``feature`` can be got or set."""
        flags = getattr(uapi, feature) | getattr(uapi, method) | uapi.VFIO_DEVICE_FEATURE_PROBE
        argument = bytearray(uapi.vfio_device_feature.layout.pack(uapi.vfio_device_feature.size, flags))
        try:
            self.ioctl("VFIO_DEVICE_FEATURE", argument, feature)
        except VfioError:
            return False
        return True

    def migration(self) -> tuple[str, ...]:
        """VFIO_DEVICE_FEATURE_MIGRATION: ``stop-copy``, ``p2p``, ``pre-copy``; empty where it cannot migrate."""
        head = uapi.vfio_device_feature.size
        answer = bytearray(head + uapi.vfio_device_feature_migration.size)
        pack_into("=II", answer, 0, len(answer), uapi.VFIO_DEVICE_FEATURE_GET | uapi.VFIO_DEVICE_FEATURE_MIGRATION)
        try:
            self.ioctl("VFIO_DEVICE_FEATURE", answer, "VFIO_DEVICE_FEATURE_MIGRATION")
        except VfioError as error:
            if error.errno == errno.ENOTTY:
                return ()
            raise
        return decode.migration(uapi.vfio_device_feature_migration.layout.unpack_from(answer, head)[0])

    def bind(self, iommufd: Iommufd) -> None:
        """VFIO_DEVICE_BIND_IOMMUFD, of a device opened by its own file; raises :class:`VfioError` (EBUSY: in use)."""
        bind = uapi.vfio_device_bind_iommufd
        self.ioctl("VFIO_DEVICE_BIND_IOMMUFD", bytearray(bind.layout.pack(bind.size, 0, iommufd.fileno(), 0)))


@contextmanager
def joined(group: Group, *, noiommu: bool = False) -> Iterator[Group]:
    """The group in a container of its own, so that its devices can be opened; raises :class:`VfioError`."""
    with Container() as container:
        group.set_container(container)
        container.set_iommu("VFIO_NOIOMMU_IOMMU" if noiommu else "VFIO_TYPE1v2_IOMMU")
        yield group


def open_by_group(group: Group, name: str) -> Device:
    """The member called ``name`` of a :func:`joined` group; raises :class:`VfioError`."""
    return Device(group.device_fd(name))


@contextmanager
def open_by_cdev(vfio: str) -> Iterator[Device]:
    """The device called ``vfio`` (``vfio0``) in /dev/vfio/devices, bound to an iommufd of its own.

    Raises :class:`VfioError`, or :class:`~vgicmgr.vfio.errors.VfioUnavailable` where there is no /dev/iommu.
    """
    with Iommufd() as iommufd, Device(open_file(f"{DEV_CDEV}/{vfio}")) as device:
        device.bind(iommufd)
        yield device


def _unless_absent(ask: Callable[[int, bool], Answer], index: int, pci: bool) -> Answer | None:
    """The answer, unless the device has nothing of this index (most PCI devices have no VGA region)."""
    try:
        return ask(index, pci)
    except VfioError as error:
        if error.errno == errno.EINVAL:
            return None
        raise
