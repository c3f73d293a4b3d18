"""What an arrival is put to: a scratch VM of this host's kernel, or what a document says of another host's.

On this host the guest is brought up as QEMU brings it up, and its registers are then written in QEMU's order
(``target/arm/kvm.c``, write_list_to_kvmstate); the GIC's and the ITS's as ``hw/intc/arm_gicv3_kvm.c`` and
``hw/intc/arm_gicv3_its_kvm.c`` write them, where a refusal makes QEMU abort. Nothing is run.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vgicmgr.domain.cpulist import vcpu_cpus
from vgicmgr.errors import CannotTell
from vgicmgr.guest.resolve import Resolution
from vgicmgr.guest.scratch import ScratchVM
from vgicmgr.guest.start import scratch_vm
from vgicmgr.host.counter import Measurement
from vgicmgr.host.cpus import on_cpus
from vgicmgr.host.kernel import Kernel
from vgicmgr.kvm import its, vgic_v2, vgic_v3
from vgicmgr.kvm.attribute import Attribute
from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.refusal import Refusal, register_layout
from vgicmgr.kvm.registers import PMCR_EL0, PMCR_EL0_N

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from typing import Protocol

    from vgicmgr.findings import Finding
    from vgicmgr.guest.configuration import VGICConfiguration
    from vgicmgr.host.facts import HostFacts
else:
    Protocol = object


class Destination(Protocol):
    """The guest's vCPU and interrupt controller on the host that it is to arrive on."""

    @property
    def ids(self) -> Sequence[int]:
        """The registers in QEMU's list there, ascending."""

    def first_values(self) -> tuple[tuple[int, int], ...]:
        """Those registers, with the values that a guest booted there has."""

    def refused(self, registers: Sequence[tuple[int, int]]) -> tuple[Refusal, ...]:
        """The registers that are there and do not take the value they come with."""

    def pmu_counters(self, wanted: int) -> int:
        """How many event counters a guest has there that comes with this many (PMCR_EL0.N)."""

    def counter_frequency(self) -> int | None:
        """How fast the guest's counter ticks there, in Hz; None where the host does not tell.

        To be asked before anything is written.
        """

    def icc_ctlr_el1(self) -> int | None:
        """ICC_CTLR_EL1 of a GICv3."""

    def gicd_iidr(self) -> int | None:
        """GICD_IIDR; None where QEMU emulates the GIC."""

    def gits_iidr(self) -> int | None:
        """GITS_IIDR, if the guest gets an ITS."""

    def gits_typer(self) -> int | None:
        """GITS_TYPER, if the guest gets an ITS."""

    def refuses_icc_ctlr_el1(self, value: int) -> str:
        """The errno's name with which this value is refused, or empty."""

    def refuses_gicd_iidr(self, value: int) -> str:
        """The same of GICD_IIDR."""

    def refuses_gits_iidr(self, value: int) -> str:
        """The same of GITS_IIDR."""


@contextmanager
def open_destination(
    resolution: Resolution, host: "HostFacts"
) -> "Iterator[tuple[Destination | None, tuple[Finding, ...]]]":
    """The destination for a guest that resolves to a configuration there, or the findings of a start that fails.

    Raises :class:`~vgicmgr.kvm.errors.KvmError`, and :class:`~vgicmgr.errors.CannotTell` where a document says too
    little.
    """
    configuration = resolution.configuration
    if configuration is None:
        yield None, ()
    elif isinstance(host, Kernel):
        pinned = on_cpus(vcpu_cpus(resolution.domain))
        with pinned, scratch_vm(configuration, host, register_list=True) as scratch:
            yield (None, scratch.findings) if scratch.error else (ScratchDestination(scratch, configuration), ())
    else:
        yield _documented(configuration, host), ()


def _documented(configuration: "VGICConfiguration", host: "HostFacts") -> Destination:
    from vgicmgr.host.documented import DocumentedHost  # the hook can do without

    if not isinstance(host, DocumentedHost):
        raise CannotTell("an arrival is judged by a host's kernel or its document, not by an assumed host")
    version = configuration.gic_version if configuration.in_kernel else 0
    return host.destination(configuration.features, configuration.target, version, configuration.its is not None)


