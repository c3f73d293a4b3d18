"""Kernel modules: what each says it needs, and an order to load them in."""

import lzma
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Module:
    """A module file; ``name`` with underscores, as the kernel lists it."""

    name: str
    path: Path

    def read(self) -> bytes:
        """The module itself, decompressed."""
        data = self.path.read_bytes()
        return lzma.decompress(data) if self.path.suffix == ".xz" else data

    def depends(self) -> list[str]:
        """The modules it names in its .modinfo."""
        needed = modinfo(self.read()).get("depends", "")
        return [name.replace("-", "_") for name in needed.split(",") if name]


def find(tree: Path) -> dict[str, Module]:
    """All modules under a folder, by name."""
    found = {}
    for path in tree.rglob("*.ko*"):
        name = path.name.partition(".ko")[0].replace("-", "_")
        found[name] = Module(name, path)
    return found


def modinfo(module: bytes) -> dict[str, str]:
    """The ``key=value`` strings of a module's .modinfo section; of a repeated key the last."""
    data = _section(module, b".modinfo")
    pairs = (text.decode(errors="replace").partition("=") for text in data.split(b"\0") if text)
    return {key: value for key, _, value in pairs}


def _section(elf: bytes, wanted: bytes) -> bytes:
    """A section of a 64-bit little-endian ELF file (elf.h: Elf64_Ehdr, Elf64_Shdr); empty where there is none."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    offset = struct.unpack_from("<Q", elf, 0x28)[0]
    size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, offset + size * index) for index in range(count)]
    names = headers[names_index][4]
    for name, _, _, _, start, length in headers:
        at = names + name
        if elf[at : elf.index(b"\0", at)] == wanted:
            return elf[start : start + length]
    return b""


def load_order(wanted: Iterable[str], depends: Mapping[str, Iterable[str]]) -> list[str]:
    """The wanted modules and what they need, each after what it needs; names not in ``depends`` are built in."""
    order: list[str] = []
    visiting: set[str] = set()

    def visit(name: str) -> None:
        if name not in depends or name in order or name in visiting:
            return
        visiting.add(name)
        for needed in depends[name]:
            visit(needed)
        order.append(name)

    for name in wanted:
        visit(name)
    return order
