"""How QEMU takes a list of registers, by its two sets of rules, and how the set is told."""

from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.kvm import uapi
from vgicmgr.kvm.registers import register_id
from vgicmgr.qemu.program import InstalledQEMU
from vgicmgr.qemu.registers import compare_lists
from vgicmgr.qemu.rules import Rules

MIDR, CTR, TCR2, PIR = map(register_id, ("MIDR_EL1", "CTR_EL0", "TCR2_EL1", "PIR_EL1"))
BMAP_2 = uapi.KVM_REG_ARM_VENDOR_HYP_BMAP_2


def test_alike() -> None:
    for rules in Rules:
        comparison = compare_lists(rules, [(MIDR, 1), (CTR, 2)], [MIDR, CTR])
        assert comparison.loads
        assert (comparison.fatal, comparison.dropped, comparison.missing) == ((), (), ())


def test_what_only_the_destination_has_is_passed_over() -> None:
    for rules in Rules:
        assert compare_lists(rules, [(MIDR, 1)], [MIDR, CTR]).loads
        assert compare_lists(rules, [(MIDR, 1)], [MIDR, CTR]).missing == (CTR,)


class TestClassic:
    """QEMU 7.2 and 10.0."""

    def test_a_longer_list_fails_by_its_length(self) -> None:
        comparison = compare_lists(Rules.CLASSIC, [(MIDR, 1), (CTR, 2)], [MIDR])
        assert comparison.overflow
        assert not comparison.loads

    def test_an_unknown_register_fails(self) -> None:
        comparison = compare_lists(Rules.CLASSIC, [(TCR2, 0)], [MIDR, CTR])
        assert TCR2 < CTR
        assert comparison.fatal == (TCR2,)

    def test_what_follows_the_last_register_here_is_not_looked_at(self) -> None:
        comparison = compare_lists(Rules.CLASSIC, [(CTR, 0)], [MIDR, TCR2])
        assert comparison.loads
        assert comparison.dropped == (CTR,)


class TestTolerant:
    """QEMU 11.1, and what has its code."""

    @pytest.mark.parametrize("number", [TCR2, PIR])
    def test_registers_that_old_kernels_listed_by_mistake(self, number: int) -> None:
        comparison = compare_lists(Rules.TOLERANT, [(MIDR, 1), (number, 7)], [MIDR])
        assert comparison.loads
        assert comparison.dropped == (number,)

    def test_they_are_unknown_to_any_cpu_but_the_hosts_own(self) -> None:
        assert not compare_lists(Rules.TOLERANT, [(MIDR, 1), (TCR2, 7)], [MIDR], host_cpu=False).loads

    def test_another_register_fails(self) -> None:
        assert compare_lists(Rules.TOLERANT, [(MIDR, 1), (CTR, 7)], [MIDR]).fatal == (CTR,)

    @pytest.mark.parametrize(("value", "loads"), [(0, True), (1, False)])
    def test_hypercalls_that_are_not_offered(self, value: int, loads: bool) -> None:
        assert compare_lists(Rules.TOLERANT, [(MIDR, 1), (BMAP_2, value)], [MIDR]).loads is loads

    def test_the_last_one_alone_decides(self) -> None:
        """The code assigns each answer instead of gathering them."""
        id_register = register_id("ID_AA64MMFR3_EL1")
        assert id_register < TCR2
        comparison = compare_lists(Rules.TOLERANT, [(id_register, 1), (TCR2, 0)], [MIDR])
        assert comparison.loads
        assert comparison.fragile
        assert comparison.forgotten == (id_register,)

    def test_what_hangs_on_no_slip_is_not_fragile(self) -> None:
        id_register = register_id("ID_AA64MMFR3_EL1")
        assert not compare_lists(Rules.TOLERANT, [(TCR2, 0)], [MIDR]).fragile
        assert not compare_lists(Rules.TOLERANT, [(id_register, 1), (CTR, 0)], [MIDR]).fragile
        assert not compare_lists(Rules.TOLERANT, [(MIDR, 0)], [MIDR]).fragile


numbers = st.lists(st.sampled_from([MIDR, CTR, TCR2, PIR, BMAP_2]), unique=True).map(sorted)


@given(numbers, numbers, st.sampled_from(Rules))
def test_each_register_of_one_side_is_somewhere(stream: list[int], here: list[int], rules: Rules) -> None:
    comparison = compare_lists(rules, [(number, 1) for number in stream], here)
    assert set(comparison.missing) == set(here) - set(stream)
    found = {*comparison.fatal, *comparison.dropped}
    assert found == set(stream) - set(here)


MESSAGE = b"%s: %s in the incoming stream but unknown on the destination: fail migration"


def program(constants: bytes, text: bytes = b"code") -> bytes:
    """An ELF file with a section of code and one of constants (elf(5))."""
    sections = 64
    content = 64 + 3 * 64
    header = pack("<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 3, 183, 1, 0, 0, sections, 0, 64, 0, 0, 64, 3, 0)
    return b"".join(
        (
            header,
            bytes(64),
            pack("<IIQQQQIIQQ", 0, 1, 6, 0, content, len(text), 0, 0, 1, 0),
            pack("<IIQQQQIIQQ", 0, 1, 2, 0, content + len(text), len(constants), 0, 0, 1, 0),
            text,
            constants,
        )
    )


class TestInstalledQemu:
    """The program file has the message of the newer code, or has it not."""

    @pytest.mark.parametrize(
        ("content", "rules"),
        [
            (program(b"cpreg_vmstate_array_len\0"), Rules.CLASSIC),
            (program(b"a\0" + MESSAGE + b"\0b"), Rules.TOLERANT),
            (b"\x7fELF\x02" + MESSAGE, Rules.TOLERANT),
            (b"\x7fELF\x02" + bytes(100), Rules.CLASSIC),
        ],
    )
    def test_rules(self, tmp_path: Path, content: bytes, rules: Rules) -> None:
        (tmp_path / "qemu").write_bytes(content)
        assert InstalledQEMU(str(tmp_path / "qemu")).rules is rules

    @pytest.mark.parametrize("content", [b"", b"#!/bin/sh\nexec qemu\n", b"\x7fELF\x01"])
    def test_no_program(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "qemu").write_bytes(content)
        assert InstalledQEMU(str(tmp_path / "qemu")).rules is None

    @given(st.binary())
    def test_any_file_gives_an_answer(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        path = tmp_path_factory.mktemp("any") / "qemu"
        path.write_bytes(b"\x7fELF\x02" + content)
        assert InstalledQEMU(str(path)).rules in tuple(Rules)
