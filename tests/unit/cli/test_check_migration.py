"""``vgicmgr check-migration`` on documents: exit status, words, and one line where it cannot tell."""

import json
import re
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hosts import GICV2_HOST, NEOVERSE_N1, HostKind
from tests.fakes.registers import Register
from tests.unit.migration.examples import RECORD, boot, document_of, domain, domain_xml
from vgicmgr.cli import main
from vgicmgr.cli.check_migration import source_release
from vgicmgr.dataclass import replace
from vgicmgr.host.documented import Program
from vgicmgr.kvm.registers import register_id
from vgicmgr.migration.document import to_document
from vgicmgr.migration.record import ABIRecord
from vgicmgr.qemu.program import KnownQEMU
from vgicmgr.qemu.rules import Rules

SMALL = replace(NEOVERSE_N1, pmu=False, el1_32bit=False)
"""With one set of vCPU features only, whose document is soon made."""
MMFR1 = register_id("ID_AA64MMFR1_EL1")
QEMU = "/usr/bin/qemu-system-aarch64"
Output = pytest.CaptureFixture[str]


def document(kind: HostKind = SMALL) -> dict[str, Any]:
    """Of a host with such a kernel and QEMU 10.0."""
    return document_of(kind, {QEMU: Program((10, 0), Rules.CLASSIC, psci_property=False)})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document, made once."""
    path = tmp_path_factory.mktemp("host") / "host.json"
    path.write_text(json.dumps(document()))
    return path


@pytest.fixture
def host(small: Path, tmp_path: Path) -> Path:
    """A host's document."""
    path = tmp_path / "host.json"
    path.write_bytes(small.read_bytes())
    return path


@pytest.fixture(scope="module")
def record() -> ABIRecord:
    """Of a guest that was booted there."""
    return boot(SMALL)


def record_file(folder: Path, record: ABIRecord) -> str:
    path = folder / "record.json"
    path.write_text(json.dumps(to_document(record)))
    return str(path)


def with_value(record: ABIRecord, number: int, value: int) -> ABIRecord:
    """The same guest with another value in a register."""
    return replace(record, registers=tuple(sorted({**dict(record.registers), number: value}.items())))


def test_a_guest_that_would_arrive(tmp_path: Path, host: Path, record: ABIRecord, capsys: Output) -> None:
    assert main(["check-migration", record_file(tmp_path, record), "--to", str(host)]) == 0
    assert capsys.readouterr().out == "the guest would arrive on the host with Linux 6.12.0\n"


