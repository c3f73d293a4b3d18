"""The hook's decision on a start over a kernel that is played; real ones decide in ``tests/lab/test_start.py``."""

import errno
import fcntl
import os
from collections import Counter
from collections.abc import Callable

import pytest
from vgicmgr.domain.settings import DomainSettings, read_domain

from vgicmgr.dataclass import replace
from vgicmgr.guest.start import judge_start
from vgicmgr.kvm import system, uapi

GUEST = read_domain(
    b"<domain type='kvm'><name>g</name><memory>1048576</memory><vcpu>2</vcpu>"
    b"<os><type arch='aarch64' machine='virt'>hvm</type></os><cpu mode='host-passthrough'/></domain>"
)
MANY = replace(GUEST, vcpus=512, current_vcpus=512)

CAPABILITIES = {
    uapi.KVM_CAP_ARM_VM_IPA_SIZE: 48,
    uapi.KVM_CAP_MAX_VCPUS: 512,
    uapi.KVM_CAP_ARM_IRQ_LINE_LAYOUT_2: 1,
    uapi.KVM_CAP_ARM_PMU_V3: 1,
}
DEVICES = (uapi.KVM_DEV_TYPE_ARM_VGIC_V3, uapi.KVM_DEV_TYPE_ARM_VGIC_ITS)
ITS_BASE = 0x0808_0000


class Kernel:
    """A host with a GICv3, ITS and PMU, which refuses the ioctl ``refused`` in ``refused_at`` of its calls."""

    def __init__(self, refused: int = 0, *, refused_at: int = 1) -> None:
        self.refused, self.refused_at = refused, refused_at
        self.requests: Counter[int] = Counter()

    def ioctl(self, fd: int, request: int, argument: int | bytearray = 0) -> int:
        if request == uapi.KVM_CHECK_EXTENSION:
            assert isinstance(argument, int)
            return CAPABILITIES.get(argument, 0)
        if request == uapi.KVM_CREATE_DEVICE:
            assert isinstance(argument, bytearray)
            kind, _, flags = uapi.kvm_create_device.layout.unpack(argument)
            if kind not in DEVICES:
                raise OSError(errno.ENODEV, "")
            if flags:
                return 0
            argument[:] = uapi.kvm_create_device.layout.pack(kind, os.dup(fd), flags)
        self.requests[request] += 1
        if request == self.refused and self.requests[request] == self.refused_at:
            raise OSError(errno.EINVAL, "")
        return os.dup(fd) if request in (uapi.KVM_CREATE_VM, uapi.KVM_CREATE_VCPU) else 0


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Kernel], Kernel]:
    """Puts the played kernel in place of this machine's."""

    def play(kernel: Kernel) -> Kernel:
        monkeypatch.setattr(system.System.__init__, "__defaults__", (os.devnull,))
        monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
        return kernel

    return play


def test_a_guest_that_fits_is_rehearsed(play: Callable[[Kernel], Kernel]) -> None:
    kernel = play(Kernel())
    assert judge_start(GUEST).findings == ()
    assert kernel.requests[uapi.KVM_CREATE_DEVICE] == 2
    assert kernel.requests[uapi.KVM_CREATE_VCPU] == 2


def test_many_vcpus_cost_no_more_calls_than_two(play: Callable[[Kernel], Kernel]) -> None:
    few, many = play(Kernel()), Kernel()
    assert judge_start(GUEST).ok
    play(many)
    assert judge_start(MANY).ok
    # but for asking of the attribute by which there are several redistributor regions, and setting the second
    assert many.requests.total() - few.requests.total() <= 3


@pytest.mark.parametrize(
    ("refused", "at", "name"),
    [
        (uapi.KVM_CREATE_VCPU, 2, "vcpu-refused"),
        (uapi.KVM_ARM_VCPU_INIT, 1, "vcpu-refused"),
        (uapi.KVM_CREATE_DEVICE, 1, "gic-refused"),
        (uapi.KVM_CREATE_DEVICE, 2, "its-refused"),
        (uapi.KVM_SET_DEVICE_ATTR, 1, "gic-refused"),
    ],
)
def test_what_the_kernel_refuses_in_the_rehearsal_refuses_the_start(
    play: Callable[[Kernel], Kernel], refused: int, at: int, name: str
) -> None:
    play(Kernel(refused, refused_at=at))
    verdict = judge_start(GUEST)
    assert not verdict.ok
    assert [finding.name for finding in verdict.findings] == [name]


@pytest.mark.parametrize(
    "settings",
    [
        replace(GUEST, qemu_arguments=True),  # which may ask for anything
        replace(GUEST, gic_version="2"),  # refused before
        replace(GUEST, max_memory=1),  # less than there is: libvirt's to refuse
    ],
)
def test_what_comes_to_no_configuration_is_not_rehearsed(
    play: Callable[[Kernel], Kernel], settings: DomainSettings
) -> None:
    kernel = play(Kernel())
    judge_start(settings)
    assert kernel.requests[uapi.KVM_CREATE_VCPU] == 0
