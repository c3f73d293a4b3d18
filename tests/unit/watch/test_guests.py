"""What is said of guests, from events in the order in which libvirt 9.0 and 11.3 and the hook give them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.watch.events import Connected, Decision, Event, Failed, Lifecycle, Lost
from vgicmgr.watch.guests import Guests, State

STARTED, SUSPENDED, RESUMED, STOPPED, SHUTDOWN = 2, 3, 4, 5, 6
PASSED = Decision(1.0, "g", "prepare", "passed")


def life(event: int, detail: int, time: float = 2.0) -> Lifecycle:
    return Lifecycle(time, "g", event, detail)


def told(*events: Event) -> list[str]:
    """What is said, with the guest's name before it where it is about one."""
    guests = Guests()
    lines = [line for event in events for line in guests.take(event)]
    return [f"{line.guest}: {line.text}" if line.guest else line.text for line in lines]


def test_a_guest_that_passes_and_boots() -> None:
    assert told(PASSED, life(RESUMED, 0), life(STARTED, 0)) == [
        "g: starts; gate: passed",
        "g: runs (booted); gate: passed",
    ]


def test_a_guest_that_is_refused() -> None:
    """libvirt has no event for it."""
    refused = Decision(1.0, "g", "prepare", "refused", ("gic-version-unsupported",), "no GICv2 here")
    assert told(refused) == ["g: starts; gate: refused: gic-version-unsupported: no GICv2 here"]


def test_a_guest_that_is_warned_of_and_then_fails() -> None:
    """libvirt has no event for that either; the verdict stands beside what happened."""
    warned = Decision(1.0, "g", "prepare", "warned", ("gic-version-unsupported",), "no GICv2 here")
    assert told(warned, Failed(5.0, "g", "qemu: KVM does not support GICv2 emulation")) == [
        "g: starts; gate: warned: gic-version-unsupported: no GICv2 here",
        "g: failed: qemu: KVM does not support GICv2 emulation; gate: warned: gic-version-unsupported",
    ]


def test_a_guest_that_arrives() -> None:
    """The hook is asked about it twice: as one that arrives, and as one that starts."""
    assert told(Decision(1.0, "g", "migrate", "passed"), PASSED, life(STARTED, 1), life(RESUMED, 1)) == [
        "g: is to arrive; gate: passed",
        "g: arriving",
        "g: arrived; gate: passed",
    ]


def test_the_verdict_on_an_arrival_is_not_lost_to_that_on_its_start() -> None:
    warned = Decision(1.0, "g", "migrate", "warned", ("missing-record",), "no record")
    assert told(warned, PASSED, life(STARTED, 1), life(RESUMED, 1))[-1] == "g: arrived; gate: warned: missing-record"


def test_an_arrival_that_is_refused_as_a_start_is_refused() -> None:
    refused = Decision(1.5, "g", "prepare", "refused", ("sve",), "no SVE")
    assert told(Decision(1.0, "g", "migrate", "passed"), refused)[-1] == "g: starts; gate: refused: sve: no SVE"


def test_an_arrival_that_fails_while_it_is_loaded() -> None:
    migrate = Decision(1.0, "g", "migrate", "passed")
    assert told(migrate, PASSED, life(STARTED, 1), Failed(9.0, "g", "qemu: Failed to load cpu"))[-1] == (
        "g: failed: qemu: Failed to load cpu; gate: passed"
    )


def test_a_paused_guest_arrives_paused() -> None:
    assert told(life(STARTED, 1), life(SUSPENDED, 0)) == ["g: arriving", "g: arrived, paused"]


def test_a_guest_that_leaves() -> None:
    assert told(life(STARTED, 0), life(SUSPENDED, 1), life(STOPPED, 3))[1:] == [
        "g: paused for its migration",
        "g: left (migrated)",
    ]


def test_a_guest_that_wanted_to_leave_and_could_not() -> None:
    assert told(life(STARTED, 0), life(SUSPENDED, 1), life(RESUMED, 0))[-1] == (
        "g: runs on here (its migration did not succeed)"
    )


def test_a_guest_that_is_saved_and_restored() -> None:
    saving = (life(SUSPENDED, 0), life(SHUTDOWN, 2), life(STOPPED, 4))
    restoring = (Decision(3.0, "g", "restore", "passed"), PASSED, life(STARTED, 2), life(RESUMED, 2))
    assert told(life(STARTED, 0), *saving, *restoring)[1:] == [
        "g: paused",
        "g: saved",
        "g: is to be restored; gate: passed",
        "g: runs (restored); gate: passed",
    ]


def test_a_guest_that_is_restored_paused() -> None:
    assert told(life(STARTED, 2), life(SUSPENDED, 4)) == ["g: runs (restored)", "g: restored, paused"]


