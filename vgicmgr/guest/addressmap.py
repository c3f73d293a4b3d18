"""Where a VMM puts the interrupt controller: QEMU's ``virt`` machine, or another VMM (:mod:`vgicmgr.guest.mapfile`)."""

from collections.abc import Mapping

from vgicmgr.dataclass import dataclass, replace
from vgicmgr.domain.domain import Domain
from vgicmgr.guest.configuration import Region
from vgicmgr.qemu import virt
from vgicmgr.qemu.machine import GIB, MEM_BASE, top_of_memory
from vgicmgr.qemu.virt import HighMemory, MemoryRegion

DEVICE_NAMES = {
    "distributor": "distributor",
    "cpu-interface": "CPU interface",
    "redistributors": "first redistributors",
    "high-redistributors": "high redistributors",
    "its": "ITS",
    "gicv2m": "GICv2m",
}
"""The devices that have an address, by their names in our metadata, and what people call them."""


@dataclass(frozen=True)
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


def virt_map(high: HighMemory, domain: Domain, *, smmu: bool) -> AddressMap:
    """QEMU's ``virt`` machine with these high regions (hw/arm/virt.c, create_gic)."""
    others = {name: region for name, region in virt.BASE_MEMORY_MAP.items() if not name.startswith("VIRT_GIC_")}
    if not smmu:
        del others["VIRT_SMMU"]
    ram = MemoryRegion("VIRT_MEM", MEM_BASE, domain.memory)
    top = top_of_memory(domain.memory, domain.max_memory, domain.memory_slots)
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
            *others.values(),
            ram,
            *((device_memory,) if device_memory.size else ()),
            *(region for region in high.regions if region != redist2),
        ),
    )


def _region(region: MemoryRegion) -> Region:
    return Region(region.base, region.size)
