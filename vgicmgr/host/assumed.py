"""The host that is assumed where none is known: what most hosts would say."""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from vgicmgr.dataclass import dataclass

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.qemu.program import QEMUFacts
    from vgicmgr.vfio.assigned import AssignedDevices

CAPABILITIES: Mapping[str, int] = MappingProxyType(
    {
        "KVM_CAP_IRQCHIP": 1,
        "KVM_CAP_IRQ_ROUTING": 4096,
        "KVM_CAP_IRQFD": 1,
        "KVM_CAP_MAX_VCPUS": 512,
        "KVM_CAP_ONE_REG": 1,
        "KVM_CAP_SIGNAL_MSI": 1,
        "KVM_CAP_DEVICE_CTRL": 1,
        "KVM_CAP_ARM_EL1_32BIT": 1,
        "KVM_CAP_ARM_PSCI_0_2": 1,
        "KVM_CAP_ARM_PMU_V3": 1,
        "KVM_CAP_VCPU_ATTRIBUTES": 1,
        "KVM_CAP_ARM_USER_IRQ": 1,
        "KVM_CAP_ARM_VM_IPA_SIZE": 40,
        "KVM_CAP_ARM_IRQ_LINE_LAYOUT_2": 1,
        "KVM_CAP_STEAL_TIME": 1,
    }
)
"""What is not here is assumed to be 0: SVE, pointer authentication, EL2 and MTE, which few hosts have in common."""


@dataclass(frozen=True)
class AssumedHost:
    """Meets :class:`~vgicmgr.host.facts.HostFacts`; each answer can be another one, as tests need it.

    ``capabilities`` goes before :data:`CAPABILITIES`. ``gics`` are the GIC versions, ``makes_its`` says whether there
    is an ITS, ``targets`` which KVM_ARM_TARGET_* are taken, ``devices`` what is assigned, ``program`` what the QEMU is.
    """

    capabilities: Mapping[str, int] = MappingProxyType({})
    gics: frozenset[int] = frozenset((2, 3))
    makes_its: bool = True
    sve_vector_lengths: tuple[int, ...] = ()
    redistributor_regions: bool = True
    gits_typer: int | None = 0x1EF71
    """Of KVM's ITS: event and device ids of 16 bits (``arch/arm64/kvm/vgic/vgic-its.c``, vgic_mmio_read_its_typer)."""
    msi_devid: bool | None = True
    direct_injection: str = ""
    page_size: int = 4096
    targets: Mapping[str, bool] = MappingProxyType({})
    devices: "AssignedDevices | None" = None
    program: "QEMUFacts | None" = None
    kernel: str = ""
    name: str = "the assumed host"
    asked: bool = False

    def capability(self, name: str) -> int:
        """As given, or as assumed."""
        return self.capabilities.get(name, CAPABILITIES.get(name, 0))

    @property
    def ipa_bits(self) -> int:
        """KVM_CAP_ARM_VM_IPA_SIZE."""
        return self.capability("KVM_CAP_ARM_VM_IPA_SIZE") or 40

    def gic_versions(self, ipa_bits: int) -> frozenset[int]:
        """Whatever the VM."""
        del ipa_bits
        return self.gics

    def its(self, ipa_bits: int) -> bool:
        """Whatever the VM."""
        del ipa_bits
        return self.makes_its

    def midrs(self, cpus: Collection[int]) -> Mapping[int, int]:
        """Nothing: its cores are of one type."""
        del cpus
        return {}

    def takes_target(self, target: str) -> bool | None:
        """None where nothing was given."""
        return self.targets.get(target)

    def assigned(self, addresses: Iterable[str]) -> "AssignedDevices | None":
        """As given."""
        del addresses
        return self.devices

    def qemu(self, emulator: str) -> "QEMUFacts":
        """As given, or one of which nothing is known."""
        del emulator
        if self.program is not None:
            return self.program
        from vgicmgr.qemu.program import KnownQEMU

        return KnownQEMU()


ASSUMED_HOST = AssumedHost()
"""Both GIC versions, an ITS, a PMU, 40 bits of guest physical address."""
