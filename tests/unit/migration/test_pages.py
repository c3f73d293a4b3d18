"""Hosts of other page sizes: what loads, what does not, and remedies that lead to an arrival (FAULTS G2)."""

import pytest

from tests.fakes.hosts import NEOVERSE_N1
from tests.unit.migration.examples import boot, documented_host, domain, judge
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Domain
from vgicmgr.findings import Severity
from vgicmgr.host.documented import DocumentedHost
from vgicmgr.migration.arrival import judge_arrival

NO_STEAL_TIME = ("-cpu", "host,kvm-steal-time=off")
POST_COPY = "post-copy-page-size"
ACPI = "<acpi/>"


@pytest.fixture(scope="module")
def there() -> DocumentedHost:
    """The destination by its document, whatever its pages."""
    return documented_host(NEOVERSE_N1)


def found(there: DocumentedHost, guest: Domain, theirs: int, ours: int) -> list[tuple[str, Severity, str]]:
    """What the hook and the document say alike of a move between pages of so many KiB."""
    record = boot(NEOVERSE_N1, guest, page_size=theirs << 10)
    assert record.page_size == theirs << 10
    by_hook = judge(record, NEOVERSE_N1, guest, page_size=ours << 10)
    machine = replace(there.capabilities.machine, page_size=ours << 10)
    there = replace(there, capabilities=replace(there.capabilities, machine=machine))
    assert judge_arrival(guest, record, there).findings == by_hook
    return [(finding.name, finding.severity, finding.remedy) for finding in by_hook]


class TestACPI:
    @pytest.mark.parametrize(("theirs", "ours"), [(64, 4), (16, 4), (64, 16)])
    def test_from_larger_pages_to_smaller_is_an_error(self, there: DocumentedHost, theirs: int, ours: int) -> None:
        [(name, severity, remedy), (post_copy, _, _)] = found(
            there, domain(*NO_STEAL_TIME, features=ACPI), theirs, ours
        )
        assert (name, severity, post_copy) == ("page-size", Severity.ERROR, POST_COPY)
        assert f"pages of {theirs} KiB" in remedy

    @pytest.mark.parametrize(("theirs", "ours"), [(4, 64), (4, 16), (16, 64)])
    def test_from_smaller_to_larger_arrives_though_not_by_post_copy(
        self, there: DocumentedHost, theirs: int, ours: int
    ) -> None:
        [(name, severity, _)] = found(there, domain(*NO_STEAL_TIME, features=ACPI), theirs, ours)
        assert (name, severity) == (POST_COPY, Severity.WARNING)

    @pytest.mark.parametrize("pages", [4, 16, 64])
    def test_equal_pages(self, there: DocumentedHost, pages: int) -> None:
        assert found(there, domain(features=ACPI), pages, pages) == []

    @pytest.mark.parametrize(
        ("features", "argument", "acpi"),
        [  # libvirt writes acpi= whatever the XML has; an argument of the domain's own comes behind it
            ("", "usb=off", False),
            ("", "acpi=on", True),
            ("", "acpi=auto", True),
            (ACPI, "usb=off", True),
            (ACPI, "acpi=off", False),
        ],
    )
    def test_by_the_machine_that_qemu_makes(
        self, there: DocumentedHost, features: str, argument: str, acpi: bool
    ) -> None:
        guest = domain(*NO_STEAL_TIME, "-machine", argument, features=features)
        assert [name for name, _, _ in found(there, guest, 16, 4)] == [*(["page-size"] if acpi else []), POST_COPY]


class TestStolenTime:
    def test_from_larger_pages_to_smaller_its_region_does_not_load(self, there: DocumentedHost) -> None:
        [(name, severity, remedy), _] = found(there, domain(), 16, 4)
        assert (name, severity) == ("steal-time", Severity.ERROR)
        assert "kvm-steal-time=off" in remedy

    def test_the_remedy_is_named_only_where_it_helps(self, there: DocumentedHost) -> None:
        """With ACPI the guest would be booted anew, and fail all the same."""
        [(page_size, _, other), (name, severity, remedy), _] = found(there, domain(features=ACPI), 16, 4)
        assert (page_size, name, severity) == ("page-size", "steal-time", Severity.ERROR)
        assert "kvm-steal-time" not in remedy + other

    def test_a_guest_that_follows_the_remedy_arrives(self, there: DocumentedHost) -> None:
        assert [name for name, _, _ in found(there, domain(*NO_STEAL_TIME), 16, 4)] == [POST_COPY]

    def test_from_smaller_pages_to_larger_it_loads_and_stands_still(self, there: DocumentedHost) -> None:
        [(name, severity, _), _] = found(there, domain(), 4, 16)
        assert (name, severity) == ("steal-time", Severity.WARNING)

    def test_with_so_many_vcpus_that_its_size_is_the_same(self, there: DocumentedHost) -> None:
        assert [name for name, _, _ in found(there, domain(vcpus=256), 16, 4)] == [POST_COPY]
        assert [name for name, _, _ in found(there, domain(vcpus=256), 4, 16)] == [POST_COPY]

    def test_a_host_that_does_not_give_it(self) -> None:
        [one] = judge(boot(NEOVERSE_N1), replace(NEOVERSE_N1, steal_time=False))
        assert (one.name, one.severity) == ("steal-time", Severity.ERROR)
        assert "kvm-steal-time=off" in one.remedy
