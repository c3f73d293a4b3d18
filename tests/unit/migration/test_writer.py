"""Which guest gets which record, and what is in it: libvirt is a stand-in here, and a real one in the lab."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes.hosts import NEOVERSE_N1, NESTED, NO_GIC, SMALL_IPA
from tests.fakes.kernel import FakeKernel, install, pretend_arm64
from tests.unit.migration.examples import RECORD, boot, domain_xml, emulator, kernel_of
from tests.unit.migration.examples import domain as guest_of
from vgicmgr.dataclass import replace
from vgicmgr.domain.connection import Connection, LibvirtError
from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import RecordError
from vgicmgr.kvm.errors import KvmUnavailable
from vgicmgr.kvm.registers import register_id
from vgicmgr.migration import writer
from vgicmgr.migration.origin import Paused, Running, State
from vgicmgr.migration.record import ABIRecord, RecordKind, boot_record, read_record, same_guest, to_xml
from vgicmgr.migration.writer import take_record
from vgicmgr.qemu.process import QEMUProcess
from vgicmgr.qemu.rules import Rules

HERE = boot(NEOVERSE_N1)
"""What a guest booted on this host has."""


class Refusal(Exception):
    """What stands for libvirt.libvirtError."""

    def get_error_code(self) -> int:
        return LIBVIRT.VIR_ERR_NO_DOMAIN if self.args[0] == "no domain" else 38


LIBVIRT = SimpleNamespace(
    libvirtError=Refusal,
    VIR_ERR_NO_DOMAIN=42,
    VIR_DOMAIN_METADATA_ELEMENT=2,
    VIR_DOMAIN_AFFECT_LIVE=1,
)
"""Numbers of libvirt's include/libvirt/libvirt-domain.h and virterror.h."""
RUNNING, PAUSED = State.RUNNING, State.PAUSED
UUID = "3f0a4f5e-52c2-4f0e-9a0b-6d5d1f7d4c11"
BOOT = QEMUProcess(812, ("-name", "guest=web1"), 1.0, "0f3c/4711")
"""A QEMU that libvirt has started to boot a guest."""
INCOMING = replace(BOOT, arguments=("-name", "guest=web1", "-incoming", "defer"))
"""One that takes a guest over."""


@dataclass
class Domain:
    """A running domain, and libvirt's connection to it at once."""

    state_and_reason: tuple[int, int] = (RUNNING, Running.BOOTED)
    records: dict[RecordKind, str] = field(default_factory=dict)
    arch: str = "aarch64"
    active: bool = True
    busy: bool = False
    gone: bool = False
    """Since it was looked up."""
    after_its_job: tuple[int, int] | None = None
    """State and reason when libvirt has done what it was at, and takes the record."""

    def lookupByName(self, name: str) -> "Domain":
        if name != "web1":
            raise LIBVIRT.libvirtError("no domain")
        return self

    lookupByUUIDString = lookupByName  # noqa: N815

    def isActive(self) -> bool:
        return self.active

    def state(self) -> tuple[int, int]:
        return self.state_and_reason

    def XMLDesc(self, flags: int) -> str:
        if self.gone:
            raise LIBVIRT.libvirtError("domain is not running")
        xml = domain_xml(metadata="".join(self.records.values())).decode()
        return xml.replace("aarch64", self.arch).replace("</name>", f"</name><uuid>{UUID}</uuid>")

    def getLibVersion(self) -> int:
        return 11_003_000

    def setMetadata(self, kind: int, xml: str | None, key: str, uri: str, flags: int) -> None:
        if self.busy:
            raise LIBVIRT.libvirtError("cannot acquire state change lock")
        assert (kind, flags) == (LIBVIRT.VIR_DOMAIN_METADATA_ELEMENT, LIBVIRT.VIR_DOMAIN_AFFECT_LIVE)
        kind_of_record = RecordKind(uri)
        self.state_and_reason = self.after_its_job or self.state_and_reason
        if xml is None:
            self.records.pop(kind_of_record, None)
        else:
            # as libvirt puts it into the namespace
            self.records[kind_of_record] = xml.replace("<record", f"<{key}:record xmlns:{key}='{uri}'").replace(
                "</record", f"</{key}:record"
            )

    def holds(self, kind: RecordKind) -> ABIRecord | None:
        guest = read_domain(self.XMLDesc(0).encode())
        element = guest.record if kind is RecordKind.BOOT else guest.host_record
        return read_record(element) if element else None

    def has_this_hosts(self, kind: RecordKind) -> bool:
        """Whether it holds what a guest booted here sees, whatever its counters have come to."""
        record = self.holds(kind)
        return record is not None and same_guest(record, HERE)


