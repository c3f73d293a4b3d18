"""What a host's kernel takes of a guest's registers, found by trying: for judging an arrival there from afar.

For each set of vCPU features that QEMU can ask for, the registers in QEMU's list, their values, and of each what it
accepts. The kernel is asked register by register; where a value hangs on another register's, only the hook on the host
itself can tell, except for registers that come and go with a field of an ID register, which are found here, too.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product

from vgicmgr.dataclass import dataclass
from vgicmgr.host.probe import GIC_BASE, GICC_BASE, ProbeVM, probe_vm
from vgicmgr.kvm import uapi, vcpu, vgic_v2, vgic_v3
from vgicmgr.kvm.bitfields import Field
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.refusal import register_layout
from vgicmgr.kvm.registers import PMCR_EL0, PMCR_EL0_N
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vcpu import VCPU, register_size
from vgicmgr.qemu.cpu import CPU, vcpu_features
from vgicmgr.qemu.registers import migrates_in_list


@dataclass(frozen=True)
class Register:
    """A register's value, and what it accepts: ``anything``, or of each field in ``fields`` these values besides.

    An empty tuple of values is any value: of fields wider than :data:`NARROW` bits only samples are tried. Bits of no
    field in ``fields`` keep their value. ``values``, where it is not None, says more than ``fields``: of a small
    register, all whole values accepted besides its own.
    """

    value: int
    anything: bool = False
    fields: tuple[tuple[str, tuple[int, ...]], ...] = ()
    values: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Dependency:
    """Registers that go or come when a field of an ID register has this value; all by id."""

    register: int
    field: str
    value: int
    gone: tuple[int, ...]
    new: tuple[int, ...] = ()


@dataclass(frozen=True)
class Model:
    """A vCPU with these KVM_ARM_VCPU_* features: its SVE vector lengths in bits, and its registers by id.

    ``pmu_counters``: with how many event counters a guest may come that is to keep them all; 0 without a PMU, None
    where the document is too old to tell. ``depends`` is None there, too.
    """

    features: tuple[str, ...]
    sve: tuple[int, ...]
    pmu_counters: int | None
    registers: Mapping[int, Register]
    depends: tuple[Dependency, ...] | None = None


def probe_models() -> tuple[Model, ...]:
    """A model for each set of features that a guest can have here.

    Raises :class:`~vgicmgr.kvm.errors.KvmUnavailable` and :class:`~vgicmgr.kvm.errors.KvmError`.
    """
    with System() as system:
        return probe_system_models(system)


def probe_system_models(system: System) -> tuple[Model, ...]:
    """As :func:`probe_models`, of a system that is open. A host whose KVM makes no GIC has models as well."""
    with system.create_vm() as vm:
        gics = {2: vgic_v2.DEVICE_TYPE, 3: vgic_v3.DEVICE_TYPE}
        gic_version = max((version for version, device in gics.items() if vm.test_device(device)), default=0)
        sets = tuple(feature_sets(vm.check_extension))
    models: list[Model] = []
    refusals: list[KvmError] = []
    for features in sets:
        try:
            with probe_vm(system, features, gic_version) as here:
                _initialize(here, features)
                models.append(_model(here, features, models))
        except KvmError as error:  # of such a guest nothing can be said; of the others it can
            refusals.append(error)
    if not models:
        raise refusals[0]
    return tuple(models)


def feature_sets(capability: Callable[[str], int]) -> Iterator[tuple[str, ...]]:
    """The sets of features that QEMU asks for, for whatever CPU properties, where KVM has these capabilities.

    The largest first. A 32-bit guest of a host with SVE or pointer authentication has a set that KVM refuses.
    """
    found: dict[tuple[str, ...], None] = {}
    for aarch32 in (False, True) if capability("KVM_CAP_ARM_EL1_32BIT") else (False,):
        for values in product(("on", "off"), repeat=3):
            cpu = CPU("host", tuple(zip(("pmu", "sve", "pauth"), values, strict=True)), aarch32)
            found[vcpu_features(cpu, capability, pmu=True, el2=False)] = None
    return iter(found)


_NR_IRQS = 288
"""SGIs, PPIs and the 256 SPIs of QEMU's ``virt`` (hw/arm/virt.c, NUM_IRQS)."""
_PMU_INTID = 23
"""INTID of VIRTUAL_PMU_IRQ, a PPI."""


