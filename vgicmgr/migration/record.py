"""The ABI record: what a guest has seen since it was booted, and its form in the domain's ``<metadata>``.

One element of a namespace of its own (libvirt keeps one element a namespace in ``<metadata>``); ``xml/record.rng`` is
its schema. A guest that has moved has a second one, of the host that it moved to (:class:`RecordKind`). The text is the
registers: their ids in ascending order, then their values, 64 bits each and little-endian, compressed by zlib, in
base64. ``checksum`` is the SHA-256 of all the rest but what came later (``_UNCHECKED``), so that an editor's slip is
noticed; it protects from nobody who means harm, which is why whoever reads a record believes no register that the
kernel has not taken.

Pure: values in, values out.
"""

import zlib
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from enum import Enum
from itertools import pairwise
from struct import Struct

from vgicmgr.dataclass import dataclass, replace
from vgicmgr.domain.domain import ABI_ELEMENT, ABI_HOST, ABI_RECORD, Domain, RecordElement
from vgicmgr.errors import RecordError
from vgicmgr.host.counter import same_frequency
from vgicmgr.kvm import uapi

try:
    # as fast to start as hashlib, which brings OpenSSL along, is slow
    from _sha2 import sha256 as _sha256  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    from hashlib import sha256 as _sha256


class RecordKind(Enum):
    """Of which boot or host a record is, by its namespace in ``<metadata>``."""

    BOOT = ABI_RECORD
    """The guest's boot: it never changes."""
    HOST = ABI_HOST
    """The host the guest has moved to since: what a guest booted there would have. QEMU sends the list of registers of
    the host that it runs on, whatever the guest was booted with."""

    @property
    def prefix(self) -> str:
        """Of the namespace; what libvirt calls the metadata's key."""
        return "vgicmgr-abi" if self is RecordKind.BOOT else "vgicmgr-host"


VERSION = 1
"""Raised when a reader of the former version would misread a record; attributes may be added without."""

MAX_REGISTERS = 4096
"""The longest list that is read; Linux 7.2 lists some 300 and no kernel 1000."""
_NAMES = ("uuid", "host", "process")
_UNCHECKED = ("counter-frequency", *_NAMES)
"""Attributes that came later, and are left out of the checksum: a reader that does not know them computes the same."""
MAX_FREQUENCY = 100_000_000_000
"""The fastest counter that is believed, in Hz; the architecture's is 1 GHz."""
_MAX_ENCODED = 128 << 10
_MAX_TEXT = 256
_UINT64 = 1 << 64


@dataclass(frozen=True)
class ABIRecord:
    """What a guest was booted with and can see.

    ``kernel``, ``qemu`` and ``libvirt`` are the versions it was booted under, ``time`` when (ISO 8601, UTC).
    ``machine`` is the versioned machine type. ``features`` are the vCPUs' KVM_ARM_VCPU_* features and ``sve`` their
    vector lengths in bits. ``ipa_bits`` is the host's largest guest physical address size, ``page_size`` the host's in
    bytes. ``gicd_iidr`` is 0 where QEMU emulates the GIC. ``icc_ctlr_el1`` is None without a GICv3, ``gits_iidr`` and
    ``gits_typer`` without an ITS. ``registers`` are ids and first values of vCPU 0, by ascending id: those that QEMU
    carries in its list.

    What it is of: ``uuid`` is the domain's, ``host`` the name of the host that it was written on, ``process`` the QEMU
    there (:class:`~vgicmgr.qemu.process.QEMUProcess`); empty in a record of an older vgicmgr.
    """

    time: str
    kernel: str
    qemu: str
    libvirt: str
    machine: str
    vcpus: int
    features: tuple[str, ...]
    sve: tuple[int, ...]
    steal_time: bool
    ipa_bits: int
    page_size: int
    gic_version: int
    gicd_iidr: int
    icc_ctlr_el1: int | None
    gits_iidr: int | None
    gits_typer: int | None
    registers: tuple[tuple[int, int], ...]
    counter_frequency: int | None = None
    """Of the counter that the guest reads, in Hz; None where nobody has measured it (a record of an older vgicmgr)."""
    uuid: str = ""
    host: str = ""
    process: str = ""
    sender_qemu: str | None = None
    """The version of the QEMU that the guest has moved to; None where it is still on that of its boot. No part of a
    record as it is written: :func:`after_move` fills it in."""

    @property
    def in_kernel(self) -> bool:
        """Whether KVM made the guest's GIC: its GICD_IIDR is never 0 (the implementer is in it)."""
        return self.gicd_iidr != 0

    def value(self, register_id: int) -> int | None:
        """The first value of a register, if the guest has it."""
        return dict(self.registers).get(register_id)


