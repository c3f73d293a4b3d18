"""Domain settings: what a libvirt domain XML asks for, read and nothing more.

Source of every element: libvirt, ``docs/formatdomain.rst`` and ``src/conf/domain_conf.c``. The document may come from
another host and is read by a root process, so expat reads it without a DTD, within bounds, and an error names elements
and attributes but never quotes what stands in them.
"""

from xml.parsers import expat

from vgicmgr.dataclass import dataclass
from vgicmgr.errors import DomainXMLError

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.domain.hostdevices import HostDevice

MAX_BYTES = 16 << 20
"""The longest document that is read, in bytes; libvirt's own RPC ends at 4 MiB a string."""
MAX_DEPTH = 1024
"""The deepest nesting that is read; libvirt's deepest is a chain of 200 ``<backingStore>``."""

_UINT_MAX = 2**32 - 1
_LLONG_MAX = 2**63 - 1

_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_QEMU_OVERRIDES = frozenset(f"domain/{_QEMU} {name}" for name in ("commandline", "override", "capabilities"))
_CPU_FEATURE = "domain/cpu/feature"
_MEMORY_SIZE = "domain/devices/memory/target/size"
_NUMA_CELL = "domain/cpu/numa/cell"
_ONCE = frozenset(
    (
        "domain",
        "domain/name",
        "domain/uuid",
        "domain/memory",
        "domain/maxMemory",
        "domain/vcpu",
        "domain/os/type",
        "domain/features/gic",
        "domain/features/pmu",
        "domain/cpu",
        "domain/cpu/model",
        "domain/devices/emulator",
    )
)
_PARENTS = frozenset(
    (
        "domain/os",
        "domain/features",
        "domain/cpu/numa",
        "domain/devices",
        "domain/devices/memory",
        "domain/devices/memory/target",
    )
)
_HOST_DEVICES = frozenset(("domain/devices/hostdev", "domain/devices/interface"))
_OF_HOST_DEVICES = {
    f"{path}/{part}": part for path in _HOST_DEVICES for part in ("source", "source/address", "teaming")
}
_MOST_HOST_DEVICES = 1024


@dataclass(frozen=True)
class CpuFeature:
    """A ``<feature>`` of ``<cpu>``: ``policy`` is force, require, optional, disable or forbid."""

    name: str
    policy: str


@dataclass(frozen=True)
class DomainSettings:
    """What a domain asks for; an empty string or None where the document says nothing.

    ``vcpus`` is the maximum and ``current_vcpus`` what is there at boot. ``memory`` and ``max_memory`` are in bytes
    (``max_memory`` and ``memory_slots`` are 0 without ``<maxMemory>``); ``memory`` is without the memory devices, which
    ``<memory>`` counts (virDomainDefGetMemoryInitial). ``gic_version`` is a number or ``host``.
    ``cpu_mode`` is empty too for a ``<cpu>`` that names neither mode nor model (a topology, say). ``qemu_arguments``:
    QEMU's arguments are changed behind libvirt's back (``<qemu:commandline>`` and its like), so that the rest of the
    document may not be the whole truth. ``host_devices`` are those that VFIO assigns.
    """

    name: str
    uuid: str
    virt_type: str
    arch: str
    machine: str
    emulator: str
    vcpus: int
    current_vcpus: int
    memory: int
    max_memory: int
    memory_slots: int
    gic_version: str
    pmu: bool | None
    cpu_mode: str
    cpu_model: str
    cpu_features: tuple[CpuFeature, ...]
    qemu_arguments: bool
    host_devices: "tuple[HostDevice, ...]" = ()

    @property
    def needs_gic(self) -> bool:
        """Whether KVM is to give this guest an Arm GIC (libvirt's qemuDomainMachineIsARMVirt, under KVM)."""
        return (
            self.virt_type == "kvm"
            and self.arch in ("aarch64", "armv7l")
            and (self.machine == "virt" or self.machine.startswith("virt-"))
        )


