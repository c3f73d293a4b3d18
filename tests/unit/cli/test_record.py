"""``vgicmgr record`` on a stand-in for libvirt."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.unit.migration.examples import RECORD
from tests.unit.migration.test_writer import HERE, Domain, marks
from vgicmgr.cli import main
from vgicmgr.domain import connection
from vgicmgr.domain.connection import Connection
from vgicmgr.migration.document import from_document
from vgicmgr.migration.record import Place, to_xml

__all__ = ["marks"]

Output = pytest.CaptureFixture[str]


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Domain:
    """The one domain of libvirt's."""
    domain = Domain()

    @contextmanager
    def connect(uri: str, *, read_only: bool = True) -> Iterator[Connection]:
        assert uri == "qemu:///system"
        yield Connection(domain, read_only=read_only)

    monkeypatch.setattr(connection, "connect", connect)
    return domain


def test_write_then_show(domain: Domain, capsys: Output) -> None:
    assert main(["record", "write", "web1"]) == 0
    assert capsys.readouterr().out == "web1: record written\n"
    assert main(["record", "write", "web1"]) == 0
    assert capsys.readouterr().out == "web1: has its record already\n"
    assert main(["record", "show", "--format", "json", "web1"]) == 0
    assert from_document(json.loads(capsys.readouterr().out)) == HERE


def test_show_for_people(domain: Domain, capsys: Output) -> None:
    domain.records[Place.BOOT] = to_xml(RECORD)
    assert main(["record", "show", "web1"]) == 0
    assert "booted     2026-11-21T08:30:00Z on Linux 6.12.107+deb13-arm64, QEMU 10.0.13" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["show", "verify"])
def test_no_record(domain: Domain, capsys: Output, verb: str) -> None:
    assert main(["record", verb, "web1"]) == 2
    assert capsys.readouterr().err == "vgicmgr: the domain has no ABI record (write it: vgicmgr record write DOMAIN)\n"


def test_a_damaged_record(domain: Domain, capsys: Output) -> None:
    domain.records[Place.BOOT] = to_xml(RECORD).replace("6.12.107", "6.12.200")
    assert main(["record", "show", "web1"]) == 2
    assert "checksum does not match" in capsys.readouterr().err
