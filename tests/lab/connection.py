"""The way to the agent in a host: commands, files, and the console to look at while waiting."""

import itertools
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import frames
from tests.lab.errors import CommandFailed, CommandTimeout, HostDied, HostHung, LabError

GRACE_SECONDS = 10.0
"""What the agent may take beyond a command's own time."""

AGENT_SOCKET = "agent"
CONSOLE_SOCKET = "console"
CONSOLE_LOG = "console.log"
QEMU_LOG = "qemu.log"
"""The files in a running host's folder."""

PANIC = re.compile(
    r"Kernel panic|Internal error: |Oops|Unable to handle kernel|Unsupported FSC|lab: no disk|lab: the agent ended"
)
"""What a host's console says when there is nothing more to wait for."""


@dataclass(frozen=True)
class Result:
    """What a command in a host did."""

    argv: tuple[str, ...]
    exit_code: int
    """Negative: the signal that ended it."""
    stdout: str
    stderr: str
    seconds: float


class Connection:
    """A running host as seen from outside, by the folder with its sockets.

    ``process`` is its QEMU where that is a child of this process. Every method that talks to the host raises
    :class:`HostDied` or :class:`HostHung` with the end of its console.
    """

    def __init__(self, folder: Path, name: str, process: subprocess.Popen[bytes] | None = None) -> None:
        self.folder = folder
        self.name = name
        self._process = process
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._lost = False

    def disconnect(self) -> None:
        """Leave the agent to others; the next call connects again."""
        if self._socket:
            self._socket.close()
            self._socket = None

    @property
    def alive(self) -> bool:
        """Whether it can still be talked to, as far as is known."""
        return not self._lost and not self._ended() and not PANIC.search(self.console())

    def console(self) -> str:
        """All that the host has written to its serial console."""
        log = self.folder / CONSOLE_LOG
        return log.read_text(errors="replace").replace("\r\n", "\n") if log.exists() else ""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | str = b"",
        env: Mapping[str, str] | None = None,
        cwd: str = "/root",
        timeout: float = 60.0,
        check: bool = False,
    ) -> Result:
        """Run a command in the host and wait for its end; what it started in the background may live on.

        ``timeout`` in seconds; then it is killed with its process group and :class:`CommandTimeout` raised.
        With ``check``, :class:`CommandFailed` is raised unless it exits with 0.
        """
        header, payload = self._ask(
            {"action": "run", "argv": list(argv), "env": dict(env or {}), "cwd": cwd, "timeout": timeout},
            stdin.encode() if isinstance(stdin, str) else stdin,
            timeout + GRACE_SECONDS,
        )
        result = Result(
            argv=tuple(argv),
            exit_code=header["exit_code"],
            stdout=payload[: header["stdout"]].decode(errors="replace"),
            stderr=payload[header["stdout"] :].decode(errors="replace"),
            seconds=header["seconds"],
        )
        if header["timed_out"]:
            raise CommandTimeout(_report(self.name, result, f"was killed after {timeout:g} s"))
        if check and result.exit_code:
            raise CommandFailed(_report(self.name, result, f"ended with {result.exit_code}"))
        return result

    def push(self, path: str, data: bytes | str, mode: int = 0o644) -> None:
        """Write a file in the host, with the folders above it."""
        content = data.encode() if isinstance(data, str) else data
        self._ask({"action": "push", "path": path, "mode": mode}, content, 60.0)

    def pull(self, path: str) -> bytes:
        """A file of the host; raises :class:`LabError` where there is none."""
        return self._ask({"action": "pull", "path": path}, b"", 60.0)[1]

    def _ask(self, header: dict[str, Any], payload: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            deadline = time.monotonic() + seconds
            number = f"{os.getpid()}.{next(self._numbers)}"
            try:
                self._connect(deadline)
                self._send(frames.encode({"id": number, **header}, payload), deadline)
                while True:
                    # An answer to somebody who has gone away may come first.
                    reply, answer = frames.decode(lambda size: self._receive(size, deadline))
                    if reply["id"] == number:
                        break
            except BaseException as error:
                self._lost |= isinstance(error, HostDied | HostHung)
                self.disconnect()
                raise
        if "error" in reply:
            raise LabError(f"{self.name}: {reply['error']}")
        return reply, answer

    def _connect(self, deadline: float) -> None:
        while self._socket is None:
            attempt = socket.socket(socket.AF_UNIX)
            attempt.settimeout(0.2)
            try:
                attempt.connect(str(self.folder / AGENT_SOCKET))
                self._socket = attempt
            except (FileNotFoundError, ConnectionRefusedError, TimeoutError):
                attempt.close()
                self._look(deadline)
                time.sleep(0.02)

    def _send(self, data: bytes, deadline: float) -> None:
        assert self._socket
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except TimeoutError:
                self._look(deadline)
            except OSError:
                self._look(deadline)
                raise HostDied(self._last_words("its QEMU closed the connection")) from None

    def _receive(self, size: int, deadline: float) -> bytes:
        assert self._socket
        data = bytearray()
        while len(data) < size:
            try:
                got = self._socket.recv(min(size - len(data), 1 << 18))
            except TimeoutError:
                self._look(deadline)
                continue
            except OSError:
                got = b""
            if not got:
                raise HostDied(self._last_words("its QEMU closed the connection"))
            data += got
        return bytes(data)

    def _look(self, deadline: float) -> None:
        """Raise when there is nothing left to wait for."""
        if self._ended():
            raise HostDied(self._last_words("its QEMU ended"))
        if found := PANIC.search(self.console()):
            time.sleep(0.5)  # for the rest of what it has to say
            raise HostDied(self._last_words(f'its console says "{found[0]}"'))
        if time.monotonic() > deadline:
            raise HostHung(self._last_words("it does not answer"))

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _last_words(self, what: str) -> str:
        qemu = (self.folder / QEMU_LOG).read_text(errors="replace").strip()
        console = "\n".join(self.console().splitlines()[-40:])
        return f"{self.name}: {what}\n{qemu}\n--- console ---\n{console}"


def _report(name: str, result: Result, what: str) -> str:
    return f"{name}: {' '.join(result.argv)} {what}\n--- stdout ---\n{result.stdout}\n--- stderr ---\n{result.stderr}"
