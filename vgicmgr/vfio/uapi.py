"""Numbers and structures of VFIO's user-space interface, under the names of the kernel's header.

Source: ``include/uapi/linux/vfio.h`` (Linux 7.2; numbers of the interface never change).
``tests/lab/test_uapi_headers.py`` compiles a C program against the headers of every kernel of the lab and compares each
of them.
"""

from vgicmgr.kvm.uapi import Struct

VFIO_API_VERSION = 0
VFIO_TYPE = ord(";")
VFIO_BASE = 100


def _io(number: int) -> int:
    """The sizes are in the structures (``argsz``, ``size``), not in the requests."""
    return VFIO_TYPE << 8 | number


# Structures

vfio_info_cap_header = Struct("vfio_info_cap_header", "HHI", ("id", "version", "next"))
vfio_group_status = Struct("vfio_group_status", "II", ("argsz", "flags"))
vfio_device_info = Struct("vfio_device_info", "IIIII", ("argsz", "flags", "num_regions", "num_irqs", "cap_offset"))
"""As long as it is in Linux 6.1; padding has been added behind."""
vfio_region_info = Struct("vfio_region_info", "IIIIQQ", ("argsz", "flags", "index", "cap_offset", "size", "offset"))
vfio_region_info_cap_sparse_mmap = Struct(
    "vfio_region_info_cap_sparse_mmap", "8sII", ("header", "nr_areas", "reserved")
)
"""Followed by ``nr_areas`` of vfio_region_sparse_mmap_area."""
vfio_region_sparse_mmap_area = Struct("vfio_region_sparse_mmap_area", "QQ", ("offset", "size"))
vfio_region_info_cap_type = Struct("vfio_region_info_cap_type", "8sII", ("header", "type", "subtype"))
vfio_irq_info = Struct("vfio_irq_info", "IIII", ("argsz", "flags", "index", "count"))
vfio_device_feature = Struct("vfio_device_feature", "II", ("argsz", "flags"))
"""Followed by the feature's data."""
vfio_device_feature_migration = Struct("vfio_device_feature_migration", "Q", ("flags",))
vfio_device_bind_iommufd = Struct("vfio_device_bind_iommufd", "IIiI", ("argsz", "flags", "iommufd", "out_devid"))
"""As of Linux 6.6; a token for virtual functions has been added behind."""

STRUCTS = (
    vfio_info_cap_header,
    vfio_group_status,
    vfio_device_info,
    vfio_region_info,
    vfio_region_info_cap_sparse_mmap,
    vfio_region_sparse_mmap_area,
    vfio_region_info_cap_type,
    vfio_irq_info,
    vfio_device_feature,
    vfio_device_feature_migration,
    vfio_device_bind_iommufd,
)

# ioctls on /dev/vfio/vfio

VFIO_GET_API_VERSION = _io(VFIO_BASE + 0)
VFIO_CHECK_EXTENSION = _io(VFIO_BASE + 1)
VFIO_SET_IOMMU = _io(VFIO_BASE + 2)

VFIO_TYPE1_IOMMU = 1
VFIO_TYPE1v2_IOMMU = 3
VFIO_DMA_CC_IOMMU = 4
VFIO_NOIOMMU_IOMMU = 8
VFIO_UNMAP_ALL = 9
VFIO_UPDATE_VADDR = 10

# ioctls on a group

VFIO_GROUP_GET_STATUS = _io(VFIO_BASE + 3)
VFIO_GROUP_SET_CONTAINER = _io(VFIO_BASE + 4)
VFIO_GROUP_UNSET_CONTAINER = _io(VFIO_BASE + 5)
VFIO_GROUP_GET_DEVICE_FD = _io(VFIO_BASE + 6)

VFIO_GROUP_FLAGS_VIABLE = 1 << 0
VFIO_GROUP_FLAGS_CONTAINER_SET = 1 << 1

# ioctls on a device

VFIO_DEVICE_GET_INFO = _io(VFIO_BASE + 7)
VFIO_DEVICE_GET_REGION_INFO = _io(VFIO_BASE + 8)
VFIO_DEVICE_GET_IRQ_INFO = _io(VFIO_BASE + 9)
VFIO_DEVICE_FEATURE = _io(VFIO_BASE + 17)
VFIO_DEVICE_BIND_IOMMUFD = _io(VFIO_BASE + 18)

VFIO_DEVICE_FLAGS_RESET = 1 << 0
VFIO_DEVICE_FLAGS_PCI = 1 << 1
VFIO_DEVICE_FLAGS_PLATFORM = 1 << 2
VFIO_DEVICE_FLAGS_AMBA = 1 << 3
VFIO_DEVICE_FLAGS_CCW = 1 << 4
VFIO_DEVICE_FLAGS_AP = 1 << 5
VFIO_DEVICE_FLAGS_FSL_MC = 1 << 6
VFIO_DEVICE_FLAGS_CAPS = 1 << 7
VFIO_DEVICE_FLAGS_CDX = 1 << 8

VFIO_REGION_INFO_FLAG_READ = 1 << 0
VFIO_REGION_INFO_FLAG_WRITE = 1 << 1
VFIO_REGION_INFO_FLAG_MMAP = 1 << 2
VFIO_REGION_INFO_FLAG_CAPS = 1 << 3

VFIO_REGION_INFO_CAP_SPARSE_MMAP = 1
VFIO_REGION_INFO_CAP_TYPE = 2
VFIO_REGION_INFO_CAP_MSIX_MAPPABLE = 3

VFIO_IRQ_INFO_EVENTFD = 1 << 0
VFIO_IRQ_INFO_MASKABLE = 1 << 1
VFIO_IRQ_INFO_AUTOMASKED = 1 << 2
VFIO_IRQ_INFO_NORESIZE = 1 << 3

VFIO_PCI_BAR0_REGION_INDEX = 0
VFIO_PCI_BAR1_REGION_INDEX = 1
VFIO_PCI_BAR2_REGION_INDEX = 2
VFIO_PCI_BAR3_REGION_INDEX = 3
VFIO_PCI_BAR4_REGION_INDEX = 4
VFIO_PCI_BAR5_REGION_INDEX = 5
VFIO_PCI_ROM_REGION_INDEX = 6
VFIO_PCI_CONFIG_REGION_INDEX = 7
VFIO_PCI_VGA_REGION_INDEX = 8
VFIO_PCI_NUM_REGIONS = 9

VFIO_PCI_INTX_IRQ_INDEX = 0
VFIO_PCI_MSI_IRQ_INDEX = 1
VFIO_PCI_MSIX_IRQ_INDEX = 2
VFIO_PCI_ERR_IRQ_INDEX = 3
VFIO_PCI_REQ_IRQ_INDEX = 4
VFIO_PCI_NUM_IRQS = 5

VFIO_DEVICE_FEATURE_MASK = 0xFFFF
VFIO_DEVICE_FEATURE_GET = 1 << 16
VFIO_DEVICE_FEATURE_SET = 1 << 17
VFIO_DEVICE_FEATURE_PROBE = 1 << 18

VFIO_DEVICE_FEATURE_MIGRATION = 1
VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE = 2
VFIO_DEVICE_FEATURE_DMA_LOGGING_START = 6

VFIO_MIGRATION_STOP_COPY = 1 << 0
VFIO_MIGRATION_P2P = 1 << 1
VFIO_MIGRATION_PRE_COPY = 1 << 2
