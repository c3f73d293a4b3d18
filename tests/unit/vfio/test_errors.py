"""Each errno says what it means for that very call, and whether somebody else uses the device."""

import errno

import pytest

from vgicmgr.kvm.errors import KvmError
from vgicmgr.vfio import uapi
from vgicmgr.vfio.errors import MEANINGS, VfioError


@pytest.mark.parametrize(
    ("call", "number", "meaning"),
    [
        ("open", errno.EBUSY, "a group can be open only once"),
        ("open", errno.EACCES, "run as root"),
        ("VFIO_GROUP_SET_CONTAINER", errno.EPERM, "not viable"),
        ("VFIO_SET_IOMMU", errno.EPERM, "cannot isolate MSIs"),
        ("VFIO_GROUP_GET_DEVICE_FD", errno.ENODEV, "no such device in this group"),
        ("VFIO_DEVICE_FEATURE", errno.ENOTTY, "no such feature"),
    ],
)
def test_meaning(call: str, number: int, meaning: str) -> None:
    assert meaning in VfioError(call, "", number).meaning


def test_an_errno_of_no_special_meaning_has_its_general_one() -> None:
    assert VfioError("VFIO_SET_IOMMU", "", errno.ENOMEM).meaning == "cannot allocate memory"


@pytest.mark.parametrize(
    ("call", "number", "busy"),
    [
        ("open", errno.EBUSY, True),
        ("VFIO_DEVICE_BIND_IOMMUFD", errno.EBUSY, True),
        ("VFIO_DEVICE_BIND_IOMMUFD", errno.EINVAL, True),  # vfio_df_open: a device file can be open only once
        ("VFIO_GROUP_GET_DEVICE_FD", errno.EINVAL, False),
    ],
)
def test_whether_somebody_else_uses_it(call: str, number: int, busy: bool) -> None:
    assert VfioError(call, "", number).busy is busy


def test_a_refusal_by_vfio_is_none_by_kvm() -> None:
    assert not issubclass(VfioError, KvmError)


@pytest.mark.parametrize("name", sorted(set(MEANINGS) - {"open"}))
def test_meanings_are_told_of_things_the_header_has(name: str) -> None:
    assert hasattr(uapi, name)
