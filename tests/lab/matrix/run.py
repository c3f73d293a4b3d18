"""One move after the other: what the gate says, then what happens without it."""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from typing import Any

from tests.lab import guest as nested
from tests.lab.chain import Chain, migrate
from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.matrix.cases import ALL_HOSTS, GUESTS, Case
from vgicmgr.migration.arrival import findings
from vgicmgr.migration.hostdocument import HostDocumentError, host_of
from vgicmgr.migration.incoming import read_incoming
from vgicmgr.migration.scratch import wants_its
from vgicmgr.domain.settings import read_domain
from vgicmgr.findings import Verdict
from vgicmgr.qemu.cpu import cpu_of

NAME = "guest"
BOOT_SECONDS = 8.0
VGICMGR = ["python3", "-m", "vgicmgr.cli"]


@dataclass(frozen=True)
class Outcome:
    """What was said of a move and what came of it."""

    case: Case
    verdict: bool | None
    """The gate's, with the policy that it has by default; None where there is no record and it lets the guest in with
    a warning."""
    reason: str
    arrived: bool
    """It runs there, and has the SVE vector lengths that it had."""
    error: str
    """The operator's error, and what the destination's QEMU said."""
    copying: bool
    """Whether libvirt let it start to copy memory."""
    seconds: float
    """The hook's."""
    document: bool | None
    """What the documents of guest and destination say; None without a record."""
    document_reason: str

    @property
    def agreed(self) -> bool:
        """Whether the gate was right."""
        return self.verdict in (None, self.arrived)

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return {**asdict(self), "name": self.case.name}

    @classmethod
    def from_json(cls, members: dict[str, Any]) -> "Outcome":
        """The way back."""
        own = {member.name: members[member.name] for member in fields(cls)}
        return cls(**{**own, "case": Case(**own["case"])})


def run(cases: Iterable[Case], show: Callable[[Outcome], None], trouble: Callable[[Case, str], None]) -> None:
    """Carry out all cases, each group of hosts booted once; ``trouble`` hears of those that could not be judged."""

    def names(case: Case) -> list[str]:
        return sorted(set(case.route))

    for kinds, group in groupby(sorted(cases, key=names), names):
        moves = list(group)
        try:
            with Chain.start(*(ALL_HOSTS[name] for name in kinds)) as chain:
                chain.start_libvirtd()
                hosts = dict(zip(kinds, chain.hosts, strict=True))
                documents = {name: document(host) for name, host in hosts.items()}
                while moves:
                    case = moves.pop(0)
                    try:
                        show(move(hosts, case, documents))
                    except LabError as error:
                        trouble(case, " ".join(str(error).split())[:400])
                    if not chain.alive:
                        raise LabError("a host is gone")
        except LabError as error:
            for case in moves:
                trouble(case, " ".join(str(error).split())[:400])


def document(host: Host) -> Any:
    """The host's capabilities document."""
    result = host.run([*VGICMGR, "check-host", "--format", "json"], timeout=300)
    if not result.stdout:
        raise LabError(f"{host.name}: {result.stderr}")
    return json.loads(result.stdout)


def move(hosts: Mapping[str, Host], case: Case, documents: Mapping[str, Any]) -> Outcome:
    """Start the guest, ask, migrate, and clean up; ``documents`` are those of the ``hosts``, both by name."""
    source, destination = hosts[case.source], hosts[case.destination]
    try:
        start(source, GUESTS[case.guest].xml(NAME))
        if case.record and "written" not in source.run([*VGICMGR, "record", "write", NAME], check=True).stdout:
            raise LabError("no record was written")
        if case.via:
            migrate(source, hosts[case.via], NAME, check=True)
            source = hosts[case.via]
            _note_arrival(source)
        destination.run(["sh", "-c", f": >/var/log/libvirt/qemu/{NAME}.log"], check=True)
        target = documents[case.destination]
        if case.how == "restore":
            return _restore(case, source, destination, target)
        xml = source.run(["virsh", "dumpxml", "--migratable", "--security-info", NAME], check=True).stdout
        verdict, reason, seconds = ask(destination, "migrate", xml)
        result = migrate(source, destination, NAME)
        arrived = result.exit_code == 0 and _runs(destination)
        error = result.stderr.strip()
        if arrived and (loss := _lost_vectors(destination)):
            arrived, error = False, loss
        return Outcome(
            case,
            _judged(case, verdict),
            reason,
            arrived,
            error + _qemu_said(destination),
            _copying(error),
            seconds,
            *foretell(xml, target),
        )
    finally:
        for host in {hosts[name] for name in case.route}:
            with suppress(LabError):
                host.run(["virsh", "destroy", NAME])
                host.run(["rm", "-rf", "/run/vgicmgr"])


