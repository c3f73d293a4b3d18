"""``vgicmgr check-migration`` on documents: exit status, words, and one line where it cannot tell."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from vgicmgr.migration.models import Register

from tests.unit.migration.examples import RECORD
from tests.unit.migration.test_hostdocument import MMFR1, MODEL, document
from vgicmgr.cli import main
from vgicmgr.dataclass import replace
from vgicmgr.kvm.registers import register_id
from vgicmgr.migration.document import to_document
from vgicmgr.migration.record import ABIRecord

BORN_THERE: ABIRecord = replace(
    RECORD, registers=tuple(sorted((number, register.value) for number, register in MODEL.registers.items()))
)
Output = pytest.CaptureFixture[str]


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host's document."""
    path = tmp_path / "host.json"
    path.write_text(json.dumps(document()))
    return path


def record_file(folder: Path, record: ABIRecord) -> str:
    path = folder / "record.json"
    path.write_text(json.dumps(to_document(record)))
    return str(path)


def test_a_guest_that_would_arrive(tmp_path: Path, host: Path, capsys: Output) -> None:
    assert main(["check-migration", record_file(tmp_path, BORN_THERE), "--to", str(host)]) == 0
    assert (
        capsys.readouterr().out == "the guest would arrive on the host with Linux 6.12.0 and tolerant rules in QEMU\n"
    )


def test_a_guest_that_would_not(tmp_path: Path, host: Path, capsys: Output) -> None:
    values = {**dict(BORN_THERE.registers), MMFR1: 0x20212122}
    record = replace(BORN_THERE, registers=tuple(sorted(values.items())))
    assert main(["check-migration", record_file(tmp_path, record), "--to", str(host), "--explain"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("error: ID_AA64MMFR1_EL1.XNX: guest has 2, this kernel has 1 [register-value]")
    assert lines[1].split() == (
        ["ID_AA64MMFR1_EL1", "refused:", "ID_AA64MMFR1_EL1.XNX:", "guest", "has", "2,", "this", "kernel", "has", "1"]
    )
    assert lines[-1].startswith("the guest would not arrive")


def test_a_guest_that_has_moved_brings_the_registers_of_the_host_it_is_on(
    tmp_path: Path, host: Path, capsys: Output
) -> None:
    more = replace(MODEL, registers={**MODEL.registers, register_id("TPIDR_EL1"): Register(0, anything=True)})
    (tmp_path / "source.json").write_text(json.dumps(document(more)))
    argv = ["check-migration", record_file(tmp_path, BORN_THERE), "--to", str(host)]
    assert main([*argv, "--from", str(host)]) == 0
    assert main([*argv, "--from", str(tmp_path / "source.json")]) == 1
    assert "this kernel has no TPIDR_EL1, which the guest brings along" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{", "[]", '{"document": "something else"}', '{"a":' * 100000])
def test_a_file_that_is_no_such_document(tmp_path: Path, host: Path, capsys: Output, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    good = record_file(tmp_path, BORN_THERE)
    for guest, to in ((str(tmp_path / "bad.json"), str(host)), (good, str(tmp_path / "bad.json"))):
        assert main(["check-migration", guest, "--to", to]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1


def test_a_host_that_is_not_there(tmp_path: Path, capsys: Output) -> None:
    assert main(["check-migration", record_file(tmp_path, BORN_THERE), "--to", str(tmp_path / "none.json")]) == 2
    assert "No such file" in capsys.readouterr().err


HOSTDEV = b"""
<domain type='kvm'>
  <name>g</name>
  <memory unit='GiB'>1</memory>
  <vcpu>4</vcpu>
  <os><type arch='aarch64' machine='virt-10.0'>hvm</type></os>
  <cpu mode='host-passthrough'><feature name='sve' policy='disable'/><feature name='pauth' policy='disable'/></cpu>
  <devices>
    <hostdev mode='subsystem' type='pci'>
      <source><address domain='0' bus='1' slot='0' function='0'/></source>
      %s
    </hostdev>
  </devices>
</domain>
"""
TRANSIENT = b"<teaming type='transient' persistent='ua-net0'/>"


@pytest.mark.parametrize(
    ("teaming", "gicv4", "status", "names"),
    [
        (b"", None, 0, ["device-migration-unknown"]),  # a record in a file is of no host that could be asked
        (b"", "4.1", 0, ["device-migration-unknown"]),
        (b"", "4", 1, ["device-migration-unknown", "its-save"]),
        (TRANSIENT, "4", 0, []),
    ],
)
def test_assigned_devices(
    tmp_path: Path, host: Path, capsys: Output, teaming: bytes, gicv4: str | None, status: int, names: list[str]
) -> None:
    source: Any = document()
    source["gic"]["direct_injection"] = {"gicv4": gicv4, "enabled": gicv4 is not None}
    (tmp_path / "source.json").write_text(json.dumps(source))
    (tmp_path / "guest.xml").write_bytes(HOSTDEV % teaming)
    argv = ["check-migration", record_file(tmp_path, BORN_THERE), "--to", str(host)]
    argv += ["--from", str(tmp_path / "source.json"), "--xml", str(tmp_path / "guest.xml")]
    assert main(argv) == status
    assert re.findall(r"\[([a-z-]+)\]", capsys.readouterr().out) == names
