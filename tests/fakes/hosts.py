"""Kinds of arm64 hosts, for :class:`tests.fakes.kernel.FakeKernel`: what each one's KVM can do."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.fakes.registers import Register, core_registers
from vgicmgr.dataclass import replace
from vgicmgr.kvm.registers import register_id

_FIXED = (
    "KVM_CAP_MP_STATE",
    "KVM_CAP_IRQFD",
    "KVM_CAP_VCPU_EVENTS",
    "KVM_CAP_ONE_REG",
    "KVM_CAP_SIGNAL_MSI",
    "KVM_CAP_IRQFD_RESAMPLE",
    "KVM_CAP_ARM_PSCI",
    "KVM_CAP_ARM_SET_DEVICE_ADDR",
    "KVM_CAP_DEVICE_CTRL",
    "KVM_CAP_VM_ATTRIBUTES",
    "KVM_CAP_ARM_PSCI_0_2",
    "KVM_CAP_CHECK_EXTENSION_VM",
    "KVM_CAP_VCPU_ATTRIBUTES",
    "KVM_CAP_ARM_NISV_TO_USER",
    "KVM_CAP_ARM_INJECT_EXT_DABT",
    "KVM_CAP_PTP_KVM",
    "KVM_CAP_ARM_SYSTEM_SUSPEND",
    "KVM_CAP_COUNTER_OFFSET",
    "KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES",
)


@dataclass(frozen=True)
class HostKind:
    """What one host's KVM can do. ``capabilities`` are answers by name that differ from what the rest makes of them."""

    capabilities: Mapping[str, int] = field(default_factory=dict)
    ipa_limit: int = 48
    """KVM_CAP_ARM_VM_IPA_SIZE; 0 is a kernel before 4.20, whose VMs all have 40 bits."""
    gic_versions: frozenset[int] = frozenset({3})
    its: bool = True
    pmu: bool = True
    pmu_counters: int = 6
    """Of the table ``registers`` as :func:`~tests.fakes.registers.core_registers` makes it, too."""
    pmu_types: frozenset[int] = frozenset({8})
    sve: tuple[int, ...] = ()
    """Vector lengths in bits."""
    pauth: bool = False
    el1_32bit: bool = True
    el2: bool = False
    mte: bool = False
    steal_time: bool = True
    user_irq: bool = True
    irq_line_layout_2: bool = True
    redistributor_regions: bool = True
    gicv4_1: bool = False
    cpus: int = 4
    max_vcpus: int = 512
    """Without a vGIC or with a GICv3; of a host that has only a GICv2 it is 8."""
    target: str = "KVM_ARM_TARGET_GENERIC_V8"
    """KVM_ARM_PREFERRED_TARGET; KVM_ARM_TARGET_GENERIC_V8 is taken everywhere."""
    registers: Mapping[int, Register] = field(default_factory=dict)
    gicd_revisions: frozenset[int] = frozenset({2, 3})
    gicd_revision: int = 3
    revision_is_kept: bool = True
    """False: any GICD_IIDR.Revision is taken and nothing becomes of it, as of many kernels."""
    icc_ctlr_el1: int = 0x400
    gits_revisions: frozenset[int] = frozenset({0})
    gits_typer: int = 0x1EF71
    counter_frequency: int = 25_000_000
    writable_masks: bool = True

    @property
    def vgic(self) -> bool:
        """Whether KVM has a GIC of any version."""
        return bool(self.gic_versions)

    @property
    def most_vcpus(self) -> int:
        """KVM_CAP_MAX_VCPUS of the host."""
        return 8 if self.gic_versions == {2} else self.max_vcpus

    def answers(self) -> dict[str, int]:
        """KVM_CHECK_EXTENSION by name; what is not in it is 0."""
        return {
            **dict.fromkeys(_FIXED, 1),
            "KVM_CAP_IRQCHIP": int(self.vgic),
            "KVM_CAP_IRQ_ROUTING": 4096,
            "KVM_CAP_NR_VCPUS": min(self.cpus, self.most_vcpus),
            "KVM_CAP_MAX_VCPUS": self.most_vcpus,
            "KVM_CAP_MAX_VCPU_ID": self.most_vcpus,
            "KVM_CAP_ARM_VM_IPA_SIZE": self.ipa_limit,
            "KVM_CAP_ARM_PMU_V3": int(self.pmu),
            "KVM_CAP_ARM_SVE": int(bool(self.sve)),
            "KVM_CAP_ARM_PTRAUTH_ADDRESS": int(self.pauth),
            "KVM_CAP_ARM_PTRAUTH_GENERIC": int(self.pauth),
            "KVM_CAP_ARM_EL1_32BIT": int(self.el1_32bit),
            "KVM_CAP_ARM_EL2": int(self.el2),
            "KVM_CAP_ARM_MTE": int(self.mte),
            "KVM_CAP_STEAL_TIME": int(self.steal_time),
            "KVM_CAP_ARM_USER_IRQ": int(self.user_irq),
            "KVM_CAP_ARM_IRQ_LINE_LAYOUT_2": int(self.irq_line_layout_2),
            "KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES": int(self.writable_masks),
            **self.capabilities,
        }

    def with_registers(self, **changes: Register | int | None) -> "HostKind":
        """The same host with other registers by name: a :class:`Register`, another value, or None for none.

        >>> NEOVERSE_N1.with_registers(MIDR_EL1=0x414FD0C1)
        """
        return self.with_register_ids({register_id(name): change for name, change in changes.items()})

    def with_register_ids(self, changes: Mapping[int, Register | int | None]) -> "HostKind":
        """As :meth:`with_registers`, by register id."""
        table = dict(self.registers)
        for number, change in changes.items():
            if change is None:
                table.pop(number, None)
            elif isinstance(change, Register):
                table[number] = change
            else:
                table[number] = replace(table.get(number, Register()), value=change)
        return replace(self, registers=table)


