"""Which devices a domain is given by VFIO: what is read of its XML, and of QEMU's arguments in it."""

from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vgicmgr.domain.hostdevices import HostDevice, devices_of_arguments
from vgicmgr.domain.settings import read_domain
from vgicmgr.errors import DomainXMLError

UUID = "c2177883-f1bb-47f0-914d-32a22e3a8804"
ADDRESS = "<source><address domain='0x0000' bus='0x06' slot='0x12' function='0x5'/></source>"


def read(devices: str) -> tuple[HostDevice, ...]:
    return read_domain(
        "<domain type='kvm'><name>g</name><memory>1</memory><os><type arch='aarch64' machine='virt'>hvm</type></os>"
        f"<devices>{devices}</devices></domain>".encode()
    ).host_devices


def hostdev(inside: str = ADDRESS, attributes: str = "mode='subsystem' type='pci'") -> str:
    return f"<hostdev {attributes}>{inside}</hostdev>"


class TestElements:
    """libvirt, docs/formatdomain.rst: host device assignment, and teaming of a virtio and a hostdev interface."""

    def test_a_pci_device_is_named_as_in_sysfs(self) -> None:
        assert read(hostdev()) == (HostDevice("pci", "0000:06:12.5"),)

    def test_decimal_numbers_and_those_that_are_left_out(self) -> None:
        assert read(hostdev("<source><address bus='10'/></source>")) == (HostDevice("pci", "0000:0a:00.0"),)

    def test_managed(self) -> None:
        [device] = read(hostdev(attributes="mode='subsystem' type='pci' managed='yes'"))
        assert device.managed

    def test_a_mediated_device_is_named_by_its_uuid(self) -> None:
        xml = hostdev(f"<source><address uuid='{UUID}'/></source>", "mode='subsystem' type='mdev' model='vfio-pci'")
        assert read(xml) == (HostDevice("mdev", UUID),)

    def test_a_transient_device(self) -> None:
        [device] = read(hostdev(f"{ADDRESS}<teaming type='transient' persistent='ua-backup0'/>"))
        assert device.transient

    def test_an_interface_that_is_a_virtual_function_comes_first(self) -> None:
        function = (
            "<interface type='hostdev' managed='yes'><mac address='52:54:00:11:22:33'/>"
            "<source><address type='pci' domain='0x0000' bus='0x03' slot='0x02' function='0x1'/></source>"
            "<teaming type='transient' persistent='ua-backup0'/></interface>"
        )
        assert read(hostdev() + function) == (
            HostDevice("pci", "0000:03:02.1", managed=True, transient=True),
            HostDevice("pci", "0000:06:12.5"),
        )

    @pytest.mark.parametrize(
        "xml",
        [
            hostdev("<source><vendor id='0x1234'/></source>", "mode='subsystem' type='usb'"),
            hostdev("<source protocol='vhost'/>", "mode='subsystem' type='scsi_host'"),
            hostdev("<source><interface>eth0</interface></source>", "mode='capabilities' type='net'"),
            "<interface type='bridge'><source bridge='br0'/><teaming type='persistent'/></interface>",
        ],
    )
    def test_not_of_vfio(self, xml: str) -> None:
        assert read(xml) == ()

    def test_elsewhere_it_is_none(self) -> None:
        assert read(f"<disk>{hostdev()}</disk>") == ()

    def test_more_than_any_machine_takes_are_refused(self) -> None:
        assert len(read(hostdev() * 1024)) == 1024
        with pytest.raises(DomainXMLError, match="more than 1024 host devices"):
            read(hostdev() * 1025)

    @hypothesis_settings(deadline=None)
    @given(
        st.dictionaries(st.sampled_from(["domain", "bus", "slot", "function", "type"]), st.text("0x1fg-", max_size=30))
    )
    def test_odd_numbers_do_not_break_it(self, address: dict[str, str]) -> None:
        shown = "".join(f" {name}={quoteattr(value)}" for name, value in address.items())
        [device] = read(hostdev(f"<source><address{shown}/></source>"))
        assert "/" not in device.address


class TestArguments:
    """QEMU, ``-device vfio-pci,help`` and ``-device vfio-platform,help``."""

    @pytest.mark.parametrize(
        ("value", "device"),
        [
            ("vfio-pci,host=0000:01:00.0", HostDevice("pci", "0000:01:00.0")),
            ("vfio-pci,id=a,host=01:00.0", HostDevice("pci", "0000:01:00.0")),
            ("vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:01:00.0", HostDevice("pci", "0000:01:00.0")),
            (f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{UUID}", HostDevice("mdev", UUID)),
            ('{"driver":"vfio-pci","host":"0000:01:00.0","addr":1}', HostDevice("pci", "0000:01:00.0")),
            ("vfio-pci,host=01:00.0,failover_pair_id=net0", HostDevice("pci", "0000:01:00.0", transient=True)),
            ("vfio-platform,host=fff51000.ethernet", HostDevice("platform", "fff51000.ethernet")),
            ("vfio-amd-xgbe,sysfsdev=/sys/bus/platform/devices/AMDI8001:00", HostDevice("platform", "AMDI8001:00")),
        ],
    )
    def test_devices(self, value: str, device: HostDevice) -> None:
        assert devices_of_arguments(("-S", "-device", value)) == (device,)

    @pytest.mark.parametrize("value", ["virtio-net-pci,host_mtu=1", "{", '{"driver":5}', "[]", ""])
    def test_others(self, value: str) -> None:
        assert devices_of_arguments(("-device", value, "-device")) == ()

    @given(st.lists(st.one_of(st.just("-device"), st.text('vfio-pci,host={":}/', max_size=40)), max_size=6))
    def test_anything_can_be_read(self, arguments: list[str]) -> None:
        devices_of_arguments(arguments)
