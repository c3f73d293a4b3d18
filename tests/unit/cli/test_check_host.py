"""The command line's outside: exit statuses, streams and messages, by running it."""

import os
import subprocess
import sys

import pytest

not_arm64 = pytest.mark.skipif(os.uname().machine == "aarch64", reason="this machine has a GIC")


def vgicmgr(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "vgicmgr.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@not_arm64
@pytest.mark.parametrize("arguments", [[], ["--format", "json"]])
def test_a_host_without_a_gic_is_told_in_one_line_with_status_2(arguments: list[str]) -> None:
    result = vgicmgr("check-host", *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    machine = os.uname().machine
    assert result.stderr == (
        f"vgicmgr: this host is {machine}, not aarch64: it has no GIC, and its KVM knows none "
        "(run vgicmgr on an arm64 KVM host)\n"
    )


@not_arm64
def test_quiet_prints_nothing() -> None:
    result = vgicmgr("check-host", "-q")
    assert (result.returncode, result.stdout, result.stderr) == (2, "", "")


def test_a_wrong_command_line_has_status_2_and_no_traceback() -> None:
    result = vgicmgr("check-hots")
    assert result.returncode == 2
    assert "invalid choice" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_tells_the_exit_statuses() -> None:
    result = vgicmgr("--help")
    assert result.returncode == 0
    assert "exit status:" in result.stdout


def test_check_host_and_the_hook_import_neither_libvirt_nor_qmp_nor_lxml() -> None:
    program = (
        "import sys, vgicmgr.cli, vgicmgr.hook, vgicmgr.host.report, vgicmgr.host.document, vgicmgr.guest.start;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'libvirt', 'lxml', 'qemu'}))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "\n"
