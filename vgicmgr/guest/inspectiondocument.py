"""An inspection as text for people, and as a JSON document, whose schema lies beside it.

Addresses and sizes are hexadecimal strings in JSON, since its readers lose bits of 64-bit numbers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgicmgr.guest.inspection import Basis, Inspection, Row
from vgicmgr.guest.map import printable

if TYPE_CHECKING:
    from vgicmgr.qemu.devicetree import GuestTree
    from vgicmgr.qemu.running import RunningMachine
    from vgicmgr.qemu.virt import MemoryRegion

KIND = "vgicmgr inspection"
VERSION = 1
"""Raised when a reader of the former version would misread a document; members may be added without."""

SCHEMA = Path(__file__).with_name("inspection.schema.json")


def render(inspection: Inspection) -> str:
    """The whole text, which ends with a newline; ``*`` marks what differs."""
    return "".join(f"{line.rstrip()}\n" for line in _lines(inspection))


def _lines(inspection: Inspection) -> Iterator[str]:
    running = inspection.running
    version = ".".join(map(str, running.qemu))
    yield f"{printable(running.monitor)}: QEMU {version}, {printable(running.status)}"
    yield ""
    told = running.device_tree is not None
    cells = [("", inspection.basis.value, "QEMU", "device tree" if told else ""), *map(_cells, inspection.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    for mark, row in zip((False, *(row.differs for row in inspection.rows)), cells, strict=True):
        columns = "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False))
        yield f"{'*' if mark else ' '} {columns}  {row[3]}"
    yield ""
    if not told:
        yield f"The guest's device tree was not read: {printable(running.no_device_tree)}."
    for finding in inspection.resolution.findings:
        yield f"{finding.severity.value}: {printable(str(finding))}"
    differing = sum(row.differs for row in inspection.rows)
    if inspection.same:
        yield _SAME[inspection.basis]
    elif inspection.resolution.configuration is None:
        yield f"The {inspection.basis.value} come to no configuration, but QEMU runs with one."
    else:
        yield f"{differing} difference{'' if differing == 1 else 's'}, marked with '*'."


_SAME = {
    Basis.DOMAIN_XML: "QEMU has what the domain XML comes to.",
    Basis.QEMU: "QEMU has what its machine's own properties come to; no domain XML was given to compare with.",
}


def _cells(row: Row) -> tuple[str, str, str, str]:
    return (row.subject, *(printable(cell or "") for cell in (row.expected, row.running, row.device_tree)))  # type: ignore[return-value]


def to_document(inspection: Inspection) -> dict[str, Any]:
    """The document, ready for :func:`json.dumps`."""
    running = inspection.running
    return {
        "document": KIND,
        "version": VERSION,
        "domain": inspection.resolution.domain.name if inspection.basis is Basis.DOMAIN_XML else None,
        "monitor": running.monitor,
        "same": inspection.same,
        "compared_with": inspection.basis.value,
        "rows": [
            {
                "subject": row.subject,
                "expected": row.expected,
                "running": row.running,
                "device_tree": row.device_tree,
                "differs": row.differs,
            }
            for row in inspection.rows
        ],
        "findings": [finding.as_document() for finding in inspection.resolution.findings],
        "running": _running(running),
        "device_tree": _tree(running.device_tree) if running.device_tree else None,
        "no_device_tree": running.no_device_tree,
    }


def _running(running: "RunningMachine") -> dict[str, Any]:
    return {
        "qemu": ".".join(map(str, running.qemu)),
        "package": running.package,
        "status": running.status,
        "machine": running.machine,
        "accelerator": running.accelerator,
        "machine_properties": dict(running.properties),
        "memory": hex(running.memory),
        "gic_version": running.gic_version,
        "gic_in_kernel": running.gic_in_kernel,
        "nr_irqs": running.nr_irqs,
        "distributor": _region(running.distributor),
        "cpu_interface": _region(running.cpu_interface),
        "redistributors": [{**_of(region), "count": count} for region, count in running.redistributors],
        "its": _region(running.its),
        "gicv2m": _region(running.gicv2m),
        "vcpus": [dict(vars(vcpu)) for vcpu in running.vcpus],
        "max_vcpus": running.max_vcpus,
        "cpu_properties": dict(running.cpu_properties),
    }


def _tree(tree: "GuestTree") -> dict[str, Any]:
    return {
        "gic_version": tree.gic_version,
        "distributor": hex(tree.distributor),
        "cpu_interface": _hex(tree.cpu_interface),
        "redistributors": [hex(base) for base in tree.redistributors],
        "its": _hex(tree.its),
        "gicv2m": _hex(tree.gicv2m),
        "pmu_intid": tree.pmu_intid,
        "vcpus": tree.vcpus,
    }


def _hex(address: int | None) -> str | None:
    return None if address is None else hex(address)


def _region(region: "MemoryRegion | None") -> dict[str, str] | None:
    return _of(region) if region else None


def _of(region: "MemoryRegion") -> dict[str, str]:
    return {"base": hex(region.base), "size": hex(region.size)}
