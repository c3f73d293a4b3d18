"""The guest's CPU: what libvirt and QEMU's arguments ask for, and which vCPU QEMU then asks of KVM.

Sources: libvirt's ``src/qemu/qemu_command.c`` (qemuBuildCpuCommandLine, qemuBuildCpuModelArgStr) and
``src/qemu/qemu_postparse.c`` (qemuDomainDefCPUPostParse); QEMU's ``target/arm/cpu.c`` (arm_cpu_post_init),
``target/arm/cpu64.c`` (arm_cpu_sve_finalize, arm_cpu_pauth_finalize) and ``target/arm/kvm.c`` (kvm_arch_init_vcpu,
kvm_arm_steal_time_finalize). Pure.
"""

from collections.abc import Callable, Collection, Mapping

from vgicmgr.dataclass import dataclass
from vgicmgr.domain.domain import Domain
from vgicmgr.kvm.vcpu import in_bit_order
from vgicmgr.qemu.arguments import Arguments, CPUArgument, boolean
from vgicmgr.qemu.machine import Version, dotted_version
from vgicmgr.qemu.virt import KVM_STEAL_TIME_SINCE, since

HOST_MODELS = ("host", "max")
"""The models that are the host's own CPU under KVM."""
TARGETS = {"cortex-a53": "KVM_ARM_TARGET_CORTEX_A53", "cortex-a57": "KVM_ARM_TARGET_CORTEX_A57"}
"""The other models that QEMU asks of KVM, by the target it makes the vCPU with (target/arm/cpu64.c, kvm_target).

openEuler's QEMU has more of them, for migration across generations of its cores; those are not known here.
"""
ARM_MAX_VQ = 16
"""Quadwords of the longest vector that QEMU knows: 2048 bits."""
DEFAULT_IS_MAX_SINCE: Version = (10, 2)
"""QEMU's default under KVM is ``max`` from then on, and cortex-a15 before (virt_get_default_cpu_type)."""
NO_PMU_OFF_SINCE: Version = (9, 1)
"""The host's CPU has no property ``pmu`` where KVM has no PMU (commit 613d0b8ebbf1)."""


@dataclass(frozen=True)
class CPU:
    """The CPU that QEMU is asked for: model (empty: QEMU's default) and properties, in the order of their setting.

    ``aarch32``: its EL1 is 32-bit.
    """

    model: str
    properties: tuple[tuple[str, str], ...] = ()
    aarch32: bool = False

    @property
    def host_cpu(self) -> bool:
        """Whether it is the host's own CPU under KVM."""
        return self.model in HOST_MODELS

    @property
    def target(self) -> str:
        """KVM_ARM_TARGET_* of the model; empty where KVM is asked for its preferred one."""
        return TARGETS.get(self.model, "")

    def get(self, name: str) -> str | None:
        """A property's value, the last of several; None where nobody sets it."""
        return dict(self.properties).get(name)

    def on(self, name: str, default: bool = True) -> bool:
        """Whether a switch is on; raises :class:`~vgicmgr.qemu.arguments.ArgumentError` for what is no switch's."""
        value = self.get(name)
        return default if value is None else boolean(name, value)

    def as_answered(self, answered: Mapping[str, bool]) -> "CPU":
        """With what this host's QEMU says that the host's CPU has (query-cpu-model-expansion), where nobody set it."""
        if not self.host_cpu:
            return self
        keep_lengths = not sve_wishes(self)
        told = tuple(
            (name, "on" if has else "off")
            for name, has in answered.items()
            if keep_lengths or vector_length(name) is None
        )
        return CPU(self.model, (*told, *self.properties), self.aarch32)


def libvirt_cpu(domain: Domain) -> CPUArgument | None:
    """What libvirt puts into ``-cpu``; None where it writes none."""
    model = {"host-passthrough": "host", "host-model": "host", "maximum": "max"}.get(domain.cpu_mode, domain.cpu_model)
    if not model:
        return None
    properties = [("aarch64", "off")] if domain.arch == "armv7l" and model in HOST_MODELS else []
    features = [feature for feature in domain.cpu_features if feature.name != "sve" or not _sets_vector_length(domain)]
    for feature in features:
        if feature.policy != "optional":
            properties.append((feature.name, "on" if feature.policy in ("", "require", "force") else "off"))
    if _sets_vector_length(domain):
        properties.append(("sve", "on"))
    if domain.no_adjvtime is not None:
        properties.append(("kvm-no-adjvtime", "on" if domain.no_adjvtime else "off"))
    if domain.pmu is not None:
        properties.append(("pmu", "on" if domain.pmu else "off"))
    return CPUArgument(model, tuple(properties))


