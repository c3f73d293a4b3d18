"""Assigned devices against the interrupt controller, the host that assigns them, and a migration; values only.

Sources: QEMU's ``hw/vfio/pci.c`` and ``hw/vfio/migration.c``; ``drivers/vfio/vfio_iommu_type1.c``; of the ITS,
``arch/arm64/kvm/vgic/vgic-its.c`` and ``Documentation/virt/kvm/devices/arm-vgic-its.rst``.
"""

from collections.abc import Iterator, Mapping, Sequence

from vgicmgr.domain.hostdevices import HostDevice
from vgicmgr.findings import Finding, Severity, finding
from vgicmgr.kvm import gicregs
from vgicmgr.qemu.gic import MSIController
from vgicmgr.vfio.assigned import AssignedDevice, AssignedDevices

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts

LPIS = (1 << 16) - 8192
"""Of a guest with an ITS: KVM's INTIDs have 16 bits (INTERRUPT_ID_BITS_ITS), the first LPI is 8192."""


def vfio_files(devices: Sequence[HostDevice], assigned: AssignedDevices) -> tuple[str, ...]:
    """What QEMU tells KVM's VFIO device of: each group once, in the order of the devices, and each device of iommufd.

    A transient device is plugged later. Where the group is not known, the device stands for it; so it does for its own
    node (/dev/vfio/devices/vfioN), which QEMU hands over where iommufd has the device (hw/vfio/iommufd.c,
    iommufd_cdev_kvm_device_add).
    """
    present = [device for device in devices if not device.transient]
    return tuple(dict.fromkeys(_file(device, assigned.get(device.address)) for device in present))


def _file(device: HostDevice, found: AssignedDevice | None) -> str:
    if device.iommufd:
        return f"the VFIO device node of {_name(device)}"
    if found is None or found.group is None:
        return f"the group of {_name(device)}"
    return f"/dev/vfio/{found.group}"


def msi_findings(
    devices: Sequence[HostDevice],
    host: "HostFacts",
    msi: MSIController,
    assigned: AssignedDevices,
    *,
    gicv2m_spis: int,
) -> Iterator[Finding]:
    """Whether the devices' MSIs reach the guest through its MSI controller."""
    found = [here for device in devices if (here := assigned.get(device.address))]
    vectors = sum(device.vectors or 0 for device in found)
    if msi is MSIController.NONE:
        without_intx = [device.name for device in found if device.intx is False]
        lines = f" ({', '.join(without_intx)} {_has(without_intx)} no interrupt line either)" if without_intx else ""
        yield finding(
            "msi-none",
            f"{_plural(len(devices), 'assigned device')} can send no MSIs: there is no MSI controller{lines}",
            "with a GICv3 they need the ITS: remove its=off, or use a host that has one",
            severity=Severity.ERROR if without_intx else Severity.WARNING,
        )
    elif msi is MSIController.GICV2M:
        if vectors > gicv2m_spis:
            yield finding(
                "msi-vectors",
                f"the assigned devices have {vectors} MSI vectors, but the GICv2m has {gicv2m_spis} SPIs for all "
                "devices together",
                "use a GICv3 with an ITS",
            )
    else:
        yield from _its_findings(found, vectors, host)


def _its_findings(found: Sequence[AssignedDevice], vectors: int, host: "HostFacts") -> Iterator[Finding]:
    if host.msi_devid is False:
        yield finding(
            "msi-devid-missing",
            "the assigned devices' MSIs carry no device id (KVM_CAP_MSI_DEVID), by which the ITS tells them apart",
            "boot a newer kernel (4.8 or later)",
        )
    if host.gits_typer is not None:
        yield from _its_sizes(found, gicregs.GITS_TYPER.decode(host.gits_typer))
    if vectors > LPIS:
        yield finding(
            "msi-vectors",
            f"the assigned devices have {vectors} MSI vectors, but the guest has {LPIS} LPIs for all devices together",
            "assign fewer devices, or have their drivers in the guest use fewer vectors",
        )


