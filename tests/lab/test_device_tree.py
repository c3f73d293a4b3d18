"""What ``translate`` says of QEMU's ``virt`` machine equals the device tree that QEMU itself makes (``dumpdtb``).

Under TCG, so on any machine: QEMU 7.2, 10.0 and the newest, from Debian's packages for this machine. The cases are all
machine versions of each QEMU by all vCPU counts, with every pair of values of the other parameters in some case; where
QEMU refuses one, so must vgicmgr.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.conftest import LabHost
from tests.lab.errors import Prerequisite
from tests.lab.qemus import Qemu, qemu
from tests.lab.spec import HOSTS, Release
from vgicmgr.domain.xml import read_domain
from vgicmgr.guest.document import qemu_arguments
from vgicmgr.guest.resolve import Resolution, resolve
from vgicmgr.host.assumed import ASSUMED_HOST
from vgicmgr.host.documented import read_document
from vgicmgr.qemu import virt
from vgicmgr.qemu.devicetree import Node, read_device_tree
from vgicmgr.qemu.gic import MSIController
from vgicmgr.qemu.machine import Version
from vgicmgr.qemu.program import KnownQEMU

GIB = 1 << 30
VCPUS = (1, 2, 8, 9, 64, 123, 124, 512)


@dataclass(frozen=True)
class Case:
    """A domain for TCG: what its XML says, and what its ``<qemu:commandline>`` adds to ``-machine``."""

    machine: str
    vcpus: int
    gic: str = "3"
    msi: str = ""
    highmem: str = ""
    cpu: str = "cortex-a57"
    memory: int = GIB
    growth: int = 0
    iommu: str = ""
    pmu: str = ""

    def options(self) -> list[str]:
        """Properties of the machine that libvirt has no element for."""
        in_arguments = {"4": ["gic-version=4", "virtualization=on"], "max": ["gic-version=max"]}
        return [*in_arguments.get(self.gic, []), *filter(None, (self.msi, self.highmem))]

    def xml(self) -> bytes:
        gic = f"<gic version='{self.gic}'/>" if self.gic in ("2", "3") else ""
        pmu = f"<pmu state='{self.pmu}'/>" if self.pmu else ""
        growth = f"<maxMemory slots='4' unit='B'>{self.memory + self.growth}</maxMemory>" if self.growth else ""
        iommu = f"<iommu model='{self.iommu}'/>" if self.iommu else ""
        arguments = "".join(f"<q:arg value='-machine'/><q:arg value='{option}'/>" for option in self.options())
        return f"""\
<domain type='qemu' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>case</name><memory unit='B'>{self.memory}</memory>{growth}<vcpu>{self.vcpus}</vcpu>
  <os><type arch='aarch64' machine='{self.machine}'>hvm</type></os><features>{gic}{pmu}</features>
  <cpu mode='custom'><model>{self.cpu}</model></cpu><devices>{iommu}</devices>
  <q:commandline>{arguments}</q:commandline>
</domain>
""".encode()

    def arguments(self) -> list[str]:
        """QEMU's arguments, as libvirt makes them of such a domain."""
        machine = [self.machine]
        if self.gic in ("2", "3"):
            machine.append(f"gic-version={self.gic}")
        if self.iommu:
            machine.append(f"iommu={self.iommu}")
        growth = f",slots=4,maxmem={(self.memory + self.growth) >> 10}k" if self.growth else ""
        arguments = ["-machine", ",".join(machine), "-cpu", self.cpu + (f",pmu={self.pmu}" if self.pmu else "")]
        arguments += ["-smp", str(self.vcpus), "-m", f"size={self.memory >> 10}k{growth}"]
        for option in self.options():
            arguments += ["-machine", option]
        return arguments


