"""Which devices a domain's XML is given by VFIO."""

import re
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vgicmgr.domain.hostdevices import HostDevice
from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import DomainXMLError

UUID = "c2177883-f1bb-47f0-914d-32a22e3a8804"
ADDRESS = "<source><address domain='0x0000' bus='0x06' slot='0x12' function='0x5'/></source>"


def read(devices: str) -> tuple[HostDevice, ...]:
    return read_domain(
        "<domain type='kvm'><name>g</name><memory>1</memory><os><type arch='aarch64' machine='virt'>hvm</type></os>"
        f"<devices>{devices}</devices></domain>".encode()
    ).devices.host_devices


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
        with pytest.raises(DomainXMLError, match="more than 1024 <hostdev>"):
            read(hostdev() * 1025)
        function = "<interface type='hostdev'><source><address type='pci' bus='1'/></source></interface>"
        with pytest.raises(DomainXMLError, match="more than 1024 host devices"):
            read(hostdev() * 1000 + function * 25)

    @pytest.mark.parametrize(
        ("address", "name"),
        [
            ("bus='010'", "0000:08:00.0"),
            ("bus='+1'", "0000:01:00.0"),
            ("domain='0x10000' bus='0xFF' slot='0x1F' function='7'", "10000:ff:1f.7"),
            ("", "0000:00:00.0"),
        ],
    )
    def test_addresses_that_libvirt_takes(self, address: str, name: str) -> None:
        assert read(hostdev(f"<source><address {address}/></source>")) == (HostDevice("pci", name),)

    @pytest.mark.parametrize(
        "address",
        [
            "bus='256'",
            "slot='32'",
            "bus='1' function='8'",
            "domain='0x100000000'",
            "bus='zz'",
            "bus='-1'",
            "bus=''",
            "bus='09'",
            "bus='0x'",
            "bus='\uff11'",
            f"bus='{'9' * 5000}'",
        ],
    )
    def test_addresses_that_libvirt_refuses(self, address: str) -> None:
        with pytest.raises(DomainXMLError, match="no part of a PCI address"):
            read(hostdev(f"<source><address {address}/></source>"))

    @pytest.mark.parametrize("uuid", [UUID.upper(), UUID.replace("-", ""), f" {UUID} "])
    def test_a_uuid_in_any_form_is_the_one_of_sysfs(self, uuid: str) -> None:
        xml = hostdev(f"<source><address uuid='{uuid}'/></source>", "mode='subsystem' type='mdev'")
        assert read(xml) == (HostDevice("mdev", UUID),)

    @pytest.mark.parametrize("uuid", ["", "x" * 32, "a" * 256, "../../0000:01:00.0", UUID[:-1], "\uff11" * 32])
    def test_a_uuid_that_is_none(self, uuid: str) -> None:
        with pytest.raises(DomainXMLError, match="no UUID"):
            read(hostdev(f"<source><address uuid='{uuid}'/></source>", "mode='subsystem' type='mdev'"))

    def test_iommufd(self) -> None:
        [device] = read(hostdev(f"<driver iommufd='yes'/>{ADDRESS}"))
        assert device.iommufd
        [device] = read(hostdev(f"<driver iommufd='no'/>{ADDRESS}"))
        assert not device.iommufd
        [device] = read(hostdev(f"<driver name='vfio'/>{ADDRESS}"))
        assert not device.iommufd

    @hypothesis_settings(deadline=None)
    @given(
        st.dictionaries(st.sampled_from(["domain", "bus", "slot", "function", "type"]), st.text("0x1fg-", max_size=30))
    )
    def test_odd_numbers_do_not_break_it(self, address: dict[str, str]) -> None:
        shown = "".join(f" {name}={quoteattr(value)}" for name, value in address.items())
        try:
            [device] = read(hostdev(f"<source><address{shown}/></source>"))
        except DomainXMLError as error:
            assert error.message.isprintable()
        else:
            assert re.fullmatch("[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f][.][0-7]", device.address)
