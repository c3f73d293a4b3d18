"""Registers of a fake kernel's vCPUs: which there are, their values, and what user space may write to them."""

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass

from vgicmgr.kvm import idregs, registers, uapi
from vgicmgr.kvm.registers import register_id, register_name, sysreg
from vgicmgr.kvm.sysregs import names

PMU, SVE, EL2 = "KVM_ARM_VCPU_PMU_V3", "KVM_ARM_VCPU_SVE", "KVM_ARM_VCPU_HAS_EL2"
PAUTH = "KVM_ARM_VCPU_PTRAUTH_ADDRESS"
GICV3 = "a GICv3"
"""Stands beside vCPU features in ``bits_of``: the VM has a GICv3 in the kernel."""


def refusal(number: int) -> OSError:
    """What ``fcntl.ioctl`` raises for this errno."""
    return OSError(number, os.strerror(number))


@dataclass(frozen=True)
class Rule:
    """What KVM_SET_ONE_REG accepts: here anything, of which the bits of ``mask`` are kept.

    ``per_vm``: all vCPUs of a VM share the value (``struct kvm_arch``).
    """

    mask: int = (1 << 2048) - 1
    per_vm: bool = False

    def stored(self, host: int, current: int, written: int) -> int:
        """What the register has after the write; raises OSError. ``host`` is the value it began with."""
        return written & self.mask

    def writable(self, number: int) -> int:
        """The register's mask in KVM_ARM_GET_REG_WRITABLE_MASKS."""
        return 0


@dataclass(frozen=True)
class Constant(Rule):
    """Nothing but its own value (sys_regs.c, set_invariant_sys_reg)."""

    def stored(self, host: int, current: int, written: int) -> int:
        if written != current:
            raise refusal(errno.EINVAL)
        return current


