"""Records to test with."""

from vgicmgr.dataclass import replace
from vgicmgr.kvm.registers import register_id
from vgicmgr.migration.record import ABIRecord

RECORD = ABIRecord(
    time="2026-11-21T08:30:00Z",
    kernel="6.12.107+deb13-arm64",
    qemu="10.0.13",
    libvirt="11.3.0",
    machine="virt-10.0",
    vcpus=4,
    features=("KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_PMU_V3"),
    sve=(),
    steal_time=True,
    ipa_bits=48,
    page_size=4096,
    gic_version=3,
    gicd_iidr=0x4B00343B,
    icc_ctlr_el1=0x400,
    gits_iidr=0x4B00043B,
    gits_typer=0x1EF71,
    registers=tuple(
        sorted(
            {
                register_id("MIDR_EL1"): 0x413FD0C1,
                register_id("ID_AA64MMFR1_EL1"): 0x10212122,
                register_id("KVM_REG_ARM_PSCI_VERSION"): 0x10003,
                register_id("CCSIDR_EL1[L1 data]"): 0x701FE00A,
            }.items()
        )
    ),
)
"""Of a guest with a GICv3 and an ITS."""

GICV2_RECORD = replace(
    RECORD, gic_version=2, gicd_iidr=0x4B00243B, icc_ctlr_el1=None, gits_iidr=None, gits_typer=None, vcpus=1
)
