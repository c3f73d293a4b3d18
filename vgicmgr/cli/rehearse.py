"""``vgicmgr rehearse``: whether this host's kernel brings up what a domain's XML comes to, call by call."""

import os
import sys
from argparse import Namespace, _SubParsersAction
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vgicmgr.cli.inputs import add_source, read_xml, resolved
from vgicmgr.errors import CannotTell
from vgicmgr.findings import Verdict

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from vgicmgr.guest.resolve import Resolution
    from vgicmgr.guest.scratch import ScratchVM
    from vgicmgr.host.facts import HostFacts

KIND = "vgicmgr rehearsal"
VERSION = 1
"""Raised when a reader of the former version would misread a document; members may be added without."""

DESCRIPTION = """\
Translate a libvirt domain XML and make the kernel calls that QEMU makes for it on a
throw-away VM: no vCPU runs, no memory is given. Of vCPUs that are made alike, the first
and the last are. Exits 0 when the kernel carries out all calls, 1 when it refuses one or
something stands against the domain before, 2 when the question could not be put.
"""
EXAMPLE = """\
example:
  virsh dumpxml guest | vgicmgr rehearse -
"""


def add_parser(commands: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    from argparse import RawDescriptionHelpFormatter

    parser = commands.add_parser(
        "rehearse",
        help="try on this host's kernel whether a domain's interrupt controller comes up",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add_source(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing, only exit")
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Read, translate, rehearse and print; raises :class:`~vgicmgr.errors.VgicmgrError`."""
    with resolved(read_xml(options), options) as (resolution, host):
        scratch = _rehearse(resolution, host) if resolution.configuration else None
    verdict = Verdict((*resolution.findings, *(scratch.findings if scratch else ())))
    if options.quiet:
        pass
    elif options.format == "json":
        import json

        print(json.dumps(to_document(resolution.domain.name, scratch, verdict), indent=2))
    else:
        sys.stdout.writelines(f"{line}\n" for line in render(scratch, verdict, resolution.domain.current_vcpus))
    return 0 if verdict.ok else 1


def _rehearse(resolution: "Resolution", host: "HostFacts") -> "ScratchVM":
    """The scratch VM, closed again: how the plan went stays in it."""
    from vgicmgr.guest.start import scratch_vm
    from vgicmgr.host.kernel import Kernel

    if resolution.configuration is None or resolution.machine is None or not resolution.machine.kvm:
        raise CannotTell("the domain is emulated: it asks no kernel for its interrupt controller", "use type='kvm'")
    if isinstance(host, Kernel):
        with scratch_vm(resolution.configuration, host) as scratch:
            return scratch
    architecture = os.uname().machine
    if architecture != "aarch64":
        raise CannotTell(f"this host is {architecture}, not aarch64: its KVM knows no GIC", "run it on the KVM host")
    with Kernel() as kernel, scratch_vm(resolution.configuration, kernel) as scratch:
        return scratch


def render(scratch: "ScratchVM | None", verdict: Verdict, vcpus: int) -> Iterator[str]:
    """Lines of text: each call with its outcome, what was found, and the result; the domain has so many ``vcpus``."""
    from vgicmgr.guest.map import printable
    from vgicmgr.guest.plan import CreateVCPU

    if scratch:
        for place, call in enumerate(scratch.plan):
            yield f"{_outcome(scratch, place):9}{call}"
        if left_out := vcpus - len([call for call in scratch.plan if isinstance(call, CreateVCPU)]):
            yield f"{'':9}({left_out} vCPUs more, made in the same way, are left out)"
        yield ""
    for finding in verdict.findings:
        yield f"{finding.severity.value:9}{printable(finding.evidence)} [{finding.name}]"
        yield f"{'':9}remedy: {printable(finding.remedy)}"
    if verdict.ok:
        yield "This host's kernel brings this domain's interrupt controller up."
    else:
        yield "This domain's interrupt controller does not come up on this host."


def to_document(domain: str, scratch: "ScratchVM | None", verdict: Verdict) -> dict[str, Any]:
    """The document, ready for :func:`json.dumps`; ``calls`` is null where the domain has no configuration."""
    return {
        "document": KIND,
        "version": VERSION,
        "domain": domain,
        "ok": verdict.ok,
        "calls": [{"call": str(call), "outcome": _outcome(scratch, place)} for place, call in enumerate(scratch.plan)]
        if scratch
        else None,
        "findings": [finding.as_document() for finding in verdict.findings],
    }


def _outcome(scratch: "ScratchVM", place: int) -> str:
    """``ok``, the errno's name, or ``-`` for a call that was not tried."""
    if place < scratch.succeeded:
        return "ok"
    return scratch.error.errno_name if scratch.error and place == scratch.succeeded else "-"
