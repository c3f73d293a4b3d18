"""Our reading of QEMU's arguments against a real QEMU under TCG, by the device tree that it makes of them."""

import os
import subprocess
from pathlib import Path
from shutil import which

import pytest

from vgicmgr.dataclass import replace
from vgicmgr.qemu.arguments import ArgumentError, number, read_arguments
from vgicmgr.qemu.cpu import cpu_of
from vgicmgr.qemu.gic import GICV2_VCPUS, MSIController, emulated_gic_versions, gic_version, msi_controller
from vgicmgr.qemu.machine import Version, machine_version
from vgicmgr.qemu.program import InstalledQEMU
from vgicmgr.qemu.size import vcpus
from vgicmgr.qemu.virt import PMU_SINCE, SINCE, has_machine_type, machine_properties, since

from .test_cpu import DOMAIN

NO_CPU = replace(DOMAIN, cpu_mode="", vcpus=1, current_vcpus=1)
QEMU = which("qemu-system-aarch64") or ""
pytestmark = pytest.mark.skipif(not QEMU, reason="no qemu-system-aarch64 is installed to be asked")

TAKEN = (
    "-M virt",
    "-M virt,gic-version=3",
    "-M virt,gic_version=3",
    "-M virt,gic-version=max",
    "-M virt,gic-version=2,its=on",
    "-M virt,gic-version=3,its=off",
    "-M virt,gic-version=3,its=no",
    "-M virt,gic-version=3,its=n",
    "-M virt,gic-version=3,its=false",
    "-M virt,gic-version=3,its=y",
    "-M virt,gic-version=3 -M its=off",
    "-M virt,gic-version=3,its=off --machine its=on",
    "--M virt,gic-version=3,its=off,its=on",
    "-machine type=virt,gic-version=3",
    "-M its=off,type=virt,gic-version=3",
    "-M virt,gic-version=3,",
    "-M virt-6.1,gic-version=3",
    "-M virt-6.2,gic-version=3",
    "-M virt-6.1,gic-version=3,its=on",
    "-M virt-2.7,gic-version=3",
    "-M virt-2.8,gic-version=3 -M virt",
    "-M virt-2.6",
    "-M virt-2.6,gic-version=2 -cpu cortex-a57,pmu=on",
    "-M virt-2.7 -cpu cortex-a57",
    "-M virt -smp 9 -cpu cortex-a57",
    "-M virt -smp 8",
    "-M virt -smp 9 -M gic-version=3 -cpu cortex-a57",
    "-M virt,gic-version=3 -smp cpus=1,maxcpus=9 -cpu cortex-a57",
    "-M virt -smp cpus=1,maxcpus=9 -cpu cortex-a57",
    "-M virt,smp.cpus=9 -cpu cortex-a57",
    "-M virt -smp 0x9 -cpu cortex-a57",
    "-M virt,gic-version=max,virtualization=on",
    "-M virt,gic-version=max,virtualization=yes",
    "-M virt -cpu max,pmu=off",
    "-M virt -cpu max,pmu=no",
    "-M virt -cpu max,,pmu=off,",
    "-M virt -cpu max,pmu=off,pmu=on",
    "-M virt -cpu max,pmu=off -cpu max",
    "-M virt -cpu max,+x -cpu max,pmu=n",
    "-M virt -cpu max -global max-arm-cpu.pmu=off",
    "-M virt -cpu max -global driver=max-arm-cpu,property=pmu,value=off",
    "-M virt -cpu max -global arm-cpu.pmu=off",
    "-M virt -cpu cortex-a57 -global max-arm-cpu.pmu=off",
    "-M virt -cpu max,pmu=on -global max-arm-cpu.pmu=off",
    "-name -M -M virt,gic-version=3,its=off",
    "-nographic -M virt,gic-version=3",
    "-M virt,kernel_irqchip=off,gic-version=3",
    "-accel tcg -M virt,gic-version=3",
    "-accel tcg,thread=single -M virt,gic-version=3",
    "-M virt,accel=tcg,gic-version=3",
    "-enable-kvm -M virt,accel=tcg,gic-version=3",
    "-M virt,gic-version=3,highmem=off -m 1G",
    "-M virt,gic-version=3 -m size=1G,slots=2,maxmem=4G",
)
REFUSED = (
    "-M virt,its",
    "-M virt,its=maybe",
    "-M virt,gic-version=host",
    "-M virt,gic-version=2 -smp 9 -cpu cortex-a57",
    "-M virt,its=ON",
    "-M virt,,its=off",
    "-M ,virt",
    "-M virt,gic-version=03",
    "-M virt,gic_version=3,gic-version=3",
    "-M virt,acpi=yes",
    "-M virt,iommu=virtio",
    "-M virt -cpu max,+pmu",
    "-M virt -cpu max,-pmu",
    "-M virt -cpu max,pmu",
    "-M virt -cpu max,pmu=1",
    "-M virt,accel=tcg -accel tcg",
    "-M virt -enable-kvm -accel tcg",
    "-M virt -global max-arm-cpu.pmu",
    "-M virt -smp x",
    "-M virt -device",
    "-M virt,highmem-mmio-size=1T",
    "-M virt -device {",
)


