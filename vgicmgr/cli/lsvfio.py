"""``vgicmgr lsvfio``: the devices that are assigned to guests or could be."""

import sys
from argparse import Namespace, _SubParsersAction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser


def add_parser(commands: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "lsvfio",
        help="list the devices that are assigned to guests or could be",
        description="List the PCI and platform devices that are bound to VFIO or could be: IOMMU group, whether it is "
        "viable, driver, reset, regions, interrupts, MSI-X table, migration. A device that somebody uses is shown as "
        "such and left alone; one bound to VFIO that nobody uses is opened to be asked, at which the kernel resets it. "
        "Without root it shows what sysfs does, and says what it could not read. Exits 0, or 2 when there is no such "
        "device.",
    )
    parser.add_argument("device", nargs="*", metavar="DEVICE", help="only these, as named in sysfs: 0000:00:05.0")
    parser.add_argument("-v", "--verbose", action="store_true", help="also the regions and interrupts one by one")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: a document with a schema")
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Probe, judge and print; raises :class:`~vgicmgr.errors.CannotTell`."""
    from vgicmgr.vfio.judge import judge_inventory
    from vgicmgr.vfio.probe import probe_inventory

    inventory = probe_inventory(tuple(options.device))
    verdict = judge_inventory(inventory)
    if options.format == "json":
        import json

        from vgicmgr.vfio.document import to_document

        print(json.dumps(to_document(inventory, verdict), indent=2))
    else:
        from vgicmgr.vfio.report import render

        sys.stdout.write(render(inventory, verdict, verbose=options.verbose))
    return 0
