"""The machine a domain comes to: accelerator, machine type, its properties, and where the GIC is made.

Sources: libvirt's ``src/qemu/qemu_command.c`` and ``qemu_postparse.c``; QEMU's ``system/vl.c`` (configure_accelerators),
``accel/kvm/kvm-all.c`` (kvm_irqchip_create) and ``hw/arm/virt.c`` (machvirt_init).
"""

from vgicmgr.dataclass import dataclass, replace
from vgicmgr.domain.domain import Domain
from vgicmgr.findings import Severity
from vgicmgr.guest.configuration import Source
from vgicmgr.guest.notes import Notes
from vgicmgr.qemu import virt
from vgicmgr.qemu.arguments import ArgumentError, Arguments, read_arguments
from vgicmgr.qemu.machine import Version, machine_version
from vgicmgr.qemu.virt import Properties

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts
    from vgicmgr.qemu.program import QEMUFacts

_DEFAULT_TYPE = "virt"
"""Of <type arch='aarch64'> without a machine (libvirt, qemuDomainDefMachinePostParse)."""


@dataclass(frozen=True)
class Machine:
    """What QEMU makes: ``type`` as it is named, its ``version`` (None: taken for the newest), ``properties``.

    ``kvm`` is False under TCG. ``in_kernel``: KVM makes the GIC. ``arguments`` are the domain's own for QEMU.
    """

    type: str
    version: Version | None
    kvm: bool
    in_kernel: bool
    properties: Properties
    arguments: Arguments
    qemu: "QEMUFacts"

    @property
    def qemu_version(self) -> Version | None:
        """QEMU's, where it is known."""
        return self.qemu.version

    def since(self, first: Version) -> bool:
        """Whether the machine type is of version ``first`` or newer."""
        return virt.since(first, self.version)

    def qemu_since(self, first: Version) -> bool | None:
        """Whether QEMU is of version ``first`` or newer; None where that is not known."""
        return None if self.qemu_version is None else self.qemu_version >= first


def resolve_machine(domain: Domain, host: "HostFacts", qemu: "QEMUFacts", notes: Notes) -> Machine:
    """The machine of a domain on QEMU's ``virt``; raises :class:`Refused` where there is none."""
    check_architecture(domain, notes)
    try:
        arguments = read_arguments(domain.qemu_arguments)
        properties = virt.machine_properties(arguments)
    except ArgumentError as error:
        raise notes.refuse(
            "qemu-argument", f"<qemu:commandline>: {error.message}", "correct or remove the argument"
        ) from None
    if domain.qemu_overrides:
        notes.find(
            "argument-not-judged",
            "the domain changes QEMU by <qemu:override> or <qemu:capabilities>, which is not judged",
        )
    kvm = _accelerator(domain, arguments, notes)
    machine_type = arguments.machine_type or domain.machine or _DEFAULT_TYPE
    version = _version(machine_type, qemu, notes)
    notes.decide("machine type", machine_type, Source.ARGUMENT if arguments.machine_type else Source.XML)
    notes.decide("accelerator", "KVM" if kvm else "TCG", Source.XML)
    if kvm and not host.asked:
        notes.decide("host", f"both GIC versions, a PMU, {host.ipa_bits} bits of IPA", Source.ASSUMED)
    properties = _with_elements(domain, properties)
    _check_properties(arguments, properties, qemu, notes)
    in_kernel = kvm and _in_kernel(arguments, properties, host, notes)
    machine = Machine(machine_type, version, kvm, in_kernel, properties, arguments, qemu)
    if kvm:
        _check_kvm(domain, machine, host, notes)
    return machine


def check_architecture(domain: Domain, notes: Notes) -> None:
    """Whether the domain is a guest of QEMU or KVM on Arm; raises :class:`Refused`."""
    if domain.arch not in ("aarch64", "armv7l") or domain.virt_type not in ("kvm", "qemu"):
        raise notes.refuse(
            "machine-unsupported",
            f"the domain is of type '{domain.virt_type[:20]}' and architecture '{domain.arch[:20]}', which vgicmgr does "
            "not judge",
            "vgicmgr is for <domain type='kvm'> (or 'qemu') with <type arch='aarch64' machine='virt…'>",
        )
    if domain.launch_security:
        notes.find(
            "launch-security",
            f"<launchSecurity type='{domain.launch_security[:20]}'> makes a confidential guest, whose interrupt "
            "controller, PMU and addresses vgicmgr does not judge",
        )