@dataclass(frozen=True)
class IDFields(Rule):
    """An ID register: of the fields called so, lower values than the host's (sys_regs.c, arm64_check_features).

    A number in ``limits`` takes the place of the host's value. All other fields are the host's.
    """

    register: str = ""
    fields: tuple[str, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    per_vm: bool = True

    def stored(self, host: int, current: int, written: int) -> int:
        limits = dict(self.limits)
        for field in idregs.layout(self.register).all_fields:
            if field.name in self.fields:
                if field.of(written) > limits.get(field.name, field.of(host)):
                    raise refusal(errno.EINVAL)
            elif field.of(written) != field.of(host):
                raise refusal(errno.EINVAL)
        return written

    def writable(self, number: int) -> int:
        return sum(field.mask for field in idregs.fields(self.register) if field.name in self.fields)


PSCI_0_1, PSCI_0_2 = 1, 2
"""Major version in bits 31 to 16, minor in 15 to 0 (include/kvm/arm_psci.h)."""


@dataclass(frozen=True)
class PSCIVersion(Rule):
    """KVM_REG_ARM_PSCI_VERSION: 0.2 and 1.0 up to ``newest``; 0.1 of vCPUs without KVM_ARM_VCPU_PSCI_0_2."""

    newest: int = 0x1_0003
    per_vm: bool = True

    def stored(self, host: int, current: int, written: int) -> int:
        if written not in (PSCI_0_1, PSCI_0_2) and not 0x1_0000 <= written <= self.newest:
            raise refusal(errno.EINVAL)
        return written


LEVELS = 0xF  # KVM_REG_FEATURE_LEVEL_MASK
WORKAROUND_2_AVAIL, WORKAROUND_2_NOT_REQUIRED, WORKAROUND_2_ENABLED = 2, 3, 1 << 4


@dataclass(frozen=True)
class Workaround(Rule):
    """KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1 and _3: levels up to the host's; the register stays the host's."""

    def stored(self, host: int, current: int, written: int) -> int:
        if written & ~LEVELS or written > host:
            raise refusal(errno.EINVAL)
        return host


@dataclass(frozen=True)
class Workaround2(Rule):
    """KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2: its four levels are taken for "not available" or "not required"."""

    def stored(self, host: int, current: int, written: int) -> int:
        level, enabled = written & LEVELS, written & WORKAROUND_2_ENABLED
        wanted = 0 if level < WORKAROUND_2_AVAIL else WORKAROUND_2_NOT_REQUIRED
        if (
            written & ~(LEVELS | WORKAROUND_2_ENABLED)
            or level > WORKAROUND_2_NOT_REQUIRED
            or (enabled and level != WORKAROUND_2_AVAIL)
            or wanted > host
        ):
            raise refusal(errno.EINVAL)
        return host


@dataclass(frozen=True)
class Bitmap(Rule):
    """KVM_REG_ARM_*_BMAP: any of the host's bits (hypercalls.c, kvm_arm_set_fw_reg_bmap)."""

    per_vm: bool = True

    def stored(self, host: int, current: int, written: int) -> int:
        if written & ~host:
            raise refusal(errno.EINVAL)
        return written


@dataclass(frozen=True)
class PMCR(Rule):
    """PMCR_EL0: any value; N stays where it would grow beyond the host's (sys_regs.c, set_pmcr).

    ``fixed``: N always stays, as before Linux 6.8.
    """

    per_vm: bool = True
    fixed: bool = False

    def stored(self, host: int, current: int, written: int) -> int:
        n = registers.PMCR_EL0_N
        keep = self.fixed or n.of(written) > n.of(host)
        return written & 0xFF | (current if keep else written) & n.mask


@dataclass(frozen=True)
class Counter(Rule):
    """A counter that runs at the host's frequency; a write sets it for the whole VM."""


@dataclass(frozen=True)
class Register:
    """One register: the host's ``value``, the ``rule`` of writes, and on what it depends.

    It is there for vCPUs that have all features of ``needs`` and, with ``while_set`` (an ID register and a field of
    it), as long as the VM's value of that field is not 0. A pair (feature, bits) in ``bits_of`` clears these bits for
    vCPUs without the feature.
    """

    value: int = 0
    rule: Rule = Rule()
    needs: tuple[str, ...] = ()
    while_set: tuple[str, str] | None = None
    bits_of: tuple[tuple[str, int], ...] = ()

    def host_value(self, features: frozenset[str]) -> int:
        """The value for a vCPU with these features."""
        value = self.value
        for feature, bits in self.bits_of:
            if feature not in features:
                value &= ~bits
        return value


ANYTHING, CONSTANT, COUNTER = Rule(), Constant(), Counter()


def field_mask(register: str, *fields: str) -> int:
    """The bits of these fields of an ID register."""
    return sum(field.mask for field in idregs.fields(register) if field.name in fields)


WRITABLE = {
    "ID_AA64PFR0_EL1": "CSV3 CSV2 DIT SEL2 GIC EL3 EL2 EL1 EL0",
    "ID_AA64PFR1_EL1": "SSBS BT",
    "ID_AA64DFR0_EL1": "DoubleLock WRPs PMUVer DebugVer",
    "ID_AA64ISAR0_EL1": "RNDR TLB TS FHM DP SM4 SM3 SHA3 RDM ATOMIC CRC32 SHA2 SHA1 AES",
    "ID_AA64ISAR1_EL1": "LS64 XS I8MM DGH BF16 SPECRES SB FRINTTS LRCPC FCMA JSCVT DPB",
    "ID_AA64ISAR2_EL1": "LUT CSSC RPRFM CLRBHB BC RPRES WFxT",
    "ID_AA64MMFR0_EL1": "ECV EXS TGRAN4 TGRAN64 TGRAN16 BIGENDEL0 SNSMEM BIGEND PARANGE",
    "ID_AA64MMFR1_EL1": "CMOW TIDCP1 AFP ETS SpecSEI PAN LO HPDS HAFDBS",
    "ID_AA64MMFR2_EL1": "E0PD EVT BBM TTL FWB AT ST VARange IESB LSM UAO CnP",
    "ID_AA64MMFR3_EL1": "S1POE S1PIE SCTLRX TCRX",
    "ID_AA64ZFR0_EL1": "F64MM F32MM I8MM SM4 SHA3 BF16 BitPerm AES SVEver",
    "CTR_EL0": "DIC IDC DminLine IminLine",
}
"""Fields that user space may lower, much as Linux 6.12 to 7.2 have them (sys_regs.c, ID_WRITABLE)."""


def id_register(name: str, value: int, *, fixed: bool = False, bits_of: tuple[tuple[str, int], ...] = ()) -> Register:
    """An ID register that Linux 6.12 lets user space lower, or with ``fixed`` one of Linux 6.1, which does not."""
    writable = () if fixed else tuple(WRITABLE.get(name, "").split())
    return Register(value, IDFields(register=name, fields=writable), bits_of=bits_of)


ID_SPACE = tuple(sysreg(3, 0, 0, crm, op2) for crm in range(1, 8) for op2 in range(8))
"""S3_0_C0_C1_0 to S3_0_C0_C7_7, all of which KVM lists."""

CORE = tuple(number for number in registers._core_registers())
VECTORS = frozenset(register_id(f"V{n}") for n in range(32))
SVE_REGISTERS = tuple(register_id(f"Z{n}") for n in range(32)) + tuple(
    register_id(name) for name in (*(f"P{n}" for n in range(16)), "FFR")
)

_STATE = """
    MDCCINT_EL1 MDSCR_EL1 OSLSR_EL1 OSDLR_EL1 DBGVCR32_EL2
    SCTLR_EL1 ACTLR_EL1 CPACR_EL1 TTBR0_EL1 TTBR1_EL1 TCR_EL1 AFSR0_EL1 AFSR1_EL1 ESR_EL1 FAR_EL1 PAR_EL1 MAIR_EL1
    AMAIR_EL1 VBAR_EL1 DISR_EL1 CONTEXTIDR_EL1 TPIDR_EL1 CNTKCTL_EL1 CSSELR_EL1 TPIDR_EL0 TPIDRRO_EL0
    DACR32_EL2 IFSR32_EL2 FPEXC32_EL2
"""
_PMU = """
    PMINTENSET_EL1 PMINTENCLR_EL1 PMCNTENSET_EL0 PMCNTENCLR_EL0 PMOVSCLR_EL0 PMSELR_EL0 PMCCNTR_EL0 PMUSERENR_EL0
    PMOVSSET_EL0 PMCCFILTR_EL0
"""
_KEYS = """
    APIAKEYLO_EL1 APIAKEYHI_EL1 APIBKEYLO_EL1 APIBKEYHI_EL1 APDAKEYLO_EL1 APDAKEYHI_EL1 APDBKEYLO_EL1 APDBKEYHI_EL1
    APGAKEYLO_EL1 APGAKEYHI_EL1
"""
_EL2 = """
    SCTLR_EL2 ACTLR_EL2 HCR_EL2 MDCR_EL2 CPTR_EL2 HSTR_EL2 TTBR0_EL2 TTBR1_EL2 TCR_EL2 VTTBR_EL2 VTCR_EL2 SPSR_EL2
    ELR_EL2 AFSR0_EL2 AFSR1_EL2 ESR_EL2 FAR_EL2 HPFAR_EL2 MAIR_EL2 AMAIR_EL2 VBAR_EL2 CONTEXTIDR_EL2 TPIDR_EL2
    CNTVOFF_EL2 CNTHCTL_EL2 VPIDR_EL2 VMPIDR_EL2
"""
_KNOWN = frozenset(names().values())


def _state(text: str, *needs: str) -> dict[int, Register]:
    return {register_id(name): Register(needs=needs) for name in text.split() if name in _KNOWN}


def pmu_registers(counters: int, *, fixed: bool = False) -> dict[int, Register]:
    """The registers of a PMU with so many event counters; KVM lists those of all 31."""
    pairs = "".join(f"PMEVCNTR{n}_EL0 PMEVTYPER{n}_EL0 " for n in range(31))
    return {
        registers.PMCR_EL0: Register(counters << registers.PMCR_EL0_N.lsb, PMCR(fixed=fixed), (PMU,)),
        **_state(_PMU + pairs, PMU),
    }


def firmware(psci: int = 0x1_0003, levels: tuple[int, int, int] = (2, 0, 2)) -> dict[int, Register]:
    """The firmware registers: the newest PSCI version, and the host's levels of SMCCC_ARCH_WORKAROUND_1 to 3."""
    return {
        uapi.KVM_REG_ARM_PSCI_VERSION: Register(psci, PSCIVersion(newest=psci)),
        uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1: Register(levels[0], Workaround()),
        uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2: Register(levels[1], Workaround2()),
        uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3: Register(levels[2], Workaround()),
        uapi.KVM_REG_ARM_STD_BMAP: Register(1, Bitmap()),
        uapi.KVM_REG_ARM_STD_HYP_BMAP: Register(1, Bitmap()),
        uapi.KVM_REG_ARM_VENDOR_HYP_BMAP: Register(3, Bitmap()),
    }


def core_registers(
    values: dict[str, int], *, fixed: bool = False, pmu_counters: int = 6, fixed_counters: bool = False
) -> dict[int, Register]:
    """The registers of a vCPU whose identification has these ``values`` by name; all else is 0 or usual.

    ``fixed`` ID registers: as before Linux 6.7, no field of them may be lowered.
    """
    bits_of = {
        "ID_AA64PFR0_EL1": (
            (SVE, field_mask("ID_AA64PFR0_EL1", "SVE")),
            (GICV3, field_mask("ID_AA64PFR0_EL1", "GIC")),
            (EL2, field_mask("ID_AA64PFR0_EL1", "EL2")),
        ),
        "ID_AA64ZFR0_EL1": ((SVE, (1 << 64) - 1),),
        "ID_AA64DFR0_EL1": ((PMU, field_mask("ID_AA64DFR0_EL1", "PMUVer")),),
        "ID_AA64ISAR1_EL1": ((PAUTH, field_mask("ID_AA64ISAR1_EL1", "APA", "API", "GPA", "GPI")),),
        "ID_AA64ISAR2_EL1": ((PAUTH, field_mask("ID_AA64ISAR2_EL1", "APA3", "GPA3")),),
    }
    table: dict[int, Register] = {number: Register() for number in CORE}
    for number in ID_SPACE:
        name = register_name(number)
        table[number] = id_register(name, values.get(name, 0), fixed=fixed, bits_of=bits_of.get(name, ()))
    for name in ("MIDR_EL1", "REVIDR_EL1", "AIDR_EL1"):
        table[register_id(name)] = Register(values.get(name, 0), CONSTANT)
    table[register_id("CLIDR_EL1")] = Register(values.get("CLIDR_EL1", 0))
    table[register_id("CTR_EL0")] = id_register("CTR_EL0", values.get("CTR_EL0", 0), fixed=fixed)
    table[register_id("MPIDR_EL1")] = Register()
    for n in range(16):
        for kind in ("BV", "BC", "WV", "WC"):
            table[register_id(f"DBG{kind}R{n}_EL1")] = Register()
    table |= _state(_STATE)
    table |= _state(_KEYS, PAUTH) | _state(_EL2, EL2)
    table[register_id("ZCR_EL1")] = Register(needs=(SVE,))
    controls = {"SCTLR2_EL1": "SCTLRX", "TCR2_EL1": "TCRX", "PIR_EL1": "S1PIE", "PIRE0_EL1": "S1PIE"}
    for name, field in controls.items():
        table[register_id(name)] = Register(while_set=("ID_AA64MMFR3_EL1", field))
    for name in ("CCSIDR_EL1[L1 data]", "CCSIDR_EL1[L1 instruction]", "CCSIDR_EL1[L2 data]"):
        table[register_id(name)] = Register(values.get(name, 0), CONSTANT)
    for number in (uapi.KVM_REG_ARM_TIMER_CNT, uapi.KVM_REG_ARM_PTIMER_CNT):
        table[number] = Register(rule=COUNTER)
    for number in (
        uapi.KVM_REG_ARM_TIMER_CTL,
        uapi.KVM_REG_ARM_TIMER_CVAL,
        uapi.KVM_REG_ARM_PTIMER_CTL,
        uapi.KVM_REG_ARM_PTIMER_CVAL,
    ):
        table[number] = Register()
    return table | pmu_registers(pmu_counters, fixed=fixed_counters) | firmware()


def without(table: dict[int, Register], names: Iterable[str]) -> dict[int, Register]:
    """The registers but for these."""
    gone = {register_id(name) for name in names}
    return {number: register for number, register in table.items() if number not in gone}
