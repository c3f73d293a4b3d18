"""Inventories for the unit tests, made up to show every kind of value; real ones are in the lab's tests."""

from vgicmgr.vfio.inventory import (
    Area,
    Bus,
    Device,
    DeviceInfo,
    FirmwareNode,
    Group,
    Host,
    Inventory,
    Irq,
    PciConfig,
    PciDevice,
    Region,
    User,
)

MIGRATABLE = Device(
    name="0000:01:00.0",
    bus=Bus.PCI,
    driver="mlx5_vfio_pci",
    group=7,
    vfio="vfio0",
    pci=PciDevice(0x020000, 0x15B3, 0x101E, (0x100000, 0, 0, 0, 0, 0, 0), ("flr",), PciConfig(0, 0, 64)),
    info=DeviceInfo(
        kind="pci",
        reset=True,
        regions=(
            Region(0, "BAR 0", 0x100000, 0, ("read", "write", "mmap"), (Area(0, 0x1000), Area(0x2000, 0xFE000))),
            Region(1, "BAR 1", 0, 0x10000000000, ()),
            Region(7, "config", 0x1000, 0x70000000000, ("read", "write")),
            Region(9, "", 0x100, 0x90000000000, ("read",), msix_mappable=True, type=(0x800015B3, 1)),
        ),
        irqs=(
            Irq(0, "INTx", 0, ("eventfd", "maskable", "automasked")),
            Irq(1, "MSI", 0, ("eventfd", "noresize")),
            Irq(2, "MSI-X", 64, ("eventfd",)),
        ),
        migration=("stop-copy", "p2p", "pre-copy"),
        dirty_tracking=True,
    ),
)
USED = Device(
    name="0000:02:00.0",
    bus=Bus.PCI,
    driver="vfio-pci",
    group=8,
    vfio="vfio1",
    pci=PciDevice(0x020000, 0x8086, 0x10D3, (0x20000, 0x20000, 0x20, 0x4000, 0, 0, 0), (), PciConfig(1, 1, 5)),
    unread="in use by guest web",
)
HALF = Device(
    name="0000:03:00.0", bus=Bus.PCI, driver="vfio-pci", group=9, vfio="vfio2", unread="group 9 is not viable"
)
OTHER_HALF = Device(
    name="0000:03:00.1",
    bus=Bus.PCI,
    driver="e1000e",
    group=9,
    pci=PciDevice(0x020000, 0x8086, 0x10D3, config=PciConfig(1)),
)
PLATFORM = Device(
    name="fd000000.dma",
    bus=Bus.PLATFORM,
    driver="vfio-platform",
    group=10,
    vfio="vfio3",
    firmware=FirmwareNode(
        "/soc/dma@fd000000",
        ("reg[0] control: 0xfd000000 size 0x1000",),
        ("interrupts[0]: <0x0 0x1e 0x4>",),
    ),
    info=DeviceInfo(
        kind="platform",
        reset=False,
        regions=(Region(0, "", 0x1000, 0, ("read", "write", "mmap")),),
        irqs=(Irq(0, "", 1, ("eventfd", "maskable", "automasked")),),
    ),
)

FULL = Inventory(
    host=Host(("smmu3.0x0000000009050000",), 0, ("VFIO_TYPE1v2_IOMMU",), True, False),
    groups=(
        Group(7, (MIGRATABLE.name,), status=True, in_use=False),
        Group(8, (USED.name,), in_use=True, users=(User(12, "qemu-system-aar", "web"), User(13, "dpdk"))),
        Group(9, (HALF.name, OTHER_HALF.name), ((OTHER_HALF.name, "e1000e"),), status=False, in_use=False),
        Group(10, (PLATFORM.name,), noiommu=True, status=True, in_use=False),
    ),
    devices=(MIGRATABLE, USED, HALF, OTHER_HALF, PLATFORM),
    unread=("something",),
)
EMPTY = Inventory(Host())
