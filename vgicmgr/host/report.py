"""The report of ``vgicmgr check-host``: capabilities and findings in, lines of text out."""

from collections.abc import Iterator
from enum import Enum

from vgicmgr.dataclass import dataclass
from vgicmgr.findings import Finding, Severity, Verdict
from vgicmgr.host import capabilities as host
from vgicmgr.host.capabilities import HostCapabilities
from vgicmgr.host.judge import NEEDED
from vgicmgr.kvm import gicregs, idregs

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.qemu.emulator import Emulator, Emulators


class Mark(Enum):
    """What stands before a line."""

    OK = "ok"
    NONE = "-"
    """Neither good nor bad: not there, and not needed; or merely told."""
    WARNING = "warning"
    MISSING = "MISSING"


_COLOURS = {Mark.OK: "32", Mark.NONE: "2", Mark.WARNING: "33", Mark.MISSING: "31"}
_MARK_OF = {Severity.ERROR: Mark.MISSING, Severity.WARNING: Mark.WARNING, Severity.NOTE: Mark.NONE}


@dataclass(frozen=True)
class Line:
    """One answer: its label and value, and the names of the findings that are about it."""

    label: str
    value: str
    findings: tuple[str, ...] = ()
    mark: Mark = Mark.OK


@dataclass(frozen=True)
class Group:
    """Lines under one heading."""

    title: str
    lines: tuple[Line, ...]


def render(capabilities: HostCapabilities, verdict: Verdict, *, colour: bool) -> str:
    """The whole report, as text that ends with a newline."""
    groups = (
        Group("Host", tuple(_host(capabilities))),
        Group("GIC", tuple(_gic(capabilities))),
        Group("ITS", tuple(_its(capabilities))),
        Group("PMU", tuple(_pmu(capabilities))),
        Group("vCPU", tuple(_vcpu(capabilities))),
        *([Group("QEMU", tuple(_qemu(capabilities.qemu)))] if capabilities.qemu else []),
        Group("Capabilities", tuple(_capabilities(capabilities))),
    )
    told: set[str] = set()
    text: list[str] = []
    for group in groups:
        text.append(_paint(group.title, "1", colour))
        width = max((len(line.label) for line in group.lines), default=0)
        for line in group.lines:
            about = [finding for finding in verdict.findings if finding.name in line.findings]
            told.update(finding.name for finding in about)
            mark = _worst(about) if about else line.mark
            text.append(f"  {_paint(f'{mark.value:7}', _COLOURS[mark], colour)}  {line.label:{width}}  {line.value}")
            text.extend(_explain(about))
        text.append("")
    rest = [finding for finding in verdict.findings if finding.name not in told]
    for finding in rest:
        mark = _MARK_OF[finding.severity]
        text.append(f"  {_paint(f'{mark.value:7}', _COLOURS[mark], colour)}  {finding.evidence}")
        text.append(f"{'':11}remedy: {finding.remedy}")
    text.append(_summary(verdict))
    return "\n".join(text) + "\n"


