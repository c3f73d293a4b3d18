"""Guests that cannot leave: QEMU itself blocks migration, saving and memory snapshots of them (migrate_add_blocker).

Told before anybody copies a guest's memory: by the domain, and for a running guest by its own QEMU's word
(:func:`vgicmgr.qemu.running.blocked_reasons`).
"""

from collections.abc import Iterable, Iterator

from vgicmgr.findings import Finding, finding
from vgicmgr.qemu.blockers import blockers

TYPE_CHECKING = False  # 'typing' is slow to start

if TYPE_CHECKING:
    from vgicmgr.guest.resolve import Resolution


def not_migratable(resolution: "Resolution") -> Iterator[Finding]:
    """Why the guest of a domain cannot leave the host that it runs on; nothing for most."""
    machine = resolution.machine
    if machine is None or not machine.kvm:
        return
    if resolution.configuration is not None:
        version = resolution.configuration.gic_version
    else:  # no configuration has a GICv5
        version = 5 if machine.properties.gic_version == "x-5" else 0
    for blocker in blockers(machine.properties, version):
        yield finding(
            "not-migratable",
            f"{blocker.reason}, and QEMU migrates no such guest, nor does it save one ({blocker.source})",
            f"boot the guest without {blocker.setting}, or shut it down and start it on the other host",
        )


def blocked_by_qemu(reasons: Iterable[str]) -> Iterator[Finding]:
    """What the QEMU of a running guest says to that."""
    for reason in reasons:
        yield finding(
            "not-migratable",
            f"the guest's QEMU blocks its migration: {reason}",
            "shut the guest down and start it on the other host, or boot it without what QEMU names",
        )
