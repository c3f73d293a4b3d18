"""The combinations: one line of data each. Pure."""

from dataclasses import dataclass

from tests.lab.guest import log
from tests.lab.spec import HOSTS, HostSpec, Release
from vgicmgr.dataclass import replace


@dataclass(frozen=True)
class Guest:
    """A guest, by the pieces of its domain XML that matter here."""

    cpu: str = "<cpu mode='host-passthrough'/>"
    pmu: str = ""
    vcpus: int = 1
    machine: str = "virt-7.2"
    """One that every QEMU of the lab has."""
    gic: int = 3
    features: str = ""
    """Further elements in ``<features>``, such as ``<acpi/>``."""
    firmware: bool = False
    """UEFI, which starts the kernel."""
    devices: str = ""
    """Further devices; the guest then has the drivers of PCI ones, and a disk whose MSIs it counts."""
    arguments: tuple[str, ...] = ()
    """QEMU's additional ones (``<qemu:commandline>``)."""

    @property
    def memory_mib(self) -> int:
        """Firmware wants more."""
        return 256 if self.firmware else 128

    def xml(self, name: str) -> str:
        """The whole domain."""
        arguments = "".join(f"<qemu:arg value='{argument}'/>" for argument in self.arguments)
        initrd = "devices" if self.devices else "initramfs"
        firmware = FIRMWARE.format(name=name) if self.firmware else ""
        devices = f"{DISK}{self.devices}" if self.devices else ""
        return f"""\
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <memory unit='MiB'>{self.memory_mib}</memory>
  <vcpu>{self.vcpus}</vcpu>
  <os>
    <type arch='aarch64' machine='{self.machine}'>hvm</type>{firmware}
    <kernel>/srv/guest/Image</kernel>
    <initrd>/srv/guest/{initrd}.cpio.gz</initrd>
    <cmdline>console=ttyAMA0 quiet panic=-1</cmdline>
  </os>
  <features>{self.features}<gic version='{self.gic}'/>{self.pmu}</features>
  {self.cpu}
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-aarch64</emulator>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{log(name)}'/></serial>
    <memballoon model='none'/>{devices}
  </devices>
  <qemu:commandline>{arguments}</qemu:commandline>
</domain>
"""


FIRMWARE = """
    <loader readonly='yes' type='pflash'>/srv/guest/code.fd</loader>
    <nvram template='/srv/guest/vars.fd'>/var/lib/libvirt/qemu/{name}-vars.fd</nvram>"""

DISK = """
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/srv/guest/disk.img'/>
      <target dev='vda' bus='virtio'/>
      <readonly/>
    </disk>"""
"""One that both hosts have, so that libvirt takes the move for safe; an operator's is on shared storage."""

RNG = """
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"""

NETWORK = """
    <interface type='user'><mac address='52:54:00:01:02:03'/><model type='virtio'/><rom enabled='no'/></interface>"""
"""libvirt's way to have no wire at all; nothing is sent."""

SCSI = """
    <controller type='scsi' model='virtio-scsi'/>"""

ROOT_PORTS = """
    <controller type='pci' index='0' model='pcie-root'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>"""
"""Beyond those that libvirt adds for each device."""


def features(**policies: str) -> str:
    """A ``<cpu>`` with features: ``features(sve="disable")``; a ``_`` in a name is a ``-``."""
    words = "".join(
        f"<feature policy='{policy}' name='{name.replace('_', '-')}'/>" for name, policy in policies.items()
    )
    return f"<cpu mode='host-passthrough'>{words}</cpu>"


PLAIN = Guest()
GUESTS = {
    "plain": PLAIN,
    "2 vCPUs": replace(PLAIN, vcpus=2),
    "pmu=off": replace(PLAIN, pmu="<pmu state='off'/>"),
    "sve=off": replace(PLAIN, cpu=features(sve="disable")),
    "pauth=off": replace(PLAIN, cpu=features(pauth="disable")),
    "sve=off, pauth=off": replace(PLAIN, cpu=features(sve="disable", pauth="disable")),
    "bare": replace(PLAIN, arguments=("-cpu", "host,sve=off,pauth=off")),
    "sve128": replace(PLAIN, cpu=features(sve128="require", sve256="disable")),
    "no steal time": replace(PLAIN, arguments=("-cpu", "host,kvm-steal-time=off")),
    "psci 1.1": replace(PLAIN, arguments=("-cpu", "host,kvm-psci-version=1.1")),
    "its=off": replace(PLAIN, arguments=("-machine", "its=off")),
    "gicv2": replace(PLAIN, gic=2),
    "EL2": replace(PLAIN, arguments=("-machine", "virtualization=on")),
    "ACPI": replace(PLAIN, arguments=("-machine", "acpi=on")),
    "ACPI, no steal time": replace(PLAIN, arguments=("-machine", "acpi=on", "-cpu", "host,kvm-steal-time=off")),
    "UEFI": replace(PLAIN, firmware=True, features="<acpi/>", arguments=("-cpu", "host,kvm-steal-time=off")),
    "disk": replace(PLAIN, devices=RNG),
    "gicv2, disk": replace(PLAIN, gic=2, devices=RNG),
    "PCI": replace(PLAIN, devices=f"{RNG}{NETWORK}{SCSI}{ROOT_PORTS}"),
}
"""The guests with a name."""

