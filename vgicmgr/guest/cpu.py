"""The guest's CPU: whether it can be had, and the vCPU features that QEMU asks of KVM for it.

Which features, vector lengths and defaults QEMU chooses is told in :mod:`vgicmgr.qemu.cpu`; here a domain and a host
are held against it.
"""

from vgicmgr.dataclass import dataclass, replace
from vgicmgr.domain.domain import Domain
from vgicmgr.findings import Severity
from vgicmgr.guest.configuration import Source
from vgicmgr.guest.machine import Machine, missing
from vgicmgr.guest.notes import Notes
from vgicmgr.guest.pmu import host_source, intid_words
from vgicmgr.qemu import virt
from vgicmgr.qemu.cpu import (
    AARCH64_FEATURES,
    CPU,
    HOST_MODELS,
    cpu_of,
    default_model,
    has_steal_time,
    libvirt_refuses,
    psci_version,
    sve_vector_lengths,
    sve_wishes,
    unknown_properties,
    unsupported_properties,
    vcpu_features,
)
from vgicmgr.qemu.machine import Version

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts

_HOST_PASSTHROUGH = "set <cpu mode='host-passthrough'/>"


@dataclass(frozen=True)
class VCPUFeatures:
    """What each vCPU is made with; ``sve`` are vector lengths in bits."""

    features: tuple[str, ...] = ()
    sve: tuple[int, ...] = ()
    steal_time: bool = False
    target: str = ""
    psci_version: int | None = None


def resolve_cpu(domain: Domain, machine: Machine, host: "HostFacts", notes: Notes) -> CPU:
    """The CPU model and its properties, as libvirt and the domain's own arguments set them.

    Raises :class:`~vgicmgr.qemu.arguments.ArgumentError` for a switch that is neither on nor off.
    """
    cpu = cpu_of(domain, machine.arguments)
    if reason := libvirt_refuses(domain):
        emulated = not machine.kvm
        notes.find(
            "cpu-model-unsupported",
            f"libvirt refuses the domain's CPU: {reason}",
            "set <cpu mode='maximum'/>, or <domain type='kvm'>" if emulated else _HOST_PASSTHROUGH,
        )
    elif not machine.kvm and cpu.model == "host":
        notes.find(
            "cpu-model-unsupported",
            "-cpu host is asked for, but the domain is emulated (<domain type='qemu'>), and the host's CPU needs KVM",
            "set <cpu mode='maximum'/>, or <domain type='kvm'>",
        )
    elif machine.kvm:
        _check_model(cpu, machine, host, notes)
    if machine.kvm:
        _check_properties(cpu, machine, notes)
    return cpu


def resolve_features(cpu: CPU, machine: Machine, host: "HostFacts", *, pmu: bool, notes: Notes) -> VCPUFeatures:
    """What QEMU asks of KVM for each vCPU of ``virt``; nothing under TCG."""
    if not machine.kvm:
        return VCPUFeatures()
    if not cpu.model:
        cpu = replace(cpu, model=HOST_MODELS[-1])  # what QEMU chooses where it chooses one that runs
    el2 = machine.properties.virtualization
    found = resolve_features_of_cpu(cpu, machine.version, host, pmu=pmu, el2=el2, notes=notes)
    steal_time = has_steal_time(cpu, machine.version, host.capability)
    if machine.properties.virtualization:
        notes.decide("maintenance interrupt", intid_words(virt.MAINTENANCE_INTID), Source.MACHINE)
    return replace(found, steal_time=steal_time)


def resolve_features_of_cpu(
    cpu: CPU, machine: Version | None, host: "HostFacts", *, pmu: bool, el2: bool, notes: Notes
) -> VCPUFeatures:
    """The features that follow from the CPU alone, whatever VMM asks for them; ``machine`` is the type's version."""
    _check_supported(cpu, machine, host, notes)
    if cpu.aarch32:
        _check_aarch32(cpu, host, notes)
    features = vcpu_features(cpu, host.capability, pmu=pmu, el2=el2)
    sve = host.capability("KVM_CAP_ARM_SVE") and not cpu.aarch32
    lengths = _vector_lengths(cpu, host, notes) if sve and cpu.host_cpu else ()
    if lengths:
        notes.decide("SVE vectors", f"{', '.join(map(str, lengths))} bits", host_source(host))
    names = ", ".join(name.removeprefix("KVM_ARM_VCPU_") for name in features)
    notes.decide("vCPU features", names, Source.QEMU)
    return VCPUFeatures(features, lengths, False, cpu.target, psci_version(cpu))


