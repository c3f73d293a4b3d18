"""Where two versions of QEMU disagree on the state of a device though the machine type is the same: data, pure.

Each known break has the moves that proved it, and says which releases it is known of and of which it is to be expected.
"""

from collections.abc import Sequence
from enum import IntEnum

from vgicmgr.dataclass import dataclass
from vgicmgr.qemu.machine import Version

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.domain.domain import EmulatedDevice

Release = tuple[int, ...]
"""Major, minor and, where it is known, micro number."""


class Certainty(IntEnum):
    """How much is known of a break."""

    NONE = 0
    EXPECTED = 1
    """By the source, but nobody has seen it."""
    KNOWN = 2


@dataclass(frozen=True)
class Releases:
    """From ``first`` to ``last``, those that are known; ``until`` is what is after those that it is expected of."""

    first: Release
    last: Release
    until: Release

    def certainty(self, release: Release) -> Certainty:
        """Of a release; where its micro number is not known, of all of that series."""
        low, high = ((*release, 0), (*release, _NEVER)) if len(release) == 2 else (release, release)
        if self.first <= low <= self.last:
            return Certainty.KNOWN
        return Certainty.EXPECTED if low < self.until and high >= self.first else Certainty.NONE


_NEVER = 1 << 30


@dataclass(frozen=True)
class Break:
    """A device's state that QEMUs of ``sources`` give it and those of ``destinations`` refuse with ``message``.

    ``state`` is the state in a few words, and ``proof`` what was seen.
    """

    sources: tuple[Releases, ...]
    destinations: tuple[Releases, ...]
    state: str
    message: str
    proof: str

    def certainty(self, booted: Release, sender: Release, destination: Release) -> Certainty:
        """Whether the state of a guest of these QEMUs is refused.

        Known where the QEMU of its boot and the one that it is now on both make such a state; expected where one does.
        """
        refuses = _most(self.destinations, destination)
        states = [_most(self.sources, release) for release in (booted, sender)]
        return Certainty.NONE if not refuses or not any(states) else max(Certainty.EXPECTED, min(refuses, *states))


def _most(releases: Sequence[Releases], release: Release) -> Certainty:
    return max((one.certainty(release) for one in releases), default=Certainty.NONE)


LARGEST_QUEUE = 1024
"""VIRTQUEUE_MAX_SIZE (include/hw/virtio/virtio.h)."""
_MADE_LARGEST = ("crypto", "virtio-crypto")
"""Devices all of whose queues are so long in any QEMU (hw/virtio/virtio-crypto.c, virtio_crypto_device_realize)."""

LARGEST_QUEUES = Break(
    sources=(
        Releases((10, 0, 13), (10, 0, 13), until=(10, 1)),
        Releases((10, 1, 4), (10, 1), until=(10, 2)),
        Releases((10, 2, 3), (10, 2), until=(11, 0)),
        Releases((11, 0, 4), (11, 0), until=(11, 1)),
    ),
    destinations=(Releases((11, 1, 0), (11, 1, 3), until=(_NEVER,)),),
    state=f"virtqueues of {LARGEST_QUEUE}",
    message="VQ 0 vring.num 1024 exceeds allocated max 256",
    proof="virtio-blk, virtio-rng and virtio-scsi from 10.0.13 (Debian 13) to 11.1.3, live and by file, 5 of 5 moves",
)
"""Virtqueues longer than the destination's.

11.1.0 has "virtio: stop migrating num_default, validate vring.num on load" (d6384ad1c159) and the two fixes after it:
its virtio_load refuses a queue that is longer than its device made it. Stable releases of before 11.1 that have the fix
for CVE-2026-50626 (a5cff318f06c) have virtio_add_queue make all queues of VIRTQUEUE_MAX_SIZE instead ("for qemu <11.1",
hw/virtio/virtio.c), where others have what the device asks for: 8 (rng), 64, 128 or 256. 10.0.13 has it; 7.2.22,
10.0.12, 10.1.3, 10.2.2 and 11.0.3 are older than the fix; of later ones of those series nobody has looked at one.

What is sent is vring.num: that of the QEMU that last reset the device, unless the driver, as few do, chose less. A
guest booted before the fix keeps its short queues on 10.0.13 until it resets a device there (a reboot within QEMU, a
driver loaded anew); and one booted on 10.0.13 keeps the long ones on an older QEMU, which takes them, for as long.
"""

BREAKS = (LARGEST_QUEUES,)

_SEEN: frozenset[tuple[Version, Version]] = frozenset(
    (
        ((7, 2), (10, 0)),
        ((7, 2), (11, 1)),
        ((10, 0), (7, 2)),
        ((11, 1), (7, 2)),
        ((11, 1), (10, 0)),
    )
)
"""Moves in which guests with virtio disk, random number generator and SCSI controller arrived, from and to."""


def seen_together(source: Release, destination: Release) -> bool:
    """Whether guests with PCI devices have been seen to arrive so, which is taken for granted within one series."""
    one, other = source[:2], destination[:2]
    return one == other or (one, other) in _SEEN


def release_of(text: str) -> Release | None:
    """The release in a text such as ``10.0.13``, ``11.1.0-rc2`` or ``10.0``; None where there is none."""
    numbers = []
    for part in text.split(".", 3)[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits or len(digits) > 4:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers) if len(numbers) >= 2 else None


def with_short_queues(devices: "Sequence[EmulatedDevice]") -> tuple[str, ...]:
    """The kinds of virtio devices that have a queue shorter than the longest there can be, each once."""
    kinds = (
        device.kind
        for device in devices
        if device.virtio and device.queue_size < LARGEST_QUEUE and device.kind not in _MADE_LARGEST
    )
    return tuple(dict.fromkeys(kinds))
