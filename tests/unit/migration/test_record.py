"""The ABI record's form in <metadata>: it comes back as it was, and nothing else comes back."""

import zlib
from binascii import b2a_base64
from collections.abc import Callable
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tests.unit.migration.examples import GICV2_RECORD, RECORD
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Domain, RecordElement
from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import DomainXMLError, RecordError
from vgicmgr.kvm import uapi
from vgicmgr.kvm.registers import register_id
from vgicmgr.migration.document import from_document, render, to_document
from vgicmgr.migration.record import (
    MAX_REGISTERS,
    ABIRecord,
    RecordKind,
    as_migrated,
    boot_record,
    from_element,
    read_record,
    same_guest,
    to_xml,
)

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parents[3] / "xml" / "record.rng"))
DOMAIN = "<domain type='kvm'><name>g</name><memory>1</memory><os><type>hvm</type></os><metadata>{}</metadata></domain>"
SYSREG = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM64_SYSREG

registers = st.dictionaries(st.integers(0, 0xFFFF).map(SYSREG.__or__), st.integers(0, 2**64 - 1), max_size=400).map(
    lambda values: tuple(sorted(values.items()))
)
printable = st.text(st.characters(exclude_categories=("C", "Z")), max_size=40)
records = st.builds(
    replace,
    st.sampled_from([RECORD, GICV2_RECORD]),
    time=printable,
    kernel=printable,
    machine=printable,
    vcpus=st.integers(1, 512),
    steal_time=st.booleans(),
    sve=st.sampled_from([(), (128,), (128, 256, 512)]),
    gicd_iidr=st.integers(0, 2**32 - 1),
    registers=registers,
    uuid=printable,
    host=printable,
    process=printable,
)


def element(record: ABIRecord) -> RecordElement:
    """As it comes out of a domain XML."""
    found = read_domain(DOMAIN.format(to_xml(record)).encode()).record
    assert found is not None
    return found


def text(data: bytes) -> str:
    return b2a_base64(zlib.compress(data), newline=False).decode()


@given(records)
def test_a_record_comes_back_as_it_was(record: ABIRecord) -> None:
    assert read_record(element(record)) == record


@given(records)
def test_a_record_comes_back_from_its_document(record: ABIRecord) -> None:
    assert from_document(to_document(record)) == record


@given(records, st.sampled_from(RecordKind))
def test_a_record_meets_its_schema(record: ABIRecord, kind: RecordKind) -> None:
    assert SCHEMA.validate(etree.fromstring(to_xml(record, kind))), SCHEMA.error_log


def test_what_a_record_is_of_is_not_in_its_checksum() -> None:
    """A vgicmgr that does not know these attributes reads the record as it was (VERSION)."""
    named = replace(RECORD, uuid="3f0a4f5e-52c2-4f0e-9a0b-6d5d1f7d4c11", host="arm1", process="7a0d/12345")
    words = element(named)
    assert words.attributes["checksum"] == element(RECORD).attributes["checksum"]
    known = {name: value for name, value in words.attributes.items() if name not in ("uuid", "host", "process")}
    assert from_element(known, words.text) == RECORD
    assert same_guest(named, RECORD)
    assert "on arm1, Linux 6.12" in render(named)


def test_documents_of_records_that_do_not_say_what_they_are_of() -> None:
    document = to_document(RECORD)
    for name in ("uuid", "host", "process"):
        del document[name]
    assert from_document(document) == RECORD
    with pytest.raises(RecordError, match="not as its schema has it"):
        from_document({**document, "uuid": 7})


def test_the_xml_for_libvirt_has_no_namespace_since_libvirt_gives_it_one() -> None:
    assert to_xml(RECORD, namespace=False).startswith('<record version="1" time="2026-11-21T08:30:00Z"')


def test_a_domain_without_a_record() -> None:
    domain = read_domain(DOMAIN.format("<other xmlns='urn:x'/>").encode())
    assert (boot_record(domain), as_migrated(domain)) == (None, None)


def test_a_record_elsewhere_is_none() -> None:
    xml = DOMAIN.format("").replace("</domain>", f"<devices>{to_xml(RECORD)}</devices></domain>")
    assert read_domain(xml.encode()).record is None


def test_a_guest_that_moved_sends_the_registers_of_the_host_it_is_on_with_its_own_values() -> None:
    midr, mmfr1, tcr2 = map(register_id, ("MIDR_EL1", "ID_AA64MMFR1_EL1", "TCR2_EL1"))
    host = replace(RECORD, registers=tuple(sorted({midr: 7, tcr2: 5}.items())))
    domain = read_domain(DOMAIN.format(to_xml(RECORD) + to_xml(host, RecordKind.HOST)).encode())
    assert boot_record(domain) == RECORD
    migrated = as_migrated(domain)
    assert migrated is not None
    assert dict(migrated.registers) == {midr: RECORD.value(midr), tcr2: 5}
    assert mmfr1 not in dict(migrated.registers)


