"""Our wishes (:mod:`vgicmgr.domain.metadata`) laid over a configuration: what can be granted, and how it is said.

A wish changes what the machine would have by itself; where nothing can, that is a finding, and the machine's own stays.
"""

from itertools import pairwise

from vgicmgr.domain.metadata import Unsatisfied, Wishes
from vgicmgr.findings import Severity
from vgicmgr.guest.addressmap import DEVICE_NAMES, AddressMap
from vgicmgr.guest.configuration import Region, Source
from vgicmgr.guest.machine import Machine
from vgicmgr.guest.msi import MSI_NAMES
from vgicmgr.guest.msi import SUBJECT as MSI_SUBJECT
from vgicmgr.guest.notes import Notes
from vgicmgr.guest.pmu import SUBJECT as PMU_SUBJECT
from vgicmgr.guest.pmu import check_intid, intid_words
from vgicmgr.qemu import virt
from vgicmgr.qemu.gic import MSIController

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts

ALIGNMENT = {"gicv2": 4 << 10, "gicv3": 64 << 10}
"""Of the GIC's frames, in bytes (Documentation/virt/kvm/devices/arm-vgic.rst, arm-vgic-v3.rst, arm-vgic-its.rst)."""


NO_WISHES = Wishes()


def grant_msi(
    wishes: Wishes, default: MSIController, machine: Machine, host: "HostFacts", notes: Notes, *, version: int
) -> tuple[MSIController, tuple[tuple[str, str], ...]]:
    """The MSI controller that is wished for on QEMU's ``virt``, or the machine's own.

    And the ``-machine`` properties that say it: libvirt has no element for it.
    """
    wish = _wished_msi(wishes, version, notes)
    if wish is None or wish is default:
        if wish is not None:
            notes.decide(MSI_SUBJECT, MSI_NAMES[wish], Source.METADATA)
        return default, ()
    words = f"the wish for {MSI_NAMES[wish]} as MSI controller"
    if machine.properties.msi not in ("", "auto") or machine.properties.its is not None:
        notes.find("wish-contradiction", f"{words} is contradicted by <qemu:commandline>", "remove one of them")
        return default, ()
    if wish is MSIController.ITS:
        why_not = _no_its(version, machine, host)
        option = None if why_not else ("its", "on")
    elif wish is MSIController.NONE and version != 2:
        why_not, option = None, ("its", "off")
    else:
        why_not, option = _msi_option(wish, default, version, machine)
    if why_not:
        cannot_honour(f"{words} {why_not[0]}", why_not[1], wishes, notes)
    if option is None:
        return default, ()
    notes.decide(MSI_SUBJECT, MSI_NAMES[wish], Source.METADATA)
    return wish, (option,)


def grant_msi_by_map(
    wishes: Wishes, default: MSIController, version: int, address_map: AddressMap, notes: Notes
) -> MSIController:
    """The MSI controller that is wished for under another VMM, or the map's own."""
    wish = _wished_msi(wishes, version, notes)
    if wish is None:
        return default
    possible = {
        MSIController.ITS: address_map.its is not None and version != 2,
        MSIController.GICV2M: address_map.gicv2m is not None,
        MSIController.NONE: True,
    }
    if not possible[wish]:
        cannot_honour(
            f"the wish for {MSI_NAMES[wish]} as MSI controller cannot be met: {address_map.name} has none for a "
            f"GICv{version}",
            "remove the wish",
            wishes,
            notes,
        )
        return default
    notes.decide(MSI_SUBJECT, MSI_NAMES[wish], Source.METADATA)
    return wish


def grant_pmu(wishes: Wishes, intid: int | None, vcpus: int, address_map: AddressMap, notes: Notes) -> int | None:
    """The INTID that is wished for the PMU's interrupt, or the map's own."""
    wish = wishes.pmu_intid
    if intid is None:
        if wish is not None:
            notes.find(
                "wish-contradiction",
                f"INTID {wish} is wished for as the PMU's interrupt, but the guest has no PMU",
                "set <pmu state='on'/>, or remove the wish",
            )
        return None
    if wish is not None and wish != intid and address_map.fixed:
        notes.find(
            "wish-fixed",
            f"the wish for the PMU's interrupt to be {intid_words(wish)} cannot be met: {address_map.name} has it at "
            f"{intid_words(intid)}, and nothing moves it",
            f"remove the wish, or set it to {intid}",
        )
        return intid
    chosen = intid if wish is None else wish
    check_intid(chosen, vcpus, address_map, notes)
    if wish is not None:
        notes.decide(PMU_SUBJECT, intid_words(chosen), Source.METADATA)
    return chosen


