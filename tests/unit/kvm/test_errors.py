"""Each errno says what it means for that very call, as the kernel's documents have it."""

import errno

import pytest

from vgicmgr.kvm import uapi
from vgicmgr.kvm.errors import MEANINGS, KvmError


@pytest.mark.parametrize(
    ("call", "group", "subject", "number", "meaning"),
    [
        ("KVM_CREATE_DEVICE", "", "KVM_DEV_TYPE_ARM_VGIC_V2", errno.ENODEV, "device type unknown"),
        ("KVM_CREATE_DEVICE", "", "KVM_DEV_TYPE_ARM_VGIC_V3", errno.EEXIST, "has such a device already"),
        (
            "KVM_SET_DEVICE_ATTR",
            "KVM_DEV_ARM_VGIC_GRP_ADDR",
            "KVM_VGIC_V3_ADDR_TYPE_DIST",
            errno.EEXIST,
            "address already set",
        ),
        (
            "KVM_SET_DEVICE_ATTR",
            "KVM_DEV_ARM_VGIC_GRP_ADDR",
            "KVM_VGIC_V3_ADDR_TYPE_DIST",
            errno.E2BIG,
            "outside the guest's physical address space",
        ),
        ("KVM_SET_DEVICE_ATTR", "KVM_DEV_ARM_VGIC_GRP_NR_IRQS", "", errno.EINVAL, "multiple of 32"),
        ("KVM_GET_DEVICE_ATTR", "no group", "", errno.ENXIO, "group or attribute is unknown"),
        ("KVM_SET_DEVICE_ATTR", "KVM_ARM_VCPU_PMU_V3_CTRL", "KVM_ARM_VCPU_PMU_V3_IRQ", errno.EBUSY, "already set"),
        ("KVM_SET_ONE_REG", "", "0x603000000013c000", errno.EINVAL, "a value this kernel does not accept"),
    ],
)
def test_meaning(call: str, group: str, subject: str, number: int, meaning: str) -> None:
    assert meaning in KvmError(call, subject, number, group).meaning


def test_an_undocumented_errno_has_its_general_meaning() -> None:
    assert KvmError("KVM_CREATE_VM", "", errno.EMFILE).meaning == "too many open files"


@pytest.mark.parametrize("name", MEANINGS)
def test_meanings_are_told_of_things_the_header_has(name: str) -> None:
    assert hasattr(uapi, name)
