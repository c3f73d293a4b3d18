"""Rules of the kernel's interface for vGIC, ITS, PMU and vCPUs: a misuse, the errno it must give, and who says so.

The errno of a row is what the reference says, never what a kernel was seen to do. In a host, ``python3 -m
tests.lab.kernel_rules WORLD`` carries all rows of that world out and prints what the kernel answered, as JSON.
"""

import errno
import fcntl
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from tests.lab import rehearsals
from vgicmgr.guest.plan import (
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
from vgicmgr.guest.scratch import ScratchVM, rehearse
from vgicmgr.kvm import its, vcpu, vgic_v2, vgic_v3
from vgicmgr.kvm.attribute import Attribute
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.system import System

GICV3 = "GICv3, ITS, PMU and SVE"
GICV2 = "GICv2, no PMU, no SVE"

# Documents and selftests, below Documentation/virt/kvm and tools/testing/selftests/kvm/arm64 (aarch64 before 6.13)
API = "api.rst"
V2 = "devices/arm-vgic.rst"
V3 = "devices/arm-vgic-v3.rst"
ITS = "devices/arm-vgic-its.rst"
VCPU = "devices/vcpu.rst"
DIST_RDIST = "vgic_init.c, subtest_dist_rdist"
REGIONS = "vgic_init.c, subtest_v3_redist_regions"
NEW_REGIONS = "vgic_init.c, test_v3_new_redist_regions"
ITS_REGION = "vgic_init.c, test_v3_its_region"
DEVICE = "vgic_init.c, test_kvm_device"


@dataclass(frozen=True)
class Run:
    """KVM_RUN of a vCPU that the kernel must refuse before it enters the guest."""

    vcpu: int


@dataclass(frozen=True)
class Get:
    """KVM_GET_DEVICE_ATTR of an attribute, with what the kernel finds in the data first."""

    device_type: str
    attribute: Attribute
    preset: int = 0


Misuse: TypeAlias = Call | Run | Get


@dataclass(frozen=True)
class Rule:
    """After the calls of ``before``, which all succeed, the kernel answers ``misuse`` with ``errno`` (0: accepts it).

    ``reference`` says so: a document, a selftest with its function, or, where both are silent, a function of
    ``arch/arm64/kvm``.
    """

    name: str
    before: tuple[Call, ...]
    misuse: Misuse
    errno: int
    reference: str


IPA_BITS = 40
END = 1 << IPA_BITS
PLAIN = ("KVM_ARM_VCPU_PSCI_0_2",)
WITH_PMU = (*PLAIN, "KVM_ARM_VCPU_PMU_V3")
WITH_SVE = (*PLAIN, "KVM_ARM_VCPU_SVE")


def vm(vcpus: int = 0, features: tuple[str, ...] = PLAIN) -> tuple[Call, ...]:
    made = [call for number in range(vcpus) for call in (CreateVCPU(number), InitVCPU(number, features))]
    return (CreateVM(IPA_BITS), *made)


def gicv3(vcpus: int = 4, features: tuple[str, ...] = PLAIN) -> tuple[Call, ...]:
    return (*vm(vcpus, features), CreateDevice(vgic_v3.DEVICE_TYPE))


def gicv2(vcpus: int = 4) -> tuple[Call, ...]:
    return (*vm(vcpus), CreateDevice(vgic_v2.DEVICE_TYPE))


def v3(attribute: Attribute, value: int | None = None) -> SetDeviceAttribute:
    return SetDeviceAttribute(vgic_v3.DEVICE_TYPE, attribute, value)


def v2(attribute: Attribute, value: int | None = None) -> SetDeviceAttribute:
    return SetDeviceAttribute(vgic_v2.DEVICE_TYPE, attribute, value)


def on_its(attribute: Attribute, value: int | None = None) -> SetDeviceAttribute:
    return SetDeviceAttribute(its.DEVICE_TYPE, attribute, value)


def region(count: int, base: int, index: int, flags: int = 0) -> SetDeviceAttribute:
    return v3(vgic_v3.REDIST_REGION, count << 52 | base | flags << 12 | index)


REGION_0 = region(2, 0x20_0000, 0)
REGION_1 = region(1, 0x24_0000, 1)
WITH_ITS = (*gicv3(), CreateDevice(its.DEVICE_TYPE))
PMU_READY = (*gicv3(2, WITH_PMU), v3(vgic_v3.CTRL_INIT))


def pmu_irq(number: int, intid: int) -> SetVCPUAttribute:
    return SetVCPUAttribute(number, vcpu.PMU_IRQ, intid)


def addresses() -> Iterator[Rule]:
    dist, redist = vgic_v3.DIST_ADDR, vgic_v3.REDIST_ADDR
    for when, made in (("with one vCPU", gicv3(1)), ("with four vCPUs", gicv3())):
        yield Rule(f"distributor misaligned, {when}", made, v3(dist, 0x1000), errno.EINVAL, DIST_RDIST)
        yield Rule(f"redistributors misaligned, {when}", made, v3(redist, 0x1000), errno.EINVAL, DIST_RDIST)
        yield Rule(f"distributor beyond the IPA size, {when}", made, v3(dist, END), errno.E2BIG, DIST_RDIST)
        yield Rule(f"redistributors beyond the IPA size, {when}", made, v3(redist, END), errno.E2BIG, DIST_RDIST)
        yield Rule(
            f"redistributors half beyond the IPA size, {when}",
            made,
            v3(redist, END - 0x1_0000),
            errno.E2BIG,
            DIST_RDIST,
        )
    yield Rule("distributor set twice", (*gicv3(), v3(dist, 0)), v3(dist, 0x1_0000), errno.EEXIST, V3)
    yield Rule("distributor set twice alike", (*gicv3(), v3(dist, 0)), v3(dist, 0), errno.EEXIST, V3)
    placed = (*gicv3(), v3(redist, 0xE_0000))
    yield Rule("redistributors set twice", placed, v3(redist, 0xE_0000), errno.EEXIST, DIST_RDIST)
    yield Rule("the last possible address", gicv3(), v3(dist, END - 0x1_0000), 0, V3)
    yield Rule("an address type of a GICv2", gicv3(), v3(vgic_v2.DIST_ADDR, 0), errno.ENXIO, V3)
    yield Rule("an address type of an ITS", gicv3(), v3(its.ADDR, 0), errno.ENXIO, V3)
    yield Rule("a group of no GICv3", gicv3(), v3(its.REGS, 0), errno.ENXIO, V3)


def redistributor_regions() -> Iterator[Rule]:
    one, two = (*gicv3(), REGION_0), (*gicv3(), REGION_0, REGION_1)
    mixed = (*gicv3(), v3(vgic_v3.REDIST_ADDR, 0xE_0000))
    yield Rule("a region after the old interface", mixed, region(4, 0x10_0000, 0), errno.EINVAL, DIST_RDIST)
    yield Rule("the old interface after regions", two, v3(vgic_v3.REDIST_ADDR, 0x26_0000), errno.EINVAL, REGIONS)
    yield Rule("flags that are reserved", gicv3(), region(4, 0x10_0000, 0, flags=2), errno.EINVAL, REGIONS)
    yield Rule("a region of no redistributors", gicv3(), region(0, 0x10_0000, 0), errno.EINVAL, REGIONS)
    yield Rule("a first region that is not number 0", gicv3(), region(2, 0x20_0000, 1), errno.EINVAL, REGIONS)
    yield Rule("a region misaligned", gicv3(), region(2, 0x20_1000, 1), errno.EINVAL, REGIONS)
    yield Rule("an index twice, elsewhere", one, region(2, 0x40_0000, 0), errno.EINVAL, V3)
    yield Rule("an index that has its region", two, region(2, 0x20_0000, 1), errno.EINVAL, REGIONS)
    yield Rule("a region that overlaps another", one, region(1, 0x21_0000, 1), errno.EINVAL, REGIONS)
    yield Rule("an index left out", one, region(1, 0x24_0000, 2), errno.EINVAL, REGIONS)
    yield Rule("a region beyond the IPA size", two, region(1, END, 2), errno.E2BIG, REGIONS)
    yield Rule("a region half beyond the IPA size", two, region(2, END - 0x3_0000, 2), errno.E2BIG, REGIONS)
    distributor = (*two, v3(vgic_v3.DIST_ADDR, 0x26_0000))
    yield Rule("a region on the distributor", distributor, region(1, 0x26_0000, 2), errno.EINVAL, REGIONS)
    yield Rule("two regions that fit", one, REGION_1, 0, REGIONS)
    yield Rule("more redistributors than vCPUs", one, region(100, 0x100_0000, 1), 0, V3)
    yield Rule(
        "reading a region that is not there",
        two,
        Get(vgic_v3.DEVICE_TYPE, vgic_v3.REDIST_REGION, 2),
        errno.ENOENT,
        REGIONS,
    )
    yield Rule("reading a region that is there", two, Get(vgic_v3.DEVICE_TYPE, vgic_v3.REDIST_REGION, 1), 0, REGIONS)


def first_run() -> Iterator[Rule]:
    """What no call before the first KVM_RUN is refused for."""
    distributor = v3(vgic_v3.DIST_ADDR, 0)
    ready = (*gicv3(), v3(vgic_v3.CTRL_INIT), distributor)
    too_few = (*ready, REGION_0, REGION_1)
    yield Rule("too few redistributors", too_few, Run(3), errno.ENXIO, NEW_REGIONS)
    uninitialized = (*gicv3(), distributor, REGION_0, REGION_1, region(1, 0x28_0000, 2))
    yield Rule("a GICv3 never initialized", uninitialized, Run(3), errno.EBUSY, NEW_REGIONS)
    reversed_order = (*gicv3(), v3(vgic_v3.REDIST_ADDR, 0), v3(vgic_v3.CTRL_INIT), v3(vgic_v3.DIST_ADDR, 0x1_0000))
    yield Rule("a distributor on a redistributor", reversed_order, Run(3), errno.EINVAL, DIST_RDIST)
    clash = (
        *PMU_READY,
        distributor,
        region(2, 0x20_0000, 0),
        *(call for n in (0, 1) for call in (pmu_irq(n, 27), SetVCPUAttribute(n, vcpu.PMU_INIT))),
    )
    yield Rule(
        "the PMU on the virtual timer's interrupt", clash, Run(0), errno.EINVAL, "arch_timer.c, kvm_timer_enable"
    )


def numbers_and_order() -> Iterator[Rule]:
    nr_irqs, init = vgic_v3.NR_IRQS, vgic_v3.CTRL_INIT
    for count in (0, 32, 63, 100, 1056):
        yield Rule(f"{count} interrupts", gicv3(), v3(nr_irqs, count), errno.EINVAL, V3)
    for count in (64, 288, 992):
        yield Rule(f"{count} interrupts", gicv3(), v3(nr_irqs, count), 0, V3)
    yield Rule(
        "1024 interrupts, which the document allows",
        gicv3(),
        v3(nr_irqs, 1024),
        errno.EINVAL,
        "vgic-kvm-device.c, vgic_set_common_attr (VGIC_MAX_RESERVED)",
    )
    yield Rule("the number of interrupts set twice", (*gicv3(), v3(nr_irqs, 64)), v3(nr_irqs, 64), errno.EBUSY, V3)
    initialized = (*gicv3(), v3(init))
    yield Rule("the number of interrupts after initialization", initialized, v3(nr_irqs, 64), errno.EBUSY, V2)
    yield Rule("initialized twice", initialized, v3(init), 0, "vgic-init.c, vgic_init")
    yield Rule("a vCPU after initialization", initialized, CreateVCPU(4), errno.EBUSY, "arm.c, kvm_arch_vcpu_precreate")
    yield Rule("addresses after initialization", initialized, v3(vgic_v3.DIST_ADDR, 0), 0, NEW_REGIONS)
    yield Rule(
        "initialized without a vCPU, which the document refuses", gicv3(0), v3(init), 0, "vgic-init.c, vgic_init"
    )
    yield Rule("two GICv3", gicv3(), CreateDevice(vgic_v3.DEVICE_TYPE), errno.EEXIST, DEVICE)
    yield Rule(
        "KVM_CREATE_IRQCHIP on a host without GICv2",
        vm(1),
        CreateIRQChip(),
        errno.ENODEV,
        "vgic-init.c, kvm_vgic_create",
    )
    yield Rule("a device that this host has not", vm(1), CreateDevice("KVM_DEV_TYPE_ARM_VGIC_V5"), errno.ENODEV, API)
    yield Rule(
        "registers before initialization",
        gicv3(),
        Get(vgic_v3.DEVICE_TYPE, vgic_v3.distributor_register(vgic_v3.GICD_CTLR)),
        errno.EBUSY,
        "vgic-kvm-device.c, vgic_v3_attr_regs_access",
    )
    yield Rule(
        "a distributor register that is none, which the document refuses",
        initialized,
        Get(vgic_v3.DEVICE_TYPE, vgic_v3.distributor_register(0xFFFF_0000)),
        0,
        "vgic-mmio.c, vgic_uaccess",
    )
    yield Rule(
        "a redistributor of no vCPU",
        initialized,
        Get(vgic_v3.DEVICE_TYPE, vgic_v3.redistributor_register(vgic_v3.GICR_TYPER, 9)),
        errno.EINVAL,
        V3,
    )
    yield Rule(
        "line levels of no multiple of 32",
        initialized,
        Get(vgic_v3.DEVICE_TYPE, vgic_v3.line_level(33)),
        errno.EINVAL,
        V3,
    )


def translation_service() -> Iterator[Rule]:
    yield Rule("an ITS misaligned", WITH_ITS, on_its(its.ADDR, 0x40_1000), errno.EINVAL, ITS_REGION)
    yield Rule("an ITS beyond the IPA size", WITH_ITS, on_its(its.ADDR, END), errno.E2BIG, ITS_REGION)
    yield Rule("an ITS half beyond the IPA size", WITH_ITS, on_its(its.ADDR, END - 0x1_0000), errno.E2BIG, ITS_REGION)
    placed = (*WITH_ITS, on_its(its.ADDR, 0x40_0000))
    yield Rule("an ITS's address set twice", placed, on_its(its.ADDR, 0x30_0000), errno.EEXIST, ITS_REGION)
    yield Rule("an address type of no ITS", WITH_ITS, on_its(vgic_v3.DIST_ADDR, 0), errno.ENODEV, ITS)
    yield Rule("an ITS initialized before the GICv3", WITH_ITS, on_its(its.CTRL_INIT), 0, "vgic-its.c, vgic_its_ctrl")
    yield Rule("two ITSs", WITH_ITS, CreateDevice(its.DEVICE_TYPE), 0, ITS)
    unplaced = (*WITH_ITS, v3(vgic_v3.CTRL_INIT), on_its(its.CTRL_INIT))
    ready = (*unplaced, on_its(its.ADDR, 0x40_0000))

    def get(offset: int) -> Get:
        return Get(its.DEVICE_TYPE, its.register(offset))

    yield Rule(
        "registers before the address",
        unplaced,
        get(its.GITS_CTLR),
        errno.ENXIO,
        "vgic-its.c, vgic_its_attr_regs_access",
    )
    yield Rule("a register misaligned", ready, get(its.GITS_CBASER + 4), errno.EINVAL, ITS)
    yield Rule("a register that is none", ready, get(0x1_0000), errno.ENXIO, ITS)
    yield Rule(
        "a table ABI that no kernel knows",
        ready,
        on_its(its.register(its.GITS_IIDR), 0xF << its.IIDR_REVISION_SHIFT),
        errno.EINVAL,
        "vgic-its.c, vgic_mmio_uaccess_write_its_iidr",
    )


def performance_monitors() -> Iterator[Rule]:
    init = vcpu.PMU_INIT
    created = gicv3(2, WITH_PMU)
    yield Rule("the PMU's interrupt without the feature", gicv3(2), pmu_irq(0, 23), errno.ENODEV, VCPU)
    yield Rule("the PMU's interrupt without a GIC", vm(1, WITH_PMU), pmu_irq(0, 23), errno.EINVAL, VCPU)
    for intid in (0, 15, 1020, 8192, -1):
        yield Rule(f"the PMU on INTID {intid}", created, pmu_irq(0, intid), errno.EINVAL, VCPU)
    for intid in (16, 23, 31, 32, 1019):
        yield Rule(f"the PMU on INTID {intid}", created, pmu_irq(0, intid), 0, VCPU)
    ppi, spi = (*created, pmu_irq(0, 23)), (*created, pmu_irq(0, 40))
    yield Rule("the PMU's interrupt set twice", ppi, pmu_irq(0, 23), errno.EBUSY, VCPU)
    yield Rule("a PPI that differs between vCPUs", ppi, pmu_irq(1, 22), errno.EINVAL, VCPU)
    yield Rule("a PPI that is the same", ppi, pmu_irq(1, 23), 0, VCPU)
    yield Rule("an SPI that is the same on two vCPUs", spi, pmu_irq(1, 40), errno.EINVAL, VCPU)
    yield Rule("SPIs that differ", spi, pmu_irq(1, 41), 0, VCPU)
    yield Rule("a PPI after an SPI", spi, pmu_irq(1, 23), errno.EINVAL, VCPU)
    yield Rule("the PMU before the GIC", ppi, SetVCPUAttribute(0, init), errno.ENODEV, VCPU)
    yield Rule("the PMU without an interrupt", PMU_READY, SetVCPUAttribute(0, init), errno.ENXIO, VCPU)
    ready = (*PMU_READY, pmu_irq(0, 23), SetVCPUAttribute(0, init))
    yield Rule("the PMU initialized twice", ready, SetVCPUAttribute(0, init), errno.EBUSY, VCPU)
    yield Rule("the PMU's interrupt after initialization", ready, pmu_irq(0, 23), errno.EBUSY, VCPU)
    beyond = (*created, v3(vgic_v3.NR_IRQS, 64), v3(vgic_v3.CTRL_INIT), pmu_irq(0, 64))
    yield Rule(
        "the PMU on an SPI that the GIC has not",
        beyond,
        SetVCPUAttribute(0, init),
        errno.EINVAL,
        "vgic.c, kvm_vgic_set_owner",
    )


def machine_and_vcpus() -> Iterator[Rule]:
    yield Rule("an IPA size beyond the host's", (), CreateVM(53), errno.EINVAL, API)
    yield Rule("an IPA size of 31 bits", (), CreateVM(31), errno.EINVAL, API)
    yield Rule("the smallest IPA size", (), CreateVM(32), 0, API)
    yield Rule("a vCPU id twice", vm(1), CreateVCPU(0), errno.EEXIST, "kvm_main.c, kvm_vm_ioctl_create_vcpu")
    yield Rule("a vCPU id of 512", vm(), CreateVCPU(512), errno.EINVAL, API)
    yield Rule("a vCPU id of 511", vm(), CreateVCPU(511), 0, API)


def features_of_max() -> Iterator[Rule]:
    init = (*vm(), CreateVCPU(0))
    sve = (*vm(1, WITH_SVE),)
    finalize = FinalizeVCPU(0, "KVM_ARM_VCPU_SVE")
    yield Rule(
        "pointer authentication by half",
        init,
        InitVCPU(0, (*PLAIN, "KVM_ARM_VCPU_PTRAUTH_ADDRESS")),
        errno.EINVAL,
        f"{API}, KVM_ARM_VCPU_PTRAUTH_*",
    )
    yield Rule(
        "SVE finalized without it, to which the document has two answers",
        vm(1),
        finalize,
        errno.EINVAL,
        "reset.c, kvm_arm_vcpu_finalize",
    )
    yield Rule("SVE finalized twice", (*sve, finalize), finalize, errno.EPERM, API)
    yield Rule("vector lengths after SVE is finalized", (*sve, finalize), SetVectorLengths(0, (128,)), errno.EPERM, API)
    yield Rule("vector lengths without the shortest", sve, SetVectorLengths(0, (256,)), errno.EINVAL, API)
    yield Rule("a vector length that no hardware has", sve, SetVectorLengths(0, (128, 65536)), errno.EINVAL, API)
    yield Rule("the shortest vector length alone", sve, SetVectorLengths(0, (128,)), 0, API)


def gicv2_hosts() -> Iterator[Rule]:
    dist, cpu = vgic_v2.DIST_ADDR, vgic_v2.CPU_ADDR
    for attribute in (dist, cpu):
        yield Rule(f"{attribute} misaligned", gicv2(), v2(attribute, 0x100), errno.EINVAL, DIST_RDIST)
        yield Rule(f"{attribute} beyond the IPA size", gicv2(), v2(attribute, END), errno.E2BIG, DIST_RDIST)
        placed = (*gicv2(), v2(attribute, 0))
        yield Rule(f"{attribute} set twice", placed, v2(attribute, 0x10_0000), errno.EEXIST, V2)
    yield Rule("a CPU interface half beyond the IPA size", gicv2(), v2(cpu, END - 0x1000), errno.E2BIG, DIST_RDIST)
    yield Rule("an address type of a GICv3", gicv2(), v2(vgic_v3.DIST_ADDR, 0), errno.ENXIO, V2)
    overlap = (*gicv2(), v2(dist, 0), v2(cpu, 0x0))
    yield Rule("a CPU interface on the distributor", overlap, Run(3), errno.EINVAL, DIST_RDIST)
    yield Rule("two GICv2", gicv2(), CreateDevice(vgic_v2.DEVICE_TYPE), errno.EEXIST, DEVICE)
    yield Rule("a GICv3 on a host with a GICv2", vm(1), CreateDevice(vgic_v3.DEVICE_TYPE), errno.ENODEV, V3)
    yield Rule("an ITS on a host with a GICv2", vm(1), CreateDevice(its.DEVICE_TYPE), errno.ENODEV, ITS)
    for when, made in (("before the GIC", vm(8)), ("after the GIC", gicv2(8))):
        yield Rule(f"a ninth vCPU {when}", made, CreateVCPU(8), errno.EINVAL, "arm.c, kvm_arch_vcpu_precreate")
    for count in (32, 100, 1056):
        yield Rule(f"{count} interrupts", gicv2(), v2(vgic_v2.NR_IRQS, count), errno.EINVAL, V2)
    initialized = (*gicv2(), v2(vgic_v2.CTRL_INIT))
    yield Rule("the number of interrupts after initialization", initialized, v2(vgic_v2.NR_IRQS, 64), errno.EBUSY, V2)
    yield Rule(
        "a register of a vCPU that is not there",
        gicv2(0),
        Get(vgic_v2.DEVICE_TYPE, vgic_v2.distributor_register(vgic_v2.GICD_CTLR)),
        errno.EINVAL,
        "vgic_init.c, test_v2_uaccess_cpuif_no_vcpus",
    )
    legacy = (*vm(), CreateIRQChip())
    address = SetDeviceAddress("KVM_VGIC_V2_ADDR_TYPE_DIST", 0x800_0000)
    yield Rule("KVM_CREATE_IRQCHIP twice", legacy, CreateIRQChip(), errno.EEXIST, "vgic-init.c, kvm_vgic_create")
    yield Rule("a device beside KVM_CREATE_IRQCHIP", legacy, CreateDevice(vgic_v2.DEVICE_TYPE), errno.EEXIST, V2)
    yield Rule("KVM_ARM_SET_DEVICE_ADDR", legacy, address, 0, API)
    older = call_plan(rehearsals.gicv2(8), device_control=False)
    yield Rule("a whole plan without the device control API", older[:-1], older[-1], 0, API)
    yield Rule("KVM_ARM_SET_DEVICE_ADDR twice", (*legacy, address), address, errno.EEXIST, API)
    yield Rule(
        "KVM_ARM_SET_DEVICE_ADDR beyond the IPA size",
        legacy,
        SetDeviceAddress("KVM_VGIC_V2_ADDR_TYPE_CPU", END),
        errno.E2BIG,
        API,
    )
    yield Rule(
        "KVM_ARM_SET_DEVICE_ADDR misaligned",
        legacy,
        SetDeviceAddress("KVM_VGIC_V2_ADDR_TYPE_CPU", 0x100),
        errno.EINVAL,
        "vgic-kvm-device.c, vgic_check_iorange",
    )
    init = (*vm(), CreateVCPU(0))
    yield Rule("a PMU on a host without", init, InitVCPU(0, WITH_PMU), errno.EINVAL, f"{API}, KVM_ARM_VCPU_PMU_V3")
    yield Rule("SVE on a host without", init, InitVCPU(0, WITH_SVE), errno.EINVAL, f"{API}, KVM_ARM_VCPU_SVE")
    yield Rule("the interrupt of a PMU on a host without", gicv2(1), pmu_irq(0, 23), errno.ENODEV, VCPU)


RULES: dict[str, tuple[Rule, ...]] = {
    GICV3: (
        *addresses(),
        *redistributor_regions(),
        *first_run(),
        *numbers_and_order(),
        *translation_service(),
        *performance_monitors(),
        *machine_and_vcpus(),
        *features_of_max(),
    ),
    GICV2: tuple(gicv2_hosts()),
}
"""The rules by the world they are about."""

KVM_RUN = 0xAE80


def answer(rule: Rule, system: System) -> int:
    """The kernel's errno for the misuse; 0 when it accepts. A refusal of what comes before is an error of the row."""
    if isinstance(rule.misuse, Run | Get):
        return beyond_plans(rule, rule.misuse, system)
    scratch = rehearse((*rule.before, rule.misuse), system)
    if scratch.error and scratch.succeeded < len(rule.before):
        raise scratch.error
    return scratch.error.errno if scratch.error else 0


def beyond_plans(rule: Rule, misuse: Run | Get, system: System) -> int:
    with ScratchVM(system) as scratch:
        for call in rule.before:
            scratch.carry_out(call)
        try:
            if isinstance(misuse, Get):
                scratch.device(misuse.device_type).get_attribute(misuse.attribute, misuse.preset)
            else:
                fcntl.ioctl(scratch.vcpu(misuse.vcpu).fileno(), KVM_RUN, 0)
        except (KvmError, OSError) as error:
            return error.errno or 0
    return 0


def main(world: str) -> None:
    answers: dict[str, str | int] = {}
    with System() as system:
        for rule in RULES[world]:
            try:
                answers[rule.name] = answer(rule, system)
            except KvmError as error:
                answers[rule.name] = f"before the misuse: {error}"
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
