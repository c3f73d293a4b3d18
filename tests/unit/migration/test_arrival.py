"""What stands in an arriving guest's way, in words; the kernel is a stand-in here, and a real one in the lab."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from vgicmgr.domain.settings import DomainSettings, read_domain

from tests.unit.migration.examples import GICV2_RECORD, RECORD
from vgicmgr.dataclass import replace
from vgicmgr.findings import Finding, Severity
from vgicmgr.kvm.refusal import Refusal, register_layout
from vgicmgr.kvm.registers import PMCR_EL0, register_id
from vgicmgr.migration.arrival import findings
from vgicmgr.migration.record import ABIRecord
from vgicmgr.qemu.rules import Rules

DOMAIN: DomainSettings = read_domain(
    b"<domain type='kvm'><name>g</name><memory unit='GiB'>1</memory><os><type arch='aarch64' machine='virt-10.0'>hvm"
    b"</type></os></domain>"
)


@dataclass(frozen=True)
class Host:
    """A destination that is as the guest's first host was, and takes no value but its own of those in ``fixed``."""

    record: ABIRecord = RECORD
    fixed: dict[int, int] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    own_cpu: bool = True
    iidr_refusal: str = ""
    icc_refusal: str = ""
    its_refusal: str = ""
    counters: int = 31

    def __getattr__(self, name: str) -> object:
        return getattr(self.record, name)

    @property
    def ids(self) -> Sequence[int]:
        gone = set(map(register_id, self.without))
        return [number for number, _ in self.record.registers if number not in gone]

    def refused(self, registers: Sequence[tuple[int, int]]) -> tuple[Refusal, ...]:
        found = []
        for number, value in registers:
            here = self.fixed.get(number, value)
            if here != value:
                layout = register_layout(number)
                fields = layout.differing_fields(here, value) if layout else ()
                found.append(Refusal(number, here, value, fields, "EINVAL"))
        return tuple(found)

    def pmu_counters(self, wanted: int) -> int:
        return min(wanted, self.counters)

    def icc_ctlr_el1(self) -> int | None:
        return self.record.icc_ctlr_el1

    def gicd_iidr(self) -> int:
        return self.record.gicd_iidr

    def gits_iidr(self) -> int | None:
        return self.record.gits_iidr

    def gits_typer(self) -> int | None:
        return self.record.gits_typer

    def refuses_icc_ctlr_el1(self, value: int) -> str:
        return self.icc_refusal

    def refuses_gicd_iidr(self, value: int) -> str:
        return self.iidr_refusal

    def refuses_gits_iidr(self, value: int) -> str:
        return self.its_refusal


def judge(host: Host, record: ABIRecord = RECORD, rules: Rules = Rules.CLASSIC) -> tuple[Finding, ...]:
    return findings(record, DOMAIN, rules, host)  # type: ignore[arg-type]


def only(found: tuple[Finding, ...]) -> tuple[str, Severity, str]:
    [one] = found
    return one.name, one.severity, one.evidence


@pytest.mark.parametrize("record", [RECORD, GICV2_RECORD])
def test_a_host_like_the_first_one(record: ABIRecord) -> None:
    assert judge(Host(record), record) == ()


def test_a_field_is_named_with_both_values() -> None:
    number = register_id("ID_AA64MMFR1_EL1")
    name, severity, evidence = only(judge(Host(fixed={number: 0x20212122})))
    assert (name, severity) == ("register-value", Severity.ERROR)
    assert evidence == "ID_AA64MMFR1_EL1.XNX: guest has 1, this kernel has 2"


def test_a_pmu_of_fewer_counters_is_warned_of() -> None:
    """QEMU and the kernel let such a guest in, and it runs; what it misses, nobody tells it."""
    record = replace(RECORD, registers=(*RECORD.registers, (PMCR_EL0, 20 << 11)))
    assert judge(Host(record), record) == ()
    assert judge(Host(record, counters=20), record) == ()
    name, severity, evidence = only(judge(Host(record, counters=6), record))
    assert (name, severity) == ("pmu-counters", Severity.WARNING)
    assert evidence.startswith("PMCR_EL0.N: guest has 20 event counters, and this kernel leaves it 6")


