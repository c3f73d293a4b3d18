"""The rehearsal over a kernel that is played; what real kernels answer is in ``tests/lab/test_kernel_rules.py``."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from vgicmgr.guest.rehearsal import Rehearsal, rehearse

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
    InitVCPU,
    SetDeviceAddress,
    SetDeviceAttribute,
    SetVCPUAttribute,
    SetVectorLengths,
    call_plan,
)
from vgicmgr.kvm import its, uapi, vcpu, vfio, vgic_v2, vgic_v3
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.system import System

TWO = replace(GICV3, vcpus=2)
SVE = replace(TWO, features=("KVM_ARM_VCPU_SVE",), sve_vector_lengths=(128, 256))
PLANS = {
    "GICv3": call_plan(TWO),
    "GICv2": call_plan(GICV2),
    "GICv2, the older way": call_plan(GICV2, device_control=False),
    "SVE": call_plan(SVE),
}


class Kernel:
    """Answers every ioctl as a kernel that accepts everything, up to the call at ``place`` (in calls of a plan)."""

    def __init__(self, place: int, refusal: BaseException) -> None:
        self.place, self.refusal = place, refusal
        self.answered = count()
        self.requests: list[int] = []

    def ioctl(self, fd: int, request: int, argument: int | bytearray = 0) -> int:
        if request == uapi.KVM_ARM_PREFERRED_TARGET:  # asked, but no call of a plan
            return 0
        if next(self.answered) == self.place:
            raise self.refusal
        self.requests.append(request)
        if request in (uapi.KVM_CREATE_VM, uapi.KVM_CREATE_VCPU):
            return os.dup(fd)
        if request == uapi.KVM_CREATE_DEVICE:
            assert isinstance(argument, bytearray)
            kind, _, flags = uapi.kvm_create_device.layout.unpack(argument)
            argument[:] = uapi.kvm_create_device.layout.pack(kind, os.dup(fd), flags)
        return 0


def open_descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, BaseException], Kernel]]:
    """Makes the played kernel; afterwards no descriptor may be left open."""

    def make(place: int, refusal: BaseException) -> Kernel:
        played = Kernel(place, refusal)
        monkeypatch.setattr(fcntl, "ioctl", played.ioctl)
        return played

    before = open_descriptors()
    yield make
    assert open_descriptors() == before


EVERY_CALL = [
    pytest.param(plan, place, id=f"{name}: {plan[place]}") for name, plan in PLANS.items() for place in range(len(plan))
]


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_plan_that_the_kernel_accepts_succeeds(
    plan: tuple[Call, ...], kernel: Callable[[int, BaseException], Kernel]
) -> None:
    played = kernel(-1, OSError())
    with System("/dev/null") as system:
        rehearsal = rehearse(plan, system)
    assert rehearsal == Rehearsal(plan, len(plan))
    assert (rehearsal.refused, rehearsal.finding, rehearsal.verdict.ok) == (None, None, True)
    assert len(played.requests) == len(plan)


def test_kvms_vfio_device_is_made_and_told_of_no_file(kernel: Callable[[int, BaseException], Kernel]) -> None:
    kernel(-1, OSError())
    plan = call_plan(replace(GICV3, vfio_files=("/dev/vfio/4",)))
    with System("/dev/null") as system:
        rehearsal = rehearse(plan, system)
    assert rehearsal.plan == tuple(call for call in plan if not isinstance(call, AddVFIOFile))
    assert CreateDevice(vfio.DEVICE_TYPE) in rehearsal.plan
    assert rehearsal.verdict.ok


@pytest.mark.parametrize(("plan", "place"), EVERY_CALL)
def test_the_first_refusal_is_told_and_ends_it(
    plan: tuple[Call, ...], place: int, kernel: Callable[[int, BaseException], Kernel]
) -> None:
    played = kernel(place, OSError(errno.EINVAL, "refused"))
    with System("/dev/null") as system:
        rehearsal = rehearse(plan, system)
    assert (rehearsal.succeeded, rehearsal.refused) == (place, plan[place])
    assert len(played.requests) == place
    finding = rehearsal.finding
    assert finding is not None
    assert finding.severity is Severity.ERROR
    assert f"refuses {plan[place]}: EINVAL, " in finding.evidence
    assert finding.remedy
    assert not rehearsal.verdict.ok


@pytest.mark.parametrize(("plan", "place"), EVERY_CALL)
def test_a_signal_at_any_call_leaves_nothing_open(
    plan: tuple[Call, ...], place: int, kernel: Callable[[int, BaseException], Kernel]
) -> None:
    kernel(place, KeyboardInterrupt())
    with System("/dev/null") as system, pytest.raises(KeyboardInterrupt):
        rehearse(plan, system)


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
    plan: list[Call], kernel: Callable[[int, BaseException], Kernel]
) -> None:
    kernel(-1, OSError())
    with System("/dev/null") as system, pytest.raises(ValueError, match="a call plan makes"):
        rehearse(plan, system)


V3, ITS = vgic_v3.DEVICE_TYPE, its.DEVICE_TYPE


@pytest.mark.parametrize(
    ("call", "number", "name", "remedy"),
    [
        (CreateVM(52), errno.EINVAL, "vm-refused", "KVM_CAP_ARM_VM_IPA_SIZE"),
        (CreateVM(40), errno.ENOMEM, "vm-refused", "check-host"),
        (CreateVCPU(512), errno.EINVAL, "vcpu-refused", "KVM_CAP_MAX_VCPUS"),
        (InitVCPU(0, ("KVM_ARM_VCPU_SVE",)), errno.EINVAL, "vcpu-refused", "CPU features"),
        (FinalizeVCPU(0, "KVM_ARM_VCPU_SVE"), errno.EPERM, "vcpu-refused", "CPU features"),
        (SetVectorLengths(0, (384,)), errno.EINVAL, "vcpu-refused", "SVE vector lengths"),
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
    finding = Rehearsal((call,), 0, KvmError("KVM_SOMETHING", "", number)).finding
    assert finding is not None
    assert finding.name == name
    assert remedy in finding.remedy


def test_the_evidence_says_what_the_errno_means_for_that_call() -> None:
    call = SetVCPUAttribute(0, vcpu.PMU_INIT)
    error = KvmError("KVM_SET_DEVICE_ATTR", "KVM_ARM_VCPU_PMU_V3_INIT", errno.ENODEV, "KVM_ARM_VCPU_PMU_V3_CTRL")
    finding = Rehearsal((call,), 0, error).finding
    assert finding is not None
    assert finding.evidence == (
        "this host's kernel refuses KVM_SET_DEVICE_ATTR of vCPU 0: KVM_ARM_VCPU_PMU_V3_INIT: "
        "ENODEV, no PMUv3, or the GIC is not initialized"
    )
