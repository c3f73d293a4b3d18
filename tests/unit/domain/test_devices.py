"""What of the devices, and of QEMU's arguments, is read."""

from pathlib import Path

import pytest

from vgicmgr.domain.devices import Devices, read_devices
from vgicmgr.domain.hostdevices import HostDevice
from vgicmgr.errors import DomainXMLError

EXAMPLES = Path(__file__).parents[3] / "xml"


def domain(inside: str) -> bytes:
    return (
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name><memory>1</memory>"
        f"<os><type arch='aarch64' machine='virt'>hvm</type></os>{inside}</domain>"
    ).encode()


def test_none() -> None:
    assert read_devices(domain("")) == Devices()


def test_examples() -> None:
    assert read_devices((EXAMPLES / "guest-gicv3.xml").read_bytes()) == Devices(root_ports=1)
    assert read_devices((EXAMPLES / "guest-sve-commandline.xml").read_bytes()).qemu_arguments == (
        "-global",
        "virtio-net-pci.mrg_rxbuf=off",
    )


def test_assigned_devices_of_the_xml_and_of_the_arguments() -> None:
    xml = domain(
        "<devices><iommu model='smmuv3'/><hostdev mode='subsystem' type='pci'><source>"
        "<address domain='0x0000' bus='0x06' slot='0x12' function='0x5'/></source></hostdev></devices>"
        "<qemu:commandline><qemu:arg value='-device'/><qemu:arg value='vfio-platform,host=a.dma'/></qemu:commandline>"
    )
    assert read_devices(xml) == Devices(
        iommu=("smmuv3",),
        host_devices=(HostDevice("pci", "0000:06:12.5"), HostDevice("platform", "a.dma")),
        qemu_arguments=("-device", "vfio-platform,host=a.dma"),
    )


def test_ports_need_msis_and_other_controllers_do_not() -> None:
    controllers = "".join(
        f"<controller type='{kind}' model='{model}'/>"
        for kind, model in (
            ("pci", "pcie-root"),
            ("pci", "pcie-root-port"),
            ("pci", "pcie-switch-upstream-port"),
            ("pci", "pcie-switch-downstream-port"),
            ("pci", "pcie-to-pci-bridge"),
            ("usb", "qemu-xhci"),
        )
    )
    assert read_devices(domain(f"<devices>{controllers}</devices>")).root_ports == 3


def test_a_domain_inside_the_metadata_is_not_the_domain() -> None:
    inner = "<metadata><domain><devices><iommu model='smmuv3'/></devices></domain></metadata>"
    assert read_devices(domain(inner)) == Devices()


@pytest.mark.parametrize("xml", [b"", b"<a/>", b"<!DOCTYPE a>" + domain(""), domain("")[:-3]])
def test_refused_as_the_settings_are(xml: bytes) -> None:
    with pytest.raises(DomainXMLError):
        read_devices(xml)
