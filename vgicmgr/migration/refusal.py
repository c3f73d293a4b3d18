"""A register that a kernel does not take, and the words that name its fields. Pure."""

from vgicmgr.dataclass import dataclass, replace
from vgicmgr.kvm import uapi
from vgicmgr.kvm.bitfields import Field, Layout
from vgicmgr.kvm.idregs import layout
from vgicmgr.kvm.registers import register_name
from vgicmgr.kvm.vcpu import register_size


@dataclass(frozen=True)
class Refusal:
    """A register's id, its value here and the guest's, and the fields that are refused each by itself.

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
        guest, here = field.of(self.guest), field.of(self.here)
        return (
            f"{self.name}.{field.name}: guest has {guest}, this kernel {'insists on' if guest < here else 'has'} {here}"
        )


_PSCI = Layout.parse("major 31:16, minor 15:0")
_BITMAP = Layout.parse(", ".join(f"bit{n} {n}" for n in range(63, -1, -1)))


def register_layout(number: int) -> Layout | None:
    """The fields of a register by which a refusal is told; None where they are unknown."""
    if number == uapi.KVM_REG_ARM_PSCI_VERSION:
        return _PSCI
    if number & uapi.KVM_REG_ARM_COPROC_MASK == uapi.KVM_REG_ARM_FW_FEAT_BMAP:
        return _BITMAP
    shape = layout(register_name(number).partition("[")[0])
    return replace(shape, width=8 * register_size(number)) if shape.fields else None
