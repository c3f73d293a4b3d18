"""``vgicmgr hook status`` counts the guests that run here, and says why one has no good record."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.migration.examples import RECORD, domain_xml
from vgicmgr import cli, dropin
from vgicmgr.dataclass import replace
from vgicmgr.domain import connection
from vgicmgr.domain.connection import Connection
from vgicmgr.dropin import State, failed_units
from vgicmgr.errors import CannotTell
from vgicmgr.migration.record import to_xml
from vgicmgr.qemu import process
from vgicmgr.qemu.process import QEMUProcess

QEMU = QEMUProcess(812, ("-name", "guest=web1"), 1_795_000_000.0, "0f3c/4711")


class Refusal(Exception):
    """What stands for libvirt.libvirtError."""


class Domain:
    """A running domain."""

    def __init__(self, xml: str, *, gone: bool = False) -> None:
        self.xml, self.gone = xml, gone

    def XMLDesc(self, flags: int) -> str:
        if self.gone:
            raise Refusal("domain is not running")
        return self.xml

    def state(self) -> tuple[int, int]:
        return (1, 1)


def guest(name: str, metadata: str = "") -> Domain:
    return Domain(domain_xml(metadata=metadata).decode().replace("web1", name))


class Host:
    """What runs on it."""

    def __init__(self) -> None:
        self.domains: list[Domain] = []
        self.error: Exception | None = None

    def listAllDomains(self, flags: int) -> list[Domain]:
        assert flags == 1
        return self.domains


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()

    @contextmanager
    def connect(uri: str) -> Iterator[Connection]:
        assert uri == "qemu:///system"
        if host.error:
            raise host.error
        yield Connection(host, read_only=True)

    libvirt = SimpleNamespace(libvirtError=Refusal, VIR_CONNECT_LIST_DOMAINS_ACTIVE=1)
    monkeypatch.setitem(sys.modules, "libvirt", libvirt)
    monkeypatch.setattr(connection, "connect", connect)
    monkeypatch.setattr(process, "find_process", lambda name, uuid: QEMU)
    monkeypatch.setattr(dropin, "state", lambda: State.INSTALLED)
    monkeypatch.setattr(dropin, "to_reload", lambda: ())
    monkeypatch.setattr(dropin, "libvirt_version", lambda: (11, 3, 0))
    monkeypatch.setattr(dropin, "installed_since", lambda: 0.0)
    monkeypatch.setattr(dropin, "failed_units", lambda: frozenset({"broken"}))
    monkeypatch.setattr("vgicmgr.cli.hook.read_policy", lambda: SimpleNamespace(findings={}))
    return host


def test_text(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.domains = [
        guest("good", to_xml(replace(RECORD, process=QEMU.identity))),
        guest("copied", to_xml(replace(RECORD, process="0f3c/1"))),
        guest("bare"),
        guest("broken"),
        Domain("<domain type='qemu'/>"),
        Domain(guest("x86").xml.replace("aarch64", "x86_64")),
        Domain("", gone=True),
    ]
    assert cli.main(["hook", "status"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, *lines = out.splitlines()
    assert first.endswith(": installed")
    assert lines[0] == (
        "4 arm64 KVM guests running: 1 with a good record, 1 with a record of another boot, 2 without a record"
    )
    assert lines[1].startswith("  'copied' with a record of another boot: it was written on 2026-11-21T08:30:00Z, and")
    assert lines[2].startswith("  'bare' without a record: the hook was not run when its QEMU was started, or the")
    assert lines[3].startswith("  'broken' without a record: the writer failed")
    assert len(lines) == 4


def test_json(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.domains = [guest("good", to_xml(replace(RECORD, process=QEMU.identity))), guest("broken")]
    assert cli.main(["hook", "status", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["drop_in"]["state"] == "installed"
    guests = document["guests"]
    assert (guests["asked"], guests["count"]) == (True, 2)
    assert guests["records"] == {"good": 1, "of-another-boot": 0, "none": 1}
    assert [(one["name"], one["record"]) for one in guests["list"]] == [("good", "good"), ("broken", "none")]


def test_nothing_runs(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["hook", "status"]) == 0
    assert capsys.readouterr().out.endswith("\n0 arm64 KVM guests running\n")


def test_without_libvirts_module(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.error = CannotTell("libvirt's Python module is missing", "install python3-libvirt")
    assert cli.main(["hook", "status"]) == 0
    assert capsys.readouterr().out.endswith(
        "\nthe guests that run here could not be counted: libvirt's Python module is missing\n"
    )
    assert cli.main(["hook", "status", "--format", "json"]) == 0
    guests = json.loads(capsys.readouterr().out)["guests"]
    assert guests == {"asked": False, "why": "libvirt's Python module is missing"}


def test_a_name_is_no_line_of_its_own(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.domains = [guest("\x9b31m")]
    cli.main(["hook", "status"])
    assert "  '\\x9b31m' without a record" in capsys.readouterr().out


class TestFailedUnits:
    """As systemd lists them, with the guests' names as systemd-escape has them."""

    def listed(self, folder: Path, *units: str, status: int = 0) -> frozenset[str]:
        lines = "".join(f"{unit} loaded failed failed ABI record\n" for unit in units)
        (folder / "list").write_text(lines)
        command = folder / "systemctl"
        command.write_text(f"#!/bin/sh\ncat '{folder}/list'\nexit {status}\n")
        command.chmod(0o755)
        return failed_units(str(command))

    def test_names(self, tmp_path: Path) -> None:
        found = self.listed(
            tmp_path,
            r"vgicmgr-record@a\x20guest\x2d1.service",
            "vgicmgr-record@web1.service",
            r"vgicmgr-record@gr\xc3\xb6\xc3\x9fe.service",
            "other.service",
        )
        assert found == {"a guest-1", "web1", "größe"}

    def test_no_systemd(self, tmp_path: Path) -> None:
        assert failed_units(str(tmp_path / "systemctl")) == frozenset()
        assert self.listed(tmp_path, "vgicmgr-record@web1.service", status=1) == frozenset()
