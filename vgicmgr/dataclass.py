"""``@dataclass(frozen=True)`` and ``replace``, as the standard library's, at less than their cost at the start.

Every guest's start waits for what the hook imports (Python 3.11, ``valgrind --tool=callgrind python3 -I -S -c 'import
vgicmgr.hook, vgicmgr.guest.start, vgicmgr.guest.bringup, vgicmgr.migration.arrival'``, and the median of 25 runs): with
:mod:`dataclasses`, which imports :mod:`inspect` and compiles six methods for each class, 257 million instructions and
55 ms; with these 106 million and 31 ms; Python alone has 21 million and 8 ms.

All classes share their methods, which go by the class's annotations; so there is no inheritance of fields, no
``field()`` and no option but ``frozen``. Equality, hash and :func:`replace` go by these declared fields alone, and a
:func:`functools.cached_property` does not disturb them; that costs no import, for :mod:`enum` has functools loaded. To
type checkers these are the standard library's own, but at run time :func:`dataclasses.fields` and its like do not know
them: ``__match_args__`` has the names of the fields.
"""

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass, replace
    from typing import Any, Literal, TypeVar

    T = TypeVar("T")

__all__ = ["dataclass", "replace"]


def _dataclass(*, frozen: "Literal[True]") -> "Callable[[type[T]], type[T]]":
    """The decorator; ``frozen`` is there for the reader."""
    return _with_methods


def _with_methods(cls: "type[T]") -> "type[T]":
    setattr(cls, "__match_args__", tuple(cls.__annotations__))  # noqa: B010
    for name, method in _METHODS.items():
        if name not in vars(cls):
            setattr(cls, name, method)
    return cls


def _replace(instance: "T", /, **changes: object) -> "T":
    """A new one, alike but for ``changes``; raises :class:`TypeError` for a name that is no field."""
    cls, own = type(instance), vars(instance)
    names: tuple[str, ...] = cls.__match_args__  # type: ignore[attr-defined]
    return cls(**{**{name: own[name] for name in names}, **changes})


def _init(self: object, /, *values: object, **named: object) -> None:
    cls, own = type(self), vars(self)
    names: tuple[str, ...] = cls.__match_args__  # type: ignore[attr-defined]
    if len(values) > len(names):
        raise TypeError(f"{cls.__name__} has {len(names)} fields, but {len(values)} values were given")
    own.update(zip(names, values, strict=False))
    for name, value in named.items():
        if name not in names:
            raise TypeError(f"{cls.__name__} has no field {name!r}")
        if name in own:
            raise TypeError(f"{cls.__name__} was given two values for {name!r}")
        own[name] = value
    if len(own) < len(names):
        for name in names:
            if name not in own:
                if name not in vars(cls):
                    raise TypeError(f"{cls.__name__} was given no value for {name!r}")
                own[name] = vars(cls)[name]
    if hasattr(cls, "__post_init__"):
        self.__post_init__()  # type: ignore[attr-defined]


def _values(instance: object) -> "tuple[Any, ...]":
    own = vars(instance)
    return tuple([own[name] for name in type(instance).__match_args__])  # type: ignore[attr-defined]


def _eq(self: object, other: object) -> bool:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash(_values(self))


def _repr(self: object) -> str:
    names = type(self).__match_args__  # type: ignore[attr-defined]
    fields = (f"{name}={value!r}" for name, value in zip(names, _values(self), strict=True))
    return f"{type(self).__qualname__}({', '.join(fields)})"


def _setattr(self: object, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError  # only ever by mistake

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: object, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


_METHODS = {
    "__init__": _init,
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
}

if not TYPE_CHECKING:
    dataclass, replace = _dataclass, _replace
