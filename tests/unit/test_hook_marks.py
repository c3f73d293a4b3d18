"""What the hook notes of guests that arrive, by libvirt's order of calls."""

import os
import subprocess
import sys
import syslog
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.hosts import NEOVERSE_N1
from tests.fakes.kernel import FakeKernel, install, pretend_arm64
from tests.unit.migration.examples import boot, domain_xml
from vgicmgr import hook
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Domain
from vgicmgr.domain.xml import read_domain
from vgicmgr.findings import Verdict, finding
from vgicmgr.migration import arrival
from vgicmgr.migration.marks import is_marked
from vgicmgr.migration.record import to_xml

ROOT = Path(__file__).parents[2]
GUEST = (ROOT / "xml/guest-gicv3.xml").read_bytes()
X86 = (ROOT / "xml/guest-x86.xml").read_bytes()
NO = finding("gic-version-unsupported", "no GICv3 here")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a daemon without root has no marks")


class Host:
    """libvirt's calls of the hook, for a guest whose judgement is told."""

    def __init__(self, folder: Path) -> None:
        self.marks = str(folder / "vgicmgr/arrived")
        self.policy = folder / "vgicmgr.conf"

    def ask(
        self,
        operation: str,
        *,
        refused: bool = False,
        xml: bytes = GUEST,
        name: str = "web1",
        script: int | None = None,
    ) -> int:
        reader, writer = os.pipe()
        os.write(writer, xml)
        os.close(writer)

        def judge(domain: Domain) -> Verdict:
            return Verdict((NO,) if refused else ())

        try:
            return hook.main(
                [name, operation, "begin", "-"],
                reader,
                judge=judge,
                policy_file=str(self.policy),
                marks=self.marks,
                script=script,
            )
        finally:
            os.close(reader)

    @property
    def marked(self) -> bool:
        return is_marked("web1", self.marks)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(syslog, "syslog", lambda *_: None)
    return Host(tmp_path)


@pytest.mark.parametrize("operation", ["migrate", "restore"])
def test_an_arrival(host: Host, operation: str) -> None:
    assert host.ask(operation) == 0
    assert host.ask("prepare") == 0
    assert host.marked


def test_a_boot(host: Host) -> None:
    assert host.ask("prepare") == 0
    assert not Path(host.marks).exists()


def test_a_boot_after_an_arrival_whose_end_nobody_told(host: Host) -> None:
    host.ask("migrate")
    host.ask("prepare")
    host.ask("prepare")
    assert not host.marked


def test_an_arrival_that_is_refused(host: Host) -> None:
    assert host.ask("migrate", refused=True) == 1
    assert not Path(host.marks).exists()
    host.ask("prepare")
    assert not host.marked


def test_one_that_is_refused_when_qemu_is_about_to_start(host: Host) -> None:
    host.ask("migrate")
    assert host.ask("prepare", refused=True) == 1
    host.ask("prepare")
    assert not host.marked


@pytest.mark.parametrize("mode", ["warn", "off"])
def test_a_policy_that_does_not_enforce_notes_it_as_well(host: Host, mode: str) -> None:
    host.policy.write_text(f"[hook]\nmode = {mode}\n")
    assert host.ask("migrate", refused=True) == 0
    host.ask("prepare", refused=True)
    assert host.marked


def test_other_guests_have_none(host: Host) -> None:
    assert host.ask("migrate", xml=X86) == 0
    assert not Path(host.marks).exists()


def test_no_place_for_it_is_no_reason_to_refuse(host: Host) -> None:
    Path(host.marks).parent.write_text("")
    for operation in ("migrate", "prepare"):
        assert host.ask(operation) == 0


@pytest.mark.parametrize("name", ["g" * 251, "a/b", "\udcff"])
def test_any_name(host: Host, name: str) -> None:
    host.ask("migrate", name=name)
    host.ask("prepare", name=name)
    assert is_marked(name, host.marks)


def test_a_script_that_was_killed_leaves_nothing(host: Host, tmp_path: Path) -> None:
    """libvirt has taken that for a no, whatever Python says then."""
    code = (
        "import os, sys, time; from vgicmgr import hook; from vgicmgr.findings import Verdict\n"
        "def judge(domain):\n"
        "    parent = os.getppid(); print('asked', flush=True)\n"
        "    while os.getppid() == parent: time.sleep(0.01)\n"
        "    return Verdict()\n"
        f"status = hook.main(['web1', 'migrate', 'begin', '-'], judge=judge, marks={host.marks!r})\n"
        f"open({str(tmp_path / 'done')!r}, 'w').write(str(status))\n"
    )
    script = subprocess.Popen(
        ["sh", "-c", '"$0" -c "$1"; :', sys.executable, code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert script.stdin is not None
    assert script.stdout is not None
    with script.stdin, script.stdout:
        script.stdin.write(GUEST)
        script.stdin.close()
        assert script.stdout.readline() == b"asked\n"
        script.kill()
        script.wait()
        deadline = time.monotonic() + 20
        while not (tmp_path / "done").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not Path(host.marks).exists()


def test_a_script_that_was_killed_before_python_was_there_leaves_nothing(host: Host) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert host.ask("migrate", script=gone.pid) == 0
    assert not Path(host.marks).exists()
    assert host.ask("migrate", script=os.getppid()) == 0
    assert Path(host.marks).exists()


class TestRecordOfThisHost:
    """A guest that comes back before the other host has noted what its QEMU sends (G5)."""

    @pytest.fixture
    def arriving(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bytes]:
        record = boot(NEOVERSE_N1)
        pretend_arm64(monkeypatch)
        install(monkeypatch, FakeKernel(NEOVERSE_N1))
        monkeypatch.setattr(arrival, "boot_id", lambda: "this-boot")

        def xml(process: str) -> bytes:
            return domain_xml(metadata=to_xml(replace(record, process=process)))

        return xml

    @pytest.mark.parametrize(
        ("process", "migrating", "told"),
        [
            ("this-boot/17", True, True),
            ("this-boot/17", False, False),  # from a file that was saved here
            ("another-boot/17", True, False),
            ("", True, False),
        ],
    )
    def test_it_is_told(self, arriving: Callable[[str], bytes], process: str, migrating: bool, told: bool) -> None:
        verdict = arrival.judge_incoming(read_domain(arriving(process)), migrating=migrating)
        assert ("record-not-of-sender" in {found.name for found in verdict.findings}) is told
        assert verdict.ok

    def test_the_hook_asks_it_of_a_migration(
        self, arriving: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines: list[str] = []
        monkeypatch.setattr(syslog, "syslog", lambda _, line: lines.append(line))
        for operation in ("migrate", "restore"):
            reader, writer = os.pipe()
            os.write(writer, arriving("this-boot/17"))
            os.close(writer)
            assert hook.main(["web1", operation, "begin", "-"], reader, policy_file="/nonexistent") == 0
            os.close(reader)
        assert ["record-not-of-sender" in line for line in lines] == [True, False]
