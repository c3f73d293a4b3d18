"""What stands in an arriving guest's way: booted on one host's kernel, and judged on another's."""

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hosts import GICV2_HOST, N1_VALUES, NEOVERSE_N1, NESTED, NO_GIC, SMALL_IPA, SVE_HOST, HostKind
from tests.fakes.registers import CONSTANT, IDFields, PSCIVersion, Register, Workaround, Workaround2, core_registers
from tests.unit.migration.examples import (
    DOMAIN,
    boot,
    documented_host,
    domain,
    domain_xml,
    emulator,
    judge,
    kernel_of,
    with_record,
)
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Domain
from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import CannotTell
from vgicmgr.findings import Finding, Severity
from vgicmgr.host.assumed import ASSUMED_HOST
from vgicmgr.kvm import uapi
from vgicmgr.kvm.idregs import fields
from vgicmgr.kvm.registers import register_id
from vgicmgr.migration.arrival import check_arrival, judge_arrival, judge_incoming
from vgicmgr.migration.record import to_xml
from vgicmgr.qemu.rules import Rules

ERROR, WARNING = Severity.ERROR, Severity.WARNING
BOTH_GICS = replace(NEOVERSE_N1, gic_versions=frozenset((2, 3)))
SMALL = replace(NEOVERSE_N1, pmu=False, el1_32bit=False)
UUIDS = ("3f0a4f5e-52c2-4f0e-9a0b-6d5d1f7d4c11", "9d2b7c1a-52c2-4f0e-9a0b-6d5d1f7d4c11")
"""With one set of vCPU features only, whose document is soon made."""


def only(found: tuple[Finding, ...]) -> tuple[str, Severity, str]:
    [one] = found
    return one.name, one.severity, one.evidence


def names(found: tuple[Finding, ...]) -> list[str]:
    return [one.name for one in found]


def field_value(register: str, field: str, value: int) -> int:
    """A register with this value in the field and 0 elsewhere."""
    [found] = [one for one in fields(register) if one.name == field]
    return value << found.lsb


class TestAHostLikeTheFirst:
    """Nothing stands in the way, on any kind of host."""

    @pytest.mark.parametrize("kind", [NEOVERSE_N1, SVE_HOST, GICV2_HOST, NESTED, SMALL_IPA, BOTH_GICS])
    def test_by_its_kernel(self, kind: HostKind) -> None:
        assert judge(boot(kind), kind) == ()

    @pytest.mark.parametrize("kind", [SMALL, GICV2_HOST, replace(SMALL, ipa_limit=36)])
    def test_by_its_document(self, kind: HostKind) -> None:
        assert judge_arrival(DOMAIN, boot(kind), documented_host(kind)).findings == ()

    def test_without_a_gic_in_the_kernel(self) -> None:
        """QEMU emulates a GICv2, whose state the kernel is not asked about."""
        assert only(judge(boot(NO_GIC), NO_GIC))[:2] == ("emulated-gic", WARNING)
        found = judge_arrival(
            DOMAIN, boot(NO_GIC), documented_host(replace(NO_GIC, pmu=True, el1_32bit=False))
        ).findings
        assert only(found)[:2] == ("emulated-gic", WARNING)

    @pytest.mark.parametrize(("first", "then"), [(GICV2_HOST, NO_GIC), (NO_GIC, GICV2_HOST)])
    def test_a_gic_of_kvms_and_one_of_qemus_do_not_mix(self, first: HostKind, then: HostKind) -> None:
        """Seen between emulated hosts in both directions: libvirt says "arrived", and the guest never runs on."""
        guest, same = domain(gic="2"), first.registers
        found = judge(boot(first, guest), replace(then, registers=same, pmu=first.pmu), guest)
        assert "gic-in-kernel" in [one.name for one in found if one.severity is ERROR]

    def test_a_guest_with_el2(self) -> None:
        guest = domain("-machine", "virtualization=on")
        record = boot(NESTED, guest)
        assert "KVM_ARM_VCPU_HAS_EL2" in record.features
        assert record.value(register_id("HCR_EL2")) is not None
        assert only(judge(record, NESTED, guest))[:2] == ("not-migratable", ERROR)

    def test_a_guest_of_another_architecture_asks_no_kernel(self) -> None:
        guest = read_domain(
            b"<domain type='kvm'><name>x</name><memory>1</memory><os><type arch='x86_64'>hvm</type></os></domain>"
        )
        assert judge_incoming(guest).findings == ()


