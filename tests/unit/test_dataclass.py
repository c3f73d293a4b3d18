"""``vgicmgr.dataclass`` behaves as the standard library's frozen dataclasses do, for what it has of them."""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vgicmgr
from vgicmgr import dataclass as light


@light.dataclass(frozen=True)
class Frame:
    """One of ours."""

    base: int
    size: int = 0x10000
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return hex(self.base)


@light.dataclass(frozen=True)
class Other:
    """With the same fields."""

    base: int
    size: int = 0x10000
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Standard:
    """The same by the standard library."""

    base: int
    size: int = 0x10000
    names: tuple[str, ...] = ()


def outcome(make: Callable[..., Any], values: tuple[int, ...], named: dict[str, int]) -> tuple[Any, ...] | str:
    try:
        made = make(*values, **named)
    except TypeError:
        return "TypeError"
    return made.base, made.size, made.names, repr(made).partition("(")[2]


@given(
    st.lists(st.integers(), max_size=4).map(tuple),
    st.dictionaries(st.sampled_from(["base", "size", "names", "extent"]), st.integers()),
)
def test_it_is_made_as_the_standard_one_is(values: tuple[int, ...], named: dict[str, int]) -> None:
    assert outcome(Frame, values, named) == outcome(Standard, values, named)


@given(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
def test_it_is_equal_and_has_a_hash_as_the_standard_one_has(a: int, b: int, c: int, d: int) -> None:
    assert (Frame(a, b) == Frame(c, d)) == (Standard(a, b) == Standard(c, d))
    assert (hash(Frame(a, b)) == hash(Frame(c, d))) == (hash(Standard(a, b)) == hash(Standard(c, d)))


def test_another_class_with_the_same_values_is_not_equal() -> None:
    others: list[object] = [Other(1), (1, 0x10000, ())]
    assert Frame(1) not in others


def test_it_cannot_be_changed() -> None:
    frame = Frame(1)
    for name in ("base", "more"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(frame, name, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(frame, "base")
    assert frame == Frame(1)


@pytest.mark.parametrize("replace", [light.replace, dataclasses.replace])
def test_replace(replace: Callable[..., Frame]) -> None:
    assert replace(Frame(1, names=("GICD",)), size=2) == Frame(1, 2, ("GICD",))
    with pytest.raises(TypeError):
        replace(Frame(1), extent=2)


def test_a_method_of_its_own_stays() -> None:
    assert str(Frame(16)) == "0x10"


def test_it_matches_by_place() -> None:
    match Frame(1, 2):
        case Frame(base, size):
            assert (base, size) == (1, 2)


def test_it_can_be_copied_and_pickled() -> None:
    frame = Frame(1, 2, ("GICD",))
    assert copy.deepcopy(frame) == copy.copy(frame) == pickle.loads(pickle.dumps(frame)) == frame


def test_the_standard_library_knows_it() -> None:
    assert dataclasses.is_dataclass(Frame)
    assert dataclasses.asdict(Frame(1, 2)) == dataclasses.asdict(Standard(1, 2))
    ours, theirs = dataclasses.fields(Frame), dataclasses.fields(Standard)
    assert [(f.name, f.type, f.default) for f in ours] == [(f.name, f.type, f.default) for f in theirs]


def test_it_knows_all_that_the_package_has() -> None:
    modules = [import_module(found.name) for found in walk_packages(vgicmgr.__path__, "vgicmgr.")]
    classes = {
        one
        for module in modules
        for one in vars(module).values()
        if isinstance(one, type) and one.__module__.startswith("vgicmgr.") and "__match_args__" in vars(one)
    }
    assert len(classes) > 80
    for one in classes:
        assert tuple(field.name for field in dataclasses.fields(one)) == vars(one)["__match_args__"], one
