"""The QMP client against a server that misbehaves: bounded time, one clear error, nothing left behind."""

import asyncio
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.qemu.fakeqmp import EVENT, GREETING, Behaviour, Peer, fake_qmp
from vgicmgr.errors import CannotTell
from vgicmgr.qemu import qmp
from vgicmgr.qemu.qmp import (
    CommandFailed,
    MonitorBusy,
    MonitorError,
    MonitorGarbled,
    MonitorLost,
    MonitorSilent,
    MonitorUnreachable,
    is_path,
    libvirt_monitor,
    socket_monitor,
)

SECONDS = 0.4


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it, and hold that it ends soon and leaves neither task nor descriptor."""

    async def watched() -> None:
        # the loop's own descriptors, and those of a library that is imported on first use, are there before and after
        before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
        await main()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    begin = time.monotonic()
    asyncio.run(watched())
    assert time.monotonic() - begin < 10


def ask(behaviour: Behaviour, *commands: str, seconds: float = SECONDS) -> list[Any]:
    """What each command returns or raises (as a value), or what the connection raises."""
    answers: list[Any] = []

    async def main() -> None:
        async with fake_qmp(behaviour) as path:
            try:
                async with socket_monitor(path, seconds=seconds) as monitor:
                    for command in commands:
                        try:
                            answers.append(await monitor.execute(command))
                        except MonitorError as error:
                            answers.append(error)
            except MonitorError as error:
                answers.append(error)

    run(main)
    for answer in answers:
        if isinstance(answer, MonitorError):
            assert isinstance(answer, CannotTell)
            assert "\n" not in str(answer)
            assert answer.message.startswith("monitor /")
    return answers


def replying(*replies: object) -> Behaviour:
    """Greets, then sends one of these for each command: bytes as they are, or an object that gets the command's id."""

    async def behave(peer: Peer) -> None:
        await peer.greet()
        for reply in replies:
            command = await peer.receive()
            if isinstance(reply, bytes):
                peer.send_raw(reply.replace(b"ID", json.dumps(command["id"]).encode()))
            else:
                assert isinstance(reply, dict)
                peer.send({**reply, "id": command["id"]})
        await peer.gone()

    return behave


# --- as it should be


def test_the_reply_of_each_command_is_its_own() -> None:
    assert ask(replying({"return": {"a": [1]}}, {"return": "text"}, {"return": None}), "one", "two", "three") == [
        {"a": [1]},
        "text",
        None,
    ]


def test_a_command_and_its_arguments_are_what_qemu_gets() -> None:
    got = []

    async def behave(peer: Peer) -> None:
        await peer.greet()
        got.append(await peer.receive())
        peer.send({"return": {}, "id": got[0]["id"]})
        await peer.gone()

    async def main() -> None:
        async with fake_qmp(behave) as path, socket_monitor(path) as monitor:
            await monitor.execute("qom-get", {"path": "/machine", "property": "type"})
            assert monitor.name == f"monitor {path}"

    run(main)
    assert got[0]["execute"] == "qom-get"
    assert got[0]["arguments"] == {"path": "/machine", "property": "type"}


def test_events_in_between_are_passed_over() -> None:
    async def behave(peer: Peer) -> None:
        await peer.greet()
        for number in range(3):
            command = await peer.receive()
            for _ in range(1000):
                peer.send(EVENT)
            peer.send({"return": number, "id": command["id"]})
            peer.send(EVENT)
        await peer.gone()

    assert ask(behave, "a", "b", "c", seconds=5) == [0, 1, 2]


def test_a_late_greeting_is_waited_for() -> None:
    async def behave(peer: Peer) -> None:
        await asyncio.sleep(SECONDS / 2)
        await replying({"return": 1})(peer)

    assert ask(behave, "a", seconds=3) == [1]


def test_an_error_reply_is_told_with_class_and_text_and_the_next_command_works() -> None:
    error = {"error": {"class": "CommandNotFound", "desc": "The command\nfoo has not been found"}}
    failed, after = ask(replying(error, {"return": 2}), "foo", "bar")
    assert isinstance(failed, CommandFailed)
    assert (failed.command, failed.error_class) == ("foo", "CommandNotFound")
    assert failed.description == "The command\nfoo has not been found"
    assert failed.message.endswith(": foo: CommandNotFound: The command foo has not been found")
    assert after == 2


# --- greetings


async def silent(peer: Peer) -> None:
    await peer.gone()


async def closing(_peer: Peer) -> None:
    pass


