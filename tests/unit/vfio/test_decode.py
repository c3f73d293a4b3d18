"""Answers of VFIO's ioctls, laid out by hand as ``include/uapi/linux/vfio.h`` has the structures."""

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.vfio import decode
from vgicmgr.vfio.inventory import Area, Irq, Region

READ, WRITE, MMAP, CAPS = 1, 2, 4, 8
SPARSE_MMAP, TYPE, MSIX_MAPPABLE = 1, 2, 3


def region_info(*, flags: int, index: int, size: int, offset: int, chain: bytes = b"") -> bytes:
    return pack("=IIIIQQ", 32 + len(chain), flags, index, 32 if chain else 0, size, offset) + chain


def test_a_region_without_capabilities() -> None:
    answer = region_info(flags=READ | WRITE | MMAP, index=1, size=0x20000, offset=1 << 40)
    assert decode.region(answer, pci=True) == Region(1, "BAR 1", 0x20000, 1 << 40, ("read", "write", "mmap"))


def test_an_unused_bar_has_no_size_and_no_flags() -> None:
    region = decode.region(region_info(flags=0, index=4, size=0, offset=4 << 40), pci=True)
    assert (region.size, region.flags) == (0, ())


def test_the_capabilities_of_a_region() -> None:
    chain = pack("=HHI II QQQQ", SPARSE_MMAP, 1, 32 + 48, 2, 0, 0, 0x1000, 0x3000, 0x1000)
    chain += pack("=HHI", MSIX_MAPPABLE, 1, 32 + 48 + 8)
    chain += pack("=HHI II", TYPE, 1, 0, 0x80008086, 1)
    answer = region_info(flags=READ | CAPS, index=9, size=0x4000, offset=9 << 40, chain=chain)
    assert decode.region(answer, pci=True) == Region(
        9,
        "",
        0x4000,
        9 << 40,
        ("read",),
        sparse_mmap=(Area(0, 0x1000), Area(0x3000, 0x1000)),
        msix_mappable=True,
        type=(0x80008086, 1),
    )


def test_an_area_list_can_be_empty() -> None:
    chain = pack("=HHI II", SPARSE_MMAP, 1, 0, 0, 0)
    answer = region_info(flags=READ | CAPS, index=0, size=0x1000, offset=0, chain=chain)
    assert decode.region(answer, pci=True).sparse_mmap == ()


@pytest.mark.parametrize(
    ("index", "name"), [(0, "BAR 0"), (5, "BAR 5"), (6, "ROM"), (7, "config"), (8, "VGA"), (9, "")]
)
def test_regions_of_a_pci_device_have_names(index: int, name: str) -> None:
    assert decode.region(region_info(flags=0, index=index, size=0, offset=0), pci=True).name == name


def test_regions_of_other_devices_have_none() -> None:
    assert decode.region(region_info(flags=0, index=0, size=0, offset=0), pci=False).name == ""


@pytest.mark.parametrize(
    ("index", "name"), [(0, "INTx"), (1, "MSI"), (2, "MSI-X"), (3, "error"), (4, "request"), (5, "")]
)
def test_interrupts_of_a_pci_device_have_names(index: int, name: str) -> None:
    assert decode.irq(pack("=IIII", 16, 1 | 8, index, 5), pci=True) == Irq(index, name, 5, ("eventfd", "noresize"))


def test_intx_can_be_masked_and_masks_itself() -> None:
    assert decode.irq(pack("=IIII", 16, 1 | 2 | 4, 0, 1), pci=False).flags == ("eventfd", "maskable", "automasked")


def test_migration_is_told_in_words() -> None:
    assert decode.migration(1) == ("stop-copy",)
    assert decode.migration(7) == ("stop-copy", "p2p", "pre-copy")


@pytest.mark.parametrize(("flags", "kind"), [(3, "pci"), (4, "platform"), (8, "amba"), (0x40, "fsl-mc"), (1, "")])
def test_kind(flags: int, kind: str) -> None:
    assert decode.kind(flags) == kind


def test_a_chain_that_leads_backwards_ends() -> None:
    answer = bytes(32) + pack("=HHI", 3, 1, 40) + pack("=HHI", 3, 1, 32)
    assert list(decode.capabilities(answer, 32)) == [(3, 32), (3, 40)]


@given(st.binary(min_size=32, max_size=200), st.booleans())
def test_any_answer_can_be_decoded(answer: bytes, pci: bool) -> None:
    decode.region(answer, pci=pci)
    decode.irq(answer, pci=pci)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=9), st.binary(max_size=8))
def test_areas_come_out_as_they_went_in(areas: list[tuple[int, int]], rest: bytes) -> None:
    chain = pack("=HHI II", SPARSE_MMAP, 1, 0, len(areas), 0) + b"".join(pack("=QQ", *area) for area in areas)
    answer = region_info(flags=CAPS, index=0, size=0, offset=0, chain=chain) + rest
    assert decode.region(answer, pci=True).sparse_mmap == tuple(Area(*area) for area in areas)
