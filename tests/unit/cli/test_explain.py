"""``vgicmgr explain``."""

import json

import pytest

from vgicmgr.cli import main
from vgicmgr.findings import CATALOGUE

Output = pytest.CaptureFixture[str]


def test_a_finding(capsys: Output) -> None:
    assert main(["explain", "gits-typer"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"gits-typer: {CATALOGUE['gits-typer'].meaning}\n")
    assert "severity     warning" in out
    assert "reported at  arrival" in out
    assert "gits-typer = enforce, warn or off under [findings] in /etc/vgicmgr/vgicmgr.conf" in out


def test_a_finding_that_no_policy_decides_about(capsys: Output) -> None:
    assert main(["explain", "its-save"]) == 0
    assert "policy" not in capsys.readouterr().out


def test_all_findings(capsys: Output) -> None:
    assert main(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*CATALOGUE]
    assert all(line.endswith(CATALOGUE[line.split()[0]].meaning) for line in lines)


def test_several(capsys: Output) -> None:
    assert main(["explain", "its", "its-save"]) == 0
    assert [text.partition(":")[0] for text in capsys.readouterr().out.split("\n\n")] == ["its", "its-save"]


def test_for_programs(capsys: Output) -> None:
    assert main(["explain", "--format", "json", "unsafe-interrupts"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "document": "vgicmgr findings",
        "version": 1,
        "findings": [
            {
                "name": "unsafe-interrupts",
                "severity": "warning",
                "stages": ["lsvfio", "translate", "start"],
                "meaning": CATALOGUE["unsafe-interrupts"].meaning,
                "former": [],
            }
        ],
    }
    assert main(["explain", "--format=json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["findings"]] == [*CATALOGUE]


def test_a_former_name(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr("vgicmgr.cli.explain.FORMER", {"many-vcpus": "vcpu-count"})
    assert main(["explain", "many-vcpus"]) == 0
    assert capsys.readouterr().out.startswith("vcpu-count: ")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gits-typr", "no finding is called 'gits-typr' (did you mean 'gits-typer'?)"),
        ("zzz", "no finding is called 'zzz' ('vgicmgr explain' lists all findings)"),
        ("\x1b[31m", "no finding is called '\\x1b[31m' ('vgicmgr explain' lists all findings)"),
    ],
)
def test_an_unknown_name(capsys: Output, name: str, said: str) -> None:
    assert main(["explain", "its", name]) == 2
    assert capsys.readouterr() == ("", f"vgicmgr: {said}\n")
