"""Guest memory, and the map that follows from it (hw/arm/virt.c, virt_set_memmap)."""

import re

import pytest

from tests.unit.guest.examples import GIB, GUEST, HOST, configured, errors, guest, host, names, with_machine
from vgicmgr.domain.domain import Devices, Domain
from vgicmgr.domain.xml import read_domain
from vgicmgr.guest.document import qemu_arguments
from vgicmgr.guest.memory import high_memory
from vgicmgr.guest.resolve import resolve
from vgicmgr.host.assumed import ASSUMED_HOST


@pytest.mark.parametrize(
    ("memory", "max_ipa_bits", "ipa_bits"),
    [  # 0x40_2000_0000: PCIe configuration space ends in 39 bits; without high regions the memory's end counts
        (GIB, 52, 40),
        (GIB, 40, 40),
        (GIB, 39, 39),
        (GIB, 38, 32),
        (GIB, 36, 32),
        (GIB, 32, 32),
        (20 * GIB, 36, 35),
        (1000 * GIB, 48, 41),  # the 512 GiB of PCIe MMIO are aligned to their size
    ],
)
def test_ipa_bits(memory: int, max_ipa_bits: int, ipa_bits: int) -> None:
    resolution = resolve(guest(memory=memory), host(KVM_CAP_ARM_VM_IPA_SIZE=max_ipa_bits))
    assert configured(resolution).ipa_bits == ipa_bits


def test_a_kernel_with_one_size_only() -> None:
    assert configured(resolve(GUEST, host(KVM_CAP_ARM_VM_IPA_SIZE=0))).ipa_bits == 0


def test_more_than_there_are_addresses() -> None:
    assert errors(resolve(guest(memory=1024 * GIB), host(KVM_CAP_ARM_VM_IPA_SIZE=40))) == ["ipa-size"]
    assert errors(resolve(with_machine("highmem=off", memory=4 * GIB), HOST)) == ["ipa-size"]
    assert errors(resolve(guest(memory=64 * GIB), host(KVM_CAP_ARM_VM_IPA_SIZE=36))) == ["ipa-size"]


def test_too_many_slots() -> None:
    assert errors(resolve(guest(max_memory=2 * GIB, memory_slots=257), HOST)) == ["memory-slots"]


def test_as_many_as_the_remedy_says() -> None:
    [finding] = resolve(guest(max_memory=2 * GIB, memory_slots=257), HOST).findings
    assert finding.remedy == "set slots to 256 or less"
    assert names(resolve(guest(max_memory=2 * GIB, memory_slots=256), HOST)) == []


def test_less_room_than_memory_is_refused_by_its_name() -> None:
    """libvirt refuses it (virDomainDefPostParseMemory)."""
    assert errors(resolve(guest(max_memory=1), HOST)) == ["memory-size"]


@pytest.mark.parametrize(
    "domain",
    [
        guest(memory=2000 * GIB),
        guest(memory=1023 * GIB, max_memory=2000 * GIB, memory_slots=8),
        guest(memory=4 * GIB, max_memory=1024 * GIB, memory_slots=8),
        guest(memory=4 * GIB, max_memory=1020 * GIB, memory_slots=8),
        guest(memory=4 * GIB, max_memory=1023 * GIB, memory_slots=1),
    ],
)
def test_the_number_in_the_remedy_helps_and_one_more_would_not(domain: Domain) -> None:
    """Most is 2^bits - 1 GiB - slots x 1 GiB (virt_set_memmap)."""
    small = host(KVM_CAP_ARM_VM_IPA_SIZE=40)
    resolution = resolve(domain, small)
    assert errors(resolution) == ["ipa-size"]
    told = re.match(r"set <(\w+)> to (\d+) GiB", resolution.findings[0].remedy)
    assert told
    member = {"memory": "memory", "maxMemory": "max_memory"}[told[1]]
    most = int(told[2]) * GIB
    memory = min(domain.memory, most)
    assert names(resolve(guest(**{**_sizes(domain), "memory": memory, member: most}), small)) == []
    more = guest(**{**_sizes(domain), "memory": memory, member: most + GIB})
    assert errors(resolve(more, small)) == ["ipa-size"]