def greeting_with(data: bytes) -> Behaviour:
    async def behave(peer: Peer) -> None:
        peer.send_raw(data)
        await peer.writer.drain()
        await peer.gone()

    return behave


def half_greeting_then_close(peer: Peer) -> Coroutine[Any, Any, None]:
    async def behave() -> None:
        peer.send_raw(json.dumps(GREETING).encode()[:30])

    return behave()


async def refusing_negotiation(peer: Peer) -> None:
    peer.send(GREETING)
    await peer.receive()
    peer.send({"error": {"class": "GenericError", "desc": "no"}})
    await peer.gone()


async def closing_at_negotiation(peer: Peer) -> None:
    peer.send(GREETING)
    await peer.receive()


async def silent_at_negotiation(peer: Peer) -> None:
    peer.send(GREETING)
    await peer.gone()


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        pytest.param(silent, MonitorSilent, id="nothing"),
        pytest.param(closing, MonitorLost, id="closed at once"),
        pytest.param(half_greeting_then_close, MonitorLost, id="half, then closed"),
        pytest.param(greeting_with(json.dumps(GREETING).encode()[:30]), MonitorSilent, id="half, then nothing"),
        pytest.param(greeting_with(b"QEMU 10.0.2 monitor - type 'help'\r\n(qemu) "), MonitorGarbled, id="HMP"),
        pytest.param(greeting_with(b"\x00\xff\xfe\n"), MonitorGarbled, id="binary"),
        pytest.param(greeting_with(b'{"hello": 1}\n'), MonitorGarbled, id="another protocol"),
        pytest.param(greeting_with(b'{"QMP": {"version": 3}}\n'), MonitorGarbled, id="half of the members"),
        pytest.param(greeting_with(b"[" * 200_000 + b"\n"), MonitorGarbled, id="deep"),
        pytest.param(refusing_negotiation, MonitorGarbled, id="negotiation refused"),
        pytest.param(closing_at_negotiation, MonitorLost, id="closed at negotiation"),
        pytest.param(silent_at_negotiation, MonitorSilent, id="nothing at negotiation"),
    ],
)
def test_a_greeting_that_is_none(behaviour: Behaviour, expected: type[MonitorError]) -> None:
    [error] = ask(behaviour)
    assert type(error) is expected


def test_a_monitor_without_greeting_may_be_held_by_another_client() -> None:
    [error] = ask(silent)
    assert "no QMP greeting within 0.4 s" in error.message
    assert "another client may hold this monitor" in error.remedy


# --- replies


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(b'{"return": {}, "i', MonitorSilent, id="half"),
        pytest.param(b"garbage\n", MonitorGarbled, id="garbage"),
        pytest.param(b"\xff\xff\xff\n", MonitorGarbled, id="not UTF-8"),
        pytest.param(b"[1, 2]\n", MonitorGarbled, id="no object"),
        pytest.param(b"[" * 200_000 + b"\n", MonitorGarbled, id="deep"),
        pytest.param(b'{"return": ' + b"9" * 5000 + b', "id": ID}\n', MonitorGarbled, id="a number beyond bounds"),
        pytest.param(b'{"id": ID}\n', MonitorGarbled, id="neither return nor error"),
        pytest.param(b'{"error": {"class": 3}, "id": ID}\n', MonitorGarbled, id="half an error"),
        pytest.param(b'{"error": {"class": "GenericError", "desc": "?"}}\n', MonitorGarbled, id="error without id"),
        pytest.param(b'{"return": 1, "id": "other"}\n', MonitorSilent, id="of another command"),
        pytest.param(b'{"return": 1}\n', MonitorSilent, id="of no command"),
        pytest.param(b'{"event": [], "id": ID}\n', MonitorSilent, id="an event that is none"),
    ],
)
def test_a_reply_that_is_none(reply: bytes, expected: type[MonitorError]) -> None:
    [error] = ask(replying(reply), "query-status")
    assert type(error) is expected
    assert "query-status" in error.message


def test_a_huge_reply_is_not_read_to_its_end() -> None:
    async def behave(peer: Peer) -> None:
        await peer.greet()
        await peer.receive()
        with_end = False
        while not with_end:
            peer.send_raw(b"x" * (1 << 20))
            await peer.writer.drain()

    [error] = ask(behave, "query-status", seconds=20)
    assert type(error) is MonitorGarbled
    assert "larger than 8 MiB" in error.message


