"""Which vCPU QEMU asks of KVM: what ``-cpu host`` turns on, and what the domain changes of it."""

from collections.abc import Callable
from vgicmgr.dataclass import replace

import pytest

from vgicmgr.domain.settings import CpuFeature, DomainSettings, read_domain
from vgicmgr.qemu.cpu import CPU, cpu_of, has_steal_time, psci_version, sve_wishes, vcpu_features, vector_lengths

DOMAIN = read_domain(
    b"<domain type='kvm'><name>g</name><memory>1</memory><os><type arch='aarch64' machine='virt-10.0'>hvm</type></os>"
    b"<cpu mode='host-passthrough'/></domain>"
)
ALL = frozenset(
    (
        "KVM_CAP_ARM_PMU_V3",
        "KVM_CAP_ARM_SVE",
        "KVM_CAP_ARM_PTRAUTH_ADDRESS",
        "KVM_CAP_ARM_PTRAUTH_GENERIC",
        "KVM_CAP_STEAL_TIME",
    )
)
PSCI, PMU, SVE = (f"KVM_ARM_VCPU_{name}" for name in ("PSCI_0_2", "PMU_V3", "SVE"))
PAUTH = ("KVM_ARM_VCPU_PTRAUTH_ADDRESS", "KVM_ARM_VCPU_PTRAUTH_GENERIC")


def kernel(*without: str) -> Callable[[str], int]:
    """Has all capabilities but these."""
    return lambda name: int(name in ALL - set(without))


def domain(**features: str) -> DomainSettings:
    """With CPU features: ``sve="disable"``."""
    return replace(DOMAIN, cpu_features=tuple(CpuFeature(name, policy) for name, policy in features.items()))


def test_the_hosts_own_cpu_gets_all_that_kvm_has() -> None:
    assert vcpu_features(cpu_of(DOMAIN), kernel()) == (PSCI, PMU, SVE, *PAUTH)


@pytest.mark.parametrize(
    ("capability", "left"),
    [
        ("KVM_CAP_ARM_PMU_V3", (PSCI, SVE, *PAUTH)),
        ("KVM_CAP_ARM_SVE", (PSCI, PMU, *PAUTH)),
        ("KVM_CAP_ARM_PTRAUTH_GENERIC", (PSCI, PMU, SVE)),
    ],
)
def test_what_kvm_has_not(capability: str, left: tuple[str, ...]) -> None:
    assert vcpu_features(cpu_of(DOMAIN), kernel(capability)) == left


def test_what_the_domain_turns_off() -> None:
    assert vcpu_features(cpu_of(domain(sve="disable", pauth="forbid")), kernel()) == (PSCI, PMU)
    assert vcpu_features(cpu_of(replace(DOMAIN, pmu=False)), kernel()) == (PSCI, SVE, *PAUTH)


def test_what_qemu_itself_says_of_the_hosts_cpu_where_nobody_set_it() -> None:
    answered = {"sve": True, "sve128": True, "sve256": False, "pauth": False, "pmu": False}
    cpu = cpu_of(domain(pmu="require")).as_answered(answered)
    assert vcpu_features(cpu, kernel()) == (PSCI, PMU, SVE)
    assert vector_lengths(sve_wishes(cpu), (128, 256)) == (128,)
    shorter = cpu_of(domain(sve128="require")).as_answered({"sve": True, "sve128": True, "sve256": True})
    assert vector_lengths(sve_wishes(shorter), (128, 256)) == (128,)
    model = cpu_of(replace(DOMAIN, cpu_mode="custom", cpu_model="cortex-a57"))
    assert model.as_answered(answered) == model


def test_a_named_model_has_neither_sve_nor_pointer_authentication() -> None:
    cpu = cpu_of(replace(DOMAIN, cpu_mode="custom", cpu_model="cortex-a57"))
    assert vcpu_features(cpu, kernel()) == (PSCI, PMU)
    assert cpu.target == "KVM_ARM_TARGET_CORTEX_A57"


def test_an_argument_replaces_libvirts_cpu() -> None:
    cpu = cpu_of(domain(sve="disable"), ("-cpu", "host,pmu=off,kvm-psci-version=1.1"))
    assert cpu == CPU("host", {"pmu": "off", "kvm-psci-version": "1.1"})
    assert psci_version(cpu) == 0x10001


def test_a_global_property_gives_way_to_libvirts() -> None:
    arguments = ("-global", "host-arm-cpu.sve=on", "-global", "host-arm-cpu.pauth=off", "-global", "pl011.x=y")
    assert cpu_of(domain(sve="disable"), arguments).properties == {"sve": "off", "pauth": "off"}


@pytest.mark.parametrize(
    ("features", "lengths"),
    [
        ({}, (128, 256, 512)),
        ({"sve256": "require"}, (128, 256)),
        ({"sve128": "require", "sve256": "disable"}, (128,)),
        ({"sve256": "disable"}, (128,)),
        ({"sve512": "disable"}, (128, 256)),
    ],
)
def test_vector_lengths(features: dict[str, str], lengths: tuple[int, ...]) -> None:
    assert vector_lengths(sve_wishes(cpu_of(domain(**features))), (128, 256, 512)) == lengths


@pytest.mark.parametrize(
    ("machine", "there"), [("virt-5.1", False), ("virt-5.2", True), ("virt-10.0", True), ("virt", True)]
)
def test_stolen_time_by_machine_type(machine: str, there: bool) -> None:
    assert has_steal_time(cpu_of(DOMAIN), machine, kernel()) is there
    assert not has_steal_time(cpu_of(DOMAIN), machine, kernel("KVM_CAP_STEAL_TIME"))
