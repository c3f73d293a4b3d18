"""Every call of ``vgicmgr.kvm`` on a real kernel; run by pytest inside a host (see ``tests/lab/test_kvm.py``).

What a call must answer is from the kernel's documents: Documentation/virt/kvm/api.rst and devices/.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from vgicmgr.kvm import its, uapi, vcpu, vfio, vgic_v2, vgic_v3
from vgicmgr.kvm.attribute import Attribute
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.registers import register_id, register_name
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vcpu import VCPU
from vgicmgr.kvm.vm import VM

BASE = 0x0800_0000


@pytest.fixture
def system() -> Iterator[System]:
    with System() as system:
        yield system


@pytest.fixture
def vm(system: System) -> Iterator[VM]:
    with system.create_vm() as vm:
        yield vm


@pytest.fixture
def cpu(vm: VM) -> Iterator[VCPU]:
    with vm.create_vcpu() as cpu:
        features = ["KVM_ARM_VCPU_PSCI_0_2"]
        if vm.check_extension("KVM_CAP_ARM_PMU_V3"):
            features.append("KVM_ARM_VCPU_PMU_V3")
        cpu.init(vm.preferred_target(), features)
        yield cpu


@pytest.fixture
def gicv3(vm: VM) -> Iterator[vgic_v3.VGICv3]:
    if not vm.test_device(vgic_v3.DEVICE_TYPE):
        pytest.skip("no GICv3 on this host")
    with vgic_v3.VGICv3(vm) as gic:
        yield gic


@pytest.fixture
def gicv2(vm: VM) -> None:
    if not vm.test_device(vgic_v2.DEVICE_TYPE):
        pytest.skip("no GICv2 on this host")


def open_descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def refused(number: int, call: str = "") -> "pytest.RaisesContext[KvmError]":  # type: ignore[name-defined]
    return pytest.raises(KvmError, match=f"{call}.*{errno.errorcode[number]}")


def test_api_version(system: System) -> None:
    assert system.api_version() == uapi.KVM_API_VERSION


def test_msi_devid_answers_on_a_vm_only(system: System, vm: VM) -> None:
    with refused(errno.EINVAL, "KVM_CHECK_EXTENSION KVM_CAP_MSI_DEVID"):
        system.check_extension("KVM_CAP_MSI_DEVID")
    vm.check_extension("KVM_CAP_MSI_DEVID")


def test_a_vm_has_as_many_address_bits_as_the_host_can_and_no_more(system: System) -> None:
    limit = system.check_extension("KVM_CAP_ARM_VM_IPA_SIZE")
    system.create_vm(limit).close()
    with refused(errno.EINVAL, "KVM_CREATE_VM"):
        system.create_vm(limit + 1)


def test_a_device_type_unknown_to_the_kernel(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uapi, "KVM_DEV_TYPE_VFIO", 99)
    with refused(errno.ENODEV, "KVM_CREATE_DEVICE"):
        vfio.VFIODevice(vm)


def test_a_second_gic_is_refused(vm: VM, gicv3: vgic_v3.VGICv3) -> None:
    with refused(errno.EEXIST, "KVM_CREATE_DEVICE KVM_DEV_TYPE_ARM_VGIC_V3"):
        vgic_v3.VGICv3(vm)


def test_a_device_test_creates_nothing(vm: VM) -> None:
    before = open_descriptors()
    vm.test_device(vgic_v3.DEVICE_TYPE)
    assert open_descriptors() == before


@pytest.mark.usefixtures("gicv2")
def test_a_gicv2_made_as_before_the_device_api(vm: VM) -> None:
    vm.create_irqchip()
    vm.set_device_address("KVM_VGIC_V2_ADDR_TYPE_DIST", BASE)
    vm.set_device_address("KVM_VGIC_V2_ADDR_TYPE_CPU", BASE + 0x1_0000)
    with refused(errno.EEXIST, "KVM_ARM_SET_DEVICE_ADDR"):
        vm.set_device_address("KVM_VGIC_V2_ADDR_TYPE_DIST", BASE)


@pytest.mark.usefixtures("cpu", "gicv2")
def test_gicv2_registers(vm: VM) -> None:
    with vgic_v2.VGICv2(vm) as gic:
        gic.set_attribute(vgic_v2.DIST_ADDR, BASE)
        gic.set_attribute(vgic_v2.CPU_ADDR, BASE + 0x1_0000)
        gic.set_attribute(vgic_v2.NR_IRQS, 64)
        gic.set_attribute(vgic_v2.CTRL_INIT)
        assert gic.get_attribute(vgic_v2.distributor_register(vgic_v2.GICD_TYPER)) & 0x1F == 1  # ITLinesNumber
        assert gic.get_attribute(vgic_v2.DIST_ADDR) == BASE
        gic.get_attribute(vgic_v2.cpu_interface_register(0x0000))


def test_gicv3_registers(cpu: VCPU, gicv3: vgic_v3.VGICv3) -> None:
    gicv3.set_attribute(vgic_v3.NR_IRQS, 96)
    gicv3.set_attribute(vgic_v3.CTRL_INIT)
    assert gicv3.get_attribute(vgic_v3.distributor_register(vgic_v3.GICD_TYPER)) & 0x1F == 2  # ITLinesNumber
    mpidr = cpu.get_register(register_id("MPIDR_EL1"))
    gicr_typer = gicv3.get_attribute(vgic_v3.redistributor_register(vgic_v3.GICR_TYPER, mpidr))
    assert gicr_typer >> 8 & 0xFFFF == 0  # Processor_Number
    icc_pmr = 3 << 14 | 4 << 7 | 6 << 3
    gicv3.set_attribute(vgic_v3.cpu_interface_register(icc_pmr, mpidr), 0xF0)
    assert gicv3.get_attribute(vgic_v3.cpu_interface_register(icc_pmr, mpidr)) == 0xF0
    gicd_icfgr2 = 0x0C08
    gicv3.set_attribute(vgic_v3.distributor_register(gicd_icfgr2), 0)  # level-sensitive: only these have levels
    gicv3.set_attribute(vgic_v3.line_level(32, mpidr), 0x5)
    assert gicv3.get_attribute(vgic_v3.line_level(32, mpidr)) == 0x5


@pytest.mark.usefixtures("cpu")
def test_redistributor_regions(gicv3: vgic_v3.VGICv3) -> None:
    first = vgic_v3.RedistributorRegion(0, 0x10_0000, 4)
    second = vgic_v3.RedistributorRegion(1, 0x100_0000, 8)
    gicv3.set_attribute(vgic_v3.REDIST_REGION, first.encode())
    gicv3.set_attribute(vgic_v3.REDIST_REGION, second.encode())
    told = gicv3.get_attribute(vgic_v3.REDIST_REGION, vgic_v3.RedistributorRegion(1, 0, 0).encode())
    assert vgic_v3.RedistributorRegion.decode(told) == second
    with refused(errno.EINVAL, "KVM_VGIC_V3_ADDR_TYPE_REDIST"):
        gicv3.set_attribute(vgic_v3.REDIST_ADDR, 0x200_0000)


@pytest.mark.parametrize(
    ("attribute", "address", "number"),
    [
        (vgic_v3.DIST_ADDR, BASE + 0x1000, errno.EINVAL),
        (vgic_v3.DIST_ADDR, 1 << 52, errno.E2BIG),
        (vgic_v2.CPU_ADDR, BASE, errno.ENXIO),
    ],
    ids=["misaligned", "beyond the address space", "of another GIC"],
)
def test_addresses_that_a_gicv3_cannot_have(
    gicv3: vgic_v3.VGICv3, attribute: Attribute, address: int, number: int
) -> None:
    with refused(number, "KVM_SET_DEVICE_ATTR"):
        gicv3.set_attribute(attribute, address)


def test_an_unknown_attribute_is_not_there(gicv3: vgic_v3.VGICv3) -> None:
    unknown = Attribute("KVM_DEV_ARM_VGIC_GRP_CTRL", "no such", "", 99)
    assert not gicv3.has_attribute(unknown)
    with refused(errno.ENXIO, "KVM_SET_DEVICE_ATTR"):
        gicv3.set_attribute(unknown)


@pytest.mark.usefixtures("cpu")
def test_its(vm: VM, gicv3: vgic_v3.VGICv3) -> None:
    gicv3.set_attribute(vgic_v3.CTRL_INIT)
    assert not vm.check_extension("KVM_CAP_MSI_DEVID")
    with its.ITS(vm) as device:
        device.set_attribute(its.CTRL_INIT)
        with refused(errno.ENXIO, "KVM_GET_DEVICE_ATTR GITS_TYPER"):
            device.get_attribute(its.register(its.GITS_TYPER))
        device.set_attribute(its.ADDR, BASE)
        assert vm.check_extension("KVM_CAP_MSI_DEVID")
        cbaser = 0x4000_0000
        device.set_attribute(its.register(its.GITS_CBASER), cbaser)
        assert device.get_attribute(its.register(its.GITS_CBASER)) & 0xF_FFFF_FFFF_F000 == cbaser
        device.set_attribute(its.SAVE_TABLES)
        if device.has_attribute(its.CTRL_RESET):
            device.set_attribute(its.CTRL_RESET)
            assert device.get_attribute(its.register(its.GITS_CBASER)) & 0xF_FFFF_FFFF_F000 == 0


def test_vfio_pseudo_device(vm: VM) -> None:
    if not vm.test_device(vfio.DEVICE_TYPE):
        pytest.skip("a kernel without VFIO")
    with vfio.VFIODevice(vm) as device:
        assert device.has_attribute(vfio.FILE_ADD)
        with refused(errno.EBADF, "KVM_SET_DEVICE_ATTR KVM_DEV_VFIO_FILE_ADD"):
            device.set_attribute(vfio.FILE_ADD, -1)
        with Path(os.devnull).open() as null, refused(errno.EINVAL, "KVM_SET_DEVICE_ATTR KVM_DEV_VFIO_FILE_ADD"):
            device.set_attribute(vfio.FILE_ADD, null.fileno())


def needs_pmu(vm: VM) -> None:
    if not vm.check_extension("KVM_CAP_ARM_PMU_V3"):
        pytest.skip("no PMU on this host")


def test_pmu_interrupt_as_a_ppi_is_the_same_on_all_vcpus(vm: VM, cpu: VCPU, gicv3: vgic_v3.VGICv3) -> None:
    needs_pmu(vm)
    with vm.create_vcpu(1) as other:
        other.init(vm.preferred_target(), ["KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_PMU_V3"])
        gicv3.set_attribute(vgic_v3.CTRL_INIT)
        cpu.set_attribute(vcpu.PMU_IRQ, 23)
        with refused(errno.EINVAL, "KVM_SET_DEVICE_ATTR KVM_ARM_VCPU_PMU_V3_IRQ"):
            other.set_attribute(vcpu.PMU_IRQ, 22)
        other.set_attribute(vcpu.PMU_IRQ, 23)
        assert other.get_attribute(vcpu.PMU_IRQ) == 23
        with refused(errno.EBUSY, "KVM_SET_DEVICE_ATTR KVM_ARM_VCPU_PMU_V3_IRQ"):
            other.set_attribute(vcpu.PMU_IRQ, 23)
        cpu.set_attribute(vcpu.PMU_INIT)
        with refused(errno.EBUSY, "KVM_SET_DEVICE_ATTR KVM_ARM_VCPU_PMU_V3_INIT"):
            cpu.set_attribute(vcpu.PMU_INIT)


def test_pmu_filter_and_choice(vm: VM, cpu: VCPU) -> None:
    needs_pmu(vm)
    [host_pmu] = Path("/sys/bus/event_source/devices").glob("armv8_*/type")
    with refused(errno.ENXIO, "KVM_SET_DEVICE_ATTR KVM_ARM_VCPU_PMU_V3_SET_PMU"):
        cpu.set_attribute(vcpu.PMU_SET_PMU, 1 << 20)
    cpu.set_attribute(vcpu.PMU_SET_PMU, int(host_pmu.read_text()))
    cpu.set_attribute(vcpu.PMU_FILTER, 0x11, 1, uapi.KVM_PMU_EVENT_DENY, b"")


def test_timers(vm: VM, cpu: VCPU) -> None:
    with refused(errno.EINVAL, "KVM_SET_DEVICE_ATTR KVM_ARM_VCPU_TIMER_IRQ_VTIMER"):
        cpu.set_attribute(vcpu.TIMER_IRQ_VTIMER, 20)
    gic = vgic_v3.VGICv3(vm) if vm.test_device(vgic_v3.DEVICE_TYPE) else vgic_v2.VGICv2(vm)
    with gic:
        check_timers(cpu)


def check_timers(cpu: VCPU) -> None:
    cpu.set_attribute(vcpu.TIMER_IRQ_VTIMER, 20)
    assert cpu.get_attribute(vcpu.TIMER_IRQ_VTIMER) == 20
    with refused(errno.EINVAL, "KVM_SET_DEVICE_ATTR KVM_ARM_VCPU_TIMER_IRQ_PTIMER"):
        cpu.set_attribute(vcpu.TIMER_IRQ_PTIMER, 32)


def test_stolen_time_needs_its_address_in_memory(cpu: VCPU) -> None:
    if not cpu.has_attribute(vcpu.PVTIME_IPA):
        pytest.skip("no stolen time on this host")
    with refused(errno.EINVAL, "KVM_SET_DEVICE_ATTR KVM_ARM_VCPU_PVTIME_IPA"):
        cpu.set_attribute(vcpu.PVTIME_IPA, 0x4000_0000)


def test_every_listed_register_can_be_read_and_has_a_name(cpu: VCPU) -> None:
    ids = cpu.register_ids()
    assert len(ids) > 200
    for number in ids:
        cpu.get_register(number)
        assert not register_name(number).startswith("0x")


def test_registers_read_back_what_is_written(cpu: VCPU) -> None:
    x5 = register_id("X5")
    cpu.set_register(x5, 0x0123_4567_89AB_CDEF)
    assert cpu.get_register(x5) == 0x0123_4567_89AB_CDEF
    v3 = register_id("V3")
    cpu.set_register(v3, 1 << 127 | 1)
    assert cpu.get_register(v3) == 1 << 127 | 1


def test_a_register_the_vcpu_has_not(cpu: VCPU) -> None:
    with refused(errno.ENOENT, "KVM_GET_ONE_REG"):
        cpu.get_register(register_id("S3_0_C15_C15_7"))


def test_a_value_the_kernel_does_not_accept(cpu: VCPU) -> None:
    midr = register_id("MIDR_EL1")
    with refused(errno.EINVAL, "KVM_SET_ONE_REG"):
        cpu.set_register(midr, cpu.get_register(midr) ^ 0xFF00_0000)


def test_a_vcpu_must_be_initialized_first(vm: VM) -> None:
    with vm.create_vcpu() as cpu, refused(errno.ENOEXEC, "KVM_GET_REG_LIST"):
        cpu.register_ids()


def test_a_vcpu_of_another_kind(vm: VM) -> None:
    with vm.create_vcpu() as cpu, refused(errno.EINVAL, "KVM_ARM_VCPU_INIT"):
        cpu.init(uapi.KVM_ARM_TARGET_XGENE_POTENZA)


def test_sve_must_be_finalized(vm: VM) -> None:
    if not vm.check_extension("KVM_CAP_ARM_SVE"):
        pytest.skip("no SVE on this host")
    with vm.create_vcpu() as cpu:
        cpu.init(vm.preferred_target(), ["KVM_ARM_VCPU_SVE"])
        with refused(errno.EPERM, "KVM_GET_REG_LIST"):
            cpu.register_ids()
        cpu.set_register(uapi.KVM_REG_ARM64_SVE_VLS, 1)
        cpu.finalize("KVM_ARM_VCPU_SVE")
        assert vcpu.sve_vector_lengths(cpu.get_register(uapi.KVM_REG_ARM64_SVE_VLS)) == (128,)
        with refused(errno.EPERM, "KVM_ARM_VCPU_FINALIZE KVM_ARM_VCPU_SVE"):
            cpu.finalize("KVM_ARM_VCPU_SVE")


def test_writable_id_register_masks(system: System, vm: VM) -> None:
    if not system.check_extension("KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES"):
        pytest.skip("before Linux 6.7")
    assert len(vm.writable_id_register_masks()) == uapi.KVM_ARM_FEATURE_ID_RANGE_SIZE


def test_capabilities_are_enabled_before_vcpus_exist(system: System, vm: VM) -> None:
    vm.enable_capability("KVM_CAP_ARM_NISV_TO_USER")
    with refused(errno.EINVAL, "KVM_ENABLE_CAP KVM_CAP_IRQCHIP"):
        vm.enable_capability("KVM_CAP_IRQCHIP")


def test_counter_offset(system: System, vm: VM) -> None:
    if not system.check_extension("KVM_CAP_COUNTER_OFFSET"):
        pytest.skip("before Linux 6.4")
    vm.set_counter_offset(1 << 20)


def test_vms_leave_no_descriptor(system: System) -> None:
    """Few of them: an emulated CPU 'max' of Linux 7.2 takes up to 3 s to end each."""
    before = open_descriptors()
    for _ in range(20):
        with ExitStack() as stack:
            vm = stack.enter_context(system.create_vm())
            stack.enter_context(vm.create_vcpu())
    assert open_descriptors() == before
