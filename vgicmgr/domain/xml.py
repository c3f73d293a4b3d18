"""The one reader of domain XML.

The document may come from another host and is read by a root process, so expat reads it without a DTD, within bounds,
and an error names elements and attributes that are known here but never quotes what stands in the document.

libvirt's parser (libxml2) keeps a document whose *namespaces* are wrong, and applications put such things into
``<metadata>``; expat's namespace mode refuses it. So expat reads names as they stand, and :class:`Namespaces` resolves
the few that matter.
"""

from xml.parsers import expat

from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import (
    ABI_ELEMENT,
    ABI_HOST,
    ABI_RECORD,
    IOMMU,
    QEMU_NAMESPACE,
    CpuFeature,
    Devices,
    Domain,
    RecordElement,
    Snapshot,
)
from vgicmgr.errors import DomainXMLError

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vgicmgr.domain.domain import EmulatedDevice
    from vgicmgr.domain.hostdevices import HostDevice

MAX_BYTES = 8 << 20
"""The longest document that is read, in bytes; libvirt's own RPC ends at 4 MiB a string."""
MAX_DEPTH = 1024
"""The deepest nesting that is read; libvirt's deepest is a chain of 200 ``<backingStore>``."""

_UINT_MAX = 2**32 - 1
_LLONG_MAX = 2**63 - 1
_KIB, _MIB = 1 << 10, 1 << 20


def read_domain(xml: bytes) -> Domain:
    """The domain that an XML document describes (in UTF-8, as libvirt writes it).

    Raises :class:`DomainXMLError` when the document is malformed, truncated, too large or too deep, has a DOCTYPE, or
    says something that libvirt would not write (a number out of range, an element twice). Where nothing but
    ``<metadata>`` cannot be parsed, the rest is read without it.
    """
    _check_bounds(xml)
    try:
        return _domain(_read(xml))
    except _MalformedError as error:
        without = blank_metadata(xml)
        if without is None:
            raise
        try:
            root = _read(without)
        except _MalformedError:
            raise error from None
        return replace(_domain(root), metadata_unreadable=error.reason)


def read_snapshot(xml: bytes) -> Snapshot:
    """The snapshot that a <domainsnapshot> describes; errors as :func:`read_domain`.

    Here a <metadata> that cannot be parsed is an error like any other: two definitions may have one. Where the memory
    is, libvirt has not always written (virDomainSnapshotDefParse); which state is brought back running, and from which
    definition, is qemuSnapshotRevert's rule: that of a guest that ran, and not <inactiveDomain>.
    """
    _check_bounds(xml)
    root = _read(xml, "domainsnapshot")
    state = root.required("state").text
    ran = state in ("running", "paused")
    memory = root.first("memory").get("snapshot") or ("internal" if ran else "no")
    if not ran or memory == "no":
        return Snapshot(state, memory)
    return Snapshot(state, memory, _domain(root.required("domain")))


def _check_bounds(xml: bytes) -> None:
    """Refuse what is not even tried; raises :class:`DomainXMLError`."""
    if len(xml) > MAX_BYTES:
        raise DomainXMLError(f"the domain XML is larger than {MAX_BYTES >> 20} MiB")
    if xml.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in xml:
        raise DomainXMLError("the domain XML is not in UTF-8", "save it as UTF-8")
    if not xml.strip():
        raise DomainXMLError("the domain XML is empty")


def blank_metadata(xml: bytes) -> bytes | None:
    """The document with blanks for all of ``<metadata>``, of the same length and lines; None where it has none.

    libvirt escapes what looks like the element's tags everywhere else, so it reaches from the first to the last of
    them. It writes no comments and no CDATA sections of its own, in which this would not hold.
    """
    starts = [at for byte in b"> \t\r\n" if (at := xml.find(b"<metadata" + bytes((byte,)))) >= 0]
    end = xml.rfind(b"</metadata>")
    if not starts or end < min(starts):
        return None
    start, end = min(starts), end + len(b"</metadata>")
    if b"<!" in xml[:start] or b"<!" in xml[end:]:
        return None
    blanks = b"\n".join(b" " * len(line) for line in xml[start:end].split(b"\n"))
    return xml[:start] + blanks + xml[end:]