def grant_addresses(wishes: Wishes, address_map: AddressMap, notes: Notes) -> AddressMap:
    """The map with the devices at the addresses that are wished for, where the map is not fixed."""
    for wish in wishes.addresses:
        region = address_map.region(wish.device)
        if region is None:
            notes.find(
                "wish-fixed",
                f"an address is wished for the {wish.device}, but {address_map.name} has none here",
                "remove the wish",
            )
        elif wish.base != region.base and address_map.fixed:
            notes.find(
                "wish-fixed",
                f"the wish for the {wish.device} to be at {wish.base:#x} cannot be met: {address_map.name} has it at "
                f"{region.base:#x}, and nothing moves it",
                f"remove the wish, or set it to {region.base:#x}",
            )
        else:
            address_map = address_map.moved(wish.device, wish.base)
            notes.decide(DEVICE_NAMES[wish.device], f"{wish.base:#x}", Source.METADATA)
    return address_map


def check_map(address_map: AddressMap, notes: Notes) -> None:
    """What the kernel demands of addresses; QEMU's own map keeps to it."""
    names = ("distributor", "cpu-interface", "its", "gicv2m")
    frames = [(name, region) for name in names if (region := address_map.region(name))]
    frames += [("redistributors", region) for region in address_map.redistributors]
    gicv2 = address_map.cpu_interface is not None and not address_map.redistributors
    alignment = ALIGNMENT["gicv2" if gicv2 else "gicv3"]
    for name, region in frames:
        if region.base % (4 << 10 if name in ("cpu-interface", "gicv2m") else alignment):
            notes.find(
                "address-misaligned",
                f"the {name} at {region.base:#x} is not aligned to {alignment >> 10} KiB",
                "choose another address",
            )
        if region.end > 1 << address_map.ipa_bits:
            notes.find(
                "address-range",
                f"the {name} ends at {region.end:#x}, beyond {address_map.ipa_bits} bits of guest physical address",
                "choose another address",
            )
    others = [(other.name, Region(other.base, other.size)) for other in address_map.others]
    for (name, region), (next_name, next_region) in pairwise(sorted([*frames, *others], key=lambda item: item[1].base)):
        if region.end > next_region.base:
            notes.find(
                "address-overlap",
                f"the {name} ({region.base:#x} to {region.end - 1:#x}) and the {next_name} "
                f"({next_region.base:#x}) overlap",
                "choose other addresses",
            )


def cannot_honour(evidence: str, remedy: str, wishes: Wishes, notes: Notes) -> None:
    """A wish that this host or QEMU's version cannot fulfil: what becomes of it is a wish, too."""
    severity = Severity.ERROR if wishes.unsatisfied is Unsatisfied.REFUSE else Severity.WARNING
    notes.find("wish-unmet", evidence, remedy, severity=severity)


def _wished_msi(wishes: Wishes, version: int, notes: Notes) -> MSIController | None:
    msi = MSIController(wishes.msi) if wishes.msi else None
    if wishes.its is None:
        return msi
    if wishes.its and msi in (None, MSIController.ITS):
        return MSIController.ITS
    if not wishes.its and msi is not MSIController.ITS:
        # a GICv2 has no ITS to switch off and keeps what it has
        return msi or (MSIController.NONE if version != 2 else None)
    raise notes.refuse(
        "wish-contradiction",
        f"the wishes <its state='{'on' if wishes.its else 'off'}'/> and <msi controller='{wishes.msi}'/> contradict "
        "each other",
        "remove one of them",
    )


def _no_its(version: int, machine: Machine, host: "HostFacts") -> tuple[str, str] | None:
    """Why a wish for an ITS cannot be met, and what to do; None where it can."""
    if version == 2:
        return "cannot be met: a GICv2 has none", "set <gic version='3'/>"
    if not machine.kvm and not machine.since(virt.TCG_ITS_SINCE):
        return "cannot be met: before virt-6.2 there is none under TCG", "use virt-6.2 or newer"
    if machine.kvm and not host.its(host.ipa_bits):
        return f"cannot be met: KVM on {host.name} makes none", "use a host with an ITS for guests"
    return None


def _msi_option(
    wish: MSIController, default: MSIController, version: int, machine: Machine
) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
    """The property ``msi``, for nothing with a GICv2 or a GICv2m with a GICv3; or why it cannot say that."""
    since = virt.SINCE["msi"]
    known = machine.qemu_since(since)
    if known:
        return None, ("msi", "off" if wish is MSIController.NONE else wish.value)
    dotted = ".".join(map(str, since))
    fixed = f"with a GICv{version}, QEMU before {dotted} has {MSI_NAMES[default]}, fixed"
    if known is False:
        return (f"cannot be met: {fixed}", f"use QEMU {dotted} or newer"), None
    return (f"may not be met: {fixed}", "tell QEMU's version by --qemu-version"), None
