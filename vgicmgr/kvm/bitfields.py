"""Registers as fields of bits, named and laid out as the architecture does it."""

from collections.abc import Iterator
from functools import cached_property

from vgicmgr.dataclass import dataclass


@dataclass(frozen=True)
class Field:
    """``width`` bits of a register from bit ``lsb`` on; ``signed`` in two's complement (0xf: -1, not implemented)."""

    name: str
    lsb: int
    width: int
    signed: bool = False

    @property
    def mask(self) -> int:
        """The field's bits in the register."""
        return ((1 << self.width) - 1) << self.lsb

    def of(self, register: int) -> int:
        """The field's value in a register's value."""
        value = (register & self.mask) >> self.lsb
        return value - (1 << self.width) if self.signed and value >> (self.width - 1) else value


@dataclass(frozen=True)
class Layout:
    """The fields of a register of ``width`` bits, from the most significant one down."""

    fields: tuple[Field, ...] = ()
    width: int = 64

    @classmethod
    def parse(cls, text: str, width: int = 64) -> "Layout":
        """The layout written as ``CSV3 63:60, FP 19:16 signed, VMSA 0``."""
        return cls(tuple(_parse_field(part) for part in text.split(",")), width)

    @cached_property
    def all_fields(self) -> tuple[Field, ...]:
        """The fields, and the bits no field has as fields named after their place, such as ``[59:56]``."""
        return tuple(self._with_gaps())

    def _with_gaps(self) -> Iterator[Field]:
        end = self.width
        for field in (*self.fields, Field("", 0, 0)):
            start = field.lsb + field.width
            if start < end:
                yield Field(f"[{end - 1}:{start}]" if end - start > 1 else f"[{start}]", start, end - start)
            if field.width:
                yield field
            end = field.lsb

    def decode(self, register: int) -> dict[str, int]:
        """The value of each field, and of the bits no field has where they are not 0.

        Raises :class:`ValueError` when the value has more bits than the register.
        """
        self._check(register)
        return {
            field.name: field.of(register) for field in self.all_fields if field in self.fields or field.of(register)
        }

    def differing_fields(self, a: int, b: int) -> tuple[Field, ...]:
        """The fields in which two values differ, none of their bits left out; errors as :meth:`decode`."""
        self._check(a)
        self._check(b)
        return tuple(field for field in self.all_fields if field.of(a) != field.of(b))

    def _check(self, register: int) -> None:
        if not 0 <= register < 1 << self.width:
            raise ValueError(f"{register:#x} does not fit in {self.width} bits")


def _parse_field(text: str) -> Field:
    name, bits, *signed = text.split()
    msb, _, lsb = bits.partition(":")
    return Field(name, int(lsb or msb), int(msb) - int(lsb or msb) + 1, signed == ["signed"])
