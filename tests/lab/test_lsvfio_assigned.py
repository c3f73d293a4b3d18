"""Domains with assigned devices: what vgicmgr says beforehand is what VFIO, QEMU and libvirt then do."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import kvm_trace
from tests.lab.conftest import LabHost
from tests.lab.connection import Result
from tests.lab.domains import Guest
from tests.lab.host import Host
from tests.lab.spec import HostSpec, Release
from tests.lab.vfio_host import DEVICES, NVME, OTHER, PAIR, bind, bound, held_open, prepared, spec
from vgicmgr.guest.plan import AddVFIOFile, Call, CreateDevice
from vgicmgr.kvm import vfio

VGICMGR = ["python3", "-m", "vgicmgr.cli"]
HOOK = ["python3", "-m", "vgicmgr.hook", "guest", "prepare", "begin", "-"]
QUIT = b'{"execute": "qmp_capabilities"}{"execute": "quit"}'
ALONE = "0000:00:0a.0"


def domain(*devices: str, teaming: str = "") -> str:
    """A domain that is given these devices."""
    elements = teaming and (
        "<interface type='user'><model type='virtio'/><teaming type='persistent'/><alias name='ua-pair'/>"
        "<rom enabled='no'/></interface>"
    )
    for device in devices:
        part = re.split("[:.]", device)
        address = "domain='0x{}' bus='0x{}' slot='0x{}' function='0x{}'".format(*part)
        elements += (
            "<hostdev mode='subsystem' type='pci' managed='no'><driver name='vfio'/>"
            f"<source><address {address}/></source>{teaming}</hostdev>"
        )
    return Guest(gic="<gic version='3'/>").xml().replace("<memballoon", f"{elements}<memballoon")


TRANSIENT = "<teaming type='transient' persistent='ua-pair'/>"


@pytest.fixture(scope="module")
def trixie(lab_host: LabHost) -> Host:
    host = prepared(lab_host(spec(Release.TRIXIE)))
    host.start_libvirtd()
    return host


@contextmanager
def paused(host: Host, xml: str) -> Iterator[None]:
    """The domain, started but not running."""
    host.push("/tmp/assigned.xml", xml)
    host.run(["virsh", "create", "--paused", "/tmp/assigned.xml"], timeout=120, check=True)
    try:
        yield
    finally:
        host.run(["virsh", "destroy", "guest"])


def prepare(host: Host, xml: str) -> Result:
    """The hook's decision on a start."""
    return host.run(HOOK, stdin=xml.encode())


def calls(host: Host, xml: str) -> list[str]:
    """The call plan in words, for this host."""
    return host.run(
        [*VGICMGR, "translate", "-", "--format", "calls"], stdin=xml.encode(), check=True
    ).stdout.splitlines()


def group_file(host: Host, device: str) -> str:
    link = host.run(["readlink", f"/sys/bus/pci/devices/{device}/iommu_group"], check=True).stdout.strip()
    return f"/dev/vfio/{link.rpartition('/')[2]}"


# The call plan


def test_the_plan_is_what_a_qemu_of_libvirts_calls(trixie: Host, tracer: bytes) -> None:
    """Three devices, of which two share a group."""
    xml = domain(NVME, PAIR, OTHER)
    planned = calls(trixie, xml)
    made = kvm_trace.bring_up(kvm_trace.of_libvirts_qemu(trixie, tracer, xml))
    assert list(map(str, made)) == planned
    assert added(made) == [group_file(trixie, NVME), group_file(trixie, PAIR)]


def added(made: tuple[Call, ...]) -> list[str]:
    return [call.file for call in made if isinstance(call, AddVFIOFile)]


