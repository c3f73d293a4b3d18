"""What libvirt asks before a guest starts or arrives, and what it is told: the hook behind ``hooks/qemu``.

Decided are ``prepare`` (a guest starts), ``migrate`` (one is about to come from another host) and ``restore`` (from a
file). Everything else is let through at once: a failing ``reconnect`` would kill a running guest, and ``stopped`` and
``release`` come when there is nothing left to refuse (libvirt, ``docs/hooks.rst``).

An arrival is judged by the guest's ABI record (:mod:`vgicmgr.migration.arrival`); without one, by the domain XML alone.

Exit status 0 lets the guest in, 1 keeps it out; the one line on standard error then reaches the operator in libvirt's
own error, at the source of a migration before any memory is copied. Standard output stays empty. Each decision is
logged by syslog in one line, and never with XML, which can hold secrets. A domain that is no arm64 KVM guest passes in
silence.

What cannot be judged (XML that cannot be read or does not come within :data:`STDIN_SECONDS`, a policy that cannot be
understood, a kernel that cannot be asked, a fault in this program) is refused under ``mode = enforce``, logged and let
through under ``warn``. One exception: a daemon without root (``qemu:///session``) runs the same hook, and where its
user may not open /dev/kvm or the policy, the guest is let through: QEMU runs as that user and meets the same hindrance.

Every guest's start waits for this module: it imports nothing that it can do without.
"""

import os
import select
import sys
import syslog
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from vgicmgr.domain.domain import Domain
from vgicmgr.domain.xml import MAX_BYTES, read_domain
from vgicmgr.errors import DomainXMLError, PolicyError, VgicmgrError, fault
from vgicmgr.findings import Finding, Verdict
from vgicmgr.policy import DEFAULT, POLICY_FILE, Decision, Mode, read_policy

STDIN_SECONDS = 10.0
"""How long the XML may take to arrive, in seconds; libvirt writes it at once."""

SCRIPT_SECONDS = 2.0
"""How much of it ``hooks/qemu`` has waited, where it has not got the 19 bytes that it asks for."""
SCRIPT_BYTES = 19

DEV_KVM = "/dev/kvm"

_LONGEST_NAME = 200
_LONGEST_MESSAGE = 2000


def main(
    argv: Sequence[str],
    stdin: int = 0,
    *,
    judge: Callable[[Domain], Verdict] | None = None,
    policy_file: str = POLICY_FILE,
    seconds: float = STDIN_SECONDS,
    marks: str = "",
    script: int | None = None,
) -> int:
    """Exit status for the arguments libvirt gives: domain, operation, sub-operation, extra.

    A fifth one is what ``hooks/qemu`` has already read of the XML; the rest comes from the descriptor ``stdin``.
    ``judge`` is :func:`vgicmgr.guest.start.judge_start` unless told otherwise. ``marks`` is the folder where it is
    noted which guests arrive (:mod:`vgicmgr.migration.marks`), if any. ``script`` is the process id of ``hooks/qemu``,
    which may be gone before this is reached. Raises nothing.
    """
    if len(argv) < 2 or argv[1] not in _WORDS:
        return 0
    question = _Question(argv[0], argv[1], os.getppid() if script is None else script)
    first = os.fsencode(argv[4]) if len(argv) > 4 else b""
    if len(argv) > 4 and len(first) < SCRIPT_BYTES:
        seconds -= SCRIPT_SECONDS
    try:
        status = question.decide(first, stdin, judge, policy_file, seconds)
    except Exception as error:
        status = question.cannot_judge(error)
    if marks and question.concerns_us:
        with suppress(OSError):  # then libvirt's and QEMU's own word tell where the guest was booted
            question.leave_mark(argv[0], marks, let_in=status == 0)
    return status


_WORDS = {
    "prepare": ("cannot start here", "is not started", "start it"),
    "migrate": ("cannot arrive here", "is not let in", "let it in"),
    "restore": ("cannot be restored here", "is not restored", "restore it"),
}
"""The operations that are decided, and the words for a refusal."""


