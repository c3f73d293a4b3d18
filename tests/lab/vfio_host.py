"""A host with an SMMUv3 and, behind it, devices to assign: all bound to vfio-pci, and with other drivers for a while.

Two functions of a network card share an IOMMU group, an NVMe controller has one of its own. An igb, which has virtual
functions, is in newer QEMUs only (8.0): :func:`with_igb`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.host import Host
from tests.lab.spec import HostSpec, Release

PAIR, OTHER, NVME, IGB = "0000:01:00.0", "0000:01:00.1", "0000:00:09.0", "0000:00:0a.0"
DEVICES = (
    "pcie-root-port,id=rp,chassis=1,addr=8.0",
    "e1000e,romfile=,bus=rp,addr=0.0,multifunction=on",
    "e1000e,romfile=,bus=rp,addr=0.1",
    "nvme,serial=lone,addr=9.0",
)


def spec(release: Release) -> HostSpec:
    """A host with this kernel."""
    return HostSpec(kernel=release, smmuv3=True, devices=DEVICES)


def with_igb() -> HostSpec:
    """A host with an igb alone, in the newest QEMU."""
    return HostSpec(smmuv3=True, devices=("igb,romfile=,addr=a.0",), outer=Release.SID)


def devices(host: Host) -> list[str]:
    """Those to assign."""
    return [IGB] if host.spec.outer else [PAIR, OTHER, NVME]


def prepared(host: Host) -> Host:
    host.run(["sh", "-c", "depmod -a 2>/dev/null; modprobe -a vfio-pci vfio_iommu_type1 e1000e igb"], check=True)
    bind(host, "vfio-pci", *devices(host))
    return host


def bind(host: Host, driver: str, *names: str) -> None:
    """Give the devices to this driver; to none where it is empty."""
    script = """
        driver=$1; shift
        cd /sys/bus/pci/devices
        for name; do
            [ "$(basename "$(readlink $name/driver)")" = "$driver" ] && continue
            echo "$driver" >$name/driver_override
            [ -e $name/driver ] && echo $name >$name/driver/unbind
            [ -z "$driver" ] || echo $name >/sys/bus/pci/drivers_probe
            [ "$(basename "$(readlink $name/driver)")" = "$driver" ] || exit 1
        done
    """
    host.run(["sh", "-c", script, "bind", driver, *names], check=True)


@contextmanager
def bound(host: Host, driver: str, *names: str) -> Iterator[None]:
    """The devices with another driver for a while."""
    bind(host, driver, *names)
    try:
        yield
    finally:
        bind(host, "vfio-pci", *names)


@contextmanager
def held_open(host: Host, path: str) -> Iterator[int]:
    """A process that has the file open."""
    started = host.run(["sh", "-c", f"sleep 300 <>{path} >/dev/null 2>&1 & echo $!"], check=True)
    pid = int(started.stdout)
    try:
        yield pid
    finally:
        host.run(["sh", "-c", f"kill {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.1; done"])
