"""A resolved configuration as text for people: what was decided and by whom, and the address map in order."""

from collections.abc import Iterator

from vgicmgr.findings import Severity
from vgicmgr.guest.configuration import Region, VGICConfiguration
from vgicmgr.guest.resolve import Resolution

_MARKS = {Severity.ERROR: "ERROR", Severity.WARNING: "warning", Severity.NOTE: "note"}
_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))

_NAMES = {
    "VIRT_FLASH": "flash",
    "VIRT_UART0": "UART",
    "VIRT_RTC": "RTC",
    "VIRT_FW_CFG": "fw_cfg",
    "VIRT_GPIO": "GPIO",
    "VIRT_SMMU": "SMMUv3",
    "VIRT_MMIO": "virtio-mmio",
    "VIRT_PLATFORM_BUS": "platform bus",
    "VIRT_PCIE_MMIO": "PCIe MMIO",
    "VIRT_PCIE_PIO": "PCIe I/O ports",
    "VIRT_PCIE_ECAM": "PCIe configuration space",
    "VIRT_MEM": "memory",
    "VIRT_HIGH_PCIE_ECAM": "PCIe configuration space, high",
    "VIRT_HIGH_PCIE_MMIO": "PCIe MMIO, high",
}


def render(resolution: Resolution) -> str:
    """The whole text, which ends with a newline."""
    lines = [f"Domain {printable(resolution.domain.name)}", ""]
    configuration = resolution.configuration
    if configuration:
        lines += _table(resolution)
        lines += ["", "Address map (guest physical addresses; '*': made in the kernel)"]
        lines += _address_map(resolution, configuration)
    for finding in resolution.findings:
        if lines[-1]:
            lines.append("")
        lines.append(f"{_MARKS[finding.severity]}: {printable(finding.evidence)} [{finding.name}]")
        if finding.remedy:
            lines.append(f"  remedy: {printable(finding.remedy)}")
    return "\n".join(lines) + "\n"


def printable(text: str) -> str:
    """``text`` for a terminal: what is not printable is spelled out, and the overlong cut."""
    spelled = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:2000])
    return spelled if len(text) <= 2000 else f"{spelled}..."


def size(number: int) -> str:
    """A size in bytes, in the largest unit that leaves a whole number, such as ``64 KiB``."""
    for scale, unit in _UNITS:
        if number >= scale and number % scale == 0:
            return f"{number // scale} {unit}"
    return f"{number} B"


def _table(resolution: Resolution) -> Iterator[str]:
    rows = [
        ("vGIC configuration", "", "decided by"),
        *((f"  {printable(item.subject)}", printable(item.value), item.source.value) for item in resolution.decisions),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for first, second, third in rows:
        yield f"{first:{widths[0]}}  {second:{widths[1]}}  {third}"


def regions(resolution: Resolution) -> list[tuple[str, Region, bool]]:
    """Name, region and whether KVM makes it, of all there is, by ascending address."""
    configuration, address_map = resolution.configuration, resolution.address_map
    if configuration is None or address_map is None:
        return []
    kvm = configuration.in_kernel
    found: list[tuple[str, Region, bool]] = [("GIC distributor", configuration.distributor, kvm)]
    if configuration.cpu_interface:
        found.append(("GIC CPU interface", configuration.cpu_interface, kvm))
    for area, used in zip(address_map.redistributors, configuration.redistributors, strict=False):
        found.append((f"GIC redistributors of {used.count} vCPU{'' if used.count == 1 else 's'}", area, kvm))
    if configuration.its:
        found.append(("ITS", configuration.its, kvm))
    if configuration.gicv2m:
        found.append(("GICv2m", configuration.gicv2m, False))
    found += [
        (_NAMES.get(other.name, other.name), Region(other.base, other.size), False) for other in address_map.others
    ]
    return sorted(found, key=lambda item: item[1].base)


def _address_map(resolution: Resolution, configuration: VGICConfiguration) -> Iterator[str]:
    found = regions(resolution)
    digits = max(len(f"{region.end - 1:x}") for _, region, _ in found)
    widest = max(len(size(region.size)) for _, region, _ in found)
    end = 0
    for name, region, in_kernel in found:
        if region.base > end:
            yield "  :"
        end = region.end
        mark = "*" if in_kernel else " "
        yield (
            f"  0x{region.base:0{digits}x} - 0x{region.end - 1:0{digits}x}  {size(region.size):>{widest}}  "
            f"{mark} {printable(name)}"
        )
    if configuration.ipa_bits:
        yield f"  : up to {configuration.ipa_bits} bits"
