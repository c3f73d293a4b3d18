"""A host with cores of two types, whose kernel answers CCSIDR_EL1 and the PMU's registers by the core (G6)."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping

import pytest

from tests.fakes.hosts import NEOVERSE_N1
from tests.fakes.kernel import FakeKernel, VMTarget, install, pretend_arm64
from tests.fakes.registers import CONSTANT, Register
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Domain
from vgicmgr.domain.xml import read_domain
from vgicmgr.findings import Severity
from vgicmgr.guest.start import judge_start
from vgicmgr.host import kernel as host_kernel
from vgicmgr.host.kernel import Kernel
from vgicmgr.kvm.registers import register_id
from vgicmgr.migration.arrival import judge_arrival
from vgicmgr.migration.record import ABIRecord
from vgicmgr.migration.writer import take_record

CCSIDR = register_id("CCSIDR_EL1[L1 data]")
PMCEID0 = register_id("PMCEID0_EL0")
LITTLE_CPUS, BIG_CPUS = (0, 1, 2, 3), (4, 5, 6, 7)
BIG = NEOVERSE_N1.with_register_ids({PMCEID0: Register(0x7FFF_0F3F, CONSTANT)})
LITTLE = BIG.with_register_ids({CCSIDR: 0x700F_E01A, PMCEID0: Register(0x7FFF_003F, CONSTANT)})


class MixedHost:
    """Four little cores and four big ones; ``core`` is where this process happens to run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend_arm64(monkeypatch)
        self.kernel = install(monkeypatch, FakeKernel(LITTLE))
        self.affinity = {*LITTLE_CPUS, *BIG_CPUS}
        self.asked: list[Collection[int] | None] = []
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(self.affinity))
        monkeypatch.setattr(os, "sched_setaffinity", self.pin)
        monkeypatch.setattr(host_kernel, "read_midrs", self.midrs)
        self.run_on(0)

    def run_on(self, core: int) -> None:
        """The scheduler's choice."""
        self.core = core
        kind = LITTLE if core in LITTLE_CPUS else BIG
        self.kernel.host = kind
        for target in self.kernel._objects.values():
            if isinstance(target, VMTarget):
                target.host = kind

    def pin(self, pid: int, cpus: Iterable[int]) -> None:
        self.affinity = set(cpus)
        if self.core not in self.affinity:
            self.run_on(min(self.affinity))

    def midrs(self, cpus: Collection[int] | None) -> Mapping[int, int]:
        self.asked.append(cpus)
        all_ = {**dict.fromkeys(LITTLE_CPUS, 0x410FD034), **dict.fromkeys(BIG_CPUS, 0x410FD082)}
        return {number: midr for number, midr in all_.items() if cpus is None or number in cpus}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[MixedHost]:
    host = MixedHost(monkeypatch)
    yield host
    assert host.affinity == {*LITTLE_CPUS, *BIG_CPUS}
    assert host.kernel.open_descriptors() == []


def guest(vcpu: str = "", cputune: str = "") -> Domain:
    return read_domain(
        f"<domain type='kvm'><name>g</name><memory unit='GiB'>1</memory><vcpu {vcpu}>2</vcpu>"
        f"<cputune>{cputune}</cputune><os><type arch='aarch64' machine='virt-10.0'>hvm</type></os>"
        "<features><gic version='3'/></features><cpu mode='host-passthrough'/></domain>".encode()
    )


ANYWHERE = guest()
ON_BIG = guest("cpuset='4-7'")
PINNED_TO_BIG = guest("", "<vcpupin vcpu='0' cpuset='4'/><vcpupin vcpu='1' cpuset='5'/>")
ON_BOTH = guest("cpuset='3-4'")
EMULATOR_ON_LITTLE = guest("cpuset='4-7'", "<emulatorpin cpuset='0'/>")
ON_ONE = guest("cpuset='6'")


def record_of(domain: Domain) -> ABIRecord:
    with Kernel() as kernel:
        return take_record(domain, kernel, libvirt="11.3.0")


def arrival(domain: Domain, record: ABIRecord) -> dict[str, Severity]:
    with Kernel() as kernel:
        return {found.name: found.severity for found in judge_arrival(domain, record, kernel).findings}


