"""What stands in the way of assigning a device, by name."""

from tests.unit.vfio.examples import EMPTY, FULL, HALF, OTHER_HALF
from vgicmgr.dataclass import replace
from vgicmgr.vfio.inventory import Group, Host, Inventory
from vgicmgr.vfio.judge import judge_inventory


def names(inventory: Inventory) -> list[str]:
    return [finding.name for finding in judge_inventory(inventory).findings]


def test_a_host_without_vfio_and_iommu() -> None:
    assert names(EMPTY) == ["vfio-missing", "iommu-missing"]


def test_a_container_that_could_not_be_opened_is_not_missing() -> None:
    assert names(replace(EMPTY, unread=("/dev/vfio/vfio may not be opened by this user",))) == ["iommu-missing"]


def test_a_group_that_is_not_viable_names_who_stands_in_the_way() -> None:
    [found] = [finding for finding in judge_inventory(FULL).findings if finding.name == "group-not-viable"]
    assert found.evidence == (
        "Group 9 (0000:03:00.0, 0000:03:00.1) cannot be assigned: 0000:03:00.1 is bound to e1000e"
    )


def test_a_group_of_the_hosts_own_is_no_finding() -> None:
    host = Host(("smmu3",), 0)
    group = Group(9, (OTHER_HALF.name,), ((OTHER_HALF.name, "e1000e"),))
    assert names(Inventory(host, (group,), (OTHER_HALF,))) == []
    assert names(Inventory(host, (group,), (OTHER_HALF, HALF))) == ["group-not-viable"]


def test_unsafe_interrupts_and_noiommu_are_told() -> None:
    assert names(replace(FULL, host=replace(FULL.host, allow_unsafe_interrupts=True))) == [
        "unsafe-interrupts",
        "group-not-viable",
        "noiommu",
    ]


def test_nothing_is_an_error() -> None:
    assert judge_inventory(EMPTY).ok
    assert judge_inventory(FULL).ok
