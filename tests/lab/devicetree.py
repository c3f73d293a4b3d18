"""A flattened device tree with a property less. Pure.

Format: Devicetree Specification 0.4, chapter 5.
"""

import struct

_BEGIN_NODE, _END_NODE, _PROPERTY, _NOP, _END = 1, 2, 3, 4, 9
_TOKEN = 4


def without(blob: bytes, node: str, name: str) -> bytes:
    """The tree without a property of the nodes of a name (what stands before ``@``); raises ValueError where there is
    none. In its place there are NOPs, so that nothing moves.

    Room at its end, of which QEMU leaves much, is cut off: a kernel takes no tree above 2 MiB (Linux,
    Documentation/arch/arm64/booting.rst), and QEMU doubles what it is given.
    """
    _, _, at, strings, _, _, _, _, strings_size, structure_size = struct.unpack_from(">10I", blob)
    size = max(at + structure_size, strings + strings_size)
    tree = bytearray(blob[:size])
    struct.pack_into(">I", tree, 4, size)
    path: list[str] = []
    found = False
    while True:
        [token] = struct.unpack_from(">I", blob, at)
        start, at = at, at + _TOKEN
        if token == _BEGIN_NODE:
            end = blob.index(b"\0", at)
            path.append(blob[at:end].decode().partition("@")[0])
            at = _aligned(end + 1)
        elif token == _END_NODE:
            path.pop()
        elif token == _PROPERTY:
            size, offset = struct.unpack_from(">2I", blob, at)
            at = _aligned(at + 8 + size)
            called = blob[strings + offset : blob.index(b"\0", strings + offset)].decode()
            if called == name and path[-1] == node:
                tree[start:at] = struct.pack(">I", _NOP) * ((at - start) // _TOKEN)
                found = True
        elif token == _END:
            break
        elif token != _NOP:
            raise ValueError(f"no token of a device tree: {token:#x}")
    if not found:
        raise ValueError(f"no node {node} of the device tree has {name}")
    return bytes(tree)


def _aligned(offset: int) -> int:
    return -(-offset // _TOKEN) * _TOKEN
