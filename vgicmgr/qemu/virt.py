"""The memory map of QEMU's ``virt`` machine, as far as it depends on memory and IPA size (hw/arm/virt.c)."""

GIB = 1 << 30

MEM_BASE = 1 * GIB
"""VIRT_MEM: where guest memory begins."""
LEGACY_RAM_LIMIT = 255 * GIB
"""LEGACY_RAMLIMIT_BYTES: the high regions lie no lower than behind this much memory."""
GIC_REDIST_VCPUS = 123
"""Redistributors in VIRT_GIC_REDIST: 0xF60000 bytes of 128 KiB each."""
HIGH_GIC_REDIST2_SIZE = 64 << 20
"""VIRT_HIGH_GIC_REDIST2: the second region of redistributors, for 512 vCPUs more."""
HIGH_GIC_REDIST2_VCPUS = 512


def top_of_memory(memory: int, max_memory: int, slots: int) -> int:
    """The first guest physical address behind memory and the room for hotplugged memory (virt_set_memmap).

    All in bytes but ``slots``; ``max_memory`` is 0 where no memory can be plugged.
    """
    device_memory = max_memory - memory + slots * GIB if max_memory else 0
    return _round_up(MEM_BASE + memory, GIB) + _round_up(device_memory, GIB)


def gicv3_max_vcpus(top: int, ipa_bits: int) -> int:
    """How many vCPUs have a redistributor in a map whose memory ends at ``top`` (virt_set_high_memmap).

    The second region is left out where it does not fit into the guest physical address space.
    """
    base = _round_up(max(top, MEM_BASE + LEGACY_RAM_LIMIT), HIGH_GIC_REDIST2_SIZE)
    fits = base + HIGH_GIC_REDIST2_SIZE <= 1 << ipa_bits
    return GIC_REDIST_VCPUS + (HIGH_GIC_REDIST2_VCPUS if fits else 0)


def _round_up(number: int, alignment: int) -> int:
    return (number + alignment - 1) // alignment * alignment
