"""What of a domain's devices, and of QEMU's own arguments in it, bears on the interrupt controller.

Source of every element: libvirt, ``docs/formatdomain.rst`` and ``docs/drvqemu.rst``.
"""

from vgicmgr.dataclass import dataclass
from vgicmgr.domain.settings import read_domain

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.domain.hostdevices import HostDevice

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"


@dataclass(frozen=True)
class Devices:
    """``iommu``: the models of ``<iommu>``; ``root_ports``: PCIe root ports and switch ports, which need MSI-X.

    ``host_devices``: those of the XML, then those of its QEMU arguments. ``qemu_arguments``: those of
    ``<qemu:commandline>``, in their order.
    """

    iommu: tuple[str, ...] = ()
    root_ports: int = 0
    host_devices: "tuple[HostDevice, ...]" = ()
    qemu_arguments: tuple[str, ...] = ()


_PORTS = ("pcie-root-port", "pcie-switch-upstream-port", "pcie-switch-downstream-port")


def read_devices(xml: bytes) -> Devices:
    """The devices of a domain XML; raises :class:`~vgicmgr.errors.DomainXMLError` when it cannot be read."""
    from xml.etree import ElementTree

    from vgicmgr.domain.hostdevices import devices_of_arguments

    settings = read_domain(xml)  # no DOCTYPE, bounded, well-formed
    root = ElementTree.fromstring(xml, ElementTree.XMLParser(encoding="utf-8"))  # noqa: S314 (see the line above)
    arguments = tuple(
        argument.get("value", "")
        for argument in root.findall(f"{{{QEMU_NAMESPACE}}}commandline/{{{QEMU_NAMESPACE}}}arg")
    )
    return Devices(
        iommu=tuple(element.get("model", "") for element in root.findall("devices/iommu")),
        root_ports=sum(
            element.get("type") == "pci" and element.get("model") in _PORTS
            for element in root.findall("devices/controller")
        ),
        host_devices=(*settings.host_devices, *devices_of_arguments(arguments)),
        qemu_arguments=arguments,
    )
