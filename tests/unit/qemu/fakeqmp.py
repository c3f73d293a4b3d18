"""A fake QMP server that misbehaves on purpose, for faults that no real QEMU shows on demand."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GREETING = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": ""}, "capabilities": ["oob"]}}
EVENT = {"event": "RTC_CHANGE", "data": {"offset": 1}, "timestamp": {"seconds": 1, "microseconds": 2}}


@dataclass
class Peer:
    """The server's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    received: str = ""

    def send(self, message: object) -> None:
        self.writer.write(json.dumps(message).encode() + b"\r\n")

    def send_raw(self, data: bytes) -> None:
        self.writer.write(data)

    async def receive(self) -> dict[str, Any]:
        """The client's next command, which need not end a line; raises EOFError when it has gone."""
        while True:
            with suppress(ValueError):
                message, end = json.JSONDecoder().raw_decode(self.received)
                self.received = self.received[end:].lstrip()
                assert isinstance(message, dict)
                return message
            more = await self.reader.read(1 << 16)
            if not more:
                raise EOFError
            self.received += more.decode()

    async def greet(self) -> None:
        """Greeting and negotiation, as QEMU does them."""
        self.send(GREETING)
        command = await self.receive()
        assert command["execute"] == "qmp_capabilities"
        self.send({"return": {}})

    async def gone(self) -> None:
        """Wait until the client has closed its end."""
        while await self.reader.read(1 << 16):
            pass


Behaviour = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def fake_qmp(behaviour: Behaviour) -> AsyncIterator[str]:
    """A server whose each connection is handled by ``behaviour``; the path of its socket."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections.add(task)
        try:
            with suppress(EOFError, ConnectionError):
                await behaviour(Peer(reader, writer))
                await writer.drain()
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    # a short path: sockets allow 107 characters
    with tempfile.TemporaryDirectory(prefix="qmp-") as folder:
        path = str(Path(folder) / "monitor")
        server = await asyncio.start_unix_server(serve, path)
        try:
            yield path
        finally:
            server.close()
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
            await server.wait_closed()
