"""What is read outside KVM's ioctls. The lines of the kernel log are those of real boots in the lab, and of the formats
in arch/arm64/kvm/arm.c and vgic/vgic-v3.c where the lab has no such host."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.host.capabilities import CoreType, KernelLog
from vgicmgr.host.linux import parse_kernel_log, read_core_types, read_kernel_log


@pytest.mark.parametrize(
    ("line", "mode"),
    [
        ("kvm [1]: VHE mode initialized successfully", "VHE"),
        ("kvm [1]: Hyp mode initialized successfully", "nVHE"),  # until Linux 6.4
        ("kvm [1]: Hyp nVHE mode initialized successfully", "nVHE"),
        ("kvm [1]: Hyp hVHE mode initialized successfully", "hVHE"),
        ("kvm [1]: Protected nVHE mode initialized successfully", "protected nVHE"),
        ("kvm [1]: Protected hVHE mode initialized successfully", "protected hVHE"),
        ("kvm [1]: VHE+NV2 mode initialized successfully", "VHE"),
        ("kvm [1]: HYP mode not available", None),
    ],
)
def test_mode(line: str, mode: str | None) -> None:
    assert parse_kernel_log(line).mode == mode


def test_gicv4_is_told_by_its_own_line() -> None:
    log = "kvm [1]: GICv4.1 support disabled\nkvm [1]: VHE mode initialized successfully"
    assert parse_kernel_log(log) == KernelLog("VHE", gicv4=False, gicv4_version="4.1")
    log = "kvm [1]: GICv4 support enabled\nkvm [1]: VHE mode initialized successfully"
    assert parse_kernel_log(log) == KernelLog("VHE", gicv4=True, gicv4_version="4")


def test_a_host_without_gicv4_has_no_such_line() -> None:
    assert parse_kernel_log("kvm [1]: VHE mode initialized successfully") == KernelLog("VHE", gicv4=False)


def test_a_log_without_kvms_lines_tells_nothing() -> None:
    assert parse_kernel_log("") == KernelLog(None, None, None)


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    parse_kernel_log(text)


def test_an_unreadable_log_tells_nothing(tmp_path: Path) -> None:
    assert read_kernel_log(str(tmp_path / "absent")) == KernelLog()


def test_without_sysfs_no_core_type_is_known(tmp_path: Path) -> None:
    assert read_core_types(str(tmp_path / "absent")) == ()


def test_core_types_are_gathered_by_midr(tmp_path: Path) -> None:
    for number, midr in enumerate(["0x410fd034", "0x410fd034", "0x410fd082", "garbage"]):
        identification = tmp_path / f"cpu{number}" / "regs" / "identification"
        identification.mkdir(parents=True)
        (identification / "midr_el1").write_text(f"{midr}\n")
    assert read_core_types(str(tmp_path)) == (CoreType(0x410FD034, (0, 1)), CoreType(0x410FD082, (2,)))


@pytest.mark.parametrize(
    ("line", "hertz"),
    [
        ("arch_timer: cp15 timer running at 62.50MHz (virt).", 62_500_000),
        ("arch_timer: cp15 timer(s) running at 24.00MHz (phys).", 24_000_000),
        ("arch_timer: cp15 and mmio timer(s) running at 1000.00MHz (virt/virt).", 1_000_000_000),
        ("arch_timer: mmio timer(s) running at 62.50MHz (phys).", None),
        ("arch_timer: cp15 timer running at 123456.00MHz (virt).", None),
        ("kvm [1]: VHE mode initialized successfully", None),
    ],
)
def test_the_counters_frequency(line: str, hertz: int | None) -> None:
    """arch_timer_banner, before and after the timer in memory was taken out of it."""
    assert parse_kernel_log(line).counter_frequency == hertz
