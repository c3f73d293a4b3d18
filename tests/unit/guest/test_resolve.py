"""A domain on a host as a whole: a plain guest, another VMM's map, and whatever may be asked for.

The subjects have files of their own. That the addresses are QEMU's is held against real QEMUs in
``tests/lab/test_device_tree.py``.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.unit.guest.examples import GUEST, HOST, configured, decided, errors, guest, host, names, resolved
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import IOMMU, CpuFeature, Devices, Domain
from vgicmgr.domain.metadata import AddressWish, Unsatisfied, Wishes
from vgicmgr.findings import CATALOGUE
from vgicmgr.guest.addressmap import AddressMap
from vgicmgr.guest.configuration import Region, Source
from vgicmgr.guest.mapfile import read_address_map
from vgicmgr.guest.resolve import Resolution, resolve
from vgicmgr.kvm.vgic_v3 import RedistributorRegion
from vgicmgr.qemu.gic import MSIController
from vgicmgr.qemu.program import KnownQEMU


def test_a_plain_guest() -> None:
    resolution = resolve(GUEST, HOST)
    configuration = configured(resolution)
    assert (configuration.gic_version, configuration.msi) == (3, MSIController.ITS)
    assert (configuration.vcpus, configuration.max_vcpus, configuration.nr_irqs) == (2, 2, 288)
    assert configuration.distributor == Region(0x0800_0000, 0x1_0000)
    assert configuration.redistributors == (RedistributorRegion(0, 0x080A_0000, 2),)
    assert configuration.its == Region(0x0808_0000, 0x2_0000)
    assert (configuration.cpu_interface, configuration.gicv2m) == (None, None)
    assert configuration.pmu_intid == 23
    assert configuration.ipa_bits == 40  # high PCIe MMIO ends at 1 TiB
    assert configuration.features == (
        "KVM_ARM_VCPU_PSCI_0_2",
        "KVM_ARM_VCPU_PMU_V3",
        "KVM_ARM_VCPU_SVE",
        "KVM_ARM_VCPU_PTRAUTH_ADDRESS",
        "KVM_ARM_VCPU_PTRAUTH_GENERIC",
    )
    assert configuration.sve_vector_lengths == (128, 256, 512)
    assert configuration.steal_time
    assert (configuration.in_kernel, configuration.target, configuration.psci_version) == (True, "", None)
    assert resolution.findings == ()
    assert resolution.machine_options == ()


FREE_MAP = b"""
name = "a VMM"
fixed = false
ipa-bits = 36
distributor = { base = 0x1000_0000, size = 0x1_0000 }
redistributors = [{ base = 0x2000_0000, size = 0x8_0000 }, { base = 0x3000_0000, size = 0x10_0000 }]
its = { base = 0x1800_0000, size = 0x2_0000 }
[reserved]
"the virtual timer" = 27
"""


class TestAnotherVMM:
    MAP = read_address_map(FREE_MAP)

    def resolve(self, wishes: Wishes = Wishes(), **changes: Any) -> Resolution:  # noqa: B008
        return resolve(guest(machine="any", **changes), HOST, wished=wishes, address_map=self.MAP)

    def test_regions_are_filled_in_their_order(self) -> None:
        resolution = self.resolve(vcpus=6)
        assert configured(resolution).redistributors == (
            RedistributorRegion(0, 0x2000_0000, 4),
            RedistributorRegion(1, 0x3000_0000, 2),
        )
        assert configured(resolution).ipa_bits == 36
        assert decided(resolution, "distributor") == ("0x10000000", Source.MAP)

    def test_a_wish_moves_what_is_not_fixed(self) -> None:
        wishes = Wishes(pmu_intid=20, addresses=(AddressWish("its", 0x4000_0000),))
        configuration = configured(self.resolve(wishes))
        assert configuration.its == Region(0x4000_0000, 0x2_0000)
        assert configuration.pmu_intid == 20

    @pytest.mark.parametrize(
        ("wishes", "name"),
        [
            (Wishes(addresses=(AddressWish("its", 0x4000_1000),)), "address-misaligned"),
            (Wishes(addresses=(AddressWish("its", 0x1000_0000),)), "address-overlap"),
            (Wishes(addresses=(AddressWish("its", (1 << 36) - 0x1_0000),)), "address-range"),
            (Wishes(addresses=(AddressWish("gicv2m", 0x4000_0000),)), "wish-fixed"),
            (Wishes(pmu_intid=27), "pmu-interrupt-clash"),
            (Wishes(pmu_intid=40), "pmu-interrupt-shared"),
            (Wishes(msi="gicv2m"), "wish-unmet"),
        ],
    )
    def test_refused(self, wishes: Wishes, name: str) -> None:
        assert errors(self.resolve(wishes)) == [name]

    def test_one_vcpu_may_have_an_spi(self) -> None:
        assert configured(self.resolve(Wishes(pmu_intid=40), vcpus=1)).pmu_intid == 40

    def test_a_gicv2_needs_a_cpu_interface(self) -> None:
        assert errors(self.resolve(gic_version="2")) == ["map-incomplete"]

    def test_more_vcpus_than_redistributors(self) -> None:
        assert errors(self.resolve(vcpus=13)) == ["vcpu-count"]

    def test_an_ipa_size_that_the_host_does_not_have(self) -> None:
        small = host(KVM_CAP_ARM_VM_IPA_SIZE=32)
        assert errors(resolve(GUEST, small, address_map=self.MAP)) == ["ipa-size"]

    @pytest.mark.parametrize(
        ("lacking", "wish", "name"),
        [
            (host(gics=frozenset({2})), guest(machine="any"), "gic-version-unsupported"),
            (host(makes_its=False), guest(machine="any"), "its-unsupported"),
            (host(KVM_CAP_ARM_PMU_V3=0), guest(machine="any", pmu=True), "pmu-unsupported"),
            (host(KVM_CAP_MAX_VCPUS=1), guest(machine="any"), "vcpu-count"),
        ],
    )
    def test_what_the_host_lacks(self, lacking: Any, wish: Domain, name: str) -> None:
        assert errors(resolve(wish, lacking, address_map=self.MAP)) == [name]


_domains = st.builds(
    guest,
    virt_type=st.sampled_from(["kvm", "qemu", "hvf"]),
    arch=st.sampled_from(["aarch64", "armv7l", "x86_64"]),
    machine=st.sampled_from(["", "virt", "virt-2.6", "virt-7.1", "virt-10.0", "virt-99.0", "virt-x", "q35"]),
    memory=st.integers(0, 2**63 - 1),
    max_memory=st.integers(0, 2**63 - 1),
    memory_slots=st.integers(0, 2**32 - 1),
    vcpus=st.integers(1, 2**32 - 1),
    current_vcpus=st.just(1),
    gic_version=st.sampled_from(["", "host", "2", "3", "4", "0", "99999999"]),
    pmu=st.none() | st.booleans(),
    ras=st.none() | st.booleans(),
    virtualization=st.none() | st.booleans(),
    no_adjvtime=st.none() | st.booleans(),
    launch_security=st.sampled_from(["", "cca", "sev"]),
    cpu_mode=st.sampled_from(["", "host-passthrough", "custom", "maximum", "host-model"]),
    cpu_model=st.sampled_from(["", "host", "cortex-a57", "x"]),
    cpu_features=st.lists(
        st.builds(CpuFeature, st.sampled_from(["sve", "sve128", "sve384", "sve٣", "sve" + "9" * 40, "pmu", "aarch64"]),
                  st.sampled_from(["require", "disable", "optional"]))
    ).map(tuple),
    devices=st.builds(
        Devices,
        iommus=st.lists(st.builds(IOMMU, st.sampled_from(["smmuv3", "virtio"]), st.none() | st.integers(0, 2)),
                        max_size=2).map(tuple),
        root_ports=st.integers(0, 2),
        pcihole64=st.sampled_from([0, 1 << 39, 1 << 41]),
    ),
)  # fmt: skip
_wishes = st.builds(
    Wishes,
    its=st.none() | st.booleans(),
    msi=st.sampled_from(["", "its", "gicv2m", "none"]),
    pmu_intid=st.none() | st.integers(16, 1019),
    addresses=st.lists(
        st.builds(AddressWish, st.sampled_from(["distributor", "its", "gicv2m", "cpu-interface", "redistributors"]),
                  st.integers(0, 2**64 - 1)), max_size=2
    ).map(tuple),
    unsatisfied=st.sampled_from(Unsatisfied),
)  # fmt: skip
_words = st.sampled_from(
    [
        *("-machine", "--machine", "-M", "-cpu", "-accel", "its=off", "its", "msi=its", "host,pmu=off", "highmem=off"),
        *(
            "gic-version=max",
            ",,",
            "highmem-mmio-size=1T",
            "highmem-mmio-size=٣",
            "",
            "-smp",
            "4",
            "-m",
            "1G",
            "-global",
        ),
        *("-enable-kvm", "accel=tcg", "host-arm-cpu.pauth=off", "kernel-irqchip=off", "-device", "vfio-pci,host=1:0.0"),
    ]
)


@hypothesis_settings(deadline=None)
@given(
    _domains,
    _wishes,
    st.lists(_words, max_size=6),
    st.none() | st.sampled_from([(7, 2), (10, 0), (11, 1)]),
    st.none() | st.just(read_address_map(FREE_MAP)),
    st.integers(32, 52),
    st.booleans(),
)
def test_whatever_is_asked_for(
    domain: Domain,
    wishes: Wishes,
    words: list[str],
    version: tuple[int, int] | None,
    address_map: AddressMap | None,
    ipa_bits: int,
    irqchip: bool,
) -> None:
    on = host(KVM_CAP_ARM_VM_IPA_SIZE=ipa_bits, KVM_CAP_IRQCHIP=int(irqchip))
    asked = replace(domain, qemu_arguments=tuple(words))
    resolution = resolve(asked, on, wished=wishes, qemu=KnownQEMU(version=version), address_map=address_map)
    errors(resolution)
    configuration = resolution.configuration
    if configuration:
        assert sum(region.count for region in configuration.redistributors) in (0, configuration.vcpus)
        assert configuration.vcpus <= configuration.max_vcpus
        assert (configuration.its is not None) == (configuration.msi is MSIController.ITS)
        assert (configuration.cpu_interface is not None) == (configuration.gic_version == 2)
    for finding in resolution.findings:
        assert "\n" not in str(finding)
        assert finding.name in CATALOGUE
    assert resolved(asked, on, version, wished=wishes, address_map=address_map) == resolution


def test_the_notes_are_kept_though_the_domain_is_refused() -> None:
    """Who decided what is told of a refused domain, too."""
    resolution = resolve(guest(gic_version="2"), host(gics=frozenset({3})))
    assert errors(resolution) == ["gic-version-unsupported"]
    assert [item.value for item in resolution.decisions if item.subject == "GIC version"] == ["2"]
    assert names(resolve(GUEST, HOST)) == []