def test_a_bad_record_of_the_host_is_not_passed_over() -> None:
    bad = to_xml(RECORD, RecordKind.HOST).replace('vcpus="4"', 'vcpus="5"')
    domain = read_domain(DOMAIN.format(to_xml(RECORD) + bad).encode())
    with pytest.raises(RecordError, match="checksum"):
        as_migrated(domain)


@pytest.mark.parametrize("read", [boot_record, as_migrated])
def test_metadata_that_cannot_be_parsed_is_not_a_missing_record(
    read: Callable[[Domain], ABIRecord | None],
) -> None:
    domain = read_domain(DOMAIN.format(to_xml(RECORD) + "<app><b></app>").encode())
    with pytest.raises(RecordError, match="<metadata> cannot be read"):
        read(domain)


def test_two_records_are_one_too_many() -> None:
    with pytest.raises(DomainXMLError, match="twice"):
        read_domain(DOMAIN.format(to_xml(RECORD) * 2).encode())


@pytest.mark.parametrize(
    ("attribute", "value", "why"),
    [
        ("version", "2", "version 2, and this vgicmgr reads version 1"),
        ("version", "", "'version' that is no number"),
        ("kernel", "6.12.200", "checksum"),
        ("checksum", "0" * 64, "checksum"),
        ("vcpus", "0", "'vcpus' that is no number from 1"),
        ("vcpus", "٣", "'vcpus' that is no number"),
        ("gicd-iidr", "0x1ffffffff", "more than 32 bits"),
        ("gicd-iidr", "75", "no hexadecimal number"),
        ("features", "PSCI_0_2 FLUX_CAPACITOR", "vCPU feature unknown"),
        ("sve", "128 -1", "no list of vector lengths"),
        ("machine", "virt\n", "no short text"),
        ("machine", "v" * 1000, "no short text"),
    ],
)
def test_a_changed_attribute_is_noticed(attribute: str, value: str, why: str) -> None:
    good = element(RECORD)
    with pytest.raises(RecordError, match=why):
        from_element({**good.attributes, attribute: value}, good.text)


@pytest.mark.parametrize("attribute", ["version", "time", "vcpus", "features", "gicd-iidr", "gits-typer"])
def test_a_missing_attribute_is_noticed(attribute: str) -> None:
    good = element(RECORD)
    with pytest.raises(RecordError):
        from_element({name: value for name, value in good.attributes.items() if name != attribute}, good.text)


MIDR = register_id("MIDR_EL1")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "cannot be decoded|cut off"),
        ("AAAA", "cannot be decoded"),
        ("é", "cannot be decoded"),
        (text(b"")[:-4], "cut off"),
        (text(bytes(8)), "cut off"),
        (text(pack("<4Q", MIDR + 1, MIDR, 0, 0)), "not in order"),
        (text(pack("<4Q", MIDR, MIDR, 0, 0)), "not in order"),
        (text(pack("<2Q", 0x2030000000000000, 0)), "not the id of a register"),
        (text(pack("<2Q", register_id("Z0"), 0)), "not the id of a register"),
        (text(pack("<2Q", register_id("CCSIDR_EL1[L1 data]"), 1 << 32)), "not the id of a register"),
        (text(bytes(16 * MAX_REGISTERS + 16)), "more than 4096 registers"),
        (text(bytes(100 << 20)), "more than 4096 registers|larger than 128 KiB"),
        ("A" * (1 << 20), "larger than 128 KiB"),
    ],
    ids=range(13),
)
def test_registers_that_cannot_be(data: str, why: str) -> None:
    with pytest.raises(RecordError, match=why):
        from_element(element(RECORD).attributes, data)


@given(st.dictionaries(st.sampled_from([*element(RECORD).attributes, "x"]), st.text()), st.text())
def test_nothing_but_a_record_error_comes_of_garbage(attributes: dict[str, str], data: str) -> None:
    good = element(RECORD)
    for some in (attributes, {**good.attributes, **attributes}):
        for words in (data, good.text):
            try:
                from_element(some, words)
            except RecordError:
                continue


@given(st.binary(max_size=200))
def test_nothing_but_a_record_error_comes_of_any_bytes_as_registers(data: bytes) -> None:
    with pytest.raises(RecordError):
        from_element(element(RECORD).attributes, text(data))


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_nothing_but_a_record_error_comes_of_any_json(document: object) -> None:
    good = to_document(RECORD)
    for some in (document, {**good, **document} if isinstance(document, dict) else {**good, "registers": document}):
        try:
            from_document(some)
        except RecordError:
            continue


def test_counters_and_versions_do_not_make_another_guest() -> None:
    later = replace(RECORD, time="later", qemu="11.1.3", kernel="6.12.108")
    counted = replace(later, registers=tuple(sorted((*RECORD.registers, (uapi.KVM_REG_ARM_TIMER_CNT, 5)))))
    assert same_guest(RECORD, later)
    assert same_guest(RECORD, counted)
    assert not same_guest(RECORD, replace(RECORD, gicd_iidr=0))


def test_a_record_for_people_names_fields() -> None:
    shown = render(RECORD)
    assert "GICv3, GICD_IIDR 0x4b00343b, ICC_CTLR_EL1 0x400" in shown
    assert "XNX=1" in shown
