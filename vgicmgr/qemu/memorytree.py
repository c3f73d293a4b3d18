"""QEMU's memory tree, the text of its monitor's command ``info mtree`` (``mtree_print_mr``, system/memory.c); pure."""

import re
from collections.abc import Mapping

from vgicmgr.qemu.virt import MemoryRegion

_LINE = re.compile(r" *([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?[0-9]{1,10}, i/o\): ([!-~]+)")


def device_regions(text: str) -> Mapping[str, MemoryRegion]:
    """The regions of devices that the guest's physical address space (``address-space: memory``) has, by their names.

    Address spaces that are alike stand together before their one tree. Of several regions with one name, the first;
    without aliases, memory and regions that are disabled. Raises nothing.
    """
    found: dict[str, MemoryRegion] = {}
    within = heading = False
    for line in text.splitlines():
        if line.startswith("address-space:"):
            within = line == "address-space: memory" or (within and heading)
            heading = True
            continue
        heading = False
        if not line.strip():
            within = False
        elif within and (match := _LINE.fullmatch(line)):
            base, last, name = int(match[1], 16), int(match[2], 16), match[3]
            if last >= base:
                found.setdefault(name, MemoryRegion(name, base, last - base + 1))
    return found
