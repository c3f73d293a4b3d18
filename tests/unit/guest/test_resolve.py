"""Resolution: who decides what, and what is refused. Expectations are from QEMU's, libvirt's and the kernel's sources.

That the addresses are QEMU's own is held against real QEMUs in ``tests/lab/test_device_tree.py``.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from vgicmgr.domain.devices import Devices
from vgicmgr.domain.settings import CpuFeature, DomainSettings, read_domain
from vgicmgr.guest.hostfacts import HostFacts

from vgicmgr.dataclass import replace
from vgicmgr.domain.hostdevices import HostDevice
from vgicmgr.domain.metadata import AddressWish, Unmet, Wishes
from vgicmgr.findings import Severity
from vgicmgr.guest.configuration import MSIController, Region, Source
from vgicmgr.guest.mapfile import read_address_map
from vgicmgr.guest.resolve import Resolution, resolve
from vgicmgr.kvm.vgic_v3 import RedistributorRegion
from vgicmgr.vfio.assigned import AssignedDevice, AssignedDevices

GIB = 1 << 30

GUEST = read_domain(
    b"<domain type='kvm'><name>g</name><memory unit='GiB'>1</memory><vcpu>2</vcpu>"
    b"<os><type arch='aarch64' machine='virt-10.0'>hvm</type></os>"
    b"<features><gic version='3'/></features><cpu mode='host-passthrough'/></domain>"
)
EMULATED = replace(GUEST, virt_type="qemu", cpu_mode="custom", cpu_model="cortex-a57")
HOST = HostFacts(ipa_bits=48, pauth=True, sve_vector_lengths=(128, 256, 512), asked=True)


def guest(**changes: Any) -> DomainSettings:
    return replace(GUEST, **changes)


def arguments(*options: str) -> Devices:
    return Devices(qemu_arguments=tuple(word for option in options for word in ("-machine", option)))


def decided(resolution: Resolution, subject: str) -> tuple[str, Source]:
    assert resolution.configuration, resolution.findings
    [decision] = [item for item in resolution.configuration.decisions if item.subject == subject]
    return decision.value, decision.source


def errors(resolution: Resolution) -> list[str]:
    assert (resolution.configuration is None) == (not resolution.verdict.ok)
    return [finding.name for finding in resolution.findings if finding.severity is Severity.ERROR]


def warnings(resolution: Resolution) -> list[str]:
    assert resolution.configuration
    return [finding.name for finding in resolution.findings]


def test_a_plain_guest() -> None:
    resolution = resolve(GUEST, host=HOST)
    configuration = resolution.configuration
    assert configuration
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
    assert resolution.findings == ()
    assert resolution.machine_options == ()


class TestGicVersion:
    @pytest.mark.parametrize(
        ("wish", "versions", "version", "source"),
        [
            ("2", {2, 3}, 2, Source.XML),
            ("3", {2, 3}, 3, Source.XML),
            ("host", {2, 3}, 3, Source.XML),
            ("host", {2}, 2, Source.XML),
            ("", {2, 3}, 3, Source.LIBVIRT),
            ("", {3}, 3, Source.LIBVIRT),
            ("", {2}, 2, Source.LIBVIRT),
        ],
    )
    def test_under_kvm(self, wish: str, versions: set[int], version: int, source: Source) -> None:
        resolution = resolve(guest(gic_version=wish), host=replace(HOST, gic_versions=frozenset(versions)))
        assert resolution.configuration
        assert resolution.configuration.gic_version == version
        assert decided(resolution, "GIC version")[1] is source

    def test_libvirts_default_under_tcg_is_2(self) -> None:
        resolution = resolve(replace(EMULATED, gic_version=""))
        assert decided(resolution, "GIC version") == ("2", Source.LIBVIRT)

    @pytest.mark.parametrize(
        ("settings", "host"),
        [
            (guest(gic_version="2"), replace(HOST, gic_versions=frozenset({3}))),
            (guest(gic_version="3"), replace(HOST, gic_versions=frozenset({2}))),
            (guest(gic_version="4"), HOST),
            (guest(gic_version="5"), HOST),
            (guest(gic_version="4294967295"), HOST),
            (guest(gic_version="host"), replace(HOST, gic_versions=frozenset())),
            (guest(gic_version=""), replace(HOST, gic_versions=frozenset())),
            (replace(EMULATED, gic_version="host"), HOST),
            (replace(EMULATED, gic_version="4"), HOST),
        ],
    )
    def test_refused(self, settings: DomainSettings, host: HostFacts) -> None:
        assert errors(resolve(settings, host=host)) == ["gic-version-unsupported"]

    def test_an_argument_comes_after_the_element(self) -> None:
        resolution = resolve(guest(gic_version="3"), devices=arguments("gic-version=2"), host=HOST)
        assert resolution.configuration
        assert resolution.configuration.gic_version == 2


class TestVcpus:
    def test_the_second_region_begins_with_the_124th(self) -> None:
        resolution = resolve(guest(vcpus=124, current_vcpus=124), host=HOST)
        assert resolution.configuration
        assert resolution.configuration.redistributors == (
            RedistributorRegion(0, 0x080A_0000, 123),
            RedistributorRegion(1, 0x40_0000_0000, 1),
        )

    def test_redistributors_are_for_those_at_boot(self) -> None:
        resolution = resolve(guest(vcpus=124, current_vcpus=123), host=HOST)
        assert resolution.configuration
        assert [region.count for region in resolution.configuration.redistributors] == [123]

    @pytest.mark.parametrize(
        ("settings", "host"),
        [
            (guest(gic_version="2", vcpus=9), HOST),
            (guest(vcpus=513), HOST),
            (guest(machine="virt-2.12", vcpus=256), HOST),
            (guest(vcpus=124), replace(HOST, ipa_bits=38)),  # no room for the second region
            (guest(vcpus=124), replace(HOST, redistributor_regions=False)),
            (guest(vcpus=257), replace(HOST, irq_line_layout_2=False)),
            (guest(vcpus=9), replace(HOST, max_vcpus=8)),
        ],
    )
    def test_too_many(self, settings: DomainSettings, host: HostFacts) -> None:
        assert errors(resolve(settings, host=host)) == ["vcpu-count"]

    def test_highmem_off_leaves_no_second_region(self) -> None:
        many = guest(vcpus=124)
        assert errors(resolve(many, devices=arguments("highmem=off"), host=HOST)) == ["vcpu-count"]


class TestMemory:
    @pytest.mark.parametrize(
        ("memory", "max_ipa_bits", "ipa_bits"),
        [  # 0x40_2000_0000: PCIe configuration space ends in 39 bits; without high regions the memory's end counts
            (GIB, 52, 40),
            (GIB, 40, 40),
            (GIB, 39, 39),
            (GIB, 38, 32),
            (20 * GIB, 36, 35),
            (1000 * GIB, 48, 41),  # the 512 GiB of PCIe MMIO are aligned to their size
        ],
    )
    def test_ipa_bits(self, memory: int, max_ipa_bits: int, ipa_bits: int) -> None:
        resolution = resolve(guest(memory=memory), host=replace(HOST, ipa_bits=max_ipa_bits))
        assert resolution.configuration
        assert resolution.configuration.ipa_bits == ipa_bits

    def test_a_kernel_with_one_size_only(self) -> None:
        resolution = resolve(GUEST, host=replace(HOST, ipa_bits=40, fixed_ipa=True))
        assert resolution.configuration
        assert resolution.configuration.ipa_bits == 0

    def test_more_than_there_are_addresses(self) -> None:
        assert errors(resolve(guest(memory=1024 * GIB), host=replace(HOST, ipa_bits=40))) == ["ipa-size"]
        assert errors(resolve(guest(memory=4 * GIB), devices=arguments("highmem=off"), host=HOST)) == ["ipa-size"]

    def test_too_many_slots(self) -> None:
        settings = guest(max_memory=2 * GIB, memory_slots=257)
        assert errors(resolve(settings, host=HOST)) == ["memory-slots"]


class TestMsi:
    @pytest.mark.parametrize(
        ("settings", "options", "msi", "source"),
        [
            (guest(gic_version="2"), [], MSIController.GICV2M, Source.MACHINE),
            (GUEST, [], MSIController.ITS, Source.MACHINE),
            (GUEST, ["its=off"], MSIController.NONE, Source.XML),
            (GUEST, ["its=off", "its=on"], MSIController.ITS, Source.XML),
            (GUEST, ["msi=gicv2m"], MSIController.GICV2M, Source.XML),
            (GUEST, ["msi=off"], MSIController.NONE, Source.XML),
            (guest(machine="virt-2.7"), [], MSIController.NONE, Source.MACHINE),
            (guest(machine="virt-6.1"), [], MSIController.ITS, Source.MACHINE),
            (replace(EMULATED, machine="virt-6.1"), [], MSIController.NONE, Source.MACHINE),
            (replace(EMULATED, machine="virt-6.2"), [], MSIController.ITS, Source.MACHINE),
        ],
    )
    def test_what_the_machine_gives(
        self, settings: DomainSettings, options: list[str], msi: MSIController, source: Source
    ) -> None:
        resolution = resolve(settings, devices=arguments(*options), host=HOST)
        assert resolution.configuration
        assert resolution.configuration.msi is msi
        assert decided(resolution, "MSI controller")[1] is source
        assert (resolution.configuration.its is not None) == (msi is MSIController.ITS)
        assert (resolution.configuration.gicv2m is not None) == (msi is MSIController.GICV2M)

    @pytest.mark.parametrize(
        ("wishes", "options"),
        [
            (Wishes(its=False), (("its", "off"),)),
            (Wishes(msi="none"), (("its", "off"),)),
            (Wishes(its=False, msi="none"), (("its", "off"),)),
            (Wishes(its=False, msi="gicv2m"), (("msi", "gicv2m"),)),
            (Wishes(its=True), ()),
            (Wishes(msi="its"), ()),
        ],
    )
    def test_a_wish_with_a_gicv3(self, wishes: Wishes, options: tuple[tuple[str, str], ...]) -> None:
        resolution = resolve(GUEST, wishes, host=HOST, qemu=(11, 1))
        assert resolution.machine_options == options
        assert decided(resolution, "MSI controller")[1] is Source.METADATA

    def test_its_off_says_nothing_about_a_gicv2(self) -> None:
        resolution = resolve(guest(gic_version="2"), Wishes(its=False), host=HOST)
        assert decided(resolution, "MSI controller") == ("a GICv2m", Source.MACHINE)

    def test_what_was_applied_is_not_applied_again(self) -> None:
        resolution = resolve(GUEST, Wishes(its=False), arguments("its=off"), host=HOST)
        assert resolution.machine_options == ()
        assert decided(resolution, "MSI controller") == ("none", Source.METADATA)

    @pytest.mark.parametrize(
        ("settings", "wishes", "qemu"),
        [
            (guest(gic_version="2"), Wishes(its=True), None),
            (guest(gic_version="2"), Wishes(msi="none"), (10, 0)),
            (GUEST, Wishes(msi="gicv2m"), (10, 0)),
            (GUEST, Wishes(msi="gicv2m"), None),
            (replace(EMULATED, machine="virt-6.1"), Wishes(its=True), None),
        ],
    )
    def test_a_wish_that_cannot_be_met(
        self, settings: DomainSettings, wishes: Wishes, qemu: tuple[int, int] | None
    ) -> None:
        assert errors(resolve(settings, wishes, host=HOST, qemu=qemu)) == ["wish-unmet"]
        going_on = resolve(settings, replace(wishes, unmet=Unmet.WARN), host=HOST, qemu=qemu)
        assert warnings(going_on) == ["wish-unmet"]
        assert decided(going_on, "MSI controller")[1] is Source.MACHINE

    @pytest.mark.parametrize(
        ("wishes", "devices"),
        [
            (Wishes(its=True, msi="none"), Devices()),
            (Wishes(its=True, msi="gicv2m"), Devices()),
            (Wishes(its=False, msi="its"), Devices()),
            (Wishes(its=True), arguments("its=off")),
            (Wishes(its=False), arguments("its=on")),
        ],
    )
    def test_contradictions(self, wishes: Wishes, devices: Devices) -> None:
        assert errors(resolve(GUEST, wishes, devices, host=HOST)) == ["wish-contradiction"]

    def test_a_kernel_without_an_its(self) -> None:
        assert errors(resolve(GUEST, host=replace(HOST, its=False))) == ["its-unsupported"]

    def test_root_ports_need_msis(self) -> None:
        ports = Devices(root_ports=3)
        assert errors(resolve(GUEST, Wishes(its=False), ports, host=HOST)) == ["msi-needed"]
        assert resolve(GUEST, devices=ports, host=HOST).configuration


class TestPmu:
    def test_off(self) -> None:
        resolution = resolve(guest(pmu=False), host=HOST)
        assert resolution.configuration
        assert resolution.configuration.pmu_intid is None
        assert "KVM_ARM_VCPU_PMU_V3" not in resolution.configuration.features

    def test_the_element_comes_after_the_cpu_feature(self) -> None:
        settings = guest(pmu=True, cpu_features=(CpuFeature("pmu", "disable"),))
        resolution = resolve(settings, host=HOST)
        assert resolution.configuration
        assert resolution.configuration.pmu_intid == 23
        assert resolution.cpu == ("host", (("pmu", True),))

    def test_a_cpu_feature_alone(self) -> None:
        resolution = resolve(guest(cpu_features=(CpuFeature("pmu", "disable"),)), host=HOST)
        assert resolution.configuration
        assert resolution.configuration.pmu_intid is None

    def test_a_host_without(self) -> None:
        without = replace(HOST, pmu=False)
        assert resolve(GUEST, host=without).configuration
        assert errors(resolve(guest(pmu=True), host=without)) == ["pmu-unsupported"]

    def test_switching_off_what_is_not_there_is_refused_by_newer_qemus(self) -> None:
        off, without = guest(machine="virt", pmu=False), replace(HOST, pmu=False)
        assert warnings(resolve(off, host=without, qemu=(7, 2))) == []
        assert warnings(resolve(off, host=without)) == ["pmu-unsupported"]
        assert errors(resolve(off, host=without, qemu=(10, 0))) == ["pmu-unsupported"]

    def test_the_oldest_machine_has_none_whatever_is_asked_for(self) -> None:
        resolution = resolve(guest(machine="virt-2.6", pmu=True), host=HOST)
        assert resolution.configuration
        assert resolution.configuration.pmu_intid is None
        assert warnings(resolution) == ["pmu-unsupported"]

    def test_a_wish_for_where_it_is(self) -> None:
        resolution = resolve(GUEST, Wishes(pmu_intid=23), host=HOST)
        assert decided(resolution, "PMU interrupt") == ("INTID 23 (PPI 7)", Source.METADATA)

    @pytest.mark.parametrize("unmet", Unmet)
    def test_a_wish_for_another_is_refused_and_says_where_it_is(self, unmet: Unmet) -> None:
        resolution = resolve(GUEST, Wishes(pmu_intid=22, unmet=unmet), host=HOST)
        assert errors(resolution) == ["wish-fixed"]
        assert "INTID 23" in resolution.findings[0].evidence

    def test_a_wish_without_a_pmu(self) -> None:
        assert errors(resolve(guest(pmu=False), Wishes(pmu_intid=23), host=HOST)) == ["wish-contradiction"]


class TestAddresses:
    def test_a_wish_for_where_it_is(self) -> None:
        resolution = resolve(GUEST, Wishes(addresses=(AddressWish("its", 0x808_0000),)), host=HOST)
        assert decided(resolution, "ITS") == ("0x8080000", Source.METADATA)

    @pytest.mark.parametrize("device", ["distributor", "redistributors", "high-redistributors", "its", "gicv2m"])
    def test_a_wish_for_elsewhere_is_refused_and_says_where_it_is(self, device: str) -> None:
        resolution = resolve(GUEST, Wishes(addresses=(AddressWish(device, 0x1000_0000),)), host=HOST)
        assert errors(resolution) == ["wish-fixed"]
        assert "0x10000000" in resolution.findings[0].evidence
        assert "and nothing moves it" in resolution.findings[0].evidence


class TestCpu:
    @pytest.mark.parametrize(
        ("features", "lengths"),
        [
            ((), (128, 256, 512)),
            ((CpuFeature("sve", "disable"),), ()),
            ((CpuFeature("sve256", "require"),), (128, 256)),
            ((CpuFeature("sve256", "disable"),), (128,)),
            ((CpuFeature("sve512", "disable"),), (128, 256)),
        ],
    )
    def test_vector_lengths(self, features: tuple[CpuFeature, ...], lengths: tuple[int, ...]) -> None:
        resolution = resolve(guest(cpu_features=features), host=HOST)
        assert resolution.configuration
        assert resolution.configuration.sve_vector_lengths == lengths
        assert ("KVM_ARM_VCPU_SVE" in resolution.configuration.features) == bool(lengths)

    @pytest.mark.parametrize(
        ("settings", "name"),
        [
            (guest(cpu_features=(CpuFeature("sve384", "require"),)), "sve-vector-length"),
            (guest(cpu_mode="custom", cpu_model="neoverse-n1"), "cpu-model-unsupported"),
        ],
    )
    def test_refused(self, settings: DomainSettings, name: str) -> None:
        assert errors(resolve(settings, host=HOST)) == [name]

    @pytest.mark.parametrize("feature", ["sve", "pauth"])
    def test_what_the_host_lacks(self, feature: str) -> None:
        lacking = replace(HOST, pauth=False, sve_vector_lengths=())
        settings = guest(cpu_features=(CpuFeature(feature, "require"),))
        assert errors(resolve(settings, host=lacking)) == ["cpu-feature-unsupported"]
        assert warnings(resolve(settings, host=replace(lacking, asked=False))) == ["cpu-feature-unsupported"]

    def test_a_32_bit_guest(self) -> None:
        narrow = guest(arch="armv7l")
        resolution = resolve(narrow, host=HOST)
        assert resolution.configuration
        assert resolution.configuration.features == (
            "KVM_ARM_VCPU_EL1_32BIT",
            "KVM_ARM_VCPU_PSCI_0_2",
            "KVM_ARM_VCPU_PMU_V3",
        )
        assert errors(resolve(narrow, host=replace(HOST, el1_32bit=False))) == ["el1-32bit-unsupported"]

    def test_an_argument_replaces_the_element(self) -> None:
        devices = Devices(qemu_arguments=("-cpu", "host,pmu=off,sve=off"))
        resolution = resolve(guest(pmu=True), devices=devices, host=HOST)
        assert resolution.configuration
        assert (resolution.configuration.pmu_intid, resolution.configuration.sve_vector_lengths) == (None, ())


class TestVirtualization:
    """A guest with EL2, which only QEMU's own argument asks for."""

    GIVEN = arguments("virtualization=on")
    NESTING = replace(HOST, el2=True)

    def test_el2_and_its_maintenance_interrupt(self) -> None:
        resolution = resolve(GUEST, devices=self.GIVEN, host=self.NESTING, qemu=(10, 1))
        assert resolution.configuration
        assert resolution.configuration.features[-1] == "KVM_ARM_VCPU_HAS_EL2"
        assert decided(resolution, "maintenance interrupt") == ("INTID 25 (PPI 9)", Source.MACHINE)

    @pytest.mark.parametrize(
        ("settings", "host", "qemu"),
        [
            (GUEST, NESTING, (10, 0)),
            (GUEST, HOST, (10, 1)),
            (guest(gic_version="2"), NESTING, (10, 1)),
            (guest(arch="armv7l"), NESTING, (10, 1)),
        ],
        ids=["an older QEMU", "a kernel that does not nest", "a GICv2", "a 32-bit guest"],
    )
    def test_refused(self, settings: DomainSettings, host: HostFacts, qemu: tuple[int, int]) -> None:
        assert errors(resolve(settings, devices=self.GIVEN, host=host, qemu=qemu)) == ["virtualization-unsupported"]

    def test_without_the_argument_a_nesting_host_gives_none(self) -> None:
        resolution = resolve(GUEST, host=self.NESTING, qemu=(10, 1))
        assert resolution.configuration
        assert "KVM_ARM_VCPU_HAS_EL2" not in resolution.configuration.features


