"""What commands read: domain XML from files, standard input or libvirt, host documents, and the host that is asked."""

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vgicmgr.domain.xml import MAX_BYTES
from vgicmgr.errors import CannotTell, VgicmgrError
from vgicmgr.host.assumed import ASSUMED_HOST

if TYPE_CHECKING:
    from vgicmgr.domain.domain import Domain
    from vgicmgr.guest.addressmap import AddressMap
    from vgicmgr.guest.resolve import Resolution
    from vgicmgr.host.facts import HostFacts
    from vgicmgr.qemu.machine import Version
    from vgicmgr.qemu.program import QEMUFacts

MAX_DOCUMENT_BYTES = 64 << 20
"""The longest JSON document that is read."""


class InputError(VgicmgrError):
    """A file cannot be read."""


def add_source(parser: ArgumentParser) -> None:
    """Declare what to read, and against what to resolve it; for the commands that begin with a translation."""
    add_guest(parser, "domain", "a domain of libvirt, or a file with its XML", (".xml",))
    parser.add_argument("-c", "--connect", metavar="URI", help="libvirt's connection; then DOMAIN is a domain there")
    add_host(parser)
    parser.add_argument("--map", metavar="FILE", help="another VMM's address map (see vgicmgr(1))")


def add_guest(parser: ArgumentParser, name: str, what: str, suffixes: tuple[str, ...]) -> None:
    """Declare the argument that is a file or a domain: which, its form tells, and never what lies in the folder."""
    forms = " or ".join(("with a '/'", *(f"ending in {suffix}" for suffix in suffixes)))
    parser.add_argument(name, metavar="DOMAIN|FILE|-", help=f"{what} ({forms}, or by --file), or standard input")
    parser.add_argument("--file", action="store_true", help="DOMAIN is a file, whatever it is called")
    parser.set_defaults(suffixes=suffixes)


def is_file(name: str, options: Namespace) -> bool:
    """Whether the argument of :func:`add_guest` is a file, or standard input, and not a domain's name."""
    return bool(options.file) or name == "-" or "/" in name or name.endswith(options.suffixes)


def read_input(name: str, most: int = MAX_BYTES) -> bytes:
    """What is in the file or standard input, and no more than one byte over ``most``; raises :class:`InputError`."""
    if name == "-":
        return sys.stdin.buffer.read(most + 1)
    return read_file(name, most)


def add_host(parser: ArgumentParser) -> None:
    """Declare what a domain is resolved against."""
    parser.add_argument(
        "--host",
        metavar="FILE",
        help="resolve for the host that wrote this ('vgicmgr check-host --format json'), not for this one",
    )
    parser.add_argument(
        "--qemu-version",
        type=qemu_version,
        metavar="X.Y",
        help="QEMU's version, where it matters (default: that of the domain's <emulator> on this host)",
    )
    parser.set_defaults(map=None, default_qemu=None)


def translate(xml: bytes, options: Namespace) -> "Resolution":
    """The resolution of a domain XML by the options of :func:`add_host`.

    Raises :class:`~vgicmgr.errors.VgicmgrError`.
    """
    with resolved(xml, options) as (resolution, _):
        return resolution


@contextmanager
def resolved(xml: bytes, options: Namespace) -> "Iterator[tuple[Resolution, HostFacts]]":
    """As :func:`translate`, with the host that was asked still open."""
    from vgicmgr.domain.metadata import read_wishes
    from vgicmgr.domain.xml import read_domain
    from vgicmgr.guest.resolve import resolve

    domain, wishes = read_domain(xml), read_wishes(xml)
    with open_host(options.host, remote=is_remote(options.connect or "")) as host:
        qemu = _qemu(domain, host, options)
        address_map = _address_map(options.map)
        yield resolve(domain, host, wished=wishes, qemu=qemu, address_map=address_map), host


@contextmanager
def open_host(document: str | None, *, remote: bool = False) -> "Iterator[HostFacts]":
    """The host of a document, or this one; an assumed one where the question is not about an arm64 KVM host here.

    Raises :class:`~vgicmgr.errors.VgicmgrError`.
    """
    if document is not None:
        from vgicmgr.host.documented import read_document

        yield read_document(read_file(document, MAX_DOCUMENT_BYTES))
        return
    if remote or os.uname().machine != "aarch64":
        yield ASSUMED_HOST
        return
    from vgicmgr.host.kernel import Kernel

    try:
        kernel = Kernel()
    except CannotTell:
        yield ASSUMED_HOST
        return
    with kernel:
        yield kernel


def read_xml(options: Namespace) -> bytes:
    """The domain XML that is asked for; raises :class:`~vgicmgr.errors.VgicmgrError`."""
    if options.file and options.connect is not None:
        raise InputError("a file is of no connection to libvirt", "give either --connect or --file")
    if options.connect is None and is_file(options.domain, options):
        return read_input(options.domain)
    from vgicmgr.domain.connection import connect

    with connect(options.connect or "") as connection:
        options.default_qemu = connection.emulator_version()
        return connection.domain_xml(options.domain)


def read_file(path: str, most: int = MAX_BYTES) -> bytes:
    """What is in the file, and no more than one byte over ``most``; raises :class:`InputError`."""
    try:
        with Path(path).open("rb") as file:
            return file.read(most + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: {why}") from None


def qemu_version(text: str) -> "Version":
    """``10.0`` or ``10.0.13`` as a version."""
    parts = text.split(".")
    if not 2 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts):
        raise ArgumentTypeError(f"not a version such as 10.0: {text!r}")
    return int(parts[0]), int(parts[1])


def is_remote(uri: str) -> bool:
    """Whether a libvirt URI names another host than this one."""
    from urllib.parse import urlsplit

    try:
        return urlsplit(uri).hostname not in (None, "localhost")
    except ValueError:
        return True


def _qemu(domain: "Domain", host: "HostFacts", options: Namespace) -> "QEMUFacts | None":
    """What the options say of QEMU's version; else what the host says; else libvirt's word."""
    from vgicmgr.qemu.program import KnownQEMU

    if options.qemu_version:
        return KnownQEMU(version=options.qemu_version)
    if options.default_qemu and host.qemu(domain.emulator).version is None:
        return KnownQEMU(version=options.default_qemu)
    return None


def _address_map(path: str | None) -> "AddressMap | None":
    if path is None:
        return None
    from vgicmgr.guest.mapfile import read_address_map

    return read_address_map(read_file(path))