def test_a_guest_that_would_not(tmp_path: Path, host: Path, record: ABIRecord, capsys: Output) -> None:
    other = with_value(record, MMFR1, 0x20212122)
    assert main(["check-migration", record_file(tmp_path, other), "--to", str(host), "--explain"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("error: ID_AA64MMFR1_EL1.XNX: guest has 2, this kernel has 1 [register-value]")
    assert lines[1].split() == (
        ["ID_AA64MMFR1_EL1", "refused:", "ID_AA64MMFR1_EL1.XNX:", "guest", "has", "2,", "this", "kernel", "has", "1"]
    )
    assert lines[-1].startswith("the guest would not arrive")


def test_the_remedy_is_printed(tmp_path: Path, host: Path, record: ABIRecord, capsys: Output) -> None:
    other = with_value(record, register_id("MIDR_EL1"), 0x411FD070)
    main(["check-migration", record_file(tmp_path, other), "--to", str(host)])
    assert "; use a host with the CPU that the guest was booted on (MIDR_EL1 0x411fd070)" in capsys.readouterr().out


class TestAPlainNo:
    """What could not even start there is a no, and not a question that cannot be answered."""

    def no(self, guest: str, host: Path, capsys: Output, *arguments: str) -> list[str]:
        assert main(["check-migration", guest, "--to", str(host), *arguments]) == 1
        captured = capsys.readouterr()
        assert captured.out.splitlines()[-1] == "the guest would not arrive on the host with Linux 6.12.0"
        return re.findall(r"error: .*\[([a-z-]+)\]", captured.out)

    def test_a_gic_that_the_host_does_not_have(self, tmp_path: Path, host: Path, capsys: Output) -> None:
        guest = record_file(tmp_path, boot(GICV2_HOST))
        assert self.no(guest, host, capsys) == ["gic-version-unsupported"]

    def test_a_property_that_qemu_does_not_have_there(
        self, tmp_path: Path, host: Path, record: ABIRecord, capsys: Output
    ) -> None:
        """Without a PMU in KVM, QEMU's CPU has no property 'pmu' to switch off (from 9.1 on)."""
        (tmp_path / "guest.xml").write_bytes(domain_xml(emulator=QEMU, cpu=PMU_OFF))
        guest = record_file(tmp_path, record)
        assert self.no(guest, host, capsys, "--xml", str(tmp_path / "guest.xml")) == ["pmu-unsupported"]

    def test_too_many_vcpus(self, tmp_path: Path, capsys: Output) -> None:
        path = tmp_path / "gicv2.json"
        path.write_text(json.dumps(document(GICV2_HOST)))
        guest = record_file(tmp_path, replace(boot(GICV2_HOST), vcpus=9))
        assert self.no(guest, path, capsys) == ["vcpu-count"]

    def test_vector_lengths_that_the_host_does_not_have(
        self, tmp_path: Path, host: Path, record: ABIRecord, capsys: Output
    ) -> None:
        sve = "<cpu mode='host-passthrough'><feature policy='require' name='sve512'/></cpu>"
        (tmp_path / "guest.xml").write_bytes(domain_xml(cpu=sve))
        found = self.no(record_file(tmp_path, record), host, capsys, "--xml", str(tmp_path / "guest.xml"))
        assert set(found) == {"cpu-feature-unsupported"}


PMU_OFF = "<cpu mode='host-passthrough'><feature policy='disable' name='pmu'/></cpu>"


class TestWithoutXML:
    """A record alone does not say how much memory the guest has, which decides about its memory map."""

    def test_that_is_said(self, tmp_path: Path, host: Path, record: ABIRecord, capsys: Output) -> None:
        argv = ["check-migration", record_file(tmp_path, record), "--to", str(host)]
        main(argv)
        said = capsys.readouterr().err
        assert (said.count("\n"), "without --xml" in said, "1 GiB" in said) == (1, True, True)
        (tmp_path / "guest.xml").write_bytes(domain_xml())
        assert main([*argv, "--xml", str(tmp_path / "guest.xml")]) == 0
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        "arguments",
        [(), ("-machine", "its=off"), ("-cpu", "host,kvm-steal-time=off")],
    )
    def test_the_guest_is_the_records(
        self, tmp_path: Path, host: Path, arguments: tuple[str, ...], capsys: Output
    ) -> None:
        """What it was booted without it does not get there."""
        guest = record_file(tmp_path, boot(SMALL, domain(*arguments)))
        assert main(["check-migration", guest, "--to", str(host)]) == 0
        assert capsys.readouterr().out.count("\n") == 1


def test_a_record_that_does_not_belong_to_the_xml(
    tmp_path: Path, host: Path, record: ABIRecord, capsys: Output
) -> None:
    (tmp_path / "guest.xml").write_bytes(domain_xml(vcpus=8))
    argv = ["check-migration", record_file(tmp_path, with_value(record, MMFR1, 0)), "--to", str(host)]
    assert main([*argv, "--xml", str(tmp_path / "guest.xml")]) == 0
    assert "warning: " in (said := capsys.readouterr().out)
    assert "[record-of-another-boot]" in said


def test_a_guest_that_has_moved_brings_the_registers_of_the_host_it_is_on(
    tmp_path: Path, host: Path, record: ABIRecord, capsys: Output
) -> None:
    more = SMALL.with_registers(TCR2_EL1=Register())
    (tmp_path / "source.json").write_text(json.dumps(document(more)))
    argv = ["check-migration", record_file(tmp_path, record), "--to", str(host)]
    assert main([*argv, "--from", str(host)]) == 0
    assert main([*argv, "--from", str(tmp_path / "source.json")]) == 1
    assert "this kernel has no TCR2_EL1, which the guest brings along" in capsys.readouterr().out


class TestFileOrDomain:
    """Which it is, the argument alone tells, and never what lies in the folder."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: ABIRecord) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(sys.modules, "libvirt", None)
        for name in ("web1", "web1.json"):
            (tmp_path / name).write_text(json.dumps(to_document(record)))

    @pytest.mark.parametrize("argument", [["./web1"], ["web1.json"], ["--file", "web1"], ["-"]])
    def test_a_file(self, host: Path, argument: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(Path("web1").read_bytes())))
        assert main(["check-migration", *argument, "--to", str(host)]) == 0

    def test_a_domain(self, host: Path, capsys: Output) -> None:
        assert main(["check-migration", "web1", "--to", str(host)]) == 2
        assert "libvirt's Python module is missing" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"document": "something else"}', '{"a":' * 100000])
def test_a_file_that_is_no_such_document(
    tmp_path: Path, host: Path, record: ABIRecord, capsys: Output, content: str
) -> None:
    (tmp_path / "bad.json").write_text(content)
    (tmp_path / "guest.xml").write_bytes(domain_xml())
    good = record_file(tmp_path, record)
    for guest, to in ((str(tmp_path / "bad.json"), str(host)), (good, str(tmp_path / "bad.json"))):
        assert main(["check-migration", guest, "--to", to, "--xml", str(tmp_path / "guest.xml")]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1


def test_a_host_that_is_not_there(tmp_path: Path, capsys: Output) -> None:
    assert main(["check-migration", record_file(tmp_path, RECORD), "--to", str(tmp_path / "none.json")]) == 2
    assert "No such file" in capsys.readouterr().err


HOSTDEV = b"""
    <hostdev mode='subsystem' type='pci'>
      <source><address domain='0' bus='1' slot='0' function='0'/></source>
      %s
    </hostdev>
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
    tmp_path: Path,
    host: Path,
    record: ABIRecord,
    capsys: Output,
    teaming: bytes,
    gicv4: str | None,
    status: int,
    names: list[str],
) -> None:
    source = json.loads(host.read_text())
    source["gic"]["direct_injection"] = {"gicv4": gicv4, "enabled": gicv4 is not None}
    (tmp_path / "source.json").write_text(json.dumps(source))
    xml = domain_xml(emulator=QEMU).replace(b"</devices>", HOSTDEV % teaming + b"</devices>")
    (tmp_path / "guest.xml").write_bytes(xml)
    argv = ["check-migration", record_file(tmp_path, record), "--to", str(host)]
    argv += ["--from", str(tmp_path / "source.json"), "--xml", str(tmp_path / "guest.xml")]
    assert main(argv) == status
    assert re.findall(r"\[([a-z-]+)\]", capsys.readouterr().out) == names


@pytest.mark.parametrize(
    ("release", "version", "booted", "sender"),
    [
        ("10.0.13", (10, 0), "7.2.22", "10.0.13"),
        ("", (10, 0), "10.0.13", "10.0.13"),
        ("", (10, 0), "10.0", "10.0"),
        ("", (10, 0), "10.01.1", "10.0"),
        ("", None, "10.0.13", "unknown"),
    ],
)
def test_the_sources_qemu(release: str, version: tuple[int, int] | None, booted: str, sender: str) -> None:
    """Where its document has no release, it is taken for that of the boot if that is of the same version."""
    assert source_release(KnownQEMU(version=version, release=release), replace(RECORD, qemu=booted)) == sender
