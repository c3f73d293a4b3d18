"""One move after the other: what the gate says, then what happens without it."""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.lab import guest as nested
from tests.lab.chain import Chain, migrate
from tests.lab.connection import Result
from tests.lab.errors import LabError
from tests.lab.host import CHECKOUT, Host
from tests.lab.matrix.alive import watch
from tests.lab.matrix.cases import ALL_HOSTS, GUESTS, Case

NAME = "guest"
VGICMGR = ["python3", "-m", "vgicmgr.cli"]
HOOK = "/etc/libvirt/hooks/qemu.d/50-vgicmgr"


@dataclass(frozen=True)
class Outcome:
    """What was said of a move and what came of it."""

    case: Case
    verdict: bool | None
    """The gate's, with the policy that it has by default; None where there is no record and it lets the guest in with
    a warning."""
    reason: str
    arrived: bool
    """It runs there: its console goes on, at the right rate, its MSIs come, and it has the SVE vector lengths that it
    had."""
    error: str
    """The operator's error, and what the destination's QEMU said."""
    copying: bool
    """Whether libvirt let it start to copy memory."""
    seconds: float
    """The hook's."""
    document: bool | None
    """What the documents of guest and destination say; None without a record."""
    document_reason: str
    rate: float | None = None
    """The guest's seconds to one of the destination's, where it runs."""
    msis: int | None = None
    """How many came there meanwhile, where the guest counts them."""
    took: float = 0.0
    """Seconds of the whole move, with the guest's start."""

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
        own = {member.name: members[member.name] for member in fields(cls) if member.name in members}
        return cls(**{**own, "case": Case(**own["case"])})


def run(
    cases: Iterable[Case], show: Callable[[Outcome], None], trouble: Callable[[Case, str], None], jobs: int = 1
) -> None:
    """Carry out all cases, each group of hosts booted once, ``jobs`` groups at a time; ``trouble`` hears of those that
    could not be judged.
    """
    one_at_a_time = threading.Lock()

    def shown(outcome: Outcome) -> None:
        with one_at_a_time:
            show(outcome)

    def troubled(case: Case, error: LabError) -> None:
        with one_at_a_time:
            trouble(case, " ".join(str(error).split())[:400])

    groups = [list(group) for _, group in groupby(sorted(cases, key=_kinds), _kinds)]
    with ThreadPoolExecutor(jobs) as pool:
        # the longest first, so that none is left to the end
        for _ in pool.map(lambda moves: _run_group(moves, shown, troubled), sorted(groups, key=len, reverse=True)):
            pass


def _kinds(case: Case) -> list[str]:
    return sorted(set(case.route))


def _run_group(moves: list[Case], show: Callable[[Outcome], None], trouble: Callable[[Case, LabError], None]) -> None:
    """Carry out the moves between some hosts."""
    kinds = _kinds(moves[0])
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
                    trouble(case, error)
                if not chain.alive:
                    raise LabError("a host is gone")
    except LabError as error:
        for case in moves:
            trouble(case, error)


def document(host: Host) -> Any:
    """The host's capabilities document; None where there is none to be had."""
    result = host.run([*VGICMGR, "check-host", "--format", "json"], timeout=300)
    return json.loads(result.stdout) if result.stdout else None


def move(hosts: Mapping[str, Host], case: Case, documents: Mapping[str, Any]) -> Outcome:
    """Start the guest, ask, migrate, and clean up; ``documents`` are those of the ``hosts``, both by name."""
    began = time.monotonic()
    source, destination = hosts[case.source], hosts[case.destination]
    try:
        start(source, GUESTS[case.guest].xml(NAME))
        unwritten = _write_record(source) if case.record else ""
        if case.via:
            _pass_by(source, hosts[case.via])
            source = hosts[case.via]
        had = _vector_lengths(source)
        record = source.run([*VGICMGR, "record", "show", NAME, "--format", "json"]).stdout if case.record else ""
        destination.run(["sh", "-c", f": >/var/log/libvirt/qemu/{NAME}.log"], check=True)
        attempt = _restore if case.how == "restore" else _migrate
        xml, (verdict, reason, seconds), result, copied = attempt(source, destination)
        error, rate, msis = result.stderr.strip(), None, None
        arrived = result.exit_code == 0 and _runs(destination)
        if arrived:
            life = watch(destination, NAME)
            rate, msis = life.rate, life.msis
            if fault := life.fault or _lost_vectors(had, destination):
                arrived, error = False, f"it runs, but {fault}"
        document_verdict, document_reason = foretell(
            record, xml, documents[case.destination], documents[case.via] if case.via else None
        )
        return Outcome(
            case,
            None if verdict and not case.record else verdict,
            f"{unwritten}{reason}",
            arrived,
            error + _qemu_said(destination),
            copied or _copying(error),
            seconds,
            document_verdict,
            document_reason,
            rate,
            msis,
            time.monotonic() - began,
        )
    finally:
        for host in {hosts[name] for name in case.route}:
            with suppress(LabError):
                host.run(["virsh", "destroy", NAME])
                host.run(["sh", "-c", f"rm -rf /run/vgicmgr /var/lib/libvirt/qemu/{NAME}-vars.fd {SAVED}"])


def _write_record(host: Host) -> str:
    """Have the guest's record written; why there is none, which is no reason not to try the move."""
    result = host.run([*VGICMGR, "record", "write", NAME])
    done = result.exit_code == 0 and "record written" in result.stdout
    return "" if done else f"no record was written: {(result.stderr or result.stdout).strip()}; "


