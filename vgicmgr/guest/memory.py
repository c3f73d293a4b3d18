"""Guest memory against the guest physical addresses there are, and the address map that follows (virt_set_memmap)."""

from vgicmgr.domain.domain import Domain
from vgicmgr.guest.addressmap import AddressMap, virt_map
from vgicmgr.guest.machine import Machine
from vgicmgr.guest.notes import Notes
from vgicmgr.qemu import virt
from vgicmgr.qemu.machine import GIB, MEM_BASE, top_of_memory
from vgicmgr.qemu.virt import HighMemory

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts
    from vgicmgr.qemu.cpu import CPU


def resolve_memory(domain: Domain, machine: Machine, cpu: "CPU", host: "HostFacts", notes: Notes) -> AddressMap:
    """The machine's address map with this memory; raises :class:`Refused` where it does not fit."""
    bits = host.ipa_bits if machine.kvm else emulated_address_bits(machine, cpu)
    if domain.memory_slots > virt.MAX_RAM_SLOTS:
        notes.find(
            "memory-slots",
            f"<maxMemory slots='{domain.memory_slots}'> is asked for, but QEMU has at most {virt.MAX_RAM_SLOTS}",
            f"set slots to {virt.MAX_RAM_SLOTS} or less",
        )
    if domain.max_memory and domain.max_memory < domain.memory:
        raise notes.refuse("memory-size", "<maxMemory> is smaller than <memory>", "set it to <memory> or more")
    _check_top(domain, machine, bits, notes)
    smmu = machine.properties.iommu == "smmuv3"
    return virt_map(high_memory(domain, machine, bits), domain, smmu=smmu)


def high_memory(domain: Domain, machine: Machine, address_bits: int) -> HighMemory:
    """The high regions of this domain's machine on a host with so many bits of guest physical address."""
    top = top_of_memory(domain.memory, domain.max_memory, domain.memory_slots)
    return virt.high_memory(top, address_bits, machine.properties, machine.version)


def emulated_address_bits(machine: Machine, cpu: "CPU") -> int:
    """Of the physical addresses of the CPU that TCG emulates."""
    if cpu.model == "max" and not machine.since(virt.TCG_LPA2_SINCE):
        return 48
    return virt.CPU_ADDRESS_BITS.get(cpu.model, 40)


def _check_top(domain: Domain, machine: Machine, address_bits: int, notes: Notes) -> None:
    highmem = machine.properties.highmem
    bits = address_bits if highmem else 32
    top = top_of_memory(domain.memory, domain.max_memory, domain.memory_slots)
    if top <= 1 << bits:
        return
    element = "<maxMemory>" if domain.max_memory else "<memory>"
    limit = "KVM_CAP_ARM_VM_IPA_SIZE" if machine.kvm else "the emulated CPU's physical addresses"
    raise notes.refuse(
        "ipa-size",
        f"{element} of {(domain.max_memory or domain.memory) // GIB} GiB ends at guest physical address {top:#x}, but "
        f"there are {bits} bits of them ({limit if highmem else 'highmem=off'})",
        _less_memory(domain, bits, element),
    )


def _less_memory(domain: Domain, bits: int, element: str) -> str:
    """The most that fits: each memory slot takes a GiB of addresses besides what is plugged into it."""
    slots = domain.memory_slots if domain.max_memory else 0
    most = max((1 << bits) - MEM_BASE - slots * GIB, 0) // GIB
    if not most:
        return "use a host with more bits of guest physical address"
    return f"set {element} to {most} GiB or less" + (", or fewer slots" if slots else "")
