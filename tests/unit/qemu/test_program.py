"""What a QEMU's program file tells. The files are made up; real ones are asked in ``tests/lab/test_start.py``."""

from contextlib import suppress
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.errors import CannotTell
from vgicmgr.qemu.program import has_constant, has_machine_type, version


def program(folder: Path, content: bytes) -> str:
    path = folder / "qemu"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(("version", "there"), [("10.0", True), ("10.2", False), ("0.0", False)])
def test_a_qemu_has_the_machine_types_whose_names_it_has(tmp_path: Path, version: str, there: bool) -> None:
    qemu = program(tmp_path, b"\x7fELF\x02\0virt-9.2-machine\0virt-10.0-machine\0")
    assert has_machine_type(qemu, version) == there


@pytest.mark.parametrize(
    ("constant", "told"),
    [
        (b"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022", (7, 2)),
        (b"QEMU emulator version 10.0.2\n", (10, 0)),
        (b"QEMU emulator version 11.1.50 (v11.1.0-12-gdeadbeef)\n", (11, 1)),
    ],
)
def test_a_qemu_has_the_version_that_it_prints(tmp_path: Path, constant: bytes, told: tuple[int, int]) -> None:
    assert version(program(tmp_path, b"\x7fELF\x02\0virt-9.2-machine\0" + constant + b"\0")) == told


@pytest.mark.parametrize("constant", [b"", b"QEMU emulator version %s\0", b"QEMU emulator version 1\0", b"QEMU 7.2\0"])
def test_a_program_that_prints_no_version_tells_none(tmp_path: Path, constant: bytes) -> None:
    with pytest.raises(CannotTell, match="does not tell its version"):
        version(program(tmp_path, b"\x7fELF\x02\0" + constant))


def test_a_wrapper_script_tells_nothing(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="no 64-bit ELF program"):
        has_constant(program(tmp_path, b"#!/bin/sh\nexec qemu-system-aarch64\n"), b"virt")


@pytest.mark.parametrize(("headers", "section"), [(2**64 - 1, 0), (64, 2**64 - 1)])
def test_a_file_whose_sections_lie_beyond_its_end_is_no_fault_of_ours(
    tmp_path: Path, headers: int, section: int
) -> None:
    """Elf64_Ehdr and one Elf64_Shdr of SHT_PROGBITS, allocated (elf(5))."""
    header = b"\x7fELF\x02".ljust(32, b"\0") + pack("<QQ4xHHHHHH", 0, headers, 64, 0, 0, 64, 1, 0)
    qemu = program(tmp_path, header + pack("<IIQQQQ24x", 0, 1, 2, 0, section, section))
    assert not has_constant(qemu, b"constant")


def test_a_missing_program_tells_nothing(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="cannot be read: No such file"):
        has_constant(str(tmp_path / "absent"), b"virt")


@given(st.binary())
def test_any_file_can_be_asked(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    qemu = program(tmp_path_factory.mktemp("program"), b"\x7fELF\x02" + content)
    has_constant(qemu, b"constant")  # raises nothing


@given(st.binary())
def test_any_version_can_stand_in_a_file(tmp_path_factory: pytest.TempPathFactory, number: bytes) -> None:
    qemu = program(tmp_path_factory.mktemp("program"), b"\x7fELF\x02QEMU emulator version " + number)
    with suppress(CannotTell):
        version(qemu)
