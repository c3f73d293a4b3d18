"""Kernel modules: what they need, and the order to load them in."""

import lzma
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab import modules
from tests.lab.kernel import closure


def elf(modinfo: bytes) -> bytes:
    """A minimal 64-bit little-endian ELF file with a .modinfo section (elf.h)."""
    names = b"\0.modinfo\0.shstrtab\0"
    body = modinfo + names
    table = 64 + len(body)
    header = b"\x7fELF\x02\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 1, 183, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2
    )
    sections = [
        (0, 0, 0, 0),
        (1, 1, 64, len(modinfo)),
        (10, 3, 64 + len(modinfo), len(names)),
    ]
    return (
        header
        + body
        + b"".join(
            struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0)
            for name, kind, offset, size in sections
        )
    )


def module_file(folder: Path, name: str, depends: str, *, compressed: bool = False) -> modules.Module:
    data = elf(f"license=GPL\0depends={depends}\0name={name}\0".encode())
    path = folder / (f"{name}.ko.xz" if compressed else f"{name}.ko")
    path.write_bytes(lzma.compress(data) if compressed else data)
    return modules.Module(name.replace("-", "_"), path)


def test_modinfo_is_read_out_of_the_elf_file() -> None:
    assert modules.modinfo(elf(b"license=GPL\0depends=a,b\0")) == {"license": "GPL", "depends": "a,b"}


def test_something_else_than_elf_is_refused() -> None:
    with pytest.raises(ValueError, match="ELF"):
        modules.modinfo(b"#!/bin/sh")


@pytest.mark.parametrize("compressed", [False, True])
def test_modules_are_found_under_the_name_the_kernel_lists(tmp_path: Path, compressed: bool) -> None:
    module_file(tmp_path, "vfio-pci", "vfio-pci-core,vfio", compressed=compressed)
    found = modules.find(tmp_path)
    assert found["vfio_pci"].depends() == ["vfio_pci_core", "vfio"]


def test_closure_brings_what_is_needed_first_and_leaves_out_what_is_built_in(tmp_path: Path) -> None:
    for name, depends in (("ext4", "jbd2,mbcache,crc16"), ("jbd2", ""), ("mbcache", ""), ("other", "")):
        module_file(tmp_path, name, depends)
    order = closure(["virtio_pci", "ext4"], modules.find(tmp_path))
    assert set(order) == {"ext4", "jbd2", "mbcache"}
    assert order[-1] == "ext4"


@given(st.dictionaries(st.integers(0, 12), st.sets(st.integers(0, 12))))
def test_every_module_is_loaded_once_and_after_what_it_needs(graph: dict[int, set[int]]) -> None:
    # Only smaller numbers are needed: the kernel's modules have no circles.
    depends = {str(name): [str(needed) for needed in sorted(needs) if needed < name] for name, needs in graph.items()}
    order = modules.load_order(depends, depends)
    assert sorted(order) == sorted(depends)
    for name, needs in depends.items():
        assert all(order.index(needed) < order.index(name) for needed in needs if needed in depends)
