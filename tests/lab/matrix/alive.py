"""Whether a guest that libvirt calls running is alive: its console goes on, its seconds are seconds, its MSIs come."""

import json
from dataclasses import dataclass

from tests.lab import guest
from tests.lab.host import Host

LEAST_SECONDS = 4.0
"""Watched by the host's clock where all is well."""
MOST_SECONDS = 12.0
"""Watched where the rate looks wrong: the longer, the less a delayed line weighs."""
SILENT_SECONDS = 40.0
"""After which a guest without a line is not alive; one whose clock is slow says less often that it lives."""
TOLERANCE = 0.15
"""Of the rate; hosts whose counters differ do so by much more."""

WATCH = f"""
import json, re, sys, time

LINE = re.compile(rb"^guest: ([0-9.]+) s(?:, ([0-9]+) MSIs)?\\r?$", re.MULTILINE)
start, seen, rate = time.monotonic(), [], None
with open(sys.argv[1], "rb") as console:
    console.seek(0, 2)
    console.readline()
    rest = b""
    while time.monotonic() < start + {SILENT_SECONDS}:
        rest += console.read()
        whole, newline, rest = rest.rpartition(b"\\n")
        for uptime, msis in LINE.findall(whole):
            seen.append((time.monotonic(), float(uptime), int(msis or -1)))
        if len(seen) > 1:
            passed = seen[-1][0] - seen[0][0]
            rate = (seen[-1][1] - seen[0][1]) / passed if passed else None
            if passed >= {MOST_SECONDS} or passed >= {LEAST_SECONDS} and abs(rate - 1) <= {TOLERANCE}:
                break
        time.sleep(0.05)
json.dump([len(seen), rate, seen[-1][2] - seen[0][2] if seen and seen[0][2] >= 0 else None], sys.stdout)
"""


@dataclass(frozen=True)
class Life:
    """What was seen of a guest on its console."""

    lines: int
    rate: float | None
    """Its seconds to one of the host; None with less than two lines."""
    msis: int | None
    """How many came meanwhile; None where it does not count them."""

    @property
    def fault(self) -> str:
        """What is wrong with it; empty where nothing is."""
        if self.rate is None:
            return "its console does not go on"
        if abs(self.rate - 1) > TOLERANCE:
            return f"a second of the guest takes {1 / self.rate:.2f} s" if self.rate else "its clock stands still"
        if self.msis == 0:
            return "its devices' MSIs no longer come"
        return ""


def watch(host: Host, name: str) -> Life:
    """Look at the console of a guest of this host for some seconds."""
    result = host.run(["python3", "-I", "-c", WATCH, guest.log(name)], check=True, timeout=SILENT_SECONDS + 30)
    return Life(*json.loads(result.stdout))
