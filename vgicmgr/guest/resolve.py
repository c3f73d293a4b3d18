"""A domain resolved against a host: its vGIC configuration with who decided what, or the findings against it.

The one decider: a start, an arrival, ``translate``, ``rehearse`` and ``check-migration`` all ask :func:`resolve`. Pure
but for the questions that the host's facts put to its kernel when they are asked. The subjects are resolved in QEMU's
order, each in the module of its name; another VMM's map (:func:`_by_map`) and our wishes
(:mod:`vgicmgr.guest.wishes`) are laid over what QEMU would do.
"""

from vgicmgr.dataclass import dataclass, replace
from vgicmgr.domain.domain import Domain
from vgicmgr.findings import Finding, Severity, Verdict
from vgicmgr.guest import cpu as cpus
from vgicmgr.guest import devices, gic, memory, msi, pmu, vcpus
from vgicmgr.guest.addressmap import DEVICE_NAMES, AddressMap
from vgicmgr.guest.configuration import Decision, Region, Source, VGICConfiguration
from vgicmgr.guest.machine import Machine, check_architecture, refuse_argument, resolve_machine, with_arguments
from vgicmgr.guest.notes import Notes, Refused
from vgicmgr.kvm.vgic_v3 import RedistributorRegion
from vgicmgr.qemu.arguments import ArgumentError, Arguments
from vgicmgr.qemu.cpu import CPU
from vgicmgr.qemu.gic import MSIController
from vgicmgr.qemu.virt import Properties

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.domain.metadata import Wishes
    from vgicmgr.host.facts import HostFacts
    from vgicmgr.qemu.program import QEMUFacts


@dataclass(frozen=True)
class Resolution:
    """What became of a domain: a configuration, or findings that refuse one.

    ``machine`` and ``cpu`` are what QEMU makes; None where they could not be told. ``machine_options`` are ``-machine``
    properties that say our wishes, for which libvirt has no element.
    """

    domain: Domain
    configuration: VGICConfiguration | None
    findings: tuple[Finding, ...]
    decisions: tuple[Decision, ...] = ()
    machine: Machine | None = None
    cpu: CPU | None = None
    address_map: AddressMap | None = None
    machine_options: tuple[tuple[str, str], ...] = ()
    host_asked: bool = False
    """Whether the host was asked, or only assumed."""

    @property
    def verdict(self) -> Verdict:
        """The findings, and whether there is a configuration."""
        return Verdict(self.findings)


def resolve(
    domain: Domain,
    host: "HostFacts",
    *,
    wished: "Wishes | None" = None,
    qemu: "QEMUFacts | None" = None,
    address_map: AddressMap | None = None,
) -> Resolution:
    """The vGIC configuration that a domain comes to on a host, or the findings that stand against it.

    ``qemu``: what is known of QEMU, where that is not the host's own at the domain's ``<emulator>``. ``address_map`` is
    that of another VMM than QEMU. Raises :class:`~vgicmgr.kvm.errors.KvmError` where the host's kernel is asked and
    cannot answer.
    """
    notes = Notes()
    draft = _Draft(domain)
    try:
        if address_map is None:
            _on_virt(draft, host, qemu or host.qemu(domain.emulator), wished, notes)
        else:
            _by_map(draft, host, address_map, wished, notes)
    except Refused:
        draft.configuration = None
    except ArgumentError as error:  # a CPU's or a device's property
        refuse_argument(error, notes)
        draft.configuration = None
    if any(found.severity is Severity.ERROR for found in notes.findings):
        draft.configuration = None
    return draft.resolution(notes, host_asked=host.asked)


class _Draft:
    """A resolution as far as it has come."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.machine: Machine | None = None
        self.cpu: CPU | None = None
        self.address_map: AddressMap | None = None
        self.machine_options: tuple[tuple[str, str], ...] = ()
        self.configuration: VGICConfiguration | None = None

    def resolution(self, notes: Notes, *, host_asked: bool) -> Resolution:
        return Resolution(
            domain=self.domain,
            configuration=self.configuration,
            findings=notes.findings,
            decisions=notes.decisions,
            machine=self.machine,
            cpu=self.cpu,
            address_map=self.address_map,
            machine_options=self.machine_options,
            host_asked=host_asked,
        )


def _on_virt(draft: _Draft, host: "HostFacts", qemu: "QEMUFacts", wished: "Wishes | None", notes: Notes) -> None:
    """QEMU's ``virt`` machine (hw/arm/virt.c, machvirt_init)."""
    machine = draft.machine = resolve_machine(draft.domain, host, qemu, notes)
    domain = draft.domain = with_arguments(draft.domain, machine.arguments, notes)
    cpu = draft.cpu = cpus.resolve_cpu(domain, machine, host, notes)
    address_map = memory.resolve_memory(domain, machine, cpu, host, notes)
    ipa_bits = _vm_ipa_bits(address_map, host) if machine.kvm else address_map.ipa_bits
    version = gic.resolve_gic_version(domain, machine, host, ipa_bits, notes)
    controller = msi.resolve_msi(machine, version, notes)
    intid = pmu.resolve_pmu(cpu, machine, host, address_map, notes)
    if wished is not None:
        from vgicmgr.guest import wishes  # most domains have none

        address_map = wishes.grant_addresses(wished, address_map, notes)
        controller, draft.machine_options = wishes.grant_msi(wished, controller, machine, host, notes, version=version)
        intid = wishes.grant_pmu(wished, intid, domain.vcpus, address_map, notes)
    draft.address_map = address_map
    regions = vcpus.resolve_vcpus(domain, machine, address_map, host, notes, version=version)
    if machine.in_kernel:
        msi.check_its(controller, host, ipa_bits, notes)
    features = cpus.resolve_features(cpu, machine, host, pmu=intid is not None, notes=notes)
    devices.resolve_iommu(domain, machine, notes)
    devices.check_root_ports(domain, controller, notes)
    spis = address_map.gicv2m_spis
    files = devices.resolve_host_devices(domain, machine, controller, host, notes, gicv2m_spis=spis)
    configuration = _configuration(
        domain,
        address_map,
        notes,
        machine_type=machine.type,
        version=version,
        controller=controller,
        regions=regions,
        intid=intid,
        features=features,
        ipa_bits=ipa_bits,
    )
    _decide_addresses(configuration, wished, Source.MACHINE, notes)
    mte = machine.kvm and machine.properties.mte
    draft.configuration = replace(configuration, in_kernel=machine.in_kernel, vfio_files=files, mte=mte)


