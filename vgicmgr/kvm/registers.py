"""Register ids of KVM_GET_REG_LIST and KVM_GET_ONE_REG: what they are made of, and the registers' names.

An id has 64 bits: architecture (63 to 56), size (55 to 52), and for arm64 a coprocessor (27 to 16), as KVM calls a
class of registers, with the register's place in it (15 to 0).

Sources: ``arch/arm64/include/uapi/asm/kvm.h``, ``include/uapi/linux/kvm.h``, and section 4.68 (KVM_SET_ONE_REG) of
``Documentation/virt/kvm/api.rst``.
"""

from enum import Enum
from functools import cache

from vgicmgr.kvm import uapi
from vgicmgr.kvm.bitfields import Field
from vgicmgr.kvm.sysregs import Encoding, encodings, names


class RegisterClass(Enum):
    """The coprocessor of an arm64 register id."""

    CORE = uapi.KVM_REG_ARM_CORE
    """A member of ``struct kvm_regs``."""
    DEMUX = uapi.KVM_REG_ARM_DEMUX
    """One of several registers behind one system register: CCSIDR_EL1, selected by CSSELR_EL1."""
    SYSREG = uapi.KVM_REG_ARM64_SYSREG
    """A system register."""
    FW = uapi.KVM_REG_ARM_FW
    """What KVM as the guest's firmware offers, see ``Documentation/virt/kvm/arm/fw-pseudo-registers.rst``."""
    SVE = uapi.KVM_REG_ARM64_SVE
    """An SVE register, or the set of vector lengths."""
    FW_FEAT_BMAP = uapi.KVM_REG_ARM_FW_FEAT_BMAP
    """As FW, a bitmap of features."""


_ARCH_SIZE_COPROC = uapi.KVM_REG_ARCH_MASK | uapi.KVM_REG_SIZE_MASK | uapi.KVM_REG_ARM_COPROC_MASK
_PLACE = 0xFFFF


def register_class(register_id: int) -> RegisterClass | None:
    """The class of a register id; None if it is not of arm64 or the class is unknown."""
    if register_id & ~(_ARCH_SIZE_COPROC | _PLACE) or register_id & uapi.KVM_REG_ARCH_MASK != uapi.KVM_REG_ARM64:
        return None
    try:
        return RegisterClass(register_id & uapi.KVM_REG_ARM_COPROC_MASK)
    except ValueError:
        return None


