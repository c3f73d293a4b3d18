"""JSON from another host, read member by member: each value has its type and its bounds, or the reader raises.

A document may come from anywhere: nothing of it is kept or printed that has not been through here.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from vgicmgr.errors import HostDocumentError, VgicmgrError

MAX_BYTES = 64 << 20
_MAX_DIGITS = 20
"""Of a number: 64 bits have no more."""
_MAX_DEPTH = 32

Failure = Callable[[str], VgicmgrError]
"""Makes the exception of a sentence that says what is wrong."""


def read_json(content: bytes, failure: Failure = HostDocumentError) -> Any:
    """The value of a JSON document.

    Raises what ``failure`` makes for what the standard library would take besides: fractions and exponents, NaN and
    infinities, numbers beyond 64 bits, a name twice in one object, and nesting beyond any document of ours.
    """
    if len(content) > MAX_BYTES:
        raise failure(f"the file is larger than {MAX_BYTES >> 20} MiB")

    def refuse(text: str) -> Any:
        raise ValueError(text)

    try:
        value = json.loads(
            content.decode(),
            parse_float=refuse,
            parse_constant=refuse,
            parse_int=_integer,
            object_pairs_hook=_object,
        )
    except (ValueError, RecursionError):
        raise failure("the file is not a JSON document as vgicmgr writes it") from None
    if _deeper_than(value, _MAX_DEPTH):
        raise failure("the file is not a JSON document as vgicmgr writes it")
    return value


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(text)
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name occurs twice")
    return members


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


class Member:
    """A value in a document and its path there (``gic.v3.icc_ctlr_el1``), which an error names.

    Each method returns the value as what it is asked for, or raises what ``failure`` makes.
    """

    def __init__(self, value: Any, path: str = "", failure: Failure = HostDocumentError) -> None:
        self._value = value
        self._path = path
        self._failure = failure

    def error(self, what: str) -> VgicmgrError:
        """The exception that says so of this member."""
        return self._failure(f"the document's member {self._path or 'at the top'} {what}")

    def __getitem__(self, name: str) -> "Member":
        """A member of this object."""
        found = self.find(name)
        if found is None:
            raise Member(None, self._below(name), self._failure).error("is missing")
        return found

    def find(self, name: str) -> "Member | None":
        """A member of this object, None where there is none: in documents of older programs."""
        members = self._object()
        return Member(members[name], self._below(name), self._failure) if name in members else None

    @property
    def null(self) -> bool:
        """Whether it is JSON's null."""
        return self._value is None

    @property
    def is_object(self) -> bool:
        """Whether it is an object."""
        return isinstance(self._value, dict)

    @property
    def is_list(self) -> bool:
        """Whether it is a list."""
        return isinstance(self._value, list)

    def integer(self, least: int, most: int) -> int:
        """A whole number from ``least`` to ``most``."""
        if type(self._value) is not int or not least <= self._value <= most:
            raise self.error(f"is not a whole number from {least} to {most}")
        return self._value

    def boolean(self) -> bool:
        """True or false."""
        if type(self._value) is not bool:
            raise self.error("is neither true nor false")
        return self._value

    def text(self, longest: int = 128, pattern: str = "") -> str:
        """Printable text; the whole of it matches ``pattern``, if there is one."""
        value = self._value
        if type(value) is not str or len(value) > longest or not value.isprintable():
            raise self.error(f"is not a printable text of at most {longest} characters")
        if pattern and not re.fullmatch(pattern, value, re.ASCII):
            raise self.error("is not a text as it stands there in such a document")
        return value

    def choice(self, *values: str) -> str:
        """One of these texts."""
        if type(self._value) is not str or self._value not in values:
            raise self.error(f"is not one of {', '.join(values)}")
        return self._value

    def register(self, bits: int) -> int:
        """A register's value: a hexadecimal text of at most so many bits, in lower case."""
        value = self._value
        if type(value) is not str or not re.fullmatch("0x(0|[1-9a-f][0-9a-f]{0,15})", value, re.ASCII):
            raise self.error("is not a register's value in hexadecimal")
        number = int(value, 16)
        if number >> bits:
            raise self.error(f"does not fit in {bits} bits")
        return number

    def elements(self, most: int) -> "tuple[Member, ...]":
        """The elements of a list of at most ``most``."""
        if not isinstance(self._value, list) or len(self._value) > most:
            raise self.error(f"is not a list of at most {most} elements")
        return tuple(
            Member(value, f"{self._path}[{number}]", self._failure) for number, value in enumerate(self._value)
        )

    def members(self, most: int, pattern: str) -> "Iterator[tuple[str, Member]]":
        """The members of an object of at most ``most``, whose names match ``pattern``."""
        members = self._object()
        if len(members) > most:
            raise self.error(f"has more than {most} members")
        for name, value in members.items():
            if not name.isprintable() or not re.fullmatch(pattern, name, re.ASCII):
                raise self.error("has a member whose name is not as in such a document")
            yield name, Member(value, self._below(name), self._failure)

    def _object(self) -> dict[str, Any]:
        if not isinstance(self._value, dict):
            raise self.error("is not an object")
        return self._value

    def _below(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name
