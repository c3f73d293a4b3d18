"""Hosts with cores of several types: what a guest is there depends on the cores that it runs on.

Kernels before 6.3 answer CCSIDR_EL1 from the core that asks, and refuse every other value
(``arch/arm64/kvm/sys_regs.c``, demux_c15_set); PMCR_EL0.N and PMCEID are of the PMU of the core that resets the vCPU
(``pmu-emul.c``, kvm_pmu_probe_armpmu). MIDR_EL1 is that of the core that booted the host.
"""

from collections.abc import Collection

from vgicmgr.domain.cpulist import emulator_cpus, vcpu_cpus
from vgicmgr.domain.domain import Domain
from vgicmgr.findings import Finding, finding

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts

PIN = "pin all vCPUs to cores of one type (<vcpu cpuset='...'>)"
_OF_THE_CORE = ("CCSIDR_EL1[", "PMCR_EL0", "PMCEID0_EL0", "PMCEID1_EL0")


def of_the_core(register: str) -> bool:
    """Whether a register of this name is not the host's, but the core's."""
    return register.startswith(_OF_THE_CORE)


def mixed_cores(domain: Domain, host: "HostFacts") -> tuple[Finding, ...]:
    """Whether the domain's vCPUs may run on cores of several types."""
    vcpus = vcpu_cpus(domain)
    types = _types(host, vcpus | emulator_cpus(domain) if vcpus and domain.emulator_pin else vcpus)
    if len(types) < 2:
        return ()
    listed = ", ".join(f"{midr:#x}" for midr in types)
    return (
        finding(
            "cpu-types-mixed",
            f"the guest may run on cores of different types (MIDR_EL1 {listed}), and its "
            "cache geometry and PMU are those of the core that it happens to start on",
            PIN,
        ),
    )


def depends_on_core(domain: Domain, host: "HostFacts") -> bool:
    """Whether QEMU, and each vCPU from its making on, may run on cores of several types."""
    vcpus, emulator = vcpu_cpus(domain), emulator_cpus(domain)
    return len(_types(host, vcpus | emulator if vcpus and emulator else ())) > 1


def _types(host: "HostFacts", cpus: Collection[int]) -> list[int]:
    """MIDR_EL1 of these CPUs of the host, or of all where there are none."""
    return sorted(set(host.midrs(cpus).values())) if len(cpus) != 1 else []
