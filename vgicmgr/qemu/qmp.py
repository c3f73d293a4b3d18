"""QMP: one small interface to a running QEMU's monitor, over its own socket or through libvirt.

::

    CannotTell
     └── MonitorError          the monitor could not be asked
          ├── MonitorUnreachable    nobody listens there, or this user may not connect
          ├── MonitorBusy           another client holds the monitor
          ├── MonitorSilent         no greeting, or no reply, in time
          ├── MonitorLost           QEMU ended, or closed the connection
          ├── MonitorGarbled        what came is no QMP, or not what the command returns
          └── CommandFailed         QEMU's error reply: class and text

Protocol: QEMU's docs/interop/qmp-spec.rst; the socket's side of it is done by the library qemu.qmp, which is imported
on first use and nowhere else. No wait here is longer than ``seconds``, and when the ``async with`` is left no task or
socket is.
"""

import asyncio
import errno
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from vgicmgr.errors import CannotTell

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

SECONDS = 10.0
"""How long to wait for the greeting, and for each reply."""
MAX_REPLY_BYTES = 8 << 20
"""Of one reply; the largest, of query-qmp-schema, has some 400 KiB."""
_QUEUE_SECONDS = 2.0
"""How long to stand in the queue of a UNIX socket that others stand in."""
_RETRY_SECONDS = 0.05

T = TypeVar("T")


class MonitorError(CannotTell):
    """A running QEMU could not be asked, or did not answer."""


class MonitorUnreachable(MonitorError):
    """There is no such socket, nobody listens on it, or this user may not use it."""


class MonitorBusy(MonitorError):
    """Another client holds the monitor: QEMU serves one connection to it at a time."""


class MonitorSilent(MonitorError):
    """No greeting, or no reply, came in time."""


class MonitorLost(MonitorError):
    """QEMU ended or closed the connection."""


class MonitorGarbled(MonitorError):
    """What came is no QMP, is too large, or is not what the command returns."""


class CommandFailed(MonitorError):
    """QEMU answered with an error: its class (``GenericError``, ``CommandNotFound`` …) and text."""

    def __init__(self, monitor: str, command: str, error_class: str, description: str) -> None:
        self.command, self.error_class, self.description = command, error_class, description
        super().__init__(f"{monitor}: {command}: {error_class}: {one_line(description)}")


class Monitor(Protocol):
    """Something that executes QMP commands, by whatever way they get to QEMU."""

    @property
    def name(self) -> str:
        """What errors call it: ``monitor /run/guest.qmp`` or ``domain 'guest'``."""

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """The ``return`` member of QEMU's reply; raises :class:`MonitorError`."""


# --- QEMU's own socket


@asynccontextmanager
async def socket_monitor(address: str, *, seconds: float = SECONDS) -> AsyncIterator[Monitor]:
    """The monitor behind a QMP socket: ``address`` is the path of a UNIX socket, or ``host:port`` (``[::1]:4444``).

    Raises :class:`MonitorError`; :class:`~vgicmgr.errors.CannotTell` where qemu.qmp is not installed.
    """
    _library()
    name = f"monitor {_printable(address)}"
    connection = await _connected(address, name, seconds)
    async with connected_monitor(connection, name, seconds=seconds) as monitor:
        yield monitor


def _library() -> "type[QMPClient]":
    try:
        from qemu.qmp import QMPClient
    except ImportError:
        raise CannotTell("QEMU's Python module for QMP is missing", "install qemu.qmp (pip install qemu.qmp)") from None
    return QMPClient


@asynccontextmanager
async def connected_monitor(
    connection: socket.socket, name: str, *, seconds: float = SECONDS
) -> AsyncIterator[Monitor]:
    """The monitor at the other end of a connected socket, which is closed in the end; raises as socket_monitor."""
    client = _library()(readbuflen=MAX_REPLY_BYTES)
    client.events.event_filter = lambda _event: False  # nobody reads them
    try:
        try:
            async with asyncio.timeout(seconds):
                await client.connect(connection)
        except TimeoutError:
            raise MonitorSilent(
                f"{name}: connected, but no QMP greeting within {seconds:g} s",
                "another client may hold this monitor (QEMU serves one at a time; libvirt's is libvirt's own), or this "
                "is no QMP socket; give the guest one of its own: -qmp unix:PATH,server=on,wait=off",
            ) from None
        except Exception as error:
            raise _meaning(error, name, "the greeting") from None
        yield _SocketMonitor(client, name, seconds)
    finally:
        # whatever still waits for the peer ends with this; nothing is owed to it
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        with suppress(Exception):
            await client.disconnect()
        connection.close()


