"""Whether a guest can arrive here: what is in its ABI record, put to this host's kernel as QEMU will put it.

The registers are written to a throw-away vCPU in QEMU's order (``target/arm/kvm.c``, write_list_to_kvmstate); the GIC's
and the ITS's as ``hw/intc/arm_gicv3_kvm.c`` and ``hw/intc/arm_gicv3_its_kvm.c`` write them, where a refusal makes QEMU
abort.
"""

from collections.abc import Iterator, Sequence

from vgicmgr.migration.incoming import read_incoming
from vgicmgr.migration.record import ABIRecord
from vgicmgr.kvm.refusal import Refusal
from vgicmgr.migration.scratch import scratch
from vgicmgr.domain.settings import DomainSettings
from vgicmgr.errors import RecordError
from vgicmgr.findings import Finding, Severity, Verdict
from vgicmgr.kvm import gicregs
from vgicmgr.kvm.registers import PMCR_EL0, PMCR_EL0_N, register_id, register_name
from vgicmgr.kvm.system import System
from vgicmgr.qemu import virt
from vgicmgr.qemu.cpu import cpu_of, psci_version
from vgicmgr.qemu.machine import machine_version, top_of_memory
from vgicmgr.qemu.migration import Comparison, Rules, compare_lists, rules_of
from vgicmgr.qemu.program import has_constant
from vgicmgr.guest.start import judge_settings

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object

_NAMED = 3
"""How many registers a finding names in full; the others it counts, and names shortly up to :data:`_LISTED`."""
_LISTED = 12


def judge_arrival(record: ABIRecord, settings: DomainSettings, rules: Rules, arguments: Sequence[str] = ()) -> Verdict:
    """Whether a guest with this record, whose domain XML has these settings, arrives on this host.

    ``rules`` are those of the QEMU that takes it, ``arguments`` the domain's own for QEMU. Raises
    :class:`~vgicmgr.kvm.errors.KvmUnavailable` and :class:`~vgicmgr.kvm.errors.KvmError`, as :func:`judge_settings`
    does.
    """
    start = judge_settings(settings)
    if not start.ok:
        return start  # QEMU ends before it loads anything
    with System() as system, scratch(system, settings, arguments) as here:
        return Verdict((*start.findings, *_assigned(settings, arguments), *findings(record, settings, rules, here)))


class Destination(Protocol):
    """What is asked of the host that a guest is to arrive on: a kernel, or what a document says of one."""

    @property
    def ids(self) -> Sequence[int]:
        """The registers in QEMU's list there, ascending."""

    @property
    def own_cpu(self) -> bool:
        """Whether the guest has the host's own CPU."""

    @property
    def gic_version(self) -> int:
        """Of the guest's GIC there."""

    @property
    def sve(self) -> tuple[int, ...]:
        """SVE vector lengths in bits."""

    @property
    def steal_time(self) -> bool:
        """Whether QEMU gives the guest stolen time."""

    @property
    def ipa_bits(self) -> int:
        """Largest guest physical address size, in bits."""

    @property
    def page_size(self) -> int:
        """The host's, in bytes."""

    def refused(self, registers: Sequence[tuple[int, int]]) -> tuple[Refusal, ...]:
        """The registers that are there and do not take the value they come with."""

    def pmu_counters(self, wanted: int) -> int:
        """How many event counters a guest has there that comes with this many (PMCR_EL0.N)."""

    def icc_ctlr_el1(self) -> int | None:
        """ICC_CTLR_EL1 of a GICv3."""

    def gicd_iidr(self) -> int:
        """GICD_IIDR."""

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


def findings(record: ABIRecord, settings: DomainSettings, rules: Rules, here: Destination) -> tuple[Finding, ...]:
    """What stands in the way of a guest with this record, and what it will notice."""
    return (
        *_machine(record, settings, here),
        *_registers(record, here, rules),
        *_pmu(record, here),
        *_gic(record, here),
    )


