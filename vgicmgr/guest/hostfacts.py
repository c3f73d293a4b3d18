"""What of a host decides about a vGIC configuration: from its capabilities, from their document, or assumed."""

from vgicmgr.dataclass import dataclass
from vgicmgr.errors import VgicmgrError
from vgicmgr.guest.configuration import Source
from vgicmgr.kvm import vgic_v2

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from typing import Any

    from vgicmgr.host.capabilities import HostCapabilities
    from vgicmgr.vfio.assigned import AssignedDevices


class HostDocumentError(VgicmgrError):
    """A host capabilities document cannot be read."""


@dataclass(frozen=True)
class HostFacts:
    """What of a host decides about a configuration.

    ``ipa_bits``: the largest guest physical address size. ``fixed_ipa``: the kernel has
    no KVM_CAP_ARM_VM_IPA_SIZE. ``asked`` is False where this is no host's answer but what most hosts would say.
    ``its_event_bits`` and ``its_device_bits`` are the guest's ITS's; ``direct_injection`` is the GICv4 version by which
    LPIs reach guests, or empty. ``assigned``: what the host says of the domain's assigned devices, where it was asked.
    """

    gic_versions: frozenset[int] = frozenset((2, 3))
    its: bool = True
    ipa_bits: int = 40
    fixed_ipa: bool = False
    pmu: bool = True
    pauth: bool = False
    sve_vector_lengths: tuple[int, ...] = ()
    el1_32bit: bool = True
    el2: bool = False
    max_vcpus: int = 512
    irq_line_layout_2: bool = True
    redistributor_regions: bool = True
    its_event_bits: int = 16
    its_device_bits: int = 16
    msi_devid: bool = True
    direct_injection: str = ""
    assigned: "AssignedDevices | None" = None
    asked: bool = False

    @property
    def source(self) -> Source:
        """Who is told to have decided what this host decided."""
        return Source.KERNEL if self.asked else Source.ASSUMED


ASSUMED_HOST = HostFacts()
"""Where no host is known: both GIC versions, a PMU, 40 bits of guest physical address."""


def host_facts(host: "HostCapabilities") -> HostFacts:
    """What a host's capabilities say."""
    return HostFacts(
        gic_versions=frozenset(host.gic_versions) & {2, 3},
        its=host.its is not None,
        ipa_bits=host.ipa_bits,
        fixed_ipa=not host.capabilities.get("KVM_CAP_ARM_VM_IPA_SIZE"),
        pmu=bool(host.capabilities.get("KVM_CAP_ARM_PMU_V3")),
        pauth=all(host.capabilities.get(f"KVM_CAP_ARM_PTRAUTH_{kind}") for kind in ("ADDRESS", "GENERIC")),
        sve_vector_lengths=host.vcpu.sve_vector_lengths if host.vcpu else (),
        el1_32bit=bool(host.capabilities.get("KVM_CAP_ARM_EL1_32BIT")),
        el2=bool(host.capabilities.get("KVM_CAP_ARM_EL2")),
        max_vcpus=host.capabilities.get("KVM_CAP_MAX_VCPUS") or vgic_v2.MAX_VCPUS,
        irq_line_layout_2=bool(host.capabilities.get("KVM_CAP_ARM_IRQ_LINE_LAYOUT_2")),
        redistributor_regions=host.gicv3 is not None and host.gicv3.redistributor_regions,
        **_its_facts(host.its.gits_typer, msi_devid=host.its.msi_devid) if host.its else {},
        direct_injection=(host.log.gicv4_version or "") if host.log.gicv4 else "",
        asked=True,
    )


def _its_facts(gits_typer: int, *, msi_devid: bool) -> "dict[str, Any]":
    from vgicmgr.kvm import gicregs  # the hook can do without

    fields = gicregs.GITS_TYPER.decode(gits_typer)
    return {
        "its_event_bits": fields["ID_bits"] + 1,
        "its_device_bits": fields["Devbits"] + 1,
        "msi_devid": msi_devid,
    }


def facts_of_document(document: "Any") -> HostFacts:
    """What the document of ``check-host --format json``, parsed, says.

    Raises :class:`HostDocumentError` when it is none, or of another version.
    """
    from vgicmgr.host.document import KIND, VERSION

    if not isinstance(document, dict) or document.get("document") != KIND:
        raise HostDocumentError(
            "the file is no host capabilities document", "'vgicmgr check-host --format json' writes one"
        )
    if document.get("version") != VERSION:
        raise HostDocumentError(f"the host capabilities document is not of version {VERSION}")
    try:
        capabilities, gic, its = document["kvm"]["capabilities"], document["gic"], document["its"]
        direct = gic["direct_injection"]
        return HostFacts(
            gic_versions=frozenset(int(version) for version in gic["versions"]) & {2, 3},
            its=its is not None,
            ipa_bits=int(document["kvm"]["ipa_bits"]),
            fixed_ipa=not capabilities.get("KVM_CAP_ARM_VM_IPA_SIZE"),
            pmu=bool(capabilities.get("KVM_CAP_ARM_PMU_V3")),
            pauth=all(capabilities.get(f"KVM_CAP_ARM_PTRAUTH_{kind}") for kind in ("ADDRESS", "GENERIC")),
            sve_vector_lengths=tuple(int(bits) for bits in (document["vcpu"] or {}).get("sve_vector_lengths", ())),
            el1_32bit=bool(capabilities.get("KVM_CAP_ARM_EL1_32BIT")),
            el2=bool(capabilities.get("KVM_CAP_ARM_EL2")),
            max_vcpus=int(capabilities.get("KVM_CAP_MAX_VCPUS") or vgic_v2.MAX_VCPUS),
            irq_line_layout_2=bool(capabilities.get("KVM_CAP_ARM_IRQ_LINE_LAYOUT_2")),
            redistributor_regions=bool(gic["v3"] and gic["v3"]["redistributor_regions"]),
            **_its_facts(int(its["gits_typer"], 16), msi_devid=bool(its["msi_devid"])) if its else {},
            direct_injection=str(direct["gicv4"]) if direct["enabled"] and direct["gicv4"] else "",
            asked=True,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise HostDocumentError("the host capabilities document lacks a member, or has one of another type") from None
