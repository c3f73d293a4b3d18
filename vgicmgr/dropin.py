"""The drop-in that makes libvirt ask vgicmgr: ``/etc/libvirt/hooks/qemu.d/50-vgicmgr``.

libvirt 6.5.0 and later run every executable file of ``qemu.d`` after ``hooks/qemu``. They list the directory at each
call, but only when they found a first executable hook at their start or at a SIGHUP (libvirt, ``src/util/virhook.c``):
so the first hook of a host needs a reload of the daemon, and a further one does not.

``hooks/qemu`` of the source tree is the text; ``vgicmgr/hook.sh`` is a symbolic link to it, so that a wheel carries it.
"""

import os
import re
import shlex
import stat
import subprocess
import sys
import tempfile
from enum import Enum
from pathlib import Path

from vgicmgr.dataclass import dataclass
from vgicmgr.errors import HookInstallError

HOOKS_DIR = Path("/etc/libvirt/hooks")
DAEMONS = ("virtqemud", "libvirtd")
FIRST_LIBVIRT = (6, 5, 0)
"""The first libvirt that reads ``qemu.d``."""

_NAME = "50-vgicmgr"
_MARK = "# This file belongs to vgicmgr."
_SCRIPT = Path(__file__).with_name("hook.sh")
_PACKAGE = Path(__file__).resolve().parent


class State(Enum):
    """What stands in the drop-in's place; the value says it in words."""

    INSTALLED = "installed"
    ABSENT = "not installed"
    NOT_EXECUTABLE = "there, but not executable, so that libvirt passes it over"
    DIFFERENT = "installed, but by another version of vgicmgr or for another Python"
    FOREIGN = "not vgicmgr's file"


@dataclass(frozen=True)
class Daemon:
    """A running libvirt daemon that starts QEMU; ``started`` is in seconds since the epoch."""

    name: str
    pid: int
    uid: int
    started: float

    @property
    def reload(self) -> str:
        """The command that makes it look for hooks."""
        return f"systemctl reload {self.name}" if self.uid == 0 else f"kill -HUP {self.pid}"


def dropin_path(hooks_dir: Path = HOOKS_DIR) -> Path:
    """Where the drop-in stands."""
    return hooks_dir / "qemu.d" / _NAME


def state(hooks_dir: Path = HOOKS_DIR) -> State:
    """What stands in the drop-in's place; raises :class:`HookInstallError` when it cannot be read."""
    path = dropin_path(hooks_dir)
    found = _found(path)
    if found is State.INSTALLED and path.read_text(errors="replace") != script():
        return State.DIFFERENT
    return found


def install(hooks_dir: Path = HOOKS_DIR, version: tuple[int, ...] | None = None) -> bool:
    """Put the drop-in in place, whole or not at all; False when it stood there already.

    ``version`` is libvirt's, where it is known (:func:`libvirt_version`). Raises :class:`HookInstallError` when
    something that is not ours stands there, when the interpreter or the package could be changed by somebody else than
    root and this user, and when libvirt is missing or too old, or permission is missing.
    """
    path = dropin_path(hooks_dir)
    if version and not reads_dropins(version):
        raise HookInstallError(
            f"libvirt {_dotted(version)} does not read {path.parent}, only {_dotted(FIRST_LIBVIRT)} and later do",
            f"link {hooks_dir}/qemu to {_SCRIPT.resolve()} if no hook stands there",
        )
    now = state(hooks_dir)
    if now is State.INSTALLED:
        return False
    if now is State.FOREIGN:
        raise HookInstallError(f"{path} is not vgicmgr's and is left as it is", "move it away first")
    if not hooks_dir.parent.is_dir():
        raise HookInstallError(f"{hooks_dir.parent} is not there", "install libvirt's QEMU driver first")
    _refuse_if_open_to_others(_python())
    _refuse_if_open_to_others(_PACKAGE)
    text = script()
    try:
        for directory in (hooks_dir, path.parent):
            if not directory.is_dir():
                directory.mkdir()
                directory.chmod(0o755)
        _write(path, text)
    except OSError as error:
        raise _cannot("write", path, error) from None
    return True


def uninstall(hooks_dir: Path = HOOKS_DIR) -> bool:
    """Take the drop-in away; False when there was none.

    Raises :class:`HookInstallError` when something that is not ours stands there, or permission is missing.
    """
    path = dropin_path(hooks_dir)
    now = _found(path)
    if now is State.ABSENT:
        return False
    if now is State.FOREIGN:
        raise HookInstallError(f"{path} is not vgicmgr's and is left as it is")
    try:
        path.unlink()
    except OSError as error:
        raise _cannot("remove", path, error) from None
    return True


def to_reload(hooks_dir: Path = HOOKS_DIR, proc: Path = Path("/proc")) -> tuple[Daemon, ...]:
    """The running daemons that may not see the drop-in before they are reloaded.

    A daemon certainly sees it when an executable hook has stood there unchanged since before the daemon was started. A
    reload leaves no trace that could be found, so a daemon that was reloaded since is named here all the same.
    """
    oldest = min((changed for changed in map(_executable_since, _hooks(hooks_dir)) if changed), default=float("inf"))
    # a second's doubt: the kernel counts both times in ticks, from different clocks
    return tuple(daemon for daemon in daemons(proc) if oldest >= daemon.started - 1)