def parameters(version: Version) -> dict[str, tuple[object, ...]]:
    """What a case is made of besides machine version and vCPUs, and each one's values on this QEMU."""
    msi: tuple[str, ...] = ("", "its=on", "its=off")
    highmem: tuple[str, ...] = ("", "highmem=off")
    if version >= (8, 0):
        highmem += ("compact-highmem=off", "compact-highmem=on,highmem-redists=off", "highmem-redists=off")
        highmem += ("compact-highmem=off,highmem-redists=off", "highmem-ecam=off", "highmem-ecam=on")
        highmem += ("highmem-mmio=off",)
    if version >= (10, 0):
        highmem += ("highmem-mmio-size=1T", "highmem-mmio-size=700G")
    if version >= (11, 0):
        msi += ("msi=auto", "msi=its", "msi=gicv2m", "msi=off")
    return {
        "gic": ("3", "2", "max", "4"),
        "msi": msi,
        "highmem": highmem,
        "cpu": ("cortex-a57", "cortex-a53", "neoverse-n1", "max"),
        "memory": (GIB, 3 * GIB, 254 * GIB + (1 << 20), 256 * GIB, 511 * GIB, 1023 * GIB),
        "growth": (0, GIB, 40 * GIB),
        "iommu": ("", "smmuv3"),
        "pmu": ("", "on", "off"),
    }


def pairwise_rows(values: Mapping[str, Sequence[object]]) -> list[dict[str, object]]:
    """Rows such that each pair of values of two parameters is in one: greedy, and the same every time."""
    left = {
        ((a, x), (b, y)) for a, b in itertools.combinations(values, 2) for x in values[a] for y in values[b]
    }  # fmt: skip
    rows = []
    while left:
        seed = min(left, key=repr)
        row: dict[str, object] = dict(seed)
        for name in values:
            if name not in row:
                row[name] = max(values[name], key=lambda value: sum(
                    pair in left
                    for other in row
                    for pair in (((name, value), (other, row[other])), ((other, row[other]), (name, value)))
                ))  # fmt: skip
        left -= set(itertools.permutations(row.items(), 2))
        rows.append({name: row[name] for name in values})
    return rows


def cases(version: Version, machines: Sequence[Version]) -> Iterator[Case]:
    """Every machine version by every number of vCPUs with a GICv3; and all pairs, spread over both."""
    rows = pairwise_rows(parameters(version))
    turn = itertools.cycle(rows)
    for major, minor in machines:
        for vcpus in VCPUS:
            yield Case(f"virt-{major}.{minor}", vcpus)
        for vcpus, row in zip(VCPUS[:6], turn, strict=False):
            yield Case(f"virt-{major}.{minor}", vcpus, **row)  # type: ignore[arg-type]
    newest = "virt-{}.{}".format(*machines[-1])
    for vcpus, row in zip(itertools.cycle((1, 124, 8, 62, 9)), rows, strict=False):
        yield Case(newest, vcpus, **row)  # type: ignore[arg-type]


def ranges(node: Node | None) -> list[tuple[int, int]]:
    """Pairs of base and size in ``reg``, of two cells each; none where there is no such node."""
    cells = node.cells("reg") if node else ()
    return [(a << 32 | b, c << 32 | d) for a, b, c, d in zip(*[iter(cells)] * 4, strict=True)]


def dump(qemu: Qemu, arguments: Sequence[str], memory: int, to: Path) -> tuple[Node | None, str]:
    """The device tree QEMU makes of these arguments, or None and its last words."""
    backend = ["-object", f"memory-backend-ram,id=ram,size={memory},reserve=off", "-machine", "memory-backend=ram"]
    done = qemu.run(*arguments, *backend, "-machine", f"dumpdtb={to}", "-display", "none", "-nodefaults")
    if not to.exists():
        assert done.returncode == 1, done
        return None, done.stderr.strip()
    tree = read_device_tree(to.read_bytes())
    to.unlink()
    return tree, ""


