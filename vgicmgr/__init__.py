"""vgicmgr: judge, before it costs anything, whether an arm64 KVM guest can start or migrate here.

The library behind the command line and the hook; what they print can be had as values::

    import vgicmgr

    host = vgicmgr.probe_host()
    for finding in vgicmgr.judge_host(host).findings:
        print(finding.name, finding.evidence, finding.remedy)

    with open("guest.xml", "rb") as file:
        domain = vgicmgr.read_domain(file.read())
    verdict = vgicmgr.judge_start(domain)

A guest that is to arrive on another host is judged by its ABI record, which a running domain's XML has, and by that
host's document ('vgicmgr check-host --format json')::

    with open("host2.json", "rb") as file:
        verdict = vgicmgr.check_arrival(domain, vgicmgr.read_document(file.read()))

Everything that goes wrong raises a :class:`VgicmgrError`: :class:`CannotTell` where the kernel could not be asked,
:class:`KvmError` or :class:`VfioError` where it refused, :class:`DomainXMLError`, :class:`RecordError` or
:class:`HostDocumentError` where a document cannot be read, :class:`LibvirtError` where libvirt refused,
:class:`MonitorError` where a running QEMU could not be asked.
"""

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.domain.connection import LibvirtError
    from vgicmgr.domain.domain import CpuFeature, Domain
    from vgicmgr.domain.hostdevices import HostDevice
    from vgicmgr.domain.xml import read_domain
    from vgicmgr.errors import (
        CannotTell,
        DomainXMLError,
        HookInstallError,
        HostDocumentError,
        PolicyError,
        RecordError,
        VgicmgrError,
    )
    from vgicmgr.findings import Finding, Severity, Verdict
    from vgicmgr.guest.inspection import Inspection, inspect_machine
    from vgicmgr.guest.start import judge_start
    from vgicmgr.host.capabilities import HostCapabilities
    from vgicmgr.host.document import to_document
    from vgicmgr.host.documented import DocumentedHost, read_document
    from vgicmgr.host.judge import judge_host
    from vgicmgr.host.probe import probe_host
    from vgicmgr.host.qemu import ask_emulators
    from vgicmgr.kvm.errors import KvmError, KvmUnavailable
    from vgicmgr.migration.arrival import check_arrival
    from vgicmgr.qemu.emulator import Emulator, Emulators
    from vgicmgr.qemu.qmp import Monitor, MonitorError, libvirt_monitor, socket_monitor
    from vgicmgr.qemu.running import RunningMachine, ask_domain, ask_running, ask_socket
    from vgicmgr.version import __version__
    from vgicmgr.vfio.errors import VfioError, VfioUnavailable
    from vgicmgr.vfio.inventory import Inventory
    from vgicmgr.vfio.judge import judge_inventory
    from vgicmgr.vfio.probe import probe_inventory

__all__ = [
    "CannotTell",
    "CpuFeature",
    "DocumentedHost",
    "Domain",
    "DomainXMLError",
    "Emulator",
    "Emulators",
    "Finding",
    "HookInstallError",
    "HostCapabilities",
    "HostDevice",
    "HostDocumentError",
    "Inspection",
    "Inventory",
    "KvmError",
    "KvmUnavailable",
    "LibvirtError",
    "Monitor",
    "MonitorError",
    "PolicyError",
    "RecordError",
    "RunningMachine",
    "Severity",
    "Verdict",
    "VfioError",
    "VfioUnavailable",
    "VgicmgrError",
    "__version__",
    "ask_domain",
    "ask_emulators",
    "ask_running",
    "ask_socket",
    "check_arrival",
    "inspect_machine",
    "judge_host",
    "judge_inventory",
    "judge_start",
    "libvirt_monitor",
    "probe_host",
    "probe_inventory",
    "read_document",
    "read_domain",
    "socket_monitor",
    "to_document",
]

_ORIGIN = {
    "vgicmgr.version": ("__version__",),
    "vgicmgr.domain.hostdevices": ("HostDevice",),
    "vgicmgr.domain.domain": ("CpuFeature", "Domain"),
    "vgicmgr.domain.xml": ("read_domain",),
    "vgicmgr.domain.connection": ("LibvirtError",),
    "vgicmgr.errors": (
        "CannotTell",
        "DomainXMLError",
        "HookInstallError",
        "HostDocumentError",
        "PolicyError",
        "RecordError",
        "VgicmgrError",
    ),
    "vgicmgr.findings": ("Finding", "Severity", "Verdict"),
    "vgicmgr.host.capabilities": ("HostCapabilities",),
    "vgicmgr.host.document": ("to_document",),
    "vgicmgr.host.documented": ("DocumentedHost", "read_document"),
    "vgicmgr.host.judge": ("judge_host",),
    "vgicmgr.host.probe": ("probe_host",),
    "vgicmgr.host.qemu": ("ask_emulators",),
    "vgicmgr.kvm.errors": ("KvmError", "KvmUnavailable"),
    "vgicmgr.migration.arrival": ("check_arrival",),
    "vgicmgr.qemu.emulator": ("Emulator", "Emulators"),
    "vgicmgr.qemu.qmp": ("Monitor", "MonitorError", "libvirt_monitor", "socket_monitor"),
    "vgicmgr.qemu.running": ("RunningMachine", "ask_domain", "ask_running", "ask_socket"),
    "vgicmgr.vfio.errors": ("VfioError", "VfioUnavailable"),
    "vgicmgr.vfio.inventory": ("Inventory",),
    "vgicmgr.vfio.judge": ("judge_inventory",),
    "vgicmgr.vfio.probe": ("probe_inventory",),
    "vgicmgr.guest.inspection": ("Inspection", "inspect_machine"),
    "vgicmgr.guest.start": ("judge_start",),
}


def __getattr__(name: str) -> object:
    """Import on first use: the hook imports this package at every start of a domain."""
    from importlib import import_module

    for module, names in _ORIGIN.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
