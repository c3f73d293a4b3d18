"""The agent in a host: runs commands, writes and reads files, for whoever is at the other end of the virtio port.

Standard library only, and no import of the lab's but ``frames``, which lies beside it in the host.
A command's output goes to files, not pipes: a daemon that inherits them cannot keep a command from ending.
"""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO

try:
    from tests.lab import frames
except ImportError:
    import frames  # type: ignore[no-redef, import-not-found, unused-ignore]

IDLE_SECONDS = 0.01


class Gone(Exception):
    """The other end was closed in the middle of a frame."""


class Port:
    """The virtio-serial port."""

    def __init__(self, device: Path) -> None:
        self._fd = os.open(device, os.O_RDWR)
        self._in_frame = False

    def next_frame(self) -> tuple[dict[str, Any], bytes]:
        """Wait for a frame; half a frame of somebody who went away is dropped."""
        while True:
            self._in_frame = False
            try:
                return frames.decode(self._read)
            except (Gone, ValueError):
                continue

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Write a frame."""
        data = memoryview(frames.encode(header, payload))
        while data:
            data = data[os.write(self._fd, data) :]

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            got = os.read(self._fd, min(size - len(data), 1 << 18))
            if got:
                self._in_frame = True
                data += got
            elif self._in_frame:
                raise Gone
            else:
                time.sleep(IDLE_SECONDS)  # nobody is there: the kernel does not let us wait for it
        return bytes(data)


def find_port() -> Path:
    """The device of the lab's port."""
    for name in Path("/sys/class/virtio-ports").glob("*/name"):
        if name.read_text().strip() == frames.PORT:
            return Path("/dev") / name.parent.name
    raise SystemExit("no virtio port for the agent")


def run(request: dict[str, Any], stdin: bytes) -> tuple[dict[str, Any], bytes]:
    """Run a command to its end, or kill it and its process group when its time is up."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        started = time.monotonic()
        try:
            process = subprocess.Popen(
                request["argv"],
                stdin=given,
                stdout=out,
                stderr=err,
                env={**os.environ, **request["env"]},
                cwd=request["cwd"],
                start_new_session=True,
            )
        except OSError as error:
            words = f"{error}\n".encode()
            return {"exit_code": 127, "seconds": 0.0, "stdout": 0, "timed_out": False}, words
        timed_out = False
        try:
            process.wait(request["timeout"])
        except subprocess.TimeoutExpired:
            timed_out = True
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        seconds = time.monotonic() - started
        written, complaint = _content(out), _content(err)
    header = {
        "exit_code": process.returncode,
        "seconds": seconds,
        "stdout": len(written),
        "timed_out": timed_out,
    }
    return header, written + complaint


def _content(stream: BinaryIO) -> bytes:
    stream.seek(0)
    return stream.read()


def push(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Write a file, with the folders above it."""
    path = Path(request["path"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(request["mode"])
    return {}, b""


def pull(request: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
    """Read a file."""
    return {}, Path(request["path"]).read_bytes()


ACTIONS = {"run": run, "push": push, "pull": pull}


def main() -> None:
    """Answer for ever."""
    port = Port(find_port())
    while True:
        request, payload = port.next_frame()
        try:
            header, answer = ACTIONS[request["action"]](request, payload)
        except Exception as error:  # whatever it is, the other end must hear of it
            header, answer = {"error": f"{type(error).__name__}: {error}"}, b""
        port.send({"id": request["id"], **header}, answer)


if __name__ == "__main__":
    main()