def after_move(record: ABIRecord, host: ABIRecord) -> ABIRecord:
    """What QEMU sends of a guest booted with ``record`` from a host where ``host`` is what it would have been.

    The registers are that host's; those that the guest brought along have its values (target/arm/machine.c).
    """
    values = dict(record.registers)
    registers = tuple((number, values.get(number, value)) for number, value in host.registers)
    return replace(record, registers=registers, sender_qemu=host.qemu)


def read_record(element: RecordElement) -> ABIRecord:
    """The record that an element of ``<metadata>`` says; raises :class:`RecordError`."""
    return from_element(element.attributes, element.text)


def boot_record(domain: Domain) -> ABIRecord | None:
    """The record of the boot in a domain; None without one. Raises :class:`RecordError`."""
    if domain.metadata_unreadable:
        raise RecordError(f"the domain's <metadata> cannot be read: {domain.metadata_unreadable}")
    return read_record(domain.record) if domain.record else None


def as_migrated(domain: Domain) -> ABIRecord | None:
    """The same with the registers that QEMU sends from the host that the guest is on. Raises :class:`RecordError`."""
    record = boot_record(domain)
    if record is None or domain.host_record is None:
        return record
    return after_move(record, read_record(domain.host_record))


def to_xml(record: ABIRecord, kind: RecordKind = RecordKind.BOOT, *, namespace: bool = True) -> str:
    """The record as an element; without its ``namespace`` for virDomainSetMetadata, which gives it that itself."""
    attributes = {**_attributes(record), "checksum": _checksum(record)}
    words = "".join(f' {name}="{_escaped(value)}"' for name, value in attributes.items())
    text = b2a_base64(zlib.compress(_packed(record.registers), 9), newline=False).decode()
    name, declaration = ABI_ELEMENT, ""
    if namespace:
        name, declaration = f"{kind.prefix}:{ABI_ELEMENT}", f' xmlns:{kind.prefix}="{kind.value}"'
    return f"<{name}{declaration}{words}>{text}</{name}>"


def same_guest(a: ABIRecord, b: ABIRecord) -> bool:
    """Whether two records say the same of what a guest sees: all but versions, time and the running counters."""

    def seen(record: ABIRecord) -> ABIRecord:
        registers = tuple((number, value) for number, value in record.registers if number not in _COUNTERS)
        return replace(
            replace(record, time="", kernel="", qemu="", libvirt="", uuid="", host="", process=""),
            registers=registers,
            counter_frequency=frequency(record),
        )

    def frequency(record: ABIRecord) -> int | None:
        """Measured twice, one frequency may come out as two."""
        one, other = record.counter_frequency, a.counter_frequency
        return other if one and other and same_frequency(one, other) else one

    return seen(a) == seen(b)


_COUNTERS = frozenset((uapi.KVM_REG_ARM_TIMER_CNT, uapi.KVM_REG_ARM_PTIMER_CNT))


def from_element(attributes: Mapping[str, str], text: str) -> ABIRecord:
    """The record whose element has these attributes and this text; raises :class:`RecordError`, and nothing else."""
    if len(text) > _MAX_ENCODED:
        raise RecordError(f"the ABI record is larger than {_MAX_ENCODED >> 10} KiB")
    version = _number(attributes, "version", most=10**6)
    if version != VERSION:
        raise RecordError(
            f"the ABI record has version {version}, and this vgicmgr reads version {VERSION}",
            "bring vgicmgr up to date on this host",
        )
    v3 = "icc-ctlr-el1" in attributes
    its = "gits-iidr" in attributes
    record = ABIRecord(
        time=_text(attributes, "time"),
        kernel=_text(attributes, "kernel"),
        qemu=_text(attributes, "qemu"),
        libvirt=_text(attributes, "libvirt"),
        machine=_text(attributes, "machine"),
        vcpus=_number(attributes, "vcpus", least=1, most=2**16),
        features=tuple(map(_feature, _text(attributes, "features").split())),
        sve=_lengths(_text(attributes, "sve")),
        steal_time=_number(attributes, "steal-time", most=1) == 1,
        ipa_bits=_number(attributes, "ipa-bits", least=32, most=56),
        page_size=_number(attributes, "page-size", least=4096, most=65536),
        gic_version=_number(attributes, "gic-version", least=2, most=5),
        gicd_iidr=_hexadecimal(attributes, "gicd-iidr", 32),
        icc_ctlr_el1=_hexadecimal(attributes, "icc-ctlr-el1", 64) if v3 else None,
        gits_iidr=_hexadecimal(attributes, "gits-iidr", 32) if its else None,
        gits_typer=_hexadecimal(attributes, "gits-typer", 64) if its else None,
        registers=_unpacked(text),
        counter_frequency=_number(attributes, "counter-frequency", least=1, most=MAX_FREQUENCY)
        if "counter-frequency" in attributes
        else None,
        **{name: _text(attributes, name) for name in _NAMES if name in attributes},
    )
    if attributes.get("checksum") != _checksum(record):
        raise RecordError(
            "the ABI record is damaged: its checksum does not match",
            "shut the guest down and start it again, or 'vgicmgr record write --force DOMAIN'",
        )
    return record


