"""A fake arm64 KVM: every ioctl that vgicmgr makes, answered by the kernel's rules.

``tests/unit/test_fake_kernel.py`` holds it against ``tests/lab/kernel_rules.py``, as the lab does with real kernels.

    kernel = FakeKernel(NEOVERSE_N1)                # tests.fakes.hosts has the kinds of hosts
    with installed(monkeypatch, kernel):
        ...                                     # System() is the fake now
    assert kernel.vms_made == 1
    assert kernel.requests["KVM_CREATE_VCPU"] == 2
    assert kernel.open_descriptors() == []

What it does not do: run guests, guest memory (so KVM_ARM_VCPU_PVTIME_IPA is never accepted), interrupts, the ITS's
tables, VFIO files.
"""

import ctypes
import errno
import fcntl
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack, unpack_from

import pytest

from tests.fakes.hosts import HostKind
from tests.fakes.registers import (
    COUNTER,
    EL2,
    GICV3,
    PMU,
    PSCI_0_1,
    SVE,
    SVE_REGISTERS,
    VECTORS,
    Bitmap,
    IDFields,
    Register,
    refusal,
)
from vgicmgr.kvm import gicregs, idregs, its, system, uapi, vgic_v2, vgic_v3
from vgicmgr.kvm.registers import register_id, sysreg_encoding
from vgicmgr.kvm.vcpu import register_size, sve_vector_lengths
from vgicmgr.kvm.vm import feature_id_index

KVM_RUN = 0xAE80
V2, V3, ITS, V5, VFIO = (
    uapi.KVM_DEV_TYPE_ARM_VGIC_V2,
    uapi.KVM_DEV_TYPE_ARM_VGIC_V3,
    uapi.KVM_DEV_TYPE_ARM_VGIC_ITS,
    uapi.KVM_DEV_TYPE_ARM_VGIC_V5,
    uapi.KVM_DEV_TYPE_VFIO,
)
MPIDR_EL1 = register_id("MPIDR_EL1")
PSCI_0_2 = "KVM_ARM_VCPU_PSCI_0_2"
VCPU_FEATURES = (
    "KVM_ARM_VCPU_POWER_OFF",
    "KVM_ARM_VCPU_EL1_32BIT",
    PSCI_0_2,
    PMU,
    SVE,
    "KVM_ARM_VCPU_PTRAUTH_ADDRESS",
    "KVM_ARM_VCPU_PTRAUTH_GENERIC",
    EL2,
    "KVM_ARM_VCPU_HAS_EL2_E2H0",
)
V3_REDIST_SIZE, V3_DIST_SIZE, ITS_SIZE = 0x2_0000, 0x1_0000, 0x2_0000
VIRTUAL_TIMER, PHYSICAL_TIMER = 27, 30
Argument = int | bytearray


