"""Register ids and names.

The ids are those of the kernel's Documentation/virt/kvm/api.rst (4.68) and of the selftest arm64/get-reg-list.c.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.kvm import uapi
from vgicmgr.kvm.registers import RegisterClass, register_class, register_id, register_name, sysreg, sysreg_encoding
from vgicmgr.kvm.sysregs import _FAMILIES, _REGISTERS, Encoding, encodings, names

PUBLISHED = {
    # api.rst, table of the core registers
    0x6030_0000_0010_0000: "X0",
    0x6030_0000_0010_0002: "X1",
    0x6030_0000_0010_003C: "X30",
    0x6030_0000_0010_003E: "SP_EL0",
    0x6030_0000_0010_0040: "PC",
    0x6030_0000_0010_0042: "PSTATE",
    0x6030_0000_0010_0044: "SP_EL1",
    0x6030_0000_0010_0046: "ELR_EL1",
    0x6030_0000_0010_0048: "SPSR_EL1",
    0x6030_0000_0010_004A: "SPSR_abt",
    0x6030_0000_0010_004C: "SPSR_und",
    0x6030_0000_0010_004E: "SPSR_irq",
    0x6030_0000_0010_0050: "SPSR_fiq",
    0x6040_0000_0010_0054: "V0",
    0x6040_0000_0010_0058: "V1",
    0x6040_0000_0010_00D0: "V31",
    0x6020_0000_0010_00D4: "FPSR",
    0x6020_0000_0010_00D5: "FPCR",
    # api.rst: 0x6020 0000 0011 00 <csselr:8>; CSSELR_EL1 is Level - 1 in bits 3 to 1, InD in bit 0
    0x6020_0000_0011_0000: "CCSIDR_EL1[L1 data]",
    0x6020_0000_0011_0001: "CCSIDR_EL1[L1 instruction]",
    0x6020_0000_0011_0002: "CCSIDR_EL1[L2 data]",
    0x6020_0000_0011_000C: "CCSIDR_EL1[L7 data]",
    # api.rst: SVE
    0x6080_0000_0015_0000: "Z0",
    0x6080_0000_0015_0020: "Z1",
    0x6080_0000_0015_03E0: "Z31",
    0x6080_0000_0015_03FF: "Z31[slice 31]",
    0x6050_0000_0015_0400: "P0",
    0x6050_0000_0015_05E0: "P15",
    0x6050_0000_0015_0600: "FFR",
    0x6050_0000_0015_0601: "FFR[slice 1]",
    0x6060_0000_0015_FFFF: "KVM_REG_ARM64_SVE_VLS",
    # get-reg-list.c, by the comments there
    0x6030_0000_0014_0000: "KVM_REG_ARM_PSCI_VERSION",
    0x6030_0000_0014_0001: "KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1",
    0x6030_0000_0014_0002: "KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2",
    0x6030_0000_0014_0003: "KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3",
    0x6030_0000_0016_0000: "KVM_REG_ARM_STD_BMAP",
    0x6030_0000_0016_0001: "KVM_REG_ARM_STD_HYP_BMAP",
    0x6030_0000_0016_0002: "KVM_REG_ARM_VENDOR_HYP_BMAP",
    0x6030_0000_0016_0003: "KVM_REG_ARM_VENDOR_HYP_BMAP_2",
}

SYSREGS = {
    # get-reg-list.c, by the comments there
    (3, 0, 0, 0, 0): "MIDR_EL1",
    (3, 0, 0, 0, 5): "MPIDR_EL1",
    (3, 0, 0, 0, 6): "REVIDR_EL1",
    (3, 1, 0, 0, 1): "CLIDR_EL1",
    (3, 1, 0, 0, 7): "AIDR_EL1",
    (3, 3, 0, 0, 1): "CTR_EL0",
    (2, 0, 0, 2, 0): "MDCCINT_EL1",
    (2, 0, 0, 2, 2): "MDSCR_EL1",
    (2, 0, 1, 1, 4): "OSLSR_EL1",
    (2, 4, 0, 7, 0): "DBGVCR32_EL2",
    (3, 0, 0, 1, 0): "ID_PFR0_EL1",
    (3, 0, 0, 3, 2): "MVFR2_EL1",
    (3, 0, 0, 4, 0): "ID_AA64PFR0_EL1",
    (3, 0, 0, 5, 0): "ID_AA64DFR0_EL1",
    (3, 0, 0, 6, 2): "ID_AA64ISAR2_EL1",
    (3, 0, 0, 7, 1): "ID_AA64MMFR1_EL1",
    (3, 0, 0, 7, 4): "ID_AA64MMFR4_EL1",
    (3, 0, 2, 0, 3): "TCR2_EL1",
    (3, 0, 10, 2, 2): "PIRE0_EL1",
    (3, 0, 10, 2, 3): "PIR_EL1",
    (3, 2, 0, 0, 0): "CSSELR_EL1",
    (3, 3, 14, 0, 1): "CNTPCT_EL0",
    (3, 3, 14, 2, 1): "CNTP_CTL_EL0",
    (3, 3, 14, 2, 2): "CNTP_CVAL_EL0",
    (3, 4, 3, 0, 0): "DACR32_EL2",
    (3, 3, 9, 12, 0): "PMCR_EL0",
    # Arm DDI 0487: CRm and op2 of the numbered registers are made of their number
    (2, 0, 0, 0, 4): "DBGBVR0_EL1",
    (2, 0, 0, 15, 7): "DBGWCR15_EL1",
    (3, 3, 14, 8, 0): "PMEVCNTR0_EL0",
    (3, 3, 14, 11, 6): "PMEVCNTR30_EL0",
    (3, 3, 14, 15, 6): "PMEVTYPER30_EL0",
    (3, 3, 14, 15, 7): "PMCCFILTR_EL0",
    # Arm IHI 0069
    (3, 0, 12, 8, 4): "ICC_AP0R0_EL1",
    (3, 0, 12, 12, 4): "ICC_CTLR_EL1",
    (3, 4, 12, 13, 7): "ICH_LR15_EL2",
}

any_id = st.integers(0, 2**64 - 1)
any_encoding = st.builds(
    Encoding, st.integers(0, 3), st.integers(0, 7), st.integers(0, 15), st.integers(0, 15), st.integers(0, 7)
)
any_place = st.integers(0, 0xFFFF)
arm64_id = st.builds(
    lambda size, kind, place: uapi.KVM_REG_ARM64 | size << uapi.KVM_REG_SIZE_SHIFT | kind.value | place,
    st.integers(0, 8),
    st.sampled_from(RegisterClass),
    any_place,
)


@pytest.mark.parametrize(("number", "name"), PUBLISHED.items())
def test_published_ids_have_their_names(number: int, name: str) -> None:
    assert register_name(number) == name
    assert register_id(name) == number


@pytest.mark.parametrize(("encoding", "name"), SYSREGS.items())
def test_system_registers_have_the_names_of_their_encodings(
    encoding: tuple[int, int, int, int, int], name: str
) -> None:
    assert register_name(sysreg(*encoding)) == name
    assert register_id(name) == sysreg(*encoding)


def test_the_id_of_a_system_register_is_written_out_in_api_rst() -> None:
    """0x6030 0000 0013 <op0:2> <op1:3> <crn:4> <crm:4> <op2:3>"""
    assert sysreg(3, 0, 0, 7, 1) == 0x6030_0000_0013_0000 | 0b11_000_0000_0111_001


def test_virtual_timer_and_counter_have_each_others_encoding() -> None:
    """The header's WARNING: CNTV_CVAL_EL0 is S3_3_C14_C3_2 and CNTVCT_EL0 is S3_3_C14_C0_2 for everyone but KVM."""
    assert register_name(sysreg(3, 3, 14, 0, 2)) == "CNTV_CVAL_EL0"
    assert register_name(sysreg(3, 3, 14, 3, 2)) == "CNTVCT_EL0"
    assert register_id("CNTV_CVAL_EL0") == uapi.KVM_REG_ARM_TIMER_CVAL
    assert register_id("CNTVCT_EL0") == uapi.KVM_REG_ARM_TIMER_CNT
    assert register_name(uapi.KVM_REG_ARM_TIMER_CTL) == "CNTV_CTL_EL0"


