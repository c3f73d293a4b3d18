"""What an installed QEMU's program file tells of it, by the constants in it; it is read, never run."""

import mmap
import os
import stat
import struct
from collections.abc import Iterable
from struct import Struct

from vgicmgr.dataclass import dataclass
from vgicmgr.errors import CannotTell
from vgicmgr.qemu.machine import Version, dotted_version
from vgicmgr.qemu.rules import Rules

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from typing import Protocol

    class QEMUFacts(Protocol):
        """What is known of a QEMU; None where it cannot be told."""

        @property
        def version(self) -> Version | None:
            """Its version."""

        @property
        def release(self) -> str:
            """The whole of it, such as ``10.0.13``; empty where no more than the version is known."""

        @property
        def rules(self) -> Rules | None:
            """How it takes the list of registers of a migration."""

        @property
        def psci_property(self) -> bool | None:
            """Whether its CPUs have the property ``kvm-psci-version``."""


PSCI_PROPERTY_SINCE: Version = (11, 0)


@dataclass(frozen=True)
class KnownQEMU:
    """A QEMU by what somebody else says of it: a document, or the version that an operator names."""

    version: Version | None = None
    rules: Rules | None = None
    psci_property: bool | None = None
    release: str = ""


class InstalledQEMU:
    """The QEMU at a path. Each question is put to its program file once; ``why`` says what kept an answer away."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.why = ""
        self._answers: dict[bytes, bytes | None] = {}

    @property
    def version(self) -> Version | None:
        """As ``--version`` prints it."""
        constant = self._constant(_VERSION)
        if constant is None:
            return None
        numbers = constant.removeprefix(_VERSION).decode("ascii", "replace").split(".")[:2]
        return dotted_version(".".join(numbers)) if len(numbers) == 2 else None

    @property
    def release(self) -> str:
        """The whole of it, such as ``10.0.13``; empty where it cannot be told."""
        constant = self._constant(_VERSION) or b""
        words = constant.removeprefix(_VERSION).decode("ascii", "replace").split()
        return words[0] if words and words[0].isprintable() else ""

    @property
    def rules(self) -> Rules | None:
        """By a message that only the newer code has: distributions have taken it into older versions."""
        known = self.knows(_ONLY_INCOMING)
        return None if known is None else Rules.TOLERANT if known else Rules.CLASSIC

    @property
    def psci_property(self) -> bool | None:
        """By the property's name."""
        return self.knows(b"kvm-psci-version")

    def knows(self, text: bytes) -> bool | None:
        """Whether this is in one of its constants, a message or a property's name; None where it cannot be read."""
        constant = self._constant(text)
        return constant is not None if not self.why else None

    def _constant(self, text: bytes) -> bytes | None:
        """The constant with this text, from there to its end or 100 bytes of it."""
        if self.why:
            return None
        if text not in self._answers:
            try:
                self._answers[text] = _constant(self.path, text)
            except CannotTell as error:
                self.why = error.message
                return None
        return self._answers[text]


_VERSION = b"QEMU emulator version "
"""What ``--version`` begins with, in one constant with the number (system/vl.c, version)."""
_ONLY_INCOMING = b"in the incoming stream but unknown on the destination"
"""Of handle_cpreg_only_in_incoming_stream, which came with the tolerances (target/arm/machine.c)."""
_HEADER = Struct("<16x8x8xQQ4xHHHHHH")
"""Elf64_Ehdr from e_phoff on: e_phoff, e_shoff, then sizes and numbers of the headers (elf(5))."""
_SECTION = Struct("<IIQQQQ24x")
"""Elf64_Shdr: sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size."""
_SHT_PROGBITS, _SHF_WRITE, _SHF_EXECINSTR = 1, 1, 4


def _constant(emulator: str, text: bytes) -> bytes | None:
    fd = _open(emulator)
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


def _open(emulator: str) -> int:
    """The file, opened for reading once it is known to be one: to open a FIFO or a device may do something."""
    try:
        place = os.open(emulator, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "no path"
        raise CannotTell(f"the emulator {emulator} cannot be read: {reason}") from None
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise CannotTell(f"the emulator {emulator} is no regular file")
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CannotTell(f"the emulator {emulator} cannot be read: {os.strerror(error.errno or 0)}") from None
    finally:
        os.close(place)


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