def differences(resolution: Resolution, tree: Node, case: Case) -> Iterator[str]:
    """In what the configuration and the device tree differ."""
    configuration, address_map = resolution.configuration, resolution.address_map
    assert configuration and address_map

    def same(what: str, ours: object, theirs: object) -> Iterator[str]:
        if ours != theirs:
            yield f"{what}: configuration {ours}, device tree {theirs}"

    if configuration.gic_version == 2:
        gic = tree.find("arm,cortex-a15-gic")
        assert configuration.cpu_interface
        expected = [configuration.distributor, configuration.cpu_interface]
    else:
        gic = tree.find("arm,gic-v3")
        in_use = len(configuration.redistributors)
        expected = [configuration.distributor, *address_map.redistributors[:in_use]]
        yield from same("vCPUs with redistributors", sum(r.count for r in configuration.redistributors), case.vcpus)
        bases = [region.base for region in configuration.redistributors]
        yield from same("redistributor bases", bases, [region.base for region in expected[1:]])
    if gic is None:
        yield f"GICv{configuration.gic_version} is not in the device tree"
        return
    if configuration.gic_version != 2:
        yield from same("redistributor regions", (in_use,), gic.cells("#redistributor-regions"))
    frames = [(region.base, region.size) for region in expected]
    yield from same("GIC frames", frames, ranges(gic)[: len(frames)])
    if "virtualization=on" not in case.options():
        yield from same("number of GIC frames", len(frames), len(ranges(gic)))
    else:
        yield from same("maintenance interrupt", (1, virt.MAINTENANCE_INTID - 16), gic.cells("interrupts")[:2])
    its, v2m = gic.find("arm,gic-v3-its"), gic.find("arm,gic-v2m-frame")
    theirs = MSIController.ITS if its else MSIController.GICV2M if v2m else MSIController.NONE
    yield from same("MSI controller", configuration.msi, theirs)
    for ours, node in ((configuration.its, its), (configuration.gicv2m, v2m)):
        yield from same("MSI frame", [(ours.base, ours.size)] if ours else [], ranges(node))
    pmu = tree.children.get("pmu", Node()).cells("interrupts")
    ours_pmu = (1, configuration.pmu_intid - 16) if configuration.pmu_intid else ()
    yield from same("PMU interrupt", ours_pmu, pmu[:2])
    timer = tree.children["timer"].cells("interrupts")
    yield from same("timers", [intid - 16 for intid in virt.TIMER_INTIDS.values()], list(timer[1:12:3]))
    for ppi in timer[13::3]:
        yield from same("EL2 virtual timer", virt.EL2_VIRTUAL_TIMER_INTID - 16, ppi)
    others = {region.name: (region.base, region.size) for region in address_map.others}
    pcie = tree.find("pci-host-ecam-generic")
    assert pcie
    ecam = others.get("VIRT_HIGH_PCIE_ECAM", others["VIRT_PCIE_ECAM"])
    yield from same("PCIe configuration space", [ecam], ranges(pcie))
    windows = pcie.cells("ranges")
    found = [(b << 32 | c, f << 32 | g) for a, b, c, _, _, f, g in zip(*[iter(windows)] * 7, strict=True)]
    high = [others["VIRT_HIGH_PCIE_MMIO"]] if "VIRT_HIGH_PCIE_MMIO" in others else []
    yield from same("high PCIe MMIO", high, found[2:])
    smmu = tree.find("arm,smmu-v3")
    yield from same("SMMUv3", [others["VIRT_SMMU"]] if "VIRT_SMMU" in others else [], ranges(smmu))
    memory = next(node for name, node in tree.children.items() if name.startswith("memory@"))
    yield from same("memory", [others["VIRT_MEM"]], ranges(memory))
    cpus = sum(name.startswith("cpu@") for name in tree.children["cpus"].children)
    yield from same("vCPUs", configuration.vcpus, cpus)


def compare(qemu: Qemu, version: Version, case: Case, folder: Path, *, again: bool) -> Iterator[str]:
    """What is wrong with vgicmgr's answer to this case; with ``again``, the arguments it prints are tried, too."""
    xml = case.xml()
    resolution = resolve(read_domain(xml), ASSUMED_HOST, qemu=KnownQEMU(version))
    blob = folder / f"{abs(hash(case))}.dtb"
    tree, words = dump(qemu, case.arguments(), case.memory, blob)
    if tree is None and resolution.configuration:
        yield f"{case}: QEMU refuses, vgicmgr does not: {words}"
    elif tree and resolution.configuration is None:
        yield f"{case}: vgicmgr refuses, QEMU does not: {[str(finding) for finding in resolution.findings]}"
    elif tree:
        yield from (f"{case}: {difference}" for difference in differences(resolution, tree, case))
        if again:
            printed, words = dump(qemu, qemu_arguments(resolution), case.memory, blob)
            if printed is None:
                yield f"{case}: QEMU refuses the arguments printed: {words}"
            else:
                yield from (f"{case}, as printed: {item}" for item in differences(resolution, printed, case))