def _attributes(record: ABIRecord) -> dict[str, str]:
    """Everything but the registers, as it stands in the element."""
    words = {"version": str(VERSION)}
    for member in record.__match_args__:
        value = getattr(record, member)
        name = member.replace("_", "-")
        if member in ("registers", "sender_qemu") or value is None or (member in _UNCHECKED and not value):
            continue
        if isinstance(value, bool):
            words[name] = str(int(value))
        elif isinstance(value, tuple):
            words[name] = " ".join(str(item).removeprefix(_FEATURE) for item in value)
        elif isinstance(value, int) and member.startswith(("gicd", "icc", "gits")):
            words[name] = f"{value:#x}"
        else:
            words[name] = str(value)
    return words


_FEATURE = "KVM_ARM_VCPU_"


def _checksum(record: ABIRecord) -> str:
    checked = {name: value for name, value in _attributes(record).items() if name not in _UNCHECKED}
    lines = "".join(f"{name}={value}\n" for name, value in checked.items())
    digest: str = _sha256(lines.encode() + _packed(record.registers)).hexdigest()
    return digest


def _packed(registers: tuple[tuple[int, int], ...]) -> bytes:
    ids, values = zip(*registers, strict=True) if registers else ((), ())
    return Struct(f"<{2 * len(registers)}Q").pack(*ids, *values)


def _unpacked(text: str) -> tuple[tuple[int, int], ...]:
    limit = 16 * MAX_REGISTERS
    try:
        inflater = zlib.decompressobj()
        data = inflater.decompress(a2b_base64(text), limit + 1)
    except (Base64Error, zlib.error, ValueError):
        raise RecordError("the ABI record is damaged: its registers cannot be decoded") from None
    if len(data) > limit:
        raise RecordError(f"the ABI record is damaged: it has more than {MAX_REGISTERS} registers")
    if not inflater.eof or inflater.unused_data or len(data) % 16:
        raise RecordError("the ABI record is damaged: its registers are cut off")
    count = len(data) // 16
    numbers = Struct(f"<{2 * count}Q").unpack(data)
    registers = tuple(zip(numbers[:count], numbers[count:], strict=True))
    for number, value in registers:
        if not _plausible(number, value):
            raise RecordError(f"the ABI record is damaged: {number:#018x} is not the id of a register QEMU carries")
    if any(a >= b for a, b in pairwise(numbers[:count])):
        raise RecordError("the ABI record is damaged: its registers are not in order")
    return registers


def _plausible(number: int, value: int) -> bool:
    """An arm64 id of 32 or 64 bits (QEMU handles no others), with a value of that size."""
    if number & uapi.KVM_REG_ARCH_MASK != uapi.KVM_REG_ARM64:
        return False
    size = number & uapi.KVM_REG_SIZE_MASK
    return size == uapi.KVM_REG_SIZE_U64 or (size == uapi.KVM_REG_SIZE_U32 and value < 1 << 32)


def _text(attributes: Mapping[str, str], name: str) -> str:
    value = attributes.get(name)
    if value is None:
        raise RecordError(f"the ABI record has no attribute '{name}'")
    if len(value) > _MAX_TEXT or not value.isprintable():
        raise RecordError(f"the ABI record has an attribute '{name}' that is no short text")
    return value


def _number(attributes: Mapping[str, str], name: str, *, least: int = 0, most: int) -> int:
    value = _text(attributes, name)
    if not (value.isascii() and value.isdigit() and len(value) <= 20 and least <= int(value) <= most):
        raise RecordError(f"the ABI record has an attribute '{name}' that is no number from {least} to {most}")
    return int(value)


def _hexadecimal(attributes: Mapping[str, str], name: str, bits: int) -> int:
    value = _text(attributes, name)
    digits = value.removeprefix("0x")
    if not (value.startswith("0x") and digits and len(digits) <= 16 and set(digits) <= _HEX_DIGITS):
        raise RecordError(f"the ABI record has an attribute '{name}' that is no hexadecimal number")
    if int(digits, 16) >= 1 << bits:
        raise RecordError(f"the ABI record has an attribute '{name}' of more than {bits} bits")
    return int(digits, 16)


_HEX_DIGITS = frozenset("0123456789abcdef")


def _feature(word: str) -> str:
    name = _FEATURE + word
    if not hasattr(uapi, name):
        raise RecordError("the ABI record names a vCPU feature unknown to this vgicmgr")
    return name


def _lengths(text: str) -> tuple[int, ...]:
    words = text.split()
    if not all(word.isascii() and word.isdigit() and len(word) <= 5 for word in words):
        raise RecordError("the ABI record has an attribute 'sve' that is no list of vector lengths")
    return tuple(map(int, words))


def _escaped(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return text
