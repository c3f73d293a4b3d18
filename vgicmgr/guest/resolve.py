"""Domain settings resolved into a vGIC configuration, with who decided what; pure: values in, values out.

What libvirt decides: ``qemuDomainDefEnableDefaultFeatures`` (src/qemu/qemu_postparse.c) and the command line it builds.
What QEMU decides: ``machvirt_init`` and what it calls (hw/arm/virt.c), ``kvm_arch_init_vcpu`` (target/arm/kvm.c).
"""

from collections.abc import Iterable
from itertools import pairwise

from vgicmgr.dataclass import dataclass, replace
from vgicmgr.domain.devices import Devices
from vgicmgr.domain.metadata import Unmet, Wishes
from vgicmgr.domain.settings import DomainSettings
from vgicmgr.findings import Finding, Severity, Verdict
from vgicmgr.kvm import vgic_v2
from vgicmgr.kvm.vcpu import in_bit_order
from vgicmgr.kvm.vgic_v3 import RedistributorRegion
from vgicmgr.qemu import virt
from vgicmgr.qemu.arguments import ArgumentError, cpu_options, machine_options, machine_properties
from vgicmgr.qemu.machine import GIB, MEM_BASE, Version, machine_version, top_of_memory
from vgicmgr.qemu.sve import unmet_vector_length
from vgicmgr.qemu.virt import Properties
from vgicmgr.guest.addressmap import AddressMap, high_memory, virt_map
from vgicmgr.guest.configuration import Decision, MSIController, Region, Source, VGICConfiguration
from vgicmgr.guest.hostfacts import ASSUMED_HOST, HostFacts

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.domain.hostdevices import HostDevice

ALIGNMENT = {"gicv2": 4 << 10, "gicv3": 64 << 10}
"""Of the GIC's frames, in bytes (Documentation/virt/kvm/devices/arm-vgic.rst, arm-vgic-v3.rst, arm-vgic-its.rst)."""

_IRQ_LINE_VCPUS = 256
"""KVM_IRQ_LINE names no more vCPUs without KVM_CAP_ARM_IRQ_LINE_LAYOUT_2."""


NO_WISHES = Wishes()
NO_DEVICES = Devices()


@dataclass(frozen=True)
class Resolution:
    """What became of a domain's settings: a configuration, or findings that refuse one.

    ``machine_options`` are ``-machine`` properties that say what libvirt has no element for, and ``gic_version`` is
    what libvirt's element can say where the domain does not. ``cpu`` is QEMU's ``-cpu`` model, with its switches.
    """

    settings: DomainSettings
    configuration: VGICConfiguration | None
    findings: tuple[Finding, ...]
    address_map: AddressMap | None = None
    machine_options: tuple[tuple[str, str], ...] = ()
    properties: Properties = Properties()
    cpu: tuple[str, tuple[tuple[str, bool], ...]] = ("host", ())
    devices: Devices = NO_DEVICES

    @property
    def verdict(self) -> Verdict:
        """The findings, and whether there is a configuration."""
        return Verdict(self.findings)


def resolve(
    settings: DomainSettings,
    wishes: Wishes = NO_WISHES,
    devices: Devices = NO_DEVICES,
    *,
    host: HostFacts = ASSUMED_HOST,
    qemu: Version | None = None,
    address_map: AddressMap | None = None,
) -> Resolution:
    """The vGIC configuration that these settings come to, or the findings that stand against it.

    ``qemu`` is QEMU's version, where it is known; ``address_map`` is that of another VMM than QEMU. ``virt_type``
    decides the accelerator: ``kvm``, or ``qemu`` (TCG). Raises nothing.
    """
    return _Resolver(settings, wishes, devices, host=host, qemu=qemu, address_map=address_map).resolve()


class _Refused(Exception):
    """A finding after which the rest cannot be resolved."""


