"""``vgicmgr watch`` beside a real libvirtd, a real hook and a real journal: gate and reality side by side."""

import re
import time

import pytest

from tests.lab.conftest import LabHost, LabPair
from tests.lab.domains import Guest
from tests.lab.host import Host
from tests.lab.pair import Pair
from tests.lab.spec import HOSTS
from vgicmgr.dataclass import replace
from vgicmgr.migration.record import RecordKind

FITS = Guest("watched", gic="<gic version='3'/>")
MOVES = replace(FITS, os_type="<type arch='aarch64' machine='virt-7.2'>hvm</type>")  # a type that all QEMUs here have
DOES_NOT_FIT = Guest("no-fit", gic="<gic version='2'/>")
VGICMGR = ["python3", "-m", "vgicmgr.cli"]
SECONDS = 60.0
LINES, TERMINAL, STATUS = "/tmp/watch.lines", "/tmp/watch.terminal", "/tmp/watch.status"

# No init of the lab's hosts starts it. journald makes /run/systemd/journal/dev-log by itself, its link is for others.
START_JOURNAL = """
[ -s /etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
mkdir -p /run/systemd/journal /run/log/journal
setsid /usr/lib/systemd/systemd-journald </dev/null >/dev/null 2>&1 &
until [ -S /run/systemd/journal/dev-log ]; do sleep 0.1; done
ln -sfn /run/systemd/journal/dev-log /dev/log
"""

# One to a file, one to a terminal of its own; and the exit status of the first.
START_WATCHING = f"""
rm -f {LINES} {TERMINAL} {STATUS}
(setsid sh -c 'python3 -m vgicmgr.cli watch >{LINES} 2>&1; echo $? >{STATUS}' </dev/null >/dev/null 2>&1 &)
(setsid python3 -c 'import os, pty; os.environ["TERM"] = "xterm"
pty.spawn(["python3", "-m", "vgicmgr.cli", "watch"])' </dev/null >{TERMINAL} 2>&1 &)
"""
PIDS = "pgrep -f '^python3 -m vgicmgr.cli watch'"


@pytest.fixture(scope="module")
def host(lab_host: LabHost) -> Host:
    """A host without GICv2, its hook in place, and somebody who watches it; its own, since all guests are seen."""
    host = lab_host(HOSTS["trixie"], fresh=True)
    watch(host)
    return host


def watch(host: Host) -> None:
    """With the gate in place."""
    host.run([*VGICMGR, "hook", "install"], check=True)
    host.show_hooks()
    host.run(["sh", "-c", START_JOURNAL], check=True)
    host.run(["sh", "-c", START_WATCHING], check=True)
    wait(host, "libvirt is there; 0 guests active")


def lines(host: Host) -> str:
    """What was written, without the times."""
    return re.sub(r"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", "", host.run(["cat", LINES]).stdout)


def wait(host: Host, line: str) -> None:
    """Until there is a line that begins so."""
    deadline = time.monotonic() + SECONDS
    while f"\n{line}" not in (text := f"\n{lines(host)}"):
        assert time.monotonic() < deadline, f"no {line!r} in:\n{text}"
        time.sleep(0.3)


def virsh(host: Host, *words: str) -> str:
    """The error, if there is one."""
    result = host.run(["virsh", *words], timeout=120)
    return result.stderr if result.exit_code else ""


def test_a_start_is_judged_and_happens(host: Host) -> None:
    host.push("/tmp/watched.xml", FITS.xml())
    assert virsh(host, "define", "/tmp/watched.xml") == ""
    assert virsh(host, "start", "watched", "--paused") == ""
    wait(host, "watched: starts; gate: passed")
    wait(host, "watched: runs (booted); gate: passed")
    wait(host, "watched: paused")


def test_a_refused_start_is_seen_though_libvirt_has_no_event_for_it(host: Host) -> None:
    host.push("/tmp/no-fit.xml", DOES_NOT_FIT.xml())
    assert virsh(host, "create", "/tmp/no-fit.xml") != ""
    wait(host, "no-fit: starts; gate: refused: gic-version-unsupported: <gic version='2'/> is asked for")


def test_a_start_that_was_let_in_and_fails_is_told_with_qemus_words(host: Host) -> None:
    host.push("/etc/vgicmgr/vgicmgr.conf", "[hook]\nmode = warn\n")
    assert virsh(host, "create", "/tmp/no-fit.xml") != ""
    wait(host, "no-fit: starts; gate: warned: gic-version-unsupported")
    wait(host, "no-fit: failed: qemu-system-aarch64: KVM does not support GICv2 emulation; gate: warned")
    host.run(["rm", "/etc/vgicmgr/vgicmgr.conf"], check=True)


def test_a_managed_save_and_its_restore(host: Host) -> None:
    assert virsh(host, "managedsave", "watched") == ""
    wait(host, "watched: saved")
    assert virsh(host, "start", "watched") == ""
    wait(host, "watched: is to be restored; gate: ")
    wait(host, "watched: runs (restored); gate: ")
    wait(host, "watched: restored, paused")