class TestDevices:
    GIVEN = Devices(host_devices=(HostDevice("pci", "0000:01:00.0"), HostDevice("pci", "0000:02:00.0")))
    ASSIGNED = AssignedDevices(
        (AssignedDevice("0000:01:00.0", group=7, vectors=33), AssignedDevice("0000:02:00.0", group=8, vectors=32))
    )
    HERE = replace(HOST, assigned=ASSIGNED)

    def test_a_gicv2m_has_64_vectors_for_all(self) -> None:
        with_gicv2 = resolve(guest(gic_version="2"), devices=self.GIVEN, host=self.HERE)
        assert warnings(with_gicv2) == ["msi-vectors"]
        assert "65 MSI vectors" in with_gicv2.findings[0].evidence
        assert warnings(resolve(GUEST, devices=self.GIVEN, host=self.HERE)) == []

    def test_no_msis_at_all(self) -> None:
        assert warnings(resolve(GUEST, Wishes(its=False), self.GIVEN, host=HOST)) == ["msi-none"]

    def test_behind_an_emulated_smmu(self) -> None:
        devices = replace(self.GIVEN, iommu=("smmuv3",))
        assert errors(resolve(GUEST, devices=devices, host=HOST)) == ["iommu-unsupported"]
        assert resolve(GUEST, devices=replace(self.GIVEN, iommu=("virtio",)), host=HOST).configuration

    def test_kvm_is_told_of_their_groups(self) -> None:
        resolution = resolve(GUEST, devices=self.GIVEN, host=self.HERE)
        assert resolution.configuration
        assert resolution.configuration.vfio_files == ("/dev/vfio/7", "/dev/vfio/8")
        said = decided(resolution, "assigned device 0000:01:00.0")
        assert said == ("33 MSI vectors, IOMMU group 7", Source.XML)

    def test_under_tcg_there_is_no_kvm_to_tell(self) -> None:
        emulated = resolve(guest(virt_type="qemu", cpu_model="max"), devices=self.GIVEN)
        assert emulated.configuration
        assert emulated.configuration.vfio_files == ()

    def test_what_the_host_refuses_refuses_the_configuration(self) -> None:
        mute = replace(self.HERE, assigned=AssignedDevices((AssignedDevice("0000:01:00.0", msi_isolated=False),)))
        resolution = resolve(GUEST, devices=self.GIVEN, host=mute)
        assert (resolution.configuration, errors(resolution)) == (None, ["msi-not-isolated"])


