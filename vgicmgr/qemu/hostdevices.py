"""Devices of the host that QEMU's ``-device`` assigns by VFIO (hw/vfio/pci.c, hw/vfio/platform.c).

Platform devices, for which libvirt has no element, are assigned by nothing else.
"""

from collections.abc import Iterator, Mapping

from vgicmgr.domain.hostdevices import HostDevice
from vgicmgr.qemu.arguments import ArgumentError, Arguments

_PLATFORM_DRIVERS = ("vfio-platform", "vfio-amd-xgbe", "vfio-calxeda-xgmac")
_PCI_DRIVERS = ("vfio-pci", "vfio-pci-nohotplug")
_HEX = "0123456789abcdefABCDEF"
_LONGEST_NAME = 255
"""NAME_MAX: no device of sysfs has a longer name."""


def host_devices(arguments: Arguments) -> tuple[HostDevice, ...]:
    """Those of the arguments, in their order, without one that comes as a descriptor (``fd=``).

    Raises :class:`~vgicmgr.qemu.arguments.ArgumentError` for an address that QEMU refuses, or that no device has.
    """
    return tuple(_assigned(arguments))


def _assigned(arguments: Arguments) -> Iterator[HostDevice]:
    for device in arguments.devices:
        properties = dict(device)
        driver = properties["driver"]
        if driver not in (*_PCI_DRIVERS, *_PLATFORM_DRIVERS):
            continue
        name = _name(properties, driver)
        if not name:
            continue
        transient = bool(properties.get("failover_pair_id"))
        if driver in _PLATFORM_DRIVERS:
            yield HostDevice("platform", name)
        elif _is_uuid(name):
            yield HostDevice("mdev", name, transient=transient)
        else:
            yield HostDevice("pci", name, transient=transient)


def _name(properties: Mapping[str, str], driver: str) -> str:
    """The device's name in sysfs; ``sysfsdev`` goes before ``host``."""
    if path := properties.get("sysfsdev", ""):
        name = path.rstrip("/").rpartition("/")[2]
        return _checked(name) if driver in _PLATFORM_DRIVERS or _is_uuid(name) else pci_address(name)
    host = properties.get("host", "")
    if not host:
        return ""
    return _checked(host) if driver in _PLATFORM_DRIVERS else pci_address(host)


def pci_address(text: str) -> str:
    """``[DDDD:]BB:DD.F`` as sysfs spells it (set_pci_host_devaddr); raises ArgumentError."""
    place, dot, function = text.partition(".")
    parts = place.split(":")
    domain, bus, slot = ["0", *parts] if len(parts) == 2 else parts if len(parts) == 3 else ["", "", ""]
    numbers = [_number(part) for part in (domain, bus, slot, function)]
    if not dot or any(number > most for number, most in zip(numbers, (0xFFFFFFFF, 0xFF, 0x1F, 7), strict=True)):
        raise ArgumentError("QEMU expects a PCI address such as 0000:01:00.0 for vfio-pci")
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)


def _number(digits: str) -> int:
    """A hexadecimal number; what is none is beyond every bound."""
    fits = 0 < len(digits) <= 8 and all(digit in _HEX for digit in digits)
    return int(digits, 16) if fits else 1 << 64


def _is_uuid(name: str) -> bool:
    parts = name.split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and all(c in _HEX for part in parts for c in part)


def _checked(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(name.encode(errors="replace")) > _LONGEST_NAME:
        raise ArgumentError("QEMU finds no such device for vfio-platform")
    return name
