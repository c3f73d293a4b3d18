"""What all commands do alike: exit statuses, and a fault in one line."""

import sys
from argparse import Namespace
from collections.abc import Callable

import pytest

import vgicmgr
from tests.fakes.hosts import NO_GIC
from tests.fakes.kernel import FakeKernel, install, pretend_arm64
from vgicmgr import cli
from vgicmgr.cli import explain, main
from vgicmgr.errors import CannotTell

Output = pytest.CaptureFixture[str]


def fail(error: BaseException) -> Callable[[Namespace], int]:
    """A command that ends so."""

    def run(_options: Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    "error", [ValueError("s3cr3t"), RecursionError(), MemoryError(), KeyError("s3cr3t"), OSError(28)]
)
def test_a_fault_is_one_line_and_never_a_no(error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    """1 means no: a script that asks before it drains a host must not take a crash for a verdict."""
    monkeypatch.setattr(explain, "run", fail(error))
    assert main(["explain"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"vgicmgr: vgicmgr itself failed ({type(error).__name__} in ")
    assert captured.err.count("\n") == 1
    assert "s3cr3t" not in captured.err


def test_the_place_of_a_fault(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr(explain, "run", fail(ValueError()))
    main(["explain"])
    assert f"(ValueError in {__name__} line " in capsys.readouterr().err


def test_its_traceback_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("VGICMGR_TRACEBACK", "1")
    monkeypatch.setattr(explain, "run", fail(ValueError("for those who look for it")))
    assert main(["explain"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last):\n")
    assert "ValueError: for those who look for it\nvgicmgr: vgicmgr itself failed (ValueError in " in said


def test_a_fault_before_the_command_line_is_read(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    """As of a package that is being replaced."""

    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(cli, "import_module", missing)
    assert main(["explain"]) == 2
    assert capsys.readouterr().err.startswith("vgicmgr: vgicmgr itself failed (ImportError in ")


def test_what_cannot_be_told_has_its_remedy(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr(explain, "run", fail(CannotTell("nobody answers", "knock")))
    assert main(["explain"]) == 2
    assert capsys.readouterr().err == "vgicmgr: nobody answers (knock)\n"


def test_a_wrong_command_line(capsys: Output) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["explian"])
    assert caught.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "run", fail(KeyboardInterrupt()))
    assert main(["explain"]) == 130


def test_the_arguments_are_the_processs_own_where_none_are_given(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(sys, "argv", ["vgicmgr", "explain", "its"])
    assert main() == 0
    assert "its" in capsys.readouterr().out


def test_json_of_a_host_without_a_gic(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    """A host whose KVM makes no GIC has a document as well; it says no, and ends in no exception."""
    pretend_arm64(monkeypatch)
    install(monkeypatch, FakeKernel(NO_GIC))
    assert main(["check-host", "--format", "json", "--no-cache"]) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    assert '"name": "gic-missing"' in captured.out
    assert '"migration"' in captured.out


def test_the_version_is_the_librarys(capsys: Output) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"vgicmgr {vgicmgr.__version__}\n"
