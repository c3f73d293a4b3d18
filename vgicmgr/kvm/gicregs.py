"""Fields of the GIC's registers, as far as a guest or a migration depends on them.

Sources: Arm IHI 0069; ``include/linux/irqchip/arm-gic-v3.h``; for what KVM puts there, ``arch/arm64/kvm/vgic``.
"""

from vgicmgr.kvm.bitfields import Layout

IMPLEMENTER_ARM = 0x43B
"""JEP106 code of Arm, which KVM's GICs carry; the kernel's IMPLEMENTER_ARM."""
PRODUCT_ID_KVM = 0x4B
"""ProductID of KVM's GICs, an ASCII K; the kernel's PRODUCT_ID_KVM."""

GICD_IIDR = Layout.parse("ProductID 31:24, Variant 19:16, Revision 15:12, Implementer 11:0", width=32)
"""Who made the distributor. KVM's Revision says which behaviour the guest sees (KVM_VGIC_IMP_REV_*)."""

GICD_TYPER = Layout.parse(
    "ESPI_range 31:27, RSS 26, No1N 25, A3V 24, IDbits 23:19, DVIS 18, LPIS 17, MBIS 16, num_LPIs 15:11, "
    "SecurityExtn 10, NMI 9, ESPI 8, CPUNumber 7:5, ITLinesNumber 4:0",
    width=32,
)
"""What the distributor offers: 32 * (ITLinesNumber + 1) INTIDs below the LPIs, INTIDs of IDbits + 1 bits."""

GICD_TYPER2 = Layout.parse("nASSGIcap 8, VIL 7, VID 4:0", width=32)
"""What GICv4.1 adds: SGIs without active state, the number of vPE identifiers."""

GITS_IIDR = GICD_IIDR
"""Who made the ITS. KVM's Revision is the ABI revision of the tables in guest memory."""

GITS_TYPER = Layout.parse(
    "INV 46, UMSIirq 45, UMSI 44, nID 43, SVPET 42:41, VMAPP 40, VSGI 39, MPAM 38, VMOVP 37, CIL 36, CIDbits 35:32, "
    "HCC 31:24, PTA 19, SEIS 18, Devbits 17:13, ID_bits 12:8, ITT_entry_size 7:4, CCT 2, Virtual 1, Physical 0"
)
"""What the ITS offers. ITT_entry_size is in bytes less one; Devbits and ID_bits in bits less one."""

ICC_CTLR_EL1 = Layout.parse(
    "ExtRange 19, RSS 18, A3V 15, SEIS 14, IDbits 13:11, PRIbits 10:8, PMHE 6, EOImode 1, CBPR 0"
)
"""The CPU interface. PRIbits is in bits less one; IDbits is 0 for INTIDs of 16 bits and 1 for 24."""
