"""``vgicmgr rehearse``: what it prints of a rehearsal, and what it says where it can make none."""

import errno
import json
import os
import subprocess
import sys

import pytest
from vgicmgr.guest.rehearsal import Rehearsal

from tests.unit.guest.test_plan import GICV3
from vgicmgr.cli.rehearse import render, to_document
from vgicmgr.dataclass import replace
from vgicmgr.findings import Finding, Severity, Verdict
from vgicmgr.guest.plan import SetDeviceAttribute, call_plan, telling_vcpus
from vgicmgr.kvm import its
from vgicmgr.kvm.errors import KvmError

not_arm64 = pytest.mark.skipif(os.uname().machine == "aarch64", reason="this machine can rehearse")

PLAN = call_plan(GICV3)
ADDRESS = PLAN.index(SetDeviceAttribute(its.DEVICE_TYPE, its.ADDR, 0x0808_0000))
REFUSED = Rehearsal(
    PLAN, ADDRESS, KvmError("KVM_SET_DEVICE_ATTR", "KVM_VGIC_ITS_ADDR_TYPE", errno.E2BIG, "KVM_DEV_ARM_VGIC_GRP_ADDR")
)
GUEST = """\
<domain type='{type}'><name>g</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
<os><type arch='aarch64' machine='virt'>hvm</type></os><features><gic version='3'/></features>
<cpu mode='{cpu}'/></domain>"""


def vgicmgr(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "vgicmgr.cli", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def test_each_call_has_its_outcome() -> None:
    lines = list(render(Rehearsal(PLAN, len(PLAN)), Verdict(), vcpus=1))
    assert lines == [
        *(f"ok       {call}" for call in PLAN),
        "",
        "This host's kernel brings this domain's interrupt controller up.",
    ]


def test_a_refusal_stands_in_its_place_and_what_follows_is_not_tried() -> None:
    lines = list(render(REFUSED, REFUSED.verdict, vcpus=1))
    assert [line.split()[0] for line in lines[: len(PLAN)]] == ["ok"] * ADDRESS + ["E2BIG", "-", "-"]
    assert lines[len(PLAN) :] == [
        "",
        "error    this host's kernel refuses KVM_SET_DEVICE_ATTR of KVM_DEV_TYPE_ARM_VGIC_ITS: "
        "KVM_VGIC_ITS_ADDR_TYPE = 0x8080000: E2BIG, address outside the guest's physical address space (IPA) "
        "[its-refused]",
        "         remedy: use a host with more bits of guest physical address (KVM_CAP_ARM_VM_IPA_SIZE), or give less "
        "memory",
        "This domain's interrupt controller does not come up on this host.",
    ]


def test_vcpus_that_are_left_out_are_told() -> None:
    many = replace(GICV3, vcpus=512)
    plan = call_plan(many, vcpus=telling_vcpus(many))
    lines = list(render(Rehearsal(plan, len(plan)), Verdict(), vcpus=512))
    assert "         (510 vCPUs more, made in the same way, are left out)" in lines


def test_findings_of_the_translation_stand_without_any_call() -> None:
    finding = Finding("wish-unmet", Severity.ERROR, "an evil \x1b[31mname", "do")
    lines = list(render(None, Verdict((finding,)), vcpus=1))
    assert lines[0] == r"error    an evil \x1b[31mname [wish-unmet]"
    assert lines[-1] == "This domain's interrupt controller does not come up on this host."


def test_the_document() -> None:
    document = json.loads(json.dumps(to_document("g", REFUSED, REFUSED.verdict)))
    assert (document["document"], document["version"]) == ("vgicmgr rehearsal", 1)
    assert (document["domain"], document["ok"]) == ("g", False)
    assert [call["outcome"] for call in document["calls"]] == ["ok"] * ADDRESS + ["E2BIG", "-", "-"]
    assert document["calls"][0]["call"] == "KVM_CREATE_VM with an IPA size of 40 bits"
    assert [finding["name"] for finding in document["findings"]] == ["its-refused"]


def test_the_document_of_a_domain_without_a_configuration() -> None:
    assert to_document("g", None, Verdict())["calls"] is None


@not_arm64
def test_a_machine_that_is_not_arm64_cannot_tell() -> None:
    result = vgicmgr("rehearse", "-", stdin=GUEST.format(type="kvm", cpu="host-passthrough"))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"vgicmgr: this host is {os.uname().machine}, not aarch64: its KVM knows no GIC (run it on the KVM host)\n"
    )


def test_an_emulated_domain_asks_no_kernel() -> None:
    result = vgicmgr("rehearse", "-", stdin=GUEST.format(type="qemu", cpu="maximum"))
    assert (result.returncode, result.stdout) == (2, "")
    assert "the domain is emulated" in result.stderr


@pytest.mark.parametrize("document", ["", "<domain", "<!DOCTYPE a><domain/>", "<network/>"])
def test_a_document_that_is_no_domain_is_told_in_one_line(document: str) -> None:
    result = vgicmgr("rehearse", "-", stdin=document)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("vgicmgr: ")
    assert result.stderr.count("\n") == 1


def test_a_domain_that_is_refused_before_any_call_exits_1() -> None:
    xml = GUEST.format(type="kvm", cpu="host-passthrough").replace("<vcpu>1<", "<vcpu>4000<")
    result = vgicmgr("rehearse", "-", stdin=xml)
    assert result.returncode == 1
    assert result.stdout.endswith("This domain's interrupt controller does not come up on this host.\n")


def test_quiet_prints_nothing() -> None:
    xml = GUEST.format(type="kvm", cpu="host-passthrough").replace("<vcpu>1<", "<vcpu>4000<")
    result = vgicmgr("rehearse", "-q", "-", stdin=xml)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "")
