"""Whether a domain can start here: its settings against what this host's kernel says, by ioctl, and then a rehearsal.

Judged is what the kernel decides. What libvirt or QEMU refuse by themselves (an unknown CPU feature, a machine type
that is not there) is theirs to say.
"""

from collections.abc import Iterator

from vgicmgr.domain.settings import CpuFeature, DomainSettings
from vgicmgr.errors import CannotTell
from vgicmgr.findings import Finding, Severity, Verdict
from vgicmgr.kvm import uapi, vgic_v2, vgic_v3
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vcpu import sve_vector_lengths
from vgicmgr.kvm.vm import VM
from vgicmgr.qemu.machine import (
    GIB,
    GIC_REDIST_VCPUS,
    MEM_BASE,
    gicv3_max_vcpus,
    top_of_memory,
)
from vgicmgr.qemu.sve import unmet_vector_length

_IRQ_LINE_VCPUS = 256
"""KVM_IRQ_LINE names no more vCPUs without KVM_CAP_ARM_IRQ_LINE_LAYOUT_2."""


def judge_start(settings: DomainSettings) -> Verdict:
    """Whether this host's kernel can give the domain what it asks for, and brings up what that comes to.

    Raises :class:`~vgicmgr.kvm.errors.KvmUnavailable` when /dev/kvm cannot be used, and
    :class:`~vgicmgr.kvm.errors.KvmError` when the kernel refuses the throw-away VM itself.
    """
    if not settings.needs_gic:
        return Verdict()
    with System() as system:
        asked = Verdict(tuple(_findings(settings, system)))
        if not asked.ok:
            return asked
        from vgicmgr.guest.bringup import judge_bring_up  # an arrival, and a domain that is refused, are spared it

        return Verdict((*asked.findings, *judge_bring_up(settings, system).findings))


def judge_settings(settings: DomainSettings) -> Verdict:
    """Whether this host's kernel can give the domain what it asks for; errors as :func:`judge_start`.

    It is all that is asked of an arrival, which libvirt asks about as a start, too, before QEMU runs.
    """
    if not settings.needs_gic:
        return Verdict()
    with System() as system:
        return Verdict(tuple(_findings(settings, system)))


def _findings(settings: DomainSettings, system: System) -> Iterator[Finding]:
    with system.create_vm() as vm:
        yield from _gic(settings, system, vm)
        yield from _memory(settings, vm)
        yield from _pmu(settings, vm)
        yield from _cpu(settings, vm)


def _refusal(name: str, evidence: str, remedy: str) -> Finding:
    return Finding(name, Severity.ERROR, evidence, remedy)


_DEVICES = {2: vgic_v2.DEVICE_TYPE, 3: vgic_v3.DEVICE_TYPE}


def _gic(settings: DomainSettings, system: System, vm: VM) -> Iterator[Finding]:
    supported = [version for version, device in _DEVICES.items() if vm.test_device(device)]
    wish = f"<gic version='{settings.gic_version}'/>" if settings.gic_version else "a GIC"
    if not supported:
        yield _refusal(
            "gic-version-unsupported",
            f"{wish} is asked for, but this host's KVM can make no GIC (KVM_CREATE_DEVICE of "
            f"{' and '.join(_DEVICES.values())}: ENODEV)",
            "see 'vgicmgr check-host'",
        )
        return
    version = resolve_gic_version(settings, supported)
    if version not in supported:
        refusal = vm.device_refusal(_DEVICES[version]) if version in _DEVICES else None
        reason = str(refusal) if refusal else f"KVM makes GIC versions {' and '.join(map(str, _DEVICES))}"
        yield _refusal(
            "gic-version-unsupported",
            f"{wish} is asked for, but this host's KVM cannot make a GICv{version} ({reason})",
            f"set <gic version='{supported[-1]}'/>, or use a host whose 'vgicmgr check-host' shows GICv{version}",
        )
        return
    yield from _vcpus(settings, system, vm, version)


def resolve_gic_version(settings: DomainSettings, supported: list[int]) -> int:
    """The version QEMU chooses among those supported (hw/arm/virt.c, finalize_gic_version)."""
    if settings.gic_version == "host":
        return max(supported)
    if settings.gic_version:
        return int(settings.gic_version)
    return 2 if 2 in supported and settings.vcpus <= vgic_v2.MAX_VCPUS else max(supported)


