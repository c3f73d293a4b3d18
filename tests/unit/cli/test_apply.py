"""``vgicmgr apply``: what is shown, asked, kept and defined; with a libvirt of the test's own.

With the real libvirt: ``tests/lab/test_translate.py``.
"""

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.unit.host.examples import ROOMY
from vgicmgr.cli import main
from vgicmgr.cli.apply import keep
from vgicmgr.dataclass import replace
from vgicmgr.domain import connection
from vgicmgr.domain.connection import LibvirtError
from vgicmgr.findings import Verdict
from vgicmgr.host.document import to_document

EXAMPLES = Path(__file__).parents[3] / "xml"
WISHES = (EXAMPLES / "guest-wishes.xml").read_bytes()


@dataclass
class Libvirt:
    """One domain, and what was asked for it."""

    xml: bytes = WISHES
    defined: list[bytes] = field(default_factory=list)
    read_only: bool = False
    refusal: str = ""

    def domain_xml(self, name: str, *, persistent: bool = False) -> bytes:
        assert persistent
        if name != "appliance":
            raise LibvirtError(f"domain '{name}': not found")
        return self.xml

    def define(self, xml: bytes) -> None:
        assert not self.read_only
        if self.refusal:
            raise LibvirtError(self.refusal)
        self.defined.append(xml)

    def emulator_version(self) -> tuple[int, int]:
        return 10, 0


@pytest.fixture
def libvirt(monkeypatch: pytest.MonkeyPatch) -> Libvirt:
    fake = Libvirt()

    @contextmanager
    def connect(uri: str = "", *, read_only: bool = True) -> Iterator[Libvirt]:
        fake.read_only = read_only
        yield fake

    monkeypatch.setattr(connection, "connect", connect)
    return fake


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    host = replace(ROOMY, capabilities={**ROOMY.capabilities, "KVM_CAP_MAX_VCPUS": 512})
    (tmp_path / "host.json").write_text(json.dumps(to_document(host, Verdict())))
    return ["apply", "appliance", "--host", str(tmp_path / "host.json"), "--backup", str(tmp_path / "old")]


def test_a_dry_run_shows_the_difference_and_changes_nothing(
    libvirt: Libvirt, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    added = [line for line in shown.splitlines() if line.startswith("+ ")]
    assert [line.strip("+ ") for line in added][1:3] == ["<qemu:arg value='-machine'/>", "<qemu:arg value='its=off'/>"]
    assert not [line for line in shown.splitlines() if line.startswith("- ")]
    assert (libvirt.defined, libvirt.read_only) == ([], True)
    assert not (tmp_path / "old").exists()


def test_yes_keeps_the_old_one_and_defines_the_new_one(libvirt: Libvirt, command: list[str], tmp_path: Path) -> None:
    assert main([*command, "--yes"]) == 0
    [kept] = (tmp_path / "old").iterdir()
    assert kept.read_bytes() == WISHES
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    [defined] = libvirt.defined
    assert b"its=off" in defined
    libvirt.xml = defined
    assert main([*command, "--yes"]) == 0
    assert len(libvirt.defined) == 1, "there was nothing left to do"


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("yes", 0), ("", 1), ("n", 1), ("Yes!", 1)])
def test_the_answer_decides(
    libvirt: Libvirt, command: list[str], monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _question: answer)
    assert main(command) == status
    assert len(libvirt.defined) == (status == 0)


@pytest.mark.parametrize("asked", [True, False])
def test_a_definition_that_was_changed_meanwhile_is_not_undone(
    libvirt: Libvirt,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    asked: bool,
) -> None:
    def change(_question: str = "") -> str:
        libvirt.xml = WISHES.replace(b">1</vcpu>", b">2</vcpu>")
        return "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", change)
    if not asked:
        monkeypatch.setattr("vgicmgr.cli.apply.difference", lambda *_: change())
    assert main(command if asked else [*command, "--yes"]) == 2
    said = capsys.readouterr().err
    assert "has changed the definition since it was read" in said
    assert "run it again" in said
    assert libvirt.defined == []
    assert not (tmp_path / "old").exists()


def test_nobody_to_ask(libvirt: Libvirt, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 2
    assert "use --yes" in capsys.readouterr().err
    assert libvirt.defined == []


def test_what_stands_against_the_domain_stops_it(
    libvirt: Libvirt, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    libvirt.xml = WISHES.replace(b'intid="23"', b'intid="22"')
    assert main([*command, "--yes"]) == 1
    assert "wish-fixed" in capsys.readouterr().err
    assert libvirt.defined == []


def test_libvirts_refusal_is_told(libvirt: Libvirt, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    libvirt.refusal = "libvirt does not take the domain"
    assert main([*command, "--yes"]) == 2
    assert "libvirt does not take the domain" in capsys.readouterr().err


def test_an_unknown_domain(libvirt: Libvirt, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", "other", *command[2:]]) == 2
    assert "'other'" in capsys.readouterr().err
    assert libvirt.defined == []


def test_the_old_ones_never_replace_each_other(tmp_path: Path) -> None:
    kept = [keep(f"<{n}/>".encode(), "../../etc/x y", tmp_path) for n in range(3)]
    assert len(set(kept)) == 3
    assert {path.parent for path in kept} == {tmp_path}
    assert [path.read_bytes() for path in kept] == [b"<0/>", b"<1/>", b"<2/>"]


def test_a_folder_that_cannot_be_written(
    libvirt: Libvirt, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old").write_text("a file")
    assert main([*command, "--yes"]) == 2
    assert "cannot be kept" in capsys.readouterr().err
    assert libvirt.defined == []
