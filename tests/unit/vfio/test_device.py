"""How a device is asked, by a stand-in for the kernel that answers as ``drivers/vfio`` does."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from struct import pack, pack_into, unpack_from

import pytest

from vgicmgr.vfio.container import Container, Group, Iommufd
from vgicmgr.vfio.device import Device
from vgicmgr.vfio.errors import VfioError, VfioUnavailable
from vgicmgr.vfio.inventory import Area

SPARSE = pack("=HHI II QQ", 1, 1, 0, 1, 0, 0x1000, 0x2000)
"""The capability: one area that can be mapped."""


class Kernel(Device):
    """A PCI device with one BAR, whose information is longer than the structure; no error interrupt (not PCIe)."""

    def __init__(self, *, migration: int | None = None) -> None:
        super().__init__(-1)
        self.migration_flags = migration
        self.calls: list[str] = []

    def ioctl(self, call: str, argument: int | bytearray = 0, subject: str = "", group: str = "") -> int:
        assert isinstance(argument, bytearray)
        assert unpack_from("=I", argument)[0] == len(argument)  # argsz
        self.calls.append(call)
        answer: Callable[[bytearray], int] = getattr(self, call.removeprefix("VFIO_DEVICE_").lower())
        if number := answer(argument):
            raise VfioError(call, subject, number, group)
        return 0

    def get_info(self, argument: bytearray) -> int:
        pack_into("=III", argument, 4, 1 | 2, 9, 5)
        return 0

    def get_region_info(self, argument: bytearray) -> int:
        index = unpack_from("=I", argument, 8)[0]
        if index == 8:
            return errno.EINVAL  # no VGA
        pack_into("=IIIIQQ", argument, 0, 32, 0, index, 0, 0, index << 40)
        if index == 0:
            pack_into("=II", argument, 0, 32 + len(SPARSE), 1 | 2 | 4 | 8)
            pack_into("=Q", argument, 16, 0x4000)
            if len(argument) >= 32 + len(SPARSE):
                pack_into("=I", argument, 12, 32)
                argument[32:] = SPARSE
        return 0

    def get_irq_info(self, argument: bytearray) -> int:
        index = unpack_from("=I", argument, 8)[0]
        if index == 3:
            return errno.EINVAL
        pack_into("=IIII", argument, 0, 16, 1, index, 5 if index == 2 else 0)
        return 0

    def feature(self, argument: bytearray) -> int:
        flags = unpack_from("=I", argument, 4)[0]
        if self.migration_flags is None:
            return errno.ENOTTY
        if flags == 1 | 1 << 16:
            pack_into("=Q", argument, 8, self.migration_flags)
        else:
            assert flags == 6 | 1 << 17 | 1 << 18  # probed, never started
        return 0


def test_a_region_is_asked_again_with_room_for_its_capabilities() -> None:
    kernel = Kernel()
    region = kernel.region(0, pci=True)
    assert kernel.calls == ["VFIO_DEVICE_GET_REGION_INFO"] * 2
    assert (region.name, region.size, region.sparse_mmap) == ("BAR 0", 0x4000, (Area(0x1000, 0x2000),))


def test_what_a_device_has_not_is_left_out() -> None:
    info = Kernel().describe()
    assert (info.kind, info.reset) == ("pci", True)
    assert [region.index for region in info.regions] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [irq.index for irq in info.irqs] == [0, 1, 2, 4]
    assert [irq.count for irq in info.irqs if irq.name == "MSI-X"] == [5]


def test_a_device_without_the_feature_cannot_migrate() -> None:
    info = Kernel().describe()
    assert (info.migration, info.dirty_tracking) == ((), False)


def test_a_device_that_can_migrate() -> None:
    info = Kernel(migration=5).describe()
    assert (info.migration, info.dirty_tracking) == (("stop-copy", "pre-copy"), True)


def test_nothing_is_reset_and_nothing_set() -> None:
    kernel = Kernel(migration=1)
    kernel.describe()
    assert {call.removeprefix("VFIO_DEVICE_") for call in kernel.calls} == {
        "GET_INFO",
        "GET_REGION_INFO",
        "GET_IRQ_INFO",
        "FEATURE",
    }


def test_any_other_refusal_is_told() -> None:
    with Device(os.open(os.devnull, os.O_RDWR)) as device, pytest.raises(VfioError) as refusal:
        device.describe()
    assert (refusal.value.call, refusal.value.errno_name) == ("VFIO_DEVICE_GET_INFO", "ENOTTY")


@pytest.mark.parametrize("kind", [Container, Iommufd])
def test_without_its_file_the_remedy_is_named(kind: type[Container | Iommufd], tmp_path: Path) -> None:
    with pytest.raises(VfioUnavailable) as refusal:
        kind(str(tmp_path / "vfio"))
    assert refusal.value.message.endswith("its module is not loaded")
    assert refusal.value.remedy == "modprobe vfio-pci"


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VfioError) as refusal:
        Group(str(tmp_path / "4"))
    assert (refusal.value.call, refusal.value.errno, refusal.value.busy) == ("open", errno.ENOENT, False)
