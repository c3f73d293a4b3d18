"""Which guest gets which record: libvirt and the kernel are stand-ins here, and real ones in the lab."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from vgicmgr.migration.incoming import read_incoming

from tests.unit.migration.examples import RECORD
from vgicmgr.dataclass import replace
from vgicmgr.domain.connection import Connection, LibvirtError
from vgicmgr.migration import writer
from vgicmgr.migration.record import ABIRecord, Place, to_xml

HERE = replace(RECORD, kernel="7.2.13", registers=RECORD.registers[:2])
"""What a guest booted on this host has."""


class Refusal(Exception):
    """What stands for libvirt.libvirtError."""

    def get_error_code(self) -> int:
        return LIBVIRT.VIR_ERR_NO_DOMAIN if self.args[0] == "no domain" else 38


LIBVIRT = SimpleNamespace(
    libvirtError=Refusal,
    VIR_ERR_NO_DOMAIN=42,
    VIR_DOMAIN_METADATA_ELEMENT=2,
    VIR_DOMAIN_AFFECT_LIVE=1,
    VIR_DOMAIN_RUNNING=1,
    VIR_DOMAIN_RUNNING_BOOTED=1,
    VIR_DOMAIN_RUNNING_MIGRATED=2,
    VIR_DOMAIN_RUNNING_RESTORED=3,
    VIR_DOMAIN_RUNNING_FROM_SNAPSHOT=4,
    VIR_DOMAIN_RUNNING_UNPAUSED=5,
    VIR_DOMAIN_RUNNING_MIGRATION_CANCELED=6,
    VIR_DOMAIN_RUNNING_POSTCOPY=10,
    VIR_DOMAIN_PAUSED=3,
    VIR_DOMAIN_PAUSED_USER=1,
    VIR_DOMAIN_PAUSED_MIGRATION=2,
    VIR_DOMAIN_PAUSED_STARTING_UP=11,
)
"""Numbers of libvirt's include/libvirt/libvirt-domain.h and virterror.h."""
RUNNING, PAUSED = LIBVIRT.VIR_DOMAIN_RUNNING, LIBVIRT.VIR_DOMAIN_PAUSED


@dataclass
class Domain:
    """A running domain, and libvirt's connection to it at once."""

    state_and_reason: tuple[int, int] = (RUNNING, LIBVIRT.VIR_DOMAIN_RUNNING_BOOTED)
    records: dict[Place, str] = field(default_factory=dict)
    arch: str = "aarch64"
    active: bool = True
    busy: bool = False
    gone: bool = False
    """Since it was looked up."""

    def lookupByName(self, name: str) -> "Domain":
        if name != "web1":
            raise LIBVIRT.libvirtError("no domain")
        return self

    lookupByUUIDString = lookupByName  # noqa: N815

    def isActive(self) -> bool:
        return self.active

    def state(self) -> tuple[int, int]:
        return self.state_and_reason

    def XMLDesc(self, flags: int) -> str:
        if self.gone:
            raise LIBVIRT.libvirtError("domain is not running")
        return (
            f"<domain type='kvm'><name>web1</name><memory>1</memory>"
            f"<os><type arch='{self.arch}' machine='virt-10.0'>hvm</type></os>"
            f"<metadata>{''.join(self.records.values())}</metadata></domain>"
        )

    def setMetadata(self, kind: int, xml: str | None, key: str, uri: str, flags: int) -> None:
        if self.busy:
            raise LIBVIRT.libvirtError("cannot acquire state change lock")
        assert (kind, flags) == (LIBVIRT.VIR_DOMAIN_METADATA_ELEMENT, LIBVIRT.VIR_DOMAIN_AFFECT_LIVE)
        place = Place(uri)
        if xml is None:
            self.records.pop(place, None)
        else:
            # as libvirt puts it into the namespace
            self.records[place] = xml.replace("<record", f"<{key}:record xmlns:{key}='{uri}'").replace(
                "</record", f"</{key}:record"
            )

    def holds(self, place: Place) -> ABIRecord | None:
        incoming = read_incoming(self.XMLDesc(0).encode())
        element = incoming.element if place is Place.BOOT else incoming.host
        return element.record() if element else None


