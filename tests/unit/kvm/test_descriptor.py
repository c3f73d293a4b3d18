"""Descriptors are closed once whatever happens, and a refused ioctl says what it was about."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vgicmgr.kvm.descriptor import Descriptor
from vgicmgr.kvm.errors import KvmError, KvmUnavailable
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vgic_v3 import CTRL_INIT


def null_device() -> Descriptor:
    """A descriptor of a file that refuses every ioctl: a stand-in for a kernel that knows none of them."""
    return Descriptor(os.open(os.devnull, os.O_RDWR))


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_the_context_closes_the_descriptor() -> None:
    with null_device() as descriptor:
        fd = descriptor.fileno()
        assert is_open(fd)
    assert not is_open(fd)
    assert descriptor.fileno() == -1


def test_an_exception_closes_the_descriptor() -> None:
    with pytest.raises(ZeroDivisionError), null_device() as descriptor:
        fd = descriptor.fileno()
        raise ZeroDivisionError
    assert not is_open(fd)


def test_a_second_close_leaves_a_reused_number_alone() -> None:
    descriptor = null_device()
    fd = descriptor.fileno()
    descriptor.close()
    reused = os.open(os.devnull, os.O_RDONLY)
    try:
        assert reused == fd
        descriptor.close()
        assert is_open(reused)
    finally:
        os.close(reused)


def test_a_dropped_descriptor_is_closed() -> None:
    descriptor = null_device()
    fd = descriptor.fileno()
    del descriptor
    assert not is_open(fd)


def test_a_refusal_names_call_errno_and_meaning() -> None:
    with null_device() as descriptor, pytest.raises(KvmError) as refusal:
        descriptor.set_attribute(CTRL_INIT)
    error = refusal.value
    assert (error.call, error.subject, error.errno) == (
        "KVM_SET_DEVICE_ATTR",
        "KVM_DEV_ARM_VGIC_CTRL_INIT",
        errno.ENOTTY,
    )
    assert str(error) == ("KVM_SET_DEVICE_ATTR KVM_DEV_ARM_VGIC_CTRL_INIT: ENOTTY, this kernel has no attributes here")


def test_an_attribute_that_cannot_be_asked_for_is_not_there() -> None:
    with null_device() as descriptor:
        assert not descriptor.has_attribute(CTRL_INIT)


def test_without_dev_kvm_the_remedy_is_named() -> None:
    with pytest.raises(KvmUnavailable) as refusal:
        System("/dev/no-such-kvm")
    assert "runs without KVM" in refusal.value.message
    assert "dmesg | grep kvm" in refusal.value.remedy


def test_without_permission_the_remedy_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kvm"
    path.touch(0o000)
    with as_nobody(), pytest.raises(KvmUnavailable, match="group kvm"):
        System(str(path))


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to open everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
