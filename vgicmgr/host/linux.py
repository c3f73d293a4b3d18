"""What Linux tells of a host outside KVM's ioctls: uname, the CPUs' MIDR_EL1 in sysfs, the kernel log."""

import os
import re

from vgicmgr.host.capabilities import CoreType, KernelLog, Machine
from vgicmgr.host.cpus import CPUS, read_midrs

_KERNEL_LOG = "/dev/kmsg"
_RECORD_BYTES = 8192
"""No record of /dev/kmsg is longer (PRINTK_MESSAGE_MAX and prefix; a shorter buffer gets EINVAL)."""
_RECORDS = 20000
"""Enough for KVM's lines, which are written at boot; the log is bounded anyway."""


def read_machine() -> Machine:
    """The host below KVM."""
    names = os.uname()
    return Machine(names.machine, names.release, os.sysconf("SC_PAGE_SIZE"), read_core_types(), names.nodename)


def read_core_types(cpus: str = CPUS) -> tuple[CoreType, ...]:
    """The distinct MIDR_EL1 values of the CPUs online (``Documentation/arch/arm64/cpu-feature-registers.rst``)."""
    by_midr: dict[int, list[int]] = {}
    for number, midr in read_midrs(folder=cpus).items():
        by_midr.setdefault(midr, []).append(number)
    return tuple(CoreType(midr, tuple(sorted(numbers))) for midr, numbers in sorted(by_midr.items()))


def read_kernel_log(path: str = _KERNEL_LOG) -> KernelLog:
    """KVM's lines at its start and the timer's, in the kernel log; nothing where this user may not read it."""
    lines = []
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return KernelLog()
    try:
        for _ in range(_RECORDS):
            try:
                record = os.read(fd, _RECORD_BYTES)
            except BrokenPipeError:  # overtaken by new messages: the next read goes on after the gap
                continue
            except OSError:
                break
            if not record:
                break
            text = record.partition(b";")[2].decode(errors="replace")
            if text.startswith(("kvm [", "arch_timer: ")):
                lines.append(text)
                if "mode initialized successfully" in text:  # the last line of KVM's start
                    break
    finally:
        os.close(fd)
    return parse_kernel_log("\n".join(lines))


_MODE = re.compile(
    r"^kvm \[\d+\]: (?P<prefix>Protected |Hyp )?(?P<kind>VHE|nVHE|hVHE|Hyp)(\+\w+)? mode initialized", re.MULTILINE
)
_GICV4 = re.compile(r"^kvm \[\d+\]: GICv(?P<version>4(?:\.1)?) support (?P<state>enabled|disabled)", re.MULTILINE)

_COUNTER = re.compile(
    r"^arch_timer: cp15(?: and mmio)? timer(?:\(s\))? running at (?P<mhz>\d{1,5})\.(?P<hundredths>\d\d)MHz",
    re.MULTILINE | re.ASCII,
)


def parse_kernel_log(text: str) -> KernelLog:
    """KVM's mode and GICv4 setting, and the counter's frequency.

    Their lines are of arch/arm64/kvm/arm.c, vgic/vgic-v3.c and drivers/clocksource/arm_arch_timer.c
    (arch_timer_banner), Linux 6.1 to 7.2.
    """
    mode = None
    if found := _MODE.search(text):
        kind = "nVHE" if found["kind"] == "Hyp" else found["kind"]  # "Hyp mode" until Linux 6.4
        mode = f"protected {kind}" if found["prefix"] == "Protected " else kind
    gicv4 = _GICV4.search(text)
    counter = _COUNTER.search(text)
    return KernelLog(
        mode,
        gicv4["state"] == "enabled" if gicv4 else (False if mode else None),
        gicv4["version"] if gicv4 else None,
        (int(counter["mhz"]) * 100 + int(counter["hundredths"])) * 10_000 if counter else None,
    )
