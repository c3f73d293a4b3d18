"""``vgicmgr translate``: what a domain's XML comes to, from the interrupt controller down to the kernel calls."""

import sys
from argparse import Namespace, _SubParsersAction
from typing import TYPE_CHECKING

from vgicmgr.cli.inputs import add_source, read_xml, translate
from vgicmgr.errors import CannotTell

if TYPE_CHECKING:
    from argparse import ArgumentParser

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

    configuration, machine = resolution.configuration, resolution.machine
    gic = None
    if configuration and machine and not resolution.domain.gic_version and not machine.properties.gic_version:
        gic = str(configuration.gic_version)
    return set_interrupts(xml, gic_version=gic, machine_options=resolution.machine_options)


def _libvirt_xml(resolution: "Resolution", xml: bytes) -> str:
    return libvirt_xml(resolution, xml).decode()


def _calls(resolution: "Resolution", _xml: bytes) -> str:
    from vgicmgr.guest.plan import call_plan

    if resolution.configuration is None or resolution.machine is None or not resolution.machine.kvm:
        raise CannotTell("the domain is emulated: QEMU asks no kernel for its interrupt controller", "use type='kvm'")
    return "".join(f"{call}\n" for call in call_plan(resolution.configuration))


_FORMATS = {
    "text": _text,
    "json": _json,
    "qemu-args": _qemu_arguments,
    "libvirt-xml": _libvirt_xml,
    "calls": _calls,
}
