"""The kernel of this host, asked for each fact when it is needed, and once."""

import os
from functools import cached_property  # enum has imported functools already

from vgicmgr.host.cpus import read_midrs
from vgicmgr.host.facts import DEFAULT_IPA_BITS
from vgicmgr.kvm import its, uapi, vgic_v2, vgic_v3
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vcpu import sve_vector_lengths
from vgicmgr.kvm.vm import VM

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from types import TracebackType

    from vgicmgr.qemu.program import QEMUFacts
    from vgicmgr.vfio.assigned import AssignedDevices

_GICS = {2: vgic_v2.DEVICE_TYPE, 3: vgic_v3.DEVICE_TYPE}
_ITS_BASE = 0x0808_0000


class Kernel:
    """The host that we are on, by its kernel; meets :class:`~vgicmgr.host.facts.HostFacts`.

    Opens /dev/kvm (:class:`~vgicmgr.kvm.errors.KvmUnavailable`) and is a context manager. It keeps one VM, on which
    it asks what uses nothing up, and which :meth:`take_vm` hands over. SVE's vector lengths, the redistributor regions
    and what an ITS has are asked on VMs of their own: a VM has its vCPU 0 and its GIC once and for good
    (``virt/kvm/kvm_main.c``, ``arch/arm64/kvm/vgic/vgic-init.c``), whatever becomes of their descriptors.
    """

    name = "this host"
    asked = True

    def __init__(self, system: System | None = None) -> None:
        self.system = system or System()
        self._capabilities: dict[str, int] = {}
        self._devices: dict[tuple[str, int], bool] = {}
        self._assigned: dict[tuple[str, ...], AssignedDevices] = {}
        self._emulators: dict[str, QEMUFacts] = {}
        self._vm: VM | None = None
        self._vm_bits: int | None = None

    def __enter__(self) -> "Kernel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the VM and /dev/kvm; a second call does nothing."""
        self._close_vm()
        self.system.close()

    def vm(self, ipa_bits: int | None = None) -> VM:
        """The VM that questions are put to, made with so many bits (None: the host's limit); not the caller's to close.

        A VM of other bits that was kept before is closed. Raises :class:`~vgicmgr.kvm.errors.KvmError`.
        """
        if self._vm is None or self._vm_bits != ipa_bits:
            self._close_vm()
            self._vm, self._vm_bits = self._create_vm(ipa_bits), ipa_bits
        return self._vm

    def take_vm(self, ipa_bits: int | None = None) -> VM | None:
        """Hand over the VM, which the caller then closes; None where there is none of so many bits.

        Nothing was made in it: it has neither a vCPU nor a device.
        """
        if self._vm_bits != ipa_bits:
            return None
        vm, self._vm, self._vm_bits = self._vm, None, None
        return vm

    def _close_vm(self) -> None:
        if self._vm is not None:
            self._vm.close()
        self._vm = None

    def _create_vm(self, ipa_bits: int | None) -> VM:
        return self.system.create_vm() if ipa_bits is None else self.system.create_vm(ipa_bits)

    def _some_vm(self) -> VM:
        """The VM there is, of whatever bits."""
        return self.vm() if self._vm is None else self._vm

    @cached_property
    def kernel(self) -> str:
        """As ``uname -r`` has it."""
        return os.uname().release

    @cached_property
    def page_size(self) -> int:
        """In bytes."""
        return os.sysconf("SC_PAGE_SIZE")

    @property
    def ipa_bits(self) -> int:
        """KVM_CAP_ARM_VM_IPA_SIZE."""
        return self.capability("KVM_CAP_ARM_VM_IPA_SIZE") or DEFAULT_IPA_BITS

    def capability(self, name: str) -> int:
        """KVM_CHECK_EXTENSION on /dev/kvm, and of KVM_CAP_MSI_DEVID on a VM: the kernel answers it nowhere else."""
        if name not in self._capabilities:
            descriptor = self._some_vm() if name == "KVM_CAP_MSI_DEVID" else self.system
            self._capabilities[name] = descriptor.check_extension(name)
        return self._capabilities[name]

    def gic_versions(self, ipa_bits: int) -> frozenset[int]:
        """By KVM_CREATE_DEVICE_TEST."""
        return frozenset(version for version, device in _GICS.items() if self._makes(device, ipa_bits))

    def its(self, ipa_bits: int) -> bool:
        """By KVM_CREATE_DEVICE_TEST."""
        return self._makes(its.DEVICE_TYPE, ipa_bits)

    def _makes(self, device: str, ipa_bits: int) -> bool:
        if (device, ipa_bits) not in self._devices:
            self._devices[device, ipa_bits] = self.vm(ipa_bits).test_device(device)
        return self._devices[device, ipa_bits]

    @cached_property
    def sve_vector_lengths(self) -> tuple[int, ...]:
        """KVM_REG_ARM64_SVE_VLS of a vCPU that has it."""
        if not self.capability("KVM_CAP_ARM_SVE"):
            return ()
        with self.system.create_vm() as vm, vm.create_vcpu() as vcpu:
            vcpu.init(vm.preferred_target(), ["KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_SVE"])
            return sve_vector_lengths(vcpu.get_register(uapi.KVM_REG_ARM64_SVE_VLS))

    @cached_property
    def redistributor_regions(self) -> bool:
        """KVM_HAS_DEVICE_ATTR of a GICv3."""
        with self.system.create_vm() as vm:
            if not vm.test_device(vgic_v3.DEVICE_TYPE):
                return False
            with vgic_v3.VGICv3(vm) as gic:
                return gic.has_attribute(vgic_v3.REDIST_REGION)

    @property
    def gits_typer(self) -> int | None:
        """As an ITS has it that was given an address, without which its registers cannot be read."""
        return self._its_facts[0]

    @property
    def msi_devid(self) -> bool | None:
        """KVM_CAP_MSI_DEVID of a VM with an ITS, which is what it says (vgic_its_create); None without one."""
        return self._its_facts[1]

    @cached_property
    def _its_facts(self) -> tuple[int | None, bool | None]:
        with self.system.create_vm() as vm:
            if not (vm.test_device(vgic_v3.DEVICE_TYPE) and vm.test_device(its.DEVICE_TYPE)):
                return None, None
            with vgic_v3.VGICv3(vm) as gic, vm.create_vcpu() as vcpu:
                vcpu.init(vm.preferred_target(), ["KVM_ARM_VCPU_PSCI_0_2"])
                gic.set_attribute(vgic_v3.CTRL_INIT)
                with its.ITS(vm) as device:
                    device.set_attribute(its.CTRL_INIT)
                    device.set_attribute(its.ADDR, _ITS_BASE)
                    typer = device.get_attribute(its.register(its.GITS_TYPER))
                    return typer, bool(vm.check_extension("KVM_CAP_MSI_DEVID"))

    @cached_property
    def direct_injection(self) -> str:
        """By the kernel log, which only some users may read."""
        from vgicmgr.host.linux import read_kernel_log

        log = read_kernel_log()
        return (log.gicv4_version or "") if log.gicv4 else ""

    def midrs(self, cpus: "Collection[int]") -> dict[int, int]:
        """By sysfs, each time: CPUs come and go."""
        return read_midrs(cpus or None)

    def takes_target(self, target: str) -> bool | None:
        """Only KVM_ARM_VCPU_INIT tells, by the core that it runs on (``arch/arm64/kvm/guest.c``, kvm_target_cpu)."""
        del target
        return None

    def assigned(self, addresses: "Iterable[str]") -> "AssignedDevices":
        """By sysfs and VFIO."""
        from vgicmgr.vfio.assigned import read_assigned  # few domains have any

        names = tuple(dict.fromkeys(addresses))
        if names not in self._assigned:
            self._assigned[names] = read_assigned(names)
        return self._assigned[names]

    def qemu(self, emulator: str) -> "QEMUFacts":
        """By its program file, which is read when something of it is asked."""
        from vgicmgr.qemu.program import InstalledQEMU

        if emulator not in self._emulators:
            self._emulators[emulator] = InstalledQEMU(emulator)
        return self._emulators[emulator]