@pytest.mark.parametrize(
    ("settings", "devices", "name"),
    [
        (guest(arch="x86_64", machine="q35"), Devices(), "machine-unsupported"),
        (guest(machine="raspi3b"), Devices(), "machine-unsupported"),
        (guest(virt_type="hvf"), Devices(), "machine-unsupported"),
        (guest(machine="virt-12.0"), Devices(), "machine-unsupported"),
        (GUEST, arguments("its=maybe"), "qemu-argument"),
        (GUEST, arguments("kernel-irqchip=off"), "irqchip-userspace"),
        (GUEST, arguments("secure=on"), "secure-unsupported"),
        (GUEST, arguments("msi=its"), "qemu-argument"),  # QEMU 10.0 has no such property
        (GUEST, arguments("highmem-mmio-size=700G"), "qemu-argument"),
        (GUEST, Devices(qemu_arguments=("-machine",)), "qemu-argument"),
    ],
)
def test_refused(settings: DomainSettings, devices: Devices, name: str) -> None:
    assert errors(resolve(settings, devices=devices, host=HOST, qemu=(10, 0))) == [name]


def test_a_distributions_machine_type_is_taken_for_the_newest() -> None:
    assert warnings(resolve(guest(machine="virt-rhel9.4.0"), host=HOST)) == ["machine-unknown"]


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