def asked(line: str, folder: Path) -> bytes | None:
    """The device tree that QEMU makes of these arguments; None where it refuses them."""
    dump = folder / "dtb"
    arguments = [QEMU, "-display", "none", "-nodefaults", "-M", f"dumpdtb={dump}", *line.split(" ")]
    subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    return dump.read_bytes() if dump.exists() else None


def told(line: str, qemu: Version) -> tuple[MSIController, bool, int]:
    """MSI controller, PMU and GIC version by our rules; raises ArgumentError."""
    arguments = read_arguments(line.split(" "))
    machine = machine_version(arguments.machine_type)
    for name, _ in arguments.machine:
        if SINCE.get(name, qemu) > qemu:
            raise ArgumentError(f"no {name} yet")
    properties = machine_properties(arguments)
    _, most = vcpus(replace(NO_CPU, vcpus=number("cpus", dict(arguments.smp).get("cpus", "1"))), arguments)
    supported = emulated_gic_versions(virtualization=properties.virtualization)
    version = gic_version(properties.gic_version, supported, most, kvm=False, qemu=qemu)
    if version == 2 and most > GICV2_VCPUS:
        raise ArgumentError("more vCPUs than a GICv2 has CPU interfaces for")
    msi = msi_controller(properties, version, machine, kvm=False, in_kernel=False, qemu=qemu)
    cpu = cpu_of(NO_CPU, arguments)
    return msi, cpu.on("pmu") and since(PMU_SINCE, machine), version


@pytest.mark.parametrize("line", TAKEN)
def test_what_qemu_makes(line: str, tmp_path: Path) -> None:
    qemu = InstalledQEMU(os.path.realpath(QEMU)).version
    assert qemu
    if has_machine_type(qemu, read_arguments(line.split(" ")).machine_type) is False:
        pytest.skip("this QEMU has no such machine type")
    tree = asked(line, tmp_path)
    try:
        msi, pmu, version = told(line, qemu)
    except ArgumentError:  # by its version: QEMU before 8.0 chooses a GICv2 for 9 vCPUs, too
        assert tree is None
        return
    assert tree is not None
    assert (b"arm,gic-v3-its" in tree) is (msi is MSIController.ITS)
    assert (b"arm,gic-v2m-frame" in tree) is (msi is MSIController.GICV2M)
    assert (b"arm,gic-v3\0" in tree) is (version > 2)
    if "-cpu" in line:  # QEMU's default is a 32-bit CPU
        assert (b"arm,armv8-pmuv3" in tree) is pmu


@pytest.mark.parametrize("line", REFUSED)
def test_what_qemu_refuses(line: str, tmp_path: Path) -> None:
    qemu = InstalledQEMU(os.path.realpath(QEMU)).version
    assert qemu
    if qemu >= SINCE["highmem-mmio-size"] and "highmem-mmio-size" in line:
        pytest.skip("this QEMU has the property")
    assert asked(line, tmp_path) is None
    with pytest.raises(ArgumentError):
        told(line, qemu)
