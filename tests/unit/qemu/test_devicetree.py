"""The reader of flattened device trees: trees are read as they were written, other bytes are refused, none crash it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.qemu.devicetree import MAX_BYTES, DeviceTreeError, GuestTree, Node, guest_tree, read_device_tree


def flatten(root: Node) -> bytes:
    """The tree as the Devicetree Specification (5.2 to 5.6) has it: header, structure, strings."""
    structure, strings = bytearray(), bytearray()

    def put(name: str, node: Node) -> None:
        structure.extend(struct.pack(">I", 1) + name.encode() + b"\0")
        structure.extend(bytes(-len(structure) % 4))
        for key, value in node.properties.items():
            structure.extend(struct.pack(">3I", 3, len(value), len(strings)) + value)
            structure.extend(bytes(-len(structure) % 4))
            strings.extend(key.encode() + b"\0")
        for key, child in node.children.items():
            put(key, child)
        structure.extend(struct.pack(">I", 2))

    put("", root)
    structure.extend(struct.pack(">I", 9))
    at = 40 + 16  # the header and an empty reservation block
    size = at + len(structure) + len(strings)
    header = (0xD00DFEED, size, at, at + len(structure), 40, 17, 16, 0, len(strings), len(structure))
    return struct.pack(">10I", *header) + bytes(16) + bytes(structure) + bytes(strings)


def cells(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def regions(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack(">2Q", base, size) for base, size in pairs)


def gicv3(*, its: bool = True, more: int = 0) -> Node:
    """An interrupt controller as in the example of the binding arm,gic-v3.yaml, at the addresses of 'virt'."""
    node = Node(
        {
            "compatible": b"arm,gic-v3\0",
            "#redistributor-regions": cells(1 + more),
            "reg": regions((0x8000000, 0x10000), (0x80A0000, 0xF60000), *[(0x4000000000, 0x4000000)] * more),
        }
    )
    if its:
        node.children["its@8080000"] = Node({"compatible": b"arm,gic-v3-its\0", "reg": regions((0x8080000, 0x20000))})
    return node


GICV2 = Node(
    {"compatible": b"arm,cortex-a15-gic\0", "reg": regions((0x8000000, 0x10000), (0x8010000, 0x10000))},
    {"v2m@8020000": Node({"compatible": b"arm,gic-v2m-frame\0", "reg": regions((0x8020000, 0x1000))})},
)
PMU = Node({"compatible": b"arm,armv8-pmuv3\0", "interrupts": cells(1, 7, 4)})
CPUS = Node({}, {"cpu-map": Node(), "cpu@0": Node(), "cpu@1": Node()})


def test_a_gicv3_with_its_and_pmu() -> None:
    root = Node({}, {"cpus": CPUS, "intc@8000000": gicv3(), "pmu": PMU})
    assert guest_tree(read_device_tree(flatten(root))) == GuestTree(
        gic_version=3,
        distributor=0x8000000,
        cpu_interface=None,
        redistributors=(0x80A0000,),
        its=0x8080000,
        gicv2m=None,
        pmu_intid=23,
        vcpus=2,
    )


def test_two_regions_of_redistributors_and_no_its() -> None:
    told = guest_tree(read_device_tree(flatten(Node({}, {"intc@8000000": gicv3(its=False, more=1)}))))
    assert (told.redistributors, told.its, told.pmu_intid) == ((0x80A0000, 0x4000000000), None, None)


def test_a_gicv2_with_gicv2m() -> None:
    told = guest_tree(read_device_tree(flatten(Node({}, {"cpus": CPUS, "intc@8000000": GICV2}))))
    assert (told.gic_version, told.cpu_interface, told.redistributors) == (2, 0x8010000, ())
    assert (told.its, told.gicv2m) == (None, 0x8020000)


def test_a_pmu_with_an_spi() -> None:
    pmu = Node({"interrupts": cells(0, 60, 4)})
    assert guest_tree(Node({}, {"intc": GICV2, "pmu": pmu})).pmu_intid == 92


def test_a_tree_without_gic_is_refused() -> None:
    for root in (Node(), Node({}, {"intc": Node({"compatible": b"arm,gic-v5\0"})})):
        with pytest.raises(DeviceTreeError, match="no GICv2 or GICv3"):
            guest_tree(root)


NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=31)
TREES = st.recursive(
    st.builds(Node, st.dictionaries(NAMES, st.binary(max_size=20), max_size=3)),
    lambda children: st.builds(
        Node,
        st.dictionaries(NAMES, st.binary(max_size=20), max_size=3),
        st.dictionaries(NAMES, children, max_size=3),
    ),
    max_leaves=8,
)


@given(TREES, st.binary(max_size=8))
def test_every_tree_is_read_as_it_was_written_whatever_follows_it(root: Node, after: bytes) -> None:
    assert read_device_tree(flatten(root) + after) == root


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_tree_or_refused(data: bytes, headed: bool) -> None:
    if headed:
        data = struct.pack(">4I", 0xD00DFEED, 16 + len(data), 16, 20) + data
    read_or_refuse(data)


SAMPLE = flatten(Node({"model": b"x\0"}, {"cpus": CPUS, "intc@8000000": gicv3(), "pmu": PMU}))


@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=6), st.data())
def test_a_damaged_tree_is_read_or_refused(damage: list[tuple[int, int]], data: st.DataObject) -> None:
    blob = bytearray(SAMPLE)
    for place, byte in damage:
        blob[place] = byte
    end = data.draw(st.one_of(st.just(len(blob)), st.integers(0, len(blob))))
    read_or_refuse(bytes(blob[:end]))


def read_or_refuse(blob: bytes) -> None:
    try:
        guest_tree(read_device_tree(blob))
    except DeviceTreeError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("length", range(0, len(SAMPLE), 7))
def test_a_truncated_tree_is_refused(length: int) -> None:
    with pytest.raises(DeviceTreeError, match="damaged"):
        read_device_tree(SAMPLE[:length])


def test_a_large_or_deep_tree_is_refused() -> None:
    with pytest.raises(DeviceTreeError, match="larger than 1024 KiB"):
        read_device_tree(bytes(MAX_BYTES + 1))
    root = Node()
    for _ in range(40):
        root = Node({}, {"a": root})
    with pytest.raises(DeviceTreeError, match="damaged"):
        read_device_tree(flatten(root))


def test_names_without_end_are_not_searched_for_their_end_again_and_again() -> None:
    """As many properties as fit, all with the same name of half the tree: quadratic time would be minutes."""
    count = MAX_BYTES // 2 // 12
    body = struct.pack(">I", 1) + bytes(4) + struct.pack(">3I", 3, 0, 0) * count
    at = 16
    strings = at + len(body)
    blob = struct.pack(">4I", 0xD00DFEED, MAX_BYTES, at, strings) + body
    blob += b"a" * (MAX_BYTES - len(blob))
    with pytest.raises(DeviceTreeError, match="damaged"):
        read_device_tree(blob)
