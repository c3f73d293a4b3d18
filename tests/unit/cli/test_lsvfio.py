"""lsvfio's outside, on whatever machine this is: exit status, streams, no traceback."""

import json
import subprocess
import sys

from jsonschema import Draft202012Validator

from vgicmgr.vfio.document import SCHEMA


def lsvfio(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "vgicmgr.cli", "lsvfio", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_it_lists_on_every_machine() -> None:
    result = lsvfio("-v")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(("DEVICE ", "No device can be assigned."))


def test_the_document_meets_the_schema() -> None:
    result = lsvfio("--format", "json")
    assert (result.returncode, result.stderr) == (0, "")
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(json.loads(result.stdout))


def test_no_such_device_is_told_in_one_line_with_status_2() -> None:
    result = lsvfio("ffff:ff:1f.7")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("vgicmgr: there is no PCI, platform or AMBA device ffff:ff:1f.7 in sysfs (")
    assert result.stderr.count("\n") == 1
