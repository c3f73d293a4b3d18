"""Whether the destination's QEMU takes the state of the guest's emulated devices, as far as it is known of versions."""

from collections.abc import Iterator

from vgicmgr.domain.domain import EmulatedDevice
from vgicmgr.findings import Finding, finding
from vgicmgr.guest.machine import Machine
from vgicmgr.migration.record import ABIRecord
from vgicmgr.qemu.breaks import BREAKS, Break, Certainty, Release, release_of, seen_together, with_short_queues

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.guest.resolve import Resolution


def device_state(record: ABIRecord, resolution: "Resolution") -> Iterator[Finding]:
    """What is known against the guest's devices, or that nothing is known of them; nothing without such devices."""
    machine = resolution.machine
    if machine is None:
        return
    devices = (*resolution.domain.devices.emulated, *_of_arguments(machine))
    if not devices:
        return
    booted, sender = release_of(record.qemu), release_of(record.sender_qemu or record.qemu)
    here = release_of(machine.qemu.release) or machine.qemu.version
    if booted is None or sender is None or here is None:
        yield _not_seen(devices, sender, here)
        return
    kinds = with_short_queues(devices)
    for known in BREAKS:
        certainty = known.certainty(booted, sender, here) if kinds else Certainty.NONE
        if certainty is Certainty.KNOWN:
            yield _broken(known, kinds, sender, here)
            return
        if certainty is Certainty.EXPECTED:
            yield _expected(known, kinds, booted, sender, here)
            return
    if not seen_together(sender, here):
        yield _not_seen(devices, sender, here)


def _broken(known: Break, kinds: tuple[str, ...], sender: Release, here: Release) -> Finding:
    return finding(
        "device-state",
        f"QEMU {_dotted(sender)} gives the guest's virtio devices ({_listed(kinds)}) {known.state}, and QEMU "
        f"{_dotted(here)} here refuses such a state once all memory is copied ('{known.message}', of the first)",
        f"use a host whose QEMU is older than {_first(known)}, or shut the guest down and start it here",
    )


def _expected(known: Break, kinds: tuple[str, ...], booted: Release, sender: Release, here: Release) -> Finding:
    ways = (
        f"on QEMU {_dotted(sender)}"
        if booted == sender
        else f"booted on QEMU {_dotted(booted)}, now on {_dotted(sender)}"
    )
    return finding(
        "device-version",
        f"the guest's virtio devices ({_listed(kinds)}; {ways}) may have {known.state}, which QEMU {_dotted(here)} "
        f"here may refuse once all memory is copied ('{known.message}', of the first)",
        f"try it with a guest of the same devices, or use a host whose QEMU is older than {_first(known)}",
    )


def _not_seen(devices: tuple[EmulatedDevice, ...], sender: Release | None, here: Release | None) -> Finding:
    kinds = tuple(dict.fromkeys(device.kind for device in devices))
    one, other = (f"QEMU {_dotted(release)}" if release else "a QEMU of unknown version" for release in (sender, here))
    return finding(
        "device-version",
        f"the state of the guest's devices ({_listed(kinds)}) goes from {one} to {other}, and such a move has not been "
        "seen: whether it is taken is not known",
        "try it with a guest of the same devices",
    )


def _of_arguments(machine: Machine) -> Iterator[EmulatedDevice]:
    """Virtio devices of the domain's own arguments for QEMU."""
    for device in machine.arguments.devices:
        properties = dict(device)
        driver, size = properties.get("driver", ""), properties.get("queue-size", "")
        if driver.startswith(("virtio-", "vhost-user-", "vhost-vsock")):
            kind = driver[:40].removesuffix("-pci").removesuffix("-device")
            fits = size.isascii() and size.isdigit() and len(size) <= 5
            yield EmulatedDevice(kind, queue_size=int(size) if fits else 0)


def _first(known: Break) -> str:
    return _dotted(min(releases.first for releases in known.destinations)[:2])


def _listed(kinds: tuple[str, ...]) -> str:
    return ", ".join(kinds[:_NAMED]) + (" and others" if len(kinds) > _NAMED else "")


_NAMED = 6


def _dotted(release: Release) -> str:
    return ".".join(map(str, release))
