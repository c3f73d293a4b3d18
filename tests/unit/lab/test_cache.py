"""The cache: built once, whole or not at all."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab import cache

parts = st.lists(st.text(max_size=8), max_size=4)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "vgicmgr" / "lab"


def write(text: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / "file").write_text(text)

    return build


def test_without_xdg_cache_home_it_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.directory() == tmp_path / ".cache" / "vgicmgr" / "lab"


@given(parts, parts)
def test_only_equal_recipes_share_a_key(one: list[str], other: list[str]) -> None:
    assert (cache.key(*one) == cache.key(*other)) == (one == other)


def test_an_entry_is_built_once() -> None:
    first = cache.entry("thing", ("a",), write("first"))
    assert cache.entry("thing", ("a",), write("second")) == first
    assert (first / "file").read_text() == "first"


def test_another_recipe_is_another_entry() -> None:
    assert cache.entry("thing", ("a",), write("")) != cache.entry("thing", ("b",), write(""))


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_build_leaves_nothing(home: Path, interruption: type[BaseException]) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("")
        raise interruption

    with pytest.raises(interruption):
        cache.entry("thing", ("a",), build)
    assert not [path for path in home.iterdir() if path.is_dir()]


def test_what_a_killed_build_left_is_removed_by_the_next(home: Path) -> None:
    final = cache.entry("thing", ("a",), write("")).rename(home / "elsewhere")
    leftover = home / f".thing-{cache.key('a')}.left"
    leftover.mkdir()
    cache.entry("thing", ("a",), write(""))
    assert final.exists()
    assert not leftover.exists()


def test_at_the_same_time_it_is_built_once() -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(folder)

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: cache.entry("thing", ("a",), build), range(4)))
    assert len(found) == len(built) == 1