def _explain(findings: list[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{'':11}{finding.evidence} [{finding.name}]"
        yield f"{'':11}remedy: {finding.remedy}"


def _worst(findings: list[Finding]) -> Mark:
    marks = [_MARK_OF[finding.severity] for finding in findings]
    return max(marks, key=list(Mark).index)


def _summary(verdict: Verdict) -> str:
    errors = [finding.name for finding in verdict.findings if finding.severity is Severity.ERROR]
    warnings = [finding.name for finding in verdict.findings if finding.severity is Severity.WARNING]
    if not errors:
        head = "Guests can have all that they normally need on this host."
    else:
        head = f"Guests cannot have all that they normally need on this host: {', '.join(errors)}."
    return head + (f" Worth knowing: {', '.join(warnings)}." if warnings else "")


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text


def _present(there: bool) -> str:
    return "yes" if there else "no"


def _optional(label: str, there: bool, value: str = "") -> Line:
    """A line about something that guests do without."""
    return Line(label, value or _present(there), mark=Mark.OK if there else Mark.NONE)


def _host(capabilities: HostCapabilities) -> Iterator[Line]:
    machine = capabilities.machine
    yield Line("kernel", f"Linux {machine.kernel}, {machine.architecture}", mark=Mark.NONE)
    yield Line("page size", f"{machine.page_size // 1024} KiB", mark=Mark.NONE)
    for core in machine.core_types:
        yield Line("CPU", f"MIDR_EL1 {core.midr:#010x} ({_midr(core.midr)}), {_cpus(core.cpus)}", ("cpu-types-mixed",))
    if not machine.core_types:
        yield Line("CPU", "MIDR_EL1 not shown in sysfs", mark=Mark.NONE)
    yield Line("KVM API version", str(capabilities.api_version), ("kvm-api-version",))
    yield Line(
        "KVM mode", capabilities.log.mode or "not in the kernel log (any more, or for this user)", mark=Mark.NONE
    )
    if hertz := capabilities.counter_frequency:
        yield Line("counter", f"{hertz // 1_000_000}.{hertz // 10_000 % 100:02} MHz", mark=Mark.NONE)
    yield Line("guest physical addresses", f"{capabilities.ipa_bits} bits", ("ipa-size-small",))


def _midr(midr: int) -> str:
    fields = idregs.decode("MIDR_EL1", midr)
    return (
        f"implementer {fields['Implementer']:#x}, part {fields['PartNum']:#x}, "
        f"r{fields['Variant']}p{fields['Revision']}"
    )


def _cpus(numbers: tuple[int, ...]) -> str:
    """CPU numbers as the kernel writes lists of them: ``0-3,8``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    text = ",".join(f"{first}-{last}" if first != last else f"{first}" for first, last in ranges)
    return f"CPU{'s' if len(numbers) > 1 else ''} {text}"


def _gic(capabilities: HostCapabilities) -> Iterator[Line]:
    v3, v2, log = capabilities.gicv3, capabilities.gicv2, capabilities.log
    missing = ("gic-missing", "gicv3-missing", "probe-refused")
    if v3 is None:
        yield Line("GICv3", "no", missing, Mark.NONE)
    else:
        yield Line("GICv3", _gic_value(v3), ("gic-registers-missing",))
        yield Line("redistributor regions", "several" if v3.redistributor_regions else "one", (_REGIONS,))
        yield Line("line levels", _present(v3.line_level), ("line-level-missing",))
        yield Line("pending LPIs saved", _present(v3.save_pending_tables), ("pending-tables-missing",))
        yield Line("GICv3 CPU interface", _cpu_interface(v3.icc_ctlr_el1), mark=Mark.NONE)
    if v2 is None:
        yield Line("GICv2", "no", (), Mark.NONE)
    else:
        yield Line("GICv2", _gic_value(v2))
    yield _optional("GICv5", capabilities.gicv5)
    yield Line("direct injection (GICv4)", _direct_injection(log), mark=Mark.OK if log.gicv4 else Mark.NONE)


_REGIONS = "redistributor-regions-missing"


def _gic_value(gic: host.GICv2 | host.GICv3) -> str:
    revisions = ", ".join(map(str, gic.iidr_revisions)) or "none"
    return (
        f"up to {gic.max_vcpus} vCPUs and {gic.max_intids} INTIDs; GICD_IIDR {gic.gicd_iidr:#010x}, "
        f"revisions accepted: {revisions}"
    )


def _cpu_interface(icc_ctlr: int) -> str:
    """ICC_CTLR_EL1's fields that are the hardware's."""
    fields = gicregs.ICC_CTLR_EL1.decode(icc_ctlr)
    return (
        f"{fields['PRIbits'] + 1} priority bits, {24 if fields['IDbits'] else 16} INTID bits, "
        f"SEIS {fields['SEIS']}, A3V {fields['A3V']}"
    )


def _direct_injection(log: host.KernelLog) -> str:
    if log.gicv4 is None:
        return "not in the kernel log (any more, or for this user)"
    if log.gicv4_version is None:
        return "not offered by this host's GIC"
    state = "on" if log.gicv4 else "off (kernel parameter kvm-arm.vgic_v4_enable)"
    return f"GICv{log.gicv4_version}, {state}"


def _its(capabilities: HostCapabilities) -> Iterator[Line]:
    its = capabilities.its
    if its is None:
        yield Line("ITS", "no", ("its-missing",), Mark.NONE)
        return
    revisions = ", ".join(map(str, its.abi_revisions)) or "none"
    yield Line("ITS", f"GITS_IIDR {its.gits_iidr:#010x}, table ABI revisions accepted: {revisions}")
    yield Line("GITS_TYPER", f"{its.gits_typer:#x} ({_gits_typer(its.gits_typer)})", mark=Mark.NONE)
    saved = its.registers and its.save_tables and its.restore_tables
    yield Line("state saved and restored", _present(saved), ("its-state-missing",))
    yield _optional("reset by attribute", its.reset)
    yield Line("MSIs with a device id", _present(its.msi_devid), ("msi-devid-missing",))


def _gits_typer(typer: int) -> str:
    fields = gicregs.GITS_TYPER.decode(typer)
    return (
        f"{fields['Devbits'] + 1} device id bits, {fields['ID_bits'] + 1} event id bits, "
        f"{fields['ITT_entry_size'] + 1} bytes an ITT entry"
    )


def _pmu(capabilities: HostCapabilities) -> Iterator[Line]:
    pmu = capabilities.pmu
    if pmu is None:
        yield Line("PMU", "no", ("pmu-missing",), Mark.NONE)
        return
    yield Line("PMU", f"PMUv3, {pmu.counters} event counters")
    yield Line(
        "interrupt",
        "as a PPI the same on all vCPUs, as an SPI a different one on each" if pmu.interrupt else "no",
        ("pmu-interrupt-missing",),
    )
    yield _optional("event filter", pmu.filter)
    yield _optional("choice of the host's PMU", pmu.choice)
    yield _optional("choice of the counters", pmu.counter_limit)


def _vcpu(capabilities: HostCapabilities) -> Iterator[Line]:
    vcpu, answers = capabilities.vcpu, capabilities.capabilities
    if vcpu is None:
        yield Line("vCPU", "refused", ("probe-refused",), Mark.MISSING)
        return
    lengths = ", ".join(map(str, vcpu.sve_vector_lengths))
    yield _optional("SVE", bool(lengths), f"vector lengths in bits: {lengths}" if lengths else "")
    yield _optional("pointer authentication", "KVM_ARM_VCPU_PTRAUTH_ADDRESS" in vcpu.features)
    yield _optional("32-bit EL1", bool(answers.get("KVM_CAP_ARM_EL1_32BIT")))
    yield _optional("EL2 (nested)", bool(answers.get("KVM_CAP_ARM_EL2")))
    yield _optional("MTE", bool(answers.get("KVM_CAP_ARM_MTE")))
    yield _optional("stolen time", vcpu.steal_time)
    yield Line(
        "registers",
        f"{vcpu.listed_registers} listed, {vcpu.migrated_registers} of them migrate as a list",
        mark=Mark.NONE,
    )
    for name, value in vcpu.firmware:
        yield Line(name.removeprefix("KVM_REG_ARM_"), f"{value:#x}", mark=Mark.NONE)


def _capabilities(capabilities: HostCapabilities) -> Iterator[Line]:
    for name, value in sorted(capabilities.capabilities.items()):
        if name in NEEDED:
            yield Line(name, str(value), ("capability-missing",) if not value else ())
        elif name == "KVM_CAP_MSI_DEVID":
            yield Line(name, f"{value} (of a VM without an ITS)", mark=Mark.NONE)
        else:
            yield Line(name, str(value), mark=Mark.NONE)


def _qemu(qemus: "Emulators") -> Iterator[Line]:
    if not qemus.answered and not qemus.not_asked:
        yield Line("QEMU", "not installed where distributions put it", mark=Mark.NONE)
    for one in qemus.not_asked:
        remedy = f" ({one.remedy})" if one.remedy and not one.failed else ""
        yield Line(one.path, f"not asked: {one.why}{remedy}", ("qemu-unanswered",) if one.failed else (), Mark.NONE)
    for qemu in qemus.answered:
        package = f" ({qemu.package})" if qemu.package else ""
        yield Line(qemu.path, f"QEMU {qemu.version}{package}", ("qemu-program",))
        yield Line("KVM", "used" if qemu.kvm else "not used", ("qemu-kvm",))
        yield Line("machine types", _machines(qemu), mark=Mark.NONE)
        yield Line("gic-version", ", ".join(qemu.gic_versions), mark=Mark.NONE)
        yield Line("msi", ", ".join(qemu.msi) or "no such property: its=on or off", mark=Mark.NONE)
        if qemu.kvm:
            gics = f"in the kernel {_numbers(qemu.gic_kernel)}; emulated {_numbers(qemu.gic_emulated)}"
            yield Line("GIC versions", gics, ("qemu-gic",))
            yield Line("CPU 'host'", _cpu(qemu), ("qemu-cpu", "qemu-pmu", "qemu-pauth", "qemu-sve"), Mark.NONE)


def _numbers(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _machines(qemu: "Emulator") -> str:
    if not qemu.machines:
        return "no virt"
    many = f"{qemu.machines[0]} to {qemu.machines[-1]}" if len(qemu.machines) > 1 else qemu.machines[0]
    old = f", {len(qemu.deprecated_machines)} of them deprecated" if qemu.deprecated_machines else ""
    return f"{many}{old}; virt is {qemu.default_machine}, up to {qemu.max_cpus} vCPUs"


def _cpu(qemu: "Emulator") -> str:
    lengths = _numbers(qemu.sve_vector_lengths)
    on = [name for name, there in qemu.cpu.items() if there and not name.startswith("sve")]
    return f"{', '.join(on) or 'nothing told'}; SVE vector lengths in bits: {lengths}"
