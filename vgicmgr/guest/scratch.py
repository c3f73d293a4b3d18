"""The scratch VM: a call plan carried out on a throw-away VM of this host's kernel, which then stays open to be asked.

No vCPU is run and no memory is given. All descriptors are closed at the end, also when a signal's handler raises
(SIGINT); a signal that ends the process (SIGTERM) has the kernel close them.
"""

import errno
from collections.abc import Sequence
from contextlib import ExitStack

from vgicmgr.findings import Finding, Verdict, finding
from vgicmgr.guest.plan import (
    AddVFIOFile,
    Call,
    CreateDevice,
    CreateIRQChip,
    CreateVCPU,
    CreateVM,
    EnableCapability,
    FinalizeVCPU,
    GetRegisterList,
    InitVCPU,
    SetDeviceAddress,
    SetDeviceAttribute,
    SetPSCIVersion,
    SetVCPUAttribute,
    SetVectorLengths,
    VCPUCall,
)
from vgicmgr.kvm import its, uapi, vfio, vgic_v2, vgic_v3
from vgicmgr.kvm.attribute import Attribute
from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vcpu import VCPU, sve_vls
from vgicmgr.kvm.vgic_v3 import RedistributorRegion
from vgicmgr.kvm.vm import VM

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from typing import Protocol, Self

    class HasVM(Protocol):
        """Who may have a VM to give that was not used up (:class:`vgicmgr.host.kernel.Kernel`)."""

        def take_vm(self, ipa_bits: int) -> VM | None:
            """That VM, which is the taker's from then on."""


class ScratchVM:
    """A throw-away VM, and what was made in it; a context manager.

    ``plan`` is carried out by :meth:`bring_up`, up to its end or the first call that the kernel refuses: its first
    ``succeeded`` calls did, and ``error`` is the kernel's answer to the next one, if any.
    """

    def __init__(self, system: System, host: "HasVM | None" = None) -> None:
        self.plan: tuple[Call, ...] = ()
        self.succeeded = 0
        self.error: KvmError | None = None
        self.register_list: tuple[int, ...] = ()
        """The ids of the first vCPU's registers that QEMU carries in its list, ascending, once the plan has asked."""
        self._system, self._host = system, host
        self._descriptors = ExitStack()
        self._vm: VM | None = None
        self._vcpus: dict[int, VCPU] = {}
        self._devices: dict[str, Descriptor] = {}

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self._descriptors.close()

    @property
    def refused(self) -> Call | None:
        """The call that the kernel refused."""
        return self.plan[self.succeeded] if self.error else None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The refusal as a finding."""
        if self.error is None or self.refused is None:
            return ()
        return (_finding(self.refused, self.error),)

    @property
    def verdict(self) -> Verdict:
        """Whether the kernel carried out all of it."""
        return Verdict(self.findings)

    def bring_up(self, plan: Sequence[Call]) -> None:
        """Carry ``plan`` out.

        No VFIO file is opened, so KVM's VFIO device is made and told of none: :class:`AddVFIOFile` is left out. Raises
        :class:`ValueError` for a plan that uses a VM, vCPU or device before it makes it.
        """
        self.plan = tuple(call for call in plan if not isinstance(call, AddVFIOFile))
        for call in self.plan:
            try:
                self.carry_out(call)
            except KvmError as error:
                self.error = error
                return
            self.succeeded += 1

    def vm(self) -> VM:
        """The VM; :class:`ValueError` before it is made."""
        if self._vm is None:
            raise ValueError("a call plan makes its VM first")
        return self._vm

    def vcpu(self, number: int) -> VCPU:
        """The vCPU with this id; :class:`ValueError` before it is made."""
        if number not in self._vcpus:
            raise ValueError(f"a call plan makes vCPU {number} before it uses it")
        return self._vcpus[number]

    def device(self, device_type: str) -> Descriptor:
        """The device last made of this type (KVM_DEV_TYPE_*); :class:`ValueError` before it is made."""
        if device_type not in self._devices:
            raise ValueError(f"a call plan makes a {device_type} before it uses it")
        return self._devices[device_type]

    def carry_out(self, call: Call) -> None:
        """Make one call; raises :class:`KvmError` when the kernel refuses it."""
        match call:
            case CreateVM():
                vm = (self._host and self._host.take_vm(call.ipa_bits)) or self._system.create_vm(call.ipa_bits)
                self._vm = self._descriptors.enter_context(vm)
            case EnableCapability():
                self.vm().enable_capability(call.capability)
            case CreateVCPU():
                self._vcpus[call.vcpu] = self._descriptors.enter_context(self.vm().create_vcpu(call.vcpu))
            case CreateIRQChip():
                self.vm().create_irqchip()
            case CreateDevice():
                fd = self.vm().create_device(call.device_type)
                self._devices[call.device_type] = self._descriptors.enter_context(Descriptor(fd))
            case SetDeviceAttribute():
                device = self.device(call.device_type)
                device.set_attribute(*_by_base(device, call.attribute, *_fields(call.value)))
            case SetDeviceAddress():
                self.vm().set_device_address(call.address_type, call.address)
            case AddVFIOFile():
                pass  # no VFIO file is opened
            case _:
                self._carry_out_on(self.vcpu(call.vcpu), call)

    def _carry_out_on(self, vcpu: VCPU, call: VCPUCall) -> None:
        match call:
            case InitVCPU():
                target = getattr(uapi, call.target) if call.target else self.vm().preferred_target()
                vcpu.init(target, call.features)
            case SetVectorLengths():
                vcpu.set_register(uapi.KVM_REG_ARM64_SVE_VLS, sve_vls(call.lengths))
            case FinalizeVCPU():
                vcpu.finalize(call.feature)
            case SetPSCIVersion():
                vcpu.set_register(uapi.KVM_REG_ARM_PSCI_VERSION, call.version)
            case GetRegisterList():
                from vgicmgr.qemu.registers import migrates_in_list  # a start asks for no registers

                self.register_list = tuple(sorted(filter(migrates_in_list, vcpu.register_ids())))
            case SetVCPUAttribute():
                vcpu.set_attribute(call.attribute, *_fields(call.value))


def rehearse(plan: Sequence[Call], system: System) -> ScratchVM:
    """Carry ``plan`` out on a VM of its own, and close it: how it went stays in what is returned."""
    with ScratchVM(system) as scratch:
        scratch.bring_up(plan)
    return scratch


def _by_base(device: Descriptor, attribute: Attribute, *value: int) -> "tuple[Attribute, *tuple[int, ...]]":
    """The only region of redistributors, set by its base where the kernel knows no regions (kvm_arm_gicv3_realize)."""
    if attribute != vgic_v3.REDIST_REGION or device.has_attribute(attribute):
        return attribute, *value
    return vgic_v3.REDIST_ADDR, *(RedistributorRegion.decode(one).base for one in value)


def _fields(value: int | None) -> tuple[int, ...]:
    return () if value is None else (value,)


def _finding(call: Call, error: KvmError) -> Finding:
    name, remedy = _name_and_remedy(call, error.errno)
    evidence = f"the kernel refuses {call}: {error.errno_name}, {error.meaning}"
    return finding(name, evidence, remedy)


_LARGER_IPA = "use a host with more bits of guest physical address (KVM_CAP_ARM_VM_IPA_SIZE), or give less memory"
_OTHER_ADDRESS = "give it another address, aligned and clear of the guest's other devices"
_SEE_CHECK_HOST = "see 'vgicmgr check-host' for what this host's kernel can give"
_CREATE_DEVICE = {
    its.DEVICE_TYPE: ("its-refused", "turn the ITS off, or use a host whose 'vgicmgr check-host' shows an ITS"),
    vgic_v2.DEVICE_TYPE: (
        "gic-refused",
        "set <gic version='3'/>, or use a host whose 'vgicmgr check-host' shows a GICv2",
    ),
    vgic_v3.DEVICE_TYPE: (
        "gic-refused",
        "set <gic version='2'/>, or use a host whose 'vgicmgr check-host' shows a GICv3",
    ),
    vfio.DEVICE_TYPE: ("vfio-refused", "boot a kernel with CONFIG_KVM_VFIO, or take the assigned devices out"),
}
"""The finding's name and the remedy where a device of this type cannot be made."""