@pytest.mark.parametrize("release", Release)
def test_the_configuration_is_the_device_tree(release: Release, tmp_path: Path) -> None:
    try:
        this = qemu(release)
    except Prerequisite as lacking:
        pytest.skip(str(lacking))
    version, machines = this.version, this.machines()
    assert len(machines) > 10
    todo = list(dict.fromkeys(cases(version, machines)))
    with ThreadPoolExecutor(3) as pool:
        wrong = list(pool.map(lambda case: list(compare(this, version, case, tmp_path, again=case.vcpus == 2)), todo))
    assert [line for lines in wrong for line in lines] == []
    assert [machine for machine in machines if not virt.has_machine(version, machine)] == []
    assert not virt.has_machine(version, (version[0] + 1, 0))


def test_a_difference_is_found(tmp_path: Path) -> None:
    """The comparison itself: a tree of another GIC, MSI controller, PMU and number of vCPUs."""
    case = Case("virt", 4)
    resolution = resolve(read_domain(case.xml()), ASSUMED_HOST)
    this = qemu(Release.TRIXIE)
    for other, difference in (
        (Case("virt", 4, gic="2"), "GICv3 is not in the device tree"),
        (Case("virt", 4, msi="its=off"), "MSI controller: configuration MSIController.ITS"),
        (Case("virt", 4, pmu="off"), "PMU interrupt: configuration (1, 7), device tree ()"),
        (Case("virt", 4, highmem="highmem=off"), "high PCIe MMIO"),
        (Case("virt", 4, memory=2 * GIB), "memory"),
        (Case("virt", 5), "vCPUs: configuration 4, device tree 5"),
    ):
        tree, words = dump(this, other.arguments(), other.memory, tmp_path / "other.dtb")
        assert tree, words
        assert any(difference in line for line in differences(resolution, tree, case)), other


KVM_CASES = (
    Case("virt", 1),
    Case("virt", 2, gic="max"),
    Case("virt", 8, gic="2"),
    Case("virt", 9, gic="2"),
    Case("virt", 9),
    Case("virt", 124),
    Case("virt", 4, msi="its=off"),
    Case("virt", 4, highmem="highmem=off"),
    Case("virt", 124, highmem="highmem=off"),
    Case("virt", 2, pmu="off"),
    Case("virt", 2, pmu="on"),
    Case("virt", 2, iommu="smmuv3"),
    Case("virt", 2, memory=300 * GIB),
    Case("virt", 2, memory=1024 * GIB),
    Case("virt", 2, memory=1023 * GIB),
    Case("virt", 2, growth=4 * GIB),
    Case("virt-6.1", 2),
)


@pytest.mark.parametrize("kind", ["trixie", "sid", "gicv2"])
def test_under_kvm_the_configuration_is_the_device_tree_too(lab_host: LabHost, kind: str) -> None:
    """The host's document says what its KVM gives; its QEMU makes the device tree, with vCPUs and GIC of that KVM."""
    host = lab_host(HOSTS[kind])
    host.run(["sysctl", "-qw", "vm.overcommit_memory=1"], check=True)
    told = host.run(["python3", "-m", "vgicmgr.cli", "check-host", "--format", "json"])
    facts = read_document(told.stdout.encode())
    found = re.search(r"version (\d+)\.(\d+)", host.run(["qemu-system-aarch64", "--version"], check=True).stdout)
    assert found
    wrong = []
    for case in KVM_CASES:
        xml = case.xml().replace(b"type='qemu'", b"type='kvm'", 1)
        xml = xml.replace(b"<cpu mode='custom'><model>cortex-a57</model></cpu>", b"<cpu mode='host-passthrough'/>")
        resolution = resolve(read_domain(xml), facts, qemu=KnownQEMU((int(found[1]), int(found[2]))))
        arguments = [word.replace("cortex-a57", "host") for word in case.arguments()]
        backend = f"memory-backend-ram,id=ram,size={case.memory},reserve=off"
        more = (
            "-machine",
            "memory-backend=ram",
            "-machine",
            "dumpdtb=/tmp/case.dtb",
            "-display",
            "none",
            "-nodefaults",
        )
        result = host.run(["qemu-system-aarch64", "-accel", "kvm", *arguments, "-object", backend, *more])
        dumped = result.exit_code == 0
        if dumped and resolution.configuration:
            tree = read_device_tree(host.pull("/tmp/case.dtb"))
            wrong += [f"{case}: {line}" for line in differences(resolution, tree, case)]
        elif dumped != bool(resolution.configuration):
            words = [str(finding) for finding in resolution.findings]
            wrong.append(f"{case}: QEMU {result.stderr.strip()!r}, vgicmgr {words}")
    assert wrong == []
