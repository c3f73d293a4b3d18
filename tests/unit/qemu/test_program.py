"""What a QEMU's program file tells. The files are made up; real ones are asked in ``tests/lab/test_start.py``."""

import os
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.qemu.program import InstalledQEMU, KnownQEMU
from vgicmgr.qemu.rules import Rules

TYPE_CHECKING = False

if TYPE_CHECKING:
    from vgicmgr.qemu.program import QEMUFacts


def program(folder: Path, content: bytes) -> InstalledQEMU:
    path = folder / "qemu"
    path.write_bytes(content)
    return InstalledQEMU(str(path))


@pytest.mark.parametrize(
    ("constant", "told"),
    [
        (b"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022", (7, 2)),
        (b"QEMU emulator version 10.0.2\n", (10, 0)),
        (b"QEMU emulator version 11.1.50 (v11.1.0-12-gdeadbeef)\n", (11, 1)),
        (b"QEMU emulator version 16.0.0\0virt-rhel9.6.0-machine\0", (16, 0)),
        (b"", None),
        (b"QEMU emulator version %s\0", None),
        (b"QEMU emulator version 1\0", None),
        (b"QEMU emulator version 1000.0.0\0", None),
        (b"QEMU 7.2\0", None),
    ],
)
def test_a_qemu_has_the_version_that_it_prints(tmp_path: Path, constant: bytes, told: tuple[int, int] | None) -> None:
    assert program(tmp_path, b"\x7fELF\x02\0virt-9.2-machine\0" + constant + b"\0").version == told


def test_a_distributions_qemu_without_upstreams_machine_types_has_a_version_all_the_same(tmp_path: Path) -> None:
    content = b"\x7fELF\x02\0virt-rhel9.6.0-machine\0virt-rhel10.0.0-machine\0QEMU emulator version 10.2.0\n\0"
    assert program(tmp_path, content).version == (10, 2)


def test_a_qemu_knows_the_properties_that_it_names(tmp_path: Path) -> None:
    assert program(tmp_path, b"\x7fELF\x02\0kvm-psci-version\0").psci_property is True
    assert program(tmp_path, b"\x7fELF\x02\0").psci_property is False


def test_a_wrapper_script_tells_nothing_and_says_why(tmp_path: Path) -> None:
    qemu = program(tmp_path, b"#!/bin/sh\nexec qemu-system-aarch64\n")
    assert (qemu.version, qemu.rules, qemu.psci_property, qemu.knows(b"virt")) == (None, None, None, None)
    assert "no 64-bit ELF program" in qemu.why


def test_a_file_is_read_once_for_each_question(tmp_path: Path) -> None:
    qemu = program(tmp_path, b"\x7fELF\x02QEMU emulator version 10.0.0\0")
    assert qemu.version == (10, 0)
    Path(qemu.path).unlink()
    assert qemu.version == (10, 0)


@pytest.mark.parametrize(("headers", "section"), [(2**64 - 1, 0), (64, 2**64 - 1)])
def test_a_file_whose_sections_lie_beyond_its_end_is_no_fault_of_ours(
    tmp_path: Path, headers: int, section: int
) -> None:
    """Elf64_Ehdr and one Elf64_Shdr of SHT_PROGBITS, allocated (elf(5))."""
    header = b"\x7fELF\x02".ljust(32, b"\0") + pack("<QQ4xHHHHHH", 0, headers, 64, 0, 0, 64, 1, 0)
    assert program(tmp_path, header + pack("<IIQQQQ24x", 0, 1, 2, 0, section, section)).knows(b"constant") is False


@pytest.mark.parametrize("path", ["absent", "", "a\0b", "."])
def test_what_is_no_file_tells_nothing(tmp_path: Path, path: str) -> None:
    qemu = InstalledQEMU(str(tmp_path / path) if path != "" else "")
    assert qemu.version is None
    assert qemu.why


def test_a_fifo_is_not_opened(tmp_path: Path) -> None:
    """Who opens it for writing waits for a reader, and would get one."""
    os.mkfifo(tmp_path / "fifo")
    qemu = InstalledQEMU(str(tmp_path / "fifo"))
    assert qemu.version is None
    assert "no regular file" in qemu.why
    with pytest.raises(OSError, match="No such device"):  # ENXIO: nobody has it open for reading
        os.open(tmp_path / "fifo", os.O_WRONLY | os.O_NONBLOCK)


def test_a_link_is_followed(tmp_path: Path) -> None:
    program(tmp_path, b"\x7fELF\x02QEMU emulator version 10.0.0\0")
    (tmp_path / "link").symlink_to("qemu")
    assert InstalledQEMU(str(tmp_path / "link")).version == (10, 0)


def test_a_qemu_of_hearsay_has_the_same_interface() -> None:
    facts: QEMUFacts = KnownQEMU((10, 0), Rules.CLASSIC)
    assert (facts.version, facts.rules, facts.psci_property) == ((10, 0), Rules.CLASSIC, None)
    facts = InstalledQEMU("/nowhere")
    assert facts.rules is None


@given(st.binary())
def test_any_file_can_be_asked(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("program")
    assert program(folder, b"\x7fELF\x02" + content).knows(b"constant") in (True, False)
    version = program(folder, b"\x7fELF\x02QEMU emulator version " + content).version
    assert version is None or max(version) < 1000
