"""The fake kernel that unit tests share keeps to the rules that real kernels are held against."""

import errno
import json
import os
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.fakes.hosts import (
    GICV2_HOST,
    NEOVERSE_N1,
    NESTED,
    NO_GIC,
    SMALL_IPA,
    SVE_HOST,
    HostKind,
)
from tests.fakes.kernel import FakeKernel, install, installed
from tests.fakes.registers import Register, Workaround2, id_register
from tests.lab import rehearsals
from tests.lab.kernel_rules import GICV2, GICV3, RULES, Rule, answer
from vgicmgr.dataclass import replace
from vgicmgr.kvm import its, uapi, vcpu, vgic_v3
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.its import ITS
from vgicmgr.kvm.registers import PMCR_EL0, PMCR_EL0_N, register_id, register_name
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vcpu import VCPU
from vgicmgr.kvm.vgic_v3 import VGICv3
from vgicmgr.kvm.vm import VM, feature_id_index

HOST_OF = {GICV3: SVE_HOST, GICV2: GICV2_HOST}
PSCI = "KVM_ARM_VCPU_PSCI_0_2"
PMU = "KVM_ARM_VCPU_PMU_V3"
SVE = "KVM_ARM_VCPU_SVE"
ICC_CTLR_EL1 = vgic_v3.cpu_interface_register(vgic_v3.ICC_CTLR_EL1)


def refused(number: int) -> "pytest.RaisesExc[KvmError]":
    return pytest.raises(KvmError, match=errno.errorcode[number])


