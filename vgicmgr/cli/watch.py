"""``vgicmgr watch``: what the gate decides on guests, and what becomes of them, as it happens."""

import os
import shutil
import signal
import sys
import time
from argparse import Namespace, _SubParsersAction
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator

    from vgicmgr.watch.events import Event
    from vgicmgr.watch.guests import Guests
    from vgicmgr.watch.sources import Events, Libvirt

LOOK_SECONDS = 1.0
GRACE_SECONDS = 3.0
"""How long after the gate has let it in a guest may be without trace: QEMU is being started."""


def add_parser(commands: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "watch",
        help="show what the gate decides on guests, and what becomes of them",
        description="Follow the guests of this host: what the hook decides when one starts or is about to arrive, and "
        "whether it then does. On a terminal one line a guest, kept up to date; else a line for each thing that "
        "happens. It waits for libvirt where that is restarted. Ended by SIGINT (Ctrl-C), it exits 0; 2 when libvirt "
        "cannot be reached at the start.",
    )
    parser.add_argument(
        "-c", "--connect", metavar="URI", default="qemu:///system", help="libvirt's (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Watch until a signal; raises :class:`~vgicmgr.errors.CannotTell`."""
    from queue import SimpleQueue

    from vgicmgr.watch.guests import Guests
    from vgicmgr.watch.sources import Libvirt, journal

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        events: Events = SimpleQueue()
        with journal(events) as has_journal:
            libvirt = Libvirt(options.connect, events)
            if not has_journal:
                print(f"vgicmgr: {_NO_JOURNAL}", file=sys.stderr)
            _show(Guests(), libvirt, events, terminal=sys.stdout.isatty() and os.environ.get("TERM") != "dumb")
    except KeyboardInterrupt:
        return 0


_NO_JOURNAL = "no journalctl here: what the hook refuses is not seen, and what it lets in is judged anew"


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _show(guests: "Guests", libvirt: "Libvirt", events: "Events", *, terminal: bool) -> NoReturn:
    from vgicmgr.watch.view import Screen, line_of, table

    screen = Screen(sys.stdout)
    while True:
        for event in _next(guests, libvirt, events):
            lines = list(guests.take(event))
            if terminal:
                size = shutil.get_terminal_size()
                head = f"{libvirt.uri}{'' if guests.connected else ': gone, waiting for it'}   (Ctrl-C ends)"
                screen.draw(table(guests.all, head, rows=size.lines, columns=size.columns))
            else:
                for line in lines:
                    print(line_of(line), flush=True)


def _next(guests: "Guests", libvirt: "Libvirt", events: "Events") -> "Iterator[Event]":
    """The next event, and what only looking tells: guests without a verdict, and those that silently failed."""
    from queue import Empty

    from vgicmgr.watch.events import Failed, Lifecycle
    from vgicmgr.watch.guests import FAILED
    from vgicmgr.watch.sources import rejudge

    try:
        event = events.get(timeout=LOOK_SECONDS)
    except Empty:
        for name in guests.awaited(time.time() - GRACE_SECONDS):
            if libvirt.active(name) is False:
                yield Failed(time.time(), name, libvirt.complaint(name))
        return
    if isinstance(event, Lifecycle):
        operation = guests.unjudged(event)
        if operation and (xml := libvirt.xml(event.guest)) and (decision := rejudge(event.guest, xml, operation)):
            yield decision
        if (event.event, event.detail) == FAILED:
            event = Failed(event.time, event.guest, libvirt.complaint(event.guest))
    yield event
