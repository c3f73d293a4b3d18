"""The blocks that QEMU sizes by the host's page: system/physmem.c (qemu_ram_resize), hw/acpi/utils.c, hw/arm/virt.c."""

import pytest

from vgicmgr.qemu.machine import KIB
from vgicmgr.qemu.ramblocks import blocks_too_large, has_acpi, pvtime_loads, pvtime_mapped, pvtime_size
from vgicmgr.qemu.virt import Properties

PAGES = (4, 16, 64)
PAIRS = [(theirs, ours) for theirs in PAGES for ours in PAGES]


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_of_the_acpi_blocks_the_rsdp_is_too_large_wherever_pages_are_smaller(theirs: int, ours: int) -> None:
    """Seen: 'Size too large: /rom@etc/acpi/rsdp: 0x4000 > 0x1000', from 16 KiB to 4."""
    found = [block.name for block in blocks_too_large(Properties(acpi="on"), theirs * KIB, ours * KIB)]
    assert found == (["/rom@etc/acpi/rsdp"] if theirs > ours else [])


@pytest.mark.parametrize(("acpi", "there"), [("", True), ("auto", True), ("on", True), ("off", False)])
def test_a_machine_has_acpi_unless_it_is_off(acpi: str, there: bool) -> None:
    """virt_is_acpi_enabled; virt_acpi_setup asks for fw_cfg and this alone, so firmware does not matter."""
    assert has_acpi(Properties(acpi=acpi)) is there
    assert bool(list(blocks_too_large(Properties(acpi=acpi), 64 * KIB, 4 * KIB))) is there


@pytest.mark.parametrize(
    ("vcpus", "page", "size"), [(1, 4, 4), (64, 4, 4), (65, 4, 8), (65, 16, 16), (512, 4, 32), (512, 64, 64)]
)
def test_the_region_of_stolen_time_has_64_bytes_for_each_vcpu_in_whole_pages(vcpus: int, page: int, size: int) -> None:
    assert pvtime_size(vcpus, page * KIB) == size * KIB


@pytest.mark.parametrize(
    ("vcpus", "theirs", "ours", "loads", "mapped"),
    [
        (4, 4, 4, True, True),
        (4, 16, 4, False, False),  # "Size mismatch: pvtime: 0x4000 != 0x1000"
        (4, 64, 16, False, False),
        (4, 4, 16, True, False),  # 0x1000 is rounded up to 0x4000, then the region shrinks to 0x1000
        (256, 16, 4, True, True),  # 16 KiB on both
        (256, 4, 16, True, True),
        (300, 4, 16, True, False),  # 20 KiB, of which KVM gets 16
    ],
)
def test_whether_it_loads_and_is_still_there(vcpus: int, theirs: int, ours: int, loads: bool, mapped: bool) -> None:
    assert pvtime_loads(vcpus, theirs * KIB, ours * KIB) is loads
    if loads:
        assert pvtime_mapped(vcpus, theirs * KIB, ours * KIB) is mapped


@pytest.mark.parametrize(("theirs", "ours"), [(theirs, ours) for theirs, ours in PAIRS if theirs <= ours])
def test_smaller_pages_always_load_on_larger_ones(theirs: int, ours: int) -> None:
    assert all(pvtime_loads(vcpus, theirs * KIB, ours * KIB) for vcpus in range(1, 513))