def _check_model(cpu: CPU, machine: Machine, host: "HostFacts", notes: Notes) -> None:
    model = cpu.model or default_model(machine.qemu_version)
    if model is None:
        notes.find("cpu-model-default", f"the domain has no <cpu>, and {_DEFAULT}", _HOST_PASSTHROUGH)
    elif not cpu.model and model not in HOST_MODELS:
        notes.find("cpu-model-unsupported", f"the domain has no <cpu>, and {_DEFAULT}", _HOST_PASSTHROUGH)
    elif model not in HOST_MODELS and not cpu.target:
        notes.find(
            "cpu-model-unsupported",
            f"the CPU model '{model[:40]}' is asked for, but KVM gives guests the host's own CPU, and QEMU asks it for "
            "no other but cortex-a53 and cortex-a57",
            _HOST_PASSTHROUGH,
        )
    elif cpu.target and host.takes_target(cpu.target) is False:
        notes.find(
            "cpu-model-unsupported",
            f"the CPU model '{model}' is asked for, but {host.name} has another CPU, and KVM gives guests its own",
            _HOST_PASSTHROUGH,
        )


_DEFAULT = "the default of QEMU before 10.2 is cortex-a15, which KVM cannot run"


def _check_properties(cpu: CPU, machine: Machine, notes: Notes) -> None:
    """Properties that no such CPU has, by which QEMU ends."""
    for name in unknown_properties(cpu):
        notes.find(
            "cpu-feature-unknown",
            f"the CPU feature '{name[:40]}' is asked for, which QEMU's CPU '{cpu.model[:40]}' does not have under KVM",
            f"remove <feature name='{name[:40]}'/> from <cpu>",
        )
    if cpu.get("kvm-psci-version") is not None and machine.qemu.psci_property is False:
        notes.find(
            "cpu-property-unknown",
            "the domain sets the CPU property kvm-psci-version, which this QEMU does not have, so that the guest does "
            "not start",
            "use QEMU 11 or newer, or boot the guest without the property",
        )


def _check_supported(cpu: CPU, machine: Version | None, host: "HostFacts", notes: Notes) -> None:
    """Properties that QEMU refuses on this host; the PMU's and 32-bit EL1's have findings of their own."""
    for one in unsupported_properties(cpu, host.capability, machine):
        if one.name in ("pmu", "aarch64"):
            continue
        notes.find(
            "cpu-feature-unsupported",
            f"the CPU feature '{one.name}' is asked for, but {one.reason.replace('this host', host.name)}"
            + (f" ({one.capability} is 0)" if one.capability else ""),
            f"remove <feature name='{one.name}'/> from <cpu>, or use a host that supports it",
            severity=missing(host) if one.capability else Severity.ERROR,
        )


def _check_aarch32(cpu: CPU, host: "HostFacts", notes: Notes) -> None:
    if not host.capability("KVM_CAP_ARM_EL1_32BIT"):
        notes.find(
            "el1-32bit-unsupported",
            f"a 32-bit guest is asked for, but the CPU of {host.name} has no 32-bit EL1 (KVM_CAP_ARM_EL1_32BIT is 0)",
            "use a 64-bit guest (<type arch='aarch64'>), or a host whose CPU runs 32-bit kernels",
        )
    elif AARCH64_FEATURES & set(vcpu_features(cpu, host.capability, pmu=False, el2=False)):
        # seen with QEMU 7.2, 10.0 and 11.1: kvm_arch_init_vcpu fails with EINVAL
        notes.find(
            "el1-32bit-features",
            "a 32-bit guest is asked for, and QEMU asks KVM for SVE or pointer authentication in it, too, since "
            f"{host.name} supports them (KVM_CAP_ARM_SVE, KVM_CAP_ARM_PTRAUTH_ADDRESS), which no 32-bit guest can have",
            "use a 64-bit guest (<type arch='aarch64'>), or a host whose CPU has neither",
        )


def _vector_lengths(cpu: CPU, host: "HostFacts", notes: Notes) -> tuple[int, ...]:
    lengths = sve_vector_lengths(cpu, host.sve_vector_lengths)
    if not isinstance(lengths, str):
        return lengths
    asked = ", ".join(f"sve{bits} {'on' if on else 'off'}" for bits, on in sorted(sve_wishes(cpu).items()))
    notes.find(
        "sve-vector-length",
        f"the SVE vector lengths {asked} are asked for, but {lengths} (KVM_REG_ARM64_SVE_VLS)",
        f"choose among {', '.join(map(str, sorted(host.sve_vector_lengths)))} bits",
    )
    return ()
