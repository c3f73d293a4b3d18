"""What check-host says of QEMU, against the kernel and its log, and QEMU's own help."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.lab.conftest import LabHost
from tests.lab.connection import Result
from tests.lab.host import IN_HOST, Host
from tests.lab.qmp import push_library
from tests.lab.spec import HOSTS
from vgicmgr.host.document import SCHEMA

KINDS = ("bookworm", "gicv2", "max-sid", "trixie")
QEMU = "/usr/bin/qemu-system-aarch64"
CACHE = "/var/cache/vgicmgr/qemu.json"
CHECK_HOST = ["python3", "-m", "vgicmgr.cli", "check-host"]
SECONDS = 180.0
"""Measured: 3 with a QEMU to be asked; a busy machine needs longer."""


@pytest.fixture(scope="module", params=KINDS)
def host(request: pytest.FixtureRequest, lab_host: LabHost) -> Host:
    host = lab_host(HOSTS[request.param])
    push_library(host)
    host.run(["rm", "-rf", "/var/cache/vgicmgr"], check=True)
    return host


@pytest.fixture(scope="module")
def document(host: Host) -> dict[str, Any]:
    return asked(host)


def asked(host: Host, *options: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(check_host(host, "--format", "json", *options).stdout)
    return parsed


def check_host(host: Host, *options: str) -> Result:
    return host.run([*CHECK_HOST, *options], timeout=SECONDS)


def emulator(document: dict[str, Any]) -> dict[str, Any]:
    assert document["qemu"]["not_asked"] == []
    (found,) = document["qemu"]["emulators"]
    answers: dict[str, Any] = found
    return answers


def test_the_document_meets_the_schema(document: dict[str, Any]) -> None:
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)


def test_kernel_and_qemu_agree(document: dict[str, Any]) -> None:
    assert [finding["name"] for finding in document["findings"] if finding["name"].startswith("qemu-")] == []


def test_the_version_and_the_machine_types_are_those_of_qemus_help(host: Host, document: dict[str, Any]) -> None:
    answers = emulator(document)
    version = host.run([QEMU, "--version"], check=True).stdout
    assert f"version {answers['version']} ({answers['package']})" in version
    listed = host.run([QEMU, "-machine", "help"], check=True).stdout
    assert set(answers["machines"]) == set(re.findall(r"^(virt-[\d.]+) ", listed, re.MULTILINE))
    assert f"(alias of {answers['default_machine']})" in listed
    assert set(answers["deprecated_machines"]) == set(re.findall(r"^(virt-[\d.]+) .*deprecated", listed, re.MULTILINE))


def test_the_gic_versions_are_those_of_the_kernel(document: dict[str, Any]) -> None:
    """Which are held against those that libvirt offers in test_check_host.py."""
    answers = emulator(document)
    assert (answers["gic_kernel"], answers["gic_emulated"]) == (document["gic"]["versions"], [2, 3])


def test_the_hosts_cpu_is_that_of_the_kernels_log(host: Host, document: dict[str, Any]) -> None:
    log = host.run(["dmesg"], check=True).stdout
    longest = re.search(r"SVE: maximum available vector length (\d+) bytes per vector", log)
    cpu = emulator(document)["cpu"]
    lengths = [int(name[3:]) for name, there in cpu.items() if there and re.fullmatch(r"sve\d+", name)]
    assert max(lengths, default=0) == (8 * int(longest[1]) if longest else 0)
    assert cpu["pmu"] == ("counters" in log)


def test_the_properties_are_those_of_its_version(host: Host, document: dict[str, Any]) -> None:
    """``msi`` and ``kvm-psci-version`` came with QEMU 11."""
    answers = emulator(document)
    newer = int(answers["version"].split(".")[0]) >= 11
    assert {"its", "gic-version"} <= set(answers["properties"])
    assert (answers["msi"] == ["auto", "gicv2m", "its", "off"]) == newer
    assert ("kvm-psci-version" in answers["cpu_properties"]) == newer


def test_nothing_of_it_is_left(host: Host, document: dict[str, Any]) -> None:
    assert host.run(["sh", "-c", "ls -d /tmp/vgicmgr-* 2>/dev/null"]).stdout == ""
    assert host.run(["pgrep", "-f", "machine none"]).stdout == ""


# --- once, on one kind of host


@pytest.fixture
def trixie(lab_host: LabHost) -> Iterator[Host]:
    host = lab_host(HOSTS["trixie"])
    push_library(host)
    yield host
    host.run(["rm", "-rf", "/var/cache/vgicmgr"], check=True)


def started(host: Host) -> tuple[bool, dict[str, Any]]:
    """Whether check-host started QEMU, and what it says of it."""
    trace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=execve", "-o", "/tmp/trace"]
    result = host.run([*trace, *CHECK_HOST, "--format", "json"], timeout=SECONDS)
    return QEMU in host.run(["cat", "/tmp/trace"], check=True).stdout, emulator(json.loads(result.stdout))


def test_qemu_is_asked_once_and_again_where_the_cache_is_broken(trixie: Host) -> None:
    trixie.run(["rm", "-rf", "/var/cache/vgicmgr"], check=True)
    first = emulator(asked(trixie))
    assert started(trixie) == (False, first)
    trixie.run(["truncate", "-s", "100", CACHE], check=True)
    assert started(trixie) == (True, first)


def test_without_the_module_it_says_that_qemu_was_not_asked_and_is_no_worse_for_it(trixie: Host) -> None:
    trixie.run(["rm", "-rf", "/var/cache/vgicmgr", f"{IN_HOST}/qemu"], check=True)
    result = check_host(trixie)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{QEMU}  not asked: QEMU's Python module for QMP is not installed (install qemu.qmp)" in result.stdout


def test_a_qemu_that_does_not_use_kvm_is_a_disagreement(trixie: Host) -> None:
    """Before it stands a script that takes KVM away from it, which its program file does not tell either."""
    script = f"""#!/bin/sh
for word; do shift; [ "$word" = kvm ] && word=tcg; set -- "$@" "$word"; done
exec {QEMU}.real "$@"
"""
    trixie.push(f"{QEMU}.script", script, mode=0o755)
    trixie.run(["mv", QEMU, f"{QEMU}.real"], check=True)
    trixie.run(["mv", f"{QEMU}.script", QEMU], check=True)
    try:
        result = check_host(trixie)
    finally:
        trixie.run(["mv", f"{QEMU}.real", QEMU], check=True)
    assert result.exit_code == 1, result.stdout
    assert "does not use this host's KVM (query-kvm)" in result.stdout
    assert "Guests cannot have all that they normally need on this host: qemu-kvm." in result.stdout