def is_path(address: str) -> bool:
    """Whether the address of a monitor is the path of a UNIX socket, and not ``host:port``."""
    return "/" in address or ":" not in address


class _SocketMonitor:
    def __init__(self, client: "QMPClient", name: str, seconds: float) -> None:
        self._client, self.name, self._seconds = client, name, seconds
        self._ended: MonitorError | None = None

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        from qemu.qmp import ExecuteError
        from qemu.qmp.qmp_client import BadReplyError

        if self._ended:
            raise self._ended
        try:
            async with asyncio.timeout(self._seconds):
                return await self._client.execute(command, arguments)
        except TimeoutError:
            raise MonitorSilent(
                f"{self.name}: no reply to {command} within {self._seconds:g} s", "see whether QEMU hangs"
            ) from None
        except ExecuteError as error:
            raise CommandFailed(self.name, command, error.error_class, str(error)) from None
        except BadReplyError:
            raise MonitorGarbled(
                f"{self.name}: the reply to {command} has neither 'return' nor a whole 'error'"
            ) from None
        except Exception as error:
            self._ended = _meaning(await self._cause(error), self.name, command)
            raise self._ended from None

    async def _cause(self, error: Exception) -> Exception:
        """Why the library gave the connection up: it tells only at disconnection."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._client.disconnect()
        except Exception as cause:
            return cause
        return error


def _meaning(error: Exception, name: str, awaited: str) -> MonitorError:
    """What an exception of qemu.qmp, or one that it let through, means to who waited for ``awaited``."""
    from qemu.qmp import ConnectError
    from qemu.qmp.message import DeserializationError
    from qemu.qmp.protocol import StateError
    from qemu.qmp.qmp_client import ExecInterruptedError, GreetingError, NegotiationError

    while isinstance(error, ConnectError | GreetingError | NegotiationError):
        error = error.exc
    if isinstance(error, DeserializationError) and not error.raw.endswith(b"\n"):
        return MonitorLost(f"{name}: the connection ended in the middle of a message, while waiting for {awaited}")
    if isinstance(error, EOFError | OSError | ExecInterruptedError | StateError):
        return MonitorLost(
            f"{name}: QEMU ended or closed the connection, while waiting for {awaited}",
            "see whether the guest still runs",
        )
    if isinstance(error, ValueError) and "chunk" in str(error):
        return MonitorGarbled(
            f"{name}: a message larger than {MAX_REPLY_BYTES >> 20} MiB came, while waiting for {awaited}"
        )
    return MonitorGarbled(
        f"{name}: what came is no QMP, while waiting for {awaited}",
        "see whether it is a QMP socket (-qmp, not -monitor)",
    )


async def _connected(address: str, name: str, seconds: float) -> socket.socket:
    """A socket connected to the address; raises :class:`MonitorError`."""
    try:
        async with asyncio.timeout(seconds):
            if is_path(address):
                return await _connected_unix(address)
            host, _, port = address.rpartition(":")
            return await _connected_tcp(host.strip("[]"), int(port), seconds)
    except (BlockingIOError, TimeoutError) as error:
        # a UNIX socket is connected at once, or its queue is full
        if is_path(address):
            raise MonitorBusy(
                f"{name}: others wait for this monitor, which serves one client at a time",
                "end its other clients, or give the guest a second monitor: -qmp unix:PATH,server=on,wait=off",
            ) from None
        why = f"no connection within {seconds:g} s" if isinstance(error, TimeoutError) else str(error)
        raise MonitorUnreachable(f"{name}: {why}", "see whether host and port are right") from None
    except OSError as error:
        number = error.errno or 0
        if number == errno.ECONNREFUSED and is_path(address) and not Path(address).is_socket():
            number = errno.ENOTSOCK  # which the kernel calls refused, too
        meaning, remedy = _MEANINGS.get(number, (error.strerror or str(error), ""))
        raise MonitorUnreachable(f"{name}: {meaning}", remedy) from None
    except ValueError:  # a port or name that is none
        raise MonitorUnreachable(f"{name}: neither a path nor host:port", "name a UNIX socket, or HOST:PORT") from None


async def _connected_unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        deadline = asyncio.get_running_loop().time() + _QUEUE_SECONDS
        while True:
            try:
                connection.connect(path)
            except BlockingIOError:
                # asyncio's sock_connect would take this for a connection under way, which a UNIX socket has not
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return connection
    except BaseException:
        connection.close()
        raise


async def _connected_tcp(host: str, port: int, seconds: float) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await _in_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), seconds)
    failure: OSError = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, kind, protocol, _, place in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setblocking(False)
            await loop.sock_connect(connection, place)
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


_MEANINGS = {
    errno.ENOENT: (
        "there is no such socket",
        "start QEMU with -qmp unix:PATH,server=on,wait=off, or ask libvirt's domain by its name",
    ),
    errno.ECONNREFUSED: (
        "nobody listens there (connection refused)",
        "the QEMU that made it has ended, or listens elsewhere",
    ),
    errno.EACCES: (
        "this user may not connect to it (permission denied)",
        "run as root or as the user that QEMU runs as",
    ),
    errno.ENOTSOCK: ("that is no socket", "name a UNIX socket, or HOST:PORT"),
}


# --- libvirt's passthrough


def libvirt_monitor(domain: Any, *, seconds: float = SECONDS) -> Monitor:
    """The monitor of a running domain (a ``virDomain`` of libvirt-python, of a connection that may write).

    Commands go by ``virDomainQemuMonitorCommand``, at the first of which libvirt marks the domain as tainted
    (``custom-monitor``). libvirt has no bound of its own for them: a call that is not answered is left to a thread that
    does not keep the process alive.
    """
    return _LibvirtMonitor(domain, seconds)


class _LibvirtMonitor:
    def __init__(self, domain: Any, seconds: float) -> None:
        self._domain, self._seconds = domain, seconds
        self.name = f"domain '{_printable(domain.name())}'"

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        import libvirt
        import libvirt_qemu

        message = json.dumps({"execute": command, "arguments": arguments} if arguments else {"execute": command})
        try:
            text = await _in_thread(lambda: libvirt_qemu.qemuMonitorCommand(self._domain, message, 0), self._seconds)
        except TimeoutError:
            raise MonitorSilent(
                f"{self.name}: libvirt has no reply to {command} within {self._seconds:g} s", "see whether QEMU hangs"
            ) from None
        except libvirt.libvirtError as error:
            raise self._refusal(error, command) from None
        try:
            reply = json.loads(text)
            if "error" in reply:
                failed = reply["error"]
                raise CommandFailed(self.name, command, str(failed["class"]), str(failed["desc"]))
            return reply["return"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise MonitorGarbled(f"{self.name}: the reply to {command} is no QMP") from None

    def _refusal(self, error: Any, command: str) -> MonitorError:
        import libvirt

        said = f"{self.name}: {command}: {one_line(str(error))}"
        match error.get_error_code():
            case libvirt.VIR_ERR_OPERATION_TIMEOUT:
                return MonitorBusy(said, "another libvirt job holds the domain's monitor; try again when it is over")
            case libvirt.VIR_ERR_OPERATION_DENIED | libvirt.VIR_ERR_ACCESS_DENIED:
                return MonitorUnreachable(said, "connect as a user that may write (not read-only)")
            case libvirt.VIR_ERR_OPERATION_INVALID | libvirt.VIR_ERR_NO_DOMAIN:
                return MonitorLost(said, "see whether the guest still runs")
        return MonitorLost(said)


async def _in_thread(call: Callable[[], T], seconds: float) -> T:
    """What a blocking call returns or raises; after ``seconds``, TimeoutError, and nobody waits for the thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = call()
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    # asyncio.to_thread's threads are waited for when the loop ends
    threading.Thread(target=run, daemon=True, name="vgicmgr-monitor").start()
    async with asyncio.timeout(seconds):
        return await future


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode() if text.isprintable() else ascii(text)[1:-1]


def one_line(text: str) -> str:
    """What a monitor said, fit to be shown."""
    return _printable(" ".join(text.split()))[:500]
