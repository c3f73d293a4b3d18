"""Whether a guest can arrive on a host: what is in its ABI record, put to that host as QEMU will put it.

The one judge of arrivals: the hook, ``record verify`` and ``check-migration`` all ask :func:`check_arrival` or
:func:`judge_arrival`, of this host's kernel or of a document.
"""

from collections.abc import Iterator, Sequence

from vgicmgr.domain.domain import Domain
from vgicmgr.errors import RecordError
from vgicmgr.findings import Finding, Severity, Verdict, finding
from vgicmgr.guest.affinity import PIN, depends_on_core, of_the_core
from vgicmgr.guest.devices import host_devices
from vgicmgr.guest.memory import high_memory
from vgicmgr.guest.resolve import Resolution, resolve
from vgicmgr.host.kernel import Kernel
from vgicmgr.kvm import gicregs
from vgicmgr.kvm.refusal import Refusal
from vgicmgr.kvm.registers import PMCR_EL0, PMCR_EL0_N, register_id, register_name
from vgicmgr.migration.clock import counter_frequency
from vgicmgr.migration.departure import not_migratable
from vgicmgr.migration.destination import Destination, open_destination
from vgicmgr.migration.devices import device_state
from vgicmgr.migration.pages import page_sizes
from vgicmgr.migration.record import ABIRecord, as_migrated, read_record
from vgicmgr.qemu.process import boot_id
from vgicmgr.qemu.registers import Comparison, compare_lists
from vgicmgr.qemu.rules import Rules

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.guest.configuration import VGICConfiguration
    from vgicmgr.host.facts import HostFacts

_NAMED = 3
"""How many registers a finding names in full; the others it counts, and names shortly up to :data:`_LISTED`."""
_LISTED = 12


def check_arrival(domain: Domain, host: "HostFacts") -> Verdict:
    """Whether a guest with the record that is in its domain arrives on ``host``.

    Raises :class:`~vgicmgr.kvm.errors.KvmUnavailable` when /dev/kvm cannot be used, and
    :class:`~vgicmgr.kvm.errors.KvmError` when the kernel cannot even be asked what it has.
    """
    try:
        record = as_migrated(domain)
    except RecordError as error:
        return _without_record(domain, host, finding("record-unreadable", error.message, error.remedy))
    if record is None:
        return _without_record(
            domain,
            host,
            finding(
                "missing-record",
                "the guest has no ABI record, so that it is judged by its XML alone: whether the kernel takes its "
                "registers is not known",
                "have vgicmgr's hook installed where it is booted, or 'vgicmgr record write' there",
            ),
        )
    return judge_arrival(domain, record, host)


def judge_incoming(domain: Domain, *, migrating: bool = False) -> Verdict:
    """As :func:`check_arrival`, on this host; ``migrating``: from another host, and not from a file."""
    if not domain.needs_gic:
        return Verdict()
    with Kernel() as host:
        verdict = check_arrival(domain, host)
    own = _of_this_host(domain) if migrating else None
    return Verdict((*verdict.findings, own)) if own else verdict


def _of_this_host(domain: Domain) -> Finding | None:
    """Where the latest record is of the host that the guest comes to, and so not of the one that it comes from.

    A guest went from here to another host and comes back before that has noted what its QEMU sends. On a third host
    nobody can tell: the XML does not say where a guest comes from.
    """
    element = domain.host_record or domain.record
    try:
        record = read_record(element) if element else None
        here = boot_id()
    except (RecordError, OSError):
        return None
    if record is None or record.process.partition("/")[0] != here:
        return None
    return finding(
        "record-not-of-sender",
        "the guest's latest ABI record was written on this very host, which does not send it: the host that does has "
        "not noted what its QEMU sends, so that it is judged by what this host's would",
        "wait until the guest has its record there, or see 'vgicmgr hook status' there",
    )


def judge_arrival(domain: Domain, record: ABIRecord, host: "HostFacts") -> Verdict:
    """Whether a guest with this record, whose domain this is, arrives on ``host``; errors as :func:`check_arrival`."""
    if not domain.needs_gic:
        return Verdict()
    if why := _other_boot(domain, record):
        return _without_record(domain, host, why)
    resolution = resolve(domain, host)
    if blocked := tuple(not_migratable(resolution)):  # whatever its registers are, they are never sent
        return Verdict((*resolution.findings, *blocked, *_assigned(resolution, host)))
    with open_destination(resolution, host) as (destination, refusals):
        found = [*resolution.findings, *refusals, *_assigned(resolution, host)]
        if destination is not None:  # else QEMU ends before it loads anything
            found += _compare(record, resolution, host, destination)
    return Verdict(tuple(found))