class TestTheStart:
    """A guest arrives only where it could start (QEMU makes the machine before it loads anything)."""

    def test_too_many_vcpus(self) -> None:
        guest = domain(vcpus=9, gic="2")
        record = replace(boot(GICV2_HOST), vcpus=9)
        assert only(judge(record, BOTH_GICS, guest))[:2] == ("vcpu-count", ERROR)
        assert only(judge_arrival(guest, record, documented_host(GICV2_HOST)).findings)[:2] == ("vcpu-count", ERROR)

    def test_a_gic_that_the_host_does_not_have(self) -> None:
        guest = domain(gic="2")
        record = boot(GICV2_HOST, guest)
        assert only(judge(record, SMALL, guest))[:2] == ("gic-version-unsupported", ERROR)
        found = judge_arrival(guest, record, documented_host(SMALL)).findings
        assert only(found)[:2] == ("gic-version-unsupported", ERROR)

    def test_an_its_that_the_host_does_not_have(self) -> None:
        """machvirt_init makes it, and hw/intc/arm_gicv3_its_kvm.c ends QEMU where KVM cannot."""
        assert only(judge(boot(NEOVERSE_N1), replace(NEOVERSE_N1, its=False)))[:2] == ("its-unsupported", ERROR)

    def test_what_the_command_line_has_put_right(self) -> None:
        """QEMU takes the last -cpu, and merges -machine."""
        bare = domain("-cpu", "host", cpu="")
        assert judge(boot(NEOVERSE_N1, bare), NEOVERSE_N1, bare) == ()
        other_gic = domain("-machine", "gic-version=3", gic="2")
        assert judge(boot(NEOVERSE_N1, other_gic), NEOVERSE_N1, other_gic) == ()

    def test_what_the_command_line_has_made_impossible(self) -> None:
        guest = domain("-machine", "gic-version=2")
        assert only(judge(boot(GICV2_HOST), NEOVERSE_N1, guest))[:2] == ("gic-version-unsupported", ERROR)

    def test_a_property_that_qemu_does_not_have(self, tmp_path: Path) -> None:
        """kvm-psci-version came with QEMU 11."""
        guest = domain("-cpu", "host,kvm-psci-version=1.1", emulator=emulator(tmp_path, Rules.CLASSIC))
        assert names(judge(boot(NEOVERSE_N1), NEOVERSE_N1, guest)) == ["cpu-property-unknown"]

    def test_an_assumed_host_judges_no_arrival(self) -> None:
        with pytest.raises(CannotTell, match="not by an assumed host"):
            judge_arrival(DOMAIN, boot(NEOVERSE_N1), ASSUMED_HOST)


