"""What a host is: data, and the hosts that have a name."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Release(StrEnum):
    """A Debian release: what the host's user land or its kernel is from."""

    BOOKWORM = "bookworm"
    """Kernel 6.1, QEMU 7.2, libvirt 9.0, Python 3.11."""
    TRIXIE = "trixie"
    """Kernel 6.12, QEMU 10.0, libvirt 11.3, Python 3.13."""
    SID = "sid"
    """The newest of everything."""


@dataclass(frozen=True)
class HostSpec:
    """An emulated arm64 host."""

    userland: Release = Release.TRIXIE
    kernel: Release | None = None
    """None: the user land's own."""
    cpu: str = "neoverse-n1"
    """A CPU model of the outer QEMU."""
    cpu_options: tuple[str, ...] = ()
    """Further properties of it, such as ``sve-max-vq=2``."""
    page_kib: int = 4
    """The size of the kernel's pages, in KiB: 4, or since trixie 16."""
    gic: int = 3
    """The version of the host's own interrupt controller: 2, 3 or 4."""
    its: bool = True
    pmu: bool = True
    vcpus: int = 1
    memory_mib: int = 1024
    devices: tuple[str, ...] = ()
    """Further ``-device`` arguments, such as a PCI device to pass through."""
    smmuv3: bool = False
    vgic: bool = True
    """False: the device tree gives the GIC no maintenance interrupt, without which KVM offers no vGIC."""
    kernel_arguments: tuple[str, ...] = ()
    outer: Release | None = None
    """The release whose QEMU the host runs in; None: this machine's own."""

    def __post_init__(self) -> None:
        if self.gic not in (2, 3, 4):
            raise ValueError(f"a host's GIC is 2, 3 or 4, not {self.gic}")

    @property
    def kernel_release(self) -> Release:
        """The release the kernel is from."""
        return self.kernel or self.userland


HOSTS: Mapping[str, HostSpec] = {
    "bookworm": HostSpec(Release.BOOKWORM),
    "trixie": HostSpec(Release.TRIXIE),
    "sid": HostSpec(Release.SID),
    "gicv2": HostSpec(cpu="cortex-a57", gic=2),
    "no-its": HostSpec(its=False),
    "no-pmu": HostSpec(pmu=False),
    "no-pmu-bookworm": HostSpec(Release.BOOKWORM, pmu=False),
    "max": HostSpec(cpu="max"),
    "max-bookworm": HostSpec(Release.BOOKWORM, cpu="max"),
    "max-sid": HostSpec(Release.SID, cpu="max"),
    "a76": HostSpec(cpu="cortex-a76"),
    "a53": HostSpec(cpu="cortex-a53"),
    "neoverse-v1": HostSpec(cpu="neoverse-v1", outer=Release.SID),
    "gicv4": HostSpec(gic=4, kernel_arguments=("kvm-arm.vgic_v4_enable=1",)),
    "nested": HostSpec(Release.SID, cpu="max", kernel_arguments=("kvm-arm.mode=nested",), outer=Release.SID),
    "smmuv3": HostSpec(smmuv3=True, devices=("e1000e,romfile=",)),
    "16k": HostSpec(page_kib=16),
    "50mhz": HostSpec(cpu_options=("cntfrq=50000000",)),
    "100mhz": HostSpec(cpu_options=("cntfrq=100000000",)),
    "mitigations-off": HostSpec(kernel_arguments=("mitigations=off",)),
    "no-vgic": HostSpec(cpu="cortex-a57", gic=2, vgic=False),
}
"""The hosts with a name: the releases as they are, and hosts that lack something or are of another make."""
