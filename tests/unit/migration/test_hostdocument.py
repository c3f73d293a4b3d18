"""An arrival judged from afar: what a host's document says of its registers, and what it is asked."""

import json
from vgicmgr.dataclass import replace

import pytest
from jsonschema import Draft202012Validator

from tests.unit.migration.examples import RECORD
from tests.unit.migration.test_arrival import DOMAIN
from tests.unit.host.examples import ROOMY
from vgicmgr.migration.arrival import findings
from vgicmgr.migration.hostdocument import HostDocumentError, host_of, to_member
from vgicmgr.migration.models import Model, Register
from vgicmgr.migration.record import ABIRecord
from vgicmgr.host.document import SCHEMA, to_document
from vgicmgr.host.judge import judge_host
from vgicmgr.kvm.registers import PMCR_EL0, register_id
from vgicmgr.qemu.cpu import CPU
from vgicmgr.qemu.migration import Rules

MMFR1, MIDR, SCTLR = map(register_id, ("ID_AA64MMFR1_EL1", "MIDR_EL1", "SCTLR_EL1"))
FEATURES = ("KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_PMU_V3")
NO_FEATURES = CPU("host", {"sve": "off", "pauth": "off"})
MODEL = Model(
    FEATURES,
    (),
    steal_time=True,
    pmu_counters=6,
    registers={
        PMCR_EL0: Register(0x3000, anything=True),
        MIDR: Register(0x413FD0C1),
        SCTLR: Register(0, anything=True),
        MMFR1: Register(0x10212122, fields=(("HPDS", (0, 1)), ("LO", (0,)), ("VMIDBits", ()))),
    },
)


def document(model: Model = MODEL) -> object:
    """As it comes out of a file."""
    member = {"migration": to_member([model], {"/usr/bin/qemu-system-aarch64": Rules.TOLERANT})}
    return json.loads(json.dumps({**to_document(ROOMY, judge_host(ROOMY)), **member}))


def judge(values: dict[int, int]) -> dict[str, str]:
    """Findings by name for a guest with these registers, and all else like the host's."""
    record: ABIRecord = replace(
        RECORD,
        registers=tuple(sorted({**{n: r.value for n, r in MODEL.registers.items()}, **values}.items())),
        gicd_iidr=ROOMY.gicv3.gicd_iidr if ROOMY.gicv3 else 0,
    )
    host, rules = host_of(document(), DOMAIN, NO_FEATURES)
    assert rules is Rules.TOLERANT
    return {finding.name: finding.evidence for finding in findings(record, DOMAIN, rules, host)}


def test_the_document_meets_its_schema() -> None:
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document())


@pytest.mark.parametrize(
    "values",
    [{}, {SCTLR: 0xC50838}, {MMFR1: 0x10210122}, {MMFR1: 0x10202122}, {MMFR1: 0x102121F2}],
    ids=["alike", "anything", "one field", "another field", "a field that takes all"],
)
def test_what_the_host_takes(values: dict[int, int]) -> None:
    assert judge(values) == {}


def test_a_field_that_is_fixed() -> None:
    assert judge({MMFR1: 0x20212122}) == {"register-value": "ID_AA64MMFR1_EL1.XNX: guest has 2, this kernel has 1"}


def test_a_value_that_a_field_does_not_take() -> None:
    assert "ID_AA64MMFR1_EL1.HPDS: guest has 3" in judge({MMFR1: 0x10213122})["register-value"]


def test_more_event_counters_than_it_leaves_a_guest() -> None:
    assert judge({PMCR_EL0: 6 << 11}) == {}
    assert "guest has 20 event counters, and this kernel leaves it 6" in judge({PMCR_EL0: 20 << 11})["pmu-counters"]


def test_a_register_that_is_not_there() -> None:
    assert "TPIDR_EL1" in judge({register_id("TPIDR_EL1"): 0})["register-list"]


@pytest.mark.parametrize(
    ("member", "words"), [("migration", "does not say what an arrival is judged by"), ("document", "is no host")]
)
def test_a_document_that_says_too_little(member: str, words: str) -> None:
    short = document()
    assert isinstance(short, dict)
    del short[member]
    with pytest.raises(HostDocumentError, match=words):
        host_of(short, DOMAIN, NO_FEATURES)


def test_features_that_the_document_does_not_have() -> None:
    with pytest.raises(HostDocumentError, match=r"says nothing of a vCPU with .*KVM_ARM_VCPU_SVE"):
        host_of(document(), DOMAIN, CPU("host", {}))


@pytest.mark.parametrize("other", [None, [], "text", {"document": "x"}])
def test_another_document(other: object) -> None:
    with pytest.raises(HostDocumentError):
        host_of(other, DOMAIN, NO_FEATURES)


@pytest.mark.parametrize(("pmu", "refusing", "judged"), [(1, True, True), (0, False, True), (0, True, False)])
def test_a_qemu_that_has_no_pmu_to_turn_off(pmu: int, refusing: bool, judged: bool) -> None:
    told = document()
    assert isinstance(told, dict)
    told["kvm"]["capabilities"]["KVM_CAP_ARM_PMU_V3"] = pmu
    told["migration"]["vcpus"][0]["features"] = ["KVM_ARM_VCPU_PSCI_0_2"]
    told["migration"]["refusing_pmu_off"] = ["/usr/bin/qemu-system-aarch64"] if refusing else []
    without_pmu = CPU("host", {"sve": "off", "pauth": "off", "pmu": "off"})
    if judged:
        host_of(told, DOMAIN, without_pmu)
    else:
        with pytest.raises(HostDocumentError, match="none to turn off"):
            host_of(told, DOMAIN, without_pmu)
