"""A VM: capabilities that depend on it, its vCPUs and its devices."""

from array import array
from struct import pack, unpack_from

from vgicmgr.kvm import uapi
from vgicmgr.kvm.attribute import attribute
from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.vcpu import VCPU

SMCCC_FILTER = attribute("KVM_ARM_VM_SMCCC_CTRL", "KVM_ARM_VM_SMCCC_FILTER", uapi.kvm_smccc_filter.format)


class VM(Descriptor):
    """A VM's descriptor (``Documentation/virt/kvm/api.rst``, section 4)."""

    def check_extension(self, capability: str) -> int:
        """KVM_CHECK_EXTENSION on the VM, by the capability's name in the header; 0 is no."""
        return self.ioctl("KVM_CHECK_EXTENSION", getattr(uapi, capability), capability)

    def enable_capability(self, capability: str, *arguments: int) -> None:
        """KVM_ENABLE_CAP; raises :class:`KvmError` (EINVAL: unknown, or too late since vCPUs exist)."""
        values = (*arguments, 0, 0, 0, 0)[:4]
        request = uapi.kvm_enable_cap.layout.pack(getattr(uapi, capability), 0, *values, b"")
        self.ioctl("KVM_ENABLE_CAP", bytearray(request), capability)

    def preferred_target(self) -> int:
        """KVM_ARM_PREFERRED_TARGET: the CPU target (KVM_ARM_TARGET_*) a vCPU is made with on this host."""
        request = bytearray(uapi.kvm_vcpu_init.size)
        self.ioctl("KVM_ARM_PREFERRED_TARGET", request)
        target: int = unpack_from("=I", request)[0]
        return target

    def create_vcpu(self, vcpu_id: int = 0) -> VCPU:
        """KVM_CREATE_VCPU; raises :class:`KvmError`."""
        return VCPU(self.ioctl("KVM_CREATE_VCPU", vcpu_id, f"{vcpu_id}"))

    def create_device(self, device_type: str) -> int:
        """KVM_CREATE_DEVICE of the type named as in the header; the device's file descriptor, to be owned.

        Raises :class:`KvmError` (ENODEV: type unknown or unsupported; EEXIST: there is one already).
        """
        request = bytearray(uapi.kvm_create_device.layout.pack(getattr(uapi, device_type), 0, 0))
        self.ioctl("KVM_CREATE_DEVICE", request, device_type)
        fd: int = uapi.kvm_create_device.layout.unpack(request)[1]
        return fd

    def test_device(self, device_type: str) -> bool:
        """KVM_CREATE_DEVICE with KVM_CREATE_DEVICE_TEST: whether this type is supported; creates nothing."""
        return self.device_refusal(device_type) is None

    def device_refusal(self, device_type: str) -> KvmError | None:
        """As :meth:`test_device`, with the kernel's refusal, if it is one."""
        number: int = getattr(uapi, device_type)
        request = bytearray(uapi.kvm_create_device.layout.pack(number, 0, uapi.KVM_CREATE_DEVICE_TEST))
        try:
            self.ioctl("KVM_CREATE_DEVICE", request, device_type)
        except KvmError as error:
            return error
        return None

    def create_irqchip(self) -> None:
        """KVM_CREATE_IRQCHIP: how a GICv2 was made before the device control API; raises :class:`KvmError`."""
        self.ioctl("KVM_CREATE_IRQCHIP")

    def set_device_address(self, address_type: str, address: int) -> None:
        """KVM_ARM_SET_DEVICE_ADDR for a GICv2: ``address_type`` is KVM_VGIC_V2_ADDR_TYPE_DIST or _CPU.

        What the group KVM_DEV_ARM_VGIC_GRP_ADDR replaced; raises :class:`KvmError`.
        """
        argument = uapi.kvm_arm_device_addr.layout.pack(
            device_address_id(uapi.KVM_ARM_DEVICE_VGIC_V2, getattr(uapi, address_type)), address
        )
        self.ioctl("KVM_ARM_SET_DEVICE_ADDR", bytearray(argument), address_type)

    def set_counter_offset(self, offset: int) -> None:
        """KVM_ARM_SET_COUNTER_OFFSET: offset of the virtual and physical counters, in ticks."""
        self.ioctl(
            "KVM_ARM_SET_COUNTER_OFFSET",
            bytearray(uapi.kvm_arm_counter_offset.layout.pack(offset, 0)),
        )

    def writable_id_register_masks(self) -> tuple[int, ...]:
        """KVM_ARM_GET_REG_WRITABLE_MASKS: 192 masks of the feature ID space, one a register of 64 bits.

        The place of a register is given by :func:`feature_id_index`. Raises :class:`KvmError` (before Linux 6.7).
        """
        masks = array("Q", bytes(8 * uapi.KVM_ARM_FEATURE_ID_RANGE_SIZE))
        request = pack("=QI13I", masks.buffer_info()[0], uapi.KVM_ARM_FEATURE_ID_RANGE, *[0] * 13)
        self.ioctl("KVM_ARM_GET_REG_WRITABLE_MASKS", bytearray(request))
        return tuple(masks)


def device_address_id(device_id: int, address_type: int) -> int:
    """``kvm_arm_device_addr.id``: device id in bits 31 to 16, address type in bits 15 to 0 (api.rst, 4.85)."""
    return device_id << uapi.KVM_ARM_DEVICE_ID_SHIFT | address_type << uapi.KVM_ARM_DEVICE_TYPE_SHIFT


def feature_id_index(op1: int, crm: int, op2: int) -> int:
    """The place of register S3_<op1>_C0_C<crm>_<op2> in the feature ID space (KVM_ARM_FEATURE_ID_RANGE_IDX).

    op1 is 0, 1 or 3.
    """
    column = 2 if op1 == 3 else op1
    return column << 6 | (crm & 7) << 3 | op2
