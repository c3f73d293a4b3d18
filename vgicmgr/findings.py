"""Findings and verdicts: what was found, how bad it is, and what to do about it.

All findings stand in :data:`CATALOGUE`, and one of another name cannot be made. ``packaging/findings.py`` writes the
catalogue into the policy file, the manual page and ``docs/FINDINGS.md``; ``vgicmgr explain`` shows it.
"""

from enum import Enum
from types import MappingProxyType

from vgicmgr.dataclass import dataclass

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from collections.abc import Mapping


class Severity(Enum):
    """How much a finding weighs."""

    ERROR = "error"
    """It will not work."""
    WARNING = "warning"
    """It works, but somebody should know."""
    NOTE = "note"
    """Worth saying, nothing to do."""


class Stage(Enum):
    """Where a finding can be raised."""

    HOST = "check-host"
    DEVICES = "lsvfio"
    TRANSLATE = "translate"
    REHEARSE = "rehearse"
    START = "start"
    """A guest's start, and its arrival, too, since there its XML is judged as for a start."""
    ARRIVAL = "arrival"
    """A guest that is about to arrive (migrate, restore); check-migration judges the same from afar."""
    DEPARTURE = "check-migration"
    """The host that a guest is to leave, where no hook is asked."""


@dataclass(frozen=True)
class Entry:
    """What a finding's name stands for.

    ``severity`` is what it weighs unless circumstances say otherwise; ``meaning`` is one line; a policy may still use
    one of the ``former`` names.
    """

    name: str
    severity: Severity
    stages: tuple[Stage, ...]
    meaning: str
    former: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth saying.

    ``name`` is one of the catalogue's, else :class:`ValueError` is raised. ``evidence`` is one sentence that names the
    wish and what stands in the way, with the register's or attribute's proper name; ``remedy`` is what to do.
    """

    name: str
    severity: Severity
    evidence: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.name not in CATALOGUE:
            raise ValueError(f"no finding is called {self.name!r}")

    def as_document(self) -> dict[str, str]:
        """The finding as a member of a JSON document."""
        return {
            "name": self.name,
            "severity": self.severity.value,
            "evidence": self.evidence,
            "remedy": self.remedy,
        }

    def __str__(self) -> str:
        return f"{self.evidence} [{self.name}]" + (f"; {self.remedy}" if self.remedy else "")


def finding(name: str, evidence: str, remedy: str = "", *, severity: Severity | None = None) -> Finding:
    """The finding of this name, as severe as its entry says unless ``severity`` is given.

    Raises :class:`ValueError` for a name that is not in :data:`CATALOGUE`.
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        raise ValueError(f"no finding is called {name!r}")
    return Finding(name, severity or entry.severity, evidence, remedy)


@dataclass(frozen=True)
class Verdict:
    """The findings of one question, and yes or no."""

    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing found is an error."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)


_ERROR, _WARNING = Severity.ERROR, Severity.WARNING
_HOST, _TRANSLATE, _ARRIVAL = (Stage.HOST,), (Stage.TRANSLATE,), (Stage.ARRIVAL,)
_START = (Stage.TRANSLATE, Stage.START)
_REHEARSED = (Stage.REHEARSE, Stage.START)

