"""Records and guests to test with, and hosts to judge them on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hosts import HostKind
from tests.fakes.kernel import FakeKernel, installed, pretend_arm64
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Domain
from vgicmgr.domain.xml import read_domain
from vgicmgr.findings import Finding, Verdict
from vgicmgr.host.document import migration_member, to_document
from vgicmgr.host.documented import DocumentedHost, Program, documented
from vgicmgr.host.kernel import Kernel
from vgicmgr.host.models import probe_models
from vgicmgr.host.probe import probe_host
from vgicmgr.kvm.registers import register_id
from vgicmgr.migration.arrival import judge_arrival
from vgicmgr.migration.record import ABIRecord, RecordKind, to_xml
from vgicmgr.migration.writer import take_record
from vgicmgr.qemu.rules import Rules

RECORD = ABIRecord(
    time="2026-11-21T08:30:00Z",
    kernel="6.12.107+deb13-arm64",
    qemu="10.0.13",
    libvirt="11.3.0",
    machine="virt-10.0",
    vcpus=4,
    features=("KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_PMU_V3"),
    sve=(),
    steal_time=True,
    ipa_bits=48,
    page_size=4096,
    gic_version=3,
    gicd_iidr=0x4B00343B,
    icc_ctlr_el1=0x400,
    gits_iidr=0x4B00043B,
    gits_typer=0x1EF71,
    registers=tuple(
        sorted(
            {
                register_id("MIDR_EL1"): 0x413FD0C1,
                register_id("ID_AA64MMFR1_EL1"): 0x10212122,
                register_id("KVM_REG_ARM_PSCI_VERSION"): 0x10003,
                register_id("CCSIDR_EL1[L1 data]"): 0x701FE00A,
            }.items()
        )
    ),
)
"""Of a guest with a GICv3 and an ITS."""

GICV2_RECORD = replace(
    RECORD, gic_version=2, gicd_iidr=0x4B00243B, icc_ctlr_el1=None, gits_iidr=None, gits_typer=None, vcpus=1
)


def domain_xml(
    *arguments: str,
    machine: str = "virt-10.0",
    memory_gib: int = 1,
    vcpus: int = 4,
    gic: str = "",
    features: str = "",
    cpu: str = "<cpu mode='host-passthrough'/>",
    metadata: str = "",
    emulator: str = "",
) -> bytes:
    """A guest as libvirt hands it over; ``arguments`` are those of <qemu:commandline>."""
    features += f"<gic version='{gic}'/>" if gic else ""
    devices = f"<devices><emulator>{emulator}</emulator></devices>" if emulator else ""
    passed = "".join(f"<qemu:arg value='{argument}'/>" for argument in arguments)
    return (
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>web1</name>"
        f"<metadata>{metadata}</metadata><memory unit='GiB'>{memory_gib}</memory><vcpu>{vcpus}</vcpu>"
        f"<os><type arch='aarch64' machine='{machine}'>hvm</type></os>"
        f"<features>{features}</features>{cpu}{devices}"
        f"<qemu:commandline>{passed}</qemu:commandline></domain>"
    ).encode()


def domain(*arguments: str, **settings: Any) -> Domain:
    """As :func:`domain_xml`, read."""
    return read_domain(domain_xml(*arguments, **settings))


DOMAIN = domain()


def with_record(record: ABIRecord, host: ABIRecord | None = None, **settings: Any) -> bytes:
    """The XML of a guest that has this record, and one of the ``host`` that it has moved to since."""
    metadata = to_xml(record) + (to_xml(host, RecordKind.HOST) if host else "")
    return domain_xml(metadata=metadata, **settings)


@contextmanager
def kernel_of(kind: HostKind | FakeKernel, *, page_size: int = 4096) -> Iterator[Kernel]:
    """The kernel of such a host, asked through a /dev/kvm that keeps to the kernel's rules."""
    with pytest.MonkeyPatch.context() as patch:
        pretend_arm64(patch)
        fake = kind if isinstance(kind, FakeKernel) else FakeKernel(kind)
        with installed(patch, fake):
            with Kernel() as kernel:
                kernel.page_size = page_size
                yield kernel
            assert fake.open_descriptors() == []


def boot(kind: HostKind | FakeKernel, guest: Domain = DOMAIN, *, page_size: int = 4096) -> ABIRecord:
    """The record of a guest that is booted on such a host."""
    with kernel_of(kind, page_size=page_size) as kernel:
        return take_record(guest, kernel, libvirt="11.3.0")


def judge(
    record: ABIRecord, kind: HostKind | FakeKernel, guest: Domain = DOMAIN, *, page_size: int = 4096
) -> tuple[Finding, ...]:
    """What the kernel of such a host says of its arrival."""
    with kernel_of(kind, page_size=page_size) as kernel:
        return judge_arrival(guest, record, kernel).findings


def document_of(kind: HostKind, programs: dict[str, Program] | None = None) -> dict[str, Any]:
    """What ``check-host --format json`` writes on such a host."""
    with kernel_of(kind):
        host = probe_host()
        models = probe_models()
    written = json.dumps({**to_document(host, Verdict()), "migration": migration_member(models, programs or {})})
    document: dict[str, Any] = json.loads(written)
    return document


def documented_host(kind: HostKind, programs: dict[str, Program] | None = None) -> DocumentedHost:
    """Such a host by its document."""
    return documented(document_of(kind, programs))


def emulator(folder: Path, rules: Rules, version: str = "10.0.2") -> str:
    """A program that tells these rules and this version as QEMU's does."""
    path = folder / f"qemu-{rules.value}-{version}"
    text = b"in the incoming stream but unknown on the destination\0" if rules is Rules.TOLERANT else b""
    path.write_bytes(b"\x7fELF\x02\0QEMU emulator version " + version.encode() + b"\0" + text)
    return str(path)
