"""The inventory: sysfs read, and VFIO asked of every device that is bound to it and in nobody's hands."""

import os
from collections.abc import Iterator
from pathlib import Path

from vgicmgr.dataclass import replace
from vgicmgr.errors import CannotTell, VgicmgrError
from vgicmgr.vfio import sysfs
from vgicmgr.vfio.container import DEV_IOMMU, DEV_VFIO, Container, Group
from vgicmgr.vfio.device import DEV_CDEV, joined, open_by_cdev, open_by_group
from vgicmgr.vfio.errors import VfioError
from vgicmgr.vfio.inventory import Device, DeviceInfo, Host, Inventory, User
from vgicmgr.vfio.inventory import Group as GroupFacts

EXTENSIONS = (
    "VFIO_TYPE1_IOMMU",
    "VFIO_TYPE1v2_IOMMU",
    "VFIO_DMA_CC_IOMMU",
    "VFIO_NOIOMMU_IOMMU",
    "VFIO_UNMAP_ALL",
    "VFIO_UPDATE_VADDR",
)
"""Those of arm64."""

Answers = dict[str, DeviceInfo | str]
"""By device: what VFIO says of it, or why it was not asked."""

_IN_USE = "in use"


def probe_inventory(names: tuple[str, ...] = ()) -> Inventory:
    """All assignable devices of this host, or those called ``names``.

    A group that somebody has open is left alone. Raises :class:`~vgicmgr.errors.CannotTell` when one of ``names`` is no
    device.
    """
    devices = sysfs.read_devices()
    chosen = _choose(devices, names)
    users = sysfs.read_users()
    groups, answers = [], Answers()
    for facts in sysfs.read_groups(devices):
        members = [device for device in chosen if device.group == facts.number]
        bound = [device for device in members if device.vfio]
        if bound:
            asked, answered = _ask_group(facts, bound, users)
            groups.append(asked)
            answers |= answered
        elif members:
            groups.append(facts)
    unread: list[str] = []
    return Inventory(
        host=_probe_host(unread),
        groups=tuple(groups),
        devices=tuple(_with_answer(device, answers.get(device.name)) for device in chosen),
        unread=(*unread, *_unread(chosen)),
    )


def _choose(devices: tuple[Device, ...], names: tuple[str, ...]) -> tuple[Device, ...]:
    if not names:
        return tuple(device for device in devices if device.assignable)
    known = {device.name: device for device in devices}
    for name in names:
        if name not in known:
            raise CannotTell(
                f"there is no PCI, platform or AMBA device {name} in sysfs",
                "'vgicmgr lsvfio' lists all that can be assigned; a PCI address is written 0000:00:05.0",
            )
    return tuple(known[name] for name in dict.fromkeys(names))


def _with_answer(device: Device, answer: DeviceInfo | str | None) -> Device:
    if isinstance(answer, DeviceInfo):
        return replace(device, info=answer)
    return replace(device, unread=answer or "")


def _ask_group(
    group: GroupFacts, bound: list[Device], users: dict[str, tuple[User, ...]]
) -> tuple[GroupFacts, Answers]:
    """The group with the kernel's word on it, and its devices' answers."""
    path = _path(group)
    holders = [*users.get(path, ()), *(user for device in bound for user in users.get(f"{DEV_CDEV}/{device.vfio}", ()))]
    if holders:
        group = replace(group, in_use=True, users=tuple(dict.fromkeys(holders)))
        return group, _same(bound, f"in use by {', '.join(map(str, group.users))}")
    try:
        if not Path(path).exists() and Path(DEV_CDEV).exists():  # a kernel without CONFIG_VFIO_GROUP
            answers: Answers = {device.name: _describe_by_cdev(device) for device in bound}
            asked = all(isinstance(answer, DeviceInfo) for answer in answers.values())
            return replace(group, in_use=True if _IN_USE in answers.values() else False if asked else None), answers
        with Group(path) as opened:
            group = replace(group, status=opened.viable(), in_use=False)
            if not group.viable:
                return group, _same(bound, f"group {group.number} is not viable")
            with joined(opened, noiommu=group.noiommu):
                return group, {device.name: _describe(opened, device) for device in bound}
    except VgicmgrError as error:
        busy = isinstance(error, VfioError) and error.busy
        return replace(group, in_use=True if busy else group.in_use), _same(bound, _IN_USE if busy else str(error))


def _describe(group: Group, device: Device) -> DeviceInfo | str:
    try:
        with open_by_group(group, device.name) as opened:
            return opened.describe()
    except VfioError as error:
        return str(error)


def _describe_by_cdev(device: Device) -> DeviceInfo | str:
    try:
        with open_by_cdev(device.vfio or "") as opened:
            return opened.describe()
    except VfioError as error:
        return _IN_USE if error.busy else str(error)


def _path(group: GroupFacts) -> str:
    return f"/dev/vfio/{'noiommu-' if group.noiommu else ''}{group.number}"


def _same(devices: list[Device], reason: str) -> Answers:
    return dict.fromkeys((device.name for device in devices), reason)


def _probe_host(unread: list[str]) -> Host:
    host = replace(sysfs.read_host(), iommufd=Path(DEV_IOMMU).exists())
    if not Path(DEV_VFIO).exists():
        return host
    try:
        with Container() as container:
            return replace(
                host,
                api_version=container.api_version(),
                extensions=tuple(name for name in EXTENSIONS if container.check_extension(name)),
            )
    except VgicmgrError as error:
        unread.append(str(error))
        return host


def _unread(devices: tuple[Device, ...]) -> Iterator[str]:
    if any(device.pci and device.pci.config and device.pci.config.msi is None for device in devices):
        yield "MSI and MSI-X of devices not open by VFIO: only root can read the whole configuration space"
    if os.geteuid() != 0:
        yield "who uses a group: only root sees other users' open files"