class FakeKernel:
    """A host's kernel of some :class:`~tests.fakes.hosts.HostKind`.

    ``refuse``: by an ioctl's name and which call of it (1 is the first), the errno to refuse it with, or an exception
    to raise (KeyboardInterrupt: a signal). ``clock`` is in nanoseconds and drives the counters.

    ``requests`` counts ioctls by name, refused ones too; KVM_CREATE_DEVICE with KVM_CREATE_DEVICE_TEST, which makes
    nothing, counts as KVM_CREATE_DEVICE_TEST. ``written`` are register ids and values in the order of KVM_SET_ONE_REG.
    """

    def __init__(
        self,
        host: HostKind,
        *,
        refuse: Mapping[tuple[str, int], int | BaseException] | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.host = host
        self.clock = clock
        self.requests: Counter[str] = Counter()
        self.vms_made = 0
        self.written: list[tuple[int, int]] = []
        self._refuse = dict(refuse or {})
        self._answers = host.answers()
        self._objects: dict[tuple[int, int], Target] = {}
        self._system = SystemTarget(self)
        self._ioctl = fcntl.ioctl

    def ioctl(self, fd: int, request: int, argument: Argument = 0, mutate_flag: bool = True) -> int:
        """In place of ``fcntl.ioctl``; descriptors that are none of this kernel's go to the real one."""
        target = self._target(fd)
        if target is None:
            return self._ioctl(fd, request, argument, mutate_flag)
        name = target.names.get(request, "")
        if name == "KVM_CREATE_DEVICE" and unpack_from("=III", _bytes(argument))[2] & uapi.KVM_CREATE_DEVICE_TEST:
            name = "KVM_CREATE_DEVICE_TEST"
        self.requests[name] += 1
        refused = self._refuse.get((name, self.requests[name]))
        if isinstance(refused, BaseException):
            raise refused
        if refused:
            raise refusal(refused)
        answer: Callable[[Argument], int | None] | None = getattr(target, name.lower(), None) if name else None
        if answer is None:
            raise refusal(target.unknown)
        return answer(argument) or 0

    def open_descriptors(self) -> list[int]:
        """The descriptors of VMs, vCPUs and devices that this process still has."""
        found = []
        for entry in Path("/proc/self/fd").iterdir():
            try:
                status = os.fstat(int(entry.name))
            except OSError:  # the directory's own
                continue
            if (status.st_dev, status.st_ino) in self._objects:
                found.append(int(entry.name))
        return sorted(found)

    def check_extension(self, number: int) -> int:
        """KVM_CHECK_EXTENSION, as far as it does not depend on a VM."""
        return self._answers.get(CAPABILITY_NAMES.get(number, ""), 0)

    def new_descriptor(self, target: "Target") -> int:
        """A descriptor by which ``target`` is asked: of a file of its own, so that it is found whatever its number."""
        fd = os.memfd_create(f"kvm-{type(target).__name__}", os.MFD_CLOEXEC)
        status = os.fstat(fd)
        self._objects[status.st_dev, status.st_ino] = target
        return fd

    def _target(self, fd: int) -> "Target | None":
        status = os.fstat(fd)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == Path(os.devnull).stat().st_rdev:
            return self._system
        return self._objects.get((status.st_dev, status.st_ino))


@contextmanager
def installed(monkeypatch: pytest.MonkeyPatch, kernel: FakeKernel) -> Iterator[FakeKernel]:
    """Within, ``/dev/kvm`` is this kernel's; for a whole test use :func:`install`."""
    with monkeypatch.context() as patch:
        install(patch, kernel)
        yield kernel


def install(monkeypatch: pytest.MonkeyPatch, kernel: FakeKernel) -> FakeKernel:
    """Until the test's end, ``/dev/kvm`` is this kernel's."""
    monkeypatch.setattr(system.System.__init__, "__defaults__", (os.devnull,))
    monkeypatch.setattr(system, "DEV_KVM", os.devnull)
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    return kernel


def pretend_arm64(monkeypatch: pytest.MonkeyPatch, *, release: str = "6.12.0", machine: str = "aarch64") -> None:
    """Until the test's end, ``os.uname`` tells of an arm64 host (or another ``machine``)."""
    names = os.uname()
    told = os.uname_result((names.sysname, names.nodename, release, names.version, machine))
    monkeypatch.setattr(os, "uname", lambda: told)


class Target:
    """What a descriptor stands for: a method for each ioctl, called as the ioctl in small letters."""

    names: Mapping[int, str]
    unknown = errno.EINVAL
    """The errno for an ioctl that it does not have."""


def _named(*names: str) -> dict[int, str]:
    return {getattr(uapi, name): name for name in names}


_ATTRIBUTES = ("KVM_HAS_DEVICE_ATTR", "KVM_GET_DEVICE_ATTR", "KVM_SET_DEVICE_ATTR")


class AttributeTarget(Target):
    """What has attributes: ``has_attribute``, ``get_attribute`` and ``set_attribute`` raise OSError."""

    def has_attribute(self, group: int, number: int) -> None:
        raise refusal(errno.ENXIO)

    def get_attribute(self, group: int, number: int, address: int) -> None:
        raise refusal(errno.ENXIO)

    def set_attribute(self, group: int, number: int, address: int) -> None:
        raise refusal(errno.ENXIO)

    def kvm_has_device_attr(self, argument: Argument) -> None:
        _, group, number, _ = uapi.kvm_device_attr.layout.unpack(_bytes(argument))
        self.has_attribute(group, number)

    def kvm_get_device_attr(self, argument: Argument) -> None:
        _, group, number, address = uapi.kvm_device_attr.layout.unpack(_bytes(argument))
        self.get_attribute(group, number, address)

    def kvm_set_device_attr(self, argument: Argument) -> None:
        _, group, number, address = uapi.kvm_device_attr.layout.unpack(_bytes(argument))
        self.set_attribute(group, number, address)


class SystemTarget(Target):
    """/dev/kvm."""

    names = _named("KVM_GET_API_VERSION", "KVM_CREATE_VM", "KVM_CHECK_EXTENSION")

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel

    def kvm_get_api_version(self, argument: Argument) -> int:
        return uapi.KVM_API_VERSION

    def kvm_check_extension(self, argument: Argument) -> int:
        if argument == uapi.KVM_CAP_MSI_DEVID:
            raise refusal(errno.EINVAL)
        return self.kernel.check_extension(_int(argument))

    def kvm_create_vm(self, argument: Argument) -> int:
        """arch/arm64/kvm/mmu.c, kvm_init_ipa_range."""
        type_, limit = _int(argument), self.kernel.host.ipa_limit
        if type_ & ~uapi.KVM_VM_TYPE_ARM_IPA_SIZE_MASK:
            raise refusal(errno.EINVAL)
        if type_ and not 32 <= type_ <= limit:
            raise refusal(errno.EINVAL)
        if not type_ and 0 < limit < 40:
            raise refusal(errno.EINVAL)
        self.kernel.vms_made += 1
        return self.kernel.new_descriptor(VMTarget(self.kernel, type_ or 40))


@dataclass
class Region:
    """A redistributor region; ``count`` is 0 where it was set by KVM_VGIC_V3_ADDR_TYPE_REDIST."""

    index: int
    base: int
    count: int
    used: int = 0


@dataclass
class Distributor:
    """What a VM's GIC is, ``struct vgic_dist``."""

    model: int
    nr_irqs: int = 0
    initialized: bool = False
    mapped: bool = False
    dist_base: int | None = None
    cpu_base: int | None = None
    regions: list[Region] = field(default_factory=list)
    revision: int = 0
    maintenance_irq: int = 25
    owners: dict[tuple[int, int], str] = field(default_factory=dict)
    stored: dict[tuple[int, int], int] = field(default_factory=dict)
    """Other registers, by group and attribute."""

    def claim(self, vcpu: int, intid: int, owner: str) -> None:
        """vgic.c, kvm_vgic_set_owner."""
        if not self.initialized:
            raise refusal(errno.EAGAIN)
        if not 16 <= intid < self.nr_irqs:
            raise refusal(errno.EINVAL)
        place = (vcpu if intid < 32 else -1, intid)
        if self.owners.setdefault(place, owner) != owner:
            raise refusal(errno.EEXIST)


class VMTarget(AttributeTarget):
    """A VM."""

    names = _named(
        "KVM_CHECK_EXTENSION",
        "KVM_CREATE_VCPU",
        "KVM_CREATE_IRQCHIP",
        "KVM_ENABLE_CAP",
        "KVM_ARM_SET_DEVICE_ADDR",
        "KVM_ARM_PREFERRED_TARGET",
        "KVM_ARM_SET_COUNTER_OFFSET",
        "KVM_ARM_GET_REG_WRITABLE_MASKS",
        "KVM_CREATE_DEVICE",
        *_ATTRIBUTES,
    )

    def __init__(self, kernel: FakeKernel, ipa_bits: int) -> None:
        self.kernel, self.host, self.ipa_bits = kernel, kernel.host, ipa_bits
        self.max_vcpus = self.host.most_vcpus
        self.vcpus: dict[int, VCPUTarget] = {}
        self.gic: Distributor | None = None
        self.has_its = False
        self.has_vfio = False
        self.features: frozenset[str] | None = None
        self.values: dict[int, int] = {}
        self.counter_offset = 0
        self.counter_is_set = False
        self.pmu_chosen = False
        self.has_run = False
        self.mte = False

    def kvm_check_extension(self, argument: Argument) -> int:
        if argument == uapi.KVM_CAP_MSI_DEVID:
            return self.kernel.host.capabilities.get("KVM_CAP_MSI_DEVID", int(self.has_its))
        if argument in (uapi.KVM_CAP_MAX_VCPUS, uapi.KVM_CAP_MAX_VCPU_ID):
            return self.max_vcpus
        return self.kernel.check_extension(_int(argument))

    def kvm_create_vcpu(self, argument: Argument) -> int:
        """kvm_main.c, kvm_vm_ioctl_create_vcpu; arm.c, kvm_arch_vcpu_precreate."""
        number = _int(argument)
        if number >= 512 or len(self.vcpus) >= self.max_vcpus:
            raise refusal(errno.EINVAL)
        if self.gic and self.gic.initialized:
            raise refusal(errno.EBUSY)
        if number >= self.max_vcpus:
            raise refusal(errno.EINVAL)
        if number in self.vcpus:
            raise refusal(errno.EEXIST)
        vcpu = self.vcpus[number] = VCPUTarget(self, number)
        try:
            self.place_redistributor(vcpu)
        except OSError:
            del self.vcpus[number]
            raise
        if not self.counter_is_set:
            self.counter_offset = self.host_ticks()  # arch_timer.c, kvm_timer_vcpu_init: the whole VM's
        return self.kernel.new_descriptor(vcpu)

    def kvm_create_irqchip(self, argument: Argument) -> None:
        if not self.host.vgic:
            raise refusal(errno.ENXIO)
        self.create_gic(V2)

    def create_gic(self, model: int) -> None:
        """vgic-init.c, kvm_vgic_create."""
        if self.gic:
            raise refusal(errno.EEXIST)
        if model == V2 and 2 not in self.host.gic_versions:
            raise refusal(errno.ENODEV)
        if self.has_run:
            raise refusal(errno.EBUSY)
        self.max_vcpus = vgic_v2.MAX_VCPUS if model == V2 else 512
        if len(self.vcpus) > self.max_vcpus:
            raise refusal(errno.E2BIG)
        self.gic = Distributor(model)

    def kvm_enable_cap(self, argument: Argument) -> None:
        capability, flags = unpack_from("=II", _bytes(argument))
        name = CAPABILITY_NAMES.get(capability, "")
        switchable = (
            "KVM_CAP_ARM_NISV_TO_USER",
            "KVM_CAP_ARM_SYSTEM_SUSPEND",
            "KVM_CAP_ARM_MTE",
            "KVM_CAP_ARM_WRITABLE_IMP_ID_REGS",
        )
        if flags or name not in switchable or not self.kernel.check_extension(capability):
            raise refusal(errno.EINVAL)
        if name == "KVM_CAP_ARM_MTE":
            if self.vcpus:
                raise refusal(errno.EINVAL)
            self.mte = True

    def kvm_arm_set_device_addr(self, argument: Argument) -> None:
        """KVM_ARM_SET_DEVICE_ADDR (vgic-kvm-device.c, kvm_set_legacy_vgic_v2_addr)."""
        number, address = uapi.kvm_arm_device_addr.layout.unpack(_bytes(argument))
        if number >> uapi.KVM_ARM_DEVICE_ID_SHIFT & 0xFFFF != uapi.KVM_ARM_DEVICE_VGIC_V2:
            raise refusal(errno.ENODEV)
        if not self.host.vgic:
            raise refusal(errno.ENXIO)
        if self.gic is None or self.gic.model != V2:
            raise refusal(errno.ENODEV)
        self.set_gicv2_address(number & uapi.KVM_ARM_DEVICE_TYPE_MASK, address, errno.ENODEV)

    def set_gicv2_address(self, kind: int, address: int, unknown: int) -> None:
        assert self.gic is not None
        if kind == uapi.KVM_VGIC_V2_ADDR_TYPE_DIST:
            self.check_range(self.gic.dist_base, address, 0x1000, uapi.KVM_VGIC_V2_DIST_SIZE)
            self.gic.dist_base = address
        elif kind == uapi.KVM_VGIC_V2_ADDR_TYPE_CPU:
            self.check_range(self.gic.cpu_base, address, 0x1000, uapi.KVM_VGIC_V2_CPU_SIZE)
            self.gic.cpu_base = address
        else:
            raise refusal(unknown)

    def check_range(self, old: int | None, address: int, alignment: int, size: int) -> None:
        """vgic-kvm-device.c, vgic_check_iorange."""
        if old is not None:
            raise refusal(errno.EEXIST)
        if address % alignment or size % alignment or address + size >= 1 << 64:
            raise refusal(errno.EINVAL)
        if address >> self.ipa_bits or address + size > 1 << self.ipa_bits:
            raise refusal(errno.E2BIG)

    def kvm_arm_preferred_target(self, argument: Argument) -> None:
        buffer = _bytes(argument)
        buffer[:] = uapi.kvm_vcpu_init.layout.pack(getattr(uapi, self.host.target), *[0] * 7)

    def kvm_arm_set_counter_offset(self, argument: Argument) -> None:
        offset, reserved = uapi.kvm_arm_counter_offset.layout.unpack(_bytes(argument))
        if not self.kernel.check_extension(uapi.KVM_CAP_COUNTER_OFFSET) or reserved:
            raise refusal(errno.EINVAL)
        self.counter_offset, self.counter_is_set = offset, True

    def counter(self) -> int:
        """The guest's view of the counter: the host's less the VM's offset."""
        return (self.host_ticks() - self.counter_offset) % (1 << 64)

    def host_ticks(self) -> int:
        """The host's counter."""
        return self.kernel.clock() * self.host.counter_frequency // 10**9

    def set_counter(self, value: int) -> None:
        """arch_timer.c, kvm_arm_timer_set_reg: nothing where the VM's offset was set by ioctl."""
        if not self.counter_is_set:
            self.counter_offset += self.counter() - value

    def kvm_arm_get_reg_writable_masks(self, argument: Argument) -> None:
        """sys_regs.c, kvm_vm_ioctl_get_reg_writable_masks."""
        address, range_, *reserved = uapi.reg_mask_range.layout.unpack(_bytes(argument))
        if not self.host.writable_masks or range_ != uapi.KVM_ARM_FEATURE_ID_RANGE or any(reserved):
            raise refusal(errno.EINVAL)
        masks = [0] * uapi.KVM_ARM_FEATURE_ID_RANGE_SIZE
        for number, register in self.host.registers.items():
            if number & uapi.KVM_REG_ARM_COPROC_MASK != uapi.KVM_REG_ARM64_SYSREG:
                continue
            op0, op1, crn, crm, op2 = sysreg_encoding(number)
            if op0 == 3 and op1 in (0, 1, 3) and crn == 0 and crm < 8:
                masks[feature_id_index(op1, crm, op2)] = register.rule.writable(number)
        _write(address, pack(f"={len(masks)}Q", *masks))

    def kvm_create_device_test(self, argument: Argument) -> None:
        self._supported(_bytes(argument))

    def kvm_create_device(self, argument: Argument) -> None:
        buffer = _bytes(argument)
        kind = self._supported(buffer)
        device: Target
        if kind in (V2, V3, V5):
            self.create_gic(kind)
            device = {V2: GICv2Target, V3: GICv3Target, V5: GICv5Target}[kind](self)
        elif kind == ITS:
            self.has_its = True  # vgic-its.c, vgic_its_create
            device = ITSTarget(self)
        else:
            if self.has_vfio:
                raise refusal(errno.EBUSY)
            self.has_vfio = True
            device = VFIOTarget()
        buffer[:] = uapi.kvm_create_device.layout.pack(kind, self.kernel.new_descriptor(device), 0)

    def _supported(self, buffer: bytearray) -> int:
        if not self.kernel.check_extension(uapi.KVM_CAP_DEVICE_CTRL):  # before Linux 3.10
            raise refusal(self.unknown)
        kind: int = uapi.kvm_create_device.layout.unpack(buffer)[0]
        versions = self.host.gic_versions
        there = {V2: 2 in versions, V3: 3 in versions, V5: 5 in versions, ITS: self.host.its, VFIO: True}
        if not there.get(kind):
            raise refusal(errno.ENODEV)
        return kind

    # redistributors (vgic/vgic-mmio-v3.c)

    def region_size(self, region: Region) -> int:
        return (region.count or len(self.vcpus)) * V3_REDIST_SIZE

    def overlaps_region(self, base: int, size: int) -> bool:
        """vgic-v3.c, vgic_v3_rdist_overlap."""
        regions = self.gic.regions if self.gic else []
        return any(base + size > other.base and other.base + self.region_size(other) > base for other in regions)

    def add_region(self, index: int, base: int, count: int) -> None:
        """vgic_v3_set_redist_base; ``count`` is 0 in the interface of one region."""
        gic = self.gic
        assert gic is not None
        size = (count or len(self.vcpus)) * V3_REDIST_SIZE
        if base + size >= 1 << 64:
            raise refusal(errno.EINVAL)
        if not gic.regions:
            if index:
                raise refusal(errno.EINVAL)
        else:
            last = gic.regions[-1]
            if not count and last.count:
                raise refusal(errno.EINVAL)
            if not count:
                raise refusal(errno.EEXIST)
            if index != last.index + 1:
                raise refusal(errno.EINVAL)
        if not count and gic.dist_base is not None and _overlap(base, size, gic.dist_base, V3_DIST_SIZE):
            raise refusal(errno.EINVAL)
        if self.overlaps_region(base, size):
            raise refusal(errno.EINVAL)
        self.check_range(None, base, 0x1_0000, size)
        region = Region(index, base, count)
        gic.regions.append(region)
        placed = [vcpu for vcpu in self.vcpus.values() if vcpu.redistributor is None]
        try:
            for vcpu in placed:
                self.place_redistributor(vcpu)
        except OSError:
            for vcpu in placed:
                vcpu.redistributor = None
            gic.regions.remove(region)
            raise

    def place_redistributor(self, vcpu: "VCPUTarget") -> None:
        """vgic_register_redist_iodev."""
        if self.gic is None or self.gic.model != V3 or vcpu.redistributor is not None:
            return
        for region in self.gic.regions:
            if not region.count or region.used < region.count:
                if not self.bases_are_good():
                    raise refusal(errno.EINVAL)
                vcpu.redistributor = region.base + region.used * V3_REDIST_SIZE
                region.used += 1
                return

    def bases_are_good(self) -> bool:
        """vgic-v3.c, vgic_v3_check_base."""
        gic = self.gic
        assert gic is not None
        if any(region.base + self.region_size(region) > 1 << self.ipa_bits for region in gic.regions):
            return False
        return gic.dist_base is None or not self.overlaps_region(gic.dist_base, V3_DIST_SIZE)

    def initialize_gic(self) -> None:
        """vgic-init.c, vgic_init."""
        gic = self.gic
        assert gic is not None
        if gic.initialized:
            return
        gic.nr_irqs = gic.nr_irqs or 256
        gic.revision = gic.revision or self.host.gicd_revision
        gic.initialized = True

    def map_resources(self) -> None:
        """vgic-init.c, kvm_vgic_map_resources."""
        gic = self.gic
        if gic is None or gic.mapped:
            return
        if gic.model == V2:
            if gic.dist_base is None or gic.cpu_base is None:
                raise refusal(errno.ENXIO)
            sizes = uapi.KVM_VGIC_V2_DIST_SIZE, uapi.KVM_VGIC_V2_CPU_SIZE
            if _overlap(gic.dist_base, sizes[0], gic.cpu_base, sizes[1]):
                raise refusal(errno.EINVAL)
            self.initialize_gic()
        elif gic.model == V3:
            if any(vcpu.redistributor is None for vcpu in self.vcpus.values()) or gic.dist_base is None:
                raise refusal(errno.ENXIO)
            if not self.bases_are_good():
                raise refusal(errno.EINVAL)
            if not gic.initialized:
                raise refusal(errno.EBUSY)
        gic.mapped = True

    # attributes of the VM

    def has_attribute(self, group: int, number: int) -> None:
        if (group, number) != (uapi.KVM_ARM_VM_SMCCC_CTRL, uapi.KVM_ARM_VM_SMCCC_FILTER):
            raise refusal(errno.ENXIO)

    def set_attribute(self, group: int, number: int, address: int) -> None:
        self.has_attribute(group, number)


class VCPUTarget(AttributeTarget):
    """A vCPU. It lives as long as its VM, whatever becomes of its descriptor."""

    names = _named(
        "KVM_GET_ONE_REG",
        "KVM_SET_ONE_REG",
        "KVM_ARM_VCPU_INIT",
        "KVM_GET_REG_LIST",
        "KVM_ARM_VCPU_FINALIZE",
        *_ATTRIBUTES,
    ) | {KVM_RUN: "KVM_RUN"}

    def __init__(self, vm: VMTarget, number: int) -> None:
        self.vm, self.number, self.host = vm, number, vm.host
        self.features: frozenset[str] | None = None
        self.longest = max(self.host.sve, default=0)
        self.finalized = False
        self.values: dict[int, int] = {}
        self.redistributor: int | None = None
        self.timers = {
            uapi.KVM_ARM_VCPU_TIMER_IRQ_VTIMER: VIRTUAL_TIMER,
            uapi.KVM_ARM_VCPU_TIMER_IRQ_PTIMER: PHYSICAL_TIMER,
            uapi.KVM_ARM_VCPU_TIMER_IRQ_HVTIMER: 28,
            uapi.KVM_ARM_VCPU_TIMER_IRQ_HPTIMER: 26,
        }
        self.pmu_irq = 0
        self.pmu_created = False
        self.icc_ctlr = self.host.icc_ctlr_el1

    @property
    def mpidr(self) -> int:
        """Sys_regs.c, reset_mpidr."""
        return self.number & 0xF | (self.number >> 4 & 0xFF) << 8 | (self.number >> 12 & 0xFF) << 16 | 1 << 31

    # KVM_ARM_VCPU_INIT and _FINALIZE

    def kvm_arm_vcpu_init(self, argument: Argument) -> None:
        """arm.c, kvm_vcpu_set_target and kvm_vcpu_init_check_features."""
        target, *words = uapi.kvm_vcpu_init.layout.unpack(_bytes(argument))
        if target not in (uapi.KVM_ARM_TARGET_GENERIC_V8, getattr(uapi, self.host.target)):
            raise refusal(errno.EINVAL)
        known = {name for name in VCPU_FEATURES if self.host.el2 or not name.startswith(EL2)}
        bits = {getattr(uapi, name): name for name in known}
        asked = {bit for bit in range(32) if words[0] >> bit & 1}
        if asked - set(bits) or any(words[1:]):
            raise refusal(errno.ENOENT)
        features = frozenset(bits[bit] for bit in asked) - {"KVM_ARM_VCPU_POWER_OFF"}
        keys = {"KVM_ARM_VCPU_PTRAUTH_ADDRESS", "KVM_ARM_VCPU_PTRAUTH_GENERIC"}
        if features - self._supported_features() or len(features & keys) == 1:
            raise refusal(errno.EINVAL)
        if "KVM_ARM_VCPU_EL1_32BIT" in features and (self.vm.mte or EL2 in features):
            raise refusal(errno.EINVAL)
        if self.vm.features not in (None, features):
            raise refusal(errno.EINVAL)
        self.vm.features = self.features = features
        self.values = {}

    def _supported_features(self) -> set[str]:
        host = self.host
        there = {
            PSCI_0_2: True,
            "KVM_ARM_VCPU_EL1_32BIT": host.el1_32bit,
            PMU: host.pmu,
            SVE: bool(host.sve),
            "KVM_ARM_VCPU_PTRAUTH_ADDRESS": host.pauth,
            "KVM_ARM_VCPU_PTRAUTH_GENERIC": host.pauth,
            EL2: host.el2,
            "KVM_ARM_VCPU_HAS_EL2_E2H0": host.el2,
        }
        return {name for name, given in there.items() if given}

    def initialized(self) -> frozenset[str]:
        """The vCPU's features; ENOEXEC before KVM_ARM_VCPU_INIT."""
        if self.features is None:
            raise refusal(errno.ENOEXEC)
        return self.features

    def kvm_arm_vcpu_finalize(self, argument: Argument) -> None:
        """reset.c, kvm_arm_vcpu_finalize."""
        features = self.initialized()
        [feature] = unpack_from("=i", _bytes(argument))
        if feature != uapi.KVM_ARM_VCPU_SVE or SVE not in features:
            raise refusal(errno.EINVAL)
        if self.finalized:
            raise refusal(errno.EPERM)
        self.finalized = True

    # registers

    def visible(self, number: int) -> Register | None:
        """The register, where this vCPU has it now."""
        features = self.initialized()
        register = self.host.registers.get(number)
        if register is None or not features.issuperset(register.needs):
            return None
        if register.while_set:
            name, part = register.while_set
            [bits] = [entry for entry in idregs.fields(name) if entry.name == part]
            if not self.value(register_id(name)) & bits.mask:
                return None
        return None if number in VECTORS and SVE in features else register

    def _host_value(self, number: int, register: Register) -> int:
        if number == MPIDR_EL1:
            return self.mpidr
        if number == uapi.KVM_REG_ARM_PSCI_VERSION and PSCI_0_2 not in self.initialized():
            return PSCI_0_1
        model = self.vm.gic.model if self.vm.gic else 0
        return register.host_value(self.initialized() | ({GICV3} if model == V3 else frozenset()))

    def value(self, number: int) -> int:
        """The register's value now."""
        register = self.visible(number)
        if register is None:
            raise refusal(errno.ENOENT)
        if register.rule is COUNTER:
            return self.vm.counter()
        values = self.vm.values if register.rule.per_vm else self.values
        return values.get(number, self._host_value(number, register))

    def kvm_get_reg_list(self, argument: Argument) -> None:
        features = self.initialized()
        buffer = _bytes(argument)
        if SVE in features and not self.finalized:
            raise refusal(errno.EPERM)
        ids = [number for number in self.host.registers if self.visible(number)]
        if SVE in features:
            ids += [uapi.KVM_REG_ARM64_SVE_VLS, *SVE_REGISTERS]
        [room] = uapi.kvm_reg_list.layout.unpack_from(buffer)
        buffer[:8] = uapi.kvm_reg_list.layout.pack(len(ids))
        if room < len(ids):
            raise refusal(errno.E2BIG)
        buffer[8 : 8 + 8 * len(ids)] = pack(f"={len(ids)}Q", *ids)

    def kvm_get_one_reg(self, argument: Argument) -> None:
        number, address = uapi.kvm_one_reg.layout.unpack(_bytes(argument))
        features = self._check_id(number)
        if number & uapi.KVM_REG_ARM_COPROC_MASK == uapi.KVM_REG_ARM64_SVE:
            value = self._sve_value(number, features)
        else:
            value = self.value(number)
        _write(address, value.to_bytes(register_size(number), "little"))

    def kvm_set_one_reg(self, argument: Argument) -> None:
        number, address = uapi.kvm_one_reg.layout.unpack(_bytes(argument))
        features = self._check_id(number)
        written = int.from_bytes(_read(address, register_size(number)), "little")
        self.vm.kernel.written.append((number, written))
        if number & uapi.KVM_REG_ARM_COPROC_MASK == uapi.KVM_REG_ARM64_SVE:
            self._set_sve(number, written, features)
            return
        register = self.visible(number)
        if register is None:
            raise refusal(errno.ENOENT)
        if register.rule is COUNTER:
            self.vm.set_counter(written)
            return
        if self.vm.has_run and isinstance(register.rule, IDFields | Bitmap) and written != self.value(number):
            raise refusal(errno.EBUSY)
        if number == uapi.KVM_REG_ARM_PSCI_VERSION and (written == PSCI_0_1) is (PSCI_0_2 in features):
            raise refusal(errno.EINVAL)
        stored = register.rule.stored(self._host_value(number, register), self.value(number), written)
        (self.vm.values if register.rule.per_vm else self.values)[number] = stored

    def _check_id(self, number: int) -> frozenset[str]:
        features = self.initialized()
        if (number & ~uapi.KVM_REG_SIZE_MASK) >> 32 != uapi.KVM_REG_ARM64 >> 32:
            raise refusal(errno.EINVAL)
        return features

    def _sve_value(self, number: int, features: frozenset[str]) -> int:
        """guest.c, get_sve_reg."""
        if SVE not in features:
            raise refusal(errno.ENOENT)
        if number == uapi.KVM_REG_ARM64_SVE_VLS:
            return sum(1 << bits // 128 - 1 for bits in self.host.sve if bits <= self.longest)
        if number not in SVE_REGISTERS:
            raise refusal(errno.ENOENT)
        if not self.finalized:
            raise refusal(errno.EPERM)
        return self.values.get(number, 0)

    def _set_sve(self, number: int, written: int, features: frozenset[str]) -> None:
        """guest.c, set_sve_reg and set_sve_vls: all lengths of the host up to the longest, or none of it."""
        if number == uapi.KVM_REG_ARM64_SVE_VLS and SVE in features:
            if self.finalized:
                raise refusal(errno.EPERM)
            wanted = sve_vector_lengths(written)
            if not wanted or wanted != tuple(bits for bits in self.host.sve if bits <= wanted[-1]):
                raise refusal(errno.EINVAL)
            self.longest = wanted[-1]
            return
        self._sve_value(number, features)
        self.values[number] = written

    # attributes

    def has_attribute(self, group: int, number: int) -> None:
        there = {
            uapi.KVM_ARM_VCPU_PMU_V3_CTRL: PMU in (self.features or ()) and number in PMU_ATTRIBUTES,
            uapi.KVM_ARM_VCPU_TIMER_CTRL: number in self.timers,
            uapi.KVM_ARM_VCPU_PVTIME_CTRL: self.host.steal_time and number == uapi.KVM_ARM_VCPU_PVTIME_IPA,
        }
        if not there.get(group):
            raise refusal(errno.ENXIO)

    def get_attribute(self, group: int, number: int, address: int) -> None:
        if group == uapi.KVM_ARM_VCPU_TIMER_CTRL and number in self.timers:
            _write(address, pack("=i", self.timers[number]))
        elif (group, number) == (uapi.KVM_ARM_VCPU_PMU_V3_CTRL, uapi.KVM_ARM_VCPU_PMU_V3_IRQ):
            if self.vm.gic is None:
                raise refusal(errno.EINVAL)
            if PMU not in (self.features or ()):
                raise refusal(errno.ENODEV)
            if not self.pmu_irq:
                raise refusal(errno.ENXIO)
            _write(address, pack("=i", self.pmu_irq))
        else:
            raise refusal(errno.ENXIO)

    def set_attribute(self, group: int, number: int, address: int) -> None:
        if group == uapi.KVM_ARM_VCPU_PMU_V3_CTRL:
            self._set_pmu(number, address)
        elif group == uapi.KVM_ARM_VCPU_TIMER_CTRL and number in self.timers:
            if self.vm.gic is None:
                raise refusal(errno.EINVAL)
            [intid] = unpack_from("=i", _read(address, 4))
            if not 16 <= intid < 32:
                raise refusal(errno.EINVAL)
            if self.vm.has_run:
                raise refusal(errno.EBUSY)
            for vcpu in self.vm.vcpus.values():
                vcpu.timers[number] = intid
        elif group == uapi.KVM_ARM_VCPU_PVTIME_CTRL:
            self.has_attribute(group, number)
            raise refusal(errno.EINVAL)  # no guest memory for it to be in
        else:
            raise refusal(errno.ENXIO)

    def _set_pmu(self, number: int, address: int) -> None:
        """pmu-emul.c, kvm_arm_pmu_v3_set_attr."""
        if PMU not in (self.features or ()):
            raise refusal(errno.ENODEV)
        if self.pmu_created:
            raise refusal(errno.EBUSY)
        match number:
            case uapi.KVM_ARM_VCPU_PMU_V3_IRQ:
                self._set_pmu_irq(address)
            case uapi.KVM_ARM_VCPU_PMU_V3_INIT:
                self._create_pmu()
            case uapi.KVM_ARM_VCPU_PMU_V3_FILTER:
                action = unpack_from("=HHB", _read(address, uapi.kvm_pmu_event_filter.size))[2]
                if action not in (uapi.KVM_PMU_EVENT_ALLOW, uapi.KVM_PMU_EVENT_DENY):
                    raise refusal(errno.EINVAL)
            case uapi.KVM_ARM_VCPU_PMU_V3_SET_PMU:
                if unpack_from("=i", _read(address, 4))[0] not in self.host.pmu_types:
                    raise refusal(errno.ENXIO)
                self.vm.pmu_chosen = True
            case _:
                raise refusal(errno.ENXIO)

    def _set_pmu_irq(self, address: int) -> None:
        if self.vm.gic is None:
            raise refusal(errno.EINVAL)
        [intid] = unpack_from("=i", _read(address, 4))
        others = [vcpu.pmu_irq for vcpu in self.vm.vcpus.values() if vcpu.pmu_irq]
        valid = all(other == intid for other in others) if 16 <= intid < 32 else intid not in others
        if not 16 <= intid < 1020 or not valid:
            raise refusal(errno.EINVAL)
        if self.pmu_irq:
            raise refusal(errno.EBUSY)
        self.pmu_irq = intid

    def _create_pmu(self) -> None:
        """pmu-emul.c, kvm_arm_pmu_v3_init."""
        if self.vm.gic:
            if not self.vm.gic.initialized:
                raise refusal(errno.ENODEV)
            if not self.pmu_irq:
                raise refusal(errno.ENXIO)
            self.vm.gic.claim(self.number, self.pmu_irq, f"the PMU of vCPU {self.number}")
        self.pmu_created = True

    def kvm_run(self, argument: Argument) -> None:
        """What comes before the guest is entered (arm.c, kvm_arch_vcpu_run_pid_change), and no more."""
        features = self.initialized()
        if SVE in features and not self.finalized:
            raise refusal(errno.EPERM)
        self.vm.map_resources()
        if self.vm.gic:
            try:
                for number in (uapi.KVM_ARM_VCPU_TIMER_IRQ_VTIMER, uapi.KVM_ARM_VCPU_TIMER_IRQ_PTIMER):
                    self.vm.gic.claim(self.number, self.timers[number], f"timer {number}")
            except OSError:
                raise refusal(errno.EINVAL) from None  # arch_timer.c, timer_irqs_are_valid
        if PMU in features and not self.pmu_created:
            raise refusal(errno.EINVAL)
        self.vm.has_run = True
        raise refusal(errno.EINTR)


class GICTarget(AttributeTarget):
    """What GICv2 and GICv3 have in common (vgic-kvm-device.c)."""

    unknown = errno.ENOTTY
    names = _named(*_ATTRIBUTES)
    model = 0
    addresses: tuple[int, ...] = ()
    registers: tuple[int, ...] = ()
    """The groups of registers."""

    def __init__(self, vm: VMTarget) -> None:
        assert vm.gic is not None
        self.vm, self.host, self.gic = vm, vm.host, vm.gic

    def has_attribute(self, group: int, number: int) -> None:
        there = {
            uapi.KVM_DEV_ARM_VGIC_GRP_ADDR: number in self.addresses and self.has_address(number),
            uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS: True,
            uapi.KVM_DEV_ARM_VGIC_GRP_CTRL: number == uapi.KVM_DEV_ARM_VGIC_CTRL_INIT,
        }
        if group in self.registers:
            self.check_register(group, number)
        elif not there.get(group):
            raise refusal(errno.ENXIO)

    def has_address(self, number: int) -> bool:
        return True

    def check_register(self, group: int, number: int) -> "VCPUTarget":
        """The vCPU that a register belongs to; raises OSError where there is none."""
        raise NotImplementedError

    def get_attribute(self, group: int, number: int, address: int) -> None:
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
            self.get_address(number, address)
        elif group == uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
            _write(address, pack("=I", self.gic.nr_irqs or 32))
        elif group in self.registers:
            vcpu = self.ready_vcpu(group, number)
            size = 8 if group == uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS else 4
            _write(address, self.read_register(group, number, vcpu).to_bytes(size, "little"))
        else:
            raise refusal(errno.ENXIO)

    def set_attribute(self, group: int, number: int, address: int) -> None:
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
            [value] = unpack_from("=Q", _read(address, 8))
            self.set_address(number, value)
        elif group == uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
            [count] = unpack_from("=I", _read(address, 4))
            if not 64 <= count <= 1019 or count % 32:  # VGIC_MAX_RESERVED
                raise refusal(errno.EINVAL)
            if self.gic.mapped or self.gic.nr_irqs:
                raise refusal(errno.EBUSY)
            self.gic.nr_irqs = count
        elif group == uapi.KVM_DEV_ARM_VGIC_GRP_CTRL and number == uapi.KVM_DEV_ARM_VGIC_CTRL_INIT:
            self.vm.initialize_gic()
        elif group in self.registers:
            vcpu = self.ready_vcpu(group, number)
            size = 8 if group == uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS else 4
            self.write_register(group, number, vcpu, int.from_bytes(_read(address, size), "little"))
        else:
            raise refusal(errno.ENXIO)

    def set_address(self, number: int, value: int) -> None:
        raise NotImplementedError

    def get_address(self, number: int, address: int) -> None:
        raise NotImplementedError

    def ready_vcpu(self, group: int, number: int) -> VCPUTarget:
        raise NotImplementedError

    def read_register(self, group: int, number: int, vcpu: VCPUTarget) -> int:
        return self.gic.stored.get((group, number), 0)

    def write_register(self, group: int, number: int, vcpu: VCPUTarget, value: int) -> None:
        self.gic.stored[group, number] = value

    def iidr(self) -> int:
        """GICD_IIDR."""
        return gicregs.PRODUCT_ID_KVM << 24 | self.gic.revision << 12 | gicregs.IMPLEMENTER_ARM

    def set_iidr(self, value: int) -> None:
        """vgic_mmio_uaccess_write_v3_misc; of many kernels, the revision that is tested is the one there is."""
        if (value ^ self.iidr()) & ~0xF000:
            raise refusal(errno.EINVAL)
        if self.host.revision_is_kept:
            revision = value >> 12 & 0xF
            if revision not in self.host.gicd_revisions:
                raise refusal(errno.EINVAL)
            self.gic.revision = revision


class GICv2Target(GICTarget):
    """A GICv2 device."""

    addresses = (uapi.KVM_VGIC_V2_ADDR_TYPE_DIST, uapi.KVM_VGIC_V2_ADDR_TYPE_CPU)
    registers = (uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS, uapi.KVM_DEV_ARM_VGIC_GRP_CPU_REGS)

    def set_address(self, number: int, value: int) -> None:
        self.vm.set_gicv2_address(number, value, errno.ENXIO)

    def get_address(self, number: int, address: int) -> None:
        if number not in self.addresses:
            raise refusal(errno.ENXIO)
        base = self.gic.dist_base if number == uapi.KVM_VGIC_V2_ADDR_TYPE_DIST else self.gic.cpu_base
        _write(address, pack("=Q", (1 << 64) - 1 if base is None else base))

    def check_register(self, group: int, number: int) -> VCPUTarget:
        vcpu = self.vm.vcpus.get(number >> uapi.KVM_DEV_ARM_VGIC_CPUID_SHIFT & 0xFF)
        if vcpu is None:
            raise refusal(errno.EINVAL)
        if number & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK >= 0x1_0000:
            raise refusal(errno.ENXIO)
        return vcpu

    def ready_vcpu(self, group: int, number: int) -> VCPUTarget:
        vcpu = self.check_register(group, number)
        self.vm.initialize_gic()  # vgic_v2_attr_regs_access
        return vcpu

    def read_register(self, group: int, number: int, vcpu: VCPUTarget) -> int:
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS:
            offset = number & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK
            if offset == vgic_v2.GICD_IIDR:
                return self.iidr()
            if offset == vgic_v2.GICD_TYPER:
                return self.gic.nr_irqs // 32 - 1 | len(self.vm.vcpus) - 1 << 5
        return super().read_register(group, number, vcpu)

    def write_register(self, group: int, number: int, vcpu: VCPUTarget, value: int) -> None:
        offset = number & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS and offset == vgic_v2.GICD_IIDR:
            self.set_iidr(value)
        elif not (group == uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS and offset == vgic_v2.GICD_TYPER):
            super().write_register(group, number, vcpu, value)


class GICv3Target(GICTarget):
    """A GICv3 device."""

    addresses = (
        uapi.KVM_VGIC_V3_ADDR_TYPE_DIST,
        uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST,
        uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION,
    )
    registers = (
        uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
        uapi.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
        uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
        uapi.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
    )

    def has_address(self, number: int) -> bool:
        return number != uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION or self.host.redistributor_regions

    def has_attribute(self, group: int, number: int) -> None:
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_CTRL and number == uapi.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES:
            return
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ and self.host.el2:
            return
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO:
            if number & uapi.KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_MASK:
                raise refusal(errno.ENXIO)
            return
        super().has_attribute(group, number)

    def set_address(self, number: int, value: int) -> None:
        """vgic-kvm-device.c, kvm_vgic_addr."""
        if number == uapi.KVM_VGIC_V3_ADDR_TYPE_DIST:
            self.vm.check_range(self.gic.dist_base, value, 0x1_0000, V3_DIST_SIZE)
            self.gic.dist_base = value
        elif number == uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST:
            self.vm.add_region(0, value, 0)
        elif number == uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION and self.host.redistributor_regions:
            region, flags = vgic_v3.RedistributorRegion.decode(value), value >> 12 & 0xF
            if not region.count or flags:
                raise refusal(errno.EINVAL)
            self.vm.add_region(region.index, region.base, region.count)
        else:
            raise refusal(errno.ENXIO)

    def get_address(self, number: int, address: int) -> None:
        undefined = (1 << 64) - 1
        if number == uapi.KVM_VGIC_V3_ADDR_TYPE_DIST:
            value = undefined if self.gic.dist_base is None else self.gic.dist_base
        elif number == uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST:
            value = self.gic.regions[0].base if self.gic.regions else undefined
        elif number == uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION and self.host.redistributor_regions:
            index = unpack_from("=Q", _read(address, 8))[0] & 0xFF
            found = [region for region in self.gic.regions if region.index == index]
            if not found:
                raise refusal(errno.ENOENT)
            value = vgic_v3.RedistributorRegion(index, found[0].base, found[0].count).encode()
        else:
            raise refusal(errno.ENXIO)
        _write(address, pack("=Q", value))

    def get_attribute(self, group: int, number: int, address: int) -> None:
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ and self.host.el2:
            _write(address, pack("=I", self.gic.maintenance_irq))
        else:
            super().get_attribute(group, number, address)

    def set_attribute(self, group: int, number: int, address: int) -> None:
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ and self.host.el2:
            [intid] = unpack_from("=I", _read(address, 4))
            if self.gic.initialized:
                raise refusal(errno.EBUSY)
            if not 16 <= intid < 32:
                raise refusal(errno.EINVAL)
            self.gic.maintenance_irq = intid
        elif group == uapi.KVM_DEV_ARM_VGIC_GRP_CTRL and number == uapi.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES:
            if not self.gic.initialized:
                raise refusal(errno.EBUSY)
        else:
            super().set_attribute(group, number, address)

    def check_register(self, group: int, number: int) -> VCPUTarget:
        """vgic_v3_parse_attr; of the distributor's registers, any vCPU's will do."""
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS:
            vcpu = next(iter(self.vm.vcpus.values()), None)
        else:
            place = number >> uapi.KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT
            found = [one for one in self.vm.vcpus.values() if vgic_v3.affinity(one.mpidr) >> 32 == place]
            vcpu = found[0] if found else None
        if vcpu is None:
            raise refusal(errno.EINVAL)
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS and number & 0xFFFF not in ICC_REGISTERS:
            raise refusal(errno.ENXIO)
        return vcpu

    def ready_vcpu(self, group: int, number: int) -> VCPUTarget:
        vcpu = self.check_register(group, number)
        if not self.gic.initialized:
            raise refusal(errno.EBUSY)
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO and (
            number & uapi.KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_MASK
            or number & uapi.KVM_DEV_ARM_VGIC_LINE_LEVEL_INTID_MASK & 31
        ):
            raise refusal(errno.EINVAL)
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS and ICC_REGISTERS[number & 0xFFFF] > _priority_groups(vcpu):
            raise refusal(errno.EINVAL)
        return vcpu

    def read_register(self, group: int, number: int, vcpu: VCPUTarget) -> int:
        offset = number & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS:
            if offset == vgic_v3.GICD_IIDR:
                return self.iidr()
            if offset == vgic_v3.GICD_TYPER:
                return self.gic.nr_irqs // 32 - 1 | (15 << 19 | 1 << 17 if self.vm.has_its else 9 << 19)
            if offset == vgic_v3.GICD_TYPER2:
                return 0x100 if self.host.gicv4_1 else 0
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS and offset in (vgic_v3.GICR_TYPER, vgic_v3.GICR_TYPER + 4):
            last = max(self.vm.vcpus) == vcpu.number
            typer = (vcpu.mpidr & 0xFFFFFF) << 32 | vcpu.number << 8 | last << 4 | int(self.vm.has_its)
            return typer >> 8 * (offset & 4) & 0xFFFF_FFFF
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS and number & 0xFFFF == vgic_v3.ICC_CTLR_EL1:
            return vcpu.icc_ctlr
        return super().read_register(group, number, vcpu)

    def write_register(self, group: int, number: int, vcpu: VCPUTarget, value: int) -> None:
        offset = number & uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS:
            if offset == vgic_v3.GICD_IIDR:
                self.set_iidr(value)
                return
            if offset == vgic_v3.GICD_TYPER2 and value != self.read_register(group, number, vcpu):
                raise refusal(errno.EINVAL)
            if offset == vgic_v3.GICD_TYPER:
                return
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS:
            if number & 0xFFFF == vgic_v3.ICC_CTLR_EL1:
                self._set_icc_ctlr(vcpu, value)
                return
            if number & 0xFFFF == ICC_SRE_EL1 and not value & 1:
                raise refusal(errno.EINVAL)
        super().write_register(group, number, vcpu, value)

    def _set_icc_ctlr(self, vcpu: VCPUTarget, value: int) -> None:
        """vgic-sys-reg-v3.c, set_gic_ctlr: what is passed is stored before the next field is looked at."""
        host = self.host.icc_ctlr_el1
        fields = {one.name: one for one in gicregs.ICC_CTLR_EL1.fields}
        for name in ("PRIbits", "IDbits"):
            part = fields[name]
            if part.of(value) > part.of(vcpu.icc_ctlr):
                raise refusal(errno.EINVAL)
            vcpu.icc_ctlr = vcpu.icc_ctlr & ~part.mask | value & part.mask
        for name in ("SEIS", "A3V"):
            if fields[name].of(value) != fields[name].of(host):
                raise refusal(errno.EINVAL)
        kept = fields["CBPR"].mask | fields["EOImode"].mask
        vcpu.icc_ctlr = vcpu.icc_ctlr & ~kept | value & kept


class GICv5Target(AttributeTarget):
    """A GICv5 device, of which nothing is known here but that it can be made and initialized."""

    unknown = errno.ENOTTY
    names = _named(*_ATTRIBUTES)

    def __init__(self, vm: VMTarget) -> None:
        self.vm = vm

    def has_attribute(self, group: int, number: int) -> None:
        if (group, number) != (uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT):
            raise refusal(errno.ENXIO)

    def set_attribute(self, group: int, number: int, address: int) -> None:
        self.has_attribute(group, number)
        self.vm.initialize_gic()


class ITSTarget(AttributeTarget):
    """An ITS device (vgic-its.c)."""

    unknown = errno.ENOTTY
    names = _named(*_ATTRIBUTES)

    def __init__(self, vm: VMTarget) -> None:
        self.vm, self.host = vm, vm.host
        self.base: int | None = None
        self.revision = max(self.host.gits_revisions)
        self.values: dict[int, int] = {}

    def has_attribute(self, group: int, number: int) -> None:
        there = {
            uapi.KVM_DEV_ARM_VGIC_GRP_ADDR: number == uapi.KVM_VGIC_ITS_ADDR_TYPE,
            uapi.KVM_DEV_ARM_VGIC_GRP_CTRL: number in ITS_CONTROLS,
        }
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_ITS_REGS:
            self._check_offset(number)
            self._check_register(number)
        elif not there.get(group):
            raise refusal(errno.ENXIO)

    def get_attribute(self, group: int, number: int, address: int) -> None:
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
            if number != uapi.KVM_VGIC_ITS_ADDR_TYPE:
                raise refusal(errno.ENODEV)
            _write(address, pack("=Q", (1 << 64) - 1 if self.base is None else self.base))
        elif group == uapi.KVM_DEV_ARM_VGIC_GRP_ITS_REGS:
            self._reachable(number)
            _write(address, pack("=Q", self._read_register(number)))
        else:
            raise refusal(errno.ENXIO)

    def set_attribute(self, group: int, number: int, address: int) -> None:
        if group == uapi.KVM_DEV_ARM_VGIC_GRP_ADDR:
            if number != uapi.KVM_VGIC_ITS_ADDR_TYPE:
                raise refusal(errno.ENODEV)
            [value] = unpack_from("=Q", _read(address, 8))
            self.vm.check_range(self.base, value, 0x1_0000, ITS_SIZE)
            self.base = value
        elif group == uapi.KVM_DEV_ARM_VGIC_GRP_CTRL and number in ITS_CONTROLS:
            if number == uapi.KVM_DEV_ARM_ITS_CTRL_RESET:
                self.values.clear()
        elif group == uapi.KVM_DEV_ARM_VGIC_GRP_ITS_REGS:
            self._reachable(number)
            [value] = unpack_from("=Q", _read(address, 8))
            if number == its.GITS_IIDR:  # vgic_mmio_uaccess_write_its_iidr
                revision = (value & its.IIDR_REVISION_MASK) >> its.IIDR_REVISION_SHIFT
                if revision not in self.host.gits_revisions:
                    raise refusal(errno.EINVAL)
                self.revision = revision
            elif number not in (its.GITS_TYPER,):
                self.values[number] = value
        else:
            raise refusal(errno.ENXIO)

    def _read_register(self, offset: int) -> int:
        if offset == its.GITS_TYPER:
            return self.host.gits_typer
        if offset == its.GITS_IIDR:
            return gicregs.PRODUCT_ID_KVM << 24 | self.revision << 12 | gicregs.IMPLEMENTER_ARM
        return self.values.get(offset, 0)

    def _reachable(self, offset: int) -> None:
        """vgic_its_attr_regs_access."""
        self._check_offset(offset)
        if self.base is None:
            raise refusal(errno.ENXIO)
        self._check_register(offset)

    @staticmethod
    def _check_offset(offset: int) -> None:
        if offset & (3 if offset < its.GITS_TYPER or offset >= 0xFFD0 else 7):
            raise refusal(errno.EINVAL)

    @staticmethod
    def _check_register(offset: int) -> None:
        known = (its.GITS_CTLR, its.GITS_IIDR, its.GITS_TYPER, its.GITS_CBASER, its.GITS_CWRITER, its.GITS_CREADR)
        if not (offset in known or its.GITS_BASER <= offset < its.GITS_BASER + 64 or 0xFFD0 <= offset < 0x1_0000):
            raise refusal(errno.ENXIO)


class VFIOTarget(AttributeTarget):
    """KVM's VFIO device, which is given no file that is one of VFIO's."""

    unknown = errno.ENOTTY
    names = _named(*_ATTRIBUTES)

    def has_attribute(self, group: int, number: int) -> None:
        if group != uapi.KVM_DEV_VFIO_FILE or number not in (uapi.KVM_DEV_VFIO_FILE_ADD, uapi.KVM_DEV_VFIO_FILE_DEL):
            raise refusal(errno.ENXIO)

    def set_attribute(self, group: int, number: int, address: int) -> None:
        self.has_attribute(group, number)
        try:
            os.fstat(unpack_from("=i", _read(address, 4))[0])
        except (OSError, OverflowError):
            raise refusal(errno.EBADF) from None
        raise refusal(errno.EINVAL if number == uapi.KVM_DEV_VFIO_FILE_ADD else errno.ENOENT)


CAPABILITY_NAMES = {getattr(uapi, name): name for name in vars(uapi) if name.startswith("KVM_CAP_")}
PMU_ATTRIBUTES = (
    uapi.KVM_ARM_VCPU_PMU_V3_IRQ,
    uapi.KVM_ARM_VCPU_PMU_V3_INIT,
    uapi.KVM_ARM_VCPU_PMU_V3_FILTER,
    uapi.KVM_ARM_VCPU_PMU_V3_SET_PMU,
)
ITS_CONTROLS = (
    uapi.KVM_DEV_ARM_VGIC_CTRL_INIT,
    uapi.KVM_DEV_ARM_ITS_SAVE_TABLES,
    uapi.KVM_DEV_ARM_ITS_RESTORE_TABLES,
    uapi.KVM_DEV_ARM_ITS_CTRL_RESET,
)


def _icc(crn: int, crm: int, op2: int) -> int:
    return 3 << 14 | crn << 7 | crm << 3 | op2


ICC_SRE_EL1 = _icc(12, 12, 5)
ICC_REGISTERS = {
    _icc(4, 6, 0): 0,
    _icc(12, 8, 3): 0,
    **{_icc(12, 8, 4 + n): n for n in range(4)},
    **{_icc(12, 9, n): n for n in range(4)},
    **{_icc(12, 12, n): 0 for n in (3, 4, 5, 6, 7)},
}
"""Encodings of the CPU interface's registers, and of ICC_AP0R<n> and ICC_AP1R<n> their n."""


def _priority_groups(vcpu: VCPUTarget) -> int:
    """The last ICC_AP<n>R (vgic.h, vgic_v3_max_apr_idx)."""
    return {7: 3, 6: 1}.get((vcpu.icc_ctlr >> 8 & 7) + 1, 0)


def _overlap(a: int, a_size: int, b: int, b_size: int) -> bool:
    return a + a_size > b and b + b_size > a


def _int(argument: Argument) -> int:
    assert isinstance(argument, int)
    return argument


def _bytes(argument: Argument) -> bytearray:
    if not isinstance(argument, bytearray):
        raise refusal(errno.EFAULT)
    return argument


def _read(address: int, size: int) -> bytes:
    if not address:
        raise refusal(errno.EFAULT)
    return ctypes.string_at(address, size)


def _write(address: int, data: bytes) -> None:
    if not address:
        raise refusal(errno.EFAULT)
    ctypes.memmove(address, data, len(data))
