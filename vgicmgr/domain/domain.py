"""A libvirt domain: what its XML asks for, as values. Minimal, until the room's own arrives."""

from vgicmgr.dataclass import dataclass

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vgicmgr.domain.hostdevices import HostDevice


@dataclass(frozen=True)
class CpuFeature:
    """A ``<feature>`` of ``<cpu>``."""

    name: str
    policy: str


@dataclass(frozen=True)
class IOMMU:
    """An ``<iommu>``."""

    model: str
    pci_bus: int | None = None
    accel: bool = False


@dataclass(frozen=True)
class RecordElement:
    """An ABI record's element as it stands."""

    attributes: "Mapping[str, str]"
    text: str


@dataclass(frozen=True)
class Devices:
    """Devices that bear on the interrupt controller; ``pcihole64`` in bytes."""

    iommus: tuple[IOMMU, ...] = ()
    root_ports: int = 0
    pcihole64: int = 0
    host_devices: "tuple[HostDevice, ...]" = ()


@dataclass(frozen=True)
class Domain:
    """What a domain asks for."""

    name: str
    uuid: str
    virt_type: str
    arch: str
    machine: str
    emulator: str
    vcpus: int
    current_vcpus: int
    memory: int
    max_memory: int
    memory_slots: int
    gic_version: str
    pmu: bool | None
    cpu_mode: str
    cpu_model: str
    cpu_features: tuple[CpuFeature, ...]
    devices: Devices = Devices()
    qemu_arguments: tuple[str, ...] = ()
    qemu_overrides: bool = False
    acpi: bool = False
    ras: bool | None = None
    virtualization: bool | None = None
    no_adjvtime: bool | None = None
    launch_security: str = ""
    firmware: bool = False
    hotpluggable_vcpus: bool = False
    cpuset: str = ""
    vcpu_pins: tuple[tuple[int, str], ...] = ()
    emulator_pin: str = ""
    record: RecordElement | None = None
    host_record: RecordElement | None = None
    metadata_unreadable: str = ""
