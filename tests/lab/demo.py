"""``make demo``: check-host, a domain that fits and one that the hook refuses, on a real arm64 kernel.

On an arm64 machine with /dev/kvm that machine's kernel is asked, with a libvirtd of the demonstration's own in a mount
namespace, so that the machine's libvirt is left alone; elsewhere a host of the lab is booted.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.domains import Guest
from tests.lab.errors import LabError

FITS = Guest("fits", gic="<gic version='3'/>")
DOES_NOT_FIT = Guest("does-not-fit", gic="<gic version='2'/>", vcpus=16)
"""16 vCPUs are more than any GICv2 has, so this one is refused on every host."""

PRIVATE = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/run/libvirt", "/opt")
"""What the demonstration's own libvirtd gets empty; the package is copied to /opt, where only root can change it."""

QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
namespaces = []
stdio_handler = "file"
"""


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and its exit status."""

    text: str
    status: int


Run = Callable[[Sequence[str]], Outcome]


def show(run: Run, shown: str, *, expected: Sequence[int] = (0,)) -> None:
    """Run a command and print it as it would look in a terminal; raises LabError on another exit status."""
    argv = shlex.split(shown)
    print(f"\n$ {shown}", flush=True)
    outcome = run(["python3", "-m", "vgicmgr.cli", *argv[1:]] if argv[0] == "vgicmgr" else argv)
    print(outcome.text, end="", flush=True)
    if outcome.status not in expected:
        raise LabError(f"'{shown}' ended with {outcome.status}")


def demonstrate(run: Run, start_libvirtd: Callable[[], None]) -> None:
    """The main job, step by step."""
    show(run, "vgicmgr check-host", expected=(0, 1))
    show(run, "vgicmgr hook install")
    print("\n(starting libvirtd)", flush=True)
    start_libvirtd()
    print("\n# A domain that fits, with <gic version='3'/>, starts:")
    show(run, "virsh create /tmp/fits.xml")
    show(run, "virsh list")
    show(run, "virsh destroy fits")
    print("\n# One that does not, with <gic version='2'/> and 16 vCPUs, is refused by the hook before QEMU is started:")
    show(run, "virsh create /tmp/does-not-fit.xml", expected=(1,))


def emulated() -> None:
    """In a host of the lab."""
    from tests.lab.host import Host
    from tests.lab.spec import HOSTS

    print("This machine is no arm64 KVM host: booting an emulated one (Debian trixie, Neoverse N1).", flush=True)
    started = time.monotonic()
    with Host.start(HOSTS["trixie"], "demo") as host:
        print(f"The host is up after {time.monotonic() - started:.0f} s.", flush=True)
        for guest in (FITS, DOES_NOT_FIT):
            host.push(f"/tmp/{guest.name}.xml", guest.xml())

        def run(argv: Sequence[str]) -> Outcome:
            result = host.run(argv)
            return Outcome(result.stdout + result.stderr, result.exit_code)

        demonstrate(run, host.start_libvirtd)


def on_this_machine() -> None:
    """Under this machine's kernel, as root in a mount namespace; comes back as :func:`in_namespace`."""
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    command = [*prefix, "unshare", "--mount", sys.executable, "-m", "tests.lab.demo", "--in-namespace"]
    sys.exit(subprocess.run(command, check=False).returncode)


def in_namespace() -> None:
    """With a libvirtd that sees nothing of the machine's own."""
    package = Path(__file__).parents[2] / "vgicmgr"
    copied = Path(tempfile.mkdtemp(dir="/run")) / "vgicmgr"
    shutil.copytree(package, copied)
    for folder in PRIVATE:
        Path(folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "demo", folder], check=True)
    shutil.move(copied, "/opt/demo/vgicmgr")
    copied.parent.rmdir()
    Path("/etc/libvirt/qemu.conf").write_text(QEMU_CONF)
    for guest in (FITS, DOES_NOT_FIT):
        Path(f"/tmp/{guest.name}.xml").write_text(guest.xml())
    daemon: list[subprocess.Popen[bytes]] = []

    def run(argv: Sequence[str]) -> Outcome:
        environment = {**os.environ, "PYTHONPATH": "/opt/demo"}
        done = subprocess.run(
            argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, cwd="/", check=False
        )
        return Outcome(done.stdout, done.returncode)

    def start_libvirtd() -> None:
        daemon.append(subprocess.Popen(["libvirtd"], stderr=subprocess.DEVNULL))
        deadline = time.monotonic() + 60
        while run(["virsh", "version"]).status:
            if time.monotonic() > deadline:
                raise LabError("libvirtd does not answer")
            time.sleep(0.2)

    try:
        demonstrate(run, start_libvirtd)
    finally:
        run(["virsh", "destroy", FITS.name])
        for process in daemon:
            process.terminate()
            process.wait()


def main() -> int:
    """Exit status: 0 when every step did what it should."""
    try:
        if sys.argv[1:] == ["--in-namespace"]:
            in_namespace()
        elif os.uname().machine == "aarch64" and Path("/dev/kvm").exists():
            on_this_machine()
        else:
            emulated()
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