def _initialize(here: ProbeVM, features: tuple[str, ...]) -> None:
    """The GIC and the PMU, in QEMU's order; without a GIC in the kernel, the PMU has no interrupt there."""
    if here.gic is not None and here.gic_version == 2:
        here.gic.set_attribute(vgic_v2.NR_IRQS, _NR_IRQS)
        here.gic.set_attribute(vgic_v2.DIST_ADDR, GIC_BASE)
        here.gic.set_attribute(vgic_v2.CPU_ADDR, GICC_BASE)
        here.gic.set_attribute(vgic_v2.CTRL_INIT)
    elif here.gic is not None:
        here.gic.set_attribute(vgic_v3.NR_IRQS, _NR_IRQS)
        here.gic.set_attribute(vgic_v3.CTRL_INIT)
    if "KVM_ARM_VCPU_PMU_V3" in features:
        if here.gic is not None:
            here.vcpu.set_attribute(vcpu.PMU_IRQ, _PMU_INTID)
        here.vcpu.set_attribute(vcpu.PMU_INIT)


def _model(here: ProbeVM, features: tuple[str, ...], probed: Sequence[Model] = ()) -> Model:
    """A model; what a register with the same value takes in a vCPU that was ``probed`` before is not tried again.

    For a register's value after reset is the kernel's own limit for it (``arch/arm64/kvm/sys_regs.c``,
    arm64_check_features), whatever the other features are; trying all takes a minute on an emulated host.
    """
    # all are read before any is written: what is written can take others away
    values = dict(_readable(here.vcpu, filter(migrates_in_list, sorted(here.ids))))
    known = {(number, one.value): one for model in probed for number, one in model.registers.items()}
    registers = {
        number: known.get((number, value)) or _register(here.vcpu, number, value) for number, value in values.items()
    }
    counters = _most_counters(here.vcpu, values[PMCR_EL0]) if PMCR_EL0 in values else 0
    new = {number: one for number, one in registers.items() if (number, one.value) not in known}
    depends = (*_inherited(probed, registers, here.ids), *_dependencies(here.vcpu, new))
    return Model(features, here.sve_vector_lengths, counters, registers, depends)


def _inherited(
    probed: Sequence[Model], registers: Mapping[int, Register], ids: Collection[int]
) -> Iterator[Dependency]:
    """What was found of the same registers in other vCPUs, as far as this one has what comes and goes."""
    seen: set[tuple[int, str, int]] = set()
    for model in probed:
        for one in model.depends or ():
            key = (one.register, one.field, one.value)
            same = one.register in registers and registers[one.register] == model.registers[one.register]
            if not same or key in seen:
                continue
            seen.add(key)
            gone = tuple(number for number in one.gone if number in ids)
            if gone or one.new:
                yield Dependency(one.register, one.field, one.value, gone, one.new)


