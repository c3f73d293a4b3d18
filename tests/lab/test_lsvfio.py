"""lsvfio tells the truth: each figure is held against sysfs, lspci, and a C program with the kernel's own headers.

The hosts are those of ``vfio_host.py``, with each kernel, and with an igb and its virtual functions.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.lab import cpio, debian, guest
from tests.lab.conftest import LabHost
from tests.lab.errors import Prerequisite
from tests.lab.host import Host
from tests.lab.spec import HOSTS, HostSpec, Release
from tests.lab.vfio_host import IGB, NVME, OTHER, PAIR, bind, bound, devices, held_open, prepared, spec, with_igb
from vgicmgr.vfio.document import SCHEMA

pytestmark = pytest.mark.lab

LSVFIO = ["python3", "-m", "vgicmgr.cli", "lsvfio"]


HOST_SPECS: dict[str, HostSpec] = {"igb": with_igb()}
HOST_SPECS.update((release, spec(release)) for release in Release)
with_pair = pytest.mark.parametrize("host", Release, indirect=True)


@pytest.fixture(scope="module", params=HOST_SPECS)
def host(request: pytest.FixtureRequest, lab_host: LabHost) -> Host:
    """With all the devices bound to vfio-pci; what a test changes it puts back."""
    return prepared(lab_host(HOST_SPECS[request.param]))


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
    files = [f"/sys/bus/pci/devices/{name}/{member}" for name in devices(host)]
    assert [device(listed, name)["pci"][member] for name in devices(host)] == host.run(["cat", *files]).stdout.split()


def test_group_members_and_driver_are_those_of_sysfs(host: Host, listed: dict[str, Any]) -> None:
    for name in devices(host):
        path = f"/sys/bus/pci/devices/{name}"
        links = host.run(["readlink", f"{path}/iommu_group", f"{path}/driver"], check=True).stdout.split()
        number, driver = (Path(link).name for link in links)
        assert (device(listed, name)["group"], device(listed, name)["driver"]) == (int(number), driver)
        members = host.run(["ls", f"{path}/iommu_group/devices"], check=True).stdout.split()
        assert (group(listed, name)["number"], group(listed, name)["members"]) == (int(number), members)


@with_pair
def test_two_functions_share_a_group_and_another_device_has_its_own(host: Host, listed: dict[str, Any]) -> None:
    assert {PAIR, OTHER} <= set(group(listed, PAIR)["members"])
    assert group(listed, NVME)["members"] == [NVME]


def test_regions_are_as_large_as_lspci_says(host: Host, listed: dict[str, Any], lspci: dict[str, str]) -> None:
    for name in devices(host):
        shown = re.findall(r"Region (\d): .*\[size=(\w+)\]", lspci[name])
        regions = {region["index"]: int(region["size"], 16) for region in device(listed, name)["info"]["regions"]}
        assert {index: size for index, size in regions.items() if size and index < 6} == {
            int(index): in_bytes(size) for index, size in shown
        }
        assert regions[7] == len(host.pull(f"/sys/bus/pci/devices/{name}/config"))


def in_bytes(size: str) -> int:
    return int(size.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(size[-1], 0)


def test_vectors_are_those_lspci_shows(host: Host, listed: dict[str, Any], lspci: dict[str, str]) -> None:
    for name in devices(host):
        msi = re.search(r"MSI: Enable. Count=\d+/(\d+)", lspci[name])
        msix = re.search(r"MSI-X: Enable. Count=(\d+)", lspci[name])
        assert device(listed, name)["interrupts"] == {
            "lines": int("Interrupt: pin" in lspci[name]),
            "msi": int(msi[1]) if msi else 0,
            "msix": int(msix[1]) if msix else 0,
        }


def test_reset_is_what_sysfs_offers(host: Host, listed: dict[str, Any]) -> None:
    for name in devices(host):
        methods = host.run(["cat", f"/sys/bus/pci/devices/{name}/reset_method"], check=True).stdout.split()
        assert device(listed, name)["pci"]["reset_methods"] == methods
        assert device(listed, name)["info"]["reset"] is bool(methods)


def test_a_c_program_is_told_the_same(host: Host, listed: dict[str, Any], reader: Path) -> None:
    host.push("/tmp/reader", reader.read_bytes(), mode=0o755)
    for name in devices(host):
        found = device(listed, name)
        said = host.run(["/tmp/reader", f"/dev/vfio/{found['group']}", name], check=True).stdout.splitlines()
        info = found["info"]
        assert said == [
            f"device {int(info['reset'])} {int(info['kind'] == 'pci')}",
            *(line for region in info["regions"] for line in region_lines(region)),
            *(f"irq {irq['index']} {flags(irq['flags'], IRQ_FLAGS)} {irq['count']}" for irq in info["interrupts"]),
            "no migration" if not info["migration"] else "migration",
        ]


def test_some_region_has_a_capability(host: Host, listed: dict[str, Any]) -> None:
    """The MSI-X table's BAR; the kernel shares pages of other BARs in parts for devices that this QEMU has not."""
    mappable = {
        name: any(region["msix_mappable"] for region in device(listed, name)["info"]["regions"])
        for name in devices(host)
    }
    assert mappable == dict.fromkeys(devices(host), True)


