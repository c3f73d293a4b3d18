"""A running host: commands in it, files to and from it, its libvirtd, its console."""

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import command, devicetree, initramfs
from tests.lab.connection import AGENT_SOCKET, CONSOLE_LOG, CONSOLE_SOCKET, QEMU_LOG, Connection, Result
from tests.lab.errors import LabError, Prerequisite
from tests.lab.kernel import kernel
from tests.lab.machine import PROGRAM, Files, Link, arguments, machine
from tests.lab.qemus import Qemu, qemu
from tests.lab.root import root
from tests.lab.spec import HostSpec

__all__ = ["Host", "Network", "Result", "checkout", "outer_cpus", "outer_qemu_has_cpu", "require"]

BOOT_SECONDS = 120.0
"""Measured: 3 to 6; a machine under load needs longer."""

LIBVIRTD_SECONDS = 180.0
CHECKOUT = Path(__file__).parents[2]
INITRAMFS = "initramfs.cpio"
IN_HOST = "/opt/vgicmgr"
"""Where the checkout lies in a host; on its PYTHONPATH."""


@dataclass(frozen=True)
class Network:
    """A host's place on the cable: its address and the names it knows."""

    link: Link
    address: str
    hosts: Mapping[str, str]
    """Addresses by name, for /etc/hosts."""


class Host(Connection):
    """A host's QEMU and the connection to the agent in it; a context manager.

    :meth:`spawn` returns while it boots, :meth:`wait` when the agent answers; :meth:`start` is both.
    """

    def __init__(self, spec: HostSpec, name: str, folder: Path, qemu: subprocess.Popen[bytes]) -> None:
        super().__init__(folder, name, qemu)
        self.spec = spec
        self._qemu = qemu

    @classmethod
    def spawn(cls, spec: HostSpec, name: str = "host", network: Network | None = None) -> Self:
        """Start the host's QEMU, building first what is not in the cache; raises Prerequisite, BuildError."""
        require(spec)
        built, image = kernel(spec.kernel_release, spec.page_kib), root(spec.userland)
        folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))  # a short path: sockets allow 107 characters
        settings = {
            "NAME": name,
            "UUID": str(uuid.uuid4()),
            "ADDRESS": network.address if network else "",
            "HOSTS": "".join(f"{address} {host}\\n" for host, address in network.hosts.items()) if network else "",
        }
        files = Files(
            kernel=built.image,
            initramfs=folder / INITRAMFS,
            root=image,
            guest_disk=built.guest_disk,
            agent_socket=folder / AGENT_SOCKET,
            console_socket=folder / CONSOLE_SOCKET,
            console_log=folder / CONSOLE_LOG,
        )
        files.initramfs.write_bytes(built.initramfs.read_bytes() + initramfs.for_boot(settings))
        outer = qemu(spec.outer) if spec.outer else Qemu((PROGRAM,))
        if not spec.vgic:
            files = replace(files, device_tree=_without_vgic(spec, files, outer))
        _, *argv = arguments(spec, files, network.link if network else None)
        with (folder / QEMU_LOG).open("wb") as log:
            process = subprocess.Popen(
                # QEMU dies with the thread that started it, however that ends.
                ["setpriv", "--pdeathsig", "KILL", *outer.command, *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **dict(outer.environment), "TMPDIR": str(folder)},
                start_new_session=True,
            )
        return cls(spec, name, folder, process)

    @classmethod
    def start(cls, spec: HostSpec, name: str = "host", network: Network | None = None) -> Self:
        """A host that answers, with the checkout in it."""
        host = cls.spawn(spec, name, network)
        try:
            host.wait()
        except BaseException:
            host.close()
            raise
        return host

    def wait(self) -> None:
        """Wait until the agent answers, then bring the checkout in."""
        self.run(["true"], timeout=BOOT_SECONDS)
        (self.folder / INITRAMFS).unlink(missing_ok=True)  # QEMU has it in memory
        self.push_checkout()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the host at once; nothing of it stays."""
        self.disconnect()
        self._qemu.kill()
        self._qemu.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def push_checkout(self) -> None:
        """Put this git checkout into the host, its Python compiled once; what was there of it before goes."""
        self.push("/run/checkout.tar", checkout())
        self.run(
            ["sh", "-c", f"rm -rf {IN_HOST} && mkdir -p {IN_HOST} && tar -xf /run/checkout.tar -C {IN_HOST} && "
             f"rm /run/checkout.tar && python3 -m compileall -q {IN_HOST}/vgicmgr"],
            check=True,
        )  # fmt: skip

    def start_libvirtd(self) -> None:
        """Start libvirtd unless it runs, and wait until it has probed its QEMU and answers."""
        self.run(["sh", "-c", "pgrep -x libvirtd >/dev/null || libvirtd --daemon --listen"], check=True)
        self.run(["virsh", "version"], timeout=LIBVIRTD_SECONDS, check=True)

    def reload_libvirtd(self) -> None:
        """SIGHUP: libvirtd reloads its drivers' state; returns when it answers again."""
        self.run(["pkill", "-HUP", "-x", "libvirtd"], check=True)
        self.run(["virsh", "version"], timeout=LIBVIRTD_SECONDS, check=True)

    def show_hooks(self) -> None:
        """Have libvirtd see the hooks that are there now: it looks for them when it starts, and on SIGHUP."""
        if self.run(["pgrep", "-x", "libvirtd"]).exit_code == 0:
            self.reload_libvirtd()
        else:
            self.start_libvirtd()

    def stop_libvirtd(self) -> None:
        """End libvirtd, unless it does not run; guests live on."""
        script = "pkill -x libvirtd; while pgrep -x libvirtd >/dev/null; do sleep 0.1; done"
        self.run(["sh", "-c", script], timeout=30, check=True)


def _without_vgic(spec: HostSpec, files: Files, outer: Qemu) -> Path:
    """The device tree that QEMU makes of the host, without the GIC's maintenance interrupt."""
    tree = files.initramfs.with_name("devicetree")
    link = None  # the network card is on PCIe, of which the tree shows the bridge alone
    _, *argv = arguments(spec, files, link)
    argv[argv.index("-M") + 1] = f"{machine(spec)},dumpdtb={tree}"
    done = outer.run(*argv)
    if not tree.exists():
        raise LabError(f"QEMU wrote no device tree: {done.stderr.strip()}")
    tree.write_bytes(devicetree.without(tree.read_bytes(), "intc", "interrupts"))
    return tree


@cache
def outer_cpus() -> frozenset[str]:
    """The CPU models of this machine's QEMU."""
    return frozenset(re.findall(r"^ +(\S+)", command.call(PROGRAM, "-M", "virt", "-cpu", "help"), re.MULTILINE))


def outer_qemu_has_cpu(name: str) -> bool:
    """Whether a host with this CPU model can be had on this machine."""
    return name in outer_cpus()


def require(spec: HostSpec) -> None:
    """Raise :class:`Prerequisite` unless this machine can run the host."""
    command.require()
    if not spec.outer and not outer_qemu_has_cpu(spec.cpu):
        raise Prerequisite(f"this machine's {PROGRAM} has no CPU model {spec.cpu}: a newer QEMU is needed")


def checkout() -> bytes:
    """The checkout's tracked files, and the untracked ones that git does not ignore, as a tar archive."""
    listing = command.call("git", "-C", CHECKOUT, "ls-files", "-z", "-co", "--exclude-standard")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in sorted(set(listing.split("\0")) - {""}):
            if (CHECKOUT / name).exists():
                tar.add(CHECKOUT / name, arcname=name, recursive=False)
    return stream.getvalue()
