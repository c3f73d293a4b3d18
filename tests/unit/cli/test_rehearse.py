"""``vgicmgr rehearse``: what it prints of a rehearsal, and what it says where it can make none."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fakes.hosts import GICV2_HOST, NEOVERSE_N1, NO_GIC, HostKind
from tests.fakes.kernel import FakeKernel, installed, pretend_arm64
from tests.unit.migration.examples import domain_xml
from vgicmgr.cli import main
from vgicmgr.cli.rehearse import render, to_document
from vgicmgr.findings import Verdict, finding

not_arm64 = pytest.mark.skipif(os.uname().machine == "aarch64", reason="this machine can rehearse")

GUEST = """\
<domain type='{type}'><name>g</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
<os><type arch='aarch64' machine='virt'>hvm</type></os><features><gic version='3'/></features>
<cpu mode='{cpu}'/></domain>"""
COMES_UP = "This host's kernel brings this domain's interrupt controller up."
DOES_NOT = "This domain's interrupt controller does not come up on this host."
Output = pytest.CaptureFixture[str]


def vgicmgr(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "vgicmgr.cli", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


class Rehearsal:
    """The command on a host of some kind."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
        self.file, self.monkeypatch, self.capsys = folder / "guest.xml", monkeypatch, capsys

    def run(
        self,
        *arguments: str,
        kind: HostKind = NEOVERSE_N1,
        xml: bytes = domain_xml(),
        refuse: Mapping[tuple[str, int], int] | None = None,
    ) -> tuple[int, str]:
        """Exit status and output."""
        self.file.write_bytes(xml)
        pretend_arm64(self.monkeypatch)
        kernel = FakeKernel(kind, refuse=dict(refuse or {}))
        with installed(self.monkeypatch, kernel):
            status = main(["rehearse", str(self.file), *arguments])
        assert kernel.open_descriptors() == []
        return status, self.capsys.readouterr().out


@pytest.fixture
def rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> Rehearsal:
    return Rehearsal(tmp_path, monkeypatch, capsys)


def test_each_call_has_its_outcome(rehearsal: Rehearsal) -> None:
    status, shown = rehearsal.run()
    *calls, empty, result = shown.splitlines()
    assert (status, empty, result) == (0, "", COMES_UP)
    assert calls[0] == "ok       KVM_CREATE_VM with an IPA size of 40 bits"
    assert "         (2 vCPUs more, made in the same way, are left out)" in calls
    assert all(line.startswith(("ok       KVM_", "         (")) for line in calls)


def test_a_refusal_stands_in_its_place_and_what_follows_is_not_tried(rehearsal: Rehearsal) -> None:
    """Of a GIC that KVM_CREATE_DEVICE_TEST had promised."""
    status, shown = rehearsal.run(refuse={("KVM_CREATE_DEVICE", 1): errno.ENODEV})
    lines = shown.splitlines()
    outcomes = [line.split()[0] for line in lines[: lines.index("")] if not line.startswith(" ")]
    place = outcomes.index("ENODEV")
    assert outcomes == ["ok"] * place + ["ENODEV"] + ["-"] * (len(outcomes) - place - 1)
    assert len(outcomes) > place + 1
    assert "[gic-refused]" in shown
    assert "         remedy: set <gic version='2'/>, or use a host whose 'vgicmgr check-host' shows a GICv3" in lines
    assert (status, lines[-1]) == (1, DOES_NOT)


def test_the_kernels_own_refusal(rehearsal: Rehearsal) -> None:
    """A CPU model whose target is another core's is refused by KVM_ARM_VCPU_INIT (kvm_vcpu_set_target)."""
    model = "<cpu mode='custom' match='exact'><model fallback='forbid'>cortex-a53</model></cpu>"
    status, shown = rehearsal.run(kind=GICV2_HOST, xml=domain_xml(cpu=model))
    assert status == 1
    assert "[cpu-model-unsupported]" in shown
    assert "set <cpu mode='host-passthrough'/>" in shown


def test_vcpus_that_are_left_out_are_told(rehearsal: Rehearsal) -> None:
    assert "         (98 vCPUs more, made in the same way, are left out)" in rehearsal.run(xml=domain_xml(vcpus=100))[1]


def test_a_host_whose_kvm_has_no_gic(rehearsal: Rehearsal) -> None:
    """QEMU emulates a GICv2 there, slowly."""
    status, shown = rehearsal.run(kind=NO_GIC)
    assert status == 0
    assert "[emulated-gic]" in shown


def test_findings_of_the_translation_stand_without_any_call() -> None:
    found = finding("wish-unmet", "an evil \x1b[31mname", "do")
    lines = list(render(None, Verdict((found,)), vcpus=1))
    assert lines[0] == r"error    an evil \x1b[31mname [wish-unmet]"
    assert lines[-1] == DOES_NOT


def test_the_document(rehearsal: Rehearsal) -> None:
    status, shown = rehearsal.run("--format", "json", refuse={("KVM_CREATE_DEVICE", 1): errno.ENODEV})
    document = json.loads(shown)
    assert (document["document"], document["version"]) == ("vgicmgr rehearsal", 1)
    assert (status, document["domain"], document["ok"]) == (1, "web1", False)
    outcomes = [call["outcome"] for call in document["calls"]]
    assert (outcomes[0], outcomes.count("ENODEV"), outcomes[-1]) == ("ok", 1, "-")
    assert document["calls"][0]["call"] == "KVM_CREATE_VM with an IPA size of 40 bits"
    assert [found["name"] for found in document["findings"]] == ["gic-refused"]


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
    assert result.stdout.endswith(f"{DOES_NOT}\n")


def test_quiet_prints_nothing() -> None:
    xml = GUEST.format(type="kvm", cpu="host-passthrough").replace("<vcpu>1<", "<vcpu>4000<")
    result = vgicmgr("rehearse", "-q", "-", stdin=xml)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "")