def test_events_without_end_do_not_put_off_the_end() -> None:
    async def behave(peer: Peer) -> None:
        await peer.greet()
        while True:
            peer.send(EVENT)
            await peer.writer.drain()

    [error] = ask(behave, "query-status")
    assert type(error) is MonitorSilent


def test_qemu_dies_between_commands_and_in_one() -> None:
    async def between(peer: Peer) -> None:
        await peer.greet()
        command = await peer.receive()
        peer.send({"return": 1, "id": command["id"]})

    first, second, third = ask(between, "a", "b", "c")
    assert first == 1
    assert type(second) is type(third) is MonitorLost

    async def within(peer: Peer) -> None:
        await peer.greet()
        await peer.receive()
        peer.send_raw(b'{"return": {"x": ')

    error, again = ask(within, "a", "b")
    assert type(error) is MonitorLost
    assert "in the middle of a message" in error.message
    assert again is error


def test_silence_at_one_command_does_not_spoil_the_next() -> None:
    async def behave(peer: Peer) -> None:
        await peer.greet()
        first = await peer.receive()
        second = await peer.receive()
        peer.send({"return": "late", "id": first["id"]})
        peer.send({"return": "in time", "id": second["id"]})
        await peer.gone()

    error, answer = ask(behave, "a", "b")
    assert type(error) is MonitorSilent
    assert answer == "in time"


def test_who_is_cancelled_leaves_nothing() -> None:
    async def main() -> None:
        async with fake_qmp(replying()) as path:

            async def client() -> None:
                async with socket_monitor(path, seconds=30) as monitor:
                    await monitor.execute("query-status")

            task = asyncio.create_task(client())
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main)


@settings(max_examples=60)
@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_cause_any_other_error(data: bytes, greeted: bool) -> None:
    async def behave(peer: Peer) -> None:
        if greeted:
            await peer.greet()
            await peer.receive()
        peer.send_raw(data)

    [error] = ask(behave, "query-status")
    assert isinstance(error, MonitorError)


# --- addresses


def connection_error(address: str, seconds: float = SECONDS) -> MonitorError:
    async def main() -> None:
        async with socket_monitor(address, seconds=seconds):
            pass

    with pytest.raises(MonitorError) as caught:
        run(main)
    assert "\n" not in str(caught.value)
    return caught.value


def test_no_such_socket(tmp_path: Path) -> None:
    error = connection_error(str(tmp_path / "x"))
    assert type(error) is MonitorUnreachable
    assert "there is no such socket" in error.message


def test_a_socket_whose_qemu_has_ended(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "x"))
    error = connection_error(str(tmp_path / "x"))
    assert type(error) is MonitorUnreachable
    assert "connection refused" in error.message
    assert "has ended" in error.remedy


def test_a_file_that_is_no_socket(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    error = connection_error(str(tmp_path / "x"))
    assert type(error) is MonitorUnreachable
    assert "that is no socket" in error.message


def test_a_socket_of_another_user() -> None:
    async def main() -> None:
        async with fake_qmp(silent) as path:
            # its folder may be entered, but it may not be written to
            Path(path).parent.chmod(0o755)
            Path(path).chmod(0o600 if os.geteuid() == 0 else 0)
            try:
                if os.geteuid() == 0:
                    os.seteuid(65534)
                    restore = True
                else:
                    restore = False
                with pytest.raises(MonitorUnreachable, match="permission denied") as caught:
                    async with socket_monitor(path, seconds=SECONDS):
                        pass
                assert "run as root" in caught.value.remedy
            finally:
                if restore:
                    os.seteuid(0)

    __import__("qemu.qmp")  # while it may be read
    run(main)


def test_a_tcp_port(tmp_path: Path) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await replying({"return": 7})(Peer(reader, writer))
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with socket_monitor(f"127.0.0.1:{port}", seconds=5) as monitor:
            assert await monitor.execute("a") == 7
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.1)
        with pytest.raises(MonitorUnreachable, match="connection refused"):
            async with socket_monitor(f"127.0.0.1:{port}", seconds=5):
                pass

    run(main)


@pytest.mark.parametrize("address", ["host:", "host:name", ":x", "127.0.0.1:70000"])
def test_an_address_that_is_none(address: str) -> None:
    assert type(connection_error(address)) is MonitorUnreachable