@dataclass
class Surroundings:
    """What of the host tells where a guest was booted."""

    process: QEMUProcess | None = BOOT
    marked: bool = False


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    monkeypatch.setitem(sys.modules, "libvirt", LIBVIRT)
    pretend_arm64(monkeypatch, release="7.2.13")
    install(monkeypatch, FakeKernel(NEOVERSE_N1))
    host = Surroundings()
    monkeypatch.setattr(writer, "find_process", lambda name, uuid: host.process if uuid == UUID else None)
    monkeypatch.setattr("vgicmgr.migration.marks.is_marked", lambda name: host.marked)
    return host


def write(domain: Domain, name: str = "web1", *, force: bool = False) -> str:
    return writer.write_record(Connection(domain, read_only=False), name, force=force)


def with_record(record: ABIRecord = RECORD) -> dict[RecordKind, str]:
    return {RecordKind.BOOT: to_xml(record)}


def test_a_guest_that_was_booted_here() -> None:
    domain = Domain()
    assert write(domain) == "written"
    assert domain.has_this_hosts(RecordKind.BOOT)


def test_a_record_says_what_it_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = Domain()
    write(domain)
    record = domain.holds(RecordKind.BOOT)
    assert record is not None
    assert (record.uuid, record.host, record.process) == (UUID, os.uname().nodename, "0f3c/4711")


def test_once_is_enough() -> None:
    domain = Domain()
    write(domain)
    before = domain.records.copy()
    assert write(domain) == "kept"
    assert domain.records == before


@pytest.mark.parametrize("change", [{"uuid": "another"}, {"process": "0f3c/4710"}, {"process": "", "uuid": ""}])
def test_a_record_of_another_boot_that_says_the_same_is_replaced(change: dict[str, Any]) -> None:
    """By 'virsh dumpxml', 'virsh define' and a start; or it is of a former vgicmgr."""
    of_this_boot = replace(HERE, uuid=UUID, process=BOOT.identity)
    domain = Domain(records=with_record(replace(of_this_boot, **change)))
    assert write(domain) == "written"
    record = domain.holds(RecordKind.BOOT)
    assert record is not None
    assert (record.uuid, record.process) == (UUID, BOOT.identity)


def test_a_record_is_kept_where_its_process_cannot_be_seen(host: Surroundings) -> None:
    host.process = None
    domain = Domain(records=with_record(replace(HERE, uuid=UUID, process=BOOT.identity)))
    assert write(domain) == "kept"


def test_a_cold_boot_replaces_what_an_older_definition_brought_along() -> None:
    domain = Domain(records={**with_record(), RecordKind.HOST: to_xml(RECORD, RecordKind.HOST)})
    assert write(domain) == "written"
    assert domain.has_this_hosts(RecordKind.BOOT)
    assert domain.holds(RecordKind.HOST) is None


@pytest.mark.parametrize("reason", [Paused.USER, Paused.STARTING_UP])
def test_a_guest_that_is_started_paused(reason: Paused) -> None:
    domain = Domain((PAUSED, reason))
    assert write(domain) == "written"


def test_a_mark_is_not_believed_of_a_guest_that_was_booted_here(host: Surroundings) -> None:
    """An arrival that libvirt gave up left it (G4)."""
    host.marked = True
    domain = Domain(records=with_record())
    assert write(domain) == "written"
    assert domain.has_this_hosts(RecordKind.BOOT)


ANY_REASON = [*((RUNNING, reason) for reason in Running), *((PAUSED, reason) for reason in Paused)]


@pytest.mark.parametrize("state", ANY_REASON)
@pytest.mark.parametrize("marked", [True, False])
def test_a_guest_that_arrived_never_counts_as_booted_here(
    host: Surroundings, state: tuple[int, int], marked: bool
) -> None:
    """Suspended, resumed, saved in vain, rebooted by libvirt: its QEMU was started with -incoming (G4)."""
    host.process, host.marked = INCOMING, marked
    assert write(Domain(state)) == "unknown-origin"
    domain = Domain(state, with_record())
    assert write(domain) == "moved"
    assert domain.holds(RecordKind.BOOT) == RECORD
    assert domain.has_this_hosts(RecordKind.HOST)
    assert write(domain) == "kept"


@pytest.mark.parametrize("state", [state for state in ANY_REASON if state != (RUNNING, Running.BOOTED)])
def test_a_record_is_not_replaced_on_the_word_of_a_pause(state: tuple[int, int]) -> None:
    domain = Domain(state, with_record())
    assert write(domain) == "moved"
    assert domain.holds(RecordKind.BOOT) == RECORD


def test_a_pause_takes_nothing_from_a_record_of_this_very_boot() -> None:
    domain = Domain()
    write(domain)
    before = domain.records.copy()
    domain.state_and_reason = (RUNNING, Running.UNPAUSED)
    assert write(domain) == "kept"
    assert domain.records == before


