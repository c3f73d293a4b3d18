"""Hosts in a row, each on a cable to the next, their libvirtds open to each other: for migrations."""

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.connection import Result
from tests.lab.host import Host, Network
from tests.lab.machine import Cable, Link
from tests.lab.spec import HostSpec

MIGRATION_SECONDS = 300.0
"""Measured: 5 to 9."""


@dataclass(frozen=True)
class Chain:
    """The hosts ``h1``, ``h2`` …, who know each other by these names; a context manager.

    All are on one network: a host between two others passes on what is not for itself.
    """

    hosts: tuple[Host, ...]
    _cables: Path

    @classmethod
    def start(cls, *specs: HostSpec) -> Self:
        """Boot all at once; raises as :meth:`Host.start` does."""
        cables = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))
        addresses = {f"h{number}": f"10.0.0.{number}" for number in range(1, len(specs) + 1)}
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, cables, ignore_errors=True)
            hosts = []
            for number, spec in enumerate(specs, 1):
                neighbours = [other for other in (number - 1, number + 1) if 1 <= other <= len(specs)]
                link = Link(
                    tuple(Cable(cables / f"{number}-{other}", cables / f"{other}-{number}") for other in neighbours),
                    f"52:54:00:00:00:0{number}",
                )
                name = f"h{number}"
                host = Host.spawn(spec, name, Network(link, addresses[name], addresses))
                undo.callback(host.close)
                hosts.append(host)
            for host in hosts:
                host.wait()
            undo.pop_all()
        return cls(tuple(hosts), cables)

    @property
    def alive(self) -> bool:
        """Whether all can still be talked to."""
        return all(host.alive for host in self.hosts)

    def start_libvirtd(self) -> None:
        """Start libvirtd on all at once, unless it runs."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(Host.start_libvirtd, self.hosts))

    def close(self) -> None:
        """End all hosts."""
        for host in self.hosts:
            host.close()
        shutil.rmtree(self._cables, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def migrate(source: Host, target: Host, guest: str, *options: str, check: bool = False) -> Result:
    """``virsh migrate --live`` between two hosts of a chain; further virsh options may follow."""
    argv = ["virsh", "migrate", "--live", *options, guest, f"qemu+tcp://{target.name}/system"]
    return source.run(argv, timeout=MIGRATION_SECONDS, check=check)
