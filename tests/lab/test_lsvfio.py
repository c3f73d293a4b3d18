"""lsvfio tells the truth: each figure is held against sysfs, lspci, and a C program with the kernel's own headers.

The host has an SMMUv3 and, behind it, two functions of a network card in one IOMMU group and an NVMe controller in one
of its own; an igb, too, where this machine's QEMU has it.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.lab import command, cpio, debian, guest
from tests.lab.conftest import LabHost
from tests.lab.errors import Prerequisite
from tests.lab.host import Host
from tests.lab.machine import PROGRAM
from tests.lab.spec import HOSTS, HostSpec, Release
from vgicmgr.vfio.document import SCHEMA

pytestmark = pytest.mark.lab

LSVFIO = ["python3", "-m", "vgicmgr.cli", "lsvfio"]

PAIR, OTHER, NVME, IGB = "0000:01:00.0", "0000:01:00.1", "0000:00:09.0", "0000:00:0a.0"
DEVICES = (
    "pcie-root-port,id=rp,chassis=1,addr=8.0",
    "e1000e,romfile=,bus=rp,addr=0.0,multifunction=on",
    "e1000e,romfile=,bus=rp,addr=0.1",
    "nvme,serial=lone,addr=9.0",
)


def spec(release: Release) -> HostSpec:
    igb = ("igb,romfile=,addr=a.0",) if has_igb() else ()
    return HostSpec(kernel=release, smmuv3=True, devices=DEVICES + igb)


def has_igb() -> bool:
    return 'name "igb"' in command.call(PROGRAM, "-device", "help")


def devices() -> list[str]:
    return [PAIR, OTHER, NVME, *([IGB] if has_igb() else [])]


@pytest.fixture(scope="module", params=Release)
def host(request: pytest.FixtureRequest, lab_host: LabHost) -> Host:
    """With all the devices bound to vfio-pci; what a test changes it puts back."""
    release: Release = request.param
    return prepared(lab_host(spec(release)))


@pytest.fixture(scope="module")
def trixie(lab_host: LabHost) -> Host:
    return prepared(lab_host(spec(Release.TRIXIE)))


@pytest.fixture(scope="module")
def listed(host: Host) -> dict[str, Any]:
    """What lsvfio says of the host."""
    return document(host)


@pytest.fixture(scope="module")
def lspci(host: Host) -> dict[str, str]:
    """What ``lspci -vv`` says of each device."""
    shown = host.run(["lspci", "-D", "-vv"], check=True).stdout
    return {paragraph.split()[0]: paragraph for paragraph in shown.split("\n\n") if paragraph.strip()}


def prepared(host: Host) -> Host:
    host.run(["sh", "-c", "depmod -a 2>/dev/null; modprobe -a vfio-pci vfio_iommu_type1 e1000e"], check=True)
    bind(host, "vfio-pci", *devices())
    return host


def bind(host: Host, driver: str, *names: str) -> None:
    """Give the devices to this driver; to none where it is empty."""
    script = """
        driver=$1; shift
        cd /sys/bus/pci/devices
        for name; do
            [ "$(basename "$(readlink $name/driver)")" = "$driver" ] && continue
            echo "$driver" >$name/driver_override
            [ -e $name/driver ] && echo $name >$name/driver/unbind
            [ -z "$driver" ] || echo $name >/sys/bus/pci/drivers_probe
            [ "$(basename "$(readlink $name/driver)")" = "$driver" ] || exit 1
        done
    """
    host.run(["sh", "-c", script, "bind", driver, *names], check=True)


@contextmanager
def bound(host: Host, driver: str, *names: str) -> Iterator[None]:
    """The devices with another driver for a while."""
    bind(host, driver, *names)
    try:
        yield
    finally:
        bind(host, "vfio-pci", *names)


def document(host: Host, *names: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(host.run([*LSVFIO, "--format", "json", *names], check=True).stdout)
    return parsed


def device(listed: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [found for found in listed["devices"] if found["name"] == name]
    assert isinstance(found, dict)
    return found


def group(listed: dict[str, Any], name: str) -> dict[str, Any]:
    """The group that the device is in."""
    [found] = [found for found in listed["groups"] if name in found["members"]]
    assert isinstance(found, dict)
    return found


# Figures


def test_the_document_meets_the_schema(listed: dict[str, Any]) -> None:
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(listed)


def test_every_device_that_is_no_bridge_is_listed(host: Host, listed: dict[str, Any]) -> None:
    lines = host.run(["lspci", "-D", "-n"], check=True).stdout.splitlines()
    others = [line.split()[0] for line in lines if not line.split()[1].startswith("06")]
    assert [found["name"] for found in listed["devices"]] == others


@pytest.mark.parametrize("member", ["vendor", "device", "class"])
def test_ids_are_those_of_sysfs(host: Host, listed: dict[str, Any], member: str) -> None:
    files = [f"/sys/bus/pci/devices/{name}/{member}" for name in devices()]
    assert [device(listed, name)["pci"][member] for name in devices()] == host.run(["cat", *files]).stdout.split()


def test_group_members_and_driver_are_those_of_sysfs(host: Host, listed: dict[str, Any]) -> None:
    for name in devices():
        path = f"/sys/bus/pci/devices/{name}"
        links = host.run(["readlink", f"{path}/iommu_group", f"{path}/driver"], check=True).stdout.split()
        number, driver = (Path(link).name for link in links)
        assert (device(listed, name)["group"], device(listed, name)["driver"]) == (int(number), driver)
        members = host.run(["ls", f"{path}/iommu_group/devices"], check=True).stdout.split()
        assert (group(listed, name)["number"], group(listed, name)["members"]) == (int(number), members)
    assert {PAIR, OTHER} <= set(group(listed, PAIR)["members"])
    assert group(listed, NVME)["members"] == [NVME]


def test_regions_are_as_large_as_lspci_says(host: Host, listed: dict[str, Any], lspci: dict[str, str]) -> None:
    for name in devices():
        shown = re.findall(r"Region (\d): .*\[size=(\w+)\]", lspci[name])
        regions = {region["index"]: int(region["size"], 16) for region in device(listed, name)["info"]["regions"]}
        assert {index: size for index, size in regions.items() if size and index < 6} == {
            int(index): in_bytes(size) for index, size in shown
        }
        assert regions[7] == len(host.pull(f"/sys/bus/pci/devices/{name}/config"))


def in_bytes(size: str) -> int:
    return int(size.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(size[-1], 0)


def test_vectors_are_those_lspci_shows(listed: dict[str, Any], lspci: dict[str, str]) -> None:
    for name in devices():
        msi = re.search(r"MSI: Enable. Count=\d+/(\d+)", lspci[name])
        msix = re.search(r"MSI-X: Enable. Count=(\d+)", lspci[name])
        assert device(listed, name)["interrupts"] == {
            "lines": int("Interrupt: pin" in lspci[name]),
            "msi": int(msi[1]) if msi else 0,
            "msix": int(msix[1]) if msix else 0,
        }


def test_reset_is_what_sysfs_offers(host: Host, listed: dict[str, Any]) -> None:
    for name in devices():
        methods = host.run(["cat", f"/sys/bus/pci/devices/{name}/reset_method"], check=True).stdout.split()
        assert device(listed, name)["pci"]["reset_methods"] == methods
        assert device(listed, name)["info"]["reset"] is bool(methods)


def test_a_c_program_is_told_the_same(host: Host, listed: dict[str, Any], reader: Path) -> None:
    host.push("/tmp/reader", reader.read_bytes(), mode=0o755)
    for name in devices():
        found = device(listed, name)
        said = host.run(["/tmp/reader", f"/dev/vfio/{found['group']}", name], check=True).stdout.splitlines()
        info = found["info"]
        assert said == [
            f"device {int(info['reset'])} {int(info['kind'] == 'pci')}",
            *(
                f"region {region['index']} {flags(region['flags'], REGION_FLAGS)} {region['size']} {region['offset']}"
                for region in info["regions"]
            ),
            *(f"irq {irq['index']} {flags(irq['flags'], IRQ_FLAGS)} {irq['count']}" for irq in info["interrupts"]),
            "no migration" if not info["migration"] else "migration",
        ]


def test_before_they_are_bound_sysfs_says_the_same(host: Host, listed: dict[str, Any]) -> None:
    with bound(host, "", *devices()):
        before = document(host)
    for name in devices():
        assert (device(before, name)["vfio"], device(before, name)["info"]) == (None, None)
        for member in ("reset", "regions", "interrupts"):
            assert device(before, name)[member] == device(listed, name)[member]


def test_groups_and_iommufd_give_the_same_answers(host: Host) -> None:
    if host.run(["sh", "-c", "ls /dev/iommu /dev/vfio/devices"]).exit_code:
        pytest.skip("this kernel has no CONFIG_VFIO_DEVICE_CDEV")
    host.run(["python3", "-c", BOTH_WAYS, *devices()], check=True)


BOTH_WAYS = """
import sys
from vgicmgr.vfio import sysfs
from vgicmgr.vfio.container import Group
from vgicmgr.vfio.device import joined, open_by_cdev, open_by_group
for device in sysfs.read_devices():
    if device.name in sys.argv[1:]:
        with Group(f"/dev/vfio/{device.group}") as group, joined(group), open_by_group(group, device.name) as opened:
            by_group = opened.describe()
        with open_by_cdev(device.vfio) as opened:
            assert opened.describe() == by_group
