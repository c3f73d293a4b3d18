"""SMMUv3s as devices of their own, which QEMU 10.1 and later make on the platform bus (hw/arm/smmuv3.c)."""

from collections.abc import Iterable

from vgicmgr.dataclass import dataclass
from vgicmgr.domain.domain import IOMMU
from vgicmgr.qemu.arguments import Arguments, boolean


@dataclass(frozen=True)
class SMMUDevice:
    """A ``-device arm-smmuv3``: the PCI bus that it translates for, and whether it is accelerated (for VFIO)."""

    primary_bus: str
    accel: bool = False


def smmu_devices(iommus: Iterable[IOMMU], arguments: Arguments) -> tuple[SMMUDevice, ...]:
    """Those that libvirt makes of ``<driver pciBus=>``, then those of the arguments; raises ArgumentError.

    Without a bus ``<iommu model='smmuv3'/>`` is the machine's own (``-machine iommu=smmuv3``).
    """
    own = [
        SMMUDevice(f"pci.{iommu.pci_bus}" if iommu.pci_bus else "pcie.0", iommu.accel)
        for iommu in iommus
        if iommu.model == "smmuv3" and iommu.pci_bus is not None
    ]
    for device in arguments.devices:
        properties = dict(device)
        if properties["driver"] == "arm-smmuv3":
            accel = boolean("accel", properties.get("accel", "off"))
            own.append(SMMUDevice(properties.get("primary-bus", ""), accel))
    return tuple(own)
