"""What a refusal by KVM means: the errno of each call, as the kernel documents it.

Sources: ``Documentation/virt/kvm/api.rst`` and ``Documentation/virt/kvm/devices/*.rst``; where these are silent, the
place in ``arch/arm64/kvm`` is named.
"""

import errno
import os
from collections.abc import Mapping

from vgicmgr.errors import CannotTell, VgicmgrError


class KvmUnavailable(CannotTell):
    """/dev/kvm cannot be used, so no question can be put to this kernel."""


class IoctlError(VgicmgrError):
    """An ioctl that the kernel refused.

    ``call`` is the ioctl, ``subject`` what it was about (a device type, attribute or register, by its header's name, or
    empty), ``errno`` the kernel's answer.
    """

    def __init__(self, call: str, subject: str, number: int, group: str = "") -> None:
        self.call = call
        self.subject = subject
        self.group = group
        self.errno = number
        super().__init__(f"{self.question}: {self.errno_name}, {self.meaning}")

    @property
    def meanings(self) -> Mapping[str, Mapping[int, str]]:
        """What an errno says, by call, attribute or group."""
        return {}

    @property
    def question(self) -> str:
        """The call and what it was about."""
        return f"{self.call} {self.subject}".rstrip()

    @property
    def errno_name(self) -> str:
        """The errno's name, such as ``ENODEV``."""
        return errno.errorcode.get(self.errno, str(self.errno))

    @property
    def meaning(self) -> str:
        """What this errno says of this very call; the general meaning where the kernel documents none."""
        for key in (self.subject, self.group, self.call):
            if self.errno in self.meanings.get(key, {}):
                return self.meanings[key][self.errno]
        return os.strerror(self.errno).lower()


class KvmError(IoctlError):
    """An ioctl that KVM refused."""

    @property
    def meanings(self) -> Mapping[str, Mapping[int, str]]:
        """What KVM's errnos say."""
        return MEANINGS


_ATTRIBUTE = {
    errno.ENXIO: "the group or attribute is unknown, or hardware support is missing",
    errno.EPERM: "the attribute cannot be accessed this way, or not in this state",
    errno.EFAULT: "the address of the attribute's data is invalid",
    errno.ENOTTY: "this kernel has no attributes here",
}

_SET_ADDR = {
    errno.E2BIG: "address outside the guest's physical address space (IPA)",
    errno.EINVAL: "address not aligned, region overlapping, or a bad redistributor region",
    errno.EEXIST: "address already set",
    errno.ENOENT: "no such redistributor region",
    errno.ENODEV: "address type unknown to this device, or the device is not supported",
    errno.EBUSY: "read-only after initialization",
}

_REGISTERS = {
    errno.ENXIO: "no such register here",
    errno.EBUSY: "a vCPU is running, or the GIC is not initialized yet",  # vgic_v3_attr_regs_access
    errno.EINVAL: "no such vCPU, a misaligned offset, or a value this kernel does not accept",
}

_CTRL = {
    errno.ENXIO: "the device is not configured as this needs",
    errno.ENODEV: "no vCPU exists yet",
    errno.ENOMEM: "out of memory for the device's internal data",
    errno.EFAULT: "guest memory is not accessible",
    errno.EBUSY: "a vCPU is running",
    errno.EINVAL: "inconsistent data in the tables to restore",
    errno.EACCES: "the state lives in a physical GICv4 ITS and cannot be read without GICv4.1",
}

_NR_IRQS = {
    errno.EINVAL: "not a multiple of 32 from 64 to 1024",
    errno.EBUSY: "already set, or the GIC is initialized already",
}

