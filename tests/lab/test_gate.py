"""The gate under real libvirtds: records that travel, refusals that come in time, and verdicts that come true."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.conftest import LabPair
from tests.lab.connection import Result
from tests.lab.host import Host
from tests.lab.matrix.cases import ALL_HOSTS, GUESTS, SMALL, Case
from tests.lab.matrix.run import NAME, VGICMGR, document, move, start
from tests.lab.matrix.table import row
from tests.lab.pair import Pair
from vgicmgr.dataclass import replace
from vgicmgr.domain.xml import read_domain
from vgicmgr.kvm.registers import PMCR_EL0, PMCR_EL0_N, register_id
from vgicmgr.migration.document import from_document
from vgicmgr.migration.record import ABIRecord, RecordKind, read_record, to_xml

SECONDS = 30.0
DROP_IN = "/etc/libvirt/hooks/qemu.d/50-vgicmgr"


_documents: dict[str, Any] = {}
"""What each kind of host says of itself: asked once."""


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_the_verdict_is_what_happens(lab_pair: LabPair, case: Case) -> None:
    names = sorted(case.route)
    pair = lab_pair(*(ALL_HOSTS[name] for name in names))
    without_hook(pair)
    hosts = dict(zip(names, pair.hosts, strict=True))
    for name, host in hosts.items():
        if name not in _documents:
            _documents[name] = document(host)
    outcome = move(hosts, case, _documents)
    assert outcome.agreed, row(outcome)
    assert outcome.document == (outcome.arrived if case.record else None), row(outcome)


@pytest.fixture
def pair(lab_pair: LabPair) -> Iterator[Pair]:
    """Linux 6.1 and 6.12, both with the gate."""
    pair = lab_pair(ALL_HOSTS["bookworm"], ALL_HOSTS["trixie"])
    for host in (pair.first, pair.second):
        host.run([*VGICMGR, "hook", "install"], check=True)
        host.reload_libvirtd()
    yield pair
    for host in (pair.first, pair.second):
        host.run(["virsh", "destroy", NAME])
    without_hook(pair)


def without_hook(pair: Pair) -> None:
    for host in (pair.first, pair.second):
        host.run([*VGICMGR, "hook", "uninstall"])
        host.run(["rm", "-rf", "/run/vgicmgr", "/etc/vgicmgr"])


def record(on: Host, *, host: bool = False) -> ABIRecord | None:
    """What stands in the live domain: of its boot, or of the host that it moved to."""
    domain = read_domain(on.run(["virsh", "dumpxml", NAME], check=True).stdout.encode())
    element = domain.host_record if host else domain.record
    return read_record(element) if element else None


def wait_for_record(on: Host, *, host: bool = False) -> ABIRecord:
    deadline = time.monotonic() + SECONDS
    while (found := record(on, host=host)) is None:
        assert time.monotonic() < deadline, "no record was written"
        time.sleep(0.5)
    return found


def set_record(host: Host, xml: str) -> None:
    argv = ["virsh", "metadata", NAME, RecordKind.BOOT.value, "--live", "--key", "vgicmgr-abi", "--set", xml]
    host.run(argv, check=True)


def sent(host: Host) -> str:
    """The domain XML that libvirt sends ahead when the guest leaves this host."""
    return host.run(["virsh", "dumpxml", "--migratable", NAME], check=True).stdout


def asked(host: Host, xml: str) -> Result:
    """What the hook says to libvirt of this guest's arrival."""
    return host.run([DROP_IN, NAME, "migrate", "begin", "-"], stdin=xml.encode())


def state(host: Host) -> str:
    return host.run(["virsh", "domstate", NAME]).stdout.strip()