def judge_incoming(xml: bytes, settings: DomainSettings) -> Verdict:
    """Whether the guest of this incoming domain XML, whose settings these are, arrives on this host.

    Raises :class:`~vgicmgr.errors.DomainXMLError`, :class:`~vgicmgr.errors.CannotTell` where the emulator cannot be
    read, and as :func:`judge_settings` does.
    """
    incoming = read_incoming(xml)
    try:
        record = incoming.sent()
    except RecordError as error:
        unreadable = Finding("record-unreadable", Severity.ERROR, error.message, error.remedy)
        return Verdict((*judge_settings(settings).findings, unreadable))
    if record is None:
        return judge_arrival_without_record(settings)
    if psci_version(cpu_of(settings, incoming.arguments)) and not has_constant(settings.emulator, _PSCI_PROPERTY):
        unknown = Finding(
            "cpu-property-unknown",
            Severity.ERROR,
            "the domain sets the CPU property kvm-psci-version, which this host's QEMU has not, so that it does not "
            "start",
            "use a newer QEMU here (11), or boot the guest without the property",
        )
        return Verdict((unknown,))
    return judge_arrival(record, settings, rules_of(settings.emulator), incoming.arguments)


_PSCI_PROPERTY = b"kvm-psci-version"


def judge_arrival_without_record(settings: DomainSettings) -> Verdict:
    """What the domain XML alone can tell: whether the guest could start here; raises as :func:`judge_settings` does."""
    missing = Finding(
        "missing-record",
        Severity.WARNING,
        "the guest has no ABI record, so that it is judged by its XML alone: whether this kernel takes its registers "
        "is not known",
        "have vgicmgr's hook installed where it is booted, or 'vgicmgr record write' there",
    )
    return Verdict((*judge_settings(settings).findings, *_assigned(settings), missing))


def _assigned(settings: DomainSettings, arguments: Sequence[str] = ()) -> tuple[Finding, ...]:
    """Whether this host's devices take a guest over; at the source, QEMU blocks where its devices cannot migrate."""
    if not settings.host_devices and not any("vfio-" in argument for argument in arguments):
        return ()
    from vgicmgr.domain.hostdevices import devices_of_arguments  # few domains have any
    from vgicmgr.vfio.assigned import read_assigned
    from vgicmgr.guest.assignment import migration_findings

    devices = (*settings.host_devices, *devices_of_arguments(arguments))
    return tuple(migration_findings(devices, read_assigned(device.address for device in devices)))


def _registers(record: ABIRecord, here: Destination, rules: Rules) -> Iterator[Finding]:
    comparison = compare_lists(rules, record.registers, here.ids, own_cpu=here.own_cpu)
    if not comparison.loads:
        yield _list_finding(comparison, record, here, rules)
    elif comparison.dropped:
        yield Finding(
            "register-dropped",
            Severity.WARNING,
            f"this kernel has no {_names(comparison.dropped)}, which the guest brings along; "
            "this host's QEMU leaves that out",
            "boot the guest anew on a kernel like this one, if it is to have no such register",
        )
    if refusals := here.refused(record.registers):
        yield _value_finding(refusals, record)


def _pmu(record: ABIRecord, here: Destination) -> Iterator[Finding]:
    pmcr = record.value(PMCR_EL0)
    if pmcr is None or PMCR_EL0 not in here.ids:
        return
    guests = PMCR_EL0_N.of(pmcr)
    kept = here.pmu_counters(guests)
    if kept < guests:
        yield Finding(
            "pmu-counters",
            Severity.WARNING,
            f"PMCR_EL0.N: guest has {guests} event counters, and this kernel leaves it {kept}, which QEMU does not "
            "notice; using another is undefined then",
            f"use a host whose PMU has {guests}, or boot the guest with <pmu state='off'/>",
        )


def _list_finding(comparison: Comparison, record: ABIRecord, here: Destination, rules: Rules) -> Finding:
    why = f"this kernel has no {_names(comparison.fatal)}, which the guest brings along" if comparison.fatal else ""
    if comparison.overflow:
        count = f"the guest has {len(record.registers)} registers, and this host's QEMU takes {len(here.ids)} at most"
        why = f"{count}; {why}" if why else count
    return Finding("register-list", Severity.ERROR, why, _list_remedy(comparison, record, rules))


def _list_remedy(comparison: Comparison, record: ABIRecord, rules: Rules) -> str:
    ways = []
    names = [register_name(number) for number in comparison.fatal]
    if rules is Rules.CLASSIC and compare_lists(Rules.TOLERANT, record.registers, _without(record, comparison)).loads:
        ways.append("use a newer QEMU here (11.1, or one with its tolerances for such registers)")
    if names and all(name.startswith("PM") for name in names):
        ways.append("boot the guest with <pmu state='off'/>")
    if any(name.startswith("ZCR") for name in names):
        ways.append("boot the guest with <feature policy='disable' name='sve'/>")
    ways.append(
        f"use a host that has them (the guest was booted on Linux {record.kernel}), or boot the guest anew here"
    )
    return "; or ".join(ways)


