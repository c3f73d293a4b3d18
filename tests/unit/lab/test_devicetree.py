"""A property taken out of a device tree, and nothing else."""

import struct

import pytest

from tests.lab.devicetree import without
from vgicmgr.qemu.devicetree import read_device_tree


def tree() -> bytes:
    """Two nodes of one property each, and the root's."""
    names = b"interrupts\0compatible\0"

    def node(name: str, *inside: bytes) -> bytes:
        padded = name.encode() + b"\0" * (4 - len(name) % 4)
        return struct.pack(">I", 1) + padded + b"".join(inside) + struct.pack(">I", 2)

    def prop(name: bytes, value: bytes) -> bytes:
        padding = b"\0" * (-len(value) % 4)
        return struct.pack(">3I", 3, len(value), names.index(name)) + value + padding

    structure = node(
        "",
        prop(b"compatible", b"lab\0"),
        node("intc@8000000", prop(b"compatible", b"arm,gic\0"), prop(b"interrupts", struct.pack(">3I", 1, 9, 4))),
        node("timer", prop(b"interrupts", struct.pack(">3I", 1, 13, 4))),
    ) + struct.pack(">I", 9)
    start = 40 + 16
    header = struct.pack(
        ">10I", 0xD00DFEED, start + len(structure) + len(names), start, start + len(structure), 40, 17, 16, 0,
        len(names), len(structure),
    )  # fmt: skip
    return header + bytes(16) + structure + names


def test_the_property_of_that_node_is_gone() -> None:
    root = read_device_tree(without(tree(), "intc", "interrupts"))
    assert set(root.children["intc@8000000"].properties) == {"compatible"}
    assert root.children["timer"].cells("interrupts") == (1, 13, 4)
    assert root.compatible()[0] == "lab"


def test_nothing_has_moved() -> None:
    assert len(without(tree(), "intc", "interrupts")) == len(tree())


def test_room_at_the_end_is_cut_off() -> None:
    roomy = bytearray(tree() + bytes(1 << 20))
    struct.pack_into(">I", roomy, 4, len(roomy))
    assert without(bytes(roomy), "intc", "interrupts") == without(tree(), "intc", "interrupts")


@pytest.mark.parametrize(("node", "name"), [("intc", "reg"), ("uart", "interrupts")])
def test_what_is_not_there_cannot_be_taken_out(node: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"no node {node} of the device tree has {name}"):
        without(tree(), node, name)
