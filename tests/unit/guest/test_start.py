"""The hook's decision on a start over the fake kernel; real ones decide in ``tests/lab/test_start.py``."""

import errno

import pytest

from tests.fakes.hosts import GICV2_HOST, NEOVERSE_N1, NESTED, NO_GIC, SMALL_IPA, SVE_HOST, HostKind
from tests.fakes.kernel import FakeKernel, install
from tests.unit.guest.examples import GUEST, guest, with_arguments, with_machine
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import CpuFeature, Devices, Domain
from vgicmgr.domain.hostdevices import HostDevice
from vgicmgr.findings import Severity
from vgicmgr.guest.resolve import resolve
from vgicmgr.guest.start import check_start, judge_start
from vgicmgr.host.assumed import ASSUMED_HOST
from vgicmgr.host.kernel import Kernel
from vgicmgr.kvm.errors import KvmUnavailable
from vgicmgr.kvm.system import System
from vgicmgr.vfio import assigned
from vgicmgr.vfio.assigned import AssignedDevice, AssignedDevices

MANY = guest(vcpus=512)


def found(kind: HostKind, domain: Domain, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the errors of a start on such a host."""
    kernel = install(monkeypatch, FakeKernel(kind))
    verdict = judge_start(domain)
    assert kernel.open_descriptors() == []
    return [finding.name for finding in verdict.findings if finding.severity is Severity.ERROR]


@pytest.mark.parametrize(
    "domain",
    [
        guest(virt_type="qemu"),
        guest(arch="x86_64", machine="q35"),
        guest(machine="raspi3b"),
    ],
)
def test_no_kernel_is_asked_for_a_guest_that_needs_none_of_kvms_gics(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = install(monkeypatch, FakeKernel(NEOVERSE_N1))
    assert judge_start(domain).findings == ()
    assert check_start(domain, ASSUMED_HOST).findings == ()
    assert kernel.requests.total() == 0


def test_a_guest_that_fits_is_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = install(monkeypatch, FakeKernel(NEOVERSE_N1))
    assert judge_start(GUEST).findings == ()
    assert kernel.requests["KVM_CREATE_DEVICE"] == 2
    assert kernel.requests["KVM_CREATE_VCPU"] == 2


class TestCost:
    """Each guest's start waits for it."""

    def test_one_vm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kernel = install(monkeypatch, FakeKernel(NEOVERSE_N1))
        assert judge_start(GUEST).ok
        assert kernel.vms_made == 1

    def test_two_where_a_question_uses_up_the_vcpu_or_the_gic(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for kind, domain in ((SVE_HOST, GUEST), (NEOVERSE_N1, MANY)):
            kernel = install(monkeypatch, FakeKernel(kind))
            assert judge_start(domain).ok
            assert kernel.vms_made == 2

    def test_many_vcpus_cost_no_more_calls_than_two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        few, many = FakeKernel(NEOVERSE_N1), FakeKernel(NEOVERSE_N1)
        install(monkeypatch, few)
        assert judge_start(GUEST).ok
        install(monkeypatch, many)
        assert judge_start(MANY).ok
        # but for asking of the attribute by which there are several redistributor regions, and setting the second
        assert many.requests.total() - few.requests.total() <= 8

    @pytest.mark.parametrize("kind", [NEOVERSE_N1, SVE_HOST, GICV2_HOST, NESTED], ids=["N1", "SVE", "GICv2", "nested"])
    def test_no_capability_is_asked_twice(self, kind: HostKind, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        check = System.check_extension

        def note(self: System, name: str) -> int:
            asked.append(name)
            return check(self, name)

        monkeypatch.setattr(System, "check_extension", note)
        found(kind, guest(gic_version="host"), monkeypatch)
        # that of the IPA size is asked by the VM's maker, too, which must not go wrong by anybody's memory
        rest = [name for name in asked if name != "KVM_CAP_ARM_VM_IPA_SIZE"]
        assert sorted(rest) == sorted(set(rest))


@pytest.mark.parametrize(
    ("refused", "at", "name"),
    [
        ("KVM_CREATE_VCPU", 2, "vcpu-refused"),
        ("KVM_ARM_VCPU_INIT", 1, "vcpu-refused"),
        ("KVM_CREATE_DEVICE", 1, "gic-refused"),
        ("KVM_CREATE_DEVICE", 2, "its-refused"),
        ("KVM_SET_DEVICE_ATTR", 1, "gic-refused"),
    ],
)
def test_what_the_kernel_refuses_in_the_rehearsal_refuses_the_start(
    refused: str, at: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, FakeKernel(NEOVERSE_N1, refuse={(refused, at): errno.EINVAL}))
    verdict = judge_start(GUEST)
    assert not verdict.ok
    assert [finding.name for finding in verdict.findings] == [name]


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        (guest(gic_version="2"), "gic-version-unsupported"),
        (guest(max_memory=1), "memory-size"),
        (with_machine("its=maybe"), "qemu-argument"),
        (with_arguments("-cpu", "cortex-a72"), "cpu-model-unsupported"),
        (with_machine("gic-version=2"), "gic-version-unsupported"),
        (with_machine("mte=on"), "mte-unsupported"),
        (with_machine("virtualization=on"), "virtualization-unsupported"),
        (guest(cpu_mode="host-model"), "cpu-model-unsupported"),
    ],
)
def test_what_comes_to_no_configuration_is_not_rehearsed(
    domain: Domain, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was found on the way to it is a finding of the start."""
    kernel = install(monkeypatch, FakeKernel(NEOVERSE_N1))
    verdict = judge_start(domain)
    assert [finding.name for finding in verdict.findings] == [name]
    assert not verdict.ok
    assert kernel.requests["KVM_CREATE_VCPU"] == 0


@pytest.mark.parametrize(
    "domain",
    [
        with_arguments("-cpu", "host", cpu_mode=""),
        with_machine("gic-version=3", gic_version="2"),
        with_machine("its=off"),
        with_machine("virt-2.6"),
    ],
)
def test_arguments_are_judged_as_the_elements_they_stand_for(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(NEOVERSE_N1, domain, monkeypatch) == []


class TestTargets:
    """A named model comes up on a host of that core alone (arch/arm64/kvm/arm.c, kvm_vcpu_set_target)."""

    A57 = guest(cpu_mode="custom", cpu_model="cortex-a57", gic_version="2")

    def test_on_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert found(GICV2_HOST, self.A57, monkeypatch) == []

    @pytest.mark.parametrize("model", ["cortex-a53", "cortex-a57"])
    def test_on_another(self, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        domain = guest(cpu_mode="custom", cpu_model=model)
        assert found(NEOVERSE_N1, domain, monkeypatch) == ["cpu-model-unsupported"]

    def test_with_a_feature_of_the_hosts_own_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No vCPU 0 twice in one VM (virt/kvm/kvm_main.c): a finding, and not the end of the judgement."""
        domain = guest(cpu_mode="custom", cpu_model="cortex-a53", cpu_features=(CpuFeature("sve512", "require"),))
        assert "cpu-model-unsupported" in found(SVE_HOST, domain, monkeypatch)


class TestFewAddresses:
    """Type 0 is 40 bits, which a kernel with fewer refuses (arch/arm64/kvm/mmu.c, kvm_init_stage2_mmu)."""

    @pytest.mark.parametrize("bits", [32, 36, 39, 40, 0, 52])
    @pytest.mark.parametrize("kind", [NEOVERSE_N1, SVE_HOST], ids=["N1", "SVE"])
    def test_a_guest_that_fits_starts(self, bits: int, kind: HostKind, monkeypatch: pytest.MonkeyPatch) -> None:
        assert found(replace(kind, ipa_limit=bits), GUEST, monkeypatch) == []

    def test_one_that_does_not_is_told_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert found(SMALL_IPA, guest(memory=64 << 30), monkeypatch) == ["ipa-size"]
        assert found(SMALL_IPA, guest(vcpus=124), monkeypatch) == ["vcpu-count"]


class TestWithoutAGIC:
    """QEMU emulates a GICv2 then, for at most 8 vCPUs."""

    @pytest.mark.parametrize("wish", ["", "2", "host"])
    def test_it_starts(self, wish: str, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, FakeKernel(NO_GIC))
        verdict = judge_start(guest(gic_version=wish))
        assert [(item.name, item.severity) for item in verdict.findings] == [("emulated-gic", Severity.WARNING)]

    def test_but_not_with_a_gicv3(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "gic-version-unsupported" in found(NO_GIC, guest(gic_version="3"), monkeypatch)

    def test_nor_before_linux_4_12(self, monkeypatch: pytest.MonkeyPatch) -> None:
        old = replace(NO_GIC, user_irq=False)
        assert found(old, guest(gic_version="2"), monkeypatch) == ["irqchip-userspace"]


class TestWithoutAnITS:
    """QEMU ends at 'error creating in-kernel ITS'."""

    KIND = replace(NEOVERSE_N1, its=False)

    def test_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert found(self.KIND, GUEST, monkeypatch) == ["its-unsupported"]

    def test_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert found(self.KIND, with_machine("its=off"), monkeypatch) == []


class TestVCPULimits:
    OLD = replace(NEOVERSE_N1, irq_line_layout_2=False)

    def test_those_at_boot_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert found(self.OLD, guest(vcpus=300, current_vcpus=2), monkeypatch) == []
        assert found(self.OLD, guest(vcpus=257), monkeypatch) == ["vcpu-count"]

    def test_one_region_of_redistributors_needs_no_regions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before Linux 4.18, QEMU sets the base of the only one (hw/intc/arm_gicv3_kvm.c, kvm_arm_gicv3_realize)."""
        old = replace(NEOVERSE_N1, redistributor_regions=False)
        assert found(old, guest(vcpus=123), monkeypatch) == []
        assert found(old, guest(vcpus=124), monkeypatch) == ["vcpu-count"]


class TestAssignedDevices:
    """What their MSIs are judged by is asked, and nothing assumed."""

    DOMAIN = guest(devices=Devices(host_devices=(HostDevice("pci", "0000:01:00.0"),)))

    @pytest.fixture(autouse=True)
    def device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given = AssignedDevices((AssignedDevice("0000:01:00.0", "vfio-pci", 4, 5, True, (), (), True),))
        monkeypatch.setattr(assigned, "read_assigned", lambda _: given)

    def test_device_ids(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kind = replace(NEOVERSE_N1, capabilities={"KVM_CAP_MSI_DEVID": 0})
        assert found(kind, self.DOMAIN, monkeypatch) == ["msi-devid-missing"]
        assert found(NEOVERSE_N1, self.DOMAIN, monkeypatch) == []

    def test_the_its_own_bits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, FakeKernel(replace(NEOVERSE_N1, gits_typer=0x1EF71 & ~(0x1F << 13) | 9 << 13)))
        assert [finding.name for finding in judge_start(self.DOMAIN).findings] == ["its-device-bits"]

    def test_kvms_own_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kernel = install(monkeypatch, FakeKernel(NEOVERSE_N1))
        assert judge_start(self.DOMAIN).ok
        # GIC and ITS are made once more, on a VM where the ITS is asked for what it has
        assert (kernel.vms_made, kernel.requests["KVM_CREATE_DEVICE"]) == (2, 5)


class TestNesting:
    def test_el2(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By KVM_CAP_ARM_EL2, which is asked."""
        assert found(NESTED, with_machine("virtualization=on"), monkeypatch) == []
        assert found(SVE_HOST, with_machine("virtualization=on"), monkeypatch) == ["virtualization-unsupported"]

    def test_mte(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert found(replace(NEOVERSE_N1, mte=True), with_machine("mte=on"), monkeypatch) == []


def test_optional_features_are_handed_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = replace(NEOVERSE_N1, pmu=False)
    domain = guest(pmu=True, cpu_features=(CpuFeature("pmu", "optional"),))
    assert found(kind, domain, monkeypatch) == ["pmu-unsupported"]


def test_a_realm_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeKernel(NEOVERSE_N1))
    verdict = judge_start(guest(launch_security="cca"))
    assert [item.name for item in verdict.findings] == ["launch-security"]


def test_another_hosts_start_is_not_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = install(monkeypatch, FakeKernel(NEOVERSE_N1))
    assert check_start(GUEST, ASSUMED_HOST).findings == resolve(GUEST, ASSUMED_HOST).findings
    assert kernel.requests.total() == 0


def test_the_hosts_kernel_is_left_open_for_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeKernel(NEOVERSE_N1))
    with Kernel() as host:
        assert check_start(GUEST, host).ok
        assert check_start(GUEST, host).ok


def test_a_kernel_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(System.__init__, "__defaults__", ("/dev/kvm-that-is-not-there",))
    with pytest.raises(KvmUnavailable):
        judge_start(GUEST)
