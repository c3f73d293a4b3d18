"""Asking an installed QEMU: a real one under TCG where there is one, and programs that are none."""

import asyncio
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from vgicmgr.dataclass import replace
from vgicmgr.errors import CannotTell
from vgicmgr.qemu.ask import ask, ask_all, program_differences
from vgicmgr.qemu.emulator import Emulator

QEMU = shutil.which("qemu-system-aarch64")
needs_qemu = pytest.mark.skipif(QEMU is None, reason="no qemu-system-aarch64 here: install qemu-system-arm")


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return asyncio.run(ask(str(QEMU)))


def script(folder: Path, text: str) -> str:
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@needs_qemu
def test_a_real_qemu_says_what_it_is(emulator: Emulator) -> None:
    assert emulator.version[0].isdecimal()
    assert emulator.default_machine == emulator.machines[-1]
    assert {"its", "gic-version"} <= set(emulator.properties)
    assert {"2", "3", "host", "max"} <= set(emulator.gic_versions)


@needs_qemu
@pytest.mark.skipif(os.uname().machine == "aarch64", reason="may have KVM for it")
def test_without_kvm_for_it_a_real_qemu_says_so(emulator: Emulator) -> None:
    assert (emulator.kvm, emulator.gic_kernel, emulator.gic_emulated, emulator.cpu) == (False, (), (), {})


@needs_qemu
def test_its_program_file_tells_the_same(emulator: Emulator) -> None:
    assert emulator.program_differs == ()


@needs_qemu
def test_a_script_before_qemu_is_asked_but_its_file_tells_nothing(tmp_path: Path) -> None:
    path = script(tmp_path, f'exec {QEMU} "$@"')
    emulator = asyncio.run(ask(path))
    assert emulator.machines
    assert emulator.program_differs == (f"the emulator {path} is no 64-bit ELF program, so its rules cannot be told",)


@needs_qemu
def test_a_fact_that_the_program_file_tells_otherwise_is_named(emulator: Emulator) -> None:
    (difference,) = program_differences(replace(emulator, version="99.0.0", cpu_properties=()))
    assert "99.0.0" in difference


@needs_qemu
def test_no_qemu_is_left_behind_by_a_script_that_waits_for_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    asyncio.run(ask(script(tmp_path, f'{QEMU} "$@" & echo $! >{pid}; wait')))
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid.read_text().strip()}").exists():
        assert time.monotonic() < deadline, "QEMU still runs"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("exit 3", "ended: exit status 3"),
        ("kill -SEGV $$", "ended: signal 11"),
        ("echo qemu-kvm: no such accelerator >&2; exit 1", "ended: qemu-kvm: no such accelerator"),
        ("printf 'a\\033[31mb' >&2", "ended: a?[31mb"),
    ],
)
def test_a_program_that_ends_at_once_is_named_with_its_last_words(tmp_path: Path, text: str, why: str) -> None:
    path = script(tmp_path, text)
    with pytest.raises(CannotTell) as told:
        asyncio.run(ask(path))
    assert told.value.message == f"{path} {why}"


def test_a_program_that_never_answers_is_ended_in_time(tmp_path: Path) -> None:
    path = script(tmp_path, "exec sleep 60")
    before = time.monotonic()
    with pytest.raises(CannotTell) as told:
        asyncio.run(ask(path, seconds=0.5))
    assert time.monotonic() - before < 10
    assert "0.5 s" in told.value.message


def test_one_that_cannot_be_run_does_not_keep_the_others_from_being_asked(tmp_path: Path) -> None:
    paths = [str(tmp_path / "none"), script(tmp_path, "exit 1")]
    found = asyncio.run(ask_all(paths))
    assert [one.path for one in found.not_asked] == paths
    assert all(one.failed for one in found.not_asked)
    assert found.not_asked[0].why == f"{paths[0]} cannot be run: No such file or directory"


def test_a_program_that_speaks_qmp_but_answers_something_else_is_told_so(tmp_path: Path) -> None:
    """A fake: it returns an empty object to every command."""
    path = tmp_path / "qemu"
    path.write_text(
        f"#!{sys.executable}\n"
        "import json, re, socket, sys\n"
        "monitor = socket.socket(fileno=int(re.search(r'fd=(\\d+)', ' '.join(sys.argv))[1]))\n"
        "say = lambda reply: monitor.sendall(json.dumps(reply).encode() + b'\\r\\n')\n"
        "say({'QMP': {'version': {}, 'capabilities': []}})\n"
        "while command := monitor.recv(4096):\n"
        "    say({'return': {}, 'id': json.loads(command).get('id')})\n"
    )
    path.chmod(0o755)
    with pytest.raises(CannotTell) as told:
        asyncio.run(ask(str(path)))
    assert told.value.message == f"the answers of {path} have another form than QEMU's interface has it"