def _sets_vector_length(domain: Domain) -> bool:
    """Whether libvirt takes a feature for a vector length, whatever its policy: then it requires SVE."""
    return any(feature.name.startswith("sve") and feature.name != "sve" for feature in domain.cpu_features)


def libvirt_refuses(domain: Domain) -> str:
    """Why libvirt refuses the domain's CPU; empty where it does not."""
    off = any(feature.name == "sve" and feature.policy in ("disable", "forbid") for feature in domain.cpu_features)
    if off and _sets_vector_length(domain):
        return "SVE is off, but a vector length of it is named"
    if domain.cpu_mode == "host-passthrough" and domain.virt_type != "kvm":
        return "<cpu mode='host-passthrough'/> needs KVM"
    if domain.cpu_mode == "host-model":
        return "libvirt supports no <cpu mode='host-model'/> on Arm"
    if libvirt_cpu(domain) is None and (domain.pmu is not None or domain.no_adjvtime is not None):
        element = "<pmu>" if domain.pmu is not None else "<timer name='armvtimer'>"
        return f"{element} needs a <cpu> that names a CPU"
    return ""


def cpu_of(domain: Domain, arguments: Arguments) -> CPU:
    """The CPU that QEMU makes: libvirt's ``-cpu``, or the last one among the arguments, with ``-global`` beneath.

    Raises :class:`~vgicmgr.qemu.arguments.ArgumentError` where the switch ``aarch64`` is none.
    """
    argument = arguments.cpu or libvirt_cpu(domain) or CPUArgument("")
    drivers = (f"{argument.model}-arm-cpu", "aarch64-cpu", "arm-cpu", "cpu", "device")
    beneath = tuple((name, value) for driver, name, value in arguments.globals if driver in drivers)
    cpu = CPU(argument.model, (*beneath, *argument.properties))
    aarch32 = not cpu.on("aarch64") or (not argument.model and domain.arch == "armv7l")
    return CPU(cpu.model, cpu.properties, aarch32)


def default_model(qemu: Version | None, *, kvm: bool = True) -> str | None:
    """The model that QEMU takes where it is given none; None where its version is not known but decides."""
    if not kvm:
        return "cortex-a15"
    return None if qemu is None else "max" if qemu >= DEFAULT_IS_MAX_SINCE else "cortex-a15"


def takes_pmu_off(qemu: Version | None) -> bool | None:
    """Whether QEMU takes ``pmu=off`` for the host's CPU where KVM has no PMU; None where that is not known.

    Releases of 9.0 may have the change of 9.1.
    """
    if qemu is None or qemu == (9, 0):
        return None
    return qemu < NO_PMU_OFF_SINCE


# --- what KVM is asked for


def vcpu_features(cpu: CPU, capability: Callable[[str], int], *, pmu: bool, el2: bool) -> tuple[str, ...]:
    """The KVM_ARM_VCPU_* features of KVM_ARM_VCPU_INIT, by their bits; ``capability`` is KVM_CHECK_EXTENSION by name.

    ``pmu``: the machine type has one. ``el2``: the machine has ``virtualization=on``. SVE and pointer authentication
    are the host's own CPU's alone. A 32-bit one of a host with either keeps it (arm_cpu_finalize_features passes
    32-bit CPUs by), which KVM then refuses: EINVAL.
    """
    features = []
    if cpu.aarch32:
        features.append("KVM_ARM_VCPU_EL1_32BIT")
    if psci_version(cpu) != 1:  # PSCI 0.1 is what a vCPU without the feature has
        features.append("KVM_ARM_VCPU_PSCI_0_2")
    if pmu and cpu.on("pmu") and capability("KVM_CAP_ARM_PMU_V3"):
        features.append("KVM_ARM_VCPU_PMU_V3")
    if cpu.host_cpu and cpu.on("sve") and capability("KVM_CAP_ARM_SVE"):
        features.append("KVM_ARM_VCPU_SVE")
    if cpu.host_cpu and (cpu.aarch32 or cpu.on("pauth")) and all(map(capability, _PAUTH)):
        features += ["KVM_ARM_VCPU_PTRAUTH_ADDRESS", "KVM_ARM_VCPU_PTRAUTH_GENERIC"]
    if el2 and capability("KVM_CAP_ARM_EL2"):
        features.append("KVM_ARM_VCPU_HAS_EL2")
    return in_bit_order(features)


