"""What is written: a line for each thing that happens, or on a terminal a line for each guest. Pure but for `draw`."""

import time
from collections.abc import Sequence
from typing import TextIO

from vgicmgr.watch.guests import Guest, Line

_HEAD = ("GUEST", "SINCE", "GATE", "WHAT BECAME OF IT")
_NO_GATE = "-"
_WIDEST = 32
"""Of a column but the last."""


def line_of(line: Line) -> str:
    """One line, with its time in UTC."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(line.time))
    return f"{stamp} {line.guest}: {line.text}" if line.guest else f"{stamp} {line.text}"


def table(guests: Sequence[Guest], head: str, *, rows: int, columns: int) -> list[str]:
    """One line a guest under ``head``, in a terminal of this size; where there is too little room, the latest."""
    latest = guests[-max(rows - 3, 1) :]
    cells = [_HEAD, *((guest.name, _clock(guest.since), guest.gate or _NO_GATE, guest.outcome) for guest in latest)]
    widths = [min(max(len(row[column]) for row in cells), _WIDEST) for column in range(3)]
    lines = [head]
    for row in cells:
        left = "  ".join(_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=False))
        lines.append(f"{left}  {row[3]}".rstrip())
    return [_cut(line, columns - 1) for line in lines]


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%SZ", time.gmtime(seconds))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


class Screen:
    """A terminal on which lines are written over those of the last time, with ANSI's plainest."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._drawn = stream, 0

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines in place of the last ones."""
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._stream.write(up + "".join(f"\r\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._drawn = len(lines)
