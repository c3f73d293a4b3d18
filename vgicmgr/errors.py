"""The exceptions of vgicmgr.

::

    VgicmgrError               anything this package raises on purpose
     ├── CannotTell            the question could not be put (no /dev/kvm, no permission, not arm64)
     │    └── qemu.qmp.MonitorError    a running QEMU could not be asked (vgicmgr.qemu.qmp)
     ├── DomainXMLError        a domain XML that cannot be read
     ├── PolicyError           a policy file that cannot be read
     ├── RecordError           an ABI record that cannot be read, or not be written
     ├── HostDocumentError     a host capabilities document that cannot be read, or says too little
     ├── domain.LibvirtError   libvirt refused (vgicmgr.domain.connection)
     ├── HookInstallError      the hook cannot be put in place or taken away
     └── kvm.KvmError          an ioctl refused by the kernel (vgicmgr.kvm.errors)

Each carries what was tried, on what, and what it means; where there is something to do about it, ``remedy`` says so.
At the edge (command line, hook) it becomes one line and an exit code.
"""


class VgicmgrError(Exception):
    """Base of everything this package raises on purpose.

    ``message`` is one line that stands by itself; ``remedy`` is what to do, or empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


def fault(error: Exception) -> str:
    """A fault of this program in words: what and where, but not its message, which may quote what was read."""
    where = error.__traceback__
    while where and where.tb_next:
        where = where.tb_next
    place = f" in {where.tb_frame.f_globals.get('__name__')} line {where.tb_lineno}" if where else ""
    return f"vgicmgr itself failed ({type(error).__name__}{place})"


class CannotTell(VgicmgrError):
    """The question could not be put to a kernel at all, so there is neither a yes nor a no."""


class DomainXMLError(VgicmgrError):
    """A domain XML is malformed, too large, or uses what a domain XML never needs (a DTD, entities)."""


class PolicyError(VgicmgrError):
    """The policy file cannot be read or says something unknown."""


class HookInstallError(VgicmgrError):
    """The hook cannot be put in place, found or taken away."""


class RecordError(VgicmgrError):
    """A guest's ABI record is damaged, from a newer version or made up; or it cannot be written."""


class HostDocumentError(VgicmgrError):
    """A host capabilities document cannot be read, or does not say what is asked of it."""