class _Question:
    """One guest's start or arrival, and how far its judgement has come: enough to say so when it breaks off."""

    def __init__(self, name: str, operation: str, parent: int) -> None:
        self.name = name
        self.operation = operation
        self.uuid = ""
        self.mode = Mode.ENFORCE
        self.concerns_us = os.geteuid() == 0
        """A daemon without root has no place for marks, and other guests need none."""
        self.parent = parent

    def decide(
        self,
        first: bytes,
        stdin: int,
        judge: Callable[[Domain], Verdict] | None,
        policy_file: str,
        seconds: float,
    ) -> int:
        policy, policy_error = DEFAULT, None
        try:
            policy = read_policy(policy_file)
        except PolicyError as error:
            policy_error = error
        self.mode = policy.mode
        if policy.mode is Mode.OFF:
            return self.let_through("off", "nothing is judged")
        xml = read_stdin(stdin, seconds, first)
        domain = read_domain(xml)
        self.name, self.uuid = domain.name, domain.uuid
        if not domain.needs_gic:
            self.concerns_us = False
            return 0
        if policy_error:
            if _not_for_this_user(policy_error.__cause__):
                return self.let_through("not-judged", policy_error.message)
            raise policy_error
        if os.geteuid() != 0 and not os.access(DEV_KVM, os.R_OK | os.W_OK, effective_ids=True):
            return self.let_through("not-judged", f"{DEV_KVM} may not be opened by this user")
        return self.carry_out(policy.decide((judge or _JUDGES[self.operation])(domain)))

    def carry_out(self, decision: Decision) -> int:
        if decision.refused:
            why = _sentences(decision.refused)
            self.log(syslog.LOG_ERR, "refused", why, decision)
            _say(f"domain {quoted(self.name)} {_WORDS[self.operation][0]}: {why}")
            return 1
        if decision.warned:
            self.log(syslog.LOG_WARNING, "warned", _sentences(decision.warned), decision)
        else:
            self.log(syslog.LOG_INFO, "passed")
        return 0

    def leave_mark(self, name: str, folder: str, *, let_in: bool) -> None:
        """Note an arrival, or what has become of it; nothing where libvirt has lost the answer (its script is gone)."""
        from vgicmgr.migration import marks

        if let_in and self.operation == "prepare":
            marks.settle(name, self.uuid, folder)
        elif not let_in:
            marks.forget(name, folder)
        elif os.getppid() == self.parent:
            marks.note_arrival(name, self.uuid, folder)

    def let_through(self, decision: str, why: str) -> int:
        self.log(syslog.LOG_NOTICE, decision, why)
        return 0

    def cannot_judge(self, error: Exception) -> int:
        why = str(error) if isinstance(error, VgicmgrError) else fault(error)
        if self.mode is not Mode.ENFORCE:
            self.log(syslog.LOG_WARNING, "not-judged", why)
            return 0
        self.log(syslog.LOG_ERR, "refused", f"cannot be judged: {why}")
        _, refused, anyway = _WORDS[self.operation]
        _say(
            f"domain {quoted(self.name)} {refused}, since it cannot be judged: {printable(why)}; "
            f"to {anyway} all the same, set 'mode = warn' in {POLICY_FILE}"
        )
        return 1

    def log(self, priority: int, decision: str, why: str = "", findings: Decision | None = None) -> None:
        line = f"{self.operation} domain={quoted(self.name)} uuid={quoted(self.uuid)} decision={decision}"
        for word, some in (("refused", findings.refused), ("warned", findings.warned)) if findings else ():
            if some:
                line += f" {word}={','.join(printable(finding.name) for finding in some)}"
        if why:
            line += f": {printable(why)}"
        syslog.openlog("vgicmgr", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(priority, line)


def read_stdin(fd: int, seconds: float, first: bytes = b"") -> bytes:
    """``first`` and what can be read from the descriptor until its end.

    Raises :class:`DomainXMLError` when it does not end within ``seconds`` or :data:`MAX_BYTES`, or cannot be read.
    """
    deadline = time.monotonic() + seconds
    content = bytearray(first)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    try:
        while len(content) <= MAX_BYTES:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise DomainXMLError(f"the domain XML on standard input did not end within {seconds:g} s")
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                break
            content += chunk
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise DomainXMLError(f"the domain XML cannot be read from standard input: {why}") from None
    return bytes(content)


def printable(text: str) -> str:
    """``text`` for a log or a terminal: what is not printable (newlines, escapes, bidi overrides …) is spelled out."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def quoted(name: str) -> str:
    """A name from outside, in quotes that it cannot close."""
    short = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    return "'" + printable(short.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def _sentences(findings: Sequence[Finding]) -> str:
    if len(findings) == 1:
        return printable(str(findings[0]))
    return "; ".join(f"({number}) {printable(str(finding))}" for number, finding in enumerate(findings, 1))


def _not_for_this_user(cause: BaseException | None) -> bool:
    return os.geteuid() != 0 and isinstance(cause, PermissionError)


def _say(line: str) -> None:
    # not sys.stderr, which is None when the descriptor is closed
    with suppress(OSError):
        os.write(2, f"vgicmgr: {line}\n".encode(errors="backslashreplace"))


def _judge_start(domain: Domain) -> Verdict:
    # imported late: domains that are no arm64 KVM guests do not need it
    from vgicmgr.guest.start import judge_start

    return judge_start(domain)


def _judge_migration(domain: Domain) -> Verdict:
    from vgicmgr.migration.arrival import judge_incoming

    return judge_incoming(domain, migrating=True)


def _judge_restore(domain: Domain) -> Verdict:
    from vgicmgr.migration.arrival import judge_incoming

    return judge_incoming(domain)


_JUDGES = {"prepare": _judge_start, "migrate": _judge_migration, "restore": _judge_restore}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