def _name_and_remedy(call: Call, number: int) -> tuple[str, str]:
    """The finding's name, by what was to be brought up, and what to do about this errno there."""
    match call:
        case CreateVM() | EnableCapability():
            too_large = isinstance(call, CreateVM) and number == errno.EINVAL
            return "vm-refused", _LARGER_IPA if too_large else _SEE_CHECK_HOST
        case CreateVCPU():
            return "vcpu-refused", "set <vcpu> to less, or use a host with a larger KVM_CAP_MAX_VCPUS"
        case InitVCPU() if call.target:
            return "cpu-model-unsupported", "set <cpu mode='host-passthrough'/>"
        case InitVCPU() | FinalizeVCPU() | GetRegisterList():
            return "vcpu-refused", f"turn CPU features off, or use a host that has them; {_SEE_CHECK_HOST}"
        case SetPSCIVersion():
            return "vcpu-refused", "set kvm-psci-version to one that this kernel has, or remove it"
        case SetVectorLengths():
            return "vcpu-refused", "choose SVE vector lengths that 'vgicmgr check-host' shows"
        case SetVCPUAttribute():
            return "pmu-refused", "set <pmu state='off'/>, or use a host whose 'vgicmgr check-host' shows a PMU"
        case CreateIRQChip():
            return "gic-refused", "set <gic version='3'/>, or use a host that can give a GICv2"
        case CreateDevice() if call.device_type in _CREATE_DEVICE:
            return _CREATE_DEVICE[call.device_type]
        case SetDeviceAttribute():
            name = "its-refused" if call.device_type == its.DEVICE_TYPE else "gic-refused"
            if call.attribute.group == "KVM_DEV_ARM_VGIC_GRP_ADDR":
                return name, _LARGER_IPA if number == errno.E2BIG else _OTHER_ADDRESS
            return name, _SEE_CHECK_HOST
        case SetDeviceAddress():
            return "gic-refused", _LARGER_IPA if number == errno.E2BIG else _OTHER_ADDRESS
    return "gic-refused", _SEE_CHECK_HOST
