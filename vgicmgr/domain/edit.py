"""Editing a domain XML in place: what is added is added, and every other byte stays as it was.

No serialiser writes a document back as it came (quotes, blanks, the order of attributes), so places are found by expat,
which tells byte offsets, and the text is spliced there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape

from vgicmgr.domain.domain import QEMU_NAMESPACE
from vgicmgr.domain.xml import Namespaces, blank_metadata, read_domain
from vgicmgr.errors import DomainXMLError


def set_interrupts(
    xml: bytes, *, gic_version: str | None = None, machine_options: Sequence[tuple[str, str]] = ()
) -> bytes:
    """The domain XML with ``<gic version=…/>`` set, and with ``-machine`` options in its ``<qemu:commandline>``.

    ``gic_version`` None leaves ``<gic>`` as it is. Raises :class:`~vgicmgr.errors.DomainXMLError`, also where what was
    made does not read back as what was asked for.
    """
    before = read_domain(xml)  # no DOCTYPE, bounded, well-formed, one <domain>
    # of the same length, so that places in it are places in the document
    places = _find(blank_metadata(xml) or xml if before.metadata_unreadable else xml)
    edits: list[tuple[int, int, str]] = []
    if gic_version is not None:
        edits.append(_gic_edit(xml, places, gic_version))
    if machine_options:
        edits.append(_commandline_edit(xml, places, machine_options))
    for start, end, text in sorted(edits, reverse=True):
        xml = xml[:start] + text.encode() + xml[end:]
    after = read_domain(xml)
    arguments = ("-machine", _machine_value(machine_options)) if machine_options else ()
    if gic_version not in (None, after.gic_version) or after.qemu_arguments != before.qemu_arguments + arguments:
        raise DomainXMLError("the domain XML cannot be edited in place")
    return xml


@dataclass
class _Place:
    """An element: where its start tag begins and ends, and where its end tag begins (the same for ``<a/>``)."""

    start: int
    inside: int
    end: int = -1


@dataclass
class _Places:
    elements: dict[str, _Place] = field(default_factory=dict)
    qemu_prefix: str = ""
    """Of QEMU's namespace, where the root declares one."""


_Name = tuple[str, str]
_WANTED: dict[tuple[_Name, ...], str] = {
    (("", "domain"),): "domain",
    (("", "domain"), ("", "os")): "os",
    (("", "domain"), ("", "features")): "features",
    (("", "domain"), ("", "features"), ("", "gic")): "gic",
    (("", "domain"), (QEMU_NAMESPACE, "commandline")): "commandline",
}


def _find(xml: bytes) -> _Places:
    """The places of interest; of several ``<features>`` the first, of several ``<qemu:commandline>`` the last."""
    places = _Places()
    path: list[_Name] = []
    open_places: list[_Place | None] = []
    namespaces = Namespaces()
    parser = expat.ParserCreate("UTF-8")

    def start(name: str, attributes: dict[str, str]) -> None:
        path.append(namespaces.enter(name, attributes))
        if len(path) == 1:
            places.qemu_prefix = namespaces.prefix(QEMU_NAMESPACE)
        wanted = _WANTED.get(tuple(path)) if len(path) <= 3 else None
        place = None
        if wanted and (wanted not in places.elements or wanted == "commandline"):
            begin = parser.CurrentByteIndex
            place = places.elements[wanted] = _Place(begin, _end_of_tag(xml, begin))
        open_places.append(place)

    def end(_name: str) -> None:
        place = open_places.pop()
        if place:
            place.end = parser.CurrentByteIndex
        path.pop()
        namespaces.leave()

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.Parse(xml, True)
    return places


def _end_of_tag(xml: bytes, begin: int) -> int:
    """The offset behind a start tag, whose attributes may hold a ``>``."""
    quote = 0
    for offset in range(begin, len(xml)):
        byte = xml[offset]
        if quote:
            quote = 0 if byte == quote else quote
        elif byte in b"'\"":
            quote = byte
        elif byte == ord(">"):
            return offset + 1
    return len(xml)