class Namespaces:
    """The namespaces in scope, of an element and those around it.

    As in libxml2 (xmlParseStartTag2), a prefix that is bound to no namespace is part of the name, and one that is
    bound to an empty string keeps what it was bound to before.
    """

    def __init__(self) -> None:
        self._scopes: list[dict[str, str]] = []
        """What each open element declares."""

    def enter(self, name: str, attributes: "Mapping[str, str]") -> tuple[str, str]:
        """Begin an element; its namespace (empty for none) and its local name."""
        declared = {}
        for attribute, uri in attributes.items():
            if attribute == "xmlns":
                declared[""] = uri
            elif attribute.startswith("xmlns:") and uri:
                declared[attribute[6:]] = uri
        self._scopes.append(declared)
        prefix, colon, local = name.partition(":")
        if not colon:
            return self._bound("") or "", name
        bound = self._bound(prefix) if prefix and local else None
        return ("", name) if bound is None else (bound, local)

    def leave(self) -> None:
        """End the element that was begun last."""
        self._scopes.pop()

    def prefix(self, uri: str) -> str:
        """A prefix that the innermost element declares for this namespace, or an empty string."""
        return next((prefix for prefix, bound in self._scopes[-1].items() if prefix and bound == uri), "")

    def _bound(self, prefix: str) -> str | None:
        return next((declared[prefix] for declared in reversed(self._scopes) if prefix in declared), None)


class _Wanted:
    """An element that is read: which children, whether its text, and how many of it its parent may have.

    ``merged``: as XPath has it (``./features/*``), several count as one. ``foreign``: it is not libvirt's,
    so that libvirt's rules do not hold within. ``sampled``: what matters is of what kinds there are any, so that more
    than ``most`` are passed over, but for those that count one by one (:data:`_COUNTED`). ``others``: children by
    namespace and name.
    """

    def __init__(
        self,
        most: int = 1,
        *,
        text: bool = False,
        merged: bool = False,
        foreign: bool = False,
        sampled: bool = False,
        others: "Mapping[tuple[str, str], _Wanted] | None" = None,
        **children: "_Wanted",
    ) -> None:
        self.most, self.text, self.merged, self.foreign = most, text, merged, foreign
        self.sampled = sampled
        self.children = {("", name): wanted for name, wanted in children.items()} | dict(others or {})


_COMMANDLINE = (QEMU_NAMESPACE, "commandline")
_OVERRIDES = tuple((QEMU_NAMESPACE, name) for name in ("override", "capabilities", "deprecation"))
_RECORDS = tuple((namespace, ABI_ELEMENT) for namespace in (ABI_RECORD, ABI_HOST))
_MOST_HOST_DEVICES = 1024
_PARTS = ("target", "driver", "model", "address")
_DEVICES = (
    "disk",
    "filesystem",
    "input",
    "sound",
    "video",
    "rng",
    "memballoon",
    "vsock",
    "crypto",
    "watchdog",
    "shmem",
    "panic",
    "channel",
    "console",
)
_OF_HOST_DEVICE = {
    ("", "source"): _Wanted(address=_Wanted()),
    ("", "teaming"): _Wanted(),
    ("", "driver"): _Wanted(),
}
_MOST_DEVICES = 4096
_COUNTED = ("pci", "hostdev")
"""Types of controllers and interfaces."""
_OF_DEVICE = {("", part): _Wanted() for part in _PARTS}
_DOMAIN = _Wanted(
    name=_Wanted(text=True),
    uuid=_Wanted(text=True),
    memory=_Wanted(text=True),
    maxMemory=_Wanted(text=True),
    vcpu=_Wanted(text=True),
    vcpus=_Wanted(vcpu=_Wanted(16384)),
    cputune=_Wanted(merged=True, vcpupin=_Wanted(16384), emulatorpin=_Wanted()),
    os=_Wanted(type=_Wanted(text=True), loader=_Wanted()),
    features=_Wanted(
        merged=True, acpi=_Wanted(), gic=_Wanted(), pmu=_Wanted(), ras=_Wanted(), virtualization=_Wanted()
    ),
    cpu=_Wanted(model=_Wanted(text=True), feature=_Wanted(1024), numa=_Wanted(cell=_Wanted(1024))),
    clock=_Wanted(merged=True, timer=_Wanted(64)),
    launchSecurity=_Wanted(),
    iommufd=_Wanted(),
    metadata=_Wanted(foreign=True, others={record: _Wanted(text=True, foreign=True) for record in _RECORDS}),
    devices=_Wanted(
        merged=True,
        emulator=_Wanted(text=True),
        memory=_Wanted(1024, target=_Wanted(size=_Wanted(text=True)), address=_Wanted()),
        iommu=_Wanted(64, driver=_Wanted(), address=_Wanted()),
        controller=_Wanted(_MOST_DEVICES, sampled=True, pcihole64=_Wanted(text=True), others=_OF_DEVICE),
        hostdev=_Wanted(_MOST_HOST_DEVICES, others=_OF_HOST_DEVICE),
        interface=_Wanted(_MOST_DEVICES, sampled=True, others={**_OF_DEVICE, **_OF_HOST_DEVICE}),
        others={("", name): _Wanted(_MOST_DEVICES, sampled=True, others=_OF_DEVICE) for name in _DEVICES},
    ),
    others={
        _COMMANDLINE: _Wanted(merged=True, others={(QEMU_NAMESPACE, "arg"): _Wanted(10000)}),
        **{override: _Wanted(merged=True) for override in _OVERRIDES},
    },
)

