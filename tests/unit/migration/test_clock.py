"""The counter's frequency: a guest reads it once, at its boot, and nobody else looks (FAULTS G1)."""

from pathlib import Path

import pytest
from lxml import etree

from tests.fakes.hosts import NEOVERSE_N1, HostKind
from tests.fakes.kernel import FakeKernel
from tests.unit.migration.examples import DOMAIN, RECORD, boot, documented_host, judge
from vgicmgr.dataclass import replace
from vgicmgr.errors import RecordError
from vgicmgr.findings import Severity
from vgicmgr.host.counter import Measurement, same_frequency
from vgicmgr.kvm import uapi
from vgicmgr.migration.arrival import judge_arrival
from vgicmgr.migration.document import from_document, render, to_document
from vgicmgr.migration.record import ABIRecord, after_move, from_element, same_guest, to_xml

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parents[3] / "xml" / "record.rng"))
MHZ = 1_000_000


def host(megahertz: float) -> HostKind:
    """One of which nothing but the counter is another than NEOVERSE_N1's 25 MHz."""
    return replace(NEOVERSE_N1, counter_frequency=int(megahertz * MHZ))


def parsed(record: ABIRecord) -> tuple[dict[str, str], str]:
    element = etree.fromstring(to_xml(record))
    return {str(name): str(value) for name, value in element.attrib.items()}, element.text or ""


