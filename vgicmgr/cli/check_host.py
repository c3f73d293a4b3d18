"""``vgicmgr check-host``: what this host's kernel can give a guest."""

import os
import sys
from argparse import Namespace, _SubParsersAction

from vgicmgr.dataclass import replace
from vgicmgr.host.judge import judge_host
from vgicmgr.host.probe import probe_host
from vgicmgr.host.qemu import ask_emulators

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import Any, TextIO


def add_parser(commands: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "check-host",
        help="report what this host's kernel can give a guest",
        description="Ask this host's kernel, on throw-away VMs, what interrupt controller, ITS, PMU and vCPU features "
        "it can give a guest, and the installed QEMUs what they make of it. Exits 0 when all that guests normally need "
        "is there, 1 when something is missing, 2 when the kernel could not be asked.",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: the host capabilities document"
    )
    parser.add_argument(
        "--no-cache", action="store_true", help="ask QEMU again, and not what it answered the last time"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing, only exit")
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Probe, judge and print; raises :class:`~vgicmgr.errors.CannotTell`."""
    capabilities = probe_host()
    capabilities = replace(capabilities, qemu=ask_emulators(capabilities, cached=not options.no_cache))
    verdict = judge_host(capabilities)
    if options.quiet:
        pass
    elif options.format == "json":
        import json

        from vgicmgr.host.document import to_document

        print(json.dumps({**to_document(capabilities, verdict), **_migration()}, indent=2))
    else:
        from vgicmgr.host.report import render

        sys.stdout.write(render(capabilities, verdict, colour=_wants_colour(sys.stdout)))
    return 0 if verdict.ok else 1


def _migration() -> "dict[str, Any]":
    """What an arrival here can be judged by from afar; nothing where the kernel makes no guest for it."""
    from vgicmgr.host.document import migration_member
    from vgicmgr.host.models import probe_models
    from vgicmgr.host.qemu import programs
    from vgicmgr.kvm.errors import KvmError

    try:
        return {"migration": migration_member(probe_models(), programs())}
    except KvmError:
        return {}


def _wants_colour(stream: "TextIO") -> bool:
    """On a terminal only, and not against https://no-color.org."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
