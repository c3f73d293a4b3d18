"""The call plan's order and data by rule; that QEMU calls just this is proved by ``tests/lab/test_plan.py``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.dataclass import replace
from vgicmgr.guest.configuration import Region, VGICConfiguration
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
    representative_vcpus,
)
from vgicmgr.kvm import its, uapi, vcpu, vfio, vgic_v2, vgic_v3
from vgicmgr.kvm.vgic_v3 import RedistributorRegion
from vgicmgr.qemu.gic import MSIController

GICV3 = VGICConfiguration(
    machine="virt-10.0",
    gic_version=3,
    msi=MSIController.ITS,
    vcpus=1,
    max_vcpus=1,
    ipa_bits=40,
    nr_irqs=288,
    distributor=Region(0x0800_0000, 0x1_0000),
    cpu_interface=None,
    redistributors=(RedistributorRegion(0, 0x080A_0000, 1),),
    its=Region(0x0808_0000, 0x2_0000),
    gicv2m=None,
    pmu_intid=23,
    features=("KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_PMU_V3"),
)
GICV2 = replace(
    GICV3,
    gic_version=2,
    msi=MSIController.GICV2M,
    cpu_interface=Region(0x0801_0000, 0x1_0000),
    redistributors=(),
    its=None,
    gicv2m=Region(0x0802_0000, 0x1000),
)


def test_el2_has_its_maintenance_interrupt_before_all_else_of_the_gic() -> None:
    """QEMU's kvm_arm_gicv3_realize; the kernel takes it before KVM_DEV_ARM_VGIC_CTRL_INIT alone."""
    plan = call_plan(replace(GICV3, features=(*GICV3.features, "KVM_ARM_VCPU_HAS_EL2")))
    created = plan.index(CreateDevice(vgic_v3.DEVICE_TYPE))
    assert plan[created + 1] == SetDeviceAttribute(vgic_v3.DEVICE_TYPE, vgic_v3.MAINT_IRQ, 25)
    assert all(call.attribute != vgic_v3.MAINT_IRQ for call in call_plan(GICV3) if isinstance(call, SetDeviceAttribute))


def test_a_gicv3_with_its_and_pmu() -> None:
    assert [str(call) for call in call_plan(GICV3)] == [
        "KVM_CREATE_VM with an IPA size of 40 bits",
        "KVM_CREATE_VCPU 0",
        "KVM_ARM_VCPU_INIT of vCPU 0 with KVM_ARM_VCPU_PSCI_0_2, KVM_ARM_VCPU_PMU_V3",
        "KVM_CREATE_DEVICE KVM_DEV_TYPE_ARM_VGIC_V3",
        "KVM_SET_DEVICE_ATTR of KVM_DEV_TYPE_ARM_VGIC_V3: KVM_DEV_ARM_VGIC_GRP_NR_IRQS = 288",
        "KVM_SET_DEVICE_ATTR of KVM_DEV_TYPE_ARM_VGIC_V3: KVM_DEV_ARM_VGIC_CTRL_INIT",
        "KVM_CREATE_DEVICE KVM_DEV_TYPE_ARM_VGIC_ITS",
        "KVM_SET_DEVICE_ATTR of KVM_DEV_TYPE_ARM_VGIC_ITS: KVM_DEV_ARM_VGIC_CTRL_INIT",
        "KVM_SET_DEVICE_ATTR of vCPU 0: KVM_ARM_VCPU_PMU_V3_IRQ = 23",
        "KVM_SET_DEVICE_ATTR of vCPU 0: KVM_ARM_VCPU_PMU_V3_INIT",
        "KVM_SET_DEVICE_ATTR of KVM_DEV_TYPE_ARM_VGIC_ITS: KVM_VGIC_ITS_ADDR_TYPE = 0x8080000",
        "KVM_SET_DEVICE_ATTR of KVM_DEV_TYPE_ARM_VGIC_V3: KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION = "
        "index 0, base 0x80a0000, count 1",
        "KVM_SET_DEVICE_ATTR of KVM_DEV_TYPE_ARM_VGIC_V3: KVM_VGIC_V3_ADDR_TYPE_DIST = 0x8000000",
    ]


