"""The devices of a domain that QEMU emulates on PCIe or virtio-mmio, by libvirt's elements.

Defaults are libvirt's for ``virt``: ``src/qemu/qemu_postparse.c``, and ``qemu_domain_address.c``
(qemuDomainDeviceCalculatePCIConnectFlags) for what is a PCI device at all.
"""

from vgicmgr.domain.domain import EmulatedDevice

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from collections.abc import Mapping

    Parts = Mapping[str, Mapping[str, str]]
    """The attributes of an element's children by name, and its own by the empty name."""

ELEMENTS = (
    "disk", "controller", "filesystem", "interface", "input", "sound", "video", "rng", "memballoon", "vsock", "crypto",
    "memory", "iommu", "watchdog", "shmem", "panic",
)  # fmt: skip
"""Those that may be such a device, in the order in which they are named."""
IMPLYING = ("disk", "channel", "console")
"""Those for which libvirt adds a controller where none is named (virDomainDefAddImplicitControllers)."""
_SCSI, _SERIAL = "SCSI controller", "serial controller"


def emulated_devices(elements: "list[tuple[str, Parts]]") -> tuple[EmulatedDevice, ...]:
    """The devices of these elements, each with its name."""
    mmio = any(parts["address"].get("type") == "virtio-mmio" for _, parts in elements)
    found = [
        _placed(device, parts["address"], mmio=mmio) for name, parts in elements if (device := _device(name, parts))
    ]
    for kind in (_SCSI, _SERIAL):
        named = any(device.kind == kind for device in found)
        if not named and any(_implied(name, parts) == kind for name, parts in elements):
            found.append(_placed(EmulatedDevice(kind), {}, mmio=mmio))
    return tuple(found)


def _placed(device: EmulatedDevice, address: "Mapping[str, str]", *, mmio: bool) -> EmulatedDevice:
    """With its place: devices without an address get PCIe ports, but virtio ones where a device is on virtio-mmio.

    (qemuDomainAssignVirtioMMIOAddresses, qemuDomainAssignPCIAddresses; a virtio IOMMU is put into the root complex.)
    """
    kind = address.get("type", "")
    if kind == "pci":
        port = bool(address.get("bus", "").strip().lower().removeprefix("0x").strip("0"))
    else:
        port = not kind and not (mmio and device.virtio) and device.kind != "iommu"
    return EmulatedDevice(device.kind, device.virtio, device.queue_size, port)


def _device(name: str, parts: "Parts") -> EmulatedDevice | None:
    element, driver = parts[""], parts["driver"]
    model = element.get("model", "")
    if name == "controller":
        return _controller(element.get("type", ""), model)
    if name == "disk":
        return EmulatedDevice(name, queue_size=_number(driver, "queue_size")) if _bus(parts) == "virtio" else None
    if name == "filesystem":
        return EmulatedDevice(name, queue_size=_number(driver, "queue"))
    if name in ("rng", "vsock", "crypto", "memballoon"):
        return EmulatedDevice(name) if model != "none" else None
    if name in ("memory", "iommu", "input"):
        virtio = element.get("bus") == "virtio" if name == "input" else model.startswith("virtio")
        return EmulatedDevice(name) if virtio else None
    if name in ("watchdog", "panic", "shmem"):
        return EmulatedDevice(name, virtio=False) if name == "shmem" or model in ("i6300esb", "pvpanic") else None
    if name not in ("interface", "video", "sound") or element.get("type") == "hostdev":  # VFIO's
        return None
    if name != "sound":
        model = parts["model"].get("type", "") or "virtio"
    return EmulatedDevice(name, virtio=model.startswith("virtio")) if model not in _NOT_PCI else None


_NOT_PCI = ("none", "ramfb", "usb", "usb-net")


def _controller(kind: str, model: str) -> EmulatedDevice | None:
    if kind == "scsi":
        return EmulatedDevice(_SCSI, virtio=model in ("", "auto") or model.startswith("virtio"))
    if kind == "virtio-serial":
        return EmulatedDevice(_SERIAL)
    names = {"usb": "USB controller", "sata": "SATA controller", "nvme": "NVMe controller"}
    return EmulatedDevice(names[kind], virtio=False) if kind in names and model != "none" else None


def _implied(name: str, parts: "Parts") -> str:
    if name == "disk":
        return _SCSI if _bus(parts) == "scsi" else ""
    return _SERIAL if name in IMPLYING and parts["target"].get("type") == "virtio" else ""


def _bus(parts: "Parts") -> str:
    """Of a disk; that of its name where it is not said (virDomainDiskDefParseXML)."""
    buses = {"vd": "virtio", "sd": "scsi"}
    return parts["target"].get("bus") or buses.get(parts["target"].get("dev", "")[:2], "")


def _number(attributes: "Mapping[str, str]", name: str) -> int:
    text = attributes.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