class TestWithoutARecord:
    """What is not there, cannot be read or is not believed; the XML is judged all the same."""

    def check(self, xml: bytes, kind: HostKind = NEOVERSE_N1) -> tuple[Finding, ...]:
        with kernel_of(kind) as kernel:
            return check_arrival(read_domain(xml), kernel).findings

    def test_it_is_missing(self) -> None:
        assert only(self.check(domain_xml()))[:2] == ("missing-record", WARNING)
        assert names(self.check(domain_xml(gic="2"))) == ["gic-version-unsupported", "missing-record"]

    def test_it_is_damaged(self) -> None:
        xml = with_record(boot(NEOVERSE_N1)).replace(b'vcpus="4"', b'vcpus="5"')
        name, severity, evidence = only(self.check(xml))
        assert (name, severity) == ("record-unreadable", ERROR)
        assert "checksum" in evidence

    @pytest.mark.parametrize("broken", ["<a:app xmlns:a='a<b'/>", "<app><b></app>"])
    def test_the_metadata_around_it_cannot_be_parsed(self, broken: str) -> None:
        xml = domain_xml(metadata=to_xml(boot(NEOVERSE_N1)) + broken)
        name, severity, evidence = only(self.check(xml))
        assert (name, severity) == ("record-unreadable", ERROR)
        assert "<metadata> cannot be read" in evidence

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"machine": "virt-11.1"}, "is of machine type 'virt-10.0', the domain of 'virt-11.1'"),
            ({"vcpus": 16}, "has 4 vCPU(s), the domain 16"),
            (
                {"machine": "virt-9.0", "vcpus": 1},
                "is of machine type 'virt-10.0', the domain of 'virt-9.0', and has 4 vCPU(s), the domain 1",
            ),
        ],
    )
    def test_it_is_of_another_boot(self, changes: dict[str, Any], words: str) -> None:
        """A definition that was copied or saved from a live XML has the record of that guest."""
        other = NEOVERSE_N1.with_registers(MIDR_EL1=0x411FD070)  # by the record the guest could not arrive
        name, severity, evidence = only(self.check(with_record(boot(NEOVERSE_N1), **changes), other))
        assert (name, severity) == ("record-of-another-boot", WARNING)
        assert words in evidence

    @pytest.mark.parametrize(("record", "domain", "other"), [("a", "b", True), ("a", "a", False), ("", "b", False)])
    def test_it_is_of_another_domain(self, record: str, domain: str, other: bool) -> None:
        """virt-clone copies the metadata, and a former vgicmgr's record does not say of which domain it is."""
        ids = {"a": UUIDS[0], "b": UUIDS[1], "": ""}
        xml = with_record(replace(boot(NEOVERSE_N1), uuid=ids[record]))
        xml = xml.replace(b"</name>", f"</name><uuid>{ids[domain]}</uuid>".encode())
        found = self.check(xml)
        assert names(found) == (["record-of-another-boot"] if other else [])
        assert not other or f"is of the domain {UUIDS[0]}, and this is {UUIDS[1]}" in found[0].evidence

    def test_of_another_boot_and_impossible_besides(self) -> None:
        xml = with_record(boot(GICV2_HOST), vcpus=2, gic="2")
        assert names(self.check(xml)) == ["gic-version-unsupported", "record-of-another-boot"]

    def test_a_machine_type_without_a_version_is_any(self) -> None:
        """Of a file that libvirt has not read yet."""
        assert self.check(with_record(boot(NEOVERSE_N1), machine="virt")) == ()

    def test_one_that_is_good(self) -> None:
        assert self.check(with_record(boot(NEOVERSE_N1))) == ()
        assert self.check(with_record(boot(NEOVERSE_N1)), NEOVERSE_N1.with_registers(ACTLR_EL1=None)) != ()

    def test_a_guest_that_has_moved_sends_what_its_last_host_lists(self) -> None:
        """QEMU's list is of the host that it runs on (target/arm/kvm.c, kvm_arm_init_cpreg_list)."""
        fewer = NEOVERSE_N1.with_registers(ACTLR_EL1=None)
        assert names(self.check(with_record(boot(NEOVERSE_N1)), fewer)) == ["register-list"]
        assert self.check(with_record(boot(NEOVERSE_N1), boot(fewer)), fewer) == ()


