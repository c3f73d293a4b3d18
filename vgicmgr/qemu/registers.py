"""Which of a vCPU's registers QEMU carries in the list of registers of a migration; apart from what becomes of it."""

from vgicmgr.kvm import uapi


def migrates_in_list(register_id: int) -> bool:
    """Whether QEMU carries this register in its list of registers (target/arm/kvm.c, kvm_arm_reg_syncs_via_cpreg_list).

    Core and SVE registers have places of their own in its migration stream.
    """
    return register_id & uapi.KVM_REG_ARM_COPROC_MASK not in (uapi.KVM_REG_ARM_CORE, uapi.KVM_REG_ARM64_SVE)
