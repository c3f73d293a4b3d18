"""The host's devices that QEMU's arguments assign (hw/vfio/pci.c, hw/core/qdev-properties-system.c)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.domain.hostdevices import HostDevice
from vgicmgr.qemu.arguments import ArgumentError, read_arguments
from vgicmgr.qemu.hostdevices import host_devices

UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"


def assigned(*devices: str) -> tuple[HostDevice, ...]:
    return host_devices(read_arguments([word for device in devices for word in ("-device", device)]))


@pytest.mark.parametrize(
    ("device", "read"),
    [
        ("vfio-pci,host=0000:01:00.0", HostDevice("pci", "0000:01:00.0")),
        ("vfio-pci,host=01:00.0", HostDevice("pci", "0000:01:00.0")),
        ("vfio-pci,host=1:1F.7", HostDevice("pci", "0000:01:1f.7")),
        ("vfio-pci-nohotplug,host=01:00.0", HostDevice("pci", "0000:01:00.0")),
        ("vfio-pci,sysfsdev=/sys/bus/pci/devices/0002:01:00.1", HostDevice("pci", "0002:01:00.1")),
        ("vfio-pci,host=01:00.0,failover_pair_id=n", HostDevice("pci", "0000:01:00.0", transient=True)),
        (f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{UUID}", HostDevice("mdev", UUID)),
        (f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{UUID}/", HostDevice("mdev", UUID)),
        ("vfio-platform,host=fff51000.ethernet", HostDevice("platform", "fff51000.ethernet")),
        ("vfio-amd-xgbe,sysfsdev=/sys/bus/platform/devices/e0700000.xgmac", HostDevice("platform", "e0700000.xgmac")),
        ('{"driver":"vfio-pci","host":"01:00.0"}', HostDevice("pci", "0000:01:00.0")),
    ],
)
def test_each_driver(device: str, read: HostDevice) -> None:
    assert assigned(device) == (read,)


def test_others_are_passed_over_and_the_order_is_kept() -> None:
    devices = assigned("vfio-pci,host=02:00.0", "virtio-net-pci", "vfio-pci,fd=3", "vfio-pci,host=01:00.0")
    assert [device.address for device in devices] == ["0000:02:00.0", "0000:01:00.0"]


@pytest.mark.parametrize(
    "device",
    [
        "vfio-pci,host=" + "0" * 256,
        "vfio-pci,host=01:00",
        "vfio-pci,host=01:20.0",
        "vfio-pci,host=01:00.8",
        "vfio-pci,host=100:00.0",
        "vfio-pci,host=0:0:0:0.0",
        "vfio-pci,host=../../x:00.0",
        "vfio-pci,host=\u06601:00.0",
        f"vfio-pci,host={UUID}",
        "vfio-pci,sysfsdev=/sys/bus/mdev/devices/" + "a" * 256,
        "vfio-platform,host=" + "a" * 256,
        "vfio-platform,host=..",
        "vfio-platform,sysfsdev=/",
    ],
)
def test_an_address_that_no_device_has_is_refused(device: str) -> None:
    with pytest.raises(ArgumentError):
        assigned(device)


@given(st.text())
def test_any_address_is_a_name_in_sysfs_or_refused(text: str) -> None:
    for driver in ("vfio-pci", "vfio-platform"):
        for property_ in ("host", "sysfsdev"):
            try:
                devices = assigned(f"{driver},{property_}={text.replace(',', ',,')}")
            except ArgumentError:
                continue
            assert all("/" not in device.address and len(device.address) < 256 for device in devices)
