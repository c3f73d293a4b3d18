"""``vgicmgr rehearse`` on real kernels: few vCPUs show what all would, nothing is left behind, and what it prints."""

import json
import re

import pytest

from tests.lab.conftest import LabHost
from tests.lab.domains import Guest
from tests.lab.host import Host
from tests.lab.rehearsals import ACCEPTED, REFUSED
from tests.lab.spec import HOSTS, HostSpec, Release

CHECKOUT = "/opt/vgicmgr"
REHEARSE = ["python3", "-m", "vgicmgr.cli", "rehearse"]


def host_of(release: Release, gic: int) -> HostSpec:
    return HOSTS[release] if gic == 3 else HostSpec(release, cpu="cortex-a57", gic=2, pmu=False)


@pytest.mark.parametrize("gic", [3, 2])
@pytest.mark.parametrize("release", Release)
def test_the_representative_vcpus_show_what_all_would(release: Release, gic: int, lab_host: LabHost) -> None:
    host = lab_host(host_of(release, gic))
    result = host.run(["python3", "-m", "tests.lab.rehearsals", str(gic)], cwd=CHECKOUT, timeout=180, check=True)
    outcomes = json.loads(result.stdout)
    assert {name: of_all for name, (of_all, _) in outcomes.items()} == {
        name: of_few for name, (_, of_few) in outcomes.items()
    }
    assert {name for name, (of_all, _) in outcomes.items() if not of_all} == set(ACCEPTED[gic])
    assert {name for name, (of_all, _) in outcomes.items() if of_all} == set(REFUSED[gic])


def machines(host: Host) -> list[str]:
    """The VMs that the kernel has: a directory for each, named after process and descriptor."""
    host.run(
        ["sh", "-c", "[ -d /sys/kernel/debug/kvm ] || busybox mount -t debugfs none /sys/kernel/debug"], check=True
    )
    return re.findall(r"^\d+-\d+$", host.run(["ls", "/sys/kernel/debug/kvm"], check=True).stdout, re.MULTILINE)


@pytest.mark.parametrize("signal", ["INT", "TERM"])
def test_a_signal_amid_a_rehearsal_leaves_no_vm(signal: str, lab_host: LabHost) -> None:
    host = lab_host(HOSTS["trixie"])
    assert machines(host) == []
    # in a background job of a shell that is not interactive, SIGINT would be ignored
    script = f"""
        env --default-signal=INT python3 -m tests.lab.rehearsals forever 2>/tmp/stderr &
        until ls -d /sys/kernel/debug/kvm/$!-* 2>/dev/null; do sleep 0.1; done
        sleep 0.7
        kill -{signal} $!
        wait $!
    """
    result = host.run(["sh", "-c", script], cwd=CHECKOUT, timeout=60)
    assert result.stdout
    assert result.exit_code in {"INT": (130, 1), "TERM": (143,)}[signal], result
    assert machines(host) == []


def test_a_rehearsal_leaves_no_vm_and_no_descriptor(lab_host: LabHost) -> None:
    host = lab_host(HOSTS["trixie"])
    program = (
        "import os; from tests.lab import rehearsals;"
        "before = os.listdir('/proc/self/fd');"
        "rehearsals.main('3');"
        "assert os.listdir('/proc/self/fd') == before"
    )
    host.run(["python3", "-c", program], cwd=CHECKOUT, timeout=180, check=True)
    assert machines(host) == []


@pytest.mark.parametrize("release", Release)
def test_a_guest_that_starts_is_told_so(release: Release, lab_host: LabHost) -> None:
    host = lab_host(HOSTS[release])
    result = host.run([*REHEARSE, "-"], stdin=Guest(vcpus=2).xml().encode())
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("ok       ") == 17
    assert result.stdout.endswith("This host's kernel brings this domain's interrupt controller up.\n")


def test_what_a_kernel_refuses_is_told_with_call_errno_and_remedy(lab_host: LabHost) -> None:
    """Settings resolved for another host: the PMU that it has is refused here."""
    host = lab_host(HOSTS["no-pmu"])
    capabilities = json.loads(host.run([*REHEARSE[:-1], "check-host", "--format", "json"]).stdout)
    capabilities["kvm"]["capabilities"]["KVM_CAP_ARM_PMU_V3"] = 1
    host.push("/tmp/other-host.json", json.dumps(capabilities))
    result = host.run([*REHEARSE, "--host", "/tmp/other-host.json", "-"], stdin=Guest().xml().encode())
    assert result.exit_code == 1
    assert "EINVAL   KVM_ARM_VCPU_INIT of vCPU 0 with KVM_ARM_VCPU_PSCI_0_2, KVM_ARM_VCPU_PMU_V3" in result.stdout
    assert "[vcpu-refused]" in result.stdout
    assert "remedy: turn CPU features off" in result.stdout
    document = json.loads(
        host.run(
            [*REHEARSE, "--host", "/tmp/other-host.json", "--format", "json", "-"], stdin=Guest().xml().encode()
        ).stdout
    )
    assert [call["outcome"] for call in document["calls"]][:4] == ["ok", "ok", "EINVAL", "-"]


def test_a_domain_of_libvirts_is_rehearsed_by_its_name(lab_host: LabHost) -> None:
    host = lab_host(HOSTS["trixie"])
    host.start_libvirtd()
    host.push("/tmp/guest.xml", Guest(name="defined").xml())
    host.run(["virsh", "define", "/tmp/guest.xml"], check=True)
    try:
        result = host.run([*REHEARSE, "-c", "qemu:///system", "defined"])
    finally:
        host.run(["virsh", "undefine", "defined"], check=True)
    assert (result.exit_code, result.stderr) == (0, "")
