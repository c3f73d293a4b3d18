"""What is said of the guests that run on a host, by what they have for a record."""

from datetime import UTC

import pytest

from tests.unit.migration.examples import RECORD, domain
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Domain
from vgicmgr.migration.origin import Origin, Told
from vgicmgr.migration.record import ABIRecord, RecordKind, to_xml
from vgicmgr.migration.survey import CLOCK_SECONDS, Seen, Standing, survey
from vgicmgr.qemu.process import QEMUProcess

STARTED = 1_795_000_000.0
QEMU = QEMUProcess(812, (), STARTED, "0f3c/4711")
HERE = Told(Origin.BOOTED_HERE, "QEMU was not started with -incoming")
ARRIVED = Told(Origin.ARRIVED, "QEMU was started with -incoming")
LONG_AGO = STARTED - 86400
OF_THIS = replace(RECORD, process=QEMU.identity)


def guest(record: ABIRecord | None = None, host: ABIRecord | None = None, uuid: str = "") -> Domain:
    metadata = (to_xml(record) if record else "") + (to_xml(host, RecordKind.HOST) if host else "")
    return replace(domain(metadata=metadata), uuid=uuid)


def only(
    guest: Domain,
    told: Told = HERE,
    process: QEMUProcess | None = QEMU,
    since: float | None = LONG_AGO,
    unit_failed: bool = False,
) -> tuple[Standing, str]:
    (found,) = survey([Seen(guest, told, process, unit_failed)], since)
    assert found.name == "web1"
    return found.standing, found.why


def test_a_good_one() -> None:
    assert only(guest(OF_THIS)) == (Standing.GOOD, "")


def test_one_that_arrived_and_was_noted() -> None:
    elsewhere = replace(RECORD, process="9999/1")
    assert only(guest(elsewhere, OF_THIS), ARRIVED) == (Standing.GOOD, "")


def test_other_guests_do_not_count() -> None:
    x86 = replace(domain(), arch="x86_64")
    emulated = replace(domain(), virt_type="qemu")
    assert survey([Seen(x86, HERE, QEMU), Seen(emulated, HERE, QEMU)], LONG_AGO) == ()


@pytest.mark.parametrize(
    ("told", "since", "unit_failed", "why"),
    [
        (HERE, LONG_AGO, True, "the writer failed"),
        (ARRIVED, LONG_AGO, False, "it arrived without one (QEMU was started with -incoming)"),
        (HERE, None, False, "the hook is not installed"),
        (HERE, STARTED + 1, False, "its QEMU was started before the hook was installed"),
        (HERE, LONG_AGO, False, "the hook was not run when its QEMU was started, or the writer failed"),
    ],
)
def test_none_and_why(told: Told, since: float | None, unit_failed: bool, why: str) -> None:
    standing, said = only(guest(), told, since=since, unit_failed=unit_failed)
    assert standing is Standing.NONE
    assert said.startswith(why)


def test_one_that_cannot_be_read() -> None:
    damaged = domain(metadata=to_xml(RECORD).replace('vcpus="4"', 'vcpus="5"'))
    standing, why = only(damaged)
    assert standing is Standing.NONE
    assert "checksum" in why
    standing, why = only(replace(domain(), metadata_unreadable="unbound prefix"))
    assert (standing, why) == (Standing.NONE, "its <metadata> cannot be read: unbound prefix")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"process": "0f3c/4710"}, "it was written on 2026-11-21T08:30:00Z, and not for the QEMU that runs now"),
        ({"process": "1f3c/4711"}, "it was written on 2026-11-21T08:30:00Z, and not for the QEMU that runs now"),
        ({"machine": "virt-11.0"}, "it is of a virt-11.0 with 4 vCPU(s)"),
        ({"vcpus": 8}, "it is of a virt-10.0 with 8 vCPU(s)"),
        ({"uuid": "another"}, "it is of the domain another"),
    ],
)
def test_of_another_boot(changes: dict[str, str], why: str) -> None:
    """'virsh dumpxml', 'virsh define' and a start without the hook (G5)."""
    record = replace(OF_THIS, **changes)  # type: ignore[arg-type]
    standing, said = only(guest(record, uuid="this one"))
    assert standing is Standing.OTHER_BOOT
    assert said.startswith(f"{why}; ")


def test_one_that_arrived_and_was_not_noted() -> None:
    standing, _ = only(guest(replace(RECORD, process="9999/1")), ARRIVED)
    assert standing is Standing.OTHER_BOOT


@pytest.mark.parametrize(
    ("seconds", "standing"),
    [(10.0, Standing.GOOD), (-CLOCK_SECONDS + 1, Standing.GOOD), (-CLOCK_SECONDS - 1, Standing.OTHER_BOOT)],
)
def test_a_record_of_a_former_version_by_its_time(seconds: float, standing: Standing) -> None:
    """It does not say for which QEMU it was written: one older than the process is of another boot."""
    from datetime import datetime

    time = datetime.fromtimestamp(STARTED + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert only(guest(replace(RECORD, time=time)))[0] is standing


def test_a_time_that_is_none() -> None:
    assert only(guest(replace(RECORD, time="earlier")))[0] is Standing.GOOD


def test_a_qemu_that_cannot_be_seen() -> None:
    assert only(guest(replace(RECORD, process="0f3c/4710")), process=None)[0] is Standing.GOOD
    assert only(guest(), process=None)[0] is Standing.NONE
