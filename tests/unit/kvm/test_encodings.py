"""What KVM packs into the numbers of its attributes and ids."""

from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.kvm import uapi
from vgicmgr.kvm.vgic_v2 import GICD_TYPER, distributor_register
from vgicmgr.kvm.vgic_v3 import RedistributorRegion, affinity
from vgicmgr.kvm.vm import device_address_id, feature_id_index


@given(st.integers(0, 0xFFF), st.integers(0, (1 << 36) - 1), st.integers(0, 0xFFF))
def test_a_redistributor_region_reads_back(index: int, page: int, count: int) -> None:
    region = RedistributorRegion(index, page << 16, count)
    assert RedistributorRegion.decode(region.encode()) == region


def test_a_redistributor_region_as_the_document_lays_it_out() -> None:
    # arm-vgic-v3.rst: count (0x200) in 63..52, base in 51..16, flags 15..12, index in 11..0
    assert RedistributorRegion(1, 0x4000000000, 512).encode() == 0x2000_0040_0000_0001


def test_affinity_leaves_out_the_bits_of_mpidr_between_aff3_and_aff2() -> None:
    # MPIDR_EL1: Aff3 39..32, U 30, MT 24, Aff2 23..16, Aff1 15..8, Aff0 7..0; bit 31 is one
    assert affinity(0x0000_00AB_C1_02_03_04) == 0xAB_02_03_04 << 32


def test_a_gicv2_register_names_its_cpu_in_bits_39_to_32() -> None:
    assert distributor_register(GICD_TYPER, 5).number == 5 << 32 | 4


def test_a_device_address_id_has_the_device_above_the_type() -> None:
    assert device_address_id(1, 2) == 1 << 16 | 2


def test_the_feature_id_space_has_a_place_for_each_register() -> None:
    # KVM_ARM_FEATURE_ID_RANGE_IDX: op1 of 0, 1 and 3, CRm and op2 of 0 to 7 each
    places = {feature_id_index(op1, crm, op2) for op1 in (0, 1, 3) for crm in range(8) for op2 in range(8)}
    assert places == set(range(uapi.KVM_ARM_FEATURE_ID_RANGE_SIZE))
