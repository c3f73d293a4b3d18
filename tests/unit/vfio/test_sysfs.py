"""What is read of sysfs and /proc, from trees laid out as the kernel's are."""

from pathlib import Path
from struct import pack
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.vfio import sysfs
from vgicmgr.vfio.inventory import Bus, FirmwareNode, Host, PciConfig, User

E1000E_RESOURCE = """\
0x0000000010200000 0x000000001021ffff 0x0000000000040200
0x0000000010220000 0x000000001023ffff 0x0000000000040200
0x0000000000002160 0x000000000000217f 0x0000000000040101
0x0000000010280000 0x0000000010283fff 0x0000000000040200
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000000000000000 0x0000000000000000 0x0000000000000000
"""


def config(*capabilities: tuple[int, int], pin: int = 1) -> bytes:
    """A configuration space with these capabilities (id and control word), from 0x40 on."""
    space = bytearray(256)
    space[0x3D] = pin
    if capabilities:
        space[0x06], space[0x34] = 0x10, 0x40
    for number, (identifier, control) in enumerate(capabilities):
        following = 0x40 + 0x10 * (number + 1) if number + 1 < len(capabilities) else 0
        space[0x40 + 0x10 * number : 0x44 + 0x10 * number] = pack("<BBH", identifier, following, control)
    return bytes(space)


MSI, MSIX, POWER = 0x05, 0x11, 0x01


def test_sizes_of_bars_and_rom() -> None:
    assert sysfs.parse_resource(E1000E_RESOURCE) == (0x20000, 0x20000, 0x20, 0x4000, 0, 0, 0)


@given(st.text())
def test_any_resource_can_be_parsed(text: str) -> None:
    assert all(size >= 0 for size in sysfs.parse_resource(text))


def test_vectors_in_the_configuration_space() -> None:
    assert sysfs.parse_config(config((POWER, 0), (MSI, 0), (MSIX, 4))) == PciConfig(1, 1, 5)
    assert sysfs.parse_config(config((MSI, 5 << 1), pin=0)) == PciConfig(0, 32, 0)
    assert sysfs.parse_config(config((MSIX, 0x7FF | 0x8000))) == PciConfig(1, 0, 2048)
    assert sysfs.parse_config(config()) == PciConfig(1, 0, 0)


def test_without_root_only_the_pin_is_known() -> None:
    assert sysfs.parse_config(config((MSIX, 4))[:64]) == PciConfig(1, None, None)


def test_a_device_that_is_gone_has_no_configuration_space() -> None:
    assert sysfs.parse_config(b"") is None


def test_a_capability_list_that_bites_its_tail_ends() -> None:
    space = bytearray(config((MSIX, 4)))
    space[0x41] = 0x40
    assert sysfs.parse_config(bytes(space)) == PciConfig(1, 0, 5)


@given(st.binary(min_size=256, max_size=256))
def test_any_configuration_space_can_be_parsed(space: bytes) -> None:
    sysfs.parse_config(space)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["qemu", "-name", "guest=web,debug-threads=on", "-S"], "web"),
        (["qemu", "-name", "web"], "web"),
        (["qemu", "-name", "debug-threads=on,guest=web"], "web"),
        (["qemu", "-name", "guest=a,,b"], "a,b"),
        (["qemu", "-S"], ""),
        (["qemu", "-name"], ""),
        ([""], ""),
    ],
)
def test_the_guests_name(arguments: list[str], name: str) -> None:
    assert sysfs.guest_name(arguments) == name


@given(st.lists(st.text()))
def test_any_command_line_can_be_read(arguments: list[str]) -> None:
    sysfs.guest_name(["-name", *arguments])


# A host with two network functions in one group behind a root port, and a DMA engine of the device tree


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    (tmp_path / "class/iommu/smmu3.0x0000000009050000").mkdir(parents=True)
    for name, driver, class_code in (
        ("0000:00:08.0", "pcieport", "0x060400"),
        ("0000:01:00.0", "vfio-pci", "0x020000"),
        ("0000:01:00.1", "e1000e", "0x020000"),
    ):
        device = add_device(tmp_path, Bus.PCI, name, driver, 4)
        write(device / "class", class_code)
        write(device / "vendor", "0x8086")
        write(device / "device", "0x10d3")
        write(device / "resource", E1000E_RESOURCE)
        write(device / "reset_method", "flr bus" if name.startswith("0000:01") else "")
        (device / "config").write_bytes(config((MSIX, 4)))
    (tmp_path / "bus/pci/devices/0000:01:00.0/vfio-dev/vfio0").mkdir(parents=True)
    return tmp_path


def add_device(sys: Path, bus: Bus, name: str, driver: str, group: int | None) -> Path:
    device = sys / "bus" / bus / "devices" / name
    device.mkdir(parents=True)
    (device / "driver").symlink_to(f"../../../../bus/{bus}/drivers/{driver}")
    if group is not None:
        members = sys / "kernel/iommu_groups" / str(group) / "devices"
        members.mkdir(parents=True, exist_ok=True)
        (members / name).symlink_to(device)
        (device / "iommu_group").symlink_to(members.parent)
    return device


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def test_pci_devices(sys: Path) -> None:
    port, bound, other = sysfs.read_devices(sys)
    assert (bound.name, bound.driver, bound.group, bound.vfio) == ("0000:01:00.0", "vfio-pci", 4, "vfio0")
    assert bound.pci
    assert (bound.pci.vendor, bound.pci.device, bound.pci.class_code) == (0x8086, 0x10D3, 0x020000)
    assert bound.pci.reset_methods == ("flr", "bus")
    assert (bound.lines, bound.msi, bound.msix) == (1, 0, 5)
    assert (bound.can_reset, port.can_reset) == (True, False)
    assert bound.regions == 5  # four BARs and the configuration space
    assert [device.assignable for device in (port, bound, other)] == [False, True, True]