def read_domain(xml: bytes) -> DomainSettings:
    """The settings of a domain XML (UTF-8, as libvirt writes it).

    Raises :class:`DomainXMLError` when the document is malformed, truncated, too large or too deep, has a DOCTYPE, or
    says something that libvirt would not write (a number out of range, an element twice).
    """
    if len(xml) > MAX_BYTES:
        raise DomainXMLError(f"the domain XML is larger than {MAX_BYTES >> 20} MiB")
    if not xml.strip():
        raise DomainXMLError("the domain XML is empty")
    reader = _Reader()
    reader.read(xml)
    return reader.settings()


class _Element:
    """An element that is of interest: its attributes, and its text as it comes."""

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def get(self, attribute: str) -> str:
        return self.attributes.get(attribute, "")

    def number(self, attribute: str = "", *, least: int = 0, most: int = _UINT_MAX) -> int:
        """The text, or an attribute, as an unsigned decimal number."""
        digits = (self.get(attribute) if attribute else self.text).strip(" \t\r\n")
        where = f"attribute '{attribute}' of <{self.name}>" if attribute else f"<{self.name}>"
        if not (digits.isascii() and digits.isdigit()):
            raise DomainXMLError(f"the domain XML has no whole number in {where}")
        if len(digits) > 20 or not least <= int(digits) <= most:
            raise DomainXMLError(f"the domain XML has a number out of range in {where}")
        return int(digits)

    def size(self, attribute: str = "") -> int:
        """A size in bytes, by the attribute ``unit`` (libvirt's virScaleInteger; KiB when it is absent)."""
        size = self.number(attribute, most=_LLONG_MAX) * self._scale(self.get("unit").lower())
        if size > _LLONG_MAX:
            raise DomainXMLError(f"the domain XML has a number out of range in <{self.name}>")
        return size

    def _scale(self, unit: str) -> int:
        if unit in ("b", "byte", "bytes"):
            return 1
        prefix, suffix = unit[:1] or "k", unit[1:]
        power = "kmgtpe".find(prefix) + 1
        if not power or suffix not in ("", "b", "ib"):
            raise DomainXMLError(f"the domain XML has an unknown attribute 'unit' of <{self.name}>")
        return int((1000 if suffix == "b" else 1024) ** power)