def _vcpus(settings: DomainSettings, system: System, vm: VM, version: int) -> Iterator[Finding]:
    """vCPUs, hotpluggable ones included: QEMU holds them all against its limits."""
    limits = [
        (system.check_extension("KVM_CAP_MAX_VCPUS"), "KVM_CAP_MAX_VCPUS", "use a host with a larger one"),
    ]
    if version == 2:
        limits.append((vgic_v2.MAX_VCPUS, "a GICv2 names no more CPUs", "set <gic version='3'/> where the host has it"))
    else:
        limits.append(_redistributors(settings, vm))
    if not system.check_extension("KVM_CAP_ARM_IRQ_LINE_LAYOUT_2"):
        limits.append((_IRQ_LINE_VCPUS, "no KVM_CAP_ARM_IRQ_LINE_LAYOUT_2", "boot a newer kernel (5.4 or later)"))
    limit, reason, remedy = min(limits)
    if settings.vcpus > limit:
        yield _refusal(
            "vcpu-count",
            f"<vcpu>{settings.vcpus}</vcpu> is asked for, but a guest with a GICv{version} has at most {limit} here "
            f"({reason})",
            f"set <vcpu> to {limit} or less, or {remedy}",
        )


def _redistributors(settings: DomainSettings, vm: VM) -> tuple[int, str, str]:
    limit = gicv3_max_vcpus(_top_of_memory(settings), _ipa_bits(vm))
    if settings.vcpus > GIC_REDIST_VCPUS and limit > GIC_REDIST_VCPUS:
        with vgic_v3.VGICv3(vm) as gic:
            if not gic.has_attribute(vgic_v3.REDIST_REGION):
                limit = GIC_REDIST_VCPUS
                return limit, "no KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION", "boot a newer kernel (4.18 or later)"
    return limit, "redistributors in QEMU's virt machine at this IPA size", "use a host with a larger IPA size"


def _ipa_bits(vm: VM) -> int:
    return vm.check_extension("KVM_CAP_ARM_VM_IPA_SIZE") or 40  # 0 before Linux 4.20


def _top_of_memory(settings: DomainSettings) -> int:
    return top_of_memory(settings.memory, settings.max_memory, settings.memory_slots)


def _memory(settings: DomainSettings, vm: VM) -> Iterator[Finding]:
    bits, top = _ipa_bits(vm), _top_of_memory(settings)
    if top > 1 << bits:
        element = "<maxMemory>" if settings.max_memory else "<memory>"
        yield _refusal(
            "ipa-size",
            f"{element} of {(settings.max_memory or settings.memory) // GIB} GiB ends at guest physical address "
            f"{top:#x}, but this host gives a guest {bits} bits of them (KVM_CAP_ARM_VM_IPA_SIZE)",
            f"set {element} to {((1 << bits) - MEM_BASE) // GIB} GiB or less, or use a host with more bits",
        )


def _qemu_is_from(version: str, settings: DomainSettings) -> bool | None:
    """Whether the domain's QEMU is of this version or later, by its program file; None where that cannot be told."""
    from vgicmgr.qemu.program import has_machine_type  # rarely needed

    try:
        return has_machine_type(settings.emulator, version)
    except CannotTell:
        return None


def _pmu(settings: DomainSettings, vm: VM) -> Iterator[Finding]:
    wish = settings.pmu
    for feature in settings.cpu_features:
        if feature.name == "pmu":
            wish = _on(feature)
    if wish is None or vm.check_extension("KVM_CAP_ARM_PMU_V3"):
        return
    evidence = f"<pmu state='{'on' if wish else 'off'}'/> is asked for, but this host's KVM has no PMU for guests "
    evidence += "(KVM_CAP_ARM_PMU_V3 is 0)"
    remedy = "take <pmu> out of the domain, or see 'vgicmgr check-host' for what the PMU needs"
    if wish:
        yield _refusal("pmu-unsupported", evidence, remedy)
        return
    # this CPU has no property 'pmu' then, and since QEMU 10.0 (7.2 takes it) even turning it off fails
    evidence += ", and QEMU 10.0 and later then have none to turn off"
    newer = _qemu_is_from("10.0", settings)
    if newer:
        yield _refusal("pmu-unsupported", evidence, remedy)
    elif newer is None:
        yield Finding("pmu-off", Severity.WARNING, evidence, remedy)


_CAPABILITIES_OF = {
    "sve": ("KVM_CAP_ARM_SVE",),
    "pauth": ("KVM_CAP_ARM_PTRAUTH_ADDRESS", "KVM_CAP_ARM_PTRAUTH_GENERIC"),
    "kvm-steal-time": ("KVM_CAP_STEAL_TIME",),
}
"""CPU features of QEMU's ``-cpu host`` that can be asked for, and the capabilities each needs (target/arm/kvm.c)."""


