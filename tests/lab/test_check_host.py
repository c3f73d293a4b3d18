"""check-host tells the truth: each answer is held against something that is not ours.

The kernel log, a C program compiled against the kernel's own headers, libvirt's domcapabilities, /proc and sysfs.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator

from tests.lab import debian
from tests.lab.conftest import LabHost
from tests.lab.errors import Prerequisite
from tests.lab.host import Host
from tests.lab.spec import HOSTS, Release
from vgicmgr.host.document import SCHEMA
from vgicmgr.host.probe import CAPABILITIES

KINDS = ("bookworm", "trixie", "sid", "gicv2", "no-its", "no-pmu", "a53", "max-bookworm", "max", "max-sid",
         "neoverse-v1", "gicv4", "nested")  # fmt: skip
EXIT_STATUS = dict.fromkeys(KINDS, 0) | {"gicv2": 1, "no-pmu": 1}
FINDINGS: dict[str, list[str]] = {kind: [] for kind in KINDS} | {"gicv2": ["gicv3-missing"], "no-pmu": ["pmu-missing"]}

CHECK_HOST = ["python3", "-m", "vgicmgr.cli", "check-host"]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def host(kind: str, lab_host: LabHost) -> Host:
    return lab_host(HOSTS[kind])


@pytest.fixture(scope="module")
def document(host: Host) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(host.run([*CHECK_HOST, "--format", "json"]).stdout)
    return parsed


@pytest.fixture(scope="module")
def kernel_log(host: Host) -> str:
    return host.run(["dmesg"], check=True).stdout


def test_the_exit_status_says_whether_guests_have_what_they_need(host: Host, kind: str) -> None:
    result = host.run([*CHECK_HOST, "-q"])
    assert (result.exit_code, result.stdout, result.stderr) == (EXIT_STATUS[kind], "", "")


def test_the_document_meets_the_schema(document: dict[str, Any]) -> None:
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)


def test_the_findings_are_those_of_this_kind_of_host(document: dict[str, Any], kind: str) -> None:
    assert [finding["name"] for finding in document["findings"]] == FINDINGS[kind]


def test_nothing_the_kernel_promises_was_refused(document: dict[str, Any]) -> None:
    assert document["unanswered"] == []


def test_the_report_is_text_without_colours(host: Host, kind: str) -> None:
    result = host.run(CHECK_HOST)
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    assert ("MISSING" in result.stdout) == (EXIT_STATUS[kind] == 1)


def test_the_capabilities_are_those_a_c_program_reads(
    host: Host, document: dict[str, Any], capability_reader: Path
) -> None:
    host.push("/tmp/capabilities", capability_reader.read_bytes(), mode=0o755)
    lines = host.run(["/tmp/capabilities"], check=True).stdout.split()
    assert dict(zip(lines[::2], map(int, lines[1::2]), strict=True)) == document["kvm"]["capabilities"]


def test_the_mode_is_the_one_in_the_kernel_log(document: dict[str, Any], kernel_log: str) -> None:
    """nVHE is "Hyp" to Linux 6.1, and "Hyp nVHE" later; "+NV2" is of nesting."""
    logged = re.search(r"kvm \[1\]: (?:Hyp )?(\w+)(?:\+NV2)? mode initialized successfully", kernel_log)
    assert logged
    assert document["kvm"]["mode"] == logged[1].replace("Hyp", "nVHE")


def test_guests_have_el2_where_the_kernel_was_told_to_nest(document: dict[str, Any], kernel_log: str) -> None:
    assert bool(document["kvm"]["capabilities"].get("KVM_CAP_ARM_EL2")) == ("VHE+NV2 mode" in kernel_log)


def test_direct_injection_is_what_the_kernel_logs(document: dict[str, Any], kernel_log: str) -> None:
    logged = re.search(r"kvm \[1\]: GICv(4\S*) support (\w+)", kernel_log)
    told = {"gicv4": logged[1], "enabled": logged[2] == "enabled"} if logged else {"gicv4": None, "enabled": False}
    assert document["gic"]["direct_injection"] == told


def test_the_ipa_size_is_the_one_in_the_kernel_log(document: dict[str, Any], kernel_log: str) -> None:
    limit = re.search(r"kvm \[1\]: IPA Size Limit: (\d+) bits", kernel_log)
    assert limit
    assert document["kvm"]["ipa_bits"] == int(limit[1])


def test_the_gic_versions_are_those_kvm_logged(document: dict[str, Any], kernel_log: str) -> None:
    """vgic_v3_probe logs the GICv2's CPU interface it can give, or that it can give none; a GICv2 host neither."""
    if "GIC system register CPU interface enabled" in kernel_log:
        assert document["gic"]["versions"] == ([2, 3] if "vgic-v2@" in kernel_log else [3])
    else:
        assert document["gic"]["versions"] == [2]


@pytest.mark.parametrize("kind", ["bookworm", "trixie", "sid", "gicv2"], indirect=True)
def test_the_gic_versions_are_those_libvirt_offers(host: Host, document: dict[str, Any]) -> None:
    host.start_libvirtd()
    capabilities = host.run(
        ["virsh", "domcapabilities", "--virttype", "kvm", "--machine", "virt"], check=True, timeout=90
    ).stdout
    offered = ElementTree.fromstring(capabilities).findall("features/gic/enum[@name='version']/value")
    assert [int(value.text or "") for value in offered] == document["gic"]["versions"]


