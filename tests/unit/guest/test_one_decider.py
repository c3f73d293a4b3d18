"""The hook, ``translate``, ``rehearse`` and ``check-migration`` say the same of any guest on any host.

VGICMGR_EXAMPLES is how many of them are tried (default 40).
"""

import io
import json
import os
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.hosts import GICV2_HOST, NEOVERSE_N1, NESTED, SVE_HOST
from tests.unit.guest import generated
from vgicmgr.cli import main
from vgicmgr.dataclass import replace
from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import RecordError
from vgicmgr.findings import Finding, Severity
from vgicmgr.guest.resolve import resolve
from vgicmgr.guest.start import check_start, judge_start
from vgicmgr.host.documented import DocumentedHost
from vgicmgr.host.kernel import Kernel
from vgicmgr.migration.arrival import check_arrival
from vgicmgr.migration.record import to_xml
from vgicmgr.migration.writer import take_record
from vgicmgr.qemu.cpu import TARGETS

EXAMPLES = int(os.environ.get("VGICMGR_EXAMPLES", "40"))
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
    documented = check_start(domain, generated.document_of(kind, emulators)).findings

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


DESTINATIONS = {
    "N1": NEOVERSE_N1,
    "another N1": replace(
        NEOVERSE_N1,
        icc_ctlr_el1=0x4400,
        gits_typer=0x1FF71,
        ipa_limit=40,
        gicd_revisions=frozenset({2}),
        gicd_revision=2,
    ).with_registers(ID_AA64ISAR0_EL1=0x0000_0000_1021_1120, CLIDR_EL1=0x8200_0022),
    "GICv2": GICV2_HOST,
    **({"SVE": SVE_HOST, "nested": NESTED} if EXAMPLES > 100 else {}),
}
GUESTS = (
    "<gic version='host'/>",
    "<gic version='host'/><pmu state='off'/>",
    "<gic version='3'/>",
)


@pytest.fixture(scope="module")
def document(emulators: tuple[str, ...]) -> Callable[[str, tuple[str, ...]], DocumentedHost]:
    """The destination's document with this vCPU's registers, which are probed once."""
    return cache(lambda name, features: generated.document_of(DESTINATIONS[name], emulators, features))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    source_of=generated.SOURCES,
    to=st.sampled_from(list(DESTINATIONS)),
    features=st.sampled_from(GUESTS),
    program=st.sampled_from((*generated.PROGRAMS, generated.SCRIPT)),
    release=st.sampled_from(["6.12.0", "6.1.0"]),
)
def test_an_arrival(
    source_of: dict[str, Any],
    to: str,
    features: str,
    program: str,
    release: str,
    folder: Path,
    emulators: tuple[str, ...],
    document: Callable[[str, tuple[str, ...]], DocumentedHost],
) -> None:
    xml = (
        "<domain type='kvm'><name>g</name><metadata>METADATA</metadata><memory unit='GiB'>600</memory><vcpu>2</vcpu>"
        f"<os><type arch='aarch64' machine='virt-7.2'>hvm</type></os><features>{features}</features>"
        f"<cpu mode='host-passthrough'/><devices><emulator>FOLDER/{program}</emulator></devices></domain>"
    )
    guest = read_domain(generated.xml_of(xml, folder))
    with generated.running_on(generated.source_kind(**source_of), release), Kernel() as host:
        try:
            record = take_record(guest, host, libvirt="11.3.0")
        except RecordError:  # such a guest does not start there
            return
    domain = read_domain(generated.xml_of(xml, folder, to_xml(record)))
    assert domain.record is not None
    with generated.running_on(DESTINATIONS[to]), Kernel() as host:
        resolution = resolve(domain, host)
        here = check_arrival(domain, host).findings
        assert here[: len(resolution.findings)] == resolution.findings
    vcpu = resolution.configuration.features if resolution.configuration else ("KVM_ARM_VCPU_PSCI_0_2",)
    assert said(check_arrival(domain, document(to, vcpu)).findings) == said(here)
