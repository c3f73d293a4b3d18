"""The command line: parse, call, print, exit. One module for each command."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import import_module

from vgicmgr.errors import VgicmgrError

COMMANDS = (
    "check-host",
    "translate",
    "rehearse",
    "apply",
    "inspect",
    "hook",
    "record",
    "check-migration",
    "lsvfio",
    "watch",
    "explain",
)
"""In the order of ``vgicmgr --help``; the module of each has its name."""

EXIT_STATUS = """\
exit status:
  0  yes, or done
  1  no: something is missing, or it will not work
  2  the question could not be answered, or the command line is wrong
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``vgicmgr`` with these arguments (default: those of the process) and return its exit status."""
    from argparse import RawDescriptionHelpFormatter

    parser = ArgumentParser(
        prog="vgicmgr",
        description="Judge, before it costs anything, whether an arm64 KVM guest can start or migrate here.",
        epilog=EXIT_STATUS,
        formatter_class=RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    words = sys.argv[1:] if arguments is None else arguments
    # a command imports its own module alone
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        import_module(f"vgicmgr.cli.{name.replace('-', '_')}").add_parser(commands)
    options = parser.parse_args(words)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except VgicmgrError as error:
        if not getattr(options, "quiet", False):
            print(f"vgicmgr: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has seen enough ('vgicmgr check-host | head')
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
    return status
