"""The systemd unit that writes a guest's ABI record, under a real systemd.

A lab host's first process is the lab's own, so systemd is given a PID namespace, in which libvirtd runs, too.
"""

import time
from collections.abc import Callable

import pytest

from tests.lab.addition import add
from tests.lab.conftest import LabHost
from tests.lab.connection import Result
from tests.lab.matrix.cases import GUESTS
from tests.lab.spec import HOSTS
from vgicmgr.domain.xml import read_domain

SECONDS = 120.0
GUEST = "a guest-1"
"""A name that systemd escapes."""

PREPARE = """
cp /opt/vgicmgr/packaging/vgicmgr-record@.service /etc/systemd/system/
printf '#!/bin/sh\\nPYTHONPATH=/opt/vgicmgr exec python3 -m vgicmgr.cli "$@"\\n' >/usr/bin/vgicmgr
chmod 755 /usr/bin/vgicmgr
printf '[Unit]\\nDefaultDependencies=no\\n' >/etc/systemd/system/lab.target
# what a container does not need, and waits for
rm -r /usr/lib/systemd/system/sysinit.target.wants /usr/lib/systemd/system/sockets.target.wants
mkdir /sys/fs/cgroup/systemd
"""

BOOT = """
echo $$ >/sys/fs/cgroup/systemd/cgroup.procs
exec unshare --pid --fork --mount --mount-proc --cgroup sh -c '
    mount -t cgroup2 none /sys/fs/cgroup && exec env container=lab /usr/lib/systemd/systemd --unit=lab.target
'
"""

Command = Callable[..., Result]


@pytest.fixture
def beside_systemd(lab_host: LabHost) -> Command:
    """Runs a command where systemd is process 1; libvirtd runs there, and has the hook."""
    host = lab_host(HOSTS["trixie"], fresh=True)
    add(host, "systemd")
    host.push("/run/boot.sh", BOOT)
    start = f"set -e; {PREPARE} setsid sh /run/boot.sh >/dev/null 2>&1 </dev/null & until pgrep -x systemd; do :; done"
    process = host.run(["sh", "-c", start], check=True, timeout=60).stdout.strip()

    def run(*argv: str, check: bool = True) -> Result:
        return host.run(["nsenter", "-t", process, "-p", "-m", "-C", *argv], check=check, timeout=SECONDS)

    deadline = time.monotonic() + SECONDS
    while run("systemctl", "is-active", "lab.target", check=False).exit_code != 0:
        assert time.monotonic() < deadline, "systemd does not come up"
        time.sleep(1)
    host.run(["python3", "-m", "vgicmgr.cli", "hook", "install"], check=True)
    host.push("/run/guest.xml", GUESTS["plain"].xml(GUEST))
    run("libvirtd", "--daemon")
    return run


def test_a_guest_that_starts_gets_its_record_by_the_unit(beside_systemd: Command) -> None:
    beside_systemd("systemd-analyze", "--man=no", "verify", "/etc/systemd/system/vgicmgr-record@.service")
    beside_systemd("virsh", "create", "/run/guest.xml")
    unit = beside_systemd("systemd-escape", "--template=vgicmgr-record@.service", GUEST).stdout.strip()
    deadline = time.monotonic() + SECONDS
    while read_domain(beside_systemd("virsh", "dumpxml", GUEST).stdout.encode()).record is None:
        assert time.monotonic() < deadline, beside_systemd("systemctl", "status", unit, check=False).stdout
        time.sleep(1)
    while beside_systemd("systemctl", "is-active", unit, check=False).stdout.strip() != "inactive":
        assert time.monotonic() < deadline, "the unit does not end"
        time.sleep(1)
    shown = beside_systemd("systemctl", "show", "-p", "Result,ExecMainStatus", unit).stdout
    assert set(shown.split()) == {"Result=success", "ExecMainStatus=0"}
    assert beside_systemd("virsh", "domstate", GUEST).stdout.strip() == "running"
