"""What an installed QEMU's program file tells of it, by the constants in it; it is read, never run."""

import mmap
import os
import struct
from collections.abc import Iterable
from struct import Struct

from vgicmgr.errors import CannotTell
from vgicmgr.qemu.machine import Version

_HEADER = Struct("<16x8x8xQQ4xHHHHHH")
"""Elf64_Ehdr from e_phoff on: e_phoff, e_shoff, then sizes and numbers of the headers (elf(5))."""
_SECTION = Struct("<IIQQQQ24x")
"""Elf64_Shdr: sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size."""
_SHT_PROGBITS, _SHF_WRITE, _SHF_EXECINSTR = 1, 1, 4


def has_constant(emulator: str, text: bytes) -> bool:
    """Whether an installed QEMU's program file has this text among its constants: a message, a property's name.

    Raises :class:`~vgicmgr.errors.CannotTell` when the file cannot be read or is no program itself (a wrapper script).
    """
    return _constant(emulator, text) is not None


def version(emulator: str) -> Version:
    """The version of an installed QEMU, as ``--version`` prints it; errors as :func:`has_constant`."""
    constant = _constant(emulator, _VERSION) or b""
    numbers = constant.removeprefix(_VERSION).split(b".")[:2]
    if len(numbers) < 2 or not all(number.isdigit() and len(number) < 4 for number in numbers):
        raise CannotTell(f"the emulator {emulator} does not tell its version")
    return int(numbers[0]), int(numbers[1])


_VERSION = b"QEMU emulator version "
"""What ``--version`` begins with, in one constant with the number (system/vl.c, version)."""


def _constant(emulator: str, text: bytes) -> bytes | None:
    """The constant with this text, from there to its end or 100 bytes of it; errors as :func:`has_constant`."""
    try:
        fd = os.open(emulator, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CannotTell(f"the emulator {emulator} cannot be read: {os.strerror(error.errno or 0)}") from None
    try:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as program:
            if program[:5] != b"\x7fELF\x02":
                raise CannotTell(f"the emulator {emulator} is no 64-bit ELF program, so its rules cannot be told")
            places = (program.find(text, start, end) for start, end in _constants(program))
            place = next((place for place in places if place >= 0), None)
            return None if place is None else program[place : place + 100].partition(b"\0")[0]
    except (OSError, ValueError):
        raise CannotTell(f"the emulator {emulator} cannot be read as a file") from None
    finally:
        os.close(fd)


def has_machine_type(emulator: str, version: str) -> bool:
    """Whether an installed QEMU has the machine type ``virt-<version>``: then it is of that version or later.

    Errors as :func:`has_constant`.
    """
    return has_constant(emulator, f"virt-{version}-machine".encode())


def _constants(program: mmap.mmap) -> Iterable[tuple[int, int]]:
    """Where the constants lie, a tenth of the file; all of it where the sections cannot be told."""
    try:
        _, sections, _, _, _, size, count, _ = _HEADER.unpack_from(program)
        headers = [_SECTION.unpack_from(program, sections + number * size) for number in range(count)]
    except (struct.error, OverflowError):
        headers = []
    found = [
        (min(offset, len(program)), min(offset + length, len(program)))
        for _, kind, flags, _, offset, length in headers
        if kind == _SHT_PROGBITS and flags and not flags & (_SHF_WRITE | _SHF_EXECINSTR)
    ]
    return found or [(0, len(program))]