def test_a_guest_that_is_paused_and_resumed() -> None:
    assert told(life(STARTED, 0), life(SUSPENDED, 0), life(RESUMED, 0))[1:] == ["g: paused", "g: runs (resumed)"]


@pytest.mark.parametrize(
    ("detail", "text"), [(0, "shut down"), (1, "destroyed"), (2, "crashed"), (4, "saved"), (99, "stopped")]
)
def test_a_guest_that_ends(detail: int, text: str) -> None:
    assert told(life(STARTED, 0), life(SHUTDOWN, 0), life(STOPPED, detail))[1:] == [f"g: {text}"]


def test_definitions_are_nobodys_business_here() -> None:
    assert told(life(0, 0), life(1, 0)) == []


def test_where_the_hook_was_not_asked_it_is_said_what_it_would_decide() -> None:
    anew = Decision(2.0, "g", "prepare", "warned", ("missing-record",), anew=True)
    assert told(anew, life(STARTED, 0)) == ["g: runs (booted); gate: not asked (now: warned: missing-record)"]


def test_the_hook_was_not_asked_where_nothing_was_decided_before_the_start() -> None:
    guests = Guests()
    assert [guests.unjudged(life(STARTED, detail)) for detail in (0, 1, 2, 3)] == ["prepare", "migrate", "restore", ""]
    assert guests.unjudged(life(STOPPED, 0)) == ""
    list(guests.take(PASSED))
    assert guests.unjudged(life(STARTED, 0)) == ""
    list(guests.take(life(STARTED, 0)))
    assert guests.unjudged(life(STARTED, 0)) == "prepare", "the verdict was on the start before"


def test_guests_are_looked_after_that_were_let_in_and_not_seen_since() -> None:
    guests = Guests()
    list(guests.take(PASSED))
    assert guests.awaited(before=1.0) == ()
    assert guests.awaited(before=1.1) == ("g",)
    list(guests.take(life(STARTED, 0)))
    assert guests.awaited(before=99.0) == ()


def test_a_guest_that_was_given_up_and_comes_all_the_same_runs() -> None:
    assert told(PASSED, Failed(5.0, "g", ""), life(STARTED, 0, 6.0))[1:] == [
        "g: failed; gate: passed",
        "g: runs (booted)",
    ]


def test_a_libvirt_that_goes_and_comes_back_with_the_same_guests_has_nothing_to_tell_of_them() -> None:
    assert told(Connected(0.0, ("g",)), Lost(1.0), Connected(3.0, ("g",))) == [
        "libvirt is there; 1 guest active",
        "libvirt is gone; waiting for it",
        "libvirt is there; 1 guest active",
    ]


def test_guests_that_run_already_are_there_without_a_word() -> None:
    guests = Guests()
    list(guests.take(Connected(0.0, ("a", "b"))))
    assert [(guest.name, guest.outcome) for guest in guests.all] == [("a", "runs"), ("b", "runs")]


def test_what_happened_while_libvirt_was_away_is_found_afterwards() -> None:
    assert told(Connected(0.0, ("a", "b")), Lost(1.0), Connected(3.0, ("b", "c")))[2:] == [
        "libvirt is there; 2 guests active",
        "c: runs (it came while nobody watched)",
        "a: gone (while nobody watched)",
    ]


def test_a_guest_that_waits_for_libvirt_is_not_said_to_be_gone() -> None:
    """It is only just being started."""
    assert told(PASSED, Lost(1.5), Connected(2.0, ()))[-1] == "libvirt is there; 0 guests active"


names = st.sampled_from(["a", "b"])
times = st.floats(0, 100)
events = st.one_of(
    st.builds(Lifecycle, times, names, st.integers(0, 9), st.integers(0, 9)),
    st.builds(
        Decision,
        times,
        names,
        st.sampled_from(["prepare", "migrate", "restore"]),
        st.sampled_from(["passed", "warned", "refused", "off", "not-judged"]),
        anew=st.booleans(),
    ),
    st.builds(Failed, times, names, st.sampled_from(["", "why"])),
    st.builds(Connected, times, st.lists(names, unique=True).map(tuple)),
    st.builds(Lost, times),
)


@given(st.lists(events, max_size=30))
def test_whatever_comes_each_guest_has_one_place_and_what_is_said_last_is_what_stands_there(seen: list[Event]) -> None:
    guests = Guests()
    for event in seen:
        lines = list(guests.take(event))
        assert len({guest.name for guest in guests.all}) == len(guests.all)
        for line in lines:
            assert line.text
        if isinstance(event, Failed):
            (guest,) = (one for one in guests.all if one.name == event.guest)
            assert guest.state is State.GONE
    for guest in guests.all:
        assert guest.state in State
