"""What vgicmgr costs beside what one has anyway: pairs of commands, timed in turns in one run; only ratios count.

``python3 -m tests.bench.ratios`` measures on the machine it runs on, by the standard library alone.
"""

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from vgicmgr import dropin

ROUNDS = 15
GUEST = Path(__file__).parents[2] / "xml" / "guest-gicv3.xml"


@dataclass(frozen=True)
class Pair:
    """What is measured, and what it is measured against; ``aim`` is the ratio not to exceed, if there is one."""

    name: str
    command: tuple[str, ...]
    reference_name: str
    reference: tuple[str, ...]
    aim: float | None = None
    stdin: bytes = b""


def pairs(hook: str) -> list[Pair]:
    """The pairs that can be measured on this machine; ``hook`` is the path of the hook."""
    python = "/usr/bin/python3"
    check_host = (python, "-m", "vgicmgr.cli", "check-host")
    arguments = ("guest", "begin", "-")
    found = [
        Pair(
            "hook, nothing to decide (stopped)",
            (hook, arguments[0], "stopped", *arguments[1:]),
            "sh -c :",
            ("sh", "-c", ":"),
            1.5,
        )
    ]
    if os.uname().machine == "aarch64":
        import_lxml = (python, "-I", "-c", "import lxml.etree")
        domcapabilities = ("virsh", "domcapabilities", "--virttype", "kvm", "--machine", "virt")
        prepare = (hook, arguments[0], "prepare", *arguments[1:])
        found += [
            Pair(
                "hook, prepare",
                prepare,
                "python3 -I -c 'import lxml.etree'",
                import_lxml,
                1.6,
                GUEST.read_bytes(),
            ),
            Pair(
                "check-host",
                check_host,
                "virsh domcapabilities (warm)",
                domcapabilities,
                1.0,
            ),
            Pair("check-host", check_host, "virt-host-validate qemu", ("virt-host-validate", "qemu"), 1.0),
            Pair("Python alone", (python, "-I", "-c", ""), "virsh domcapabilities (warm)", domcapabilities),
        ]
    else:
        found.append(
            Pair(
                "hook, prepare (no arm64 host: ends in the shell)",
                (hook, arguments[0], "prepare", *arguments[1:]),
                "sh -c :",
                ("sh", "-c", ":"),
                1.5,
                GUEST.read_bytes(),
            )
        )
    return [pair for pair in found if shutil.which(pair.reference[0])]


def seconds(command: tuple[str, ...], stdin: bytes) -> float:
    """Wall-clock time of one run; its exit status does not matter here."""
    started = time.perf_counter()
    subprocess.run(command, input=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - started


def measure(pair: Pair) -> str:
    """One row of the table: both medians and their ratio."""
    times = [(seconds(pair.command, pair.stdin), seconds(pair.reference, b"")) for _ in range(ROUNDS + 1)][1:]
    ours, theirs = median(first for first, _ in times), median(second for _, second in times)
    return (
        f"| {pair.name} | `{pair.reference_name}` | {ours * 1000:.1f} ms | {theirs * 1000:.1f} ms "
        f"| {ours / theirs:.2f} | {pair.aim or '-'} |"
    )


def main() -> None:
    """Print the table."""
    print("| what | against | median | median | ratio | aim |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.NamedTemporaryFile("w", suffix="-hook", delete=False) as file:
        file.write(dropin.script())
    try:
        Path(file.name).chmod(0o755)
        for pair in pairs(file.name):
            print(measure(pair), flush=True)
    finally:
        Path(file.name).unlink()


if __name__ == "__main__":
    main()
