"""A vCPU's registers by rules of the kernel, as far as probing them goes."""

import errno
from collections.abc import Callable, Mapping
from typing import cast

from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.vcpu import VCPU

Rule = Callable[[int], bool]
"""Whether the kernel takes this value."""


class FakeVCPU:
    """Registers with their values and rules; ``listed`` may take some away by the values of others.

    A register without a rule takes any value. One in ``fixed`` takes values by its rule and keeps its own, as the
    firmware registers of workarounds do.
    """

    def __init__(
        self,
        values: Mapping[int, int],
        rules: Mapping[int, Rule] | None = None,
        fixed: frozenset[int] = frozenset(),
        listed: Callable[[Mapping[int, int], int], bool] = lambda values, number: True,
    ) -> None:
        self.values = dict(values)
        self.rules = dict(rules or {})
        self.fixed = fixed
        self.listed = listed

    def as_vcpu(self) -> VCPU:
        return cast("VCPU", self)

    def register_ids(self) -> tuple[int, ...]:
        return tuple(number for number in self.values if self.listed(self.values, number))

    def get_register(self, number: int) -> int:
        self._find("KVM_GET_ONE_REG", number)
        return self.values[number]

    def set_register(self, number: int, value: int) -> None:
        self._find("KVM_SET_ONE_REG", number)
        if number in self.rules and not self.rules[number](value):
            raise KvmError("KVM_SET_ONE_REG", f"{number:#018x}", errno.EINVAL)
        if number not in self.fixed:
            self.values[number] = value

    def _find(self, call: str, number: int) -> None:
        if number not in self.values or not self.listed(self.values, number):
            raise KvmError(call, f"{number:#018x}", errno.ENOENT)
