"""The hook's lines in the journal, and QEMU's in the log of a guest, read back."""

import json
import syslog

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.findings import Finding, Severity
from vgicmgr.hook import _Question, printable
from vgicmgr.policy import Decision as PolicyDecision
from vgicmgr.watch.events import Decision, last_words, read_decision, read_journal_entry, shown

GIC = Finding("gic-version-unsupported", Severity.ERROR, "KVM cannot make a GICv2", "set <gic version='3'/>")
RECORD = Finding("missing-record", Severity.WARNING, "the guest has no ABI record: who knows")


def logged(question: _Question, decision: PolicyDecision, monkeypatch: pytest.MonkeyPatch) -> str:
    """The line that the hook writes."""
    lines: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda _priority, line: lines.append(line))
    question.carry_out(decision)
    return lines[0]


@pytest.mark.parametrize(
    ("refused", "warned", "word", "names"),
    [
        ((), (), "passed", ()),
        ((GIC,), (), "refused", ("gic-version-unsupported",)),
        ((), (GIC, RECORD), "warned", ("gic-version-unsupported", "missing-record")),
        ((GIC,), (RECORD,), "refused", ("gic-version-unsupported", "missing-record")),
    ],
)
def test_what_the_hook_logs_is_read_back(
    refused: tuple[Finding, ...],
    warned: tuple[Finding, ...],
    word: str,
    names: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    question = _Question("web1", "migrate", 1)
    decision = read_decision(logged(question, PolicyDecision(refused, warned), monkeypatch), 5.0)
    assert decision is not None
    assert (decision.time, decision.guest, decision.operation) == (5.0, "web1", "migrate")
    assert (decision.decision, decision.findings) == (word, names)
    assert all(finding.evidence in decision.why for finding in (refused or warned))


@given(st.text(min_size=1, max_size=30))
def test_a_guest_has_the_same_name_in_the_journal_and_from_libvirt(name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        decision = read_decision(logged(_Question(name, "prepare", 1), PolicyDecision((), ()), patch), 0.0)
    assert decision is not None
    assert decision.guest == shown(name)
    assert decision.guest.isprintable()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "record domain='fits' written",
        "prepare domain='a' decision=passed",
        "stopped domain='a' uuid='' decision=passed",
        "prepare domain='a' uuid='' decision=passed\nprepare domain='b' uuid='' decision=passed",
        "prepare domain='a' uuid='' decision=refused: \x1b[2J",
    ],
)
def test_other_lines_are_no_decisions(line: str) -> None:
    assert read_decision(line, 0.0) is None


@given(st.text())
def test_any_line_is_a_decision_or_none(line: str) -> None:
    decision = read_decision(line, 0.0)
    assert decision is None or decision.guest.isprintable()


def entry(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_an_entry_of_the_journal_has_message_and_time() -> None:
    line = "prepare domain='a' uuid='' decision=passed"
    assert read_journal_entry(entry(MESSAGE=line, __REALTIME_TIMESTAMP="1795259936042504")) == Decision(
        1795259936.042504, "a", "prepare", "passed"
    )


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        entry(MESSAGE="prepare domain='a' uuid='' decision=passed"),
        entry(MESSAGE="prepare domain='a' uuid='' decision=passed", __REALTIME_TIMESTAMP="soon"),
        entry(MESSAGE=[112, 255], __REALTIME_TIMESTAMP="1"),  # so it has what is no UTF-8
        entry(MESSAGE=None, __REALTIME_TIMESTAMP="1"),  # and what is too long
        b"[" * 100_000,
    ],
)
def test_a_damaged_entry_is_none(damaged: bytes) -> None:
    assert read_journal_entry(damaged) is None


LOG = """\
2026-11-20 09:00:00.000+0000: starting up libvirt version: 11.3.0, qemu version: 10.0.13, kernel: 6.12, hostname: h1
2026-11-20T09:00:01.000000Z qemu-system-aarch64: KVM does not support GICv2 emulation
2026-11-20 09:00:02.000+0000: shutting down, reason=failed
2026-11-21 11:39:28.112+0000: starting up libvirt version: 9.0.0, qemu version: 7.2.22, kernel: 6.1, hostname: h1
LC_ALL=C \\
-msg timestamp=on
2026-11-21 11:39:28.116+0000: Domain id=2 is tainted: host-cpu
2026-11-21T11:39:41.253100Z qemu-system-aarch64: warning: nothing that matters
2026-11-21T11:39:41.253126Z qemu-system-aarch64: Invalid value 258 expecting positive value <= 241
2026-11-21T11:39:41.256076Z qemu-system-aarch64: Failed to load cpu:cpreg_vmstate_array_len
2026-11-21T11:39:41.256357Z qemu-system-aarch64: error while loading state for instance 0x0 of device 'cpu'
2026-11-21T11:39:41.273667Z qemu-system-aarch64: load of migration failed: Invalid argument
2026-11-21 11:39:41.356+0000: shutting down, reason=crashed
"""


def test_the_last_words_are_the_first_complaints_since_the_last_start() -> None:
    assert last_words(LOG) == (
        "qemu-system-aarch64: Invalid value 258 expecting positive value <= 241; "
        "qemu-system-aarch64: Failed to load cpu:cpreg_vmstate_array_len; "
        "qemu-system-aarch64: error while loading state for instance 0x0 of device 'cpu'"
    )


@pytest.mark.parametrize(
    "log",
    [
        "",
        LOG + "2026-11-21 12:00:00.000+0000: starting up libvirt version: 9.0.0\n",
        "2026-11-21T11:39:41.1Z qemu-kvm: terminating on signal 15 from pid 1 (libvirtd)\n",
    ],
)
def test_a_qemu_that_complained_of_nothing_has_no_last_words(log: str) -> None:
    assert last_words(log) == ""


@given(st.text())
def test_any_log_can_be_read(log: str) -> None:
    assert isinstance(last_words(log), str)


def test_names_are_shown_as_the_hook_prints_them() -> None:
    assert shown("it's\x1b[31m") == printable("it\\'s\x1b[31m") == "it\\'s\\x1b[31m"
