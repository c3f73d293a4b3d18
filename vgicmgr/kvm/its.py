"""ITS: the in-kernel Interrupt Translation Service (``Documentation/virt/kvm/devices/arm-vgic-its.rst``)."""

from vgicmgr.kvm.attribute import Attribute, attribute
from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.vm import VM

DEVICE_TYPE = "KVM_DEV_TYPE_ARM_VGIC_ITS"

ADDR = attribute("KVM_DEV_ARM_VGIC_GRP_ADDR", "KVM_VGIC_ITS_ADDR_TYPE", "Q")
"""Address of the control frame: 128 KiB, 64 KiB aligned."""
CTRL_INIT = attribute("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_VGIC_CTRL_INIT")
SAVE_TABLES = attribute("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_ITS_SAVE_TABLES")
RESTORE_TABLES = attribute("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_ITS_RESTORE_TABLES")
CTRL_RESET = attribute("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_ITS_CTRL_RESET")
REGS = attribute("KVM_DEV_ARM_VGIC_GRP_ITS_REGS", data="Q")

# Offsets in the control frame (Arm IHI 0069, table 12-31)
GITS_CTLR = 0x0000
GITS_IIDR = 0x0004
GITS_TYPER = 0x0008
GITS_CBASER = 0x0080
GITS_CWRITER = 0x0088
GITS_CREADR = 0x0090
GITS_BASER = 0x0100
"""Of GITS_BASER0; GITS_BASER<n> is 8 * n further."""

_NAMES = {
    GITS_CTLR: "GITS_CTLR",
    GITS_IIDR: "GITS_IIDR",
    GITS_TYPER: "GITS_TYPER",
    GITS_CBASER: "GITS_CBASER",
    GITS_CWRITER: "GITS_CWRITER",
    GITS_CREADR: "GITS_CREADR",
    **{GITS_BASER + 8 * n: f"GITS_BASER{n}" for n in range(8)},
}

IIDR_REVISION_SHIFT = 12
IIDR_REVISION_MASK = 0xF << IIDR_REVISION_SHIFT
"""GITS_IIDR.Revision: KVM keeps the revision of its table ABI there."""


def register(offset: int) -> Attribute:
    """The ITS register at ``offset``; data of 64 bits whatever the register's width."""
    return REGS.at(offset, _NAMES.get(offset, f"GITS+{offset:#x}"))


class ITS(Descriptor):
    """One ITS of a VM that has a GICv3; :data:`CTRL_INIT` makes it usable."""

    def __init__(self, vm: VM) -> None:
        """KVM_CREATE_DEVICE; raises :class:`~vgicmgr.kvm.errors.KvmError` (ENODEV: this host cannot)."""
        super().__init__(vm.create_device(DEVICE_TYPE))
