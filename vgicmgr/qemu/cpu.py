"""Which vCPU QEMU asks of KVM: its features and SVE vector lengths, by CPU model and properties.

Sources: QEMU's ``target/arm/kvm.c`` (kvm_arm_get_host_cpu_features, kvm_arch_init_vcpu) and ``target/arm/cpu64.c``
(arm_cpu_sve_finalize); libvirt's ``src/qemu/qemu_command.c`` for what its XML becomes. Pure.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from vgicmgr.dataclass import dataclass
from vgicmgr.domain.settings import DomainSettings

_ON = ("on", "yes", "true", "y")
_TARGETS = {"cortex-a53": "KVM_ARM_TARGET_CORTEX_A53", "cortex-a57": "KVM_ARM_TARGET_CORTEX_A57"}
_OWN_CPU = ("host", "max")
_CPU_TYPES = ("host-arm-cpu.", "max-arm-cpu.", "arm-cpu.")


@dataclass(frozen=True)
class CPU:
    """A ``-cpu`` argument: model and properties (``{"sve": "off"}``)."""

    model: str
    properties: Mapping[str, str]

    @property
    def own(self) -> bool:
        """Whether it is the host's own CPU (``host``, and under KVM ``max``)."""
        return self.model in _OWN_CPU

    @property
    def target(self) -> str:
        """KVM_ARM_TARGET_* of the model; empty where KVM is asked for its preferred one."""
        return _TARGETS.get(self.model, "")

    def on(self, name: str, default: bool = True) -> bool:
        """Whether a property is on."""
        return self.properties[name] in _ON if name in self.properties else default

    def as_answered(self, answered: Mapping[str, bool]) -> "CPU":
        """With what this host's QEMU says that the host's CPU has (query-cpu-model-expansion), where nobody set it."""
        if not self.own:
            return self
        keep_lengths = not sve_wishes(self)
        told = {
            name: "on" if has else "off"
            for name, has in answered.items()
            if keep_lengths or not name.removeprefix("sve").isdecimal()
        }
        return CPU(self.model, {**told, **self.properties})


def cpu_of(settings: DomainSettings, arguments: Sequence[str] = ()) -> CPU:
    """The CPU that libvirt asks QEMU for, as changed by ``arguments`` of the domain's own (``<qemu:commandline>``).

    A later ``-cpu`` replaces the one before; ``-global`` adds a property.
    """
    properties = {
        feature.name: "on" if feature.policy in ("", "require", "force") else "off"
        for feature in settings.cpu_features
        if feature.policy != "optional"
    }
    if settings.pmu is not None:
        properties["pmu"] = "on" if settings.pmu else "off"
    model = settings.cpu_model if settings.cpu_mode == "custom" else "host"
    for option, value in pairwise(arguments):
        if option in ("-cpu", "--cpu"):
            model, *words = value.split(",")
            properties = dict(_property(word) for word in words)
        elif option in ("-global", "--global") and value.startswith(_CPU_TYPES):
            name, setting = _property(value.partition(".")[2])
            properties.setdefault(name, setting)  # what stands in -cpu is set later
    return CPU(model, properties)


def _property(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if equals:
        return name, value
    return (name[1:], "on") if name.startswith("+") else (name[1:], "off") if name.startswith("-") else (name, "on")


def vcpu_features(cpu: CPU, has: Callable[[str], int], *, aarch32: bool = False) -> tuple[str, ...]:
    """The KVM_ARM_VCPU_* features of KVM_ARM_VCPU_INIT; ``has`` answers KVM_CHECK_EXTENSION by name.

    SVE and pointer authentication are given to the host's own CPU alone.
    """
    features = ["KVM_ARM_VCPU_PSCI_0_2"]
    if aarch32 or not cpu.on("aarch64"):
        features.insert(0, "KVM_ARM_VCPU_EL1_32BIT")
    if cpu.on("pmu") and has("KVM_CAP_ARM_PMU_V3"):
        features.append("KVM_ARM_VCPU_PMU_V3")
    if cpu.own and cpu.on("sve") and has("KVM_CAP_ARM_SVE"):
        features.append("KVM_ARM_VCPU_SVE")
    pauth = has("KVM_CAP_ARM_PTRAUTH_ADDRESS") and has("KVM_CAP_ARM_PTRAUTH_GENERIC")
    if cpu.own and cpu.on("pauth") and pauth:
        features += ["KVM_ARM_VCPU_PTRAUTH_ADDRESS", "KVM_ARM_VCPU_PTRAUTH_GENERIC"]
    return tuple(features)


def sve_wishes(cpu: CPU) -> dict[int, bool]:
    """The ``sve<N>`` properties: length in bits to on or off."""
    return {int(name[3:]): cpu.on(name) for name in cpu.properties if name.startswith("sve") and name[3:].isdecimal()}


def vector_lengths(wishes: Mapping[int, bool], supported: Iterable[int]) -> tuple[int, ...]:
    """The SVE vector lengths in bits that QEMU sets, ascending, where it starts at all (arm_cpu_sve_finalize)."""
    offered = set(supported)
    enabled = {bits for bits, on in wishes.items() if on}
    disabled = {bits for bits, on in wishes.items() if not on}
    if enabled:
        chosen = enabled | {bits for bits in offered - disabled if bits <= max(enabled)}
    else:
        ceiling = min(disabled & offered, default=1 << 16)
        chosen = {bits for bits in offered if bits < ceiling}
    return tuple(sorted(chosen))


def psci_version(cpu: CPU) -> int | None:
    """KVM_REG_ARM_PSCI_VERSION by the property ``kvm-psci-version`` (QEMU 11): major in bits 31 to 16, then minor."""
    major, dot, minor = cpu.properties.get("kvm-psci-version", "").partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal()):
        return None
    return int(major) << 16 | int(minor)


def has_steal_time(cpu: CPU, machine: str, has: Callable[[str], int]) -> bool:
    """Whether the guest gets stolen time, and with it the memory region ``pvtime``: by default where KVM has it.

    Machine types up to virt-5.1 have none (hw/arm/virt.c, no_kvm_steal_time).
    """
    digits = machine.removeprefix("virt-").split(".")
    old = len(digits) == 2 and all(map(str.isdecimal, digits)) and tuple(map(int, digits)) <= (5, 1)
    return not old and cpu.on("kvm-steal-time") and bool(has("KVM_CAP_STEAL_TIME"))
