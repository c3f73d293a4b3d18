"""The lab by hand: emulated arm64 hosts with KVM and libvirtd.

A HOST is a name that ``list`` shows, or the folder of a host that ``pair`` or ``shell`` has running.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.cache import directory, progress
from tests.lab.connection import CONSOLE_SOCKET, Connection
from tests.lab.debian import headers
from tests.lab.errors import LabError
from tests.lab.host import Host, outer_qemu_has_cpu
from tests.lab.kernel import kernel
from tests.lab.machine import cpu, machine
from tests.lab.pair import Pair
from tests.lab.root import root
from tests.lab.spec import HOSTS, HostSpec, Release
from tests.lab.terminal import attach

LONG_SECONDS = 86400.0
"""Somebody is watching, who has Ctrl-C."""


def main() -> int:
    """Exit code: the command's for ``run`` (128 + n for signal n), 2 when the lab itself fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m tests.lab run trixie -- virt-host-validate qemu",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, action: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(action=action)
        return added

    verb("list", list_hosts, "show the hosts that have a name")
    verb("build", build, "build all that hosts are made of, ahead of time")
    run_parser = verb("run", run, "run one command in a host; its exit code is the exit code")
    run_parser.add_argument("host", metavar="HOST")
    run_parser.add_argument("argv", nargs="+", metavar="COMMAND")
    verb("shell", shell, "a shell on a host's console").add_argument("host", metavar="HOST")
    pair_parser = verb("pair", pair, "keep two hosts joined for migrations (h1, h2) running until Ctrl-C")
    for name in ("first", "second"):
        pair_parser.add_argument(name, metavar="HOST", type=named)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        arguments = parser.parse_args()
        code: int = arguments.action(arguments)
    except (LabError, OSError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return code


def named(name: str) -> HostSpec:
    """The host with this name."""
    if name not in HOSTS:
        raise LabError(f"no host is named {name}; there are {', '.join(HOSTS)}")
    return HOSTS[name]


@contextmanager
def reached(host: str) -> Iterator[Connection]:
    """A new host, ended afterwards, or one that is running, left alone."""
    if "/" in host:
        if not (Path(host) / CONSOLE_SOCKET).is_socket():
            raise LabError(f"no host is running in {host}")
        yield Connection(Path(host), Path(host).name)
    else:
        with Host.start(named(host), host) as started:
            yield started


def list_hosts(_: argparse.Namespace) -> int:
    """``list``."""
    for name, spec in HOSTS.items():
        lacking = "" if outer_qemu_has_cpu(spec.cpu) else "  (this machine's QEMU lacks the CPU)"
        kind = f"{spec.userland:9} kernel of {spec.kernel_release:9}"
        print(f"{name:15} {kind} -M {machine(spec)} -cpu {cpu(spec)}{lacking}")
    print(f"cache: {directory()}")
    return 0


def build(_: argparse.Namespace) -> int:
    """``build``."""
    for release in Release:
        version = kernel(release).version
        root(release)
        headers(release)
        progress(f"{release}: ready, kernel {version}")
    return 0


def run(arguments: argparse.Namespace) -> int:
    """``run``."""
    stdin = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
    with reached(arguments.host) as host:
        result = host.run(arguments.argv, stdin=stdin, timeout=LONG_SECONDS)
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    return result.exit_code if result.exit_code >= 0 else 128 - result.exit_code


def shell(arguments: argparse.Namespace) -> int:
    """``shell``."""
    with reached(arguments.host) as host:
        attach(host.folder / CONSOLE_SOCKET)
    return 0


def pair(arguments: argparse.Namespace) -> int:
    """``pair``."""
    with Pair.start(arguments.first, arguments.second) as hosts:
        hosts.start_libvirtd()
        for host in (hosts.first, hosts.second):
            host.disconnect()
            print(f"{host.name}: python -m tests.lab run {host.folder} -- virsh list")
            print(f"    python -m tests.lab shell {host.folder}")
        print("migrate: virsh migrate --live GUEST qemu+tcp://h2/system in h1; Ctrl-C ends both", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
