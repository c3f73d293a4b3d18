"""Attributes of the device control API: which group and number, under which name, with what kind of data.

Source: ``Documentation/virt/kvm/devices/``. A device's module declares its attributes, one a line, by the header's
names; the numbers come from :mod:`vgicmgr.kvm.uapi`.
"""

from vgicmgr.dataclass import dataclass, replace
from vgicmgr.kvm import uapi


@dataclass(frozen=True)
class Attribute:
    """One attribute: ``group`` and ``name`` as in the header (``name`` is empty where a group has but one).

    ``data`` is what ``kvm_device_attr.addr`` points to, as a :mod:`struct` format; empty where there is none.
    ``number`` is ``kvm_device_attr.attr``.
    """

    group: str
    name: str
    data: str
    number: int

    @property
    def group_number(self) -> int:
        """``kvm_device_attr.group``."""
        value: int = getattr(uapi, self.group)
        return value

    def __str__(self) -> str:
        return self.name or self.group

    def at(self, number: int, name: str) -> "Attribute":
        """The attribute of the same group and data at another number: a register of a register group."""
        return replace(self, number=number, name=name)


def attribute(group: str, name: str = "", data: str = "") -> Attribute:
    """Declare the attribute called ``name`` in the header, of the group called ``group``."""
    number: int = getattr(uapi, name) if name else 0
    return Attribute(group, name, data, number)