def test_it_waits_for_a_libvirtd_that_is_restarted(host: Host) -> None:
    host.stop_libvirtd()
    wait(host, "libvirt is gone; waiting for it")
    host.start_libvirtd()
    wait(host, "libvirt is there; 1 guest active")
    assert virsh(host, "destroy", "watched") == ""
    wait(host, "watched: destroyed")
    assert "nobody watched" not in lines(host)


def test_where_the_hook_is_not_asked_the_guest_is_judged_anew(host: Host) -> None:
    host.run(["mv", "/etc/libvirt/hooks/qemu.d/50-vgicmgr", "/tmp"], check=True)
    assert virsh(host, "start", "watched", "--paused") == ""
    wait(host, "watched: runs (booted); gate: not asked (now: passed)")
    host.run(["mv", "/tmp/50-vgicmgr", "/etc/libvirt/hooks/qemu.d"], check=True)


def test_what_others_log_under_its_name_is_not_believed(host: Host) -> None:
    forged = "prepare domain=\\'forged\\' uuid=\\'\\' decision=refused"
    script = f"import syslog; syslog.openlog('vgicmgr'); syslog.syslog('{forged}')"
    host.run(["setpriv", "--reuid", "65534", "--clear-groups", "python3", "-c", script], check=True)
    true = script.replace("forged", "true")
    host.run(["python3", "-c", true], check=True)
    wait(host, "true: starts; gate: refused")
    assert "forged" not in lines(host)


def test_on_a_terminal_each_guest_has_one_line(host: Host) -> None:
    shown = host.run(["cat", TERMINAL]).stdout.split("\x1b[J")[-2]
    rows = [re.sub(r"\x1b\[\d*[A-Z]|\r", "", row) for row in shown.split("\n")]
    assert sum(row.startswith("watched ") for row in rows) == 1
    (refused,) = (row for row in rows if row.startswith("no-fit "))
    assert refused.split()[2:4] == ["warned:", "gic-version-unsupported"]


def test_sigint_ends_it_with_0_and_leaves_nothing(host: Host) -> None:
    host.run(["sh", "-c", f"{PIDS} | xargs kill -INT"], check=True)
    deadline = time.monotonic() + SECONDS
    while (status := host.run(["cat", STATUS]).stdout) == "":
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.2)
    assert status == "0\n"
    assert "Traceback" not in lines(host)
    assert host.run(["pgrep", "-x", "journalctl"]).stdout == ""


@pytest.fixture(scope="module")
def pair(lab_pair: LabPair) -> Pair:
    """Linux 6.12 and 7.x, each watched."""
    pair = lab_pair(HOSTS["trixie"], HOSTS["sid"], fresh=True)
    for host in pair.hosts:
        watch(host)
    return pair


def test_a_migration_is_seen_from_both_ends(pair: Pair) -> None:
    start_with_record(pair.first)
    assert pair.migrate("watched").stderr == ""
    wait(pair.second, "watched: is to arrive; gate: warned: register-dropped: this kernel has no TCR2_EL1")
    wait(pair.second, "watched: arrived; gate: warned: register-dropped")
    wait(pair.first, "watched: left (migrated)")


def test_a_refused_migration_is_seen_where_it_was_to_go(pair: Pair) -> None:
    virsh(pair.second, "destroy", "watched")
    start_with_record(pair.second)
    assert "KVM_REG_ARM_PSCI_VERSION.minor" in pair.migrate("watched", back=True).stderr
    wait(
        pair.first,
        "watched: is to arrive; gate: refused: register-value, register-dropped: KVM_REG_ARM_PSCI_VERSION.minor: ",
    )
    assert lines(pair.second).splitlines()[-1].startswith("watched: runs (booted)")


def start_with_record(host: Host) -> None:
    """A guest that has its ABI record, by which its migration is judged."""
    host.push("/tmp/watched.xml", MOVES.xml())
    assert virsh(host, "create", "/tmp/watched.xml") == ""
    recorded = f"until virsh dumpxml watched | grep -q {RecordKind.BOOT.value}; do sleep 0.5; done"
    host.run(["sh", "-c", recorded], timeout=SECONDS, check=True)


def test_where_libvirt_cannot_be_reached_it_says_so_with_status_2(host: Host) -> None:
    result = host.run([*VGICMGR, "watch", "-c", "qemu:///system?socket=/run/nobody"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("vgicmgr: libvirt cannot be reached: ")
    assert result.stderr.count("\n") == 1


def test_another_hosts_libvirt_is_not_watched_from_here(host: Host) -> None:
    result = host.run([*VGICMGR, "watch", "-c", "qemu+tcp://localhost/system"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "vgicmgr: qemu+tcp://localhost/system is another host's libvirt (run vgicmgr watch on that host)\n"
    )
