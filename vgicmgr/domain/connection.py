"""The libvirt connection: reading a domain's XML, and writing what is ours. libvirt-python is imported on first use."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vgicmgr.errors import CannotTell, VgicmgrError

SYSTEM = "qemu:///system"


class LibvirtError(VgicmgrError):
    """libvirt refused: it cannot be reached, has no such domain, or does not take a document."""


class DomainNotRunning(LibvirtError):
    """The domain does not run, or is not there."""


@contextmanager
def connect(uri: str = "", *, read_only: bool = True) -> Iterator["Connection"]:
    """A connection to libvirt; ``uri`` is empty for libvirt's own default.

    Raises :class:`~vgicmgr.errors.CannotTell` without libvirt-python, :class:`LibvirtError` when it cannot be reached.
    """
    try:
        import libvirt
    except ImportError:
        raise CannotTell("libvirt's Python module is missing", "install python3-libvirt (libvirt-python)") from None
    # what libvirt has to say comes as an exception; it need not be on standard error, too
    libvirt.registerErrorHandler(_silent, None)
    with refusals("libvirt cannot be reached"):
        raw = libvirt.openReadOnly(uri or None) if read_only else libvirt.open(uri or None)
    try:
        yield Connection(raw, read_only=read_only)
    finally:
        raw.close()


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Within it, libvirt's errors become :class:`LibvirtError`: ``what``, and libvirt's own words."""
    import libvirt

    try:
        yield
    except libvirt.libvirtError as error:
        raise LibvirtError(f"{what}: {' '.join(str(error).split())[:500]}") from None


class Connection:
    """An open connection; made by :func:`connect`."""

    def __init__(self, raw: Any, *, read_only: bool) -> None:
        self._raw, self._read_only = raw, read_only

    def domain_xml(self, name: str, *, persistent: bool = False) -> bytes:
        """A domain's XML, by its name or UUID: of the running domain, or with ``persistent`` of the next start.

        Raises :class:`LibvirtError`, also where a persistent one is asked for and the domain is transient.
        """
        import libvirt

        flags = libvirt.VIR_DOMAIN_XML_INACTIVE if persistent else 0
        with refusals(f"domain '{name}'"):
            domain = self._domain(name)
            if persistent and not domain.isPersistent():
                raise LibvirtError(f"domain '{name}' is transient: it has no definition to change", "define it first")
            # what is secret (passwords) is only told to who may write, and must not be lost by redefining
            if not self._read_only:
                flags |= libvirt.VIR_DOMAIN_XML_SECURE
            xml: str = domain.XMLDesc(flags)
        return xml.encode()

    def running_domain(self, name: str) -> Any:
        """A running domain (libvirt's ``virDomain``), by its name or UUID.

        Raises :class:`DomainNotRunning` and, for other reasons, :class:`LibvirtError`.
        """
        import libvirt

        with refusals(f"domain '{name}'"):
            try:
                domain = self._domain(name)
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    raise DomainNotRunning(f"domain '{name}': {' '.join(str(error).split())[:500]}") from None
                raise
            active = domain.isActive()
        if not active:
            raise DomainNotRunning(f"domain '{name}' does not run", "start it first")
        return domain

    def running_domains(self) -> "list[Any]":
        """All that run (libvirt's ``virDomain``); raises :class:`LibvirtError`."""
        import libvirt

        with refusals("the running domains"):
            domains: list[Any] = self._raw.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        return domains

    def running_xml(self, name: str) -> bytes:
        """A running domain's XML without what is secret in it; raises :class:`LibvirtError`."""
        domain = self.running_domain(name)
        with refusals(f"domain '{name}'"):
            xml: str = domain.XMLDesc(0)
        return xml.encode()

    def domain_names(self) -> tuple[str, ...]:
        """Of all domains, running or not, in order; raises :class:`LibvirtError`."""
        with refusals("the domains cannot be listed"):
            return tuple(sorted(domain.name() for domain in self._raw.listAllDomains(0)))

    def has_managed_save(self, name: str) -> bool:
        """Whether the domain is saved, and will be restored when it is started; raises :class:`LibvirtError`."""
        with refusals(f"domain '{name}'"):
            return bool(self._domain(name).hasManagedSaveImage(0))

    def managed_save_xml(self, name: str) -> bytes:
        """The domain XML in a domain's managed save, without what is secret in it; raises :class:`LibvirtError`."""
        with refusals(f"the managed save of domain '{name}'"):
            xml: str = self._domain(name).managedSaveGetXMLDesc(0)
        return xml.encode()

    def saved_image_xml(self, path: str) -> bytes:
        """The same in the file of a saved guest, which libvirt opens: on its host, and not for who may only read.

        (libvirt, ``src/libvirt-domain.c``, virDomainSaveImageGetXMLDesc.) Raises :class:`LibvirtError`.
        """
        with refusals(f"saved image '{path}'"):
            xml: str = self._raw.saveImageGetXMLDesc(path, 0)
        return xml.encode()

    def snapshot_names(self, name: str) -> tuple[str, ...]:
        """Of a domain's snapshots, in order; raises :class:`LibvirtError`."""
        with refusals(f"the snapshots of domain '{name}'"):
            return tuple(sorted(snapshot.getName() for snapshot in self._domain(name).listAllSnapshots(0)))

    def snapshot_xml(self, name: str, snapshot: str) -> bytes:
        """The ``<domainsnapshot>`` of one of them, without what is secret in it; raises :class:`LibvirtError`."""
        with refusals(f"snapshot '{snapshot}' of domain '{name}'"):
            xml: str = self._domain(name).snapshotLookupByName(snapshot, 0).getXMLDesc(0)
        return xml.encode()

    def define(self, xml: bytes) -> None:
        """Define, or redefine, the persistent domain that this XML describes; raises :class:`LibvirtError`."""
        import libvirt

        with refusals("libvirt does not take the domain"):
            self._raw.defineXMLFlags(xml.decode(), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)

    def emulator_version(self) -> tuple[int, int] | None:
        """Major and minor version of the connection's default QEMU; None where it does not tell."""
        try:
            with refusals("QEMU's version"):
                number: int = self._raw.getVersion()
        except LibvirtError:
            return None
        return number // 1_000_000, number // 1_000 % 1_000

    def libvirt_version(self) -> str:
        """The version of libvirt, as ``11.3.0``; raises :class:`LibvirtError`."""
        with refusals("libvirt's version"):
            return _dotted(self._raw.getLibVersion())

    def _domain(self, name: str) -> Any:
        import libvirt

        try:
            return self._raw.lookupByName(name)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            try:
                return self._raw.lookupByUUIDString(name)
            except libvirt.libvirtError:
                raise error from None


def _silent(_context: object, _error: object) -> None:
    pass


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
