"""Booted hosts kept for the next test that wants the same: a host costs seconds to boot, and next to nothing idle."""

from collections.abc import Callable, Hashable
from pathlib import Path

from tests.lab.host import Host
from tests.lab.pair import Pair
from tests.lab.spec import HostSpec

MOST_HOSTS = 6
HOST_GIB = 1.5
"""The memory of a host with all that its QEMU needs, seen from outside; measured: 0.6 to 1.0."""


def running_hosts() -> int:
    """How many hosts may run at once: a pair at least, and no more than half the memory that is free now, since ``make
    check`` runs the tests in two processes.
    """
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free_gib = int(meminfo["MemAvailable"].split()[0]) / (1 << 20)
    return max(2, min(MOST_HOSTS, int(free_gib / 2 / HOST_GIB)))


class Pool:
    """Hosts and pairs by what they were asked for, the least recently used first; at most ``most`` hosts run."""

    def __init__(self, most: int = 2) -> None:
        self._most = most
        self._kept: dict[Hashable, Host | Pair] = {}

    def host(self, spec: HostSpec, *, fresh: bool = False) -> Host:
        """A host of this kind; ``fresh``: one that no test has had or will have."""
        kept = self._get(object() if fresh else spec, 1, lambda: Host.start(spec))
        assert isinstance(kept, Host)
        return kept

    def pair(self, first: HostSpec, second: HostSpec, *, fresh: bool = False) -> Pair:
        """Two hosts on one cable, both running libvirtd; ``fresh`` as for :meth:`host`."""
        kept = self._get(object() if fresh else (first, second), 2, lambda: Pair.start(first, second))
        assert isinstance(kept, Pair)
        kept.start_libvirtd()
        return kept

    def close(self) -> None:
        """End them all."""
        while self._kept:
            self._end_oldest()

    def _get(self, key: Hashable, hosts: int, start: Callable[[], Host | Pair]) -> Host | Pair:
        kept = self._kept.pop(key, None)
        if kept and not kept.alive:
            kept.close()
            kept = None
        if kept is None:
            while self._kept and self._running() + hosts > self._most:
                self._end_oldest()
            kept = start()
        self._kept[key] = kept
        return kept

    def _running(self) -> int:
        return sum(2 if isinstance(kept, Pair) else 1 for kept in self._kept.values())

    def _end_oldest(self) -> None:
        self._kept.pop(next(iter(self._kept))).close()
