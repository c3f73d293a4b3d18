"""What check-host asks of kernels, over fakes of several kinds; real ones are in ``tests/lab/test_check_host.py``."""

import pytest

from tests.fakes.hosts import GICV2_HOST, NEOVERSE_N1, NESTED, NO_GIC, SMALL_IPA, SVE_HOST, HostKind
from tests.fakes.kernel import FakeKernel, install, pretend_arm64
from vgicmgr.dataclass import replace
from vgicmgr.errors import CannotTell
from vgicmgr.host import capabilities as host
from vgicmgr.host.probe import probe_host

BOTH_GICS = replace(NEOVERSE_N1, gic_versions=frozenset({2, 3}))
OLD = replace(NEOVERSE_N1, ipa_limit=0, redistributor_regions=False, revision_is_kept=False, steal_time=False)
KINDS = {
    "Neoverse N1": NEOVERSE_N1,
    "SVE": SVE_HOST,
    "GICv2": GICV2_HOST,
    "36 bits": SMALL_IPA,
    "32 bits": replace(NEOVERSE_N1, ipa_limit=32),
    "no vGIC": NO_GIC,
    "EL2": NESTED,
    "both GICs": BOTH_GICS,
    "an old kernel": OLD,
}


def probe(monkeypatch: pytest.MonkeyPatch, kind: HostKind) -> host.HostCapabilities:
    pretend_arm64(monkeypatch)
    kernel = install(monkeypatch, FakeKernel(kind))
    found = probe_host()
    assert kernel.open_descriptors() == []
    return found


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_whatever_the_host_has_all_is_answered(kind: HostKind, monkeypatch: pytest.MonkeyPatch) -> None:
    found = probe(monkeypatch, kind)
    assert found.unanswered == ()
    assert set(found.gic_versions) == kind.gic_versions
    assert found.ipa_bits == (kind.ipa_limit or 40)
    assert (found.its is not None) == kind.its
    assert (found.pmu is not None) == kind.pmu
    assert found.vcpu is not None
    assert found.vcpu.sve_vector_lengths == kind.sve
    assert found.vcpu.steal_time == kind.steal_time


def test_a_gicv3_with_its_its_and_pmu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = probe(monkeypatch, NEOVERSE_N1)
    assert found.gicv3 == host.GICv3(
        max_vcpus=512,
        max_intids=992,
        gicd_iidr=0x4B00_343B,
        iidr_revisions=(2, 3),
        gicd_typer=0x0048_001E,
        registers=True,
        icc_ctlr_el1=0x400,
        redistributor_regions=True,
        line_level=True,
        save_pending_tables=True,
    )
    assert found.its == host.ITS(
        0x4B00_043B,
        (0,),
        0x1EF71,
        registers=True,
        save_tables=True,
        restore_tables=True,
        reset=True,
        msi_devid=True,
    )
    assert found.pmu == host.PMU(interrupt=True, filter=True, choice=True, counter_limit=False, counters=6)
    assert found.vcpu is not None
    assert found.vcpu.firmware[0] == ("KVM_REG_ARM_PSCI_VERSION", 0x1_0003)
    assert found.vcpu.listed_registers > found.vcpu.migrated_registers > 200


def test_a_gicv2_is_for_8_vcpus(monkeypatch: pytest.MonkeyPatch) -> None:
    found = probe(monkeypatch, BOTH_GICS)
    assert found.capabilities["KVM_CAP_MAX_VCPUS"] == 512
    assert found.gicv2 is not None
    assert (found.gicv2.max_vcpus, found.gicv2.gicd_typer) == (8, 30)


def test_a_revision_is_accepted_where_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    found = probe(monkeypatch, OLD)
    assert found.gicv3 is not None
    assert found.gicv3.iidr_revisions == (3,)
    assert not found.gicv3.redistributor_regions


def test_what_the_kernel_promises_and_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    pretend_arm64(monkeypatch)
    install(monkeypatch, FakeKernel(NEOVERSE_N1, refuse={("KVM_CREATE_DEVICE", 1): errno.ENOMEM}))
    found = probe_host()
    assert found.gicv3 is None
    assert found.its is not None
    [sentence] = found.unanswered
    assert sentence.startswith("KVM_CREATE_DEVICE KVM_DEV_TYPE_ARM_VGIC_V3: ENOMEM")


def test_another_architecture_has_no_gic_to_ask_of(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = install(monkeypatch, FakeKernel(NEOVERSE_N1))
    pretend_arm64(monkeypatch, machine="x86_64")
    with pytest.raises(CannotTell, match="x86_64"):
        probe_host()
    assert not kernel.requests