_ROOTS = {
    "domain": _DOMAIN,
    "domainsnapshot": _Wanted(state=_Wanted(text=True), memory=_Wanted(), domain=_DOMAIN),
}
"""What a document can be of."""


class _MalformedError(DomainXMLError):
    """The document is no XML."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the domain XML is malformed: {reason}")
        self.reason = reason


class _Element:
    """An element that was read: its attributes, its text as it comes, and its children."""

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.pieces: list[str] = []
        self.children: dict[tuple[str, str], list[_Element]] = {}

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def all(self, name: str, namespace: str = "") -> "list[_Element]":
        return self.children.get((namespace, name), [])

    def find(self, *path: str) -> "_Element | None":
        """The first element of a path of libvirt's names."""
        element = self
        for name in path:
            if not (children := element.all(name)):
                return None
            element = children[0]
        return element

    def first(self, *path: str) -> "_Element":
        """The same, or an empty one."""
        return self.find(*path) or _Element(path[-1], {})

    def required(self, *path: str) -> "_Element":
        element = self.find(*path)
        if element is None:
            raise DomainXMLError(f"the domain XML has no <{path[-1]}>")
        return element

    def get(self, attribute: str) -> str:
        return self.attributes.get(attribute, "")

    def number(self, attribute: str = "", *, least: int = 0, most: int = _UINT_MAX) -> int:
        """The text, or an attribute, as an unsigned decimal number (libvirt's virStrToLong_uip: blanks, then a +)."""
        digits = (self.get(attribute) if attribute else self.text).lstrip(" \t\r\n").removeprefix("+")
        where = f"attribute '{attribute}' of <{self.name}>" if attribute else f"<{self.name}>"
        if not (digits.isascii() and digits.isdigit()):
            raise DomainXMLError(f"the domain XML has no whole number in {where}")
        if len(digits) > 20 or not least <= int(digits) <= most:
            raise DomainXMLError(f"the domain XML has a number out of range in {where}")
        return int(digits)

    def size(self, attribute: str = "") -> int:
        """A size in bytes, by the attribute ``unit`` (virScaleInteger; KiB when it is absent), in whole KiB."""
        size = self.number(attribute, most=_LLONG_MAX) * self._scale(self.get("unit").lower())
        if size > _LLONG_MAX:
            raise DomainXMLError(f"the domain XML has a number out of range in <{self.name}>")
        return _round_up(size, _KIB)

    def _scale(self, unit: str) -> int:
        if unit in ("b", "byte", "bytes"):
            return 1
        prefix, suffix = unit[:1] or "k", unit[1:]
        power = "kmgtpe".find(prefix) + 1
        if not power or suffix not in ("", "b", "ib"):
            raise DomainXMLError(f"the domain XML has an unknown attribute 'unit' of <{self.name}>")
        return int((1000 if suffix == "b" else 1024) ** power)


