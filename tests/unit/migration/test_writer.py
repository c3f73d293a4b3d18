"""Which guest gets which record, and what is in it: libvirt is a stand-in here, and a real one in the lab."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

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
from vgicmgr.migration.record import ABIRecord, RecordKind, boot_record, read_record, same_guest, to_xml
from vgicmgr.migration.writer import take_record
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
    VIR_DOMAIN_RUNNING=1,
    VIR_DOMAIN_RUNNING_BOOTED=1,
    VIR_DOMAIN_RUNNING_MIGRATED=2,
    VIR_DOMAIN_RUNNING_RESTORED=3,
    VIR_DOMAIN_RUNNING_FROM_SNAPSHOT=4,
    VIR_DOMAIN_RUNNING_UNPAUSED=5,
    VIR_DOMAIN_RUNNING_MIGRATION_CANCELED=6,
    VIR_DOMAIN_RUNNING_POSTCOPY=10,
    VIR_DOMAIN_PAUSED=3,
    VIR_DOMAIN_PAUSED_USER=1,
    VIR_DOMAIN_PAUSED_MIGRATION=2,
    VIR_DOMAIN_PAUSED_STARTING_UP=11,
)
"""Numbers of libvirt's include/libvirt/libvirt-domain.h and virterror.h."""
RUNNING, PAUSED = LIBVIRT.VIR_DOMAIN_RUNNING, LIBVIRT.VIR_DOMAIN_PAUSED


@dataclass
class Domain:
    """A running domain, and libvirt's connection to it at once."""

    state_and_reason: tuple[int, int] = (RUNNING, LIBVIRT.VIR_DOMAIN_RUNNING_BOOTED)
    records: dict[RecordKind, str] = field(default_factory=dict)
    arch: str = "aarch64"
    active: bool = True
    busy: bool = False
    gone: bool = False
    """Since it was looked up."""

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
        return xml.replace("aarch64", self.arch)

    def getLibVersion(self) -> int:
        return 11_003_000

    def setMetadata(self, kind: int, xml: str | None, key: str, uri: str, flags: int) -> None:
        if self.busy:
            raise LIBVIRT.libvirtError("cannot acquire state change lock")
        assert (kind, flags) == (LIBVIRT.VIR_DOMAIN_METADATA_ELEMENT, LIBVIRT.VIR_DOMAIN_AFFECT_LIVE)
        kind_of_record = RecordKind(uri)
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


@pytest.fixture(autouse=True)
def marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setitem(sys.modules, "libvirt", LIBVIRT)
    pretend_arm64(monkeypatch, release="7.2.13")
    install(monkeypatch, FakeKernel(NEOVERSE_N1))
    monkeypatch.setattr(writer, "arrival_mark", lambda name: tmp_path / name)
    return tmp_path


def write(domain: Domain, name: str = "web1", *, force: bool = False) -> str:
    return writer.write_record(Connection(domain, read_only=False), name, force=force)


def with_record(record: ABIRecord = RECORD) -> dict[RecordKind, str]:
    return {RecordKind.BOOT: to_xml(record)}


def test_a_guest_that_was_booted_here() -> None:
    domain = Domain()
    assert write(domain) == "written"
    assert domain.has_this_hosts(RecordKind.BOOT)


def test_once_is_enough() -> None:
    domain = Domain(records=with_record(replace(HERE, time="earlier")))
    assert write(domain) == "kept"
    assert domain.holds(RecordKind.BOOT) == replace(HERE, time="earlier")


def test_a_cold_boot_replaces_what_an_older_definition_brought_along() -> None:
    domain = Domain(records={**with_record(), RecordKind.HOST: to_xml(RECORD, RecordKind.HOST)})
    assert write(domain) == "written"
    assert domain.has_this_hosts(RecordKind.BOOT)
    assert domain.holds(RecordKind.HOST) is None


@pytest.mark.parametrize("reason", [1, 11])
def test_a_guest_that_is_started_paused(reason: int) -> None:
    domain = Domain((PAUSED, reason))
    assert write(domain) == "written"


@pytest.mark.parametrize("state", [(RUNNING, 2), (RUNNING, 3), (RUNNING, 4), (RUNNING, 5), (RUNNING, 10), (PAUSED, 2)])
def test_a_guest_that_arrived_keeps_its_record_and_gets_this_hosts_beside_it(state: tuple[int, int]) -> None:
    domain = Domain(state, with_record())
    assert write(domain) == "moved"
    assert domain.holds(RecordKind.BOOT) == RECORD
    assert domain.has_this_hosts(RecordKind.HOST)
    assert write(domain) == "kept"


@pytest.mark.parametrize("state", [(RUNNING, 5), (PAUSED, 1)])
def test_the_hooks_mark_tells_an_arrival_when_libvirt_has_forgotten(marks: Path, state: tuple[int, int]) -> None:
    (marks / "web1").touch()
    domain = Domain(state, with_record())
    assert write(domain) == "moved"
    assert domain.holds(RecordKind.BOOT) == RECORD


def test_a_guest_that_arrived_without_a_record_gets_none_unless_asked() -> None:
    domain = Domain((RUNNING, LIBVIRT.VIR_DOMAIN_RUNNING_MIGRATED))
    assert write(domain) == "unknown-origin"
    assert domain.records == {}
    assert write(domain, force=True) == "written"


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