def test_a_gicv2_by_the_device_control_api() -> None:
    assert call_plan(GICV2)[3:] == (
        CreateDevice(vgic_v2.DEVICE_TYPE),
        SetDeviceAttribute(vgic_v2.DEVICE_TYPE, vgic_v2.NR_IRQS, 288),
        SetDeviceAttribute(vgic_v2.DEVICE_TYPE, vgic_v2.CTRL_INIT),
        SetVCPUAttribute(0, vcpu.PMU_IRQ, 23),
        SetVCPUAttribute(0, vcpu.PMU_INIT),
        SetDeviceAttribute(vgic_v2.DEVICE_TYPE, vgic_v2.CPU_ADDR, 0x0801_0000),
        SetDeviceAttribute(vgic_v2.DEVICE_TYPE, vgic_v2.DIST_ADDR, 0x0800_0000),
    )


def test_a_gicv2_without_the_device_control_api() -> None:
    """accel/kvm/kvm-all.c, kvm_irqchip_create: it is made before the vCPUs, and by default has 256 interrupts."""
    plain = replace(GICV2, pmu_intid=None, features=("KVM_ARM_VCPU_PSCI_0_2",))
    assert call_plan(plain, device_control=False) == (
        CreateVM(40),
        CreateIRQChip(),
        CreateVCPU(0),
        InitVCPU(0, ("KVM_ARM_VCPU_PSCI_0_2",)),
        SetDeviceAddress("KVM_VGIC_V2_ADDR_TYPE_CPU", 0x0801_0000),
        SetDeviceAddress("KVM_VGIC_V2_ADDR_TYPE_DIST", 0x0800_0000),
    )


def test_a_gicv3_is_never_made_the_older_way() -> None:
    assert call_plan(GICV3, device_control=False) == call_plan(GICV3)


@pytest.mark.parametrize("configuration", [GICV2, GICV3])
def test_kvms_vfio_device_comes_when_the_machine_is_made_and_before_its_addresses(
    configuration: VGICConfiguration,
) -> None:
    """QEMU makes its ``-device`` after the machine (qemu_create_cli_devices), and sets addresses when all is made."""
    before, after = (
        call_plan(configuration),
        call_plan(replace(configuration, vfio_files=("/dev/vfio/4", "/dev/vfio/9"))),
    )
    place = before.index(SetVCPUAttribute(0, vcpu.PMU_INIT)) + 1
    assert after[:place] + after[place + 3 :] == before
    assert [str(call) for call in after[place : place + 3]] == [
        "KVM_CREATE_DEVICE KVM_DEV_TYPE_VFIO",
        "KVM_SET_DEVICE_ATTR of KVM_DEV_TYPE_VFIO: KVM_DEV_VFIO_FILE_ADD = /dev/vfio/4",
        "KVM_SET_DEVICE_ATTR of KVM_DEV_TYPE_VFIO: KVM_DEV_VFIO_FILE_ADD = /dev/vfio/9",
    ]


def test_kvms_vfio_device_with_a_gicv2_of_the_older_way() -> None:
    plan = call_plan(replace(GICV2, vfio_files=("/dev/vfio/4",)), device_control=False)
    assert plan[4:6] == (CreateDevice(vfio.DEVICE_TYPE), AddVFIOFile("/dev/vfio/4"))