"""


# Groups


def test_a_member_bound_to_a_driver_of_the_hosts_makes_the_group_not_viable_and_is_named(host: Host) -> None:
    with bound(host, "e1000e", OTHER):
        listed = document(host)
    shared = group(listed, PAIR)
    assert (shared["viable"], shared["asked"]) == (False, True)
    assert shared["in_the_way"] == [{"device": OTHER, "driver": "e1000e"}]
    assert device(listed, PAIR)["unread"] == f"group {shared['number']} is not viable"
    assert [found["name"] for found in listed["findings"]] == ["group-not-viable"]
    assert f"{OTHER} is bound to e1000e" in listed["findings"][0]["evidence"]


def test_a_member_without_a_driver_does_not(host: Host) -> None:
    with bound(host, "", OTHER):
        shared = group(document(host, PAIR), PAIR)
    assert (shared["viable"], shared["asked"], shared["in_the_way"]) == (True, True, [])


def test_a_group_that_a_process_has_open_is_in_use_and_left_alone(trixie: Host) -> None:
    number = group(document(trixie, NVME), NVME)["number"]
    with held_open(trixie, f"/dev/vfio/{number}") as pid:
        listed = document(trixie, NVME)
        assert group(listed, NVME)["in_use"] is True
        assert group(listed, NVME)["users"] == [{"pid": pid, "command": "sleep", "guest": None}]
        assert device(listed, NVME)["unread"] == f"in use by sleep ({pid})"
        refused = trixie.run(["python3", "-c", f"import vgicmgr.vfio.container as c; c.Group('/dev/vfio/{number}')"])
        assert f"VfioError: open /dev/vfio/{number}: EBUSY, in use: a group can be open only once" in refused.stderr
    assert group(document(trixie, NVME), NVME)["in_use"] is False


@contextmanager
def held_open(host: Host, path: str) -> Iterator[int]:
    """A process that has the file open."""
    started = host.run(["sh", "-c", f"sleep 300 <>{path} >/dev/null 2>&1 & echo $!"], check=True)
    pid = int(started.stdout)
    try:
        yield pid
    finally:
        host.run(["sh", "-c", f"kill {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.1; done"])


# A guest


GUEST_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
insmod /e1000e.ko
ifconfig "$(ls /sys/class/net | grep -v lo)" up
sleep 1
grep ITS /proc/interrupts
echo "guest: up"
while sleep 1; do :; done
"""
"""Brings the network card up, by which its driver asks for interrupts."""

