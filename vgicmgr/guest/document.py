"""A resolution for machines: the JSON document (its JSON Schema lies beside), and QEMU's arguments.

Addresses and sizes are hexadecimal strings, since JSON readers lose bits of 64-bit numbers; INTIDs and counts are
numbers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vgicmgr.domain.domain import Domain
from vgicmgr.guest.configuration import Decision, Region, VGICConfiguration
from vgicmgr.guest.map import regions
from vgicmgr.guest.resolve import Resolution
from vgicmgr.qemu.arguments import Arguments, cpu_argument, machine_argument
from vgicmgr.qemu.iommu import smmu_devices
from vgicmgr.qemu.virt import HIGH_PCIE_MMIO_SIZE, Properties

KIND = "vgicmgr vGIC configuration"
VERSION = 1
"""Raised when a reader of the former version would misread a document; members may be added without."""

SCHEMA = Path(__file__).with_name("configuration.schema.json")


def to_document(resolution: Resolution) -> dict[str, Any]:
    """The document, ready for :func:`json.dumps`; ``configuration`` is null where the findings refuse one."""
    return {
        "document": KIND,
        "version": VERSION,
        "domain": resolution.domain.name,
        "accelerator": "kvm"
        if (resolution.machine.kvm if resolution.machine else resolution.domain.virt_type == "kvm")
        else "tcg",
        "configuration": _configuration(resolution.configuration, resolution.decisions)
        if resolution.configuration
        else None,
        "address_map": [
            {"name": name, "base": hex(region.base), "size": hex(region.size), "in_kernel": in_kernel}
            for name, region, in_kernel in regions(resolution)
        ],
        "findings": [finding.as_document() for finding in resolution.findings],
    }


def _configuration(configuration: VGICConfiguration, decisions: tuple[Decision, ...]) -> dict[str, Any]:
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
            for decision in decisions
        ],
    }


def _region(region: Region | None) -> dict[str, str] | None:
    return {"base": hex(region.base), "size": hex(region.size)} if region else None


def qemu_arguments(resolution: Resolution) -> tuple[str, ...]:
    """The arguments of QEMU that say this configuration: accelerator, machine, CPU, vCPUs and memory.

    Those of a ``<qemu:commandline>`` are in them as far as they bear on it. Empty without a configuration.
    """
    domain, configuration, machine = resolution.domain, resolution.configuration, resolution.machine
    if configuration is None or machine is None:
        return ()
    options = [("gic-version", str(configuration.gic_version)), *_switches(machine.properties)]
    options += resolution.machine_options
    memory = f"size={domain.memory >> 10}k"
    if domain.max_memory:
        memory += f",slots={domain.memory_slots},maxmem={domain.max_memory >> 10}k"
    cpu = resolution.cpu
    return (
        *("-accel", "kvm" if machine.kvm else "tcg"),
        *("-machine", machine_argument(machine.type, options)),
        *(("-cpu", cpu_argument(cpu.model, cpu.properties)) if cpu and cpu.model else ()),
        *("-smp", f"{domain.current_vcpus},maxcpus={domain.vcpus}"),
        *("-m", memory),
        *_smmu_devices(domain, machine.arguments),
    )


def _smmu_devices(domain: Domain, arguments: Arguments) -> Iterator[str]:
    for smmu in smmu_devices(domain.devices.iommus, arguments):
        yield from ("-device", f"arm-smmuv3,primary-bus={smmu.primary_bus}{',accel=on' if smmu.accel else ''}")


def _switches(properties: Properties) -> list[tuple[str, str]]:
    """What is set of the machine's properties, other than QEMU's default."""
    said: list[tuple[str, bool | None, bool | None]] = [
        ("its", properties.its, None),
        ("virtualization", properties.virtualization, False),
        ("mte", properties.mte, False),
        ("ras", properties.ras, False),
        ("highmem", properties.highmem, True),
        ("compact-highmem", properties.compact_highmem, None),
        ("highmem-redists", properties.highmem_redists, True),
        ("highmem-ecam", properties.highmem_ecam, None),
        ("highmem-mmio", properties.highmem_mmio, True),
    ]
    options = [(name, "on" if value else "off") for name, value, default in said if value != default]
    if properties.msi:
        options.append(("msi", properties.msi))
    if properties.highmem_mmio_size != HIGH_PCIE_MMIO_SIZE:
        options.append(("highmem-mmio-size", str(properties.highmem_mmio_size)))
    if properties.iommu:
        options.append(("iommu", properties.iommu))
    return options
