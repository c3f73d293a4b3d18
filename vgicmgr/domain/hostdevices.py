"""Devices of the host that a domain is given by VFIO, as its XML and QEMU's arguments in it name them.

Source of every element: libvirt, ``docs/formatdomain.rst``; of the arguments: QEMU's ``hw/vfio/pci.c`` and
``hw/vfio/platform.c``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from vgicmgr.dataclass import dataclass

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from typing import Any


@dataclass(frozen=True)
class HostDevice:
    """A ``<hostdev>`` or ``<interface type='hostdev'>`` that VFIO assigns, or a ``-device`` that says the same to QEMU.

    ``kind`` is ``pci``, ``mdev`` or ``platform``; ``address`` is the device's name in sysfs, or an mdev's UUID.
    ``managed``: libvirt itself binds it to VFIO. ``transient``: QEMU unplugs it before it migrates the guest, and plugs
    it only once the guest's driver asks for it (``<teaming type='transient'/>``, ``failover_pair_id``).
    """

    kind: str
    address: str
    managed: bool = False
    transient: bool = False


def host_device(parts: Mapping[str, Mapping[str, str]]) -> HostDevice | None:
    """The device of an element's attributes, by the path from it (empty for its own); None where it is not VFIO's.

    ``<interface>`` names the type of the address at the address, ``<hostdev>`` at itself.
    """
    own, address = parts[""], parts.get("source/address", {})
    kind = address.get("type", "") if own.get("type") == "hostdev" else own.get("type", "")
    if own.get("mode", "subsystem") != "subsystem" or kind not in ("pci", "mdev"):
        return None  # USB, SCSI and mediated by vhost: no VFIO
    name = address.get("uuid", "") if kind == "mdev" else _pci_name([address.get(part, "0") for part in _PCI_ADDRESS])
    transient = parts.get("teaming", {}).get("type") == "transient"
    return HostDevice(kind, name, own.get("managed") == "yes", transient)


_PCI_ADDRESS = ("domain", "bus", "slot", "function")


def _pci_name(numbers: Sequence[str]) -> str:
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*map(_number, numbers))


def _number(text: str) -> int:
    """A number as libvirt writes it, ``0x1f`` or decimal; 0 where it is none."""
    try:
        return int(text[:20], 0)
    except ValueError:
        return 0


_PLATFORM_DRIVERS = ("vfio-platform", "vfio-amd-xgbe", "vfio-calxeda-xgmac")
_PCI_DRIVERS = ("vfio-pci", "vfio-pci-nohotplug")


def devices_of_arguments(arguments: Sequence[str]) -> tuple[HostDevice, ...]:
    """Those of QEMU's ``-device``: platform devices, for which libvirt has no element, are assigned by nothing else."""
    values = (value for option, value in pairwise(arguments) if option in ("-device", "--device"))
    return tuple(_of_properties(values))


def _of_properties(values: Iterable[str]) -> Iterator[HostDevice]:
    for value in values:
        properties = _properties(value)
        driver = properties.get("driver")
        path, host = properties.get("sysfsdev", ""), properties.get("host", "")
        name = path.rstrip("/").rpartition("/")[2] if path else host
        transient = bool(properties.get("failover_pair_id"))
        if driver in _PLATFORM_DRIVERS:
            yield HostDevice("platform", name)
        elif driver in _PCI_DRIVERS and "-" in name:
            yield HostDevice("mdev", name, transient=transient)
        elif driver in _PCI_DRIVERS:
            yield HostDevice("pci", name if name.count(":") != 1 else f"0000:{name}", transient=transient)


def _properties(value: str) -> dict[str, str]:
    """Of ``DRIVER,KEY=VALUE,…``, or of the JSON that QEMU takes as well."""
    if value.startswith("{"):
        import json

        try:
            document: Any = json.loads(value)
        except (ValueError, RecursionError):
            return {}
        return {key: part for key, part in document.items() if isinstance(part, str)}
    driver, *rest = re.split(r"(?<!,),(?!,)", value)
    return {"driver": driver, **dict(part.split("=", 1) for part in rest if "=" in part)}
