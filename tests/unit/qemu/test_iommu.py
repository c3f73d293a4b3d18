"""SMMUv3s as devices: libvirt's ``iommu-smmuv3-pci-bus`` tests have them so, and QEMU 10.1 and later."""

from vgicmgr.domain.domain import IOMMU
from vgicmgr.qemu.arguments import read_arguments
from vgicmgr.qemu.iommu import SMMUDevice, smmu_devices

NONE = read_arguments(())


def test_each_with_a_bus_is_a_device() -> None:
    iommus = (IOMMU("smmuv3", 0), IOMMU("smmuv3", 2, accel=True))
    assert smmu_devices(iommus, NONE) == (SMMUDevice("pcie.0"), SMMUDevice("pci.2", accel=True))


def test_one_without_a_bus_is_the_machines() -> None:
    assert smmu_devices((IOMMU("smmuv3"), IOMMU("virtio")), NONE) == ()


def test_arguments_add_theirs() -> None:
    arguments = read_arguments(["-device", "arm-smmuv3,primary-bus=pcie.1,accel=on", "-device", "pl011"])
    assert smmu_devices((), arguments) == (SMMUDevice("pcie.1", accel=True),)