class _Resolver:
    """One resolution: gathers decisions and findings as it goes, in the order in which QEMU decides."""

    def __init__(
        self,
        settings: DomainSettings,
        wishes: Wishes,
        devices: Devices,
        *,
        host: HostFacts,
        qemu: Version | None,
        address_map: AddressMap | None,
    ) -> None:
        self.settings, self.wishes, self.devices, self.host, self.qemu = settings, wishes, devices, host, qemu
        self.kvm = settings.virt_type == "kvm"
        self.settled_map, self.foreign = address_map, address_map is not None
        self.machine = machine_version(settings.machine)
        self.properties = Properties()
        self.options: list[tuple[str, str]] = []
        self.findings: list[Finding] = []
        self.decisions: list[Decision] = []
        self.cpu_model, self.switches = "host", dict[str, bool]()
        self.vfio_files: tuple[str, ...] = ()

    def resolve(self) -> Resolution:
        try:
            configuration: VGICConfiguration | None = self._configuration()
        except _Refused:
            configuration = None
        if not Verdict(tuple(self.findings)).ok:
            configuration = None
        return Resolution(
            settings=self.settings,
            configuration=configuration,
            findings=tuple(self.findings),
            address_map=self.settled_map,
            machine_options=tuple(self.options),
            properties=self.properties,
            cpu=(self.cpu_model, tuple(self.switches.items())),
            devices=self.devices,
        )

    @property
    def map(self) -> AddressMap:
        """That of the other VMM, or QEMU's, once memory has settled it."""
        if self.settled_map is None:
            raise RuntimeError("the address map is not settled yet")
        return self.settled_map

    @property
    def address_bits(self) -> int:
        """Of guest physical addresses: what KVM gives, or what the emulated CPU has."""
        if self.kvm:
            return self.host.ipa_bits
        if self.cpu_model == "max" and not virt.since(virt.TCG_LPA2_SINCE, self.machine):
            return 48
        return virt.CPU_ADDRESS_BITS.get(self.cpu_model, 40)

    # --- what is said along the way

    def decide(self, subject: str, value: object, source: Source) -> None:
        self.decisions.append(Decision(subject, str(value), source))

    def find(self, name: str, severity: Severity, evidence: str, remedy: str) -> None:
        self.findings.append(Finding(name, severity, evidence, remedy))

    def error(self, name: str, evidence: str, remedy: str) -> None:
        self.find(name, Severity.ERROR, evidence, remedy)

    def refuse(self, name: str, evidence: str, remedy: str) -> _Refused:
        self.error(name, evidence, remedy)
        return _Refused()

    def unmet(self, evidence: str, remedy: str) -> None:
        """A wish that this host or QEMU's version cannot fulfil: what becomes of it is a wish, too."""
        severity = Severity.ERROR if self.wishes.unmet is Unmet.REFUSE else Severity.WARNING
        self.find("wish-unmet", severity, evidence, remedy)

    # --- the decisions

    def _configuration(self) -> VGICConfiguration:
        self._check_machine()
        self._read_arguments()
        version = self._gic_version()
        self._check_memory()
        if self.settled_map is None:
            high = high_memory(self.settings, self.address_bits, self.properties)
            smmu = self.properties.iommu == "smmuv3"
            self.settled_map = virt_map(high, self.settings, smmu=smmu)
        elif self.map.ipa_bits > self.host.ipa_bits:
            raise self.refuse(
                "ipa-size",
                f"{self.map.name} needs {self.map.ipa_bits} bits of guest physical address, but the host gives "
                f"{self.host.ipa_bits} (KVM_CAP_ARM_VM_IPA_SIZE)",
                "use a host with more bits",
            )
        self._place_by_wish()
        regions = self._vcpus(version)
        msi = self._msi(version)
        place = Source.MAP if self.foreign else Source.MACHINE
        devices = ["distributor", "cpu-interface" if version == 2 else "", _MSI_DEVICES.get(msi, "")]
        wished = {wish.device for wish in self.wishes.addresses}
        for device in filter(None, devices):
            if device not in wished:
                self.decide(_DEVICE_NAMES[device], f"{self._needed(device, 'the ' + device).base:#x}", place)
        pmu = self._pmu()
        features, lengths = self._features(pmu is not None)
        self._check_devices(msi)
        address_map = self.map
        ipa_bits = 0 if self.kvm and self.host.fixed_ipa else address_map.ipa_bits
        self.decide("interrupts", f"{address_map.nr_irqs}, of them {address_map.nr_irqs - 32} SPIs", place)
        self.decide(
            "IPA size", f"{ipa_bits} bits" if ipa_bits else "the kernel's only one, 40 bits",
            place if ipa_bits else self.host.source,
        )  # fmt: skip
        return VGICConfiguration(
            machine=self.settings.machine,
            gic_version=version,
            msi=msi,
            vcpus=self.settings.current_vcpus,
            max_vcpus=self.settings.vcpus,
            ipa_bits=ipa_bits,
            nr_irqs=address_map.nr_irqs,
            distributor=address_map.distributor,
            cpu_interface=self._needed("cpu-interface", "a GICv2") if version == 2 else None,
            redistributors=regions,
            its=self._needed("its", "an ITS") if msi is MSIController.ITS else None,
            gicv2m=self._needed("gicv2m", "a GICv2m") if msi is MSIController.GICV2M else None,
            pmu_intid=pmu,
            features=features,
            sve_vector_lengths=lengths,
            vfio_files=self.vfio_files,
            decisions=tuple(self.decisions),
        )

    def _needed(self, device: str, what: str) -> Region:
        region = self.map.region(device)
        if region is None:
            raise self.refuse(
                "map-incomplete", f"{what} is asked for, but {self.map.name} has no address for it", "complete the map"
            )
        return region

    def _check_machine(self) -> None:
        settings = self.settings
        is_virt = settings.machine == "virt" or settings.machine.startswith("virt-")
        if settings.arch not in ("aarch64", "armv7l") or settings.virt_type not in ("kvm", "qemu"):
            raise self.refuse(
                "machine-unsupported",
                "the domain is no guest of KVM or QEMU on Arm: it has no GIC to configure",
                "vgicmgr is for <domain type='kvm'> (or 'qemu') with <type arch='aarch64' machine='virt…'>",
            )
        if not is_virt and not self.foreign:
            raise self.refuse(
                "machine-unsupported",
                "the domain's machine type is not QEMU's 'virt', whose interrupt controller alone can be configured",
                "set <type machine='virt'>, or describe the VMM by a map file",
            )
        if self.machine is None and settings.machine != "virt" and is_virt:
            self.find(
                "machine-unknown",
                Severity.WARNING,
                "the machine type is a distribution's own and taken for QEMU's newest 'virt'",
                "compare with the device tree of that QEMU ('-machine dumpdtb=FILE')",
            )
        if self.machine and self.qemu and not virt.has_machine(self.qemu, self.machine):
            raise self.refuse(
                "machine-unsupported",
                f"QEMU {_dotted(self.qemu)} has no machine type virt-{_dotted(self.machine)}",
                "choose one that 'qemu-system-aarch64 -machine help' lists",
            )
        self.decide("machine type", settings.machine, Source.XML)
        self.decide("accelerator", "KVM" if self.kvm else "TCG", Source.XML)
        if self.kvm and not self.host.asked:
            versions = " and ".join(f"GICv{version}" for version in sorted(self.host.gic_versions))
            self.decide("host", f"{versions}, a PMU, {self.host.ipa_bits} bits of IPA", Source.ASSUMED)

    def _read_arguments(self) -> None:
        try:
            options = machine_options(self.devices.qemu_arguments)
            cpu = cpu_options(self.devices.qemu_arguments)
            self.properties = machine_properties(options)
        except ArgumentError as error:
            raise self.refuse(
                "qemu-argument", f"<qemu:commandline>: {error.message}", "correct or remove the argument"
            ) from None
        if self.qemu:
            for option in options:
                since = virt.SINCE.get(option)
                if since and self.qemu < since:
                    raise self._unknown_property(option)
        if cpu:
            self.cpu_model, self.switches = cpu
        else:
            self._cpu()
        if "smmuv3" in self.devices.iommu and not self.properties.iommu:
            self.properties = replace(self.properties, iommu="smmuv3")
        if self.foreign:
            return
        size = self.properties.highmem_mmio_size
        if size < virt.HIGH_PCIE_MMIO_SIZE or size & (size - 1):
            self.error(
                "qemu-argument",
                "<qemu:commandline>: highmem-mmio-size is no power of 2 of 512 GiB or more",
                "correct or remove it",
            )
        if self.kvm:
            self._check_kvm()

    def _unknown_property(self, option: str) -> _Refused:
        return self.refuse(
            "qemu-argument",
            f"<qemu:commandline>: QEMU {_dotted(self.qemu or (0, 0))} has no machine property '{option}' "
            f"(it is there since {_dotted(virt.SINCE[option])})",
            "remove it, or use a newer QEMU",
        )

    def _check_kvm(self) -> None:
        if self.properties.kernel_irqchip != "on":
            raise self.refuse(
                "irqchip-userspace",
                f"<qemu:commandline> sets kernel-irqchip={self.properties.kernel_irqchip}, by which the guest gets no "
                "interrupt controller of the kernel",
                "remove it",
            )
        if self.properties.secure:
            self.error(
                "secure-unsupported",
                "<qemu:commandline> sets secure=on, but KVM gives guests no TrustZone",
                "remove it",
            )
        if self.properties.virtualization:
            self._check_virtualization()

    def _check_virtualization(self) -> None:
        """EL2 for a KVM guest: since QEMU 10.1, where the kernel can nest (hw/arm/virt.c, machvirt_init)."""
        reason = ""
        if self.qemu and self.qemu < virt.KVM_EL2_SINCE:
            reason = f"QEMU {_dotted(self.qemu)} asks KVM for none (10.1 and later do)"
        elif not self.host.el2:
            reason = f"{'this' if self.host.asked else 'the assumed'} host's KVM gives none (KVM_CAP_ARM_EL2 is 0)"
        elif self.settings.arch == "armv7l" or self.switches.get("aarch64") is False:
            reason = "a 32-bit guest can have none"
        if reason:
            self.error(
                "virtualization-unsupported",
                f"<qemu:commandline> sets virtualization=on, which gives the guest EL2, but {reason}",
                "remove it, or use a host whose 'vgicmgr check-host' shows EL2",
            )

    def _cpu(self) -> None:
        """Model and switches as libvirt puts them into ``-cpu`` (qemuBuildCpuCommandLine)."""
        settings = self.settings
        models = {"host-passthrough": "host", "host-model": "host", "maximum": "max"}
        self.cpu_model = models.get(settings.cpu_mode, settings.cpu_model or ("host" if self.kvm else ""))
        for feature in settings.cpu_features:
            if feature.policy != "optional":
                self.switches[feature.name] = feature.policy in ("require", "force")
        if settings.pmu is not None:
            self.switches.pop("pmu", None)
            self.switches["pmu"] = settings.pmu
        if self.kvm and not settings.cpu_mode:
            self.find(
                "cpu-model-default",
                Severity.WARNING,
                "the domain names no CPU, and QEMU's default is one that KVM cannot run (cortex-a15) before QEMU 10.2",
                "set <cpu mode='host-passthrough'/>",
            )

    def _gic_version(self) -> int:
        wish, source = self.settings.gic_version, Source.XML
        supported = self._gic_versions()
        if self.properties.gic_version:
            wish = self.properties.gic_version
        elif not wish:
            # libvirt takes the highest that this QEMU and kernel give, but under TCG never 3
            offered = self.host.gic_versions if self.kvm else {2}
            wish, source = str(max(offered, default=2)), Source.LIBVIRT
        if wish in ("host", "max"):
            if wish == "host" and not self.kvm:
                raise self.refuse(
                    "gic-version-unsupported", "<gic version='host'/> needs KVM", "set <gic version='2'/> or '3'"
                )
            version = max(supported, default=0)
            self.decide("GIC version", f"{version} ({wish}: the newest there is)", source)
        else:
            version = int(wish) if wish.isdecimal() and len(wish) < 4 else 0
            self.decide("GIC version", wish, source)
        if version == 2 and self.kvm and self.properties.virtualization:
            raise self.refuse(
                "virtualization-unsupported",
                "<qemu:commandline> sets virtualization=on, which gives the guest EL2, but KVM does so with a GICv3"
                " alone",
                "set <gic version='3'/>, or remove it",
            )
        if version not in supported:
            accelerator = "this host's KVM" if self.host.asked and self.kvm else "KVM" if self.kvm else "TCG"
            known = " and ".join(map(str, sorted(supported))) or "none"
            raise self.refuse(
                "gic-version-unsupported",
                f"<gic version='{wish}'/> is asked for, but {accelerator} gives GIC versions {known}",
                f"set <gic version='{max(supported)}'/>" if supported else "see 'vgicmgr check-host'",
            )
        return version

    def _gic_versions(self) -> set[int]:
        """Those that the accelerator can give (finalize_gic_version)."""
        if self.kvm:
            return set(self.host.gic_versions) & {2, 3}
        return {2, 3, 4} if self.properties.virtualization else {2, 3}

    def _check_memory(self) -> None:
        settings = self.settings
        if self.foreign:
            return
        bits = self.address_bits if self.properties.highmem else 32
        top = top_of_memory(settings.memory, settings.max_memory, settings.memory_slots)
        if settings.memory_slots > virt.MAX_RAM_SLOTS:
            self.error(
                "memory-slots",
                f"<maxMemory slots='{settings.memory_slots}'> is asked for, but QEMU has at most {virt.MAX_RAM_SLOTS}",
                f"set slots to {virt.MAX_RAM_SLOTS} or less",
            )
        if settings.max_memory and settings.max_memory < settings.memory:
            raise self.refuse("memory-size", "<maxMemory> is smaller than <memory>", "set it to <memory> or more")
        if top > 1 << bits:
            element = "<maxMemory>" if settings.max_memory else "<memory>"
            reason = "KVM_CAP_ARM_VM_IPA_SIZE" if self.kvm else "the emulated CPU's physical addresses"
            raise self.refuse(
                "ipa-size",
                f"{element} of {(settings.max_memory or settings.memory) // GIB} GiB ends at guest physical "
                f"address {top:#x}, but there are {bits} bits of them "
                f"({reason if self.properties.highmem else 'highmem=off'})",
                f"set {element} to {max((1 << bits) - MEM_BASE, 0) // GIB} GiB or less",
            )

    def _vcpus(self, version: int) -> tuple[RedistributorRegion, ...]:
        """The redistributor regions in use; QEMU holds the hotpluggable vCPUs against its limits, too."""
        size = virt.GICV4_REDIST_SIZE if version == 4 else virt.GICV3_REDIST_SIZE
        usable = self.map.redistributors[: None if self.host.redistributor_regions or not self.kvm else 1]
        room = [region.size // size for region in usable]
        limits = []
        if not self.foreign:
            most = 512 if virt.since(virt.MAX_512_VCPUS_SINCE, self.machine) else 255
            limits.append((most, "the machine type's limit", "use a newer machine type"))
        if version == 2:
            limits.append((vgic_v2.MAX_VCPUS, "a GICv2 names no more CPUs", "set <gic version='3'/>"))
        else:
            limits.append((sum(room), "there is room for no more redistributors", "use a host with a larger IPA size"))
        if self.kvm:
            limits.append((self.host.max_vcpus, "KVM_CAP_MAX_VCPUS", "use a host with a larger one"))
            if not self.host.irq_line_layout_2:
                limits.append((_IRQ_LINE_VCPUS, "no KVM_CAP_ARM_IRQ_LINE_LAYOUT_2", "boot Linux 5.4 or later"))
        limit, reason, remedy = min(limits)
        if self.settings.vcpus > limit:
            raise self.refuse(
                "vcpu-count",
                f"<vcpu>{self.settings.vcpus}</vcpu> is asked for, but a guest with a GICv{version} has at most "
                f"{limit} here ({reason})",
                f"set <vcpu> to {limit} or less, or {remedy}",
            )
        hotplug = f", {self.settings.vcpus} at most" if self.settings.vcpus != self.settings.current_vcpus else ""
        self.decide("vCPUs", f"{self.settings.current_vcpus}{hotplug}", Source.XML)
        if version == 2:
            return ()
        regions, left = [], self.settings.current_vcpus
        for index, (region, capacity) in enumerate(zip(usable, room, strict=True)):
            if left:
                regions.append(RedistributorRegion(index, region.base, min(left, capacity)))
                left -= regions[-1].count
        counts = " and ".join(f"{region.count} at {region.base:#x}" for region in regions)
        self.decide("redistributors", counts, Source.MAP if self.foreign else Source.MACHINE)
        return tuple(regions)

    def _msi(self, version: int) -> MSIController:
        default, source = self._default_msi(version)
        wish = self._wished_msi()
        msi = default if wish is None else self._fulfil_msi(wish, default, version)
        self.decide("MSI controller", _MSI_NAMES[msi], Source.METADATA if wish is msi else source)
        return msi

    def _default_msi(self, version: int) -> tuple[MSIController, Source]:
        """What the machine gives by its version and arguments (finalize_msi_controller, create_its)."""
        properties = self.properties
        if self.foreign:
            if version != 2 and self.map.its:
                return MSIController.ITS, Source.MAP
            return (MSIController.GICV2M if self.map.gicv2m else MSIController.NONE), Source.MAP
        if properties.msi not in ("", "auto", "gicv2m", "its", "off"):
            raise self.refuse(
                "qemu-argument", "<qemu:commandline>: msi is none of auto, gicv2m, its and off", "correct or remove it"
            )
        if version == 2:
            # QEMU passed over its=on before there was msi=
            if properties.msi == "its" or (properties.its and self.qemu and self.qemu >= virt.SINCE["msi"]):
                raise self.refuse(
                    "its-unsupported", "<qemu:commandline> asks for an ITS, which a GICv2 has not", "remove it"
                )
            if properties.msi == "off":
                return MSIController.NONE, Source.XML
            return MSIController.GICV2M, Source.XML if properties.msi == "gicv2m" else Source.MACHINE
        if properties.msi in ("gicv2m", "off"):
            return (MSIController.GICV2M if properties.msi == "gicv2m" else MSIController.NONE), Source.XML
        if properties.its is False and not properties.msi:
            return MSIController.NONE, Source.XML
        asked = bool(properties.its) or properties.msi == "its"
        there = self.kvm or virt.since(virt.TCG_ITS_SINCE, self.machine)
        if there and (asked or virt.since(virt.ITS_SINCE, self.machine)):
            if self.kvm and not self.host.its:
                raise self.refuse(
                    "its-unsupported",
                    "the machine has an ITS, but this host's KVM cannot make one (KVM_DEV_TYPE_ARM_VGIC_ITS)",
                    "switch it off by a wish, or see 'vgicmgr check-host'",
                )
            return MSIController.ITS, Source.XML if asked else Source.MACHINE
        return MSIController.NONE, Source.MACHINE

    def _wished_msi(self) -> MSIController | None:
        wishes = self.wishes
        msi = MSIController(wishes.msi) if wishes.msi else None
        if wishes.its is None:
            return msi
        if wishes.its and msi in (None, MSIController.ITS):
            return MSIController.ITS
        if not wishes.its and msi is not MSIController.ITS:
            return msi or self._without_its()
        raise self.refuse(
            "wish-contradiction",
            f"the wishes <its state='{'on' if wishes.its else 'off'}'/> and <msi controller='{wishes.msi}'/> "
            "contradict each other",
            "remove one of them",
        )

    def _without_its(self) -> MSIController | None:
        """What ``<its state='off'/>`` alone comes to: a GICv2 keeps what it has."""
        return MSIController.NONE if self._settled_version() != 2 else None

    def _settled_version(self) -> int:
        value = next(decision.value for decision in self.decisions if decision.subject == "GIC version")
        return int(value.split()[0])

    def _fulfil_msi(self, wish: MSIController, default: MSIController, version: int) -> MSIController:
        if wish is default:
            return wish
        said = f"the wish for {_MSI_NAMES[wish]} as MSI controller"
        if self.foreign:
            return self._fulfil_msi_by_map(wish, default, said, version)
        if self.properties.msi not in ("", "auto") or self.properties.its is not None:
            self.error("wish-contradiction", f"{said} is contradicted by <qemu:commandline>", "remove one of them")
            return default
        if wish is MSIController.ITS:
            if version == 2:
                self.unmet(f"{said} cannot be met: a GICv2 has none", "set <gic version='3'/>")
            elif not self.kvm and not virt.since(virt.TCG_ITS_SINCE, self.machine):
                self.unmet(f"{said} cannot be met: before virt-6.2 there is none under TCG", "use virt-6.2 or newer")
            elif not self.host.its and self.kvm:
                self.unmet(f"{said} cannot be met: this host's KVM makes none", "see 'vgicmgr check-host'")
            else:
                self.options.append(("its", "on"))
                return wish
            return default
        if wish is MSIController.NONE and version != 2:
            self.options.append(("its", "off"))
            return wish
        # no MSIs with a GICv2, or a GICv2m with a GICv3
        since = virt.SINCE["msi"]
        if self.qemu and self.qemu >= since:
            self.options.append(("msi", "off" if wish is MSIController.NONE else wish.value))
            return wish
        fixed = f"with a GICv{version}, QEMU before {_dotted(since)} has {_MSI_NAMES[default]}"
        if self.qemu:
            self.unmet(f"{said} cannot be met: {fixed}, fixed", f"use QEMU {_dotted(since)} or newer")
        else:
            self.unmet(f"{said} may not be met: {fixed}, fixed", "tell QEMU's version by --qemu-version")
        return default

    def _fulfil_msi_by_map(self, wish: MSIController, default: MSIController, said: str, version: int) -> MSIController:
        there = {
            MSIController.ITS: self.map.its is not None and version != 2,
            MSIController.GICV2M: self.map.gicv2m is not None,
            MSIController.NONE: True,
        }
        if there[wish]:
            return wish
        self.unmet(f"{said} cannot be met: {self.map.name} has none for a GICv{version}", "remove the wish")
        return default

    def _pmu(self) -> int | None:
        asked = self.switches.get("pmu")
        if asked is False and self.kvm and not self.host.pmu and not self.foreign:
            self._check_needless_pmu()
        if asked is False:
            self.decide("PMU", "none", Source.XML)
            if self.wishes.pmu_intid is not None:
                self.error(
                    "wish-contradiction",
                    f"the wish for the PMU's interrupt to be INTID {self.wishes.pmu_intid} has no PMU to go with: the "
                    "domain switches it off",
                    "set <pmu state='on'/>, or remove the wish",
                )
            return None
        if not self.foreign and not virt.since(virt.PMU_SINCE, self.machine):
            if asked:
                self.find(
                    "pmu-unsupported",
                    Severity.WARNING,
                    "<pmu state='on'/> is asked for, but the machine type virt-2.6 has none and QEMU passes over it",
                    "use a newer machine type",
                )
            self.decide("PMU", "none", Source.MACHINE)
            return None
        if self.kvm and not self.host.pmu:
            if asked:
                self.error(
                    "pmu-unsupported",
                    "<pmu state='on'/> is asked for, but this host's KVM has no PMU for guests (KVM_CAP_ARM_PMU_V3 is "
                    "0)",
                    "set <pmu state='off'/>, or see 'vgicmgr check-host' for what the PMU needs",
                )
            self.decide("PMU", "none", self.host.source)
            return None
        self.decide("PMU", "PMUv3", Source.XML if asked else Source.QEMU)
        return self._pmu_intid(self.map)

    def _check_needless_pmu(self) -> None:
        """QEMU 7.2 takes ``pmu=off`` where KVM has no PMU, 10.0 knows no such property of its CPU there."""
        if self.qemu and self.qemu <= (7, 2):
            return
        refuses = self.qemu is not None and self.qemu >= (10, 0)
        self.find(
            "pmu-unsupported",
            Severity.ERROR if refuses else Severity.WARNING,
            "<pmu state='off'/> is asked for, but this host's KVM has no PMU for guests, and there QEMU "
            f"{_dotted(self.qemu) if self.qemu and refuses else '10.0 and later'} has no property pmu to switch off",
            "take <pmu> out: the guest has no PMU here",
        )

    def _pmu_intid(self, address_map: AddressMap) -> int:
        wish = self.wishes.pmu_intid
        fixed = address_map.pmu_intid
        if wish is None or wish == fixed:
            source = Source.METADATA if wish else Source.MAP if self.foreign else Source.MACHINE
            self.decide("PMU interrupt", _intid(fixed), source)
            self._check_pmu_intid(fixed, address_map)
            return fixed
        if address_map.fixed:
            self.error(
                "wish-fixed",
                f"the wish for the PMU's interrupt to be {_intid(wish)} cannot be met: {address_map.name} has it at "
                f"{_intid(fixed)}, and nothing moves it",
                f"remove the wish, or set it to {fixed}",
            )
            return fixed
        self._check_pmu_intid(wish, address_map)
        self.decide("PMU interrupt", _intid(wish), Source.METADATA)
        return wish

    def _check_pmu_intid(self, intid: int, address_map: AddressMap) -> None:
        """Documentation/virt/kvm/devices/vcpu.rst, KVM_ARM_VCPU_PMU_V3_IRQ."""
        if owner := address_map.reserved.get(intid):
            self.error(
                "pmu-interrupt-clash",
                f"{_intid(intid)} is asked for as the PMU's interrupt, but belongs to {owner}",
                "choose a PPI that is free",
            )
        if intid >= 32 and self.settings.vcpus > 1:
            self.error(
                "pmu-interrupt-shared",
                f"{_intid(intid)} is asked for as the PMU's interrupt of {self.settings.vcpus} vCPUs, but an SPI must "
                "be a different one on each vCPU (only a PPI is the same on all)",
                "choose a PPI, 16 to 31",
            )
        if intid >= address_map.nr_irqs:
            self.error(
                "pmu-interrupt-range",
                f"{_intid(intid)} is asked for as the PMU's interrupt, but the GIC has {address_map.nr_irqs}",
                "choose a PPI, 16 to 31",
            )

    def _place_by_wish(self) -> None:
        for wish in self.wishes.addresses:
            region = self.map.region(wish.device)
            if region is None:
                self.error(
                    "wish-fixed",
                    f"an address is asked for the {wish.device}, but {self.map.name} has none here",
                    "remove the wish",
                )
            elif wish.base == region.base:
                self.decide(_DEVICE_NAMES[wish.device], f"{wish.base:#x}", Source.METADATA)
            elif self.map.fixed:
                self.error(
                    "wish-fixed",
                    f"the wish for the {wish.device} to be at {wish.base:#x} cannot be met: {self.map.name} has it "
                    f"at {region.base:#x}, and nothing moves it",
                    f"remove the wish, or set it to {region.base:#x}",
                )
            else:
                self.settled_map = self.map.moved(wish.device, wish.base)
                self.decide(_DEVICE_NAMES[wish.device], f"{wish.base:#x}", Source.METADATA)
        if self.foreign:
            self._check_map(self.map)

    def _check_map(self, address_map: AddressMap) -> None:
        """What the kernel demands of addresses; QEMU's own map keeps to it."""
        names = ("distributor", "cpu-interface", "its", "gicv2m")
        frames = [(name, region) for name in names if (region := address_map.region(name))]
        frames += [("redistributors", region) for region in address_map.redistributors]
        gicv2 = address_map.cpu_interface is not None and not address_map.redistributors
        alignment = ALIGNMENT["gicv2" if gicv2 else "gicv3"]
        for name, region in frames:
            if region.base % (4 << 10 if name in ("cpu-interface", "gicv2m") else alignment):
                self.error(
                    "address-misaligned",
                    f"the {name} at {region.base:#x} is not aligned to {alignment >> 10} KiB",
                    "choose another address",
                )
            if region.end > 1 << address_map.ipa_bits:
                self.error(
                    "address-range",
                    f"the {name} ends at {region.end:#x}, beyond {address_map.ipa_bits} bits of guest physical address",
                    "choose another address",
                )
        placed = sorted(frames + [(other.name, Region(other.base, other.size)) for other in address_map.others],
                        key=lambda item: item[1].base)  # fmt: skip
        for (name, region), (next_name, next_region) in pairwise(placed):
            if region.end > next_region.base:
                self.error(
                    "address-overlap",
                    f"the {name} ({region.base:#x} to {region.end - 1:#x}) and the {next_name} "
                    f"({next_region.base:#x}) overlap",
                    "choose other addresses",
                )

    def _features(self, pmu: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The vCPUs' features, in the order of their bits, and SVE vector lengths (kvm_arch_init_vcpu)."""
        if not self.kvm:
            return (), ()
        self._check_model()
        features = ["KVM_ARM_VCPU_PSCI_0_2"]
        narrow = self.settings.arch == "armv7l" or self.switches.get("aarch64") is False
        if narrow:
            features.insert(0, "KVM_ARM_VCPU_EL1_32BIT")
            if not self.host.el1_32bit:
                self.error(
                    "el1-32bit-unsupported",
                    "a 32-bit guest is asked for, but this host's CPU has no 32-bit EL1 (KVM_CAP_ARM_EL1_32BIT is 0)",
                    "use a 64-bit guest (<type arch='aarch64'>)",
                )
        if pmu:
            features.append("KVM_ARM_VCPU_PMU_V3")
        own_cpu = self.cpu_model in ("host", "max") and not narrow
        lengths = self._vector_lengths() if own_cpu else ()
        if lengths:
            features.append("KVM_ARM_VCPU_SVE")
            self.decide("SVE vectors", f"{', '.join(map(str, lengths))} bits", self.host.source)
        if own_cpu and self.host.pauth and self.switches.get("pauth", True):
            features += ["KVM_ARM_VCPU_PTRAUTH_ADDRESS", "KVM_ARM_VCPU_PTRAUTH_GENERIC"]
        elif own_cpu and self.switches.get("pauth"):
            self._cpu_feature_unsupported("pauth", "KVM_CAP_ARM_PTRAUTH_ADDRESS")
        if self.properties.virtualization and not self.foreign:
            features.append("KVM_ARM_VCPU_HAS_EL2")
            self.decide("maintenance interrupt", _intid(virt.MAINTENANCE_INTID), Source.MACHINE)
        ordered = in_bit_order(features)
        self.decide("vCPU features", ", ".join(name.removeprefix("KVM_ARM_VCPU_") for name in ordered), Source.QEMU)
        return ordered, lengths

    def _check_model(self) -> None:
        if self.cpu_model not in ("", "host", "max", "cortex-a53", "cortex-a57"):
            self.error(
                "cpu-model-unsupported",
                f"the CPU model '{self.cpu_model[:40]}' is asked for, but KVM gives guests the host's own CPU, and "
                "QEMU asks it for no other but cortex-a53 and cortex-a57",
                "set <cpu mode='host-passthrough'/>",
            )

    def _cpu_feature_unsupported(self, feature: str, capability: str) -> None:
        severity = Severity.ERROR if self.host.asked else Severity.WARNING
        self.find(
            "cpu-feature-unsupported",
            severity,
            f"the CPU feature '{feature}' is asked for, but {'this' if self.host.asked else 'the assumed'} host's KVM "
            f"has it not ({capability} is 0)",
            f"take <feature name='{feature}'/> out of <cpu>, or use a host that has it",
        )

    def _vector_lengths(self) -> tuple[int, ...]:
        """Those that QEMU gives (target/arm/cpu64.c, arm_cpu_sve_finalize); none where SVE is off."""
        wishes = {
            int(name[3:]): on
            for name, on in self.switches.items()
            if name.startswith("sve") and name[3:].isdecimal() and len(name) < 8
        }
        on = self.switches.get("sve", True) or any(wishes.values())
        supported = frozenset(self.host.sve_vector_lengths)
        if not on:
            return ()
        if not supported:
            if self.switches.get("sve") or any(wishes.values()):
                self._cpu_feature_unsupported("sve", "KVM_CAP_ARM_SVE")
            return ()
        if reason := unmet_vector_length(wishes, supported):
            asked = ", ".join(f"sve{bits} {'on' if on else 'off'}" for bits, on in sorted(wishes.items()))
            self.error(
                "sve-vector-length",
                f"the SVE vector lengths {asked} are asked for, but {reason} (KVM_REG_ARM64_SVE_VLS)",
                f"choose among {', '.join(map(str, sorted(supported)))} bits",
            )
            return ()
        enabled = {bits for bits, on in wishes.items() if on}
        disabled = {bits for bits, on in wishes.items() if not on} & supported
        longest = max(enabled) if enabled else min(disabled, default=max(supported) + 1) - 1
        return tuple(sorted(bits for bits in supported - disabled if bits <= longest))

    def _check_devices(self, msi: MSIController) -> None:
        """Root ports, assigned devices and the virtual IOMMU against the MSI controller."""
        devices = self.devices
        if devices.root_ports and msi is MSIController.NONE and not self.foreign:
            self.error(
                "msi-needed",
                f"the domain has {devices.root_ports} PCIe root ports, which QEMU does not make without an MSI "
                'controller ("MSI-X is not supported by interrupt controller")',
                "keep the ITS (or the GICv2m), or plug all devices into the root complex",
            )
        iommu = self.properties.iommu or next(iter(devices.iommu), "")
        if iommu:
            self.decide("IOMMU", iommu, Source.XML)
        if devices.host_devices:
            self._check_host_devices(devices.host_devices, msi)

    def _check_host_devices(self, devices: "tuple[HostDevice, ...]", msi: MSIController) -> None:
        from vgicmgr.vfio.assigned import AssignedDevices
        from vgicmgr.guest.assignment import host_findings, msi_findings, vfio_files  # few domains have any

        assigned = self.host.assigned or AssignedDevices()
        for device in devices:
            found = assigned.get(device.address)
            vectors = found.vectors if found else None
            told = "an unknown number of" if vectors is None else str(vectors)
            group = f", IOMMU group {found.group}" if found and found.group is not None else ""
            self.decide(f"assigned device {device.address[:40]}", f"{told} MSI vectors{group}", Source.XML)
        if self.kvm and not self.foreign:
            self.vfio_files = vfio_files(devices, assigned)
        if self.properties.iommu == "smmuv3" and not self.foreign:
            self.error(
                "iommu-unsupported",
                "an assigned device stands behind an emulated SMMUv3, which cannot tell VFIO what the guest maps",
                "set <iommu model='virtio'/>, or remove the IOMMU",
            )
        self.findings += msi_findings(devices, self.host, msi, gicv2m_spis=self.map.gicv2m_spis)
        self.findings += host_findings(devices, assigned)


_MSI_DEVICES = {MSIController.ITS: "its", MSIController.GICV2M: "gicv2m"}
_DEVICE_NAMES = {
    "distributor": "distributor",
    "cpu-interface": "CPU interface",
    "redistributors": "first redistributors",
    "high-redistributors": "high redistributors",
    "its": "ITS",
    "gicv2m": "GICv2m",
}
_MSI_NAMES = {MSIController.ITS: "an ITS", MSIController.GICV2M: "a GICv2m", MSIController.NONE: "none"}


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def _intid(intid: int) -> str:
    return f"INTID {intid} (PPI {intid - 16})" if intid < 32 else f"INTID {intid} (SPI {intid - 32})"
