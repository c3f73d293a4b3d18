"""``vgicmgr check-restore``: which of the guests that lie saved would come back, before a host is upgraded."""

import os
import sys
from argparse import Namespace, _SubParsersAction
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from vgicmgr.cli.inputs import is_file, is_remote, open_host
from vgicmgr.errors import CannotTell, VgicmgrError

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from vgicmgr.domain.connection import Connection
    from vgicmgr.host.facts import HostFacts
    from vgicmgr.migration.restore import SavedGuest

T = TypeVar("T")

DESCRIPTION = """\
Find the guests that lie saved with their memory (managed saves, memory snapshots, saved
images by their path) and tell which of them this host's kernel and QEMU would bring back,
or those of a host capabilities document. Each is judged by the ABI record in it, as an
arriving guest is. Exits 0 when all come back, 1 when one does not, 2 when that of one
cannot be told, or nothing could be asked.
"""
EXAMPLE = """\
example, before this host gets the kernel and QEMU that h2 has already:
  h2# vgicmgr check-host --format json > h2.json
  h1# vgicmgr check-restore --host h2.json
"""


def add_parser(commands: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    from argparse import RawDescriptionHelpFormatter

    parser = commands.add_parser(
        "check-restore",
        help="tell which saved guests would come back",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "saved",
        nargs="*",
        metavar="DOMAIN|FILE",
        help="what a domain has saved, or a saved image (with a '/', or by --file); default: all domains'",
    )
    parser.add_argument("--file", action="store_true", help="all names are files, whatever they are called")
    parser.add_argument(
        "-c", "--connect", metavar="URI", default="qemu:///system", help="libvirt's (default: %(default)s)"
    )
    parser.add_argument(
        "--host",
        metavar="FILE",
        help="judge for the host that wrote this ('vgicmgr check-host --format json'), not for this one",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: a document with a schema")
    parser.add_argument("-v", "--verbose", action="store_true", help="show all findings, with what to do")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing, only exit")
    parser.set_defaults(run=run, suffixes=())


def run(options: Namespace) -> int:
    """Find, judge and print; raises :class:`~vgicmgr.errors.VgicmgrError`."""
    from vgicmgr.migration.restore import all_come_back, check_restore, render, to_document

    with _host(options) as host:
        outlooks = tuple(check_restore(saved, host) for saved in _saved_guests(options))
        if options.quiet:
            pass
        elif options.format == "json":
            import json

            print(json.dumps(to_document(outlooks, host), indent=2))
        else:
            sys.stdout.writelines(f"{line}\n" for line in render(outlooks, host, verbose=options.verbose))
    return {True: 0, False: 1, None: 2}[all_come_back(outlooks)]


@contextmanager
def _host(options: Namespace) -> "Iterator[HostFacts]":
    """The host that is judged for: of a document, or this one, once for all."""
    if options.host is not None:
        with open_host(options.host) as host:
            yield host
        return
    if is_remote(options.connect):
        raise CannotTell(
            "the guests lie on another host, whose kernel cannot be asked from here", "give its document: --host FILE"
        )
    architecture = os.uname().machine
    if architecture != "aarch64":
        raise CannotTell(f"this host is {architecture}, where no arm64 guest comes back", "name another: --host FILE")
    from vgicmgr.host.kernel import Kernel

    with Kernel() as kernel:
        yield kernel


def _saved_guests(options: Namespace) -> "Iterator[SavedGuest]":
    """What is asked for, in order: by name, or all that domains have."""
    from vgicmgr.domain.connection import connect

    # libvirt opens a file for those alone who may do everything
    files = any(is_file(name, options) for name in options.saved)
    with connect(options.connect, read_only=not files) as connection:
        for name in options.saved:
            yield from [_image(connection, name)] if is_file(name, options) else _of_domain(connection, name)
        if not options.saved:
            for name in connection.domain_names():
                yield from _of_some_domain(connection, name)


def _of_some_domain(connection: "Connection", name: str) -> "list[SavedGuest]":
    """What a domain has that was there a moment ago; one that is gone has nothing."""
    from vgicmgr.domain.connection import LibvirtError

    try:
        return list(_of_domain(connection, name))
    except LibvirtError:
        if name in connection.domain_names():
            raise
        return []


def _of_domain(connection: "Connection", name: str) -> "Iterator[SavedGuest]":
    """The managed save of a domain and its memory snapshots."""
    from vgicmgr.domain.xml import read_domain
    from vgicmgr.migration.restore import ImageKind, SavedGuest

    if connection.has_managed_save(name):
        domain, unreadable = _read(lambda: read_domain(connection.managed_save_xml(name)))
        named = domain.name if domain else name
        yield SavedGuest(named, ImageKind.MANAGED_SAVE, domain=domain, unreadable=unreadable)
    for snapshot in connection.snapshot_names(name):
        yield from _of_snapshot(connection, name, snapshot)


def _of_snapshot(connection: "Connection", name: str, snapshot: str) -> "Iterator[SavedGuest]":
    """Nothing where it is one of disks alone."""
    from vgicmgr.domain.xml import read_snapshot
    from vgicmgr.migration.restore import ImageKind, SavedGuest

    found, unreadable = _read(lambda: read_snapshot(connection.snapshot_xml(name, snapshot)))
    if found is None:
        yield SavedGuest(name, ImageKind.SNAPSHOT, snapshot=snapshot, unreadable=unreadable)
    elif domain := found.domain:
        yield SavedGuest(domain.name, ImageKind.SNAPSHOT, snapshot=snapshot, memory=found.memory, domain=domain)


def _image(connection: "Connection", path: str) -> "SavedGuest":
    from vgicmgr.domain.xml import read_domain
    from vgicmgr.migration.restore import ImageKind, SavedGuest

    domain, unreadable = _read(lambda: read_domain(connection.saved_image_xml(path)))
    return SavedGuest(
        domain.name if domain else "", ImageKind.SAVED_IMAGE, path=path, domain=domain, unreadable=unreadable
    )


def _read(read: "Callable[[], T]") -> "tuple[T | None, str]":
    """What is read, or why it cannot be: one that is damaged is no reason to say nothing of the others."""
    try:
        return read(), ""
    except VgicmgrError as error:
        return None, str(error)