def test_the_event_counters_that_a_guest_may_bring_along(document: dict[str, Any]) -> None:
    """Linux 6.1 keeps any PMCR_EL0.N that it is given; set_pmcr (sys_regs.c) of later ones none above its own."""
    own = document["pmu"]["counters"] if document["pmu"] else 0
    most = 31 if document["host"]["kernel"].startswith("6.1.") else own
    for model in document["migration"]["vcpus"]:
        assert model["pmu_counters"] == (most if "KVM_ARM_VCPU_PMU_V3" in model["features"] else 0), model["features"]


def test_an_its_is_there_with_every_gicv3(document: dict[str, Any], kind: str) -> None:
    """Whether or not the host's own GIC has one: a guest's ITS is emulated (vgic-its.c)."""
    assert (document["its"] is not None) == (kind != "gicv2")


def test_the_counters_are_those_of_the_hosts_pmu(document: dict[str, Any], kernel_log: str, kind: str) -> None:
    if kind == "no-pmu":
        assert document["pmu"] is None
        return
    # "7 counters available" and, since Linux 6.13 or so, "7 (0,8000003f) counters": the cycle counter is one of them
    counted = re.search(r"PMU driver, (\d+) (?:\([0-9a-f,]+\) )?counters available", kernel_log)
    assert counted
    assert document["pmu"]["counters"] == int(counted[1]) - 1


def test_the_core_types_are_those_of_proc_cpuinfo(host: Host, document: dict[str, Any]) -> None:
    cpuinfo = host.run(["cat", "/proc/cpuinfo"], check=True).stdout
    (core,) = document["host"]["core_types"]
    midr = int(core["midr_el1"], 16)
    assert f"CPU implementer\t: {midr >> 24:#x}" in cpuinfo
    assert f"CPU part\t: {midr >> 4 & 0xFFF:#05x}" in cpuinfo
    assert core["cpus"] == [int(number) for number in re.findall(r"^processor\t: (\d+)", cpuinfo, re.MULTILINE)]


def test_kernel_and_page_size_are_those_of_uname_and_getconf(host: Host, document: dict[str, Any]) -> None:
    assert document["host"]["kernel"] == host.run(["uname", "-r"], check=True).stdout.strip()
    assert document["host"]["page_size"] == int(host.run(["getconf", "PAGESIZE"], check=True).stdout)


def test_revisions_accepted_are_those_in_the_kernels_source(document: dict[str, Any]) -> None:
    """KVM_VGIC_IMP_REV_2 and _3 of ``vgic-mmio-v3.c``, NR_ITS_ABIS of ``vgic-its.c``: the same on all three kernels."""
    gics = [gic for gic in (document["gic"]["v2"], document["gic"]["v3"]) if gic]
    assert [gic["iidr_revisions"] for gic in gics] == [[2, 3]] * len(gics)
    if document["its"]:
        assert document["its"]["abi_revisions"] == [0]


def test_sve_lengths_are_those_the_kernel_logs(document: dict[str, Any], kernel_log: str) -> None:
    longest = re.search(r"SVE: maximum available vector length (\d+) bytes per vector", kernel_log)
    lengths = document["vcpu"]["sve_vector_lengths"]
    assert max(lengths, default=0) == (8 * int(longest[1]) if longest else 0)


def test_no_descriptor_and_no_vm_is_left(host: Host) -> None:
    program = (
        "import os, vgicmgr;"
        "before = os.listdir('/proc/self/fd');"
        "vgicmgr.probe_host();"
        "assert os.listdir('/proc/self/fd') == before"
    )
    host.run(["python3", "-c", program], check=True)
    # a directory for each VM lies there, named after process and descriptor
    host.run(
        ["sh", "-c", "[ -d /sys/kernel/debug/kvm ] || busybox mount -t debugfs none /sys/kernel/debug"], check=True
    )
    assert not re.findall(r"^\d+-\d+$", host.run(["ls", "/sys/kernel/debug/kvm"], check=True).stdout, re.MULTILINE)


def test_a_user_who_may_not_open_dev_kvm_is_told_what_to_do(host: Host) -> None:
    host.run(["chmod", "0660", "/dev/kvm"], check=True)
    result = host.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *CHECK_HOST])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "vgicmgr: /dev/kvm may not be opened by this user (run as root or as a member of the group kvm)\n"
    )


def test_a_host_without_dev_kvm_is_told_what_to_do(host: Host) -> None:
    script = f"mv /dev/kvm /dev/away; {' '.join(CHECK_HOST)}; status=$?; mv /dev/away /dev/kvm; exit $status"
    result = host.run(["sh", "-c", script])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("vgicmgr: /dev/kvm is not there: this kernel runs without KVM (")
    assert result.stderr.count("\n") == 1


READER = """
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <linux/kvm.h>
int main(void) {
    int vm = ioctl(open("/dev/kvm", O_RDWR), KVM_CREATE_VM, 0);
    if (vm < 0) return 1;
    %s
    return 0;
}
"""


@pytest.fixture(scope="module")
def capability_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program for arm64 that prints each capability's name and value; the numbers are the newest headers'."""
    compiler = "cc" if debian.native_architecture() == "arm64" else "aarch64-linux-gnu-gcc"
    if not shutil.which(compiler):
        raise Prerequisite(f"no {compiler}: install gcc, or gcc-aarch64-linux-gnu and libc6-dev-arm64-cross")
    prints = [f'printf("{name} %d\\n", ioctl(vm, KVM_CHECK_EXTENSION, {name}));' for name in CAPABILITIES]
    folder = tmp_path_factory.mktemp("capabilities")
    source, program = folder / "capabilities.c", folder / "capabilities"
    source.write_text(READER % "\n    ".join(prints))
    headers = debian.headers(Release.SID)
    subprocess.run([compiler, "-static", "-isystem", headers, source, "-o", program], check=True)
    return program
