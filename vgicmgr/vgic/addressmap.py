"""Where a VMM puts the interrupt controller: QEMU's ``virt`` machine, or another VMM described by a map file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vgicmgr.domain.settings import DomainSettings
from vgicmgr.errors import VgicmgrError
from vgicmgr.qemu import virt
from vgicmgr.qemu.machine import GIB, MEM_BASE, machine_version, top_of_memory
from vgicmgr.qemu.virt import HighMemory, MemoryRegion, Properties
from vgicmgr.vgic.configuration import Region


class AddressMapError(VgicmgrError):
    """A map file cannot be read, or says what no VMM can mean."""


@dataclass(frozen=True, slots=True)
class AddressMap:
    """A VMM's addresses and interrupt numbers; a Region is None where the VMM has no such device.

    ``redistributors`` are the regions in which there is room for them, in the order in which they are filled.
    ``ipa_bits`` is the guest physical address size the VM is made with. ``reserved`` are the INTIDs that belong to
    something else, with its name. ``others`` is what else stands in the map. ``fixed``: no address can be chosen.
    """

    name: str
    distributor: Region
    cpu_interface: Region | None
    redistributors: tuple[Region, ...]
    its: Region | None
    gicv2m: Region | None
    gicv2m_spis: int
    pmu_intid: int
    nr_irqs: int
    ipa_bits: int
    reserved: Mapping[int, str]
    others: tuple[MemoryRegion, ...] = ()
    fixed: bool = True

    def region(self, device: str) -> Region | None:
        """The region of a device by its name in our metadata."""
        redistributors = dict(zip(("redistributors", "high-redistributors"), self.redistributors, strict=False))
        return {
            "distributor": self.distributor,
            "cpu-interface": self.cpu_interface,
            "its": self.its,
            "gicv2m": self.gicv2m,
            **redistributors,
        }.get(device)

    def moved(self, device: str, base: int) -> "AddressMap":
        """The map with that device, which it has, at another base."""
        place = {"redistributors": 0, "high-redistributors": 1}.get(device, -1)

        def at(name: str, region: Region) -> Region:
            return Region(base, region.size) if name == device else region

        def maybe(name: str, region: Region | None) -> Region | None:
            return at(name, region) if region else None

        return replace(
            self,
            distributor=at("distributor", self.distributor),
            cpu_interface=maybe("cpu-interface", self.cpu_interface),
            its=maybe("its", self.its),
            gicv2m=maybe("gicv2m", self.gicv2m),
            redistributors=tuple(
                Region(base, region.size) if number == place else region
                for number, region in enumerate(self.redistributors)
            ),
        )


def virt_map(high: HighMemory, settings: DomainSettings, *, smmu: bool) -> AddressMap:
    """QEMU's ``virt`` machine with these high regions (hw/arm/virt.c, create_gic)."""
    there = {name: region for name, region in virt.BASE_MEMORY_MAP.items() if not name.startswith("VIRT_GIC_")}
    if not smmu:
        del there["VIRT_SMMU"]
    ram = MemoryRegion("VIRT_MEM", MEM_BASE, settings.memory)
    top = top_of_memory(settings.memory, settings.max_memory, settings.memory_slots)
    first = -(-ram.end // GIB) * GIB
    device_memory = MemoryRegion("device memory", first, top - first)
    redist2 = high.find("VIRT_HIGH_GIC_REDIST2")
    return AddressMap(
        name="QEMU's virt machine",
        distributor=_region(virt.BASE_MEMORY_MAP["VIRT_GIC_DIST"]),
        cpu_interface=_region(virt.BASE_MEMORY_MAP["VIRT_GIC_CPU"]),
        redistributors=(
            _region(virt.BASE_MEMORY_MAP["VIRT_GIC_REDIST"]),
            *((_region(redist2),) if redist2 else ()),
        ),
        its=_region(virt.BASE_MEMORY_MAP["VIRT_GIC_ITS"]),
        gicv2m=_region(virt.BASE_MEMORY_MAP["VIRT_GIC_V2M"]),
        gicv2m_spis=virt.GICV2M_SPIS,
        pmu_intid=virt.PMU_INTID,
        nr_irqs=virt.NR_IRQS,
        ipa_bits=high.ipa_bits,
        reserved={
            **{intid: f"the {name} timer" for name, intid in virt.TIMER_INTIDS.items()},
            virt.EL2_VIRTUAL_TIMER_INTID: "the EL2 virtual timer",
            virt.MAINTENANCE_INTID: "the GIC's maintenance interrupt",
        },
        others=(
            *there.values(),
            ram,
            *((device_memory,) if device_memory.size else ()),
            *(region for region in high.regions if region != redist2),
        ),
    )


def _region(region: MemoryRegion) -> Region:
    return Region(region.base, region.size)


def high_memory(settings: DomainSettings, ipa_bits: int, properties: Properties) -> HighMemory:
    """The high regions for this domain on the ``virt`` machine."""
    top = top_of_memory(settings.memory, settings.max_memory, settings.memory_slots)
    return virt.high_memory(top, ipa_bits, properties, machine_version(settings.machine))


_NUMBERS = {"pmu-intid": (16, 1019), "nr-irqs": (64, 1024), "ipa-bits": (32, 52), "gicv2m-spis": (0, 988)}
_REGIONS = ("distributor", "cpu-interface", "its", "gicv2m")
_KEYS = {"name", "fixed", "redistributors", "reserved", "others", *_NUMBERS, *_REGIONS}


def read_address_map(toml: bytes) -> AddressMap:
    """Another VMM's map from a map file (TOML; ``xml/kvmtool.toml`` shows one).

    Raises :class:`AddressMapError`.
    """
    import tomllib  # not on the hook's way

    try:
        data = tomllib.loads(toml.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AddressMapError(f"the map file is no TOML: {_first_line(error)}") from None
    if unknown := sorted(data.keys() - _KEYS):
        raise AddressMapError(f"the map file has an unknown key {unknown[0]!r}")
    redistributors = data.get("redistributors", [])
    others = data.get("others", [])
    if not isinstance(redistributors, list) or not isinstance(others, list):
        raise AddressMapError("the map file's redistributors and others are arrays of tables")
    numbers = {key: _number(data, key, *bounds) for key, bounds in _NUMBERS.items() if key in data}
    regions = {key: _read_region(data[key], key) for key in _REGIONS if key in data}
    if "distributor" not in regions:
        raise AddressMapError("the map file has no distributor")
    return AddressMap(
        name=_string(data, "name"),
        distributor=regions["distributor"],
        cpu_interface=regions.get("cpu-interface"),
        redistributors=tuple(_read_region(item, "redistributors") for item in redistributors),
        its=regions.get("its"),
        gicv2m=regions.get("gicv2m"),
        gicv2m_spis=numbers.get("gicv2m-spis", 0),
        pmu_intid=numbers.get("pmu-intid", virt.PMU_INTID),
        nr_irqs=numbers.get("nr-irqs", virt.NR_IRQS) // 32 * 32,
        ipa_bits=numbers.get("ipa-bits", 40),
        reserved=_reserved(data.get("reserved", {})),
        others=tuple(
            MemoryRegion(_string(item, "name"), region.base, region.size)
            for item in others
            if (region := _read_region(item, "others", named=True))
        ),
        fixed=bool(data.get("fixed", True)),
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].encode("unicode_escape").decode()


def _read_region(item: Any, key: str, *, named: bool = False) -> Region:
    if not isinstance(item, dict) or item.keys() - {"base", "size", *(("name",) if named else ())}:
        raise AddressMapError(f"the map file's {key} is a table of base and size")
    return Region(_number(item, "base", 0, 2**52 - 1), _number(item, "size", 1, 2**52))


def _number(table: Any, key: str, least: int, most: int) -> int:
    value = table.get(key) if isinstance(table, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise AddressMapError(f"the map file has no number from {least:#x} to {most:#x} for {key}")
    return value


def _string(table: Any, key: str) -> str:
    value = table.get(key) if isinstance(table, dict) else None
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 80:
        raise AddressMapError(f"the map file has no {key} of 1 to 80 printable characters")
    return value


def _reserved(table: Any) -> dict[int, str]:
    """INTIDs by what they belong to, the other way round: ``"virtual timer" = 27``."""
    if not isinstance(table, dict):
        raise AddressMapError("the map file's reserved is a table of names and INTIDs")
    return {_number(table, name, 16, 1019): _string({"name": name}, "name") for name in table}
