"""Where a guest was booted: the rule as a table, held against every combination of evidence."""

from itertools import product

import pytest

from vgicmgr.migration.origin import Evidence, Origin, Paused, Running, State, tell_origin

HERE, ARRIVED, UNKNOWN = Origin.BOOTED_HERE, Origin.ARRIVED, Origin.UNKNOWN

PLACES = {
    "booted": [(1, 1)],
    "from a snapshot": [(1, 4), (3, 7)],
    "came": [(1, 2), (1, 3), (1, 10), (1, 11)],
    "paused or back from it": [
        *((1, reason) for reason in (0, 5, 6, 7, 8, 9)),
        *((3, reason) for reason in range(15) if reason != 7),
        *((4, 1), (6, 1), (7, 0)),
    ],
}
"""States and reasons by what they say (libvirt, include/libvirt/libvirt-domain.h)."""
LINES: dict[str, tuple[str, ...] | None] = {
    "unseen": None,
    "boot": ("-name", "guest=web1", "-machine", "virt-10.0"),
    "incoming": ("-name", "guest=web1", "-incoming", "defer"),
    "incoming, older": ("-name", "guest=web1", "-incoming", "fd:24"),
    "incoming, by two dashes": ("--incoming", "tcp:[::]:49152"),
    "loadvm": ("-loadvm", "snap1", "-machine", "virt-10.0"),
}
"""QEMU's command line, as libvirt writes it or an operator by <qemu:arg>."""

OVER = ("incoming", "incoming, older", "incoming, by two dashes", "loadvm")
TABLE = {
    # QEMU was started to take a guest over: nothing else counts, ever
    **dict.fromkeys(product(OVER, PLACES, (True, False), (True, False)), ARRIVED),
    # it was not: it was booted here, whatever a mark says
    ("boot", "booted", True, True): HERE,
    ("boot", "booted", True, False): HERE,
    ("boot", "booted", False, True): HERE,
    ("boot", "booted", False, False): HERE,
    # or has loaded an internal snapshot
    ("boot", "from a snapshot", True, True): ARRIVED,
    ("boot", "from a snapshot", True, False): ARRIVED,
    ("boot", "from a snapshot", False, True): ARRIVED,
    ("boot", "from a snapshot", False, False): ARRIVED,
    # after a pause nobody knows whether it had, so that a record which is there stays
    ("boot", "paused or back from it", True, True): UNKNOWN,
    ("boot", "paused or back from it", True, False): UNKNOWN,
    ("boot", "paused or back from it", False, True): HERE,
    ("boot", "paused or back from it", False, False): HERE,
    # libvirt never says this of such a QEMU
    ("boot", "came", True, True): UNKNOWN,
    ("boot", "came", True, False): UNKNOWN,
    ("boot", "came", False, True): HERE,
    ("boot", "came", False, False): HERE,
    # the command line cannot be seen: libvirt's reason
    ("unseen", "booted", True, True): HERE,
    ("unseen", "booted", True, False): HERE,
    ("unseen", "booted", False, True): HERE,
    ("unseen", "booted", False, False): HERE,
    ("unseen", "came", True, True): ARRIVED,
    ("unseen", "came", True, False): ARRIVED,
    ("unseen", "came", False, True): ARRIVED,
    ("unseen", "came", False, False): ARRIVED,
    ("unseen", "from a snapshot", True, True): ARRIVED,
    ("unseen", "from a snapshot", True, False): ARRIVED,
    ("unseen", "from a snapshot", False, True): ARRIVED,
    ("unseen", "from a snapshot", False, False): ARRIVED,
    # which a pause makes it forget: the hook's mark, which says where a guest came from and never that it did not
    ("unseen", "paused or back from it", True, True): ARRIVED,
    ("unseen", "paused or back from it", False, True): ARRIVED,
    ("unseen", "paused or back from it", True, False): UNKNOWN,
    ("unseen", "paused or back from it", False, False): UNKNOWN,
}
"""By command line, state and reason, whether there is a record, and whether there is a mark."""


@pytest.mark.parametrize(
    ("line", "place", "record", "mark"), list(product(LINES, PLACES, (True, False), (True, False)))
)
def test_every_combination(line: str, place: str, record: bool, mark: bool) -> None:
    for state, reason in PLACES[place]:
        told = tell_origin(Evidence(state, reason, LINES[line], mark, record))
        assert told.origin is TABLE[line, place, record, mark], (state, reason)
        assert told.why


def test_no_place_is_missing() -> None:
    told = [place for places in PLACES.values() for place in places]
    assert len(told) == len(set(told))
    assert {(State.RUNNING, reason) for reason in Running} <= set(told)
    assert {(State.PAUSED, reason) for reason in Paused} <= set(told)


def test_a_value_is_no_option() -> None:
    """What stands after an option is its value, but libvirt gives none that looks like this one."""
    line = ("-append", "console=ttyAMA0 -incoming=x", "-name", "guest=incoming")
    assert tell_origin(Evidence(1, 1, line, marked=False, has_record=False)).origin is HERE


def test_a_reboot_by_libvirt_does_not_make_a_guest_that_arrived_one_of_this_host() -> None:
    """qemuProcessFakeReboot sets BOOTED in the QEMU that took the guest over; its registers stay what they were."""
    assert tell_origin(Evidence(1, 1, ("-incoming", "defer"), marked=False, has_record=True)).origin is ARRIVED
