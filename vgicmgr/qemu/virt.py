"""QEMU's ``virt`` machine: its properties, its memory map, its interrupts and its versions (hw/arm/virt.c)."""

from collections.abc import Iterable, Iterator

from vgicmgr.dataclass import dataclass
from vgicmgr.domain.domain import Domain
from vgicmgr.qemu.arguments import ArgumentError, Arguments, boolean, size
from vgicmgr.qemu.machine import (
    GIB,
    GIC_REDIST_VCPUS,
    HIGH_GIC_REDIST2_SIZE,
    KIB,
    LEGACY_RAM_LIMIT,
    MEM_BASE,
    MIB,
    Version,
    round_up,
    upstream_version,
)

HIGH_PCIE_MMIO_SIZE = 512 * GIB
"""DEFAULT_HIGH_PCIE_MMIO_SIZE, which the property highmem-mmio-size can only raise."""
MAX_RAM_SLOTS = 256
"""ACPI_MAX_RAM_SLOTS."""

GICV3_REDIST_SIZE = 128 * KIB
GICV4_REDIST_SIZE = 256 * KIB
"""A redistributor's frames: RD and SGI; of a GICv4 VLPI and a reserved one too."""

# INTIDs of the PPIs (include/hw/arm/bsa.h)
PMU_INTID = 23
"""VIRTUAL_PMU_IRQ."""
MAINTENANCE_INTID = 25
"""ARCH_GIC_MAINT_IRQ."""
TIMER_INTIDS = {"secure": 29, "physical": 30, "virtual": 27, "hypervisor": 26}
"""ARCH_TIMER_*_IRQ."""
EL2_VIRTUAL_TIMER_INTID = 28

NUM_IRQS = 256
"""SPIs; the GIC is made with 32 INTIDs more, for SGIs and PPIs."""
NR_IRQS = NUM_IRQS + 32
GICV2M_FIRST_SPI = 48
"""Of NUM_GICV2M_SPIS SPIs; the INTID is 32 more."""
GICV2M_SPIS = 64
SMMU_FIRST_SPI = 74
"""Of NUM_SMMU_IRQS SPIs."""

OLDEST_VERSION: Version = (2, 6)
KVM_EL2_SINCE: Version = (10, 1)
"""The QEMU version since which virtualization=on gives a KVM guest EL2."""


@dataclass(frozen=True)
class MemoryRegion:
    """An entry of the memory map, under its name there; guest physical ``base`` and ``size`` in bytes."""

    name: str
    base: int
    size: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.base + self.size


BASE_MEMORY_MAP = {
    region.name: region
    for region in (
        MemoryRegion("VIRT_FLASH", 0x0000_0000, 128 * MIB),
        MemoryRegion("VIRT_GIC_DIST", 0x0800_0000, 64 * KIB),
        MemoryRegion("VIRT_GIC_CPU", 0x0801_0000, 64 * KIB),
        MemoryRegion("VIRT_GIC_V2M", 0x0802_0000, 4 * KIB),
        MemoryRegion("VIRT_GIC_HYP", 0x0803_0000, 64 * KIB),
        MemoryRegion("VIRT_GIC_VCPU", 0x0804_0000, 64 * KIB),
        MemoryRegion("VIRT_GIC_ITS", 0x0808_0000, 128 * KIB),
        MemoryRegion("VIRT_GIC_REDIST", 0x080A_0000, GIC_REDIST_VCPUS * GICV3_REDIST_SIZE),
        MemoryRegion("VIRT_UART0", 0x0900_0000, 4 * KIB),
        MemoryRegion("VIRT_RTC", 0x0901_0000, 4 * KIB),
        MemoryRegion("VIRT_FW_CFG", 0x0902_0000, 0x18),
        MemoryRegion("VIRT_GPIO", 0x0903_0000, 4 * KIB),
        MemoryRegion("VIRT_SMMU", 0x0905_0000, 128 * KIB),
        MemoryRegion("VIRT_MMIO", 0x0A00_0000, 32 * 0x200),
        MemoryRegion("VIRT_PLATFORM_BUS", 0x0C00_0000, 32 * MIB),
        MemoryRegion("VIRT_PCIE_MMIO", 0x1000_0000, 0x2EFF_0000),
        MemoryRegion("VIRT_PCIE_PIO", 0x3EFF_0000, 64 * KIB),
        MemoryRegion("VIRT_PCIE_ECAM", 0x3F00_0000, 16 * MIB),
    )
}
"""base_memmap, as far as it matters to the interrupt controller and to who looks at the map; the same since 2.6."""


