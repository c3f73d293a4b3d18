"""``vgicmgr translate`` from outside: sources, formats, exit statuses, messages."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.hosts import NEOVERSE_N1
from tests.fakes.kernel import FakeKernel, installed, pretend_arm64
from tests.unit.host.examples import GICV2_ONLY, ROOMY
from vgicmgr.cli import main
from vgicmgr.cli.inputs import is_remote
from vgicmgr.dataclass import replace
from vgicmgr.findings import Verdict
from vgicmgr.host.document import to_document

EXAMPLES = Path(__file__).parents[3] / "xml"
GICV3 = str(EXAMPLES / "guest-gicv3.xml")
WISHES = str(EXAMPLES / "guest-wishes.xml")
FORMATS = ("text", "json", "qemu-args", "libvirt-xml", "calls")


def vgicmgr(*arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "vgicmgr.cli", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)


@pytest.fixture
def roomy(tmp_path: Path) -> str:
    """A host capabilities document, so that the answer is the same on every machine."""
    path = tmp_path / "host.json"
    host = replace(ROOMY, capabilities={**ROOMY.capabilities, "KVM_CAP_MAX_VCPUS": 512})
    path.write_text(json.dumps(to_document(host, Verdict())))
    return str(path)


@pytest.mark.parametrize("shape", FORMATS)
def test_every_format_of_every_source_is_the_same(shape: str, roomy: str) -> None:
    of_file = vgicmgr("translate", GICV3, "--host", roomy, "--format", shape)
    of_stdin = vgicmgr("translate", "-", "--host", roomy, "--format", shape, stdin=Path(GICV3).read_bytes())
    assert (of_file.returncode, of_file.stderr) == (0, b"")
    assert of_file.stdout == of_stdin.stdout
    assert of_file.stdout


def test_text(roomy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", GICV3, "--host", roomy]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Domain web1\n")
    assert "GIC distributor" in shown


def test_qemu_arguments_can_be_pasted(roomy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", GICV3, "--host", roomy, "--format", "qemu-args"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[1] == "-machine virt-10.0,gic-version=3 \\"


def test_libvirt_xml_leaves_a_domain_without_wishes_as_it_is(roomy: str) -> None:
    result = vgicmgr("translate", GICV3, "--host", roomy, "--format", "libvirt-xml")
    assert result.stdout == Path(GICV3).read_bytes()


def test_libvirt_xml_of_a_wish_translates_to_the_same_and_is_not_changed_again(roomy: str) -> None:
    written = vgicmgr("translate", WISHES, "--host", roomy, "--format", "libvirt-xml").stdout
    assert b"its=off" in written
    again = vgicmgr("translate", "-", "--host", roomy, "--format", "libvirt-xml", stdin=written).stdout
    assert again == written
    first = vgicmgr("translate", WISHES, "--host", roomy, "--format", "json").stdout
    assert vgicmgr("translate", "-", "--host", roomy, "--format", "json", stdin=written).stdout == first


def test_calls(roomy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", GICV3, "--host", roomy, "--format", "calls"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("KVM_CREATE_VM ")
    assert "KVM_DEV_TYPE_ARM_VGIC_ITS" in shown


def test_an_emulated_domain_has_no_calls(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", str(EXAMPLES / "guest-emulated.xml"), "--format", "calls"]) == 2
    assert "the domain is emulated" in capsys.readouterr().err


def test_the_host_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "host.json"
    path.write_text(json.dumps(to_document(GICV2_ONLY, Verdict())))
    assert main(["translate", GICV3, "--host", str(path)]) == 1
    assert "[gic-version-unsupported]\n  remedy: set <gic version='2'/>" in capsys.readouterr().out
    assert main(["translate", GICV3, "--host", str(path), "--format", "calls"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "gic-version-unsupported" in captured.err


def test_the_qemu_version_decides(roomy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    domain = tmp_path / "guest.xml"
    wish = (
        Path(WISHES)
        .read_text()
        .replace('state="off"', 'state="off"')
        .replace('controller="none"', 'controller="gicv2m"')
    )
    domain.write_text(wish)
    command = ["translate", str(domain), "--host", roomy, "--format", "qemu-args", "--qemu-version"]
    assert main([*command, "10.0.13"]) == 1
    assert "QEMU before 11.0 has an ITS, fixed" in capsys.readouterr().err
    assert main([*command, "11.1"]) == 0
    assert "msi=gicv2m" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "status"), [(b"10.0.2", 1), (b"11.1.0", 0)])
def test_the_version_of_the_domains_emulator_decides_on_its_host(
    number: bytes, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator, domain = tmp_path / "qemu", tmp_path / "guest.xml"
    emulator.write_bytes(b"\x7fELF\x02\0QEMU emulator version " + number + b"\0")
    xml = Path(WISHES).read_text().replace('controller="none"', 'controller="gicv2m"')
    domain.write_text(re.sub("<emulator>.*</emulator>", f"<emulator>{emulator}</emulator>", xml))
    pretend_arm64(monkeypatch)
    with installed(monkeypatch, FakeKernel(NEOVERSE_N1)):
        assert main(["translate", str(domain), "--format", "qemu-args"]) == status


class TestFileOrDomain:
    """Which it is, the argument alone tells, and never what lies in the folder."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(sys.modules, "libvirt", None)
        for name in ("web1", "web1.xml"):
            shutil.copy(GICV3, tmp_path / name)

    @pytest.mark.parametrize("argument", [["./web1"], ["web1.xml"], ["--file", "web1"]])
    def test_a_file(self, argument: list[str], roomy: str) -> None:
        assert main(["translate", *argument, "--host", roomy]) == 0

    @pytest.mark.parametrize("argument", [["web1"], ["-c", "test:///default", "web1.xml"]])
    @pytest.mark.parametrize("command", ["translate", "rehearse"])
    def test_a_domain(self, command: str, argument: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main([command, *argument]) == 2
        assert "libvirt's Python module is missing" in capsys.readouterr().err

    def test_not_both(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["translate", "--file", "-c", "qemu:///system", "web1"]) == 2
        assert "either --connect or --file" in capsys.readouterr().err


def test_another_vmms_map(roomy: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["translate", GICV3, "--host", roomy, "--map", str(EXAMPLES / "kvmtool.toml"), "--format", "calls"]
    assert main(command) == 0
    assert "KVM_VGIC_ITS_ADDR_TYPE = 0x3f7d0000" in capsys.readouterr().out


@pytest.mark.parametrize("shape", ["qemu-args", "libvirt-xml"])
def test_another_vmm_has_no_qemu_arguments(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", GICV3, "--map", str(EXAMPLES / "kvmtool.toml"), "--format", shape]) == 2
    assert "another VMM than QEMU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("uri", "remote"),
    [
        ("", False),
        ("qemu:///system", False),
        ("qemu+unix:///system?socket=/run/x", False),
        ("qemu+ssh://admin@host2/system", True),
        ("qemu+tcp://[2001:db8::1]:16509/system", True),
        ("qemu+tls://[bad/system", True),
    ],
)
def test_a_remote_hosts_kernel_is_not_this_ones(uri: str, *, remote: bool) -> None:
    assert is_remote(uri) is remote


@pytest.mark.skipif(os.uname().machine == "aarch64", reason="this machine's own KVM is asked")
def test_without_a_host_it_says_what_is_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", GICV3]) == 0
    assert "assumed host" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["./no-such-file.xml"], "./no-such-file.xml: No such file or directory"),
        ([str(EXAMPLES)], "Is a directory"),
        ([str(EXAMPLES / "kvmtool.toml")], "the domain XML is malformed"),
        ([GICV3, "--host", GICV3], "not a JSON document"),
        ([GICV3, "--host", "./no-such-file"], "No such file"),
        ([GICV3, "--map", GICV3], "the map file is no TOML"),
        (["/dev/null"], "the domain XML is empty"),
        (["a\0b/c"], "embedded null byte"),
    ],
)
def test_what_cannot_be_read_has_status_2_and_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["translate", *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("version", ["ten", "10", "10.x", "1.2.3.4", "٣.٣", "-1.0"])
def test_a_version_that_is_none(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["translate", GICV3, f"--qemu-version={version}"])
    assert caught.value.code == 2
    assert "not a version such as 10.0" in capsys.readouterr().err


def test_libvirt_is_not_imported_for_a_file() -> None:
    program = (
        f"import sys, vgicmgr.cli; vgicmgr.cli.main(['translate', {GICV3!r}]);"
        "loaded = {name.partition('.')[0] for name in sys.modules};"
        "print(*sorted(loaded & {'libvirt', 'lxml', 'qemu'}), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == "\n"


@settings(deadline=None)
@given(st.data(), st.sampled_from(FORMATS))
def test_a_domain_damaged_anywhere_never_crashes_it(data: st.DataObject, shape: str) -> None:
    xml = bytearray(
        Path(data.draw(st.sampled_from([GICV3, WISHES, str(EXAMPLES / "guest-sve-commandline.xml")]))).read_bytes()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(xml) - 1))
        xml[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=8))
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"vgicmgr-damaged-{os.getpid()}.xml"
    path.write_bytes(bytes(xml))
    try:
        assert main(["translate", str(path), "--format", shape]) in (0, 1, 2)
    finally:
        path.unlink()