class TestRegisterValues:
    """KVM_SET_ONE_REG of each register that both sides have."""

    def test_a_field_is_named_with_both_values(self) -> None:
        other = NEOVERSE_N1.with_registers(ID_AA64MMFR1_EL1=0x20212122)
        name, severity, evidence = only(judge(boot(NEOVERSE_N1), other))
        assert (name, severity) == ("register-value", ERROR)
        assert evidence == "ID_AA64MMFR1_EL1.XNX: guest has 1, this kernel has 2"

    def test_another_cpu_is_named_in_the_remedy(self) -> None:
        [found] = judge(boot(NEOVERSE_N1), NEOVERSE_N1.with_registers(MIDR_EL1=0x411FD070))
        assert found.name == "register-value"
        assert "the CPU that the guest was booted on (MIDR_EL1 0x413fd0c1)" in found.remedy

    def test_a_field_that_can_be_lowered_is_taken(self) -> None:
        """WRITABLE of ID_AA64MMFR1_EL1 has PAN; a guest that has less of it finds it so again."""
        less = NEOVERSE_N1.with_registers(ID_AA64MMFR1_EL1=0x10112122)
        assert judge(boot(less), NEOVERSE_N1) == ()
        assert only(judge(boot(NEOVERSE_N1), less))[2] == "ID_AA64MMFR1_EL1.PAN: guest has 2, this kernel has 1"

    def test_an_older_psci_version(self) -> None:
        older = NEOVERSE_N1.with_register_ids(
            {uapi.KVM_REG_ARM_PSCI_VERSION: Register(0x10001, PSCIVersion(newest=0x10001))}
        )
        [found] = judge(boot(NEOVERSE_N1), older)
        assert found.evidence == "KVM_REG_ARM_PSCI_VERSION.minor: guest has 3, this kernel has 1"
        assert "kvm-psci-version=1.1" in found.remedy

    def test_more_registers_than_can_be_read_are_counted_and_cache_geometry_comes_last(self) -> None:
        other = NEOVERSE_N1.with_registers(
            **{"MIDR_EL1": 1, "REVIDR_EL1": 1, "AIDR_EL1": 1, "CCSIDR_EL1[L1 data]": 1, "CCSIDR_EL1[L2 data]": 1}
        )
        _, _, evidence = only(judge(boot(NEOVERSE_N1), other))
        assert evidence.endswith(
            "; and 2 more that this kernel does not take: CCSIDR_EL1[L1 data], CCSIDR_EL1[L2 data]"
        )

    @pytest.mark.parametrize("by_document", [False, True])
    def test_a_register_that_vanishes_while_the_guests_are_written(self, by_document: bool) -> None:
        """Writing the guest's ID_AA64MMFR3_EL1 takes SCTLR2_EL1 away, which QEMU writes next: its list is the host's
        own, and what cannot be set ends the load (target/arm/machine.c, cpu_post_load)."""
        nested = SMALL.with_registers(ID_AA64MMFR3_EL1=field_value("ID_AA64MMFR3_EL1", "SCTLRX", 1))
        record = boot(SMALL)
        assert record.value(register_id("SCTLR2_EL1")) is None
        found = (
            judge_arrival(DOMAIN, record, documented_host(nested)).findings if by_document else judge(record, nested)
        )
        name, severity, evidence = only(found)
        assert (name, severity) == ("register-value", ERROR)
        assert "SCTLR2_EL1: guest has 0x0, this kernel has 0x0 and refuses (" in evidence


class TestFirmwareRegisters:
    """The kernel's word and its document's are one (arch/arm64/kvm/hypercalls.c, kvm_arm_set_fw_reg)."""

    LEVELS = (
        (uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1, Workaround(), 1, {0, 1}),
        (uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1, Workaround(), 2, {0, 1, 2}),
        (uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2, Workaround2(), 0, {0, 1}),
        (uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2, Workaround2(), 3, {0, 1, 2, 3, 0x12}),
    )

    @pytest.mark.parametrize(("number", "rule", "level", "taken"), LEVELS)
    def test_levels(self, number: int, rule: Workaround | Workaround2, level: int, taken: set[int]) -> None:
        kind = SMALL.with_register_ids({number: Register(level, rule)})
        document, record = documented_host(kind), boot(kind)
        for guest in (0, 1, 2, 3, 4, 0x10, 0x12, 0x13):
            values = tuple((one, guest if one == number else value) for one, value in record.registers)
            sent = replace(record, registers=values)
            expected = [] if guest in taken else ["register-value"]
            assert names(judge(sent, kind)) == expected, hex(guest)
            assert names(judge_arrival(DOMAIN, sent, document).findings) == expected, hex(guest)

    def test_a_value_that_the_kernel_takes_and_ignores(self) -> None:
        """Of ID_AA64MMFR2_EL1.NV it takes the hardware's own (arch/arm64/kvm/sys_regs.c, set_id_aa64mmfr2_el1)."""
        nv = field_value("ID_AA64MMFR2_EL1", "NV", 2)
        rule = IDFields(register="ID_AA64MMFR2_EL1", fields=("NV",), limits=(("NV", 2),))
        older = SMALL.with_registers(ID_AA64MMFR2_EL1=Register(0x1011 | nv, CONSTANT))
        newer = SMALL.with_registers(ID_AA64MMFR2_EL1=Register(0x1011, rule))
        assert judge(boot(older), newer) == ()
        assert judge_arrival(DOMAIN, boot(older), documented_host(newer)).findings == ()


