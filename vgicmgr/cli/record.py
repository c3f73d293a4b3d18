"""``vgicmgr record``: a running guest's ABI record, shown, written or held against this host."""

import sys
from argparse import Namespace, _SubParsersAction
from typing import TYPE_CHECKING

from vgicmgr.errors import CannotTell

if TYPE_CHECKING:
    from argparse import ArgumentParser


def add_parser(commands: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its verbs."""
    parser = commands.add_parser(
        "record",
        help="show, write or verify a running guest's ABI record",
        description="The ABI record in a running guest's <metadata>: what it was booted with and has seen since, by "
        "which it is judged whether it can migrate. Exits 0 when it is done, or when the guest could arrive here as it "
        "is; 1 when it could not; 2 when there is no record or it cannot be read.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for run_verb, words in (
        (show, "print the record"),
        (write, "write it, unless the guest has one or was not booted on this host"),
        (verify, "tell whether a guest with this record could arrive on this host"),
    ):
        verb = verbs.add_parser(run_verb.__name__, help=words, description=f"{words[:1].upper()}{words[1:]}.")
        verb.add_argument("domain", metavar="DOMAIN", help="a running domain's name or UUID")
        verb.add_argument("--connect", metavar="URI", default="qemu:///system", help="libvirt's (default: %(default)s)")
        if run_verb is show:
            verb.add_argument("--format", choices=("text", "json"), default="text")
        if run_verb is write:
            verb.add_argument("--force", action="store_true", help="as if the guest had been booted on this host")
            verb.add_argument(
                "--retry",
                action="store_true",
                help="try again while libvirt is busy; one that no longer runs is no failure",
            )
        verb.set_defaults(run=run, verb=run_verb)


def run(options: Namespace) -> int:
    """Carry out the verb; raises :class:`~vgicmgr.errors.VgicmgrError`."""
    exit_status: int = options.verb(options)
    return exit_status


def show(options: Namespace) -> int:
    """Print the record."""
    from vgicmgr.domain.connection import connect
    from vgicmgr.domain.xml import read_domain
    from vgicmgr.migration.document import render, to_document
    from vgicmgr.migration.record import boot_record

    with connect(options.connect) as connection:
        record = boot_record(read_domain(connection.running_xml(options.domain)))
    if record is None:
        raise _no_record()
    if options.format == "json":
        import json

        print(json.dumps(to_document(record), indent=2))
    else:
        sys.stdout.write(render(record))
    return 0


def write(options: Namespace) -> int:
    """Write the record."""
    from vgicmgr.domain.connection import connect
    from vgicmgr.migration.writer import write_record, write_when_free

    if options.retry:
        done = write_when_free(options.domain, options.connect)
    else:
        with connect(options.connect, read_only=False) as connection:
            done = write_record(connection, options.domain, force=options.force)
    print(f"{options.domain}: {_DONE[done]}")
    return 0


_DONE = {
    "written": "record written",
    "moved": "keeps the record of its boot; this host's registers noted beside it",
    "kept": "has its record already",
    "gone": "no longer runs",
    "not-needed": "is no arm64 KVM guest",
    "unknown-origin": "has no record, and may have been booted on another host: not written (--force)",
}


def verify(options: Namespace) -> int:
    """Judge an arrival on this host, as the hook does."""
    from vgicmgr.domain.connection import connect
    from vgicmgr.domain.xml import read_domain
    from vgicmgr.migration.arrival import judge_incoming
    from vgicmgr.migration.record import boot_record

    with connect(options.connect) as connection:
        domain = read_domain(connection.running_xml(options.domain))
    if boot_record(domain) is None:
        raise _no_record()
    verdict = judge_incoming(domain)
    for finding in verdict.findings:
        print(f"{finding.severity.value}: {finding}")
    print(f"{options.domain}: {'could' if verdict.ok else 'could not'} arrive on this host")
    return 0 if verdict.ok else 1


def _no_record() -> CannotTell:
    return CannotTell("the domain has no ABI record", "write it: vgicmgr record write DOMAIN")