HOSTDEV = """
    <hostdev mode='subsystem' type='pci' managed='no'>
      <driver name='vfio'/>
      <source><address domain='0' bus='1' slot='0' function='0'/></source>
    </hostdev>
    <memballoon"""


def test_a_device_in_a_guest_is_in_use_and_interrupts_through_its_its(trixie: Host) -> None:
    before = document(trixie, PAIR)
    version = trixie.run(["uname", "-r"], check=True).stdout.strip()
    initramfs = trixie.pull("/srv/guest/initramfs.cpio.gz")
    added = cpio.archive(
        [
            cpio.file("init", GUEST_INIT.encode(), 0o755),
            cpio.file("e1000e.ko", trixie.pull(f"/lib/modules/{version}/e1000e.ko")),
        ]
    )
    trixie.push("/run/initramfs", initramfs + bytes(-len(initramfs) % 4) + added)
    xml = guest.xml("assigned").replace("/srv/guest/initramfs.cpio.gz", "/run/initramfs")
    try:
        guest.start(trixie, xml.replace("\n    <memballoon", HOSTDEV), "assigned")
        console = guest.console(trixie, "assigned")
        vectors = re.findall(r"ITS-(?:PCI-)?MSIX?-0000:01:00.0 +(\d+) Edge +(eth0\S*)", console)
        assert vectors == [("0", "eth0-rx-0"), ("1", "eth0-tx-0"), ("2", "eth0")]

        listed = document(trixie, PAIR)
        assert group(listed, PAIR)["in_use"] is True
        assert [user["guest"] for user in group(listed, PAIR)["users"]] == ["assigned"]
        found = device(listed, PAIR)
        assert (found["info"], found["unread"]) == (None, "in use by guest assigned")
        for member in ("driver", "group", "reset", "regions", "interrupts", "migration"):
            assert found[member] == device(before, PAIR)[member]
        assert "in use by guest assigned" in trixie.run([*LSVFIO, PAIR]).stdout.splitlines()[1]

        shown = trixie.run(["lspci", "-vv", "-s", PAIR], check=True).stdout
        assert "MSI-X: Enable+" in shown  # the guest still has its interrupts
        assert trixie.run(["virsh", "domstate", "assigned"], check=True).stdout.strip() == "running"
    finally:
        trixie.run(["virsh", "destroy", "assigned"])
    assert document(trixie, PAIR) == before


