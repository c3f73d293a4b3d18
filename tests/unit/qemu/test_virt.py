"""The virt machine's memory map: expectations worked out by hand from QEMU's hw/arm/virt.c."""

from vgicmgr.qemu.virt import GIB, gicv3_max_vcpus, top_of_memory

TIB = 1024 * GIB


def test_memory_begins_at_one_gib() -> None:
    assert top_of_memory(4 * GIB, 0, 0) == 5 * GIB


def test_memory_is_rounded_up_to_whole_gib() -> None:
    assert top_of_memory(GIB + 1, 0, 0) == 3 * GIB


def test_room_for_hotplugged_memory_has_one_gib_a_slot_for_alignment() -> None:
    assert top_of_memory(4 * GIB, 16 * GIB, 8) == (1 + 4 + 12 + 8) * GIB


def test_a_small_guest_has_its_second_redistributor_region_at_256_gib() -> None:
    # 0x40_0000_0000 + 64 MiB ends within 39 bits of address, not within 38
    assert gicv3_max_vcpus(5 * GIB, ipa_bits=39) == 123 + 512
    assert gicv3_max_vcpus(5 * GIB, ipa_bits=38) == 123


def test_memory_that_fills_the_address_space_leaves_no_second_region() -> None:
    assert gicv3_max_vcpus(TIB, ipa_bits=40) == 123
    assert gicv3_max_vcpus(TIB - GIB, ipa_bits=40) == 123 + 512
