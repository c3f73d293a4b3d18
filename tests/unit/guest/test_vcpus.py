"""How many vCPUs fit, and where their redistributors are."""

import re

import pytest

from tests.unit.guest.examples import HOST, AssumedHost, configured, errors, guest, host, names, with_machine
from vgicmgr.domain.domain import Domain
from vgicmgr.guest.resolve import resolve
from vgicmgr.kvm.vgic_v3 import RedistributorRegion


def test_the_second_region_begins_with_the_124th() -> None:
    assert configured(resolve(guest(vcpus=124), HOST)).redistributors == (
        RedistributorRegion(0, 0x080A_0000, 123),
        RedistributorRegion(1, 0x40_0000_0000, 1),
    )


def test_redistributors_are_for_those_at_boot() -> None:
    resolution = resolve(guest(vcpus=124, current_vcpus=123), HOST)
    assert [region.count for region in configured(resolution).redistributors] == [123]


TOO_MANY = [
    (guest(gic_version="2", vcpus=9), HOST),
    (guest(vcpus=513), HOST),
    (guest(machine="virt-2.12", vcpus=256), HOST),
    (guest(vcpus=124), host(KVM_CAP_ARM_VM_IPA_SIZE=38)),  # no room for the second region
    (guest(vcpus=124), host(redistributor_regions=False)),
    (guest(vcpus=257), host(KVM_CAP_ARM_IRQ_LINE_LAYOUT_2=0)),
    (guest(vcpus=9), host(KVM_CAP_MAX_VCPUS=8)),
    (guest(vcpus=9, current_vcpus=1), host(KVM_CAP_MAX_VCPUS=8)),  # kvm_init holds max_cpus against it
    (guest(gic_version="2", vcpus=9, current_vcpus=1), HOST),  # machvirt_init does, too
    (with_machine("highmem=off", vcpus=124), HOST),  # no second region
]


@pytest.mark.parametrize(("domain", "on"), TOO_MANY)
def test_too_many(domain: Domain, on: AssumedHost) -> None:
    assert errors(resolve(domain, on)) == ["vcpu-count"]


@pytest.mark.parametrize(("domain", "on"), TOO_MANY)
def test_the_number_in_the_remedy_helps(domain: Domain, on: AssumedHost) -> None:
    [finding] = resolve(domain, on).findings
    told = re.match(r"set <vcpu> to (\d+) or less", finding.remedy)
    assert told
    fewer = guest(
        machine=domain.machine,
        gic_version=domain.gic_version,
        qemu_arguments=domain.qemu_arguments,
        vcpus=int(told[1]),
    )
    assert names(resolve(fewer, on)) == []


@pytest.mark.parametrize(
    "on", [host(KVM_CAP_ARM_IRQ_LINE_LAYOUT_2=0), host(redistributor_regions=False)], ids=["layout", "regions"]
)
def test_two_limits_count_those_at_boot(on: AssumedHost) -> None:
    """kvm_arch_init and kvm_arm_gicv3_realize hold smp.cpus against these."""
    assert names(resolve(guest(vcpus=300, current_vcpus=2), on)) == ["vcpu-hotplug"]


@pytest.mark.parametrize(
    "domain",
    [guest(vcpus=4, current_vcpus=2), guest(vcpus=2, hotpluggable_vcpus=True)],
    ids=["current", "hotpluggable"],
)
def test_virt_plugs_no_vcpus(domain: Domain) -> None:
    """hw/arm/virt.c, virt_machine_device_pre_plug_cb knows no CPUs."""
    resolution = resolve(domain, HOST)
    assert names(resolution) == ["vcpu-hotplug"]
    assert resolution.findings[0].remedy == "set <vcpu>2</vcpu>"
    assert names(resolve(guest(vcpus=2), HOST)) == []