def _is_empty_tag(xml: bytes, place: _Place) -> bool:
    return xml[place.inside - 2 : place.inside] == b"/>"


_ATTRIBUTE = re.compile(r"""\s+([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")


def _attribute(name: str, value: str) -> str:
    return f"{name}='{escape(value, {chr(39): '&apos;'})}'"


def _gic_edit(xml: bytes, places: _Places, version: str) -> tuple[int, int, str]:
    attribute = _attribute("version", version)
    gic, features = places.elements.get("gic"), places.elements.get("features")
    if gic:
        tag = xml[gic.start : gic.inside].decode()
        for match in _ATTRIBUTE.finditer(tag):
            if match[1] == "version":
                start = gic.start + len(tag[: match.start(1)].encode())
                return start, start + len(match[0].lstrip().encode()), attribute
        name = tag[1:].rstrip("/>").split()[0]
        return gic.start, gic.inside, tag.replace(name, f"{name} {attribute}", 1)
    if features:
        return _append(xml, features, f"<gic {attribute}/>")
    os = places.elements["os"]
    indent = _indent(xml, os.start)
    after = _end_of_tag(xml, os.end) if not _is_empty_tag(xml, os) else os.inside
    return after, after, f"{indent}<features>{_deeper(indent)}<gic {attribute}/>{indent}</features>"


def _commandline_edit(xml: bytes, places: _Places, options: Sequence[tuple[str, str]]) -> tuple[int, int, str]:
    """QEMU takes the last of what is said twice, so that ours comes behind what the document has."""
    commandline = places.elements.get("commandline")
    value = _machine_value(options)
    if commandline:
        tag = xml[commandline.start + 1 : commandline.inside].decode()
        name = tag.rstrip("/>").split()[0]
        prefix = name.rpartition(":")[0]
        indent = _deeper(_indent(xml, commandline.start))
        return _append(xml, commandline, indent.join(_arguments(prefix, value)))
    prefix = places.qemu_prefix
    declared = "" if prefix else f" xmlns:qemu='{QEMU_NAMESPACE}'"
    prefix = prefix or "qemu"
    domain = places.elements["domain"]
    indent = _indent(xml, places.elements["os"].start)
    arguments = "".join(f"{_deeper(indent)}{argument}" for argument in _arguments(prefix, value))
    text = f"<{prefix}:commandline{declared}>{arguments}{indent}</{prefix}:commandline>"
    return _append(xml, domain, text, indent=indent)


def _machine_value(options: Sequence[tuple[str, str]]) -> str:
    return ",".join(f"{name}={text}" for name, text in options)


def _arguments(prefix: str, value: str) -> list[str]:
    element = f"{prefix}:arg" if prefix else "arg"
    return [f"<{element} {_attribute('value', '-machine')}/>", f"<{element} {_attribute('value', value)}/>"]


def _append(xml: bytes, place: _Place, text: str, indent: str | None = None) -> tuple[int, int, str]:
    """An edit that adds ``text`` as the last child, on a line of its own where the element has lines."""
    own = _indent(xml, place.start) if indent != "" else ""
    child = _deeper(own) if indent is None else indent
    if _is_empty_tag(xml, place):
        tag = xml[place.start : place.inside].decode()
        name = tag[1:].rstrip("/>").split()[0]
        return place.start, place.inside, f"{tag[:-2].rstrip()}>{child}{text}{own}</{name}>"
    inside = xml[place.inside : place.end]
    trailing = len(inside) - len(inside.rstrip(b" \t\r\n"))
    where = place.end - trailing
    return where, where, f"{child}{text}" + ("" if trailing else own)


def _deeper(indent: str) -> str:
    """One level more, where there are lines."""
    return f"{indent}  " if indent else ""


def _indent(xml: bytes, start: int) -> str:
    """The newline and blanks before an element, or nothing where it does not begin its line."""
    before = xml[:start]
    blanks = before[len(before.rstrip(b" \t")) :]
    line = before[: len(before) - len(blanks)]
    if line and not line.endswith(b"\n"):
        return ""
    newline = "\r\n" if line.endswith(b"\r\n") else "\n"
    return newline + blanks.decode()
