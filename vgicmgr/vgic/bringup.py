"""Translate and rehearse in one, for the hook: whether this host's kernel brings a domain's interrupt controller up."""

from vgicmgr.domain.settings import DomainSettings
from vgicmgr.findings import Verdict
from vgicmgr.kvm import its, uapi, vgic_v2, vgic_v3
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vcpu import sve_vector_lengths
from vgicmgr.kvm.vm import VM
from vgicmgr.vgic.hostfacts import HostFacts
from vgicmgr.vgic.plan import call_plan, telling_vcpus
from vgicmgr.vgic.rehearsal import rehearse
from vgicmgr.vgic.resolve import resolve


def judge_bring_up(settings: DomainSettings, system: System) -> Verdict:
    """What the kernel makes of the calls that QEMU will make for these settings.

    A domain that comes to no configuration is not rehearsed: QEMU refuses it by itself. Neither is one with QEMU
    arguments of its own, which may ask for anything. Raises :class:`~vgicmgr.kvm.errors.KvmError` when the kernel
    cannot even be asked what it has.
    """
    if settings.qemu_arguments:
        return Verdict()
    configuration = resolve(settings, host=ask_host(system)).configuration
    if configuration is None:
        return Verdict()
    return rehearse(call_plan(configuration, vcpus=telling_vcpus(configuration)), system).verdict


def ask_host(system: System) -> HostFacts:
    """What decides about a configuration here, by as few calls as will do (:mod:`vgicmgr.host.probe` asks for all)."""
    with system.create_vm() as vm:
        versions = {2: vgic_v2.DEVICE_TYPE, 3: vgic_v3.DEVICE_TYPE}
        ipa_bits = vm.check_extension("KVM_CAP_ARM_VM_IPA_SIZE")
        pauth = ("KVM_CAP_ARM_PTRAUTH_ADDRESS", "KVM_CAP_ARM_PTRAUTH_GENERIC")
        return HostFacts(
            gic_versions=frozenset(version for version, device in versions.items() if vm.test_device(device)),
            its=vm.test_device(its.DEVICE_TYPE),
            ipa_bits=ipa_bits or 40,  # 0 before Linux 4.20
            fixed_ipa=not ipa_bits,
            pmu=bool(vm.check_extension("KVM_CAP_ARM_PMU_V3")),
            pauth=all(map(vm.check_extension, pauth)),
            sve_vector_lengths=_vector_lengths(vm) if vm.check_extension("KVM_CAP_ARM_SVE") else (),
            el1_32bit=bool(vm.check_extension("KVM_CAP_ARM_EL1_32BIT")),
            max_vcpus=vm.check_extension("KVM_CAP_MAX_VCPUS"),
            irq_line_layout_2=bool(vm.check_extension("KVM_CAP_ARM_IRQ_LINE_LAYOUT_2")),
            asked=True,
        )


def _vector_lengths(vm: VM) -> tuple[int, ...]:
    with vm.create_vcpu() as vcpu:
        vcpu.init(vm.preferred_target(), ["KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_SVE"])
        return sve_vector_lengths(vcpu.get_register(uapi.KVM_REG_ARM64_SVE_VLS))
