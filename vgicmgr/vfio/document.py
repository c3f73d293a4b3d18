"""The document of ``vgicmgr lsvfio --format json``; its JSON Schema lies beside, ``inventory.schema.json``.

Sizes and offsets are hexadecimal strings, since JSON readers lose bits of 64-bit numbers.
"""

from pathlib import Path
from typing import Any

from vgicmgr.findings import Verdict
from vgicmgr.vfio.inventory import Device, DeviceInfo, FirmwareNode, Group, Inventory, Irq, PciDevice, Region

KIND = "vgicmgr vfio inventory"
VERSION = 1
"""Raised when a reader of the former version would misread a document; members may be added without."""

SCHEMA = Path(__file__).with_name("inventory.schema.json")


def to_document(inventory: Inventory, verdict: Verdict) -> dict[str, Any]:
    """The document, ready for :func:`json.dumps`."""
    host = inventory.host
    return {
        "document": KIND,
        "version": VERSION,
        "host": {
            "iommus": list(host.iommus),
            "vfio_api_version": host.api_version,
            "extensions": list(host.extensions),
            "iommufd": host.iommufd,
            "allow_unsafe_interrupts": host.allow_unsafe_interrupts,
        },
        "groups": [_group(group) for group in inventory.groups],
        "devices": [_device(device) for device in inventory.devices],
        "unread": list(inventory.unread),
        "findings": [finding.as_document() for finding in verdict.findings],
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "number": group.number,
        "members": list(group.members),
        "viable": group.viable,
        "asked": group.status is not None,
        "in_the_way": [{"device": name, "driver": driver} for name, driver in group.in_the_way],
        "noiommu": group.noiommu,
        "in_use": group.in_use,
        "users": [{"pid": user.pid, "command": user.command, "guest": user.guest or None} for user in group.users],
    }


def _device(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "bus": device.bus.value,
        "driver": device.driver,
        "group": device.group,
        "vfio": device.vfio,
        "pci": _pci(device.pci) if device.pci else None,
        "firmware": _firmware(device.firmware) if device.firmware else None,
        "reset": device.can_reset,
        "regions": device.regions,
        "interrupts": {"lines": device.lines, "msi": device.msi, "msix": device.msix},
        "migration": None if device.migration is None else list(device.migration),
        "info": _info(device.info) if device.info else None,
        "unread": device.unread or None,
    }


def _pci(pci: PciDevice) -> dict[str, Any]:
    return {
        "class": f"{pci.class_code:#08x}",
        "vendor": f"{pci.vendor:#06x}",
        "device": f"{pci.device:#06x}",
        "resources": [hex(size) for size in pci.resources],
        "reset_methods": list(pci.reset_methods),
    }


def _firmware(node: FirmwareNode) -> dict[str, Any]:
    return {"path": node.path, "regions": list(node.regions), "interrupts": list(node.irqs)}


def _info(info: DeviceInfo) -> dict[str, Any]:
    return {
        "kind": info.kind,
        "reset": info.reset,
        "regions": [_region(region) for region in info.regions],
        "interrupts": [_irq(irq) for irq in info.irqs],
        "migration": list(info.migration),
        "dirty_tracking": info.dirty_tracking,
    }


def _region(region: Region) -> dict[str, Any]:
    return {
        "index": region.index,
        "name": region.name or None,
        "size": hex(region.size),
        "offset": hex(region.offset),
        "flags": list(region.flags),
        "sparse_mmap": None
        if region.sparse_mmap is None
        else [{"offset": hex(area.offset), "size": hex(area.size)} for area in region.sparse_mmap],
        "msix_mappable": region.msix_mappable,
        "type": list(region.type) if region.type else None,
    }


def _irq(irq: Irq) -> dict[str, Any]:
    return {"index": irq.index, "name": irq.name or None, "count": irq.count, "flags": list(irq.flags)}
