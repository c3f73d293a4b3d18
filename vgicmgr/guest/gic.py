"""The GIC's version: what is asked for, by whom, and whether it can be had.

QEMU's finalize_gic_version (hw/arm/virt.c) and libvirt's qemuDomainDefEnableDefaultFeatures stand side by side in
:mod:`vgicmgr.qemu.gic`.
"""

from vgicmgr.dataclass import dataclass
from vgicmgr.domain.domain import Domain
from vgicmgr.guest.configuration import Source
from vgicmgr.guest.machine import Machine
from vgicmgr.guest.notes import Notes
from vgicmgr.qemu.arguments import ArgumentError
from vgicmgr.qemu.gic import USERSPACE_GIC_VERSIONS, emulated_gic_versions, gic_version, libvirt_gic_version

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts


@dataclass(frozen=True)
class _Wish:
    """A GIC version as it is asked for (``3``, ``host``, ``max``), by whom, and in whose words."""

    version: str
    source: Source
    words: str


def resolve_gic_version(domain: Domain, machine: Machine, host: "HostFacts", ipa_bits: int, notes: Notes) -> int:
    """The version of the guest's GIC on QEMU's ``virt``; raises :class:`Refused` where there is none.

    ``ipa_bits`` is what the VM is made with, which QEMU asks for the versions that KVM makes.
    """
    supported = _supported(machine, host, ipa_bits)
    wish = _wish(domain, machine, supported)
    if wish.version == "host" and not machine.kvm:
        raise notes.refuse("gic-version-unsupported", f"{wish.words} needs KVM", "set <gic version='2'/> or '3'")
    try:
        version = gic_version(wish.version, supported, domain.vcpus)
    except ArgumentError as error:
        raise notes.refuse(
            "gic-version-unsupported", f"{wish.words}: {error.message}", "set <gic version='3'/>"
        ) from None
    newest = wish.version in ("host", "max")
    notes.decide(
        "GIC version", f"{version} ({wish.version}: the newest there is)" if newest else version or "none", wish.source
    )
    if version == 2 and machine.kvm and machine.properties.virtualization:
        raise notes.refuse(
            "virtualization-unsupported",
            "virtualization=on asks for EL2 in the guest, but KVM does so with a GICv3 only",
            "set <gic version='3'/>, or remove it",
        )
    if version not in supported:
        raise _refusal(wish, version, supported, machine=machine, host=host, notes=notes)
    return version


def resolve_gic_version_by_map(domain: Domain, host: "HostFacts", ipa_bits: int, notes: Notes) -> int:
    """The version of the guest's GIC under another VMM than QEMU, which asks KVM for it; raises :class:`Refused`."""
    supported = host.gic_versions(ipa_bits)
    newest = max(supported, default=0)
    wish = domain.gic_version or str(newest)
    version = newest if wish in ("host", "max") else int(wish)
    notes.decide("GIC version", version, Source.XML if domain.gic_version else Source.LIBVIRT)
    if version not in supported:
        raise notes.refuse(
            "gic-version-unsupported",
            f"<gic version='{wish}'/> is asked for, but KVM on {host.name} makes {_listed(supported)}",
            f"set <gic version='{newest}'/>" if supported else "use a host with a GIC for guests",
        )
    return version


def _supported(machine: Machine, host: "HostFacts", ipa_bits: int) -> frozenset[int]:
    """What the accelerator makes: KVM in the kernel what it says, QEMU for KVM a GICv2, TCG by the machine."""
    if machine.in_kernel:
        return host.gic_versions(ipa_bits)
    if machine.kvm:
        return USERSPACE_GIC_VERSIONS
    return emulated_gic_versions(virtualization=machine.properties.virtualization)


def _wish(domain: Domain, machine: Machine, supported: frozenset[int]) -> _Wish:
    if version := dict(machine.arguments.machine).get("gic-version"):
        return _Wish(version, Source.ARGUMENT, f"gic-version={version} of <qemu:commandline>")
    if domain.gic_version:
        return _Wish(domain.gic_version, Source.XML, f"<gic version='{domain.gic_version}'/>")
    default = libvirt_gic_version("kvm" if machine.kvm else "qemu", supported)
    return _Wish(default, Source.LIBVIRT, f"libvirt's default, a GICv{default},")


def _refusal(
    wish: _Wish, version: int, supported: frozenset[int], *, machine: Machine, host: "HostFacts", notes: Notes
) -> Exception:
    if machine.in_kernel:
        device = f" (KVM_CREATE_DEVICE of KVM_DEV_TYPE_ARM_VGIC_V{version}: ENODEV)" if version in (2, 3) else ""
        gives = f"KVM on {host.name} makes {_listed(supported)}{device}"
    elif machine.kvm:
        gives = f"without a GIC of the kernel's QEMU emulates {_listed(supported)} only, for at most 8 vCPUs"
    else:
        gives = f"TCG emulates {_listed(supported)}"
    if wish.source is Source.ARGUMENT:
        remedy = "remove it"
    elif supported:
        remedy = f"set <gic version='{max(supported)}'/>"
        if machine.in_kernel and version in (2, 3):
            remedy += f", or use a host whose 'vgicmgr check-host' shows GICv{version}"
    else:
        remedy = "use a host whose 'vgicmgr check-host' shows a GIC for guests"
    return notes.refuse("gic-version-unsupported", f"{wish.words} is asked for, but {gives}", remedy)


def _listed(versions: frozenset[int]) -> str:
    return " and ".join(f"a GICv{version}" for version in sorted(versions)) or "no GIC"
