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
    CPU,
    cpu_of,
    has_steal_time,
    is_known_property,
    psci_version,
    sve_vector_lengths,
    sve_wishes,
    vcpu_features,
)

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts

_HOST_PASSTHROUGH = "set <cpu mode='host-passthrough'/>"
_DEFAULT_RUNS_SINCE = (10, 2)
"""QEMU whose default CPU under KVM is ``max``, which runs (hw/arm/virt.c, virt_get_default_cpu_type); before, cortex-a15."""
_CAPABILITIES = {
    "sve": ("KVM_CAP_ARM_SVE",),
    "pauth": ("KVM_CAP_ARM_PTRAUTH_ADDRESS", "KVM_CAP_ARM_PTRAUTH_GENERIC"),
    "kvm-steal-time": ("KVM_CAP_STEAL_TIME",),
}
"""CPU properties that can be asked for, and the capabilities each needs (target/arm/kvm.c)."""


@dataclass(frozen=True)
class VCPUFeatures:
    """What each vCPU is made with; ``sve`` are vector lengths in bits."""

    features: tuple[str, ...] = ()
    sve: tuple[int, ...] = ()
    steal_time: bool = False
    target: str = ""
    psci_version: int | None = None


def resolve_cpu(domain: Domain, machine: Machine, host: "HostFacts", notes: Notes) -> CPU:
    """The CPU model and its properties, as libvirt and the domain's own arguments set them."""
    cpu = cpu_of(domain, machine.arguments)
    if domain.cpu_mode == "host-model":
        notes.find(
            "cpu-model-unsupported",
            "<cpu mode='host-model'/> is asked for, which libvirt refuses on aarch64",
            _HOST_PASSTHROUGH,
        )
    elif not machine.kvm and cpu.model == "host":
        notes.find(
            "cpu-model-unsupported",
            "the host's own CPU is asked for, but the domain is emulated (<domain type='qemu'>), and the host's CPU needs "
            "KVM",
            "set <cpu mode='maximum'/>, or <domain type='kvm'>",
        )
    if machine.kvm:
        _check_model(domain, cpu, machine, host, notes)
    for name, _ in cpu.properties:
        if cpu.host_cpu and not is_known_property(name):
            notes.find(
                "cpu-feature-unknown",
                f"the CPU feature '{name[:40]}' is asked for, which QEMU's CPU '{cpu.model}' does not have under KVM",
                f"remove <feature name='{name[:40]}'/> from <cpu>",
            )
    return cpu


def resolve_features(
    cpu: CPU, machine: Machine, host: "HostFacts", *, pmu: bool, notes: Notes
) -> VCPUFeatures:
    """What QEMU asks of KVM for each vCPU of ``virt``; nothing under TCG."""
    if not machine.kvm:
        return VCPUFeatures()
    found = resolve_features_of_cpu(cpu, host, pmu=pmu, el2=machine.properties.virtualization, notes=notes)
    steal_time = has_steal_time(cpu, machine.version, host.capability)
    if machine.properties.virtualization:
        notes.decide("maintenance interrupt", intid_words(virt.MAINTENANCE_INTID), Source.MACHINE)
    return replace(found, steal_time=steal_time)


def resolve_features_of_cpu(cpu: CPU, host: "HostFacts", *, pmu: bool, el2: bool, notes: Notes) -> VCPUFeatures:
    """The features that follow from the CPU alone, whatever VMM asks for them."""
    _check_capabilities(cpu, host, notes)
    if cpu.aarch32:
        _check_aarch32(cpu, host, notes)
    features = vcpu_features(cpu, host.capability, pmu=pmu, el2=el2)
    lengths = _vector_lengths(cpu, host, notes) if "KVM_ARM_VCPU_SVE" in features else ()
    if lengths:
        notes.decide("SVE vectors", f"{', '.join(map(str, lengths))} bits", host_source(host))
    names = ", ".join(name.removeprefix("KVM_ARM_VCPU_") for name in features)
    notes.decide("vCPU features", names, Source.QEMU)
    return VCPUFeatures(features, lengths, False, cpu.target, psci_version(cpu))