@pytest.mark.parametrize(
    ("world", "rule"), [pytest.param(world, rule, id=rule.name) for world, rules in RULES.items() for rule in rules]
)
def test_each_misuse_is_answered_as_by_a_real_kernel(world: str, rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    with installed(monkeypatch, FakeKernel(HOST_OF[world])) as kernel, System() as system:
        given = answer(rule, system)
    assert errno.errorcode.get(given, "accepted") == errno.errorcode.get(rule.errno, "accepted")
    assert kernel.open_descriptors() == []


@pytest.mark.parametrize(("version", "host"), [(3, SVE_HOST), (2, GICV2_HOST)])
def test_configurations_good_and_bad_are_taken_as_by_a_real_kernel(
    version: int, host: HostKind, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that the lab rehearses on real kernels, with all their vCPUs and with those that stand for all."""
    kernel = install(monkeypatch, FakeKernel(host))
    rehearsals.main(str(version))
    outcomes = json.loads(capsys.readouterr().out)
    assert {name: answers for name, answers in outcomes.items() if answers[0] != answers[1]} == {}
    assert {name for name, (error, _) in outcomes.items() if error} == set(rehearsals.REFUSED[version])
    assert kernel.open_descriptors() == []


class Made:
    """A VM of a fake host with one vCPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, host: HostKind, *features: str, initialized: bool = True):
        self.kernel = install(monkeypatch, FakeKernel(host))
        self.system = System()
        self.vm = self.system.create_vm()
        self.vcpu = self.vm.create_vcpu()
        if initialized:
            self.vcpu.init(self.vm.preferred_target(), features or (PSCI,))

    def gicv3(self) -> VGICv3:
        gic = VGICv3(self.vm)
        gic.set_attribute(vgic_v3.CTRL_INIT)
        return gic


@pytest.fixture
def n1(monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    made = Made(monkeypatch, NEOVERSE_N1, PSCI, PMU)
    yield made
    for descriptor in (made.vcpu, made.vm, made.system):
        descriptor.close()
    assert made.kernel.open_descriptors() == []


# KVM_CREATE_VM


@pytest.mark.parametrize("limit", [32, 36, 39, 40, 48])
def test_a_vm_without_a_size_has_the_hosts_limit(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = install(monkeypatch, FakeKernel(replace(NEOVERSE_N1, ipa_limit=limit)))
    with System() as system, system.create_vm() as vm, VGICv3(vm) as gic:
        gic.set_attribute(vgic_v3.DIST_ADDR, (1 << limit) - 0x1_0000)
        with system.create_vm() as other, VGICv3(other) as beyond, refused(errno.E2BIG):
            beyond.set_attribute(vgic_v3.DIST_ADDR, 1 << limit)
    assert kernel.requests["KVM_CHECK_EXTENSION"] == 1, "the limit is asked for once"


@pytest.mark.parametrize(("limit", "accepted"), [(32, False), (36, False), (39, False), (40, True), (48, True)])
def test_the_kernels_default_of_40_bits_is_more_than_some_hosts_can(
    limit: int, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, FakeKernel(replace(NEOVERSE_N1, ipa_limit=limit)))
    with System() as system:
        if accepted:
            system.create_vm(0).close()
        else:
            with refused(errno.EINVAL):
                system.create_vm(0)
        with refused(errno.EINVAL):
            system.create_vm(limit + 1)
        system.create_vm(limit).close()


def test_a_kernel_before_ipa_sizes_takes_type_0_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeKernel(replace(NEOVERSE_N1, ipa_limit=0)))
    with System() as system:
        system.create_vm().close()
        with refused(errno.EINVAL):
            system.create_vm(40)


def test_msi_devid_is_asked_of_a_vm_and_comes_with_its_its(n1: Made) -> None:
    with refused(errno.EINVAL):
        n1.system.check_extension("KVM_CAP_MSI_DEVID")
    assert not n1.vm.check_extension("KVM_CAP_MSI_DEVID")
    with VGICv3(n1.vm), ITS(n1.vm):
        assert n1.vm.check_extension("KVM_CAP_MSI_DEVID")


# descriptors


def test_a_vcpu_lives_as_long_as_its_vm(n1: Made) -> None:
    n1.vcpu.close()
    with refused(errno.EEXIST):
        n1.vm.create_vcpu()


def test_a_number_that_is_used_again_stands_for_what_it_was_given_to_last(n1: Made) -> None:
    with n1.vm.create_vcpu(1) as second:
        number = second.fileno()
    with VGICv3(n1.vm) as gic:
        assert gic.fileno() == number
        gic.set_attribute(vgic_v3.NR_IRQS, 64)


def test_descriptors_of_others_are_asked_of_the_real_kernel(n1: Made) -> None:
    from fcntl import ioctl

    reader, writer = os.pipe()
    try:
        os.write(writer, b"four")
        answer = bytearray(4)
        ioctl(reader, 0x541B, answer)  # FIONREAD
        assert int.from_bytes(answer, "little") == 4
    finally:
        os.close(reader)
        os.close(writer)


def test_the_nth_call_of_a_kind_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse: dict[tuple[str, int], int | BaseException] = {
        ("KVM_CREATE_VCPU", 2): errno.ENOMEM,
        ("KVM_CREATE_DEVICE", 1): KeyboardInterrupt(),
    }
    kernel = install(monkeypatch, FakeKernel(NEOVERSE_N1, refuse=refuse))
    with System() as system, system.create_vm() as vm:
        vm.create_vcpu(0).close()
        with refused(errno.ENOMEM):
            vm.create_vcpu(1)
        vm.create_vcpu(1).close()
        assert vm.test_device(vgic_v3.DEVICE_TYPE)
        with pytest.raises(KeyboardInterrupt):
            vm.create_device(vgic_v3.DEVICE_TYPE)
        vm.close()
    assert (kernel.vms_made, kernel.requests["KVM_CREATE_VCPU"], kernel.requests["KVM_CREATE_DEVICE"]) == (1, 3, 1)
    assert kernel.open_descriptors() == []


# KVM_ARM_VCPU_INIT


def test_a_vcpu_must_be_initialized_first(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch, NEOVERSE_N1, initialized=False)
    with refused(errno.ENOEXEC):
        made.vcpu.register_ids()
    with refused(errno.ENOEXEC):
        made.vcpu.get_register(register_id("X0"))


@pytest.mark.parametrize(
    ("host", "target", "accepted"),
    [
        (GICV2_HOST, "KVM_ARM_TARGET_CORTEX_A57", True),
        (GICV2_HOST, "KVM_ARM_TARGET_GENERIC_V8", True),
        (GICV2_HOST, "KVM_ARM_TARGET_CORTEX_A53", False),
        (NEOVERSE_N1, "KVM_ARM_TARGET_CORTEX_A57", False),
        (NEOVERSE_N1, "KVM_ARM_TARGET_GENERIC_V8", True),
    ],
)
def test_a_target_is_the_hosts_own_or_the_generic_one(
    host: HostKind, target: str, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(monkeypatch, host, initialized=False)
    assert made.vm.preferred_target() == getattr(uapi, host.target)
    if accepted:
        made.vcpu.init(getattr(uapi, target), [PSCI])
    else:
        with refused(errno.EINVAL):
            made.vcpu.init(getattr(uapi, target), [PSCI])


def test_features_are_the_same_ever_after_and_on_all_vcpus(n1: Made) -> None:
    n1.vcpu.init(uapi.KVM_ARM_TARGET_GENERIC_V8, [PSCI, PMU])
    n1.vcpu.init(uapi.KVM_ARM_TARGET_GENERIC_V8, [PSCI, PMU, "KVM_ARM_VCPU_POWER_OFF"])
    with refused(errno.EINVAL):
        n1.vcpu.init(uapi.KVM_ARM_TARGET_GENERIC_V8, [PSCI])
    with n1.vm.create_vcpu(1) as other, refused(errno.EINVAL):
        other.init(uapi.KVM_ARM_TARGET_GENERIC_V8, [PSCI])


@pytest.mark.parametrize(
    ("host", "feature", "accepted"),
    [
        (NEOVERSE_N1, "KVM_ARM_VCPU_EL1_32BIT", True),
        (SVE_HOST, "KVM_ARM_VCPU_EL1_32BIT", False),
        (NESTED, "KVM_ARM_VCPU_HAS_EL2", True),
        (NEOVERSE_N1, SVE, False),
        (GICV2_HOST, PMU, False),
    ],
)
def test_a_feature_needs_a_host_that_has_it(
    host: HostKind, feature: str, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(monkeypatch, host, initialized=False)
    if accepted:
        made.vcpu.init(made.vm.preferred_target(), [PSCI, feature])
    else:
        with refused(errno.EINVAL):
            made.vcpu.init(made.vm.preferred_target(), [PSCI, feature])


# registers


def test_every_listed_register_can_be_read_has_a_name_and_takes_its_own_value(n1: Made) -> None:
    ids = n1.vcpu.register_ids()
    assert len(ids) > 250
    assert len(set(ids)) == len(ids)
    for number in ids:
        assert not register_name(number).startswith("0x")
        n1.vcpu.set_register(number, n1.vcpu.get_register(number))


def test_a_list_with_too_little_room(n1: Made) -> None:
    count = len(n1.vcpu.register_ids())
    with refused(errno.E2BIG):
        n1.vcpu.ioctl("KVM_GET_REG_LIST", bytearray(uapi.kvm_reg_list.layout.pack(count - 1)) + bytes(8 * count))


@pytest.mark.parametrize(
    ("host", "features", "name", "there"),
    [
        (NEOVERSE_N1, (PSCI, PMU), "PMCR_EL0", True),
        (NEOVERSE_N1, (PSCI,), "PMCR_EL0", False),
        (NEOVERSE_N1, (PSCI,), "APIAKEYLO_EL1", False),
        (SVE_HOST, (PSCI, SVE), "ZCR_EL1", True),
        (SVE_HOST, (PSCI,), "ZCR_EL1", False),
        (SVE_HOST, (PSCI, SVE), "KVM_REG_ARM64_SVE_VLS", True),
        (SVE_HOST, (PSCI,), "KVM_REG_ARM64_SVE_VLS", False),
        (SVE_HOST, (PSCI, SVE), "V0", False),  # Z0 in its place
        (SVE_HOST, (PSCI,), "V0", True),
        (SVE_HOST, (PSCI,), "HCR_EL2", False),
        (NESTED, (PSCI, "KVM_ARM_VCPU_HAS_EL2"), "HCR_EL2", True),
    ],
)
def test_registers_come_with_features(
    host: HostKind, features: tuple[str, ...], name: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(monkeypatch, host, *features)
    if SVE in features:
        made.vcpu.finalize(SVE)
    assert (register_id(name) in made.vcpu.register_ids()) is there
    if there:
        made.vcpu.get_register(register_id(name))
    else:
        with refused(errno.ENOENT):
            made.vcpu.get_register(register_id(name))


def test_id_registers_tell_of_features_that_the_vcpu_has(monkeypatch: pytest.MonkeyPatch) -> None:
    pfr0, zfr0 = register_id("ID_AA64PFR0_EL1"), register_id("ID_AA64ZFR0_EL1")
    plain = Made(monkeypatch, SVE_HOST, PSCI).vcpu
    sve = Made(monkeypatch, SVE_HOST, PSCI, SVE)
    sve.vcpu.finalize(SVE)
    assert (plain.get_register(pfr0) >> 32 & 0xF, plain.get_register(zfr0)) == (0, 0)
    assert sve.vcpu.get_register(pfr0) >> 32 & 0xF == 1
    assert sve.vcpu.get_register(zfr0) != 0
    assert sve.vcpu.get_register(pfr0) >> 24 & 0xF == 0
    with sve.gicv3():
        assert sve.vcpu.get_register(pfr0) >> 24 & 0xF == 1


def writes(cpu: VCPU, name: str, *values: int) -> list[bool]:
    """Which values the register takes."""
    taken = []
    for value in values:
        try:
            cpu.set_register(register_id(name), value)
        except KvmError as error:
            assert error.errno == errno.EINVAL
            taken.append(False)
        else:
            taken.append(True)
    return taken


def test_an_invariant_register_takes_its_own_value_alone(n1: Made) -> None:
    assert writes(n1.vcpu, "MIDR_EL1", 0x413F_D0C1, 0x414F_D0C1) == [True, False]


def test_an_id_registers_fields_can_be_lowered_and_raised_to_the_hosts_again(n1: Made) -> None:
    isar0 = n1.vcpu.get_register(register_id("ID_AA64ISAR0_EL1"))
    without_aes = isar0 & ~0xF0
    assert writes(n1.vcpu, "ID_AA64ISAR0_EL1", without_aes, isar0, isar0 + 0x10) == [True, True, False]
    mmfr1 = n1.vcpu.get_register(register_id("ID_AA64MMFR1_EL1"))
    assert writes(n1.vcpu, "ID_AA64MMFR1_EL1", mmfr1 & ~0xF000_0000) == [False], "XNX is not for user space to say"


def test_id_registers_of_one_vcpu_are_those_of_all(n1: Made) -> None:
    isar0 = register_id("ID_AA64ISAR0_EL1")
    n1.vcpu.set_register(isar0, 0)
    with n1.vm.create_vcpu(1) as other:
        other.init(uapi.KVM_ARM_TARGET_GENERIC_V8, [PSCI, PMU])
        assert other.get_register(isar0) == 0
        assert other.get_register(register_id("MPIDR_EL1")) & 0xFF == 1


def test_writable_masks_are_what_can_be_written(n1: Made) -> None:
    masks = n1.vm.writable_id_register_masks()
    assert masks[feature_id_index(0, 6, 0)] & 0xF0 == 0xF0  # ID_AA64ISAR0_EL1.AES
    assert masks[feature_id_index(0, 7, 1)] & 0xF000_0000 == 0  # ID_AA64MMFR1_EL1.XNX


@pytest.mark.parametrize(
    ("name", "host", "written", "taken"),
    [  # arch/arm64/kvm/hypercalls.c, kvm_arm_set_fw_reg
        ("KVM_REG_ARM_PSCI_VERSION", 0x1_0001, (2, 0x1_0000, 0x1_0001, 0x1_0002, 1), [True, True, True, False, False]),
        ("KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1", 1, (0, 1, 2, 16), [True, True, False, False]),
        ("KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3", 2, (0, 1, 2, 3), [True, True, True, False]),
        ("KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2", 0, (0, 1, 2, 3, 4, 17), [True, True, False, False, False, False]),
        ("KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2", 3, (0, 1, 2, 3, 18, 19), [True, True, True, True, True, False]),
        ("KVM_REG_ARM_VENDOR_HYP_BMAP", 1, (0, 1, 3), [True, True, False]),
    ],
)
def test_firmware_registers(
    name: str, host: int, written: tuple[int, ...], taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = NEOVERSE_N1.with_registers(**{name: host})
    if name == "KVM_REG_ARM_PSCI_VERSION":
        from tests.fakes.registers import PSCIVersion

        kind = NEOVERSE_N1.with_registers(**{name: Register(host, PSCIVersion(newest=host))})
    made = Made(monkeypatch, kind)
    assert writes(made.vcpu, name, *written) == taken
    if isinstance(kind.registers[register_id(name)].rule, Workaround2):
        assert made.vcpu.get_register(register_id(name)) == host, "the register says what the host is like"


def test_the_kernel_keeps_the_number_of_event_counters_it_has(n1: Made) -> None:
    def set_counters(count: int) -> int:
        n1.vcpu.set_register(PMCR_EL0, count << PMCR_EL0_N.lsb)
        return PMCR_EL0_N.of(n1.vcpu.get_register(PMCR_EL0))

    assert [set_counters(4), set_counters(6), set_counters(20)] == [4, 6, 6]


def test_the_counter_runs_at_the_hosts_rate_and_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10**9]
    kernel = install(monkeypatch, FakeKernel(NEOVERSE_N1, clock=lambda: now[0]))
    with System() as system, system.create_vm() as vm, vm.create_vcpu() as cpu:
        cpu.init(vm.preferred_target(), [PSCI])
        cpu.set_register(uapi.KVM_REG_ARM_TIMER_CNT, 1000)
        now[0] += 20_000_000
        assert cpu.get_register(uapi.KVM_REG_ARM_TIMER_CNT) == 1000 + 25_000_000 // 50
        vm.set_counter_offset(0)
        cpu.set_register(uapi.KVM_REG_ARM_TIMER_CNT, 5)
        assert cpu.get_register(uapi.KVM_REG_ARM_TIMER_CNT) > 25_000_000, "the VM's offset was set for good"
    assert kernel.written == [(uapi.KVM_REG_ARM_TIMER_CNT, 1000), (uapi.KVM_REG_ARM_TIMER_CNT, 5)]


def test_a_register_can_hang_on_an_id_registers_field(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Made(monkeypatch, SVE_HOST).vcpu
    sctlr2, mmfr3 = register_id("SCTLR2_EL1"), register_id("ID_AA64MMFR3_EL1")
    assert sctlr2 in cpu.register_ids()
    cpu.set_register(mmfr3, cpu.get_register(mmfr3) & ~0xF0)  # SCTLRX
    assert sctlr2 not in cpu.register_ids()
    with refused(errno.ENOENT):
        cpu.get_register(sctlr2)


def test_sve_is_configured_before_it_is_finalized(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Made(monkeypatch, SVE_HOST, PSCI, SVE).vcpu
    with refused(errno.EPERM):
        cpu.register_ids()
    with refused(errno.EPERM):
        cpu.get_register(register_id("Z0"))
    assert vcpu.sve_vector_lengths(cpu.get_register(uapi.KVM_REG_ARM64_SVE_VLS)) == (128, 256, 512)
    with refused(errno.EINVAL):
        cpu.set_register(uapi.KVM_REG_ARM64_SVE_VLS, 0b0111)  # 384 bits, which this host has not
    with refused(errno.EINVAL):
        cpu.set_register(uapi.KVM_REG_ARM64_SVE_VLS, 0b1001)  # 256 bits left out
    cpu.set_register(uapi.KVM_REG_ARM64_SVE_VLS, 0b0011)
    cpu.finalize(SVE)
    assert cpu.get_register(uapi.KVM_REG_ARM64_SVE_VLS) == 0b0011
    with refused(errno.EPERM):
        cpu.set_register(uapi.KVM_REG_ARM64_SVE_VLS, 0b0001)
    cpu.set_register(register_id("Z0"), 1 << 255)
    assert cpu.get_register(register_id("Z0")) == 1 << 255


# GIC and ITS


def test_icc_ctlr_keeps_what_was_passed_before_the_field_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """vgic-sys-reg-v3.c, set_gic_ctlr: here PRIbits and IDbits, before A3V."""
    made = Made(monkeypatch, replace(NEOVERSE_N1, icc_ctlr_el1=0x0C00))  # PRIbits 4, IDbits 1
    with made.gicv3() as gic:
        with refused(errno.EINVAL):
            gic.set_attribute(ICC_CTLR_EL1, 0x8300)
        assert gic.get_attribute(ICC_CTLR_EL1) == 0x0300
        with refused(errno.EINVAL):
            gic.set_attribute(ICC_CTLR_EL1, 0x0C00)
        gic.set_attribute(ICC_CTLR_EL1, 0x0303)
        assert gic.get_attribute(ICC_CTLR_EL1) == 0x0303


def test_gicd_iidr_takes_the_revisions_of_the_host(n1: Made) -> None:
    iidr = vgic_v3.distributor_register(vgic_v3.GICD_IIDR)
    with n1.gicv3() as gic:
        assert gic.get_attribute(iidr) == 0x4B00_343B
        gic.set_attribute(iidr, 0x4B00_243B)
        assert gic.get_attribute(iidr) == 0x4B00_243B
        for value in (0x4B00_143B, 0x4B00_443B, 0x4A00_343B):
            with refused(errno.EINVAL):
                gic.set_attribute(iidr, value)


def test_of_many_kernels_the_revision_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    iidr = vgic_v3.distributor_register(vgic_v3.GICD_IIDR)
    with Made(monkeypatch, replace(NEOVERSE_N1, revision_is_kept=False)).gicv3() as gic:
        gic.set_attribute(iidr, 0x4B00_143B)
        assert gic.get_attribute(iidr) == 0x4B00_343B


def test_its_registers(n1: Made) -> None:
    with n1.gicv3(), ITS(n1.vm) as device:
        device.set_attribute(its.CTRL_INIT)
        device.set_attribute(its.ADDR, 0x808_0000)
        assert device.get_attribute(its.register(its.GITS_TYPER)) == 0x1EF71
        assert device.get_attribute(its.register(its.GITS_IIDR)) == 0x4B00_043B
        device.set_attribute(its.register(its.GITS_CBASER), 0x4000_0000)
        assert device.get_attribute(its.register(its.GITS_CBASER)) == 0x4000_0000


@pytest.mark.parametrize(
    ("host", "version_2", "version_3", "translation"),
    [
        (NEOVERSE_N1, False, True, True),
        (replace(NEOVERSE_N1, gic_versions=frozenset({2, 3})), True, True, True),
        (GICV2_HOST, True, False, False),
        (NO_GIC, False, False, False),
        (SMALL_IPA, False, True, True),
    ],
)
def test_the_devices_of_a_host(
    host: HostKind, version_2: bool, version_3: bool, translation: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm: VM = Made(monkeypatch, host).vm
    types = ("KVM_DEV_TYPE_ARM_VGIC_V2", vgic_v3.DEVICE_TYPE, its.DEVICE_TYPE)
    assert tuple(map(vm.test_device, types)) == (version_2, version_3, translation)


def test_a_host_without_a_vgic_has_no_irqchip(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch, NO_GIC)
    assert not made.system.check_extension("KVM_CAP_IRQCHIP")
    with refused(errno.ENXIO):
        made.vm.create_irqchip()


def test_other_registers_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    host = NEOVERSE_N1.with_registers(
        MIDR_EL1=0x414F_D0C1, ID_AA64ISAR0_EL1=id_register("ID_AA64ISAR0_EL1", 0x20, fixed=True), TPIDR_EL1=None
    )
    cpu = Made(monkeypatch, host).vcpu
    assert cpu.get_register(register_id("MIDR_EL1")) == 0x414F_D0C1
    assert writes(cpu, "ID_AA64ISAR0_EL1", 0x20, 0) == [True, False]
    assert register_id("TPIDR_EL1") not in cpu.register_ids()


def test_the_kinds_of_hosts_differ() -> None:
    kinds = (NEOVERSE_N1, SVE_HOST, GICV2_HOST, SMALL_IPA, NO_GIC, NESTED)
    assert all(one != other for one, other in pairwise(kinds))
