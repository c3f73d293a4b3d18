"""The host capabilities document: what becomes its JSON; its JSON Schema lies beside, ``capabilities.schema.json``.

Registers and register-like numbers are hexadecimal strings, since JSON readers lose bits of 64-bit numbers.
"""

from pathlib import Path
from typing import Any

from vgicmgr.findings import Verdict
from vgicmgr.host.capabilities import GICv2, GICv3, HostCapabilities

KIND = "vgicmgr host capabilities"
VERSION = 1
"""Raised when a reader of the former version would misread a document; members may be added without."""

SCHEMA = Path(__file__).with_name("capabilities.schema.json")


def to_document(host: HostCapabilities, verdict: Verdict) -> dict[str, Any]:
    """The document, ready for :func:`json.dumps`: the capabilities, and what was found in judging them."""
    return {
        "document": KIND,
        "version": VERSION,
        "host": {
            "architecture": host.machine.architecture,
            "kernel": host.machine.kernel,
            "page_size": host.machine.page_size,
            "core_types": [{"midr_el1": hex(core.midr), "cpus": list(core.cpus)} for core in host.machine.core_types],
        },
        "kvm": {
            "api_version": host.api_version,
            "mode": host.log.mode,
            "ipa_bits": host.ipa_bits,
            "capabilities": dict(sorted(host.capabilities.items())),
        },
        "gic": {
            "versions": list(host.gic_versions),
            "direct_injection": {"gicv4": host.log.gicv4_version, "enabled": host.log.gicv4},
            "v2": _gic_members(host.gicv2) if host.gicv2 else None,
            "v3": {
                **_gic_members(host.gicv3),
                "icc_ctlr_el1": hex(host.gicv3.icc_ctlr_el1),
                "redistributor_regions": host.gicv3.redistributor_regions,
                "line_level": host.gicv3.line_level,
                "save_pending_tables": host.gicv3.save_pending_tables,
            }
            if host.gicv3
            else None,
        },
        "its": {
            "gits_iidr": hex(host.its.gits_iidr),
            "abi_revisions": list(host.its.abi_revisions),
            "gits_typer": hex(host.its.gits_typer),
            "registers": host.its.registers,
            "save_tables": host.its.save_tables,
            "restore_tables": host.its.restore_tables,
            "reset": host.its.reset,
            "msi_devid": host.its.msi_devid,
        }
        if host.its
        else None,
        "pmu": {
            "interrupt": host.pmu.interrupt,
            "filter": host.pmu.filter,
            "choice": host.pmu.choice,
            "counter_limit": host.pmu.counter_limit,
            "counters": host.pmu.counters,
        }
        if host.pmu
        else None,
        "vcpu": {
            "features": list(host.vcpu.features),
            "sve_vector_lengths": list(host.vcpu.sve_vector_lengths),
            "steal_time": host.vcpu.steal_time,
            "firmware_registers": {name: hex(value) for name, value in host.vcpu.firmware},
            "listed_registers": host.vcpu.listed_registers,
            "migrated_registers": host.vcpu.migrated_registers,
        }
        if host.vcpu
        else None,
        **({"qemu": host.qemu.to_document()} if host.qemu else {}),
        "unanswered": list(host.unanswered),
        "findings": [finding.as_document() for finding in verdict.findings],
    }


def _gic_members(gic: GICv2 | GICv3) -> dict[str, Any]:
    return {
        "max_vcpus": gic.max_vcpus,
        "max_intids": gic.max_intids,
        "gicd_iidr": hex(gic.gicd_iidr),
        "iidr_revisions": list(gic.iidr_revisions),
        "gicd_typer": hex(gic.gicd_typer),
        "registers": gic.registers,
    }
