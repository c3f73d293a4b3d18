"""What check-host remembers of the installed QEMUs, when it asks again, and what it finds in their answers."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.unit.host.examples import GICV2_ONLY, ROOMY
from vgicmgr.dataclass import replace
from vgicmgr.findings import Severity
from vgicmgr.host import qemu
from vgicmgr.host.document import SCHEMA, to_document
from vgicmgr.host.judge import judge_host
from vgicmgr.host.report import render
from vgicmgr.qemu.emulator import Emulator, Emulators, NotAsked

QEMU = Emulator(
    path="/usr/bin/qemu-system-aarch64",
    version="11.1.3",
    package="Debian 1:11.1.3+ds-1",
    kvm=True,
    gic_kernel=(2, 3),
    gic_emulated=(2, 3),
    machines=("virt-9.2", "virt-11.1"),
    deprecated_machines=(),
    default_machine="virt-11.1",
    max_cpus=512,
    properties=("gic-version", "its", "msi"),
    gic_versions=("2", "3", "4", "host", "max"),
    msi=("auto", "gicv2m", "its", "off"),
    cpu={"pauth": True, "pmu": True, "sve": True, "sve128": True, "sve256": True, "sve512": False},
    cpu_properties=("kvm-psci-version", "pmu"),
    program_differs=(),
)
"""One that says of its CPU what the kernel of ROOMY does."""
ANSWERS = Emulators((QEMU,))
NOT_INSTALLED = NotAsked(QEMU.path, "QEMU's Python module for QMP is not installed", "install qemu.qmp", failed=False)


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "qemu-system-aarch64"
    path.write_bytes(b"\x7fELF")
    return str(path)


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache" / "vgicmgr" / "qemu.json")


# --- the cache


def test_what_is_remembered_is_found_again(cache: str, program: str) -> None:
    key = qemu.cache_key(ROOMY, [program])
    qemu.write_cache(cache, key, ANSWERS)
    assert qemu.read_cache(cache, qemu.cache_key(ROOMY, [program])) == ANSWERS
    assert list(Path(cache).parent.iterdir()) == [Path(cache)]
    assert stat.S_IMODE(Path(cache).stat().st_mode) & 0o022 == 0


@pytest.mark.parametrize("change", ["touched", "grown", "another file", "gone"])
def test_another_program_file_is_asked_anew(cache: str, program: str, change: str) -> None:
    qemu.write_cache(cache, qemu.cache_key(ROOMY, [program]), ANSWERS)
    if change == "touched":
        os.utime(program, ns=(1, 1))
    elif change == "grown":
        Path(program).write_bytes(b"\x7fELF\x02")
    else:
        Path(program).unlink()
        if change == "another file":
            Path(program).write_bytes(b"\x7fELF")
    assert qemu.read_cache(cache, qemu.cache_key(ROOMY, [program])) is None


@pytest.mark.parametrize(
    "other",
    [
        GICV2_ONLY,
        replace(ROOMY, ipa_bits=40),
        replace(ROOMY, pmu=None),
        replace(ROOMY, capabilities={**ROOMY.capabilities, "KVM_CAP_ARM_SVE": 0}),
    ],
)
def test_a_kvm_that_answers_otherwise_makes_qemu_be_asked_anew(cache: str, program: str, other: Any) -> None:
    """libvirt does not notice that an installation was booted on another machine; this does."""
    qemu.write_cache(cache, qemu.cache_key(ROOMY, [program]), ANSWERS)
    assert qemu.read_cache(cache, qemu.cache_key(other, [program])) is None


@pytest.mark.parametrize("names", [("6.13.0", "#1 SMP"), ("6.12.0", "#2 SMP")], ids=["release", "build"])
def test_another_kernel_makes_qemu_be_asked_anew(
    cache: str, program: str, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def boot(release: str, version: str) -> None:
        monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", release, version, "aarch64")))

    boot("6.12.0", "#1 SMP")
    qemu.write_cache(cache, qemu.cache_key(ROOMY, [program]), ANSWERS)
    boot(*names)
    assert qemu.read_cache(cache, qemu.cache_key(ROOMY, [program])) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=200) | st.integers(0, 400))
def test_a_broken_file_is_as_none(cache: str, program: str, damage: bytes | int) -> None:
    key = qemu.cache_key(ROOMY, [program])
    qemu.write_cache(cache, key, ANSWERS)
    whole = Path(cache).read_bytes()
    Path(cache).write_bytes(whole[:damage] if isinstance(damage, int) else damage)
    assert qemu.read_cache(cache, key) is None


@pytest.mark.parametrize(
    ("member", "value"),
    [("document", "something"), ("version", 2), ("answers", {}), ("answers", []), ("key", None)],
)
def test_a_file_that_says_something_else_is_as_none(cache: str, program: str, member: str, value: object) -> None:
    key = qemu.cache_key(ROOMY, [program])
    qemu.write_cache(cache, key, ANSWERS)
    document = json.loads(Path(cache).read_text())
    Path(cache).write_text(json.dumps({**document, member: value}))
    assert qemu.read_cache(cache, key) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file another user's")
def test_a_file_of_another_user_is_as_none(cache: str, program: str) -> None:
    key = qemu.cache_key(ROOMY, [program])
    qemu.write_cache(cache, key, ANSWERS)
    os.chown(cache, 65534, 65534)
    assert qemu.read_cache(cache, key) is None


def test_a_file_that_others_may_write_is_as_none(cache: str, program: str) -> None:
    key = qemu.cache_key(ROOMY, [program])
    qemu.write_cache(cache, key, ANSWERS)
    Path(cache).chmod(0o666)
    assert qemu.read_cache(cache, key) is None


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "huge"])
def test_what_is_no_small_regular_file_is_as_none(cache: str, program: str, kind: str) -> None:
    key = qemu.cache_key(ROOMY, [program])
    qemu.write_cache(cache, key, ANSWERS)
    path = Path(cache)
    if kind == "link":
        path.rename(f"{cache}.other")
        path.symlink_to(f"{cache}.other")
    elif kind == "huge":
        os.truncate(cache, qemu.MAX_BYTES + 1)
    else:
        path.unlink()
        os.mkfifo(cache) if kind == "fifo" else path.mkdir()
    assert qemu.read_cache(cache, key) is None


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path, program: str) -> None:
    (tmp_path / "file").write_text("")
    qemu.write_cache(f"{tmp_path}/file/vgicmgr/qemu.json", qemu.cache_key(ROOMY, [program]), ANSWERS)


@pytest.mark.parametrize(
    ("user", "environment", "path"),
    [
        (0, {"HOME": "/root", "XDG_CACHE_HOME": "/elsewhere"}, "/var/cache/vgicmgr/qemu.json"),
        (1000, {"HOME": "/home/u", "XDG_CACHE_HOME": "/elsewhere"}, "/elsewhere/vgicmgr/qemu.json"),
        (1000, {"HOME": "/home/u"}, "/home/u/.cache/vgicmgr/qemu.json"),
        (1000, {"HOME": "/home/u", "XDG_CACHE_HOME": "relative"}, "/home/u/.cache/vgicmgr/qemu.json"),
        (1000, {}, ""),
    ],
)
def test_each_user_has_a_place_of_its_own(user: int, environment: dict[str, str], path: str) -> None:
    assert qemu.cache_path(user, environment) == path


# --- asking


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, cache: str, program: str) -> str:
    """A host with this one program, which remembers in this file."""
    monkeypatch.setattr(qemu, "installed", lambda: (program,))
    monkeypatch.setattr(qemu, "cache_path", lambda _user, _environment: cache)
    return cache


def test_what_is_remembered_is_not_asked(own_cache: str, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu.write_cache(own_cache, qemu.cache_key(ROOMY, [program]), ANSWERS)
    monkeypatch.setattr(qemu, "_asked", lambda _paths: pytest.fail("asked"))
    assert qemu.ask_emulators(ROOMY) == ANSWERS


def test_the_record_takes_what_is_remembered_of_its_emulator(
    own_cache: str, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert qemu.remembered_cpu(program) == {}, "nothing is asked"
    monkeypatch.setattr("vgicmgr.host.probe.probe_host", lambda: ROOMY)
    here = Emulators((replace(QEMU, path=program, cpu={"sve": False}),))
    qemu.write_cache(own_cache, qemu.cache_key(ROOMY, [program]), here)
    assert qemu.remembered_cpu(program) == {"sve": False}
    assert qemu.remembered_cpu("/usr/local/bin/qemu") == {}


def test_without_cache_it_is_asked_and_remembered_anew(
    own_cache: str, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = Emulators((replace(QEMU, version="12.0.0"),))
    key = qemu.cache_key(ROOMY, [program])
    qemu.write_cache(own_cache, key, ANSWERS)
    monkeypatch.setattr(qemu, "_has_qmp", lambda _path: True)
    monkeypatch.setattr(qemu, "_asked", lambda _paths: newer)
    assert qemu.ask_emulators(ROOMY, cached=False) == newer
    assert qemu.read_cache(own_cache, key) == newer


def test_a_qemu_that_does_not_answer_is_asked_again_the_next_time(own_cache: str, program: str) -> None:
    """The program of this test is none that can be run."""
    Path(program).chmod(0o755)
    found = qemu.ask_emulators(ROOMY)
    assert [(one.path, one.failed) for one in found.not_asked] == [(program, True)]
    assert found.not_asked[0].why == f"{program} cannot be run: Exec format error"
    assert not Path(own_cache).exists()


def test_without_the_module_nothing_is_asked_and_it_is_said_why(
    own_cache: str, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    found = qemu.ask_emulators(ROOMY)
    assert found == Emulators(not_asked=(replace(NOT_INSTALLED, path=program),))
    assert not Path(own_cache).exists()


def test_a_host_without_qemu_has_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "installed", lambda: ())
    assert qemu.ask_emulators(ROOMY) == Emulators()


def test_a_program_with_two_names_is_asked_once(program: str) -> None:
    Path(f"{program}-kvm").symlink_to(program)
    assert qemu.installed([program, f"{program}-kvm", f"{program}-none"]) == (program,)


def test_asking_imports_qemu_qmp_in_another_process(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from tests.unit.host.examples import ROOMY\n"
        "from vgicmgr.host import qemu\n"
        "qemu.installed = lambda: ('/bin/true',)\n"
        "found = qemu.ask_emulators(ROOMY, cached=False)\n"
        "assert found.not_asked[0].why == '/bin/true ended: exit status 0', found\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'qemu', 'libvirt', 'lxml', 'asyncio'}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "XDG_CACHE_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.stdout, result.stderr) == ("\n", "")


# --- findings


def names(qemus: Emulators, host: Any = ROOMY) -> list[str]:
    return [finding.name for finding in judge_host(replace(host, qemu=qemus)).findings]


def test_a_qemu_that_agrees_with_the_kernel_is_no_finding() -> None:
    assert names(ANSWERS) == names(Emulators()) == []


def test_a_qemu_that_was_not_asked_is_no_finding() -> None:
    assert names(Emulators(not_asked=(NOT_INSTALLED,))) == []


@pytest.mark.parametrize(
    ("answer", "name", "severity"),
    [
        ({"kvm": False}, "qemu-kvm", Severity.ERROR),
        ({"gic_kernel": (2,)}, "qemu-gic", Severity.ERROR),
        ({"gic_kernel": ()}, "qemu-gic", Severity.ERROR),
        ({"cpu": {**QEMU.cpu, "pmu": False}}, "qemu-pmu", Severity.WARNING),
        ({"cpu": {**QEMU.cpu, "pauth": False}}, "qemu-pauth", Severity.WARNING),
        ({"cpu": {**QEMU.cpu, "sve256": False}}, "qemu-sve", Severity.WARNING),
        ({"cpu": {**QEMU.cpu, "sve512": True}}, "qemu-sve", Severity.WARNING),
        ({"cpu": {}}, "qemu-cpu", Severity.WARNING),
        ({"program_differs": ("its file is a script",)}, "qemu-program", Severity.WARNING),
    ],
)
def test_where_kernel_and_qemu_disagree_there_is_a_finding(
    answer: dict[str, Any], name: str, severity: Severity
) -> None:
    verdict = judge_host(replace(ROOMY, qemu=Emulators((replace(QEMU, **answer),))))
    (finding,) = verdict.findings
    assert (finding.name, finding.severity) == (name, severity)
    assert QEMU.path in finding.evidence
    assert finding.remedy


def test_a_gic_that_only_qemu_finds_is_a_disagreement_too() -> None:
    assert "qemu-gic" in names(ANSWERS, GICV2_ONLY)


def test_a_gicv5_is_nothing_that_qemu_is_asked_about() -> None:
    assert names(ANSWERS, replace(ROOMY, gicv5=True)) == []


def test_a_qemu_that_failed_to_answer_is_a_warning() -> None:
    failed = NotAsked(QEMU.path, f"{QEMU.path} ended: no", "see whether it starts", failed=True)
    verdict = judge_host(replace(ROOMY, qemu=Emulators(not_asked=(failed,))))
    (finding,) = verdict.findings
    assert (finding.name, finding.severity, finding.evidence) == ("qemu-unanswered", Severity.WARNING, failed.why)


# --- document and report


@pytest.mark.parametrize("qemus", [Emulators(), ANSWERS, Emulators(not_asked=(NOT_INSTALLED,))])
def test_the_document_meets_the_schema_and_keeps_the_answers(qemus: Emulators) -> None:
    host = replace(ROOMY, qemu=qemus)
    document = json.loads(json.dumps(to_document(host, judge_host(host))))
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
    assert document["qemu"] == json.loads(json.dumps(qemus.to_document()))


def test_a_host_whose_qemu_nobody_asked_about_says_nothing_of_it() -> None:
    assert "qemu" not in to_document(ROOMY, judge_host(ROOMY))
    assert "QEMU" not in render(ROOMY, judge_host(ROOMY), colour=False)


def group(qemus: Emulators) -> list[str]:
    host = replace(ROOMY, qemu=qemus)
    lines = render(host, judge_host(host), colour=False).split("\n")
    start = lines.index("QEMU") + 1
    return [" ".join(line.split()) for line in lines[start : lines.index("", start)]]


def test_the_report_says_what_qemu_makes_of_this_host() -> None:
    assert group(ANSWERS) == [
        "ok /usr/bin/qemu-system-aarch64 QEMU 11.1.3 (Debian 1:11.1.3+ds-1)",
        "ok KVM used",
        "- machine types virt-9.2 to virt-11.1; virt is virt-11.1, up to 512 vCPUs",
        "- gic-version 2, 3, 4, host, max",
        "- msi auto, gicv2m, its, off",
        "ok GIC versions in the kernel 2, 3; emulated 2, 3",
        "- CPU 'host' pauth, pmu; SVE vector lengths in bits: 128, 256",
    ]


def test_the_report_says_why_qemu_was_not_asked() -> None:
    assert group(Emulators(not_asked=(NOT_INSTALLED,))) == [
        "- /usr/bin/qemu-system-aarch64 not asked: QEMU's Python module for QMP is not installed (install qemu.qmp)"
    ]
    assert group(Emulators()) == ["- QEMU not installed where distributions put it"]


def test_a_disagreement_stands_under_its_line_with_the_remedy() -> None:
    lines = group(Emulators((replace(QEMU, kvm=False, cpu={}),)))
    at = lines.index("MISSING KVM not used")
    assert "[qemu-kvm]" in lines[at + 1]
    assert lines[at + 2].startswith("remedy: ")
