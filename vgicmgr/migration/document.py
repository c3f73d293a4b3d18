"""The ABI record as a JSON document and as text. Pure.

Registers and register-like numbers are hexadecimal strings, since JSON readers lose bits of 64-bit numbers.
"""

from typing import Any

from vgicmgr.errors import RecordError
from vgicmgr.host.counter import megahertz
from vgicmgr.kvm.idregs import decode
from vgicmgr.kvm.registers import register_id, register_name
from vgicmgr.migration.record import MAX_FREQUENCY, ABIRecord

KIND = "vgicmgr ABI record"
VERSION = 1
_NAMES = ("uuid", "host", "process")
_LATER = ("counter_frequency", *_NAMES)
"""What the first documents of this version do not have."""
_MEMBERS = tuple(member for member in ABIRecord.__match_args__ if member != "sender_qemu")
"""What is of the record itself."""
_HEX = ("gicd_iidr", "icc_ctlr_el1", "gits_iidr", "gits_typer")


def to_document(record: ABIRecord) -> dict[str, Any]:
    """The document, ready for :func:`json.dumps`."""
    members: dict[str, Any] = {"document": KIND, "version": VERSION}
    for member in _MEMBERS:
        value = getattr(record, member)
        if member == "registers":
            value = {register_name(number): hex(content) for number, content in value}
        elif member in _HEX and value is not None:
            value = hex(value)
        elif isinstance(value, tuple):
            value = list(value)
        members[member] = value
    return members


def from_document(document: Any) -> ABIRecord:
    """The record that such a document says; raises :class:`~vgicmgr.errors.RecordError`."""
    if not isinstance(document, dict) or document.get("document") != KIND:
        raise RecordError("the document is no ABI record of vgicmgr's")
    if document.get("version") != VERSION:
        raise RecordError(f"the ABI record's document is not of version {VERSION}")
    try:
        members: dict[str, Any] = {
            member: document[member] for member in _MEMBERS if member not in _LATER or member in document
        }
        for name in _HEX:
            if members[name] is not None:
                members[name] = int(members[name], 16)
        for name in ("features", "sve"):
            members[name] = tuple(members[name])
        members["registers"] = tuple(
            sorted((register_id(name), int(value, 16)) for name, value in members["registers"].items())
        )
        frequency = members.get("counter_frequency")
        if frequency is not None and not (type(frequency) is int and 0 < frequency <= MAX_FREQUENCY):
            raise ValueError
        if not all(isinstance(members.get(name, ""), str) for name in _NAMES):
            raise TypeError
        return ABIRecord(**members)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RecordError("the ABI record's document is not as its schema has it") from None


def render(record: ABIRecord) -> str:
    """The record for people, each ID register with its fields."""
    lines = [
        f"booted     {record.time} on {f'{record.host}, ' if record.host else ''}Linux {record.kernel}, "
        f"QEMU {record.qemu}, libvirt {record.libvirt}",
        f"machine    {record.machine}, {record.vcpus} vCPU(s), {record.ipa_bits} bits of guest physical addresses, "
        f"host pages of {record.page_size >> 10} KiB",
        f"features   {', '.join(record.features)}" + (", stolen time" if record.steal_time else ""),
        f"SVE        {', '.join(map(str, record.sve))} bits" if record.sve else "SVE        none",
        f"GIC        GICv{record.gic_version}, GICD_IIDR {record.gicd_iidr:#x}"
        + (f", ICC_CTLR_EL1 {record.icc_ctlr_el1:#x}" if record.icc_ctlr_el1 is not None else ""),
        f"ITS        GITS_IIDR {record.gits_iidr:#x}, GITS_TYPER {record.gits_typer:#x}"
        if record.gits_iidr is not None
        else "ITS        none",
        f"counter    {megahertz(record.counter_frequency) if record.counter_frequency else 'not known'}",
        f"registers  {len(record.registers)}",
    ]
    for number, value in record.registers:
        name = register_name(number)
        shown = " ".join(f"{field}={content:x}" for field, content in decode(name, value).items() if content)
        lines.append(f"  {name:36} {value:#018x}  {shown}".rstrip())
    return "\n".join(lines) + "\n"
