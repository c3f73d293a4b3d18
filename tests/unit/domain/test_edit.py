"""Editing a domain XML in place: what is added, and that nothing else changes."""

import re
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vgicmgr.domain.edit import set_interrupts
from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import DomainXMLError

EXAMPLES = sorted((Path(__file__).parents[3] / "xml").glob("*.xml"))
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"

PLAIN = b"""\
<domain type='kvm'>
  <name>g</name>
  <memory unit="KiB">1048576</memory>
  <os>
    <type arch='aarch64' machine='virt'>hvm</type>
  </os>
</domain>
"""


def added(before: bytes, after: bytes) -> str:
    """What stands in ``after`` besides ``before``, which is all there and in one piece before and behind it."""
    common = next((n for n in range(len(before)) if before[n] != after[n]), len(before))
    tail = len(before) - common
    assert after.endswith(before[common:])
    return after[common : len(after) - tail].decode()


def test_features_are_made_where_there_are_none() -> None:
    after = set_interrupts(PLAIN, gic_version="3")
    assert b"  </os>\n  <features>\n    <gic version='3'/>\n  </features>\n</domain>\n" in after
    assert read_domain(after).gic_version == "3"


def test_a_gic_is_added_to_the_features_there_are() -> None:
    before = PLAIN.replace(b"</domain>", b"  <features>\n    <acpi/>\n  </features>\n</domain>")
    assert b"    <acpi/>\n    <gic version='3'/>\n  </features>" in set_interrupts(before, gic_version="3")


@pytest.mark.parametrize("features", ["<features/>", "<features></features>", "<features >\n</features >"])
def test_empty_features(features: str) -> None:
    after = set_interrupts(PLAIN.replace(b"</domain>", f"  {features}\n</domain>".encode()), gic_version="2")
    assert read_domain(after).gic_version == "2"


@pytest.mark.parametrize("gic", ["<gic/>", "<gic />", "<gic></gic>", "<gic\n/>"])
def test_a_gic_without_version_gets_one(gic: str) -> None:
    before = PLAIN.replace(b"</domain>", f"  <features>{gic}</features>\n</domain>".encode())
    after = set_interrupts(before, gic_version="3")
    assert read_domain(after).gic_version == "3"
    assert added(before, after).strip() == "version='3'"


@pytest.mark.parametrize(
    ("gic", "expected"),
    [
        ("<gic version=''/>", "<gic version='3'/>"),
        ('<gic version = "" />', "<gic version='3' />"),
        ("<gic\n  version='host'></gic>", "<gic\n  version='3'></gic>"),
        ("<gic é=\" version='9'\" version='2'/>", "<gic é=\" version='9'\" version='3'/>"),
    ],
)
def test_a_version_that_is_there_is_replaced(gic: str, expected: str) -> None:
    before = PLAIN.replace(b"</domain>", f"  <features>{gic}</features>\n</domain>".encode())
    assert set_interrupts(before, gic_version="3") == before.replace(gic.encode(), expected.encode())


def test_the_last_of_several_commandlines_is_added_to() -> None:
    commandline = "<qemu:commandline><qemu:arg value='-machine'/><qemu:arg value='its={}'/></qemu:commandline>"
    before = PLAIN.replace(b"<domain ", f"<domain xmlns:qemu='{QEMU}' ".encode())
    before = before.replace(b"</domain>", (commandline.format("on") + commandline.format("on") + "</domain>").encode())
    after = set_interrupts(before, machine_options=[("its", "off")])
    assert read_domain(after).qemu_arguments[-2:] == ("-machine", "its=off")


def test_what_is_added_is_quoted() -> None:
    after = set_interrupts(PLAIN, machine_options=[("x", "'\"<&>")])
    assert read_domain(after).qemu_arguments == ("-machine", "x='\"<&>")


@pytest.mark.parametrize("metadata", ["<a:app xmlns:a='My App'><b:x/></a:app>", "<a:Ƞ/>", '<a:app xmlns:a="a<b"/>'])
def test_metadata_that_only_libvirt_can_read_stays_as_it_is(metadata: str) -> None:
    before = PLAIN.replace(b"  <os>", f"  <metadata>\n {metadata}</metadata>\n  <os>".encode())
    after = set_interrupts(before, gic_version="3", machine_options=[("its", "off")])
    assert (read_domain(after).gic_version, read_domain(after).qemu_arguments) == ("3", ("-machine", "its=off"))
    assert after.partition(b"<os>")[0] == before.partition(b"<os>")[0]