def test_a_record_of_this_very_boot_is_never_replaced_unless_asked() -> None:
    """QEMU's program may have been brought up to date under the guest that runs."""
    record = replace(RECORD, uuid=UUID, process=BOOT.identity)
    domain = Domain(records=with_record(record))
    assert write(domain) == "kept"
    assert domain.holds(RecordKind.BOOT) == record
    assert write(domain, force=True) == "written"
    assert domain.has_this_hosts(RecordKind.BOOT)


def test_a_guest_that_was_paused_and_has_no_record_yet_gets_one() -> None:
    """vgicmgr was installed after its start."""
    assert write(Domain((RUNNING, Running.UNPAUSED))) == "written"


def test_a_snapshot_that_is_loaded_meanwhile() -> None:
    """libvirt starts QEMU paused and loads it then; it takes a record only after that."""
    domain = Domain((PAUSED, Paused.USER), after_its_job=(RUNNING, Running.FROM_SNAPSHOT))
    assert write(domain) == "unknown-origin"
    assert domain.records == {}


@pytest.mark.parametrize(
    "state",
    [(RUNNING, Running.MIGRATED), (RUNNING, Running.RESTORED), (RUNNING, Running.UNPAUSED), (PAUSED, Paused.USER)],
)
def test_without_a_command_line_and_a_mark_a_guest_without_a_record_gets_none(
    host: Surroundings, state: tuple[int, int]
) -> None:
    host.process = None
    domain = Domain(state)
    assert write(domain) == "unknown-origin"
    assert domain.records == {}
    assert write(domain, force=True) == "written"


def test_without_a_command_line_libvirt_tells_a_boot(host: Surroundings) -> None:
    host.process = None
    assert write(Domain()) == "written"


def test_without_a_command_line_the_mark_tells_an_arrival_when_libvirt_has_forgotten(host: Surroundings) -> None:
    host.process, host.marked = None, True
    domain = Domain((RUNNING, Running.UNPAUSED), with_record())
    assert write(domain) == "moved"
    assert domain.holds(RecordKind.BOOT) == RECORD


def test_a_bad_record_of_a_guest_that_was_booted_here_is_replaced() -> None:
    domain = Domain(records={RecordKind.BOOT: to_xml(RECORD).replace('version="1"', 'version="9"')})
    assert write(domain) == "written"


def test_another_guest() -> None:
    domain = Domain(arch="x86_64")
    assert write(domain) == "not-needed"


def test_a_busy_domain() -> None:
    with pytest.raises(LibvirtError, match="libvirt does not take the ABI record: cannot acquire state change lock"):
        write(Domain(busy=True))


def test_no_such_domain_or_one_that_does_not_run() -> None:
    with pytest.raises(LibvirtError, match="domain 'other': no domain"):
        write(Domain(), "other")
    with pytest.raises(LibvirtError, match="domain 'web1' does not run"):
        write(Domain(active=False))


def test_a_guest_that_ends_meanwhile() -> None:
    with pytest.raises(LibvirtError, match="domain 'web1': domain is not running"):
        write(Domain(gone=True))


class TestRetries:
    """One policy of retries, whoever starts the writer; a guest that is gone is no failure (I3)."""

    @pytest.fixture
    def pauses(self) -> list[float]:
        return []

    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Domain], None]:
        def open_(domain: Domain) -> None:
            @contextmanager
            def connect(uri: str, *, read_only: bool) -> Iterator[Connection]:
                assert (uri, read_only) == ("qemu:///system", False)
                yield Connection(domain, read_only=read_only)

            monkeypatch.setattr(writer, "connect", connect)

        return open_

    def test_a_guest_that_is_gone(self, opened: Callable[[Domain], None], pauses: list[float]) -> None:
        opened(Domain(active=False))
        assert writer.write_when_free("web1", sleep=pauses.append) == "gone"
        assert writer.write_when_free("never there", sleep=pauses.append) == "gone"
        assert pauses == []
        assert writer.main("web1") == 0

    def test_one_that_ends_meanwhile(self, opened: Callable[[Domain], None]) -> None:
        domain = Domain(gone=True)

        def ends(_: float) -> None:
            domain.active = False

        opened(domain)
        assert writer.write_when_free("web1", sleep=ends) == "gone"

    def test_libvirt_is_busy_for_a_while(self, opened: Callable[[Domain], None]) -> None:
        domain = Domain(busy=True)

        def free(_: float) -> None:
            domain.busy = False

        opened(domain)
        assert writer.write_when_free("web1", sleep=free) == "written"

    def test_libvirt_stays_busy(self, opened: Callable[[Domain], None], pauses: list[float]) -> None:
        opened(Domain(busy=True))
        with pytest.raises(LibvirtError, match="cannot acquire state change lock"):
            writer.write_when_free("web1", sleep=pauses.append)
        assert len(pauses) == writer.TRIES - 1
        assert sum(pauses) < 20

    def test_what_waiting_does_not_mend(
        self, opened: Callable[[Domain], None], pauses: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*args: object, **kwargs: object) -> ABIRecord:
            raise RecordError("no record can be taken")

        monkeypatch.setattr(writer, "take_record", fails)
        opened(Domain())
        with pytest.raises(RecordError):
            writer.write_when_free("web1", sleep=pauses.append)
        assert pauses == []
        assert writer.main("web1") == 1


