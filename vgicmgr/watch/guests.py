"""Guests and what is known of each: events in, lines out. Pure.

Which event means what is libvirt's: ``include/libvirt/libvirt-domain.h``, and ``src/qemu/qemu_migration.c`` for the
order of those of a migration.
"""

from collections.abc import Iterator
from enum import Enum

from vgicmgr.dataclass import dataclass, replace
from vgicmgr.watch.events import Connected, Decision, Event, Failed, Lifecycle, Lost


class State(Enum):
    """How far a guest has come."""

    AWAITED = "awaited"
    """Let in by the gate; nothing has been heard of it yet."""
    ARRIVING = "arriving"
    """Its QEMU waits for the migration's data."""
    HERE = "here"
    GONE = "gone"


@dataclass(frozen=True)
class Guest:
    """One guest: the gate's verdict on it, and what became of it, in words; ``since`` as the events' time."""

    name: str
    state: State
    since: float
    gate: str = ""
    outcome: str = ""


@dataclass(frozen=True)
class Line:
    """Something that happened; ``guest`` is empty where it is about the host."""

    time: float
    guest: str
    text: str


class Guests:
    """All that were seen."""

    def __init__(self) -> None:
        self._guests: dict[str, Guest] = {}
        self.connected = False
        self._reached = False

    @property
    def all(self) -> tuple[Guest, ...]:
        """As they are now, the one that changed last at the end."""
        return tuple(self._guests.values())

    def awaited(self, before: float) -> tuple[str, ...]:
        """The guests that were let in before this time, and of which nothing was heard since."""
        return tuple(one.name for one in self.all if one.state is State.AWAITED and one.since < before)

    def unjudged(self, event: Lifecycle) -> str:
        """The operation of which the hook says nothing, where this event is a start or an arrival; else empty."""
        if event.event != _STARTED:
            return ""
        known = self._guests.get(event.guest)
        return "" if known and known.state is State.AWAITED else _OPERATION.get(event.detail, "")

    def take(self, event: Event) -> Iterator[Line]:
        """Note what happened, and say it, unless it is nothing new."""
        match event:
            case Decision():
                yield from self._decision(event)
            case Lifecycle():
                yield from self._lifecycle(event)
            case Failed():
                yield self._now(event.time, event.guest, State.GONE, f"failed{f': {event.why}' if event.why else ''}")
            case Connected():
                yield from self._connected(event)
            case Lost():
                self.connected = False
                yield Line(event.time, "", "libvirt is gone; waiting for it")

    def _decision(self, event: Decision) -> Iterator[Line]:
        known = self._guests.get(event.guest)
        gate = _gate(event)
        asked = _ASKED[event.operation]
        if event.anew:
            self._put(Guest(event.guest, State.AWAITED, event.time, f"not asked (now: {gate})", asked))
            return
        if known and known.state is State.AWAITED and event.operation == "prepare" and event.decision != "refused":
            # libvirt asks twice about a guest that arrives, the second time as of any that starts
            return
        refused = event.decision == "refused"
        outcome = f"refused: {event.why}" if refused else asked
        self._put(Guest(event.guest, State.GONE if refused else State.AWAITED, event.time, gate, outcome))
        yield Line(event.time, event.guest, f"{asked}; gate: {gate}{f': {event.why}' if event.why else ''}")

    def _lifecycle(self, event: Lifecycle) -> Iterator[Line]:
        state = self._state(event.guest)
        key = (event.event, event.detail)
        if event.event == _STARTED and event.detail in _STARTS:
            new, text = _STARTS[event.detail]
            yield self._now(event.time, event.guest, new, text)
        elif event.event == _STOPPED:
            yield self._now(event.time, event.guest, State.GONE, _STOPS.get(event.detail, "stopped"))
        elif state is State.ARRIVING:
            if key in _ARRIVALS:
                yield self._now(event.time, event.guest, State.HERE, _ARRIVALS[key])
        elif state is State.HERE and key == (_RESUMED, 0):
            # what is started is resumed first, and then said to be started
            before = self._guests[event.guest].outcome
            if "paused" in before:
                stayed = before == _CHANGES[_SUSPENDED, 1]
                yield self._now(
                    event.time, event.guest, State.HERE, _CHANGES[_RESUMED, 1] if stayed else "runs (resumed)"
                )
        elif state is State.HERE and key in _CHANGES:
            yield self._now(event.time, event.guest, State.HERE, _CHANGES[key])

    def _connected(self, event: Connected) -> Iterator[Line]:
        again, self._reached, self.connected = self._reached, True, True
        yield Line(event.time, "", f"libvirt is there; {_count(len(event.guests))}")
        for name in event.guests:
            if self._state(name) in (None, State.GONE):
                line = self._now(event.time, name, State.HERE, "runs")
                if again:
                    yield replace(line, text="runs (it came while nobody watched)")
        for guest in self.all:
            if guest.state in (State.HERE, State.ARRIVING) and guest.name not in event.guests:
                yield self._now(event.time, guest.name, State.GONE, "gone (while nobody watched)")

    def _state(self, name: str) -> State | None:
        return self._guests[name].state if name in self._guests else None

    def _now(self, time: float, name: str, state: State, outcome: str) -> Line:
        known = self._guests.get(name) or Guest(name, state, time)
        new = state in (State.HERE, State.GONE) and known.state in (State.AWAITED, State.ARRIVING)
        self._put(replace(known, state=state, since=time, outcome=outcome))
        return Line(time, name, f"{outcome}{f'; gate: {known.gate}' if new and known.gate else ''}")

    def _put(self, guest: Guest) -> None:
        self._guests.pop(guest.name, None)
        self._guests[guest.name] = guest


