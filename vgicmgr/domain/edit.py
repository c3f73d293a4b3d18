"""Editing a domain XML in place: what is added is added, and every other byte stays as it was.

No serialiser writes a document back as it came (quotes, blanks, the order of attributes), so places are found by expat,
which tells byte offsets, and the text is spliced there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from vgicmgr.domain.devices import QEMU_NAMESPACE
from vgicmgr.domain.settings import read_domain


def set_interrupts(
    xml: bytes, *, gic_version: str | None = None, machine_options: Sequence[tuple[str, str]] = ()
) -> bytes:
    """The domain XML with ``<gic version=…/>`` set, and with ``-machine`` options in its ``<qemu:commandline>``.

    ``gic_version`` None leaves ``<gic>`` as it is. Raises :class:`~vgicmgr.errors.DomainXMLError`.
    """
    read_domain(xml)  # no DOCTYPE, bounded, well-formed, one <domain>
    places = _find(xml)
    edits: list[tuple[int, int, str]] = []
    if gic_version is not None:
        edits.append(_gic_edit(xml, places, gic_version))
    if machine_options:
        edits.append(_commandline_edit(xml, places, machine_options))
    for start, end, text in sorted(edits, reverse=True):
        xml = xml[:start] + text.encode() + xml[end:]
    return xml


@dataclass
class _Place:
    """An element: where its start tag begins and ends, and where its end tag begins (the same for ``<a/>``)."""

    start: int
    inside: int
    end: int = -1
    name: str = ""


@dataclass
class _Places:
    elements: dict[str, _Place] = field(default_factory=dict)
    prefixes: dict[str, str] = field(default_factory=dict)
    """Of the namespaces declared on the root."""


_WANTED = {
    "domain": "domain",
    "domain/os": "os",
    "domain/features": "features",
    "domain/features/gic": "gic",
    f"domain/{QEMU_NAMESPACE} commandline": "commandline",
}


def _find(xml: bytes) -> _Places:
    """The places of interest; of an element that is there several times, the first."""
    places = _Places()
    path: list[str] = []
    open_places: list[_Place | None] = []
    parser = expat.ParserCreate("UTF-8", " ")
    parser.namespace_prefixes = True

    def start(name: str, _attributes: dict[str, str]) -> None:
        path.append(" ".join(name.split(" ")[:2]))
        wanted = _WANTED.get("/".join(path)) if len(path) <= 3 else None
        place = None
        if wanted and wanted not in places.elements:
            begin = parser.CurrentByteIndex
            place = places.elements[wanted] = _Place(begin, _end_of_tag(xml, begin))
        open_places.append(place)

    def end(_name: str) -> None:
        place = open_places.pop()
        if place:
            place.end = parser.CurrentByteIndex
        path.pop()

    def namespace(prefix: str | None, uri: str) -> None:
        if not path and prefix:
            places.prefixes.setdefault(uri, prefix)

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartNamespaceDeclHandler = namespace
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


def _gic_edit(xml: bytes, places: _Places, version: str) -> tuple[int, int, str]:
    attribute = f"version={quoteattr(version)}".replace('"', "'")
    gic, features = places.elements.get("gic"), places.elements.get("features")
    if gic:
        # a <gic/> that names no version (one that does is left to its owner)
        tag = xml[gic.start : gic.inside].decode()
        name = tag[1:].rstrip("/>").split()[0]
        return gic.start, gic.inside, tag.replace(name, f"{name} {attribute}", 1)
    if features:
        return _append(xml, features, f"<gic {attribute}/>")
    os = places.elements["os"]
    indent = _indent(xml, os.start)
    after = _end_of_tag(xml, os.end) if not _is_empty_tag(xml, os) else os.inside
    return after, after, f"{indent}<features>{_deeper(indent)}<gic {attribute}/>{indent}</features>"


def _commandline_edit(xml: bytes, places: _Places, options: Sequence[tuple[str, str]]) -> tuple[int, int, str]:
    commandline = places.elements.get("commandline")
    value = ",".join(f"{name}={text}" for name, text in options)
    if commandline:
        tag = xml[commandline.start + 1 : commandline.inside].decode()
        name = tag.rstrip("/>").split()[0]
        prefix = name.rpartition(":")[0]
        indent = _deeper(_indent(xml, commandline.start))
        return _append(xml, commandline, indent.join(_arguments(prefix, value)))
    prefix = places.prefixes.get(QEMU_NAMESPACE, "")
    declared = "" if prefix else f" xmlns:qemu='{QEMU_NAMESPACE}'"
    prefix = prefix or "qemu"
    domain = places.elements["domain"]
    indent = _indent(xml, places.elements["os"].start)
    arguments = "".join(f"{_deeper(indent)}{argument}" for argument in _arguments(prefix, value))
    text = f"<{prefix}:commandline{declared}>{arguments}{indent}</{prefix}:commandline>"
    return _append(xml, domain, text, indent=indent)


def _arguments(prefix: str, value: str) -> list[str]:
    element = f"{prefix}:arg" if prefix else "arg"
    return [f"<{element} value='-machine'/>", f"<{element} value='{value}'/>"]


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