def _round_up(size: int, unit: int) -> int:
    return (size + unit - 1) // unit * unit


def _read(xml: bytes, root: str = "domain") -> _Element:
    """The elements that are wanted of a document with this root; raises :class:`DomainXMLError`."""
    reader = _Reader(root)
    # the encoding is given, so that the document's own declaration cannot choose a codec
    parser = expat.ParserCreate("UTF-8")
    parser.buffer_text = True
    parser.XmlDeclHandler = reader.declaration
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as error:
        raise _MalformedError(f"{expat.ErrorString(error.code)} at line {error.lineno}") from None
    return reader.top.all(root)[0]


class _Reader:
    """Gathers the elements that are wanted; everything else is passed over by counting its depth."""

    def __init__(self, root: str) -> None:
        self._root = root
        wanted = _Wanted(others={("", root): _ROOTS[root]})
        self.top = _Element("", {})
        self._open: list[tuple[_Element, _Wanted]] = [(self.top, wanted)]
        self._namespaces = Namespaces()
        self._passed_over = 0

    def declaration(self, version: str, encoding: str | None, _standalone: int) -> None:
        """As libxml2 has it (xmlParseXMLDecl), of the encodings those that are UTF-8."""
        if not version.startswith("1."):
            raise DomainXMLError("the domain XML declares an unknown version of XML")
        if encoding is not None and encoding.lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
            raise DomainXMLError("the domain XML declares an encoding other than UTF-8", "save it as UTF-8")

    def doctype(self, *_: object) -> None:
        raise DomainXMLError("the domain XML has a DOCTYPE, which libvirt never writes")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._open) - 1 + self._passed_over >= MAX_DEPTH:
            raise DomainXMLError(f"the domain XML is nested deeper than {MAX_DEPTH} elements")
        if self._passed_over:
            self._passed_over += 1
            return
        parent, outer = self._open[-1]
        key = self._namespaces.enter(name, attributes)
        wanted = outer.children.get(key)
        if wanted is None:
            self._check_unread(name, outer, parent)
            self._pass_over()
            return
        local = key[1]
        if not wanted.foreign:
            _check_attributes(local, attributes)
        others = parent.children.setdefault(key, [])
        if others and wanted.merged:
            element = others[0]
        elif wanted.sampled and len(others) >= wanted.most and attributes.get("type") not in _COUNTED:
            self._pass_over()
            return
        elif len(others) >= wanted.most:
            what = "an ABI record" if wanted.foreign and wanted.text else f"<{local}>"
            raise DomainXMLError(
                f"the domain XML has {what} twice"
                if wanted.most == 1
                else f"the domain XML has more than {wanted.most} <{local}>"
            )
        else:
            element = _Element(local, attributes)
            others.append(element)
        self._open.append((element, wanted))

    def _pass_over(self) -> None:
        self._namespaces.leave()
        self._passed_over = 1

    def _check_unread(self, name: str, outer: _Wanted, parent: _Element) -> None:
        """Refuse what libvirt might read and we do not, or the other way round: such a file is never what it seems.

        libvirt takes some elements by XPath, which knows namespaces, and some by the local name alone; the text of an
        element is that of its children, too (an XPath string value).
        """
        if len(self._open) == 1:
            raise DomainXMLError(f"the document is no domain XML: its root is not <{self._root}>")
        if outer.foreign:
            return
        if outer.text:
            raise DomainXMLError(f"the domain XML has an element within <{parent.name}>")
        if ("", local := name.rpartition(":")[2]) in outer.children:
            raise DomainXMLError(f"the domain XML has <{local}> in a namespace that is not libvirt's")

    def end(self, _name: str) -> None:
        if self._passed_over:
            self._passed_over -= 1
        else:
            self._open.pop()
            self._namespaces.leave()

    def characters(self, text: str) -> None:
        if not self._passed_over and self._open[-1][1].text:
            self._open[-1][0].pieces.append(text)