def _compare(
    record: ABIRecord, resolution: Resolution, host: "HostFacts", destination: Destination
) -> Iterator[Finding]:
    """What stands in the way of a guest with this record, and what it will notice."""
    if (configuration := resolution.configuration) is None:
        return
    yield from _machine(record, resolution, configuration, host)
    yield from counter_frequency(record, destination)  # before the counter itself is written
    yield from _registers(record, resolution, destination, host)
    yield from _pmu(record, destination)
    yield from _gic(record, configuration, destination)
    yield from device_state(record, resolution)


def _other_boot(domain: Domain, record: ABIRecord) -> Finding | None:
    """Where the record is not of this boot: a copied or saved definition brings along what another boot left in it.

    A machine type without a version is one that libvirt has not yet replaced (virQEMUCapsGetCanonicalMachine).
    """
    differences = []
    if record.uuid and domain.uuid and record.uuid != domain.uuid:
        differences.append(f"is of the domain {record.uuid}, and this is {domain.uuid}")
    if domain.machine not in ("virt", record.machine):
        differences.append(f"is of machine type '{record.machine}', the domain of '{domain.machine}'")
    if domain.vcpus != record.vcpus:
        differences.append(f"has {record.vcpus} vCPU(s), the domain {domain.vcpus}")
    if not differences:
        return None
    return finding(
        "record-of-another-boot",
        f"the ABI record {', and '.join(differences)}: it is of another boot or another domain and is not used, so "
        "that whether the kernel takes the guest's registers is not known",
        "'vgicmgr record write --force DOMAIN' on the host that the guest was booted on",
    )


def _without_record(domain: Domain, host: "HostFacts", why: Finding) -> Verdict:
    """What the XML alone can tell; the guest's start, which libvirt asks about next, is rehearsed then."""
    if not domain.needs_gic:
        return Verdict()
    resolution = resolve(domain, host)
    return Verdict((*resolution.findings, *not_migratable(resolution), *_assigned(resolution, host), why))


def _assigned(resolution: Resolution, host: "HostFacts") -> tuple[Finding, ...]:
    """Whether the host's devices take a guest over; at the source, QEMU blocks where its devices cannot migrate."""
    if resolution.machine is None or not (devices := host_devices(resolution.domain, resolution.machine)):
        return ()
    from vgicmgr.guest.assignment import migration_findings  # few domains have any

    assigned = host.assigned([device.address for device in devices])
    return () if assigned is None else tuple(migration_findings(devices, assigned))


def _registers(
    record: ABIRecord, resolution: Resolution, destination: Destination, host: "HostFacts"
) -> Iterator[Finding]:
    rules = resolution.machine.qemu.rules if resolution.machine else None
    host_cpu = resolution.cpu is not None and resolution.cpu.host_cpu
    if rules is not None:
        yield from _lists(record, destination, rules, host_cpu=host_cpu)
    else:
        yield from _lists_by_either(record, destination, host_cpu=host_cpu)
    refusals = destination.refused(record.registers)
    others = [refusal for refusal in refusals if not of_the_core(refusal.name)]
    if len(others) < len(refusals) and depends_on_core(resolution.domain, host):
        yield _core_finding([refusal for refusal in refusals if of_the_core(refusal.name)])
        refusals = tuple(others)
    if refusals:
        yield _value_finding(refusals, record)


def _lists(record: ABIRecord, destination: Destination, rules: Rules, *, host_cpu: bool) -> Iterator[Finding]:
    comparison = compare_lists(rules, record.registers, destination.ids, host_cpu=host_cpu)
    if not comparison.loads:
        yield _list_finding(comparison, record, destination, rules)
        return
    if dropped := [number for number in comparison.dropped if number not in comparison.forgotten]:
        yield finding(
            "register-dropped",
            f"this kernel has no {_names(dropped)}, which the guest brings along; this host's QEMU leaves that out",
            "boot the guest anew on a kernel like this one, if it is to have no such register",
        )
    if comparison.fragile:
        yield finding(
            "qemu-quirk",
            f"this kernel has no {_names(comparison.forgotten)}, which the guest brings along; QEMU reports that and "
            "goes on, since of such registers it heeds the last one only, which a later QEMU may mend",
            "use a host that has them, or boot the guest anew here",
        )


