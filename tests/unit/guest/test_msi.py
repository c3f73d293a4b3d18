"""The MSI controller: what the machine has, what our wishes make of it, and what needs it."""

import pytest

from tests.unit.guest.examples import (
    EMULATED,
    GUEST,
    HOST,
    configured,
    decided,
    errors,
    guest,
    host,
    names,
    resolved,
    with_machine,
)
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Devices, Domain
from vgicmgr.domain.metadata import Unsatisfied, Wishes
from vgicmgr.guest.configuration import Source
from vgicmgr.guest.resolve import resolve
from vgicmgr.qemu.gic import MSIController


@pytest.mark.parametrize(
    ("domain", "msi", "source"),
    [
        (guest(gic_version="2"), MSIController.GICV2M, Source.MACHINE),
        (GUEST, MSIController.ITS, Source.MACHINE),
        (with_machine("its=off"), MSIController.NONE, Source.ARGUMENT),
        (with_machine("its=no"), MSIController.NONE, Source.ARGUMENT),
        (with_machine("its=off", "its=on"), MSIController.ITS, Source.ARGUMENT),
        (with_machine("msi=gicv2m"), MSIController.GICV2M, Source.ARGUMENT),
        (with_machine("msi=off"), MSIController.NONE, Source.ARGUMENT),
        (with_machine("msi=auto"), MSIController.ITS, Source.MACHINE),
        (guest(machine="virt-2.7"), MSIController.NONE, Source.MACHINE),
        (guest(machine="virt-6.1"), MSIController.ITS, Source.MACHINE),
        (replace(EMULATED, machine="virt-6.1"), MSIController.NONE, Source.MACHINE),
        (replace(EMULATED, machine="virt-6.2"), MSIController.ITS, Source.MACHINE),
    ],
)
def test_what_the_machine_gives(domain: Domain, msi: MSIController, source: Source) -> None:
    resolution = resolve(domain, HOST)
    configuration = configured(resolution)
    assert configuration.msi is msi
    assert decided(resolution, "MSI controller")[1] is source
    assert (configuration.its is not None) == (msi is MSIController.ITS)
    assert (configuration.gicv2m is not None) == (msi is MSIController.GICV2M)


@pytest.mark.parametrize(
    ("wishes", "options"),
    [
        (Wishes(its=False), (("its", "off"),)),
        (Wishes(msi="none"), (("its", "off"),)),
        (Wishes(its=False, msi="none"), (("its", "off"),)),
        (Wishes(its=False, msi="gicv2m"), (("msi", "gicv2m"),)),
        (Wishes(its=True), ()),
        (Wishes(msi="its"), ()),
    ],
)
def test_a_wish_with_a_gicv3(wishes: Wishes, options: tuple[tuple[str, str], ...]) -> None:
    resolution = resolved(GUEST, HOST, (11, 1), wished=wishes)
    assert resolution.machine_options == options
    assert decided(resolution, "MSI controller")[1] is Source.METADATA


def test_its_off_says_nothing_about_a_gicv2() -> None:
    resolution = resolve(guest(gic_version="2"), HOST, wished=Wishes(its=False))
    assert decided(resolution, "MSI controller") == ("a GICv2m", Source.MACHINE)


def test_what_was_applied_is_not_applied_again() -> None:
    resolution = resolve(with_machine("its=off"), HOST, wished=Wishes(its=False))
    assert resolution.machine_options == ()
    assert decided(resolution, "MSI controller") == ("none", Source.METADATA)


@pytest.mark.parametrize(
    ("domain", "wishes", "version"),
    [
        (guest(gic_version="2"), Wishes(its=True), None),
        (guest(gic_version="2"), Wishes(msi="none"), (10, 0)),
        (GUEST, Wishes(msi="gicv2m"), (10, 0)),
        (GUEST, Wishes(msi="gicv2m"), None),
        (replace(EMULATED, machine="virt-6.1"), Wishes(its=True), None),
    ],
)
def test_a_wish_that_cannot_be_honoured(domain: Domain, wishes: Wishes, version: tuple[int, int] | None) -> None:
    assert errors(resolved(domain, HOST, version, wished=wishes)) == ["wish-unmet"]
    going_on = resolved(domain, HOST, version, wished=replace(wishes, unsatisfied=Unsatisfied.WARN))
    assert names(going_on) == ["wish-unmet"]
    assert decided(going_on, "MSI controller")[1] is Source.MACHINE


@pytest.mark.parametrize(
    ("wishes", "domain"),
    [
        (Wishes(its=True, msi="none"), GUEST),
        (Wishes(its=True, msi="gicv2m"), GUEST),
        (Wishes(its=False, msi="its"), GUEST),
        (Wishes(its=True), with_machine("its=off")),
        (Wishes(its=False), with_machine("its=on")),
    ],
)
def test_contradictions(wishes: Wishes, domain: Domain) -> None:
    assert errors(resolve(domain, HOST, wished=wishes)) == ["wish-contradiction"]


class TestAKernelWithoutAnITS:
    """QEMU ends at 'error creating in-kernel ITS' (hw/intc/arm_gicv3_its_kvm.c): a start, too, is refused."""

    WITHOUT = host(makes_its=False)

    @pytest.mark.parametrize("domain", [GUEST, guest(machine="virt-2.8"), with_machine("msi=its")])
    def test_refused(self, domain: Domain) -> None:
        assert errors(resolve(domain, self.WITHOUT)) == ["its-unsupported"]

    def test_the_remedy_helps(self) -> None:
        [finding] = resolve(GUEST, self.WITHOUT).findings
        assert "<qemu:arg value='its=off'/>" in finding.remedy
        assert names(resolve(with_machine("its=off"), self.WITHOUT)) == []

    @pytest.mark.parametrize("domain", [guest(machine="virt-2.7"), guest(gic_version="2")])
    def test_one_that_has_none_starts(self, domain: Domain) -> None:
        assert names(resolve(domain, self.WITHOUT)) == []

    def test_one_that_is_assumed_only_warns(self) -> None:
        assert names(resolve(GUEST, replace(self.WITHOUT, asked=False))) == ["its-unsupported"]


def test_root_ports_need_msis() -> None:
    """hw/pci-bridge/gen_pcie_root_port.c: MSI-X, which msix_init refuses without an MSI controller."""
    ports = guest(devices=Devices(root_ports=3))
    assert errors(resolve(ports, HOST, wished=Wishes(its=False))) == ["msi-needed"]
    assert names(resolve(ports, HOST)) == []


@pytest.mark.parametrize(
    ("option", "version", "refused"),
    [("msi=its", None, True), ("msi=its", (11, 0), True), ("its=on", (11, 0), True), ("its=on", (10, 0), False)],
)
def test_a_gicv2_has_no_its(option: str, version: tuple[int, int] | None, refused: bool) -> None:
    """hw/arm/virt.c, finalize_msi_controller; before QEMU 11, its= passed a GICv2 by."""
    resolution = resolved(with_machine(option, gic_version="2"), HOST, version)
    assert errors(resolution) == (["its-unsupported"] if refused else [])
