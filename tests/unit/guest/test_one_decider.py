"""The hook, ``translate``, ``rehearse`` and ``check-migration`` say the same of any guest on any host.

VGICMGR_EXAMPLES is how many of them are tried (default 60).
"""

import io
import json
import os
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.unit.guest import generated
from vgicmgr.cli import main
from vgicmgr.domain.xml import read_domain
from vgicmgr.findings import Finding, Severity
from vgicmgr.guest.resolve import resolve
from vgicmgr.guest.start import check_start, judge_start
from vgicmgr.host.kernel import Kernel
from vgicmgr.qemu.cpu import TARGETS

EXAMPLES = int(os.environ.get("VGICMGR_EXAMPLES", "60"))
REHEARSED = frozenset(("cpu-model-unsupported", "vcpu-refused"))
"""What the kernel alone can say, when the calls are made: a named model's target, and a PSCI version."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emulators")


@pytest.fixture(scope="module")
def emulators(folder: Path) -> tuple[str, ...]:
    return generated.write_programs(folder)


def said(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return sorted((finding.name, finding.severity.value) for finding in findings)


def command(*arguments: str) -> list[tuple[str, str]]:
    """The findings that a command prints."""
    output = io.StringIO()
    with redirect_stdout(output):
        status = main([*arguments, "--format", "json"])
    document = json.loads(output.getvalue())
    found = sorted((finding["name"], finding["severity"]) for finding in document["findings"])
    assert status == (1 if "error" in {severity for _, severity in found} else 0)
    return found


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(guest=generated.domains(), host_of=generated.HOSTS)
def test_a_start(guest: str, host_of: dict[str, Any], folder: Path, emulators: tuple[str, ...]) -> None:
    xml, kind = generated.xml_of(guest, folder), generated.host_kind(**host_of)
    (folder / "g.xml").write_bytes(xml)
    domain = read_domain(xml)
    assert domain.needs_gic
    with generated.running_on(kind) as kernel:
        start = judge_start(domain).findings
        with Kernel() as host:
            resolution = resolve(domain, host)
        translated = command("translate", str(folder / "g.xml"))
        rehearsed = command("rehearse", str(folder / "g.xml"))
        assert kernel.open_descriptors() == []
    documented = check_start(domain, generated.document_of(kind, emulators, registers=False)).findings

    assert translated == said(resolution.findings)
    assert start[: len(resolution.findings)] == resolution.findings
    assert {finding.name for finding in start[len(resolution.findings) :]} <= REHEARSED
    assert rehearsed == said(start)
    ours = said(finding for finding in start if finding.name not in REHEARSED)
    theirs = said(finding for finding in documented if finding.name not in REHEARSED)
    assert theirs == ours
    model = [finding for finding in start if finding.name == "cpu-model-unsupported"]
    by_document = [finding for finding in documented if finding.name == "cpu-model-unsupported"]
    if resolution.cpu is not None and resolution.cpu.model in TARGETS and resolution.configuration is None:
        assert len(by_document) >= len(model)  # the kernel was not asked for the target any more
    else:
        assert said(by_document) == said(model)
    assert all(finding.severity is Severity.ERROR for finding in start[len(resolution.findings) :])
