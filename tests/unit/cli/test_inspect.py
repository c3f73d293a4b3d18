"""``vgicmgr inspect`` where there is nothing to ask; with a QEMU to ask, tests/lab/test_inspect.py."""

from pathlib import Path

import pytest

from vgicmgr.cli import main

GICV3 = Path(__file__).parents[3] / "xml" / "guest-gicv3.xml"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a running domain, or a monitor by --qmp SOCKET"),
        (["--qmp", "/nonexistent/qmp"], "monitor /nonexistent/qmp: there is no such socket"),
        (["--qmp", "/nonexistent/qmp", str(GICV3)], "monitor /nonexistent/qmp: there is no such socket"),
        (["--qmp", str(GICV3)], "that is no socket"),
        (["--qmp", "/nonexistent/qmp", "/nonexistent.xml"], "/nonexistent.xml: No such file or directory"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("vgicmgr: ")
    assert len(told.err.splitlines()) == 1
    assert words in told.err


def test_help_fits_a_screen_and_ends_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert lines[-1].startswith("  vgicmgr inspect ")
