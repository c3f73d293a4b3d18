"""Imports between the package's parts are such as ARCHITECTURE.md says: downwards, and never in a circle."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACES = frozenset(("__init__", "__main__"))
"""Modules of the package itself, which stand above all parts."""


def modules() -> dict[str, Path]:
    """Each module's dotted name and file."""
    paths = (ROOT / "vgicmgr").rglob("*.py")
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported(source: str, package: str = "vgicmgr") -> Iterator[str]:
    """What ``source``, a module of ``package``, imports when it runs, late or not; of 'from' with the name's module."""
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Each module's imports of other modules of the package."""
    found = modules()
    edges = {}
    for name, path in found.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        targets = {
            one if one in found else one.rpartition(".")[0] for one in imported(path.read_text(), package)
        }  # 'vgicmgr.findings.Finding' is of the module 'vgicmgr.findings'
        edges[name] = targets & found.keys() - {name}
    return edges


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """The modules that import each other by whatever way (strongly connected ones), a list for each circle."""
    reach: dict[str, set[str]] = {}
    for start in edges:
        seen: set[str] = set()
        nodes = [start]
        while nodes:
            new = edges[nodes.pop()] - seen
            seen |= new
            nodes += new
        reach[start] = seen
    groups = {frozenset(other for other in reach[one] if one in reach[other]) for one in edges if one in reach[one]}
    return sorted(sorted(group) for group in groups)


def rooms(text: str) -> list[list[str]]:
    """The names in the rows of the table of parts, lowest first."""
    section = text.partition("\n## Parts, from the ground up\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`vgicmgr/[^|]*) \|", section, re.MULTILINE)
    return [re.findall(r"`(?:vgicmgr/)?(\w+)(?:\.py|/)`", cell) for cell in cells]


def room_of(module: str) -> str:
    """The part that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


ROOMS = rooms((ROOT / "ARCHITECTURE.md").read_text())


def test_the_table_has_each_part_once() -> None:
    parts = {room_of(name) for name in modules()} - FACES
    assert sorted(name for row in ROOMS for name in row) == sorted(parts)


def test_imports_point_down_the_table_only() -> None:
    levels = {name: level for level, row in enumerate(ROOMS) for name in row}
    upwards = [
        f"{name} imports {target}"
        for name, targets in graph().items()
        for target in sorted(targets)
        if room_of(name) not in FACES
        and levels.get(room_of(target), len(ROOMS)) > levels.get(room_of(name), len(ROOMS))
    ]
    assert upwards == []


def test_no_modules_import_each_other() -> None:
    assert circles(graph()) == []


class TestHowItIsTold:
    """That the above would tell what is wrong."""

    @pytest.mark.parametrize(
        ("source", "found"),
        [
            ("import vgicmgr.a.b", {"vgicmgr.a.b"}),
            ("from vgicmgr.a import b, c as d", {"vgicmgr.a.b", "vgicmgr.a.c"}),
            ("def f():\n    if x:\n        import vgicmgr.a", {"vgicmgr.a"}),
            ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
            ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", {"b"}),
            ("if not TYPE_CHECKING:\n    import a", {"a"}),
            ("from . import b\nfrom .c import d\nfrom ..e import f", {"vgicmgr.a.b", "vgicmgr.a.c.d", "vgicmgr.e.f"}),
        ],
    )
    def test_imports(self, source: str, found: set[str]) -> None:
        assert set(imported(source, "vgicmgr.a")) == found

    def test_circles(self) -> None:
        edges = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"f", "a"}, "f": {"e"}}
        assert circles(edges) == [["b", "c"], ["e", "f"]]
        assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []

    def test_rooms(self) -> None:
        text = (
            "# A\n\n## Parts, from the ground up\n\n| part | what |\n|---|---|\n| `vgicmgr/a.py`, `b.py` | x `c.py` |\n"
            "| `vgicmgr/d/` | y |\n| `hooks/qemu` | z |\n\n## More\n\n| `vgicmgr/e/` | |\n"
        )
        assert rooms(text) == [["a", "b"], ["d"]]

    def test_the_whole_package_is_seen(self) -> None:
        edges = graph()
        assert "vgicmgr.findings" in edges["vgicmgr.policy"]
        assert "vgicmgr.policy" in edges["vgicmgr.cli.hook"]
