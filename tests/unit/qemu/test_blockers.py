"""What QEMU itself does not migrate: kvm_arm_enable_mte, kvm_arm_gicv3_realize, gicv5_common."""

from vgicmgr.qemu.blockers import blockers
from vgicmgr.qemu.virt import Properties


def test_an_ordinary_guest_migrates() -> None:
    assert blockers(Properties(its=False, secure=False), 3) == ()


def test_each_blocker() -> None:
    assert [blocker.setting for blocker in blockers(Properties(mte=True), 3)] == ["mte=on"]
    assert [blocker.setting for blocker in blockers(Properties(virtualization=True), 3)] == ["virtualization=on"]
    assert [blocker.setting for blocker in blockers(Properties(), 5)] == ["gic-version=x-5"]
    assert len(blockers(Properties(mte=True, virtualization=True), 3)) == 2
