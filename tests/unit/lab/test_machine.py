"""From a host's description to QEMU's arguments."""

from pathlib import Path

import pytest

from tests.lab.machine import Cable, Files, Link, arguments, cpu, machine
from tests.lab.spec import HOSTS, HostSpec, Release
from vgicmgr.dataclass import replace

FILES = Files(
    kernel=Path("/c/Image"),
    initramfs=Path("/r/initramfs.cpio"),
    root=Path("/c/root.ext4"),
    guest_disk=Path("/c/guest.ext4"),
    agent_socket=Path("/r/agent"),
    console_socket=Path("/r/console"),
    console_log=Path("/r/console.log"),
)


def test_a_device_tree_of_ones_own() -> None:
    argv = arguments(HostSpec(vgic=False), replace(FILES, device_tree=Path("/r/devicetree")))
    assert value(argv, "-dtb") == "/r/devicetree"
    assert "-dtb" not in arguments(HostSpec(), FILES)


def value(argv: list[str], option: str) -> str:
    assert argv.count(option) == 1
    return argv[argv.index(option) + 1]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (HostSpec(), "virt,virtualization=on,gic-version=3"),
        (HostSpec(gic=2), "virt,virtualization=on,gic-version=2"),
        (HostSpec(its=False), "virt,virtualization=on,gic-version=3,its=off"),
        (HostSpec(smmuv3=True), "virt,virtualization=on,gic-version=3,iommu=smmuv3"),
    ],
)
def test_the_machine_has_el2_and_what_the_spec_says(spec: HostSpec, expected: str) -> None:
    assert machine(spec) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (HostSpec(), "neoverse-n1"),
        (HostSpec(pmu=False), "neoverse-n1,pmu=off"),
        (HostSpec(cpu="max"), "max,pauth-impdef=on"),
        (HostSpec(cpu="max", kernel=Release.BOOKWORM), "max,pauth-impdef=on,lpa2=off"),
        (HostSpec(Release.BOOKWORM, kernel=Release.SID, cpu="max"), "max,pauth-impdef=on"),
    ],
)
def test_the_cpu_leaves_out_what_the_kernel_cannot_bear(spec: HostSpec, expected: str) -> None:
    assert cpu(spec) == expected


def test_size_and_devices_are_the_specs() -> None:
    argv = arguments(HostSpec(vcpus=2, memory_mib=2048, devices=("e1000e,addr=5",)), FILES)
    assert (value(argv, "-smp"), value(argv, "-m")) == ("2", "2048")
    assert argv[-2:] == ["-device", "e1000e,addr=5"]


def test_no_cached_image_is_ever_written_to() -> None:
    drives = [argument for argument in arguments(HostSpec(), FILES) if "file=/c/" in argument]
    assert len(drives) == 2
    assert all("snapshot=on" in drive or "readonly=on" in drive for drive in drives)


def test_a_host_has_a_network_only_when_it_is_linked() -> None:
    assert "-netdev" not in arguments(HostSpec(), FILES)
    argv = arguments(HostSpec(), FILES, Link((Cable(Path("/l/h1"), Path("/l/h2")),), "52:54:00:00:00:01"))
    assert any("local.path=/l/h1,remote.type=unix,remote.path=/l/h2" in argument for argument in argv)
    assert "virtio-net-pci,netdev=net,mac=52:54:00:00:00:01,romfile=" in argv


def test_all_cables_of_a_host_and_its_card_are_on_one_hub() -> None:
    cables = (Cable(Path("/l/2-1"), Path("/l/1-2")), Cable(Path("/l/2-3"), Path("/l/3-2")))
    argv = arguments(HostSpec(), FILES, Link(cables, "52:54:00:00:00:02"))
    ports = [argument for argument in argv if argument.startswith("hubport,")]
    assert [("netdev=cable0" in port, "netdev=cable1" in port) for port in ports] == [(1, 0), (0, 1), (0, 0)]
    assert all("hubid=0" in port for port in ports)


@pytest.mark.parametrize("name", HOSTS)
def test_every_named_host_makes_a_command_line(name: str) -> None:
    assert arguments(HOSTS[name], FILES)[0] == "qemu-system-aarch64"


@pytest.mark.parametrize("version", [0, 1, 5])
def test_a_hosts_gic_is_2_3_or_4(version: int) -> None:
    with pytest.raises(ValueError, match="2, 3 or 4"):
        replace(HostSpec(), gic=version)
