"""From an inventory to findings: what stands in the way of assigning a device here."""

from collections.abc import Iterator

from vgicmgr.findings import Finding, Severity, Verdict, finding
from vgicmgr.vfio.inventory import Inventory


def judge_inventory(inventory: Inventory) -> Verdict:
    """What somebody should know before a device is assigned; nothing of it is an error of the host."""
    return Verdict(tuple(_findings(inventory)))


def _findings(inventory: Inventory) -> Iterator[Finding]:
    host = inventory.host
    if host.api_version is None and not inventory.unread:
        yield finding(
            "vfio-missing",
            "No device can be assigned: /dev/vfio/vfio is not there",
            "load the module: modprobe vfio-pci; the kernel needs CONFIG_VFIO and CONFIG_VFIO_PCI",
        )
    if not host.iommus:
        yield finding(
            "iommu-missing",
            "No device can be assigned safely: the kernel uses no IOMMU (/sys/class/iommu is empty)",
            "enable the SMMU in the firmware, and see that the kernel has CONFIG_ARM_SMMU_V3 (or CONFIG_ARM_SMMU)",
        )
    if host.allow_unsafe_interrupts:
        yield finding(
            "unsafe-interrupts",
            "vfio_iommu_type1 allows unsafe interrupts: where MSIs are not isolated, a guest can send the host's",
            "with a GICv3 ITS MSIs are isolated; take allow_unsafe_interrupts=1 out of /etc/modprobe.d",
        )
    bound = {device.group for device in inventory.devices if device.vfio}
    for group in inventory.groups:
        if group.number not in bound:
            continue
        if not group.viable:
            others = ", ".join(f"{name} is bound to {driver}" for name, driver in group.in_the_way)
            yield finding(
                "group-not-viable",
                f"Group {group.number} ({', '.join(group.members)}) cannot be assigned: "
                + (others or "the kernel says that it is not viable"),
                "a group is assigned as a whole: bind its other members to vfio-pci, too, or to no driver",
                severity=Severity.WARNING,
            )
        if group.noiommu:
            yield finding(
                "noiommu",
                f"Group {group.number} ({', '.join(group.members)}) has no IOMMU: its devices can write everywhere in "
                "memory, and QEMU does not take them",
                "turn vfio.enable_unsafe_noiommu_mode off",
            )
