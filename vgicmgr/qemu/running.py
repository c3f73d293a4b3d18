"""What a running QEMU really configured, asked over its monitor: machine, GIC, addresses, vCPUs.

Sources: QEMU's docs/interop/qmp-qom-ref.html for the commands; hw/arm/virt.c (``create_gic``) and hw/intc for the
devices and their properties. Which commands this QEMU has is asked of it (``query-commands``), not told from its
version; what it answers is not trusted to be of the right type.

A guest may be at work behind the monitor, so only what QEMU answers from its own state is asked. query-gic-capabilities
is not: it makes a VM of its own to ask the kernel, and crashes QEMU 10.0 (10.0.13) under TCG on a host that has
/dev/kvm.
"""

import asyncio
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from vgicmgr.dataclass import dataclass
from vgicmgr.errors import CannotTell
from vgicmgr.qemu.devicetree import MAX_BYTES, DeviceTreeError, GuestTree, guest_tree, read_device_tree
from vgicmgr.qemu.machine import Version
from vgicmgr.qemu.memorytree import device_regions
from vgicmgr.qemu.qmp import (
    SECONDS,
    CommandFailed,
    Monitor,
    MonitorGarbled,
    MonitorSilent,
    is_path,
    libvirt_monitor,
    one_line,
    socket_monitor,
)
from vgicmgr.qemu.virt import MemoryRegion

MAX_VCPUS = 4096
"""More than any GIC has; what claims more is not believed."""
TOTAL_SECONDS = 60.0
"""For all questions together."""

T = TypeVar("T")
Value = bool | int | str

_UNATTACHED = "/machine/unattached"
MACHINE_PROPERTIES = (
    *("gic-version", "its", "msi", "virtualization", "secure", "iommu", "highmem", "compact-highmem"),
    *("highmem-redists", "highmem-ecam", "highmem-mmio", "highmem-mmio-size"),
)
"""Those of ``virt`` that bear on the interrupt controller (virt_machine_class_init); not every QEMU has them all."""
_CPU_PROPERTY = re.compile(r"pmu|aarch64|pauth.*|sve.*|sme.*|kvm-.*|lpa2|has_el[23]|midr|psci-conduit")
"""Those of a CPU that bear on it, or that a domain can ask for (target/arm/cpu.c, cpu64.c, kvm.c)."""
_SCALAR = re.compile(r"bool|u?int(8|16|32|64)?|size|str|string|OnOffAuto")
_GIC_TYPES = {"arm_gic": False, "kvm-arm-gic": True, "arm-gicv3": False, "kvm-arm-gicv3": True}
"""QOM types, and whether KVM has the device (hw/intc/arm_gic*.c)."""
_ITS_TYPES = ("arm-gicv3-its", "arm-its-kvm")
_V2M_TYPE = "arm-gicv2m"


@dataclass(frozen=True)
class RunningVCPU:
    """``cpu_type``: QEMU's QOM type, such as ``host-arm-cpu``. ``pmu_intid``: None where it has no PMU."""

    index: int
    cpu_type: str
    pmu_intid: int | None


@dataclass(frozen=True)
class RunningMachine:
    """A running ``virt`` machine as its QEMU has it. Addresses are guest physical, sizes in bytes.

    ``machine`` is the versioned type (``virt-10.0``), ``accelerator`` ``kvm``, ``tcg`` or another name of QEMU's.
    ``max_memory`` and ``memory_slots`` are 0 where none can be plugged. ``properties`` (MACHINE_PROPERTIES) and
    ``cpu_properties`` (of the first vCPU; all are made alike) are what ``qom-get`` tells. ``redistributors`` are a
    GICv3's regions, with the number of vCPUs in each. ``device_tree`` is what the guest is told; where that could not
    be had, ``no_device_tree`` says why.
    """

    monitor: str
    qemu: tuple[int, int, int]
    package: str
    status: str
    machine: str
    accelerator: str
    properties: Mapping[str, Value]
    memory: int
    max_memory: int
    memory_slots: int
    gic_version: int
    gic_in_kernel: bool
    nr_irqs: int
    distributor: MemoryRegion
    cpu_interface: MemoryRegion | None
    redistributors: tuple[tuple[MemoryRegion, int], ...]
    its: MemoryRegion | None
    gicv2m: MemoryRegion | None
    vcpus: tuple[RunningVCPU, ...]
    max_vcpus: int
    cpu_properties: Mapping[str, Value]
    device_tree: GuestTree | None
    no_device_tree: str = ""

    @property
    def version(self) -> Version:
        """QEMU's major and minor version."""
        return self.qemu[:2]

    @property
    def pmu_intid(self) -> int | None:
        """Of the first vCPU; a PPI is the same on all."""
        return self.vcpus[0].pmu_intid

    @property
    def sve_vector_lengths(self) -> tuple[int, ...]:
        """Those that are on, in bits."""
        lengths = (name.removeprefix("sve") for name, on in self.cpu_properties.items() if on is True)
        return tuple(sorted(int(bits) for bits in lengths if bits.isdecimal() and len(bits) <= 4))


