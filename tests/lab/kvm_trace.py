"""What a program really calls: ``inside/kvm_trace.c`` compiled and put before it, and its lines read as a call plan."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import unpack, unpack_from

from tests.lab import debian
from tests.lab.errors import Prerequisite
from tests.lab.host import Host
from tests.lab.spec import Release
from vgicmgr.guest.plan import (
    AddVFIOFile,
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
)
from vgicmgr.kvm import its, uapi, vcpu, vfio, vgic_v2, vgic_v3
from vgicmgr.kvm.attribute import Attribute

SOURCE = Path(__file__).parent / "inside" / "kvm_trace.c"


def library(folder: Path) -> bytes:
    """The preload library for the hosts; raises :class:`Prerequisite` without a compiler for arm64."""
    compiler = "cc" if debian.native_architecture() == "arm64" else "aarch64-linux-gnu-gcc"
    if not shutil.which(compiler):
        raise Prerequisite(f"no {compiler}: install gcc, or gcc-aarch64-linux-gnu and libc6-dev-arm64-cross")
    built = folder / "kvm_trace.so"
    headers = debian.headers(Release.SID)
    options = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-isystem", headers, SOURCE, "-o", built], check=True)
    return built.read_bytes()


EMULATOR = "/usr/local/bin/traced-qemu"
WRAPPER = """\
#!/bin/sh
# libvirt also runs its emulator to learn what it can do
case "$*" in
*-name\\ guest=*) export LD_PRELOAD=/usr/local/lib/kvm_trace.so KVM_TRACE=/tmp/libvirt.trace ;;
esac
exec /usr/bin/qemu-system-aarch64 "$@"
"""


def of_libvirts_qemu(host: Host, library: bytes, xml: str) -> str:
    """The trace of the QEMU by which libvirt starts this domain, called ``guest``, and ends it."""
    host.push("/usr/local/lib/kvm_trace.so", library, mode=0o755)
    host.push(EMULATOR, WRAPPER, mode=0o755)
    host.push("/tmp/traced.xml", xml.replace("/usr/bin/qemu-system-aarch64", EMULATOR))
    host.run(["rm", "-f", "/tmp/libvirt.trace"])
    host.run(["virsh", "create", "--paused", "/tmp/traced.xml"], timeout=120, check=True)
    host.run(["virsh", "destroy", "guest"], check=True)
    return host.pull("/tmp/libvirt.trace").decode()


@dataclass(frozen=True)
class Line:
    """One ioctl: on which descriptor, and the descriptor that it made (or its return value)."""

    fd: int
    request: int
    result: int
    errno: int
    argument: str
    data: bytes
    """What the argument points to with its own ``addr``, as far as it was written down."""

    @classmethod
    def parse(cls, text: str) -> "Line":
        fd, request, result, errno, argument, data = text.split()
        return cls(int(fd), int(request, 16), int(result), int(errno), argument, bytes.fromhex(data.strip("-")))

    @property
    def structure(self) -> bytes:
        return bytes.fromhex(self.argument)


def bring_up(trace: str) -> tuple[Call, ...]:
    """The calls of a trace that a call plan is about, on the VM that got an interrupt controller.

    QEMU also makes a throw-away VM to learn of the host's CPU, and initializes a vCPU again at each reset.
    """
    lines = [Line.parse(text) for text in trace.splitlines()]
    assert not [line for line in lines if line.errno and not _only_asks(line)], trace
    machines = [tuple(calls) for calls in _machines(lines)]
    (real,) = [calls for calls in machines if any(isinstance(call, CreateDevice | CreateIRQChip) for call in calls)]
    return tuple(_first_initializations(real))


def _only_asks(line: Line) -> bool:
    if line.request == uapi.KVM_CREATE_DEVICE:
        return bool(uapi.kvm_create_device.layout.unpack(line.structure)[2] & uapi.KVM_CREATE_DEVICE_TEST)
    return line.request in (uapi.KVM_HAS_DEVICE_ATTR, uapi.KVM_ENABLE_CAP)


def _machines(lines: Sequence[Line]) -> list[list[Call]]:
    """The calls by VM, in the order of the VMs; descriptors are used again once they are closed."""
    machines: list[list[Call]] = []
    owner: dict[int, tuple[int, str | int]] = {}
    for line in lines:
        if line.request == uapi.KVM_CREATE_VM:
            owner[line.result] = (len(machines), "VM")
            machines.append([CreateVM(int(line.argument, 16))])
            continue
        number, what = owner[line.fd]
        if call := _call(line, what):
            machines[number].append(call)
        if isinstance(call, CreateVCPU):
            owner[line.result] = (number, call.vcpu)
        elif isinstance(call, CreateDevice):
            owner[line.result] = (number, call.device_type)
    return machines


def _call(line: Line, what: str | int) -> Call | None:
    """The line as a call on ``what``: ``VM``, a device type or the id of a vCPU; None if plans are not about it."""
    if line.errno:
        return None
    match line.request, what:
        case uapi.KVM_CREATE_VCPU, _:
            return CreateVCPU(int(line.argument, 16))
        case uapi.KVM_CREATE_IRQCHIP, _:
            return CreateIRQChip()
        case uapi.KVM_CREATE_DEVICE, _:
            number, _, flags = uapi.kvm_create_device.layout.unpack(line.structure)
            return None if flags else CreateDevice(_name("KVM_DEV_TYPE_", number))
        case uapi.KVM_ARM_SET_DEVICE_ADDR, "VM":
            device_id, address = uapi.kvm_arm_device_addr.layout.unpack(line.structure)
            return SetDeviceAddress(_name("KVM_VGIC_V2_ADDR_TYPE_", device_id), address)
        case uapi.KVM_ARM_VCPU_INIT, int(vcpu_id):
            words = uapi.kvm_vcpu_init.layout.unpack(line.structure)[1:]
            bits = [n for n in range(32 * len(words)) if words[n // 32] >> n % 32 & 1]
            return InitVCPU(vcpu_id, tuple(_name("KVM_ARM_VCPU_", bit, VCPU_FEATURES) for bit in bits))
        case uapi.KVM_ARM_VCPU_FINALIZE, int(vcpu_id):
            (feature,) = unpack("=i", line.structure)
            return FinalizeVCPU(vcpu_id, _name("KVM_ARM_VCPU_", feature, VCPU_FEATURES))
        case uapi.KVM_SET_ONE_REG, int(vcpu_id):
            vls = int.from_bytes(line.data, "little")
            return SetVectorLengths(vcpu_id, tuple(128 * (n + 1) for n in range(512) if vls >> n & 1))
        case uapi.KVM_SET_DEVICE_ATTR, _:
            return _setting(line, what)
    return None


VCPU_FEATURES = (
    "POWER_OFF",
    "EL1_32BIT",
    "PSCI_0_2",
    "PMU_V3",
    "SVE",
    "PTRAUTH_ADDRESS",
    "PTRAUTH_GENERIC",
    "HAS_EL2",
    "HAS_EL2_E2H0",
)
"""What of the names KVM_ARM_VCPU_* is a feature, and no attribute."""

ATTRIBUTES: dict[str, tuple[Attribute, ...]] = {
    vgic_v2.DEVICE_TYPE: (vgic_v2.DIST_ADDR, vgic_v2.CPU_ADDR, vgic_v2.NR_IRQS, vgic_v2.CTRL_INIT),
    vgic_v3.DEVICE_TYPE: (
        vgic_v3.DIST_ADDR,
        vgic_v3.REDIST_ADDR,
        vgic_v3.REDIST_REGION,
        vgic_v3.NR_IRQS,
        vgic_v3.CTRL_INIT,
        vgic_v3.MAINT_IRQ,
    ),
    its.DEVICE_TYPE: (its.ADDR, its.CTRL_INIT),
    "vCPU": (vcpu.PMU_IRQ, vcpu.PMU_INIT, vcpu.PMU_FILTER, vcpu.PMU_SET_PMU),
}
"""The attributes that a plan may be about, by what has them; all others are registers, and state saved or restored."""


def _setting(line: Line, what: str | int) -> Call | None:
    _, group, number, address = uapi.kvm_device_attr.layout.unpack(line.structure)
    if what == vfio.DEVICE_TYPE:
        added = (group, number) == (vfio.FILE_ADD.group_number, vfio.FILE_ADD.number)
        return AddVFIOFile(line.data.decode()) if added else None
    for attribute in ATTRIBUTES.get("vCPU" if isinstance(what, int) else what, ()):
        if (attribute.group_number, attribute.number) == (group, number):
            assert bool(attribute.data) == bool(address)
            value = unpack_from("=" + attribute.data, line.data)[0] if address else None
            if isinstance(what, int):
                return SetVCPUAttribute(what, attribute, value)
            return SetDeviceAttribute(what, attribute, value)
    return None


def _name(prefix: str, number: int, among: Sequence[str] = ()) -> str:
    """The header's name of a number."""
    names = [name for name, value in vars(uapi).items() if name.startswith(prefix) and value == number]
    (name,) = [name for name in names if not among or name.removeprefix(prefix) in among]
    return name


def _first_initializations(calls: Sequence[Call]) -> Iterator[Call]:
    """A reset may only add KVM_ARM_VCPU_POWER_OFF to the features."""
    features: dict[int, tuple[str, ...]] = {}
    for call in calls:
        if not isinstance(call, InitVCPU):
            yield call
        elif call.vcpu not in features:
            features[call.vcpu] = call.features
            yield call
        else:
            assert set(call.features) - {"KVM_ARM_VCPU_POWER_OFF"} == set(features[call.vcpu])