def _without(record: ABIRecord, comparison: Comparison) -> list[int]:
    return [number for number, _ in record.registers if number not in comparison.fatal]


def _value_finding(refusals: Sequence[Refusal], record: ABIRecord) -> Finding:
    ordered = sorted(refusals, key=lambda refusal: _cache_geometry(refusal.name))
    named = "; ".join(map(str, ordered[:_NAMED]))
    if rest := ordered[_NAMED:]:
        more = ", ".join(refusal.name for refusal in rest[:_LISTED]) + (" ..." if len(rest) > _LISTED else "")
        named += f"; and {len(rest)} more that this kernel does not take: {more}"
    return Finding("register-value", Severity.ERROR, named, _value_remedy(refusals, record))


def _value_remedy(refusals: Sequence[Refusal], record: ABIRecord) -> str:
    names = [refusal.name for refusal in refusals]
    if any(name in _IDENTITY for name in names):
        return f"use a host with the CPU that the guest was booted on ({_midr(record)}), or boot the guest anew here"
    ways = []
    if names == ["KVM_REG_ARM_PSCI_VERSION"]:
        here = refusals[0].here
        ways.append(
            f"boot the guest with the CPU property kvm-psci-version={here >> 16}.{here & 0xFFFF} "
            "(<qemu:commandline>, QEMU 11 on both hosts)"
        )
    if all(set(refusal.field_names) <= {"PMUVer", "PerfMon"} and refusal.fields for refusal in refusals):
        ways.append("boot the guest with <pmu state='off'/>")
    if all(refusal.field_names == ("SVE",) or refusal.name == "ID_AA64ZFR0_EL1" for refusal in refusals):
        ways.append("boot the guest with <feature policy='disable' name='sve'/>")
    ways.append(f"use a host with a kernel like the guest's own (Linux {record.kernel}), or boot the guest anew here")
    return "; or ".join(ways)


_IDENTITY = frozenset(("MIDR_EL1", "REVIDR_EL1", "AIDR_EL1"))


def _midr(record: ABIRecord) -> str:
    value = record.value(register_id("MIDR_EL1"))
    return f"MIDR_EL1 {value:#x}" if value is not None else "unknown"


def _gic(record: ABIRecord, here: Destination) -> Iterator[Finding]:
    if record.gic_version != here.gic_version:
        yield Finding(
            "gic-version",
            Severity.ERROR,
            f"the guest was booted with a GICv{record.gic_version}, and its XML makes a GICv{here.gic_version} here",
            f"set <gic version='{record.gic_version}'/>",
        )
        return
    if record.icc_ctlr_el1 is not None:
        yield from _icc_ctlr(record.icc_ctlr_el1, here)
    yield from _gicd_iidr(record.gicd_iidr, here)
    yield from _its(record, here)


def _icc_ctlr(value: int, here: Destination) -> Iterator[Finding]:
    if why := here.refuses_icc_ctlr_el1(value):
        before = here.icc_ctlr_el1() or 0
        differing = gicregs.ICC_CTLR_EL1.differing_fields(value, before)
        fields = [field for field in differing if field.name in ("PRIbits", "IDbits", "SEIS", "A3V")] or list(differing)
        words = ", ".join(
            f"ICC_CTLR_EL1.{field.name}: guest has {field.of(value)}, this host's GIC {field.of(before)}"
            for field in fields
        )
        yield Finding(
            "icc-ctlr",
            Severity.ERROR,
            f"{words or f'ICC_CTLR_EL1 of {value:#x}'} (KVM_SET_DEVICE_ATTR: {why}; QEMU aborts)",
            "use a host whose GIC has the same PRIbits, IDbits, SEIS and A3V, or boot the guest anew here",
        )


def _gicd_iidr(value: int, here: Destination) -> Iterator[Finding]:
    before = here.gicd_iidr()
    if value != before:
        why = here.refuses_gicd_iidr(value)
        taken = f"the kernel does not take the guest's ({why})" if why else "the kernel would take the guest's"
        yield Finding(
            "gicd-iidr",
            Severity.WARNING,
            f"GICD_IIDR: guest has {value:#x}, here it will see {before:#x}, which QEMU does not carry over ({taken})",
        )


