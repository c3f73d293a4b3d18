"""The kernel is asked for what is wanted, once, and for what uses a VM up on a VM of its own."""

import errno
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import pytest

from vgicmgr.host.assumed import ASSUMED_HOST, AssumedHost
from vgicmgr.host.kernel import Kernel
from vgicmgr.kvm import uapi
from vgicmgr.kvm.attribute import Attribute
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.system import System

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts


class FakeVM:
    """A VM that has its vCPU 0 and its GIC once, as the kernel's has."""

    def __init__(self, system: "FakeSystem", ipa_bits: int | None) -> None:
        self.system, self.ipa_bits = system, ipa_bits
        self.made: list[str] = []
        self.closed = False

    def __enter__(self) -> "FakeVM":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True

    def check_extension(self, name: str) -> int:
        self.system.asked.append(f"{name} on a VM")
        if name == "KVM_CAP_MSI_DEVID":  # vgic_its_create sets msis_require_devid
            return int("KVM_DEV_TYPE_ARM_VGIC_ITS" in self.made)
        return self.system.capabilities.get(name, 0)

    def test_device(self, device: str) -> bool:
        self.system.asked.append(device)
        return device in self.system.devices

    def create_device(self, device: str) -> int:
        if device in self.made:
            raise KvmError("KVM_CREATE_DEVICE", device, errno.EEXIST)
        self.made.append(device)
        return -1

    def create_vcpu(self) -> "FakeVCPU":
        if "vcpu" in self.made:
            raise KvmError("KVM_CREATE_VCPU", "0", errno.EEXIST)
        self.made.append("vcpu")
        return FakeVCPU()

    def preferred_target(self) -> int:
        return uapi.KVM_ARM_TARGET_GENERIC_V8


class FakeVCPU:
    def __enter__(self) -> "FakeVCPU":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def init(self, target: int, features: object) -> None:
        pass

    def get_register(self, number: int) -> int:
        assert number == uapi.KVM_REG_ARM64_SVE_VLS
        return 0b1011


class FakeSystem:
    """/dev/kvm: KVM_CAP_MSI_DEVID is EINVAL there (kvm_vm_ioctl_check_extension)."""

    def __init__(self, capabilities: Mapping[str, int], devices: tuple[str, ...]) -> None:
        self.capabilities, self.devices = capabilities, devices
        self.asked: list[str] = []
        self.vms: list[FakeVM] = []
        self.closed = False

    def check_extension(self, name: str) -> int:
        self.asked.append(name)
        if name == "KVM_CAP_MSI_DEVID":
            raise KvmError("KVM_CHECK_EXTENSION", name, errno.EINVAL)
        return self.capabilities.get(name, 0)

    def create_vm(self, ipa_bits: int | None = None) -> FakeVM:
        self.vms.append(FakeVM(self, ipa_bits))
        return self.vms[-1]

    def close(self) -> None:
        self.closed = True