def daemons(proc: Path = Path("/proc")) -> tuple[Daemon, ...]:
    """The running libvirtd and virtqemud, those of ordinary users (``qemu:///session``) among them.

    Sources: ``Documentation/filesystems/proc.rst`` (comm, stat field 22: start time in clock ticks since boot).
    """
    found = []
    boot = _boot_time(proc)
    for directory in proc.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            name = (directory / "comm").read_text(errors="replace").strip()
            if name not in DAEMONS:
                continue
            # the command's name, in brackets, may hold blanks and brackets itself
            fields = (directory / "stat").read_text(errors="replace").rpartition(")")[2].split()
            started = boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
            found.append(Daemon(name, int(directory.name), directory.stat().st_uid, started))
        except (OSError, ValueError, IndexError):
            continue  # it has just ended
    return tuple(sorted(found, key=lambda daemon: daemon.pid))


def installed_since(hooks_dir: Path = HOOKS_DIR) -> float | None:
    """Since when at the latest the drop-in has been there, in seconds since the epoch; None where libvirt runs none."""
    return _executable_since(dropin_path(hooks_dir))


def failed_units(command: str = "systemctl") -> frozenset[str]:
    """The guests whose record's unit failed, as far as systemd tells."""
    try:
        run = subprocess.run(
            [command, "list-units", "--state=failed", "--plain", "--no-legend", f"{_UNIT}*"],
            capture_output=True,
            timeout=10,
            text=True,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return frozenset()
    units = (line.split()[0] for line in run.stdout.splitlines() if line.startswith(_UNIT))
    return frozenset(_unescaped(unit.removeprefix(_UNIT).removesuffix(".service")) for unit in units)


_UNIT = "vgicmgr-record@"


def _unescaped(name: str) -> str:
    """As systemd-escape --unescape has it."""
    parts = re.split(r"\\x([0-9a-f]{2})", name.replace("-", "/"))
    octets = [
        bytes.fromhex(part) if place % 2 else part.encode(errors="surrogateescape") for place, part in enumerate(parts)
    ]
    return b"".join(octets).decode(errors="surrogateescape")


def libvirt_version(directories: tuple[str, ...] = ("/usr/sbin", "/usr/bin")) -> tuple[int, ...] | None:
    """The version the installed daemon gives of itself, such as (9, 0, 0); None when it cannot be told."""
    for name in DAEMONS:
        for directory in directories:
            try:
                run = subprocess.run(
                    [f"{directory}/{name}", "--version"], capture_output=True, timeout=10, text=True, check=True
                )
            except (OSError, ValueError, subprocess.SubprocessError):
                continue
            if version := re.search(r"(\d+)\.(\d+)\.(\d+)", run.stdout):
                return tuple(int(number) for number in version.groups())
    return None


def reads_dropins(version: tuple[int, ...] | None) -> bool | None:
    """Whether that libvirt reads ``qemu.d``; None when its version is not known."""
    return None if version is None else version >= FIRST_LIBVIRT


def script() -> str:
    """The drop-in's text: ``hooks/qemu`` with this interpreter and, where it needs it, the package's directory."""
    python = _python()
    values = {"python": str(python), "directory": "" if _finds_package(python) else str(_PACKAGE.parent)}
    lines = []
    for line in _SCRIPT.read_text().splitlines(keepends=True):
        name, assigned, _ = line.partition("=")
        lines.append(f"{name}={shlex.quote(values.pop(name))}\n" if assigned and name in values else line)
    if values:
        raise HookInstallError(f"{_SCRIPT} is damaged: it does not set {' and '.join(values)}")
    return "".join(lines)


def _python() -> Path:
    return Path(sys.executable or "/usr/bin/python3")


def _finds_package(python: Path) -> bool:
    """Whether ``python -I`` imports this very package without being told where it is."""
    command = [str(python), "-I", "-c", "import vgicmgr; print(vgicmgr.__file__)"]
    run = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    return run.returncode == 0 and Path(run.stdout.strip()).resolve().parent == _PACKAGE


def _found(path: Path) -> State:
    """Whether something stands there, whether it is ours, and whether libvirt would run it."""
    try:
        if not os.path.lexists(path):
            return State.ABSENT
        if not path.is_file() or _MARK not in path.read_text(errors="replace"):
            return State.FOREIGN
        return State.INSTALLED if path.stat().st_mode & 0o111 == 0o111 else State.NOT_EXECUTABLE
    except OSError as error:
        raise _cannot("read", path, error) from None


def _refuse_if_open_to_others(path: Path) -> None:
    """The file or directory with all that is in it, what it links to, and every directory above: root is to run it."""
    inside = path.rglob("*") if path.is_dir() else ()
    for place in {path, *path.parents, path.resolve(), *path.resolve().parents, *inside}:
        try:
            found = place.stat()
        except OSError as error:
            raise _cannot("read", place, error) from None
        # in a sticky directory others cannot rename or remove what is not theirs
        writable = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if writable or found.st_uid not in (0, os.geteuid()):
            raise HookInstallError(
                f"libvirt would run {path} as root, but others can change {place}",
                "install vgicmgr and its Python where only root can write",
            )


def _write(path: Path, text: str) -> None:
    """The whole file appears under its name at once, executable, or it does not."""
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
            os.fchmod(fd, 0o755)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _hooks(hooks_dir: Path) -> tuple[Path, ...]:
    """What libvirt looks at when it looks for a first hook."""
    try:
        return (hooks_dir / "qemu", *(hooks_dir / "qemu.d").iterdir())
    except OSError:
        return (hooks_dir / "qemu",)


def _executable_since(path: Path) -> float | None:
    """Since when at the latest an executable file has been there (its ctime), or None."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ctime if stat.S_ISREG(found.st_mode) and found.st_mode & 0o111 else None


def _boot_time(proc: Path) -> float:
    for line in (proc / "stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise HookInstallError(f"{proc}/stat has no line 'btime'")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _cannot(do: str, path: Path, error: OSError) -> HookInstallError:
    why = os.strerror(error.errno or 0)
    return HookInstallError(f"cannot {do} {path}: {why}", "run as root" if isinstance(error, PermissionError) else "")
