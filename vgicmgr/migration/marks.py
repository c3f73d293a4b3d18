"""Marks of guests that arrive here by migration or from a file: the hook leaves them for who has to tell the origin.

libvirt asks the hook with ``migrate`` or ``restore`` before it has taken the guest in, and may still give that up
(another hook's no, a name that is taken, storage that cannot be made) without a word to the hook. So such a guest is
only noted as pending; ``prepare``, which comes right before QEMU is started for boots and arrivals alike
(qemuProcessPrepareHost), makes the mark of what is pending, and removes the one of an earlier arrival where nothing is.

A mark is a file in a folder of root's alone, by the guest's name: its text is when it was made, in seconds since the
host's boot, the guest's UUID where it is known, and its name.
"""

import os
import stat
import time
from contextlib import suppress

from vgicmgr.dataclass import dataclass
from vgicmgr.qemu.process import PID_FILES

FOLDER = "/run/vgicmgr/arrived"
PENDING_SECONDS = 600.0
"""How long after ``migrate`` or ``restore`` libvirt may come to ``prepare``: it may have to create disks first."""

_LONGEST_NAME = 200
"""In bytes; a file's name has 255 at most, and libvirt's longest guest name 251."""
_MAX_BYTES = 1024


@dataclass(frozen=True)
class _Mark:
    """What a file says; ``age`` is in seconds."""

    age: float
    uuid: str
    name: str


def note_arrival(name: str, uuid: str = "", folder: str = FOLDER) -> None:
    """A guest of this name is about to arrive; nothing is noted where there is no place for it (:class:`OSError`)."""
    directory = _open_folder(folder, make=True)
    try:
        _write(directory, _file("pending", name), uuid, name)
    finally:
        os.close(directory)


def settle(name: str, uuid: str = "", folder: str = FOLDER, pid_files: str = PID_FILES) -> None:
    """QEMU is about to be started for this guest: turn what is pending into its mark, or remove the mark.

    Marks of guests that no longer run are removed, too. Raises :class:`OSError`.
    """
    try:
        directory = _open_folder(folder)
    except FileNotFoundError:
        return
    try:
        pending, mark = _file("pending", name), _file("domain", name)
        noted = _read(directory, pending)
        _remove(directory, pending, mark)
        if noted is not None and noted.age < PENDING_SECONDS and (not noted.uuid or not uuid or noted.uuid == uuid):
            _write(directory, mark, uuid, name)
        _remove_old(directory, pid_files)
    finally:
        os.close(directory)


def forget(name: str, folder: str = FOLDER) -> None:
    """The arrival of this guest was refused; raises :class:`OSError`."""
    try:
        directory = _open_folder(folder)
    except FileNotFoundError:
        return
    try:
        _remove(directory, _file("pending", name))
    finally:
        os.close(directory)


def is_marked(name: str, folder: str = FOLDER) -> bool:
    """Whether the guest of this name has the mark, as far as this user can tell."""
    try:
        directory = _open_folder(folder)
    except OSError:
        return False
    try:
        return _read(directory, _file("domain", name)) is not None
    finally:
        os.close(directory)


def _file(kind: str, name: str) -> str:
    """The file's name; a hash in place of a guest's name that is too long for one, or could lead elsewhere."""
    if len(os.fsencode(name)) <= _LONGEST_NAME and "/" not in name:
        return f"{kind}-{name}"
    from hashlib import sha256  # rarely needed

    return f"{kind}#{sha256(os.fsencode(name)).hexdigest()}"


def _open_folder(folder: str, *, make: bool = False) -> int:
    """A descriptor of the folder; :class:`OSError` unless it is this user's and nobody else can write to it."""
    parent = os.path.dirname(folder)  # noqa: PTH120 (pathlib is slow to start)
    if make:
        for path, mode in ((parent, 0o755), (folder, 0o700)):
            with suppress(FileExistsError):
                os.mkdir(path, mode)  # noqa: PTH102
    _refuse_others(os.lstat(parent), parent)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _refuse_others(os.fstat(directory), folder)
    except OSError:
        os.close(directory)
        raise
    return directory


def _refuse_others(found: os.stat_result, path: str) -> None:
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{path} is not this user's alone")


def _write(directory: int, file: str, uuid: str, name: str) -> None:
    _remove(directory, file)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(file, flags, 0o600, dir_fd=directory)
    try:
        os.write(descriptor, f"{_now():.3f}\n{uuid}\n{name}\n".encode(errors="surrogateescape"))
    finally:
        os.close(descriptor)


def _read(directory: int, file: str) -> _Mark | None:
    """The mark in a file; None where there is none that this user has made."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return None
        text = os.read(descriptor, _MAX_BYTES).decode(errors="surrogateescape")
        made, uuid, name, _ = text.split("\n")
        return _Mark(_now() - float(made), uuid, name)
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _remove_old(directory: int, pid_files: str) -> None:
    """What guests have left that are gone, and what is none of ours; one that is being started has no PID file yet."""
    for file in os.listdir(directory):
        mark = _read(directory, file)
        runs = mark is not None and file.startswith("domain") and os.path.lexists(f"{pid_files}/{mark.name}.pid")
        if not runs and (mark is None or mark.age > PENDING_SECONDS):
            with suppress(OSError):
                _remove(directory, file)


def _remove(directory: int, *files: str) -> None:
    for file in files:
        with suppress(FileNotFoundError):
            os.unlink(file, dir_fd=directory)