N1_VALUES = {
    "MIDR_EL1": 0x413F_D0C1,
    "CLIDR_EL1": 0x8200_0023,
    "CTR_EL0": 0x8444_C004,
    "ID_AA64PFR0_EL1": 0x1100_0000_1111_1112,
    "ID_AA64PFR1_EL1": 0x20,
    "ID_AA64DFR0_EL1": 0x1030_5408,
    "ID_AA64ISAR0_EL1": 0x0000_1000_1021_1120,
    "ID_AA64ISAR1_EL1": 0x0010_0001,
    "ID_AA64MMFR0_EL1": 0x0010_1125,
    "ID_AA64MMFR1_EL1": 0x1021_2122,
    "ID_AA64MMFR2_EL1": 0x1011,
    "ID_PFR0_EL1": 0x1001_0131,
    "ID_PFR1_EL1": 0x1001_0000,
    "ID_DFR0_EL1": 0x0401_0088,
    "ID_MMFR0_EL1": 0x1020_1105,
    "ID_MMFR1_EL1": 0x4000_0000,
    "ID_MMFR2_EL1": 0x0126_0000,
    "ID_MMFR3_EL1": 0x0212_2211,
    "ID_ISAR0_EL1": 0x0210_1110,
    "ID_ISAR1_EL1": 0x1311_2111,
    "ID_ISAR2_EL1": 0x2123_2042,
    "ID_ISAR3_EL1": 0x0111_2131,
    "ID_ISAR4_EL1": 0x0001_0142,
    "ID_ISAR5_EL1": 0x0101_1121,
    "ID_MMFR4_EL1": 0x0002_1110,
    "MVFR0_EL1": 0x1011_0222,
    "MVFR1_EL1": 0x1321_1111,
    "MVFR2_EL1": 0x43,
    "CCSIDR_EL1[L1 data]": 0x701F_E00A,
    "CCSIDR_EL1[L1 instruction]": 0x201F_E00A,
    "CCSIDR_EL1[L2 data]": 0x707F_E03A,
}

NEOVERSE_N1 = HostKind(registers=core_registers(N1_VALUES))
"""GICv3, ITS and PMU; no SVE, no pointer authentication."""

SVE_HOST = HostKind(
    sve=(128, 256, 512),
    pauth=True,
    el1_32bit=False,
    registers=core_registers(
        {
            **N1_VALUES,
            "MIDR_EL1": 0x410F_D490,
            "ID_AA64PFR0_EL1": 0x1201_1101_1111_1111,
            "ID_AA64ZFR0_EL1": 0x0000_1101_0010_0021,
            "ID_AA64ISAR1_EL1": 0x0011_1111_0121_1052 | 5 << 4,
            "ID_AA64MMFR3_EL1": 0x1111,
        }
    ),
)
"""SVE of 128, 256 and 512 bits, pointer authentication, and SCTLR2_EL1, TCR2_EL1, PIR_EL1 (FEAT_SCTLR2 …)."""

GICV2_HOST = HostKind(
    gic_versions=frozenset({2}),
    its=False,
    pmu=False,
    ipa_limit=40,
    target="KVM_ARM_TARGET_CORTEX_A57",
    registers=core_registers(
        {
            **N1_VALUES,
            "MIDR_EL1": 0x411F_D070,
            "ID_AA64PFR0_EL1": 0x2222,
            "ID_AA64MMFR0_EL1": 0x1124,
            "ID_AA64ISAR0_EL1": 0x11120,
            "ID_AA64ISAR1_EL1": 0,
            "ID_AA64MMFR1_EL1": 0,
            "ID_AA64MMFR2_EL1": 0,
        }
    ),
)
"""A Cortex-A57 with a GICv2, and no PMU."""

SMALL_IPA = replace(NEOVERSE_N1, ipa_limit=36)
NO_GIC = replace(NEOVERSE_N1, gic_versions=frozenset(), its=False)
NESTED = replace(SVE_HOST, el2=True, capabilities={"KVM_CAP_ARM_EL2_E2H0": 1})
