"""Guests that cannot leave: QEMU blocks their migration, and nobody is to find out after the copy (FAULTS G12)."""

import pytest

from tests.fakes.hosts import NEOVERSE_N1, NESTED
from tests.fakes.kernel import FakeKernel
from tests.unit.migration.examples import boot, documented_host, domain, judge
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Domain
from vgicmgr.errors import RecordError
from vgicmgr.findings import Finding, Severity
from vgicmgr.guest.plan import CreateVCPU, CreateVM, EnableCapability, call_plan
from vgicmgr.guest.resolve import resolve
from vgicmgr.host.assumed import AssumedHost
from vgicmgr.migration.arrival import check_arrival, judge_arrival
from vgicmgr.migration.departure import blocked_by_qemu

TAGGED = replace(NEOVERSE_N1, mte=True, el1_32bit=False)
MTE, EL2 = domain("-machine", "mte=on"), domain("-machine", "virtualization=on")


def names(found: tuple[Finding, ...]) -> list[str]:
    return [one.name for one in found]


@pytest.mark.parametrize(("guest", "what"), [(MTE, "MTE"), (EL2, "EL2")])
class TestArrival:
    """At the destination the guest is welcome: it has all that the guest needs, and may say no all the same."""

    def host(self, guest: Domain) -> FakeKernel:
        return FakeKernel(NESTED if guest is EL2 else TAGGED)

    def test_the_hook_says_it(self, guest: Domain, what: str) -> None:
        record = boot(self.host(guest), guest)
        [found] = [one for one in judge(record, self.host(guest), guest) if one.severity is Severity.ERROR]
        assert found.name == "not-migratable"
        assert what in found.evidence

    def test_its_registers_are_not_even_written(self, guest: Domain, what: str) -> None:
        record, kernel = boot(self.host(guest), guest), self.host(guest)
        judge(record, kernel, guest)
        assert kernel.written == []

    def test_a_guest_without_a_record_is_told_of_it_too(self, guest: Domain, what: str) -> None:
        host = AssumedHost(capabilities={"KVM_CAP_ARM_MTE": 1, "KVM_CAP_ARM_EL2": 1})
        assert "not-migratable" in names(check_arrival(guest, host).findings)


def test_a_document_says_it_though_it_knows_no_such_vcpu() -> None:
    """That is a plain no, not a question that cannot be answered."""
    there = documented_host(NEOVERSE_N1)
    able = {**there.capabilities.capabilities, "KVM_CAP_ARM_EL2": 1, "KVM_CAP_ARM_MTE": 1}
    there = replace(there, capabilities=replace(there.capabilities, capabilities=able))
    for guest, booted in ((MTE, TAGGED), (EL2, NESTED)):
        assert "not-migratable" in names(judge_arrival(guest, boot(booted, guest), there).findings)


def test_an_ordinary_guest_may_leave() -> None:
    for host in (NESTED, TAGGED):
        assert judge(boot(host), host) == ()


def test_a_guest_with_a_gicv5() -> None:
    assert "not-migratable" in names(check_arrival(domain("-machine", "gic-version=x-5"), AssumedHost()).findings)


class TestRecord:
    def test_of_a_guest_with_el2_it_has_the_feature_and_its_registers(self) -> None:
        record, plain = boot(NESTED, EL2), boot(NESTED)
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

    def test_the_capability_is_really_enabled(self) -> None:
        plain, tagged = FakeKernel(TAGGED), FakeKernel(TAGGED)
        boot(plain)
        boot(tagged, MTE)
        assert (plain.requests["KVM_ENABLE_CAP"], tagged.requests["KVM_ENABLE_CAP"]) == (0, 1)

    def test_a_host_that_cannot_give_it_says_why_there_is_none(self) -> None:
        with pytest.raises(RecordError, match="KVM_CAP_ARM_MTE is 0"):
            boot(NEOVERSE_N1, MTE)

    @pytest.mark.parametrize("arguments", [("-readconfig", "/etc/qemu/guest.cfg"), ("-set", "device.cpu.x=1")])
    def test_an_argument_that_nobody_reads_may_change_the_vcpus(self, arguments: tuple[str, ...]) -> None:
        with pytest.raises(RecordError, match=f"{arguments[0]} may change the vCPUs"):
            boot(NEOVERSE_N1, domain(*arguments))


def test_what_a_running_guests_qemu_says() -> None:
    [found] = blocked_by_qemu(["Live migration disabled due to MTE enabled"])
    assert (found.name, found.severity) == ("not-migratable", Severity.ERROR)
    assert found.evidence.endswith("Live migration disabled due to MTE enabled")
    assert list(blocked_by_qemu([])) == []