def _its(record: ABIRecord, here: Destination) -> Iterator[Finding]:
    before, typer = here.gits_iidr(), here.gits_typer()
    if record.gits_iidr is None and before is None:
        return
    if record.gits_iidr is None or before is None:
        yield Finding(
            "its",
            Severity.ERROR,
            f"the guest was booted with{'out' if record.gits_iidr is None else ''} an ITS, and here it gets "
            f"{'none' if before is None else 'one'}",
            "use a host that is alike in this, or boot the guest anew here",
        )
        return
    if why := here.refuses_gits_iidr(record.gits_iidr):
        guests, ours = (gicregs.GITS_IIDR.decode(value)["Revision"] for value in (record.gits_iidr, before))
        yield Finding(
            "its-abi-revision",
            Severity.ERROR,
            f"GITS_IIDR.Revision: the guest's ITS tables have ABI revision {guests}, and this kernel has {ours} "
            f"(KVM_SET_DEVICE_ATTR: {why}; QEMU aborts)",
            f"use a host with a kernel like the guest's own (Linux {record.kernel})",
        )
    if typer != record.gits_typer:
        yield Finding(
            "gits-typer",
            Severity.WARNING,
            f"GITS_TYPER: guest has {record.gits_typer or 0:#x}, here it will see {typer or 0:#x}",
        )


def _machine(record: ABIRecord, settings: DomainSettings, here: Destination) -> Iterator[Finding]:
    if record.steal_time and not here.steal_time:
        yield Finding(
            "steal-time",
            Severity.ERROR,
            "the guest was booted with stolen time, which this kernel has not (KVM_CAP_STEAL_TIME is 0), so that QEMU "
            "does not know its memory region 'pvtime'",
            f"boot the guest with {_NO_STEAL_TIME}",
        )
    elif record.steal_time:
        size, before = (_pvtime_size(record.vcpus, page) for page in (here.page_size, record.page_size))
        if size != before:
            yield Finding(
                "steal-time",
                Severity.ERROR,
                f"the guest's region of stolen time has {before} bytes, and QEMU makes one of {size} here, since the "
                "hosts' page sizes differ",
                f"boot the guest with {_NO_STEAL_TIME}, or use a host with pages of {record.page_size >> 10} KiB",
            )
    if record.sve != here.sve:
        yield _sve_finding(record, here)
    guests, mine = (_high_regions(settings, bits) for bits in (record.ipa_bits, here.ipa_bits))
    if guests != mine:
        yield Finding(
            "memory-map",
            Severity.ERROR,
            f"the guest's high memory regions ({_listed(guests)}) were laid out for {record.ipa_bits} bits of guest "
            f"physical addresses, and QEMU lays out {_listed(mine)} for the {here.ipa_bits} bits here "
            "(KVM_CAP_ARM_VM_IPA_SIZE)",
            f"use a host with {record.ipa_bits} bits, or boot the guest anew here",
        )


_NO_STEAL_TIME = "the CPU property kvm-steal-time=off (<qemu:commandline>)"
"""libvirt 9.0 and 11.3 know no CPU feature of that name."""


def _high_regions(settings: DomainSettings, ipa_bits: int) -> tuple[tuple[str, int], ...]:
    top = top_of_memory(settings.memory, settings.max_memory, settings.memory_slots)
    machine = machine_version(settings.machine)
    regions = virt.high_memory(top, ipa_bits, virt.Properties(), machine).regions
    return tuple((region.name, region.base) for region in regions)


def _listed(regions: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} at {base:#x}" for name, base in regions) or "none"


def _sve_finding(record: ABIRecord, here: Destination) -> Finding:
    lost = set(record.sve) - set(here.sve)
    return Finding(
        "sve-vector-lengths",
        Severity.ERROR if lost and here.sve else Severity.WARNING,
        f"SVE vector lengths: guest has {_bits(record.sve)}, here it gets {_bits(here.sve)} (KVM_REG_ARM64_SVE_VLS, "
        "which QEMU does not carry over)",
        "boot the guest with the lengths that both hosts have, by <feature policy='require' name='sve<N>'/>",
    )


def _bits(lengths: Sequence[int]) -> str:
    return f"{', '.join(map(str, lengths))} bits" if lengths else "none"


def _pvtime_size(vcpus: int, page_size: int) -> int:
    """Bytes of the region ``pvtime``: 64 for each vCPU, in whole pages of the host (hw/arm/virt.c)."""
    return -(-vcpus * 64 // page_size) * page_size


def _names(numbers: Sequence[int]) -> str:
    names = sorted(map(register_name, numbers), key=_cache_geometry)
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _cache_geometry(name: str) -> bool:
    """Whether it is one of the many CCSIDR_EL1, which say least and so come last."""
    return name.startswith("CCSIDR_EL1[")