@pytest.mark.parametrize("release", [Release.SID])
def test_the_plan_is_what_other_qemus_call(release: Release, lab_host: LabHost, tracer: bytes) -> None:
    host = prepared(lab_host(HostSpec(release, smmuv3=True, devices=DEVICES)))
    host.push("/root/kvm_trace.so", tracer, mode=0o755)
    planned = calls(host, domain(PAIR))
    environment = {"LD_PRELOAD": "/root/kvm_trace.so", "KVM_TRACE": "/tmp/qemu.trace"}
    qemu = ["qemu-system-aarch64", *QEMU, "-M", "virt,gic-version=3", "-device", f"vfio-pci,host={PAIR}"]
    host.run(qemu, stdin=QUIT, env=environment, timeout=120, check=True)
    made = kvm_trace.bring_up(host.pull("/tmp/qemu.trace").decode())
    assert list(map(str, made)) == planned
    assert added(made) == [group_file(host, PAIR)]


QEMU = ["-accel", "kvm", "-cpu", "host", "-m", "128", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"]


def test_a_device_that_is_plugged_later_is_in_no_plan(trixie: Host, tracer: bytes) -> None:
    xml = domain(PAIR, teaming=TRANSIENT)
    made = kvm_trace.bring_up(kvm_trace.of_libvirts_qemu(trixie, tracer, xml))
    assert CreateDevice(vfio.DEVICE_TYPE) not in made
    assert list(map(str, made)) == calls(trixie, xml)


def test_a_rehearsal_makes_kvms_vfio_device_and_opens_no_group(trixie: Host) -> None:
    group = group_file(trixie, PAIR)
    with held_open(trixie, group):  # which it could not, then
        shown = trixie.run([*VGICMGR, "rehearse", "-"], stdin=domain(PAIR).encode(), check=True).stdout
    assert "ok       KVM_CREATE_DEVICE KVM_DEV_TYPE_VFIO\n" in shown
    assert "KVM_DEV_VFIO_FILE_ADD" not in shown


# Start


def test_vectors_are_those_that_lspci_shows(trixie: Host) -> None:
    text = trixie.run([*VGICMGR, "translate", "-"], stdin=domain(PAIR, NVME).encode(), check=True).stdout
    for device in (PAIR, NVME):
        table = re.search(r"MSI-X: Enable. Count=(\d+)", trixie.run(["lspci", "-vv", "-s", device]).stdout)
        assert table
        group = group_file(trixie, device).rpartition("/")[2]
        assert re.search(rf"assigned device {device} +{table[1]} MSI vectors, IOMMU group {group} ", text)


def test_devices_that_the_host_gives_pass_the_hook(trixie: Host) -> None:
    hook = prepare(trixie, domain(PAIR, OTHER, NVME))
    assert (hook.exit_code, hook.stderr) == (0, "")
    assert trixie.run([*VGICMGR, "lsvfio", PAIR]).stdout.count("free") == 1


def test_a_group_that_is_not_viable_is_refused_and_qemu_refuses_it(trixie: Host) -> None:
    with bound(trixie, "e1000e", OTHER):
        hook = prepare(trixie, domain(PAIR))
        qemu = ["qemu-system-aarch64", *QEMU, "-M", "virt", "-device", f"vfio-pci,host={PAIR}"]
        real = trixie.run(qemu, stdin=QUIT)
    assert (hook.exit_code, real.exit_code) == (1, 1)
    assert "is not viable" in real.stderr
    assert f"{OTHER} is bound to e1000e [group-not-viable]" in hook.stderr


@pytest.mark.parametrize(("option", "its"), [("its=on", True), ("its=off", False)])
def test_without_an_its_there_is_no_msi_x(trixie: Host, option: str, its: bool) -> None:
    """On the root complex: QEMU makes no root port then (msi-needed)."""
    qemu = ["qemu-system-aarch64", *QEMU, "-M", f"virt,gic-version=3,{option}", "-device", f"vfio-pci,host={NVME}"]
    real = trixie.run(qemu, stdin=QUIT, check=True)
    assert ("MSI-X is not supported by interrupt controller" in real.stderr) == (not its)
    wish = f"<metadata><i:interrupts xmlns:i='{WISHES}'><i:its state='{option[4:]}'/></i:interrupts></metadata>"
    xml = domain(NVME).replace("</name>", f"</name>{wish}")
    said = json.loads(trixie.run([*VGICMGR, "translate", "-", "--format", "json"], stdin=xml.encode()).stdout)
    assert [finding["name"] for finding in said["findings"]] == ([] if its else ["msi-none"])


WISHES = "urn:vgicmgr:domain:1"


def test_msis_that_the_host_cannot_isolate(lab_host: LabHost) -> None:
    """No ITS, no isolation: VFIO refuses the group until unsafe interrupts are allowed."""
    host = lab_host(HostSpec(smmuv3=True, its=False, devices=("e1000e,romfile=,addr=a.0",)))
    host.run(["sh", "-c", "depmod -a 2>/dev/null; modprobe -a vfio-pci vfio_iommu_type1 e1000e"], check=True)
    bind(host, "vfio-pci", ALONE)
    allow = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
    qemu = ["qemu-system-aarch64", *QEMU, "-M", "virt,gic-version=3", "-device", f"vfio-pci,host={ALONE}"]
    for setting, refused in (("N", True), ("Y", False)):
        host.run(["sh", "-c", f"echo {setting} >{allow}"], check=True)
        hook = prepare(host, domain(ALONE))
        real = host.run(qemu, stdin=QUIT)
        assert (hook.exit_code, real.exit_code) == ((1, 1) if refused else (0, 0)), hook.stderr + real.stderr
        assert ("[msi-not-isolated]" in hook.stderr) == refused
        assert ("Operation not permitted" in real.stderr) == refused
    shown = host.run([*VGICMGR, "translate", "-"], stdin=domain(ALONE).encode(), check=True).stdout
    assert "[unsafe-interrupts]" in shown


# Migration


@pytest.fixture(scope="module")
def itself(trixie: Host) -> str:
    """The host's document: a guest that could go, could come back."""
    document = trixie.run([*VGICMGR, "check-host", "--format", "json"]).stdout
    trixie.push("/tmp/itself.json", document)
    return "/tmp/itself.json"


def check_migration(host: Host, document: str) -> Result:
    host.run([*VGICMGR, "record", "write", "guest"], check=True)
    return host.run([*VGICMGR, "check-migration", "guest", "--to", document])


def test_devices_that_cannot_migrate_are_named_as_libvirt_names_them(trixie: Host, itself: str) -> None:
    """libvirt asks QEMU for its blockers at the source, before the destination hears of the guest."""
    with paused(trixie, domain(PAIR, NVME)):
        said = check_migration(trixie, itself)
        saved = trixie.run(["virsh", "save", "guest", "/tmp/saved"], timeout=120)
        moved = trixie.run(["virsh", "migrate", "--live", "guest", "qemu+tcp://127.0.0.1/system"], timeout=120)
        xml = trixie.run(["virsh", "dumpxml", "--migratable", "guest"], check=True).stdout
        hook = trixie.run(["python3", "-m", "vgicmgr.hook", "guest", "migrate", "begin", "-"], stdin=xml.encode())
    assert (said.exit_code, saved.exit_code, moved.exit_code, hook.exit_code) == (1, 1, 1, 1)
    for refusal in (saved.stderr, moved.stderr):
        blocked = re.findall(r"(\S+): VFIO migration is not supported in kernel", refusal)
        assert blocked == re.findall(r"assigned device (\S+) cannot migrate", said.stdout) == [PAIR, NVME]
    assert re.findall(r"assigned device (\S+) cannot migrate", hook.stderr) == [PAIR, NVME]


def test_a_device_that_is_unplugged_before_does_not_keep_the_guest(trixie: Host, itself: str) -> None:
    with paused(trixie, domain(PAIR, teaming=TRANSIENT)):
        said = check_migration(trixie, itself)
        saved = trixie.run(["virsh", "save", "guest", "/tmp/saved"], timeout=120)
    assert (said.exit_code, saved.exit_code) == (0, 0), said.stdout + saved.stderr
