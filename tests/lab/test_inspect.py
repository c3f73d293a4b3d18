"""``inspect`` and real QEMUs: 7.2, 10.0 and the newest under TCG on this machine, and KVM guests in lab hosts.

What it says of a machine is held against what the machine was started with, and against what the guest itself sees.
"""

import asyncio
import gzip
import json
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.lab import cpio, guest
from tests.lab.conftest import LabHost
from tests.lab.domains import INITRD, Guest
from tests.lab.errors import Prerequisite
from tests.lab.host import Host
from tests.lab.qemus import Qemu, qemu
from tests.lab.qmp import push_library
from tests.lab.spec import HOSTS, Release
from tests.lab.test_device_tree import Case
from vgicmgr.cli import main
from vgicmgr.guest.inspection import Inspection, inspect_machine
from vgicmgr.guest.inspectiondocument import SCHEMA
from vgicmgr.qemu.qmp import MonitorLost, MonitorSilent, socket_monitor
from vgicmgr.qemu.running import ask_socket

CASES = (
    Case("virt", 1),
    Case("virt", 8, pmu="off"),
    Case("virt", 8, gic="2"),
    Case("virt", 1, gic="2", pmu="off"),
    Case("virt", 8, msi="its=off", cpu="neoverse-n1"),
    Case("virt", 123, highmem="highmem=off"),
    Case("virt", 130, growth=2 << 30),
    Case("virt", 2, gic="4", cpu="max"),
    Case("virt-6.2", 2, iommu="smmuv3"),
)


