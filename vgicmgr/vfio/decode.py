"""From what VFIO's ioctls write to values. Pure."""

from collections.abc import Iterator

from vgicmgr.vfio import uapi
from vgicmgr.vfio.inventory import Area, Irq, Region

PCI_REGIONS = (*(f"BAR {number}" for number in range(6)), "ROM", "config", "VGA")
"""By index, VFIO_PCI_BAR0_REGION_INDEX and so on."""
PCI_IRQS = ("INTx", "MSI", "MSI-X", "error", "request")
"""By index, VFIO_PCI_INTX_IRQ_INDEX and so on."""

KINDS = {
    uapi.VFIO_DEVICE_FLAGS_PCI: "pci",
    uapi.VFIO_DEVICE_FLAGS_PLATFORM: "platform",
    uapi.VFIO_DEVICE_FLAGS_AMBA: "amba",
    uapi.VFIO_DEVICE_FLAGS_CCW: "ccw",
    uapi.VFIO_DEVICE_FLAGS_AP: "ap",
    uapi.VFIO_DEVICE_FLAGS_FSL_MC: "fsl-mc",
    uapi.VFIO_DEVICE_FLAGS_CDX: "cdx",
}
_REGION_FLAGS = {
    uapi.VFIO_REGION_INFO_FLAG_READ: "read",
    uapi.VFIO_REGION_INFO_FLAG_WRITE: "write",
    uapi.VFIO_REGION_INFO_FLAG_MMAP: "mmap",
}
_IRQ_FLAGS = {
    uapi.VFIO_IRQ_INFO_EVENTFD: "eventfd",
    uapi.VFIO_IRQ_INFO_MASKABLE: "maskable",
    uapi.VFIO_IRQ_INFO_AUTOMASKED: "automasked",
    uapi.VFIO_IRQ_INFO_NORESIZE: "noresize",
}
_MIGRATION_FLAGS = {
    uapi.VFIO_MIGRATION_STOP_COPY: "stop-copy",
    uapi.VFIO_MIGRATION_P2P: "p2p",
    uapi.VFIO_MIGRATION_PRE_COPY: "pre-copy",
}


def kind(flags: int) -> str:
    """What sort of device it is, by ``vfio_device_info.flags``; empty where no flag says so."""
    return "".join(_names(flags, KINDS)[:1])


def migration(flags: int) -> tuple[str, ...]:
    """``vfio_device_feature_migration.flags`` as words."""
    return _names(flags, _MIGRATION_FLAGS)


def region(answer: bytes, *, pci: bool) -> Region:
    """``struct vfio_region_info`` with the capabilities behind it."""
    _, flags, index, cap_offset, size, offset = uapi.vfio_region_info.layout.unpack_from(answer)
    sparse, mappable, own_type = None, False, None
    chain = capabilities(answer, cap_offset) if flags & uapi.VFIO_REGION_INFO_FLAG_CAPS else ()
    for identifier, start in chain:
        if identifier == uapi.VFIO_REGION_INFO_CAP_SPARSE_MMAP:
            sparse = _areas(answer, start)
        elif identifier == uapi.VFIO_REGION_INFO_CAP_MSIX_MAPPABLE:
            mappable = True
        elif identifier == uapi.VFIO_REGION_INFO_CAP_TYPE:
            layout = uapi.vfio_region_info_cap_type.layout
            if start + layout.size <= len(answer):
                own_type = layout.unpack_from(answer, start)[1:]
    return Region(
        index, _name(index, PCI_REGIONS, pci), size, offset, _names(flags, _REGION_FLAGS), sparse, mappable, own_type
    )


def irq(answer: bytes, *, pci: bool) -> Irq:
    """``struct vfio_irq_info``."""
    _, flags, index, count = uapi.vfio_irq_info.layout.unpack_from(answer)
    return Irq(index, _name(index, PCI_IRQS, pci), count, _names(flags, _IRQ_FLAGS))


def capabilities(answer: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """The chain of capabilities that begins at ``offset``: the id of each and where its header starts.

    Ends where the chain does, and where it leaves the answer or leads backwards.
    """
    header = uapi.vfio_info_cap_header.layout
    before = 0
    while before < offset <= len(answer) - header.size:
        identifier, _, following = header.unpack_from(answer, offset)
        yield identifier, offset
        before, offset = offset, following


def _areas(answer: bytes, start: int) -> tuple[Area, ...]:
    head, area = uapi.vfio_region_info_cap_sparse_mmap.layout, uapi.vfio_region_sparse_mmap_area.layout
    if start + head.size > len(answer):
        return ()
    count = min(head.unpack_from(answer, start)[1], (len(answer) - start - head.size) // area.size)
    first = start + head.size
    return tuple(Area(*area.unpack_from(answer, first + number * area.size)) for number in range(count))


def _name(index: int, names: tuple[str, ...], pci: bool) -> str:
    return names[index] if pci and index < len(names) else ""


def _names(flags: int, words: dict[int, str]) -> tuple[str, ...]:
    return tuple(word for flag, word in words.items() if flags & flag)