def test_an_unknown_encoding_is_written_as_arm_writes_it() -> None:
    assert register_name(sysreg(3, 0, 0, 3, 3)) == "S3_0_C0_C3_3"
    assert register_id("S3_0_C0_C3_3") == sysreg(3, 0, 0, 3, 3)


def test_a_known_register_is_found_by_its_encoding_too() -> None:
    assert register_id("S3_0_C0_C7_1") == register_id("ID_AA64MMFR1_EL1")


@pytest.mark.parametrize(
    "number",
    [
        0x6020_0000_0010_0000,  # X0 with 32 bits
        0x6030_0000_0010_0001,  # second half of X0
        0x6020_0000_0011_000E,  # an eighth level of cache
        0x6020_0000_0011_0100,  # not CCSIDR
        0x6020_0000_0013_C039,  # a system register with 32 bits
        0x6030_0000_0014_00FF,
        0x6030_0000_0017_0000,
        0x7030_0000_0013_C039,
        0x6030_0000_1013_C039,
        0,
        2**64 - 1,
    ],
)
def test_an_id_that_means_nothing_is_written_in_hex(number: int) -> None:
    assert register_name(number) == f"0x{number:016x}"


@given(any_id | arm64_id)
def test_every_id_has_a_name_of_its_own(number: int) -> None:
    assert register_id(register_name(number)) == number