def _by_map(draft: _Draft, host: "HostFacts", address_map: AddressMap, wished: "Wishes | None", notes: Notes) -> None:
    """Another VMM than QEMU, of which nothing is known but its map; it asks KVM for everything."""
    from vgicmgr.guest import wishes

    domain, wished = draft.domain, wished or wishes.NO_WISHES
    check_architecture(domain, notes)
    notes.decide("machine type", domain.machine, Source.XML)
    machine = draft.machine = Machine(
        domain.machine, None, True, True, Properties(), Arguments(), host.qemu(domain.emulator)
    )
    cpu = draft.cpu = cpus.resolve_cpu(domain, machine, host, notes)
    if address_map.ipa_bits > host.ipa_bits:
        raise notes.refuse(
            "ipa-size",
            f"{address_map.name} needs {address_map.ipa_bits} bits of guest physical address, but KVM on {host.name} "
            f"gives {host.ipa_bits} (KVM_CAP_ARM_VM_IPA_SIZE)",
            "use a host with more bits",
        )
    ipa_bits = _vm_ipa_bits(address_map, host)
    version = gic.resolve_gic_version_by_map(domain, host, ipa_bits, notes)
    controller = msi.resolve_msi_by_map(version, address_map, notes)
    intid = pmu.resolve_pmu_by_map(cpu, host, address_map, notes)
    address_map = draft.address_map = wishes.grant_addresses(wished, address_map, notes)
    controller = wishes.grant_msi_by_map(wished, controller, version, address_map, notes)
    intid = wishes.grant_pmu(wished, intid, domain.vcpus, address_map, notes)
    wishes.check_map(address_map, notes)
    regions = vcpus.resolve_vcpus_by_map(domain, version, address_map, host, notes)
    msi.check_its(controller, host, ipa_bits, notes)
    features = cpus.resolve_features_of_cpu(cpu, None, host, pmu=intid is not None, el2=False, notes=notes)
    draft.configuration = _configuration(
        domain,
        address_map,
        notes,
        machine_type=domain.machine,
        version=version,
        controller=controller,
        regions=regions,
        intid=intid,
        features=features,
        ipa_bits=ipa_bits,
    )
    _decide_addresses(draft.configuration, wished, Source.MAP, notes)


def _vm_ipa_bits(address_map: AddressMap, host: "HostFacts") -> int:
    """What the VM is made with: the map's size, or 0 where the kernel has one size only (virt_kvm_type)."""
    return address_map.ipa_bits if host.capability("KVM_CAP_ARM_VM_IPA_SIZE") else 0


def _configuration(
    domain: Domain,
    address_map: AddressMap,
    notes: Notes,
    *,
    machine_type: str,
    version: int,
    controller: MSIController,
    regions: tuple[RedistributorRegion, ...],
    intid: int | None,
    features: cpus.VCPUFeatures,
    ipa_bits: int,
) -> VGICConfiguration:
    def region(device: str, what: str) -> Region:
        found = address_map.region(device)
        if found is None:
            raise notes.refuse(
                "map-incomplete",
                f"{what} is asked for, but {address_map.name} has no address for it",
                "complete the map",
            )
        return found

    return VGICConfiguration(
        machine=machine_type,
        gic_version=version,
        msi=controller,
        vcpus=domain.current_vcpus,
        max_vcpus=domain.vcpus,
        ipa_bits=ipa_bits,
        nr_irqs=address_map.nr_irqs,
        distributor=address_map.distributor,
        cpu_interface=region("cpu-interface", "a GICv2") if version == 2 else None,
        redistributors=regions,
        its=region("its", "an ITS") if controller is MSIController.ITS else None,
        gicv2m=region("gicv2m", "a GICv2m") if controller is MSIController.GICV2M else None,
        pmu_intid=intid,
        features=features.features,
        sve_vector_lengths=features.sve,
        steal_time=features.steal_time,
        target=features.target,
        psci_version=features.psci_version,
    )


def _decide_addresses(configuration: VGICConfiguration, wished: "Wishes | None", source: Source, notes: Notes) -> None:
    """Note where the frames are, but for those that a wish has placed, and the sizes."""
    frames = {
        "distributor": configuration.distributor,
        "cpu-interface": configuration.cpu_interface,
        "its": configuration.its,
        "gicv2m": configuration.gicv2m,
    }
    by_wish = {wish.device for wish in wished.addresses} if wished else set()
    for device, region in frames.items():
        if region and device not in by_wish:
            notes.decide(DEVICE_NAMES[device], f"{region.base:#x}", source)
    notes.decide("interrupts", f"{configuration.nr_irqs}, of them {configuration.nr_irqs - 32} SPIs", source)
    bits = configuration.ipa_bits
    notes.decide(
        "IPA size", f"{bits} bits" if bits else "the kernel's only one, 40 bits", source if bits else Source.KERNEL
    )
