"""The virt machine's memory map: expectations worked out by hand from QEMU's hw/arm/virt.c."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import IOMMU, Devices
from vgicmgr.qemu.arguments import ArgumentError, read_arguments
from vgicmgr.qemu.machine import GIB, gicv3_max_vcpus, machine_version, top_of_memory, upstream_version
from vgicmgr.qemu.virt import (
    HighMemory,
    Properties,
    has_machine,
    has_machine_type,
    high_memory,
    libvirt_machine,
    machine_properties,
)

from .test_cpu import DOMAIN

TIB = 1024 * GIB


def test_memory_begins_at_one_gib() -> None:
    assert top_of_memory(4 * GIB, 0, 0) == 5 * GIB


def test_memory_is_rounded_up_to_whole_gib() -> None:
    assert top_of_memory(GIB + 1, 0, 0) == 3 * GIB


def test_room_for_hotplugged_memory_has_one_gib_a_slot_for_alignment() -> None:
    assert top_of_memory(4 * GIB, 16 * GIB, 8) == (1 + 4 + 12 + 8) * GIB


def test_a_small_guest_has_its_second_redistributor_region_at_256_gib() -> None:
    # 0x40_0000_0000 + 64 MiB ends within 39 bits of address, not within 38
    assert gicv3_max_vcpus(5 * GIB, ipa_bits=39) == 123 + 512
    assert gicv3_max_vcpus(5 * GIB, ipa_bits=38) == 123


def test_memory_that_fills_the_address_space_leaves_no_second_region() -> None:
    assert gicv3_max_vcpus(TIB, ipa_bits=40) == 123
    assert gicv3_max_vcpus(TIB - GIB, ipa_bits=40) == 123 + 512


@pytest.mark.parametrize(
    ("machine", "version"),
    [
        ("virt", None),
        ("virt-10.0", (10, 0)),
        ("virt-2.12", (2, 12)),
        ("virt-rhel9.4.0", (8, 2)),
        ("virt-rhel99.0.0", None),
        ("virt-" + "9" * 5000 + ".0", None),
        ("virt-10", None),
        ("virt-1000.0", None),
        ("virt-10.0\n", None),
        ("virt-٣.٣", None),
    ],
)
def test_machine_version(machine: str, version: tuple[int, int] | None) -> None:
    assert machine_version(machine) == version


def test_what_a_distribution_keeps_is_not_told_by_qemus_version() -> None:
    assert upstream_version("virt-rhel9.4.0") is None
    assert has_machine_type((10, 1), "virt-rhel7.6.0") is None
    assert has_machine_type((10, 1), "virt") is True
    assert has_machine_type((10, 1), "virt-2.12") is False
    assert has_machine_type((10, 0), "virt-2.12") is True


def properties(*options: str) -> Properties:
    return machine_properties(read_arguments([word for option in options for word in ("-machine", option)]))


@pytest.mark.parametrize(
    ("option", "read"),
    [
        ("virt", Properties()),
        ("virt,usb=off,gic-version=host", Properties(gic_version="host")),
        ("its=no,msi=gicv2m", Properties(its=False, msi="gicv2m")),
        (
            "highmem=n,highmem-ecam=false,compact-highmem=y",
            Properties(highmem=False, highmem_ecam=False, compact_highmem=True),
        ),
        ("highmem-mmio-size=1T", Properties(highmem_mmio_size=TIB)),
        ("highmem-mmio-size=0x8000000000", Properties(highmem_mmio_size=512 * GIB)),
        ("kernel_irqchip=off", Properties(kernel_irqchip="off")),
        ("acpi=off,ras=on,mte=on,iommu=none", Properties(acpi="off", ras=True, mte=True)),
        ("confidential-guest-support=rme0", Properties(confidential_guest="rme0")),
    ],
)
def test_machine_properties(option: str, read: Properties) -> None:
    assert properties(option) == read


@pytest.mark.parametrize(
    "option",
    ["its=maybe", "highmem=", "its=1", "acpi=yes", "iommu=virtio", "kernel-irqchip=maybe", "msi=none", "gic-version=03",
     "highmem-mmio-size=big", "highmem-mmio-size=0", "highmem-mmio-size=256G", "highmem-mmio-size=768G",
     "highmem-mmio-size=" + "9" * 5000, "highmem-mmio-size=٣"],
)  # fmt: skip
def test_machine_properties_that_qemu_refuses(option: str) -> None:
    with pytest.raises(ArgumentError):
        properties(option)


class TestLibvirt:
    """qemuBuildMachineCommandLine."""

    def test_what_it_writes(self) -> None:
        devices = Devices(iommus=(IOMMU("smmuv3"),), pcihole64=2 * TIB)
        domain = replace(DOMAIN, devices=devices, ras=True, acpi=True)
        read = machine_properties(read_arguments(()), libvirt_machine(domain))
        assert read == Properties(gic_version="3", iommu="smmuv3", ras=True, acpi="on", highmem_mmio_size=2 * TIB)

    def test_an_smmu_with_a_bus_is_no_property(self) -> None:
        domain = replace(DOMAIN, devices=Devices(iommus=(IOMMU("smmuv3", 1),)))
        assert "iommu" not in dict(libvirt_machine(domain))

    def test_arguments_come_behind(self) -> None:
        arguments = read_arguments(["-M", "gic-version=2,its=off"])
        assert machine_properties(arguments, libvirt_machine(DOMAIN)) == Properties(
            gic_version="2", its=False, acpi="off"
        )

    def test_the_other_spelling_of_what_libvirt_writes_is_refused(self) -> None:
        with pytest.raises(ArgumentError):
            machine_properties(read_arguments(["-M", "gic_version=2"]), libvirt_machine(DOMAIN))


def test_a_larger_pcie_window_needs_more_bits() -> None:
    """A window of 2 TiB lies at its own alignment: it ends at 4 TiB."""
    assert high_memory(2 * GIB, 48, Properties(highmem_mmio_size=2 * TIB), None).ipa_bits == 42


@pytest.mark.parametrize(
    ("qemu", "machine", "there"),
    [
        ((7, 2), (2, 6), True),
        ((7, 2), (8, 0), False),
        ((10, 0), (2, 6), True),  # deletion of old types began with 10.1
        ((11, 1), (5, 1), False),
        ((11, 1), (5, 2), True),
        ((11, 1), (11, 2), False),
        ((7, 2), (2, 5), False),
    ],
)
def test_machine_types_of_a_qemu(qemu: tuple[int, int], machine: tuple[int, int], *, there: bool) -> None:
    assert has_machine(qemu, machine) is there


def bases(memory: HighMemory) -> dict[str, int]:
    return {region.name.removeprefix("VIRT_HIGH_"): region.base for region in memory.regions}


def test_the_high_regions_of_a_small_guest() -> None:
    memory = high_memory(2 * GIB, 48, Properties(), None)
    assert bases(memory) == {"GIC_REDIST2": 0x40_0000_0000, "PCIE_ECAM": 0x40_1000_0000, "PCIE_MMIO": 0x80_0000_0000}
    assert memory.ipa_bits == 40


def test_a_region_that_is_off_takes_its_place_before_virt_7_2_alone() -> None:
    without = Properties(highmem_redists=False)
    assert bases(high_memory(2 * GIB, 48, without, (7, 2)))["PCIE_ECAM"] == 0x40_0000_0000
    assert bases(high_memory(2 * GIB, 48, without, (7, 1)))["PCIE_ECAM"] == 0x40_1000_0000


def test_highmem_off_leaves_none() -> None:
    memory = high_memory(2 * GIB, 48, Properties(highmem=False), None)
    assert (memory.regions, memory.ipa_bits) == ((), 32)


def test_virt_2_12_has_no_high_pcie_configuration_space() -> None:
    assert "PCIE_ECAM" not in bases(high_memory(2 * GIB, 48, Properties(), (2, 12)))


@hypothesis_settings(deadline=None)
@given(st.integers(0, 1 << 52), st.integers(32, 52), st.booleans(), st.booleans(), st.booleans())
def test_high_regions_never_overlap_and_fit(top: int, bits: int, redists: bool, ecam: bool, compact: bool) -> None:
    properties = Properties(highmem_redists=redists, highmem_ecam=ecam, compact_highmem=compact)
    memory = high_memory(top, bits, properties, None)
    end = top
    for region in memory.regions:
        assert region.base >= end
        assert region.base % region.size == 0
        end = region.end
        assert end <= 1 << bits
    assert end <= 1 << max(memory.ipa_bits, top.bit_length())
