"""``vgicmgr record`` on a stand-in for libvirt."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.hosts import NEOVERSE_N1
from tests.unit.migration.examples import RECORD, boot
from tests.unit.migration.test_writer import HERE, Domain, host
from vgicmgr.cli import main
from vgicmgr.domain import connection
from vgicmgr.domain.connection import Connection
from vgicmgr.migration import writer
from vgicmgr.migration.document import from_document
from vgicmgr.migration.record import RecordKind, same_guest, to_xml

__all__ = ["host"]

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
    assert same_guest(from_document(json.loads(capsys.readouterr().out)), HERE)


def test_the_unit_is_not_failed_by_a_guest_that_is_gone(
    domain: Domain, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As packaging/vgicmgr-record@.service asks (I3)."""
    monkeypatch.setattr(writer, "connect", connection.connect)
    assert main(["record", "write", "--retry", "--", "web1"]) == 0
    assert capsys.readouterr().out == "web1: record written\n"
    domain.active = False
    assert main(["record", "write", "--retry", "--", "web1"]) == 0
    assert capsys.readouterr().out == "web1: no longer runs\n"
    assert main(["record", "write", "web1"]) == 2


def test_show_for_people(domain: Domain, capsys: Output) -> None:
    domain.records[RecordKind.BOOT] = to_xml(RECORD)
    assert main(["record", "show", "web1"]) == 0
    assert "booted     2026-11-21T08:30:00Z on Linux 6.12.107+deb13-arm64, QEMU 10.0.13" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["show", "verify"])
def test_no_record(domain: Domain, capsys: Output, verb: str) -> None:
    assert main(["record", verb, "web1"]) == 2
    assert capsys.readouterr().err == "vgicmgr: the domain has no ABI record (write it: vgicmgr record write DOMAIN)\n"


def test_a_damaged_record(domain: Domain, capsys: Output) -> None:
    domain.records[RecordKind.BOOT] = to_xml(RECORD).replace("6.12.107", "6.12.200")
    assert main(["record", "show", "web1"]) == 2
    assert "checksum does not match" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["show", "verify"])
def test_metadata_that_cannot_be_parsed_is_no_missing_record(domain: Domain, capsys: Output, verb: str) -> None:
    domain.records[RecordKind.BOOT] = to_xml(RECORD) + "<app><b></app>"
    assert main(["record", verb, "web1"]) == 2
    assert "<metadata> cannot be read" in capsys.readouterr().err


def test_verify(domain: Domain, capsys: Output) -> None:
    domain.records[RecordKind.BOOT] = to_xml(HERE)
    assert main(["record", "verify", "web1"]) == 0
    assert capsys.readouterr().out == "web1: could arrive on this host\n"


def test_verify_prints_the_remedy(domain: Domain, capsys: Output) -> None:
    domain.records[RecordKind.BOOT] = to_xml(boot(NEOVERSE_N1.with_registers(MIDR_EL1=0x411FD070)))
    assert main(["record", "verify", "web1"]) == 1
    finding, result = capsys.readouterr().out.splitlines()
    assert finding.startswith("error: MIDR_EL1")
    assert finding.endswith(
        "[register-value]; use a host with the CPU that the guest was booted on (MIDR_EL1 0x411fd070), or boot the "
        "guest anew here"
    )
    assert result == "web1: could not arrive on this host"
