"""Lines with time stamps, and the table that a terminal shows."""

import io
import re

from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.watch.guests import Guest, Line, State
from vgicmgr.watch.view import Screen, line_of, table

NOON = 1795262400.0  # date -u -d 2026-11-21T12:00:00Z +%s
WEB = Guest("web1", State.HERE, NOON, "passed", "runs (booted)")
DB = Guest("db", State.GONE, NOON + 61, "refused: register-value", "refused")
OLD = Guest("old", State.HERE, NOON, "", "runs")


def test_a_line_has_its_time_in_utc() -> None:
    assert line_of(Line(NOON, "web1", "runs")) == "2026-11-21T12:00:00Z web1: runs"
    assert line_of(Line(NOON + 0.9, "", "libvirt is gone")) == "2026-11-21T12:00:00Z libvirt is gone"


def test_the_table_has_a_line_for_each_guest() -> None:
    assert table([OLD, WEB, DB], "qemu:///system", rows=24, columns=80) == [
        "qemu:///system",
        "GUEST  SINCE      GATE                     WHAT BECAME OF IT",
        "old    12:00:00Z  -                        runs",
        "web1   12:00:00Z  passed                   runs (booted)",
        "db     12:01:01Z  refused: register-value  refused",
    ]


def test_where_there_is_too_little_room_the_latest_are_shown() -> None:
    lines = table([OLD, WEB, DB], "head", rows=4, columns=80)
    assert len(lines) == 3
    assert lines[-1].startswith("db ")


texts = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=60)
guests = st.lists(st.builds(Guest, texts, st.just(State.HERE), st.floats(0, 2e9), texts, texts), max_size=12)


@given(guests, texts, st.integers(1, 40), st.integers(1, 120))
def test_no_line_is_wider_than_the_terminal_and_no_table_higher(
    shown: list[Guest], head: str, rows: int, columns: int
) -> None:
    lines = table(shown, head, rows=rows, columns=columns)
    assert all(len(line) < columns for line in lines) or columns == 1
    assert len(lines) <= max(rows - 1, 3)


def screen_after(text: str, rows: int = 10) -> list[str]:
    """What stands on a terminal after this text: of ANSI's codes, those that are used here (ECMA-48: CUU, EL, ED)."""
    lines, row = [""] * rows, 0
    for number, code, written in re.findall(r"\x1b\[(\d*)([A-Z])|([^\x1b])", text):
        match code or written:
            case "A":
                row -= int(number)
            case "K":
                lines[row] = ""
            case "J":
                lines[row:] = [""] * (rows - row)
            case "\n":
                row += 1
            case "\r":
                pass
            case character:
                lines[row] += character
    return [line for line in lines if line]


def test_what_is_drawn_stands_in_place_of_what_was() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.draw(["head", "a long line", "second"])
    screen.draw(["head", "short", "second", "third"])
    assert screen_after(stream.getvalue()) == ["head", "short", "second", "third"]
    screen.draw(["head", "alone"])
    assert screen_after(stream.getvalue()) == ["head", "alone"]
