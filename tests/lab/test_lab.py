"""The lab itself, on real hosts: what every other test here relies on."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import guest
from tests.lab.conftest import LabHost, LabPair
from tests.lab.errors import CommandFailed, CommandTimeout, HostDied, LabError
from tests.lab.host import CHECKOUT
from tests.lab.kernel import kernel
from tests.lab.pool import Pool
from tests.lab.spec import HOSTS, HostSpec, Release

RELEASES = [release.value for release in Release]


@pytest.mark.parametrize("release", RELEASES)
def test_a_host_runs_its_releases_kernel_with_kvm_and_the_checkout(lab_host: LabHost, release: str) -> None:
    host = lab_host(HOSTS[release])
    assert host.run(["uname", "-r"], check=True).stdout.strip() == kernel(Release(release)).version
    host.run(["test", "-c", "/dev/kvm"], check=True)
    host.run(["python3", "-c", "import vgicmgr, libvirt, lxml.etree, pytest, hypothesis, jsonschema"], check=True)
    assert host.pull("/opt/vgicmgr/pyproject.toml") == (CHECKOUT / "pyproject.toml").read_bytes()


@pytest.mark.parametrize("release", RELEASES)
def test_a_kvm_guest_reaches_user_space_through_libvirt(lab_host: LabHost, release: str) -> None:
    host = lab_host(HOSTS[release])
    guest.start(host, guest.xml("g"), "g")
    assert "type='kvm'" in host.run(["virsh", "dumpxml", "g"], check=True).stdout
    host.run(["virsh", "destroy", "g"], check=True)


def test_a_guest_answers_the_power_button(lab_host: LabHost) -> None:
    host = lab_host(HOSTS["trixie"])
    guest.start(host, guest.xml("button"), "button")
    host.run(["virsh", "shutdown", "button"], check=True)
    deadline = time.monotonic() + 30
    while host.run(["virsh", "domstate", "button"]).exit_code == 0:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_libvirtd_can_be_started_twice_reloaded_and_stopped(lab_host: LabHost) -> None:
    host = lab_host(HOSTS["trixie"])
    host.start_libvirtd()
    host.start_libvirtd()
    host.reload_libvirtd()
    host.stop_libvirtd()
    host.stop_libvirtd()
    assert host.run(["pgrep", "-x", "libvirtd"]).exit_code == 1


def test_commands_and_files(lab_host: LabHost) -> None:
    host = lab_host(HOSTS["trixie"])
    result = host.run(
        ["sh", "-c", "cat; echo $WORD; pwd; echo bad >&2; exit 3"], stdin="in ", env={"WORD": "w"}, cwd="/"
    )
    assert (result.exit_code, result.stdout, result.stderr) == (3, "in w\n/\n", "bad\n")
    data = os.urandom(3_000_000)
    host.push("/tmp/folder/data", data, 0o600)
    assert host.pull("/tmp/folder/data") == data
    with pytest.raises(CommandFailed, match="bad"):
        host.run(["sh", "-c", "echo bad >&2; false"], check=True)
    with pytest.raises(LabError, match="FileNotFoundError"):
        host.pull("/no/such/file")


def test_a_command_that_hangs_is_killed_in_the_host(lab_host: LabHost) -> None:
    host = lab_host(HOSTS["trixie"])
    with pytest.raises(CommandTimeout):
        host.run(["sleep", "1234"], timeout=0.5)
    assert host.run(["pgrep", "-f", "sleep 1234"]).exit_code == 1


def test_a_panic_is_reported_soon_with_the_console(lab_host: LabHost) -> None:
    host = lab_host(HOSTS["trixie"], fresh=True)
    started = time.monotonic()
    with pytest.raises(HostDied, match="Kernel panic"):
        host.run(["sh", "-c", "sleep 1; echo c >/proc/sysrq-trigger; sleep 50"], timeout=60)
    assert time.monotonic() - started < 20
    assert not host.alive


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [
        ("trixie", ("ITS@", "VHE mode", "PMU driver"), ("arm-smmu-v3",)),
        ("gicv2", ("Hyp nVHE mode", "vgic interrupt"), ("GICv3",)),
        ("no-vgic", ("Hyp nVHE mode",), ("GICv3", "vgic interrupt")),
        ("no-its", ("GICv3",), ("ITS@",)),
        ("no-pmu", ("GICv3",), ("PMU driver",)),
        ("a53", ("IPA Size Limit: 40 bits", "Hyp nVHE mode"), ()),
        ("a76", ("IPA Size Limit: 40 bits", "VHE mode"), ("Address authentication",)),
        ("max", ("IPA Size Limit: 52 bits", "Address authentication"), ()),
        ("max-bookworm", ("IPA Size Limit: 48 bits", "Address authentication"), ()),
        ("smmuv3", ("arm-smmu-v3",), ()),
        ("50mhz", ("running at 50.00MHz",), ()),
        ("100mhz", ("running at 100.00MHz",), ()),
        ("16k", ("ITS@",), ()),
        ("mitigations-off", ("mitigations=off",), ()),
    ],
)
def test_a_named_host_is_what_its_name_says(
    lab_host: LabHost, name: str, has: tuple[str, ...], lacks: tuple[str, ...]
) -> None:
    log = lab_host(HOSTS[name]).run(["dmesg"], check=True).stdout
    assert [words for words in has if words not in log] == []
    assert [words for words in lacks if words in log] == []


def test_a_device_behind_the_smmu_can_be_given_to_vfio(lab_host: LabHost) -> None:
    host = lab_host(HOSTS["smmuv3"])
    host.run(["modprobe", "-a", "vfio_pci", "vfio_iommu_type1"], check=True)
    [address] = host.run(["sh", "-c", "lspci -Dmmn -d 8086:10d3 | cut -d' ' -f1"], check=True).stdout.split()
    device = f"/sys/bus/pci/devices/{address}"
    host.run(["sh", "-c", f"echo vfio-pci >{device}/driver_override; echo {address} >/sys/bus/pci/drivers_probe"])
    group = host.run(["sh", "-c", f"basename $(readlink {device}/iommu_group)"], check=True).stdout.strip()
    host.run(["test", "-c", f"/dev/vfio/{group}"], check=True)


def test_a_kernel_runs_under_another_releases_user_land(lab_host: LabHost) -> None:
    host = lab_host(HostSpec(Release.BOOKWORM, kernel=Release.SID))
    assert host.run(["uname", "-r"]).stdout.strip() == kernel(Release.SID).version
    assert "3.11" in host.run(["python3", "--version"]).stdout


@pytest.mark.parametrize("name", ["gicv2", "max-bookworm"])
def test_guests_run_on_other_hosts_too(lab_host: LabHost, name: str) -> None:
    host = lab_host(HOSTS[name])
    guest.start(host, guest.xml("g", gic=HOSTS[name].gic), "g")
    host.run(["virsh", "destroy", "g"], check=True)


def test_a_guest_migrates_live_between_two_hosts_and_back(lab_pair: LabPair) -> None:
    pair = lab_pair(HOSTS["trixie"], HOSTS["trixie"])
    guest.start(pair.first, guest.xml("g"), "g")
    pair.migrate("g", check=True)
    assert pair.second.run(["virsh", "domstate", "g"], check=True).stdout.strip() == "running"
    seen = len(guest.console(pair.second, "g"))
    time.sleep(3)
    assert len(guest.console(pair.second, "g")) > seen, "it runs on at its destination"
    pair.migrate("g", back=True, check=True)
    pair.first.run(["virsh", "destroy", "g"], check=True)


@pytest.fixture
def small_pool(lab_pool: Pool) -> Iterator[Pool]:
    """One for two hosts."""
    pool = Pool(most=2)
    yield pool
    pool.close()


def test_a_pool_keeps_hosts_and_replaces_one_that_died(small_pool: Pool) -> None:
    first = small_pool.host(HOSTS["trixie"])
    assert small_pool.host(HOSTS["trixie"]) is first
    with pytest.raises(HostDied):
        first.run(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 50"])
    second = small_pool.host(HOSTS["trixie"])
    assert second is not first
    for name in ("no-its", "no-pmu"):
        assert small_pool.host(HOSTS[name]).alive
    assert not second.alive, "more than two are running"


SCRIPT = """
import time
from tests.lab.host import Host
from tests.lab.spec import HostSpec
host = Host.spawn(HostSpec())
print(host.folder, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_qemu_outlives_the_process_that_started_it(lab_pool: Pool, number: signal.Signals) -> None:
    lab_pool.close()
    with subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        folder = process.stdout.readline().strip()
        assert qemus(folder)
        process.send_signal(number)
    time.sleep(1)
    shutil.rmtree(folder)
    assert not qemus(folder)


def qemus(folder: str) -> list[Path]:
    """The processes on this machine that have the folder in their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if folder.encode() in path.read_bytes():
                found.append(path)
        except OSError:
            continue
    return found


@pytest.mark.usefixtures("lab_pool")
def test_by_hand_the_commands_exit_code_is_the_exit_code() -> None:
    def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.lab", *arguments],
            cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    done = lab("run", "trixie", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    for verb in (("run", "nowhere", "--", "true"), ("shell", "/no/where"), ("pair", "trixie", "nowhere")):
        done = lab(*verb)
        assert done.returncode == 2
        assert re.match("lab: no host is (named nowhere|running in /no/where)", done.stderr)
    assert all(name in lab("list").stdout for name in HOSTS)