def _sizes(domain: Domain) -> dict[str, int]:
    return {"memory": domain.memory, "max_memory": domain.max_memory, "memory_slots": domain.memory_slots}


def test_fewer_slots_are_a_remedy_too() -> None:
    small = host(KVM_CAP_ARM_VM_IPA_SIZE=40)
    resolution = resolve(guest(memory=4 * GIB, max_memory=1020 * GIB, memory_slots=8), small)
    assert resolution.findings[0].remedy.endswith("or fewer slots")
    assert names(resolve(guest(memory=4 * GIB, max_memory=1020 * GIB, memory_slots=3), small)) == []


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ((), True),  # a window of 512 GiB from 1 TiB on, with 48 bits only
        (("highmem-mmio=off",), False),
        (("highmem=off",), False),
        (("highmem-mmio=off", "highmem-ecam=off", "compact-highmem=off"), False),
        (("highmem-mmio-size=1T",), True),
    ],
)
def test_the_map_that_two_hosts_make_of_one_machine(options: tuple[str, ...], differs: bool) -> None:
    """virt_set_high_memmap goes by the machine's properties, so that without a window there is none to appear."""
    memory = 2 * GIB if "highmem=off" in options else 600 * GIB
    resolution = resolve(with_machine(*options, memory=memory), host(KVM_CAP_ARM_VM_IPA_SIZE=48))
    assert resolution.machine
    one, other = (high_memory(resolution.domain, resolution.machine, bits).regions for bits in (40, 48))
    assert (one != other) == differs


class TestPCIHole:
    """<pcihole64> of the PCIe root is -machine highmem-mmio-size= (libvirt 11.10 and later)."""

    @staticmethod
    def of(size: int) -> Domain:
        return guest(devices=Devices(pcihole64=size))

    def test_it_takes_more_addresses(self) -> None:
        """2 TiB from 2 TiB on: 42 bits."""
        resolution = resolve(self.of(2048 * GIB), HOST)
        assert configured(resolution).ipa_bits == 42
        said = qemu_arguments(resolution)
        assert f"highmem-mmio-size={2048 * GIB}" in said[said.index("-machine") + 1].split(",")

    def test_in_the_xml(self) -> None:
        xml = (
            b"<domain type='kvm'><name>g</name><memory unit='GiB'>1</memory>"
            b"<os><type arch='aarch64' machine='virt'>hvm</type></os><cpu mode='host-passthrough'/><devices>"
            b"<controller type='pci' index='0' model='pcie-root'><pcihole64 unit='GiB'>2048</pcihole64></controller>"
            b"</devices></domain>"
        )
        assert configured(resolve(read_domain(xml), HOST)).ipa_bits == 42

    @pytest.mark.parametrize("size", [256 * GIB, 700 * GIB, 1])
    def test_what_qemu_refuses(self, size: int) -> None:
        """virt_set_highmem_mmio_size: a power of two of 512 GiB or more."""
        assert errors(resolve(self.of(size), HOST)) == ["qemu-argument"]


def test_sizes_are_whole_mebibytes_as_libvirt_makes_them() -> None:
    """qemuDomainAlignMemorySizes."""
    xml = (
        b"<domain type='kvm'><name>g</name><memory unit='KiB'>1048577</memory>"
        b"<os><type arch='aarch64' machine='virt'>hvm</type></os><cpu mode='host-passthrough'>"
        b"<numa><cell id='0' cpus='0' memory='1048577' unit='KiB'/></numa></cpu></domain>"
    )
    said = qemu_arguments(resolve(read_domain(xml), ASSUMED_HOST))
    assert said[said.index("-m") + 1] == f"size={1025 << 10}k"
