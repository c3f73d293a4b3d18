"""How many vCPUs and how much memory QEMU gives a domain whose arguments change them (-smp, -m)."""

from vgicmgr.domain.domain import Domain
from vgicmgr.qemu.arguments import ArgumentError, Arguments, number, printable, size

_TOPOLOGY = ("drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads")


def vcpus(domain: Domain, arguments: Arguments) -> tuple[int, int]:
    """Those that exist at boot, and the most there can be (machine_parse_smp_config); raises ArgumentError.

    libvirt writes both, and a topology of the most; the arguments' ``-smp`` is merged with that.
    """
    given = {name: number(name, value) for name, value in arguments.smp}
    if unknown := given.keys() - {"cpus", "maxcpus", *_TOPOLOGY}:
        raise ArgumentError(f"QEMU has no '{printable(min(unknown))}' in -smp")
    cpus = given.get("cpus") or domain.current_vcpus
    most = given.get("maxcpus") or domain.vcpus
    if cpus > most:
        raise ArgumentError("QEMU expects no more vCPUs in -smp than maxcpus")
    return cpus, most


def memory(domain: Domain, arguments: Arguments) -> tuple[int, int, int]:
    """Size, largest size (0: nothing can be plugged) and slots, as ``-m`` changes them (parse_memory_options).

    Sizes in bytes; QEMU rounds the first up to 8 KiB. Raises ArgumentError.
    """
    given = dict(arguments.memory)
    base = size("size", given["size"]) if "size" in given else domain.memory
    key = "maxmem" if "maxmem" in given else "max-size"
    most = size(key, given[key]) if key in given else domain.max_memory
    slots = number("slots", given["slots"]) if "slots" in given else domain.memory_slots
    rounded = (base + 8191) // 8192 * 8192
    if most and most < rounded:
        raise ArgumentError("QEMU expects maxmem in -m to be the memory or more")
    return rounded, most, slots