def test_a_firmware_version_is_no_sysreg_and_has_fields_all_the_same() -> None:
    number = register_id("KVM_REG_ARM_PSCI_VERSION")
    [finding] = judge(Host(fixed={number: 0x10001}))
    assert finding.evidence == "KVM_REG_ARM_PSCI_VERSION.minor: guest has 3, this kernel has 1"
    assert "kvm-psci-version=1.1" in finding.remedy


def test_more_registers_than_can_be_read_are_counted() -> None:
    fixed = {number: value ^ 1 for number, value in RECORD.registers}
    _, _, evidence = only(judge(Host(fixed=fixed)))
    assert evidence.endswith("; and 1 more that this kernel does not take: CCSIDR_EL1[L1 data]")


def test_a_register_that_is_not_there() -> None:
    name, severity, evidence = only(judge(Host(without=("ID_AA64MMFR1_EL1",))))
    assert (name, severity) == ("register-list", Severity.ERROR)
    assert evidence == (
        "the guest has 4 registers, and this host's QEMU takes 3 at most; "
        "this kernel has no ID_AA64MMFR1_EL1, which the guest brings along"
    )


def test_a_register_that_a_newer_qemu_leaves_out() -> None:
    tcr2 = tuple(sorted((*RECORD.registers, (register_id("TCR2_EL1"), 0))))
    record = replace(RECORD, registers=tcr2)
    [classic] = judge(Host(record, without=("TCR2_EL1",)), record)
    assert classic.severity is Severity.ERROR
    assert "use a newer QEMU here" in classic.remedy
    name, severity, _ = only(judge(Host(record, without=("TCR2_EL1",)), record, Rules.TOLERANT))
    assert (name, severity) == ("register-dropped", Severity.WARNING)


def test_another_gicd_iidr_is_a_warning() -> None:
    name, severity, evidence = only(judge(Host(replace(RECORD, gicd_iidr=0x4B00243B))))
    assert (name, severity) == ("gicd-iidr", Severity.WARNING)
    assert evidence.startswith("GICD_IIDR: guest has 0x4b00343b, here it will see 0x4b00243b")


def test_its_tables_of_a_revision_that_the_kernel_has_not() -> None:
    record = replace(RECORD, gits_iidr=0x4B00543B)
    name, severity, evidence = only(judge(Host(its_refusal="EINVAL"), record))
    assert (name, severity) == ("its-abi-revision", Severity.ERROR)
    assert "ABI revision 5, and this kernel has 0 (KVM_SET_DEVICE_ATTR: EINVAL; QEMU aborts)" in evidence


def test_an_its_that_is_not_there() -> None:
    host = Host(replace(RECORD, gits_iidr=None, gits_typer=None))
    assert only(judge(host))[2] == "the guest was booted with an ITS, and here it gets none"


def test_a_cpu_interface_with_other_priority_bits() -> None:
    host = Host(replace(RECORD, icc_ctlr_el1=0x4400), icc_refusal="EINVAL")
    name, _, evidence = only(judge(host, replace(RECORD, icc_ctlr_el1=0x400)))
    assert name == "icc-ctlr"
    assert evidence.startswith("ICC_CTLR_EL1.SEIS: guest has 0, this host's GIC 1")


def test_another_gic() -> None:
    assert only(judge(Host(GICV2_RECORD)))[0] == "gic-version"


def test_stolen_time() -> None:
    assert only(judge(Host(replace(RECORD, steal_time=False))))[:2] == ("steal-time", Severity.ERROR)
    assert judge(Host(), replace(RECORD, steal_time=False)) == ()
    assert "has 4096 bytes, and QEMU makes one of 65536" in only(judge(Host(replace(RECORD, page_size=65536))))[2]


def test_shorter_vectors_break_a_guest_and_longer_ones_are_noticed() -> None:
    long, short = replace(RECORD, sve=(128, 256)), replace(RECORD, sve=(128,))
    assert only(judge(Host(short), long))[:2] == ("sve-vector-lengths", Severity.ERROR)
    assert only(judge(Host(long), short))[:2] == ("sve-vector-lengths", Severity.WARNING)


@pytest.mark.parametrize(("bits", "same"), [(52, True), (40, True), (39, False), (36, False)])
def test_a_memory_map_that_does_not_fit_the_same_way(bits: int, same: bool) -> None:
    """The high PCIe window ends at 1 TiB: 40 bits."""
    found = judge(Host(replace(RECORD, ipa_bits=bits)))
    assert [finding.name for finding in found] == ([] if same else ["memory-map"])
