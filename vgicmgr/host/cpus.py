"""The CPUs of this host: of which type each is, and on which this process runs."""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

CPUS = "/sys/devices/system/cpu"


def read_midrs(numbers: Iterable[int] | None = None, folder: str = CPUS) -> dict[int, int]:
    """MIDR_EL1 of these CPUs or of all, as far as they are online.

    Source: ``Documentation/arch/arm64/cpu-feature-registers.rst``. 128 of them take a millisecond.
    """
    if numbers is None:
        try:
            names = os.listdir(folder)  # noqa: PTH208 (pathlib is slow to start)
        except OSError:
            return {}
        numbers = [int(name[3:]) for name in names if name.startswith("cpu") and name[3:].isdecimal()]
    found = {}
    for number in numbers:
        try:
            with open(f"{folder}/cpu{number}/regs/identification/midr_el1", "rb") as file:  # noqa: PTH123
                found[number] = int(file.read(64), 16)
        except (OSError, ValueError):
            continue
    return found


@contextmanager
def on_cpus(cpus: Collection[int]) -> Iterator[bool]:
    """Within it this process runs on these CPUs alone, and then as before; whether it does.

    Not where there are none, or the kernel does not let it (all are offline, or not this process's to use).
    """
    before = _pin(cpus) if cpus else None
    try:
        yield before is not None
    finally:
        if before is not None:
            _pin(before)


def _pin(cpus: Collection[int]) -> set[int] | None:
    """Pin this process; what it was pinned to before, or None where that is not possible."""
    try:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cpus)
    except OSError:
        return None
    return before
