"""What a host's kernel takes of a guest's registers, found by trying: for judging an arrival there from afar.

For each set of vCPU features that QEMU can ask for, the registers in QEMU's list, their values, and of each what it
accepts. The kernel is asked register by register; where it makes one value depend on another's, a document cannot say
so, which is why the hook on the host itself has the last word.
"""

from collections.abc import Callable, Iterable
from itertools import product

from vgicmgr.dataclass import dataclass
from vgicmgr.kvm.bitfields import Field
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.registers import PMCR_EL0
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vcpu import VCPU, register_size
from vgicmgr.migration.refusal import register_layout
from vgicmgr.migration.scratch import made
from vgicmgr.qemu.cpu import CPU, vcpu_features


@dataclass(frozen=True)
class Register:
    """A register's value, and what it accepts: ``anything``, or of each field in ``fields`` these values besides.

    An empty tuple of values is any value: of fields wider than four bits only samples are tried. Bits of no field in
    ``fields`` keep their value.
    """

    value: int
    anything: bool = False
    fields: tuple[tuple[str, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class Model:
    """A vCPU with these KVM_ARM_VCPU_* features: its SVE vector lengths in bits, and its registers by id.

    ``pmu_counters``: with how many event counters a guest may come that is to keep them all; 0 without a PMU.
    """

    features: tuple[str, ...]
    sve: tuple[int, ...]
    steal_time: bool
    pmu_counters: int
    registers: dict[int, Register]


def probe_models() -> tuple[Model, ...]:
    """A model for each set of features that ``-cpu host`` can have here.

    Raises :class:`~vgicmgr.kvm.errors.KvmUnavailable` and :class:`~vgicmgr.kvm.errors.KvmError`.
    """
    models: dict[tuple[str, ...], Model] = {}
    with System() as system:
        for pmu, sve, pauth in product(("on", "off"), repeat=3):
            cpu = CPU("host", {"pmu": pmu, "sve": sve, "pauth": pauth})
            with system.create_vm() as vm:
                features = vcpu_features(cpu, vm.check_extension)
            if features not in models:
                with made(system, cpu, max) as here:
                    registers = {number: _register(here.vcpu, number) for number in here.ids}
                    counters = here.pmu_counters(_MOST_COUNTERS) if PMCR_EL0 in here.ids else 0
                    models[features] = Model(features, here.sve, here.steal_time, counters, registers)
    return tuple(models.values())


def _register(processor: VCPU, number: int) -> Register:
    value = processor.get_register(number)

    def takes(candidate: int) -> bool:
        try:
            processor.set_register(number, candidate)
        except KvmError:
            return False
        processor.set_register(number, value)
        return True

    layout = register_layout(number)
    if layout is None:
        ones = (1 << 8 * register_size(number)) - 1
        return Register(value, anything=takes(0) and takes(ones))
    accepted = ((field.name, _accepted(field, value, takes)) for field in layout.all_fields)
    return Register(value, fields=tuple((name, values) for name, values in accepted if values is not None))


def _accepted(field: Field, value: int, takes: Callable[[int], bool]) -> tuple[int, ...] | None:
    """Values of the field, as unsigned numbers, that are taken besides its own; None if there are none, () for all."""
    own = (value & field.mask) >> field.lsb
    most = (1 << field.width) - 1

    def taken(numbers: Iterable[int]) -> tuple[int, ...]:
        return tuple(n for n in numbers if n != own and takes(value & ~field.mask | n << field.lsb))

    samples = sorted({0, min(1, most), max(own - 1, 0), min(own + 1, most), most})
    found = taken(samples)
    if not found:
        return None
    if field.width <= _NARROW:
        return taken(range(most + 1))
    return () if len(found) == len(set(samples) - {own}) else found


_MOST_COUNTERS = 31
"""That there can be: the last bit is the cycle counter's (Arm ARM, PMCR_EL0.N)."""
_NARROW = 4
"""Bits of a field whose values are all tried."""
