"""Assigned devices and the virtual IOMMU, as a domain has them; the rules have :mod:`test_assignment`."""

import pytest

from tests.unit.guest.examples import (
    GUEST,
    HOST,
    configured,
    decided,
    errors,
    guest,
    host,
    names,
    with_arguments,
)
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import IOMMU, Devices
from vgicmgr.domain.hostdevices import HostDevice
from vgicmgr.domain.metadata import Wishes
from vgicmgr.domain.xml import read_domain
from vgicmgr.guest.configuration import Source
from vgicmgr.guest.document import qemu_arguments
from vgicmgr.guest.map import regions
from vgicmgr.guest.resolve import resolve
from vgicmgr.vfio.assigned import AssignedDevice, AssignedDevices

GIVEN = Devices(host_devices=(HostDevice("pci", "0000:01:00.0"), HostDevice("pci", "0000:02:00.0")))
ASSIGNED = AssignedDevices(
    (AssignedDevice("0000:01:00.0", group=7, vectors=33), AssignedDevice("0000:02:00.0", group=8, vectors=32))
)
HERE = host(devices=ASSIGNED)
WITH = guest(devices=GIVEN)


def test_a_gicv2m_has_64_vectors_for_all() -> None:
    with_gicv2 = resolve(guest(gic_version="2", devices=GIVEN), HERE)
    assert names(with_gicv2) == ["msi-vectors"]
    assert "65 MSI vectors" in with_gicv2.findings[0].evidence
    assert names(resolve(WITH, HERE)) == []


def test_no_msis_at_all() -> None:
    assert names(resolve(WITH, HOST, wished=Wishes(its=False))) == ["msi-none"]


def test_kvm_is_told_of_their_groups() -> None:
    resolution = resolve(WITH, HERE)
    assert configured(resolution).vfio_files == ("/dev/vfio/7", "/dev/vfio/8")
    assert decided(resolution, "assigned device 0000:01:00.0") == ("33 MSI vectors, IOMMU group 7", Source.XML)


def test_those_of_arguments_come_after_those_of_the_xml() -> None:
    devices = Devices(host_devices=GIVEN.host_devices[:1])
    resolution = resolve(with_arguments("-device", "vfio-pci,host=0000:02:00.0", devices=devices), HERE)
    assert configured(resolution).vfio_files == ("/dev/vfio/7", "/dev/vfio/8")


def test_under_tcg_there_is_no_kvm_to_tell() -> None:
    emulated = resolve(guest(virt_type="qemu", cpu_mode="custom", cpu_model="max", devices=GIVEN), HOST)
    assert configured(emulated).vfio_files == ()


def test_what_the_host_refuses_refuses_the_configuration() -> None:
    without = host(devices=AssignedDevices((AssignedDevice("0000:01:00.0", msi_isolated=False),)))
    assert errors(resolve(WITH, without)) == ["msi-not-isolated"]


class TestWhatTheITSIsAskedFor:
    """Nothing of a host is assumed where the host itself was asked."""

    def test_device_ids(self) -> None:
        assert errors(resolve(WITH, replace(HERE, msi_devid=False))) == ["msi-devid-missing"]
        assert names(resolve(WITH, replace(HERE, msi_devid=None))) == []

    def test_bits(self) -> None:
        narrow = replace(HERE, gits_typer=0x1EF71 & ~(0x1F << 13) | 9 << 13)
        assert names(resolve(WITH, narrow)) == ["its-device-bits"]

    def test_iommufd_has_a_node_of_its_own(self) -> None:
        """/dev/vfio/devices/vfioN, of the device, and no group (hw/vfio/iommufd.c)."""
        devices = Devices(host_devices=(HostDevice("pci", "0000:01:00.0", iommufd=True),))
        files = configured(resolve(guest(devices=devices), HERE)).vfio_files
        assert files == ("the VFIO device node of 0000:01:00.0",)