AARCH64_FEATURES = frozenset(
    ("KVM_ARM_VCPU_SVE", "KVM_ARM_VCPU_PTRAUTH_ADDRESS", "KVM_ARM_VCPU_PTRAUTH_GENERIC", "KVM_ARM_VCPU_HAS_EL2")
)
"""What KVM refuses beside KVM_ARM_VCPU_EL1_32BIT (arch/arm64/kvm/arm.c, kvm_vcpu_init_check_features)."""

_PAUTH = ("KVM_CAP_ARM_PTRAUTH_ADDRESS", "KVM_CAP_ARM_PTRAUTH_GENERIC")


@dataclass(frozen=True)
class UnsupportedProperty:
    """A CPU property that QEMU refuses on this host: its name, why, and KVM's capability that is 0 (or empty)."""

    name: str
    reason: str
    capability: str = ""


def unsupported_properties(
    cpu: CPU, capability: Callable[[str], int], machine: Version | None
) -> tuple[UnsupportedProperty, ...]:
    """The properties of a KVM guest's CPU that QEMU refuses here, in the order of their names.

    Vector lengths that the host has no SVE for are among them; others are :func:`sve_vector_lengths`'s.
    """
    found = []
    lacking = "KVM on this host does not support it"
    if cpu.get("pmu") is not None and cpu.on("pmu") and not capability("KVM_CAP_ARM_PMU_V3"):
        found.append(UnsupportedProperty("pmu", lacking, "KVM_CAP_ARM_PMU_V3"))
    if cpu.aarch32 and not capability("KVM_CAP_ARM_EL1_32BIT"):
        found.append(UnsupportedProperty("aarch64", "KVM on this host runs no 32-bit EL1", "KVM_CAP_ARM_EL1_32BIT"))
    if cpu.get("kvm-steal-time") is not None and cpu.on("kvm-steal-time") and since(KVM_STEAL_TIME_SINCE, machine):
        if cpu.aarch32:
            found.append(UnsupportedProperty("kvm-steal-time", "a 32-bit guest cannot have it"))
        elif not capability("KVM_CAP_STEAL_TIME"):
            found.append(UnsupportedProperty("kvm-steal-time", lacking, "KVM_CAP_STEAL_TIME"))
    if cpu.host_cpu:
        for name in ("sve", *(f"sve{bits}" for bits, on in sve_wishes(cpu).items() if on)):
            if cpu.on(name, default=False) and not capability("KVM_CAP_ARM_SVE"):
                found.append(UnsupportedProperty(name, lacking, "KVM_CAP_ARM_SVE"))
        missing = [name for name in _PAUTH if not capability(name)]
        if cpu.on("pauth", default=False) and missing:
            found.append(UnsupportedProperty("pauth", lacking, missing[0]))
    return tuple(sorted(found, key=lambda one: one.name))


_ANY_CPU = frozenset(
    [
        "aarch64",
        "cfgend",
        "cntfrq",
        "core-count",
        "has_el2",
        "has_el3",
        "kvm-no-adjvtime",
        "kvm-psci-version",
        "kvm-steal-time",
        "midr",
        "mp-affinity",
        "neon",
        "node-id",
        "pmu",
        "psci-conduit",
        "reset-cbar",
        "reset-hivecs",
        "rvbar",
        "start-powered-off",
        "vfp",
        "hotpluggable",
        "memory",
        "secure-memory",
        "tag-memory",
        "secure-tag-memory",
        "backcompat-cntfrq",
        "backcompat-pauth-default-use-qarma5",
    ]
)
KNOWN_PROPERTIES = _ANY_CPU | {"pauth", "sve", *(f"sve{128 * vq}" for vq in range(1, ARM_MAX_VQ + 1))}
"""What QEMU's ``-cpu host`` has as properties under KVM, from 7.2 to 11.1 (device-list-properties, arm_cpu_post_init).

``kvm-psci-version`` it has since 11 alone, and distributions have taken it into older ones: the program file tells.
"""


