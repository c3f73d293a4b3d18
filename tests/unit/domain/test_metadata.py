"""Our element in <metadata>: what it says, and where a bad one is wrong."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vgicmgr.domain.metadata import NAMESPACE, SCHEMA, AddressWish, Unsatisfied, Wishes, read_wishes
from vgicmgr.errors import DomainXMLError

EXAMPLES = Path(__file__).parents[3] / "xml"


def domain(metadata: str) -> bytes:
    return (
        f"<domain type='kvm'>\n  <name>g</name>\n  <metadata>\n{metadata}\n  </metadata>\n  <memory>1048576</memory>\n"
        "  <os><type arch='aarch64' machine='virt'>hvm</type></os>\n</domain>\n"
    ).encode()


def wishing(inside: str, attributes: str = "") -> bytes:
    """A domain whose wishes begin in line 4, what is inside in line 5."""
    return domain(f"<v:interrupts xmlns:v='{NAMESPACE}' {attributes}>\n{inside}\n</v:interrupts>")


def test_the_example_says_everything() -> None:
    assert read_wishes((EXAMPLES / "guest-wishes.xml").read_bytes()) == Wishes(
        its=False,
        msi="none",
        pmu_intid=23,
        addresses=(AddressWish("distributor", 0x8000000), AddressWish("redistributors", 0x80A0000)),
        unsatisfied=Unsatisfied.REFUSE,
    )


@pytest.mark.parametrize(
    "xml",
    [
        domain(""),
        domain("<a:note xmlns:a='http://example.org/a'><interrupts/></a:note>"),
        domain(f"<a:note xmlns:a='http://example.org/a'><v:interrupts xmlns:v='{NAMESPACE}'/></a:note>"),
        wishing(""),
    ],
)
def test_no_wishes(xml: bytes) -> None:
    assert read_wishes(xml) == Wishes()


@pytest.mark.parametrize(
    ("inside", "attributes", "wishes"),
    [
        ("<v:its state='on'/>", "", Wishes(its=True)),
        ("<v:its state='off'/>", "", Wishes(its=False)),
        ("<v:msi controller='gicv2m'/>", "", Wishes(msi="gicv2m")),
        ("<v:pmu intid='1019'/>", "", Wishes(pmu_intid=1019)),
        ("<v:address device='its' base='0xffffffffffffffff'/>", "", Wishes(addresses=(AddressWish("its", 2**64 - 1),))),
        ("<!-- nothing -->", "unmet='warn'", Wishes(unsatisfied=Unsatisfied.WARN)),
        ("<v:pmu intid='23'/><!-- and --><v:its state='on'/>", "", Wishes(its=True, pmu_intid=23)),
    ],
)
def test_a_wish(inside: str, attributes: str, wishes: Wishes) -> None:
    assert read_wishes(wishing(inside, attributes)) == wishes


def test_the_namespace_may_be_spelled_by_references() -> None:
    spelled = wishing("<v:its state='on'/>").replace(b"urn:", b"urn&#58;")
    assert read_wishes(spelled) == Wishes(its=True)


@pytest.mark.parametrize(
    ("inside", "attributes", "complaint"),
    [
        ("<v:its state='maybe'/>", "", "line 5: attribute 'state' of <its> is not 'on' or 'off'"),
        ("<v:its/>", "", "line 5: <its> has no attribute 'state'"),
        ("\n<v:its state='on' since='1'/>", "", "line 6: <its> has an attribute other than state"),
        ("<v:its state='on'/>\n<v:its state='on'/>", "", "<interrupts> has <its> twice"),
        ("<v:msi controller='plic'/>", "", "line 5: attribute 'controller' of <msi> is not 'its', 'gicv2m' or 'none'"),
        ("<v:pmu intid='15'/>", "", "line 5: attribute 'intid' of <pmu> is not an INTID from 16 to 1019"),
        ("<v:pmu intid='1020'/>", "", "line 5: attribute 'intid' of <pmu> is not an INTID from 16 to 1019"),
        ("<v:pmu intid='-1'/>", "", "line 5: attribute 'intid' of <pmu> is not an INTID from 16 to 1019"),
        ("<v:address device='uart' base='0x0'/>", "", "line 5: attribute 'device' of <address> is not one of"),
        ("<v:address device='its' base='8'/>", "", "line 5: attribute 'base' of <address> is not an address such as"),
        ("<v:address device='its'/>", "", "line 5: <address> has no attribute 'base'"),
        ("<v:gic/>", "", "line 5: <interrupts> holds no such element"),
        ("<its state='on'/>", "", "line 5: <interrupts> holds no such element"),
        ("<v:its state='on'><v:its state='on'/></v:its>", "", "line "),
        ("text", "", "<interrupts> has text or elements where there may be none"),
        ("", "unmet='ignore'", "line 4: attribute 'unmet' of <interrupts> is not 'refuse' or 'warn'"),
        ("", "mode='x'", "line 4: <interrupts> has an attribute other than unmet"),
    ],
)
def test_a_bad_wish_is_told_by_line_and_element(inside: str, attributes: str, complaint: str) -> None:
    with pytest.raises(DomainXMLError) as caught:
        read_wishes(wishing(inside, attributes))
    assert complaint in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", ["<a:app xmlns:a='My App'/>", "<b:x/>", "<z:x xmlns:z=''/>", "<a:b:x xmlns:a='a'/>"])
def test_beside_an_element_that_only_libvirt_takes(other: str) -> None:
    wishes = f"<v:interrupts xmlns:v='{NAMESPACE}'><v:its state='off'/></v:interrupts>"
    assert read_wishes(domain(other + wishes)) == Wishes(its=False)


def test_beside_what_only_libxml2_reads_the_wishes_are_read_or_it_is_said() -> None:
    wishes = f"<v:interrupts xmlns:v='{NAMESPACE}'><v:its state='off'/></v:interrupts>"
    assert read_wishes(domain("<a:Ƞ xmlns:a='urn:a'/>" + wishes)) == Wishes(its=False)
    with pytest.raises(DomainXMLError, match="<metadata> of the domain XML cannot be read"):
        read_wishes(domain('<a:x xmlns:a="a<b"/>' + wishes))


def test_wishes_in_another_encoding_are_refused() -> None:
    with pytest.raises(DomainXMLError, match="not in UTF-8"):
        read_wishes(wishing("<v:its state='on'/>").decode().encode("utf-16"))


def test_another_element_of_ours_is_not_passed_over() -> None:
    with pytest.raises(DomainXMLError, match="<interrupts> holds no such element"):
        read_wishes(domain(f"<v:interupts xmlns:v='{NAMESPACE}'/>"))


def test_two_elements_of_ours() -> None:
    with pytest.raises(DomainXMLError, match="line 5: <metadata> has two elements"):
        read_wishes(domain(f"<interrupts xmlns='{NAMESPACE}'/>\n<interrupts xmlns='{NAMESPACE}'/>"))


def test_what_stands_in_the_document_is_not_quoted() -> None:
    secret = "s3cr3t"
    for inside in (f"<v:its state='{secret}'/>", f"<v:{secret}/>", f"<v:its {secret}='1'/>", secret):
        with pytest.raises(DomainXMLError) as caught:
            read_wishes(wishing(inside))
        assert secret not in str(caught.value)


def test_the_schema_in_the_package_is_the_one_shown() -> None:
    assert Path(SCHEMA).read_bytes() == (EXAMPLES / "vgicmgr.rng").read_bytes()


HOSTILE = {
    "a DTD": b"<!DOCTYPE domain>" + wishing(""),
    "an entity": b"<!DOCTYPE domain [<!ENTITY a 'b'>]>" + wishing("&a;"),
    "an entity from a file": b"<!DOCTYPE domain [<!ENTITY a SYSTEM 'file:///etc/shadow'>]>" + wishing("&a;"),
    "an entity from the network": b"<!DOCTYPE d [<!ENTITY % p SYSTEM 'http://192.0.2.1/'> %p;]>" + wishing(""),
    "entities in entities": b"<!DOCTYPE d [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]>" + wishing("&b;"),
    "an undefined entity": wishing("&lol;"),
    "an XInclude": wishing("<i:include xmlns:i='http://www.w3.org/2001/XInclude' href='/etc/passwd' parse='text'/>"),
    "a stylesheet": wishing("<?xml-stylesheet href='file:///etc/passwd'?><v:x/>"),
    "a deep nest": wishing("<v:its state='on'>" * 2000 + "</v:its>" * 2000),
    "NUL": wishing("\0"),
    "half of a document": wishing("<v:its state='on'/>")[:-40],
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(DomainXMLError) as caught:
        read_wishes(HOSTILE[name] or wishing("<"))
    assert caught.value.message.isprintable()


_pieces = st.sampled_from(
    [
        "<v:its state='on'/>",
        "<v:its",
        "state='off'",
        ">",
        "/>",
        "<v:msi controller='its'/>",
        "<v:pmu intid='23'/>",
        "<v:address device='its' base='0x1'/>",
        "<v:address/>",
        "</v:its>",
        "<!-- c -->",
        "<?pi?>",
        "&#38;",
        "<![CDATA[x]]>",
        "\n",
        "é",
    ]
)


@hypothesis_settings(deadline=None)
@given(st.lists(_pieces | st.text(max_size=5), max_size=8).map("".join), st.text(max_size=10))
def test_whatever_is_inside(inside: str, attributes: str) -> None:
    try:
        read_wishes(wishing(inside, attributes).replace(b"\xed\xa0", b""))
    except (DomainXMLError, UnicodeEncodeError) as error:
        if isinstance(error, DomainXMLError):
            assert error.message.isprintable()
