"""Fields of the ID registers: what each says about the CPU a guest sees.

Sources: ``arch/arm64/tools/sysreg`` of Linux 7.2, whose spelling the fields' names have; MIDR_EL1 and MPIDR_EL1, which
are not there, from Arm DDI 0487. ``tests/lab/test_register_names.py`` compares them with the kernels of the lab.
"""

from functools import cache

from vgicmgr.kvm.bitfields import Field, Layout


@cache
def layout(name: str) -> Layout:
    """The layout of the ID register called ``name``; that of any other register has no fields."""
    return Layout.parse(_LAYOUTS[name]) if name in _LAYOUTS else Layout()


def names() -> tuple[str, ...]:
    """The ID registers whose fields are known here."""
    return tuple(_LAYOUTS)


def fields(name: str) -> tuple[Field, ...]:
    """The fields of the ID register called ``name``, from the most significant one down; empty if it is unknown."""
    return layout(name).fields


def decode(name: str, register: int) -> dict[str, int]:
    """The value of each field of the register called ``name``, see :meth:`Layout.decode`."""
    return layout(name).decode(register)


def differing_fields(name: str, a: int, b: int) -> tuple[Field, ...]:
    """The fields in which two values of the register called ``name`` differ, see :meth:`Layout.differing_fields`."""
    return layout(name).differing_fields(a, b)


