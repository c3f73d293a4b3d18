"""vgicmgr: judge, before it costs anything, whether an arm64 KVM guest can start or migrate here.

The library behind the command line and the hook; what they print can be had as values::

    import vgicmgr

    host = vgicmgr.probe_host()
    for finding in vgicmgr.judge_host(host).findings:
        print(finding.name, finding.evidence, finding.remedy)

    with open("guest.xml", "rb") as file:
        verdict = vgicmgr.judge_start(vgicmgr.read_domain(file.read()))

Everything that goes wrong raises a :class:`VgicmgrError`: :class:`CannotTell` where the kernel could not be asked,
:class:`KvmError` where it refused, :class:`DomainXMLError` where a document cannot be read.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vgicmgr.domain.settings import CpuFeature, DomainSettings, read_domain
    from vgicmgr.errors import CannotTell, DomainXMLError, HookInstallError, PolicyError, VgicmgrError
    from vgicmgr.findings import Finding, Severity, Verdict
    from vgicmgr.host.capabilities import HostCapabilities
    from vgicmgr.host.document import to_document
    from vgicmgr.host.judge import judge_host
    from vgicmgr.host.probe import probe_host
    from vgicmgr.kvm.errors import KvmError, KvmUnavailable
    from vgicmgr.vgic.start import judge_start

__all__ = [
    "CannotTell",
    "CpuFeature",
    "DomainSettings",
    "DomainXMLError",
    "Finding",
    "HookInstallError",
    "HostCapabilities",
    "KvmError",
    "KvmUnavailable",
    "PolicyError",
    "Severity",
    "Verdict",
    "VgicmgrError",
    "judge_host",
    "judge_start",
    "probe_host",
    "read_domain",
    "to_document",
]

_ORIGIN = {
    "vgicmgr.domain.settings": ("CpuFeature", "DomainSettings", "read_domain"),
    "vgicmgr.errors": ("CannotTell", "DomainXMLError", "HookInstallError", "PolicyError", "VgicmgrError"),
    "vgicmgr.findings": ("Finding", "Severity", "Verdict"),
    "vgicmgr.host.capabilities": ("HostCapabilities",),
    "vgicmgr.host.document": ("to_document",),
    "vgicmgr.host.judge": ("judge_host",),
    "vgicmgr.host.probe": ("probe_host",),
    "vgicmgr.kvm.errors": ("KvmError", "KvmUnavailable"),
    "vgicmgr.vgic.start": ("judge_start",),
}


def __getattr__(name: str) -> object:
    """Import on first use: the hook imports this package at every start of a domain."""
    from importlib import import_module

    for module, names in _ORIGIN.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