class TestRegisterLists:
    """Registers that only one side has, by the rule of the QEMU that the domain names."""

    WITH_TCR2 = NEOVERSE_N1.with_registers(TCR2_EL1=Register())
    """As Linux before 6.13, which listed it by mistake."""

    @pytest.fixture
    def classic(self, tmp_path: Path) -> Domain:
        """The guest under a QEMU that knows no tolerances."""
        return domain(emulator=emulator(tmp_path, Rules.CLASSIC))

    @pytest.fixture
    def tolerant(self, tmp_path: Path) -> Domain:
        """The guest under one that does."""
        return domain(emulator=emulator(tmp_path, Rules.TOLERANT, "11.1.0"))

    @pytest.fixture
    def script(self, tmp_path: Path) -> Domain:
        """The guest under a program that tells nothing."""
        path = tmp_path / "qemu-wrapper"
        path.write_text('#!/bin/sh\nexec /usr/bin/qemu-system-aarch64 "$@"\n')
        return domain(emulator=str(path))

    def test_a_register_that_is_not_here(self, classic: Domain) -> None:
        name, severity, evidence = only(judge(boot(NEOVERSE_N1), NEOVERSE_N1.with_registers(ACTLR_EL1=None), classic))
        assert (name, severity) == ("register-list", ERROR)
        assert evidence == (
            "the guest has 244 registers, and this host's QEMU takes 243 at most; "
            "this kernel has no ACTLR_EL1, which the guest brings along"
        )

    def test_a_register_that_is_only_here_keeps_its_value(self, classic: Domain, tolerant: Domain) -> None:
        record = boot(NEOVERSE_N1.with_registers(ACTLR_EL1=None))
        assert judge(record, NEOVERSE_N1, classic) == judge(record, NEOVERSE_N1, tolerant) == ()

    def test_a_register_that_a_newer_qemu_leaves_out(self, classic: Domain, tolerant: Domain) -> None:
        record = boot(self.WITH_TCR2)
        [refused] = judge(record, NEOVERSE_N1, classic)
        assert (refused.name, refused.severity) == ("register-list", ERROR)
        assert "use a newer QEMU here" in refused.remedy
        name, severity, evidence = only(judge(record, NEOVERSE_N1, tolerant))
        assert (name, severity) == ("register-dropped", WARNING)
        assert "TCR2_EL1" in evidence

    def test_what_a_slip_of_qemus_lets_in_is_a_warning_by_a_name_of_its_own(self, tolerant: Domain) -> None:
        """cpu_post_load's result is that of the last such register, and TCR2_EL1 comes after ACTLR_EL1."""
        dropped, quirk = judge(boot(self.WITH_TCR2), NEOVERSE_N1.with_registers(ACTLR_EL1=None), tolerant)
        assert (dropped.name, quirk.name, quirk.severity) == ("register-dropped", "qemu-quirk", WARNING)
        assert "ACTLR_EL1" in quirk.evidence
        assert "ACTLR_EL1" not in dropped.evidence

    def test_the_last_one_counts(self, tolerant: Domain) -> None:
        other = NEOVERSE_N1.with_registers(TPIDR_EL0=None)  # after TCR2_EL1
        assert only(judge(boot(self.WITH_TCR2), other, tolerant))[:2] == ("register-list", ERROR)

    def test_an_emulator_that_tells_nothing(self, script: Domain) -> None:
        """Judged by both rules: where they agree that is the verdict."""
        assert judge(boot(NEOVERSE_N1), NEOVERSE_N1, script) == ()
        without = NEOVERSE_N1.with_registers(ACTLR_EL1=None)
        assert only(judge(boot(NEOVERSE_N1), without, script))[:2] == ("register-list", ERROR)
        name, severity, evidence = only(judge(boot(self.WITH_TCR2), NEOVERSE_N1, script))
        assert (name, severity) == ("register-rules-unknown", WARNING)
        assert "(TCR2_EL1)" in evidence

    def test_a_pmu_that_is_not_here(self, classic: Domain) -> None:
        """Where the guest's XML does not ask for one, it starts without, and has registers of it."""
        [found] = [one for one in judge(boot(NEOVERSE_N1), SMALL, classic) if one.name == "register-list"]
        assert "boot the guest with <pmu state='off'/>" in found.remedy