def test_a_queue_of_clients_is_not_waited_in_for_long(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    waiting = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        try:
            while True:
                client = socket.socket(socket.AF_UNIX)
                waiting.append(client)
                client.setblocking(False)
                client.connect(path)
        except BlockingIOError:
            pass
        errors = [connection_error(path, seconds=seconds) for seconds in (20, 0.3)]
        for client in waiting:
            client.close()
    assert [type(error) for error in errors] == [MonitorBusy, MonitorBusy]
    assert "one client at a time" in errors[0].message


@pytest.mark.parametrize(
    ("address", "path"),
    [("/run/x", True), ("x.sock", True), ("./a:1", True), ("h:1", False), ("[::1]:4444", False), ("/a:1", True)],
)
def test_what_is_a_path(address: str, path: bool) -> None:
    assert is_path(address) is path


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qemu.qmp", None)

    async def main() -> None:
        async with socket_monitor("/run/x"):
            pass

    with pytest.raises(CannotTell, match=r"install qemu\.qmp"):
        run(main)


# --- libvirt's passthrough, with a fake of libvirt-python: its faults cannot be had for real


class FakeLibvirtError(Exception):
    """libvirt.libvirtError."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    def get_error_code(self) -> int:
        return self.code


CODES = {
    "VIR_ERR_OPERATION_TIMEOUT": 68,
    "VIR_ERR_OPERATION_DENIED": 29,
    "VIR_ERR_ACCESS_DENIED": 88,
    "VIR_ERR_OPERATION_INVALID": 55,
    "VIR_ERR_NO_DOMAIN": 42,
}


def through_libvirt(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], str], seconds: float = SECONDS
) -> Callable[[], Any]:
    fake = SimpleNamespace(libvirtError=FakeLibvirtError, **CODES)
    monkeypatch.setitem(sys.modules, "libvirt", fake)
    command = SimpleNamespace(qemuMonitorCommand=lambda _domain, text, _flags: answer(text))
    monkeypatch.setitem(sys.modules, "libvirt_qemu", command)
    monitor = libvirt_monitor(SimpleNamespace(name=lambda: "g1"), seconds=seconds)
    assert monitor.name == "domain 'g1'"
    return lambda: asyncio.run(monitor.execute("qom-get", {"path": "/machine"}))


def test_libvirt_gets_the_command_as_qmp_and_its_answer_is_unwrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    got = []

    def answer(text: str) -> str:
        got.append(json.loads(text))
        return '{"return": [1, 2], "id": "libvirt-12"}'

    assert through_libvirt(monkeypatch, answer)() == [1, 2]
    assert got == [{"execute": "qom-get", "arguments": {"path": "/machine"}}]


def test_libvirt_passes_qemus_errors_on(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = '{"id": "libvirt-1", "error": {"class": "GenericError", "desc": "no such property"}}'
    with pytest.raises(CommandFailed, match="domain 'g1': qom-get: GenericError: no such property"):
        through_libvirt(monkeypatch, lambda _: reply)()


@pytest.mark.parametrize("reply", ["", "x", "[]", "3", "{}", '{"error": 1}', '{"error": {}}', "[" * 200_000])
def test_libvirt_answers_garbage(monkeypatch: pytest.MonkeyPatch, reply: str) -> None:
    with pytest.raises(MonitorGarbled, match="no QMP"):
        through_libvirt(monkeypatch, lambda _: reply)()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("VIR_ERR_OPERATION_TIMEOUT", MonitorBusy),
        ("VIR_ERR_OPERATION_DENIED", MonitorUnreachable),
        ("VIR_ERR_OPERATION_INVALID", MonitorLost),
        ("VIR_ERR_NO_DOMAIN", MonitorLost),
        ("", MonitorLost),
    ],
)
def test_libvirt_refuses(monkeypatch: pytest.MonkeyPatch, code: str, expected: type[MonitorError]) -> None:
    def answer(_: str) -> str:
        raise FakeLibvirtError(CODES.get(code, 1), "cannot\nacquire it")

    with pytest.raises(expected, match="qom-get: cannot acquire it") as caught:
        through_libvirt(monkeypatch, answer)()
    assert type(caught.value) is expected


def test_libvirt_does_not_answer_and_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def answer(_: str) -> str:
        over.wait(30)
        return "{}"

    begin = time.monotonic()
    with pytest.raises(MonitorSilent, match=r"no reply to qom-get within 0\.4 s"):
        through_libvirt(monkeypatch, answer)()
    assert time.monotonic() - begin < 5
    over.set()


def test_no_other_module_imports_the_library() -> None:
    folder = Path(qmp.__file__).parents[1]
    importing = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if any(word in path.read_text() for word in ("import qemu.qmp", "from qemu.qmp", "from qemu import"))
    ]
    assert importing == ["qemu/qmp.py"]
