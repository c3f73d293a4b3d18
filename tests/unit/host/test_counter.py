"""The counter's frequency, measured against a clock of the test's own."""

from typing import cast

import pytest

from vgicmgr.host.counter import Measurement, megahertz, same_frequency
from vgicmgr.kvm import uapi
from vgicmgr.kvm.vcpu import VCPU


class Time:
    """A clock in ns that moves on with each look at it, and a counter that ticks at ``frequency``."""

    def __init__(self, frequency: int, look: int = 1000, start: int = 0) -> None:
        self.now = 0
        self.frequency, self.look, self.start = frequency, look, start
        self.slept: list[float] = []

    def clock(self) -> int:
        self.now += self.look
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += int(seconds * 1e9)

    def get_register(self, number: int) -> int:
        assert number == uapi.KVM_REG_ARM_TIMER_CNT
        self.now += self.look
        return (self.start + self.now * self.frequency // 1_000_000_000) % (1 << 64)

    def measured(self, told: int | None = None) -> int | None:
        return self.measurement().frequency(told)

    def measurement(self) -> Measurement:
        return Measurement(cast("VCPU", self), clock=self.clock, sleep=self.sleep)


@pytest.mark.parametrize("frequency", [19_200_000, 24_000_000, 25_000_000, 62_500_000, 100_000_000, 1_000_000_000])
def test_measured(frequency: int) -> None:
    assert same_frequency(Time(frequency).measured() or 0, frequency)


def test_the_kernel_log_is_more_precise() -> None:
    assert Time(121_875_000).measured(told=121_870_000) == 121_870_000


def test_a_log_of_another_host_is_not_believed() -> None:
    """A guest that is itself a host may have a log line and a counter of the outer host."""
    assert same_frequency(Time(25_000_000).measured(told=62_500_000) or 0, 25_000_000)


def test_a_slow_host_is_given_more_time() -> None:
    time = Time(62_500_000, look=100_000)
    assert same_frequency(time.measured() or 0, 62_500_000)
    assert len(time.slept) > 1


def test_a_counter_that_wraps() -> None:
    assert same_frequency(Time(1_000_000_000, start=(1 << 64) - 10_000_000).measured() or 0, 1_000_000_000)


def test_a_clock_that_stands_still_ends() -> None:
    assert Measurement(cast("VCPU", Time(1)), clock=lambda: 0, sleep=lambda seconds: None).frequency() == 0


def test_a_host_that_is_too_busy_gives_no_frequency_rather_than_a_wrong_one() -> None:
    """Two readings that may each be off by milliseconds tell nothing of 20 ms."""
    assert Time(62_500_000, look=2_000_000).measured() is None


@pytest.mark.parametrize("good", [0, 7, 39])
def test_one_reading_that_nothing_comes_between_is_enough(good: int) -> None:
    """At each end of the measurement."""

    class Busy(Time):
        looks = 0

        def get_register(self, number: int) -> int:
            before = self.now
            count = super().get_register(number)
            if self.looks % 40 != good:
                self.now = before + 3_000_000
            self.looks += 1
            return count

    assert same_frequency(Busy(62_500_000).measured() or 0, 62_500_000)


@pytest.mark.parametrize(("meanwhile", "slept"), [(0.005, 15), (0.019, 1), (0.02, 0), (3, 0)])
def test_only_what_is_missing_of_20_ms_is_slept(meanwhile: float, slept: int) -> None:
    time = Time(62_500_000)
    begun = time.measurement()
    time.now += int(meanwhile * 1e9)
    assert same_frequency(begun.frequency() or 0, 62_500_000)
    assert [round(seconds * 1000) for seconds in time.slept] == ([slept] if slept else [])


def test_a_frequency_in_words_is_as_the_kernel_log_has_it() -> None:
    assert [megahertz(hz) for hz in (19_200_000, 62_500_000, 121_870_000, 1_000_000_000)] == (
        ["19.20 MHz", "62.50 MHz", "121.87 MHz", "1000.00 MHz"]
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (62_500_000, 62_500_000, True),
        (121_870_000, 121_880_000, True),
        (24_000_000, 25_000_000, False),
        (120_000_000, 121_875_000, False),
    ],
)
def test_frequencies_of_one_and_of_two_hosts(one: int, other: int, same: bool) -> None:
    assert same_frequency(one, other) is same
    assert same_frequency(other, one) is same
