"""The GIC's version, and who asked for it."""

import pytest

from tests.unit.guest.examples import (
    EMULATED,
    HOST,
    AssumedHost,
    configured,
    decided,
    errors,
    guest,
    host,
    names,
    with_machine,
)
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Domain
from vgicmgr.guest.configuration import Source
from vgicmgr.guest.resolve import resolve
from vgicmgr.guest.wishes import NO_WISHES


@pytest.mark.parametrize(
    ("wish", "versions", "version", "source"),
    [
        ("2", {2, 3}, 2, Source.XML),
        ("3", {2, 3}, 3, Source.XML),
        ("host", {2, 3}, 3, Source.XML),
        ("host", {2}, 2, Source.XML),
        # without an element it is libvirt that writes one (qemuDomainDefEnableDefaultFeatures)
        ("", {2, 3}, 3, Source.LIBVIRT),
        ("", {3}, 3, Source.LIBVIRT),
        ("", {2}, 2, Source.LIBVIRT),
    ],
)
def test_under_kvm(wish: str, versions: set[int], version: int, source: Source) -> None:
    resolution = resolve(guest(gic_version=wish), host(gics=frozenset(versions)))
    assert configured(resolution).gic_version == version
    assert decided(resolution, "GIC version")[1] is source


@pytest.mark.parametrize(("wish", "vcpus", "version"), [("max", 2, 3), ("host", 9, 3), ("3", 2, 3), ("2", 2, 2)])
def test_qemus_own_words(wish: str, vcpus: int, version: int) -> None:
    """finalize_gic_version (hw/arm/virt.c)."""
    resolution = resolve(with_machine(f"gic-version={wish}", vcpus=vcpus), HOST)
    assert configured(resolution).gic_version == version
    assert decided(resolution, "GIC version")[1] is Source.ARGUMENT


def test_libvirts_default_under_tcg_is_2() -> None:
    assert decided(resolve(replace(EMULATED, gic_version=""), HOST), "GIC version") == ("2", Source.LIBVIRT)


@pytest.mark.parametrize(
    ("domain", "on"),
    [
        (guest(gic_version="2"), host(gics=frozenset({3}))),
        (guest(gic_version="3"), host(gics=frozenset({2}))),
        (guest(gic_version="4"), HOST),
        (guest(gic_version="5"), HOST),
        (guest(gic_version="4294967295"), HOST),
        (guest(gic_version="host"), host(gics=frozenset())),
        (guest(gic_version=""), host(gics=frozenset())),
        (replace(EMULATED, gic_version="host"), HOST),
        (replace(EMULATED, gic_version="4"), HOST),
    ],
)
def test_refused(domain: Domain, on: AssumedHost) -> None:
    assert errors(resolve(domain, on)) == ["gic-version-unsupported"]


def test_an_argument_comes_after_the_element() -> None:
    assert configured(resolve(with_machine("gic-version=2", gic_version="3"), HOST)).gic_version == 2


class TestWhoDecided:
    """A remedy is for the place at which the version is set."""

    ONLY_2 = host(gics=frozenset({2}))
    ONLY_3 = host(gics=frozenset({3}))

    def test_an_argument_over_the_element(self) -> None:
        domain = with_machine("gic-version=3", gic_version="2")
        resolution = resolve(domain, self.ONLY_2)
        assert errors(resolution) == ["gic-version-unsupported"]
        [finding] = resolution.findings
        assert "gic-version=3 of <qemu:commandline>" in finding.evidence
        assert finding.remedy == "remove it"
        assert names(resolve(replace(domain, qemu_arguments=()), self.ONLY_2)) == []

    def test_the_element(self) -> None:
        [finding] = resolve(guest(gic_version="2"), self.ONLY_3).findings
        assert "<gic version='2'/> is asked for" in finding.evidence
        assert finding.remedy.startswith("set <gic version='3'/>")
        assert names(resolve(guest(gic_version="3"), self.ONLY_3)) == []

    def test_an_argument_that_puts_right_what_the_element_has_wrong(self) -> None:
        assert names(resolve(with_machine("gic-version=3", gic_version="2"), self.ONLY_3)) == []

    def test_an_argument_that_puts_wrong_what_the_element_has_right(self) -> None:
        assert errors(resolve(with_machine("gic-version=2", gic_version="3"), self.ONLY_3)) == [
            "gic-version-unsupported"
        ]


@pytest.mark.parametrize("versions", [{2}, {3}, {2, 3}])
def test_the_remedy_for_an_unknown_version_helps_on_every_host(versions: set[int]) -> None:
    on = host(gics=frozenset(versions))
    [finding] = resolve(guest(gic_version="5"), on).findings
    assert finding.remedy == "set <gic version='host'/>"
    assert names(resolve(guest(gic_version="host"), on)) == []
    [emulated] = resolve(replace(EMULATED, gic_version="5"), on).findings
    assert emulated.remedy == "set <gic version='2'/>"
    assert names(resolve(replace(EMULATED, gic_version="2"), on)) == []


def test_no_wish_of_ours_chooses_it() -> None:
    assert resolve(guest(), HOST, wished=NO_WISHES) == resolve(guest(), HOST)