def _lists_by_either(record: ABIRecord, destination: Destination, *, host_cpu: bool) -> Iterator[Finding]:
    """By both rules where the emulator does not tell which it has: what they agree on holds."""
    by_rules = [list(_lists(record, destination, rules, host_cpu=host_cpu)) for rules in Rules]
    if len({any(found.severity is Severity.ERROR for found in some) for some in by_rules}) == 1:
        yield from by_rules[0]
        return
    alone = sorted({number for number, _ in record.registers} - set(destination.ids))
    yield finding(
        "register-rules-unknown",
        "the emulator is no program that tells by which rule it takes registers that this kernel does not have "
        f"({_names(alone)}): QEMU 11.1 and later, or one with its tolerances, lets the guest in, an older one does not",
        "set <emulator> to QEMU's own program",
    )


def _pmu(record: ABIRecord, destination: Destination) -> Iterator[Finding]:
    pmcr = record.value(PMCR_EL0)
    if pmcr is None or PMCR_EL0 not in destination.ids:
        return
    guests = PMCR_EL0_N.of(pmcr)
    kept = destination.pmu_counters(guests)
    if kept < guests:
        yield finding(
            "pmu-counters",
            f"PMCR_EL0.N: guest has {guests} event counters, and this kernel leaves it {kept}, which QEMU does not "
            "notice; using another is undefined then",
            f"use a host whose PMU has {guests}, or boot the guest with <pmu state='off'/>",
        )


def _list_finding(comparison: Comparison, record: ABIRecord, destination: Destination, rules: Rules) -> Finding:
    why = f"this kernel has no {_names(comparison.fatal)}, which the guest brings along" if comparison.fatal else ""
    if comparison.overflow:
        most = len(destination.ids)
        count = f"the guest has {len(record.registers)} registers, and this host's QEMU takes {most} at most"
        why = f"{count}; {why}" if why else count
    return finding("register-list", why, _list_remedy(comparison, record, rules))


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


def _core_finding(refusals: Sequence[Refusal]) -> Finding:
    return finding(
        "cpu-types-mixed",
        f"the core that was asked has another {_names([refusal.number for refusal in refusals])} than the guest; this "
        "host's cores are of different types, and the guest may run on any of them",
        PIN,
    )


def _value_finding(refusals: Sequence[Refusal], record: ABIRecord) -> Finding:
    ordered = sorted(refusals, key=lambda refusal: _cache_geometry(refusal.name))
    named = "; ".join(map(str, ordered[:_NAMED]))
    if rest := ordered[_NAMED:]:
        more = ", ".join(refusal.name for refusal in rest[:_LISTED]) + (" ..." if len(rest) > _LISTED else "")
        named += f"; and {len(rest)} more that this kernel does not take: {more}"
    return finding("register-value", named, _value_remedy(refusals, record))


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


def _gic(record: ABIRecord, configuration: "VGICConfiguration", destination: Destination) -> Iterator[Finding]:
    if record.gic_version != configuration.gic_version:
        yield finding(
            "gic-version",
            f"the guest was booted with a GICv{record.gic_version}, and its XML makes a "
            f"GICv{configuration.gic_version} here",
            f"set <gic version='{record.gic_version}'/>",
        )
        return
    if record.in_kernel != configuration.in_kernel:
        # seen in both directions: libvirt says that the guest arrived, and it never runs on
        before, now = ("KVM made", "QEMU emulates it") if record.in_kernel else ("QEMU emulated", "KVM makes it")
        yield finding(
            "gic-in-kernel",
            f"{before} the GIC that the guest was booted with, and {now} here: the state of one is not the other's, "
            "and the guest stops without an error",
            "boot the guest anew here, or use a host whose KVM is like that of the guest's own",
        )
        return
    if record.icc_ctlr_el1 is not None:
        yield from _icc_ctlr(record.icc_ctlr_el1, destination)
    yield from _gicd_iidr(record.gicd_iidr, destination)
    yield from _its(record, destination)


def _icc_ctlr(value: int, destination: Destination) -> Iterator[Finding]:
    if why := destination.refuses_icc_ctlr_el1(value):
        before = destination.icc_ctlr_el1() or 0
        differing = gicregs.ICC_CTLR_EL1.differing_fields(value, before)
        fields = [field for field in differing if field.name in ("PRIbits", "IDbits", "SEIS", "A3V")] or list(differing)
        words = ", ".join(
            f"ICC_CTLR_EL1.{field.name}: guest has {field.of(value)}, this host's GIC {field.of(before)}"
            for field in fields
        )
        yield finding(
            "icc-ctlr",
            f"{words or f'ICC_CTLR_EL1 of {value:#x}'} (KVM_SET_DEVICE_ATTR: {why}; QEMU aborts)",
            "use a host whose GIC has the same PRIbits, IDbits, SEIS and A3V, or boot the guest anew here",
        )