BOOKWORM, TRIXIE, SID = Release.BOOKWORM, Release.TRIXIE, Release.SID


def _with_qemu(kernel: Release, userland: Release, cpu: str = "neoverse-n1") -> HostSpec:
    return HostSpec(userland, kernel=kernel, cpu=cpu)


MIXED: dict[str, HostSpec] = {
    "6.1/qemu10": _with_qemu(BOOKWORM, TRIXIE),
    "6.1/qemu11": _with_qemu(BOOKWORM, SID),
    "6.12/qemu7": _with_qemu(TRIXIE, BOOKWORM),
    "6.12/qemu11": _with_qemu(TRIXIE, SID),
    "7.2/qemu7": _with_qemu(SID, BOOKWORM),
    "7.2/qemu10": _with_qemu(SID, TRIXIE),
    "max 6.1/qemu10": _with_qemu(BOOKWORM, TRIXIE, "max"),
    "max 6.12/qemu11": _with_qemu(TRIXIE, SID, "max"),
    "max 7.2/qemu10": _with_qemu(SID, TRIXIE, "max"),
    "max-sve256": HostSpec(cpu="max", cpu_options=("sve-max-vq=2",)),
    "20 counters": HostSpec(cpu="cortex-a710", outer=SID),
    "6 counters": HostSpec(cpu="neoverse-n2", outer=SID),
    "a72": HostSpec(cpu="cortex-a72"),
    "a72-sid": HostSpec(SID, cpu="cortex-a72"),
    "gicv2-bookworm": HostSpec(BOOKWORM, cpu="cortex-a57", gic=2),
    "a57": HostSpec(cpu="cortex-a57"),
    "trixie-2": HostSpec(),
    "a72 mitigations-off": HostSpec(cpu="cortex-a72", kernel_arguments=("mitigations=off",)),
    "max-sid qemu11": HostSpec(SID, cpu="max", outer=SID),
    "nested-2": HOSTS["nested"],
    "neoverse-v1-sid": HostSpec(SID, cpu="neoverse-v1", outer=SID),
}
"""Hosts beyond those with a name: kernels with another release's QEMU, other CPUs, a second one of a kind."""

ALL_HOSTS = {**HOSTS, **MIXED}


@dataclass(frozen=True)
class Case:
    """A guest moves from one host to another."""

    source: str
    """Where it is booted."""
    destination: str
    guest: str = "plain"
    via: str = ""
    """A host where it goes first: A to B to C, or back to A."""
    record: bool = True
    """Whether the guest has its ABI record."""
    how: str = "migrate"
    """``migrate``, or ``restore``: saved to a file and restored there."""

    @property
    def name(self) -> str:
        """The case in one line."""
        more = ("" if self.record else ", no record") + (", save and restore" if self.how == "restore" else "")
        return f"{' -> '.join(self.route)}: {self.guest}{more}"

    @property
    def route(self) -> tuple[str, ...]:
        """The hosts that it sees, one after the other."""
        return (self.source, *filter(None, (self.via,)), self.destination)


SMALL = (
    Case("trixie", "bookworm"),
    Case("bookworm", "trixie"),
    Case("trixie", "sid"),
    Case("trixie", "sid", record=False),
    Case("sid", "trixie"),
    Case("max", "max-sve256"),
    Case("trixie", "a76"),
    Case("gicv2", "a57", "gicv2"),
    Case("trixie", "no-its"),
    Case("trixie", "no-pmu"),
    Case("50mhz", "100mhz"),
    Case("16k", "trixie", "ACPI, no steal time"),
)
"""Every kind of failure, and moves that succeed: a register that is not there, one that does not take its value,
shorter SVE vectors, another CPU, no GICv2, no PMU, a counter of another frequency, smaller pages."""


