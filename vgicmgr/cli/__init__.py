"""The command line: parse, call, print, exit. One module for each command."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib import import_module

from vgicmgr.errors import VgicmgrError, fault
from vgicmgr.version import __version__

COMMANDS = (
    "check-host",
    "translate",
    "rehearse",
    "apply",
    "inspect",
    "hook",
    "record",
    "check-migration",
    "check-restore",
    "lsvfio",
    "watch",
    "explain",
)
"""In the order of ``vgicmgr --help``; the module of each has its name."""

TRACEBACK = "VGICMGR_TRACEBACK"
"""The environment variable that has the traceback of a fault shown."""

EXIT_STATUS = """\
exit status:
  0  yes, or done
  1  no: something is missing, or it will not work
  2  the question could not be answered, or the command line is wrong
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``vgicmgr`` with these arguments (default: those of the process) and return its exit status.

    A fault of this program is one line and status 2, never 1, which means no; :data:`TRACEBACK` shows where it is from.
    """
    options = Namespace(quiet=False)
    try:
        _parser(sys.argv[1:] if arguments is None else arguments).parse_args(arguments, options)
        status: int = options.run(options)
        sys.stdout.flush()
    except VgicmgrError as error:
        why = str(error)
    except BrokenPipeError:  # the reader has seen enough ('vgicmgr check-host | head')
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get(TRACEBACK):
            from traceback import print_exc

            print_exc()
        why = fault(error)
    else:
        return status
    if not options.quiet:
        print(f"vgicmgr: {why}", file=sys.stderr)
    return 2


def _parser(words: Sequence[str]) -> ArgumentParser:
    """The parser for a command line of these words."""
    from argparse import RawDescriptionHelpFormatter

    parser = ArgumentParser(
        prog="vgicmgr",
        description="Judge, before it costs anything, whether an arm64 KVM guest can start or migrate here.",
        epilog=EXIT_STATUS,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vgicmgr {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    # a command imports its own module alone
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        import_module(f"vgicmgr.cli.{name.replace('-', '_')}").add_parser(commands)
    return parser
