"""The scratch VM over the fake kernel; what real kernels answer is in ``tests/lab/test_kernel_rules.py``."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.hosts import GICV2_HOST, NEOVERSE_N1, NESTED, SVE_HOST, HostKind
from tests.fakes.kernel import FakeKernel, install
from tests.unit.guest.test_plan import GICV2, GICV3
from vgicmgr.dataclass import replace
from vgicmgr.findings import Severity
from vgicmgr.guest.plan import (
    AddVFIOFile,
    Call,
    CreateDevice,
    CreateIRQChip,
    CreateVCPU,
    CreateVM,
    FinalizeVCPU,
    GetRegisterList,
    InitVCPU,
    SetDeviceAddress,
    SetDeviceAttribute,
    SetPSCIVersion,
    SetVCPUAttribute,
    SetVectorLengths,
    call_plan,
)
from vgicmgr.guest.scratch import ScratchVM, rehearse
from vgicmgr.host.kernel import Kernel
from vgicmgr.kvm import its, uapi, vcpu, vfio, vgic_v2, vgic_v3
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.registers import register_id
from vgicmgr.kvm.system import System

PSCI = "KVM_ARM_VCPU_PSCI_0_2"
TWO = replace(GICV3, vcpus=2, redistributors=(replace(GICV3.redistributors[0], count=2),))
SVE = replace(TWO, features=(PSCI, "KVM_ARM_VCPU_SVE"), sve_vector_lengths=(128, 256), pmu_intid=None)
PLAIN_V2 = replace(GICV2, pmu_intid=None, features=(PSCI,))
PLANS = {
    "GICv3": (NEOVERSE_N1, call_plan(replace(TWO, psci_version=0x10000), register_list=True)),
    "GICv2": (GICV2_HOST, call_plan(PLAIN_V2)),
    "GICv2, the older way": (GICV2_HOST, call_plan(replace(PLAIN_V2, nr_irqs=256), device_control=False)),
    "SVE": (SVE_HOST, call_plan(SVE)),
    "nested": (NESTED, call_plan(replace(TWO, features=(PSCI, "KVM_ARM_VCPU_HAS_EL2"), pmu_intid=None))),
    "without a GIC in the kernel": (NEOVERSE_N1, call_plan(replace(TWO, in_kernel=False))),
}
IOCTLS = {
    CreateVM: "KVM_CREATE_VM",
    CreateVCPU: "KVM_CREATE_VCPU",
    InitVCPU: "KVM_ARM_VCPU_INIT",
    SetVectorLengths: "KVM_SET_ONE_REG",
    FinalizeVCPU: "KVM_ARM_VCPU_FINALIZE",
    SetPSCIVersion: "KVM_SET_ONE_REG",
    GetRegisterList: "KVM_GET_REG_LIST",
    CreateDevice: "KVM_CREATE_DEVICE",
    SetDeviceAttribute: "KVM_SET_DEVICE_ATTR",
    SetVCPUAttribute: "KVM_SET_DEVICE_ATTR",
    CreateIRQChip: "KVM_CREATE_IRQCHIP",
    SetDeviceAddress: "KVM_ARM_SET_DEVICE_ADDR",
}
EVERY_CALL = [
    pytest.param(kind, plan, place, id=f"{name}: {plan[place]}")
    for name, (kind, plan) in PLANS.items()
    for place in range(len(plan))
]


def refusing(kind: HostKind, plan: tuple[Call, ...], place: int, refusal: int | BaseException) -> FakeKernel:
    """A kernel that carries the plan out up to the call at ``place``."""
    ioctl = IOCTLS[type(plan[place])]
    before = sum(IOCTLS[type(call)] == ioctl for call in plan[:place])
    return FakeKernel(kind, refuse={(ioctl, before + 1): refusal})


def open_descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.mark.parametrize(("kind", "plan"), PLANS.values(), ids=PLANS)
def test_what_the_kernel_takes(kind: HostKind, plan: tuple[Call, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = install(monkeypatch, FakeKernel(kind))
    with System() as system:
        scratch = rehearse(plan, system)
    assert (scratch.succeeded, scratch.refused, scratch.findings) == (len(plan), None, ())
    assert scratch.verdict.ok
    assert kernel.vms_made == 1
    assert kernel.open_descriptors() == []


def test_kvms_vfio_device_is_made_and_told_of_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeKernel(NEOVERSE_N1))
    plan = call_plan(replace(GICV3, vfio_files=("/dev/vfio/4",)))
    with System() as system:
        scratch = rehearse(plan, system)
    assert scratch.plan == tuple(call for call in plan if not isinstance(call, AddVFIOFile))
    assert CreateDevice(vfio.DEVICE_TYPE) in scratch.plan
    assert scratch.verdict.ok


@pytest.mark.parametrize(("kind", "plan", "place"), EVERY_CALL)
def test_the_first_refusal_is_told_and_ends_it(
    kind: HostKind, plan: tuple[Call, ...], place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = install(monkeypatch, refusing(kind, plan, place, errno.EINVAL))
    with System() as system:
        scratch = rehearse(plan, system)
    assert (scratch.succeeded, scratch.refused) == (place, plan[place])
    [finding] = scratch.findings
    assert finding.severity is Severity.ERROR
    assert f"refuses {plan[place]}: EINVAL, " in finding.evidence
    assert finding.remedy
    assert not scratch.verdict.ok
    assert kernel.open_descriptors() == []


@pytest.mark.parametrize(("kind", "plan", "place"), EVERY_CALL)
def test_a_signal_at_any_call_leaves_nothing_open(
    kind: HostKind, plan: tuple[Call, ...], place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = install(monkeypatch, refusing(kind, plan, place, KeyboardInterrupt()))
    with System() as system, pytest.raises(KeyboardInterrupt):
        rehearse(plan, system)
    assert kernel.open_descriptors() == []


@pytest.mark.parametrize(
    "plan",
    [
        [CreateVCPU(0)],
        [CreateVM(0), InitVCPU(0, ())],
        [CreateVM(0), SetVCPUAttribute(0, vcpu.PMU_INIT)],
        [CreateVM(0), SetDeviceAttribute(its.DEVICE_TYPE, its.CTRL_INIT)],
    ],
)
def test_a_plan_that_uses_what_it_has_not_made_is_an_error_of_the_caller(
    plan: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, FakeKernel(NEOVERSE_N1))
    with System() as system, pytest.raises(ValueError, match="a call plan makes"):
        rehearse(plan, system)


def test_it_stays_open_to_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = install(monkeypatch, FakeKernel(NEOVERSE_N1))
    with System() as system:
        with ScratchVM(system) as scratch:
            scratch.bring_up(call_plan(GICV3, register_list=True))
            assert scratch.vcpu(0).get_register(register_id("MIDR_EL1")) == 0x413F_D0C1
            assert scratch.device(its.DEVICE_TYPE).get_attribute(its.register(its.GITS_TYPER)) == 0x1EF71
            assert register_id("MIDR_EL1") in scratch.register_list
            assert list(scratch.register_list) == sorted(scratch.register_list)
            assert len(kernel.open_descriptors()) == 4
        assert kernel.open_descriptors() == []


def test_the_vm_that_a_host_was_asked_on_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = install(monkeypatch, FakeKernel(NEOVERSE_N1))
    with Kernel() as host:
        host.gic_versions(40)
        with ScratchVM(host.system, host) as scratch:
            scratch.bring_up(call_plan(GICV3))
            assert scratch.verdict.ok
    assert kernel.vms_made == 1


def test_a_vm_of_other_bits_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = install(monkeypatch, FakeKernel(NEOVERSE_N1))
    with Kernel() as host:
        host.gic_versions(48)
        with ScratchVM(host.system, host) as scratch:
            scratch.bring_up(call_plan(GICV3))
    assert kernel.vms_made == 2


V3, ITS = vgic_v3.DEVICE_TYPE, its.DEVICE_TYPE


@pytest.mark.parametrize(
    ("call", "number", "name", "remedy"),
    [
        (CreateVM(52), errno.EINVAL, "vm-refused", "KVM_CAP_ARM_VM_IPA_SIZE"),
        (CreateVM(40), errno.ENOMEM, "vm-refused", "check-host"),
        (CreateVCPU(512), errno.EINVAL, "vcpu-refused", "KVM_CAP_MAX_VCPUS"),
        (InitVCPU(0, ("KVM_ARM_VCPU_SVE",)), errno.EINVAL, "vcpu-refused", "CPU features"),
        (InitVCPU(0, (), "KVM_ARM_TARGET_CORTEX_A57"), errno.EINVAL, "cpu-model-unsupported", "host-passthrough"),
        (FinalizeVCPU(0, "KVM_ARM_VCPU_SVE"), errno.EPERM, "vcpu-refused", "CPU features"),
        (SetVectorLengths(0, (384,)), errno.EINVAL, "vcpu-refused", "SVE vector lengths"),
        (SetPSCIVersion(0, 0x10009), errno.EINVAL, "vcpu-refused", "kvm-psci-version"),
        (CreateDevice(V3), errno.ENODEV, "gic-refused", "<gic version='2'/>"),
        (CreateDevice(vgic_v2.DEVICE_TYPE), errno.ENODEV, "gic-refused", "<gic version='3'/>"),
        (CreateDevice(vfio.DEVICE_TYPE), errno.ENODEV, "vfio-refused", "CONFIG_KVM_VFIO"),
        (CreateIRQChip(), errno.ENODEV, "gic-refused", "<gic version='3'/>"),
        (CreateDevice(ITS), errno.ENODEV, "its-refused", "ITS off"),
        (SetDeviceAttribute(V3, vgic_v3.NR_IRQS, 1), errno.EINVAL, "gic-refused", "check-host"),
        (SetDeviceAttribute(V3, vgic_v3.DIST_ADDR, 1), errno.EINVAL, "gic-refused", "another address"),
        (SetDeviceAttribute(V3, vgic_v3.DIST_ADDR, 1 << 60), errno.E2BIG, "gic-refused", "KVM_CAP_ARM_VM_IPA_SIZE"),
        (SetDeviceAttribute(ITS, its.ADDR, 1), errno.EINVAL, "its-refused", "another address"),
        (SetDeviceAddress("KVM_VGIC_V2_ADDR_TYPE_CPU", 1), errno.EINVAL, "gic-refused", "another address"),
        (SetVCPUAttribute(0, vcpu.PMU_IRQ, 1), errno.EINVAL, "pmu-refused", "<pmu state='off'/>"),
    ],
)
def test_a_refusal_has_the_name_of_what_it_is_about_and_a_remedy(
    call: Call, number: int, name: str, remedy: str
) -> None:
    scratch = refused(call, KvmError("KVM_SOMETHING", "", number))
    [finding] = scratch.findings
    assert finding.name == name
    assert remedy in finding.remedy


def test_the_evidence_says_what_the_errno_means_for_that_call() -> None:
    call = SetVCPUAttribute(0, vcpu.PMU_INIT)
    error = KvmError("KVM_SET_DEVICE_ATTR", "KVM_ARM_VCPU_PMU_V3_INIT", errno.ENODEV, "KVM_ARM_VCPU_PMU_V3_CTRL")
    [finding] = refused(call, error).findings
    assert finding.evidence.endswith(
        "kernel refuses KVM_SET_DEVICE_ATTR of vCPU 0: KVM_ARM_VCPU_PMU_V3_INIT: "
        "ENODEV, no PMUv3, or the GIC is not initialized"
    )


def refused(call: Call, error: KvmError) -> ScratchVM:
    """A scratch VM that came no further than to this call."""

    class Refusing(ScratchVM):
        def carry_out(self, call: Call) -> None:
            del call
            raise error

    with System(os.devnull) as system, Refusing(system) as scratch:
        scratch.bring_up([call])
    return scratch


@pytest.mark.parametrize(
    ("features", "target", "taken"),
    [
        ((PSCI,), "KVM_ARM_TARGET_CORTEX_A57", True),
        ((PSCI,), "KVM_ARM_TARGET_CORTEX_A53", False),
        ((PSCI,), "", True),
        ((PSCI, "KVM_ARM_VCPU_SVE"), "", False),
    ],
)
def test_the_kernel_takes_its_own_cores_target_alone(
    features: tuple[str, ...], target: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """arch/arm64/kvm/arm.c, kvm_vcpu_set_target."""
    install(monkeypatch, FakeKernel(GICV2_HOST))
    with System() as system:
        scratch = rehearse(call_plan(replace(PLAIN_V2, target=target, features=features)), system)
    assert scratch.verdict.ok is taken
    assert uapi.KVM_ARM_TARGET_CORTEX_A57 != uapi.KVM_ARM_TARGET_CORTEX_A53
