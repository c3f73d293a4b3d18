"""The report of ``vgicmgr lsvfio``: an inventory and findings in, lines of text out."""

from collections.abc import Iterator

from vgicmgr.findings import Verdict
from vgicmgr.vfio.inventory import Device, Group, Inventory, Irq, Region

COLUMNS = (
    "DEVICE",
    "GROUP",
    "VIABLE",
    "DRIVER",
    "RESET",
    "REGIONS",
    "LINES",
    "MSI",
    "MSI-X",
    "MIGRATION",
    "STATE",
    "OTHER MEMBERS",
)
_UNKNOWN = "?"
_NONE = "-"


def render(inventory: Inventory, verdict: Verdict, *, verbose: bool) -> str:
    """The whole report, as text that ends with a newline."""
    rows = [_row(device, inventory.group_of(device)) for device in inventory.devices]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    lines = [_line(COLUMNS, widths)]
    for device, row in zip(inventory.devices, rows, strict=True):
        lines.append(_line(row, widths))
        if verbose:
            lines += (f"    {line}" for line in _details(device))
    if not rows:
        lines = ["No device can be assigned."]
    notes = [f"{finding.severity.value}: {finding}" for finding in verdict.findings]
    notes += [f"{device.name} was not asked: {device.unread}" for device in inventory.devices if device.unread]
    notes += [f"not read: {what}" for what in inventory.unread]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _row(device: Device, group: Group | None) -> tuple[str, ...]:
    others = [name for name in group.members if name != device.name] if group else []
    return (
        device.name,
        _NONE if device.group is None else str(device.group),
        _yes(group.viable) if group else _NONE,
        device.driver or _NONE,
        _yes(device.can_reset),
        _count(device.regions),
        _count(device.lines),
        _count(device.msi),
        _count(device.msix),
        _migration(device),
        _state(device, group),
        ",".join(others) or _NONE,
    )


def _yes(answer: bool | None) -> str:
    return _UNKNOWN if answer is None else "yes" if answer else "no"


def _count(number: int | None) -> str:
    return _UNKNOWN if number is None else str(number)


def _migration(device: Device) -> str:
    if device.migration is None:
        return _UNKNOWN
    dirty = ("dirty-tracking",) if device.info and device.info.dirty_tracking else ()
    return ",".join((*device.migration, *dirty)) or "no"


def _state(device: Device, group: Group | None) -> str:
    if not device.vfio:
        return "not bound"
    if group is None or group.in_use is None:
        return _UNKNOWN
    if not group.in_use:
        return "free"
    return f"in use by {', '.join(map(str, group.users))}" if group.users else "in use"


def _details(device: Device) -> Iterator[str]:
    if device.pci:
        methods = " ".join(device.pci.reset_methods) or "none"
        yield (
            f"PCI {device.pci.vendor:04x}:{device.pci.device:04x}, class {device.pci.class_code:06x}, "
            f"reset methods: {methods}"
        )
    if device.firmware:
        yield f"firmware: {device.firmware.path}"
    for region in device.info.regions if device.info else ():
        yield _region(region) + _origin(device.firmware.regions if device.firmware else (), region.index)
    for irq in device.info.irqs if device.info else ():
        yield _irq(irq) + _origin(device.firmware.irqs if device.firmware else (), irq.index)
    if not device.info:
        yield from _unasked(device)


def _unasked(device: Device) -> Iterator[str]:
    """Regions and interrupts as far as sysfs has them."""
    names = (*(f"BAR {number}" for number in range(6)), "ROM")
    for index, (name, size) in enumerate(zip(names, device.pci.resources if device.pci else (), strict=False)):
        yield f"region {index} {name}: size {size:#x}"
    if device.firmware:
        yield from (f"region {index}: {origin}" for index, origin in enumerate(device.firmware.regions))
        yield from (f"interrupt {index}: {origin}" for index, origin in enumerate(device.firmware.irqs))


def _origin(entries: tuple[str, ...], index: int) -> str:
    return f"; {entries[index]}" if index < len(entries) else ""


def _region(region: Region) -> str:
    parts = [f"size {region.size:#x}", f"offset {region.offset:#x}", " ".join(region.flags) or "unused"]
    if region.sparse_mmap is not None:
        areas = " ".join(f"{area.offset:#x}+{area.size:#x}" for area in region.sparse_mmap)
        parts.append(f"mmap of {areas or 'nothing'} only")
    if region.msix_mappable:
        parts.append("MSI-X table mappable")
    if region.type:
        parts.append(f"type {region.type[0]:#x} subtype {region.type[1]:#x}")
    return f"{_head('region', region.index, region.name)}: {', '.join(parts)}"


def _irq(irq: Irq) -> str:
    return f"{_head('interrupt', irq.index, irq.name)}: {irq.count}, {' '.join(irq.flags) or 'no flags'}"


def _head(kind: str, index: int, name: str) -> str:
    return f"{kind} {index} {name}".rstrip()