# What cannot be read


def test_without_root_it_shows_what_sysfs_does_and_says_what_it_could_not_read(trixie: Host) -> None:
    number = group(document(trixie, NVME), NVME)["number"]
    result = trixie.run(["setpriv", "--reuid", "65534", "--clear-groups", *LSVFIO, NVME])
    assert (result.exit_code, result.stderr) == (0, "")
    heading, row, _, asked, *rest = result.stdout.splitlines()
    cells = dict(zip(re.split(r"  +", heading), re.split(r"  +", row), strict=True))
    assert cells == {
        "DEVICE": NVME,
        "GROUP": str(number),
        "VIABLE": "yes",
        "DRIVER": "vfio-pci",
        "RESET": "yes",
        "REGIONS": "2",
        "LINES": "1",
        "MSI": "?",
        "MSI-X": "?",
        "MIGRATION": "no",
        "STATE": "?",
        "OTHER MEMBERS": "-",
    }
    assert asked == f"{NVME} was not asked: open /dev/vfio/{number}: EACCES, this user may not open it; run as root"
    assert [line.partition(":")[0] for line in rest] == ["not read", "not read"]


def test_no_such_device(trixie: Host) -> None:
    result = trixie.run([*LSVFIO, "0000:1f:00.0"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("vgicmgr: there is no PCI, platform or AMBA device 0000:1f:00.0 in sysfs (")


def test_a_member_that_is_not_bound_cannot_be_had_from_its_group(trixie: Host) -> None:
    program = (
        "from vgicmgr.vfio.container import Group; from vgicmgr.vfio.device import *\n"
        f"with Group('/dev/vfio/{group(document(trixie, PAIR), PAIR)['number']}') as group, joined(group):\n"
        f"    open_by_group(group, '{OTHER}')"
    )
    with bound(trixie, "", OTHER):
        refused = trixie.run(["python3", "-c", program])
    assert f"VFIO_GROUP_GET_DEVICE_FD {OTHER}: ENODEV, no such device in this group that is bound" in refused.stderr


def test_a_host_without_vfio_and_iommu_says_so(lab_host: LabHost) -> None:
    plain = lab_host(HOSTS["trixie"])
    listed = document(plain)
    assert [found["name"] for found in listed["findings"]] == ["vfio-missing", "iommu-missing"]
    assert {found["group"] for found in listed["devices"]} == {None}
    refused = plain.run(["python3", "-c", "import vgicmgr.vfio.container as c; c.Container()"])
    assert "VfioUnavailable: /dev/vfio/vfio is not there: the kernel has no vfio, or its module" in refused.stderr


def test_no_descriptor_is_left_and_no_group_stays_open(trixie: Host) -> None:
    program = (
        "import os; from vgicmgr.vfio.probe import probe_inventory;"
        "before = os.listdir('/proc/self/fd');"
        "probe_inventory();"
        "assert os.listdir('/proc/self/fd') == before"
    )
    trixie.run(["python3", "-c", program], check=True)


# The C program

REGION_FLAGS = ("read", "write", "mmap")
IRQ_FLAGS = ("eventfd", "maskable", "automasked", "noresize")


def flags(words: list[str], order: tuple[str, ...]) -> int:
    """Flags as in the header, from the least significant on."""
    return sum(1 << place for place, word in enumerate(order) if word in words)


READER = r"""
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <linux/vfio.h>
int main(int argc, char **argv) {
    int container = open("/dev/vfio/vfio", O_RDWR), group = open(argv[1], O_RDWR);
    if (argc != 3 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &container)) return 1;
    if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)) return 2;
    int device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, argv[2]);
    if (device < 0) return 3;
    struct vfio_device_info info = { .argsz = sizeof(info) };
    if (ioctl(device, VFIO_DEVICE_GET_INFO, &info)) return 4;
    printf("device %d %d\n", !!(info.flags & VFIO_DEVICE_FLAGS_RESET), !!(info.flags & VFIO_DEVICE_FLAGS_PCI));
    for (unsigned i = 0; i < info.num_regions; i++) {
        struct vfio_region_info region = { .argsz = sizeof(region), .index = i };
        if (!ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region))
            printf("region %u %u 0x%llx 0x%llx\n", i, region.flags & 7, region.size, region.offset);
    }
    for (unsigned i = 0; i < info.num_irqs; i++) {
        struct vfio_irq_info irq = { .argsz = sizeof(irq), .index = i };
        if (!ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &irq))
            printf("irq %u %u %u\n", i, irq.flags, irq.count);
    }
    struct { struct vfio_device_feature head; struct vfio_device_feature_migration data; } feature = {
        { sizeof(feature), VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION }
    };
    puts(ioctl(device, VFIO_DEVICE_FEATURE, &feature) ? "no migration" : "migration");
    return 0;
}
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program for arm64 that prints what VFIO says of a device."""
    compiler = "cc" if debian.native_architecture() == "arm64" else "aarch64-linux-gnu-gcc"
    if not shutil.which(compiler):
        raise Prerequisite(f"no {compiler}: install gcc, or gcc-aarch64-linux-gnu and libc6-dev-arm64-cross")
    folder = tmp_path_factory.mktemp("reader")
    source, program = folder / "reader.c", folder / "reader"
    source.write_text(READER)
    subprocess.run([compiler, "-static", "-isystem", debian.headers(Release.SID), source, "-o", program], check=True)
    return program
