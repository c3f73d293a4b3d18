"""Booted hosts kept for the next test that wants the same: two at most, since more only slow each other down."""

from collections.abc import Callable, Hashable

from tests.lab.host import Host
from tests.lab.pair import Pair
from tests.lab.spec import HostSpec

RUNNING_HOSTS = 2


class Pool:
    """Hosts and pairs by what they were asked for, the least recently used first."""

    def __init__(self) -> None:
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
            while self._kept and self._running() + hosts > RUNNING_HOSTS:
                self._end_oldest()
            kept = start()
        self._kept[key] = kept
        return kept

    def _running(self) -> int:
        return sum(2 if isinstance(kept, Pair) else 1 for kept in self._kept.values())

    def _end_oldest(self) -> None:
        self._kept.pop(next(iter(self._kept))).close()
