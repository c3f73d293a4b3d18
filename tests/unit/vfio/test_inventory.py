"""What is known of a device that VFIO was not asked of, and that VFIO's answer comes first."""

import pytest

from tests.unit.vfio.examples import FULL, HALF, MIGRATABLE, OTHER_HALF, PLATFORM, USED
from vgicmgr.dataclass import replace
from vgicmgr.vfio.inventory import Bus, Device, Group, PciDevice


def test_vfios_answer_comes_first() -> None:
    assert (MIGRATABLE.lines, MIGRATABLE.msi, MIGRATABLE.msix) == (0, 0, 64)
    assert (MIGRATABLE.regions, MIGRATABLE.can_reset) == (3, True)
    assert MIGRATABLE.migration == ("stop-copy", "p2p", "pre-copy")


def test_of_a_device_in_use_sysfs_tells_the_rest() -> None:
    assert (USED.lines, USED.msi, USED.msix) == (1, 1, 5)
    assert (USED.regions, USED.can_reset) == (5, False)


def test_wired_interrupts_of_a_platform_device_are_counted() -> None:
    assert (PLATFORM.lines, PLATFORM.msi, PLATFORM.msix) == (1, 0, 0)


@pytest.mark.parametrize(
    ("driver", "migration"),
    [("vfio-pci", ()), ("vfio-platform", ()), ("mlx5_vfio_pci", None), ("e1000e", None), (None, None)],
)
def test_vfios_own_drivers_cannot_migrate_and_of_others_it_must_be_asked(
    driver: str | None, migration: tuple[str, ...] | None
) -> None:
    assert replace(USED, driver=driver).migration == migration


def test_a_bridge_cannot_be_assigned() -> None:
    assert not Device("0000:00:08.0", Bus.PCI, group=0, pci=PciDevice(0x060400, 0x1B36, 0x000C)).assignable
    assert OTHER_HALF.assignable


def test_the_kernels_word_on_a_group_comes_before_its_members_drivers() -> None:
    group = Group(9, (HALF.name, OTHER_HALF.name), ((OTHER_HALF.name, "of a module this program does not know"),))
    assert not group.viable
    assert replace(group, status=True).viable


def test_the_group_of_a_device() -> None:
    found = FULL.group_of(OTHER_HALF)
    assert found
    assert found.members == (HALF.name, OTHER_HALF.name)
    assert FULL.group_of(replace(OTHER_HALF, group=None)) is None
