"""Guests that cannot leave: QEMU blocks their migration, and nobody is to find out after the copy (FAULTS G12)."""

from dataclasses import replace as changed

import pytest

from tests.fakes.hosts import NEOVERSE_N1, NESTED
from tests.fakes.kernel import FakeKernel
from tests.unit.migration.moves import Hosts, guest, hosts, names
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Domain
from vgicmgr.errors import RecordError
from vgicmgr.findings import Severity
from vgicmgr.guest.plan import CreateVCPU, CreateVM, EnableCapability, call_plan
from vgicmgr.guest.resolve import resolve
from vgicmgr.host.assumed import AssumedHost
from vgicmgr.migration.arrival import check_arrival, judge_arrival
from vgicmgr.migration.departure import blocked_by_qemu

__all__ = ["hosts"]
TAGGED = changed(NEOVERSE_N1, mte=True, el1_32bit=False)
MTE, EL2 = guest("-machine", "mte=on"), guest("-machine", "virtualization=on")


@pytest.mark.parametrize(("domain", "what"), [(MTE, "MTE"), (EL2, "EL2")])
class TestArrival:
    """At the destination the guest is welcome: it has all that the guest needs, and may say no all the same."""

    def host(self, domain: Domain) -> FakeKernel:
        return FakeKernel(NESTED if domain is EL2 else TAGGED)

    def test_the_hook_says_it(self, hosts: Hosts, domain: Domain, what: str) -> None:
        record = hosts.boot(domain, self.host(domain).host)
        [found] = [one for one in hosts.arrive(domain, record, self.host(domain)) if one.severity is Severity.ERROR]
        assert found.name == "not-migratable"
        assert what in found.evidence

    def test_its_registers_are_not_even_written(self, hosts: Hosts, domain: Domain, what: str) -> None:
        record, kernel = hosts.boot(domain, self.host(domain).host), self.host(domain)
        hosts.arrive(domain, record, kernel)
        assert kernel.written == []

    def test_a_guest_without_a_record_is_told_of_it_too(self, domain: Domain, what: str) -> None:
        host = AssumedHost(capabilities={"KVM_CAP_ARM_MTE": 1, "KVM_CAP_ARM_EL2": 1})
        assert "not-migratable" in names(check_arrival(domain, host).findings)


def test_a_document_says_it_though_it_knows_no_such_vcpu(hosts: Hosts) -> None:
    """That is a plain no, not a question that cannot be answered."""
    there = hosts.document(NEOVERSE_N1)
    able = {**there.capabilities.capabilities, "KVM_CAP_ARM_EL2": 1, "KVM_CAP_ARM_MTE": 1}
    there = replace(there, capabilities=replace(there.capabilities, capabilities=able))
    for domain in (MTE, EL2):
        record = hosts.boot(domain, NESTED if domain is EL2 else TAGGED)
        assert "not-migratable" in names(judge_arrival(domain, record, there).findings)


def test_an_ordinary_guest_may_leave(hosts: Hosts) -> None:
    for host in (NESTED, TAGGED):
        assert hosts.arrive(guest(), hosts.boot(guest(), host), host) == ()


def test_a_guest_with_a_gicv5() -> None:
    assert "not-migratable" in names(check_arrival(guest("-machine", "gic-version=x-5"), AssumedHost()).findings)


class TestRecord:
    def test_of_a_guest_with_el2_it_has_the_feature_and_its_registers(self, hosts: Hosts) -> None:
        record, plain = hosts.boot(EL2, NESTED), hosts.boot(guest(), NESTED)
        assert set(record.features) - set(plain.features) == {"KVM_ARM_VCPU_HAS_EL2"}
        assert dict(record.registers).keys() > dict(plain.registers).keys()

    def test_of_a_guest_with_mte_its_registers_are_those_of_a_vm_with_it(self) -> None:
        """The kernel takes the capability before any vCPU only (arch/arm64/kvm/arm.c, kvm_vm_ioctl_enable_cap)."""
        configuration = resolve(MTE, AssumedHost(capabilities={"KVM_CAP_ARM_MTE": 1})).configuration
        assert configuration is not None
        made, enabled, vcpu = call_plan(configuration)[:3]
        assert isinstance(made, CreateVM)
        assert enabled == EnableCapability("KVM_CAP_ARM_MTE")
        assert vcpu == CreateVCPU(0)

    def test_the_capability_is_really_enabled(self, hosts: Hosts) -> None:
        plain, tagged = FakeKernel(TAGGED), FakeKernel(TAGGED)
        hosts.record(guest(), plain)
        hosts.record(MTE, tagged)
        assert (plain.requests["KVM_ENABLE_CAP"], tagged.requests["KVM_ENABLE_CAP"]) == (0, 1)

    def test_a_host_that_cannot_give_it_says_why_there_is_none(self, hosts: Hosts) -> None:
        with pytest.raises(RecordError, match="KVM_CAP_ARM_MTE is 0"):
            hosts.boot(MTE, NEOVERSE_N1)

    @pytest.mark.parametrize("arguments", [("-readconfig", "/etc/qemu/guest.cfg"), ("-set", "device.cpu.x=1")])
    def test_an_argument_that_nobody_reads_may_change_the_vcpus(self, hosts: Hosts, arguments: tuple[str, ...]) -> None:
        with pytest.raises(RecordError, match=f"{arguments[0]} may change the vCPUs"):
            hosts.boot(guest(*arguments), NEOVERSE_N1)


def test_what_a_running_guests_qemu_says() -> None:
    [found] = blocked_by_qemu(["Live migration disabled due to MTE enabled"])
    assert (found.name, found.severity) == ("not-migratable", Severity.ERROR)
    assert found.evidence.endswith("Live migration disabled due to MTE enabled")
    assert list(blocked_by_qemu([])) == []