def test_a_driver_of_the_hosts_stands_in_the_way_but_not_the_ports(sys: Path) -> None:
    [group] = sysfs.read_groups(sysfs.read_devices(sys), sys)
    assert group.members == ("0000:00:08.0", "0000:01:00.0", "0000:01:00.1")
    assert group.in_the_way == (("0000:01:00.1", "e1000e"),)
    assert not group.viable


def test_a_member_without_a_driver_does_not_stand_in_the_way(sys: Path) -> None:
    (sys / "bus/pci/devices/0000:01:00.1/driver").unlink()
    [group] = sysfs.read_groups(sysfs.read_devices(sys), sys)
    assert group.viable


def test_a_group_that_vfio_made_has_no_iommu(sys: Path) -> None:
    write(sys / "kernel/iommu_groups/4/name", "vfio-noiommu")
    assert [group.noiommu for group in sysfs.read_groups((), sys)] == [True]


def test_the_host(sys: Path) -> None:
    assert sysfs.read_host(sys) == Host(("smmu3.0x0000000009050000",))
    write(sys / "module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y")
    assert sysfs.read_host(sys).allow_unsafe_interrupts is True


def test_an_empty_sysfs_has_nothing(tmp_path: Path) -> None:
    assert sysfs.read_devices(tmp_path) == ()
    assert sysfs.read_groups((), tmp_path) == ()
    assert sysfs.read_host(tmp_path) == Host()


def test_a_device_of_the_device_tree_has_its_path_and_each_resources(sys: Path) -> None:
    base = sys / "firmware/devicetree/base"
    node = base / "soc/dma@fd000000"
    node.mkdir(parents=True)
    cells(base / "interrupt-parent", 0x8001)
    cells(base / "intc@8000000/phandle", 0x8001)
    cells(base / "intc@8000000/#interrupt-cells", 3)
    cells(base / "soc/#address-cells", 2)
    cells(base / "soc/#size-cells", 1)
    cells(node / "reg", 0, 0xFD000000, 0x1000, 1, 0, 0x20)
    (node / "reg-names").write_bytes(b"control\0window\0")
    cells(node / "interrupts", 0, 30, 4, 0, 31, 4)
    (add_device(sys, Bus.PLATFORM, "fd000000.dma", "dma", 5) / "of_node").symlink_to(node)
    assert sysfs.read_devices(sys)[-1].firmware == FirmwareNode(
        "/soc/dma@fd000000",
        ("reg[0] control: 0xfd000000 size 0x1000", "reg[1] window: 0x100000000 size 0x20"),
        ("interrupts[0]: <0x0 0x1e 0x4>", "interrupts[1]: <0x0 0x1f 0x4>"),
    )


@given(st.binary(max_size=40), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_any_device_tree_can_be_read(data: bytes, wide: int, narrow: int) -> None:
    with TemporaryDirectory() as folder:
        node = Path(folder) / "base/soc/dma"
        node.mkdir(parents=True)
        for name in ("reg", "interrupts", "reg-names", "interrupt-names"):
            (node / name).write_bytes(data)
        cells(node / "interrupt-parent", 1)
        cells(node.parent / "intc/phandle", 1)
        cells(node.parent / "intc/#interrupt-cells", narrow)
        cells(node.parent / "#address-cells", narrow)
        cells(node.parent / "#size-cells", wide)
        (add_device(Path(folder), Bus.PLATFORM, "dma", "dma", 5) / "of_node").symlink_to(node)
        [device] = sysfs.read_devices(Path(folder))
        assert device.firmware
        assert len(device.firmware.irqs) == (len(data) // 4 // narrow if narrow else 0)


def cells(path: Path, *values: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(f">{len(values)}I", *values))


def test_a_device_of_acpi_has_its_path_in_the_namespace(sys: Path) -> None:
    device = add_device(sys, Bus.PLATFORM, "ABCD0001:00", "dma", 5)
    write(device / "firmware_node/path", r"\_SB_.DMA0")
    assert sysfs.read_devices(sys)[-1].firmware == FirmwareNode(r"\_SB_.DMA0")


def test_a_platform_device_without_a_group_cannot_be_assigned(sys: Path) -> None:
    add_device(sys, Bus.PLATFORM, "pmu", "armv8-pmu", None)
    device = sysfs.read_devices(sys)[-1]
    assert (device.name, device.assignable, device.firmware) == ("pmu", False, None)


def test_who_has_a_group_open(tmp_path: Path) -> None:
    for pid, command, target in (
        (40, "qemu-system-aar", "/dev/vfio/4"),
        (40, "qemu-system-aar", "/dev/vfio/vfio"),
        (41, "dpdk", "/dev/vfio/4"),
        (42, "bash", "/dev/null"),
    ):
        process = tmp_path / str(pid)
        (process / "fd").mkdir(parents=True, exist_ok=True)
        (process / "fd" / str(len(list((process / "fd").iterdir())))).symlink_to(target)
        write(process / "comm", command)
        (process / "cmdline").write_bytes(b"qemu\0-name\0guest=web\0" if pid == 40 else b"dpdk\0")
    (tmp_path / "self").symlink_to("40")
    guest, other = User(40, "qemu-system-aar", "web"), User(41, "dpdk")
    assert sysfs.read_users(tmp_path) == {"/dev/vfio/4": (guest, other), "/dev/vfio/vfio": (guest,)}
    assert (str(guest), str(other)) == ("guest web", "dpdk (41)")
