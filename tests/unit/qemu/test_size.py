"""What ``-smp`` and ``-m`` make of a domain (hw/core/machine-smp.c, system/vl.c)."""

import pytest

from vgicmgr.dataclass import replace
from vgicmgr.qemu.arguments import ArgumentError, read_arguments
from vgicmgr.qemu.size import memory, vcpus

from .test_cpu import DOMAIN

GIB = 1 << 30
GUEST = replace(DOMAIN, vcpus=8, current_vcpus=4, memory=4 * GIB, max_memory=16 * GIB, memory_slots=2)


@pytest.mark.parametrize(
    ("line", "given"),
    [("-S", (4, 8)), ("-smp 6", (6, 8)), ("-smp maxcpus=300", (4, 300)), ("-smp 9,maxcpus=0x10", (9, 16)),
     ("-M smp.cpus=2", (2, 8))],
)  # fmt: skip
def test_vcpus(line: str, given: tuple[int, int]) -> None:
    assert vcpus(GUEST, read_arguments(line.split(" "))) == given


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("-S", (4 * GIB, 16 * GIB, 2)),
        ("-m 8G", (8 * GIB, 16 * GIB, 2)),
        ("-m 2048", (2 * GIB, 16 * GIB, 2)),
        ("-m maxmem=32G,slots=8", (4 * GIB, 32 * GIB, 8)),
        ("-M memory.size=1073741825,memory.max-size=2G", (GIB + 8192, 2 * GIB, 2)),
    ],
)
def test_memory(line: str, given: tuple[int, int, int]) -> None:
    assert memory(GUEST, read_arguments(line.split(" "))) == given


@pytest.mark.parametrize("line", ["-smp x", "-smp 9", "-smp foo=1", "-smp 4,maxcpus=2"])
def test_vcpus_that_qemu_refuses(line: str) -> None:
    with pytest.raises(ArgumentError):
        vcpus(GUEST, read_arguments(line.split(" ")))


@pytest.mark.parametrize("line", ["-m 1.5", "-m slots=x", "-m 32G", "-m size="])
def test_memory_that_qemu_refuses(line: str) -> None:
    with pytest.raises(ArgumentError):
        memory(GUEST, read_arguments(line.split(" ")))