def _gate(event: Decision) -> str:
    names = f": {', '.join(event.findings)}" if event.findings else ""
    return f"{event.decision}{names}"


def _count(number: int) -> str:
    return f"{number} guest{'' if number == 1 else 's'} active"


_ASKED = {"prepare": "starts", "migrate": "is to arrive", "restore": "is to be restored"}

_STARTED, _SUSPENDED, _RESUMED, _STOPPED = 2, 3, 4, 5
"""virDomainEventType."""
FAILED = (_STOPPED, 5)
"""VIR_DOMAIN_EVENT_STOPPED_FAILED."""

_OPERATION = {0: "prepare", 1: "migrate", 2: "restore"}
_STARTS = {
    0: (State.HERE, "runs (booted)"),
    1: (State.ARRIVING, "arriving"),
    2: (State.HERE, "runs (restored)"),
    3: (State.HERE, "runs (from a snapshot)"),
    4: (State.HERE, "runs (woken up)"),
}
"""virDomainEventStartedDetailType."""

_STOPS = {
    0: "shut down",
    1: "destroyed",
    2: "crashed",
    3: "left (migrated)",
    4: "saved",
    5: "failed",
    6: "stopped (reverted to a snapshot)",
}
"""virDomainEventStoppedDetailType."""

_ARRIVALS = {
    (_RESUMED, 1): "arrived",
    (_RESUMED, 3): "arrived (post-copy)",
    (_SUSPENDED, 0): "arrived, paused",
}
_CHANGES = {
    (_SUSPENDED, 0): "paused",
    (_SUSPENDED, 1): "paused for its migration",
    (_SUSPENDED, 2): "paused: I/O error",
    (_SUSPENDED, 3): "paused by its watchdog",
    (_SUSPENDED, 4): "restored, paused",
    (_SUSPENDED, 6): "paused: a libvirt call failed",
    (_SUSPENDED, 7): "paused for post-copy",
    (_SUSPENDED, 8): "paused: post-copy failed",
    (_RESUMED, 1): "runs on here (its migration did not succeed)",
}
