"""Probing of registers, on a vCPU that takes values by the kernel's rules."""

from collections.abc import Callable

import pytest

from tests.unit.host.fakevcpu import FakeVCPU, Rule
from vgicmgr.host.documented import DocumentedVCPU
from vgicmgr.host.models import Model, Register, _model, feature_sets
from vgicmgr.host.probe import ProbeVM
from vgicmgr.kvm import uapi
from vgicmgr.kvm.idregs import layout
from vgicmgr.kvm.registers import PMCR_EL0, register_id
from vgicmgr.kvm.vm import VM

WORKAROUND_1 = uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1
WORKAROUND_2 = uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2
WORKAROUND_3 = uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3
PSCI = uapi.KVM_REG_ARM_PSCI_VERSION
MMFR2, MMFR3, SCTLR2, SCTLR, CTR, MIDR, TPIDR = map(
    register_id,
    ("ID_AA64MMFR2_EL1", "ID_AA64MMFR3_EL1", "SCTLR2_EL1", "SCTLR_EL1", "CTR_EL0", "MIDR_EL1", "TPIDR_EL1"),
)
ENABLED = 1 << 4


def level_up_to(host: int) -> Rule:
    """_1 and _3 of kvm_arm_set_fw_reg."""
    return lambda value: value <= 0xF and value <= host


def workaround_2(host: int) -> Rule:
    """kvm_arm_set_fw_reg: levels 0 (not available), 1 (unknown), 2 (available), 3 (not required), and "enabled"."""

    def takes(value: int) -> bool:
        if value & ~(0xF | ENABLED) or value & 0xF > 3 or (value & ENABLED and value & 0xF != 2):
            return False
        return host >= (3 if value & 0xF >= 2 else 0)

    return takes


def probe(vcpu: FakeVCPU) -> Model:
    here = ProbeVM(VM(-1), vcpu.as_vcpu(), vcpu.register_ids(), (), None, 0)
    return _model(here, ("KVM_ARM_VCPU_PSCI_0_2",))


def refuses(model: Model, *values: tuple[int, int]) -> list[str]:
    """What a document of this model says of a guest with these registers."""
    guest = DocumentedVCPU(None, model, 0, None, None)  # type: ignore[arg-type] # the host is not asked
    return list(map(str, guest.refused(values)))


@pytest.mark.parametrize("host", range(4))
@pytest.mark.parametrize(
    ("number", "rule"),
    [(WORKAROUND_1, level_up_to), (WORKAROUND_2, workaround_2), (WORKAROUND_3, level_up_to)],
    ids=["WORKAROUND_1", "WORKAROUND_2", "WORKAROUND_3"],
)
def test_every_level_of_a_workaround_is_judged_as_the_kernel_does(
    number: int, rule: Callable[[int], Rule], host: int
) -> None:
    takes = rule(host)
    model = probe(FakeVCPU({number: host}, {number: takes}, fixed=frozenset((number,))))
    for guest in (*range(16), *(ENABLED | level for level in range(16))):
        assert (refuses(model, (number, guest)) == []) is (takes(guest) or guest == host), hex(guest)


def test_a_level_that_is_refused_is_told_by_its_field() -> None:
    model = probe(FakeVCPU({WORKAROUND_1: 1}, {WORKAROUND_1: level_up_to(1)}, fixed=frozenset((WORKAROUND_1,))))
    assert refuses(model, (WORKAROUND_1, 2)) == [
        "KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1.level: guest has 2, this kernel has 1"
    ]


def test_an_older_psci_version_changes_both_of_its_fields() -> None:
    """kvm_arm_set_psci_fw_reg takes 0.2 and 1.0 to its own; 0.3 is no version."""
    known = (0x2, 0x10000, 0x10001, 0x10002, 0x10003)
    model = probe(FakeVCPU({PSCI: 0x10003}, {PSCI: lambda value: value in known}))
    for value in known:
        assert refuses(model, (PSCI, value)) == []
    assert refuses(model, (PSCI, 0x3)) != []
    assert refuses(model, (PSCI, 0x10004)) == ["KVM_REG_ARM_PSCI_VERSION.minor: guest has 4, this kernel has 3"]


def field_takes(name: str, field: str, own: int, values: tuple[int, ...]) -> Rule:
    """The register is fixed but for one field."""
    [bits] = [one for one in layout(name).fields if one.name == field]
    return lambda value: value & ~bits.mask == own & ~bits.mask and bits.of(value) in values


def test_a_field_that_takes_a_value_far_from_its_own() -> None:
    """set_id_aa64mmfr2_el1 takes the hardware's NV and ignores it; 0 is KVM's own."""
    model = probe(FakeVCPU({MMFR2: 0}, {MMFR2: field_takes("ID_AA64MMFR2_EL1", "NV", 0, (0, 2))}))
    assert model.registers[MMFR2].fields == (("NV", (2,)),)
    assert refuses(model, (MMFR2, 2 << 24)) == []
    assert refuses(model, (MMFR2, 3 << 24)) == ["ID_AA64MMFR2_EL1.NV: guest has 3, this kernel has 0"]


def test_all_values_of_a_field_of_six_bits_are_tried() -> None:
    own = 5 << 32
    model = probe(FakeVCPU({CTR: own}, {CTR: field_takes("CTR_EL0", "TminLine", own, tuple(range(6)))}))
    assert model.registers[CTR].fields == (("TminLine", (0, 1, 2, 3, 4)),)


