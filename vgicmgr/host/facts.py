"""What of a host decides about a guest: one interface, whoever answers.

:class:`vgicmgr.host.kernel.Kernel` asks this host's kernel, :class:`vgicmgr.host.documented.DocumentedHost` answers
from a host capabilities document, :class:`vgicmgr.host.assumed.AssumedHost` says what most hosts would.
"""

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Protocol

    from vgicmgr.qemu.program import QEMUFacts
    from vgicmgr.vfio.assigned import AssignedDevices
else:
    Protocol = object

DEFAULT_IPA_BITS = 40
"""Guest physical address size where KVM_CAP_ARM_VM_IPA_SIZE is 0: before Linux 4.20 it is fixed."""


class HostFacts(Protocol):
    """A host, asked for one fact at a time. Nobody who answers says anything that was not asked of the host itself.

    A fact that the host cannot tell is None. What a kernel refuses while it is asked is raised
    (:class:`~vgicmgr.kvm.errors.KvmError`), as is what a document leaves open
    (:class:`~vgicmgr.errors.HostDocumentError`).
    """

    @property
    def name(self) -> str:
        """What the host is called in a sentence."""

    @property
    def asked(self) -> bool:
        """Whether the host itself has answered; False where its answers are assumed."""

    @property
    def kernel(self) -> str:
        """Kernel release; empty where it is assumed."""

    @property
    def page_size(self) -> int:
        """In bytes."""

    @property
    def ipa_bits(self) -> int:
        """Largest guest physical address size of a VM, in bits."""

    def capability(self, name: str) -> int:
        """KVM_CHECK_EXTENSION by the capability's name in the header; 0 is no."""

    def gic_versions(self, ipa_bits: int) -> frozenset[int]:
        """Of 2 and 3, the GIC versions that KVM makes in a VM of so many bits; 0 is the kernel's default type."""

    def its(self, ipa_bits: int) -> bool:
        """Whether KVM makes an ITS in such a VM."""

    @property
    def sve_vector_lengths(self) -> tuple[int, ...]:
        """Of a vCPU, in bits, ascending; empty without SVE."""

    @property
    def redistributor_regions(self) -> bool:
        """KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION: whether a GICv3 may have more than one region of redistributors."""

    @property
    def gits_typer(self) -> int | None:
        """GITS_TYPER of an ITS; None without one."""

    @property
    def msi_devid(self) -> bool | None:
        """KVM_CAP_MSI_DEVID of a VM with an ITS; None without one."""

    @property
    def direct_injection(self) -> str:
        """The GICv4 version by which LPIs reach guests; empty where they do not, or the host does not say."""

    def midrs(self, cpus: "Collection[int]") -> "Mapping[int, int]":
        """MIDR_EL1 of these CPUs, or of all where none are named, as far as they are online."""

    def takes_target(self, target: str) -> bool | None:
        """Whether KVM_ARM_VCPU_INIT takes this KVM_ARM_TARGET_*; None where only the kernel can say."""

    def assigned(self, addresses: "Iterable[str]") -> "AssignedDevices | None":
        """What the host says of these devices; None where it cannot be asked."""

    def qemu(self, emulator: str) -> "QEMUFacts":
        """The QEMU of this path."""
