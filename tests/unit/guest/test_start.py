"""What of a start needs no kernel to judge; the rest is judged by real kernels in ``tests/lab/test_start.py``."""

import pytest
from vgicmgr.domain.settings import DomainSettings, read_domain

from vgicmgr.dataclass import replace
from vgicmgr.guest.start import judge_start, resolve_gic_version

GUEST = read_domain(
    b"<domain type='kvm'><name>g</name><memory>1048576</memory><vcpu>2</vcpu>"
    b"<os><type arch='aarch64' machine='virt'>hvm</type></os></domain>"
)


@pytest.mark.parametrize(
    ("wish", "vcpus", "supported", "version"),
    [  # hw/arm/virt.c, finalize_gic_version
        ("", 8, [2, 3], 2),
        ("", 9, [2, 3], 3),
        ("", 1, [3], 3),
        ("host", 1, [2, 3], 3),
        ("host", 1, [2], 2),
        ("2", 1, [2, 3], 2),
        ("3", 1, [2], 3),
    ],
)
def test_the_gic_version_that_qemu_chooses(wish: str, vcpus: int, supported: list[int], version: int) -> None:
    assert resolve_gic_version(replace(GUEST, gic_version=wish, vcpus=vcpus), supported) == version


@pytest.mark.parametrize(
    "settings",
    [
        replace(GUEST, virt_type="qemu"),
        replace(GUEST, arch="x86_64", machine="q35"),
        replace(GUEST, machine="raspi3b"),
    ],
)
def test_no_kernel_is_asked_for_a_guest_that_needs_none_of_kvms_gics(settings: DomainSettings) -> None:
    assert judge_start(settings).findings == ()