GICV3 = ("KVM_DEV_TYPE_ARM_VGIC_V3", "KVM_DEV_TYPE_ARM_VGIC_ITS")


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GIC and an ITS answer."""
    typer = {"GITS_TYPER": 0x1EF71}
    monkeypatch.setattr("vgicmgr.kvm.descriptor.Descriptor.has_attribute", lambda self, attribute: True)
    monkeypatch.setattr("vgicmgr.kvm.descriptor.Descriptor.set_attribute", lambda self, attribute, *fields: None)

    def get_attribute(self: object, attribute: Attribute, preset: int = 0) -> int:
        return typer[attribute.name]

    monkeypatch.setattr("vgicmgr.kvm.descriptor.Descriptor.get_attribute", get_attribute)


def kernel(devices: tuple[str, ...] = GICV3, **capabilities: int) -> tuple[Kernel, FakeSystem]:
    system = FakeSystem(capabilities, devices)
    return Kernel(cast("System", system)), system


def test_opening_it_asks_nothing() -> None:
    host, system = kernel()
    with host:
        assert (system.asked, system.vms) == ([], [])
    assert system.closed


def test_each_capability_is_asked_once_on_dev_kvm() -> None:
    host, system = kernel(KVM_CAP_ARM_SVE=1, KVM_CAP_ARM_EL2=1)
    assert [host.capability("KVM_CAP_ARM_EL2") for _ in range(3)] == [1, 1, 1]
    assert (system.asked, system.vms) == (["KVM_CAP_ARM_EL2"], [])


def test_a_capability_that_only_a_vm_answers() -> None:
    host, system = kernel()
    assert host.capability("KVM_CAP_MSI_DEVID") == 0
    assert system.asked == ["KVM_CAP_MSI_DEVID on a VM"]


@pytest.mark.parametrize(("limit", "bits"), [(0, 40), (36, 36), (48, 48), (52, 52)])
def test_ipa_bits(limit: int, bits: int) -> None:
    assert kernel(KVM_CAP_ARM_VM_IPA_SIZE=limit)[0].ipa_bits == bits


@pytest.mark.parametrize(
    ("devices", "gics", "its"),
    [
        ((), frozenset(), False),
        (("KVM_DEV_TYPE_ARM_VGIC_V2",), {2}, False),
        (GICV3, {3}, True),
        (("KVM_DEV_TYPE_ARM_VGIC_V3",), {3}, False),
        (("KVM_DEV_TYPE_ARM_VGIC_V5",), frozenset(), False),
    ],
)
def test_gics(devices: tuple[str, ...], gics: set[int], its: bool) -> None:
    host, _ = kernel(devices)
    assert host.gic_versions(0) == gics
    assert host.its(0) is its


class TestOneVM:
    def test_questions_that_use_nothing_up_share_it(self) -> None:
        host, system = kernel()
        for _ in range(2):
            host.gic_versions(42)
            host.its(42)
            host.capability("KVM_CAP_MSI_DEVID")
        assert [vm.ipa_bits for vm in system.vms] == [42]
        assert system.asked.count("KVM_DEV_TYPE_ARM_VGIC_V3") == 1

    def test_it_is_handed_over_unused(self) -> None:
        host, system = kernel(KVM_CAP_ARM_SVE=1)
        host.gic_versions(42)
        assert host.sve_vector_lengths == (128, 256, 512)
        assert host.redistributor_regions
        vm = host.take_vm(42)
        assert vm is cast("object", system.vms[0])
        assert system.vms[0].made == []
        host.close()
        assert not system.vms[0].closed
        assert host.take_vm(42) is None

    def test_not_for_other_bits(self) -> None:
        host, system = kernel()
        host.gic_versions(40)
        assert host.take_vm(42) is None
        host.vm(42)
        assert [vm.closed for vm in system.vms] == [True, False]

    def test_the_host_limit_is_not_the_default_type(self) -> None:
        host, system = kernel()
        host.vm(0)
        host.vm()
        assert [vm.ipa_bits for vm in system.vms] == [0, None]

    def test_it_is_closed_with_the_kernel(self) -> None:
        host, system = kernel()
        host.vm()
        host.close()
        assert system.vms[0].closed


class TestVMsOfTheirOwn:
    def test_nothing_is_made_before_it_is_asked_for_and_then_once(self) -> None:
        host, system = kernel(KVM_CAP_ARM_SVE=1)
        for _ in range(2):
            assert host.sve_vector_lengths == (128, 256, 512)
            assert host.redistributor_regions is True
            assert (host.gits_typer, host.msi_devid) == (0x1EF71, True)
        assert len(system.vms) == 3
        assert all(vm.closed for vm in system.vms)

    def test_without_sve_there_is_no_vm(self) -> None:
        host, system = kernel()
        assert host.sve_vector_lengths == ()
        assert system.vms == []

    def test_without_a_gicv3(self) -> None:
        host, _ = kernel(())
        assert host.redistributor_regions is False
        assert (host.gits_typer, host.msi_devid) == (None, None)


def test_a_target_is_for_the_plan_to_ask() -> None:
    assert kernel()[0].takes_target("KVM_ARM_TARGET_CORTEX_A57") is None


def test_one_interface() -> None:
    hosts: list[HostFacts] = [kernel()[0], ASSUMED_HOST]
    assert [host.asked for host in hosts] == [True, False]


class TestAssumedHost:
    def test_what_most_hosts_say(self) -> None:
        assert ASSUMED_HOST.gic_versions(0) == {2, 3}
        assert ASSUMED_HOST.its(0)
        assert ASSUMED_HOST.ipa_bits == 40
        assert ASSUMED_HOST.capability("KVM_CAP_ARM_PMU_V3") == 1
        assert [ASSUMED_HOST.capability(f"KVM_CAP_ARM_{name}") for name in ("SVE", "EL2", "MTE")] == [0, 0, 0]
        assert ASSUMED_HOST.takes_target("KVM_ARM_TARGET_CORTEX_A57") is None

    def test_other_answers(self) -> None:
        host = AssumedHost(capabilities={"KVM_CAP_ARM_VM_IPA_SIZE": 0, "KVM_CAP_ARM_PMU_V3": 0}, gics=frozenset((3,)))
        assert (host.ipa_bits, host.capability("KVM_CAP_ARM_PMU_V3")) == (40, 0)
        assert host.gic_versions(0) == {3}
        assert host.capability("KVM_CAP_STEAL_TIME") == 1
