"""The host capabilities document: what becomes its JSON; its JSON Schema lies beside, ``capabilities.schema.json``.

Registers and register-like numbers are hexadecimal strings, since JSON readers lose bits of 64-bit numbers.
:mod:`vgicmgr.host.documented` reads it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgicmgr.findings import Verdict
from vgicmgr.host.capabilities import GICv2, GICv3, HostCapabilities
from vgicmgr.kvm.registers import register_name
from vgicmgr.qemu.rules import Rules

if TYPE_CHECKING:
    from vgicmgr.host.models import Dependency, Model, Register
    from vgicmgr.qemu.program import QEMUFacts

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
            "name": host.machine.name,
            "page_size": host.machine.page_size,
            "core_types": [{"midr_el1": hex(core.midr), "cpus": list(core.cpus)} for core in host.machine.core_types],
            "counter_frequency": host.counter_frequency,
        },
        "kvm": {
            "api_version": host.api_version,
            "mode": host.log.mode,
            "ipa_bits": host.ipa_bits,
            "capabilities": dict(sorted(host.capabilities.items())),
            "targets": None if host.targets is None else list(host.targets),
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


PMU_PROPERTY_SINCE = (10, 0)
"""From this version on QEMU ends when it is told pmu=off where KVM has no PMU: its CPU has no such property."""


def migration_member(models: "Sequence[Model]", emulators: "Mapping[str, QEMUFacts]") -> dict[str, Any]:
    """The member ``migration``: what an arriving guest is judged by from afar; the emulators by their paths.

    ``emulators`` and ``refusing_pmu_off`` are for programs that do not know ``programs``. ``accepts`` of a register is
    ``"anything"``, or an object of its fields' names and the values that each takes besides its own.
    """
    known = {path: (program.version, program.rules, program.psci_property) for path, program in emulators.items()}
    return {
        "emulators": {path: rules.value for path, (_, rules, _) in known.items() if isinstance(rules, Rules)},
        "refusing_pmu_off": [
            path for path, (version, _, _) in known.items() if version and version >= PMU_PROPERTY_SINCE
        ],
        "programs": {
            path: {
                "version": None if version is None else ".".join(map(str, version)),
                "rules": rules.value if isinstance(rules, Rules) else None,
                "psci_property": psci_property,
                "release": _release(emulators[path]),
            }
            for path, (version, rules, psci_property) in known.items()
        },
        "vcpus": [_model_member(model) for model in models],
    }


def _release(program: "QEMUFacts") -> str | None:
    release = program.release
    return release if program.version is not None and release.isascii() and 0 < len(release) <= 40 else None


def _model_member(model: "Model") -> dict[str, Any]:
    return {
        "features": list(model.features),
        "sve_vector_lengths": list(model.sve),
        **({} if model.pmu_counters is None else {"pmu_counters": model.pmu_counters}),
        "registers": {
            register_name(number): _register_member(register) for number, register in model.registers.items()
        },
        **({} if model.depends is None else {"depends": list(map(_dependency_member, model.depends))}),
    }


def _register_member(register: "Register") -> dict[str, Any]:
    accepts: str | dict[str, list[int] | str] = "anything"
    if not register.anything:
        accepts = {name: list(values) if values else "anything" for name, values in register.fields}
    member: dict[str, Any] = {"value": hex(register.value), "accepts": accepts}
    return member if register.values is None else {**member, "values": list(map(hex, register.values))}


def _dependency_member(dependency: "Dependency") -> dict[str, Any]:
    return {
        "register": register_name(dependency.register),
        "field": dependency.field,
        "value": dependency.value,
        "gone": list(map(register_name, dependency.gone)),
        "new": list(map(register_name, dependency.new)),
    }
