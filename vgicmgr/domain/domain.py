"""A libvirt domain as values: what its XML asks for, read and nothing more.

Source of every element: libvirt, ``docs/formatdomain.rst`` and ``src/conf/domain_conf.c``.
"""

from vgicmgr.dataclass import dataclass

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.domain.hostdevices import HostDevice

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
"""Of what changes QEMU behind libvirt's back (libvirt, ``docs/drvqemu.rst``)."""
ABI_RECORD = "urn:vgicmgr:abi-record:1"
"""The namespace of the record of what a guest was booted with."""
ABI_HOST = "urn:vgicmgr:abi-host:1"
"""The namespace of the record of the host that the guest has moved to since."""
ABI_ELEMENT = "record"
"""The local name of both."""


@dataclass(frozen=True)
class CpuFeature:
    """A ``<feature>`` of ``<cpu>``: ``policy`` is force, require, optional, disable or forbid."""

    name: str
    policy: str


@dataclass(frozen=True)
class IOMMU:
    """An ``<iommu>``; with ``pci_bus``, the index of a controller, it is a device of that bus and not the machine's."""

    model: str
    pci_bus: int | None = None
    accel: bool = False


@dataclass(frozen=True)
class RecordElement:
    """An ABI record's element as it stands in ``<metadata>``: attributes and text."""

    attributes: dict[str, str]
    text: str


@dataclass(frozen=True)
class EmulatedDevice:
    """A device that QEMU emulates on PCIe, or on virtio-mmio.

    ``kind`` is libvirt's element, or says which controller it is. ``queue_size`` is how long its virtqueues are to be,
    0 for QEMU's own choice. ``port``: it is plugged into a PCIe port, which libvirt adds where the XML names none.
    """

    kind: str
    virtio: bool = True
    queue_size: int = 0
    port: bool = False


@dataclass(frozen=True)
class Devices:
    """What of the XML's own devices bears on interrupts, memory map and migration, without those of QEMU's arguments.

    ``root_ports``: PCIe root ports and switch ports, which need MSI-X. ``pcihole64``: the size in bytes that the host
    bridge's 64-bit window is to have, or 0. ``host_devices``: those that VFIO assigns. ``emulated``: those that QEMU
    emulates, but ports, bridges and what is no device of PCIe or virtio.
    """

    iommus: tuple[IOMMU, ...] = ()
    root_ports: int = 0
    pcihole64: int = 0
    host_devices: "tuple[HostDevice, ...]" = ()
    emulated: tuple[EmulatedDevice, ...] = ()


@dataclass(frozen=True)
class Domain:
    """What a domain asks for; an empty string or None where the document says nothing.

    ``vcpus`` is the maximum and ``current_vcpus`` what is present at boot. ``memory`` and ``max_memory`` are in bytes,
    rounded up as libvirt does it for QEMU (``max_memory`` and ``memory_slots`` are 0 without ``<maxMemory>``);
    ``memory`` is without the memory devices, which ``<memory>`` counts (virDomainDefGetMemoryInitial).
    ``gic_version`` is a number or ``host``. ``cpu_mode`` is empty too for a ``<cpu>`` that names neither mode nor model
    (a topology, say).

    ``qemu_arguments`` are those of ``<qemu:commandline>``, in their order. ``qemu_overrides``: QEMU is changed by
    ``<qemu:override>``, ``<qemu:capabilities>`` or ``<qemu:deprecation>``, which nobody here reads.
    ``virtualization`` is libvirt's name for EL2. ``no_adjvtime``: the guest's virtual counter goes on while it is
    stopped (``<timer name='armvtimer' tickpolicy='discard'/>``). ``launch_security`` is the type of
    ``<launchSecurity>``. ``firmware``: the guest has flash with UEFI in it. ``hotpluggable_vcpus``: some vCPU is to
    come or to go later. ``cpuset``, ``vcpu_pins`` (by vCPU) and ``emulator_pin`` are lists of host CPUs as they stand.

    ``metadata_unreadable`` says why ``<metadata>`` could not be parsed and was left out; everything else still counts.
    """

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

    @property
    def needs_gic(self) -> bool:
        """Whether KVM is to give this guest an Arm GIC (libvirt's qemuDomainMachineIsARMVirt, under KVM).

        An AArch64 guest that names no machine type becomes libvirt's 'virt' (virQEMUCapsGetPreferredMachine).
        """
        return (
            self.virt_type == "kvm"
            and self.arch in ("aarch64", "armv7l")
            and (
                self.machine == "virt"
                or self.machine.startswith("virt-")
                or (not self.machine and self.arch == "aarch64")
            )
        )


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a domain: what it was taken of, and whether reverting to it loads memory.

    ``state`` is the guest's when it was taken, ``memory`` where that is (internal, external, no). ``domain`` is the
    domain as it ran then, which libvirt starts again; None where it did not run.
    """

    state: str
    memory: str
    domain: Domain | None = None
