"""What can be seen of guests on a host, as values: libvirt's events, and the hook's decisions in the journal. Pure."""

import json
import re

from vgicmgr.dataclass import dataclass
from vgicmgr.hook import quoted


@dataclass(frozen=True)
class Lifecycle:
    """libvirt's VIR_DOMAIN_EVENT_ID_LIFECYCLE: ``event`` is a virDomainEventType, ``detail`` what that one defines.

    ``time`` here and below is in seconds since 1970, ``guest`` a name as :func:`shown` has it.
    """

    time: float
    guest: str
    event: int
    detail: int


@dataclass(frozen=True)
class Decision:
    """What the hook decided: ``decision`` is its word for it, ``findings`` are names.

    Of a guest that the hook was not asked about, what it would have decided: ``anew``.
    """

    time: float
    guest: str
    operation: str
    decision: str
    findings: tuple[str, ...] = ()
    why: str = ""
    anew: bool = False


@dataclass(frozen=True)
class Failed:
    """A guest's start or arrival failed; ``why`` are QEMU's last words.

    libvirt has an event for it (VIR_DOMAIN_EVENT_STOPPED_FAILED) where QEMU was already at work, else none.
    """

    time: float
    guest: str
    why: str


@dataclass(frozen=True)
class Connected:
    """libvirt can be reached, and these guests are active."""

    time: float
    guests: tuple[str, ...]


@dataclass(frozen=True)
class Lost:
    """libvirt cannot be reached any more."""

    time: float


Event = Lifecycle | Decision | Failed | Connected | Lost


def shown(name: str) -> str:
    """A guest's name as the hook logs it: it cannot break a line, nor a terminal."""
    return quoted(name)[1:-1]


_DECISION = re.compile(
    r"(?P<operation>prepare|migrate|restore) domain='(?P<guest>(?:[^'\\]|\\.)*)' uuid='(?:[^'\\]|\\.)*' "
    r"decision=(?P<decision>[a-z-]+)"
    r"(?: refused=(?P<refused>[a-z0-9,-]+))?(?: warned=(?P<warned>[a-z0-9,-]+))?(?:: (?P<why>.*))?"
)


def read_decision(line: str, time: float) -> Decision | None:
    """A line that :mod:`vgicmgr.hook` has logged; None for another one."""
    found = _DECISION.fullmatch(line)
    if not found or not line.isprintable():
        return None
    names = ",".join(filter(None, (found["refused"], found["warned"])))
    findings = tuple(names.split(",")) if names else ()
    return Decision(time, found["guest"], found["operation"], found["decision"], findings, found["why"] or "")


def read_journal_entry(entry: bytes) -> Decision | None:
    """One of ``journalctl -o json``; None for what is no decision of the hook's."""
    try:
        fields = json.loads(entry)
        message, microseconds = fields["MESSAGE"], int(fields["__REALTIME_TIMESTAMP"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return read_decision(message, microseconds / 1e6) if isinstance(message, str) else None


_SAID = re.compile(r"\S+ (qemu[\w.-]*: .+)")
_MOST_LINES = 3


def last_words(log: str) -> str:
    """What QEMU complained of since its last start, in the log that libvirt keeps of a guest; may be empty."""
    since = log.rpartition(": starting up ")[2].split("\n")
    said = [found[1] for line in since if (found := _SAID.fullmatch(line)) and ": warning: " not in line]
    words = [line for line in said if "terminating on signal" not in line]
    return "; ".join(words[:_MOST_LINES])
