"""Devices of the host that a domain is given by VFIO.

Source of every element: libvirt, ``docs/formatdomain.rst``.
"""

from vgicmgr.dataclass import dataclass
from vgicmgr.errors import DomainXMLError

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class HostDevice:
    """A ``<hostdev>`` or ``<interface type='hostdev'>`` that VFIO assigns, or a ``-device`` that says the same to QEMU.

    ``kind`` is ``pci``, ``mdev`` or ``platform``; ``address`` is the device's name in sysfs, or an mdev's UUID.
    ``managed``: libvirt itself binds it to VFIO. ``transient``: QEMU unplugs it before it migrates the guest, and plugs
    it only once the guest's driver asks for it (``<teaming type='transient'/>``, ``failover_pair_id``).
    ``iommufd``: QEMU opens it by /dev/iommu and its own node in /dev/vfio/devices, and not by its group.
    """

    kind: str
    address: str
    managed: bool = False
    transient: bool = False
    iommufd: bool = False


def host_device(parts: "Mapping[str, Mapping[str, str]]", *, iommufd: bool = False) -> HostDevice | None:
    """The device of an element's attributes, by the path from it (empty for its own); None where it is not VFIO's.

    ``<interface>`` names the type of the address at the address, ``<hostdev>`` at itself. ``iommufd`` is what holds
    where the device itself does not say it. Raises :class:`DomainXMLError` for an address that libvirt refuses.
    """
    element, address = parts[""], parts.get("source/address", {})
    kind = address.get("type", "") if element.get("type") == "hostdev" else element.get("type", "")
    if element.get("mode", "subsystem") != "subsystem" or kind not in ("pci", "mdev"):
        return None  # USB, SCSI and mediated by vhost: no VFIO
    return HostDevice(
        kind=kind,
        address=_uuid(address.get("uuid", "")) if kind == "mdev" else _pci_address(address),
        managed=element.get("managed") == "yes",
        transient=parts.get("teaming", {}).get("type") == "transient",
        iommufd=parts.get("driver", {}).get("iommufd", "yes" if iommufd else "no") == "yes",
    )


_PCI_ADDRESS = {"domain": 0xFFFFFFFF, "bus": 0xFF, "slot": 0x1F, "function": 7}
"""The parts of a PCI address, and the most each can be (libvirt's virPCIDeviceAddressIsValid)."""


def _pci_address(address: "Mapping[str, str]") -> str:
    numbers = [_number(part, address.get(part, "0"), most) for part, most in _PCI_ADDRESS.items()]
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)


def _number(part: str, text: str, most: int) -> int:
    """A number as in C: ``0x1f``, octal with a leading 0, or decimal (virXMLPropUInt with base 0)."""
    digits = text.lstrip(" \t\r\n").removeprefix("+").lower()
    base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") else 10
    digits = digits.removeprefix("0x") if base == 16 else digits
    known = "0123456789abcdef"[:base]
    if not digits or len(digits) > 20 or digits.strip(known) or int(digits, base) > most:
        raise DomainXMLError(f"the domain XML has no part of a PCI address in attribute '{part}' of <address>")
    return int(digits, base)


def _uuid(text: str) -> str:
    """A UUID in the form that sysfs has (virUUIDParse, virUUIDFormat)."""
    digits = text.strip(" \t\r\n").replace("-", "").lower() if len(text) <= 64 else ""
    if len(digits) != 32 or digits.strip("0123456789abcdef"):
        raise DomainXMLError("the domain XML has no UUID in attribute 'uuid' of <address>")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
