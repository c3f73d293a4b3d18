"""How fast the counter of the generic timer ticks, which a guest reads untrapped and believes for its whole life.

KVM tells neither CNTFRQ_EL0 nor traps it; the counter's value it tells (KVM_REG_ARM_TIMER_CNT). Linux reads the
frequency at its boot (``drivers/clocksource/arm_arch_timer.c``), so a guest's time is wrong on a host of another one.
"""

import time
from collections.abc import Callable

from vgicmgr.kvm import uapi
from vgicmgr.kvm.vcpu import VCPU

_WAIT = 0.02
_LONGEST_WAIT = 0.64
_PRECISION = 1e-3
_READINGS = 5
_UNIT = 10_000
"""In Hz: what the kernel log's line is precise to."""
TOLERANCE = 5e-3
"""How far two measurements of one frequency may be apart; known frequencies differ by more (120 and 122 MHz)."""


def measure(
    vcpu: VCPU,
    told: int | None = None,
    *,
    clock: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW),
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """The frequency in Hz: ``told``, what the kernel log says, where it agrees with the counter; else as measured.

    Raises :class:`~vgicmgr.kvm.errors.KvmError`.
    """
    wait = _WAIT
    before, start, unsure_before = _reading(vcpu, clock)
    while True:
        sleep(wait)
        after, end, unsure_after = _reading(vcpu, clock)
        elapsed = max(end - start, 1)
        if (unsure_before + unsure_after) / elapsed < _PRECISION or wait >= _LONGEST_WAIT:
            break
        wait *= 2
    measured = round((after - before & _ALL_BITS) * 1_000_000_000 / elapsed)
    if told and same_frequency(told, measured):
        return told
    return round(measured / _UNIT) * _UNIT or measured


def same_frequency(one: int, other: int) -> bool:
    """Whether two frequencies are one, measured twice."""
    return abs(one - other) <= TOLERANCE * max(one, other)


def _reading(vcpu: VCPU, clock: Callable[[], int]) -> tuple[int, int, int]:
    """The counter, when that was, and how far that may be off; in ns."""
    readings = []
    for _ in range(_READINGS):
        start = clock()
        count = vcpu.get_register(uapi.KVM_REG_ARM_TIMER_CNT)
        end = clock()
        readings.append((count, (start + end) // 2, end - start))
    return min(readings, key=lambda reading: reading[2])


_ALL_BITS = (1 << 64) - 1
