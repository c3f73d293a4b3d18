"""The combinations: one line of data each. Pure."""

from dataclasses import dataclass
from vgicmgr.dataclass import replace

from tests.lab.guest import log
from tests.lab.spec import HOSTS, HostSpec, Release


@dataclass(frozen=True)
class Guest:
    """A guest, by the pieces of its domain XML that matter here."""

    cpu: str = "<cpu mode='host-passthrough'/>"
    pmu: str = ""
    vcpus: int = 1
    machine: str = "virt-7.2"
    """One that every QEMU of the lab has."""
    gic: int = 3
    arguments: tuple[str, ...] = ()
    """QEMU's additional ones (``<qemu:commandline>``)."""

    def xml(self, name: str) -> str:
        """The whole domain."""
        arguments = "".join(f"<qemu:arg value='{argument}'/>" for argument in self.arguments)
        return f"""\
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <memory unit='MiB'>128</memory>
  <vcpu>{self.vcpus}</vcpu>
  <os>
    <type arch='aarch64' machine='{self.machine}'>hvm</type>
    <kernel>/srv/guest/Image</kernel>
    <initrd>/srv/guest/initramfs.cpio.gz</initrd>
    <cmdline>console=ttyAMA0 quiet panic=-1</cmdline>
  </os>
  <features><gic version='{self.gic}'/>{self.pmu}</features>
  {self.cpu}
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-aarch64</emulator>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{log(name)}'/></serial>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>{arguments}</qemu:commandline>
</domain>
"""


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
    "16k": HostSpec(page_kib=16),
    "20 counters": HostSpec(cpu="cortex-a710", outer=SID),
    "6 counters": HostSpec(cpu="neoverse-n2", outer=SID),
    "a72": HostSpec(cpu="cortex-a72"),
    "a72-sid": HostSpec(SID, cpu="cortex-a72"),
    "gicv2-bookworm": HostSpec(BOOKWORM, cpu="cortex-a57", gic=2),
    "a57": HostSpec(cpu="cortex-a57"),
}
"""Hosts beyond those with a name: kernels with another release's QEMU, other CPUs."""

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
)
"""Every kind of failure, and moves that succeed: a register that is not there, one that does not take its value,
shorter SVE vectors, another CPU, no GICv2, no PMU."""


def both(first: str, second: str, *guests: str) -> tuple[Case, ...]:
    """Moves in both directions."""
    return tuple(Case(*pair, guest) for guest in guests for pair in ((first, second), (second, first)))


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
    *both("trixie", "16k", "plain", "no steal time"),
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
