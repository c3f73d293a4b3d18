"""A vCPU: its features, its registers and its attributes (PMU, timers, stolen time). It is never run."""

import errno
from array import array
from collections.abc import Iterable
from struct import pack

from vgicmgr.kvm import uapi
from vgicmgr.kvm.attribute import attribute
from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.errors import KvmError

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from typing import Literal

# Documentation/virt/kvm/devices/vcpu.rst

PMU_IRQ = attribute("KVM_ARM_VCPU_PMU_V3_CTRL", "KVM_ARM_VCPU_PMU_V3_IRQ", "i")
"""INTID of the overflow interrupt: a PPI is the same on all vCPUs, an SPI must differ on each."""
PMU_INIT = attribute("KVM_ARM_VCPU_PMU_V3_CTRL", "KVM_ARM_VCPU_PMU_V3_INIT")
PMU_FILTER = attribute("KVM_ARM_VCPU_PMU_V3_CTRL", "KVM_ARM_VCPU_PMU_V3_FILTER", uapi.kvm_pmu_event_filter.format)
PMU_SET_PMU = attribute("KVM_ARM_VCPU_PMU_V3_CTRL", "KVM_ARM_VCPU_PMU_V3_SET_PMU", "i")
"""The ``type`` of a PMU under /sys/bus/event_source/devices."""
PMU_SET_NR_COUNTERS = attribute("KVM_ARM_VCPU_PMU_V3_CTRL", "KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS", "I")

TIMER_IRQ_VTIMER = attribute("KVM_ARM_VCPU_TIMER_CTRL", "KVM_ARM_VCPU_TIMER_IRQ_VTIMER", "i")
TIMER_IRQ_PTIMER = attribute("KVM_ARM_VCPU_TIMER_CTRL", "KVM_ARM_VCPU_TIMER_IRQ_PTIMER", "i")
TIMER_IRQ_HVTIMER = attribute("KVM_ARM_VCPU_TIMER_CTRL", "KVM_ARM_VCPU_TIMER_IRQ_HVTIMER", "i")
TIMER_IRQ_HPTIMER = attribute("KVM_ARM_VCPU_TIMER_CTRL", "KVM_ARM_VCPU_TIMER_IRQ_HPTIMER", "i")

PVTIME_IPA = attribute("KVM_ARM_VCPU_PVTIME_CTRL", "KVM_ARM_VCPU_PVTIME_IPA", "Q")
"""Guest physical address of the stolen time structure, 64-byte aligned."""


class VCPU(Descriptor):
    """A vCPU's descriptor (``Documentation/virt/kvm/api.rst``, section 4)."""

    def init(self, target: int, features: Iterable[str] = ()) -> None:
        """KVM_ARM_VCPU_INIT with features named as in the header (``KVM_ARM_VCPU_SVE``); raises :class:`KvmError`."""
        names = tuple(features)
        words = [0] * 7
        for name in names:
            bit: int = getattr(uapi, name)
            words[bit // 32] |= 1 << bit % 32
        subject = "with " + ", ".join(names) if names else ""
        self.ioctl("KVM_ARM_VCPU_INIT", bytearray(uapi.kvm_vcpu_init.layout.pack(target, *words)), subject)

    def finalize(self, feature: str) -> None:
        """KVM_ARM_VCPU_FINALIZE of a feature that needs it (``KVM_ARM_VCPU_SVE``); raises :class:`KvmError`."""
        self.ioctl("KVM_ARM_VCPU_FINALIZE", bytearray(pack("=i", getattr(uapi, feature))), feature)

    def register_ids(self) -> tuple[int, ...]:
        """KVM_GET_REG_LIST: the ids of all registers this vCPU has, as the kernel lists them."""
        room = 1024
        while True:
            # the kernel tells the length along with E2BIG, but Python 3.14 drops what a failed ioctl wrote
            request = bytearray(uapi.kvm_reg_list.layout.pack(room)) + bytes(8 * room)
            try:
                self.ioctl("KVM_GET_REG_LIST", request)
            except KvmError as error:
                if error.errno != errno.E2BIG:
                    raise
                room *= 2
                continue
            head = uapi.kvm_reg_list.size
            count: int = uapi.kvm_reg_list.layout.unpack_from(request)[0]
            return tuple(array("Q", bytes(request[head : head + 8 * count])))

    def get_register(self, register_id: int) -> int:
        """KVM_GET_ONE_REG: the register's value as a number, whatever its size; raises :class:`KvmError`."""
        value = array("B", bytes(register_size(register_id)))
        self._one_register("KVM_GET_ONE_REG", register_id, value)
        return int.from_bytes(value.tobytes(), _BYTE_ORDER)

    def set_register(self, register_id: int, value: int) -> None:
        """KVM_SET_ONE_REG; raises :class:`KvmError` (EINVAL: the kernel does not accept this value)."""
        data = array("B", value.to_bytes(register_size(register_id), _BYTE_ORDER))
        self._one_register("KVM_SET_ONE_REG", register_id, data)

    def _one_register(self, call: str, register_id: int, value: "array[int]") -> None:
        request = uapi.kvm_one_reg.layout.pack(register_id, value.buffer_info()[0])
        self.ioctl(call, bytearray(request), f"{register_id:#018x}")


_BYTE_ORDER: "Literal['little']" = "little"
"""Of arm64 as Linux distributions run it; the interface hands over host byte order."""


def register_size(register_id: int) -> int:
    """Size in bytes of the register with this id (KVM_REG_SIZE of ``include/uapi/linux/kvm.h``)."""
    return 1 << ((register_id & uapi.KVM_REG_SIZE_MASK) >> uapi.KVM_REG_SIZE_SHIFT)


def sve_vector_lengths(vls: int) -> tuple[int, ...]:
    """Vector lengths in bits that a value of KVM_REG_ARM64_SVE_VLS stands for: bit n for 128 * (n + 1) bits."""
    return tuple(
        128 * vq for vq in range(uapi.KVM_ARM64_SVE_VQ_MIN, uapi.KVM_ARM64_SVE_VQ_MAX + 1) if vls >> vq - 1 & 1
    )


def sve_vls(lengths: Iterable[int]) -> int:
    """The value of KVM_REG_ARM64_SVE_VLS that stands for vector lengths in bits."""
    return sum(1 << bits // 128 - 1 for bits in lengths)


def in_bit_order(features: Iterable[str]) -> tuple[str, ...]:
    """Names of vCPU features (KVM_ARM_VCPU_*), each once, by their bit in kvm_vcpu_init."""
    return tuple(sorted(set(features), key=lambda name: int(getattr(uapi, name))))
