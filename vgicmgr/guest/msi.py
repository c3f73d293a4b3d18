"""What a guest's PCI devices send their MSIs to: ITS, GICv2m or nothing (:func:`vgicmgr.qemu.gic.msi_controller`)."""

from vgicmgr.guest.addressmap import AddressMap
from vgicmgr.guest.configuration import Source
from vgicmgr.guest.machine import Machine, missing
from vgicmgr.guest.notes import Notes
from vgicmgr.qemu.arguments import ArgumentError
from vgicmgr.qemu.gic import MSIController, msi_controller

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts

MSI_NAMES = {MSIController.ITS: "an ITS", MSIController.GICV2M: "a GICv2m", MSIController.NONE: "none"}
SUBJECT = "MSI controller"


def resolve_msi(machine: Machine, version: int, notes: Notes) -> MSIController:
    """The MSI controller of QEMU's machine with a GIC of this version; raises :class:`Refused`."""
    properties = machine.properties
    try:
        msi = msi_controller(
            properties,
            version,
            machine.version,
            kvm=machine.kvm,
            in_kernel=machine.in_kernel,
            qemu=machine.qemu_version,
        )
    except ArgumentError as error:
        raise notes.refuse(
            "its-unsupported" if "ITS" in error.message else "qemu-argument",
            f"<qemu:commandline>: {error.message}",
            "correct or remove the argument",
        ) from None
    asked = properties.msi not in ("", "auto") or (properties.its is not None and version != 2)
    notes.decide(SUBJECT, MSI_NAMES[msi], Source.ARGUMENT if asked else Source.MACHINE)
    return msi


def resolve_msi_by_map(version: int, address_map: AddressMap, notes: Notes) -> MSIController:
    """As :func:`resolve_msi`, under another VMM than QEMU."""
    if version != 2 and address_map.its:
        msi = MSIController.ITS
    else:
        msi = MSIController.GICV2M if address_map.gicv2m else MSIController.NONE
    notes.decide(SUBJECT, MSI_NAMES[msi], Source.MAP)
    return msi


def check_its(msi: MSIController, host: "HostFacts", ipa_bits: int, notes: Notes) -> None:
    """Whether KVM makes the ITS that the machine has; raises :class:`Refused`."""
    if msi is MSIController.ITS and not host.its(ipa_bits):
        notes.find(
            "its-unsupported",
            f"the machine has an ITS, but KVM on {host.name} cannot make one (KVM_DEV_TYPE_ARM_VGIC_ITS)",
            "switch it off: <qemu:commandline><qemu:arg value='-machine'/><qemu:arg value='its=off'/>"
            "</qemu:commandline>; or use a host whose 'vgicmgr check-host' shows an ITS",
            severity=missing(host),
        )
