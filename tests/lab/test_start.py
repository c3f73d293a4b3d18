"""The hook's decision on a start equals what libvirt and QEMU do when the hook is not there.

Each guest is started for real by a libvirtd whose hook only looks on: it writes down what vgicmgr's hook decides, and
lets the start go on. So one start shows both.
"""

from collections.abc import Callable
from functools import cache

import pytest

from tests.lab.conftest import LabHost
from tests.lab.domains import Guest
from tests.lab.host import Host
from tests.lab.spec import HOSTS

LOOKER_ON = """\
#!/bin/sh
# writes down what vgicmgr's hook decides on 'prepare', and lets everything pass
[ "$2" = prepare ] || exit 0
cat >/tmp/prepare.xml
/root/vgicmgr-hook "$@" </tmp/prepare.xml 2>/tmp/prepare.stderr
echo $? >/tmp/prepare.status
exit 0
"""


def cpu_features(**policies: str) -> str:
    features = "".join(f"<feature name='{name}' policy='{policy}'/>" for name, policy in policies.items())
    return f"<cpu mode='host-passthrough'>{features}</cpu>"


GUESTS = {
    "no wish": Guest(),
    "GICv2": Guest(gic="<gic version='2'/>"),
    "GICv3": Guest(gic="<gic version='3'/>"),
    "the host's GIC": Guest(gic="<gic version='host'/>"),
    "9 vCPUs": Guest(vcpus=9),
    "9 vCPUs, GICv2": Guest(gic="<gic version='2'/>", vcpus=9),
    "8 vCPUs, GICv3": Guest(gic="<gic version='3'/>", vcpus=8),
    "a PMU": Guest(pmu="<pmu state='on'/>"),
    "no PMU": Guest(pmu="<pmu state='off'/>"),
    "SVE": Guest(cpu=cpu_features(sve="require")),
    "SVE of 256 bits": Guest(cpu=cpu_features(sve256="require")),
    "SVE of 384 bits, but not of 256": Guest(cpu=cpu_features(sve256="disable", sve384="require")),
    "pointer authentication": Guest(cpu=cpu_features(pauth="require")),
    "32-bit": Guest(cpu=cpu_features(aarch64="disable")),
    "stolen time": Guest(cpu=cpu_features(**{"kvm-steal-time": "require"})),
    "armv7l": Guest(os_type="<type arch='armv7l' machine='virt'>hvm</type>"),
    "CPU cortex-a57": Guest(cpu="<cpu mode='custom' match='exact'><model>cortex-a57</model></cpu>"),
    "CPU cortex-a53": Guest(cpu="<cpu mode='custom' match='exact'><model>cortex-a53</model></cpu>"),
    "CPU neoverse-n1": Guest(cpu="<cpu mode='custom' match='exact'><model>neoverse-n1</model></cpu>"),
    "no CPU": Guest(cpu=""),
    "CPU maximum": Guest(cpu="<cpu mode='maximum'/>"),
    "1023 GiB": Guest(memory="<memory unit='GiB'>1023</memory>"),
    "1024 GiB": Guest(memory="<memory unit='GiB'>1024</memory>"),
    "emulated": Guest(domain_type="qemu", cpu="<cpu mode='custom'><model>cortex-a57</model></cpu>"),
}
"""Guests by what they ask for."""

LIBVIRT_REFUSES = ("32-bit", "stolen time", "pointer authentication")
"""Asked for by CPU features that this libvirt, or an older one, does not know: no hook is run for them."""

VGICMGR = ("python3", "-m", "vgicmgr.cli")

OF_QEMU = ("no wish", "PMU", "CPU", "32-bit", "armv7l", "stolen", "emulated")

IN_PART = {
    "bookworm": OF_QEMU,
    "sid": OF_QEMU,
    "gicv2": ("no wish", "GIC", "vCPUs"),
    "no-its": ("no wish", "GIC"),
    "no-pmu": ("no wish", "PMU"),
    "no-pmu-bookworm": ("PMU",),
    "max": ("no wish", "SVE", "pointer", "32-bit", "armv7l", "CPU maximum", "GiB"),
}
"""Kinds of host, and words: they are asked about what may be different there, guests with such a word in their wish."""

CASES = [
    *(("trixie", wish) for wish in GUESTS),
    *((kind, wish) for kind, words in IN_PART.items() for wish in GUESTS if any(word in wish for word in words)),
]


@pytest.fixture(scope="module")
def host_of(lab_host: LabHost) -> Callable[[str], Host]:
    """The host of a kind, with libvirtd running, and the hook that looks on; made once."""

    @cache
    def host_of(kind: str) -> Host:
        host = lab_host(HOSTS[kind], fresh=True)
        host.run([*VGICMGR, "hook", "install"], check=True)
        host.run(["mv", "/etc/libvirt/hooks/qemu.d/50-vgicmgr", "/root/vgicmgr-hook"], check=True)
        host.push("/etc/libvirt/hooks/qemu", LOOKER_ON, mode=0o755)
        # a guest's memory may be larger than the host's: it is never touched
        host.run(["sysctl", "-qw", "vm.overcommit_memory=1"], check=True)
        host.show_hooks()
        return host

    return host_of


@pytest.mark.parametrize(("kind", "wish"), CASES)
def test_the_decision_is_what_qemu_does(host_of: Callable[[str], Host], kind: str, wish: str) -> None:
    host = host_of(kind)
    guest = GUESTS[wish]
    host.run(["sh", "-c", "rm -f /tmp/prepare.*"], check=True)
    host.push("/tmp/guest.xml", guest.xml())
    real = host.run(["virsh", "create", "--paused", "/tmp/guest.xml"])
    if real.exit_code == 0:
        host.run(["virsh", "destroy", guest.name], check=True)
    decision = host.run(["cat", "/tmp/prepare.status"])
    if decision.exit_code != 0:
        assert real.exit_code != 0, "started without asking the hook"
        assert wish in LIBVIRT_REFUSES, real.stderr
        return
    said = host.run(["cat", "/tmp/prepare.stderr"], check=True).stdout
    assert (decision.stdout.strip() == "0") == (real.exit_code == 0), f"hook: {said}\nlibvirt: {real.stderr}"
    assert bool(said) == (decision.stdout.strip() != "0")
