"""/dev/kvm: what the kernel says of itself, and new VMs."""

import errno
import os
from functools import cached_property

from vgicmgr.kvm import uapi
from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.errors import KvmError, KvmUnavailable
from vgicmgr.kvm.vm import VM

DEV_KVM = "/dev/kvm"


class System(Descriptor):
    """The system descriptor (``Documentation/virt/kvm/api.rst``, section 2)."""

    def __init__(self, path: str = DEV_KVM) -> None:
        """Open ``path``; raises :class:`KvmUnavailable` with what to do."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise KvmUnavailable(*_why_not(path, error)) from None
        super().__init__(fd)

    def api_version(self) -> int:
        """KVM_GET_API_VERSION: 12 since Linux 2.6.22."""
        return self.ioctl("KVM_GET_API_VERSION")

    def check_extension(self, capability: str) -> int:
        """KVM_CHECK_EXTENSION by the capability's name in the header; 0 is no.

        Raises :class:`KvmError` with EINVAL for those that answer on a VM only (KVM_CAP_MSI_DEVID).
        """
        return self.ioctl("KVM_CHECK_EXTENSION", getattr(uapi, capability), capability)

    @cached_property
    def ipa_limit(self) -> int:
        """KVM_CAP_ARM_VM_IPA_SIZE: bits of the largest guest physical address; 0 before Linux 4.20. Asked once."""
        return self.check_extension("KVM_CAP_ARM_VM_IPA_SIZE")

    def create_vm(self, ipa_bits: int | None = None) -> VM:
        """KVM_CREATE_VM with an IPA size in bits; raises :class:`KvmError`.

        None is as many bits as this host can (:attr:`ipa_limit`), as QEMU makes the VM that it asks the host by
        (target/arm/kvm.c, kvm_arm_create_scratch_host_vcpu). 0 is the kernel's default of 40, which it refuses where
        that is more than the limit (arch/arm64/kvm/mmu.c, kvm_init_ipa_range).

        The kernel allocates interruptibly, so that a signal can make it give up: then it is asked again, as QEMU does
        (accel/kvm/kvm-all.c, do_kvm_create_vm).
        """
        if ipa_bits is None:
            ipa_bits = self.ipa_limit
        while True:
            try:
                return VM(self.ioctl("KVM_CREATE_VM", ipa_bits, f"with an IPA size of {ipa_bits or 40} bits"))
            except KvmError as error:
                if error.errno != errno.EINTR:
                    raise


def _why_not(path: str, error: OSError) -> tuple[str, str]:
    """Why /dev/kvm cannot be opened, and what to do."""
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return (
            f"{path} is not there: this kernel runs without KVM",
            "the CPU must start the kernel at EL2, the firmware must not take that away, "
            "and the kernel needs CONFIG_KVM; see 'dmesg | grep kvm'",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path} may not be opened by this user", "run as root or as a member of the group kvm"
    return f"{path} cannot be opened: {os.strerror(error.errno or 0)}", ""
