"""``vgicmgr inspect``: what a running guest's QEMU really configured, beside what its domain XML comes to."""

import sys
from argparse import Namespace, _SubParsersAction
from typing import TYPE_CHECKING

from vgicmgr.cli.inputs import read_input, translate
from vgicmgr.errors import CannotTell

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from vgicmgr.qemu.running import RunningMachine

DESCRIPTION = """\
Ask a running guest's QEMU what it really configured: GIC, ITS, addresses, PMU interrupt,
vCPUs; and show it beside what 'translate' makes of the domain's XML, and what the device
tree tells the guest. Through libvirt (DOMAIN), whose monitor passthrough marks the domain
as tainted; or by a QMP socket of any QEMU (--qmp), with a domain XML or without. Exits 0
when all is the same, 1 when something differs (marked '*'), 2 when it could not be asked.
"""
EXAMPLE = """\
example:
  vgicmgr inspect --qmp /run/guest.qmp guest.xml
"""


def add_parser(commands: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    from argparse import RawDescriptionHelpFormatter

    parser = commands.add_parser(
        "inspect",
        help="ask a running guest's QEMU what it really configured, and compare",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "domain", metavar="DOMAIN", nargs="?", help="a running domain; with --qmp, a domain XML ('-': standard input)"
    )
    parser.add_argument("-c", "--connect", metavar="URI", help="libvirt's connection")
    parser.add_argument("--qmp", metavar="SOCKET", help="ask this monitor: a UNIX socket's path, or HOST:PORT")
    parser.add_argument(
        "--host", metavar="FILE", help="the host it runs on ('vgicmgr check-host --format json'), if it is not this one"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: a document with a schema")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing, only exit")
    parser.set_defaults(run=run, map=None, qemu_version=None, default_qemu=None)


def run(options: Namespace) -> int:
    """Ask, translate, compare and print; raises :class:`~vgicmgr.errors.VgicmgrError`."""
    from vgicmgr.guest.inspection import Basis, domain_of, inspect_running

    if options.qmp is None:
        running, xml = _ask_libvirt(options)
    else:
        from vgicmgr.qemu.qmp import is_path
        from vgicmgr.qemu.running import ask_socket

        xml = read_input(options.domain) if options.domain else b""
        running = ask_socket(options.qmp)
        if not is_path(options.qmp):
            options.connect = f"qemu+tcp://{options.qmp}/"  # whose host this is, 'translate' tells by that
    # the QEMU that runs knows its version better than who asks or libvirt do
    options.qemu_version = running.version
    basis = Basis.DOMAIN_XML if xml else Basis.QEMU
    inspection = inspect_running(running, translate(xml or domain_of(running), options), basis)
    if options.quiet:
        pass
    elif options.format == "json":
        import json

        from vgicmgr.guest.inspectiondocument import to_document

        print(json.dumps(to_document(inspection), indent=2))
    else:
        from vgicmgr.guest.inspectiondocument import render

        sys.stdout.write(render(inspection))
    return 0 if inspection.same else 1


def _ask_libvirt(options: Namespace) -> "tuple[RunningMachine, bytes]":
    from vgicmgr.domain.connection import connect
    from vgicmgr.qemu.running import ask_domain

    if options.domain is None:
        raise CannotTell("nothing to ask", "name a running domain, or a monitor by --qmp SOCKET")
    with connect(options.connect or "", read_only=False) as connection:
        domain = connection.running_domain(options.domain)
        if not options.quiet:
            print(
                f"vgicmgr: asking through libvirt's monitor passthrough: it marks domain '{options.domain}' as tainted "
                "(custom-monitor)",
                file=sys.stderr,
            )
        # first what has a bound: libvirt may have to ask a QEMU that hangs for its XML, too
        running = ask_domain(domain)
        return running, connection.domain_xml(options.domain)
