"""``vgicmgr.dataclass`` behaves as the standard library's frozen dataclasses do, for what it has of them."""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from pkgutil import walk_packages
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vgicmgr
from vgicmgr import dataclass as light
from vgicmgr.findings import Finding


@light.dataclass(frozen=True)
class Frame:
    """One of ours."""

    base: int
    size: int = 0x10000
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return hex(self.base)

    @cached_property
    def end(self) -> int:
        return self.base + self.size


@light.dataclass(frozen=True)
class Positive:
    """Which cannot be made of everything."""

    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("less than nothing")


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


def test_replace() -> None:
    assert light.replace(Frame(1, names=("GICD",)), size=2) == Frame(1, 2, ("GICD",))
    with pytest.raises(TypeError):
        light.replace(Frame(1), extent=2)  # type: ignore[call-arg]


def test_a_method_of_its_own_stays() -> None:
    assert str(Frame(16)) == "0x10"


def test_it_matches_by_place() -> None:
    match Frame(1, 2):
        case Frame(base, size):
            assert (base, size) == (1, 2)


def test_it_can_be_copied_and_pickled() -> None:
    frame = Frame(1, 2, ("GICD",))
    assert copy.deepcopy(frame) == copy.copy(frame) == pickle.loads(pickle.dumps(frame)) == frame


def test_a_cached_property_disturbs_nothing() -> None:
    frame, asked = Frame(1, 2), Frame(1, 2)
    assert asked.end == 3
    assert asked.end is asked.end
    assert (frame == asked, hash(frame) == hash(asked), repr(frame) == repr(asked)) == (True, True, True)
    moved = light.replace(asked, base=2)
    assert (moved, moved.end) == (Frame(2, 2), 4)
    assert pickle.loads(pickle.dumps(asked)) == copy.deepcopy(asked) == frame


def test_what_is_made_can_be_checked() -> None:
    with pytest.raises(ValueError, match="less than nothing"):
        Positive(-1)
    with pytest.raises(ValueError, match="less than nothing"):
        light.replace(Positive(1), number=-1)


def test_no_class_of_the_package_needs_more_than_there_is() -> None:
    """Inherited fields would be none, and a default that can be changed would be shared."""
    modules = [import_module(found.name) for found in walk_packages(vgicmgr.__path__, "vgicmgr.")]
    ours = [
        one
        for module in modules
        for one in vars(module).values()
        if isinstance(one, type) and vars(one).get("__eq__") is vars(Frame)["__eq__"]
    ]
    assert Finding in ours
    for one in ours:
        inherited = [base for base in one.__mro__[1:-1] if "__match_args__" in vars(base)]
        assert not inherited, one
        for name in vars(one)["__match_args__"]:
            default = vars(one).get(name)
            frozen = default.__hash__ is not None or isinstance(default, MappingProxyType)  # which has none before 3.12
            assert frozen, f"the default of {one.__qualname__}.{name} can be changed"
