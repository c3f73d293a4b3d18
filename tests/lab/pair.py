"""Two hosts on one cable, their libvirtds open to each other: for migrations."""

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
from tests.lab.machine import Link
from tests.lab.spec import HostSpec

NAMES = ("h1", "h2")
ADDRESSES = {"h1": "10.0.0.1", "h2": "10.0.0.2"}
MIGRATION_SECONDS = 300.0
"""Measured: 5 to 9."""


@dataclass(frozen=True)
class Pair:
    """The hosts ``h1`` and ``h2``, who know each other by these names; a context manager."""

    first: Host
    second: Host
    _cable: Path

    @classmethod
    def start(cls, first: HostSpec, second: HostSpec) -> Self:
        """Boot both at once; raises as :meth:`Host.start` does."""
        cable = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, cable, ignore_errors=True)
            hosts = []
            for spec, name in zip((first, second), NAMES, strict=True):
                [other] = set(NAMES) - {name}
                link = Link(cable / name, cable / other, f"52:54:00:00:00:0{name[1]}")
                host = Host.spawn(spec, name, Network(link, ADDRESSES[name], ADDRESSES))
                undo.callback(host.close)
                hosts.append(host)
            for host in hosts:
                host.wait()
            undo.pop_all()
        return cls(hosts[0], hosts[1], cable)

    @property
    def alive(self) -> bool:
        """Whether both can still be talked to."""
        return self.first.alive and self.second.alive

    def start_libvirtd(self) -> None:
        """Start libvirtd on both at once, unless it runs."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Host.start_libvirtd, (self.first, self.second)))

    def migrate(self, guest: str = "guest", *options: str, back: bool = False, check: bool = False) -> Result:
        """``virsh migrate --live`` from the first host to the second, or ``back``; further virsh options may follow."""
        source, target = (self.second, self.first) if back else (self.first, self.second)
        uri = f"qemu+tcp://{target.name}/system"
        argv = ["virsh", "migrate", "--live", *options, guest, uri]
        return source.run(argv, timeout=MIGRATION_SECONDS, check=check)

    def close(self) -> None:
        """End both hosts."""
        self.first.close()
        self.second.close()
        shutil.rmtree(self._cable, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