def start(host: Host, xml: str) -> None:
    """Start the guest, and wait until it is up: of one that still boots it could not be told that it goes on."""
    host.push(f"/run/{NAME}.xml", xml)
    host.run(["rm", "-f", nested.log(NAME)])  # what is in it would be taken for this guest's
    host.run(["virsh", "create", f"/run/{NAME}.xml"], check=True, timeout=120)
    nested.wait_until_up(host, NAME)


Said = tuple[bool, str, float]
"""Yes or no, the reason, and the seconds it took."""


def ask(host: Host, operation: str, xml: str) -> Said:
    """The hook's verdict as libvirt would hear it."""
    before = time.monotonic()
    result = host.run(["python3", "-m", "vgicmgr.hook", NAME, operation, "begin", "-"], stdin=xml.encode())
    return result.exit_code == 0, result.stderr.strip(), time.monotonic() - before


def foretell(record: str, xml: str, target: Any, passed: Any = None) -> tuple[bool | None, str]:
    """The verdict that needs no host: what ``check-migration`` says on this machine, of the record, the XML and the
    destination's document, and that of a host which the guest has moved to since its boot.
    """
    if not record or target is None:
        return None, "" if target else "the destination gives no document"
    with tempfile.TemporaryDirectory(prefix="lab-") as name:
        folder = Path(name)
        for file, text in {
            "record.json": record,
            "guest.xml": xml,
            "to.json": json.dumps(target),
            "from.json": json.dumps(passed),
        }.items():
            (folder / file).write_text(text)
        origin = ["--from", "from.json"] if passed else []
        done = subprocess.run(
            [sys.executable, "-m", "vgicmgr.cli", "check-migration", "record.json", "--xml", "guest.xml",
             "--to", "to.json", *origin],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode not in (0, 1):
        return None, done.stderr.strip()
    return done.returncode == 0, "; ".join(done.stdout.splitlines()[:-1])


Attempt = tuple[str, Said, Result, bool]
"""The XML that the hook sees, what it says, what the move comes to, and whether something was copied in any case."""


def _migrate(source: Host, destination: Host) -> Attempt:
    xml = source.run(["virsh", "dumpxml", "--migratable", "--security-info", NAME], check=True).stdout
    said = ask(destination, "migrate", xml)
    return xml, said, migrate(source, destination, NAME), False


SAVED = f"/tmp/{NAME}.save"


def _restore(source: Host, destination: Host) -> Attempt:
    saved = source.run(["virsh", "save", NAME, SAVED], timeout=120)
    if saved.exit_code:
        xml = source.run(["virsh", "dumpxml", "--migratable", "--security-info", NAME], check=True).stdout
        return xml, ask(destination, "restore", xml), saved, False
    xml = source.run(["virsh", "save-image-dumpxml", "--security-info", SAVED], check=True).stdout
    said = ask(destination, "restore", xml)
    _copy(source, destination, SAVED)
    return xml, said, destination.run(["virsh", "restore", SAVED], timeout=120), True


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


def _pass_by(source: Host, via: Host) -> None:
    """Move the guest to a host that has the hook, so that there it gets what a guest gets that arrives."""
    xml = source.run(["virsh", "dumpxml", "--migratable", "--security-info", NAME], check=True).stdout
    # libvirtd, which is not told of it, does not call it
    via.run([*VGICMGR, "hook", "install"], check=True)
    try:
        via.run([HOOK, NAME, "migrate", "begin", "-"], stdin=xml, check=True)
        via.run([HOOK, NAME, "prepare", "begin", "-"], stdin=xml, check=True)
        migrate(source, via, NAME, check=True)
        via.run([*VGICMGR, "record", "write", NAME], check=True)
    finally:
        via.run([*VGICMGR, "hook", "uninstall"])


_VECTORS = range(128, 2049, 128)
_WITH_SVE = ("max", "neoverse-v1", "neoverse-n2", "cortex-a710")


def _vector_lengths(host: Host) -> frozenset[int]:
    """The SVE vector lengths that the guest's vCPU has, as QEMU tells."""
    if host.spec.cpu not in _WITH_SVE:
        return frozenset()

    def asked(*commands: dict[str, Any]) -> list[Any]:
        script = "; ".join(f"qemu-monitor-command {NAME} '{json.dumps(command)}'" for command in commands)
        answers = host.run(["virsh", script], check=True).stdout.splitlines()
        return [json.loads(answer)["return"] for answer in answers if answer.strip()]

    [[cpu, *_]] = asked({"execute": "query-cpus-fast"})
    path = cpu["qom-path"]
    has = asked(*({"execute": "qom-get", "arguments": {"path": path, "property": f"sve{bits}"}} for bits in _VECTORS))
    return frozenset(bits for bits, on in zip(_VECTORS, has, strict=True) if on)


def _lost_vectors(had: frozenset[int], host: Host) -> str:
    """The SVE vector lengths that the guest had and has not any more: QEMU restores no more of a Z register than the
    vCPU here has (target/arm/kvm.c, kvm_arch_put_sve), and says nothing.
    """
    has = _vector_lengths(host) if had else frozenset()
    return f"its vectors are cut to {max(has, default=0)} bits" if had - has else ""


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