def start(host: Host, xml: str) -> None:
    """Start the guest, and let it come up; on a machine under load it may still be booting when it is moved."""
    host.push(f"/run/{NAME}.xml", xml)
    host.run(["virsh", "create", f"/run/{NAME}.xml"], check=True)
    deadline = time.monotonic() + BOOT_SECONDS
    while nested.UP not in nested.console(host, NAME) and time.monotonic() < deadline:
        time.sleep(0.5)


def ask(host: Host, operation: str, xml: str) -> tuple[bool, str, float]:
    """The hook's verdict as libvirt would hear it: yes or no, the reason, and how long it took."""
    before = time.monotonic()
    result = host.run(["python3", "-m", "vgicmgr.hook", NAME, operation, "begin", "-"], stdin=xml.encode())
    return result.exit_code == 0, result.stderr.strip(), time.monotonic() - before


def foretell(xml: str, target: Any) -> tuple[bool | None, str]:
    """The verdict that needs no host: by the record in the XML and the destination's document."""
    incoming, settings = read_incoming(xml.encode()), read_domain(xml.encode())
    record = incoming.sent()
    if record is None:
        return None, ""
    cpu = cpu_of(settings, incoming.arguments)
    try:
        host, rules = host_of(target, settings, cpu, with_its=wants_its(incoming.arguments))
    except HostDocumentError as error:
        return False, str(error)
    verdict = Verdict(findings(record, settings, rules, host))
    return verdict.ok, "; ".join(map(str, verdict.findings))


def _judged(case: Case, verdict: bool) -> bool | None:
    return None if verdict and not case.record else verdict


def _restore(case: Case, source: Host, destination: Host, target: Any) -> Outcome:
    saved = f"/tmp/{NAME}.save"
    source.run(["virsh", "save", NAME, saved], check=True, timeout=120)
    xml = source.run(["virsh", "save-image-dumpxml", "--security-info", saved], check=True).stdout
    verdict, reason, seconds = ask(destination, "restore", xml)
    _copy(source, destination, saved)
    result = destination.run(["virsh", "restore", saved], timeout=120)
    arrived = result.exit_code == 0 and _runs(destination)
    for host in (source, destination):
        host.run(["rm", "-f", saved])
    error = result.stderr.strip()
    return Outcome(
        case, verdict, reason, arrived, error + _qemu_said(destination), True, seconds, *foretell(xml, target)
    )


_SERVE = "python3 -m http.server --directory /tmp 8099 >/dev/null 2>&1 & echo $!"


def _copy(source: Host, destination: Host, path: str) -> None:
    pid = source.run(["sh", "-c", _SERVE], check=True).stdout.strip()
    address = source.run(
        ["sh", "-c", "ip -4 -o addr show scope global | awk '{print $4}' | cut -d/ -f1"]
    ).stdout.strip()
    fetch = (
        "import sys, time, urllib.request\n"
        "for attempt in range(20):\n"
        "    try:\n"
        f"        urllib.request.urlretrieve('http://{address}:8099/{path.rpartition('/')[2]}', '{path}')\n"
        "        break\n"
        "    except OSError:\n"
        "        time.sleep(1)\n"
    )
    destination.run(["python3", "-c", fetch], check=True, timeout=120)
    source.run(["kill", pid])


def _note_arrival(host: Host) -> None:
    """What the hook, which is out of the way here, does when a guest has arrived."""
    host.run(["mkdir", "-p", "/run/vgicmgr/arrived"], check=True)
    host.run(["touch", f"/run/vgicmgr/arrived/domain-{NAME}"], check=True)
    host.run([*VGICMGR, "record", "write", NAME], check=True)


def _lost_vectors(host: Host) -> str:
    """The SVE vector lengths that the guest had and has not any more: QEMU restores no more of a Z register than the
    vCPU here has (target/arm/kvm.c, kvm_arch_put_sve), and says nothing.
    """
    _note_arrival(host)
    incoming = read_incoming(host.run(["virsh", "dumpxml", NAME], check=True).stdout.encode())
    if not incoming.element or not incoming.host:
        return ""
    lost = set(incoming.element.record().sve) - set(incoming.host.record().sve)
    longest = max(incoming.host.record().sve, default=0)
    return f"it runs, but its vectors are cut to {longest} bits" if lost and longest else ""


def _runs(host: Host) -> bool:
    return host.run(["virsh", "domstate", NAME]).stdout.strip() == "running"


def _qemu_said(host: Host) -> str:
    log = host.run(["cat", f"/var/log/libvirt/qemu/{NAME}.log"]).stdout
    lines = [line for line in log.splitlines() if re.search(r"qemu-system-aarch64: |Unexpected error|KVM_SET", line)]
    words = [re.sub(r"^.*?qemu-system-aarch64: ", "", line) for line in lines if "terminating on signal" not in line]
    return f" | QEMU: {' / '.join(words)}" if words else ""


_WHILE_COPYING = ("migration", "loading state", "Failed to load", "unexpectedly closed the monitor", "it runs")


def _copying(error: str) -> bool:
    return not error or any(words in error for words in _WHILE_COPYING)
