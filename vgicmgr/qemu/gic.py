"""Which GIC and which MSI controller a guest gets: QEMU's rules (hw/arm/virt.c), and libvirt's default beside them."""

from collections.abc import Collection
from enum import Enum

from vgicmgr.qemu.arguments import ArgumentError
from vgicmgr.qemu.machine import Version
from vgicmgr.qemu.virt import ITS_SINCE, SINCE, TCG_ITS_SINCE, Properties, since

GICV2_VCPUS = 8
"""GIC_NCPU: more vCPUs than a GICv2 has CPU interfaces for."""


class MSIController(Enum):
    """What a guest's PCI devices send their MSIs to."""

    ITS = "its"
    GICV2M = "gicv2m"
    NONE = "none"


TCG_GICV3_SINCE: Version = (8, 0)
"""QEMU before that emulates a GICv2 where it is told nothing, for however many vCPUs."""


def gic_version(
    wish: str, supported: Collection[int], vcpus: int, *, kvm: bool = True, qemu: Version | None = None
) -> int:
    """The version that QEMU takes for ``gic-version=`` (finalize_gic_version_do); 0 where there is none to take.

    ``wish`` is empty without the property: then ``vcpus``, hotpluggable ones included, decide. A number is taken as it
    is, whether supported or not. ``qemu`` is QEMU's version, where it is known. Raises
    :class:`~vgicmgr.qemu.arguments.ArgumentError` for another word.
    """
    known = [version for version in supported if version in (2, 3, 4)]
    if not wish:
        if not kvm and qemu and qemu < TCG_GICV3_SINCE:
            return 2
        if 2 in known and (vcpus <= GICV2_VCPUS or 3 not in known):
            return 2
        return 3 if 3 in known else 0
    if wish == "host" and not kvm:
        raise ArgumentError("gic-version=host needs KVM")
    if wish in ("host", "max"):
        return max(known, default=0)
    numbers = {"2": 2, "3": 3, "4": 4, "x-5": 5}
    if wish not in numbers:
        raise ArgumentError("QEMU expects one of host, max, 2, 3, 4 for gic-version")
    return numbers[wish]


def emulated_gic_versions(*, virtualization: bool) -> frozenset[int]:
    """The versions that QEMU emulates under TCG; a GICv4 has nothing to do without EL2 (finalize_gic_version)."""
    return frozenset((2, 3, 4) if virtualization else (2, 3))


USERSPACE_GIC_VERSIONS = frozenset((2,))
"""What QEMU emulates for a KVM guest: without KVM's own GIC (kernel-irqchip=off, or a KVM that makes none)."""


def libvirt_gic_version(virt_type: str, supported: Collection[int]) -> str:
    """What libvirt writes where the XML names no version (qemuDomainDefEnableDefaultFeatures).

    The highest that QEMU and the accelerator have, but 3 never under TCG; 2 where there is none at all.
    """
    usable = [version for version in supported if version in (2, 3) and not (version == 3 and virt_type == "qemu")]
    return str(max(usable, default=2))


def msi_controller(
    properties: Properties,
    gic_version: int,
    machine: Version | None,
    *,
    kvm: bool,
    in_kernel: bool,
    qemu: Version | None,
) -> MSIController:
    """The MSI controller that QEMU makes (finalize_msi_controller; create_gic and create_its before QEMU 11).

    ``machine`` is the machine type's version, ``in_kernel`` whether KVM has the GIC, ``qemu`` QEMU's version where it
    is known. Whether the kernel can make an ITS is its own affair. Raises ArgumentError for what QEMU refuses.
    """
    wish = "" if properties.msi == "auto" else properties.msi
    if wish == "off":
        return MSIController.NONE
    if wish == "gicv2m":
        return MSIController.GICV2M
    if gic_version == 2:
        # its= passed a GICv2 by before there was msi=
        if wish == "its" or (properties.its and not properties.msi and qemu and qemu >= SINCE["msi"]):
            raise ArgumentError("QEMU makes no ITS for a GICv2")
        return MSIController.GICV2M
    if gic_version == 5:
        if wish == "its" or properties.its:
            raise ArgumentError("QEMU makes no ITS for a GICv5")
        return MSIController.NONE
    if properties.its is False and not properties.msi:
        return MSIController.NONE
    can = (kvm and in_kernel) or since(TCG_ITS_SINCE, machine)
    asked = wish == "its" or properties.its or since(ITS_SINCE, machine)
    return MSIController.ITS if can and asked else MSIController.NONE
