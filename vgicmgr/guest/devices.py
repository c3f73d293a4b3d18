"""Root ports, assigned devices and the virtual IOMMU against the MSI controller and the host."""

from vgicmgr.domain.domain import Domain
from vgicmgr.guest.configuration import Source
from vgicmgr.guest.machine import Machine
from vgicmgr.guest.notes import Notes
from vgicmgr.qemu.gic import MSIController

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.domain.hostdevices import HostDevice
    from vgicmgr.host.facts import HostFacts


def resolve_iommu(domain: Domain, machine: Machine, notes: Notes) -> None:
    """Note the virtual IOMMU: the machine's own SMMUv3, SMMUv3 devices, or virtio's."""
    models = [iommu.model for iommu in domain.devices.iommus]
    iommu = machine.properties.iommu or next(iter(models), "")
    if iommu and iommu != "none":
        notes.decide("IOMMU", iommu, Source.XML)


def check_root_ports(domain: Domain, msi: MSIController, notes: Notes) -> None:
    """PCIe ports have MSI-X, which QEMU does not make without an MSI controller (hw/pci/msix.c, msix_init).

    Where the XML names no port, libvirt adds one for each device that has no address (qemuDomainAssignPCIAddresses).
    """
    if msi is not MSIController.NONE:
        return
    plugged = dict.fromkeys(device.kind for device in domain.devices.emulated if device.port)
    if ports := domain.devices.root_ports:
        which = f"the domain has {ports} PCIe root ports, which QEMU does not make"
    elif plugged:
        which = (
            f"libvirt adds PCIe root ports for the domain's devices ({', '.join(plugged)}), which QEMU does not make"
        )
    else:
        return
    notes.find(
        "msi-needed",
        f'{which} without an MSI controller ("MSI-X is not supported by interrupt controller")',
        "keep the ITS (or the GICv2m), or plug all devices into the root complex",
    )


def resolve_host_devices(
    domain: Domain, machine: Machine, msi: MSIController, host: "HostFacts", notes: Notes, *, gicv2m_spis: int
) -> tuple[str, ...]:
    """What KVM's VFIO device is told of, and the findings about the domain's assigned devices."""
    devices = host_devices(domain, machine)
    if not devices:
        return ()
    from vgicmgr.guest.assignment import host_findings, msi_findings, vfio_files  # few domains have any
    from vgicmgr.vfio.assigned import AssignedDevices

    assigned = host.assigned([device.address for device in devices]) or AssignedDevices()
    for device in devices:
        found = assigned.get(device.address)
        vectors = found.vectors if found else None
        count = "an unknown number of" if vectors is None else str(vectors)
        group = f", IOMMU group {found.group}" if found and found.group is not None else ""
        notes.decide(f"assigned device {device.address[:40]}", f"{count} MSI vectors{group}", Source.XML)
    if machine.properties.iommu == "smmuv3":
        notes.find(
            "iommu-unsupported",
            "an assigned device stands behind an emulated SMMUv3, which cannot tell VFIO what the guest maps",
            "set <iommu model='virtio'/>, or remove the IOMMU",
        )
    notes.add(*msi_findings(devices, host, msi, assigned, gicv2m_spis=gicv2m_spis))
    notes.add(*host_findings(devices, assigned))
    return vfio_files(devices, assigned) if machine.kvm else ()


def host_devices(domain: Domain, machine: Machine) -> "tuple[HostDevice, ...]":
    """Those of the XML, then those of the domain's own arguments for QEMU."""
    if not machine.arguments.devices:
        return domain.devices.host_devices
    from vgicmgr.qemu.hostdevices import host_devices as of_arguments  # few domains have any

    return (*domain.devices.host_devices, *of_arguments(machine.arguments))
