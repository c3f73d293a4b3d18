"""What of a domain's devices, and of QEMU's own arguments in it, bears on the interrupt controller.

Source of every element: libvirt, ``docs/formatdomain.rst`` and ``docs/drvqemu.rst``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vgicmgr.domain.settings import read_domain

if TYPE_CHECKING:
    from xml.etree import ElementTree

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"


@dataclass(frozen=True, slots=True)
class HostDevice:
    """A ``<hostdev>`` by VFIO: ``kind`` is ``pci`` or ``mdev``, ``address`` as sysfs names it, or an mdev's UUID.

    ``vectors``: how many MSI or MSI-X vectors the device has, where that is known.
    """

    kind: str
    address: str
    vectors: int | None = None


@dataclass(frozen=True, slots=True)
class Devices:
    """``iommu``: the models of ``<iommu>``; ``root_ports``: PCIe root ports and switch ports, which need MSI-X.

    ``qemu_arguments``: those of ``<qemu:commandline>``, in their order.
    """

    iommu: tuple[str, ...] = ()
    root_ports: int = 0
    host_devices: tuple[HostDevice, ...] = ()
    qemu_arguments: tuple[str, ...] = ()


_PORTS = ("pcie-root-port", "pcie-switch-upstream-port", "pcie-switch-downstream-port")


def read_devices(xml: bytes) -> Devices:
    """The devices of a domain XML; raises :class:`~vgicmgr.errors.DomainXMLError` when it cannot be read."""
    from xml.etree import ElementTree

    read_domain(xml)  # no DOCTYPE, bounded, well-formed
    root = ElementTree.fromstring(xml, ElementTree.XMLParser(encoding="utf-8"))  # noqa: S314 (see the line above)
    return Devices(
        iommu=tuple(element.get("model", "") for element in root.findall("devices/iommu")),
        root_ports=sum(
            element.get("type") == "pci" and element.get("model") in _PORTS
            for element in root.findall("devices/controller")
        ),
        host_devices=tuple(
            device for element in root.findall("devices/hostdev") if (device := _host_device(element)) is not None
        ),
        qemu_arguments=tuple(
            argument.get("value", "")
            for argument in root.findall(f"{{{QEMU_NAMESPACE}}}commandline/{{{QEMU_NAMESPACE}}}arg")
        ),
    )


def _host_device(element: "ElementTree.Element") -> HostDevice | None:
    kind, address = element.get("type", ""), element.find("source/address")
    if kind == "mdev":
        return HostDevice(kind, address.get("uuid", "") if address is not None else "")
    if kind != "pci":
        return None  # USB and SCSI devices are not assigned by VFIO
    parts = [_number(address.get(name, "0")) if address is not None else 0 for name in _PCI_ADDRESS]
    return HostDevice(kind, "{:04x}:{:02x}:{:02x}.{:x}".format(*parts))


_PCI_ADDRESS = ("domain", "bus", "slot", "function")


def _number(text: str) -> int:
    """A number as libvirt writes it, ``0x1f`` or decimal; 0 where it is none."""
    try:
        return int(text[:20], 0)
    except ValueError:
        return 0