def with_arguments(domain: Domain, arguments: Arguments) -> Domain:
    """The domain with the vCPUs and the memory that its own ``-smp`` and ``-m`` set (system/vl.c merges them)."""
    smp, memory = dict(arguments.smp), dict(arguments.memory)
    vcpus = _count(smp.get("cpus")) or domain.current_vcpus
    most = _count(smp.get("maxcpus")) or (vcpus if domain.vcpus == domain.current_vcpus else max(domain.vcpus, vcpus))
    size = _count(memory.get("size")) or domain.memory
    max_memory = _count(memory.get("maxmem")) or domain.max_memory
    slots = _count(memory.get("slots")) or domain.memory_slots
    if (vcpus, most, size, max_memory, slots) == (
        domain.current_vcpus,
        domain.vcpus,
        domain.memory,
        domain.max_memory,
        domain.memory_slots,
    ):
        return domain
    return replace(
        domain, current_vcpus=vcpus, vcpus=most, memory=size, max_memory=max_memory, memory_slots=slots
    )


def _count(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= 20 else 0


def _accelerator(domain: Domain, arguments: Arguments, notes: Notes) -> bool:
    """Whether KVM accelerates the guest: libvirt says it by ``-accel``, beside which QEMU takes no other way."""
    kvm = domain.virt_type == "kvm"
    named = set(arguments.accelerators)
    if named - {"kvm" if kvm else "tcg"}:
        notes.find(
            "accelerator-twice",
            f"<domain type='{domain.virt_type}'> and <qemu:commandline> ({', '.join(sorted(named))[:40]}) each set the "
            "accelerator: newer QEMU refuses two, older QEMU takes either",
            f"set <domain type='{'kvm' if 'kvm' in named else 'qemu'}'> and remove the argument",
        )
        return kvm or "kvm" in named
    return kvm


def _version(machine_type: str, qemu: "QEMUFacts", notes: Notes) -> Version | None:
    if machine_type != _DEFAULT_TYPE and not machine_type.startswith("virt-"):
        raise notes.refuse(
            "machine-unsupported",
            f"the machine type '{machine_type[:40]}' is not QEMU's 'virt', the only one whose interrupt controller "
            "vgicmgr judges",
            "set <type machine='virt'>, or describe the VMM by a map file",
        )
    version = machine_version(machine_type)
    if version is None and machine_type != _DEFAULT_TYPE:
        notes.find(
            "machine-unknown",
            f"the machine type '{machine_type[:40]}' is a distribution's own and taken for QEMU's newest 'virt'",
            "compare with the device tree of that QEMU ('-machine dumpdtb=FILE')",
        )
    upstream = f"virt-{_dotted(version)}" if version else ""
    if version and machine_type == upstream and qemu.version and not virt.has_machine(qemu.version, version):
        raise notes.refuse(
            "machine-unsupported",
            f"QEMU {_dotted(qemu.version)} has no machine type {upstream}",
            "choose one that 'qemu-system-aarch64 -machine help' lists",
        )
    return version


def _with_elements(domain: Domain, properties: Properties) -> Properties:
    """What libvirt says in ``-machine`` for elements of the XML, as far as no argument says otherwise."""
    if any(iommu.model == "smmuv3" and iommu.pci_bus is None for iommu in domain.devices.iommus):
        properties = properties if properties.iommu else replace(properties, iommu="smmuv3")
    if domain.devices.pcihole64 and properties.highmem_mmio_size == virt.HIGH_PCIE_MMIO_SIZE:
        properties = replace(properties, highmem_mmio_size=domain.devices.pcihole64)
    if domain.virtualization is not None and not properties.virtualization:
        properties = replace(properties, virtualization=domain.virtualization)
    if domain.ras is not None and properties.ras is None:
        properties = replace(properties, ras=domain.ras)
    if not properties.acpi:
        properties = replace(properties, acpi="on" if domain.acpi else "off")
    return properties


def _check_properties(arguments: Arguments, properties: Properties, qemu: "QEMUFacts", notes: Notes) -> None:
    for name, _ in arguments.machine:
        since = virt.SINCE.get(name)
        if since and qemu.version and qemu.version < since:
            raise notes.refuse(
                "qemu-argument",
                f"<qemu:commandline>: QEMU {_dotted(qemu.version)} has no machine property '{name}' "
                f"(QEMU {_dotted(since)} and later have it)",
                "remove it, or use a newer QEMU",
            )
    size = properties.highmem_mmio_size
    if size < virt.HIGH_PCIE_MMIO_SIZE or size & (size - 1):
        raise notes.refuse(
            "qemu-argument",
            f"{size / virt.HIGH_PCIE_MMIO_SIZE * 512:g} GiB of high PCI MMIO space are asked for "
            "(<pcihole64> or highmem-mmio-size), and QEMU takes a power of 2 of 512 GiB or more",
            "set <pcihole64 unit='GiB'> to 512, 1024, 2048 …",
        )


def _in_kernel(arguments: Arguments, properties: Properties, host: "HostFacts", notes: Notes) -> bool:
    """Whether KVM makes the GIC; without one QEMU emulates a GICv2 where KVM can tell it of interrupts (arm_gic.c)."""
    if arguments.kernel_irqchip == "split":
        raise notes.refuse(
            "irqchip-userspace",
            "<qemu:commandline> sets kernel-irqchip=split, which QEMU does not support on Arm",
            "remove it",
        )
    if arguments.kernel_irqchip != "off" and host.capability("KVM_CAP_IRQCHIP"):
        return True
    if arguments.kernel_irqchip == "on":
        raise notes.refuse(
            "irqchip-userspace",
            f"<qemu:commandline> sets kernel-irqchip=on, but KVM on {host.name} makes no GIC (KVM_CAP_IRQCHIP is 0)",
            "remove it",
        )
    if not host.capability("KVM_CAP_ARM_USER_IRQ"):
        raise notes.refuse(
            "irqchip-userspace",
            f"the guest gets no GIC from KVM on {host.name}, and QEMU cannot emulate one: KVM_CAP_ARM_USER_IRQ is 0",
            "boot Linux 4.12 or newer",
        )
    why = "<qemu:commandline> sets kernel-irqchip=off" if arguments.kernel_irqchip else f"KVM on {host.name} makes no GIC"
    notes.find(
        "emulated-gic",
        f"{why}: QEMU emulates a GICv2, and each interrupt costs an exit to user space",
        "remove kernel-irqchip=off" if arguments.kernel_irqchip else "see 'dmesg | grep -i gic' for what KVM lacks",
    )
    return False


def _check_kvm(domain: Domain, machine: Machine, host: "HostFacts", notes: Notes) -> None:
    properties = machine.properties
    if properties.secure:
        notes.find(
            "secure-unsupported",
            "<qemu:commandline> sets secure=on, but KVM gives guests no TrustZone",
            "remove it",
        )
    if properties.mte and not host.capability("KVM_CAP_ARM_MTE"):
        notes.find(
            "mte-unsupported",
            f"mte=on is asked for, but KVM on {host.name} does not support it (KVM_CAP_ARM_MTE is 0)",
            "remove it, or use a host that supports MTE",
            severity=missing(host),
        )
    if properties.virtualization:
        _check_virtualization(domain, machine, host, notes)


def _check_virtualization(domain: Domain, machine: Machine, host: "HostFacts", notes: Notes) -> None:
    """EL2 for a KVM guest: since QEMU 10.1, where the kernel can nest (hw/arm/virt.c, machvirt_init)."""
    reason, severity = "", Severity.ERROR
    if machine.qemu_since(virt.KVM_EL2_SINCE) is False:
        reason = f"QEMU {_dotted(machine.qemu_version or ())} does not ask KVM for it (10.1 and later do)"
    elif not machine.in_kernel:
        reason = "KVM does so with its own GICv3 only"
    elif not host.capability("KVM_CAP_ARM_EL2"):
        reason, severity = f"KVM on {host.name} does not support it (KVM_CAP_ARM_EL2 is 0)", missing(host)
    elif domain.arch == "armv7l":
        reason = "a 32-bit guest cannot have it"
    if reason:
        notes.find(
            "virtualization-unsupported",
            f"virtualization=on asks for EL2 in the guest, but {reason}",
            "remove it, or use a host whose 'vgicmgr check-host' shows EL2",
            severity=severity,
        )


def missing(host: "HostFacts") -> Severity:
    """How much it weighs that a host lacks something: where nobody asked the host, it is only to be expected."""
    return Severity.ERROR if host.asked else Severity.WARNING


def _dotted(version: "tuple[int, ...]") -> str:
    return ".".join(map(str, version))