# ID_AA64ISAR0_EL1.TME is gone from Linux 7.2, as FEAT_TME is from the architecture; older kernels show it.
_LAYOUTS = {
    "MIDR_EL1": "Implementer 31:24, Variant 23:20, Architecture 19:16, PartNum 15:4, Revision 3:0",
    "MPIDR_EL1": "Aff3 39:32, U 30, MT 24, Aff2 23:16, Aff1 15:8, Aff0 7:0",
    "ID_PFR0_EL1": "RAS 31:28, DIT 27:24, AMU 23:20, CSV2 19:16, State3 15:12, State2 11:8, State1 7:4, State0 3:0",
    "ID_PFR1_EL1": (
        "GIC 31:28, Virt_frac 27:24, Sec_frac 23:20, GenTimer 19:16, Virtualization 15:12, MProgMod 11:8, "
        "Security 7:4, ProgMod 3:0"
    ),
    "ID_DFR0_EL1": (
        "TraceFilt 31:28, PerfMon 27:24, MProfDbg 23:20, MMapTrc 19:16, CopTrc 15:12, MMapDbg 11:8, CopSDbg 7:4, "
        "CopDbg 3:0"
    ),
    "ID_AFR0_EL1": "IMPDEF3 15:12, IMPDEF2 11:8, IMPDEF1 7:4, IMPDEF0 3:0",
    "ID_MMFR0_EL1": (
        "InnerShr 31:28, FCSE 27:24, AuxReg 23:20, TCM 19:16, ShareLvl 15:12, OuterShr 11:8, PMSA 7:4, VMSA 3:0"
    ),
    "ID_MMFR1_EL1": (
        "BPred 31:28, L1TstCln 27:24, L1Uni 23:20, L1Hvd 19:16, L1UniSW 15:12, L1HvdSW 11:8, L1UniVA 7:4, L1HvdVA 3:0"
    ),
    "ID_MMFR2_EL1": (
        "HWAccFlg 31:28, WFIStall 27:24, MemBarr 23:20, UniTLB 19:16, HvdTLB 15:12, L1HvdRng 11:8, L1HvdBG 7:4, "
        "L1HvdFG 3:0"
    ),
    "ID_MMFR3_EL1": (
        "Supersec 31:28, CMemSz 27:24, CohWalk 23:20, PAN 19:16, MaintBcst 15:12, BPMaint 11:8, CMaintSW 7:4, "
        "CMaintVA 3:0"
    ),
    "ID_ISAR0_EL1": "Divide 27:24, Debug 23:20, Coproc 19:16, CmpBranch 15:12, BitField 11:8, BitCount 7:4, Swap 3:0",
    "ID_ISAR1_EL1": (
        "Jazelle 31:28, Interwork 27:24, Immediate 23:20, IfThen 19:16, Extend 15:12, Except_AR 11:8, Except 7:4, "
        "Endian 3:0"
    ),
    "ID_ISAR2_EL1": (
        "Reversal 31:28, PSR_AR 27:24, MultU 23:20, MultS 19:16, Mult 15:12, MultiAccessInt 11:8, MemHint 7:4, "
        "LoadStore 3:0"
    ),
    "ID_ISAR3_EL1": (
        "T32EE 31:28, TrueNOP 27:24, T32Copy 23:20, TabBranch 19:16, SynchPrim 15:12, SVC 11:8, SIMD 7:4, Saturate 3:0"
    ),
    "ID_ISAR4_EL1": (
        "SWP_frac 31:28, PSR_M 27:24, SynchPrim_frac 23:20, Barrier 19:16, SMC 15:12, Writeback 11:8, "
        "WithShifts 7:4, Unpriv 3:0"
    ),
    "ID_ISAR5_EL1": "VCMA 31:28, RDM 27:24, CRC32 19:16, SHA2 15:12, SHA1 11:8, AES 7:4, SEVL 3:0",
    "ID_MMFR4_EL1": "EVT 31:28, CCIDX 27:24, LSM 23:20, HPDS 19:16, CnP 15:12, XNX 11:8, AC2 7:4, SpecSEI 3:0",
    "ID_ISAR6_EL1": "I8MM 27:24, BF16 23:20, SPECRES 19:16, SB 15:12, FHM 11:8, DP 7:4, JSCVT 3:0",
    "MVFR0_EL1": (
        "FPRound 31:28, FPShVec 27:24, FPSqrt 23:20, FPDivide 19:16, FPTrap 15:12, FPDP 11:8, FPSP 7:4, SIMDReg 3:0"
    ),
    "MVFR1_EL1": (
        "SIMDFMAC 31:28, FPHP 27:24, SIMDHP 23:20, SIMDSP 19:16, SIMDInt 15:12, SIMDLS 11:8, FPDNaN 7:4, FPFtZ 3:0"
    ),
    "MVFR2_EL1": "FPMisc 7:4, SIMDMisc 3:0",
    "ID_PFR2_EL1": "RAS_frac 11:8, SSBS 7:4, CSV3 3:0",
    "ID_DFR1_EL1": "HPMN0 7:4, MTPMU 3:0",
    "ID_MMFR5_EL1": "nTLBPA 7:4, ETS 3:0",
    "ID_AA64PFR0_EL1": (
        "CSV3 63:60, CSV2 59:56, RME 55:52, DIT 51:48, AMU 47:44, MPAM 43:40, SEL2 39:36, SVE 35:32, RAS 31:28, "
        "GIC 27:24, AdvSIMD 23:20 signed, FP 19:16 signed, EL3 15:12, EL2 11:8, EL1 7:4, EL0 3:0"
    ),
    "ID_AA64PFR1_EL1": (
        "PFAR 63:60, DF2 59:56, MTEX 55:52, THE 51:48, GCS 47:44, MTE_frac 43:40, NMI 39:36, CSV2_frac 35:32, "
        "RNDR_trap 31:28, SME 27:24, MPAM_frac 19:16, RAS_frac 15:12, MTE 11:8, SSBS 7:4, BT 3:0"
    ),
    "ID_AA64PFR2_EL1": "FPMR 35:32, UINJ 19:16, GCIE 15:12, MTEFAR 11:8, MTESTOREONLY 7:4, MTEPERM 3:0",
    "ID_AA64ZFR0_EL1": (
        "F64MM 59:56, F32MM 55:52, F16MM 51:48, I8MM 47:44, SM4 43:40, SHA3 35:32, B16B16 27:24, BF16 23:20, "
        "BitPerm 19:16, EltPerm 15:12, AES 7:4, SVEver 3:0"
    ),
    "ID_AA64SMFR0_EL1": (
        "FA64 63, LUT6 61, LUTv2 60, SMEver 59:56, I16I64 55:52, F64F64 48, I16I32 47:44, B16B16 43, F16F16 42, "
        "F8F16 41, F8F32 40, I8I32 39:36, F16F32 35, B16F32 34, BI32I32 33, F32F32 32, SF8FMA 30, SF8DP4 29, "
        "SF8DP2 28, SBitPerm 25, AES 24, SFEXPA 23, STMOP 16, SMOP4 0"
    ),
    "ID_AA64FPFR0_EL1": "F8CVT 31, F8FMA 30, F8DP4 29, F8DP2 28, F8MM8 27, F8MM4 26, F16MM2 15, F8E4M3 1, F8E5M2 0",
    "ID_AA64DFR0_EL1": (
        "HPMN0 63:60, ExtTrcBuff 59:56, BRBE 55:52, MTPMU 51:48 signed, TraceBuffer 47:44, TraceFilt 43:40, "
        "DoubleLock 39:36 signed, PMSVer 35:32, CTX_CMPs 31:28, SEBEP 27:24, WRPs 23:20, PMSS 19:16, BRPs 15:12, "
        "PMUVer 11:8, TraceVer 7:4, DebugVer 3:0"
    ),
    "ID_AA64DFR1_EL1": (
        "ABL_CMPs 63:56, DPFZS 55:52, EBEP 51:48, ITE 47:44, ABLE 43:40, PMICNTR 39:36, SPMU 35:32, CTX_CMPs 31:24, "
        "WRPs 23:16, BRPs 15:8, SYSPMUID 7:0"
    ),
    "ID_AA64DFR2_EL1": "TRBE_EXC 27:24, SPE_nVM 23:20, SPE_EXC 19:16, BWE 7:4, STEP 3:0",
    "ID_AA64AFR0_EL1": (
        "IMPDEF7 31:28, IMPDEF6 27:24, IMPDEF5 23:20, IMPDEF4 19:16, IMPDEF3 15:12, IMPDEF2 11:8, IMPDEF1 7:4, "
        "IMPDEF0 3:0"
    ),
    "ID_AA64ISAR0_EL1": (
        "RNDR 63:60, TLB 59:56, TS 55:52, FHM 51:48, DP 47:44, SM4 43:40, SM3 39:36, SHA3 35:32, RDM 31:28, "
        "TME 27:24, ATOMIC 23:20, CRC32 19:16, SHA2 15:12, SHA1 11:8, AES 7:4"
    ),
    "ID_AA64ISAR1_EL1": (
        "LS64 63:60, XS 59:56, I8MM 55:52, DGH 51:48, BF16 47:44, SPECRES 43:40, SB 39:36, FRINTTS 35:32, "
        "GPI 31:28, GPA 27:24, LRCPC 23:20, FCMA 19:16, JSCVT 15:12, API 11:8, APA 7:4, DPB 3:0"
    ),
    "ID_AA64ISAR2_EL1": (
        "ATS1A 63:60, LUT 59:56, CSSC 55:52, RPRFM 51:48, PCDPHINT 47:44, PRFMSLC 43:40, SYSINSTR_128 39:36, "
        "SYSREG_128 35:32, CLRBHB 31:28, PAC_frac 27:24, BC 23:20, MOPS 19:16, APA3 15:12, GPA3 11:8, RPRES 7:4, "
        "WFxT 3:0"
    ),
    "ID_AA64ISAR3_EL1": (
        "FPRCVT 31:28, LSUI 27:24, OCCMO 23:20, LSFE 19:16, PACM 15:12, TLBIW 11:8, FAMINMAX 7:4, CPA 3:0"
    ),
    "ID_AA64MMFR0_EL1": (
        "ECV 63:60, FGT 59:56, EXS 47:44, TGRAN4_2 43:40, TGRAN64_2 39:36, TGRAN16_2 35:32, TGRAN4 31:28 signed, "
        "TGRAN64 27:24 signed, TGRAN16 23:20, BIGENDEL0 19:16, SNSMEM 15:12, BIGEND 11:8, ASIDBITS 7:4, PARANGE 3:0"
    ),
    "ID_AA64MMFR1_EL1": (
        "ECBHB 63:60, CMOW 59:56, TIDCP1 55:52, nTLBPA 51:48, AFP 47:44, HCX 43:40, ETS 39:36, TWED 35:32, "
        "XNX 31:28, SpecSEI 27:24, PAN 23:20, LO 19:16, HPDS 15:12, VH 11:8, VMIDBits 7:4, HAFDBS 3:0"
    ),
    "ID_AA64MMFR2_EL1": (
        "E0PD 63:60, EVT 59:56, BBM 55:52, TTL 51:48, FWB 43:40, IDS 39:36, AT 35:32, ST 31:28, NV 27:24, "
        "CCIDX 23:20, VARange 19:16, IESB 15:12, LSM 11:8, UAO 7:4, CnP 3:0"
    ),
    "ID_AA64MMFR3_EL1": (
        "Spec_FPACC 63:60, ADERR 59:56, SDERR 55:52, ANERR 47:44, SNERR 43:40, D128_2 39:36, D128 35:32, MEC 31:28, "
        "AIE 27:24, S2POE 23:20, S1POE 19:16, S2PIE 15:12, S1PIE 11:8, SCTLRX 7:4, TCRX 3:0"
    ),
    "ID_AA64MMFR4_EL1": (
        "SRMASK 47:44, E3DSE 39:36, RMEGDI 31:28, E2H0 27:24 signed, NV_frac 23:20, FGWTE3 19:16, HACDBS 15:12, "
        "ASID2 11:8, EIESB 7:4, PoPS 3:0"
    ),
    "MPAMIDR_EL1": (
        "HAS_SDEFLT 61, HAS_FORCE_NS 60, SP4 59, HAS_TIDR 58, HAS_ALTSP 57, PMG_MAX 39:32, VPMR_MAX 20:18, "
        "HAS_HCR 17, PARTID_MAX 15:0"
    ),
    "CCSIDR_EL1": "NumSets 27:13, Associativity 12:3, LineSize 2:0",
    "CLIDR_EL1": (
        "Ttypen 46:33, ICB 32:30, LoUU 29:27, LoC 26:24, LoUIS 23:21, Ctype7 20:18, Ctype6 17:15, Ctype5 14:12, "
        "Ctype4 11:9, Ctype3 8:6, Ctype2 5:3, Ctype1 2:0"
    ),
    "CCSIDR2_EL1": "NumSets 23:0",
    "GMID_EL1": "BS 3:0",
    "SMIDR_EL1": (
        "NSMC 59:56, HIP 55:52, AFFINITY2 51:32, IMPLEMENTER 31:24, REVISION 23:16, SMPS 15, SH 14:13, AFFINITY 11:0"
    ),
    "CTR_EL0": "TminLine 37:32, DIC 29, IDC 28, CWG 27:24, ERG 23:20, DminLine 19:16, L1Ip 15:14, IminLine 3:0",
    "DCZID_EL0": "DZP 4, BS 3:0",
}
