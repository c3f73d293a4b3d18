"""Host capabilities as values: what one host's kernel can do. No I/O here.

A value of ``None`` means that the kernel could not be asked; :attr:`HostCapabilities.unanswered` says why.
"""

from vgicmgr.dataclass import dataclass

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.qemu.emulator import Emulators


@dataclass(frozen=True)
class CoreType:
    """The cores that share one MIDR_EL1: its value and the numbers of the CPUs."""

    midr: int
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class Machine:
    """The host below KVM: architecture, kernel release and name by ``uname``, page size in bytes, core types."""

    architecture: str
    kernel: str
    page_size: int
    core_types: tuple[CoreType, ...]
    name: str = ""


@dataclass(frozen=True)
class KernelLog:
    """What KVM wrote into the kernel log as it started; ``None`` where the log does not say (or not any more).

    ``mode`` is ``VHE``, ``nVHE``, ``hVHE``, or one of the latter two after ``protected``; ``gicv4`` says whether direct
    injection of LPIs is on (kvm-arm.vgic_v4_enable), ``gicv4_version`` is ``4`` or ``4.1`` where the host's GIC has it.
    ``counter_frequency`` is the generic timer's, in Hz.
    """

    mode: str | None = None
    gicv4: bool | None = None
    gicv4_version: str | None = None
    counter_frequency: int | None = None


@dataclass(frozen=True)
class GICv2:
    """A GICv2 made in the kernel for a guest.

    ``max_vcpus`` is KVM_CAP_MAX_VCPUS of a VM that has one, ``max_intids`` the largest KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
    ``iidr_revisions`` the values of GICD_IIDR.Revision the kernel lets user space restore.
    """

    max_vcpus: int
    max_intids: int
    gicd_iidr: int
    iidr_revisions: tuple[int, ...]
    gicd_typer: int
    registers: bool
    """Whether KVM_DEV_ARM_VGIC_GRP_DIST_REGS is there, without which a guest cannot migrate."""


@dataclass(frozen=True)
class GICv3:
    """A GICv3 made in the kernel for a guest; members as in :class:`GICv2`, and those of a GICv3 alone."""

    max_vcpus: int
    max_intids: int
    gicd_iidr: int
    iidr_revisions: tuple[int, ...]
    gicd_typer: int
    registers: bool
    icc_ctlr_el1: int
    """PRIbits, IDbits, SEIS and A3V are the hardware's, and a migration carries them."""
    redistributor_regions: bool
    """KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION (Linux 4.18): more than one region of redistributors."""
    line_level: bool
    """KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO: the input levels can be saved and restored."""
    save_pending_tables: bool
    """KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES: pending LPIs can be saved."""


@dataclass(frozen=True)
class ITS:
    """An ITS made in the kernel for a guest with a GICv3.

    ``abi_revisions`` are the values of GITS_IIDR.Revision, KVM's revision of the tables' layout in guest memory, that
    the kernel accepts.
    """

    gits_iidr: int
    abi_revisions: tuple[int, ...]
    gits_typer: int
    registers: bool
    """KVM_DEV_ARM_VGIC_GRP_ITS_REGS."""
    save_tables: bool
    restore_tables: bool
    reset: bool
    msi_devid: bool
    """KVM_CAP_MSI_DEVID: MSIs carry the device id by which the ITS translates them."""


@dataclass(frozen=True)
class PMU:
    """A PMUv3 for a guest: the attributes of KVM_ARM_VCPU_PMU_V3_CTRL there are, and PMCR_EL0.N."""

    interrupt: bool
    filter: bool
    choice: bool
    """KVM_ARM_VCPU_PMU_V3_SET_PMU."""
    counter_limit: bool
    """KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS."""
    counters: int
    """Event counters, without the cycle counter."""


@dataclass(frozen=True)
class VCPU:
    """A vCPU with every feature that QEMU's ``-cpu host`` turns on."""

    features: tuple[str, ...]
    """Its KVM_ARM_VCPU_* features."""
    sve_vector_lengths: tuple[int, ...]
    """In bits, ascending; empty without SVE."""
    steal_time: bool
    """KVM_ARM_VCPU_PVTIME_IPA."""
    firmware: tuple[tuple[str, int], ...]
    """The firmware pseudo registers by their header's names, and their values."""
    listed_registers: int
    """How many KVM_GET_REG_LIST lists."""
    migrated_registers: int
    """How many of these QEMU puts into its migration stream as a list: all but core and SVE registers."""


TARGETS = ("KVM_ARM_TARGET_CORTEX_A53", "KVM_ARM_TARGET_CORTEX_A57")
"""Those that QEMU asks for by a CPU model of their own; KVM_ARM_TARGET_GENERIC_V8 is taken everywhere."""


@dataclass(frozen=True)
class HostCapabilities:
    """What one host's kernel can do; ``capabilities`` are the answers to KVM_CHECK_EXTENSION by name."""

    machine: Machine
    log: KernelLog
    api_version: int
    ipa_bits: int
    """Largest guest physical address size of a VM, in bits."""
    capabilities: dict[str, int]
    gicv2: GICv2 | None = None
    gicv3: GICv3 | None = None
    gicv5: bool = False
    its: ITS | None = None
    pmu: PMU | None = None
    vcpu: VCPU | None = None
    targets: tuple[str, ...] | None = None
    """Of :data:`TARGETS`, those with which a vCPU can be made; None where nobody has tried."""
    counter_frequency: int | None = None
    """Of the counter that a guest reads, in Hz; None where nobody has measured it."""
    unanswered: tuple[str, ...] = ()
    """What the kernel says it has, yet refused to give or tell; one sentence each."""
    qemu: "Emulators | None" = None
    """What the installed QEMUs say; None where nobody asked for it (:func:`vgicmgr.host.qemu.ask_emulators`)."""

    @property
    def gic_versions(self) -> tuple[int, ...]:
        """The GIC versions a guest can have in the kernel, by KVM_CREATE_DEVICE_TEST."""
        present = {2: self.gicv2, 3: self.gicv3, 5: self.gicv5 or None}
        return tuple(version for version, gic in present.items() if gic is not None)


def with_iidr_revision(iidr: int, revision: int) -> int:
    """A GICD_IIDR or GITS_IIDR with another Revision, which is in bits 15 to 12 of both (Arm IHI 0069)."""
    return iidr & ~0xF000 | revision << 12
