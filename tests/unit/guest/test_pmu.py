"""The PMU and its interrupt."""

import pytest

from tests.unit.guest.examples import (
    GUEST,
    HOST,
    configured,
    decided,
    errors,
    guest,
    host,
    names,
    resolved,
    with_arguments,
)
from vgicmgr.domain.domain import CpuFeature, Domain
from vgicmgr.domain.metadata import AddressWish, Unsatisfied, Wishes
from vgicmgr.findings import Severity
from vgicmgr.guest.configuration import Source
from vgicmgr.guest.resolve import resolve

WITHOUT = host(KVM_CAP_ARM_PMU_V3=0)
OPTIONAL = (CpuFeature("pmu", "optional"),)


def test_off() -> None:
    configuration = configured(resolve(guest(pmu=False), HOST))
    assert configuration.pmu_intid is None
    assert "KVM_ARM_VCPU_PMU_V3" not in configuration.features


def test_the_element_comes_after_the_cpu_feature() -> None:
    """qemuBuildCpuCommandLine writes pmu= behind the features."""
    resolution = resolve(guest(pmu=True, cpu_features=(CpuFeature("pmu", "disable"),)), HOST)
    assert configured(resolution).pmu_intid == 23
    assert resolution.cpu
    assert resolution.cpu.on("pmu", default=False)


def test_a_cpu_feature_alone() -> None:
    assert configured(resolve(guest(cpu_features=(CpuFeature("pmu", "disable"),)), HOST)).pmu_intid is None


class TestOptional:
    """libvirt hands nothing on for policy='optional' (qemuBuildCpuModelArgStr)."""

    def test_the_element_stands(self) -> None:
        resolution = resolve(guest(pmu=True, cpu_features=OPTIONAL), WITHOUT)
        assert errors(resolution) == ["pmu-unsupported"]
        assert "a PMU is asked for" in resolution.findings[0].evidence

    @pytest.mark.parametrize("name", ["pmu", "sve", "pauth", "sve384", "kvm-steal-time"])
    def test_nothing_is_asked_for(self, name: str) -> None:
        lacking = host(WITHOUT, KVM_CAP_ARM_SVE=0, KVM_CAP_ARM_PTRAUTH_ADDRESS=0, KVM_CAP_STEAL_TIME=0)
        domain = guest(cpu_features=(CpuFeature(name, "optional"),))
        found = [finding.name for finding in resolve(domain, lacking).findings]
        # a vector length, whatever its policy, has libvirt write sve=on
        assert found == (["cpu-feature-unsupported"] if name == "sve384" else [])


class TestAHostWithout:
    def test_one_that_is_asked_for(self) -> None:
        assert configured(resolve(GUEST, WITHOUT)).pmu_intid is None
        assert errors(resolve(guest(pmu=True), WITHOUT)) == ["pmu-unsupported"]

    def test_the_remedy_helps(self) -> None:
        [finding] = resolve(guest(pmu=True), WITHOUT).findings
        assert finding.remedy.startswith("remove <pmu>")
        assert names(resolve(guest(pmu=None), WITHOUT)) == []

    @pytest.mark.parametrize(
        ("version", "severity"),
        [
            ((7, 2), None),
            ((8, 2), None),
            ((9, 0), Severity.WARNING),  # 9.0 has the change in some releases
            (None, Severity.WARNING),
            ((9, 1), Severity.ERROR),
            ((10, 0), Severity.ERROR),
        ],
    )
    def test_one_that_is_switched_off(self, version: tuple[int, int] | None, severity: Severity | None) -> None:
        """From 9.1 on there is no property to switch off by (target/arm/kvm.c, kvm_arm_add_vcpu_properties)."""
        resolution = resolved(guest(machine="virt", pmu=False), WITHOUT, version)
        assert [finding.severity for finding in resolution.findings] == ([severity] if severity else [])
        assert {finding.name for finding in resolution.findings} <= {"pmu-off", "pmu-unsupported"}

    @pytest.mark.parametrize("version", [None, (9, 1), (10, 0)])
    def test_its_remedy_helps_on_both(self, version: tuple[int, int] | None) -> None:
        [finding] = resolved(guest(machine="virt", pmu=False), WITHOUT, version).findings
        assert finding.remedy.startswith("remove <pmu>")
        assert names(resolved(guest(machine="virt"), WITHOUT, version)) == []

    def test_by_an_argument(self) -> None:
        domain = with_arguments("-cpu", "host,pmu=on")
        assert errors(resolve(domain, WITHOUT)) == ["pmu-unsupported"]
        assert names(resolve(with_arguments("-cpu", "host", pmu=True), WITHOUT)) == []


@pytest.mark.parametrize("domain", [guest(machine="virt-2.6", pmu=True), guest(machine="virt-2.6")])
def test_the_oldest_machine_has_none_whatever_is_asked_for(domain: Domain) -> None:
    """hw/arm/virt.c, no_pmu: it is left out without a word."""
    resolution = resolve(domain, HOST)
    assert configured(resolution).pmu_intid is None
    assert "KVM_ARM_VCPU_PMU_V3" not in configured(resolution).features
    assert [finding.severity for finding in resolution.findings] == ([Severity.WARNING] if domain.pmu else [])


class TestWishes:
    def test_for_where_it_is(self) -> None:
        resolution = resolve(GUEST, HOST, wished=Wishes(pmu_intid=23))
        assert decided(resolution, "PMU interrupt") == ("INTID 23 (PPI 7)", Source.METADATA)

    @pytest.mark.parametrize("unsatisfied", Unsatisfied)
    def test_for_another_is_refused_and_says_where_it_is(self, unsatisfied: Unsatisfied) -> None:
        resolution = resolve(GUEST, HOST, wished=Wishes(pmu_intid=22, unsatisfied=unsatisfied))
        assert errors(resolution) == ["wish-fixed"]
        assert "INTID 23" in resolution.findings[0].evidence

    def test_without_a_pmu(self) -> None:
        resolution = resolve(guest(pmu=False), HOST, wished=Wishes(pmu_intid=23))
        assert errors(resolution) == ["wish-contradiction"]


class TestAddresses:
    """Of which no wish moves any on QEMU's virt."""

    def test_for_where_it_is(self) -> None:
        resolution = resolve(GUEST, HOST, wished=Wishes(addresses=(AddressWish("its", 0x808_0000),)))
        assert decided(resolution, "ITS") == ("0x8080000", Source.METADATA)

    @pytest.mark.parametrize("device", ["distributor", "redistributors", "high-redistributors", "its", "gicv2m"])
    def test_for_elsewhere_is_refused_and_says_where_it_is(self, device: str) -> None:
        resolution = resolve(GUEST, HOST, wished=Wishes(addresses=(AddressWish(device, 0x1000_0000),)))
        assert errors(resolution) == ["wish-fixed"]
        assert "0x10000000" in resolution.findings[0].evidence
        assert "and nothing moves it" in resolution.findings[0].evidence
