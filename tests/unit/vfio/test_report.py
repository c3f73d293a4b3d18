"""The report: one line a device, its details with -v, and what could not be read."""

from tests.unit.vfio.examples import EMPTY, FULL
from vgicmgr.vfio.judge import judge_inventory
from vgicmgr.vfio.report import COLUMNS, render


def lines(*, verbose: bool = False) -> list[str]:
    return render(FULL, judge_inventory(FULL), verbose=verbose).splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_one_line_a_device() -> None:
    assert cells(lines()[0]) == list(COLUMNS)
    assert [cells(line) for line in lines()[1:6]] == [
        ["0000:01:00.0", "7", "yes", "mlx5_vfio_pci", "yes", "3", "0", "0", "64",
         "stop-copy,p2p,pre-copy,dirty-tracking", "free", "-"],
        ["0000:02:00.0", "8", "yes", "vfio-pci", "no", "5", "1", "1", "5", "no", "in use by guest web, dpdk (13)", "-"],
        ["0000:03:00.0", "9", "no", "vfio-pci", "?", "?", "?", "?", "?", "no", "free", "0000:03:00.1"],
        ["0000:03:00.1", "9", "no", "e1000e", "no", "1", "1", "?", "?", "?", "not bound", "0000:03:00.0"],
        ["fd000000.dma", "10", "yes", "vfio-platform", "no", "1", "1", "0", "0", "no", "free", "-"],
    ]  # fmt: skip


def test_columns_are_aligned() -> None:
    table = lines()[:6]
    for column in ("GROUP", "DRIVER", "OTHER MEMBERS"):
        at = table[0].index(column)
        assert all(line[at - 1] == " " and line[at] != " " for line in table)


def test_what_was_not_asked_or_read_is_told() -> None:
    assert "0000:02:00.0 was not asked: in use by guest web" in lines()
    assert lines()[-1] == "not read: something"


def test_verbose_shows_regions_and_interrupts_one_by_one() -> None:
    shown = [line.strip() for line in lines(verbose=True)]
    assert "region 0 BAR 0: size 0x100000, offset 0x0, read write mmap, mmap of 0x0+0x1000 0x2000+0xfe000 only" in shown
    assert "region 1 BAR 1: size 0x0, offset 0x10000000000, unused" in shown
    assert (
        "region 9: size 0x100, offset 0x90000000000, read, MSI-X table mappable, type 0x800015b3 subtype 0x1" in shown
    )
    assert "interrupt 2 MSI-X: 64, eventfd" in shown


def test_verbose_shows_where_the_firmware_describes_a_platform_device() -> None:
    shown = [line.strip() for line in lines(verbose=True)]
    assert "firmware: /soc/dma@fd000000" in shown
    assert "region 0: size 0x1000, offset 0x0, read write mmap; reg[0] control: 0xfd000000 size 0x1000" in shown
    assert "interrupt 0: 1, eventfd maskable automasked; interrupts[0]: <0x0 0x1e 0x4>" in shown


def test_verbose_shows_of_a_device_in_use_what_sysfs_has() -> None:
    shown = [line.strip() for line in lines(verbose=True)]
    assert "region 3 BAR 3: size 0x4000" in shown


def test_a_host_without_devices() -> None:
    assert render(EMPTY, judge_inventory(EMPTY), verbose=False).startswith("No device can be assigned.\n\nwarning: ")
