"""What ``check-restore`` says of guests that real libvirts have saved, and whether such guests then come back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab import guest as nested
from tests.lab.conftest import LabHost, LabPair
from tests.lab.host import Host
from tests.lab.matrix.cases import ALL_HOSTS, GUESTS, PLAIN, Case, Guest
from tests.lab.matrix.run import NAME, VGICMGR, document, move
from tests.lab.matrix.table import row
from vgicmgr.dataclass import replace

IMAGE, MEMORY, DISK = (f"/tmp/{NAME}-kept.{suffix}" for suffix in ("save", "mem", "qcow2"))
SECONDS = 180.0
QCOW2 = f"""
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{DISK}'/>
      <target dev='vdb' bus='virtio'/>
    </disk>"""
"""What an internal snapshot's memory goes into."""


@contextmanager
def booted(host: Host, guest: Guest) -> Iterator[None]:
    """A guest that is defined, runs and has its record; in the end nothing of it is left."""
    host.run([*VGICMGR, "hook", "uninstall"])
    try:
        host.push(f"/run/{NAME}.xml", guest.xml(NAME))
        host.run(["rm", "-f", nested.log(NAME)])
        host.run(["virsh", "define", f"/run/{NAME}.xml"], check=True)
        host.run(["virsh", "start", NAME], check=True, timeout=SECONDS)
        nested.wait_until_up(host, NAME)
        assert "record written" in host.run([*VGICMGR, "record", "write", NAME], check=True).stdout
        yield
    finally:
        host.run(["virsh", "destroy", NAME])
        host.run(["virsh", "undefine", NAME, "--managed-save", "--snapshots-metadata"])
        host.run(["rm", "-f", IMAGE, MEMORY, DISK])


def check(host: Host, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit status, and what is said of each."""
    result = host.run([*VGICMGR, "check-restore", "--format", "json", *arguments], timeout=SECONDS)
    assert result.stdout, result.stderr
    return result.exit_code, json.loads(result.stdout)["saved"]


def state(host: Host) -> str:
    return host.run(["virsh", "domstate", NAME]).stdout.strip()


@pytest.mark.parametrize(("source", "destination"), [("trixie", "sid"), ("trixie", "bookworm"), ("sid", "trixie")])
def test_a_document_tells_what_becomes_of_a_guest_that_is_carried_there(
    lab_pair: LabPair, source: str, destination: str
) -> None:
    """What is said of all that lies saved on one host, by the other's document, against a guest that was saved there,
    brought over and restored. On the host itself everything comes back.
    """
    names = sorted((source, destination))
    pair = lab_pair(*(ALL_HOSTS[name] for name in names))
    hosts = dict(zip(names, pair.hosts, strict=True))
    documents = {name: document(host) for name, host in hosts.items()}
    for host in pair.hosts:
        host.run([*VGICMGR, "hook", "uninstall"])
    outcome = move(hosts, Case(source, destination, how="restore"), documents)

    host = hosts[source]
    host.push("/run/other.json", json.dumps(documents[destination]))
    with booted(host, GUESTS["plain"]):
        take = ["snapshot-create-as", NAME, "before", "--memspec", f"file={MEMORY},snapshot=external"]
        for argv in (take, ["save", NAME, IMAGE], ["restore", IMAGE], ["managedsave", NAME]):
            host.run(["virsh", *argv], check=True, timeout=SECONDS)
        status, here = check(host, NAME, IMAGE, MEMORY)
        assert [(one["kind"], one["memory"]) for one in here] == [
            ("managed-save", None),
            ("snapshot", "external"),
            ("saved-image", None),
            ("saved-image", None),
        ]
        assert (status, {one["ok"] for one in here}) == (0, {True}), here
        assert not any("missing-record" in str(one["findings"]) for one in here), here
        status, there = check(host, NAME, IMAGE, MEMORY, "--host", "/run/other.json")
        assert {one["ok"] for one in there} == {outcome.arrived}, (row(outcome), there)
        assert status == (0 if outcome.arrived else 1)
        host.run(["virsh", "start", NAME], check=True, timeout=SECONDS)
        assert state(host) == "running"


def test_an_internal_snapshot(lab_host: LabHost) -> None:
    """It comes back where it was taken, and does not on a host of an older kernel, by that host's document."""
    older = lab_host(ALL_HOSTS["bookworm"])
    other = document(older)
    host = lab_host(ALL_HOSTS["trixie"])
    host.start_libvirtd()
    host.push("/run/other.json", json.dumps(other))
    host.run(["qemu-img", "create", "-f", "qcow2", DISK, "512M"], check=True)
    with booted(host, replace(PLAIN, devices=QCOW2)):
        host.run(["virsh", "snapshot-create-as", NAME, "before"], check=True, timeout=SECONDS)
        status, here = check(host)
        assert [(one["domain"], one["snapshot"], one["memory"]) for one in here] == [(NAME, "before", "internal")]
        assert (status, here[0]["ok"]) == (0, True), here
        status, there = check(host, "--host", "/run/other.json")
        assert (status, there[0]["ok"]) == (1, False), there
        host.run(["virsh", "destroy", NAME], check=True)
        host.run(["virsh", "snapshot-revert", NAME, "before"], check=True, timeout=SECONDS)
        assert state(host) == "running"