def _check_attributes(name: str, attributes: "Mapping[str, str]") -> None:
    """Refuse prefixes: libvirt takes an attribute by its local name, whatever its namespace (xmlGetProp)."""
    for attribute in attributes:
        if ":" in attribute and not attribute.startswith("xmlns:"):
            raise DomainXMLError(f"the domain XML has an attribute with a prefix in <{name}>")


def _domain(root: _Element) -> Domain:
    os_type, cpu, model = root.required("os", "type"), root.first("cpu"), root.first("cpu", "model").text
    vcpus, current = _vcpus(root)
    max_memory, features = root.find("maxMemory"), root.first("features")
    return Domain(
        name=root.required("name").text,
        uuid=root.first("uuid").text.strip(),
        virt_type=root.get("type"),
        arch=os_type.get("arch"),
        machine=os_type.get("machine"),
        emulator=root.first("devices", "emulator").text,
        vcpus=vcpus,
        current_vcpus=current,
        memory=_memory(root),
        max_memory=_round_up(max_memory.size(), _MIB) if max_memory else 0,
        memory_slots=max_memory.number("slots") if max_memory and max_memory.get("slots") else 0,
        gic_version=_gic_version(features.first("gic")),
        pmu=_state(features, "pmu"),
        cpu_mode=cpu.get("mode") or ("custom" if model else ""),
        cpu_model=model,
        cpu_features=tuple(_cpu_feature(feature) for feature in cpu.all("feature")),
        devices=_devices(root),
        qemu_arguments=_qemu_arguments(root),
        qemu_overrides=any(override in root.children for override in _OVERRIDES),
        acpi=features.find("acpi") is not None,
        ras=_state(features, "ras"),
        virtualization=_state(features, "virtualization"),
        no_adjvtime=_no_adjvtime(root),
        launch_security=root.first("launchSecurity").get("type"),
        firmware=root.first("os").get("firmware") == "efi" or root.first("os", "loader").get("type") == "pflash",
        hotpluggable_vcpus=current < vcpus
        or any(vcpu.get("hotpluggable") == "yes" for vcpu in root.first("vcpus").all("vcpu")),
        cpuset=root.first("vcpu").get("cpuset"),
        vcpu_pins=tuple((pin.number("vcpu"), pin.get("cpuset")) for pin in root.first("cputune").all("vcpupin")),
        emulator_pin=root.first("cputune", "emulatorpin").get("cpuset"),
        record=_record(root, ABI_RECORD),
        host_record=_record(root, ABI_HOST),
    )


def _vcpus(root: _Element) -> tuple[int, int]:
    """The most there may be, and those present at boot (virDomainVcpuParse)."""
    vcpu = root.find("vcpu")
    if vcpu is None:
        return 1, 1
    most = vcpu.number(least=1)
    current = vcpu.number("current", least=1, most=most) if vcpu.get("current") else most
    enabled = sum(each.get("enabled") == "yes" for each in root.first("vcpus").all("vcpu"))
    return most, min(enabled, most) or current


def _memory(root: _Element) -> int:
    """What is present at boot: what the cells have, where they say it (virDomainDefPostParseMemory).

    Each size is rounded up to a MiB (qemuDomainAlignMemorySizes).
    """
    cells = root.first("cpu", "numa").all("cell")
    if total := sum(_round_up(cell.size("memory"), _MIB) for cell in cells if cell.get("memory")):
        return total
    sizes = (device.first("target", "size") for device in root.first("devices").all("memory"))
    memory = root.required("memory").size() - sum(size.size() for size in sizes if size.pieces)
    if memory < 0:
        raise DomainXMLError("the domain XML has more memory devices than fit into <memory>")
    return _round_up(memory, _MIB)


def _gic_version(gic: _Element) -> str:
    version = gic.get("version")
    return version if version in ("", "host") else str(gic.number("version"))


