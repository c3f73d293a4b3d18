"""A guest from a host of another page size: memory blocks that QEMU sizes by the host, stolen time, post-copy."""

from collections.abc import Iterator

from vgicmgr.findings import Finding, Severity, finding
from vgicmgr.migration.record import ABIRecord
from vgicmgr.qemu import ramblocks

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.guest.configuration import VGICConfiguration
    from vgicmgr.host.facts import HostFacts
    from vgicmgr.qemu.virt import Properties

_NO_STEAL_TIME = "boot the guest with the CPU property kvm-steal-time=off (<qemu:commandline>)"
"""libvirt 9.0 and 11.3 know no CPU feature of that name."""


def page_sizes(
    record: ABIRecord, properties: "Properties", configuration: "VGICConfiguration", host: "HostFacts"
) -> Iterator[Finding]:
    """What of the guest depends on the page size, which is the same on most hosts."""
    theirs, ours = record.page_size, host.page_size
    too_large = tuple(ramblocks.blocks_too_large(properties, theirs, ours))
    if too_large:
        names = ", ".join(block.name for block in too_large)
        yield finding(
            "page-size",
            f"the guest's ACPI tables ({names}) have at least a page of {theirs >> 10} KiB, and QEMU has no room for "
            f"that where pages have {ours >> 10} KiB: it ends the migration",
            f"use a host with pages of {theirs >> 10} KiB or more, or boot the guest anew here",
        )
    yield from _stolen_time(record, configuration, host, remediable=not too_large)
    if theirs != ours:
        yield finding(
            "post-copy-page-size",
            f"the guest comes from a host with pages of {theirs >> 10} KiB, and here they have {ours >> 10} KiB: QEMU "
            "ends a post-copy migration of it (loadvm_postcopy_handle_advise)",
            "migrate it without --postcopy",
        )


def _stolen_time(
    record: ABIRecord, configuration: "VGICConfiguration", host: "HostFacts", *, remediable: bool
) -> Iterator[Finding]:
    """``remediable``: without stolen time the guest would arrive."""
    if not record.steal_time:
        return
    if not configuration.steal_time:
        yield finding(
            "steal-time",
            "the guest was booted with stolen time, which QEMU does not give it here (KVM_CAP_STEAL_TIME), so that its "
            "memory region 'pvtime' is unknown",
            _NO_STEAL_TIME if remediable else "use a host that gives it",
        )
        return
    vcpus, theirs, ours = record.vcpus, record.page_size, host.page_size
    before, size = ramblocks.pvtime_size(vcpus, theirs), ramblocks.pvtime_size(vcpus, ours)
    remedy = f"use a host with pages of {theirs >> 10} KiB" + (f", or {_NO_STEAL_TIME}" if remediable else "")
    if not ramblocks.pvtime_loads(vcpus, theirs, ours):
        yield finding(
            "steal-time",
            f"the guest's region of stolen time has {before} bytes, and QEMU makes one of {size} here, since the "
            "hosts' page sizes differ",
            remedy,
        )
    elif not ramblocks.pvtime_mapped(vcpus, theirs, ours):
        yield finding(
            "steal-time",
            f"the guest's region of stolen time has {before} bytes, of which KVM maps whole pages of {ours >> 10} KiB "
            "only: the guest arrives, and its stolen time stands still",
            remedy,
            severity=Severity.WARNING,
        )
