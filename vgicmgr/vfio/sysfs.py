"""What sysfs and /proc say of devices, IOMMU groups and who has them open; no descriptor of VFIO's is needed.

Sources: ``Documentation/ABI/testing/sysfs-bus-pci``, ``sysfs-kernel-iommu_groups``, ``sysfs-devices-vfio-dev``,
``sysfs-firmware-ofw``, ``Documentation/devicetree/bindings`` and ``include/uapi/linux/pci_regs.h``.
"""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from struct import unpack, unpack_from

from vgicmgr.vfio.inventory import Bus, Device, FirmwareNode, Group, Host, PciConfig, PciDevice, User

SYS = Path("/sys")
PROC = Path("/proc")

HARMLESS_DRIVERS = ("pcieport", "pci-stub")
"""They do no DMA for the host (``driver_managed_dma``), so that a group stays viable with them; VFIO's own are told by
``vfio-dev``. A member without a driver does not stand in the way either (since Linux 5.19)."""

_RESOURCES = 7
"""BAR 0 to 5 and the ROM, the first lines of a PCI device's ``resource``."""


def read_devices(sys: Path = SYS) -> tuple[Device, ...]:
    """All devices of the buses that VFIO knows, assignable or not, by bus and name."""
    return tuple(
        _device(path, bus)
        for bus in Bus
        for path in sorted((sys / "bus" / bus / "devices").glob("*"))
        if path.is_dir()  # not one that has just gone
    )


def read_device(name: str, sys: Path = SYS) -> Device | None:
    """The device of this name; None where this host has none."""
    if not re.search(r"\w", name) or "/" in name:
        return None
    paths = ((bus, sys / "bus" / bus / "devices" / name) for bus in Bus)
    return next((_device(path, bus) for bus, path in paths if path.is_dir()), None)


def read_groups(devices: tuple[Device, ...], sys: Path = SYS) -> tuple[Group, ...]:
    """The IOMMU groups; ``devices`` tells the drivers of their members."""
    known = {device.name: device for device in devices}
    paths = sorted((sys / "kernel" / "iommu_groups").glob("[0-9]*"), key=lambda path: int(path.name))
    return tuple(_group(path, known.get) for path in paths)


def read_group(number: int, sys: Path = SYS) -> Group:
    """One IOMMU group."""
    return _group(sys / "kernel" / "iommu_groups" / str(number), lambda name: read_device(name, sys))


def read_host(sys: Path = SYS) -> Host:
    """The IOMMUs, and the setting of vfio_iommu_type1."""
    unsafe = _text(sys / "module" / "vfio_iommu_type1" / "parameters" / "allow_unsafe_interrupts")
    return Host(
        iommus=tuple(sorted(path.name for path in (sys / "class" / "iommu").glob("*"))),
        allow_unsafe_interrupts=unsafe == "Y" if unsafe else None,
    )


def read_users(proc: Path = PROC) -> dict[str, tuple[User, ...]]:
    """Who has which file of /dev/vfio open, by path; only root sees other users' processes."""
    users: dict[str, set[int]] = {}
    for process in proc.glob("[0-9]*"):
        for link in _entries(process / "fd"):
            target = str(_target(link))
            if target.startswith("/dev/vfio/"):
                users.setdefault(target, set()).add(int(process.name))
    return {path: tuple(_user(proc / str(pid)) for pid in sorted(pids)) for path, pids in users.items()}


def parse_resource(text: str) -> tuple[int, ...]:
    """The sizes in bytes of BAR 0 to 5 and the ROM, from a PCI device's ``resource``: first, last address and flags."""
    found = (re.fullmatch(r"0x([0-9a-f]+) 0x([0-9a-f]+) 0x[0-9a-f]+", line) for line in text.splitlines()[:_RESOURCES])
    pairs = ((int(line[1], 16), int(line[2], 16)) if line else (0, 0) for line in found)
    return tuple(last - first + 1 if last > first else 0 for first, last in pairs)


def parse_config(config: bytes) -> PciConfig | None:
    """Interrupts from a PCI device's ``config``; None where it is too short to be one (``pci_regs.h``)."""
    if len(config) < 64:
        return None
    status, pin = unpack_from("<H", config, 0x06)[0], config[0x3D]
    intx = 1 if pin else 0
    if not status & 0x10:  # PCI_STATUS_CAP_LIST
        return PciConfig(intx, 0, 0)
    if len(config) < 256:
        return PciConfig(intx)
    msi = msix = 0
    for identifier, start in _pci_capabilities(config):
        control = unpack_from("<H", config, start + 2)[0]
        if identifier == 0x05:  # PCI_CAP_ID_MSI
            msi = 1 << (control >> 1 & 7)
        elif identifier == 0x11:  # PCI_CAP_ID_MSIX
            msix = (control & 0x7FF) + 1
    return PciConfig(intx, msi, msix)


def _pci_capabilities(config: bytes) -> Iterator[tuple[int, int]]:
    """Id and place of each; the list is the device's, so it may lead anywhere."""
    seen: set[int] = set()
    place = config[0x34] & 0xFC
    while place >= 0x40 and place not in seen:
        seen.add(place)
        yield config[place], place
        place = config[place + 1] & 0xFC


def _group(path: Path, find: Callable[[str], Device | None]) -> Group:
    members = tuple(sorted(member.name for member in (path / "devices").glob("*")))
    return Group(
        number=int(path.name),
        members=members,
        in_the_way=tuple((name, driver) for name in members if (driver := _host_driver(find(name)))),
        noiommu=_text(path / "name") == "vfio-noiommu",
    )


def group_of(path: Path) -> int | None:
    """The number of the IOMMU group of the device at ``path``."""
    group = _link(path / "iommu_group")
    return int(group) if group and group.isdecimal() else None


