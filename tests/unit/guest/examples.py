"""A guest and a host to begin with, and what is asked of a resolution; expectations are in the tests."""

from typing import Any

from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Domain
from vgicmgr.domain.xml import read_domain
from vgicmgr.findings import Severity
from vgicmgr.guest.configuration import Source, VGICConfiguration
from vgicmgr.guest.resolve import Resolution, resolve
from vgicmgr.host.assumed import ASSUMED_HOST, AssumedHost
from vgicmgr.qemu.machine import Version
from vgicmgr.qemu.program import KnownQEMU

GIB = 1 << 30

GUEST = read_domain(
    b"<domain type='kvm'><name>g</name><memory unit='GiB'>1</memory><vcpu>2</vcpu>"
    b"<os><type arch='aarch64' machine='virt-10.0'>hvm</type></os>"
    b"<features><gic version='3'/></features><cpu mode='host-passthrough'/></domain>"
)
EMULATED = replace(GUEST, virt_type="qemu", cpu_mode="custom", cpu_model="cortex-a57")
"""The same under TCG."""
HOST = AssumedHost(
    capabilities={
        "KVM_CAP_ARM_VM_IPA_SIZE": 48,
        "KVM_CAP_ARM_SVE": 1,
        "KVM_CAP_ARM_PTRAUTH_ADDRESS": 1,
        "KVM_CAP_ARM_PTRAUTH_GENERIC": 1,
    },
    sve_vector_lengths=(128, 256, 512),
    name="this host",
    asked=True,
)
"""A host that was asked: both GIC versions, an ITS, a PMU, SVE, pointer authentication, 32-bit EL1."""
PLAIN_HOST = AssumedHost(name="this host", asked=True)
"""The same with neither SVE nor pointer authentication, and 40 bits of guest physical address."""


def guest(**changes: Any) -> Domain:
    """:data:`GUEST` with other settings; ``vcpus`` are all there at boot unless ``current_vcpus`` says otherwise."""
    if "vcpus" in changes:
        changes.setdefault("current_vcpus", changes["vcpus"])
    return replace(GUEST, **changes)


def with_machine(*options: str, **changes: Any) -> Domain:
    """:data:`GUEST` with ``<qemu:arg>`` of ``-machine`` and each of these values."""
    return guest(qemu_arguments=tuple(word for option in options for word in ("-machine", option)), **changes)


def with_arguments(*arguments: str, **changes: Any) -> Domain:
    """:data:`GUEST` with these ``<qemu:arg>``."""
    return guest(qemu_arguments=arguments, **changes)


def host(base: AssumedHost = HOST, **changes: Any) -> AssumedHost:
    """The host with other answers: KVM_CAP_* by their names, the others by those of :class:`AssumedHost`."""
    capabilities = {name: changes.pop(name) for name in list(changes) if name.startswith("KVM_CAP_")}
    return replace(base, capabilities={**base.capabilities, **capabilities}, **changes)


def qemu(*version: int) -> KnownQEMU:
    """A QEMU of which the version is known."""
    return KnownQEMU(version=(version[0], version[1]) if version else None)


def resolved(domain: Domain, on: AssumedHost = HOST, version: Version | None = None, **options: Any) -> Resolution:
    """As :func:`resolve` on a host where QEMU is of this version."""
    return resolve(domain, on, qemu=KnownQEMU(version=version), **options)


def configured(resolution: Resolution) -> VGICConfiguration:
    """The configuration, which must be there."""
    assert resolution.configuration, resolution.findings
    return resolution.configuration


def decided(resolution: Resolution, subject: str) -> tuple[str, Source]:
    """What a subject came to in a configuration, and who decided it."""
    configured(resolution)
    [decision] = [item for item in resolution.decisions if item.subject == subject]
    return decision.value, decision.source


def errors(resolution: Resolution) -> list[str]:
    """The names of errors; without any there is a configuration, and otherwise none."""
    assert (resolution.configuration is None) == (not resolution.verdict.ok), resolution.findings
    return [finding.name for finding in resolution.findings if finding.severity is Severity.ERROR]


def names(resolution: Resolution) -> list[str]:
    """The names of the findings of a domain that has a configuration."""
    configured(resolution)
    return [finding.name for finding in resolution.findings]


__all__ = ["ASSUMED_HOST", "EMULATED", "GIB", "GUEST", "HOST", "PLAIN_HOST", "AssumedHost"]