def region_lines(region: dict[str, Any]) -> Iterator[str]:
    """As the C program prints a region and the capabilities behind it, in the order of their ids."""
    yield f"region {region['index']} {flags(region['flags'], REGION_FLAGS)} {region['size']} {region['offset']}"
    if region["sparse_mmap"] is not None:
        areas = "".join(f" {area['offset']}+{area['size']}" for area in region["sparse_mmap"])
        yield f"capability 1{areas}"
    if region["type"]:
        yield "capability 2"
    if region["msix_mappable"]:
        yield "capability 3"


def test_before_they_are_bound_sysfs_says_the_same(host: Host, listed: dict[str, Any]) -> None:
    with bound(host, "", *devices(host)):
        before = document(host)
    for name in devices(host):
        assert (device(before, name)["vfio"], device(before, name)["info"]) == (None, None)
        for member in ("reset", "regions", "interrupts"):
            assert device(before, name)[member] == device(listed, name)[member]


def test_groups_and_iommufd_give_the_same_answers(host: Host) -> None:
    if host.run(["sh", "-c", "ls /dev/iommu /dev/vfio/devices"]).exit_code:
        pytest.skip("this kernel has no CONFIG_VFIO_DEVICE_CDEV")
    host.run(["python3", "-c", BOTH_WAYS, *devices(host)], check=True)


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


@with_pair
def test_a_member_bound_to_a_driver_of_the_hosts_makes_the_group_not_viable_and_is_named(host: Host) -> None:
    with bound(host, "e1000e", OTHER):
        listed = document(host)
    shared = group(listed, PAIR)
    assert (shared["viable"], shared["asked"]) == (False, True)
    assert shared["in_the_way"] == [{"device": OTHER, "driver": "e1000e"}]
    assert device(listed, PAIR)["unread"] == f"group {shared['number']} is not viable"
    assert [found["name"] for found in listed["findings"]] == ["group-not-viable"]
    assert f"{OTHER} is bound to e1000e" in listed["findings"][0]["evidence"]


@with_pair
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


# Virtual functions


@pytest.mark.parametrize("host", ["igb"], indirect=True)
def test_a_virtual_function_has_vectors_and_no_line(host: Host) -> None:
    """And so no interrupt at all in a guest without an MSI controller."""
    bind(host, "igb", IGB)
    host.run(["sh", "-c", f"echo 1 >/sys/bus/pci/devices/{IGB}/sriov_numvfs"], check=True)
    try:
        link = host.run(["readlink", f"/sys/bus/pci/devices/{IGB}/virtfn0"], check=True).stdout.strip()
        function = Path(link).name
        bind(host, "vfio-pci", function)
        shown = host.run(["lspci", "-vv", "-s", function], check=True).stdout
        table = re.search(r"MSI-X: Enable. Count=(\d+)", shown)
        assert table
        assert "Interrupt: pin" not in shown
        assert device(document(host, function), function)["interrupts"] == {"lines": 0, "msi": 0, "msix": int(table[1])}
        program = f"import vgicmgr.vfio.assigned as a; print(a.read_assigned(['{function}']).devices[0].intx)"
        assert host.run(["python3", "-c", program], check=True).stdout == "False\n"
    finally:
        host.run(["sh", "-c", f"echo 0 >/sys/bus/pci/devices/{IGB}/sriov_numvfs"], check=True)
        bind(host, "vfio-pci", IGB)


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
        union { struct vfio_region_info region; char room[4096]; } answer = { .region = { sizeof(answer), 0, i } };
        struct vfio_region_info *region = &answer.region;
        if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, region)) continue;
        printf("region %u %u 0x%llx 0x%llx\n", i, region->flags & 7, region->size, region->offset);
        unsigned at = region->flags & VFIO_REGION_INFO_FLAG_CAPS ? region->cap_offset : 0;
        while (at) {
            struct vfio_region_info_cap_sparse_mmap *sparse = (void *)(answer.room + at);
            printf("capability %u", sparse->header.id);
            for (unsigned n = 0; sparse->header.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP && n < sparse->nr_areas; n++)
                printf(" 0x%llx+0x%llx", sparse->areas[n].offset, sparse->areas[n].size);
            puts("");
            at = sparse->header.next;
        }
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