def _readable(processor: VCPU, numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Those that can be read; QEMU ends where one cannot (kvm_arm_init_cpreg_list)."""
    for number in numbers:
        with suppress(KvmError):
            yield number, processor.get_register(number)


def _takes(processor: VCPU, number: int, value: int, candidate: int) -> bool:
    """Whether the register takes this value; it then has its own again."""
    try:
        processor.set_register(number, candidate)
    except KvmError:
        return False
    with suppress(KvmError):  # no kernel known refuses a value that it gave
        processor.set_register(number, value)
    return True


def _register(processor: VCPU, number: int, value: int) -> Register:
    def takes(candidate: int) -> bool:
        return _takes(processor, number, value, candidate)

    layout, whole = register_layout(number), _WHOLE_VALUES.get(number)
    if whole is None and (layout is None or not _is_id_register(number)):
        # what a vCPU computes with takes whatever it is given; what stands for the host does not take both
        anything = takes(0) and takes((1 << 8 * register_size(number)) - 1)
        if anything or layout is None:
            return Register(value, anything=anything)
    if layout is None:
        raise ValueError("a register whose values are listed has fields")
    accepted = ((field.name, _accepted(field, value, takes)) for field in layout.all_fields)
    fields = tuple((name, values) for name, values in accepted if values is not None)
    return Register(
        value, fields=fields, values=None if whole is None else tuple(n for n in whole if n != value and takes(n))
    )


_LEVELS = tuple(range(16))
_ENABLED = 1 << 4
_WHOLE_VALUES = {
    uapi.KVM_REG_ARM_PSCI_VERSION: (0x1, 0x2, *(1 << 16 | minor for minor in range(10))),
    uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1: _LEVELS,
    uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2: (*_LEVELS, *(_ENABLED | level for level in _LEVELS)),
    uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3: _LEVELS,
}
"""Registers whose fields do not stand for themselves, and all values that can occur.

PSCI has versions 0.1, 0.2 and 1.x (``drivers/firmware/psci``); "enabled" goes with one level of WORKAROUND_2 alone
(``arch/arm64/kvm/hypercalls.c``, kvm_arm_set_fw_reg).
"""


def _accepted(field: Field, value: int, takes: Callable[[int], bool]) -> tuple[int, ...] | None:
    """Values of the field, as unsigned numbers, that are taken besides its own; None if there are none, () for all."""
    own = (value & field.mask) >> field.lsb
    most = (1 << field.width) - 1
    numbers = range(most + 1) if field.width <= NARROW else sorted({0, 1, max(own - 1, 0), min(own + 1, most), most})
    found = tuple(n for n in numbers if n != own and takes(value & ~field.mask | n << field.lsb))
    if field.width > NARROW and len(found) == len(set(numbers) - {own}):
        return ()
    return found or None


NARROW = 6
"""Bits of a field whose values are all tried: those of ID registers have four, and CTR_EL0.TminLine has six."""


def _dependencies(processor: VCPU, registers: Mapping[int, Register]) -> Iterator[Dependency]:
    """What comes and goes with the least and the largest value that a field of an ID register takes."""
    before = frozenset(processor.register_ids())
    for number, register in registers.items():
        layout = register_layout(number) if _is_id_register(number) else None
        if layout is None:
            continue
        taken = dict(register.fields)
        for field in layout.fields:
            values = taken.get(field.name)
            if values is None:
                continue
            most = (1 << field.width) - 1
            for value in sorted({min(values, default=0), max(values, default=most)}):
                candidate = register.value & ~field.mask | value << field.lsb
                if candidate == register.value:
                    continue
                with suppress(KvmError):
                    processor.set_register(number, candidate)
                    now = frozenset(processor.register_ids())
                    processor.set_register(number, register.value)
                    gone, new = before - now, now - before
                    if gone or new:
                        yield Dependency(number, field.name, value, tuple(sorted(gone)), tuple(sorted(new)))


def _is_id_register(number: int) -> bool:
    """Whether it is S3_<op1>_C0_<CRm>_<op2>, in which the architecture keeps what a CPU has."""
    place = uapi.KVM_REG_ARM64_SYSREG_OP0_MASK | uapi.KVM_REG_ARM64_SYSREG_CRN_MASK
    return (
        number & uapi.KVM_REG_ARM_COPROC_MASK == uapi.KVM_REG_ARM64_SYSREG
        and number & place == 3 << uapi.KVM_REG_ARM64_SYSREG_OP0_SHIFT
    )


_MOST_COUNTERS = 31
"""That there can be: the last bit is the cycle counter's (Arm ARM, PMCR_EL0.N)."""


def _most_counters(processor: VCPU, value: int) -> int:
    """What the kernel makes of a PMCR_EL0.N of 31: it takes any (``arch/arm64/kvm/sys_regs.c``, set_pmcr)."""
    try:
        processor.set_register(PMCR_EL0, value & ~PMCR_EL0_N.mask | _MOST_COUNTERS << PMCR_EL0_N.lsb)
    except KvmError:  # no kernel known does this; it would be among the registers refused
        return PMCR_EL0_N.of(value)
    kept = PMCR_EL0_N.of(processor.get_register(PMCR_EL0))
    processor.set_register(PMCR_EL0, value)
    return kept