class TestWhatIsTaken:
    """The record of a domain is made by its XML, its QEMU and the kernel alone."""

    def test_versions(self, tmp_path: Path) -> None:
        """Of the domain's own emulator, not of libvirt's default one."""
        for rules, version in ((Rules.CLASSIC, "10.0.13"), (Rules.TOLERANT, "11.1.3")):
            record = boot(NEOVERSE_N1, guest_of(emulator=emulator(tmp_path, rules, version)))
            assert record.qemu == version
        assert boot(NEOVERSE_N1, guest_of(emulator="/nonexistent")).qemu == "unknown"
        assert (record.kernel, record.libvirt) == ("6.12.0", "11.3.0")

    def test_the_versions_of_a_running_guest(self) -> None:
        domain = Domain()
        write(domain)
        record = domain.holds(RecordKind.BOOT)
        assert record is not None
        assert (record.kernel, record.libvirt) == ("7.2.13", "11.3.0")

    def test_of_the_command_line(self) -> None:
        """The last -cpu and the merged -machine are what the guest is made with."""
        plain = boot(NEOVERSE_N1)
        changed = boot(NEOVERSE_N1, guest_of("-cpu", "host,pmu=off", "-machine", "its=no"))
        assert set(plain.features) - set(changed.features) == {"KVM_ARM_VCPU_PMU_V3"}
        assert plain.gits_iidr is not None
        assert (changed.gits_iidr, changed.gits_typer) == (None, None)
        assert register_id("PMCR_EL0") in dict(plain.registers)
        assert register_id("PMCR_EL0") not in dict(changed.registers)

    def test_machine_types_without_an_its_or_a_pmu(self) -> None:
        """hw/arm/virt.c: the ITS since 2.8, the PMU since 2.7."""
        assert boot(NEOVERSE_N1, guest_of(machine="virt-2.8")).gits_iidr is not None
        assert boot(NEOVERSE_N1, guest_of(machine="virt-2.7")).gits_iidr is None
        assert "KVM_ARM_VCPU_PMU_V3" in boot(NEOVERSE_N1, guest_of(machine="virt-2.7")).features
        assert "KVM_ARM_VCPU_PMU_V3" not in boot(NEOVERSE_N1, guest_of(machine="virt-2.6")).features

    def test_values_are_those_before_anything_was_written(self) -> None:
        assert HERE.value(register_id("MIDR_EL1")) == 0x413F_D0C1
        assert HERE.icc_ctlr_el1 == 0x400
        assert (HERE.gicd_iidr, HERE.gits_typer) == (0x4B00343B, 0x1EF71)

    def test_a_guest_with_el2(self) -> None:
        record = boot(NESTED, guest_of("-machine", "virtualization=on"))
        assert "KVM_ARM_VCPU_HAS_EL2" in record.features
        assert read_record_of(record) == record

    def test_a_host_without_a_gic(self) -> None:
        """QEMU emulates it: nothing of it is the kernel's to say."""
        record = boot(NO_GIC)
        assert (record.gic_version, record.icc_ctlr_el1, record.gits_iidr) == (2, None, None)
        assert read_record_of(record) == record

    def test_a_host_of_36_bits(self) -> None:
        """KVM_CREATE_VM of the default type is refused there."""
        assert boot(SMALL_IPA).ipa_bits == 36

    def test_a_guest_that_does_not_come_up_here(self) -> None:
        with (
            kernel_of(NEOVERSE_N1) as kernel,
            pytest.raises(RecordError, match="no record can be taken: <gic version='2'/> is"),
        ):
            take_record(guest_of(gic="2"), kernel, libvirt="11.3.0")

    def test_without_kvm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vgicmgr.kvm.system.System.__init__.__defaults__", ("/nonexistent/kvm",), raising=False)
        monkeypatch.setattr("vgicmgr.kvm.system.DEV_KVM", "/nonexistent/kvm")
        with pytest.raises(KvmUnavailable):
            write(Domain())


def read_record_of(record: ABIRecord) -> ABIRecord | None:
    """As it comes back from the domain that it is written to."""
    return boot_record(guest_of(metadata=to_xml(record)))
