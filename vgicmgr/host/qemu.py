"""What the QEMUs installed on this host can do with its KVM: asked by a process of its own, and remembered.

As libvirt does (``virQEMUCapsIsValid``), the answers are kept for as long as QEMU's program file, its modules, the
kernel and the access to /dev/kvm are the same; and, since one installation can wake up on another machine, what KVM
answered. Modules are imported where they are needed: mostly, one file is read.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from vgicmgr.qemu import EMULATORS
from vgicmgr.qemu.emulator import Emulators, NotAsked, emulators_from_document

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.host.capabilities import HostCapabilities
    from vgicmgr.qemu.program import QEMUFacts

MODULES = ("/usr/lib/aarch64-linux-gnu/qemu", "/usr/lib64/qemu-kvm", "/usr/lib64/qemu", "/usr/lib/qemu")
"""The directories of QEMU's modules (QEMU_MODDIR), by distribution: with them, what QEMU can do changes, too."""
SYSTEM_CACHE = "/var/cache/vgicmgr"
FILE = "qemu.json"
KIND = "vgicmgr cache of what QEMU answered"
VERSION = 1
"""Raised when the same QEMU on the same host would be asked more, or something else."""
MAX_BYTES = 1 << 20
SECONDS = 150.0
"""How long the process may take that asks: :data:`vgicmgr.qemu.ask.SECONDS` for each of two QEMUs, and its start."""

Key = dict[str, object]


def ask_emulators(host: "HostCapabilities", *, cached: bool = True) -> Emulators:
    """What the installed QEMUs say, on the host that has these capabilities; raises nothing.

    Without ``cached``, they are asked in any case, and what they say is remembered for the next time.
    """
    paths = installed()
    if not paths:
        return Emulators()
    key, path = cache_key(host, paths), cache_path(os.geteuid(), os.environ)
    if cached and path and (known := read_cache(path, key)):
        return known
    if not _has_qmp(sys.path):
        why = "QEMU's Python module for QMP is not installed"
        return Emulators(not_asked=tuple(NotAsked(one, why, "install qemu.qmp", failed=False) for one in paths))
    found = _asked(paths)
    if path and not found.not_asked:
        write_cache(path, key, found)
    return found


def remembered_cpu(emulator: str) -> Mapping[str, bool]:
    """What the QEMU of this path said that the host's CPU has; empty where that is not remembered. Nothing is asked."""
    path, paths = cache_path(os.geteuid(), os.environ), installed()
    if not path or not os.path.exists(path):  # noqa: PTH110 (pathlib is slow to start)
        return {}
    from vgicmgr.host.probe import probe_host

    known = read_cache(path, cache_key(probe_host(), paths))
    return next((one.cpu for one in known.answered if one.path == emulator), {}) if known else {}


def installed(paths: Sequence[str] = EMULATORS) -> tuple[str, ...]:
    """Those of the paths where a program is; of several names of one file, the first."""
    found: dict[tuple[int, int], str] = {}
    for path in paths:
        with suppress(OSError):
            file = os.stat(path)  # noqa: PTH116 (pathlib is slow to start)
            found.setdefault((file.st_dev, file.st_ino), path)
    return tuple(found.values())


def programs(paths: Sequence[str] = EMULATORS) -> "dict[str, QEMUFacts]":
    """The QEMUs that are at these paths, by their program files: under each of several names of one file."""
    from vgicmgr.qemu.program import InstalledQEMU

    return {path: InstalledQEMU(path) for path in paths if os.path.exists(path)}  # noqa: PTH110


def cache_key(host: "HostCapabilities", paths: Sequence[str]) -> Key:
    """All that the answers depend on; each a value that JSON keeps as it is."""
    names = os.uname()
    made = (host.machine.core_types, host.gicv2, host.gicv3, host.its, host.pmu, host.vcpu)
    return {
        "emulators": [[path, *_identity(path)] for path in paths],
        "modules": [[path, *identity] for path in MODULES if (identity := _identity(path))],
        "kernel": [names.release, names.version],
        "kvm_access": os.access("/dev/kvm", os.R_OK | os.W_OK, effective_ids=True),
        "kvm": [host.ipa_bits, host.capabilities, list(map(repr, made))],
    }


def _identity(path: str) -> list[int]:
    try:
        file = os.stat(path)  # noqa: PTH116
    except OSError:
        return []
    return [file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns]


def cache_path(user: int, environment: Mapping[str, str]) -> str:
    """Where this user's answers are kept; empty where there is no place for them."""
    if user == 0:
        return f"{SYSTEM_CACHE}/{FILE}"
    base = environment.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):  # a relative one is to be ignored (XDG Base Directory Specification)
        home = environment.get("HOME", "")
        if not home.startswith("/"):
            return ""
        base = f"{home}/.cache"
    return f"{base}/vgicmgr/{FILE}"


def read_cache(path: str, key: Key) -> Emulators | None:
    """What is remembered under this key; None where there is nothing, or it is damaged, or another user's."""
    import json

    try:
        # neither a link nor a FIFO that another user may have put there
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid() or status.st_mode & 0o022 or status.st_size > MAX_BYTES:
                return None
            document = json.loads(file.read(MAX_BYTES))
        if document["document"] != KIND or document["version"] != VERSION or document["key"] != key:
            return None
        return emulators_from_document(document["answers"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_cache(path: str, key: Key, answers: Emulators) -> None:
    """Remember them: all or nothing, and where it cannot be written, nothing."""
    import json

    document = {"document": KIND, "version": VERSION, "key": key, "answers": answers.to_document()}
    folder, new = os.path.dirname(path), f"{path}.{os.getpid()}"  # noqa: PTH120
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)  # noqa: PTH103
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError:
        return
    try:
        with os.fdopen(fd, "w") as file:
            json.dump(document, file)
        os.replace(new, path)  # noqa: PTH105
    except OSError:
        with suppress(OSError):
            os.unlink(new)  # noqa: PTH108


def _has_qmp(search: Sequence[str]) -> bool:
    """Whether qemu.qmp could be imported, without importing it."""
    from importlib.machinery import PathFinder

    above = PathFinder.find_spec("qemu", search)
    inside = above.submodule_search_locations if above else None
    return inside is not None and PathFinder.find_spec("qemu.qmp", inside) is not None


def _asked(paths: Sequence[str]) -> Emulators:
    import json
    import signal
    import subprocess

    # it finds modules where this process does, and nowhere else (-P: not in the current directory)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "vgicmgr.qemu.ask", *paths],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, complaints = process.communicate(timeout=SECONDS)
        return emulators_from_document(json.loads(output))
    except subprocess.TimeoutExpired:
        why = f"no answer within {SECONDS:g} s"
    except ValueError:
        lines = complaints.decode(errors="replace").split("\n")
        why = next((line for line in reversed(lines) if line.isprintable() and line), "no answer")[:200]
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # and its QEMU
            process.communicate()
    return Emulators(not_asked=tuple(NotAsked(path, why, "", failed=True) for path in paths))
