"""Fields of ID and GIC registers; bits and meanings are those of Arm DDI 0487 and Arm IHI 0069."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.kvm import gicregs, idregs
from vgicmgr.kvm.bitfields import Field, Layout
from vgicmgr.kvm.idregs import decode, differing_fields, fields
from vgicmgr.kvm.sysregs import encodings

register = st.integers(0, 2**64 - 1)
id_register = st.sampled_from(idregs.names())

GIC_LAYOUTS = [gicregs.GICD_IIDR, gicregs.GICD_TYPER, gicregs.GICD_TYPER2, gicregs.GITS_IIDR, gicregs.GITS_TYPER]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("ID_AA64MMFR1_EL1", Field("HAFDBS", 0, 4)),
        ("ID_AA64MMFR1_EL1", Field("ETS", 36, 4)),
        ("ID_AA64MMFR0_EL1", Field("PARANGE", 0, 4)),
        ("ID_AA64MMFR0_EL1", Field("TGRAN4", 28, 4, signed=True)),
        ("ID_AA64PFR0_EL1", Field("GIC", 24, 4)),
        ("ID_AA64PFR0_EL1", Field("FP", 16, 4, signed=True)),
        ("ID_AA64PFR2_EL1", Field("GCIE", 12, 4)),
        ("ID_AA64DFR0_EL1", Field("PMUVer", 8, 4)),
        ("ID_AA64SMFR0_EL1", Field("FA64", 63, 1)),
        ("ID_AA64ISAR0_EL1", Field("TME", 24, 4)),
        ("ID_PFR1_EL1", Field("GIC", 28, 4)),
        ("CTR_EL0", Field("L1Ip", 14, 2)),
        ("CLIDR_EL1", Field("LoC", 24, 3)),
        ("MIDR_EL1", Field("PartNum", 4, 12)),
        ("MPIDR_EL1", Field("Aff3", 32, 8)),
        ("DCZID_EL0", Field("BS", 0, 4)),
    ],
)
def test_a_field_is_where_the_architecture_has_it(name: str, field: Field) -> None:
    assert field in fields(name)


def test_a_cortex_a57_says_so() -> None:
    """MIDR_EL1 of a Cortex-A57 r1p0 is 0x411fd070 (Arm DDI 0488)."""
    assert decode("MIDR_EL1", 0x411FD070) == {
        "Implementer": 0x41,
        "Variant": 1,
        "Architecture": 0xF,
        "PartNum": 0xD07,
        "Revision": 0,
    }


def test_a_signed_field_of_all_ones_is_minus_one() -> None:
    """ID_AA64PFR0_EL1.FP 0b1111: no floating point."""
    values = decode("ID_AA64PFR0_EL1", 0x0000_0000_00FF_0011)
    assert values["FP"] == values["AdvSIMD"] == -1
    assert values["EL1"] == values["EL0"] == 1


def test_the_field_that_keeps_a_guest_from_migrating_is_named() -> None:
    """Hardware update of the access flag only, against the dirty state as well."""
    (field,) = differing_fields("ID_AA64MMFR1_EL1", 0x1021_2122, 0x1021_2121)
    assert field.name == "HAFDBS"
    assert (field.of(0x1021_2122), field.of(0x1021_2121)) == (2, 1)


def test_a_difference_in_bits_without_a_name_is_shown() -> None:
    assert [field.name for field in differing_fields("ID_AA64PFR2_EL1", 0, 1 << 63 | 1 << 20)] == ["[63:36]", "[31:20]"]
    assert decode("DCZID_EL0", 0x100)["[63:5]"] == 8


def test_bits_without_a_name_are_not_shown_where_they_are_zero() -> None:
    assert decode("DCZID_EL0", 0x14) == {"DZP": 1, "BS": 4}


def test_a_register_without_known_fields_is_one_field() -> None:
    assert fields("TCR_EL1") == ()
    assert decode("TCR_EL1", 5) == {"[63:0]": 5}
    assert [field.name for field in differing_fields("TCR_EL1", 5, 6)] == ["[63:0]"]


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_value_of_more_bits_than_the_register_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit in 64 bits"):
        decode("MIDR_EL1", value)
    with pytest.raises(ValueError, match="does not fit in 64 bits"):
        differing_fields("MIDR_EL1", 0, value)


@pytest.mark.parametrize("name", idregs.names())
def test_id_registers_are_system_registers(name: str) -> None:
    assert name in encodings()


@pytest.mark.parametrize("layout", [*map(idregs.layout, idregs.names()), *GIC_LAYOUTS, gicregs.ICC_CTLR_EL1])
def test_fields_are_apart_in_order_and_named_once(layout: Layout) -> None:
    tops = [layout.width, *(field.lsb for field in layout.fields)]
    assert all(field.lsb + field.width <= top for field, top in zip(layout.fields, tops, strict=False))
    assert all(field.width > 0 for field in layout.fields)
    assert len({field.name for field in layout.fields}) == len(layout.fields) > 0


@given(id_register, register)
def test_decoding_loses_no_bit(name: str, value: int) -> None:
    values = decode(name, value)
    masks = {field.name: field for field in idregs.layout(name).all_fields}
    again = ((number << masks[field].lsb) & masks[field].mask for field, number in values.items())
    assert reduce(int.__or__, again, 0) == value


@given(id_register, register, register)
def test_differing_fields_cover_just_the_difference(name: str, a: int, b: int) -> None:
    differing = differing_fields(name, a, b)
    covered = reduce(int.__or__, (field.mask for field in differing), 0)
    assert (a ^ b) & ~covered == 0
    assert all((a ^ b) & field.mask for field in differing)


@given(id_register, register)
def test_a_register_does_not_differ_from_itself(name: str, value: int) -> None:
    assert differing_fields(name, value, value) == ()


@given(st.integers(0, 63), st.integers(1, 64), register)
def test_a_signed_field_is_twos_complement(lsb: int, width: int, value: int) -> None:
    width = min(width, 64 - lsb)
    unsigned, signed = Field("F", lsb, width).of(value), Field("F", lsb, width, signed=True).of(value)
    assert signed % (1 << width) == unsigned
    assert -(1 << (width - 1)) <= signed < 1 << (width - 1)


def test_kvm_is_known_by_its_iidr() -> None:
    """arm-vgic-v3.rst and vgic-mmio-v3.c: product K, implementer Arm, the implementation revision between them."""
    assert gicregs.GICD_IIDR.decode(0x4B00_343B) == {
        "ProductID": ord("K"),
        "Variant": 0,
        "Revision": 3,
        "Implementer": 0x43B,
    }
    assert gicregs.GITS_IIDR.differing_fields(0x4B00_043B, 0x4B00_143B) == (Field("Revision", 12, 4),)


def test_gicd_typer_counts_intids() -> None:
    """512 INTIDs (ITLinesNumber 15), INTIDs of 16 bits (IDbits 15), LPIs and MBIs."""
    values = gicregs.GICD_TYPER.decode(15 << 19 | 1 << 17 | 1 << 16 | 15)
    assert {name for name, value in values.items() if value} == {"IDbits", "LPIS", "MBIS", "ITLinesNumber"}
    assert values["IDbits"] == values["ITLinesNumber"] == 15


def test_gits_typer_of_kvm() -> None:
    """vgic_mmio_read_its_typer: physical LPIs, 16 bits of DeviceID and EventID, 8 bytes an ITT entry."""
    values = gicregs.GITS_TYPER.decode(15 << 13 | 15 << 8 | 7 << 4 | 1)
    assert {name: value for name, value in values.items() if value} == {
        "Devbits": 15,
        "ID_bits": 15,
        "ITT_entry_size": 7,
        "Physical": 1,
    }