class TestAnotherVmm:
    MAP = read_address_map(FREE_MAP)

    def resolve(self, wishes: Wishes = Wishes(), **changes: Any) -> Resolution:  # noqa: B008
        return resolve(guest(machine="any", **changes), wishes, host=HOST, address_map=self.MAP)

    def test_regions_are_filled_in_their_order(self) -> None:
        resolution = self.resolve(vcpus=6, current_vcpus=6)
        assert resolution.configuration
        assert resolution.configuration.redistributors == (
            RedistributorRegion(0, 0x2000_0000, 4),
            RedistributorRegion(1, 0x3000_0000, 2),
        )
        assert resolution.configuration.ipa_bits == 36
        assert decided(resolution, "distributor") == ("0x10000000", Source.MAP)

    def test_a_wish_moves_what_is_not_fixed(self) -> None:
        wishes = Wishes(pmu_intid=20, addresses=(AddressWish("its", 0x4000_0000),))
        configuration = self.resolve(wishes).configuration
        assert configuration
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
        configuration = self.resolve(Wishes(pmu_intid=40), vcpus=1, current_vcpus=1).configuration
        assert configuration
        assert configuration.pmu_intid == 40

    def test_a_gicv2_needs_a_cpu_interface(self) -> None:
        assert errors(self.resolve(gic_version="2")) == ["map-incomplete"]

    def test_an_ipa_size_the_host_has_not(self) -> None:
        small = replace(HOST, ipa_bits=32)
        assert errors(resolve(GUEST, host=small, address_map=self.MAP)) == ["ipa-size"]