class TestIOMMU:
    def test_behind_the_machines_smmuv3(self) -> None:
        behind = guest(devices=replace(GIVEN, iommus=(IOMMU("smmuv3"),)))
        assert errors(resolve(behind, HOST)) == ["iommu-unsupported"]
        assert names(resolve(guest(devices=replace(GIVEN, iommus=(IOMMU("virtio"),))), HOST)) == []

    def test_the_machines_own(self) -> None:
        resolution = resolve(guest(devices=Devices(iommus=(IOMMU("smmuv3"),))), HOST)
        assert "iommu=smmuv3" in qemu_arguments(resolution)[3].split(",")
        assert "SMMUv3" in [name for name, _, _ in regions(resolution)]

    XML = (
        b"<domain type='kvm'><name>g</name><memory unit='GiB'>1</memory>"
        b"<os><type arch='aarch64' machine='virt'>hvm</type></os><features><gic version='3'/></features>"
        b"<cpu mode='host-passthrough'/><devices>"
        b"<controller type='pci' index='0' model='pcie-root'/>"
        b"<controller type='pci' index='1' model='pcie-expander-bus'/>"
        b"<controller type='pci' index='2' model='pcie-expander-bus'/>"
        b"<iommu model='smmuv3'><driver pciBus='1' accel='on'/></iommu>"
        b"<iommu model='smmuv3'><driver pciBus='2'/></iommu></devices></domain>"
    )

    def test_those_of_a_bus_are_devices(self) -> None:
        """libvirt's iommu-smmuv3-pci-bus*.args: -device arm-smmuv3,primary-bus=, and no iommu= of the machine."""
        resolution = resolve(read_domain(self.XML), HOST)
        said = qemu_arguments(resolution)
        assert not any(option.startswith("iommu") for option in said[said.index("-machine") + 1].split(","))
        devices = [value for option, value in zip(said[::2], said[1::2], strict=True) if option == "-device"]
        assert len(devices) == 2
        assert all(device.startswith("arm-smmuv3,primary-bus=") for device in devices)
        assert [("accel=on" in device) for device in devices] == [True, False]
        assert "SMMUv3" not in [name for name, _, _ in regions(resolution)]

    def test_behind_one_that_is_accelerated(self) -> None:
        """VFIO devices may stand behind it (hw/arm/smmuv3-accel.c)."""
        devices = replace(GIVEN, iommus=(IOMMU("smmuv3", pci_bus=1, accel=True),))
        assert names(resolve(guest(devices=devices), HERE)) == []


@pytest.mark.parametrize("address", ["x" * 5000, "../../etc", "0000:01:00.0\n"])
def test_an_address_that_is_none(address: str) -> None:
    """L9: what is no address is looked for nowhere."""
    resolution = resolve(with_arguments("-device", f"vfio-pci,host={address}"), HOST)
    assert all(len(finding.evidence) < 500 for finding in resolution.findings)
    assert resolve(GUEST, HOST).findings == ()


class TestPortsThatLibvirtAdds:
    """F19: raw XML names no port, but each device without an address gets one."""

    @staticmethod
    def raw(devices: str) -> tuple[str, ...]:
        xml = (
            "<domain type='kvm'><name>g</name><memory unit='GiB'>1</memory>"
            "<os><type arch='aarch64' machine='virt'>hvm</type></os><features><gic version='3'/></features>"
            f"<cpu mode='host-passthrough'/><devices>{devices}</devices></domain>"
        )
        findings = resolve(read_domain(xml.encode()), HOST, wished=Wishes(its=False)).findings
        return tuple(found.name for found in findings)

    def test_need_an_msi_controller(self) -> None:
        assert self.raw("<disk><target dev='vda' bus='virtio'/></disk>") == ("msi-needed",)
        assert self.raw("<controller type='usb' model='qemu-xhci'/>") == ("msi-needed",)

    def test_are_not_added_for_what_has_a_place(self) -> None:
        on_root = "<address type='pci' bus='0x00' slot='0x02'/>"
        assert self.raw(f"<disk><target dev='vda' bus='virtio'/>{on_root}</disk>") == ()
        assert self.raw("<disk><target dev='vda' bus='virtio'/><address type='virtio-mmio'/></disk>") == ()
        assert self.raw("<console type='pty'><target type='serial'/></console>") == ()