_ENTRIES = (
    # --- the host
    Entry("kvm-api-version", _ERROR, _HOST, "KVM has another API version than QEMU can use"),
    Entry("capability-missing", _ERROR, _HOST, "KVM lacks a capability that guests normally need"),
    Entry("probe-refused", _ERROR, _HOST, "the kernel refuses what it announces by a capability"),
    Entry("ipa-size-small", _WARNING, _HOST, "guest physical addresses have fewer than 40 bits"),
    Entry(
        "cpu-types-mixed", _WARNING, (Stage.HOST, Stage.START),
        "the host's cores are of different types, and a guest that may run on all of them depends on where it runs",
    ),
    Entry("gic-missing", _ERROR, _HOST, "KVM makes neither a GICv2 nor a GICv3 for guests"),
    Entry("gicv3-missing", _ERROR, _HOST, "KVM makes a GICv2 only: no ITS, at most 8 vCPUs"),
    Entry("gic-registers-missing", _ERROR, _HOST, "the GIC's state cannot be saved, so that guests cannot migrate"),
    Entry(
        "redistributor-regions-missing", _WARNING, _HOST,
        "a GICv3 has one region of redistributors only, which limits guests to 123 vCPUs",
    ),
    Entry("line-level-missing", _WARNING, _HOST, "the input levels of interrupts cannot be saved"),
    Entry(
        "pending-tables-missing", _ERROR, _HOST,
        "pending LPIs cannot be saved, so that guests with an ITS cannot migrate",
    ),
    Entry("its-missing", _ERROR, _HOST, "KVM makes no ITS, so that PCI devices have no MSIs with a GICv3"),
    Entry("its-state-missing", _ERROR, _HOST, "the ITS's state cannot be saved, so that guests cannot migrate"),
    Entry("pmu-missing", _ERROR, _HOST, "KVM has no PMU for guests"),
    Entry("pmu-interrupt-missing", _ERROR, _HOST, "the interrupt of a guest's PMU cannot be set"),
    Entry("qemu-unanswered", _WARNING, _HOST, "an installed QEMU could not be asked what it can do"),
    Entry("qemu-kvm", _ERROR, _HOST, "an installed QEMU does not use KVM"),
    Entry("qemu-gic", _ERROR, _HOST, "QEMU reports other GIC versions than the kernel makes, and libvirt goes by QEMU"),
    Entry("qemu-cpu", _WARNING, _HOST, "QEMU does not say which features its CPU 'host' has"),
    Entry("qemu-pmu", _WARNING, _HOST, "QEMU and the kernel disagree on whether guests have a PMU"),
    Entry("qemu-pauth", _WARNING, _HOST, "QEMU and the kernel disagree on whether guests have pointer authentication"),
    Entry("qemu-sve", _WARNING, _HOST, "QEMU and the kernel disagree on the SVE vector lengths of guests"),
    Entry("qemu-program", _WARNING, _HOST, "QEMU's answers differ from what its program file tells the hook"),
    # --- the host's devices
    Entry("vfio-missing", _WARNING, (Stage.DEVICES,), "VFIO is not loaded, so that no device can be assigned"),
    Entry(
        "iommu-missing", _WARNING, (Stage.DEVICES,),
        "the kernel uses no IOMMU, so that no device can be assigned safely",
    ),
    Entry("noiommu", _WARNING, (Stage.DEVICES,), "an IOMMU group without an IOMMU, whose devices QEMU does not take"),
    # --- the machine
    Entry(
        "machine-unsupported", _ERROR, _START,
        "not a 'virt' machine of KVM or QEMU on Arm, or one that this QEMU does not have",
    ),
    Entry("machine-unknown", _WARNING, _START, "a distribution's own machine type, taken for QEMU's newest 'virt'"),
    Entry("accelerator-twice", _ERROR, _START, "the domain type and QEMU's arguments name different accelerators"),
    Entry("qemu-argument", _ERROR, _START, "QEMU refuses an argument of <qemu:commandline>"),
    Entry(
        "argument-not-judged", _WARNING, _START,
        "<qemu:override> or its like changes QEMU in a way that is not judged",
    ),
    Entry("launch-security", _WARNING, _START, "confidential guests (<launchSecurity>) are not judged"),
    Entry("ipa-size", _ERROR, _START, "memory or devices lie beyond the guest physical addresses that the host gives"),
    Entry("memory-size", _ERROR, _START, "<maxMemory> is smaller than <memory>"),
    Entry("memory-slots", _ERROR, _START, "more memory slots than QEMU has"),
    # --- the interrupt controller
    Entry("gic-version-unsupported", _ERROR, _START, "the host cannot make a GIC of the version that is asked for"),
    Entry("emulated-gic", _WARNING, _START, "KVM makes no GIC here, and QEMU's own GICv2 is used, which is slow"),
    Entry("irqchip-userspace", _ERROR, _START, "kernel-irqchip takes the interrupt controller out of the kernel"),
    Entry("its-unsupported", _ERROR, _START, "the guest is to have an ITS, which its GIC or the host does not support"),
    Entry("msi-needed", _ERROR, _START, "PCIe root ports need an MSI controller, and there is none"),
    # --- vCPUs
    Entry("vcpu-count", _ERROR, _START, "more vCPUs than machine type, GIC or KVM allow"),
    Entry("vcpu-hotplug", _WARNING, _START, "vCPUs are to be plugged later, which QEMU's 'virt' machine cannot do"),
    Entry("cpu-model-unsupported", _ERROR, _START, "KVM on this host cannot run the CPU model"),
    Entry(
        "cpu-model-default", _WARNING, _START,
        "no CPU is named, and QEMU's default before 10.2 is one that KVM cannot run",
    ),
    Entry(
        "cpu-feature-unsupported", _ERROR, _START,
        "KVM on this host does not support a CPU feature that is asked for",
    ),
    Entry("cpu-feature-unknown", _WARNING, _START, "QEMU has no CPU property of the name that a <feature> gives"),
    Entry("sve-vector-length", _ERROR, _START, "QEMU refuses the SVE vector lengths on this host"),
    Entry("el1-32bit-unsupported", _ERROR, _START, "a 32-bit guest, and the host's CPU does not run 32-bit kernels"),
    Entry(
        "el1-32bit-features", _ERROR, _START,
        "a 32-bit guest, which QEMU cannot make on a host with SVE or pointer authentication",
    ),
    Entry(
        "pmu-unsupported", _ERROR, _START,
        "<pmu> or the CPU feature 'pmu' is set, and the host has no PMU for guests",
    ),
    Entry(
        "pmu-off", _WARNING, _START,
        "<pmu state='off'/> on a host without a PMU for guests, which QEMU refuses from 10.0 on",
    ),
    Entry("secure-unsupported", _ERROR, _START, "secure=on, but KVM gives guests no TrustZone"),
    Entry("virtualization-unsupported", _ERROR, _START, "virtualization=on, but QEMU or KVM cannot give the guest EL2"),
    Entry("mte-unsupported", _ERROR, _START, "mte=on, but KVM on this host does not support MTE"),
    # --- the kernel's calls, tried on a scratch VM
    Entry("vm-refused", _ERROR, _REHEARSED, "the kernel refuses to make the VM"),
    Entry("vcpu-refused", _ERROR, _REHEARSED, "the kernel refuses a vCPU, or a feature of it"),
    Entry("gic-refused", _ERROR, _REHEARSED, "the kernel refuses the GIC, or its addresses or interrupts"),
    Entry("its-refused", _ERROR, _REHEARSED, "the kernel refuses the ITS"),
    Entry("pmu-refused", _ERROR, _REHEARSED, "the kernel refuses the PMU, or its interrupt"),
    Entry("vfio-refused", _ERROR, _REHEARSED, "the kernel refuses KVM's VFIO device"),
    # --- assigned devices
    Entry(
        "group-not-viable", _ERROR, (Stage.DEVICES, *_START),
        "a device cannot be assigned while others of its IOMMU group are bound to drivers of the host",
    ),
    Entry("msi-not-isolated", _ERROR, _START, "the host cannot isolate the MSIs of assigned devices"),
    Entry(
        "msi-devid-missing", _ERROR, (Stage.HOST, *_START),
        "MSIs carry no device id, by which the ITS tells devices apart",
    ),
    Entry("msi-none", _WARNING, _START, "assigned devices can send no MSIs, since the guest has no MSI controller"),
    Entry(
        "msi-vectors", _WARNING, _START,
        "assigned devices have more MSI vectors than the MSI controller has for them",
    ),
    Entry("its-device-bits", _WARNING, _START, "the ITS has fewer bits of device ids than the guest's PCI buses need"),
    Entry(
        "unsafe-interrupts", _WARNING, (Stage.DEVICES, *_START),
        "VFIO allows unsafe interrupts: a guest may be able to send the host's",
    ),
    Entry(
        "iommu-unsupported", _ERROR, _START,
        "an assigned device behind an emulated SMMUv3, which VFIO cannot follow",
    ),
    # --- wishes, and maps of other VMMs
    Entry("wish-unmet", _ERROR, _TRANSLATE, "a wish that this host or QEMU cannot honour"),
    Entry(
        "wish-fixed", _ERROR, _TRANSLATE,
        "a wish for another place than the machine has, where nothing can be moved",
    ),
    Entry("wish-contradiction", _ERROR, _TRANSLATE, "wishes contradict each other, the domain or QEMU's arguments"),
    Entry("pmu-interrupt-clash", _ERROR, _TRANSLATE, "the PMU's interrupt belongs to another device"),
    Entry("pmu-interrupt-shared", _ERROR, _TRANSLATE, "an SPI as the PMU's interrupt of several vCPUs"),
    Entry("pmu-interrupt-range", _ERROR, _TRANSLATE, "the PMU's interrupt is one that the GIC does not have"),
    Entry("map-incomplete", _ERROR, _TRANSLATE, "the address map has no place for a device that the guest is to have"),
    Entry("address-misaligned", _ERROR, _TRANSLATE, "a device's address is not aligned as the kernel demands"),
    Entry("address-range", _ERROR, _TRANSLATE, "a device ends beyond the guest physical addresses"),
    Entry("address-overlap", _ERROR, _TRANSLATE, "two devices of the address map overlap"),
    # --- arrivals: the record
    Entry("missing-record", _WARNING, _ARRIVAL, "the guest has no ABI record and is judged by its XML alone"),
    Entry("record-unreadable", _ERROR, _ARRIVAL, "the guest's ABI record is damaged or of a newer version"),
    Entry(
        "record-of-another-boot", _WARNING, _ARRIVAL,
        "the ABI record is of another domain or boot (UUID, machine type or vCPUs differ): the XML alone is judged",
    ),
    Entry(
        "record-not-of-sender", _WARNING, _ARRIVAL,
        "the record of what the guest would send is not of the host that sends it",
    ),
    # --- arrivals: registers
    Entry(
        "cpu-property-unknown", _ERROR, _ARRIVAL,
        "QEMU on this host does not have a CPU property that the domain sets",
    ),
    Entry(
        "register-list", _ERROR, _ARRIVAL,
        "the guest has registers that this kernel lacks, and QEMU ends the migration",
    ),
    Entry("register-value", _ERROR, _ARRIVAL, "this kernel refuses the value of a register of the guest"),
    Entry("register-dropped", _WARNING, _ARRIVAL, "the guest loses registers that this kernel lacks"),
    Entry(
        "register-rules-unknown", _WARNING, _ARRIVAL,
        "which registers QEMU accepts here cannot be told (<emulator> is a script), and the verdict depends on it",
    ),
    Entry("qemu-quirk", _WARNING, _ARRIVAL, "the guest arrives only by a flaw of QEMU that a newer one may mend"),
    Entry("pmu-counters", _WARNING, _ARRIVAL, "the guest has more event counters than this host's PMU"),
    Entry("sve-vector-lengths", _ERROR, _ARRIVAL, "the guest has other SVE vector lengths than it gets here"),
    Entry(
        "counter-frequency", _ERROR, _ARRIVAL,
        "the counter ticks at another frequency here: the guest's time would be wrong",
    ),
    Entry(
        "counter-frequency-unknown", _WARNING, _ARRIVAL,
        "the frequency of the counter is not known of both hosts, and the guest's time is wrong where it differs",
    ),
    # --- arrivals: the interrupt controller
    Entry(
        "gic-in-kernel",
        _ERROR,
        _ARRIVAL,
        "the guest's GIC was made by KVM and is emulated by QEMU here, or the reverse, and would stop without a word",
    ),
    Entry("gic-version", _ERROR, _ARRIVAL, "the guest was booted with another GIC version than it gets here"),
    Entry("icc-ctlr", _ERROR, _ARRIVAL, "the GIC's CPU interface differs (ICC_CTLR_EL1), and QEMU aborts"),
    Entry("gicd-iidr", _WARNING, _ARRIVAL, "the guest sees another GICD_IIDR here"),
    Entry("its", _ERROR, _ARRIVAL, "the guest was booted with an ITS and gets none here, or the other way round"),
    Entry("its-abi-revision", _ERROR, _ARRIVAL, "this kernel does not take the ABI revision of the guest's ITS tables"),
    Entry("gits-typer", _WARNING, _ARRIVAL, "the guest sees another GITS_TYPER here"),
    # --- arrivals: memory and devices
    Entry(
        "steal-time", _ERROR, _ARRIVAL,
        "the guest's memory region of stolen time is missing or of another size here",
    ),
    Entry("memory-map", _ERROR, _ARRIVAL, "QEMU lays out the high memory regions otherwise here"),
    Entry("page-size", _ERROR, _ARRIVAL, "a memory block that QEMU sizes by the host's pages does not fit here"),
    Entry("post-copy-page-size", _WARNING, _ARRIVAL, "the hosts' page sizes differ, so that post-copy migration fails"),
    Entry("device-migration", _ERROR, _ARRIVAL, "an assigned device cannot migrate"),
    Entry("device-migration-unknown", _WARNING, _ARRIVAL, "whether an assigned device can migrate is not known"),
    Entry("device-state", _ERROR, _ARRIVAL, "QEMU here is known not to take the state that the other gives a device"),
    Entry(
        "device-version", _WARNING, _ARRIVAL,
        "the two QEMUs may disagree on a device's state: they have not been seen together with such devices",
    ),
    Entry(
        "not-migratable", _ERROR, (Stage.ARRIVAL, Stage.DEPARTURE),
        "QEMU blocks the migration of the guest, as of any with MTE, EL2 or a GICv5",
    ),
    Entry(
        "its-save", _ERROR, (Stage.DEPARTURE,),
        "the ITS's tables cannot be saved while GICv4.0 injects interrupts of assigned devices",
    ),
)  # fmt: skip

CATALOGUE: "Mapping[str, Entry]" = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""All findings by name, ordered by what they are about."""

FORMER: "Mapping[str, str]" = MappingProxyType({name: entry.name for entry in _ENTRIES for name in entry.former})
"""The present names of former ones."""


def near_match(name: str) -> str:
    """The name in the catalogue that ``name`` was probably meant to be, or empty."""
    from difflib import get_close_matches  # rarely needed

    return next(iter(get_close_matches(name[:100], [*CATALOGUE, *FORMER], n=1)), "")
