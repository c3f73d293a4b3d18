"""``vgicmgr apply``: bring our wishes into a persistent domain's definition, in libvirt's and QEMU's own words."""

import difflib
import os
import sys
from argparse import Namespace, _SubParsersAction
from pathlib import Path
from typing import TYPE_CHECKING

from vgicmgr.cli.inputs import add_host, translate
from vgicmgr.cli.translate import libvirt_xml
from vgicmgr.errors import VgicmgrError

if TYPE_CHECKING:
    from argparse import ArgumentParser

DESCRIPTION = """\
Translate a persistent domain and redefine it: what its <metadata> wishes is then said in
elements of libvirt and arguments of QEMU. Shows the difference, asks, and keeps the old
definition to go back to. A running guest is not touched: its next start is. Exits 0 when
done or nothing is to be done, 1 when something stands against the domain or the answer
was no, 2 when it could not be done.
"""
EXAMPLE = """\
example:
  vgicmgr apply web1 --dry-run
to go back:
  virsh define FILE, with the file that was named
"""


class ApplyError(VgicmgrError):
    """What was there cannot be kept, or nobody can be asked."""


def add_parser(commands: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    from argparse import RawDescriptionHelpFormatter

    parser = commands.add_parser(
        "apply",
        help="redefine a persistent domain as 'translate --format libvirt-xml' has it",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("domain", metavar="DOMAIN", help="name or UUID of a persistent domain")
    parser.add_argument("-c", "--connect", metavar="URI", default="", help="libvirt's connection")
    add_host(parser)
    parser.add_argument("--dry-run", action="store_true", help="show the difference, change nothing")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--backup",
        metavar="FOLDER",
        help="where the old definition is kept (default: /var/lib/vgicmgr/backup, without root ~/.local/state/vgicmgr)",
    )
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Read, translate, show, ask, keep, redefine; raises :class:`~vgicmgr.errors.VgicmgrError`."""
    from vgicmgr.domain.connection import connect

    with connect(options.connect, read_only=options.dry_run) as connection:
        old = connection.domain_xml(options.domain, persistent=True)
        options.default_qemu = connection.emulator_version()
        resolution = translate(old, options)
        for finding in resolution.findings:
            print(f"vgicmgr: {finding}", file=sys.stderr)
        if resolution.configuration is None:
            return 1
        new = libvirt_xml(resolution, old)
        if new == old:
            print(f"domain {resolution.domain.name}: nothing to change")
            return 0
        sys.stdout.write(difference(old, new, resolution.domain.name))
        if options.dry_run:
            return 0
        if not options.yes and not _asked(f"Redefine domain {resolution.domain.name}? [y/N] "):
            print("nothing changed")
            return 1
        if connection.domain_xml(options.domain, persistent=True) != old:
            raise ApplyError(
                f"domain {resolution.domain.name}: somebody else has changed the definition since it was read; nothing "
                "is redefined",
                "run it again",
            )
        kept = keep(old, resolution.domain.uuid or resolution.domain.name, backup_folder(options.backup))
        connection.define(new)
        print(f"domain {resolution.domain.name} redefined; the old definition is in {kept}")
        print(f"to go back: virsh define {kept}")
        return 0


def difference(old: bytes, new: bytes, name: str) -> str:
    """A unified difference of two definitions; what a changed line's neighbours hold is shown, too."""
    before, after = (text.decode().splitlines(keepends=True) for text in (old, new))
    shown = difflib.unified_diff(before, after, f"{name} as it is", f"{name} as it would be", n=2)
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in shown)


def backup_folder(wish: str | None) -> Path:
    """Where old definitions are kept."""
    if wish:
        return Path(wish)
    if os.geteuid() == 0:
        return Path("/var/lib/vgicmgr/backup")
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "vgicmgr"


def keep(xml: bytes, name: str, folder: Path) -> Path:
    """Write an old definition, which can hold passwords, for its owner alone; never over another.

    Raises :class:`ApplyError`.
    """
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:100].lstrip(".") or "domain"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(1, 10_000):
            path = folder / f"{stem}.{number}.xml"
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileExistsError:
                continue
            with os.fdopen(fd, "wb") as file:
                file.write(xml)
                file.flush()
                os.fsync(file.fileno())
            return path
    except OSError as error:
        raise ApplyError(f"the old definition cannot be kept in {folder}: {error.strerror}") from None
    raise ApplyError(f"the old definition cannot be kept: {folder} is full of them")


def _asked(question: str) -> bool:
    """The answer of whoever sits at the terminal; raises :class:`ApplyError` where nobody does."""
    if not sys.stdin.isatty():
        raise ApplyError("nobody can be asked whether to redefine the domain", "use --yes")
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False