def unknown_properties(cpu: CPU) -> tuple[str, ...]:
    """The properties that no QEMU's CPU of this model has under KVM: QEMU ends for them."""
    known = KNOWN_PROPERTIES if cpu.host_cpu else _ANY_CPU
    names = dict(cpu.properties)
    return tuple(name for name in names if name not in known and not name.startswith("SYSREG_"))


# --- SVE


def vector_length(name: str) -> int | None:
    """The vector length in bits that a property ``sve<N>`` names; None where QEMU has no such property."""
    digits = name.removeprefix("sve")
    if not (name.startswith("sve") and 1 <= len(digits) <= 4 and digits.isascii() and digits.isdecimal()):
        return None
    bits = int(digits)
    fits = str(bits) == digits and bits % 128 == 0 and 128 <= bits <= 128 * ARM_MAX_VQ
    return bits if fits else None


def sve_wishes(cpu: CPU) -> dict[int, bool]:
    """The properties ``sve<N>``: length in bits to on or off."""
    lengths = {name: bits for name, _ in cpu.properties if (bits := vector_length(name)) is not None}
    return {bits: cpu.on(name) for name, bits in lengths.items()}


def sve_vector_lengths(cpu: CPU, supported: Collection[int]) -> tuple[int, ...] | str:
    """The SVE vector lengths that QEMU gives a KVM guest, ascending, or why it refuses (arm_cpu_sve_finalize).

    ``supported`` are those that the kernel offers, none without SVE; all in bits. Without SVE the guest gets none.
    The sentence names the length in the way.
    """
    offered = frozenset(supported)
    if not cpu.host_cpu:
        return ()
    if cpu.aarch32:  # its lengths are not looked at
        return tuple(sorted(offered)) if cpu.on("sve") else ()
    wishes = sve_wishes(cpu)
    enabled = {bits for bits, on in wishes.items() if on}
    disabled = {bits for bits, on in wishes.items() if not on}
    if enabled:
        if not offered:
            return "KVM on this host does not support SVE"
        longest = max(enabled)
        chosen = enabled | {bits for bits in offered - disabled if bits <= longest}
    elif not offered or not cpu.on("sve"):
        return ()
    else:
        # a supported length that is off takes all longer ones with it
        ceiling = min(disabled & offered, default=128 * ARM_MAX_VQ + 1)
        chosen = {bits for bits in offered if bits < ceiling}
        if not chosen:
            return f"without the vector length of {ceiling} bits none is left"
        longest = max(chosen)
    if too_many := chosen - offered:
        return f"the kernel has no vectors of {max(too_many)} bits"
    if left_out := {bits for bits in offered if bits < longest} - chosen:
        return f"the kernel gives no vectors of {longest} bits without those of {max(left_out)} bits"
    if not cpu.on("sve"):
        return f"the vector length of {longest} bits needs SVE, which is off"
    return tuple(sorted(chosen))


# --- PSCI and stolen time


def psci_version(cpu: CPU) -> int | None:
    """KVM_REG_ARM_PSCI_VERSION by the property ``kvm-psci-version``: major in bits 31 to 16, then minor.

    None without the property, or where it is no version (what QEMU refuses).
    """
    version = dotted_version(cpu.get("kvm-psci-version") or "")
    return None if version is None else version[0] << 16 | version[1]


def has_steal_time(cpu: CPU, machine: Version | None, capability: Callable[[str], int]) -> bool:
    """Whether the guest gets stolen time, and with it the memory region ``pvtime`` (kvm_arm_steal_time_finalize).

    By default where KVM has it; never for 32-bit guests and before virt-5.2 (hw/arm/virt.c, no_kvm_steal_time).
    """
    if cpu.aarch32 or not since(KVM_STEAL_TIME_SINCE, machine):
        return False
    return cpu.on("kvm-steal-time") and bool(capability("KVM_CAP_STEAL_TIME"))
