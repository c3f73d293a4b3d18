"""Hosts for tests: ``lab_host(HOSTS["trixie"])``, ``lab_pair(HOSTS["bookworm"], HOSTS["trixie"])``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.lab import command
from tests.lab.errors import Prerequisite
from tests.lab.host import Host
from tests.lab.pair import Pair
from tests.lab.pool import Pool, running_hosts
from tests.lab.spec import HostSpec


class LabHost(Protocol):
    """What the ``lab_host`` fixture is."""

    def __call__(self, spec: HostSpec, *, fresh: bool = False) -> Host:
        """A booted host of this kind, which other tests may have used unless ``fresh``."""


class LabPair(Protocol):
    """What the ``lab_pair`` fixture is."""

    def __call__(self, first: HostSpec, second: HostSpec, *, fresh: bool = False) -> Pair:
        """Two booted hosts with libvirtd running, which other tests may have used unless ``fresh``."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that is in this folder; what is asked of one kind of host in one file stays in one process."""
    here = Path(__file__).parent
    for item in items:
        if isinstance(item, pytest.Function) and item.path.is_relative_to(here):
            item.add_marker("lab")
            kind = item.callspec.params if hasattr(item, "callspec") else {}
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem} {kind.get('host', kind.get('kind', ''))}"))


@pytest.fixture(scope="session")
def lab_pool() -> Iterator[Pool]:
    """The hosts of this session."""
    try:
        command.require()
    except Prerequisite as lacking:
        pytest.skip(str(lacking))
    pool = Pool(running_hosts())
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def lab_host(lab_pool: Pool) -> LabHost:
    """A function from a HostSpec to a booted host, which is kept until others need the room."""

    def host(spec: HostSpec, *, fresh: bool = False) -> Host:
        try:
            return lab_pool.host(spec, fresh=fresh)
        except Prerequisite as lacking:
            pytest.skip(str(lacking))

    return host


@pytest.fixture(scope="session")
def lab_pair(lab_pool: Pool) -> LabPair:
    """A function from two HostSpecs to two joined hosts with libvirtd running."""

    def pair(first: HostSpec, second: HostSpec, *, fresh: bool = False) -> Pair:
        try:
            return lab_pool.pair(first, second, fresh=fresh)
        except Prerequisite as lacking:
            pytest.skip(str(lacking))

    return pair