def _gicd_iidr(value: int, destination: Destination) -> Iterator[Finding]:
    before = destination.gicd_iidr()
    if before is not None and value != before:
        why = destination.refuses_gicd_iidr(value)
        taken = f"the kernel does not take the guest's ({why})" if why else "the kernel would take the guest's"
        yield finding(
            "gicd-iidr",
            f"GICD_IIDR: guest has {value:#x}, here it will see {before:#x}, which QEMU does not carry over ({taken})",
        )


def _its(record: ABIRecord, destination: Destination) -> Iterator[Finding]:
    before, typer = destination.gits_iidr(), destination.gits_typer()
    if record.gits_iidr is None and before is None:
        return
    if record.gits_iidr is None or before is None:
        yield finding(
            "its",
            f"the guest was booted with{'out' if record.gits_iidr is None else ''} an ITS, and here it gets "
            f"{'none' if before is None else 'one'}",
            "use a host that is alike in this, or boot the guest anew here",
        )
        return
    if why := destination.refuses_gits_iidr(record.gits_iidr):
        guests, ours = (gicregs.GITS_IIDR.decode(value)["Revision"] for value in (record.gits_iidr, before))
        yield finding(
            "its-abi-revision",
            f"GITS_IIDR.Revision: the guest's ITS tables have ABI revision {guests}, and this kernel has {ours} "
            f"(KVM_SET_DEVICE_ATTR: {why}; QEMU aborts)",
            f"use a host with a kernel like the guest's own (Linux {record.kernel})",
        )
    if typer != record.gits_typer:
        yield finding(
            "gits-typer",
            f"GITS_TYPER: guest has {record.gits_typer or 0:#x}, here it will see {typer or 0:#x}",
        )


def _machine(
    record: ABIRecord, resolution: Resolution, configuration: "VGICConfiguration", host: "HostFacts"
) -> Iterator[Finding]:
    if resolution.machine is not None:
        yield from page_sizes(record, resolution.machine.properties, configuration, host)
    if record.sve != configuration.sve_vector_lengths:
        yield _sve_finding(record, configuration.sve_vector_lengths)
    guests, mine = (_high_regions(resolution, bits) for bits in (record.ipa_bits, host.ipa_bits))
    if guests != mine:
        yield finding(
            "memory-map",
            f"the guest's high memory regions ({_listed(guests)}) were laid out for {record.ipa_bits} bits of guest "
            f"physical addresses, and QEMU lays out {_listed(mine)} for the {host.ipa_bits} bits here "
            "(KVM_CAP_ARM_VM_IPA_SIZE)",
            f"use a host with {record.ipa_bits} bits, or boot the guest anew here",
        )


def _high_regions(resolution: Resolution, ipa_bits: int) -> tuple[tuple[str, int], ...]:
    """Where the guest's machine has its high regions on a host with so many bits."""
    if resolution.machine is None:
        return ()
    regions = high_memory(resolution.domain, resolution.machine, ipa_bits).regions
    return tuple((region.name, region.base) for region in regions)


def _listed(regions: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} at {base:#x}" for name, base in regions) or "none"


def _sve_finding(record: ABIRecord, lengths: tuple[int, ...]) -> Finding:
    """Vectors cut short are an error; where a side has no SVE at all, the lists of registers decide."""
    cut = bool(set(record.sve) - set(lengths)) and bool(lengths)
    return finding(
        "sve-vector-lengths",
        f"SVE vector lengths: guest has {_bits(record.sve)}, here it gets {_bits(lengths)} (KVM_REG_ARM64_SVE_VLS, "
        "which QEMU does not carry over)",
        "boot the guest with the lengths that both hosts have, by <feature policy='require' name='sve<N>'/>",
        severity=Severity.ERROR if cut else Severity.WARNING,
    )


def _bits(lengths: Sequence[int]) -> str:
    return f"{', '.join(map(str, lengths))} bits" if lengths else "none"


def _names(numbers: Sequence[int]) -> str:
    names = sorted(map(register_name, numbers), key=_cache_geometry)
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _cache_geometry(name: str) -> bool:
    """Whether it is one of the many CCSIDR_EL1, which say least and so come last."""
    return name.startswith("CCSIDR_EL1[")
