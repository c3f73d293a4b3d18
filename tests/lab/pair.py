"""Two hosts on one cable: what most migrations need."""

from dataclasses import dataclass

from tests.lab.chain import Chain, migrate
from tests.lab.connection import Result
from tests.lab.host import Host


@dataclass(frozen=True)
class Pair(Chain):
    """The hosts ``h1`` and ``h2``."""

    @property
    def first(self) -> Host:
        """``h1``."""
        return self.hosts[0]

    @property
    def second(self) -> Host:
        """``h2``."""
        return self.hosts[1]

    def migrate(self, guest: str = "guest", *options: str, back: bool = False, check: bool = False) -> Result:
        """``virsh migrate --live`` from the first host to the second, or ``back``."""
        source, target = (self.second, self.first) if back else (self.first, self.second)
        return migrate(source, target, guest, *options, check=check)
