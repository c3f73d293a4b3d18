"""How the cost of a rehearsal grows with the number of vCPUs: timed in turns in one run; only ratios count.

``python3 -m tests.bench.rehearsal`` measures on the arm64 KVM host it runs on, by the standard library alone.
"""

import sys
import time
from collections.abc import Iterable
from statistics import median

from tests.lab.rehearsals import gicv3
from vgicmgr.errors import VgicmgrError
from vgicmgr.guest.plan import call_plan, representative_vcpus
from vgicmgr.guest.scratch import rehearse
from vgicmgr.kvm.system import System

ROUNDS = 7
VCPUS = (1, 2, 8, 64, 123, 124, 512)


def milliseconds(system: System, vcpus: int, chosen: Iterable[int] | None) -> float:
    """Wall-clock time of one rehearsal, plan included."""
    started = time.perf_counter()
    scratch = rehearse(call_plan(gicv3(vcpus), vcpus=chosen), system)
    took = time.perf_counter() - started
    if scratch.error:
        raise scratch.error
    return 1000 * took


def main() -> int:
    """Exit status: 2 where nothing can be rehearsed."""
    kinds = [(vcpus, whole) for vcpus in VCPUS for whole in (False, True)]
    times: dict[tuple[int, bool], list[float]] = {kind: [] for kind in kinds}
    try:
        with System() as system:
            for _ in range(ROUNDS):
                for vcpus, whole in kinds:
                    chosen = None if whole else representative_vcpus(gicv3(vcpus))
                    times[vcpus, whole].append(milliseconds(system, vcpus, chosen))
    except VgicmgrError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    one = median(times[1, False])
    print("| rehearsal of a GICv3 with ITS and PMU | first and last vCPU | all vCPUs |")
    print("|---|---|---|")
    for vcpus in VCPUS:
        few, every = (median(times[vcpus, whole]) / one for whole in (False, True))
        print(f"| {vcpus} vCPU{'s' * (vcpus > 1)} | {few:.1f} x | {every:.1f} x |")
    print(f"\nx: times the rehearsal with 1 vCPU; medians of {ROUNDS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
