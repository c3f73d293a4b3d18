"""The libvirt connection: reading a domain's XML, and redefining a domain. libvirt-python is imported on first use."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vgicmgr.errors import CannotTell, VgicmgrError


class LibvirtError(VgicmgrError):
    """libvirt refused: it cannot be reached, has no such domain, or does not take a document."""


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
    try:
        raw = libvirt.openReadOnly(uri or None) if read_only else libvirt.open(uri or None)
    except libvirt.libvirtError as error:
        raise LibvirtError(f"libvirt cannot be reached: {_said(error)}") from None
    try:
        yield Connection(raw, read_only=read_only)
    finally:
        raw.close()


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
        try:
            domain = self._domain(name)
            if persistent and not domain.isPersistent():
                raise LibvirtError(f"domain '{name}' is transient: it has no definition to change", "define it first")
            # what is secret (passwords) is only told to who may write, and must not be lost by redefining
            if not self._read_only:
                flags |= libvirt.VIR_DOMAIN_XML_SECURE
            xml: str = domain.XMLDesc(flags)
        except libvirt.libvirtError as error:
            raise LibvirtError(f"domain '{name}': {_said(error)}") from None
        return xml.encode()

    def running_domain(self, name: str) -> Any:
        """A running domain (libvirt's ``virDomain``), by its name or UUID; raises :class:`LibvirtError`."""
        import libvirt

        try:
            domain = self._domain(name)
            active = domain.isActive()
        except libvirt.libvirtError as error:
            raise LibvirtError(f"domain '{name}': {_said(error)}") from None
        if not active:
            raise LibvirtError(f"domain '{name}' does not run", "start it first")
        return domain

    def define(self, xml: bytes) -> None:
        """Define, or redefine, the persistent domain that this XML describes; raises :class:`LibvirtError`."""
        import libvirt

        try:
            self._raw.defineXMLFlags(xml.decode(), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        except libvirt.libvirtError as error:
            raise LibvirtError(f"libvirt does not take the domain: {_said(error)}") from None

    def emulator_version(self) -> tuple[int, int] | None:
        """Major and minor version of the connection's default QEMU; None where it does not tell."""
        import libvirt

        try:
            number: int = self._raw.getVersion()
        except libvirt.libvirtError:
            return None
        return number // 1_000_000, number // 1_000 % 1_000

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


def _said(error: Any) -> str:
    return " ".join(str(error).split())[:500]
