"""What the installed QEMUs say they can do on this host, as values, and as the JSON that these are kept in. Pure.

:mod:`vgicmgr.qemu.ask` asks them, :mod:`vgicmgr.qemu.answers` reads what they answer.
"""

from collections.abc import Mapping

from vgicmgr.dataclass import dataclass

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from typing import Any


@dataclass(frozen=True)
class Emulator:
    """One QEMU on this host, as it answered."""

    path: str
    version: str
    package: str
    """The distribution's version; may be empty."""
    kvm: bool
    """query-kvm: whether it could make a VM of this host's KVM."""
    gic_kernel: tuple[int, ...]
    """query-gic-capabilities: GIC versions that it found in the kernel; empty without KVM, as is the next."""
    gic_emulated: tuple[int, ...]
    machines: tuple[str, ...]
    """query-machines: the versions of ``virt``, oldest first."""
    deprecated_machines: tuple[str, ...]
    default_machine: str
    """The one that ``virt`` is short for, or empty."""
    max_cpus: int
    """Most vCPUs of that one (cpu-max), whatever this host's KVM can do."""
    properties: tuple[str, ...]
    """qom-list-properties of that one: what can be set on it."""
    gic_versions: tuple[str, ...]
    """Values that its property gic-version takes."""
    msi: tuple[str, ...]
    """Values that its property msi takes; empty before QEMU 11, where only ``its`` can be set on and off."""
    cpu: Mapping[str, bool]
    """query-cpu-model-expansion of the host's CPU under KVM; empty without KVM."""
    cpu_properties: tuple[str, ...]
    """device-list-properties of that CPU: what can be set on it; empty without KVM."""
    program_differs: tuple[str, ...]
    """What its program file tells otherwise (:mod:`vgicmgr.qemu.program`), a sentence for each."""

    @property
    def sve_vector_lengths(self) -> tuple[int, ...]:
        """Those of the host's CPU, in bits, ascending."""
        lengths = (name.removeprefix("sve") for name, there in self.cpu.items() if there and name.startswith("sve"))
        return tuple(sorted(int(length) for length in lengths if length.isdecimal()))

    def to_document(self) -> "dict[str, Any]":
        """What becomes its JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in ((name, getattr(self, name)) for name in self.__match_args__)
        }


def from_document(document: "Any") -> Emulator:
    """Read what :meth:`Emulator.to_document` wrote; raises ValueError where it is something else."""
    kinds = Emulator.__annotations__
    if not isinstance(document, dict) or document.keys() != kinds.keys():
        raise ValueError("no answers of a QEMU")
    return Emulator(**{name: _read(value, kinds[name]) for name, value in document.items()})


def _read(value: "Any", kind: object) -> "Any":
    if kind in (str, int, bool) and type(value) is kind:
        return value
    if kind == tuple[str, ...] and isinstance(value, list) and all(type(one) is str for one in value):
        return tuple(value)
    if kind == tuple[int, ...] and isinstance(value, list) and all(type(one) is int for one in value):
        return tuple(value)
    if kind == Mapping[str, bool] and isinstance(value, dict) and all(type(one) is bool for one in value.values()):
        return value
    raise ValueError("no answers of a QEMU")


@dataclass(frozen=True)
class NotAsked:
    """A QEMU that was not asked or did not answer, why, and what to do about it."""

    path: str
    why: str
    remedy: str
    failed: bool
    """It was tried: the fault is QEMU's, or the host's."""


@dataclass(frozen=True)
class Emulators:
    """The QEMUs installed on this host."""

    answered: tuple[Emulator, ...] = ()
    not_asked: tuple[NotAsked, ...] = ()

    def to_document(self) -> "dict[str, Any]":
        """What becomes its JSON."""
        members = ("path", "why", "remedy", "failed")
        return {
            "emulators": [emulator.to_document() for emulator in self.answered],
            "not_asked": [{name: getattr(one, name) for name in members} for one in self.not_asked],
        }


def emulators_from_document(document: "Any") -> Emulators:
    """Read what :meth:`Emulators.to_document` wrote; raises ValueError where it is something else."""
    try:
        answered = tuple(map(from_document, document["emulators"]))
        not_asked = tuple(
            NotAsked(str(one["path"]), str(one["why"]), str(one["remedy"]), bool(one["failed"]))
            for one in document["not_asked"]
        )
    except (KeyError, TypeError):
        raise ValueError("no answers of QEMUs") from None
    return Emulators(answered, not_asked)