class _Reader:
    """Gathers the elements of interest; everything else is passed over by counting its depth."""

    def __init__(self) -> None:
        self.found: dict[str, _Element] = {}
        self.several: dict[str, list[_Element]] = {_CPU_FEATURE: [], _NUMA_CELL: [], _MEMORY_SIZE: []}
        self.host_devices: list[dict[str, dict[str, str]]] = []
        self.qemu_arguments = False
        self._path: list[str] = []
        self._text: list[_Element | None] = []
        self._passed_over = 0

    def read(self, xml: bytes) -> None:
        # the encoding is given, so that the document's own declaration cannot choose a codec
        parser = expat.ParserCreate("UTF-8", " ")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(xml, True)
        except expat.ExpatError as error:
            raise DomainXMLError(
                f"the domain XML is malformed: {expat.ErrorString(error.code)} at line {error.lineno}"
            ) from None

    def _doctype(self, *_: object) -> None:
        raise DomainXMLError("the domain XML has a DOCTYPE, which libvirt never writes")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._path) + self._passed_over >= MAX_DEPTH:
            raise DomainXMLError(f"the domain XML is nested deeper than {MAX_DEPTH} elements")
        if self._passed_over:
            self._passed_over += 1
            return
        path = f"{self._path[-1]}/{name}" if self._path else name
        element = None
        if path in _ONCE:
            if path in self.found:
                raise DomainXMLError(f"the domain XML has <{name}> twice")
            element = self.found[path] = _Element(name, attributes)
        elif path in self.several:
            element = _Element(name, attributes)
            self.several[path].append(element)
        elif path in _QEMU_OVERRIDES:
            self.qemu_arguments = True
        elif path in _HOST_DEVICES and (name == "hostdev" or attributes.get("type") == "hostdev"):
            if len(self.host_devices) == _MOST_HOST_DEVICES:
                raise DomainXMLError(f"the domain XML has more than {_MOST_HOST_DEVICES} host devices")
            self.host_devices.append({"": attributes})
        elif path in _OF_HOST_DEVICES:
            self.host_devices[-1].setdefault(_OF_HOST_DEVICES[path], attributes)
        elif path not in _PARENTS:
            if not self._path:
                raise DomainXMLError("the document is no domain XML: its root is not <domain>")
            self._passed_over = 1
            return
        self._path.append(path)
        self._text.append(element)

    def _end(self, _name: str) -> None:
        if self._passed_over:
            self._passed_over -= 1
        else:
            self._path.pop()
            self._text.pop()

    def _characters(self, text: str) -> None:
        if not self._passed_over and self._text and (element := self._text[-1]) is not None:
            element.pieces.append(text)

    def _element(self, path: str) -> _Element:
        return self.found.get(path) or _Element(path.rpartition("/")[2], {})

    def _required(self, path: str) -> _Element:
        if path not in self.found:
            raise DomainXMLError(f"the domain XML has no <{path.rpartition('/')[2]}>")
        return self.found[path]

    def settings(self) -> DomainSettings:
        domain, os_type = self.found["domain"], self._required("domain/os/type")
        cpu, model = self._element("domain/cpu"), self._element("domain/cpu/model").text
        vcpu, max_memory = self.found.get("domain/vcpu"), self.found.get("domain/maxMemory")
        vcpus = vcpu.number(least=1) if vcpu else 1
        return DomainSettings(
            name=self._required("domain/name").text,
            uuid=self._element("domain/uuid").text.strip(),
            virt_type=domain.get("type"),
            arch=os_type.get("arch"),
            machine=os_type.get("machine"),
            emulator=self._element("domain/devices/emulator").text,
            vcpus=vcpus,
            current_vcpus=vcpu.number("current", least=1, most=vcpus) if vcpu and vcpu.get("current") else vcpus,
            memory=self._memory(),
            max_memory=max_memory.size() if max_memory else 0,
            memory_slots=max_memory.number("slots") if max_memory and max_memory.get("slots") else 0,
            gic_version=self._gic_version(),
            pmu=self._pmu(),
            cpu_mode=cpu.get("mode") or ("custom" if model else ""),
            cpu_model=model,
            cpu_features=tuple(self._cpu_feature(feature) for feature in self.several[_CPU_FEATURE]),
            qemu_arguments=self.qemu_arguments,
            host_devices=self._host_devices(),
        )

    def _host_devices(self) -> "tuple[HostDevice, ...]":
        """Interfaces before others, as libvirt has them on QEMU's command line."""
        if not self.host_devices:
            return ()
        from vgicmgr.domain.hostdevices import host_device  # few domains have any

        ordered = sorted(self.host_devices, key=lambda parts: parts[""].get("type") != "hostdev")
        return tuple(device for parts in ordered if (device := host_device(parts)) is not None)

    def _memory(self) -> int:
        """What the cells have, where they say it (virDomainDefPostParseMemory): there, ``<memory>`` follows from it."""
        if cells := sum(cell.size("memory") for cell in self.several[_NUMA_CELL] if cell.get("memory")):
            return cells
        memory = self._required("domain/memory").size() - sum(size.size() for size in self.several[_MEMORY_SIZE])
        if memory < 0:
            raise DomainXMLError("the domain XML has more memory devices than fit into <memory>")
        return memory

    def _gic_version(self) -> str:
        gic = self._element("domain/features/gic")
        version = gic.get("version")
        if version in ("", "host"):
            return version
        return str(gic.number("version"))

    def _pmu(self) -> bool | None:
        pmu = self.found.get("domain/features/pmu")
        if pmu is None:
            return None
        state = pmu.attributes.get("state", "on")
        if state not in ("on", "off"):
            raise DomainXMLError("the domain XML has an unknown attribute 'state' of <pmu>")
        return state == "on"

    @staticmethod
    def _cpu_feature(feature: _Element) -> CpuFeature:
        if not feature.get("name"):
            raise DomainXMLError("the domain XML has no attribute 'name' of <feature>")
        return CpuFeature(feature.get("name"), feature.get("policy") or "require")