@contextmanager
def running(this: Qemu, arguments: Sequence[str], *more: str) -> "Iterator[tuple[str, subprocess.Popen[bytes]]]":
    """A paused machine: its QMP socket, and the process."""
    ours, its = socket.socketpair()
    with tempfile_folder() as folder, ours, its:
        path = folder / "qmp"
        process = subprocess.Popen(
            [
                *(*this.command, *arguments, "-S", "-nodefaults", "-display", "none"),
                *("-chardev", f"socket,id=ready,fd={its.fileno()}", "-mon", "chardev=ready,mode=control"),
                *("-qmp", f"unix:{path},server=on,wait=off", *more),
            ],
            env={**os.environ, **dict(this.environment)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(its.fileno(),),
        )
        its.close()
        assert process.stderr
        try:
            # QEMU 7.2 can hang when a client comes to its socket before it answers commands
            ours.settimeout(60)
            ours.sendall(b'{"execute": "qmp_capabilities"}')
            replies = b""
            while b'"return"' not in replies:
                some = ours.recv(1 << 16)
                assert some, process.stderr.read()
                replies += some
            yield str(path), process
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
        assert {file.name for file in folder.iterdir()} <= {"qmp"}


@contextmanager
def tempfile_folder() -> Iterator[Path]:
    # a short path: sockets allow 107 characters
    with tempfile.TemporaryDirectory(prefix="inspect-", dir="/tmp") as folder:
        yield Path(folder)


def differing(inspection: Inspection) -> dict[str, tuple[str | None, str | None, str | None]]:
    return {row.subject: (row.expected, row.running, row.device_tree) for row in inspection.rows if row.differs}


@pytest.fixture(scope="module", params=Release)
def this(request: pytest.FixtureRequest) -> Qemu:
    try:
        return qemu(request.param)
    except Prerequisite as lacking:
        pytest.skip(str(lacking))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_machine_is_as_it_was_started(this: Qemu, case: Case) -> None:
    with running(this, case.arguments()) as (path, _):
        machine = ask_socket(path)
    assert machine.no_device_tree == ""
    assert (machine.accelerator, machine.gic_in_kernel, machine.status) == ("tcg", False, "prelaunch")
    assert machine.version == this.version
    assert len(machine.vcpus) == case.vcpus
    assert str(machine.gic_version) == case.gic
    assert machine.pmu_intid == (None if case.pmu == "off" else 23)
    assert (machine.its is not None) == (case.gic != "2" and case.msi != "its=off")
    assert machine.memory == case.memory
    for found in (inspect_machine(machine, case.xml()), inspect_machine(machine)):
        assert found.resolution.findings == ()
        assert differing(found) == {}
        assert found.same


GICV3 = Case("virt", 4)
DIFFERENT: tuple[tuple[Case, dict[str, tuple[str, str, str | None]]], ...] = (
    (Case("virt", 4, msi="its=off"), {"MSI controller": ("an ITS", "none", "none"), "ITS": ("0x8080000", "no", "no")}),
    (Case("virt", 4, pmu="off"), {"PMU interrupt": ("INTID 23", "no PMU", "no PMU")}),
    (Case("virt", 5), {"vCPUs": ("4", "5", "5"), "vCPUs at most": ("4", "5", None), "vCPUs of each": ("4", "5", None)}),
    (Case("virt", 4, cpu="cortex-a53"), {"CPU": ("cortex-a57", "cortex-a53", None)}),
    (Case("virt", 4, memory=2 << 30), {}),
    (
        Case("virt", 4, gic="2"),
        {
            "GIC version": ("3", "2", "2"),
            "MSI controller": ("an ITS", "a GICv2m", "a GICv2m"),
            "CPU interface": ("no", "0x8010000", "0x8010000"),
            "redistributors": ("0x80a0000", "no", "no"),
            "vCPUs of each": ("4", "no", None),
            "ITS": ("0x8080000", "no", "no"),
            "GICv2m": ("no", "0x8020000", "0x8020000"),
        },
    ),
)


@pytest.mark.parametrize(("other", "rows"), DIFFERENT, ids=lambda value: str(value)[:60])
def test_a_machine_that_was_started_otherwise_differs_in_just_that(other: Case, rows: dict[str, Any]) -> None:
    with running(qemu(Release.TRIXIE), other.arguments()) as (path, _):
        found = inspect_machine(ask_socket(path), GICV3.xml())
    assert differing(found) == rows
    assert found.same is not bool(rows)


def test_the_command_line(this: Qemu, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same, other = tmp_path / "same.xml", tmp_path / "other.xml"
    same.write_bytes(GICV3.xml())
    other.write_bytes(Case("virt", 4, pmu="off").xml())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    tcp = f"127.0.0.1:{port}"
    with running(this, GICV3.arguments(), "-qmp", f"tcp:{tcp},server=on,wait=off") as (path, _):
        assert main(["inspect", "--qmp", path, str(same)]) == 0
        assert capsys.readouterr().out.endswith("QEMU has what the domain XML comes to.\n")
        assert main(["inspect", "--qmp", path, str(other)]) == 1
        assert re.search(r"^\* PMU interrupt +no PMU +INTID 23 +INTID 23$", capsys.readouterr().out, re.MULTILINE)
        assert main(["inspect", "--qmp", path, "-q", str(other)]) == 1
        assert main(["inspect", "--qmp", path]) == 0
        assert "no domain XML was given" in capsys.readouterr().out
        documents = []
        for address in (path, tcp):
            assert main(["inspect", "--qmp", address, "--format", "json", str(same)]) == 0
            documents.append(json.loads(capsys.readouterr().out))
            Draft202012Validator(json.loads(SCHEMA.read_text())).validate(documents[-1])
    by_path, by_tcp = documents
    assert by_path["running"] == by_tcp["running"]
    assert (by_path["device_tree"]["vcpus"], by_tcp["device_tree"]) == (4, None)
    assert main(["inspect", "--qmp", path, str(same)]) == 2
    assert "there is no such socket" in capsys.readouterr().err


def test_a_qemu_that_hangs_and_one_that_is_killed(this: Qemu) -> None:
    async def ask(path: str, process: "subprocess.Popen[bytes]") -> None:
        async with socket_monitor(path, seconds=1) as monitor:
            assert (await monitor.execute("query-status"))["status"] == "prelaunch"
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(MonitorSilent, match="no reply to query-kvm within 1 s"):
                await monitor.execute("query-kvm")
            process.kill()
            with pytest.raises(MonitorLost, match="QEMU ended"):
                await monitor.execute("query-kvm")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with running(this, GICV3.arguments()) as (path, process):
        asyncio.run(ask(path, process))


def test_a_monitor_that_another_client_holds(capsys: pytest.CaptureFixture[str]) -> None:
    async def ask(path: str) -> None:
        async with socket_monitor(path):
            with pytest.raises(MonitorSilent, match=r"no QMP greeting within 1 s.*another client may hold"):
                async with socket_monitor(path, seconds=1):
                    pass
        async with socket_monitor(path) as monitor:
            assert (await monitor.execute("query-status"))["running"] is False

    with running(qemu(Release.TRIXIE), GICV3.arguments()) as (path, _):
        asyncio.run(ask(path))


def test_a_machine_that_is_no_virt(capsys: pytest.CaptureFixture[str]) -> None:
    with running(qemu(Release.TRIXIE), ["-machine", "none"]) as (path, _):
        assert main(["inspect", "--qmp", path]) == 2
    assert "runs no 'virt' machine" in capsys.readouterr().err


# --- KVM, in lab hosts

BARE = """\
set -e
rm -f /run/bare.qmp /run/bare.pid
qemu-system-aarch64 -accel kvm "$@" -S -nodefaults -display none -daemonize -pidfile /run/bare.pid \\
    -qmp unix:/run/bare.qmp,server=on,wait=off
status=0
python3 -m vgicmgr.cli inspect --qmp /run/bare.qmp --format json /run/bare.xml || status=$?
kill "$(cat /run/bare.pid)"
while [ -e /run/bare.pid ]; do sleep 0.1; done
exit $status
"""
"""Starts a paused KVM guest without libvirt, asks and ends it; the domain XML is in the host."""


def inspect_bare(host: Host, case: Case) -> dict[str, Any]:
    xml = case.xml().replace(b"type='qemu'", b"type='kvm'", 1).replace(b"<model>cortex-a57</model>", b"")
    host.push("/run/bare.xml", xml.replace(b"<cpu mode='custom'></cpu>", b"<cpu mode='host-passthrough'/>"))
    arguments = [word.replace("cortex-a57", "host") for word in case.arguments()]
    told = host.run(["sh", "-c", BARE, "sh", *arguments], timeout=120)
    assert told.exit_code in (0, 1), told
    document: dict[str, Any] = json.loads(told.stdout)
    assert document["same"] is (told.exit_code == 0)
    return document


def differing_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in document["rows"] if row["differs"]]


SMALL = 128 << 20
HOST_CASES = {
    "gicv2": (Case("virt", 2, gic="2", memory=SMALL), (2, "gicv2m", 23)),
    "no-pmu": (Case("virt", 2, memory=SMALL), (3, "its", None)),
}


@pytest.mark.parametrize("kind", HOST_CASES)
def test_what_a_host_gives_is_what_its_qemu_has(lab_host: LabHost, kind: str) -> None:
    """A host whose GIC is a GICv2, and one without PMU, by QEMU alone."""
    host = lab_host(HOSTS[kind])
    push_library(host)
    case, (gic, msi, pmu) = HOST_CASES[kind]
    document = inspect_bare(host, case)
    assert differing_rows(document) == []
    machine = document["running"]
    assert (machine["accelerator"], machine["gic_version"], machine["gic_in_kernel"]) == ("kvm", gic, True)
    assert machine[msi] is not None
    assert [vcpu["pmu_intid"] for vcpu in machine["vcpus"]] == [pmu, pmu]
    assert document["device_tree"]["pmu_intid"] == pmu


LOOK = """\
#!/bin/busybox sh
# A guest's only process: says what it sees of its interrupt controller.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
sed 's/^/interrupts: /' /proc/interrupts
cd /sys/firmware/devicetree/base
for file in $(find intc* pmu cpus -type f 2>/dev/null); do
    echo "tree: $file $(hexdump -v -e '/1 "%02x"' "$file")"
done
echo "guest: up"
while sleep 60; do :; done
"""
LOOKING = "/run/looking.cpio.gz"


def looks(host: Host) -> Guest:
    """A guest with the PMU, an ITS and two vCPUs that says what it sees."""
    # compressed, since the kernel wants a plain archive at a multiple of four bytes
    host.push("/run/look.cpio.gz", gzip.compress(cpio.archive([cpio.file("init", LOOK.encode(), 0o755)])))
    host.run(["sh", "-c", f"cat {INITRD} /run/look.cpio.gz >{LOOKING}"], check=True)
    return Guest(name="looking", gic="<gic version='3'/>", vcpus=2)


def told_by_libvirt(host: Host, name: str, *options: str) -> tuple[int, dict[str, Any]]:
    told = host.run(["python3", "-m", "vgicmgr.cli", "inspect", "--format", "json", *options, name], timeout=180)
    assert told.exit_code in (0, 1), told
    assert re.fullmatch(r"vgicmgr: .* marks domain .*\n", told.stderr), told
    # a guest is none the worse for being asked
    assert host.run(["virsh", "domstate", name], check=True).stdout.strip() in ("running", "paused")
    document: dict[str, Any] = json.loads(told.stdout)
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
    return told.exit_code, document


@contextmanager
def domain(host: Host, xml: str, name: str, *options: str) -> Iterator[None]:
    host.push(f"/run/{name}.xml", xml)
    host.run(["virsh", "create", *options, f"/run/{name}.xml"], timeout=180, check=True)
    try:
        yield
    finally:
        host.run(["virsh", "destroy", name])


def wait_for(host: Host, path: str, words: str) -> str:
    deadline = time.monotonic() + guest.BOOT_SECONDS
    while words not in (text := host.run(["cat", path]).stdout):
        assert time.monotonic() < deadline, text
        time.sleep(0.5)
    return text.replace("\r", "")


@pytest.mark.parametrize("kind", ["bookworm", "trixie", "sid"])
def test_a_guest_of_libvirts_is_as_it_sees_itself(lab_host: LabHost, kind: str) -> None:
    host = lab_host(HOSTS[kind])
    push_library(host)
    host.start_libvirtd()
    xml = looks(host).xml().replace(INITRD, LOOKING)
    with domain(host, xml, "looking"):
        seen = wait_for(host, "/tmp/looking.console", "guest: up")
        status, document = told_by_libvirt(host, "looking")
        tainted = host.run(["virsh", "dominfo", "looking"], check=True).stdout
    assert (status, differing_rows(document)) == (0, [])
    assert document["no_device_tree"] == ""
    assert (document["domain"], document["running"]["accelerator"]) == ("looking", "kvm")
    machine = document["running"]
    [redistributors] = machine["redistributors"]
    # the kernel's own log, at the beginning of the boot
    assert f"CPU0: found redistributor 0 region 0:{int(redistributors['base'], 16):#018x}" in seen
    base = int(machine["its"]["base"], 16)
    assert f"ITS [mem {base:#010x}-{base + int(machine['its']['size'], 16) - 1:#010x}]" in seen
    seen_in_user_space(machine, seen)
    if kind != "bookworm":  # whose libvirt does not tell
        assert "custom monitor" in tainted


def seen_in_user_space(machine: dict[str, Any], seen: str) -> None:
    """The guest's /proc/interrupts and device tree."""
    tree = {name: bytes.fromhex(data) for name, data in re.findall(r"^tree: (\S+) (\S*)$", seen, re.MULTILINE)}
    [gic] = {name.split("/")[0] for name in tree if name.startswith("intc")}
    assert b"arm,gic-v3" in tree[f"{gic}/compatible"]
    distributor, _, redistributors = struct.unpack_from(">3Q", tree[f"{gic}/reg"])
    assert hex(distributor) == machine["distributor"]["base"]
    assert hex(redistributors) == machine["redistributors"][0]["base"]
    [its] = [data for name, data in tree.items() if re.fullmatch(r"intc[^/]*/(msi-controller|its)@[^/]*/reg", name)]
    assert list(map(hex, struct.unpack(">2Q", its))) == [machine["its"]["base"], machine["its"]["size"]]
    kind, number, _ = struct.unpack_from(">3I", tree["pmu/interrupts"])
    assert (kind, 16 + number) == (1, machine["vcpus"][0]["pmu_intid"])
    assert sum(name.startswith("cpus/cpu@") and name.endswith("/reg") for name in tree) == len(machine["vcpus"])
    [pmu] = re.findall(r"^interrupts: .*GICv3\s+(\d+)\s+Level\s+arm-pmu$", seen, re.MULTILINE)
    assert int(pmu) == machine["vcpus"][1]["pmu_intid"]
    assert f"CPU{len(machine['vcpus']) - 1}" in seen


WRAPPER = """\
#!/bin/sh
# libvirt asks a QEMU what it can without a name; a guest gets another argument than libvirt gave
case " $* " in
*" -name "*) exec qemu-system-aarch64 "$@" -machine its=off ;;
esac
exec qemu-system-aarch64 "$@"
"""


def test_a_guest_started_otherwise_behind_libvirts_back_is_found_different(lab_host: LabHost) -> None:
    host = lab_host(HOSTS["trixie"])
    push_library(host)
    host.start_libvirtd()
    host.push("/usr/local/bin/qemu-otherwise", WRAPPER)
    host.run(["chmod", "755", "/usr/local/bin/qemu-otherwise"], check=True)
    xml = Guest(name="otherwise", gic="<gic version='3'/>", vcpus=8, pmu="<pmu state='off'/>").xml()
    wrapped = xml.replace("/usr/bin/qemu-system-aarch64", "/usr/local/bin/qemu-otherwise")
    with domain(host, wrapped, "otherwise", "--paused"):
        status, document = told_by_libvirt(host, "otherwise", "-c", "qemu:///system")
    assert status == 1
    assert [
        (row["subject"], row["expected"], row["running"], row["device_tree"]) for row in differing_rows(document)
    ] == [
        ("MSI controller", "an ITS", "none", "none"),
        ("ITS", "0x8080000", "no", "no"),
    ]
    gone = host.run(["python3", "-m", "vgicmgr.cli", "inspect", "otherwise"])
    assert gone.exit_code == 2
    assert "otherwise" in gone.stderr
    assert len(gone.stderr.splitlines()) == 1


THROUGH_LIBVIRT = """\
import asyncio, os, signal
from vgicmgr.cli import main
from vgicmgr.domain.connection import connect
from vgicmgr.qemu.qmp import MonitorError, libvirt_monitor

def ask(domain, command="query-status", seconds=20):
    try:
        return asyncio.run(libvirt_monitor(domain, seconds=seconds).execute(command))["status"]
    except MonitorError as error:
        return type(error).__name__

with connect(read_only=False) as connection, connect() as reader:
    domain = connection.running_domain("wishing")
    pid = int(open("/run/libvirt/qemu/wishing.pid").read())
    print(ask(domain), ask(domain, "no-such-command"), ask(reader.running_domain("wishing")))
    os.kill(pid, signal.SIGSTOP)
    print(ask(domain, seconds=2))
    print(main(["inspect", "-q", "wishing"]))
    os.kill(pid, signal.SIGKILL)
    print(ask(domain))
"""


def test_domains_with_arguments_of_their_own_and_the_ways_libvirt_fails(lab_host: LabHost) -> None:
    """What stands in <qemu:commandline> is known to both sides."""
    host = lab_host(HOSTS["trixie"])
    push_library(host)
    host.start_libvirtd()
    plain = Guest(name="wishing", gic="<gic version='3'/>", vcpus=8, pmu="<pmu state='off'/>").xml()
    added = plain.replace("<domain ", "<domain xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0' ").replace(
        "</domain>",
        "<q:commandline><q:arg value='-machine'/><q:arg value='its=off'/></q:commandline></domain>",
    )
    with domain(host, added, "wishing", "--paused"):
        status, document = told_by_libvirt(host, "wishing")
        failures = host.run(["python3", "-c", THROUGH_LIBVIRT], timeout=120)
    assert (status, differing_rows(document), document["running"]["its"]) == (0, [], None)
    assert {vcpu["pmu_intid"] for vcpu in document["running"]["vcpus"]} == {None}
    assert len(document["running"]["vcpus"]) == 8
    assert (failures.stderr, failures.stdout.splitlines()) == (
        "",
        ["prelaunch CommandFailed MonitorUnreachable", "MonitorSilent", "2", "MonitorLost"],
    )


def test_a_guest_of_tcgs_on_a_kvm_host_lives_on(lab_host: LabHost) -> None:
    """QEMU 10.0 under TCG crashes when it is asked query-gic-capabilities there."""
    host = lab_host(HOSTS["trixie"])
    push_library(host)
    host.start_libvirtd()
    emulated = Guest(name="emulated", domain_type="qemu", cpu="<cpu mode='custom'><model>cortex-a57</model></cpu>")
    with domain(host, emulated.xml(), "emulated", "--paused"):
        status, document = told_by_libvirt(host, "emulated")
    assert (status, differing_rows(document)) == (0, [])
    assert (document["running"]["accelerator"], document["running"]["gic_in_kernel"]) == ("tcg", False)
