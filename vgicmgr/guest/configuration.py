"""The vGIC configuration: a domain's settings resolved against a machine type. Values only."""

from enum import Enum

from vgicmgr.dataclass import dataclass
from vgicmgr.kvm.vgic_v3 import RedistributorRegion
from vgicmgr.qemu.gic import MSIController


class Source(Enum):
    """Where a decision comes from."""

    XML = "domain XML"
    ARGUMENT = "QEMU argument"
    """``<qemu:commandline>``, which QEMU reads after what libvirt makes of the XML."""
    METADATA = "vgicmgr metadata"
    LIBVIRT = "libvirt default"
    MACHINE = "machine type"
    QEMU = "QEMU default"
    KERNEL = "host kernel"
    MAP = "map file"
    ASSUMED = "assumed host"
    """No host was asked."""


@dataclass(frozen=True)
class Decision:
    """One thing that was decided: ``subject`` (such as ``GIC version``), what it came to, and who decided."""

    subject: str
    value: str
    source: Source


@dataclass(frozen=True)
class Region:
    """A range of guest physical addresses; ``base`` and ``size`` in bytes."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.base + self.size


@dataclass(frozen=True)
class VGICConfiguration:
    """Everything about a guest's interrupt controller that QEMU and the kernel settle between them.

    ``in_kernel``: KVM makes the GIC; else QEMU emulates it, and the kernel makes VM and vCPUs alone. ``vcpus`` are
    those that exist at boot, ``max_vcpus`` with the hotpluggable ones. ``ipa_bits`` is what the VM is made with (0: the
    kernel's default of 40, as QEMU does where the kernel has no KVM_CAP_ARM_VM_IPA_SIZE). ``nr_irqs`` counts SGIs, PPIs
    and SPIs. ``features`` are the vCPUs' KVM_ARM_VCPU_* features, ``target`` is the KVM_ARM_TARGET_* that they are made
    with (empty: the host's preferred one); ``sve_vector_lengths`` are in bits and empty without SVE. ``psci_version``
    is the value of KVM_REG_ARM_PSCI_VERSION where the domain chooses it.
    """

    machine: str
    gic_version: int
    msi: MSIController
    vcpus: int
    max_vcpus: int
    ipa_bits: int
    nr_irqs: int
    distributor: Region
    cpu_interface: Region | None
    """Of a GICv2."""
    redistributors: tuple[RedistributorRegion, ...]
    """Of a GICv3: index, base and number of vCPUs of each region."""
    its: Region | None
    gicv2m: Region | None
    pmu_intid: int | None
    """INTID of the PMU's overflow interrupt, a PPI on QEMU's ``virt``; None without a PMU."""
    features: tuple[str, ...]
    sve_vector_lengths: tuple[int, ...] = ()
    steal_time: bool = False
    """Whether QEMU gives the guest stolen time, and with it the memory region ``pvtime``."""
    vfio_files: tuple[str, ...] = ()
    """What KVM's VFIO device is told of: the IOMMU groups of assigned devices, as files or in words."""
    in_kernel: bool = True
    target: str = ""
    psci_version: int | None = None
    mte: bool = False
    """Whether QEMU enables KVM_CAP_ARM_MTE, with which the vCPUs have memory tags."""
