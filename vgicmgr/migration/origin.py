"""Where a running guest was booted: on this host, elsewhere, or nobody can tell. Pure.

The order of the evidence is from what cannot be stale to what can:

1. QEMU's own command line, which it keeps for life: libvirt starts each QEMU that takes a guest over with ``-incoming``
   (qemuBuildCommandLine), and an older one starts what loads an internal snapshot with ``-loadvm``. Where it is loaded
   by the monitor, the reason FROM_SNAPSHOT tells it, up to the first pause.
2. libvirt's reason for the domain's state. BOOTED is a boot (qemuProcessFinishStartup, before ``started`` runs), or a
   reboot through libvirt in the same QEMU (qemuProcessFakeReboot): one more reason why the command line comes first.
3. The hook's mark of a guest that arrived (:mod:`vgicmgr.migration.marks`).

A guest that was paused is UNPAUSED, MIGRATION_CANCELED, WAKEUP and the like, wherever it was booted: on their word no
record that is there may be replaced.
"""

from enum import Enum, IntEnum

from vgicmgr.dataclass import dataclass


class Origin(Enum):
    """Where a guest was booted."""

    BOOTED_HERE = "booted here"
    ARRIVED = "arrived"
    UNKNOWN = "unknown"


class State(IntEnum):
    """virDomainState, as far as it matters (libvirt, ``include/libvirt/libvirt-domain.h``)."""

    RUNNING = 1
    PAUSED = 3


class Running(IntEnum):
    """virDomainRunningReason."""

    UNKNOWN = 0
    BOOTED = 1
    MIGRATED = 2
    RESTORED = 3
    FROM_SNAPSHOT = 4
    UNPAUSED = 5
    MIGRATION_CANCELED = 6
    SAVE_CANCELED = 7
    WAKEUP = 8
    CRASHED = 9
    POSTCOPY = 10
    POSTCOPY_FAILED = 11


class Paused(IntEnum):
    """virDomainPausedReason, as far as it matters."""

    USER = 1
    MIGRATION = 2
    FROM_SNAPSHOT = 7
    STARTING_UP = 11


@dataclass(frozen=True)
class Evidence:
    """What is known of a running guest.

    ``state`` and ``reason`` are libvirt's numbers, ``arguments`` QEMU's command line (None where it cannot be seen),
    ``marked`` whether the hook saw the guest arrive, ``has_record`` whether it has the record of a boot.
    """

    state: int
    reason: int
    arguments: tuple[str, ...] | None
    marked: bool
    has_record: bool


@dataclass(frozen=True)
class Told:
    """The origin, and by what it is told."""

    origin: Origin
    why: str


def tell_origin(evidence: Evidence) -> Told:
    """Where the guest was booted."""
    if evidence.arguments is None:
        return _by_libvirt(evidence)
    for option in ("incoming", "loadvm"):
        if not {f"-{option}", f"--{option}"}.isdisjoint(evidence.arguments):
            return Told(Origin.ARRIVED, f"QEMU was started with -{option}")
    place = (evidence.state, evidence.reason)
    if place in ((State.RUNNING, Running.FROM_SNAPSHOT), (State.PAUSED, Paused.FROM_SNAPSHOT)):
        return Told(Origin.ARRIVED, "libvirt has loaded it from a snapshot")
    if place != (State.RUNNING, Running.BOOTED) and evidence.has_record:
        return Told(
            Origin.UNKNOWN, "QEMU was not started with -incoming, but may have loaded a snapshot before it was paused"
        )
    return Told(Origin.BOOTED_HERE, "QEMU was not started with -incoming")


def _by_libvirt(evidence: Evidence) -> Told:
    """Where QEMU's command line cannot be seen."""
    place = (evidence.state, evidence.reason)
    if place == (State.RUNNING, Running.BOOTED):
        return Told(Origin.BOOTED_HERE, "libvirt has booted it")
    if place in _ARRIVALS:
        return Told(Origin.ARRIVED, "libvirt has migrated or restored it")
    if evidence.marked:
        return Told(Origin.ARRIVED, "vgicmgr's hook saw it arrive")
    return Told(Origin.UNKNOWN, "QEMU's command line cannot be seen, and libvirt no longer tells")


_ARRIVALS = (
    (State.RUNNING, Running.MIGRATED),
    (State.RUNNING, Running.RESTORED),
    (State.RUNNING, Running.FROM_SNAPSHOT),
    (State.RUNNING, Running.POSTCOPY),
    (State.RUNNING, Running.POSTCOPY_FAILED),
    (State.PAUSED, Paused.FROM_SNAPSHOT),
)