def sysreg(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """The id of the system register with this encoding; the header's ARM64_SYS_REG."""
    return (
        _SYSREG
        | op0 << uapi.KVM_REG_ARM64_SYSREG_OP0_SHIFT
        | op1 << uapi.KVM_REG_ARM64_SYSREG_OP1_SHIFT
        | crn << uapi.KVM_REG_ARM64_SYSREG_CRN_SHIFT
        | crm << uapi.KVM_REG_ARM64_SYSREG_CRM_SHIFT
        | op2 << uapi.KVM_REG_ARM64_SYSREG_OP2_SHIFT
    )


_SYSREG = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM64_SYSREG


def sysreg_encoding(register_id: int) -> Encoding:
    """The encoding in the id of a system register; raises :class:`ValueError` for any other id."""
    if register_id & ~_PLACE != _SYSREG:
        raise ValueError(f"not the id of a system register: {register_id:#018x}")
    return Encoding(
        (register_id & uapi.KVM_REG_ARM64_SYSREG_OP0_MASK) >> uapi.KVM_REG_ARM64_SYSREG_OP0_SHIFT,
        (register_id & uapi.KVM_REG_ARM64_SYSREG_OP1_MASK) >> uapi.KVM_REG_ARM64_SYSREG_OP1_SHIFT,
        (register_id & uapi.KVM_REG_ARM64_SYSREG_CRN_MASK) >> uapi.KVM_REG_ARM64_SYSREG_CRN_SHIFT,
        (register_id & uapi.KVM_REG_ARM64_SYSREG_CRM_MASK) >> uapi.KVM_REG_ARM64_SYSREG_CRM_SHIFT,
        (register_id & uapi.KVM_REG_ARM64_SYSREG_OP2_MASK) >> uapi.KVM_REG_ARM64_SYSREG_OP2_SHIFT,
    )


def register_name(register_id: int) -> str:
    """The name of a register; different ids have different names, and :func:`register_id` is the way back.

    ========================  ==========================================================================
    ``ID_AA64MMFR1_EL1``      a system register
    ``S3_0_C2_C0_3``          a system register whose encoding is unknown here, as Arm DDI 0487 writes it
    ``X0``, ``PSTATE``        a core register
    ``CCSIDR_EL1[L1 data]``   CCSIDR_EL1 of the level 1 data or unified cache (``instruction``: that cache)
    ``KVM_REG_ARM_STD_BMAP``  a register of KVM's own, by its name in the header
    ``Z0``, ``Z0[slice 1]``   an SVE register, its first or another slice of 2048 bits (256 for P and FFR)
    ``0x60300000001400ff``    any other id
    ========================  ==========================================================================
    """
    name = _other_names().get(register_id)
    if name is None and register_id & ~_PLACE == _SYSREG:
        encoding = sysreg_encoding(register_id)
        name = names().get(encoding, str(encoding))
    return name or f"{register_id:#018x}"


def register_id(name: str) -> int:
    """The id of the register with a name as :func:`register_name` gives it; raises :class:`KeyError`.

    A system register may also be given by its encoding (``S3_0_C0_C7_1``), any register by its id in hex.
    """
    number = _other_ids().get(name)
    if number is not None:
        return number
    if name in encodings():
        return sysreg(*encodings()[name])
    if len(name) == 18 and name.startswith("0x") and set(name[2:]) <= _HEX:
        return int(name, 16)
    try:
        return sysreg(*Encoding.parse(name))
    except ValueError:
        raise KeyError(name) from None


_HEX = frozenset("0123456789abcdef")


@cache
def _other_names() -> dict[int, str]:
    """The registers whose names are not those of their encodings."""
    return {**_kvm_registers(), **_core_registers(), **_demux_registers(), **_sve_registers()}


@cache
def _other_ids() -> dict[str, int]:
    return {name: number for number, name in _other_names().items()}


def _kvm_registers() -> dict[int, str]:
    pseudo = (
        "KVM_REG_ARM_PSCI_VERSION",
        "KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1",
        "KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2",
        "KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3",
        "KVM_REG_ARM_STD_BMAP",
        "KVM_REG_ARM_STD_HYP_BMAP",
        "KVM_REG_ARM_VENDOR_HYP_BMAP",
        "KVM_REG_ARM_VENDOR_HYP_BMAP_2",
        "KVM_REG_ARM64_SVE_VLS",
    )
    swapped = {  # each of the two has the other's encoding; the header warns that this is ABI
        uapi.KVM_REG_ARM_TIMER_CVAL: "CNTV_CVAL_EL0",
        uapi.KVM_REG_ARM_TIMER_CNT: "CNTVCT_EL0",
    }
    return {getattr(uapi, name): name for name in pseudo} | swapped


def _core_registers() -> dict[int, str]:
    """``struct kvm_regs``, whose offsets count in units of 32 bits."""
    words = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_CORE
    doublewords = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM_CORE
    quadwords = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U128 | uapi.KVM_REG_ARM_CORE
    general = [f"X{n}" for n in range(31)] + ["SP_EL0", "PC", "PSTATE", "SP_EL1", "ELR_EL1"]
    spsr = ["SPSR_EL1", "SPSR_abt", "SPSR_und", "SPSR_irq", "SPSR_fiq"]
    vectors = 84  # fp_regs is aligned to 16 bytes
    control = vectors + 32 * 4
    return (
        {doublewords | 2 * n: name for n, name in enumerate(general + spsr)}
        | {quadwords | vectors + 4 * n: f"V{n}" for n in range(32)}
        | {words | control: "FPSR", words | control + 1: "FPCR"}
    )


def _demux_registers() -> dict[int, str]:
    """CCSIDR_EL1 by CSSELR_EL1: Level (less one) in bits 3 to 1, InD in bit 0."""
    ccsidr = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_DEMUX | uapi.KVM_REG_ARM_DEMUX_ID_CCSIDR
    kinds = ("data", "instruction")
    return {
        ccsidr | level << 1 | ind: f"CCSIDR_EL1[L{level + 1} {kind}]"
        for level in range(7)
        for ind, kind in enumerate(kinds)
    }


def _sve_registers() -> dict[int, str]:
    sve = uapi.KVM_REG_ARM64 | uapi.KVM_REG_ARM64_SVE
    blocks = (
        [(uapi.KVM_REG_SIZE_U2048 | uapi.KVM_REG_ARM64_SVE_ZREG_BASE | n << 5, f"Z{n}") for n in range(32)]
        + [(uapi.KVM_REG_SIZE_U256 | uapi.KVM_REG_ARM64_SVE_PREG_BASE | n << 5, f"P{n}") for n in range(16)]
        + [(uapi.KVM_REG_SIZE_U256 | uapi.KVM_REG_ARM64_SVE_FFR_BASE, "FFR")]
    )
    return {
        sve | block | part: f"{name}[slice {part}]" if part else name
        for block, name in blocks
        for part in range(uapi.KVM_ARM64_SVE_MAX_SLICES)
    }


PMCR_EL0 = sysreg(3, 3, 9, 12, 0)
PMCR_EL0_N = Field("N", 11, 5)
"""How many event counters a PMU has."""