def _state(features: _Element, name: str) -> bool | None:
    """Whether a feature is to be on; one without ``state`` is."""
    feature = features.find(name)
    if feature is None:
        return None
    state = feature.attributes.get("state", "on")
    if state not in ("on", "off"):
        raise DomainXMLError(f"the domain XML has an unknown attribute 'state' of <{name}>")
    return state == "on"


def _cpu_feature(feature: _Element) -> CpuFeature:
    if not feature.get("name"):
        raise DomainXMLError("the domain XML has no attribute 'name' of <feature>")
    return CpuFeature(feature.get("name"), feature.get("policy") or "require")


def _no_adjvtime(root: _Element) -> bool | None:
    """What libvirt makes ``kvm-no-adjvtime`` of (qemuBuildCpuCommandLine)."""
    timers = (timer for timer in root.first("clock").all("timer") if timer.get("name") == "armvtimer")
    policies = [timer.get("tickpolicy") for timer in timers if timer.get("tickpolicy") in ("discard", "delay")]
    return policies[-1] == "discard" if policies else None


def _qemu_arguments(root: _Element) -> tuple[str, ...]:
    commandlines = root.children.get(_COMMANDLINE, [])
    return tuple(
        argument.get("value") for commandline in commandlines for argument in commandline.all("arg", QEMU_NAMESPACE)
    )


def _record(root: _Element, namespace: str) -> RecordElement | None:
    for element in root.first("metadata").all(ABI_ELEMENT, namespace):
        attributes = {name: value for name, value in element.attributes.items() if name.partition(":")[0] != "xmlns"}
        return RecordElement(attributes, element.text.strip())
    return None


_PORTS = ("pcie-root-port", "pcie-switch-upstream-port", "pcie-switch-downstream-port")


def _devices(root: _Element) -> Devices:
    devices = root.first("devices")
    controllers = [each for each in devices.all("controller") if each.get("type") == "pci"]
    holes = (each.find("pcihole64") for each in controllers if each.get("model") == "pcie-root")
    return Devices(
        iommus=tuple(_iommu(iommu) for iommu in devices.all("iommu")),
        root_ports=sum(controller.get("model") in _PORTS for controller in controllers),
        pcihole64=next((hole.size() for hole in holes if hole), 0),
        host_devices=_host_devices(devices, iommufd=root.first("iommufd").get("enabled") == "yes"),
        emulated=_emulated_devices(devices),
    )


def _emulated_devices(devices: _Element) -> "tuple[EmulatedDevice, ...]":
    from vgicmgr.domain.emulated import ELEMENTS, IMPLYING, emulated_devices

    names = dict.fromkeys((*ELEMENTS, *IMPLYING))
    elements = [(name, element) for name in names for element in devices.all(name)]
    return emulated_devices(
        [
            (name, {"": each.attributes, **{part: each.first(part).attributes for part in _PARTS}})
            for name, each in elements
        ]
    )


def _iommu(iommu: _Element) -> IOMMU:
    driver = iommu.first("driver")
    return IOMMU(
        model=iommu.get("model"),
        pci_bus=driver.number("pciBus") if driver.get("pciBus") else None,
        accel=driver.get("accel") == "on",
    )


def _host_devices(devices: _Element, *, iommufd: bool) -> "tuple[HostDevice, ...]":
    """Interfaces before others, as libvirt has them on QEMU's command line.

    ``iommufd``: what ``<iommufd>`` says for all of them; a device's own ``<driver>`` counts more.
    """
    interfaces = [each for each in devices.all("interface") if each.get("type") == "hostdev"]
    elements = interfaces + devices.all("hostdev")
    if not elements:
        return ()
    from vgicmgr.domain.hostdevices import host_device  # few domains have any

    if len(elements) > _MOST_HOST_DEVICES:
        raise DomainXMLError(f"the domain XML has more than {_MOST_HOST_DEVICES} host devices")
    found = (host_device(_parts(element), iommufd=iommufd) for element in elements)
    return tuple(device for device in found if device is not None)


def _parts(element: _Element) -> dict[str, dict[str, str]]:
    paths = (("source",), ("source", "address"), ("teaming",), ("driver",))
    parts = {"/".join(path): element.first(*path).attributes for path in paths}
    return {"": element.attributes, **parts}
