"""A guest's QEMU in /proc."""

import os
from pathlib import Path

import pytest

from vgicmgr.qemu.process import QEMUProcess, boot_id, find_process

UUID = "3f0a4f5e-52c2-4f0e-9a0b-6d5d1f7d4c11"
LINE = ("-name", "guest=web1,debug-threads=on", "-uuid", UUID, "-incoming", "defer")
BOOT = "7a0d0a4c-0a33-4f5d-a6a9-4a3f4a2f1d59"


class Host:
    """A /proc with one process, and libvirt's PID files."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.files = folder / "proc", folder / "qemu"
        (self.proc / "sys/kernel/random").mkdir(parents=True)
        (self.proc / "sys/kernel/random/boot_id").write_text(f"{BOOT}\n")
        (self.proc / "stat").write_text("cpu 1 2 3\nintr 1 0 0\nbtime 1700000000\nprocesses 9\n")
        (self.proc / "812").mkdir()
        self.files.mkdir()
        self.runs()

    def runs(self, *arguments: str, name: str = "web1", ticks: int = 12345) -> None:
        line = ("/usr/bin/qemu-system-aarch64", *(arguments or LINE))
        (self.proc / "812/cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in line))
        # proc_pid_stat(5): field 22; the name in field 2 may hold anything
        (self.proc / "812/stat").write_text("812 (qemu) R 1 ) S " + " ".join(["0"] * 18) + f" {ticks} 0 0\n")
        (self.files / f"{name}.pid").write_text("812\n")

    def find(self, name: str = "web1", uuid: str = UUID) -> QEMUProcess | None:
        return find_process(name, uuid, str(self.files), str(self.proc))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_what_is_told(host: Host) -> None:
    found = host.find()
    assert found is not None
    assert found.pid == 812
    assert found.arguments == LINE
    assert found.started == pytest.approx(1700000000 + 12345 / os.sysconf("SC_CLK_TCK"))
    assert (found.identity, found.boot) == (f"{BOOT}/12345", BOOT)


def test_arguments_that_are_empty_or_no_utf_8(host: Host) -> None:
    host.runs("-append", "", "-uuid", UUID, "-name", "\udcff")
    found = host.find()
    assert found is not None
    assert found.arguments == ("-append", "", "-uuid", UUID, "-name", "\ufffd")


@pytest.mark.parametrize("name", ["web1", "a guest's name", "g" * 251])
def test_names(host: Host, name: str) -> None:
    host.runs(name=name)
    assert host.find(name) is not None


def test_a_process_id_that_is_another_processs_by_now(host: Host) -> None:
    host.runs("-uuid", "00000000-52c2-4f0e-9a0b-6d5d1f7d4c11")
    assert host.find() is None
    host.runs(UUID, "-uuid")
    assert host.find() is None


@pytest.mark.parametrize("gone", ["qemu/web1.pid", "proc/812/cmdline", "proc/812/stat", "proc/stat"])
def test_what_cannot_be_seen(host: Host, tmp_path: Path, gone: str) -> None:
    """hidepid, ProtectProc, or a process that has just ended."""
    (tmp_path / gone).unlink()
    assert host.find() is None


@pytest.mark.parametrize("file", ["qemu/web1.pid", "proc/812/cmdline", "proc/812/stat", "proc/stat"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\0\xff\n", b"9" * 100])
def test_what_is_not_as_it_should_be(host: Host, tmp_path: Path, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    assert host.find() is None


def test_a_real_process() -> None:
    assert len(boot_id()) == 36
    assert find_process("no such guest", UUID) is None
