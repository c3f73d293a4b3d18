"""``vgicmgr translate``: what a domain's XML comes to, from the interrupt controller down to the kernel calls."""

import sys
from argparse import ArgumentTypeError, Namespace, _SubParsersAction
from pathlib import Path
from typing import TYPE_CHECKING

from vgicmgr.domain.settings import MAX_BYTES
from vgicmgr.errors import CannotTell, VgicmgrError
from vgicmgr.guest.hostfacts import ASSUMED_HOST, HostFacts

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from vgicmgr.qemu.machine import Version
    from vgicmgr.guest.addressmap import AddressMap
    from vgicmgr.guest.resolve import Resolution

DESCRIPTION = """\
Resolve a libvirt domain XML against machine type, QEMU and host into the vGIC
configuration, with who decided what. Exits 0 when there is one, 1 when something stands
against it, 2 when the domain could not be read.
"""
EXAMPLE = """\
example:
  vgicmgr translate guest.xml --format calls
"""


class InputError(VgicmgrError):
    """A file cannot be read."""


def add_parser(commands: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    from argparse import RawDescriptionHelpFormatter

    parser = commands.add_parser(
        "translate",
        help="say what a domain's XML comes to: vGIC configuration, addresses, QEMU's arguments, kernel calls",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add_source(parser)
    parser.add_argument(
        "--format",
        choices=("text", "json", "qemu-args", "libvirt-xml", "calls"),
        default="text",
        help="libvirt-xml: the same domain, with our wishes in what libvirt and QEMU understand; calls: the call plan",
    )
    parser.set_defaults(run=run)


def add_source(parser: "ArgumentParser") -> None:
    """Declare what to read, and against what to resolve it; for the commands that begin with a translation."""
    parser.add_argument("domain", metavar="FILE|-|DOMAIN", help="a domain XML, standard input, or a domain of libvirt")
    parser.add_argument("-c", "--connect", metavar="URI", help="libvirt's connection; then DOMAIN is a domain there")
    add_host(parser)
    parser.add_argument("--map", metavar="FILE", help="another VMM's address map (see vgicmgr(1))")


def add_host(parser: "ArgumentParser") -> None:
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


def run(options: Namespace) -> int:
    """Read, resolve and print; raises :class:`~vgicmgr.errors.VgicmgrError`."""
    if options.map is not None and options.format in ("qemu-args", "libvirt-xml"):
        raise CannotTell("a map file describes another VMM than QEMU, which has no such format", "use --format calls")
    xml = read_xml(options)
    resolution = translate(xml, options)
    if resolution.configuration is None and options.format not in ("text", "json"):
        for finding in resolution.findings:
            print(f"vgicmgr: {finding}", file=sys.stderr)
        return 1
    sys.stdout.write(_FORMATS[options.format](resolution, xml))
    return 0 if resolution.configuration else 1


def translate(xml: bytes, options: Namespace) -> "Resolution":
    """The resolution of a domain XML by these options (those of :func:`add_host`).

    Raises :class:`~vgicmgr.errors.VgicmgrError`.
    """
    from vgicmgr.dataclass import replace
    from vgicmgr.domain.devices import read_devices
    from vgicmgr.domain.metadata import read_wishes
    from vgicmgr.domain.settings import read_domain
    from vgicmgr.guest.resolve import resolve

    local = options.host is None and not is_remote(options.connect or "")
    settings, devices = read_domain(xml), read_devices(xml)
    host = _host(options.host) if options.host or local else ASSUMED_HOST
    if local and devices.host_devices:
        from vgicmgr.vfio.assigned import read_assigned

        host = replace(host, assigned=read_assigned(device.address for device in devices.host_devices))
    return resolve(
        settings,
        read_wishes(xml),
        devices,
        host=host,
        qemu=options.qemu_version
        or (_program_version(settings.emulator) if local and host.asked else None)
        or options.default_qemu,
        address_map=_address_map(options.map),
    )


def read_xml(options: Namespace) -> bytes:
    """The domain XML that is asked for; raises :class:`~vgicmgr.errors.VgicmgrError`."""
    if options.connect is None:
        if options.domain == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        if "/" in options.domain or Path(options.domain).is_file():
            return read_file(options.domain)
    from vgicmgr.domain.connection import connect

    with connect(options.connect or "") as connection:
        options.default_qemu = connection.emulator_version()
        return connection.domain_xml(options.domain)


def read_file(path: str) -> bytes:
    """What is in the file, as far as it is read at all; raises :class:`InputError`."""
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: {why}") from None


def qemu_version(text: str) -> "Version":
    """``10.0`` or ``10.0.13`` as a version."""
    parts = text.split(".")
    if not 2 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts):
        raise ArgumentTypeError(f"not a version such as 10.0: {text!r}")
    return int(parts[0]), int(parts[1])


def _program_version(emulator: str) -> "Version | None":
    """That of a QEMU of this host; None where its program file does not tell."""
    from vgicmgr.qemu.program import version

    try:
        return version(emulator)
    except CannotTell:
        return None


def _host(path: str | None) -> HostFacts:
    """The host of a document, or this one; an assumed one where this machine has no KVM for Arm."""
    if path is not None:
        import json

        from vgicmgr.guest.hostfacts import HostDocumentError, facts_of_document

        try:
            document = json.loads(read_file(path))
        except (ValueError, RecursionError):
            raise HostDocumentError(f"{path}: no JSON document") from None
        return facts_of_document(document)
    from vgicmgr.host.probe import probe_host
    from vgicmgr.guest.hostfacts import host_facts

    try:
        return host_facts(probe_host())
    except CannotTell:
        return ASSUMED_HOST


def is_remote(uri: str) -> bool:
    """Whether a libvirt URI names another host than this one."""
    from urllib.parse import urlsplit

    try:
        return urlsplit(uri).hostname not in (None, "localhost")
    except ValueError:
        return True


def _address_map(path: str | None) -> "AddressMap | None":
    if path is None:
        return None
    from vgicmgr.guest.mapfile import read_address_map

    return read_address_map(read_file(path))


def _text(resolution: "Resolution", _xml: bytes) -> str:
    from vgicmgr.guest.map import render

    return render(resolution)


def _json(resolution: "Resolution", _xml: bytes) -> str:
    import json

    from vgicmgr.guest.document import to_document

    return json.dumps(to_document(resolution), indent=2) + "\n"


def _qemu_arguments(resolution: "Resolution", _xml: bytes) -> str:
    """One option a line, quoted for a shell."""
    import shlex

    from vgicmgr.guest.document import qemu_arguments

    arguments = qemu_arguments(resolution)
    pairs = zip(arguments[::2], arguments[1::2], strict=True)
    return " \\\n".join(f"{option} {shlex.quote(value)}" for option, value in pairs) + "\n"


def libvirt_xml(resolution: "Resolution", xml: bytes) -> bytes:
    """The domain with what its wishes, and libvirt's default, come to; the configuration is there."""
    from vgicmgr.domain.edit import set_interrupts

    configuration = resolution.configuration
    gic = None
    if configuration and not resolution.settings.gic_version and not resolution.properties.gic_version:
        gic = str(configuration.gic_version)
    return set_interrupts(xml, gic_version=gic, machine_options=resolution.machine_options)


def _libvirt_xml(resolution: "Resolution", xml: bytes) -> str:
    return libvirt_xml(resolution, xml).decode()


def _calls(resolution: "Resolution", _xml: bytes) -> str:
    from vgicmgr.guest.plan import call_plan

    if resolution.configuration is None or resolution.settings.virt_type != "kvm":
        raise CannotTell("the domain is emulated: QEMU asks no kernel for its interrupt controller", "use type='kvm'")
    return "".join(f"{call}\n" for call in call_plan(resolution.configuration))


_FORMATS = {
    "text": _text,
    "json": _json,
    "qemu-args": _qemu_arguments,
    "libvirt-xml": _libvirt_xml,
    "calls": _calls,
}
