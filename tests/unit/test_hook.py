"""The hook's decision, its words, and what it does when something is wrong."""

import os
import subprocess
import sys
import syslog
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fakes.hosts import GICV2_HOST, NEOVERSE_N1, HostKind
from tests.fakes.kernel import FakeKernel, installed, pretend_arm64
from tests.unit.migration.examples import boot, domain_xml, with_record
from vgicmgr import hook
from vgicmgr.domain.domain import Domain
from vgicmgr.domain.xml import MAX_BYTES
from vgicmgr.errors import CannotTell, DomainXMLError
from vgicmgr.findings import Finding, Severity, Verdict
from vgicmgr.hook import printable, quoted, read_stdin
from vgicmgr.kvm.errors import KvmError

ROOT = Path(__file__).parents[2]
GUEST = (ROOT / "xml/guest-gicv3.xml").read_bytes()
UUID = "3f0a4f5e-52c2-4f0e-9a0b-6d5d1f7d4c11"

NO_GICV3 = Finding(
    "gic-version-unsupported",
    Severity.ERROR,
    "<gic version='3'/> is asked for, but this host's KVM cannot make a GICv3",
    "set <gic version='2'/>",
)
NO_PMU = Finding("pmu-unsupported", Severity.ERROR, "<pmu state='on'/> is asked for, but this host's KVM has no PMU")
OLD = Finding("cpu-types-mixed", Severity.WARNING, "an old kernel")

Judge = Callable[[Domain], Verdict]


def fake_judge(*findings: Finding) -> Judge:
    """A judge that asks no kernel and finds this."""
    return lambda domain: Verdict(findings)


def failing_judge(error: Exception) -> Judge:
    """A judge that cannot tell."""

    def judge(domain: Domain) -> Verdict:
        raise error

    return judge


def judge_not_to_be_asked(domain: Domain) -> Verdict:
    raise AssertionError("this domain was not to be judged")


@contextmanager
def pipe(content: bytes) -> Iterator[int]:
    """A descriptor that ``content``, no longer than a pipe holds, can be read from."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    try:
        yield reader
    finally:
        os.close(reader)


@dataclass
class Host:
    """The hook's surroundings: its policy file, and the log."""

    policy: Path
    log: list[tuple[int, str]] = field(default_factory=list)

    def prepare(self, xml: bytes = GUEST, judge: Judge = judge_not_to_be_asked, seconds: float = 5) -> int:
        return self.ask("prepare", xml, judge, seconds)

    def ask(self, operation: str, xml: bytes = GUEST, judge: Judge = judge_not_to_be_asked, seconds: float = 5) -> int:
        with pipe(xml) as stdin:
            return hook.main(
                ["web1", operation, "begin", "-"], stdin, judge=judge, policy_file=str(self.policy), seconds=seconds
            )

    @property
    def lines(self) -> list[str]:
        return [line for _, line in self.log]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host where root's libvirtd runs the hook, without a policy file."""
    host = Host(tmp_path / "vgicmgr.conf")
    monkeypatch.setattr(syslog, "syslog", lambda priority, line: host.log.append((priority, line)))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return host


