"""The hook's marks of guests that arrive: pending until prepare, and believed only where root alone can make them."""

import os
import time
from pathlib import Path

import pytest

from vgicmgr.migration import marks
from vgicmgr.migration.marks import PENDING_SECONDS, forget, is_marked, note_arrival, settle

LONG = "g" * 251
"""libvirt's longest name: NAME.xml is a file of its own."""
NAMES = ["web1", "a guest's name", "größe", "g" * 200, "g" * 201, LONG, "../web1", "\udcff", "-rf", "."]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "vgicmgr/arrived")


@pytest.fixture(autouse=True)
def pid_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = tmp_path / "qemu"
    files.mkdir()
    monkeypatch.setattr(settle, "__defaults__", ("", marks.FOLDER, str(files)))
    return files


def files_in(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr(marks, "_now", lambda: now + seconds)


@pytest.mark.parametrize("name", NAMES)
def test_an_arrival(folder: str, name: str) -> None:
    note_arrival(name, folder=folder)
    assert not is_marked(name, folder)
    settle(name, folder=folder)
    assert is_marked(name, folder)
    assert not is_marked("another", folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_boot_after_an_arrival(folder: str, name: str) -> None:
    """prepare of the boot, whether release has come or not."""
    note_arrival(name, folder=folder)
    settle(name, folder=folder)
    settle(name, folder=folder)
    assert not is_marked(name, folder)
    assert files_in(folder) == []


def test_a_boot_without_any_arrival_makes_no_folder(folder: str) -> None:
    settle("web1", folder=folder)
    assert not Path(folder).parent.exists()


def test_an_arrival_that_libvirt_gives_up(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second script's no, a name that is taken: nobody tells the hook."""
    note_arrival("web1", folder=folder)
    assert not is_marked("web1", folder)
    later(monkeypatch, PENDING_SECONDS + 1)
    settle("web1", folder=folder)
    assert not is_marked("web1", folder)
    assert files_in(folder) == []


def test_an_arrival_of_another_guest_of_that_name(folder: str) -> None:
    note_arrival("web1", "3f0a4f5e-52c2-4f0e-9a0b-6d5d1f7d4c11", folder)
    settle("web1", "00000000-52c2-4f0e-9a0b-6d5d1f7d4c11", folder)
    assert not is_marked("web1", folder)


@pytest.mark.parametrize(("noted", "prepared"), [("", "u-1"), ("u-1", ""), ("u-1", "u-1")])
def test_a_uuid_that_is_not_known_is_no_other(folder: str, noted: str, prepared: str) -> None:
    """With 'mode = off' the XML is not read."""
    note_arrival("web1", noted, folder)
    settle("web1", prepared, folder)
    assert is_marked("web1", folder)


def test_an_arrival_that_is_refused_at_prepare(folder: str) -> None:
    note_arrival("web1", folder=folder)
    forget("web1", folder)
    settle("web1", folder=folder)
    assert not is_marked("web1", folder)


def test_an_arrival_that_is_refused_at_once(folder: str) -> None:
    forget("web1", folder)
    assert not Path(folder).exists()


def test_a_guest_that_runs_keeps_its_mark_when_another_of_its_name_is_to_arrive(folder: str) -> None:
    note_arrival("web1", folder=folder)
    settle("web1", folder=folder)
    note_arrival("web1", folder=folder)
    assert is_marked("web1", folder)


@pytest.mark.parametrize("name", ["web1", LONG])
def test_marks_go_with_their_guests(folder: str, name: str, pid_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt removes a guest's PID file when it ends (qemuProcessRemoveDomainStatus)."""
    pid_file = pid_files / f"{name}.pid"
    note_arrival(name, folder=folder)
    settle(name, folder=folder)
    pid_file.write_text("812")
    later(monkeypatch, PENDING_SECONDS + 1)
    settle("another", folder=folder)
    assert is_marked(name, folder)
    pid_file.unlink()
    settle("another", folder=folder)
    assert files_in(folder) == []


def test_a_daemon_whose_umask_is_0(folder: str) -> None:
    umask = os.umask(0)
    try:
        note_arrival("web1", folder=folder)
    finally:
        os.umask(umask)
    assert Path(folder).parent.stat().st_mode & 0o777 == 0o755
    assert Path(folder).stat().st_mode & 0o777 == 0o700
    assert (Path(folder) / "pending-web1").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o702])
@pytest.mark.parametrize("which", [".", ".."])
def test_a_folder_that_others_can_write_to(folder: str, mode: int, which: str) -> None:
    note_arrival("web1", folder=folder)
    settle("web1", folder=folder)
    (Path(folder) / which).resolve().chmod(mode)
    assert not is_marked("web1", folder)
    with pytest.raises(PermissionError):
        note_arrival("web2", folder=folder)
    with pytest.raises(PermissionError):
        settle("web1", folder=folder)
    assert files_in(folder) == ["domain-web1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("whose", ["", "domain-web1"])
def test_what_is_not_ones_own(folder: str, whose: str) -> None:
    note_arrival("web1", folder=folder)
    settle("web1", folder=folder)
    os.chown(Path(folder) / whose, 65534, 65534)
    assert not is_marked("web1", folder)


def test_a_link_is_not_followed(folder: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    note_arrival("web2", folder=folder)
    for kind in ("pending", "domain"):
        (Path(folder) / f"{kind}-web1").symlink_to(victim)
    assert not is_marked("web1", folder)
    note_arrival("web1", folder=folder)
    settle("web1", folder=folder)
    assert victim.read_text() == "precious"
    assert is_marked("web1", folder)
    away = tmp_path / "away"
    Path(folder).rename(away)
    Path(folder).symlink_to(away)
    assert not is_marked("web1", folder)


@pytest.mark.parametrize("text", ["", "\n\n\n", "nonsense\nu\nweb1\n", "x" * 5000])
def test_a_file_that_is_no_mark(folder: str, text: str) -> None:
    """So are the empty ones of former versions."""
    note_arrival("web1", folder=folder)
    (Path(folder) / "domain-web1").write_text(text)
    (Path(folder) / "pending-web1").write_text(text)
    assert not is_marked("web1", folder)
    settle("web1", folder=folder)
    assert not is_marked("web1", folder)


def test_a_fifo_does_not_hang(folder: str) -> None:
    note_arrival("web2", folder=folder)
    os.mkfifo(Path(folder) / "domain-web1")
    assert not is_marked("web1", folder)


@pytest.mark.parametrize("in_the_way", ["vgicmgr", "vgicmgr/arrived"])
def test_no_place(folder: str, tmp_path: Path, in_the_way: str) -> None:
    (tmp_path / in_the_way).parent.mkdir(exist_ok=True)
    (tmp_path / in_the_way).touch()
    with pytest.raises(OSError):
        note_arrival("web1", folder=folder)
    assert not is_marked("web1", folder)