@pytest.fixture(autouse=True)
def marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setitem(sys.modules, "libvirt", LIBVIRT)
    monkeypatch.setattr(writer, "take_record", lambda connection, xml, settings: HERE)
    monkeypatch.setattr(writer, "arrival_mark", lambda name: tmp_path / name)
    return tmp_path


def write(domain: Domain, name: str = "web1", *, force: bool = False) -> str:
    return writer.write_record(Connection(domain, read_only=False), name, force=force)


def with_record(record: ABIRecord = RECORD) -> dict[Place, str]:
    return {Place.BOOT: to_xml(record)}


def test_a_guest_that_was_booted_here() -> None:
    domain = Domain()
    assert write(domain) == "written"
    assert domain.holds(Place.BOOT) == HERE


def test_once_is_enough() -> None:
    domain = Domain(records=with_record(replace(HERE, time="earlier")))
    assert write(domain) == "kept"
    assert domain.holds(Place.BOOT) == replace(HERE, time="earlier")


def test_a_cold_boot_replaces_what_an_older_definition_brought_along() -> None:
    domain = Domain(records={**with_record(), Place.HOST: to_xml(RECORD, Place.HOST)})
    assert write(domain) == "written"
    assert domain.holds(Place.BOOT) == HERE
    assert domain.holds(Place.HOST) is None


@pytest.mark.parametrize("reason", [1, 11])
def test_a_guest_that_is_started_paused(reason: int) -> None:
    domain = Domain((PAUSED, reason))
    assert write(domain) == "written"


@pytest.mark.parametrize("state", [(RUNNING, 2), (RUNNING, 3), (RUNNING, 4), (RUNNING, 5), (RUNNING, 10), (PAUSED, 2)])
def test_a_guest_that_arrived_keeps_its_record_and_gets_this_hosts_beside_it(state: tuple[int, int]) -> None:
    domain = Domain(state, with_record())
    assert write(domain) == "moved"
    assert domain.holds(Place.BOOT) == RECORD
    assert domain.holds(Place.HOST) == HERE
    assert write(domain) == "kept"


@pytest.mark.parametrize("state", [(RUNNING, 1), (RUNNING, 5), (PAUSED, 1), (PAUSED, 11)])
def test_the_hooks_mark_tells_an_arrival_when_libvirt_has_forgotten(marks: Path, state: tuple[int, int]) -> None:
    (marks / "web1").touch()
    domain = Domain(state, with_record())
    assert write(domain) == "moved"
    assert domain.holds(Place.BOOT) == RECORD


def test_a_guest_that_arrived_without_a_record_gets_none_unless_asked() -> None:
    domain = Domain((RUNNING, LIBVIRT.VIR_DOMAIN_RUNNING_MIGRATED))
    assert write(domain) == "unknown-origin"
    assert domain.records == {}
    assert write(domain, force=True) == "written"


def test_a_bad_record_of_a_guest_that_was_booted_here_is_replaced() -> None:
    domain = Domain(records={Place.BOOT: to_xml(RECORD).replace('version="1"', 'version="9"')})
    assert write(domain) == "written"


def test_another_guest() -> None:
    domain = Domain(arch="x86_64")
    assert write(domain) == "not-needed"


def test_a_busy_domain() -> None:
    with pytest.raises(LibvirtError, match="libvirt does not take the ABI record: cannot acquire state change lock"):
        write(Domain(busy=True))


def test_no_such_domain_or_one_that_does_not_run() -> None:
    with pytest.raises(LibvirtError, match="domain 'other': no domain"):
        write(Domain(), "other")
    with pytest.raises(LibvirtError, match="domain 'web1' does not run"):
        write(Domain(active=False))


def test_a_guest_that_ends_meanwhile() -> None:
    with pytest.raises(LibvirtError, match="domain 'web1': domain is not running"):
        write(Domain(gone=True))
