"""Assigned and assignable devices, as values: what VFIO, sysfs and the device's configuration space say."""

from enum import StrEnum

from vgicmgr.dataclass import dataclass

GENERIC_DRIVERS = ("vfio-pci", "vfio-platform", "vfio-amba")
"""VFIO's own drivers, which know no device well enough to migrate it (Linux 6.1 to 7.2: no ``mig_ops``)."""


class Bus(StrEnum):
    """The buses of sysfs whose devices VFIO can be bound to here."""

    PCI = "pci"
    PLATFORM = "platform"
    AMBA = "amba"


@dataclass(frozen=True)
class Area:
    """A part of a region, in bytes from its start."""

    offset: int
    size: int


@dataclass(frozen=True)
class Region:
    """``struct vfio_region_info`` and its capabilities; sizes and offsets in bytes."""

    index: int
    name: str
    """``BAR 0`` to ``BAR 5``, ``ROM``, ``config``, ``VGA`` of a PCI device; else empty."""
    size: int
    """0: an unused BAR."""
    offset: int
    """From the start of the device's descriptor."""
    flags: tuple[str, ...]
    """``read``, ``write``, ``mmap``."""
    sparse_mmap: tuple[Area, ...] | None = None
    """The only areas that can be mapped; None where the kernel makes no such restriction."""
    msix_mappable: bool = False
    """The MSI-X table can be mapped, too."""
    type: tuple[int, int] | None = None
    """Type and subtype of a region of a driver's own."""


@dataclass(frozen=True)
class Irq:
    """``struct vfio_irq_info``."""

    index: int
    name: str
    """``INTx``, ``MSI``, ``MSI-X``, ``error``, ``request`` of a PCI device; else empty."""
    count: int
    """0: the device has none of these."""
    flags: tuple[str, ...]
    """``eventfd``, ``maskable``, ``automasked``, ``noresize``."""


@dataclass(frozen=True)
class DeviceInfo:
    """What VFIO says of an open device."""

    kind: str
    """``pci``, ``platform``, ``amba`` …"""
    reset: bool
    """Whether VFIO_DEVICE_RESET is supported."""
    regions: tuple[Region, ...]
    irqs: tuple[Irq, ...]
    migration: tuple[str, ...] = ()
    """``stop-copy``, ``p2p``, ``pre-copy``; empty: the device cannot migrate."""
    dirty_tracking: bool = False
    """Whether the device itself logs what it writes to (VFIO_DEVICE_FEATURE_DMA_LOGGING_START)."""


@dataclass(frozen=True)
class PciConfig:
    """What the configuration space says; None: beyond its first 64 bytes only root can read it."""

    intx: int
    """Interrupt lines: 1 where the device has an INTx pin."""
    msi: int | None = None
    msix: int | None = None
    """Vectors; 0: no such capability. Of MSI-X this is the size of the table."""


@dataclass(frozen=True)
class PciDevice:
    """What sysfs says of a PCI device; ids as in ``lspci -n``."""

    class_code: int
    vendor: int
    device: int
    resources: tuple[int, ...] = ()
    """Sizes in bytes of BAR 0 to 5 and the ROM."""
    reset_methods: tuple[str, ...] = ()
    """How the kernel would reset it: ``flr``, ``pm``, ``bus`` …; none: not at all."""
    config: PciConfig | None = None

    @property
    def is_bridge(self) -> bool:
        """Base class 06: no function that could be assigned."""
        return self.class_code >> 16 == 0x06


@dataclass(frozen=True)
class FirmwareNode:
    """Where the firmware describes a platform device, and what of its resources is told there."""

    path: str
    """Of the device tree, or of the ACPI namespace."""
    regions: tuple[str, ...] = ()
    """The n-th is region n: the property, its place, name, address and size."""
    irqs: tuple[str, ...] = ()
    """The n-th is interrupt n."""