def test_a_commandline_is_made_at_the_end_with_its_namespace() -> None:
    after = set_interrupts(PLAIN, machine_options=[("its", "off")])
    assert added(PLAIN, after).strip().startswith(f"<qemu:commandline xmlns:qemu='{QEMU}'>")
    assert read_domain(after).qemu_arguments == ("-machine", "its=off")


@pytest.mark.parametrize("prefix", ["qemu", "q"])
def test_a_prefix_of_the_root_is_used(prefix: str) -> None:
    before = PLAIN.replace(b"<domain ", f"<domain xmlns:{prefix}='{QEMU}' ".encode())
    after = set_interrupts(before, machine_options=[("its", "off"), ("msi", "auto")])
    assert f"  <{prefix}:commandline>\n".encode() in after
    assert read_domain(after).qemu_arguments == ("-machine", "its=off,msi=auto")


@pytest.mark.parametrize(
    "commandline",
    [
        "<qemu:commandline><qemu:arg value='-S'/></qemu:commandline>",
        "<qemu:commandline>\n    <qemu:arg value='-S'/>\n  </qemu:commandline>",
        "<commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'><arg value='-S'/></commandline>",
        f'<q:commandline xmlns:q="{QEMU}" ><q:arg value="-S"></q:arg></q:commandline >',
    ],
)
def test_arguments_are_added_behind_those_there_are(commandline: str) -> None:
    before = PLAIN.replace(b"<domain ", f"<domain xmlns:qemu='{QEMU}' ".encode())
    before = before.replace(b"</domain>", f"  {commandline}\n</domain>".encode())
    after = set_interrupts(before, machine_options=[("its", "off")])
    assert read_domain(after).qemu_arguments == ("-S", "-machine", "its=off")
    added(before, after)


def test_a_document_without_lines_stays_without() -> None:
    before = re.sub(rb"\n *", b"", PLAIN)
    after = set_interrupts(before, gic_version="3", machine_options=[("its", "off")])
    assert b"\n" not in after
    assert read_domain(after).gic_version == "3"
    assert read_domain(after).qemu_arguments == ("-machine", "its=off")


def test_line_ends_of_another_kind_are_kept() -> None:
    after = set_interrupts(PLAIN.replace(b"\n", b"\r\n"), gic_version="3")
    assert after.count(b"\n") == after.count(b"\r\n")


def test_what_looks_like_an_element_but_is_none() -> None:
    before = PLAIN.replace(
        b"<name>", b"<!-- <features><gic/></features> --><metadata><features><gic/></features></metadata><name>"
    ).replace(b"</domain>", b"<title><![CDATA[</domain>]]></title><description a='>'/></domain>")
    after = set_interrupts(before, gic_version="3", machine_options=[("its", "off")])
    assert read_domain(after).gic_version == "3"
    assert before.partition(b"<os>")[0] == after.partition(b"<os>")[0]


def test_nothing_to_do() -> None:
    assert set_interrupts(PLAIN) == PLAIN


def test_a_bad_document_is_refused() -> None:
    with pytest.raises(DomainXMLError):
        set_interrupts(PLAIN[:-5], gic_version="3")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_keeps_every_byte(path: Path) -> None:
    before = path.read_bytes()
    after = set_interrupts(before, machine_options=[("its", "off")])
    assert read_domain(after).qemu_arguments[-2:] == ("-machine", "its=off")
    assert read_domain(after).name == read_domain(before).name
    added(before, after)


_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"))
_blank = st.sampled_from(["", "\n", "\n  ", " ", "\t", "\r\n  ", "<!-- > -->", "<?a b='>'?>"])


@hypothesis_settings(deadline=None)
@given(
    st.lists(_blank, min_size=6, max_size=6), _text, st.sampled_from(["", "<features/>", "<features><gic/></features>"])
)
def test_blanks_comments_and_attributes_of_all_kinds(blanks: list[str], text: str, features: str) -> None:
    a, b, c, d, e, f = blanks
    xml = (
        f"<domain type='kvm'  a={quoteattr(text)} >{a}<name>g</name>{b}<memory>1</memory>{c}"
        f"<os><type arch='aarch64' machine='virt'>hvm</type>{d}</os>{e}{features}{f}</domain>"
    ).encode()
    after = set_interrupts(xml, gic_version="3", machine_options=[("its", "off")])
    assert read_domain(after).gic_version == "3"
    assert read_domain(after).qemu_arguments == ("-machine", "its=off")
    # taken out again, what was added leaves what was there
    rest = iter(after)
    assert all(byte in rest for byte in xml.replace(b"<features/>", b""))
