"""The call plan is what QEMU really calls, in order and with its arguments, for the configuration a domain comes to.

QEMU runs with a library before it that writes its ioctls down (``inside/kvm_trace.c``): once by the arguments that
``translate --format qemu-args`` gives, and once started by libvirt from the domain XML itself.
"""

from dataclasses import dataclass

import pytest

from tests.lab import kvm_trace
from tests.lab.conftest import LabHost
from tests.lab.domains import Guest
from tests.lab.host import Host
from tests.lab.spec import HOSTS, HostSpec, Release
from vgicmgr.domain.domain import QEMU_NAMESPACE
from vgicmgr.domain.xml import read_domain
from vgicmgr.guest.document import qemu_arguments
from vgicmgr.guest.plan import Call, CreateDevice, SetVCPUAttribute, SetVectorLengths, call_plan
from vgicmgr.guest.resolve import Resolution, resolve
from vgicmgr.host.documented import DocumentedHost, read_document
from vgicmgr.kvm import its


@dataclass(frozen=True)
class Domain:
    """A domain, and what must be in its plan whatever else is: so that no two cases are the same by mistake."""

    guest: Guest
    machine: str = ""
    """More of ``-machine``, for which libvirt has no element."""
    its: bool = True
    pmu: bool = True
    sve: bool = False

    def xml(self) -> str:
        xml = self.guest.xml()
        if not self.machine:
            return xml
        arguments = f"<qemu:arg value='-machine'/><qemu:arg value='{self.machine}'/>"
        return xml.replace("<domain ", f"<domain xmlns:qemu='{QEMU_NAMESPACE}' ", 1).replace(
            "</domain>", f"<qemu:commandline>{arguments}</qemu:commandline></domain>"
        )


OFF = "<pmu state='off'/>"
GICV3 = {
    "ITS and PMU": Domain(Guest(vcpus=2)),
    "no ITS": Domain(Guest(), machine="its=off", its=False),
    "no PMU": Domain(Guest(pmu=OFF), pmu=False),
    "neither, two redistributor regions": Domain(Guest(vcpus=124, pmu=OFF), machine="its=off", its=False, pmu=False),
}
GICV2 = {
    "PMU": Domain(Guest(vcpus=8), its=False),
    "no PMU": Domain(Guest(pmu=OFF), its=False, pmu=False),
}
SVE = {
    "SVE": Domain(Guest(vcpus=2), sve=True),
    "SVE of 256 bits": Domain(
        Guest(cpu="<cpu mode='host-passthrough'><feature name='sve256' policy='require'/></cpu>"), sve=True
    ),
}
SVE_HOSTS = {Release.BOOKWORM: "max-bookworm", Release.TRIXIE: "max", Release.SID: "max-sid"}

CASES = [
    pytest.param(spec, domain, id=f"{release}, GICv{spec.gic}: {name}")
    for release in Release
    for spec, domains in (
        (HOSTS[release], GICV3),
        (HostSpec(release, cpu="cortex-a57", gic=2), GICV2),
        (HOSTS[SVE_HOSTS[release]], SVE),
    )
    for name, domain in domains.items()
]
QUIT = b'{"execute": "qmp_capabilities"}{"execute": "quit"}'


_facts: dict[HostSpec, DocumentedHost] = {}


def facts(host: Host) -> DocumentedHost:
    """Asked of each kind of host once."""
    if host.spec not in _facts:
        document = host.run(["python3", "-m", "vgicmgr.cli", "check-host", "--format", "json"]).stdout
        _facts[host.spec] = read_document(document.encode())
    return _facts[host.spec]


def resolution_of(domain: Domain, host: Host) -> Resolution:
    xml = domain.xml().encode()
    return resolve(read_domain(xml), facts(host))


def planned(domain: Domain, resolution: Resolution) -> tuple[Call, ...]:
    assert resolution.configuration is not None, resolution.findings
    plan = call_plan(resolution.configuration)
    assert (CreateDevice(its.DEVICE_TYPE) in plan) == domain.its
    assert any(isinstance(call, SetVCPUAttribute) for call in plan) == domain.pmu
    assert any(isinstance(call, SetVectorLengths) for call in plan) == domain.sve
    return plan


@pytest.mark.parametrize(("spec", "domain"), CASES)
def test_the_plan_is_what_qemu_calls(spec: HostSpec, domain: Domain, lab_host: LabHost, tracer: bytes) -> None:
    host = lab_host(spec)
    resolution = resolution_of(domain, host)
    host.push("/root/kvm_trace.so", tracer, mode=0o755)
    host.run(["rm", "-f", "/tmp/qemu.trace"])
    qemu = ["qemu-system-aarch64", *qemu_arguments(resolution), "-nodefaults", "-display", "none", "-S"]
    environment = {"LD_PRELOAD": "/root/kvm_trace.so", "KVM_TRACE": "/tmp/qemu.trace"}
    host.run([*qemu, "-qmp", "stdio"], stdin=QUIT, env=environment, timeout=120, check=True)
    assert kvm_trace.bring_up(host.pull("/tmp/qemu.trace").decode()) == planned(domain, resolution)


@pytest.mark.parametrize("gic", [3, 2])
@pytest.mark.parametrize("release", Release)
def test_the_plan_is_what_a_qemu_of_libvirts_calls(
    release: Release, gic: int, lab_host: LabHost, tracer: bytes
) -> None:
    host = lab_host(HOSTS[release] if gic == 3 else HostSpec(release, cpu="cortex-a57", gic=2))
    domain = Domain(Guest(vcpus=2), its=gic == 3)
    host.start_libvirtd()
    trace = kvm_trace.of_libvirts_qemu(host, tracer, domain.xml())
    assert kvm_trace.bring_up(trace) == planned(domain, resolution_of(domain, host))


def test_a_trace_shows_a_call_that_is_not_in_the_plan() -> None:
    """The comparison can fail: a line more, a line less, another argument."""
    lines = [
        "8 0xae01 9 0 0x28 -",
        "9 0xae41 10 0 0 -",
        "10 0x4020aeae 0 0 0500000004" + "00" * 27 + " -",
        "9 0xc00caee0 11 0 07000000ffffffff00000000 -",
        "11 0x4018aee1 0 0 0000000003000000" + "00" * 8 + "1000000000000000 2001000000000000",
    ]
    made = kvm_trace.bring_up("\n".join(lines))
    assert [str(call) for call in made] == [
        "KVM_CREATE_VM with an IPA size of 40 bits",
        "KVM_CREATE_VCPU 0",
        "KVM_ARM_VCPU_INIT of vCPU 0 with KVM_ARM_VCPU_PSCI_0_2",
        "KVM_CREATE_DEVICE KVM_DEV_TYPE_ARM_VGIC_V3",
        "KVM_SET_DEVICE_ATTR of KVM_DEV_TYPE_ARM_VGIC_V3: KVM_DEV_ARM_VGIC_GRP_NR_IRQS = 288",
    ]
    assert kvm_trace.bring_up("\n".join(lines[:-1])) != made
    assert kvm_trace.bring_up("\n".join(lines).replace("20010000", "40010000")) != made
