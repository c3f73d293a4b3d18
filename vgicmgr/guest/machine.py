"""The machine a domain comes to: accelerator, machine type, its properties, and where the GIC is made.

Sources: libvirt's ``src/qemu/qemu_command.c`` and ``qemu_postparse.c``; QEMU's ``system/vl.c``
(configure_accelerators), ``accel/kvm/kvm-all.c`` (kvm_irqchip_create) and ``hw/arm/virt.c`` (machvirt_init).
"""

from vgicmgr.dataclass import dataclass, replace
from vgicmgr.domain.domain import Domain
from vgicmgr.findings import Severity
from vgicmgr.guest.configuration import Source
from vgicmgr.guest.notes import Notes, Refused
from vgicmgr.qemu import virt
from vgicmgr.qemu.arguments import ArgumentError, Arguments, read_arguments
from vgicmgr.qemu.machine import Version, machine_version
from vgicmgr.qemu.virt import Properties

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts
    from vgicmgr.qemu.program import QEMUFacts

_VIRT = "virt"
_DEFAULT_TYPES = {"aarch64": _VIRT, "armv7l": "integratorcp"}
"""Of a <type> without a machine, by its arch (libvirt, preferredMachines in src/qemu/qemu_capabilities.c)."""


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
        virt.machine_properties(arguments)
    except ArgumentError as error:
        raise refuse_argument(error, notes) from None
    properties = _properties(domain, arguments, notes)
    _check_unread(domain, arguments, notes)
    if domain.launch_security or properties.confidential_guest:
        notes.find(
            "launch-security",
            f"the guest is confidential ({domain.launch_security[:20] or 'confidential-guest-support'}), and vgicmgr "
            "does not judge its interrupt controller, PMU and addresses",
        )
    kvm = _accelerator(domain, arguments, notes)
    machine_type = arguments.machine_type or domain.machine or _DEFAULT_TYPES[domain.arch]
    version = _version(machine_type, qemu, notes)
    notes.decide("machine type", machine_type, Source.ARGUMENT if arguments.machine_type else Source.XML)
    notes.decide("accelerator", "KVM" if kvm else "TCG", Source.XML)
    if kvm and not host.asked:
        notes.decide("host", f"both GIC versions, a PMU, {host.ipa_bits} bits of IPA", Source.ASSUMED)
    _check_properties(arguments, qemu, notes)
    in_kernel = kvm and _in_kernel(properties, host, notes)
    machine = Machine(machine_type, version, kvm, in_kernel, properties, arguments, qemu)
    if kvm:
        _check_kvm(domain, machine, host, notes)
    return machine


def _properties(domain: Domain, arguments: Arguments, notes: Notes) -> Properties:
    """With those of libvirt's elements, which ``arguments``, found to be good, go before; raises :class:`Refused`."""
    try:
        return virt.machine_properties(arguments, virt.libvirt_machine(domain))
    except ArgumentError as error:
        named = dict(arguments.machine)
        if "gic-version" not in named and domain.gic_version not in ("", *virt.GIC_VERSIONS):
            raise notes.refuse(
                "gic-version-unsupported",
                f"<gic version='{domain.gic_version}'/> is asked for, but {error.message}",
                "set <gic version='host'/>" if domain.virt_type == "kvm" else "set <gic version='2'/>",
            ) from None
        if "highmem-mmio-size" not in named and domain.devices.pcihole64:
            raise notes.refuse(
                "qemu-argument",
                f"<pcihole64>: {error.message}",
                "set <pcihole64> to a power of two of 512 GiB or more, or remove it",
            ) from None
        raise refuse_argument(error, notes) from None


def refuse_argument(error: ArgumentError, notes: Notes) -> Refused:
    """What to raise for an argument that QEMU itself refuses."""
    return notes.refuse("qemu-argument", f"<qemu:commandline>: {error.message}", "correct or remove the argument")


def check_architecture(domain: Domain, notes: Notes) -> None:
    """Whether the domain is a guest of QEMU or KVM on Arm; raises :class:`Refused`."""
    if domain.arch not in ("aarch64", "armv7l") or domain.virt_type not in ("kvm", "qemu"):
        raise notes.refuse(
            "machine-unsupported",
            f"the domain is of type '{domain.virt_type[:20]}' and architecture '{domain.arch[:20]}', which vgicmgr "
            "does not judge",
            "vgicmgr is for <domain type='kvm'> (or 'qemu') with <type arch='aarch64' machine='virt…'>",
        )


