"""The state of emulated devices between two QEMUs, as the hook and a document judge it."""

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hosts import NEOVERSE_N1, HostKind
from tests.unit.migration.examples import boot, documented_host, domain, emulator, judge, with_record
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Devices, Domain, EmulatedDevice
from vgicmgr.domain.xml import read_domain
from vgicmgr.findings import Finding, Severity
from vgicmgr.host.documented import Program
from vgicmgr.migration.arrival import judge_arrival
from vgicmgr.migration.record import ABIRecord, after_move, as_migrated
from vgicmgr.qemu.rules import Rules

ERROR, WARNING = Severity.ERROR, Severity.WARNING
SMALL: HostKind = replace(NEOVERSE_N1, pmu=False, el1_32bit=False)
DISK, USB = EmulatedDevice("disk", port=True), EmulatedDevice("USB controller", virtio=False, port=True)


@pytest.fixture(scope="module")
def record() -> ABIRecord:
    return boot(SMALL, domain(machine="virt-7.2"))


def guest(folder: Path, here: str, *arguments: str, devices: tuple[EmulatedDevice, ...] = (DISK,)) -> Domain:
    """A guest with these devices, where this QEMU is installed."""
    path = emulator(folder, Rules.TOLERANT, here)
    return replace(
        domain(*arguments, machine="virt-7.2", emulator=path), devices=Devices(root_ports=2, emulated=devices)
    )


def found(
    record: ABIRecord, folder: Path, source: str, here: str, *arguments: str, **settings: Any
) -> tuple[Finding, ...]:
    return judge(replace(record, qemu=source), SMALL, guest(folder, here, *arguments, **settings))


def told(findings: tuple[Finding, ...]) -> list[tuple[str, Severity]]:
    return [(one.name, one.severity) for one in findings]


class TestKnownBreak:
    def test_long_queues_to_a_qemu_that_refuses_them(self, record: ABIRecord, tmp_path: Path) -> None:
        """G17: seen, 5 of 5 moves."""
        findings = found(record, tmp_path, "10.0.13", "11.1.3")
        assert told(findings) == [("device-state", ERROR)]
        assert "VQ 0 vring.num 1024 exceeds allocated max" in findings[0].evidence
        assert "(disk)" in findings[0].evidence
        assert "11.1.3" in findings[0].evidence

    @pytest.mark.parametrize(
        ("source", "here"),
        [
            ("7.2.22", "11.1.3"),
            ("11.1.3", "10.0.13"),
            ("11.1.3", "7.2.22"),
            ("7.2.22", "10.0.13"),
            ("10.0.13", "7.2.22"),
        ],
    )
    def test_the_moves_that_arrive(self, record: ABIRecord, tmp_path: Path, source: str, here: str) -> None:
        assert found(record, tmp_path, source, here) == ()

    def test_by_a_document_which_has_no_micro_number(self, record: ABIRecord) -> None:
        path = "/usr/bin/qemu-system-aarch64"
        host = documented_host(SMALL, {path: Program(version=(11, 1), rules=Rules.TOLERANT, psci_property=True)})
        arriving = replace(domain(machine="virt-7.2", emulator=path), devices=Devices(root_ports=2, emulated=(DISK,)))
        verdict = judge_arrival(arriving, replace(record, qemu="10.0.13"), host)
        assert told(verdict.findings) == [("device-state", ERROR)]

    def test_a_device_of_the_command_line(self, record: ABIRecord, tmp_path: Path) -> None:
        arguments = ("-device", "virtio-rng-pci,id=r")
        assert told(found(record, tmp_path, "10.0.13", "11.1.3", *arguments, devices=())) == [("device-state", ERROR)]

    def test_a_guest_without_virtio(self, record: ABIRecord, tmp_path: Path) -> None:
        assert found(record, tmp_path, "10.0.13", "11.1.3", devices=()) == ()
        assert told(found(record, tmp_path, "10.0.13", "11.1.3", devices=(USB,))) == [("device-version", WARNING)]

    def test_a_later_stable_release_is_warned_of(self, record: ABIRecord, tmp_path: Path) -> None:
        findings = found(record, tmp_path, "11.0.4", "11.1.3")
        assert told(findings) == [("device-version", WARNING)]
        assert "vring.num" in findings[0].evidence


class TestAGuestThatHasMoved:
    @pytest.mark.parametrize(
        ("booted", "sender", "verdict"),
        [
            ("10.0.13", "10.0.13", [("device-state", ERROR)]),
            ("7.2.22", "10.0.13", [("device-version", WARNING)]),
            ("10.0.13", "7.2.22", [("device-version", WARNING)]),
            ("11.1.3", "7.2.22", []),
        ],
    )
    def test_both_qemus_count(
        self, record: ABIRecord, tmp_path: Path, booted: str, sender: str, verdict: list[tuple[str, Severity]]
    ) -> None:
        moved = after_move(replace(record, qemu=booted), replace(record, qemu=sender))
        assert told(judge(moved, SMALL, guest(tmp_path, "11.1.3"))) == verdict

    def test_the_senders_is_in_the_second_record(self, record: ABIRecord) -> None:
        boots, hosts = replace(record, qemu="7.2.22"), replace(record, qemu="10.0.13")
        migrated = as_migrated(read_domain(with_record(boots, hosts)))
        assert migrated is not None
        assert (migrated.qemu, migrated.sender_qemu) == ("7.2.22", "10.0.13")
        stayed = as_migrated(read_domain(with_record(boots)))
        assert stayed is not None
        assert stayed.sender_qemu is None


class TestNotSeenTogether:
    def test_is_told_by_name(self, record: ABIRecord, tmp_path: Path) -> None:
        findings = found(record, tmp_path, "8.2.2", "11.1.3", devices=(DISK, USB))
        assert told(findings) == [("device-version", WARNING)]
        assert all(word in findings[0].evidence for word in ("8.2.2", "11.1.3", "disk, USB controller"))

    def test_an_unknown_version_is_not_a_yes(self, record: ABIRecord, tmp_path: Path) -> None:
        findings = found(record, tmp_path, "unknown", "11.1.3")
        assert told(findings) == [("device-version", WARNING)]
        assert "unknown version" in findings[0].evidence

    def test_no_noise(self, record: ABIRecord, tmp_path: Path) -> None:
        """A guest without emulated devices, and releases of one series."""
        assert found(record, tmp_path, "8.2.2", "11.1.3", devices=()) == ()
        assert found(record, tmp_path, "10.1.0", "10.1.3") == ()
