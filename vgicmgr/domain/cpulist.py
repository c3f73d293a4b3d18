"""Which host CPUs a domain is pinned to, by ``<vcpu cpuset>``, ``<vcpupin>`` and ``<emulatorpin>``. Pure."""

from vgicmgr.domain.domain import Domain

MAX_CPUS = 16384
"""More than any host has (NR_CPUS)."""


def read_cpu_list(text: str) -> frozenset[int]:
    """The CPUs of a list such as ``0-3,^2``; raises :class:`ValueError` for what libvirt refuses (virBitmapParse)."""
    cpus: set[int] = set()
    for word in text.split(","):
        first, dash, last = word.strip().partition("-")
        if first.startswith("^"):
            if dash:
                raise ValueError("a range cannot be taken out")
            cpus.discard(_number(first[1:]))
            continue
        low, high = _number(first), _number(last if dash else first)
        if low > high:
            raise ValueError("a range ends before it begins")
        cpus.update(range(low, high + 1))
    if not cpus:
        raise ValueError("no CPU is left")
    return frozenset(cpus)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < MAX_CPUS):
        raise ValueError("a CPU is a number")
    return int(text)


def vcpu_cpus(domain: Domain) -> frozenset[int]:
    """The CPUs that the domain's vCPUs may run on; empty where that is any, or what is said of it cannot be read."""
    pins = dict(domain.vcpu_pins)
    lists = {pins.get(number) or domain.cpuset for number in range(domain.vcpus)}
    return _union(lists)


def emulator_cpus(domain: Domain) -> frozenset[int]:
    """Those that QEMU itself may run on, and its vCPUs until libvirt pins them (qemuProcessInitCpuAffinity)."""
    return _union({domain.emulator_pin or domain.cpuset})


def _union(lists: set[str]) -> frozenset[int]:
    try:
        return frozenset().union(*map(read_cpu_list, lists))
    except ValueError:
        return frozenset()
