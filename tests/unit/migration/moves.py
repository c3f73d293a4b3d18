"""A guest booted on one kind of host and put to another: both are the shared fake kernel, asked as real ones are."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.hosts import HostKind
from tests.fakes.kernel import FakeKernel, installed, pretend_arm64
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Domain
from vgicmgr.domain.xml import read_domain
from vgicmgr.findings import Finding
from vgicmgr.host.document import migration_member, to_document
from vgicmgr.host.documented import DocumentedHost, Program, read_document
from vgicmgr.host.judge import judge_host
from vgicmgr.host.kernel import Kernel
from vgicmgr.host.models import probe_system_models
from vgicmgr.host.probe import probe_system
from vgicmgr.kvm.system import System
from vgicmgr.migration.arrival import judge_arrival
from vgicmgr.migration.record import ABIRecord
from vgicmgr.migration.writer import take_record
from vgicmgr.qemu.rules import Rules

XML = """
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>g</name><memory unit='GiB'>1</memory><vcpu>{vcpus}</vcpu>
  <os><type arch='aarch64' machine='virt-10.0'>hvm</type></os>
  <features>{features}<gic version='3'/></features>
  <cpu mode='host-passthrough'/>
  <qemu:commandline>{arguments}</qemu:commandline>
</domain>
"""


def guest(*arguments: str, features: str = "", vcpus: int = 2) -> Domain:
    """A guest with further ``arguments`` for QEMU and further elements in ``<features>``."""
    words = "".join(f"<qemu:arg value='{argument}'/>" for argument in arguments)
    return read_domain(XML.format(vcpus=vcpus, features=features, arguments=words).encode())


def names(findings: tuple[Finding, ...]) -> list[str]:
    """Of all findings, in their order."""
    return [finding.name for finding in findings]


_DOCUMENTS: dict[int, tuple[HostKind, bytes]] = {}


class Hosts:
    """Hosts to boot a guest on and to put it to; their pages have as many KiB as is said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        pretend_arm64(monkeypatch)

    def boot(self, domain: Domain, host: HostKind, *, pages: int = 4) -> ABIRecord:
        """The record of a guest that was booted there."""
        return self.record(domain, FakeKernel(host), pages=pages)

    def record(self, domain: Domain, kernel: FakeKernel, *, pages: int = 4) -> ABIRecord:
        """As :meth:`boot`, on a kernel that can be asked afterwards."""
        with self._on(kernel, pages), Kernel() as host:
            return take_record(domain, host, libvirt="11.3.0")

    def arrive(
        self, domain: Domain, record: ABIRecord, host: "HostKind | FakeKernel", *, pages: int = 4
    ) -> tuple[Finding, ...]:
        """What the hook there finds."""
        kernel = host if isinstance(host, FakeKernel) else FakeKernel(host)
        with self._on(kernel, pages), Kernel() as here:
            return judge_arrival(domain, record, here).findings

    def document(self, host: HostKind, *, pages: int = 4) -> DocumentedHost:
        """What ``check-host`` writes there; each host is probed once, which takes its time."""
        there = read_document(self.written(host))
        machine = replace(there.capabilities.machine, page_size=pages << 10)
        return replace(there, capabilities=replace(there.capabilities, machine=machine))

    def written(self, host: HostKind) -> bytes:
        """The document's text."""
        if id(host) not in _DOCUMENTS:
            _DOCUMENTS[id(host)] = (host, self._probe(host))
        return _DOCUMENTS[id(host)][1]

    def _probe(self, host: HostKind) -> bytes:
        with self._on(FakeKernel(host), 4), System() as system:
            capabilities, models = probe_system(system), probe_system_models(system)
        programs = {"/usr/bin/qemu-system-aarch64": Program((10, 0), Rules.CLASSIC, psci_property=False)}
        written = to_document(capabilities, judge_host(capabilities))
        return json.dumps({**written, "migration": migration_member(models, programs)}).encode()

    @contextmanager
    def _on(self, kernel: FakeKernel, pages: int) -> Iterator[None]:
        asked = os.sysconf
        with installed(self._monkeypatch, kernel), self._monkeypatch.context() as patch:
            patch.setattr(os, "sysconf", lambda name: pages << 10 if name == "SC_PAGE_SIZE" else asked(name))
            yield


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """To be imported by who uses it."""
    return Hosts(monkeypatch)
