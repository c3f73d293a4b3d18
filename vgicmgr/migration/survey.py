"""What this host's running guests have for a record: the one number that shows a hook that nobody runs. Pure."""

from collections.abc import Sequence
from enum import Enum

from vgicmgr.dataclass import dataclass
from vgicmgr.domain.domain import Domain
from vgicmgr.errors import RecordError
from vgicmgr.migration.origin import Origin, Told
from vgicmgr.migration.record import ABIRecord, read_record
from vgicmgr.qemu.process import QEMUProcess

CLOCK_SECONDS = 5.0
"""A record's time and a process's start are of one clock, but of two roundings."""


class Standing(Enum):
    """How a guest stands; the value is for documents."""

    GOOD = "good"
    OTHER_BOOT = "of-another-boot"
    NONE = "none"

    @property
    def words(self) -> str:
        """For people."""
        return {
            Standing.GOOD: "with a good record",
            Standing.OTHER_BOOT: "with a record of another boot",
            Standing.NONE: "without a record",
        }[self]


@dataclass(frozen=True)
class Seen:
    """A running guest, and what was seen of it: ``process`` is None where its QEMU could not be seen."""

    guest: Domain
    told: Told
    process: QEMUProcess | None
    unit_failed: bool = False


@dataclass(frozen=True)
class Found:
    """A guest's standing, and why it is not good."""

    name: str
    standing: Standing
    why: str = ""


def survey(seen: Sequence[Seen], hook_since: float | None) -> tuple[Found, ...]:
    """The standing of each arm64 KVM guest among these.

    ``hook_since``: since when the hook has been there, in seconds since the epoch; None where it is not.
    """
    return tuple(_found(one, hook_since) for one in seen if one.guest.needs_gic)


def _found(seen: Seen, hook_since: float | None) -> Found:
    guest = seen.guest
    if guest.metadata_unreadable:
        return Found(guest.name, Standing.NONE, f"its <metadata> cannot be read: {guest.metadata_unreadable}")
    if guest.record is None:
        return Found(guest.name, Standing.NONE, _why_none(seen, hook_since))
    try:
        boot = read_record(guest.record)
        latest = read_record(guest.host_record) if guest.host_record else boot
    except RecordError as error:
        return Found(guest.name, Standing.NONE, error.message)
    if why := _other_boot(seen, boot, latest):
        return Found(guest.name, Standing.OTHER_BOOT, f"{why}; {_why_none(seen, hook_since)}")
    return Found(guest.name, Standing.GOOD)


def _other_boot(seen: Seen, boot: ABIRecord, latest: ABIRecord) -> str:
    """Why these are not of this boot: each QEMU has had its record written, whether the guest was booted or arrived."""
    guest, process = seen.guest, seen.process
    if boot.uuid and guest.uuid and boot.uuid != guest.uuid:
        return f"it is of the domain {boot.uuid}"
    if (boot.machine, boot.vcpus) != (guest.machine, guest.vcpus):
        return f"it is of a {boot.machine} with {boot.vcpus} vCPU(s)"
    if process is None:
        return ""
    if latest.process:
        same = latest.process == process.identity
    else:  # of a former vgicmgr
        same = (_seconds(latest.time) or process.started) + CLOCK_SECONDS >= process.started
    return "" if same else f"it was written on {latest.time}, and not for the QEMU that runs now"


def _why_none(seen: Seen, hook_since: float | None) -> str:
    if seen.unit_failed:
        return "the writer failed: see 'systemctl status vgicmgr-record@*'"
    if seen.told.origin is Origin.ARRIVED and seen.guest.record is None:
        return f"it arrived without one ({seen.told.why})"
    if hook_since is None:
        return "the hook is not installed"
    if seen.process is not None and seen.process.started < hook_since:
        return "its QEMU was started before the hook was installed"
    return "the hook was not run when its QEMU was started, or the writer failed: see 'journalctl -t vgicmgr'"


def _seconds(time: str) -> float | None:
    """A record's time, in seconds since the epoch."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None
