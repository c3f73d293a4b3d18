"""How many vCPUs fit, and where their redistributors are.

Sources: QEMU's ``accel/kvm/kvm-all.c`` (kvm_init), ``target/arm/kvm.c`` (kvm_arch_init), ``hw/arm/virt.c``
(machvirt_init, virt_redist_capacity) and ``hw/intc/arm_gicv3_kvm.c``. Some limits count all vCPUs, some those at boot.
"""

from vgicmgr.dataclass import dataclass
from vgicmgr.domain.domain import Domain
from vgicmgr.guest.addressmap import AddressMap
from vgicmgr.guest.configuration import Source
from vgicmgr.guest.machine import Machine
from vgicmgr.guest.notes import Notes
from vgicmgr.kvm import vgic_v2
from vgicmgr.kvm.vgic_v3 import RedistributorRegion
from vgicmgr.qemu import virt
from vgicmgr.qemu.machine import GIC_REDIST_VCPUS

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts

_IRQ_LINE_VCPUS = 256
"""KVM_IRQ_LINE names no more vCPUs without KVM_CAP_ARM_IRQ_LINE_LAYOUT_2."""


@dataclass(frozen=True)
class _Limit:
    """At most ``limit`` of the ``count`` vCPUs that are held against it; why, and what else can be done."""

    count: int
    limit: int
    why: str
    remedy: str


def resolve_vcpus(
    domain: Domain, machine: Machine, address_map: AddressMap, host: "HostFacts", notes: Notes, *, version: int
) -> tuple[RedistributorRegion, ...]:
    """The redistributor regions in use, of a GICv2 none; raises :class:`Refused` for too many vCPUs."""
    most = 512 if machine.since(virt.MAX_512_VCPUS_SINCE) else 255
    limits = [
        _Limit(domain.vcpus, most, "the machine type's limit", "use a newer machine type"),
        *_of_gic(domain, version, address_map),
    ]
    if machine.kvm:
        limits += _of_kvm(domain, version, machine, host)
    _check(domain, version, limits, notes)
    if domain.hotpluggable_vcpus or domain.current_vcpus < domain.vcpus:
        notes.find(
            "vcpu-hotplug",
            f"{domain.vcpus} vCPUs are declared and {domain.current_vcpus} exist at boot, but QEMU's 'virt' plugs no "
            "vCPUs",
            f"set <vcpu>{domain.current_vcpus}</vcpu>",
        )
    return place_redistributors(domain, version, address_map, Source.MACHINE, notes)


def resolve_vcpus_by_map(
    domain: Domain, version: int, address_map: AddressMap, host: "HostFacts", notes: Notes
) -> tuple[RedistributorRegion, ...]:
    """As :func:`resolve_vcpus`, under another VMM than QEMU."""
    limits = [*_of_gic(domain, version, address_map), _kvm_limit(domain, host)]
    _check(domain, version, limits, notes)
    return place_redistributors(domain, version, address_map, Source.MAP, notes)


def place_redistributors(
    domain: Domain, version: int, address_map: AddressMap, source: Source, notes: Notes
) -> tuple[RedistributorRegion, ...]:
    """The regions of those vCPUs that exist at boot, one filled after the other."""
    hotplug = f", {domain.vcpus} at most" if domain.vcpus != domain.current_vcpus else ""
    notes.decide("vCPUs", f"{domain.current_vcpus}{hotplug}", Source.XML)
    if version == 2:
        return ()
    regions: list[RedistributorRegion] = []
    left = domain.current_vcpus
    for index, (base, capacity) in enumerate(_capacities(version, address_map)):
        if left:
            regions.append(RedistributorRegion(index, base, min(left, capacity)))
            left -= regions[-1].count
    counts = " and ".join(f"{region.count} at {region.base:#x}" for region in regions)
    notes.decide("redistributors", counts, source)
    return tuple(regions)


def _capacities(version: int, address_map: AddressMap) -> list[tuple[int, int]]:
    """Base of each region, and how many redistributors fit in."""
    size = virt.GICV4_REDIST_SIZE if version == 4 else virt.GICV3_REDIST_SIZE
    return [(region.base, region.size // size) for region in address_map.redistributors]


def _of_gic(domain: Domain, version: int, address_map: AddressMap) -> list[_Limit]:
    if version == 2:
        return [
            _Limit(
                domain.vcpus, vgic_v2.MAX_VCPUS, "the limit of a GICv2", "set <gic version='3'/> where the host has it"
            )
        ]
    room = sum(capacity for _, capacity in _capacities(version, address_map))
    return [
        _Limit(
            domain.vcpus, room, "no room for more redistributors at this IPA size", "use a host with a larger IPA size"
        )
    ]


def _of_kvm(domain: Domain, version: int, machine: Machine, host: "HostFacts") -> list[_Limit]:
    limits = [_kvm_limit(domain, host)]
    if not host.capability("KVM_CAP_ARM_IRQ_LINE_LAYOUT_2"):
        limits.append(
            _Limit(domain.current_vcpus, _IRQ_LINE_VCPUS, "no KVM_CAP_ARM_IRQ_LINE_LAYOUT_2", "boot Linux 5.4 or newer")
        )
    # asked only where it matters: it costs a VM
    if (
        machine.in_kernel
        and version == 3
        and domain.current_vcpus > GIC_REDIST_VCPUS
        and not host.redistributor_regions
    ):
        limits.append(
            _Limit(
                domain.current_vcpus,
                GIC_REDIST_VCPUS,
                "no KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION",
                "boot Linux 4.18 or newer",
            )
        )
    return limits


def _kvm_limit(domain: Domain, host: "HostFacts") -> _Limit:
    return _Limit(
        domain.vcpus, host.capability("KVM_CAP_MAX_VCPUS"), "KVM_CAP_MAX_VCPUS", "use a host with a larger one"
    )


def _check(domain: Domain, version: int, limits: list[_Limit], notes: Notes) -> None:
    exceeded = [limit for limit in limits if limit.count > limit.limit]
    if not exceeded:
        return
    least = min(exceeded, key=lambda limit: limit.limit)
    raise notes.refuse(
        "vcpu-count",
        f"<vcpu>{domain.vcpus}</vcpu> is asked for, but a guest with a GICv{version} has at most {least.limit} vCPUs "
        f"there ({least.why})",
        f"set <vcpu> to {least.limit} or less, or {least.remedy}",
    )