_settings = st.builds(
    guest,
    virt_type=st.sampled_from(["kvm", "qemu", "hvf"]),
    arch=st.sampled_from(["aarch64", "armv7l", "x86_64"]),
    machine=st.sampled_from(["virt", "virt-2.6", "virt-7.1", "virt-10.0", "virt-99.0", "virt-x", "q35"]),
    memory=st.integers(0, 2**63 - 1),
    max_memory=st.integers(0, 2**63 - 1),
    memory_slots=st.integers(0, 2**32 - 1),
    vcpus=st.integers(1, 2**32 - 1),
    current_vcpus=st.just(1),
    gic_version=st.sampled_from(["", "host", "2", "3", "4", "0", "99999999"]),
    pmu=st.none() | st.booleans(),
    cpu_mode=st.sampled_from(["", "host-passthrough", "custom", "maximum", "host-model"]),
    cpu_model=st.sampled_from(["", "host", "cortex-a57", "x"]),
    cpu_features=st.lists(
        st.builds(CpuFeature, st.sampled_from(["sve", "sve128", "sve384", "sve٣", "sve" + "9" * 40, "pmu", "aarch64"]),
                  st.sampled_from(["require", "disable", "optional"]))
    ).map(tuple),
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
    unmet=st.sampled_from(Unmet),
)  # fmt: skip
_words = st.sampled_from(
    [
        *("-machine", "--machine", "-M", "-cpu", "-accel", "its=off", "its", "msi=its", "host,pmu=off", "highmem=off"),
        *("gic-version=max", ",,", "highmem-mmio-size=1T", "highmem-mmio-size=٣", ""),
    ]
)


@hypothesis_settings(deadline=None)
@given(
    _settings,
    _wishes,
    st.lists(_words, max_size=6),
    st.none() | st.sampled_from([(7, 2), (10, 0), (11, 1)]),
    st.none() | st.just(read_address_map(FREE_MAP)),
    st.integers(32, 52),
)
def test_whatever_is_asked_for(
    settings: DomainSettings,
    wishes: Wishes,
    words: list[str],
    qemu: tuple[int, int] | None,
    address_map: Any,
    ipa_bits: int,
) -> None:
    host = replace(HOST, ipa_bits=ipa_bits)
    devices = Devices(qemu_arguments=tuple(words))
    resolution = resolve(settings, wishes, devices, host=host, qemu=qemu, address_map=address_map)
    errors(resolution)
    configuration = resolution.configuration
    if configuration:
        assert sum(region.count for region in configuration.redistributors) in (0, settings.current_vcpus)
        assert (configuration.its is not None) == (configuration.msi is MSIController.ITS)
        assert (configuration.cpu_interface is not None) == (configuration.gic_version == 2)
    for finding in resolution.findings:
        assert "\n" not in str(finding)