def test_sve_is_finalized_before_the_next_vcpu_is_made() -> None:
    sve = replace(GICV3, vcpus=2, features=("KVM_ARM_VCPU_SVE", "KVM_ARM_VCPU_PSCI_0_2"), sve_vector_lengths=(256, 128))
    features = ("KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_SVE")
    assert call_plan(sve)[1:9] == (
        CreateVCPU(0),
        InitVCPU(0, features),
        SetVectorLengths(0, (128, 256)),
        FinalizeVCPU(0, "KVM_ARM_VCPU_SVE"),
        CreateVCPU(1),
        InitVCPU(1, features),
        SetVectorLengths(1, (128, 256)),
        FinalizeVCPU(1, "KVM_ARM_VCPU_SVE"),
    )


def test_vector_lengths_that_are_left_as_they_are_are_not_set() -> None:
    sve = replace(GICV3, features=("KVM_ARM_VCPU_SVE",))
    assert [type(call) for call in call_plan(sve)[1:4]] == [CreateVCPU, InitVCPU, FinalizeVCPU]


@pytest.mark.parametrize("msi", [MSIController.NONE, MSIController.GICV2M])
def test_an_its_is_made_only_where_it_is_the_msi_controller(msi: MSIController) -> None:
    assert not [call for call in call_plan(replace(GICV3, msi=msi)) if its.DEVICE_TYPE in str(call)]


def test_without_a_pmu_no_vcpu_has_attributes_set() -> None:
    plan = call_plan(replace(GICV3, pmu_intid=None, vcpus=3))
    assert not [call for call in plan if isinstance(call, SetVCPUAttribute)]


def test_the_kernels_default_ipa_size_is_named() -> None:
    assert str(CreateVM(0)) == "KVM_CREATE_VM with an IPA size of 40 bits"


def test_a_named_model_is_made_with_its_own_target() -> None:
    """kvm_arch_init_vcpu takes the CPU's kvm_target (target/arm/kvm.c)."""
    plan = call_plan(replace(GICV3, vcpus=2, target="KVM_ARM_TARGET_CORTEX_A57"))
    made = [call for call in plan if isinstance(call, InitVCPU)]
    assert [call.target for call in made] == ["KVM_ARM_TARGET_CORTEX_A57"] * 2
    assert str(made[0]).startswith("KVM_ARM_VCPU_INIT of vCPU 0 for KVM_ARM_TARGET_CORTEX_A57 with ")


def test_the_psci_version_is_set_when_the_vcpu_is_finalized_and_before_its_registers_are_listed() -> None:
    plan = call_plan(replace(GICV3, psci_version=0x10001), register_list=True)
    assert plan[2:5] == (InitVCPU(0, GICV3.features), SetPSCIVersion(0, 0x10001), GetRegisterList(0))
    assert str(plan[3]) == "KVM_SET_ONE_REG KVM_REG_ARM_PSCI_VERSION of vCPU 0 = 1.1"


def test_only_the_first_vcpus_registers_are_listed() -> None:
    plan = call_plan(replace(GICV3, vcpus=3), register_list=True)
    assert [call for call in plan if isinstance(call, GetRegisterList)] == [GetRegisterList(0)]
    assert str(GetRegisterList(0)) == "KVM_GET_REG_LIST of vCPU 0"


def test_a_gic_that_qemu_emulates_is_none_of_the_kernels() -> None:
    """virt_cpu_post_init: without kvm_irqchip_in_kernel the PMU has no interrupt, but is initialized."""
    emulated = replace(GICV2, in_kernel=False, vcpus=2)
    assert [str(call) for call in call_plan(emulated)[5:]] == [
        "KVM_SET_DEVICE_ATTR of vCPU 0: KVM_ARM_VCPU_PMU_V3_INIT",
        "KVM_SET_DEVICE_ATTR of vCPU 1: KVM_ARM_VCPU_PMU_V3_INIT",
    ]
    assert call_plan(emulated) == call_plan(emulated, device_control=False)


