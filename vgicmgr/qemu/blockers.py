"""What keeps QEMU itself from migrating, saving or snapshotting a guest of KVM (migrate_add_blocker)."""

from vgicmgr.dataclass import dataclass
from vgicmgr.qemu.virt import Properties


@dataclass(frozen=True)
class Blocker:
    """One reason: the ``-machine`` setting that brings it about, and QEMU's function that blocks."""

    setting: str
    reason: str
    source: str


def blockers(properties: Properties, gic_version: int) -> tuple[Blocker, ...]:
    """Why QEMU refuses to migrate a KVM guest with these machine properties; none where it does migrate it."""
    found = []
    if properties.mte:
        found.append(Blocker("mte=on", "the guest has memory tags (MTE)", "target/arm/kvm.c, kvm_arm_enable_mte"))
    if properties.virtualization:
        found.append(
            Blocker("virtualization=on", "the guest has EL2", "hw/intc/arm_gicv3_kvm.c, kvm_arm_gicv3_realize")
        )
    if gic_version == 5:
        found.append(Blocker("gic-version=x-5", "the guest has a GICv5", "hw/intc/arm_gicv5_common.c"))
    return tuple(found)