def _check_model(domain: Domain, cpu: CPU, machine: Machine, host: "HostFacts", notes: Notes) -> None:
    if not cpu.model:
        _check_default(domain, machine, notes)
    elif not cpu.host_cpu and not cpu.target:
        notes.find(
            "cpu-model-unsupported",
            f"the CPU model '{cpu.model[:40]}' is asked for, but KVM gives guests the host's own CPU, and QEMU asks it for "
            "no other but cortex-a53 and cortex-a57",
            _HOST_PASSTHROUGH,
        )
    elif cpu.target and host.takes_target(cpu.target) is False:
        notes.find(
            "cpu-model-unsupported",
            f"the CPU model '{cpu.model}' is asked for, but {host.name} has another CPU, and KVM gives guests the host's own",
            _HOST_PASSTHROUGH,
        )


def _check_default(domain: Domain, machine: Machine, notes: Notes) -> None:
    """No ``-cpu`` is handed on, and QEMU chooses."""
    runs = machine.qemu_since(_DEFAULT_RUNS_SINCE)
    if domain.pmu is not None and not machine.arguments.cpu:
        notes.find(
            "cpu-model-unsupported",
            "<pmu> is set and the domain has no <cpu>, which libvirt refuses on aarch64",
            _HOST_PASSTHROUGH,
        )
    elif not runs:
        notes.find(
            "cpu-model-default" if runs is None else "cpu-model-unsupported",
            "the domain has no <cpu>, and the default of QEMU before 10.2 is cortex-a15, which KVM cannot run",
            _HOST_PASSTHROUGH,
        )


def _check_capabilities(cpu: CPU, host: "HostFacts", notes: Notes) -> None:
    for name, capabilities in _CAPABILITIES.items():
        wanted = cpu.get(name) is not None and cpu.on(name)
        if name == "sve":
            wanted = wanted or any(sve_wishes(cpu).values())
        lacking = next((one for one in capabilities if not host.capability(one)), None)
        if wanted and lacking:
            notes.find(
                "cpu-feature-unsupported",
                f"the CPU feature '{name}' is asked for, but KVM on {host.name} does not support it ({lacking} is 0)",
                f"remove <feature name='{name}'/> from <cpu>, or use a host that supports it",
                severity=missing(host),
            )
        elif wanted and name != "kvm-steal-time" and not cpu.host_cpu:
            notes.find(
                "cpu-feature-unsupported",
                f"the CPU feature '{name}' is asked for, but under KVM QEMU gives it to the host's own CPU only, not to "
                f"'{cpu.model[:40]}'",
                _HOST_PASSTHROUGH,
            )


def _check_aarch32(cpu: CPU, host: "HostFacts", notes: Notes) -> None:
    if not host.capability("KVM_CAP_ARM_EL1_32BIT"):
        notes.find(
            "el1-32bit-unsupported",
            f"a 32-bit guest is asked for, but the CPU of {host.name} has no 32-bit EL1 (KVM_CAP_ARM_EL1_32BIT is 0)",
            "use a 64-bit guest (<type arch='aarch64'>), or a host whose CPU runs 32-bit kernels",
        )
    elif cpu.host_cpu and any(map(host.capability, ("KVM_CAP_ARM_SVE", "KVM_CAP_ARM_PTRAUTH_ADDRESS"))):
        # seen with QEMU 7.2, 10.0 and 11.1: kvm_arch_init_vcpu fails with EINVAL
        notes.find(
            "el1-32bit-features",
            "a 32-bit guest is asked for, and QEMU asks KVM for SVE or pointer authentication in it, too, since "
            f"{host.name} supports them (KVM_CAP_ARM_SVE, KVM_CAP_ARM_PTRAUTH_ADDRESS), which no 32-bit guest can have",
            "use a 64-bit guest (<type arch='aarch64'>), or a host whose CPU has neither",
        )


def _vector_lengths(cpu: CPU, host: "HostFacts", notes: Notes) -> tuple[int, ...]:
    lengths, refusal = sve_vector_lengths(cpu, host.sve_vector_lengths)
    if refusal:
        asked = ", ".join(f"sve{bits} {'on' if on else 'off'}" for bits, on in sorted(sve_wishes(cpu).items()))
        notes.find(
            "sve-vector-length",
            f"the SVE vector lengths {asked} are asked for, but {refusal} (KVM_REG_ARM64_SVE_VLS)",
            f"choose among {', '.join(map(str, sorted(host.sve_vector_lengths)))} bits",
        )
    return lengths
