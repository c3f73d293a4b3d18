"""Our element in a domain's ``<metadata>``: wishes about the interrupt controller that libvirt has no element for.

libvirt keeps it, carries it along on migration and gives it no meaning. Its schema is ``xml/vgicmgr.rng``.
"""

from enum import Enum
from functools import cache

from vgicmgr.dataclass import dataclass
from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import DomainXMLError

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from typing import Any

    from lxml import etree

NAMESPACE = "urn:vgicmgr:domain:1"
ELEMENT = "interrupts"
SCHEMA = f"{__file__.rpartition('/')[0]}/vgicmgr.rng"


class Unsatisfied(Enum):
    """What becomes of a wish that this host, or its QEMU's version, cannot honour (the attribute ``unmet``)."""

    REFUSE = "refuse"
    WARN = "warn"


@dataclass(frozen=True)
class AddressWish:
    """Where a device shall be: its name in the schema, and the guest physical address."""

    device: str
    base: int


@dataclass(frozen=True)
class Wishes:
    """What the element asks for; None, or an empty string, where it says nothing.

    ``msi`` is ``its``, ``gicv2m`` or ``none``; ``pmu_intid`` an INTID, a PPI (16 to 31) or an SPI.
    """

    its: bool | None = None
    msi: str = ""
    pmu_intid: int | None = None
    addresses: tuple[AddressWish, ...] = ()
    unsatisfied: Unsatisfied = Unsatisfied.REFUSE


def read_wishes(xml: bytes) -> Wishes:
    """The wishes in a domain XML; no wishes where it has no such element.

    Raises :class:`~vgicmgr.errors.DomainXMLError` when the document cannot be read, when there is more than one such
    element, or when it breaks the schema; the sentence names line and element.
    """
    if NAMESPACE.encode() not in xml and b"&#" not in xml and b"\0" not in xml:
        return Wishes()  # most domains: not parsed a second time, and no lxml
    from lxml import etree

    elements = parse(xml).findall(f"metadata/{{{NAMESPACE}}}*")
    if not elements:
        return Wishes()
    if len(elements) > 1:
        raise DomainXMLError(f"line {elements[1].sourceline}: <metadata> has two elements of {NAMESPACE}")
    element = elements[0]
    schema = _schema()
    if not schema.validate(element):
        raise DomainXMLError(_complaint(schema, element), "see its schema, vgicmgr.rng")
    etree.strip_tags(element, etree.Comment)
    return _wishes(element)


def parse(xml: bytes) -> "etree._Element":
    """The document's root, parsed by lxml: no DTD, no entities, no network, bounded.

    Raises :class:`~vgicmgr.errors.DomainXMLError`.
    """
    from lxml import etree

    # no DOCTYPE, nothing too large or too deep, and libvirt's own elements make sense
    unreadable = read_domain(xml).metadata_unreadable
    # libxml2's own bounds are narrower than those that read_domain has seen to; where expat has found the document
    # well-formed, what is left to recover from are namespaces, as libvirt does
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=True,
        recover=not unreadable,
    )
    try:
        return etree.fromstring(xml, parser)
    except etree.XMLSyntaxError as error:
        if unreadable:
            raise DomainXMLError(f"<metadata> of the domain XML cannot be read: {unreadable}") from None
        line = error.lineno or 1
        raise DomainXMLError(f"the domain XML is malformed at line {line}") from None


@cache
def _schema() -> "etree.RelaxNG":
    from lxml import etree

    return etree.RelaxNG(etree.parse(SCHEMA))


def _complaint(schema: "etree.RelaxNG", element: "etree._Element") -> str:
    """Where the schema is broken: line and element, without the document's own words."""
    from lxml import etree

    for child in element.iter(etree.Element):
        name = child.tag.rpartition("}")[2]
        known = _KNOWN.get(name)
        if child.tag != f"{{{NAMESPACE}}}{name}" or known is None:
            return f"line {child.sourceline}: <{ELEMENT}> holds no such element, but {', '.join(_KNOWN)}"
        for attribute in child.attrib:
            if attribute not in known:
                return f"line {child.sourceline}: <{name}> has an attribute other than {' and '.join(known)}"
        for attribute, words in known.items():
            if attribute not in child.attrib and attribute != "unmet":
                return f"line {child.sourceline}: <{name}> has no attribute '{attribute}'"
            if attribute in child.attrib and not _alone(schema, child, name, attribute):
                return f"line {child.sourceline}: attribute '{attribute}' of <{name}> is not {words}"
    line = schema.error_log[0].line if len(schema.error_log) else element.sourceline
    names = [str(child.tag).rpartition("}")[2] for child in element.iterchildren(etree.Element)]
    twice = next((name for name in names if names.count(name) > 1 and name != "address"), None)
    if twice:
        return f"line {line}: <{ELEMENT}> has <{twice}> twice"
    return f"line {line}: <{ELEMENT}> has text or elements where there may be none"


_DEVICES = ("distributor", "cpu-interface", "redistributors", "high-redistributors", "its", "gicv2m")
_KNOWN: dict[str, dict[str, str]] = {
    ELEMENT: {"unmet": "'refuse' or 'warn'"},
    "its": {"state": "'on' or 'off'"},
    "msi": {"controller": "'its', 'gicv2m' or 'none'"},
    "pmu": {"intid": "an INTID from 16 to 1019"},
    "address": {"device": f"one of {', '.join(_DEVICES)}", "base": "an address such as 0x8000000"},
}
"""Elements of the schema, their attributes, and what each may be."""

_VALID = {"device": "its", "base": "0x0"}


def _alone(schema: "etree.RelaxNG", child: "etree._Element", name: str, attribute: str) -> bool:
    """Whether the schema takes this attribute's value, everything else being right."""
    from lxml import etree

    root = etree.Element(f"{{{NAMESPACE}}}{ELEMENT}")
    probe = root if name == ELEMENT else etree.SubElement(root, f"{{{NAMESPACE}}}{name}")
    for other in _KNOWN[name]:
        if other != attribute:
            probe.set(other, _VALID[other])
    probe.set(attribute, child.attrib[attribute])
    return bool(schema.validate(root))


def _wishes(element: "etree._Element") -> Wishes:
    def attribute(name: str, of: str) -> "Any":
        child = element.find(f"{{{NAMESPACE}}}{name}")
        return None if child is None else child.get(of)

    its, intid = attribute("its", "state"), attribute("pmu", "intid")
    return Wishes(
        its=None if its is None else its == "on",
        msi=attribute("msi", "controller") or "",
        pmu_intid=None if intid is None else int(intid),
        addresses=tuple(
            AddressWish(str(address.get("device")), int(str(address.get("base")), 16))
            for address in element.findall(f"{{{NAMESPACE}}}address")
        ),
        unsatisfied=Unsatisfied(element.get("unmet", "refuse")),
    )