def test_a_guest_gets_its_record_and_keeps_it_where_it_goes(pair: Pair) -> None:
    start(pair.first, GUESTS["plain"].xml(NAME))
    born = wait_for_record(pair.first)
    assert born.kernel.startswith("6.1.")
    assert pair.first.run(["virsh", "domstate", NAME]).stdout.strip() == "running"
    shown = pair.first.run([*VGICMGR, "record", "show", "--format", "json", NAME], check=True).stdout
    assert from_document(json.loads(shown)) == born
    pair.first.run([*VGICMGR, "record", "verify", NAME], check=True)
    there = pair.migrate(NAME)
    assert there.exit_code == 0, there.stderr
    assert record(pair.second) == born
    assert pair.second.run(["test", "-e", f"/run/vgicmgr/arrived/domain-{NAME}"]).exit_code == 0
    wait_for_record(pair.second, host=True)
    back = pair.migrate(NAME, back=True)
    assert "registers, and this host's QEMU takes" in back.stderr  # what the newer kernel lists goes along
    assert record(pair.second) == born
    pair.second.run(["virsh", "destroy", NAME], check=True)
    assert pair.second.run(["test", "-e", f"/run/vgicmgr/arrived/domain-{NAME}"]).exit_code == 1


def migrate_to_the_older_kernel(pair: Pair) -> Result:
    return pair.migrate(NAME, back=True)


def test_a_refusal_comes_in_time_and_the_guest_runs_on(pair: Pair) -> None:
    start(pair.second, GUESTS["plain"].xml(NAME))
    wait_for_record(pair.second)
    result = migrate_to_the_older_kernel(pair)
    assert result.exit_code == 1
    assert "Hook script execution failed" in result.stderr
    assert f"vgicmgr: domain '{NAME}' cannot arrive here: " in result.stderr
    assert "registers, and this host's QEMU takes" in result.stderr
    assert "TCR2_EL1" in result.stderr
    assert state(pair.second) == "running"
    assert state(pair.first) == ""
    assert pair.first.run(["ls", "/run/vgicmgr/arrived"]).stdout == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda good: to_xml(good, namespace=False).replace('version="1"', 'version="2"'), "has version 2"),
        (lambda good: to_xml(good, namespace=False).replace(good.kernel, "6.1.0"), "checksum does not match"),
        (lambda good: re.sub(r">[^<]{40}", ">", to_xml(good, namespace=False)), "is damaged"),
        (lambda good: to_xml(impossible(good), namespace=False), "MIDR_EL1"),
        (lambda good: to_xml(replace(good, gits_iidr=0x4B00F43B), namespace=False), "GITS_IIDR.Revision"),
        (lambda good: to_xml(replace(good, icc_ctlr_el1=0x4700), namespace=False), "ICC_CTLR_EL1"),
    ],
    ids=["newer", "changed", "cut", "impossible", "ITS tables", "CPU interface"],
)
def test_a_record_that_is_bad_or_made_up_is_refused(pair: Pair, change: object, words: str) -> None:
    """From the older kernel to the newer one, where the guest would arrive."""
    if state(pair.first) != "running":
        start(pair.first, GUESTS["plain"].xml(NAME))
    assert callable(change)
    set_record(pair.first, change(wait_for_record(pair.first)))
    xml = sent(pair.first)
    result = asked(pair.second, xml)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert words in result.stderr


def impossible(good: ABIRecord) -> ABIRecord:
    midr = register_id("MIDR_EL1")
    return replace(good, registers=tuple((n, 0x1234 if n == midr else value) for n, value in good.registers))


def test_without_a_record_the_policy_decides(pair: Pair) -> None:
    start(pair.first, GUESTS["plain"].xml(NAME))
    wait_for_record(pair.first)
    pair.first.run(["virsh", "metadata", NAME, RecordKind.BOOT.value, "--live", "--remove"], check=True)
    xml = sent(pair.first)
    assert asked(pair.second, xml).exit_code == 0
    pair.second.push("/etc/vgicmgr/vgicmgr.conf", "[findings]\nmissing-record = enforce\n")
    result = asked(pair.second, xml)
    assert result.exit_code == 1
    assert "has no ABI record" in result.stderr