FEATURES = (
    "KVM_ARM_VCPU_POWER_OFF",
    "KVM_ARM_VCPU_EL1_32BIT",
    "KVM_ARM_VCPU_PSCI_0_2",
    "KVM_ARM_VCPU_PMU_V3",
    "KVM_ARM_VCPU_SVE",
    "KVM_ARM_VCPU_PTRAUTH_ADDRESS",
    "KVM_ARM_VCPU_PTRAUTH_GENERIC",
)


@given(st.permutations(FEATURES), st.integers(0, len(FEATURES)))
def test_features_stand_in_the_order_of_their_bits(features: list[str], count: int) -> None:
    bits = [getattr(uapi, name) for name in vcpu.in_bit_order(features[:count])]
    assert bits == sorted(getattr(uapi, name) for name in features[:count])


@st.composite
def configurations(draw: st.DrawFn) -> VGICConfiguration:
    vcpus = draw(st.integers(1, 12) | st.sampled_from([123, 124, 512]))
    base = draw(st.sampled_from([GICV2, GICV3]))
    cut = draw(st.integers(1, vcpus))
    regions = [RedistributorRegion(0, 0x080A_0000, cut)]
    if cut < vcpus:
        regions.append(RedistributorRegion(1, 0x40_0000_0000, vcpus - cut))
    return replace(
        base,
        vcpus=vcpus,
        pmu_intid=draw(st.sampled_from([None, 23])),
        msi=draw(st.sampled_from([base.msi, MSIController.NONE])),
        redistributors=tuple(draw(st.permutations(regions))) if base.gic_version == 3 else (),
    )


@given(configurations())
def test_the_order_is_the_one_the_kernel_demands(configuration: VGICConfiguration) -> None:
    plan = call_plan(configuration)
    place = {call: number for number, call in enumerate(plan)}
    assert len(place) == len(plan)
    gic = vgic_v2 if configuration.gic_version == 2 else vgic_v3
    made = place[CreateDevice(gic.DEVICE_TYPE)]
    initialized = place[SetDeviceAttribute(gic.DEVICE_TYPE, gic.CTRL_INIT)]
    assert place[CreateVM(40)] == 0
    for call in plan:
        match call:
            case InitVCPU():
                assert place[CreateVCPU(call.vcpu)] == place[call] - 1 < made
            case CreateDevice(its.DEVICE_TYPE):
                assert place[call] > initialized
            case SetVCPUAttribute():
                assert place[call] > initialized > place[CreateVCPU(call.vcpu)]
            case SetDeviceAttribute():
                assert place[call] > place[CreateDevice(call.device_type)]
    assert [call.vcpu for call in plan if isinstance(call, CreateVCPU)] == list(range(configuration.vcpus))


@given(configurations())
def test_redistributor_regions_ascend_and_hold_every_vcpu(configuration: VGICConfiguration) -> None:
    regions = [
        RedistributorRegion.decode(call.value)
        for call in call_plan(configuration)
        if isinstance(call, SetDeviceAttribute) and call.attribute == vgic_v3.REDIST_REGION and call.value is not None
    ]
    assert [region.index for region in regions] == list(range(len(regions)))
    assert sorted(regions, key=lambda region: region.index) == sorted(
        configuration.redistributors, key=lambda region: region.index
    )


@given(configurations())
def test_the_plan_for_some_vcpus_is_the_whole_one_without_the_others(configuration: VGICConfiguration) -> None:
    chosen = representative_vcpus(configuration)

    def is_of(call: Call) -> bool:
        return getattr(call, "vcpu", chosen[0]) in chosen

    assert call_plan(configuration, vcpus=chosen) == tuple(filter(is_of, call_plan(configuration)))


@given(configurations())
def test_the_first_and_the_last_vcpu_tell(configuration: VGICConfiguration) -> None:
    chosen = representative_vcpus(configuration)
    assert chosen[0] == 0
    if configuration.gic_version == 3:
        assert chosen[-1] == configuration.vcpus - 1
        assert len(chosen) <= 2
    else:
        assert chosen == tuple(range(min(configuration.vcpus, 9)))