class TestPMUCounters:
    """PMCR_EL0.N, which the kernel lowers without a word (sys_regs.c, set_pmcr)."""

    MANY = replace(NEOVERSE_N1, pmu_counters=20, registers=core_registers(N1_VALUES, pmu_counters=20))

    def test_a_pmu_of_fewer_counters_is_warned_of(self) -> None:
        name, severity, evidence = only(judge(boot(self.MANY), NEOVERSE_N1))
        assert (name, severity) == ("pmu-counters", WARNING)
        assert evidence.startswith("PMCR_EL0.N: guest has 20 event counters, and this kernel leaves it 6")

    def test_one_of_more_is_not(self) -> None:
        assert judge(boot(NEOVERSE_N1), self.MANY) == ()


class TestGIC:
    """What hw/intc/arm_gicv3_kvm.c and arm_gicv3_its_kvm.c write, and what the guest will see."""

    @pytest.mark.parametrize(
        ("revisions", "words"),
        [({2, 3}, "(the kernel would take the guest's)"), ({2}, "(the kernel does not take the guest's (EINVAL))")],
    )
    def test_another_gicd_iidr_is_a_warning(self, revisions: set[int], words: str) -> None:
        other = replace(NEOVERSE_N1, gicd_revision=2, gicd_revisions=frozenset(revisions))
        name, severity, evidence = only(judge(boot(NEOVERSE_N1), other))
        assert (name, severity) == ("gicd-iidr", WARNING)
        assert evidence.startswith("GICD_IIDR: guest has 0x4b00343b, here it will see 0x4b00243b")
        assert words in evidence

    def test_its_tables_of_a_revision_that_the_kernel_does_not_have(self) -> None:
        record = boot(replace(NEOVERSE_N1, gits_revisions=frozenset((0, 5))))
        name, severity, evidence = only(judge(record, NEOVERSE_N1))
        assert (name, severity) == ("its-abi-revision", ERROR)
        assert "ABI revision 5, and this kernel has 0 (KVM_SET_DEVICE_ATTR: EINVAL; QEMU aborts)" in evidence

    def test_another_gits_typer_is_a_warning(self) -> None:
        name, severity, evidence = only(judge(boot(NEOVERSE_N1), replace(NEOVERSE_N1, gits_typer=0x1EF51)))
        assert (name, severity) == ("gits-typer", WARNING)
        assert evidence == "GITS_TYPER: guest has 0x1ef71, here it will see 0x1ef51"

    def test_an_its_that_the_domain_does_not_have(self) -> None:
        guest = domain("-machine", "its=off")
        with_its, without = boot(NEOVERSE_N1), boot(NEOVERSE_N1, guest)
        name, severity, evidence = only(judge(with_its, NEOVERSE_N1, guest))
        assert (name, severity) == ("its", ERROR)
        assert evidence == "the guest was booted with an ITS, and here it gets none"
        assert only(judge(without, NEOVERSE_N1))[2] == "the guest was booted without an ITS, and here it gets one"

    def test_every_word_that_switches_the_its_off(self) -> None:
        """qapi/qapi-util.c, qapi_bool_parse."""
        for word in ("off", "no", "false", "n"):
            assert boot(NEOVERSE_N1, domain("-machine", f"its={word}")).gits_iidr is None

    def test_another_gic(self) -> None:
        """Its registers are not compared with those of a GIC that they are not of."""
        [found] = judge(boot(BOTH_GICS, domain(gic="2")), BOTH_GICS, domain(gic="3"))
        assert (found.name, found.severity, found.remedy) == ("gic-version", ERROR, "set <gic version='2'/>")

    @pytest.mark.parametrize("by_document", [False, True])
    def test_a_cpu_interface_with_other_fields(self, by_document: bool) -> None:
        """vgic-sys-reg-v3.c, set_gic_ctlr, stores IDbits before it refuses A3V; what is told was read before."""
        other = replace(SMALL, icc_ctlr_el1=0x400 | 1 << 11 | 1 << 15)
        record = boot(SMALL)
        found = judge_arrival(DOMAIN, record, documented_host(other)).findings if by_document else judge(record, other)
        name, severity, evidence = only(found)
        assert (name, severity) == ("icc-ctlr", ERROR)
        assert "ICC_CTLR_EL1.IDbits: guest has 0, this host's GIC 1" in evidence
        assert "ICC_CTLR_EL1.A3V: guest has 0, this host's GIC 1" in evidence

    def test_fewer_priority_bits_are_taken(self) -> None:
        assert judge(boot(NEOVERSE_N1), replace(NEOVERSE_N1, icc_ctlr_el1=0x600)) == ()
        assert only(judge(boot(replace(NEOVERSE_N1, icc_ctlr_el1=0x600)), NEOVERSE_N1))[0] == "icc-ctlr"