def test_event_counters_that_the_kernel_takes_away_are_told(pair: Pair) -> None:
    """Linux 6.12 takes a guest with more of them and leaves it its own number (set_pmcr), of which QEMU is not told."""
    start(pair.first, GUESTS["plain"].xml(NAME))
    good = wait_for_record(pair.first)
    more = tuple((n, PMCR_EL0_N.mask | value if n == PMCR_EL0 else value) for n, value in good.registers)
    set_record(pair.first, to_xml(replace(good, registers=more), namespace=False))
    xml = sent(pair.first)
    assert asked(pair.second, xml).exit_code == 0
    for host in pair.hosts:
        host.push("/etc/vgicmgr/vgicmgr.conf", "[findings]\npmu-counters = enforce\n")
    result = asked(pair.second, xml)
    assert result.exit_code == 1
    assert "PMCR_EL0.N: guest has 31 event counters, and this kernel leaves it 6" in result.stderr
    assert asked(pair.first, xml).exit_code == 0  # Linux 6.1 leaves it all


def test_a_kernel_that_cannot_be_asked(pair: Pair) -> None:
    start(pair.first, GUESTS["plain"].xml(NAME))
    wait_for_record(pair.first)
    xml = sent(pair.first)
    pair.second.run(["mv", "/dev/kvm", "/dev/kvm-away"], check=True)
    result = asked(pair.second, xml)
    pair.second.run(["mv", "/dev/kvm-away", "/dev/kvm"], check=True)
    assert result.exit_code == 1
    assert f"domain '{NAME}' is not let in, since it cannot be judged: /dev/kvm is not there" in result.stderr


def test_a_kernel_that_may_not_be_asked(pair: Pair) -> None:
    """Root itself may not open a device on a file system that is mounted with nodev."""
    start(pair.first, GUESTS["plain"].xml(NAME))
    wait_for_record(pair.first)
    xml = sent(pair.first)
    script = "mkdir -p /run/nodev && mount -t tmpfs -o nodev none /run/nodev && mknod -m 666 /run/nodev/kvm c 10 232"
    pair.second.run(["sh", "-c", f"{script} && mount --bind /run/nodev/kvm /dev/kvm"], check=True)
    result = asked(pair.second, xml)
    pair.second.run(["umount", "/dev/kvm", "/run/nodev"], check=True)
    assert result.exit_code == 1
    assert f"domain '{NAME}' is not let in, since it cannot be judged: /dev/kvm may not be opened" in result.stderr


@pytest.mark.parametrize(
    ("killed", "words"),
    [("[v]gicmgr.hook", "in the middle of it (status 137)"), ("[q]emu.d/50-vgicmgr", "Hook script execution failed")],
    ids=["Python", "the script"],
)
def test_a_hook_that_is_killed_lets_nobody_in_and_leaves_nothing(pair: Pair, killed: str, words: str) -> None:
    start(pair.first, GUESTS["plain"].xml(NAME))
    wait_for_record(pair.first)
    watch = f"timeout 60 sh -c 'until pkill -KILL -f \"{killed}\"; do :; done' >/dev/null 2>&1 &"
    pair.second.run(["sh", "-c", watch], check=True)
    result = pair.migrate(NAME)
    assert result.exit_code == 1
    assert words in result.stderr
    assert state(pair.first) == "running"
    assert state(pair.second) == ""
    ended = "for n in $(seq 60); do pgrep -f '[v]gicmgr.hook' || break; sleep 0.5; done >/dev/null"
    assert pair.second.run(["sh", "-c", f"{ended}; pgrep -f '[v]gicmgr.hook'; ls /run/vgicmgr/arrived"]).stdout == ""
    again = pair.migrate(NAME)
    assert again.exit_code == 0, again.stderr


def test_twenty_at_once_are_all_judged_right(pair: Pair) -> None:
    start(pair.first, GUESTS["plain"].xml(NAME))
    wait_for_record(pair.first)
    xml = sent(pair.first)
    pair.second.push("/run/incoming.xml", xml)
    script = (
        f'for n in $(seq 20); do {DROP_IN} {NAME} migrate begin - </run/incoming.xml & pids="$pids $!"; done; '
        "for pid in $pids; do wait $pid || echo refused; done"
    )
    result = pair.second.run(["sh", "-c", script], timeout=300)
    assert (result.stdout, result.stderr) == ("", "")
