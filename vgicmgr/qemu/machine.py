"""What of QEMU's ``virt`` machine limits a start: room for memory and redistributors (hw/arm/virt.c).

Apart from :mod:`vgicmgr.qemu.virt`, since the hook reads it at every start.
"""

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

Version = tuple[int, int]
"""Major and minor number, of QEMU or of a machine type."""

MEM_BASE = 1 * GIB
"""VIRT_MEM: where guest memory begins."""
LEGACY_RAM_LIMIT = 255 * GIB
"""LEGACY_RAMLIMIT_BYTES: the high regions lie no lower than behind this much memory."""
GIC_REDIST_VCPUS = 123
"""Redistributors in VIRT_GIC_REDIST: 0xF60000 bytes of 128 KiB each."""
HIGH_GIC_REDIST2_SIZE = 64 << 20
"""VIRT_HIGH_GIC_REDIST2: the second region of redistributors, for 512 vCPUs more."""
HIGH_GIC_REDIST2_VCPUS = 512


def machine_version(machine: str) -> Version | None:
    """The version in a name such as ``virt-10.0``, or the upstream one that a distribution's type is made from.

    None of the alias ``virt`` and of types that are not known here.
    """
    return upstream_version(machine) or _DISTRIBUTION_TYPES.get(machine)


def upstream_version(machine: str) -> Version | None:
    """The version in a name such as ``virt-10.0``; None of every other name."""
    numbers = dotted_version(machine.removeprefix("virt-"))
    return numbers if machine.startswith("virt-") else None


def dotted_version(text: str) -> Version | None:
    """A version such as ``10.0``, of at most three digits a part; None where the text is something else."""
    major, dot, minor = text.partition(".")
    fits = dot and all(part.isascii() and part.isdecimal() and len(part) <= 3 for part in (major, minor))
    return (int(major), int(minor)) if fits else None


_DISTRIBUTION_TYPES: dict[str, Version] = {
    "virt-rhel7.6.0": (2, 12),
    "virt-rhel8.2.0": (4, 2),
    "virt-rhel8.3.0": (5, 1),
    "virt-rhel8.4.0": (5, 2),
    "virt-rhel8.5.0": (6, 0),
    "virt-rhel8.6.0": (6, 2),
    "virt-rhel9.0.0": (6, 2),
    "virt-rhel9.2.0": (7, 2),
    "virt-rhel9.4.0": (8, 2),
    "virt-rhel9.6.0": (9, 1),
    "virt-rhel10.0.0": (9, 1),
}
"""RHEL's types, by the upstream QEMU that its release of that number is built from (qemu-kvm.spec of each).

What they differ in from upstream's type of that version, if anything, is not known here.
"""


def top_of_memory(memory: int, max_memory: int, slots: int) -> int:
    """The first guest physical address behind memory and the room for hotplugged memory (virt_set_memmap).

    All in bytes but ``slots``; ``max_memory`` is 0 where no memory can be plugged.
    """
    device_memory = max_memory - memory + slots * GIB if max_memory else 0
    return round_up(MEM_BASE + memory, GIB) + round_up(device_memory, GIB)


def gicv3_max_vcpus(top: int, ipa_bits: int) -> int:
    """How many vCPUs have a redistributor in a map whose memory ends at ``top`` (virt_set_high_memmap).

    The second region is left out where it does not fit into the guest physical address space.
    """
    base = round_up(max(top, MEM_BASE + LEGACY_RAM_LIMIT), HIGH_GIC_REDIST2_SIZE)
    fits = base + HIGH_GIC_REDIST2_SIZE <= 1 << ipa_bits
    return GIC_REDIST_VCPUS + (HIGH_GIC_REDIST2_VCPUS if fits else 0)


def round_up(number: int, alignment: int) -> int:
    """The next multiple of ``alignment`` from ``number`` on."""
    return (number + alignment - 1) // alignment * alignment
