"""Translate and rehearse in one, for the hook: whether this host's kernel brings a domain's interrupt controller up."""

from vgicmgr.dataclass import replace
from vgicmgr.domain.devices import Devices
from vgicmgr.domain.settings import DomainSettings
from vgicmgr.findings import Finding, Verdict
from vgicmgr.kvm import its, vgic_v2, vgic_v3
from vgicmgr.kvm.system import System
from vgicmgr.guest.configuration import MSIController
from vgicmgr.guest.hostfacts import HostFacts
from vgicmgr.guest.plan import call_plan, telling_vcpus
from vgicmgr.guest.rehearsal import rehearse
from vgicmgr.guest.resolve import Resolution, resolve
from vgicmgr.guest.start import supported_vector_lengths


def judge_bring_up(settings: DomainSettings, system: System) -> Verdict:
    """What the kernel makes of the calls that QEMU will make for these settings.

    A domain that comes to no configuration is not rehearsed: QEMU refuses it by itself. Neither is one with QEMU
    arguments of its own, which may ask for anything. Raises :class:`~vgicmgr.kvm.errors.KvmError` when the kernel
    cannot even be asked what it has.
    """
    if settings.qemu_arguments and not settings.host_devices:
        return Verdict()
    host = ask_host(system)
    found: tuple[Finding, ...] = ()
    if settings.host_devices:
        host, found = _with_assigned(host, settings)
    if settings.qemu_arguments:
        return Verdict(found)
    resolution = resolve(settings, devices=Devices(host_devices=settings.host_devices), host=host)
    configuration = resolution.configuration
    if configuration is None:
        return Verdict(found)
    if settings.host_devices:
        found += _msi_findings(resolution, host, configuration.msi)
    rehearsal = rehearse(call_plan(configuration, vcpus=telling_vcpus(configuration)), system)
    return Verdict((*found, *rehearsal.verdict.findings))


def _with_assigned(host: HostFacts, settings: DomainSettings) -> tuple[HostFacts, tuple[Finding, ...]]:
    """With what the host says of the domain's assigned devices, and what follows from that alone."""
    from vgicmgr.vfio.assigned import read_assigned  # few domains have any
    from vgicmgr.guest.assignment import host_findings

    assigned = read_assigned(device.address for device in settings.host_devices)
    return replace(host, assigned=assigned), tuple(host_findings(settings.host_devices, assigned))


def _msi_findings(resolution: Resolution, host: HostFacts, msi: MSIController) -> tuple[Finding, ...]:
    from vgicmgr.guest.assignment import msi_findings

    spis = resolution.address_map.gicv2m_spis if resolution.address_map else 0
    return tuple(msi_findings(resolution.settings.host_devices, host, msi, gicv2m_spis=spis))


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
            sve_vector_lengths=supported_vector_lengths(vm),
            el1_32bit=bool(vm.check_extension("KVM_CAP_ARM_EL1_32BIT")),
            max_vcpus=vm.check_extension("KVM_CAP_MAX_VCPUS"),
            irq_line_layout_2=bool(vm.check_extension("KVM_CAP_ARM_IRQ_LINE_LAYOUT_2")),
            asked=True,
        )