def test_a_wide_field_that_takes_all_samples_takes_anything() -> None:
    rule = field_takes("MIDR_EL1", "PartNum", 0, tuple(range(1 << 12)))
    assert probe(FakeVCPU({MIDR: 0}, {MIDR: rule})).registers[MIDR].fields == (("PartNum", ()),)


def test_registers_without_fields_take_anything_or_nothing() -> None:
    model = probe(FakeVCPU({SCTLR: 1, TPIDR: 2}, {SCTLR: lambda value: value == 1}))
    assert model.registers == {SCTLR: Register(1), TPIDR: Register(2, anything=True)}


class TestRegistersThatComeAndGo:
    """Linux 7.2 lists SCTLR2_EL1 by ID_AA64MMFR3_EL1.SCTLRX of the VM (sys_regs.c, sctlr2_visibility)."""

    SCTLRX = 1 << 4

    def vcpu(self) -> FakeVCPU:
        return FakeVCPU(
            {MMFR3: self.SCTLRX, SCTLR2: 0},
            {MMFR3: field_takes("ID_AA64MMFR3_EL1", "SCTLRX", self.SCTLRX, (0, 1))},
            listed=lambda values, number: number != SCTLR2 or bool(values[MMFR3] & self.SCTLRX),
        )

    def test_probing_goes_on_to_its_end_and_says_so(self) -> None:
        model = probe(self.vcpu())
        assert set(model.registers) == {MMFR3, SCTLR2}
        assert model.depends is not None
        assert [(rule.register, rule.field, rule.value, rule.gone) for rule in model.depends] == [
            (MMFR3, "SCTLRX", 0, (SCTLR2,))
        ]

    def test_a_guest_whose_id_register_takes_the_other_away(self) -> None:
        [refusal] = refuses(probe(self.vcpu()), (MMFR3, 0), (SCTLR2, 0))
        assert refusal.startswith("SCTLR2_EL1: ")
        assert "ID_AA64MMFR3_EL1.SCTLRX" in refusal

    def test_a_guest_with_the_hosts_own(self) -> None:
        assert refuses(probe(self.vcpu()), (MMFR3, self.SCTLRX), (SCTLR2, 5)) == []

    def test_what_is_probed_is_put_back(self) -> None:
        vcpu = self.vcpu()
        before = dict(vcpu.values)
        probe(vcpu)
        assert vcpu.values == before


def test_a_listed_register_that_cannot_be_read_is_left_out() -> None:
    vcpu = FakeVCPU({TPIDR: 0})
    here = ProbeVM(VM(-1), vcpu.as_vcpu(), (TPIDR, SCTLR), (), None, 0)
    assert set(_model(here, ()).registers) == {TPIDR}


@pytest.mark.parametrize(("kernels", "kept"), [(6, 6), (31, 31)])
def test_how_many_event_counters_a_guest_may_have(kernels: int, kept: int) -> None:
    class Counting(FakeVCPU):
        def set_register(self, number: int, value: int) -> None:
            """set_pmcr of Linux 6.12: a number beyond the PMU's own is left out."""
            if number == PMCR_EL0 and value >> 11 & 0x1F > kernels:
                value = value & ~(0x1F << 11) | self.values[number] & 0x1F << 11
            super().set_register(number, value)

    assert probe(Counting({PMCR_EL0: kernels << 11})).pmu_counters == kept


class TestFeatureSets:
    def sets(self, *capabilities: str) -> list[tuple[str, ...]]:
        return list(feature_sets(lambda name: int(name in capabilities)))

    def test_a_plain_host(self) -> None:
        assert self.sets() == [("KVM_ARM_VCPU_PSCI_0_2",)]

    def test_each_with_and_without(self) -> None:
        sets = self.sets("KVM_CAP_ARM_PMU_V3", "KVM_CAP_ARM_SVE")
        assert sorted(map(sorted, sets)) == [
            ["KVM_ARM_VCPU_PMU_V3", "KVM_ARM_VCPU_PSCI_0_2"],
            ["KVM_ARM_VCPU_PMU_V3", "KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_SVE"],
            ["KVM_ARM_VCPU_PSCI_0_2"],
            ["KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_SVE"],
        ]

    def test_pointer_authentication_is_both_or_none(self) -> None:
        """kvm_vcpu_init_check_features."""
        assert self.sets("KVM_CAP_ARM_PTRAUTH_ADDRESS") == self.sets()
        both = self.sets("KVM_CAP_ARM_PTRAUTH_ADDRESS", "KVM_CAP_ARM_PTRAUTH_GENERIC")
        assert both[0][1:] == ("KVM_ARM_VCPU_PTRAUTH_ADDRESS", "KVM_ARM_VCPU_PTRAUTH_GENERIC")

    def test_a_32_bit_guest_has_sve_only_where_nobody_turns_it_off(self) -> None:
        """kvm_arch_init_vcpu asks for it all the same, and KVM refuses that set."""
        aarch32 = [
            one for one in self.sets("KVM_CAP_ARM_SVE", "KVM_CAP_ARM_EL1_32BIT") if any("32BIT" in f for f in one)
        ]
        assert aarch32 == [
            ("KVM_ARM_VCPU_EL1_32BIT", "KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_SVE"),
            ("KVM_ARM_VCPU_EL1_32BIT", "KVM_ARM_VCPU_PSCI_0_2"),
        ]