class ScratchDestination:
    """A guest brought up on a scratch VM of this host's kernel: asked first, and only then written to.

    What is refused may have changed part of what was there before (vgic-sys-reg-v3.c, set_gic_ctlr), so everything that
    a finding tells is read here at the beginning.
    """

    def __init__(self, scratch: ScratchVM, configuration: "VGICConfiguration") -> None:
        """Read all; raises :class:`~vgicmgr.kvm.errors.KvmError`."""
        self._scratch = scratch
        self._vcpu = scratch.vcpu(0)
        self._counter = Measurement(self._vcpu)  # begun first, so that what is read next is time that nobody waits for
        gicv2 = configuration.gic_version == 2
        device = vgic_v2.DEVICE_TYPE if gicv2 else vgic_v3.DEVICE_TYPE
        self._iidr = _GICV2_IIDR if gicv2 else _GICV3_IIDR
        self._gic = scratch.device(device) if configuration.in_kernel else None
        self._its = scratch.device(its.DEVICE_TYPE) if configuration.its and configuration.in_kernel else None
        self._values = {number: self._vcpu.get_register(number) for number in scratch.register_list}
        self._gicd_iidr = self._gic.get_attribute(self._iidr) if self._gic else None
        self._icc_ctlr_el1 = self._gic.get_attribute(_ICC_CTLR_EL1) if self._gic and not gicv2 else None
        self._gits_iidr = self._its.get_attribute(_GITS_IIDR) if self._its else None
        self._gits_typer = self._its.get_attribute(its.register(its.GITS_TYPER)) if self._its else None

    @property
    def ids(self) -> tuple[int, ...]:
        """The registers in QEMU's list, ascending."""
        return self._scratch.register_list

    def first_values(self) -> tuple[tuple[int, int], ...]:
        """Those registers, with their values before anything was written."""
        return tuple(self._values.items())

    def counter_frequency(self) -> int | None:
        """As measured since all vCPUs were made; raises :class:`~vgicmgr.kvm.errors.KvmError`."""
        return self._counter.frequency()

    def gicd_iidr(self) -> int | None:
        """GICD_IIDR; None where QEMU emulates the GIC."""
        return self._gicd_iidr

    def icc_ctlr_el1(self) -> int | None:
        """ICC_CTLR_EL1 of a GICv3."""
        return self._icc_ctlr_el1

    def gits_iidr(self) -> int | None:
        """GITS_IIDR, if there is an ITS."""
        return self._gits_iidr

    def gits_typer(self) -> int | None:
        """GITS_TYPER, if there is an ITS."""
        return self._gits_typer

    def refuses_icc_ctlr_el1(self, value: int) -> str:
        """The errno's name with which the GICv3 refuses this value; empty where it takes it."""
        return _refusal_of(self._gic, _ICC_CTLR_EL1, value)

    def refuses_gicd_iidr(self, value: int) -> str:
        """As :meth:`refuses_icc_ctlr_el1`, for GICD_IIDR."""
        return _refusal_of(self._gic, self._iidr, value)

    def refuses_gits_iidr(self, value: int) -> str:
        """As :meth:`refuses_icc_ctlr_el1`, for GITS_IIDR of the ITS there is."""
        return _refusal_of(self._its, _GITS_IIDR, value)

    def pmu_counters(self, wanted: int) -> int:
        """What the kernel makes of a PMCR_EL0.N of ``wanted``: it takes any (arch/arm64/kvm/sys_regs.c, set_pmcr)."""
        before = self._values[PMCR_EL0]
        try:
            self._vcpu.set_register(PMCR_EL0, before & ~PMCR_EL0_N.mask | wanted << PMCR_EL0_N.lsb)
            kept = PMCR_EL0_N.of(self._vcpu.get_register(PMCR_EL0))
            self._vcpu.set_register(PMCR_EL0, before)
        except KvmError:  # no kernel known does this; it would be among the registers refused
            return PMCR_EL0_N.of(before)
        return kept

    def refused(self, registers: Sequence[tuple[int, int]]) -> tuple[Refusal, ...]:
        """The registers that are here, too, but do not take the value they come with.

        All are written, one failure or not, and those that only this host has as they are, as QEMU does
        (write_list_to_kvmstate). An ID register can take others away that are listed and then denied.
        """
        incoming = dict(registers)
        failed = [
            (number, value, error)
            for number, before in self._values.items()
            if (error := self._write(number, value := incoming.get(number, before)))
        ]
        return tuple(self._refusal(number, value, error) for number, value, error in failed)

    def _write(self, number: int, value: int) -> KvmError | None:
        try:
            self._vcpu.set_register(number, value)
        except KvmError as error:
            return error
        return None

    def _refusal(self, number: int, value: int, error: KvmError) -> Refusal:
        """With the fields that are refused each by itself, found by writing them alone."""
        before = self._values[number]
        layout = register_layout(number)
        fields = []
        for field in layout.differing_fields(before, value) if layout else ():
            if self._write(number, before & ~field.mask | value & field.mask):
                fields.append(field)
        self._write(number, before)
        return Refusal(number, before, value, tuple(fields), error.errno_name)


_GICV2_IIDR = vgic_v2.distributor_register(vgic_v2.GICD_IIDR)
_GICV3_IIDR = vgic_v3.distributor_register(vgic_v3.GICD_IIDR)
_ICC_CTLR_EL1 = vgic_v3.cpu_interface_register(vgic_v3.ICC_CTLR_EL1)
_GITS_IIDR = its.register(its.GITS_IIDR)


def _refusal_of(device: Descriptor | None, attribute: Attribute, value: int) -> str:
    if device is None:
        return ""
    try:
        device.set_attribute(attribute, value)
    except KvmError as error:
        return error.errno_name
    return ""
