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
_PRECISION = 4e-3
"""Of a measurement: how long its two readings took, to the time between them. The error is half of it at most."""
_READINGS = 40
_SHORT = 10_000
"""A reading of so many ns is good enough; on a busy host most take longer, since something comes between."""
_SECOND = 1_000_000_000
_UNIT = 10_000
"""In Hz: what the kernel log's line is precise to."""
TOLERANCE = 5e-3
"""How far two measurements of one frequency may be apart; known frequencies differ by more (120 and 122 MHz)."""


class Measurement:
    """A measurement that has begun: what is done between its two readings is time that nobody waits for.

    Until the second one, KVM_REG_ARM_TIMER_CNT must not be written and no vCPU be made in the VM: the kernel starts the
    VM's counter anew with each (``arch/arm64/kvm/arch_timer.c``, kvm_timer_vcpu_init).
    """

    def __init__(
        self,
        vcpu: VCPU,
        *,
        clock: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the first reading; raises :class:`~vgicmgr.kvm.errors.KvmError`."""
        self._vcpu, self._clock, self._sleep = vcpu, clock, sleep
        self._before, self._start, self._unsure = _reading(vcpu, clock)

    def frequency(self, told: int | None = None) -> int | None:
        """In Hz: ``told``, what the kernel log says, where it agrees with the counter; else as measured.

        None where the host is too busy to measure it. Sleeps as long as the two readings are too near to each other.
        Raises :class:`~vgicmgr.kvm.errors.KvmError`.
        """
        wait = _WAIT
        while True:
            if (missing := wait - (self._clock() - self._start) / _SECOND) > 0:
                self._sleep(missing)
            after, end, unsure = _reading(self._vcpu, self._clock)
            elapsed = max(end - self._start, 1)
            if (self._unsure + unsure) / elapsed < _PRECISION:
                break
            if wait >= _LONGEST_WAIT:
                return None
            wait *= 2
        measured = round((after - self._before & _ALL_BITS) * _SECOND / elapsed)
        if told and same_frequency(told, measured):
            return told
        return round(measured / _UNIT) * _UNIT or measured


def measure(vcpu: VCPU, told: int | None = None) -> int | None:
    """The frequency as :class:`Measurement` tells it, with nothing done meanwhile."""
    return Measurement(vcpu).frequency(told)


def same_frequency(one: int, other: int) -> bool:
    """Whether two frequencies are one, measured twice."""
    return abs(one - other) <= TOLERANCE * max(one, other)


def megahertz(frequency: int) -> str:
    """As the kernel log shows a frequency (``drivers/clocksource/arm_arch_timer.c``, arch_timer_banner)."""
    return f"{frequency // 1_000_000}.{frequency // _UNIT % 100:02} MHz"


def _reading(vcpu: VCPU, clock: Callable[[], int]) -> tuple[int, int, int]:
    """The counter, when that was, and how far that may be off; in ns."""
    readings = []
    for _ in range(_READINGS):
        start = clock()
        count = vcpu.get_register(uapi.KVM_REG_ARM_TIMER_CNT)
        end = clock()
        readings.append((count, (start + end) // 2, end - start))
        if end - start <= _SHORT:
            break
    return min(readings, key=lambda reading: reading[2])


_ALL_BITS = (1 << 64) - 1
