"""What the gate costs: its verdict on a guest that arrives, against Python with lxml, and where the time goes.

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
COMMANDS = {
    "python3 -I -c 'import lxml.etree'": "import lxml.etree",
    "python3 -I -c ''": "",
    "imports": f"{_PATH}import vgicmgr.hook, vgicmgr.migration.arrival",
    "verdict": f"{_PATH}from vgicmgr.hook import main; sys.exit(main(['web1', 'migrate', 'begin', '-']))",
}


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
    return 0


if __name__ == "__main__":
    sys.exit(main())
