"""QEMU's and libvirt's choice of the GIC and of the MSI controller, by hw/arm/virt.c and qemu_postparse.c."""

import pytest

from vgicmgr.qemu.arguments import ArgumentError
from vgicmgr.qemu.gic import MSIController, emulated_gic_versions, gic_version, libvirt_gic_version, msi_controller
from vgicmgr.qemu.machine import Version
from vgicmgr.qemu.virt import Properties

ITS, GICV2M, NONE = MSIController.ITS, MSIController.GICV2M, MSIController.NONE


@pytest.mark.parametrize(
    ("wish", "supported", "vcpus", "version"),
    [
        ("", {2, 3}, 8, 2),
        ("", {2, 3}, 9, 3),
        ("", {3}, 1, 3),
        ("", {2}, 9, 2),  # QEMU then ends, for a GICv2 has no more than 8 CPUs
        ("", {5}, 1, 0),
        ("", set(), 1, 0),
        ("host", {2, 3}, 1, 3),
        ("max", {2, 3, 4}, 1, 4),
        ("max", {2}, 1, 2),
        ("max", {3, 5}, 1, 3),
        ("host", set(), 1, 0),
        ("3", {2}, 1, 3),
        ("2", {3}, 1, 2),
    ],
)
def test_qemus_gic_version(wish: str, supported: set[int], vcpus: int, version: int) -> None:
    assert gic_version(wish, supported, vcpus) == version


def test_qemu_before_8_0_emulates_a_gicv2_where_it_is_told_nothing() -> None:
    assert gic_version("", {2, 3}, 9, kvm=False, qemu=(7, 2)) == 2
    assert gic_version("", {2, 3}, 9, kvm=False, qemu=(8, 0)) == 3
    assert gic_version("", {2, 3}, 9, kvm=True, qemu=(7, 2)) == 3


def test_host_is_kvms() -> None:
    with pytest.raises(ArgumentError):
        gic_version("host", {2, 3}, 1, kvm=False)


@pytest.mark.parametrize("wish", ["03", "5", "newest", "٣", "3 ", "9" * 5000])
def test_words_that_qemu_refuses(wish: str) -> None:
    with pytest.raises(ArgumentError):
        gic_version(wish, {2, 3}, 1)


@pytest.mark.parametrize(
    ("virt_type", "supported", "written"),
    [("kvm", {2, 3}, "3"), ("kvm", {2}, "2"), ("kvm", set(), "2"), ("kvm", {5, 3}, "3"), ("qemu", {2, 3, 4}, "2"),
     ("qemu", {3}, "2")],
)  # fmt: skip
def test_libvirts_default(virt_type: str, supported: set[int], written: str) -> None:
    assert libvirt_gic_version(virt_type, supported) == written


def test_a_gicv4_is_emulated_beside_el2_alone() -> None:
    assert emulated_gic_versions(virtualization=True) - emulated_gic_versions(virtualization=False) == {4}


class TestMSIController:
    @staticmethod
    def of(
        properties: Properties,
        version: int,
        machine: Version | None = None,
        *,
        kvm: bool = True,
        qemu: Version | None = None,
    ) -> MSIController:
        return msi_controller(properties, version, machine, kvm=kvm, in_kernel=kvm, qemu=qemu)

    def test_by_default(self) -> None:
        assert self.of(Properties(), 2) is GICV2M
        assert self.of(Properties(), 3) is ITS
        assert self.of(Properties(), 4, kvm=False) is ITS
        assert self.of(Properties(), 5) is NONE

    def test_old_machine_types(self) -> None:
        assert self.of(Properties(), 3, (2, 7)) is NONE
        assert self.of(Properties(), 3, (2, 8)) is ITS
        assert self.of(Properties(its=True), 3, (2, 7)) is ITS
        assert self.of(Properties(), 3, (6, 1), kvm=False) is NONE
        assert self.of(Properties(its=True), 3, (6, 1), kvm=False) is NONE
        assert self.of(Properties(), 3, (6, 1)) is ITS

    def test_its_off(self) -> None:
        assert self.of(Properties(its=False), 3) is NONE
        assert self.of(Properties(its=False), 2) is GICV2M

    def test_msi_of_qemu_11(self) -> None:
        assert self.of(Properties(msi="auto"), 3) is ITS
        assert self.of(Properties(msi="off"), 2) is NONE
        assert self.of(Properties(msi="gicv2m"), 3) is GICV2M
        assert self.of(Properties(msi="its"), 3) is ITS

    def test_the_word_its_makes_none_that_the_machine_type_cannot_emulate(self) -> None:
        """As the device trees of QEMU 11.1 have it (``tests/lab/test_device_tree.py``)."""
        assert self.of(Properties(msi="its"), 3, (6, 1), kvm=False, qemu=(11, 1)) is NONE
        assert self.of(Properties(msi="its"), 3, (6, 2), kvm=False, qemu=(11, 1)) is ITS
        assert self.of(Properties(msi="its"), 3, (2, 7), qemu=(11, 1)) is ITS

    def test_no_its_for_a_gicv2(self) -> None:
        with pytest.raises(ArgumentError):
            self.of(Properties(msi="its"), 2)
        with pytest.raises(ArgumentError):
            self.of(Properties(its=True), 2, qemu=(11, 0))
        assert self.of(Properties(its=True), 2, qemu=(10, 2)) is GICV2M
        with pytest.raises(ArgumentError):
            self.of(Properties(msi="its"), 5)
