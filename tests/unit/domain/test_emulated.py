"""Which devices QEMU emulates for a domain, and where libvirt plugs them in."""

import pytest

from tests.unit.domain.test_xml import read, refusal
from vgicmgr.domain.domain import EmulatedDevice

MMIO = "<address type='virtio-mmio'/>"


def emulated(devices: str) -> tuple[EmulatedDevice, ...]:
    return read(f"<devices>{devices}</devices>").devices.emulated


def kinds(devices: str) -> list[tuple[str, bool]]:
    return [(device.kind, device.virtio) for device in emulated(devices)]


@pytest.mark.parametrize(
    ("xml", "kind"),
    [
        ("<disk><target dev='vda' bus='virtio'/></disk>", "disk"),
        ("<disk><target dev='vda'/></disk>", "disk"),
        ("<interface type='network'><model type='virtio'/></interface>", "interface"),
        ("<interface type='network'><model type='virtio-non-transitional'/></interface>", "interface"),
        ("<interface type='user'/>", "interface"),
        ("<controller type='scsi' model='virtio-scsi'/>", "SCSI controller"),
        ("<controller type='scsi'/>", "SCSI controller"),
        ("<controller type='virtio-serial'/>", "serial controller"),
        ("<rng model='virtio'/>", "rng"),
        ("<memballoon model='virtio'/>", "memballoon"),
        ("<video><model type='virtio'/></video>", "video"),
        ("<input type='keyboard' bus='virtio'/>", "input"),
        ("<vsock model='virtio'/>", "vsock"),
        ("<filesystem type='mount'/>", "filesystem"),
        ("<crypto model='virtio' type='qemu'/>", "crypto"),
        ("<memory model='virtio-mem'><target><size>1</size></target></memory>", "memory"),
        ("<iommu model='virtio'/>", "iommu"),
        ("<sound model='virtio'/>", "sound"),
    ],
)
def test_virtio(xml: str, kind: str) -> None:
    assert kinds(xml) == [(kind, True)]


@pytest.mark.parametrize(
    ("xml", "kind"),
    [
        ("<interface type='network'><model type='e1000e'/></interface>", "interface"),
        ("<controller type='usb' model='qemu-xhci'/>", "USB controller"),
        ("<controller type='sata'/>", "SATA controller"),
        ("<controller type='scsi' model='lsilogic'/>", "SCSI controller"),
        ("<video><model type='bochs'/></video>", "video"),
        ("<sound model='ich9'/>", "sound"),
        ("<watchdog model='i6300esb'/>", "watchdog"),
        ("<shmem name='s'/>", "shmem"),
        ("<panic model='pvpanic'/>", "panic"),
    ],
)
def test_others_on_pcie(xml: str, kind: str) -> None:
    assert kinds(xml) == [(kind, False)]


@pytest.mark.parametrize(
    "xml",
    [
        "<controller type='pci' model='pcie-root-port'/>",
        "<controller type='usb' model='none'/>",
        "<memballoon model='none'/>",
        "<video><model type='none'/></video>",
        "<video><model type='ramfb'/></video>",
        "<input type='keyboard' bus='usb'/>",
        "<disk><target dev='sda' bus='usb'/></disk>",
        "<interface type='hostdev'><source><address type='pci'/></source></interface>",
        "<hostdev mode='subsystem' type='pci'><source><address/></source></hostdev>",
        "<iommu model='smmuv3'/>",
        "<memory model='dimm'><target><size>1</size></target></memory>",
        "<console type='pty'><target type='serial' port='0'/></console>",
        "<serial type='pty'><target type='system-serial'/></serial>",
    ],
)
def test_what_is_none(xml: str) -> None:
    assert emulated(xml) == ()


def test_controllers_that_libvirt_adds_once() -> None:
    disk, channel = (
        "<disk><target dev='sda' bus='scsi'/></disk>",
        "<channel type='unix'><target type='virtio'/></channel>",
    )
    assert kinds(2 * disk) == [("SCSI controller", True)]
    assert kinds("<controller type='scsi' model='lsilogic'/>" + disk) == [("SCSI controller", False)]
    assert kinds(2 * channel) == [("serial controller", True)]
    assert kinds("<controller type='virtio-serial'/>" + channel) == [("serial controller", True)]


@pytest.mark.parametrize(
    ("xml", "size"),
    [
        ("<disk><driver queue_size='1024'/><target dev='vda'/></disk>", 1024),
        ("<filesystem><driver type='virtiofs' queue='512'/></filesystem>", 512),
        ("<disk><driver queue_size='many'/><target dev='vda'/></disk>", 0),
        ("<disk><driver queue_size='" + "9" * 5000 + "'/><target dev='vda'/></disk>", 0),
    ],
)
def test_queue_sizes(xml: str, size: int) -> None:
    assert [device.queue_size for device in emulated(xml)] == [size]


class TestPlaces:
    """qemuDomainAssignPCIAddresses and qemuDomainAssignVirtioMMIOAddresses."""

    @pytest.mark.parametrize(
        ("address", "port"),
        [
            ("", True),
            ("<address type='pci' bus='0x01' slot='0x00'/>", True),
            ("<address type='pci' bus='1'/>", True),
            ("<address type='pci' bus='0x00' slot='0x02'/>", False),
            ("<address type='pci' slot='0x02'/>", False),
            (MMIO, False),
        ],
    )
    def test_in_a_port(self, address: str, port: bool) -> None:
        assert [device.port for device in emulated(f"<rng model='virtio'>{address}</rng>")] == [port]

    def test_one_on_virtio_mmio_takes_the_other_virtio_ones_along(self) -> None:
        devices = f"<rng model='virtio'>{MMIO}</rng><memballoon model='virtio'/><controller type='usb'/>"
        assert {device.kind: device.port for device in emulated(devices)} == {
            "rng": False,
            "memballoon": False,
            "USB controller": True,
        }

    def test_a_virtio_iommu_is_of_the_root_complex(self) -> None:
        assert [device.port for device in emulated("<iommu model='virtio'/>")] == [False]


def test_so_many_that_some_are_passed_over() -> None:
    """But none that VFIO assigns, however it is hidden among others."""
    many = 4096 * "<interface type='user'/>"
    assert len(emulated(many + "<interface type='user'/>")) == 4096
    assert "more than 4096 <interface>" in refusal(f"<devices>{many}<interface type='hostdev'/></devices>")
    assert "a prefix" in refusal(f"<devices>{many}<interface x:type='hostdev' xmlns:x='u'/></devices>")
