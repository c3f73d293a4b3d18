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

from tests.fakes.hosts import GICV2_HOST, NEOVERSE_N1, NESTED, SVE_HOST, HostKind
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


N1 = {
    "base": "N1",
    "gic_versions": frozenset({3}),
    "its": True,
}
"""A host, to be changed."""
USUAL = (
    "<domain type='kvm' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name>"
    "<memory unit='GiB'>1</memory>"
    "{vcpu}<os><type arch='{arch}' machine='virt-7.2'>hvm</type></os><features>{features}</features>{cpu}"
    "<devices><emulator>FOLDER/{program}</emulator></devices><q:commandline>{arguments}</q:commandline></domain>"
)
A57 = "<cpu mode='custom' match='exact'><model fallback='forbid'>cortex-a57</model></cpu>"


def usual(*arguments: str, **changes: str) -> str:
    """A usual guest with other elements and these arguments."""
    elements = {
        "vcpu": "<vcpu>2</vcpu>",
        "arch": "aarch64",
        "features": "<gic version='host'/>",
        "program": "qemu-10.0",
    }
    words = "".join(f"<q:arg value='{word}'/>" for word in arguments)
    return USUAL.format(**{**elements, "cpu": "<cpu mode='host-passthrough'/>", "arguments": words, **changes})


SELDOM = {
    "two regions": (usual(vcpu="<vcpu>124</vcpu>"), {"redistributor_regions": False}),
    "one region": (usual(vcpu="<vcpu>123</vcpu>"), {"redistributor_regions": False}),
    "few at boot": (usual(vcpu="<vcpu current='2'>300</vcpu>"), {"irq_line_layout_2": False}),
    "many at boot": (usual(vcpu="<vcpu>300</vcpu>"), {"irq_line_layout_2": False}),
    "KVM_CAP_MAX_VCPUS": (usual(vcpu="<vcpu>65</vcpu>"), {"max_vcpus": 64}),
    "its own core": (usual(cpu=A57), {"target": "KVM_ARM_TARGET_CORTEX_A57"}),
    "another core": (usual(cpu=A57), {}),
    "another core, and no ITS": (usual(cpu=A57), {"its": False}),
    "no ITS": (usual(), {"its": False}),
    "no ITS, and none needed": (usual("-machine", "its=no"), {"its": False}),
    "no GIC": (usual(), {"gic_versions": frozenset()}),
    "no GIC, and a GICv3": (usual(features="<gic version='3'/>"), {"gic_versions": frozenset()}),
    "no GIC, an old kernel": (usual(), {"gic_versions": frozenset(), "user_irq": False}),
    "no GIC version": (usual(features=""), {"gic_versions": frozenset({2, 3})}),
    "the GIC of an argument": (usual("-machine", "gic-version=2"), {}),
    "kernel-irqchip": (usual("-machine", "kernel_irqchip=off", features="<gic version='2'/>"), {}),
    "no CPU, an old QEMU": (usual(cpu=""), {}),
    "no CPU, a new QEMU": (usual(cpu="", program="qemu-10.2"), {"sve": (128, 256)}),
    "no CPU, a script": (usual(cpu="", program="wrapper"), {}),
    "the CPU of an argument": (usual("-cpu", "host", cpu=""), {}),
    "no PMU": (usual(features="<gic version='3'/><pmu state='on'/>"), {"pmu": False}),
    "PMU off": (usual(features="<gic version='3'/><pmu state='off'/>"), {"pmu": False}),
    "PMU off, QEMU 9.0": (usual(features="<pmu state='off'/>", program="qemu-9.0"), {"pmu": False}),
    "32-bit": (usual(arch="armv7l"), {}),
    "32-bit, SVE": (usual(arch="armv7l"), {"sve": (128,)}),
    "32-bit, no such host": (usual(arch="armv7l"), {"el1_32bit": False}),
    "SVE lengths": (usual("-cpu", "host,sve256=on"), {"sve": (128,)}),
    "SVE lengths, no SVE": (usual("-cpu", "host,sve256=on"), {}),
    "SVE off": (usual("-cpu", "host,sve=off,sve128=on"), {"sve": (128, 256)}),
    "stolen time": (usual("-cpu", "host,kvm-steal-time=on"), {"steal_time": False}),
    "PSCI": (usual("-cpu", "host,kvm-psci-version=0.2", program="qemu-11.1"), {}),
    "PSCI, an old QEMU": (usual("-cpu", "host,kvm-psci-version=0.2"), {}),
    "PSCI, no such version": (usual("-cpu", "host,kvm-psci-version=7.0", program="qemu-11.1"), {}),
    "EL2": (usual("-machine", "virtualization=on", program="qemu-11.1"), {"base": "SVE", "el2": True}),
    "EL2, no such host": (usual("-machine", "virtualization=on", program="qemu-11.1"), {}),
    "MTE": (usual("-machine", "mte=on"), {"mte": True}),
    "MTE, no such host": (usual("-machine", "mte=on"), {}),
    "36 bits": (usual(), {"ipa_limit": 36}),
    "36 bits, and more memory": (usual("-m", "64G"), {"ipa_limit": 36}),
    "one IPA size": (usual(), {"ipa_limit": 0}),
    "accelerator": (usual("-machine", "accel=tcg"), {}),
}
"""What generated guests and hosts are together seldom."""


@pytest.mark.parametrize(("guest", "changes"), SELDOM.values(), ids=SELDOM)
def test_a_start_that_is_seldom(guest: str, changes: dict[str, Any], folder: Path, emulators: tuple[str, ...]) -> None:
    agree(generated.xml_of(guest, folder), generated.host_kind(**{**N1, **changes}), folder, emulators)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(guest=generated.domains(), host_of=generated.HOSTS)
def test_a_start(guest: str, host_of: dict[str, Any], folder: Path, emulators: tuple[str, ...]) -> None:
    agree(generated.xml_of(guest, folder), generated.host_kind(**host_of), folder, emulators)


def agree(xml: bytes, kind: HostKind, folder: Path, emulators: tuple[str, ...]) -> None:
    """Whoever is asked about this guest's start there says the same."""
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
