"""Known breaks between QEMU's versions: what the moves and QEMU's sources say, not what the code answers."""

import pytest

from vgicmgr.domain.domain import EmulatedDevice
from vgicmgr.qemu.breaks import LARGEST_QUEUES, Certainty, Release, release_of, seen_together, with_short_queues

NONE, EXPECTED, KNOWN = Certainty.NONE, Certainty.EXPECTED, Certainty.KNOWN
OLD, BOOKWORM, TRIXIE, SID = (10, 0, 12), (7, 2, 22), (10, 0, 13), (11, 1, 3)


def unmoved(source: Release, destination: Release) -> Certainty:
    return LARGEST_QUEUES.certainty(source, source, destination)


class TestLargestQueues:
    def test_the_moves_that_were_seen(self) -> None:
        assert unmoved(TRIXIE, SID) is KNOWN
        arrived = [(BOOKWORM, SID), (SID, TRIXIE), (SID, BOOKWORM), (BOOKWORM, TRIXIE), (TRIXIE, BOOKWORM)]
        assert {unmoved(*move) for move in arrived} == {NONE}

    @pytest.mark.parametrize("source", [OLD, (10, 0, 0), (10, 1, 3), (10, 2, 2), (11, 0, 3), (11, 1, 0), (8, 2, 2)])
    def test_queues_as_the_device_asks_for_them(self, source: Release) -> None:
        """Releases of before the fix, and those whose fix is the check."""
        assert unmoved(source, SID) is NONE

    @pytest.mark.parametrize("source", [(10, 0, 14), (10, 1, 4), (10, 2, 3), (11, 0, 4), (10, 0), (11, 0)])
    def test_later_stable_releases_are_not_known(self, source: Release) -> None:
        """Nor is one whose micro number nobody knows."""
        assert unmoved(source, SID) is EXPECTED

    @pytest.mark.parametrize("destination", [(11, 1, 0), (11, 1, 1), (11, 1, 2), (11, 1)])
    def test_the_check_came_with_11_1(self, destination: Release) -> None:
        assert unmoved(TRIXIE, destination) is KNOWN

    @pytest.mark.parametrize("destination", [(11, 0, 3), (11, 0, 4), (11, 0), (10, 0, 13)])
    def test_and_not_with_the_stable_releases(self, destination: Release) -> None:
        assert unmoved(TRIXIE, destination) is NONE

    @pytest.mark.parametrize("destination", [(11, 1, 4), (11, 2), (11, 2, 0), (12, 0, 0)])
    def test_later_destinations_may_have_learnt_of_it(self, destination: Release) -> None:
        assert unmoved(TRIXIE, destination) is EXPECTED

    @pytest.mark.parametrize(
        ("booted", "sender"), [(BOOKWORM, TRIXIE), (OLD, TRIXIE), (TRIXIE, BOOKWORM), (SID, TRIXIE)]
    )
    def test_a_guest_that_has_moved_has_what_last_reset_its_devices(self, booted: Release, sender: Release) -> None:
        """vring.num travels along (virtio_load); a reset makes it vring.num_default (__virtio_queue_reset)."""
        assert LARGEST_QUEUES.certainty(booted, sender, SID) is EXPECTED


def test_queues_that_are_of_the_largest_size_anyhow() -> None:
    """virtio_crypto_device_realize asks for 1024, and a disk's are what its queue-size says."""
    deep = EmulatedDevice("disk", queue_size=1024)
    assert with_short_queues((deep, EmulatedDevice("crypto"), EmulatedDevice("USB controller", virtio=False))) == ()
    shallow = (deep, EmulatedDevice("disk", queue_size=512), EmulatedDevice("rng"), EmulatedDevice("rng"))
    assert with_short_queues(shallow) == ("disk", "rng")


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("10.0.13", (10, 0, 13)),
        ("10.0", (10, 0)),
        ("11.1.0-rc2", (11, 1, 0)),
        ("8.2.2+ds", (8, 2, 2)),
        ("7.2.22.1", (7, 2, 22)),
        ("unknown", None),
        ("", None),
        ("10", None),
        ("10.x", None),
        ("9" * 5000 + ".1", None),
        ("\u0661\u0660.\u0660", None),
    ],
)
def test_releases(text: str, release: Release | None) -> None:
    assert release_of(text) == release


def test_pairs_that_were_seen() -> None:
    assert seen_together(BOOKWORM, SID)
    assert seen_together(OLD, TRIXIE)
    assert not seen_together(TRIXIE, SID)
    assert not seen_together((8, 2, 2), SID)
    assert not seen_together(SID, (11, 0, 3))
