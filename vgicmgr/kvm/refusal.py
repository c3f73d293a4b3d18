"""A register whose value a kernel refuses, and the words that name its fields. Pure."""

from functools import cache

from vgicmgr.dataclass import dataclass, replace
from vgicmgr.kvm import uapi
from vgicmgr.kvm.bitfields import Field, Layout
from vgicmgr.kvm.idregs import layout
from vgicmgr.kvm.registers import register_name
from vgicmgr.kvm.vcpu import register_size


@dataclass(frozen=True)
class Refusal:
    """A register's id, its value here and the guest's, and the fields that the kernel refuses each by itself.

    ``fields`` is empty where no single field tells; ``why`` is the errno's name.
    """

    number: int
    here: int
    guest: int
    fields: tuple[Field, ...]
    why: str

    @property
    def name(self) -> str:
        """The register's."""
        return register_name(self.number)

    @property
    def field_names(self) -> tuple[str, ...]:
        """Of the refused fields."""
        return tuple(field.name for field in self.fields)

    def __str__(self) -> str:
        if not self.fields:
            return f"{self.name}: guest has {self.guest:#x}, this kernel has {self.here:#x} and refuses ({self.why})"
        return ", ".join(self._words(field) for field in self.fields)

    def _words(self, field: Field) -> str:
        return f"{self.name}.{field.name}: guest has {field.of(self.guest)}, this kernel has {field.of(self.here)}"


_PSCI = Layout.parse("major 31:16, minor 15:0")
_WORKAROUND = Layout.parse("level 3:0")
_WORKAROUND_2 = Layout.parse("enabled 4, level 3:0")
_FIRMWARE = {
    uapi.KVM_REG_ARM_PSCI_VERSION: _PSCI,
    uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1: _WORKAROUND,
    uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2: _WORKAROUND_2,
    uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3: _WORKAROUND,
}
"""Of a workaround, KVM_REG_FEATURE_LEVEL_MASK and KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_ENABLED."""
_BITMAP = Layout.parse(", ".join(f"bit{n} {n}" for n in range(63, -1, -1)))


@cache
def register_layout(number: int) -> Layout | None:
    """The fields of a register by which a refusal is told; None where they are unknown."""
    if number in _FIRMWARE:
        return _FIRMWARE[number]
    if number & uapi.KVM_REG_ARM_COPROC_MASK == uapi.KVM_REG_ARM_FW_FEAT_BMAP:
        return _BITMAP
    shape = layout(register_name(number).partition("[")[0])
    return replace(shape, width=8 * register_size(number)) if shape.fields else None
