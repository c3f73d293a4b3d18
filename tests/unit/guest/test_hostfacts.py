"""What of a host's capabilities, or of their document, decides about a configuration."""

from vgicmgr.dataclass import replace

import pytest

from tests.unit.host.examples import GICV2_ONLY, ROOMY
from vgicmgr.host.capabilities import HostCapabilities, KernelLog
from vgicmgr.host.document import to_document
from vgicmgr.host.judge import judge_host
from vgicmgr.guest.hostfacts import facts_of_document, host_facts


@pytest.mark.parametrize("host", [ROOMY, GICV2_ONLY])
def test_the_document_says_the_same(host: HostCapabilities) -> None:
    assert facts_of_document(to_document(host, judge_host(host))) == host_facts(host)


def test_the_its() -> None:
    """GITS_TYPER of Linux 6.1 to 7.2 (facts of the lab): Devbits 15 and ID_bits 15, each less one."""
    assert ROOMY.its is not None
    facts = host_facts(replace(ROOMY, its=replace(ROOMY.its, gits_typer=0x1EF71, msi_devid=False)))
    assert (facts.its_device_bits, facts.its_event_bits, facts.msi_devid) == (16, 16, False)
    facts = host_facts(replace(ROOMY, its=replace(ROOMY.its, gits_typer=9 << 13 | 7 << 8)))
    assert (facts.its_device_bits, facts.its_event_bits) == (10, 8)


@pytest.mark.parametrize("el2", [False, True])
def test_el2(el2: bool) -> None:
    host = replace(ROOMY, capabilities={**ROOMY.capabilities, "KVM_CAP_ARM_EL2": int(el2)})
    assert host_facts(host).el2 is el2
    assert facts_of_document(to_document(host, judge_host(host))).el2 is el2


@pytest.mark.parametrize(
    ("enabled", "version", "injection"), [(True, "4", "4"), (True, "4.1", "4.1"), (False, "4.1", ""), (None, None, "")]
)
def test_direct_injection(enabled: bool | None, version: str | None, injection: str) -> None:
    host = replace(ROOMY, log=KernelLog("VHE", enabled, version))
    assert host_facts(host).direct_injection == injection
    assert facts_of_document(to_document(host, judge_host(host))).direct_injection == injection
