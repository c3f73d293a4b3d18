"""What a QEMU's program file tells. The files are made up; real ones are asked in ``tests/lab/test_start.py``."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.errors import CannotTell
from vgicmgr.qemu.program import has_constant, has_machine_type


def program(folder: Path, content: bytes) -> str:
    path = folder / "qemu"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(("version", "there"), [("10.0", True), ("10.2", False), ("0.0", False)])
def test_a_qemu_has_the_machine_types_whose_names_it_has(tmp_path: Path, version: str, there: bool) -> None:
    qemu = program(tmp_path, b"\x7fELF\x02\0virt-9.2-machine\0virt-10.0-machine\0")
    assert has_machine_type(qemu, version) == there


def test_a_wrapper_script_tells_nothing(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="no 64-bit ELF program"):
        has_constant(program(tmp_path, b"#!/bin/sh\nexec qemu-system-aarch64\n"), b"virt")


def test_a_missing_program_tells_nothing(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="cannot be read: No such file"):
        has_constant(str(tmp_path / "absent"), b"virt")


@given(st.binary())
def test_any_file_can_be_asked(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    qemu = program(tmp_path_factory.mktemp("program"), b"\x7fELF\x02" + content)
    has_constant(qemu, b"constant")  # raises nothing