def _its_sizes(found: Sequence[AssignedDevice], typer: Mapping[str, int]) -> Iterator[Finding]:
    """Whether the ITS has room for each device's events, and for the ids of all devices."""
    event_bits, device_bits = typer["ID_bits"] + 1, typer["Devbits"] + 1
    for device in found:
        if device.vectors and device.vectors > 1 << event_bits:
            yield finding(
                "msi-vectors",
                f"{device.name} has {device.vectors} MSI vectors, but the ITS takes {1 << event_bits} events "
                f"of a device (GITS_TYPER.ID_bits: {event_bits} bits)",
                "have its driver in the guest use fewer vectors",
            )
    if device_bits < 16:
        yield finding(
            "its-device-bits",
            f"the ITS knows device ids of {device_bits} bits (GITS_TYPER.Devbits), but a device on the "
            "guest's PCI bus 255 has one of 16",
            f"plug the devices into buses below {1 << max(device_bits - 8, 0)}",
        )


def host_findings(devices: Sequence[HostDevice], assigned: AssignedDevices) -> Iterator[Finding]:
    """Whether this host's VFIO gives the devices out."""
    bound_by_libvirt = {device.address for device in devices if device.managed}
    for device in devices:
        found = assigned.get(device.address)
        if found is None:
            continue
        others = [(name, driver) for name, driver in found.in_the_way if name not in bound_by_libvirt]
        if others:
            yield finding(
                "group-not-viable",
                f"{_name(device)} cannot be assigned: of its group {found.group}, "
                + ", ".join(f"{name} is bound to {driver}" for name, driver in others),
                "a group is assigned as a whole: bind its other members to vfio-pci, too, or to no driver",
            )
        if found.msi_isolated is False:
            yield finding(
                "msi-not-isolated",
                f"{_name(device)} cannot be assigned: this host cannot isolate its MSIs, since it has no ITS for them "
                "(VFIO_SET_IOMMU: EPERM, no interrupt remapping)",
                "use a host whose GIC has an ITS; or, where guests are trusted with the host's interrupts, load "
                "vfio_iommu_type1 with allow_unsafe_interrupts=1",
            )
    if assigned.devices and assigned.unsafe_interrupts:
        yield finding(
            "unsafe-interrupts",
            "vfio_iommu_type1 allows unsafe interrupts: where MSIs are not isolated, a guest can send the host's",
            "with a GICv3 ITS MSIs are isolated; take allow_unsafe_interrupts=1 out of /etc/modprobe.d",
        )


def migration_findings(
    devices: Sequence[HostDevice], assigned: AssignedDevices, direct_injection: str = ""
) -> Iterator[Finding]:
    """Whether the devices let the guest go, or arrive; ``assigned`` is of the host in question.

    ``direct_injection`` is the GICv4 version by which the host that the guest leaves injects LPIs, or empty.
    """
    staying = [device for device in devices if not device.transient]
    for device in staying:
        found = assigned.get(device.address)
        if found is None or found.migration is None:
            yield finding(
                "device-migration-unknown",
                f"whether the assigned device {_name(device)} can migrate is not known: "
                + ("it was not asked" if found is None else f"it is bound to {found.driver or 'no driver'}"),
                "see 'vgicmgr lsvfio' on the guest's host",
            )
        elif not found.migration:
            yield finding(
                "device-migration",
                f"the assigned device {_name(device)} cannot migrate: its driver {found.driver} has no "
                "VFIO_DEVICE_FEATURE_MIGRATION",
                "let QEMU unplug it (<teaming type='transient' persistent='ua-NAME'/> and a virtio interface), or "
                "detach it before ('virsh detach-device'), or bind it to a VFIO driver of its own that can",
            )
    if staying and direct_injection == "4":
        yield finding(
            "its-save",
            f"the ITS's tables cannot be saved while {', '.join(map(_name, staying))} {_has(staying)} interrupts "
            "injected by GICv4 (KVM_DEV_ARM_ITS_SAVE_TABLES: EACCES, which QEMU passes over); GICv4.1 can",
            "boot the guest's host with kvm-arm.vgic_v4_enable=0, or let the devices be unplugged",
        )


def _name(device: HostDevice) -> str:
    return device.address[:40]


def _has(some: Sequence[object]) -> str:
    return "has" if len(some) == 1 else "have"


def _plural(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