MEANINGS: dict[str, dict[int, str]] = {
    "KVM_CREATE_VM": {
        errno.EINVAL: "IPA size or VM type not supported by this host",
        errno.ENOMEM: "out of memory for a new VM",
    },
    "KVM_CHECK_EXTENSION": {errno.EINVAL: "this capability answers on a VM only"},
    "KVM_CREATE_VCPU": {
        errno.EINVAL: "vCPU id beyond KVM_CAP_MAX_VCPU_ID, or more vCPUs than this VM can have",
        errno.E2BIG: "more vCPUs than the VM's interrupt controller supports",
        errno.EEXIST: "a vCPU with this id exists already",
        errno.EBUSY: "the VM's interrupt controller is initialized already",
    },
    "KVM_CREATE_IRQCHIP": {
        errno.EEXIST: "the VM has an interrupt controller already",
        errno.ENODEV: "this host's KVM cannot give a GICv2",
        errno.ENXIO: "this kernel has no in-kernel interrupt controller",
        errno.EBUSY: "a vCPU has run already",
        errno.EINVAL: "this host's KVM cannot give a GICv2",
    },
    "KVM_CREATE_DEVICE": {
        errno.ENODEV: "device type unknown to this kernel or not supported on this host",
        errno.EEXIST: "the VM has such a device already and can have only one",
        errno.EBUSY: "a vCPU has run already",
        errno.E2BIG: "the VM has more vCPUs than this device supports",
        errno.EPERM: "VGICv2 is refused, since an ITS or VGICv3 stands in the way",
    },
    "KVM_ARM_SET_DEVICE_ADDR": {
        errno.ENODEV: "device id unknown",
        errno.ENXIO: "device not supported on this host",
        errno.EEXIST: "address already set",
        errno.E2BIG: "address outside the guest's physical address space (IPA)",
        errno.EBUSY: "address overlaps with another device's",
        errno.EINVAL: "address not aligned",
    },
    "KVM_ENABLE_CAP": {errno.EINVAL: "capability unknown, unsupported, or too late since vCPUs exist"},
    "KVM_ARM_PREFERRED_TARGET": {errno.ENODEV: "no preferred CPU target on this host"},
    "KVM_ARM_SET_COUNTER_OFFSET": {
        errno.EBUSY: "a vCPU is running",
        errno.EINVAL: "reserved field not zero",
    },
    "KVM_ARM_GET_REG_WRITABLE_MASKS": {
        errno.EINVAL: "unknown range or reserved field not zero",
        errno.ENOTTY: "this kernel does not tell which ID register bits can be written (before Linux 6.7)",
    },
    "KVM_ARM_VCPU_INIT": {
        errno.EINVAL: "unknown target, or a combination of features this host cannot give",
        errno.ENOENT: "a feature bit is unknown to this kernel",
        errno.ENOEXEC: "the vCPU was not initialized",
    },
    "KVM_ARM_VCPU_FINALIZE": {
        errno.EPERM: "feature not enabled, not configured, or finalized already",
        errno.EINVAL: "feature unknown or not present",
    },
    "KVM_GET_REG_LIST": {
        errno.E2BIG: "the array is too small for the list",
        errno.ENOEXEC: "the vCPU was not initialized",
        errno.EPERM: "the vCPU is not finalized (KVM_ARM_VCPU_FINALIZE)",
    },
    "KVM_GET_ONE_REG": {
        errno.ENOENT: "no such register on this vCPU",
        errno.EINVAL: "invalid register id",
        errno.EPERM: "not before the vCPU is finalized",
        errno.ENOEXEC: "the vCPU was not initialized",
    },
    "KVM_SET_ONE_REG": {
        errno.ENOENT: "no such register on this vCPU",
        errno.EINVAL: "invalid register id, or a value this kernel does not accept",
        errno.EPERM: "not in this state of the vCPU",
        errno.EBUSY: "the vCPU has run already, the value is fixed",
        errno.ENOEXEC: "the vCPU was not initialized",
    },
    "KVM_HAS_DEVICE_ATTR": _ATTRIBUTE,
    "KVM_GET_DEVICE_ATTR": _ATTRIBUTE,
    "KVM_SET_DEVICE_ATTR": _ATTRIBUTE,
    "KVM_DEV_ARM_VGIC_GRP_ADDR": _SET_ADDR,
    "KVM_DEV_ARM_VGIC_GRP_DIST_REGS": _REGISTERS,
    "KVM_DEV_ARM_VGIC_GRP_REDIST_REGS": _REGISTERS,
    "KVM_DEV_ARM_VGIC_GRP_CPU_REGS": _REGISTERS,
    "KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS": _REGISTERS,
    "KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO": {
        errno.EINVAL: "vINTID is no multiple of 32, or the info field is not VGIC_LEVEL_INFO_LINE_LEVEL",
    },
    "KVM_DEV_ARM_VGIC_GRP_ITS_REGS": {
        errno.ENXIO: "no such ITS register",
        errno.EINVAL: "offset not 64-bit aligned, or a table ABI revision this kernel does not know",
        errno.EBUSY: "a vCPU is running",
    },
    "KVM_DEV_ARM_VGIC_GRP_NR_IRQS": _NR_IRQS,
    "KVM_DEV_ARM_VGIC_GRP_CTRL": _CTRL,
    "KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ": {
        errno.EINVAL: "not a PPI",
        errno.EBUSY: "the GIC is initialized already",
    },
    "KVM_ARM_VCPU_PMU_V3_IRQ": {
        errno.EBUSY: "the PMU interrupt is already set",
        errno.ENXIO: "no PMUv3 on this host, or the interrupt is not set",
        errno.ENODEV: "the vCPU was made without the feature KVM_ARM_VCPU_PMU_V3",
        errno.EINVAL: (
            "not a valid PMU interrupt (a PPI is shared by all vCPUs, an SPI must differ on each), or no in-kernel GIC"
        ),
    },
    "KVM_ARM_VCPU_PMU_V3_INIT": {
        errno.EEXIST: "the interrupt number is in use already",
        errno.ENODEV: "no PMUv3, or the GIC is not initialized",
        errno.ENXIO: "no PMUv3, the vCPU feature is missing, or the interrupt is not set",
        errno.EBUSY: "the PMU is initialized already",
    },
    "KVM_ARM_VCPU_PMU_V3_FILTER": {
        errno.ENODEV: "no PMUv3, or the GIC is not initialized",
        errno.ENXIO: "PMU or in-kernel GIC not configured as this needs",
        errno.EBUSY: "the PMU is initialized already, or a vCPU has run",
        errno.EINVAL: "invalid event range",
    },
    "KVM_ARM_VCPU_PMU_V3_SET_PMU": {
        errno.EBUSY: "the PMU is initialized already, a vCPU has run, or a filter is set",
        errno.ENXIO: "no such PMU on this host",
        errno.ENODEV: "no PMUv3, or the GIC is not initialized",
    },
    "KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS": {
        errno.EBUSY: "the PMU is initialized already, a vCPU has run, or a filter is set",
        errno.ENODEV: "no PMUv3, or the GIC is not initialized",
        errno.EINVAL: "no PMU chosen by KVM_ARM_VCPU_PMU_V3_SET_PMU, or more counters than it has",
    },
    "KVM_ARM_VCPU_TIMER_CTRL": {
        errno.EINVAL: "not a PPI (16 to 31), or no in-kernel GIC",
        errno.EBUSY: "a vCPU has run already",
    },
    "KVM_ARM_VCPU_PVTIME_IPA": {
        errno.ENXIO: "stolen time is not implemented on this host",
        errno.EEXIST: "address already set for this vCPU",
        errno.EINVAL: "address not 64-byte aligned or outside guest memory",
    },
    "KVM_DEV_VFIO_FILE": {
        errno.EBADF: "not an open file descriptor",
        errno.EINVAL: "not a VFIO file",
        errno.EEXIST: "the file is registered already",
        errno.ENOENT: "the file is not registered",
    },
}