@given(any_encoding)
def test_id_and_encoding_are_one(encoding: Encoding) -> None:
    assert sysreg_encoding(sysreg(*encoding)) == encoding
    assert register_class(sysreg(*encoding)) is RegisterClass.SYSREG


@given(any_encoding)
def test_a_written_encoding_is_read_back(encoding: Encoding) -> None:
    assert Encoding.parse(str(encoding)) == encoding


@given(any_id)
def test_what_is_no_system_register_has_no_encoding(number: int) -> None:
    if register_class(number) is not RegisterClass.SYSREG:
        with pytest.raises(ValueError, match="not the id of a system register"):
            sysreg_encoding(number)


@given(arm64_id)
def test_a_class_is_the_coprocessor(number: int) -> None:
    kind = register_class(number)
    assert kind is not None
    assert kind.value == number & uapi.KVM_REG_ARM_COPROC_MASK


@pytest.mark.parametrize("number", [0, 0x4030_0000_0013_C039, 0x6030_0000_0012_0000, 0x6030_0001_0013_C039])
def test_what_is_not_of_arm64_has_no_class(number: int) -> None:
    assert register_class(number) is None


@given(st.text())
def test_any_text_is_a_name_or_a_key_error(text: str) -> None:
    try:
        number = register_id(text)
    except KeyError:
        return
    assert 0 <= number < 2**64


@pytest.mark.parametrize(
    "name",
    [
        *("", "X31", "x0", "ID_AA64MMFR1", "0x", "0x1", "0x" + "f" * 17),
        *("S4_0_C0_C0_0", "S3_8_C0_C0_0", "S3_0_C16_C0_0", "S3_0_C0_C16_0", "S3_0_C0_C0_8"),
        *("S3_0_C0_C0", "S3_0_C00_C0_0", "s3_0_c0_c7_1", "S3_0_C0_C7_1 ", "S3_0_C0_C7_\N{SUPERSCRIPT ONE}"),
    ],
)
def test_a_name_nobody_has_is_a_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        register_id(name)


def test_every_table_entry_is_unique() -> None:
    entries = len(_REGISTERS.splitlines()) + sum(len(numbers) for _, numbers, _ in _FAMILIES)
    assert len(names()) == len(encodings()) == entries


def test_every_known_name_is_given_back() -> None:
    assert [register_name(register_id(name)) for name in encodings()] == list(encodings())


def test_the_table_is_in_order_of_encoding() -> None:
    listed = [Encoding.parse(line.split()[0]) for line in _REGISTERS.splitlines()]
    assert listed == sorted(listed)


def test_table_entries_are_encodings_of_mrs_and_msr() -> None:
    assert {encoding.op0 for encoding in names()} == {2, 3}
    assert all(Encoding.parse(str(encoding)) == encoding for encoding in names())
