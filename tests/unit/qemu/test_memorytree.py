"""QEMU's ``info mtree``, as QEMU 7.2 (with ``i/o`` for containers) and 11.1 write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.qemu.memorytree import device_regions
from vgicmgr.qemu.virt import MemoryRegion

QEMU_7_2 = """\
address-space: I/O
  0000000000000000-000000000000ffff (prio 0, i/o): io

address-space: cpu-memory-0
address-space: cpu-memory-1
address-space: gicv3-its-sysmem
address-space: memory
  0000000000000000-ffffffffffffffff (prio 0, i/o): system
    0000000000000000-0000000003ffffff (prio 0, romd): virt.flash0
    0000000008000000-000000000800ffff (prio 0, i/o): gicv3_dist
    0000000008080000-000000000809ffff (prio 0, i/o): gicv3_its
      0000000008080000-000000000808ffff (prio 0, i/o): control
      0000000008090000-000000000809ffff (prio 0, i/o): translation
    00000000080a0000-00000000080dffff (prio 0, i/o): gicv3_redist_region[0]
    0000000010000000-000000003efeffff (prio 0, i/o): alias pcie-mmio @gpex_mmio_window 0000000010000000-000000003efeffff
    0000000040000000-0000000047ffffff (prio 0, ram): mach-virt.ram

memory-region: system
  0000000000000000-ffffffffffffffff (prio 0, i/o): system
    0000000009000000-000000000900ffff (prio 0, i/o): gicv3_dist
    000000000a000000-000000000a0001ff (prio 0, i/o): virtio-mmio

"""


@pytest.mark.parametrize(
    "text",
    [
        QEMU_7_2,
        QEMU_7_2.replace("i/o): system", "container): system"),
        QEMU_7_2.replace("address-space: memory\n", "address-space: memory\naddress-space: cpu-memory-2\n"),
        QEMU_7_2 + "\r\n",
    ],
)
def test_the_devices_of_the_guests_address_space(text: str) -> None:
    regions = device_regions(text)
    assert regions["gicv3_dist"] == MemoryRegion("gicv3_dist", 0x8000000, 0x10000)
    assert regions["gicv3_its"] == MemoryRegion("gicv3_its", 0x8080000, 0x20000)
    assert regions["gicv3_redist_region[0]"] == MemoryRegion("gicv3_redist_region[0]", 0x80A0000, 0x40000)
    assert set(regions) - {"system"} == {
        "gicv3_dist",
        "gicv3_its",
        "control",
        "translation",
        "gicv3_redist_region[0]",
    }


def test_memory_of_a_devices_name_is_not_taken_for_the_device() -> None:
    line = "    0000000050000000-000000005000ffff (prio 0, ram): gicv3_dist\n"
    regions = device_regions(QEMU_7_2.replace("    0000000008000000", line + "    0000000008000000"))
    assert regions["gicv3_dist"].base == 0x8000000


def test_a_region_that_is_disabled_is_not_there() -> None:
    assert "gicv3_its" not in device_regions(QEMU_7_2.replace("gicv3_its\n", "gicv3_its [disabled]\n"))


@given(st.text(), st.booleans())
def test_any_text_is_read(text: str, headed: bool) -> None:
    device_regions("address-space: memory\n" * headed + text)


@given(st.lists(st.sampled_from(QEMU_7_2.splitlines())))
def test_any_lines_are_read(lines: list[str]) -> None:
    device_regions("\n".join(["address-space: memory", *lines]))
