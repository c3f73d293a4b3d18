"""``vgicmgr check-migration`` of guests that cannot leave: by the domain, by the record, by their QEMU's word."""

import json
from pathlib import Path

import pytest

from tests.fakes.hosts import NEOVERSE_N1, NESTED, HostKind
from tests.unit.migration.examples import DOMAIN, boot, document_of
from tests.unit.migration.test_departure import EL2, MTE, TAGGED
from vgicmgr.cli import main
from vgicmgr.domain.domain import Domain
from vgicmgr.migration.document import to_document
from vgicmgr.qemu import running

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def to(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The destination's document."""
    path = tmp_path_factory.mktemp("host") / "host.json"
    path.write_text(json.dumps(document_of(NEOVERSE_N1)))
    return path


def arguments(folder: Path, to: Path, domain: Domain, booted: HostKind) -> list[str]:
    """Of a guest that was booted there, by files."""
    (folder / "record.json").write_text(json.dumps(to_document(boot(booted, domain))))
    return ["check-migration", str(folder / "record.json"), "--to", str(to)]


def test_a_guest_that_may(tmp_path: Path, to: Path, capsys: Output) -> None:
    assert main(arguments(tmp_path, to, DOMAIN, NEOVERSE_N1)) == 0
    assert "would arrive" in capsys.readouterr().out


@pytest.mark.parametrize("more", [[], ["--explain"], ["--from"]])
def test_a_record_alone_tells_of_el2(tmp_path: Path, to: Path, capsys: Output, more: list[str]) -> None:
    """Though the documents know no such vCPU."""
    argv = arguments(tmp_path, to, EL2, NESTED)
    assert main([*argv, *more, *([argv[-1]] if more == ["--from"] else [])]) == 1
    assert "[not-migratable]" in capsys.readouterr().out


@pytest.mark.parametrize(("reasons", "status"), [((), 0), (("Live migration disabled due to MTE enabled",), 1)])
def test_the_guests_qemu_is_asked_by_its_monitor(
    tmp_path: Path,
    to: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
    reasons: tuple[str, ...],
    status: int,
) -> None:
    asked: list[str] = []

    def answer(address: str) -> tuple[str, ...]:
        asked.append(address)
        return reasons

    monkeypatch.setattr(running, "ask_socket_blocked_reasons", answer)
    argv = arguments(tmp_path, to, DOMAIN, NEOVERSE_N1)
    assert main([*argv, "--qmp", "/run/guest.qmp"]) == status
    assert asked == ["/run/guest.qmp"]
    output = capsys.readouterr().out
    assert all(f"the guest's QEMU blocks its migration: {reason}" in output for reason in reasons)


def test_a_record_in_a_file_has_no_qemu(tmp_path: Path, to: Path, capsys: Output) -> None:
    assert main([*arguments(tmp_path, to, DOMAIN, NEOVERSE_N1), "--ask-qemu"]) == 2
    assert "--qmp SOCKET" in capsys.readouterr().err


def test_nobody_is_asked_unless_it_is_wished(tmp_path: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt marks a domain as tainted whose monitor somebody else uses."""
    for name in ("ask_socket_blocked_reasons", "ask_domain_blocked_reasons"):
        monkeypatch.setattr(running, name, lambda *_: pytest.fail("asked"))
    assert main(arguments(tmp_path, to, DOMAIN, NEOVERSE_N1)) == 0


def test_a_record_alone_tells_of_mte(tmp_path: Path, to: Path, capsys: Output) -> None:
    """ID_AA64PFR1_EL1.MTE is 0 in a VM without KVM_CAP_ARM_MTE (arch/arm64/kvm/sys_regs.c)."""
    tagged = TAGGED.with_registers(ID_AA64PFR1_EL1=0x220)
    assert main(arguments(tmp_path, to, MTE, tagged)) == 1
    assert "[not-migratable]" in capsys.readouterr().out
