"""Where the events come from: libvirt, the journal, the logs that libvirt keeps of its guests. The edge.

Each source has a thread that puts what it hears into one queue; all end with the process.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from vgicmgr.domain.domain import Domain
from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import CannotTell, VgicmgrError
from vgicmgr.findings import Verdict
from vgicmgr.policy import read_policy
from vgicmgr.watch.events import (
    Connected,
    Decision,
    Event,
    Lifecycle,
    Lost,
    last_words,
    read_journal_entry,
    shown,
)

RETRY_SECONDS = 1.0
_KEEPALIVE_SECONDS, _KEEPALIVE_MISSES = 5, 3
_LOGS = "/var/log/libvirt/qemu"
_LOG_BYTES = 1 << 16

Events = SimpleQueue[Event]


class Libvirt:
    """libvirt on this host, over and over again: what it says goes into ``events``.

    Raises :class:`~vgicmgr.errors.CannotTell` where it cannot be reached the first time.
    """

    def __init__(self, uri: str, events: Events) -> None:
        try:
            import libvirt
        except ImportError:
            raise CannotTell("libvirt's Python module is missing", "install python3-libvirt (libvirt-python)") from None
        self._libvirt, self._asked_uri, self._events = libvirt, uri, events
        libvirt.registerErrorHandler(lambda *_: None, None)
        libvirt.virEventRegisterDefaultImpl()
        _start(self._run_loop)
        self._connection, self._lost = self._connect()
        _start(self._keep)

    def xml(self, guest: str) -> bytes | None:
        """A running guest's domain XML; None where there is none."""
        with suppress(self._libvirt.libvirtError):
            for domain in self._active(self._connection):
                if shown(domain.name()) == guest:
                    return str(domain.XMLDesc()).encode()
        return None

    def active(self, guest: str) -> bool | None:
        """Whether it runs, or is about to; None where libvirt cannot be asked."""
        try:
            return guest in {shown(domain.name()) for domain in self._active(self._connection)}
        except self._libvirt.libvirtError:
            return None

    def complaint(self, guest: str) -> str:
        """QEMU's last words on a guest, where its log can be read."""
        if self.uri != "qemu:///system" or "/" in guest:
            return ""
        try:
            with Path(_LOGS, f"{guest}.log").open("rb") as log:
                log.seek(max(os.fstat(log.fileno()).st_size - _LOG_BYTES, 0))
                return "".join(c if c.isprintable() else "?" for c in last_words(log.read().decode(errors="replace")))
        except OSError:
            return ""

    def _active(self, connection: Any) -> list[Any]:
        domains: list[Any] = connection.listAllDomains(self._libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        return domains

    def _connect(self) -> tuple[Any, threading.Event]:
        libvirt, lost = self._libvirt, threading.Event()
        try:
            connection = libvirt.openReadOnly(self._asked_uri or None)
        except libvirt.libvirtError as error:
            raise CannotTell(f"libvirt cannot be reached: {' '.join(str(error).split())}") from None
        try:
            self.uri = str(connection.getURI())
            if self.uri.split("://", 1)[-1].partition("/")[0]:
                raise CannotTell(f"{self.uri} is another host's libvirt", "run vgicmgr watch on that host")
            connection.registerCloseCallback(lambda *_: lost.set(), None)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None)
            connection.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_MISSES)
            names = sorted(shown(domain.name()) for domain in self._active(connection))
            self._events.put(Connected(time.time(), tuple(names)))
        except libvirt.libvirtError as error:
            connection.close()
            raise CannotTell(f"libvirt went away: {' '.join(str(error).split())}") from None
        except BaseException:
            connection.close()
            raise
        return connection, lost

    def _keep(self) -> None:
        while True:
            self._lost.wait()
            self._events.put(Lost(time.time()))
            with suppress(self._libvirt.libvirtError):
                self._connection.close()
            while self._lost.is_set():
                time.sleep(RETRY_SECONDS)
                with suppress(CannotTell):
                    self._connection, self._lost = self._connect()

    def _run_loop(self) -> None:
        while True:
            self._libvirt.virEventRunDefaultImpl()

    def _on_lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _: object) -> None:
        self._events.put(Lifecycle(time.time(), shown(domain.name()), event, detail))


@contextmanager
def journal(events: Events) -> Iterator[bool]:
    """The hook's decisions, as they are logged, go into ``events``; false where this host has no journal to follow."""
    program = shutil.which("journalctl")
    if program is None:
        yield False
        return
    with subprocess.Popen(
        # other users can log under this name, but not with this user's id
        [program, "--follow", "--lines=0", "--output=json", "--identifier=vgicmgr", f"_UID={os.geteuid()}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # the terminal's SIGINT is not meant for it
    ) as process:

        def read() -> None:
            for entry in process.stdout or ():
                if decision := read_journal_entry(entry):
                    events.put(decision)

        reader = _start(read)
        try:
            yield True
        finally:
            process.kill()
            reader.join(RETRY_SECONDS)


def rejudge(guest: str, xml: bytes, operation: str) -> Decision | None:
    """What the hook would decide; None about a guest that it has nothing to decide of."""
    try:
        domain = read_domain(xml)
        if not domain.needs_gic:
            return None
        decided = read_policy().decide(_judge(domain, operation))
    except VgicmgrError as error:
        return Decision(time.time(), guest, operation, "not-judged", (), str(error), anew=True)
    findings = decided.refused or decided.warned
    word = "refused" if decided.refused else "warned" if decided.warned else "passed"
    names = tuple(finding.name for finding in findings)
    return Decision(time.time(), guest, operation, word, names, "; ".join(map(str, findings)), anew=True)


def _judge(domain: Domain, operation: str) -> Verdict:
    if operation == "prepare":
        from vgicmgr.guest.start import judge_start

        return judge_start(domain)
    from vgicmgr.migration.arrival import judge_incoming

    return judge_incoming(domain)


def _start(run: Any) -> threading.Thread:
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread
