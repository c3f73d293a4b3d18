"""Memory blocks that QEMU sizes by the pages of the host that it runs on, and whether those of another host load.

A block's size is rounded up to the host's page (``system/physmem.c``, qemu_ram_alloc_internal). The source sends the
length in use, and the destination rounds that up to its own page and takes what it has that way; another length only
for a resizeable block, up to its maximum (qemu_ram_resize). Guest memory, flash and the devices' memories are multiples
of 64 KiB, the largest page, on every host.
"""

from collections.abc import Iterator

from vgicmgr.dataclass import dataclass
from vgicmgr.qemu.machine import KIB, MIB, round_up
from vgicmgr.qemu.virt import Properties


@dataclass(frozen=True)
class RAMBlock:
    """A resizeable block: QEMU's name, and the most that it holds, in bytes, before that is rounded up."""

    name: str
    most: int

    def loads(self, theirs: int, ours: int) -> bool:
        """Whether a block of a host with pages of ``theirs`` bytes loads on one with pages of ``ours``.

        The source has at least one page in use. More cannot matter: what is not a multiple of every page is smaller.
        """
        return round_up(theirs, ours) <= round_up(self.most, ours)


ACPI_BLOCKS = (
    RAMBlock("/rom@etc/acpi/tables", 2 * MIB),
    RAMBlock("/rom@etc/table-loader", 64 * KIB),
    RAMBlock("/rom@etc/acpi/rsdp", 4 * KIB),
)
"""Of any machine with ACPI, whether firmware reads it or not (``hw/acpi/utils.c``, acpi_add_rom_blob)."""


def has_acpi(properties: Properties) -> bool:
    """Whether the machine has ACPI tables (virt_is_acpi_enabled): QEMU's default is ``auto``, which is yes."""
    return properties.acpi != "off"


def blocks_too_large(properties: Properties, theirs: int, ours: int) -> Iterator[RAMBlock]:
    """The blocks of a guest from a host with pages of ``theirs`` bytes that do not load on one with ``ours``."""
    if has_acpi(properties):
        yield from (block for block in ACPI_BLOCKS if not block.loads(theirs, ours))


_PVTIME_SIZE_PER_CPU = 64


def pvtime_size(max_vcpus: int, page_size: int) -> int:
    """Bytes of the region of stolen time, ``pvtime`` (``hw/arm/virt.c``, virt_cpu_post_init); never resized."""
    return round_up(max_vcpus * _PVTIME_SIZE_PER_CPU, page_size)


def pvtime_loads(max_vcpus: int, theirs: int, ours: int) -> bool:
    """Whether that region loads: rounded up to the page here, what comes is as large as what is here."""
    return round_up(pvtime_size(max_vcpus, theirs), ours) == pvtime_size(max_vcpus, ours)


def pvtime_mapped(max_vcpus: int, theirs: int, ours: int) -> bool:
    """Whether KVM then still has memory for all of it.

    The region shrinks to the length that came (memory_region_set_size), of which KVM gets whole pages only
    (``accel/kvm/kvm-all.c``, kvm_align_section).
    """
    return pvtime_size(max_vcpus, theirs) // ours * ours >= max_vcpus * _PVTIME_SIZE_PER_CPU