class TestStart:
    """The warning says what to do; nothing is refused."""

    @pytest.mark.parametrize(
        ("domain", "warned"),
        [
            (ANYWHERE, True),
            (ON_BOTH, True),
            (EMULATOR_ON_LITTLE, True),
            (guest("", "<emulatorpin cpuset='0'/>"), True),
            (ON_BIG, False),
            (PINNED_TO_BIG, False),
            (ON_ONE, False),
        ],
    )
    def test_warning(self, host: MixedHost, domain: Domain, warned: bool) -> None:
        verdict = judge_start(domain)
        assert [found.name for found in verdict.findings] == ["cpu-types-mixed"] * warned
        assert verdict.ok
        assert all("pin all vCPUs to cores of one type" in found.remedy for found in verdict.findings)

    def test_a_host_of_one_type(self, host: MixedHost, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host_kernel, "read_midrs", lambda cpus: dict.fromkeys(range(8), 0x413FD0C1))
        assert judge_start(ANYWHERE).findings == ()

    def test_a_host_that_tells_no_midr(self, host: MixedHost, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host_kernel, "read_midrs", lambda cpus: {})
        assert judge_start(ANYWHERE).findings == ()

    def test_what_is_asked(self, host: MixedHost) -> None:
        """sysfs is read for the CPUs that count, and for none where one CPU is all."""
        judge_start(ON_ONE)
        assert host.asked == []
        judge_start(ON_BIG)
        assert host.asked == [frozenset(BIG_CPUS)]


class TestRecord:
    """It is of a core that the guest runs on, wherever Python ran."""

    @pytest.mark.parametrize("domain", [ON_BIG, PINNED_TO_BIG, ON_ONE, EMULATOR_ON_LITTLE])
    @pytest.mark.parametrize("core", [0, 7])
    def test_it_is_of_the_guests_cores(self, host: MixedHost, domain: Domain, core: int) -> None:
        host.run_on(core)
        record = record_of(domain)
        assert record.value(CCSIDR) == 0x701F_E00A
        assert record.value(PMCEID0) == 0x7FFF_0F3F

    def test_of_an_unpinned_guest_it_is_of_some_core(self, host: MixedHost) -> None:
        values = set()
        for core in (0, 7):
            host.run_on(core)
            values.add(record_of(ANYWHERE).value(CCSIDR))
        assert len(values) == 2


class TestArrival:
    """A restore is never refused by the core that Python ran on, on the very host that the guest was saved on."""

    @pytest.mark.parametrize(("taken", "restored"), [(0, 7), (7, 0)])
    @pytest.mark.parametrize("domain", [ANYWHERE, ON_BOTH])
    def test_unpinned(self, host: MixedHost, taken: int, restored: int, domain: Domain) -> None:
        host.run_on(taken)
        record = record_of(ANYWHERE)
        host.run_on(restored)
        host.affinity = {*LITTLE_CPUS, *BIG_CPUS}
        found = arrival(ANYWHERE, record)
        assert found == {"cpu-types-mixed": Severity.WARNING}

    @pytest.mark.parametrize(("taken", "restored"), [(0, 7), (7, 0), (0, 0)])
    @pytest.mark.parametrize("domain", [ON_BIG, PINNED_TO_BIG, ON_ONE])
    def test_pinned(self, host: MixedHost, taken: int, restored: int, domain: Domain) -> None:
        host.run_on(taken)
        record = record_of(domain)
        host.run_on(restored)
        assert arrival(domain, record) == {}

    def test_other_registers_are_refused_all_the_same(self, host: MixedHost) -> None:
        record = record_of(ANYWHERE)
        other = tuple(
            (number, 0x414FD0C1 if number == register_id("MIDR_EL1") else value) for number, value in record.registers
        )
        host.run_on(7)
        assert arrival(ANYWHERE, replace(record, registers=other)) == {
            "cpu-types-mixed": Severity.WARNING,
            "register-value": Severity.ERROR,
        }

    def test_another_hosts_caches_are_refused_where_the_guest_is_pinned_to_one_type(self, host: MixedHost) -> None:
        record = record_of(ON_BIG)
        other = tuple((number, 0x1234 if number == CCSIDR else value) for number, value in record.registers)
        assert arrival(ON_BIG, replace(record, registers=other)) == {"register-value": Severity.ERROR}