@dataclass(frozen=True)
class Device:
    """A device that is bound to VFIO or could be."""

    name: str
    """As in sysfs: ``0000:00:05.0``, ``a000000.virtio_mmio``."""
    bus: Bus
    driver: str | None = None
    group: int | None = None
    """Number of its IOMMU group. A device-tree kernel before Linux 6.15 gives it one when a driver is bound."""
    vfio: str | None = None
    """Its name as a VFIO device, ``vfio0``: it is bound to VFIO."""
    pci: PciDevice | None = None
    firmware: FirmwareNode | None = None
    info: DeviceInfo | None = None
    unread: str = ""
    """Why there is no ``info`` though the device is bound to VFIO."""

    @property
    def assignable(self) -> bool:
        """Bound to VFIO, or of a kind that can be."""
        if self.vfio:
            return True
        return not self.pci.is_bridge if self.pci else self.group is not None

    @property
    def can_reset(self) -> bool | None:
        """VFIO's answer, else sysfs's; None where there is neither."""
        if self.info:
            return self.info.reset
        return bool(self.pci.reset_methods) if self.pci else None

    @property
    def migration(self) -> tuple[str, ...] | None:
        """How it can migrate, empty where it cannot: VFIO's answer, else the driver's nature; None: not known."""
        if self.info:
            return self.info.migration
        return () if self.driver in GENERIC_DRIVERS else None

    @property
    def regions(self) -> int | None:
        """Regions that are not empty. Without VFIO's answer, PCI resources and the configuration space are counted."""
        if self.info:
            return sum(region.size > 0 for region in self.info.regions)
        return sum(size > 0 for size in self.pci.resources) + 1 if self.pci else None

    @property
    def lines(self) -> int | None:
        """Wired interrupts: INTx, or those of a platform device."""
        if self.info and not self.pci:
            return sum(irq.count for irq in self.info.irqs)
        return self._vectors("INTx", self.pci.config.intx if self.pci and self.pci.config else None)

    @property
    def msi(self) -> int | None:
        """MSI vectors."""
        return self._vectors("MSI", self.pci.config.msi if self.pci and self.pci.config else None)

    @property
    def msix(self) -> int | None:
        """MSI-X vectors: the size of the table."""
        return self._vectors("MSI-X", self.pci.config.msix if self.pci and self.pci.config else None)

    def _vectors(self, name: str, of_config: int | None) -> int | None:
        if self.info:
            return next((irq.count for irq in self.info.irqs if irq.name == name), 0)
        return of_config


@dataclass(frozen=True)
class User:
    """A process that has a group or device open."""

    pid: int
    command: str
    guest: str = ""
    """The guest's name, where it is a QEMU that was started with one."""

    def __str__(self) -> str:
        return f"guest {self.guest}" if self.guest else f"{self.command} ({self.pid})"


@dataclass(frozen=True)
class Group:
    """An IOMMU group: the devices that can only be assigned together."""

    number: int
    members: tuple[str, ...]
    in_the_way: tuple[tuple[str, str], ...] = ()
    """Members bound to a driver of the host's, with the driver."""
    noiommu: bool = False
    """Made by VFIO for a device without an IOMMU."""
    status: bool | None = None
    """VFIO_GROUP_FLAGS_VIABLE; None where the kernel was not asked."""
    in_use: bool | None = None
    """Whether somebody has it open; None where this user cannot tell."""
    users: tuple[User, ...] = ()

    @property
    def viable(self) -> bool:
        """Whether it can be assigned: the kernel's answer, else by its members' drivers."""
        return not self.in_the_way if self.status is None else self.status


@dataclass(frozen=True)
class Host:
    """What the host has of VFIO and IOMMUs."""

    iommus: tuple[str, ...] = ()
    """Names in /sys/class/iommu."""
    api_version: int | None = None
    """VFIO_GET_API_VERSION; None where the container could not be asked."""
    extensions: tuple[str, ...] = ()
    """What VFIO_CHECK_EXTENSION answers yes to."""
    iommufd: bool = False
    """Whether there is /dev/iommu."""
    allow_unsafe_interrupts: bool | None = None
    """vfio_iommu_type1's parameter; None: the module is not loaded."""


@dataclass(frozen=True)
class Inventory:
    """All of it."""

    host: Host
    groups: tuple[Group, ...] = ()
    devices: tuple[Device, ...] = ()
    unread: tuple[str, ...] = ()
    """What could not be read, one sentence each."""

    def group_of(self, device: Device) -> Group | None:
        """The device's group."""
        return next((group for group in self.groups if group.number == device.group), None)
