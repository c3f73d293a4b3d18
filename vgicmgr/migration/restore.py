"""Guests that lie saved with their memory, and which of them come back on a host. Pure, and its schema beside it.

They come back by the same way as a guest that arrives: QEMU is started and given the state (libvirt,
qemuProcessStartWithMemoryState), so that :func:`~vgicmgr.migration.arrival.check_arrival` judges each. libvirt's hook
is asked for managed saves and images of a file (``restore``), and for a snapshot not before the guest that runs is
gone, and then as for any start (qemuSnapshotRevertActive).
"""

from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgicmgr.dataclass import dataclass
from vgicmgr.domain.domain import Domain
from vgicmgr.errors import VgicmgrError
from vgicmgr.findings import Finding, Severity, Verdict
from vgicmgr.guest.map import printable
from vgicmgr.migration.arrival import check_arrival

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts

KIND = "vgicmgr restore check"
VERSION = 1
"""Raised when a reader of the former version would misread a document; members may be added without."""

SCHEMA = Path(__file__).with_name("restore.schema.json")

_OF_LIVE_MOVES = frozenset(("post-copy-page-size",))
"""Findings about what no saved guest does."""


class ImageKind(Enum):
    """How a guest is saved."""

    MANAGED_SAVE = "managed-save"
    SAVED_IMAGE = "saved-image"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True)
class SavedGuest:
    """A guest as it lies saved.

    ``name`` is the domain's, empty where a file does not even tell that; ``snapshot`` a snapshot's, ``memory`` where
    its memory is (internal, external), ``path`` a file's. ``domain`` is None where the domain XML in it cannot be read,
    and ``unreadable`` says why.
    """

    name: str
    kind: ImageKind
    snapshot: str = ""
    memory: str = ""
    path: str = ""
    domain: Domain | None = None
    unreadable: str = ""

    def __str__(self) -> str:
        where = f" {self.path}" if self.path else f" '{self.snapshot}'" if self.snapshot else ""
        return f"{self.memory} {self.kind.value.replace('-', ' ')}{where}".lstrip()


@dataclass(frozen=True)
class Outlook:
    """Whether a saved guest comes back: ``verdict`` is None where that cannot be told.

    ``why`` says why not, or why there was nothing to judge.
    """

    saved: SavedGuest
    verdict: Verdict | None = None
    why: str = ""

    @property
    def ok(self) -> bool | None:
        """Yes, no, or None."""
        return None if self.verdict is None else self.verdict.ok

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, the worst first."""
        found = self.verdict.findings if self.verdict else ()
        return tuple(sorted(found, key=lambda finding: list(Severity).index(finding.severity)))


def check_restore(saved: SavedGuest, host: "HostFacts") -> Outlook:
    """Whether it comes back on ``host``; where the host cannot be asked, that is not known of this one."""
    if saved.domain is None:
        return Outlook(saved, why=saved.unreadable)
    if not saved.domain.needs_gic:
        return Outlook(saved, Verdict(), why="it is no arm64 KVM guest, and there is nothing to judge")
    try:
        verdict = check_arrival(saved.domain, host)
    except VgicmgrError as error:
        return Outlook(saved, why=str(error))
    return Outlook(saved, Verdict(tuple(found for found in verdict.findings if found.name not in _OF_LIVE_MOVES)))


def all_come_back(outlooks: Iterable[Outlook]) -> bool | None:
    """Whether all do: one that does not is enough for a no; None where some cannot be told."""
    answers = {outlook.ok for outlook in outlooks}
    return False if False in answers else None if None in answers else True


def render(outlooks: "tuple[Outlook, ...]", host: "HostFacts", *, verbose: bool = False) -> Iterator[str]:
    """Lines of text: one for each saved guest, with ``verbose`` all findings below it, and the result."""
    cells = [(printable(one.saved.name or "-"), printable(str(one.saved)), _ANSWERS[one.ok]) for one in outlooks]
    widths = [max((len(row[column]) for row in cells), default=0) for column in range(3)]
    for outlook, row in zip(outlooks, cells, strict=True):
        columns = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)]
        yield "  ".join((*columns, "" if verbose and outlook.findings else _first(outlook))).rstrip()
        for finding in outlook.findings if verbose else ():
            yield f"  {finding.severity.value}: {printable(str(finding))}"
    yield _result(outlooks, host)


_ANSWERS = {True: "comes back", False: "does not", None: "not known"}


def _first(outlook: Outlook) -> str:
    if not outlook.findings:
        return printable(outlook.why)
    finding = outlook.findings[0]
    return printable(f"{finding.evidence} [{finding.name}]")


def _result(outlooks: "tuple[Outlook, ...]", host: "HostFacts") -> str:
    if not outlooks:
        return "no guest lies saved with its memory"
    ok = all_come_back(outlooks)
    number = sum(outlook.ok is ok for outlook in outlooks)
    guests = f"{number} of {len(outlooks)} saved guest{'' if len(outlooks) == 1 else 's'}"
    start = {True: guests, False: guests, None: f"it cannot be told whether {guests}"}[ok]
    result = f"{start} would {'not ' if ok is False else ''}come back under Linux {host.kernel}"
    by_xml = sum(any(found.name in _BY_XML_ALONE for found in outlook.findings) for outlook in outlooks)
    return f"{result}, {by_xml} of them judged by its XML alone" if ok and by_xml else result


_BY_XML_ALONE = ("missing-record", "record-of-another-boot")


def to_document(outlooks: "tuple[Outlook, ...]", host: "HostFacts") -> dict[str, Any]:
    """The document, ready for :func:`json.dumps`."""
    return {
        "document": KIND,
        "version": VERSION,
        "host": host.name,
        "kernel": host.kernel,
        "ok": all_come_back(outlooks),
        "saved": [_member(outlook) for outlook in outlooks],
    }


def _member(outlook: Outlook) -> dict[str, Any]:
    saved = outlook.saved
    return {
        "domain": saved.name or None,
        "uuid": (saved.domain.uuid if saved.domain else "") or None,
        "kind": saved.kind.value,
        "snapshot": saved.snapshot or None,
        "memory": saved.memory or None,
        "path": saved.path or None,
        "ok": outlook.ok,
        "why": outlook.why or None,
        "findings": [finding.as_document() for finding in outlook.findings],
    }
