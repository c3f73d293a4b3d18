"""What the agent in a host does with a request; here, on this machine."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab import agent


def run(*argv: str, stdin: bytes = b"", timeout: float = 10, **env: str) -> tuple[dict[str, Any], bytes, bytes]:
    request = {"argv": list(argv), "env": env, "cwd": "/", "timeout": timeout}
    header, payload = agent.run(request, stdin)
    return header, payload[: header["stdout"]], payload[header["stdout"] :]


def test_output_and_complaints_come_back_apart() -> None:
    header, out, err = run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (header["exit_code"], out, err) == (3, b"out\n", b"err\n")


def test_standard_input_environment_and_folder_are_the_requests() -> None:
    assert run("sh", "-c", "cat; echo $WORD; pwd", stdin=b"in ", WORD="set")[1] == b"in set\n/\n"


def test_a_signal_is_a_negative_exit_code() -> None:
    assert run("sh", "-c", "kill -TERM $$")[0]["exit_code"] == -15


def test_a_program_that_is_not_there_is_127_as_in_a_shell() -> None:
    header, _, err = run("/no/such/program")
    assert header["exit_code"] == 127
    assert b"No such file" in err


def test_a_command_that_takes_too_long_is_killed_with_its_children() -> None:
    started = time.monotonic()
    header, out, _ = run("sh", "-c", "echo begun; sleep 60 & wait", timeout=0.5)
    assert header["timed_out"]
    assert out == b"begun\n"
    assert time.monotonic() - started < 10


def test_a_daemon_that_keeps_its_output_open_keeps_nobody_waiting() -> None:
    header, out, _ = run("sh", "-c", "sleep 5 & echo done")
    assert out == b"done\n"
    assert header["seconds"] < 4


def test_files_are_written_with_their_folders_and_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    agent.push({"path": str(path), "mode": 0o750}, b"\0data")
    assert path.stat().st_mode & 0o777 == 0o750
    assert agent.pull({"path": str(path)}, b"") == ({}, b"\0data")


def test_a_file_that_is_not_there_is_an_error_for_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        agent.pull({"path": str(tmp_path / "none")}, b"")
