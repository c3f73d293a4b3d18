"""A flattened device tree, and what it tells a guest of its interrupt controller; pure, and safe on any bytes.

Format: Devicetree Specification 0.4, chapter 5. Bindings: Linux, ``Documentation/devicetree/bindings``
(``interrupt-controller/arm,gic.yaml``, ``arm,gic-v3.yaml``, ``arm/pmu.yaml``). What QEMU's ``virt`` makes of them:
``create_gic``, ``fdt_add_gic_node`` and ``fdt_add_pmu_nodes`` (hw/arm/virt.c).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from vgicmgr.errors import VgicmgrError

MAX_BYTES = 1 << 20
"""Of a tree, as QEMU has it (FDT_MAX_SIZE, system/device_tree.c)."""
_MAX_DEPTH = 32
_MAX_NAME = 256
"""Of a node or property; the specification ends at 31, and what is after ``@``."""
_MAGIC = 0xD00DFEED
_BEGIN_NODE, _END_NODE, _PROP, _NOP, _END = 1, 2, 3, 4, 9


class DeviceTreeError(VgicmgrError):
    """The bytes are no flattened device tree."""


@dataclass
class Node:
    """A node: its properties as they are, and its children, by name (``pmu``, ``cpu@0``)."""

    properties: dict[str, bytes] = field(default_factory=dict)
    children: dict[str, "Node"] = field(default_factory=dict)

    def cells(self, name: str) -> tuple[int, ...]:
        """A property as big-endian 32-bit numbers; empty where it is absent or no such list."""
        data = self.properties.get(name, b"")
        return struct.unpack(f">{len(data) // 4}I", data) if len(data) % 4 == 0 else ()

    def compatible(self) -> tuple[str, ...]:
        """The ``compatible`` strings."""
        return tuple(self.properties.get("compatible", b"").decode("ascii", "replace").split("\0"))

    def find(self, *compatible: str) -> "Node | None":
        """The first child that is compatible with one of these."""
        return next((child for child in self.children.values() if set(compatible) & set(child.compatible())), None)

    def bases(self) -> tuple[int, ...]:
        """The base addresses in ``reg``, with two cells for each base and size, as ``virt`` has it."""
        cells = self.cells("reg")
        return tuple(cells[at] << 32 | cells[at + 1] for at in range(0, len(cells) - 3, 4))


@dataclass(frozen=True)
class GuestTree:
    """What a guest is told by its device tree: base addresses, INTIDs, and how many vCPUs there are."""

    gic_version: int
    distributor: int
    cpu_interface: int | None
    redistributors: tuple[int, ...]
    its: int | None
    gicv2m: int | None
    pmu_intid: int | None
    vcpus: int


def read_device_tree(blob: bytes) -> Node:
    """The root node; raises :class:`DeviceTreeError` for what is no tree, or too large or deep."""
    if len(blob) > MAX_BYTES:
        raise DeviceTreeError(f"the device tree is larger than {MAX_BYTES >> 10} KiB")
    try:
        root = _read(blob)
    except (struct.error, ValueError):  # an offset or a string that leads out of the blob
        root = None
    if root is None:
        raise DeviceTreeError("the device tree is damaged, or none")
    return root


def _read(blob: bytes) -> Node | None:
    magic, size, at, strings = struct.unpack_from(">4I", blob)
    if magic != _MAGIC or size > len(blob):
        return None
    blob = blob[:size]
    above = Node()
    stack = [above]
    while True:
        [token] = struct.unpack_from(">I", blob, at)
        at += 4
        if token == _BEGIN_NODE:
            end = blob.index(b"\0", at, at + _MAX_NAME)
            node = Node()
            stack[-1].children[blob[at:end].decode("ascii")] = node
            stack.append(node)
            at = end + 4 & ~3
        elif token == _END_NODE and len(stack) > 1:
            stack.pop()
        elif token == _PROP and len(stack) > 1:
            length, offset = struct.unpack_from(">2I", blob, at)
            start = strings + offset
            name = blob[start : blob.index(b"\0", start, start + _MAX_NAME)].decode("ascii")
            at += 8
            if at + length > size:
                return None
            stack[-1].properties[name] = blob[at : at + length]
            at = at + length + 3 & ~3
        elif token == _END and len(stack) == 1:
            return above.children.get("")
        elif token != _NOP:
            return None
        if len(stack) > _MAX_DEPTH:
            return None


def guest_tree(root: Node) -> GuestTree:
    """What the tree of a ``virt`` machine tells; raises :class:`DeviceTreeError` where it has no GICv2 or GICv3."""
    gic = root.find("arm,gic-v3", "arm,cortex-a15-gic", "arm,gic-400")
    frames = gic.bases() if gic else ()
    if gic is None or len(frames) < 2:
        raise DeviceTreeError("the device tree has no GICv2 or GICv3")
    version = 3 if "arm,gic-v3" in gic.compatible() else 2
    regions = (*gic.cells("#redistributor-regions"), 1)[0]
    its, v2m = gic.find("arm,gic-v3-its"), gic.find("arm,gic-v2m-frame")
    cpus = root.children.get("cpus", Node())
    return GuestTree(
        gic_version=version,
        distributor=frames[0],
        cpu_interface=frames[1] if version == 2 else None,
        redistributors=frames[1 : 1 + regions] if version == 3 else (),
        its=next(iter(its.bases()), None) if its else None,
        gicv2m=next(iter(v2m.bases()), None) if v2m else None,
        pmu_intid=next(_intids(root.children.get("pmu", Node())), None),
        vcpus=sum(name.startswith("cpu@") for name in cpus.children),
    )


def _intids(node: Node) -> Iterator[int]:
    """Those of ``interrupts`` of three cells: 0 an SPI, 1 a PPI; the number; flags."""
    cells = node.cells("interrupts")
    for at in range(0, len(cells) - 2, 3):
        yield cells[at + 1] + (16 if cells[at] == 1 else 32)
