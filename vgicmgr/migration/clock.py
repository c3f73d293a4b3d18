"""The counter that a guest reads: untrapped, at the host's frequency, and carried over by nobody.

Neither KVM nor QEMU looks at CNTFRQ_EL0 (``target/arm/kvm.c`` carries KVM_REG_ARM_TIMER_CNT alone), and Linux reads it
once, at its boot (``drivers/clocksource/arm_arch_timer.c``).
"""

from collections.abc import Iterator

from vgicmgr.findings import Finding, finding
from vgicmgr.host.counter import megahertz, same_frequency
from vgicmgr.migration.record import ABIRecord

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.migration.destination import Destination


def counter_frequency(record: ABIRecord, destination: "Destination") -> Iterator[Finding]:
    """Whether the guest's clock goes on at its pace; measured only where the record has something to compare with."""
    guests = record.counter_frequency
    if guests is None:
        yield finding(
            "counter-frequency-unknown",
            f"the ABI record does not tell the frequency of the guest's counter (CNTFRQ_EL0), {_READ_ONCE}: should it "
            "be another one here, the guest's clock runs wrong, and nothing else says so",
            "compare 'counter' in 'vgicmgr check-host' of this host and of the one that it was booted on, and use this "
            "version of vgicmgr there",
        )
        return
    here = destination.counter_frequency()
    if here is None:
        yield finding(
            "counter-frequency-unknown",
            f"the guest's counter ticks at {megahertz(guests)} (CNTFRQ_EL0), {_READ_ONCE}, and whether it does so on "
            "the destination is not known",
            "write the destination's document anew: vgicmgr check-host --format json",
        )
    elif not same_frequency(guests, here):
        yield finding(
            "counter-frequency",
            f"the guest was booted with a counter of {megahertz(guests)} (CNTFRQ_EL0), {_READ_ONCE}: with the "
            f"{megahertz(here)} of this host its clock would run {_pace(here / guests)}",
            f"use a host whose counter has {megahertz(guests)} (vgicmgr check-host), or boot the guest anew here",
        )


_READ_ONCE = "which it read once, at its boot"


def _pace(ratio: float) -> str:
    return f"{ratio:.3g} times as fast" if ratio > 1 else f"{1 / ratio:.3g} times as slow"
