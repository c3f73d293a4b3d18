"""The catalogue of findings, and that nothing else can be found."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from vgicmgr.dataclass import replace
from vgicmgr.findings import CATALOGUE, FORMER, Finding, Severity, Stage, Verdict, finding, near_match

ROOT = Path(__file__).parents[2]


def generator() -> ModuleType:
    """The program that writes the catalogue into other files."""
    spec = importlib.util.spec_from_file_location("packaging_findings", ROOT / "packaging/findings.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestCatalogue:
    """Its entries."""

    def test_names_are_such_as_a_policy_can_have(self) -> None:
        for name, entry in CATALOGUE.items():
            assert name == entry.name
            assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name)

    def test_a_name_stands_for_one_finding(self) -> None:
        names = [name for entry in CATALOGUE.values() for name in (entry.name, *entry.former)]
        assert len(names) == len(set(names))
        assert FORMER.keys().isdisjoint(CATALOGUE)

    def test_meanings_are_told_in_one_line(self) -> None:
        for entry in CATALOGUE.values():
            assert entry.meaning.isprintable(), entry.name
            assert 20 <= len(entry.meaning) <= 110, entry.name
            assert not entry.meaning.endswith("."), entry.name

    def test_each_is_reported_somewhere(self) -> None:
        assert all(entry.stages for entry in CATALOGUE.values())

    def test_it_cannot_be_changed(self) -> None:
        with pytest.raises(TypeError):
            CATALOGUE["another"] = CATALOGUE["its"]  # type: ignore[index]

    def test_no_code_names_a_finding_that_is_not_there(self) -> None:
        """It could not be made, which would show only where it is first needed."""
        named = {}
        for path in (ROOT / "vgicmgr").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                    match node.args[0]:
                        case ast.Constant(value=str(name)) if node.func.id in ("Finding", "finding"):
                            named[name] = f"{path}:{node.lineno}"
        assert named
        assert {name: where for name, where in named.items() if name not in CATALOGUE} == {}


class TestFinding:
    """What is made of an entry."""

    def test_severity_is_the_catalogues(self) -> None:
        assert finding("its", "why", "what to do") == Finding("its", Severity.ERROR, "why", "what to do")
        assert finding("gits-typer", "why").severity is Severity.WARNING

    def test_severity_by_circumstance(self) -> None:
        assert finding("its", "why", severity=Severity.NOTE) == Finding("its", Severity.NOTE, "why")

    def test_an_unknown_name_cannot_be_raised(self) -> None:
        with pytest.raises(ValueError, match="no finding is called 'it'"):
            Finding("it", Severity.ERROR, "why")
        with pytest.raises(ValueError, match="no finding is called 'it'"):
            finding("it", "why")
        with pytest.raises(ValueError, match="no finding is called 'it'"):
            replace(finding("its", "why"), name="it")

    def test_text_and_document(self) -> None:
        found = finding("its", "no ITS here", "use another host")
        assert str(found) == "no ITS here [its]; use another host"
        assert str(replace(found, remedy="")) == "no ITS here [its]"
        assert found.as_document() == {
            "name": "its",
            "severity": "error",
            "evidence": "no ITS here",
            "remedy": "use another host",
        }

    def test_a_verdict_is_a_no_by_errors_alone(self) -> None:
        assert Verdict((finding("gits-typer", "why"),)).ok
        assert not Verdict((finding("gits-typer", "why"), finding("its", "why"))).ok


@pytest.mark.parametrize(
    ("name", "meant"), [("gits-typr", "gits-typer"), ("pmu_missing", "pmu-missing"), ("", ""), ("x" * 10**6, "")]
)
def test_near_match(name: str, meant: str) -> None:
    assert near_match(name) == meant


class TestFiles:
    """What is written of the catalogue: ``python3 packaging/findings.py`` brings it up to date."""

    @pytest.mark.parametrize("name", ["packaging/vgicmgr.conf", "packaging/vgicmgr.1", "docs/FINDINGS.md"])
    def test_they_are_up_to_date(self, name: str) -> None:
        text = (ROOT / name).read_text()
        assert generator().FILES[name](text) == text

    def test_the_policy_file_shows_what_can_be_found_at_a_start_or_an_arrival(self) -> None:
        shown = re.findall(r"^#([a-z0-9-]+) = ", (ROOT / "packaging/vgicmgr.conf").read_text(), re.MULTILINE)
        decided = {name for name, entry in CATALOGUE.items() if {Stage.START, Stage.ARRIVAL} & set(entry.stages)}
        assert sorted(shown) == sorted(decided)

    def test_the_others_show_every_finding(self) -> None:
        manual = (ROOT / "packaging/vgicmgr.1").read_text().replace("\\-", "-")
        assert sorted(re.findall(r"^\.B (\S+) \\fR\(", manual, re.MULTILINE)) == sorted(CATALOGUE)
        assert re.findall(r"^\| `(\S+)` ", (ROOT / "docs/FINDINGS.md").read_text(), re.MULTILINE) == [*CATALOGUE]

    def test_what_is_around_the_findings_stays(self) -> None:
        manual = "before\n.SH FINDINGS\nold\n.SH EXIT STATUS\nafter\n"
        made = generator().manual_page(manual)
        assert made.startswith("before\n.SH FINDINGS\n")
        assert made.endswith("\n.SH EXIT STATUS\nafter\n")
        assert "\nold\n" not in made
        assert generator().manual_page(made) == made