def _cpu(settings: DomainSettings, vm: VM) -> Iterator[Finding]:
    wishes = {feature.name: _on(feature) for feature in settings.cpu_features if feature.policy != "optional"}
    lengths = {int(name[3:]): on for name, on in wishes.items() if name.startswith("sve") and name[3:].isdecimal()}
    if any(lengths.values()):
        wishes["sve"] = True  # libvirt adds it, too
    for feature, capabilities in _CAPABILITIES_OF.items():
        if wishes.get(feature):
            for capability in capabilities:
                if not vm.check_extension(capability):
                    yield _refusal(
                        "cpu-feature-unsupported",
                        f"the CPU feature '{feature}' is asked for, but this host's KVM has it not ({capability} is 0)",
                        f"take <feature name='{feature}'/> out of <cpu>, or use a host that has it",
                    )
                    break
    if lengths and wishes.get("sve", True):
        yield from _vector_lengths(lengths, vm)
    yield from _model(settings, vm)
    asks_32bit = settings.arch == "armv7l" or wishes.get("aarch64") is False
    if asks_32bit and not vm.check_extension("KVM_CAP_ARM_EL1_32BIT"):
        yield _refusal(
            "el1-32bit-unsupported",
            "a 32-bit guest is asked for, but this host's CPU has no 32-bit EL1 (KVM_CAP_ARM_EL1_32BIT is 0)",
            "use a 64-bit guest (<type arch='aarch64'>), or a host whose CPU runs 32-bit kernels",
        )
    elif asks_32bit and any(map(vm.check_extension, ("KVM_CAP_ARM_SVE", "KVM_CAP_ARM_PTRAUTH_ADDRESS"))):
        # proved with QEMU 7.2, 10.0 and 11.1: kvm_arch_init_vcpu fails with EINVAL
        yield _refusal(
            "el1-32bit-features",
            "a 32-bit guest is asked for, and QEMU asks KVM for SVE or pointer authentication in it, too, since this "
            "host has it (KVM_CAP_ARM_SVE, KVM_CAP_ARM_PTRAUTH_ADDRESS), which no 32-bit guest can have",
            "use a 64-bit guest (<type arch='aarch64'>), or a host whose CPU has neither",
        )


_HOST_PASSTHROUGH = "set <cpu mode='host-passthrough'/>"

_TARGETS = {"cortex-a53": "KVM_ARM_TARGET_CORTEX_A53", "cortex-a57": "KVM_ARM_TARGET_CORTEX_A57"}
"""The models besides its own CPU that QEMU asks of KVM, by the target it makes the vCPU with (target/arm/cpu64.c)."""


def _model(settings: DomainSettings, vm: VM) -> Iterator[Finding]:
    if not settings.cpu_mode:
        yield from _default_model(settings)
    if settings.cpu_mode != "custom" or settings.cpu_model in ("host", "max"):
        return
    target = _TARGETS.get(settings.cpu_model)
    if target is None:
        reason = "KVM gives guests the host's own CPU, and QEMU asks it for no other but cortex-a53 and cortex-a57"
    else:
        with vm.create_vcpu() as vcpu:
            try:
                vcpu.init(getattr(uapi, target), ["KVM_ARM_VCPU_PSCI_0_2"])
            except KvmError as error:
                reason = f"this host's KVM gives no such vCPU ({error})"
            else:
                return
    yield _refusal(
        "cpu-model-unsupported",
        f"the CPU model '{settings.cpu_model}' is asked for, but {reason}",
        _HOST_PASSTHROUGH,
    )


def _default_model(settings: DomainSettings) -> Iterator[Finding]:
    """Under KVM QEMU's default is ``max`` since 10.2 (hw/arm/virt.c, virt_get_default_cpu_type)."""
    evidence = "the domain names no CPU, and the default of QEMU before 10.2, cortex-a15, is none that KVM gives"
    newer = _qemu_is_from("10.2", settings)
    if newer is False:
        yield _refusal("cpu-model-unsupported", evidence, _HOST_PASSTHROUGH)
    elif newer is None:
        yield Finding("cpu-model-default", Severity.WARNING, evidence, _HOST_PASSTHROUGH)


def _vector_lengths(wishes: dict[int, bool], vm: VM) -> Iterator[Finding]:
    supported = supported_vector_lengths(vm)
    if supported and (reason := unmet_vector_length(wishes, frozenset(supported))):
        asked = ", ".join(f"sve{bits} {'on' if on else 'off'}" for bits, on in sorted(wishes.items()))
        yield _refusal(
            "sve-vector-length",
            f"the SVE vector lengths {asked} are asked for, but {reason} (KVM_REG_ARM64_SVE_VLS)",
            f"choose among {', '.join(map(str, sorted(supported)))} bits",
        )


def supported_vector_lengths(vm: VM) -> tuple[int, ...]:
    """The SVE vector lengths of a vCPU, in bits (KVM_REG_ARM64_SVE_VLS); none without SVE. It makes the VM's vCPU 0."""
    if not vm.check_extension("KVM_CAP_ARM_SVE"):
        return ()
    with vm.create_vcpu() as vcpu:
        vcpu.init(vm.preferred_target(), ["KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_SVE"])
        return sve_vector_lengths(vcpu.get_register(uapi.KVM_REG_ARM64_SVE_VLS))


def _on(feature: CpuFeature) -> bool:
    return feature.policy in ("", "require", "force")