async def ask_running(
    monitor: Monitor, *, exchange: Path | None = None, seconds: float = TOTAL_SECONDS
) -> RunningMachine:
    """What the QEMU behind this monitor really configured.

    ``exchange`` is a folder that this process and QEMU can both write to: QEMU leaves the guest's device tree there for
    a moment (``dumpdtb``), since it tells it in no other way. Raises :class:`~vgicmgr.qemu.qmp.MonitorError`, and
    :class:`~vgicmgr.errors.CannotTell` for a machine other than ``virt``.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _Asker(monitor, exchange).ask()
    except TimeoutError:
        raise MonitorSilent(
            f"{monitor.name}: not all was answered within {seconds:g} s", "see how busy QEMU is"
        ) from None


def ask_socket(address: str, *, seconds: float = SECONDS) -> RunningMachine:
    """:func:`ask_running` over a QMP socket (:func:`~vgicmgr.qemu.qmp.socket_monitor`), for who has no event loop."""

    async def ask() -> RunningMachine:
        async with socket_monitor(address, seconds=seconds) as monitor:
            return await ask_running(monitor, exchange=socket_folder(address))

    return asyncio.run(ask())


def ask_domain(domain: Any, *, seconds: float = SECONDS) -> RunningMachine:
    """:func:`ask_running` by libvirt (:func:`~vgicmgr.qemu.qmp.libvirt_monitor`), for who has no event loop."""
    return asyncio.run(ask_running(libvirt_monitor(domain, seconds=seconds), exchange=domain_folder(domain)))


async def blocked_reasons(monitor: Monitor) -> tuple[str, ...]:
    """Why the QEMU behind this monitor does not migrate its guest now, in its own words; none where it would.

    ``query-migrate`` has them since QEMU 6.0 (qapi/migration.json, MigrationInfo). Raises
    :class:`~vgicmgr.qemu.qmp.MonitorError`.
    """
    reply = await monitor.execute("query-migrate")
    reasons = reply.get("blocked-reasons", []) if isinstance(reply, dict) else None
    if not isinstance(reasons, list) or not all(isinstance(reason, str) for reason in reasons):
        raise MonitorGarbled(f"{monitor.name}: query-migrate: not what QEMU answers to this")
    return tuple(map(one_line, reasons[:_MOST_REASONS]))


_MOST_REASONS = 64


def ask_socket_blocked_reasons(address: str, *, seconds: float = SECONDS) -> tuple[str, ...]:
    """:func:`blocked_reasons` over a QMP socket (:func:`~vgicmgr.qemu.qmp.socket_monitor`)."""

    async def ask() -> tuple[str, ...]:
        async with socket_monitor(address, seconds=seconds) as monitor:
            return await blocked_reasons(monitor)

    return asyncio.run(ask())


def ask_domain_blocked_reasons(domain: Any, *, seconds: float = SECONDS) -> tuple[str, ...]:
    """:func:`blocked_reasons` by libvirt (:func:`~vgicmgr.qemu.qmp.libvirt_monitor`)."""
    return asyncio.run(blocked_reasons(libvirt_monitor(domain, seconds=seconds)))


def socket_folder(address: str) -> Path | None:
    """The folder of a UNIX socket, where QEMU can write, having made the socket; None for another address."""
    return Path(address).absolute().parent if is_path(address) else None


def domain_folder(domain: Any) -> Path | None:
    """The folder that libvirt makes for a running domain's QEMU (``virDomainDef``'s ``libDir``); None elsewhere.

    QEMU may write there, whatever user it runs as and whatever confines it.
    """
    folders = {
        "qemu:///system": Path("/var/lib/libvirt/qemu"),
        "qemu:///session": Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "libvirt/qemu/lib",
    }
    folder = folders.get(domain.connect().getURI())
    return next(folder.glob(f"domain-{domain.ID()}-*"), None) if folder else None


class _Asker:
    """One round of questions."""

    def __init__(self, monitor: Monitor, exchange: Path | None) -> None:
        self.monitor, self.exchange = monitor, exchange
        self.commands: frozenset[str] = frozenset()

    async def ask(self) -> RunningMachine:
        self.commands = frozenset(
            self.typed(entry.get("name"), str, "query-commands")
            for entry in self.objects(await self.execute("query-commands"), "query-commands")
        )
        version = self.typed(await self.execute("query-version"), dict, "query-version")
        numbers = self.typed(version.get("qemu"), dict, "query-version")
        machine = await self.machine()
        devices = await self.children(_UNATTACHED)
        gics = [(path, kind) for path, kind in devices if kind in _GIC_TYPES]
        if len(gics) != 1:
            raise CannotTell(f"{self.monitor.name}: this machine has no GICv2 or GICv3", "ask a 'virt' machine")
        path, kind = gics[0]
        nr_irqs = self.number(await self.get(path, "num-irq"), "num-irq")
        version_of_gic = self.number(await self.get(path, "revision"), "revision")
        regions = await self.regions()
        cpus, cpu_properties = await self.vcpus(dict(devices), path, nr_irqs)
        smp = self.typed(await self.get("/machine", "smp"), dict, "smp")
        memory = self.typed(await self.get("/machine", "memory"), dict, "memory")
        status = self.typed(await self.execute("query-status"), dict, "query-status")
        kinds = {kind for _, kind in devices}
        tree, reason = await self.device_tree()
        v3 = version_of_gic >= 3
        return RunningMachine(
            monitor=self.monitor.name,
            qemu=tuple(self.number(numbers.get(part), part) for part in ("major", "minor", "micro")),  # type: ignore[arg-type]
            package=self.typed(version.get("package", ""), str, "query-version"),
            status=self.typed(status.get("status"), str, "query-status"),
            machine=machine,
            accelerator=await self.accelerator(),
            properties=await self.scalars("/machine", re.compile("|".join(MACHINE_PROPERTIES))),
            memory=self.number(memory.get("size"), "memory"),
            max_memory=self.number(memory.get("max-size", 0), "memory"),
            memory_slots=self.number(memory.get("slots", 0), "memory"),
            gic_version=version_of_gic,
            gic_in_kernel=_GIC_TYPES[kind],
            nr_irqs=nr_irqs,
            distributor=self.needed(regions, "gicv3_dist" if v3 else "gic_dist"),
            cpu_interface=None if v3 else self.needed(regions, "gic_cpu"),
            redistributors=await self.redistributors(path, regions) if v3 else (),
            its=self.needed(regions, "gicv3_its") if kinds & set(_ITS_TYPES) else None,
            gicv2m=self.needed(regions, "gicv2m") if _V2M_TYPE in kinds else None,
            vcpus=cpus,
            max_vcpus=self.number(smp.get("maxcpus"), "smp"),
            cpu_properties=cpu_properties,
            device_tree=tree,
            no_device_tree=reason,
        )

    # --- the parts

    async def machine(self) -> str:
        name = self.typed(await self.get("/machine", "type"), str, "type").removesuffix("-machine")
        if name != "virt" and not name.startswith("virt-"):
            raise CannotTell(
                f"{self.monitor.name}: this QEMU runs no 'virt' machine, whose GIC alone is known", "ask an arm64 guest"
            )
        return name

    async def accelerator(self) -> str:
        if "query-accelerators" in self.commands:
            told = self.typed(await self.execute("query-accelerators"), dict, "query-accelerators")
            return self.typed(told.get("enabled"), str, "query-accelerators")
        told = self.typed(await self.execute("query-kvm"), dict, "query-kvm")
        return "kvm" if told.get("enabled") is True else "tcg"

    async def regions(self) -> Mapping[str, MemoryRegion]:
        command = "human-monitor-command"
        if command not in self.commands:
            raise CannotTell(f"{self.monitor.name}: this QEMU has no {command}, by which its memory tree is asked for")
        text = await self.execute(command, {"command-line": "info mtree"})
        return device_regions(self.typed(text, str, "info mtree"))

    async def redistributors(
        self, gic: str, regions: Mapping[str, MemoryRegion]
    ) -> tuple[tuple[MemoryRegion, int], ...]:
        """Regions and vCPUs in each: an array property, which QEMU before 9.0 has as one property for each member."""
        names = {name for name, _ in await self.listed(gic)}
        if "len-redist-region-count" in names:
            length = self.number(await self.get(gic, "len-redist-region-count"), "len-redist-region-count")
            if length > MAX_VCPUS:
                raise self.garbled("len-redist-region-count")
            counts = [await self.get(gic, f"redist-region-count[{place}]") for place in range(length)]
        else:
            counts = self.typed(await self.get(gic, "redist-region-count"), list, "redist-region-count")
        return tuple(
            (self.needed(regions, f"gicv3_redist_region[{place}]"), self.number(count, "redist-region-count"))
            for place, count in enumerate(counts)
        )

    async def vcpus(
        self, devices: Mapping[str, str], gic: str, nr_irqs: int
    ) -> tuple[tuple[RunningVCPU, ...], Mapping[str, Value]]:
        command = "query-cpus-fast"
        paths = {
            self.number(entry.get("cpu-index"), command): self.typed(entry.get("qom-path"), str, command)
            for entry in self.objects(await self.execute(command), command)
        }
        if not 0 < len(paths) <= MAX_VCPUS:
            raise self.garbled(command)
        first = await self.scalars(paths[min(paths)], _CPU_PROPERTY)
        cpus = []
        for index, path in sorted(paths.items()):
            wired = await self.get(path, "pmu-interrupt[0]") if first.get("pmu") is True else ""
            cpus.append(
                RunningVCPU(index, devices.get(path, ""), _ppi(self.typed(wired, str, path), gic, nr_irqs, index))
            )
        return tuple(cpus), first

    async def device_tree(self) -> tuple[GuestTree | None, str]:
        """The guest's device tree, or why it cannot be had."""
        if "dumpdtb" not in self.commands:
            return None, "this QEMU has no dumpdtb"
        if self.exchange is None:
            return None, "QEMU can only write it to a file on its own host"
        path = self.exchange / f"vgicmgr-{secrets.token_hex(8)}.dtb"
        try:
            await self.execute("dumpdtb", {"filename": str(path)})
            return guest_tree(read_device_tree(_read_dumped(path))), ""
        except CommandFailed as error:
            return None, f"dumpdtb: {error.description}"
        except DeviceTreeError as error:
            return None, error.message
        except OSError as error:
            return None, f"QEMU's file in {self.exchange}: {error.strerror}"
        finally:
            _remove(path)

    # --- commands and what they return

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        return await self.monitor.execute(command, arguments)

    async def get(self, path: str, name: str) -> Any:
        return await self.execute("qom-get", {"path": path, "property": name})

    async def listed(self, path: str) -> list[tuple[str, str]]:
        """Name and type of each property."""
        return [
            (self.typed(entry.get("name"), str, "qom-list"), self.typed(entry.get("type"), str, "qom-list"))
            for entry in self.objects(await self.execute("qom-list", {"path": path}), "qom-list")
        ]

    async def children(self, path: str) -> list[tuple[str, str]]:
        """Path and QOM type of each child."""
        return [
            (f"{path}/{name}", kind[len("child<") : -1])
            for name, kind in await self.listed(path)
            if kind.startswith("child<")
        ]

    async def scalars(self, path: str, names: re.Pattern[str]) -> dict[str, Value]:
        """Properties of these names that are a number, a switch or a text, and can be read."""
        found: dict[str, Value] = {}
        for name, kind in sorted(await self.listed(path)):
            if names.fullmatch(name) and _SCALAR.fullmatch(kind):
                try:
                    value = await self.get(path, name)
                except CommandFailed:  # one that can be written only
                    continue
                if isinstance(value, bool | int | str):
                    found[name] = value
        return found

    def needed(self, regions: Mapping[str, MemoryRegion], name: str) -> MemoryRegion:
        if name not in regions:
            raise self.garbled(f"info mtree ({name} is not in it)")
        return regions[name]

    def objects(self, reply: Any, command: str) -> Iterator[Mapping[str, Any]]:
        for entry in self.typed(reply, list, command):
            yield self.typed(entry, dict, command)

    def number(self, reply: Any, what: str) -> int:
        number = self.typed(reply, int, what)
        if isinstance(number, bool) or number < 0:
            raise self.garbled(what)
        return number

    def typed(self, reply: Any, kind: type[T], what: str) -> T:
        if not isinstance(reply, kind):
            raise self.garbled(what)
        return reply

    def garbled(self, what: str) -> MonitorGarbled:
        return MonitorGarbled(f"{self.monitor.name}: {what}: not what QEMU answers to this")


def _ppi(wired: str, gic: str, nr_irqs: int, vcpu: int) -> int | None:
    """The INTID of the PPI of a vCPU that an output is wired to; None where it is wired to nothing of the GIC.

    A GIC's inputs are the SPIs, then 32 for each vCPU (gicv3_init_irqs_and_mmio, gic_init_irqs_and_mmio).
    """
    match = re.fullmatch(re.escape(gic) + r"/unnamed-gpio-in\[([0-9]{1,6})\]", wired)
    intid = int(match[1]) - (nr_irqs - 32) - 32 * vcpu if match else -1
    return intid if 0 <= intid < 32 else None


def _read_dumped(path: Path) -> bytes:
    """What QEMU wrote, which may by now be anything: a link or a pipe is not followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        return file.read(MAX_BYTES + 1)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
