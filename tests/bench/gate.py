"""What the gate costs: its verdicts on a start and an arrival, against Python with lxml, and where the time goes.

With how many of its modules and how many VMs each verdict takes.

``python3 -m tests.bench.gate`` measures on the arm64 KVM host it runs on, by the standard library alone; the record is
of that very host, so that the guest is let in.
"""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import VgicmgrError
from vgicmgr.host.kernel import Kernel
from vgicmgr.migration.record import to_xml
from vgicmgr.migration.writer import take_record

ROUNDS = 11
ROOT = Path(__file__).parents[2]
GUEST = ROOT / "xml" / "guest-gicv3.xml"
_PATH = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
_VERDICT = f"{_PATH}from vgicmgr.hook import main; status = main(['web1', '{{}}', 'begin', '-'])"
_EXIT = "; sys.exit(status)"
COMMANDS = {
    "python3 -I -c 'import lxml.etree'": "import lxml.etree",
    "python3 -I -c ''": "",
    "start: imports": f"{_PATH}import vgicmgr.hook, vgicmgr.guest.start",
    "start: verdict": _VERDICT.format("prepare") + _EXIT,
    "arrival: imports": f"{_PATH}import vgicmgr.hook, vgicmgr.migration.arrival",
    "arrival: verdict": _VERDICT.format("migrate") + _EXIT,
}
_COUNT = """
import vgicmgr.kvm.system as system
made, create = [], system.System.create_vm
system.System.create_vm = lambda self, *bits: made.append(1) or create(self, *bits)
"""
"""Run before a verdict, so that its VMs are counted."""
_PRINT = "; print(sum(m.startswith('vgicmgr') for m in sys.modules), len(made), file=sys.stderr)"


def incoming() -> bytes:
    """The domain XML of a guest that comes with its record; raises :class:`VgicmgrError`."""
    xml = GUEST.read_bytes()
    with Kernel() as host:
        record = take_record(read_domain(xml), host, libvirt="")
    return xml.replace(b"<memory ", f"<metadata>{to_xml(record)}</metadata><memory ".encode(), 1)


def seconds(code: str, stdin: bytes) -> float:
    """Wall-clock time of one run; raises :class:`VgicmgrError` when it fails."""
    started = time.perf_counter()
    run = subprocess.run([sys.executable, "-I", "-c", code], input=stdin, stderr=subprocess.PIPE, check=False)
    if run.returncode:
        raise VgicmgrError(run.stderr.decode(errors="replace").strip())
    return time.perf_counter() - started


def counts(operation: str, stdin: bytes) -> str:
    """How many modules of the package, and how many VMs, a verdict takes."""
    code = _PATH + _COUNT + _VERDICT.format(operation) + _PRINT
    run = subprocess.run([sys.executable, "-I", "-c", code], input=stdin, stderr=subprocess.PIPE, check=False)
    modules, vms = run.stderr.split()[-2:]
    return f"| {int(modules)} | {int(vms)} |"


def main() -> int:
    """Exit status: 2 where nothing can be judged."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    try:
        xml = incoming()
        for _ in range(ROUNDS):
            for name, code in COMMANDS.items():
                times[name].append(seconds(code, xml))
    except VgicmgrError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    reference = median(times["python3 -I -c 'import lxml.etree'"])
    print("| what | median | ratio |\n|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {1000 * median(found):.0f} ms | {median(found) / reference:.2f} |")
    print("\n| verdict | modules | VMs |\n|---|---|---|")
    print(f"| start {counts('prepare', xml)}\n| arrival {counts('migrate', xml)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