def both(first: str, second: str, *guests: str, how: str = "migrate") -> tuple[Case, ...]:
    """Moves in both directions."""
    return tuple(Case(*pair, guest, how=how) for guest in guests for pair in ((first, second), (second, first)))


FULL = (
    # kernels 6.1, 6.12, 7.2 with their own QEMU
    *both("bookworm", "trixie", "plain", "pmu=off", "2 vCPUs", "no steal time"),
    *both("trixie", "sid", "plain", "pmu=off", "2 vCPUs", "its=off"),
    *both("bookworm", "sid", "plain", "pmu=off"),
    # the same with a CPU that has SVE and pointer authentication
    *both("max-bookworm", "max", "plain", "sve=off", "bare"),
    *both("max", "max-sid", "plain", "sve=off", "sve=off, pauth=off"),
    *both("max-bookworm", "max-sid", "plain"),
    # longer vectors and shorter ones
    *both("max", "max-sve256", "plain", "sve=off"),
    # a PMU of more counters and one of fewer
    *both("20 counters", "6 counters", "plain", "pmu=off"),
    # other QEMUs
    *both("6.1/qemu10", "trixie", "plain", "pmu=off"),
    *both("6.12/qemu11", "sid", "plain", "psci 1.1"),
    *both("6.12/qemu11", "trixie", "plain"),
    *both("6.1/qemu11", "6.12/qemu11", "plain", "psci 1.1"),
    *both("7.2/qemu10", "trixie", "plain", "pmu=off"),
    *both("7.2/qemu10", "sid", "plain"),
    *both("bookworm", "6.12/qemu7", "plain"),
    # pages of another size, which the region of stolen time is made of
    *both("trixie", "16k", "plain", "no steal time", "ACPI", "ACPI, no steal time", "UEFI"),
    # counters of another frequency, which a guest reads once
    *both("50mhz", "100mhz", "plain"),
    *both("50mhz", "100mhz", "plain", how="restore"),
    *both("trixie", "100mhz", "plain"),
    # other levels of the firmware's workarounds
    *both("trixie", "mitigations-off", "plain"),
    *both("a72", "a72 mitigations-off", "plain"),
    # nesting, and registers that come and go with others
    Case("nested", "nested-2", "EL2"),
    Case("nested", "nested-2", "EL2", how="restore"),
    Case("nested", "nested-2", "plain"),
    *both("max-sid qemu11", "nested", "plain"),
    *both("neoverse-v1", "neoverse-v1-sid", "plain"),
    # PCI devices, whose state is of QEMU's version, and whose MSIs must go on
    Case("trixie", "trixie-2", "PCI"),
    Case("trixie", "trixie-2", "PCI", how="restore"),
    *both("trixie", "6.12/qemu11", "disk", "PCI"),
    *both("trixie", "6.12/qemu11", "PCI", how="restore"),
    *both("6.12/qemu11", "sid", "PCI"),
    *both("6.12/qemu7", "trixie", "disk"),
    *both("6.12/qemu7", "6.12/qemu11", "disk"),
    *both("gicv2-bookworm", "gicv2", "gicv2, disk"),
    # a GIC of KVM's and one of QEMU's own
    *both("gicv2", "no-vgic", "gicv2"),
    # registers that an ID register of the guest takes away
    Case("max-sid", "nested"),
    # other CPUs
    *both("trixie", "a76", "plain"),
    *both("trixie", "max", "plain", "bare"),
    *both("a72", "a72-sid", "plain"),
    # other GICs, no ITS, no PMU
    Case("gicv2", "a57", "gicv2"),
    Case("a57", "gicv2"),
    *both("gicv2-bookworm", "gicv2", "gicv2"),
    *both("trixie", "no-its", "plain"),
    *both("trixie", "no-pmu", "plain"),
    Case("trixie", "no-pmu", "pmu=off"),
    Case("no-pmu-bookworm", "trixie", "pmu=off"),  # since 10.0, QEMU starts no such guest where KVM has no PMU
    # chains, files, and no record
    Case("bookworm", "bookworm", via="trixie"),
    Case("trixie", "trixie", via="sid"),
    Case("bookworm", "sid", via="trixie"),
    Case("bookworm", "trixie", via="sid"),
    Case("trixie", "bookworm", via="sid"),
    Case("bookworm", "trixie", how="restore"),
    Case("trixie", "bookworm", how="restore"),
    Case("trixie", "sid", record=False),
    Case("sid", "trixie", record=False),
)