def with_arguments(domain: Domain, arguments: Arguments, notes: Notes) -> Domain:
    """The domain with the vCPUs and the memory that its own ``-smp`` and ``-m`` set; raises :class:`Refused`."""
    if not arguments.smp and not arguments.memory:
        return domain
    from vgicmgr.qemu import size  # few domains have any

    try:
        current, most = size.vcpus(domain, arguments)
        memory, max_memory, slots = size.memory(domain, arguments)
    except ArgumentError as error:
        raise refuse_argument(error, notes) from None
    return replace(domain, current_vcpus=current, vcpus=most, memory=memory, max_memory=max_memory, memory_slots=slots)


def _check_unread(domain: Domain, arguments: Arguments, notes: Notes) -> None:
    unread = [*(["<qemu:override> or <qemu:capabilities>"] if domain.qemu_overrides else []), *arguments.unread]
    if unread:
        notes.find(
            "argument-not-judged",
            f"the domain changes QEMU by {', '.join(unread)[:200]}, which may change the guest in ways that vgicmgr "
            "does not judge",
        )


def _accelerator(domain: Domain, arguments: Arguments, notes: Notes) -> bool:
    """Whether KVM accelerates the guest: libvirt says it by ``-accel``; QEMU refuses ``-machine accel=`` beside it."""
    kvm = domain.virt_type == "kvm"
    others = set(arguments.accelerators) - {"kvm" if kvm else "tcg"}
    if others or arguments.machine_accelerator:
        named = ", ".join(sorted({*arguments.accelerators, arguments.machine_accelerator} - {""}))[:40]
        notes.find(
            "accelerator-twice",
            f"<domain type='{domain.virt_type}'> and <qemu:commandline> ({named}) both set the accelerator: newer QEMU "
            "refuses that, older QEMU takes either",
            f"set <domain type='{'kvm' if 'kvm' in named else 'qemu'}'> and remove the argument",
        )
    return kvm or "kvm" in others


def _version(machine_type: str, qemu: "QEMUFacts", notes: Notes) -> Version | None:
    if machine_type != _VIRT and not machine_type.startswith("virt-"):
        raise notes.refuse(
            "machine-unsupported",
            f"the machine type '{machine_type[:40]}' is not QEMU's 'virt', the only one whose interrupt controller "
            "vgicmgr judges",
            "set <type machine='virt'>, or describe the VMM by a map file",
        )
    version = machine_version(machine_type)
    if version is None and machine_type != _VIRT:
        notes.find(
            "machine-unknown",
            f"the machine type '{machine_type[:40]}' is a distribution's own and taken for QEMU's newest 'virt'",
            "compare with the device tree of that QEMU ('-machine dumpdtb=FILE')",
        )
    if qemu.version and virt.has_machine_type(qemu.version, machine_type) is False:
        raise notes.refuse(
            "machine-unsupported",
            f"QEMU {_dotted(qemu.version)} has no machine type {machine_type}",
            "choose one that 'qemu-system-aarch64 -machine help' lists",
        )
    return version


def _check_properties(arguments: Arguments, qemu: "QEMUFacts", notes: Notes) -> None:
    for name, _ in arguments.machine:
        since = virt.SINCE.get(name)
        if since and qemu.version and qemu.version < since:
            raise notes.refuse(
                "qemu-argument",
                f"<qemu:commandline>: QEMU {_dotted(qemu.version)} has no machine property '{name}' "
                f"(QEMU {_dotted(since)} and later have it)",
                "remove it, or use a newer QEMU",
            )


def _in_kernel(properties: Properties, host: "HostFacts", notes: Notes) -> bool:
    """Whether KVM makes the GIC; without one QEMU emulates a GICv2 where KVM can tell it of interrupts (arm_gic.c)."""
    wish = properties.kernel_irqchip
    if wish == "split":
        raise notes.refuse(
            "irqchip-userspace",
            "<qemu:commandline> sets kernel-irqchip=split, which QEMU does not support on Arm",
            "remove it",
        )
    if wish != "off" and host.capability("KVM_CAP_IRQCHIP"):
        return True
    if not host.capability("KVM_CAP_ARM_USER_IRQ"):
        raise notes.refuse(
            "irqchip-userspace",
            f"the guest gets no GIC from KVM on {host.name}, and QEMU cannot emulate one: KVM_CAP_ARM_USER_IRQ is 0",
            "boot Linux 4.12 or newer",
        )
    why = "<qemu:commandline> sets kernel-irqchip=off" if wish == "off" else f"KVM on {host.name} makes no GIC"
    notes.find(
        "emulated-gic",
        f"{why}: QEMU emulates a GICv2, and each interrupt costs an exit to user space",
        "remove kernel-irqchip=off" if wish == "off" else "see 'dmesg | grep -i gic' for what KVM lacks",
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
