"""A guest's QEMU as the kernel shows it in ``/proc``: how it was started, and when. Nothing of it is asked."""

import os
from itertools import pairwise

from vgicmgr.dataclass import dataclass

PID_FILES = "/run/libvirt/qemu"
"""Where libvirt keeps a file NAME.pid of each guest that runs (virPidFileBuildPath with the driver's stateDir)."""
_MAX_BYTES = 8 << 20
"""The longest command line that is read; the kernel's limit is 6 MiB (fs/exec.c, bprm_set_stack_limit)."""


@dataclass(frozen=True)
class QEMUProcess:
    """``arguments`` are its command line's, without the program.

    ``started`` is when, in seconds since the epoch, by the clock as it is set now. ``identity`` tells this process from
    every other one on any host: the host's boot and the process's start in clock ticks since then.
    """

    pid: int
    arguments: tuple[str, ...]
    started: float
    identity: str

    @property
    def boot(self) -> str:
        """Of the host (:func:`boot_id`)."""
        return self.identity.partition("/")[0]


def find_process(name: str, uuid: str, folder: str = PID_FILES, proc: str = "/proc") -> QEMUProcess | None:
    """The QEMU of the guest that libvirt runs under this name; None where it cannot be seen.

    libvirt's file says which process it is, and the process itself that it is this guest's (``-uuid``,
    qemuBuildCommandLine), for a process id may since have become another's.
    """
    try:
        pid = int(_read(f"{folder}/{name}.pid", 32))
        arguments = _read(f"{proc}/{pid}/cmdline", _MAX_BYTES).decode(errors="replace").split("\0")[1:-1]
        # the command's name, in brackets, may hold blanks and brackets itself (proc_pid_stat(5): field 22)
        ticks = int(_read(f"{proc}/{pid}/stat", 4096).rpartition(b")")[2].split()[19])
        started = _boot_time(proc) + ticks / os.sysconf("SC_CLK_TCK")
        identity = f"{boot_id(proc)}/{ticks}"
    except (OSError, ValueError, IndexError):
        return None
    if ("-uuid", uuid) not in pairwise(arguments):
        return None
    return QEMUProcess(pid, tuple(arguments), started, identity)


def boot_id(proc: str = "/proc") -> str:
    """What tells this boot of this host from all others (random(4)); raises :class:`OSError`."""
    return _read(f"{proc}/sys/kernel/random/boot_id", 64).decode(errors="replace").strip()


def _boot_time(proc: str) -> int:
    for line in _read(f"{proc}/stat", 16 << 20).splitlines():
        if line.startswith(b"btime "):
            return int(line.split()[1])
    raise ValueError


def _read(path: str, most: int) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 (pathlib is slow to start)
        return file.read(most)
