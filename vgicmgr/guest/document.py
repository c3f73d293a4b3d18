"""A resolution for machines: the JSON document (its JSON Schema lies beside), and QEMU's arguments.

Addresses and sizes are hexadecimal strings, since JSON readers lose bits of 64-bit numbers; INTIDs and counts are
numbers.
"""

from pathlib import Path
from typing import Any

from vgicmgr.qemu.arguments import cpu_argument, machine_argument
from vgicmgr.guest.configuration import Region, VGICConfiguration
from vgicmgr.guest.map import regions
from vgicmgr.guest.resolve import Resolution

KIND = "vgicmgr vGIC configuration"
VERSION = 1
"""Raised when a reader of the former version would misread a document; members may be added without."""

SCHEMA = Path(__file__).with_name("configuration.schema.json")


def to_document(resolution: Resolution) -> dict[str, Any]:
    """The document, ready for :func:`json.dumps`; ``configuration`` is null where the findings refuse one."""
    return {
        "document": KIND,
        "version": VERSION,
        "domain": resolution.settings.name,
        "accelerator": "kvm" if resolution.settings.virt_type == "kvm" else "tcg",
        "configuration": _configuration(resolution.configuration) if resolution.configuration else None,
        "address_map": [
            {"name": name, "base": hex(region.base), "size": hex(region.size), "in_kernel": in_kernel}
            for name, region, in_kernel in regions(resolution)
        ],
        "findings": [finding.as_document() for finding in resolution.findings],
    }


def _configuration(configuration: VGICConfiguration) -> dict[str, Any]:
    return {
        "machine": configuration.machine,
        "gic_version": configuration.gic_version,
        "msi_controller": configuration.msi.value,
        "vcpus": configuration.vcpus,
        "max_vcpus": configuration.max_vcpus,
        "ipa_bits": configuration.ipa_bits,
        "nr_irqs": configuration.nr_irqs,
        "pmu_intid": configuration.pmu_intid,
        "vcpu_features": list(configuration.features),
        "sve_vector_lengths": list(configuration.sve_vector_lengths),
        "distributor": _region(configuration.distributor),
        "cpu_interface": _region(configuration.cpu_interface),
        "redistributors": [
            {"index": region.index, "base": hex(region.base), "count": region.count}
            for region in configuration.redistributors
        ],
        "its": _region(configuration.its),
        "gicv2m": _region(configuration.gicv2m),
        "decisions": [
            {"subject": decision.subject, "value": decision.value, "source": decision.source.value}
            for decision in configuration.decisions
        ],
    }


def _region(region: Region | None) -> dict[str, str] | None:
    return {"base": hex(region.base), "size": hex(region.size)} if region else None


def qemu_arguments(resolution: Resolution) -> tuple[str, ...]:
    """The arguments of QEMU that say this configuration: accelerator, machine, CPU, vCPUs and memory.

    Those of a ``<qemu:commandline>`` are in them as far as they bear on it.
    """
    settings, configuration, properties = resolution.settings, resolution.configuration, resolution.properties
    if configuration is None:
        return ()
    options = [("gic-version", str(configuration.gic_version)), *_switches(resolution), *resolution.machine_options]
    if properties.iommu and properties.iommu != "none":
        options.append(("iommu", properties.iommu))
    memory = f"size={settings.memory >> 10}k"
    if settings.max_memory:
        memory += f",slots={settings.memory_slots},maxmem={settings.max_memory >> 10}k"
    model, switches = resolution.cpu
    return (
        *("-accel", "kvm" if settings.virt_type == "kvm" else "tcg"),
        *("-machine", machine_argument(settings.machine, options)),
        *(("-cpu", cpu_argument(model, switches)) if model else ()),
        *("-smp", f"{settings.current_vcpus},maxcpus={settings.vcpus}"),
        *("-m", memory),
    )


def _switches(resolution: Resolution) -> list[tuple[str, str]]:
    """What the domain's own arguments say about the machine, other than QEMU's default."""
    properties = resolution.properties
    said: list[tuple[str, bool | None, bool | None]] = [
        ("its", properties.its, None),
        ("virtualization", properties.virtualization, False),
        ("highmem", properties.highmem, True),
        ("compact-highmem", properties.compact_highmem, None),
        ("highmem-redists", properties.highmem_redists, True),
        ("highmem-ecam", properties.highmem_ecam, None),
        ("highmem-mmio", properties.highmem_mmio, True),
    ]
    options = [(name, "on" if value else "off") for name, value, default in said if value != default]
    if properties.msi:
        options.append(("msi", properties.msi))
    if properties.highmem_mmio_size != type(properties)().highmem_mmio_size:
        options.append(("highmem-mmio-size", str(properties.highmem_mmio_size)))
    return options