class TestArrival:
    @pytest.mark.parametrize(
        ("booted", "here", "pace"),
        [  # firmware sets it: one core comes with 25, 50 or 100 MHz, from Armv8.6 on with 1 GHz
            (25, 62.5, "2.5 times as fast"),
            (62.5, 25, "2.5 times as slow"),
            (100, 50, "2 times as slow"),
            (25, 1000, "40 times as fast"),
            (24, 25, "1.04 times as fast"),
        ],
    )
    def test_another_frequency_is_an_error_and_says_how_wrong_the_clock_would_be(
        self, booted: float, here: float, pace: str
    ) -> None:
        record = replace(boot(host(booted)), counter_frequency=int(booted * MHZ))
        [found] = judge(record, host(here))
        assert (found.name, found.severity) == ("counter-frequency", Severity.ERROR)
        assert found.evidence.endswith(f"its clock would run {pace}")
        assert f"a counter of {booted:.2f} MHz (CNTFRQ_EL0)" in found.evidence

    def test_the_same_frequency_measured_twice_is_none(self) -> None:
        assert judge(boot(host(62.5)), host(62.5)) == ()

    def test_a_guest_that_has_moved_has_the_frequency_of_its_boot(self) -> None:
        record = after_move(boot(host(25)), boot(host(50)))
        assert same_frequency(record.counter_frequency or 0, 25 * MHZ)

    def test_a_record_that_does_not_tell_is_warned_of(self) -> None:
        record = replace(boot(host(25)), counter_frequency=None)
        [found] = judge(record, host(50))
        assert (found.name, found.severity) == ("counter-frequency-unknown", Severity.WARNING)

    def test_it_is_measured_before_the_guests_counter_is_written(self) -> None:
        """Its value is far ahead of this host's, and would count as ticks."""
        record = boot(host(62.5))
        ahead = {**dict(record.registers), uapi.KVM_REG_ARM_TIMER_CNT: 1 << 60}
        kernel = FakeKernel(host(62.5))
        assert judge(replace(record, registers=tuple(sorted(ahead.items()))), kernel) == ()
        assert (uapi.KVM_REG_ARM_TIMER_CNT, 1 << 60) in kernel.written

    def test_it_is_measured_after_the_last_vcpu_was_made(self) -> None:
        """Each starts the VM's counter anew, which would count as ticks that are missing."""
        kernel = FakeKernel(host(62.5))
        assert judge(replace(boot(host(62.5)), counter_frequency=62_500_000), kernel) == ()
        assert kernel.requests["KVM_CREATE_VCPU"] > 1

    def test_no_vm_is_made_for_it(self) -> None:
        record = boot(host(62.5))
        known, unknown = FakeKernel(host(62.5)), FakeKernel(host(62.5))
        judge(record, known)
        judge(replace(record, counter_frequency=None), unknown)
        assert known.vms_made == unknown.vms_made

    def test_nobody_waits_where_there_is_nothing_to_compare_with(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def frequency(self: Measurement) -> int:
            raise AssertionError("asked")

        record = replace(boot(host(62.5)), counter_frequency=None)
        monkeypatch.setattr(Measurement, "frequency", frequency)
        judge(record, host(62.5))


class TestDocuments:
    THERE = replace(NEOVERSE_N1, pmu=False, el1_32bit=False)
    """With one set of vCPU features only, whose document is soon made."""

    @pytest.mark.parametrize(("megahertz", "found"), [(25, []), (62.5, ["counter-frequency"])])
    def test_a_document_says_what_the_hook_says(self, megahertz: float, found: list[str]) -> None:
        record = boot(replace(self.THERE, counter_frequency=int(megahertz * MHZ)))
        by_document = judge_arrival(DOMAIN, record, documented_host(self.THERE)).findings
        assert [one.name for one in by_document] == [one.name for one in judge(record, self.THERE)] == found

    def test_a_document_of_an_older_version_does_not_tell(self) -> None:
        there = documented_host(self.THERE)
        old = replace(there, capabilities=replace(there.capabilities, counter_frequency=None))
        [found] = judge_arrival(DOMAIN, boot(self.THERE), old).findings
        assert found.name == "counter-frequency-unknown"


class TestRecord:
    KNOWN = replace(RECORD, counter_frequency=62_500_000)

    def test_it_is_taken_with_the_frequency(self) -> None:
        taken = boot(host(121.875)).counter_frequency
        assert taken is not None
        assert same_frequency(taken, 121_875_000)

    @pytest.mark.parametrize("record", [RECORD, KNOWN])
    def test_both_forms_come_back_as_they_were(self, record: ABIRecord) -> None:
        assert from_element(*parsed(record)) == record
        assert from_document(to_document(record)) == record
        assert SCHEMA.validate(etree.fromstring(to_xml(record))), SCHEMA.error_log

    def test_what_older_versions_wrote_is_read(self) -> None:
        """Neither of them has a member for it, and the checksum is the one that they made of this record."""
        attributes, _ = parsed(RECORD)
        assert "counter-frequency" not in attributes
        assert attributes["checksum"] == "f88639d548f8ab738a539d858032801cb6521c5cdb72843c8f96417c0e4126c8"
        document = to_document(RECORD)
        del document["counter_frequency"]
        assert from_document(document) == RECORD

    @pytest.mark.parametrize("word", ["", "0", "-1", "62.5", "1e9", "100000000001", "٦٢"])
    def test_a_frequency_that_is_none(self, word: str) -> None:
        attributes, text = parsed(self.KNOWN)
        with pytest.raises(RecordError):
            from_element({**attributes, "counter-frequency": word}, text)

    @pytest.mark.parametrize("value", [0, -1, 62.5, True, "62500000", [], 10**12])
    def test_a_documents_frequency_that_is_none(self, value: object) -> None:
        with pytest.raises(RecordError):
            from_document({**to_document(RECORD), "counter_frequency": value})

    def test_an_older_reader_finds_the_checksum_that_it_computes(self) -> None:
        """It does not know the attribute; a guest may move to a host that is upgraded later."""
        attributes, text = parsed(self.KNOWN)
        del attributes["counter-frequency"]
        assert from_element(attributes, text) == RECORD

    def test_it_is_shown(self) -> None:
        assert "counter    62.50 MHz\n" in render(self.KNOWN)
        assert "counter    not known\n" in render(RECORD)

    def test_two_measurements_of_one_frequency_are_one_guest_and_another_frequency_is_another(self) -> None:
        assert same_guest(self.KNOWN, replace(self.KNOWN, counter_frequency=62_510_000))
        assert same_guest(replace(self.KNOWN, counter_frequency=62_510_000), self.KNOWN)
        assert not same_guest(self.KNOWN, replace(self.KNOWN, counter_frequency=25_000_000))
        assert not same_guest(self.KNOWN, RECORD)
        assert not same_guest(RECORD, self.KNOWN)
