"""What is an error, what a warning, and that everything found has a remedy."""

import pytest

from tests.unit.host.examples import BARE, GICV2_ONLY, ROOMY
from vgicmgr.dataclass import replace
from vgicmgr.findings import Severity
from vgicmgr.host.capabilities import CoreType, HostCapabilities
from vgicmgr.host.judge import NEEDED, judge_host


def names(host: HostCapabilities) -> set[str]:
    return {finding.name for finding in judge_host(host).findings}


def test_a_host_that_has_everything_has_no_findings() -> None:
    assert judge_host(ROOMY).findings == ()


def test_a_gicv2_host_lacks_gicv3_and_says_the_vcpu_limit() -> None:
    verdict = judge_host(GICV2_ONLY)
    (finding,) = verdict.findings
    assert finding.name == "gicv3-missing"
    assert "at most 8 vCPUs" in finding.evidence
    assert not verdict.ok


def test_no_pmu_is_an_error() -> None:
    host = replace(ROOMY, pmu=None, capabilities={**ROOMY.capabilities, "KVM_CAP_ARM_PMU_V3": 0})
    assert names(host) == {"pmu-missing"}


def test_a_mix_of_core_types_is_a_warning() -> None:
    cores = (CoreType(0x410FD034, (0,)), CoreType(0x410FD082, (1,)))
    verdict = judge_host(replace(ROOMY, machine=replace(ROOMY.machine, core_types=cores)))
    assert [(finding.name, finding.severity) for finding in verdict.findings] == [("cpu-types-mixed", Severity.WARNING)]
    assert verdict.ok


@pytest.mark.parametrize("capability", NEEDED)
def test_each_needed_capability_is_missed(capability: str) -> None:
    host = replace(ROOMY, capabilities={**ROOMY.capabilities, capability: 0})
    (finding,) = judge_host(host).findings
    assert (finding.name, finding.severity) == ("capability-missing", Severity.ERROR)
    assert finding.evidence.startswith(f"{capability} is 0: ")


def test_what_the_kernel_promised_and_refused_is_an_error() -> None:
    assert names(replace(ROOMY, its=None, unanswered=("KVM_CREATE_DEVICE …",))) == {"probe-refused"}


@pytest.mark.parametrize("host", [ROOMY, GICV2_ONLY, BARE, replace(BARE, ipa_bits=36, api_version=11)])
def test_every_finding_has_evidence_and_a_remedy(host: HostCapabilities) -> None:
    for finding in judge_host(host).findings:
        assert finding.evidence and finding.remedy, finding.name