@dataclass(frozen=True)
class Properties:
    """The machine's properties (``-machine virt,NAME=VALUE``); None or empty where QEMU's default holds.

    ``gic_version``, ``msi`` and ``acpi`` as QEMU spells them. ``highmem_mmio_size`` is in bytes. ``kernel_irqchip`` is
    ``on``, ``off`` or ``split``. ``confidential_guest`` names the object that makes the guest a Realm.
    """

    gic_version: str = ""
    its: bool | None = None
    msi: str = ""
    iommu: str = ""
    virtualization: bool = False
    secure: bool = False
    kernel_irqchip: str = "on"
    highmem: bool = True
    compact_highmem: bool | None = None
    highmem_redists: bool = True
    highmem_ecam: bool | None = None
    highmem_mmio: bool = True
    highmem_mmio_size: int = HIGH_PCIE_MMIO_SIZE
    acpi: str = ""
    ras: bool = False
    mte: bool = False
    confidential_guest: str = ""


_SWITCHES = {
    "its": "its",
    "virtualization": "virtualization",
    "secure": "secure",
    "ras": "ras",
    "mte": "mte",
    "highmem": "highmem",
    "compact-highmem": "compact_highmem",
    "highmem-redists": "highmem_redists",
    "highmem-ecam": "highmem_ecam",
    "highmem-mmio": "highmem_mmio",
}
GIC_VERSIONS = ("host", "max", "2", "3", "4", "x-5")
"""What the property gic-version takes (virt_set_gic_version)."""
_WORDS = {
    "gic-version": GIC_VERSIONS,
    "msi": ("auto", "gicv2m", "its", "off"),
    "iommu": ("none", "smmuv3"),
    "kernel-irqchip": ("on", "off", "split"),
    "acpi": ("auto", "on", "off"),
}


def libvirt_machine(domain: Domain) -> tuple[tuple[str, str], ...]:
    """What libvirt puts into ``-machine`` behind the type, as far as it matters here (qemuBuildMachineCommandLine)."""
    options = [("gic-version", domain.gic_version)] if domain.gic_version else []
    if any(iommu.model == "smmuv3" and iommu.pci_bus is None for iommu in domain.devices.iommus):
        options.append(("iommu", "smmuv3"))
    switches = (("ras", domain.ras), ("virtualization", domain.virtualization), ("acpi", domain.acpi))
    options += [(name, "on" if on else "off") for name, on in switches if on is not None]
    if domain.devices.pcihole64:
        options.append(("highmem-mmio-size", str(domain.devices.pcihole64)))
    return tuple(options)


def machine_properties(arguments: Arguments, libvirt: Iterable[tuple[str, str]] = ()) -> Properties:
    """What these arguments come to behind those of libvirt (:func:`libvirt_machine`); the last value counts.

    Raises :class:`~vgicmgr.qemu.arguments.ArgumentError` for a value that QEMU refuses. Whether QEMU has the property
    at all, its version decides (:data:`SINCE`).
    """
    options = dict(libvirt)
    for name in arguments.underscored:
        if name in options:
            raise ArgumentError(f"QEMU takes '{name}' in one spelling, but libvirt writes it with hyphens")
    options |= dict(arguments.machine)
    if arguments.kernel_irqchip:
        options["kernel-irqchip"] = arguments.kernel_irqchip
    values: dict[str, bool | int | str] = {}
    for name, value in options.items():
        if name in _SWITCHES:
            values[_SWITCHES[name]] = boolean(name, value)
        elif name in _WORDS:
            if value not in _WORDS[name]:
                raise ArgumentError(f"QEMU expects one of {', '.join(_WORDS[name])} for {name}")
            values[name.replace("-", "_")] = value
        elif name == "highmem-mmio-size":
            values["highmem_mmio_size"] = highmem_mmio_size(size(name, value))
        elif name == "confidential-guest-support":
            values["confidential_guest"] = value
    if values.get("iommu") == "none":
        values["iommu"] = ""
    return Properties(**values)  # type: ignore[arg-type]


def highmem_mmio_size(number: int) -> int:
    """The size of the high PCIe window, if QEMU takes it (virt_set_highmem_mmio_size); raises ArgumentError."""
    if number < HIGH_PCIE_MMIO_SIZE or number & (number - 1):
        raise ArgumentError("QEMU expects a power of two of 512 GiB or more for highmem-mmio-size")
    return number


SINCE: dict[str, Version] = {
    "compact-highmem": (8, 0),
    "highmem-redists": (8, 0),
    "highmem-ecam": (8, 0),
    "highmem-mmio": (8, 0),
    "highmem-mmio-size": (10, 0),
    "msi": (11, 0),
}
"""The QEMU version since which the machine has this property; it has the others since before 7.2."""


