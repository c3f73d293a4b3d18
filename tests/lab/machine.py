"""From a host's description to the outer QEMU's arguments. Pure."""

from dataclasses import dataclass
from pathlib import Path

from tests.lab.frames import PORT
from tests.lab.spec import HostSpec, Release

PROGRAM = "qemu-system-aarch64"

COMMAND_LINE = "console=ttyAMA0 loglevel=4 panic=-1 random.trust_cpu=on"
"""On a panic the kernel resets at once, which ends QEMU (``-no-reboot``)."""


@dataclass(frozen=True)
class Files:
    """The files a machine is started with, and the sockets it is reached by."""

    kernel: Path
    initramfs: Path
    root: Path
    guest_disk: Path
    agent_socket: Path
    console_socket: Path
    console_log: Path
    device_tree: Path | None = None
    """In place of the machine's own."""


@dataclass(frozen=True)
class Cable:
    """A cable between two hosts, seen from one: datagram sockets, so that neither must be there first."""

    here: Path
    there: Path


@dataclass(frozen=True)
class Link:
    """A host's network card and the cables on it: with several, it is on a hub with them."""

    cables: tuple[Cable, ...]
    mac: str


def machine(spec: HostSpec) -> str:
    """The ``-M`` argument."""
    options = ["virt", "virtualization=on", f"gic-version={spec.gic}"]
    if not spec.its:
        options.append("its=off")
    if spec.smmuv3:
        options.append("iommu=smmuv3")
    return ",".join(options)


def cpu(spec: HostSpec) -> str:
    """The ``-cpu`` argument."""
    options = [spec.cpu]
    if spec.cpu == "max":
        options.append("pauth-impdef=on")  # the architected algorithm is slow to emulate
        if spec.kernel_release is Release.BOOKWORM:
            options.append("lpa2=off")  # KVM of 6.1 lets guests die with "Unsupported FSC"
    if not spec.pmu:
        options.append("pmu=off")
    options += spec.cpu_options
    return ",".join(options)


def arguments(spec: HostSpec, files: Files, link: Link | None = None) -> list[str]:
    """The outer QEMU's argument list, the program's name first."""
    argv = [
        PROGRAM,
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-accel", "tcg,thread=multi,tb-size=256",
        "-M", machine(spec),
        "-cpu", cpu(spec),
        "-smp", str(spec.vcpus),
        "-m", str(spec.memory_mib),
        "-kernel", str(files.kernel),
        "-initrd", str(files.initramfs),
        "-append", " ".join((COMMAND_LINE, *spec.kernel_arguments)),
        "-chardev", f"socket,id=console,path={files.console_socket},server=on,wait=off,logfile={files.console_log}",
        "-serial", "chardev:console",
        "-device", "virtio-rng-pci",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=agent,path={files.agent_socket},server=on,wait=off",
        "-device", f"virtserialport,chardev=agent,name={PORT}",
        *_disk("root", files.root, "snapshot=on,cache=unsafe"),
        *_disk("guest", files.guest_disk, "readonly=on"),
    ]  # fmt: skip
    if link:
        for number, cable in enumerate(link.cables):
            ends = f"local.type=unix,local.path={cable.here},remote.type=unix,remote.path={cable.there}"
            argv += ["-netdev", f"dgram,id=cable{number},{ends}"]
            argv += ["-netdev", f"hubport,id=port{number},hubid=0,netdev=cable{number}"]
        argv += ["-netdev", "hubport,id=net,hubid=0"]
        argv += ["-device", f"virtio-net-pci,netdev=net,mac={link.mac},romfile="]
    if files.device_tree:
        argv += ["-dtb", str(files.device_tree)]
    for device in spec.devices:
        argv += ["-device", device]
    return argv


def _disk(serial: str, image: Path, options: str) -> list[str]:
    drive = f"if=none,id={serial},format=raw,file={image},{options}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