class TestMachine:
    """Memory that QEMU lays out by the host, and what it does not carry over."""

    def test_stolen_time(self) -> None:
        without = replace(NEOVERSE_N1, steal_time=False)
        assert only(judge(boot(NEOVERSE_N1), without))[:2] == ("steal-time", ERROR)
        assert judge(boot(without), NEOVERSE_N1) == ()

    def test_stolen_time_that_is_switched_off(self) -> None:
        guest = domain("-cpu", "host,kvm-steal-time=off")
        record = boot(NEOVERSE_N1, guest)
        assert not record.steal_time
        assert judge(record, replace(NEOVERSE_N1, steal_time=False), guest) == ()

    def test_shorter_vectors_break_a_guest_and_longer_ones_are_noticed(self) -> None:
        short = replace(SVE_HOST, sve=(128, 256))
        assert only(judge(boot(SVE_HOST), short))[:2] == ("sve-vector-lengths", ERROR)
        assert only(judge(boot(short), SVE_HOST))[:2] == ("sve-vector-lengths", WARNING)

    @pytest.mark.parametrize(("bits", "same"), [(52, True), (40, True), (39, False), (36, False)])
    def test_a_memory_map_that_does_not_fit_the_same_way(self, bits: int, same: bool) -> None:
        """The high PCIe window ends at 1 TiB: 40 bits."""
        found = judge(boot(NEOVERSE_N1), replace(NEOVERSE_N1, ipa_limit=bits))
        assert names(found) == ([] if same else ["memory-map"])

    @pytest.mark.parametrize(
        ("option", "gib", "source", "bits", "same"),
        [
            ("highmem=off", 1, 48, 36, True),  # nothing above 4 GiB
            ("highmem-mmio=off", 1, 48, 39, True),  # ECAM and redistributors lie at 256 GiB
            ("highmem-mmio=off", 600, 40, 48, True),
            ("highmem-ecam=on", 600, 40, 48, False),  # the window of 512 GiB has no place below 1 TiB there
            ("highmem-mmio-size=1T", 1, 48, 40, False),
            ("highmem-mmio-size=512G", 1, 48, 40, True),
        ],
    )
    def test_the_map_is_the_guests_own_machines(
        self, option: str, gib: int, source: int, bits: int, same: bool
    ) -> None:
        """hw/arm/virt.c, virt_set_high_memmap, by the machine's properties."""
        guest = domain("-machine", option, memory_gib=gib)
        record = boot(replace(NEOVERSE_N1, ipa_limit=source), guest)
        found = judge(record, replace(NEOVERSE_N1, ipa_limit=bits), guest)
        assert names(found) == ([] if same else ["memory-map"])
