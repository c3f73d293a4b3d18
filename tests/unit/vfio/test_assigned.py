"""What sysfs says of a domain's devices, from trees laid out as the kernel's are; VFIO's part is in the lab's tests."""

from pathlib import Path

import pytest

from tests.unit.vfio.test_sysfs import MSI, MSIX, config
from vgicmgr.vfio.assigned import AssignedDevice, AssignedDevices, msi_isolated, read_assigned

NET, TWIN = "0000:01:00.0", "0000:01:00.1"
UUID = "c2177883-f1bb-47f0-914d-32a22e3a8804"


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    """Two functions in group 4, the first with MSI and MSI-X and no driver, the second with e1000e."""
    add(tmp_path, "pci", NET, 4)
    (tmp_path / "bus/pci/devices" / NET / "config").write_bytes(config((MSI, 3 << 1), (MSIX, 32), pin=0))
    (tmp_path / "bus/pci/devices" / NET / "class").write_text("0x020000\n")
    add(tmp_path, "pci", TWIN, 4)
    drive(tmp_path, TWIN, "e1000e")
    return tmp_path


def add(sys: Path, bus: str, name: str, group: int) -> None:
    device = sys / "bus" / bus / "devices" / name
    device.mkdir(parents=True)
    members = sys / "kernel/iommu_groups" / str(group) / "devices"
    members.mkdir(parents=True, exist_ok=True)
    (device / "iommu_group").symlink_to(members.parent)
    (members / name).symlink_to(device)


def drive(sys: Path, name: str, driver: str) -> None:
    path = sys / "bus/pci/drivers" / driver
    path.mkdir(parents=True, exist_ok=True)
    (sys / "bus/pci/devices" / name / "driver").symlink_to(path)


def test_a_pci_device(sys: Path) -> None:
    assert read_assigned([NET], sys) == AssignedDevices(
        (AssignedDevice(NET, None, 4, vectors=33, intx=False, in_the_way=((TWIN, "e1000e"),)),)
    )


def test_its_group_is_free_when_the_other_member_has_no_driver(sys: Path) -> None:
    (sys / "bus/pci/devices" / TWIN / "driver").unlink()
    assert read_assigned([NET], sys).devices[0].in_the_way == ()


def test_a_device_is_not_in_its_own_way(sys: Path) -> None:
    assert read_assigned([TWIN], sys).devices[0].in_the_way == ()


def test_one_bound_to_vfios_generic_driver_cannot_migrate(sys: Path) -> None:
    drive(sys, NET, "vfio-pci")
    assert read_assigned([NET], sys).devices[0].migration == ()
    assert read_assigned([TWIN], sys).devices[0].migration is None


def test_platform_and_mediated_devices(sys: Path) -> None:
    add(sys, "platform", "fff51000.ethernet", 9)
    add(sys, "mdev", UUID, 11)
    assert read_assigned(["fff51000.ethernet", UUID], sys).devices == (
        AssignedDevice("fff51000.ethernet", group=9),
        AssignedDevice(UUID, group=11),
    )


@pytest.mark.parametrize("name", ["", ".", "..", "../devices/" + NET, "0000:1f:00.0", UUID])
def test_what_is_not_here_is_left_out(sys: Path, name: str) -> None:
    assert read_assigned([name], sys) == AssignedDevices()


def test_each_is_read_once(sys: Path) -> None:
    assert [device.name for device in read_assigned([NET, TWIN, NET], sys).devices] == [NET, TWIN]


@pytest.mark.parametrize(("setting", "allowed"), [("Y", True), ("N", False)])
def test_unsafe_interrupts(sys: Path, setting: str, allowed: bool) -> None:
    parameters = sys / "module/vfio_iommu_type1/parameters"
    parameters.mkdir(parents=True)
    (parameters / "allow_unsafe_interrupts").write_text(f"{setting}\n")
    assert read_assigned([NET], sys).unsafe_interrupts is allowed


def test_a_group_that_is_not_there_says_nothing_of_its_msis(tmp_path: Path) -> None:
    assert msi_isolated(str(tmp_path / "4")) is None
