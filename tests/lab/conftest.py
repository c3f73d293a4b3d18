"""Hosts for tests: ``lab_host(HOSTS["trixie"])``, ``lab_pair(HOSTS["bookworm"], HOSTS["trixie"])``."""

from collections.abc import Iterator
from typing import Protocol

import pytest

from tests.lab import command, kvm_trace
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


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark all that is in this folder."""
    item.add_marker("lab")


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


@pytest.fixture(scope="session")
def tracer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The library that, preloaded into a host's QEMU, writes its ioctls down."""
    try:
        return kvm_trace.library(tmp_path_factory.mktemp("kvm_trace"))
    except Prerequisite as lacking:
        pytest.skip(str(lacking))