def has_machine(qemu: Version, machine: Version) -> bool:
    """Whether QEMU of this version still has, and already has, this machine type.

    Since 10.1 each release drops those that are six major versions old (include/hw/boards.h, MACHINE_VER_DELETION).
    """
    deleted = qemu >= (10, 1) and (machine[0] + 6, machine[1]) <= qemu
    return OLDEST_VERSION <= machine <= qemu and not deleted


# In what the versions of the machine type differ: the first that has it (virt_machine_<version>_options)
PMU_SINCE: Version = (2, 7)
ITS_SINCE: Version = (2, 8)
KVM_STEAL_TIME_SINCE: Version = (5, 2)
"""The region ``pvtime`` (no_kvm_steal_time)."""
TCG_ITS_SINCE: Version = (6, 2)
TCG_LPA2_SINCE: Version = (7, 0)
"""52 bits of physical address for TCG's CPU ``max``."""
MAX_512_VCPUS_SINCE: Version = (3, 0)
"""255 before."""
HIGH_ECAM_SINCE: Version = (3, 0)
"""PCIe configuration space in high memory."""
COMPACT_HIGHMEM_SINCE: Version = (7, 2)
"""A high region that is off takes no space."""


def has_machine_type(qemu: Version, machine: str) -> bool | None:
    """Whether QEMU of this version has the machine type of this name; None where upstream does not tell.

    That is a distribution's type, and what a distribution keeps (or drops) its version does not say.
    """
    if machine == "virt":
        return True
    version = upstream_version(machine)
    return None if version is None else has_machine(qemu, version)


def since(first: Version, machine: Version | None) -> bool:
    """Whether a version of the machine type is ``first`` or newer; None is the newest."""
    return machine is None or machine >= first


@dataclass(frozen=True)
class HighMemory:
    """The regions above guest memory that are there, and ``ipa_bits``: what a VM with this map is made with."""

    regions: tuple[MemoryRegion, ...]
    ipa_bits: int

    def find(self, name: str) -> MemoryRegion | None:
        """The region of this name, if it is there."""
        return next((region for region in self.regions if region.name == name), None)


def high_memory(top: int, max_ipa_bits: int, properties: Properties, machine: Version | None) -> HighMemory:
    """What of the high regions fits behind memory that ends at ``top`` (virt_set_memmap, virt_kvm_type).

    ``max_ipa_bits`` is what the host's KVM gives, or the size of the emulated CPU's physical addresses. The caller has
    made sure that the memory itself fits.
    """
    limit = 1 << (max_ipa_bits if properties.highmem else 32)
    compact = _chosen(properties.compact_highmem, since(COMPACT_HIGHMEM_SINCE, machine))
    base, highest = max(top, MEM_BASE + LEGACY_RAM_LIMIT), top - 1
    regions: list[MemoryRegion] = []
    for name, length, wanted in _high_regions(properties, machine):
        region = MemoryRegion(name, round_up(base, length), length)
        fits = region.end <= limit
        if wanted and fits:
            regions.append(region)
        elif compact:
            continue
        base = region.end
        if fits:
            highest = base - 1
    return HighMemory(tuple(regions), max(highest.bit_length(), 32))


def _high_regions(properties: Properties, machine: Version | None) -> Iterator[tuple[str, int, bool]]:
    """extended_memmap: name, size, and whether it is wanted."""
    yield "VIRT_HIGH_GIC_REDIST2", HIGH_GIC_REDIST2_SIZE, properties.highmem_redists
    yield "VIRT_HIGH_PCIE_ECAM", 256 * MIB, _chosen(properties.highmem_ecam, since(HIGH_ECAM_SINCE, machine))
    yield "VIRT_HIGH_PCIE_MMIO", properties.highmem_mmio_size, properties.highmem_mmio


CPU_ADDRESS_BITS = {
    "cortex-a35": 40,
    "cortex-a53": 40,
    "cortex-a55": 40,
    "cortex-a57": 44,
    "cortex-a72": 44,
    "cortex-a76": 40,
    "cortex-a710": 40,
    "neoverse-n1": 48,
    "neoverse-n2": 48,
    "neoverse-v1": 48,
    "a64fx": 40,
    "max": 52,
}
"""Physical address bits of the CPUs that TCG emulates (arm_pamax); ``max`` has 48 before virt-7.0."""


def _chosen(value: bool | None, default: bool) -> bool:
    return default if value is None else value
