"""What a domain XML says besides its settings: the guest's ABI record, and arguments of its own for QEMU.

As untrusted as :mod:`vgicmgr.domain.settings` has it, which is asked first and bounds size and depth.
"""

from xml.parsers import expat

from vgicmgr.migration.record import ELEMENT, ABIRecord, Place, after_move, from_element
from vgicmgr.dataclass import dataclass
from vgicmgr.errors import DomainXMLError

_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_RECORDS = {f"{place.value} {ELEMENT}": place for place in Place}
_ARGUMENT = ["domain", f"{_QEMU} commandline", f"{_QEMU} arg"]
_MOST_ARGUMENTS = 10000


@dataclass(frozen=True)
class RecordElement:
    """The record's element as it stands in ``<metadata>``: attributes and text."""

    attributes: dict[str, str]
    text: str

    def record(self) -> ABIRecord:
        """What it says; raises :class:`~vgicmgr.errors.RecordError`."""
        return from_element(self.attributes, self.text)


@dataclass(frozen=True)
class Incoming:
    """The elements of the record and of the host that the guest has moved to since, where they are there.

    ``arguments`` are QEMU's additional ones (``<qemu:commandline>``).
    """

    element: RecordElement | None
    host: RecordElement | None
    arguments: tuple[str, ...]

    def sent(self) -> ABIRecord | None:
        """The record, with the registers that QEMU sends; raises :class:`~vgicmgr.errors.RecordError`."""
        if self.element is None:
            return None
        record = self.element.record()
        return after_move(record, self.host.record()) if self.host else record


def read_incoming(xml: bytes) -> Incoming:
    """Read all; raises :class:`~vgicmgr.errors.DomainXMLError` when the XML is malformed or has a record twice."""
    reader = _Reader()
    parser = expat.ParserCreate("UTF-8", " ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as error:
        raise DomainXMLError(f"the domain XML is malformed: {expat.ErrorString(error.code)}") from None
    elements = {
        place: RecordElement(attributes, "".join(reader.texts[place]).strip())
        for place, attributes in reader.records.items()
    }
    return Incoming(elements.get(Place.BOOT), elements.get(Place.HOST), tuple(reader.arguments))


class _Reader:
    def __init__(self) -> None:
        self.records: dict[Place, dict[str, str]] = {}
        self.texts: dict[Place, list[str]] = {}
        self.arguments: list[str] = []
        self._path: list[str] = []

    def doctype(self, *_: object) -> None:
        raise DomainXMLError("the domain XML has a DOCTYPE, which libvirt never writes")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        if place := self._place():
            if place in self.records:
                raise DomainXMLError("the domain XML has an ABI record twice")
            self.records[place], self.texts[place] = attributes, []
        elif self._path == _ARGUMENT and len(self.arguments) < _MOST_ARGUMENTS:
            self.arguments.append(attributes.get("value", ""))

    def end(self, _name: str) -> None:
        self._path.pop()

    def characters(self, text: str) -> None:
        if place := self._place():
            self.texts[place].append(text)

    def _place(self) -> Place | None:
        if len(self._path) != 3 or self._path[:2] != ["domain", "metadata"]:
            return None
        return _RECORDS.get(self._path[2])
