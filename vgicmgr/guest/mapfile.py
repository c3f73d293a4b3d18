"""Map files: another VMM's address map as data (TOML; ``xml/kvmtool.toml`` shows one)."""

import tomllib
from typing import Any

from vgicmgr.errors import VgicmgrError
from vgicmgr.guest.addressmap import AddressMap
from vgicmgr.guest.configuration import Region
from vgicmgr.qemu import virt
from vgicmgr.qemu.virt import MemoryRegion


class AddressMapError(VgicmgrError):
    """A map file cannot be read, or says what no VMM can mean."""


_NUMBERS = {"pmu-intid": (16, 1019), "nr-irqs": (64, 1024), "ipa-bits": (32, 52), "gicv2m-spis": (0, 988)}
_REGIONS = ("distributor", "cpu-interface", "its", "gicv2m")
_KEYS = {"name", "fixed", "redistributors", "reserved", "others", *_NUMBERS, *_REGIONS}


def read_address_map(toml: bytes) -> AddressMap:
    """The map that a map file describes; raises :class:`AddressMapError`."""
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
