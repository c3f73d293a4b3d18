"""The types of this host's CPUs, and running on some of them."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from vgicmgr.host.cpus import on_cpus, read_midrs

LITTLE, BIG = 0x410FD034, 0x410FD082


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for number, text in enumerate((f"{LITTLE:#018x}\n", f"{LITTLE:#x}\n", f"{BIG:#x}\n", "nonsense\n")):
        path = tmp_path / f"cpu{number}/regs/identification"
        path.mkdir(parents=True)
        (path / "midr_el1").write_text(text)
    (tmp_path / "cpu4").mkdir()  # offline
    (tmp_path / "cpufreq").mkdir()
    return str(tmp_path)


def test_midrs(folder: str) -> None:
    assert read_midrs(folder=folder) == {0: LITTLE, 1: LITTLE, 2: BIG}
    assert read_midrs([2, 3, 4, 5], folder) == {2: BIG}
    assert read_midrs(folder="/nonexistent") == {}


class Scheduler:
    """sched_setaffinity and sched_getaffinity of a process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: OSError | None = None) -> None:
        self.cpus, self.calls, self.error = {0, 1, 2, 3}, 0, error
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(self.cpus))
        monkeypatch.setattr(os, "sched_setaffinity", self.set)

    def set(self, pid: int, cpus: Iterable[int]) -> None:
        assert pid == 0
        self.calls += 1
        if self.error:
            raise self.error
        self.cpus = set(cpus)


def test_within_it_runs_there_and_then_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler(monkeypatch)
    with on_cpus({2, 3}) as pinned:
        assert pinned
        assert scheduler.cpus == {2, 3}
    assert scheduler.cpus == {0, 1, 2, 3}
    with pytest.raises(KeyError), on_cpus({2}):
        raise KeyError
    assert scheduler.cpus == {0, 1, 2, 3}


def test_nowhere_in_particular(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler(monkeypatch)
    with on_cpus(set()) as pinned:
        assert not pinned
    assert scheduler.calls == 0


@pytest.mark.parametrize("error", [PermissionError(1, "EPERM"), OSError(22, "EINVAL")])
def test_where_it_may_not_run(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """A sandbox, CPUs that are offline or not of this process's cgroup: no reason to fail."""
    scheduler = Scheduler(monkeypatch, error)
    with on_cpus({7}) as pinned:
        assert not pinned
    assert scheduler.calls == 1


def test_this_hosts_kernel() -> None:
    before = os.sched_getaffinity(0)
    one = {min(before)}
    with on_cpus(one) as pinned:
        assert pinned
        assert os.sched_getaffinity(0) == one
    assert os.sched_getaffinity(0) == before
    with on_cpus({16000}) as pinned:
        assert not pinned
