"""``vgicmgr explain``: what the names of findings mean."""

from argparse import Namespace, _SubParsersAction
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from vgicmgr.errors import VgicmgrError
from vgicmgr.findings import CATALOGUE, FORMER, Entry, near_match
from vgicmgr.policy import FINDINGS, POLICY_FILE

if TYPE_CHECKING:
    from argparse import ArgumentParser

KIND = "vgicmgr findings"
VERSION = 1
"""Raised when a reader of the former version would misread a document; members may be added without."""


def add_parser(commands: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "explain",
        help="tell what a finding's name means",
        description="Tell what a finding means, by the name that stands in brackets in each message, how bad it is and "
        "where it is reported. Without a name all findings are listed. Exits 0, or 2 when there is no finding of that "
        "name.",
    )
    parser.add_argument("name", nargs="*", metavar="NAME", help="of a finding: gic-version-unsupported")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: a document for programs")
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Look up and print; raises :class:`~vgicmgr.errors.VgicmgrError` for an unknown name."""
    entries = [_entry(name) for name in options.name]
    if options.format == "json":
        import json

        print(json.dumps(to_document(entries or tuple(CATALOGUE.values())), indent=2))
    elif entries:
        print("\n\n".join("\n".join(_explained(entry)) for entry in entries))
    else:
        print("\n".join(_listed()))
    return 0


def to_document(entries: Sequence[Entry]) -> dict[str, Any]:
    """The entries, ready for :func:`json.dumps`."""
    return {
        "document": KIND,
        "version": VERSION,
        "findings": [
            {
                "name": entry.name,
                "severity": entry.severity.value,
                "stages": [stage.value for stage in entry.stages],
                "meaning": entry.meaning,
                "former": list(entry.former),
            }
            for entry in entries
        ],
    }


def _entry(name: str) -> Entry:
    entry = CATALOGUE.get(FORMER.get(name, name))
    if entry is None:
        near = near_match(name)
        raise VgicmgrError(
            f"no finding is called {name[:100]!r}",
            f"did you mean '{near}'?" if near else "'vgicmgr explain' lists all findings",
        )
    return entry


def _explained(entry: Entry) -> Iterator[str]:
    yield f"{entry.name}: {entry.meaning}"
    yield f"  severity     {entry.severity.value}, unless the message says otherwise"
    yield f"  reported at  {', '.join(stage.value for stage in entry.stages)}"
    if entry.former:
        yield f"  formerly     {', '.join(entry.former)}"
    if entry.name in FINDINGS:
        yield f"  policy       {entry.name} = enforce, warn or off under [findings] in {POLICY_FILE}"


def _listed() -> Iterator[str]:
    name_width = max(map(len, CATALOGUE))
    for entry in CATALOGUE.values():
        yield f"{entry.name:{name_width}}  {entry.severity.value:7}  {entry.meaning}"
