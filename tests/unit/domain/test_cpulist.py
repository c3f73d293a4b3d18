"""Lists of host CPUs, as libvirt's virBitmapParse takes them, and which of them a domain's vCPUs may run on."""

import pytest

from vgicmgr.domain.cpulist import emulator_cpus, read_cpu_list, vcpu_cpus
from vgicmgr.domain.domain import Domain
from vgicmgr.domain.xml import read_domain


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0", {0}),
        ("0-3", {0, 1, 2, 3}),
        ("0-3,^2", {0, 1, 3}),
        ("^2,0-3", {0, 1, 2, 3}),  # in this order nothing is taken out
        ("0-3,8,10-11", {0, 1, 2, 3, 8, 10, 11}),
        (" 0-1 , 3", {0, 1, 3}),
        ("5-5", {5}),
        ("16383", {16383}),
    ],
)
def test_a_list(text: str, cpus: set[int]) -> None:
    assert read_cpu_list(text) == cpus


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "0,",
        "3-0",
        "-1",
        "0-",
        "a",
        "0-3,^1-2",
        "0x1",
        "1 2",
        "^0",
        "0,^0",
        "٣",
        "²",
        "+1",
        "16384",
        "9" * 5000,
    ],
)
def test_no_list(text: str) -> None:
    with pytest.raises(ValueError):
        read_cpu_list(text)


def domain(vcpu: str = "", *pins: str, vcpus: int = 2) -> Domain:
    cputune = f"<cputune>{''.join(pins)}</cputune>"
    return read_domain(
        f"<domain type='kvm'><name>g</name><memory>1</memory><vcpu {vcpu}>{vcpus}</vcpu>"
        f"<os><type arch='aarch64' machine='virt-10.0'>hvm</type></os>{cputune}</domain>".encode()
    )


def pin(vcpu: int, cpus: str) -> str:
    return f"<vcpupin vcpu='{vcpu}' cpuset='{cpus}'/>"


@pytest.mark.parametrize(
    ("guest", "vcpus", "emulator"),
    [
        (domain(), set(), set()),
        (domain("cpuset='4-7'"), {4, 5, 6, 7}, {4, 5, 6, 7}),
        (domain("", pin(0, "4"), pin(1, "5")), {4, 5}, set()),
        (domain("", pin(0, "4")), set(), set()),  # the other runs anywhere
        (domain("cpuset='0-3'", pin(0, "4")), {0, 1, 2, 3, 4}, {0, 1, 2, 3}),
        (domain("", pin(0, "4"), pin(1, "5"), "<emulatorpin cpuset='0'/>"), {4, 5}, {0}),
        (domain("cpuset='4-7'", "<emulatorpin cpuset='0'/>"), {4, 5, 6, 7}, {0}),
        (domain("cpuset='4-7'", pin(7, "0")), {4, 5, 6, 7}, {4, 5, 6, 7}),  # of a vCPU that it does not have
        (domain("cpuset='all'"), set(), set()),
    ],
)
def test_what_a_domain_is_pinned_to(guest: Domain, vcpus: set[int], emulator: set[int]) -> None:
    assert vcpu_cpus(guest) == vcpus
    assert emulator_cpus(guest) == emulator