def _device(path: Path, bus: Bus) -> Device:
    group = group_of(path)
    return Device(
        name=path.name,
        bus=bus,
        driver=_link(path / "driver"),
        group=group,
        vfio=next((entry.name for entry in (path / "vfio-dev").glob("vfio*")), None),
        pci=_pci(path) if bus is Bus.PCI else None,
        firmware=_firmware(path) if group is not None and bus is not Bus.PCI else None,
    )


def _pci(path: Path) -> PciDevice:
    return PciDevice(
        class_code=_hex(path / "class"),
        vendor=_hex(path / "vendor"),
        device=_hex(path / "device"),
        resources=parse_resource(_text(path / "resource")),
        reset_methods=_reset_methods(path),
        config=parse_config(_bytes(path / "config")),
    )


def _reset_methods(path: Path) -> tuple[str, ...]:
    """``reset_method`` (Linux 5.15)."""
    return tuple(_text(path / "reset_method").split())


def _host_driver(device: Device | None) -> str | None:
    """The driver by which a device stands in the way of its group."""
    if device is None or device.vfio or device.driver in HARMLESS_DRIVERS:
        return None
    return device.driver


def _user(process: Path) -> User:
    arguments = _bytes(process / "cmdline").decode(errors="replace").split("\0")
    return User(int(process.name), _text(process / "comm"), guest_name(arguments))


def guest_name(arguments: list[str]) -> str:
    """The name in QEMU's ``-name guest=NAME,…`` or ``-name NAME,…`` (a comma in it is doubled); empty without one."""
    for option, value in pairwise(arguments):
        if option in ("-name", "--name"):
            for part in value.replace(",,", "\0").split(","):
                key, equals, name = part.partition("=")
                if not equals or key == "guest":
                    return (name if equals else key).replace("\0", ",")
    return ""


# Where the firmware describes a platform device


def _firmware(path: Path) -> FirmwareNode | None:
    node = path / "of_node"
    if node.is_dir():
        return _device_tree(node.resolve())
    acpi = _text(path / "firmware_node" / "path")
    # The namespace is not shown further: what a device's _CRS holds is not in sysfs.
    return FirmwareNode(acpi) if acpi else None


def _device_tree(node: Path) -> FirmwareNode:
    return FirmwareNode(
        path=f"/{node.relative_to(_root(node))}",
        regions=_labelled("reg", _strings(node / "reg-names"), _registers(node)),
        irqs=_labelled("interrupts", _strings(node / "interrupt-names"), _interrupts(node)),
    )


def _root(node: Path) -> Path:
    """The device tree's root: ``/sys/firmware/devicetree/base``."""
    return next((path for path in node.parents if path.name == "base"), node.parent)


def _labelled(property_name: str, names: list[str], values: list[str]) -> tuple[str, ...]:
    """``reg[1] frame: 0x… size 0x…``: which entry of the property, its name where it has one, and its value."""
    return tuple(
        f"{property_name}[{place}]{' ' + names[place] if place < len(names) else ''}: {value}"
        for place, value in enumerate(values)
    )


def _registers(node: Path) -> list[str]:
    """``reg``: address and size of each entry, as wide as the parent says; addresses are the parent bus's own."""
    width = _cell(node.parent / "#address-cells", 2)
    entries = _split(node / "reg", width + _cell(node.parent / "#size-cells", 1))
    return [f"{_number(entry[:width]):#x} size {_number(entry[width:]):#x}" for entry in entries]


def _interrupts(node: Path) -> list[str]:
    """``interrupts``: the cells of each entry as ``<0x0 0x1e 0x4>``, as many as the interrupt parent says."""
    controller = _interrupt_parent(node)
    width = _cell(controller / "#interrupt-cells", 0) if controller else 0
    return [f"<{' '.join(map(hex, entry))}>" for entry in _split(node / "interrupts", width)]


def _interrupt_parent(node: Path) -> Path | None:
    """The node that ``interrupt-parent``, here or further up, refers to by its phandle."""
    for ancestor in (node, *node.parents):
        if (ancestor / "interrupt-parent").is_file():
            wanted = _bytes(ancestor / "interrupt-parent")
            return next((path.parent for path in _root(node).rglob("phandle") if _bytes(path) == wanted), None)
    return None


# Files


def _bytes(path: Path) -> bytes:
    """The whole file; empty where it is not there or this user may not read it."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _text(path: Path) -> str:
    return _bytes(path).decode(errors="replace").strip()


def _strings(path: Path) -> list[str]:
    return [name for name in _text(path).split("\0") if name]


def _hex(path: Path) -> int:
    try:
        return int(_text(path), 16)
    except ValueError:
        return 0


def _entries(path: Path) -> list[Path]:
    """What a folder holds; nothing where it is gone or another user's."""
    try:
        return list(path.iterdir())
    except OSError:
        return []


def _target(path: Path) -> Path | None:
    """What a link leads to."""
    try:
        return path.readlink()
    except OSError:
        return None


def _link(path: Path) -> str | None:
    """The last part of what a link leads to."""
    target = _target(path)
    return target.name if target else None


def _split(path: Path, width: int) -> Iterator[tuple[int, ...]]:
    """A property's cells, so many at a time."""
    cells = _cells(path)
    for at in range(0, len(cells) - width + 1 if width else 0, width or 1):
        yield cells[at : at + width]


def _cells(path: Path) -> tuple[int, ...]:
    """A property of 32-bit cells."""
    data = _bytes(path)
    return unpack(f">{len(data) // 4}I", data[: len(data) // 4 * 4])


def _cell(path: Path, default: int) -> int:
    return next(iter(_cells(path)), default)


def _number(cells: tuple[int, ...]) -> int:
    value = 0
    for cell in cells:
        value = value << 32 | cell
    return value
