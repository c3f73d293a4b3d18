"""``@dataclass(frozen=True)`` and ``replace`` as in the standard library, without what they cost at the start.

Every guest's start waits for the hook, and most of what Python did there was to import :mod:`dataclasses`, which brings
:mod:`inspect` along, and to compile six methods for each class. Here all classes share their methods, which go by the
class's annotations; so there is no inheritance of fields, no ``field()`` and no other option.

To type checkers these are the standard library's own. So they are to :func:`dataclasses.fields`, ``asdict`` and
``is_dataclass`` when the program runs.
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
    return type(instance)(**{**vars(instance), **changes})


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


def _values(instance: object) -> "tuple[Any, ...]":
    own = vars(instance)
    return tuple(own[name] for name in type(instance).__match_args__)  # type: ignore[attr-defined]


def _eq(self: object, other: object) -> bool:
    return vars(self) == vars(other) if type(self) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash(_values(self))


def _repr(self: object) -> str:
    names = type(self).__match_args__  # type: ignore[attr-defined]
    fields = (f"{name}={value!r}" for name, value in zip(names, _values(self), strict=True))
    return f"{type(self).__qualname__}({', '.join(fields)})"


def _setattr(self: object, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: object, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


class _Lent:
    """An attribute by which the standard library knows its dataclasses: made by it, when somebody asks."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, cls: type) -> object:
        from dataclasses import field, make_dataclass

        members = [
            (name, kind, field(default=vars(cls)[name]) if name in vars(cls) else field())
            for name, kind in cls.__annotations__.items()
        ]
        twin = make_dataclass(cls.__name__, members, frozen=True)
        for name in _LENT:
            setattr(cls, name, getattr(twin, name))
        return getattr(twin, self._name)


_LENT = ("__dataclass_fields__", "__dataclass_params__")
_METHODS = {
    "__init__": _init,
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
    **{name: _Lent(name) for name in _LENT},
}

if not TYPE_CHECKING:
    dataclass, replace = _dataclass, _replace