@pytest.fixture
def session(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host where an ordinary user's daemon (qemu:///session) runs the hook."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return host


def set_dev_kvm(monkeypatch: pytest.MonkeyPatch, *, usable: bool) -> None:
    """Whether this user may open /dev/kvm."""
    monkeypatch.setattr(os, "access", lambda path, mode, effective_ids: usable if path == "/dev/kvm" else None)


Output = pytest.CaptureFixture[str]


class TestOtherOperations:
    """Only prepare, migrate and restore are decided; the rest is let through, without a look at anything."""

    @pytest.mark.parametrize("operation", ["start", "started", "stopped", "release", "reconnect", "attach", "", "new"])
    def test_let_through(self, host: Host, operation: str) -> None:
        host.policy.write_text("this is no policy")
        assert hook.main(["web1", operation, "begin", "-"], -1, judge=judge_not_to_be_asked) == 0
        assert host.log == []

    @pytest.mark.parametrize("argv", [[], ["web1"]])
    def test_no_operation(self, argv: list[str]) -> None:
        assert hook.main(argv, -1) == 0


class TestArrival:
    """A guest that comes from another host or a file."""

    @pytest.mark.parametrize(
        ("operation", "words"), [("migrate", "cannot arrive here"), ("restore", "cannot be restored here")]
    )
    def test_refused(self, host: Host, capfd: Output, operation: str, words: str) -> None:
        assert host.ask(operation, judge=fake_judge(NO_GICV3)) == 1
        assert capfd.readouterr().err.startswith(f"vgicmgr: domain 'web1' {words}: <gic version='3'/> is asked for")
        assert host.lines[0].startswith(f"{operation} domain='web1' uuid='{UUID}' decision=refused")

    @pytest.mark.parametrize("operation", ["migrate", "restore"])
    def test_let_in(self, host: Host, capfd: Output, operation: str) -> None:
        assert host.ask(operation, judge=fake_judge(OLD)) == 0
        assert capfd.readouterr() == ("", "")

    def test_what_cannot_be_judged(self, host: Host, capfd: Output) -> None:
        assert host.ask("migrate", GUEST[:300]) == 1
        assert "domain 'web1' is not let in, since it cannot be judged" in capfd.readouterr().err


class TestRefusal:
    """What does not fit is not started, and the operator reads why."""

    def test_one_line_with_domain_wish_obstacle_and_remedy(self, host: Host, capfd: Output) -> None:
        assert host.prepare(judge=fake_judge(NO_GICV3)) == 1
        assert capfd.readouterr() == (
            "",
            "vgicmgr: domain 'web1' cannot start here: <gic version='3'/> is asked for, but this host's KVM cannot "
            "make a GICv3 [gic-version-unsupported]; set <gic version='2'/>\n",
        )

    def test_several_findings_in_one_line(self, host: Host, capfd: Output) -> None:
        assert host.prepare(judge=fake_judge(NO_GICV3, OLD, NO_PMU)) == 1
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert f"(1) {NO_GICV3}; (2) {NO_PMU}\n" in err

    def test_log(self, host: Host) -> None:
        host.prepare(judge=fake_judge(NO_GICV3, OLD, NO_PMU))
        ((priority, line),) = host.log
        assert priority == syslog.LOG_ERR
        assert line.startswith(
            f"prepare domain='web1' uuid='{UUID}' decision=refused "
            "refused=gic-version-unsupported,pmu-unsupported warned=cpu-types-mixed: "
        )

    def test_the_judge_gets_what_the_xml_says(self, host: Host) -> None:
        seen: list[Domain] = []

        def judge(domain: Domain) -> Verdict:
            seen.append(domain)
            return Verdict()

        assert host.prepare(judge=judge) == 0
        assert [(domain.name, domain.gic_version, domain.vcpus) for domain in seen] == [("web1", "3", 4)]

    def test_bytes_read_beforehand_come_first(self, host: Host) -> None:
        argv = ["web1", "prepare", "begin", "-", os.fsdecode(GUEST[:19])]
        with pipe(GUEST[19:]) as stdin:
            assert hook.main(argv, stdin, judge=fake_judge(NO_GICV3), policy_file=str(host.policy)) == 1
        assert f"domain='web1' uuid='{UUID}'" in host.lines[0]


class TestLetThrough:
    """Silence for who waits, a line for the log."""

    def test_a_guest_that_fits(self, host: Host, capfd: Output) -> None:
        assert host.prepare(judge=fake_judge()) == 0
        assert capfd.readouterr() == ("", "")
        assert host.log == [(syslog.LOG_INFO, f"prepare domain='web1' uuid='{UUID}' decision=passed")]

    def test_warnings_are_logged(self, host: Host, capfd: Output) -> None:
        assert host.prepare(judge=fake_judge(OLD)) == 0
        assert capfd.readouterr() == ("", "")
        assert host.log == [
            (
                syslog.LOG_WARNING,
                f"prepare domain='web1' uuid='{UUID}' decision=warned warned=cpu-types-mixed: "
                "an old kernel [cpu-types-mixed]",
            )
        ]

    @pytest.mark.parametrize("name", ["guest-x86.xml", "guest-emulated.xml"])
    def test_no_arm64_kvm_guest_in_silence(self, host: Host, capfd: Output, name: str) -> None:
        assert host.prepare((ROOT / "xml" / name).read_bytes()) == 0
        assert capfd.readouterr() == ("", "")
        assert host.log == []

    def test_no_arm64_kvm_guest_whatever_the_policy(self, host: Host) -> None:
        host.policy.write_text("this is no policy")
        assert host.prepare((ROOT / "xml/guest-x86.xml").read_bytes()) == 0


class TestPolicy:
    """Enforce, warn, off."""

    def test_warn_logs_what_it_would_have_refused(self, host: Host, capfd: Output) -> None:
        host.policy.write_text("[hook]\nmode = warn\n")
        assert host.prepare(judge=fake_judge(NO_GICV3)) == 0
        assert capfd.readouterr() == ("", "")
        ((priority, line),) = host.log
        assert priority == syslog.LOG_WARNING
        assert line.endswith(f"decision=warned warned=gic-version-unsupported: {NO_GICV3}")

    def test_one_finding_let_off(self, host: Host) -> None:
        host.policy.write_text("[findings]\ngic-version-unsupported = off\n")
        assert host.prepare(judge=fake_judge(NO_GICV3)) == 0
        assert host.lines == [f"prepare domain='web1' uuid='{UUID}' decision=passed"]

    @pytest.mark.parametrize("xml", [GUEST, b"", b"<!DOCTYPE a>"])
    def test_off_judges_nothing(self, host: Host, capfd: Output, xml: bytes) -> None:
        host.policy.write_text("[hook]\nmode = off\n")
        assert host.prepare(xml) == 0
        assert capfd.readouterr() == ("", "")
        assert host.lines == ["prepare domain='web1' uuid='' decision=off: nothing is judged"]


FAILURES = [
    pytest.param(b"", judge_not_to_be_asked, "the domain XML is empty", id="empty XML"),
    pytest.param(GUEST[:700], judge_not_to_be_asked, "the domain XML is malformed", id="truncated XML"),
    pytest.param(b"<!DOCTYPE a []>", judge_not_to_be_asked, "has a DOCTYPE", id="DOCTYPE"),
    pytest.param(GUEST, failing_judge(CannotTell("/dev/kvm is not there")), "/dev/kvm is not there", id="no KVM"),
    pytest.param(GUEST, failing_judge(KvmError("KVM_CREATE_VM", "", 12)), "KVM_CREATE_VM: ENOMEM", id="KVM refuses"),
    pytest.param(GUEST, failing_judge(ValueError("s3cr3t")), "vgicmgr itself failed (ValueError in", id="a fault"),
    pytest.param(GUEST, failing_judge(RecursionError()), "vgicmgr itself failed (RecursionError", id="recursion"),
    pytest.param(GUEST, failing_judge(MemoryError()), "vgicmgr itself failed (MemoryError", id="no memory"),
]


class TestCannotJudge:
    """What cannot be judged is refused under enforce, and let through under warn: in one line, without a traceback."""

    @pytest.mark.parametrize(("xml", "judge", "why"), FAILURES)
    def test_enforce(self, host: Host, capfd: Output, xml: bytes, judge: Judge, why: str) -> None:
        assert host.prepare(xml, judge) == 1
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("vgicmgr: domain 'web1' is not started, since it cannot be judged: ")
        assert why in err
        assert "s3cr3t" not in err + host.lines[0]
        assert "decision=refused: cannot be judged: " in host.lines[0]

    @pytest.mark.parametrize(("xml", "judge", "why"), FAILURES)
    def test_warn(self, host: Host, capfd: Output, xml: bytes, judge: Judge, why: str) -> None:
        host.policy.write_text("[hook]\nmode = warn\n")
        assert host.prepare(xml, judge) == 0
        assert capfd.readouterr() == ("", "")
        assert "decision=not-judged: " in host.lines[0]
        assert why in host.lines[0]

    def test_unreadable_policy_refuses(self, host: Host, capfd: Output) -> None:
        host.policy.write_text("[hook]\nmode = sometimes\n")
        assert host.prepare() == 1
        assert f"the policy {host.policy} cannot be understood: 'mode' is 'sometimes'" in capfd.readouterr().err

    def test_the_message_survives_a_closed_standard_error(self, host: Host) -> None:
        saved = os.dup(2)
        os.close(2)
        try:
            assert host.prepare(judge=fake_judge(NO_GICV3)) == 1
        finally:
            os.dup2(saved, 2)
            os.close(saved)


class TestSession:
    """Without root no harm is done: what this user may not open is QEMU's to report."""

    def test_judged_where_dev_kvm_can_be_opened(self, session: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        set_dev_kvm(monkeypatch, usable=True)
        assert session.prepare(judge=fake_judge(NO_GICV3)) == 1

    def test_let_through_where_it_cannot(self, session: Host, monkeypatch: pytest.MonkeyPatch, capfd: Output) -> None:
        set_dev_kvm(monkeypatch, usable=False)
        assert session.prepare() == 0
        assert capfd.readouterr() == ("", "")
        assert session.lines[0].endswith("decision=not-judged: /dev/kvm may not be opened by this user")

    def test_let_through_where_the_policy_is_for_root_only(
        self, session: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def denied(path: str, flags: int) -> int:
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr(os, "open", denied)
        assert session.prepare() == 0
        assert "decision=not-judged: the policy" in session.lines[0]

    def test_root_always_asks_the_kernel(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        set_dev_kvm(monkeypatch, usable=False)
        assert host.prepare(judge=failing_judge(CannotTell("/dev/kvm is not there"))) == 1


class TestByTheKernel:
    """As libvirt asks, down to a kernel that keeps to its rules."""

    def ask(self, host: Host, monkeypatch: pytest.MonkeyPatch, operation: str, kind: HostKind, xml: bytes) -> int:
        pretend_arm64(monkeypatch)
        kernel = FakeKernel(kind)
        with installed(monkeypatch, kernel), pipe(xml) as stdin:
            status = hook.main(["web1", operation, "begin", "-"], stdin, policy_file=str(host.policy))
        assert kernel.open_descriptors() == []
        return status

    def test_a_start(self, host: Host, monkeypatch: pytest.MonkeyPatch, capfd: Output) -> None:
        assert self.ask(host, monkeypatch, "prepare", NEOVERSE_N1, domain_xml()) == 0
        assert self.ask(host, monkeypatch, "prepare", GICV2_HOST, domain_xml(gic="3")) == 1
        assert "[gic-version-unsupported]; set <gic version='2'/>, or use a host" in capfd.readouterr().err

    @pytest.mark.parametrize("operation", ["migrate", "restore"])
    def test_an_arrival(self, host: Host, monkeypatch: pytest.MonkeyPatch, capfd: Output, operation: str) -> None:
        xml = with_record(boot(NEOVERSE_N1))
        assert self.ask(host, monkeypatch, operation, NEOVERSE_N1, xml) == 0
        other = NEOVERSE_N1.with_registers(MIDR_EL1=0x411FD070)
        assert self.ask(host, monkeypatch, operation, other, xml) == 1
        said = capfd.readouterr().err
        assert "[register-value]; use a host with the CPU that the guest was booted on (MIDR_EL1 0x413fd0c1)" in said

    def test_an_arrival_that_could_not_start(self, host: Host, monkeypatch: pytest.MonkeyPatch, capfd: Output) -> None:
        for xml in (domain_xml(gic="2"), with_record(boot(GICV2_HOST), gic="2")):
            assert self.ask(host, monkeypatch, "migrate", NEOVERSE_N1, xml) == 1
            assert "[gic-version-unsupported]" in capfd.readouterr().err

    def test_a_record_that_is_not_believed_is_a_warning(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        other = NEOVERSE_N1.with_registers(MIDR_EL1=0x411FD070)
        assert self.ask(host, monkeypatch, "migrate", other, with_record(boot(NEOVERSE_N1), vcpus=8)) == 0
        assert "decision=warned warned=record-of-another-boot: " in host.lines[0]

    def test_metadata_that_cannot_be_parsed(self, host: Host, monkeypatch: pytest.MonkeyPatch, capfd: Output) -> None:
        """Such a guest starts, and may not arrive: its record cannot be read."""
        xml = domain_xml(metadata="<app><b></app>")
        assert self.ask(host, monkeypatch, "prepare", NEOVERSE_N1, xml) == 0
        assert self.ask(host, monkeypatch, "migrate", NEOVERSE_N1, xml) == 1
        assert "[record-unreadable]" in capfd.readouterr().err


class TestStandardInput:
    """It is read to its end, within bounds."""

    def test_all_of_it(self) -> None:
        with pipe(b"def") as fd:
            assert read_stdin(fd, 5, b"abc") == b"abcdef"

    def test_file(self, tmp_path: Path) -> None:
        (tmp_path / "xml").write_bytes(b"x" * 200_000)
        with (tmp_path / "xml").open("rb") as file:
            assert read_stdin(file.fileno(), 5) == b"x" * 200_000

    @pytest.mark.parametrize("sent", [b"", b"<domain type='kvm'"])
    def test_one_that_never_ends(self, sent: bytes) -> None:
        reader, writer = os.pipe()
        os.write(writer, sent)
        start = time.monotonic()
        with pytest.raises(DomainXMLError, match=r"did not end within 0\.2 s"):
            read_stdin(reader, 0.2)
        assert 0.2 <= time.monotonic() - start < 2
        os.close(reader)
        os.close(writer)

    def test_one_that_never_ends_and_is_never_silent(self) -> None:
        with Path("/dev/zero").open("rb") as file:
            assert len(read_stdin(file.fileno(), 60)) <= MAX_BYTES + (1 << 16)

    def test_closed(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        os.close(writer)
        with pytest.raises(DomainXMLError, match="cannot be read from standard input: Bad file descriptor"):
            read_stdin(reader, 5)

    def test_directory(self, tmp_path: Path) -> None:
        fd = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(DomainXMLError, match="cannot be read from standard input: Is a directory"):
            read_stdin(fd, 5)
        os.close(fd)


class TestNamesFromOutside:
    """A name cannot forge a log line, an escape sequence or the end of its own quotes."""

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("web1", "'web1'"),
            ("größer", "'größer'"),
            ("a\nb", r"'a\nb'"),
            ("a\x1b[2J", r"'a\x1b[2J'"),
            ("a\u202eb", r"'a\u202eb'"),
            ("a\udc80", r"'a\udc80'"),
            ("a' decision=passed", r"'a\' decision=passed'"),
            ("a\\", r"'a\\'"),
            ("a" * 201, f"'{'a' * 200}...'"),
        ],
    )
    def test_quoted(self, name: str, shown: str) -> None:
        assert quoted(name) == shown

    @given(st.text(st.characters()))
    @example("\x00\r\n\x7f\x85\u2028\ud800")
    def test_only_what_is_printable_is_printed(self, text: str) -> None:
        for shown in (printable(text), quoted(text)):
            assert shown.isprintable()
            shown.encode()

    @given(st.text(st.characters()))
    def test_quotes_are_closed_at_the_end_only(self, name: str) -> None:
        inside = quoted(name)[1:-1]
        assert "'" not in inside.replace("\\\\", "").replace("\\'", "")
        assert not inside.replace("\\\\", "").endswith("\\")

    @given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffe\uffff<&\r")))
    def test_whatever_the_domain_is_called_one_line_is_said_and_one_logged(self, name: str) -> None:
        name = "".join(c for c in name if c >= " " or c in "\t\n")
        log: list[str] = []
        xml = GUEST.replace(b"<name>web1</name>", f"<name>{name}</name>".encode())
        said: list[bytes] = []
        with pytest.MonkeyPatch.context() as patch, pipe(xml) as stdin:
            patch.setattr(syslog, "syslog", lambda priority, line: log.append(line))
            patch.setattr(os, "geteuid", lambda: 0)
            patch.setattr(os, "write", lambda fd, data: said.append(data))
            status = hook.main(
                ["x", "prepare", "begin", "-"],
                stdin,
                judge=fake_judge(NO_GICV3),
                policy_file="/nonexistent",
            )
        assert status == 1
        assert [line.isprintable() for line in log] == [True]
        assert [line.decode().rstrip("\n").isprintable() for line in said] == [True]


class TestAsAProcess:
    """The module as Python runs it."""

    def run(self, *argv: str, before: Callable[[], None] | None = None) -> "subprocess.CompletedProcess[str]":
        program = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
            "from vgicmgr.hook import main; sys.exit(main(sys.argv[1:]))"
        )
        return subprocess.run(
            [sys.executable, "-I", "-c", program, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            preexec_fn=before,
        )

    def test_nothing_to_decide(self) -> None:
        run = self.run("web1", "started", "begin", "-")
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")

    def test_empty_standard_input(self) -> None:
        run = self.run("web1", "prepare", "begin", "-")
        assert (run.returncode, run.stdout) == (1, "")
        assert run.stderr.count("\n") == 1
        assert "the domain XML is empty" in run.stderr

    def test_no_standard_input(self) -> None:
        run = self.run("web1", "prepare", "begin", "-", before=lambda: os.close(0))
        assert (run.returncode, run.stdout) == (1, "")
        assert run.stderr.count("\n") == 1
        assert "cannot be read from standard input" in run.stderr

    def test_it_starts_without_what_a_start_cannot_wait_for(self) -> None:
        """A guest's start waits for these imports."""
        program = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); import vgicmgr.hook, vgicmgr.guest.start; "
            "import vgicmgr.migration.arrival; print(*sys.modules)"
        )
        run = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True, timeout=30
        )
        heavy = {"argparse", "json", "logging", "pathlib", "configparser", "typing", "tomllib", "xml.etree"}
        heavy |= {"dataclasses", "inspect"}
        heavy |= {"subprocess", "lxml", "libvirt", "qemu.qmp", "vgicmgr.vfio.sysfs", "vgicmgr.host.capabilities"}
        assert heavy.isdisjoint(run.stdout.split())
