"""A host seen as its document: what it answers, and that nothing but its own error comes of a bad one."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.unit.host.examples import BARE, GICV2_ONLY, ROOMY
from vgicmgr.dataclass import replace
from vgicmgr.errors import HostDocumentError
from vgicmgr.host.capabilities import CoreType, HostCapabilities, KernelLog
from vgicmgr.host.document import SCHEMA, migration_member, to_document
from vgicmgr.host.documented import DocumentedHost, DocumentedVCPU, Program, documented, read_document
from vgicmgr.host.judge import judge_host
from vgicmgr.host.models import Dependency, Model, Register
from vgicmgr.kvm import uapi
from vgicmgr.kvm.registers import PMCR_EL0, register_id
from vgicmgr.qemu.rules import Rules

if TYPE_CHECKING:
    from vgicmgr.host.facts import HostFacts

MMFR1, MMFR3, MIDR, SCTLR, SCTLR2, CLIDR = map(
    register_id, ("ID_AA64MMFR1_EL1", "ID_AA64MMFR3_EL1", "MIDR_EL1", "SCTLR_EL1", "SCTLR2_EL1", "CLIDR_EL1")
)
WORKAROUND_2 = uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2
QEMU = "/usr/bin/qemu-system-aarch64"
FEATURES = ("KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_PMU_V3")
MODEL = Model(
    FEATURES,
    (),
    pmu_counters=6,
    registers={
        PMCR_EL0: Register(0x3000, anything=True),
        MIDR: Register(0x413FD0C1),
        SCTLR: Register(0, anything=True),
        SCTLR2: Register(0, anything=True),
        CLIDR: Register(0x82000023),
        MMFR1: Register(0x10212122, fields=(("HPDS", (0, 1)), ("LO", (0,)), ("VMIDBits", ()))),
        MMFR3: Register(0x10, fields=(("SCTLRX", (0,)),)),
        WORKAROUND_2: Register(3, fields=(("level", (0, 1, 2)),), values=(0, 1, 2, 0x12)),
    },
    depends=(Dependency(MMFR3, "SCTLRX", 0, (SCTLR2,)),),
)
PROGRAM = Program((11, 1), Rules.TOLERANT, psci_property=True)


def document(host: HostCapabilities = ROOMY, model: Model = MODEL, program: Program = PROGRAM) -> dict[str, Any]:
    """As it comes out of a file."""
    member = {"migration": migration_member([model], {QEMU: program})}
    text = json.dumps({**to_document(host, judge_host(host)), **member})
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def destination(host: DocumentedHost | None = None, gic_version: int = 3, *, its: bool = True) -> DocumentedVCPU:
    return (host or documented(document())).destination(FEATURES, "", gic_version, its)


@pytest.mark.parametrize("host", [ROOMY, GICV2_ONLY, BARE, replace(ROOMY, targets=(), counter_frequency=62_500_000)])
def test_what_is_written_meets_the_schema_and_is_read_as_it_was(host: HostCapabilities) -> None:
    written = document(host)
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(written)
    read = documented(written)
    assert read.capabilities == replace(host, capabilities=dict(sorted(host.capabilities.items())))
    assert read.models == (MODEL,)
    assert read.programs == {QEMU: PROGRAM}


def test_a_model_that_nobody_can_tell_more_of() -> None:
    """Of a script as emulator, and of a kernel without a GIC."""
    model = Model(("KVM_ARM_VCPU_PSCI_0_2",), (), pmu_counters=0, registers={}, depends=())
    written = document(BARE, model, Program())
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(written)
    host = documented(written)
    assert host.programs == {QEMU: Program()}
    assert host.destination(("KVM_ARM_VCPU_PSCI_0_2",), "", 0, its=False).gicd_iidr() is None


class TestFacts:
    def test_it_answers_as_a_host_does(self) -> None:
        host: HostFacts = documented(document())
        assert (host.asked, host.kernel, host.page_size, host.ipa_bits) == (True, "6.12.0", 4096, 48)
        assert host.gic_versions(0) == {2, 3}
        assert host.its(0)
        assert host.sve_vector_lengths == (128, 256)
        assert host.redistributor_regions
        assert (host.gits_typer, host.msi_devid, host.direct_injection) == (0x1EF71, True, "4.1")
        assert host.assigned([]) is None

    def test_it_has_its_own_name(self) -> None:
        named = replace(ROOMY, machine=replace(ROOMY.machine, name="node2"))
        assert documented(document(named)).name == "node2"
        assert documented(document()).name == "the document's host"

    def test_a_host_without_a_gic(self) -> None:
        host = documented(document(BARE))
        assert host.gic_versions(0) == frozenset()
        assert not host.its(0)
        assert (host.gits_typer, host.msi_devid, host.redistributor_regions) == (None, None, False)

    def test_a_capability_that_nobody_asked_for_is_not_known(self) -> None:
        written = document()
        del written["kvm"]["capabilities"]["KVM_CAP_ARM_MTE"]
        host = documented(written)
        assert host.capability("KVM_CAP_ARM_SVE") == 1
        with pytest.raises(HostDocumentError, match="does not say KVM_CAP_ARM_MTE"):
            host.capability("KVM_CAP_ARM_MTE")

    @pytest.mark.parametrize(
        ("enabled", "version", "injection"),
        [(True, "4", "4"), (True, "4.1", "4.1"), (False, "4.1", ""), (None, None, "")],
    )
    def test_direct_injection(self, enabled: bool | None, version: str | None, injection: str) -> None:
        host = replace(ROOMY, log=KernelLog("VHE", enabled, version))
        assert documented(document(host)).direct_injection == injection

    A53, A57, A72, N1 = 0x410FD034, 0x411FD070, 0x410FD083, 0x413FD0C1

    @pytest.mark.parametrize(
        ("cores", "target", "takes"),
        [
            ((A53,), "KVM_ARM_TARGET_CORTEX_A53", True),
            ((A53,), "KVM_ARM_TARGET_CORTEX_A57", False),
            ((A57,), "KVM_ARM_TARGET_CORTEX_A57", True),
            ((N1,), "KVM_ARM_TARGET_CORTEX_A57", False),
            ((N1,), "KVM_ARM_TARGET_GENERIC_V8", True),
            ((A53, A72), "KVM_ARM_TARGET_CORTEX_A53", None),
            ((A53, A72), "KVM_ARM_TARGET_CORTEX_A57", False),
            ((0x510FD034,), "KVM_ARM_TARGET_CORTEX_A53", False),
            ((), "KVM_ARM_TARGET_CORTEX_A53", None),
        ],
    )
    def test_targets(self, cores: tuple[int, ...], target: str, takes: bool | None) -> None:
        """kvm_target_cpu of arch/arm64/kvm/guest.c: by implementer and part number, of the core it runs on."""
        types = tuple(CoreType(midr, (number,)) for number, midr in enumerate(cores))
        host = documented(document(replace(ROOMY, machine=replace(ROOMY.machine, core_types=types))))
        assert host.takes_target(target) is takes

    def test_targets_that_were_tried(self) -> None:
        machine = replace(ROOMY.machine, core_types=())
        host = documented(document(replace(ROOMY, machine=machine, targets=("KVM_ARM_TARGET_CORTEX_A53",))))
        assert host.takes_target("KVM_ARM_TARGET_CORTEX_A53") is True
        assert host.takes_target("KVM_ARM_TARGET_CORTEX_A57") is False


class TestOlderDocuments:
    def older(self) -> dict[str, Any]:
        """Version 1 as it was first written."""
        written = document()
        for member in ("name", "counter_frequency"):
            del written["host"][member]
        del written["kvm"]["targets"]
        migration = written["migration"]
        del migration["programs"]
        for vcpu in migration["vcpus"]:
            del vcpu["pmu_counters"], vcpu["depends"]
            for register in vcpu["registers"].values():
                register.pop("values", None)
        return written

    def test_they_meet_the_schema(self) -> None:
        Draft202012Validator(json.loads(SCHEMA.read_text())).validate(self.older())

    def test_what_they_do_not_say_is_not_known(self) -> None:
        host = documented(self.older())
        assert host.counter_frequency is None
        assert host.capabilities.targets is None
        assert host.programs == {QEMU: Program(rules=Rules.TOLERANT)}
        assert host.models is not None
        assert (host.models[0].pmu_counters, host.models[0].depends) == (None, None)

    def test_they_say_who_refuses_pmu_off(self) -> None:
        written = self.older()
        assert documented(written).refuses_pmu_off(QEMU) is True
        written["migration"]["refusing_pmu_off"] = []
        assert documented(written).refuses_pmu_off(QEMU) is False
        del written["migration"]["refusing_pmu_off"]
        assert documented(written).refuses_pmu_off(QEMU) is None

    def test_a_host_whose_registers_were_not_probed(self) -> None:
        written = self.older()
        del written["migration"]
        host = documented(written)
        assert host.gic_versions(0) == {2, 3}
        assert host.refuses_pmu_off(QEMU) is None
        with pytest.raises(HostDocumentError, match="does not tell of its registers"):
            destination(host)

    def test_emulators_as_objects(self) -> None:
        written = self.older()
        written["migration"]["emulators"] = {QEMU: {"version": "10.0", "rules": "classic", "psci_property": False}}
        assert documented(written).programs == {QEMU: Program((10, 0), Rules.CLASSIC, psci_property=False)}


@pytest.mark.parametrize(("version", "refuses"), [((9, 2), False), ((10, 0), True), (None, None)])
def test_a_qemu_that_has_no_pmu_to_turn_off(version: tuple[int, int] | None, refuses: bool | None) -> None:
    written = document(program=Program(version, Rules.CLASSIC))
    if version is None:
        del written["migration"]["refusing_pmu_off"]
    assert documented(written).refuses_pmu_off(QEMU) is refuses


class TestQEMU:
    def test_by_its_path(self) -> None:
        told = documented(document()).qemu(QEMU)
        assert (told.version, told.rules, told.psci_property) == ((11, 1), Rules.TOLERANT, True)

    def test_the_whole_of_its_version_is_of_newer_documents(self) -> None:
        written = document(program=replace(PROGRAM, release="11.1.0-rc2"))
        assert documented(written).qemu(QEMU).release == "11.1.0-rc2"
        odd = document(program=replace(PROGRAM, release="11.1." + 40 * "0"))
        assert documented(odd).qemu(QEMU).release == ""
        del written["migration"]["programs"][QEMU]["release"]
        assert documented(written).qemu(QEMU).release == ""
        written["migration"]["programs"][QEMU]["release"] = "11.1.0 (Debian)\n"
        with pytest.raises(HostDocumentError):
            documented(written)

    def test_a_guest_without_a_path_gets_the_first(self) -> None:
        assert documented(document()).qemu("").version == (11, 1)

    def test_of_another_path_nothing_is_known(self) -> None:
        told = documented(document()).qemu("/opt/qemu")
        assert (told.version, told.rules, told.psci_property) == (None, None, None)


class TestDestination:
    @pytest.mark.parametrize(
        "values",
        [{}, {SCTLR: 0xC50838}, {MMFR1: 0x10210122}, {MMFR1: 0x10202122}, {MMFR1: 0x102121F2}, {WORKAROUND_2: 0x12}],
        ids=["alike", "anything", "one field", "another field", "a field that takes all", "a whole value"],
    )
    def test_what_the_host_takes(self, values: dict[int, int]) -> None:
        assert destination().refused(tuple(values.items())) == ()

    @pytest.mark.parametrize(
        ("number", "value", "words"),
        [
            (MMFR1, 0x20212122, "ID_AA64MMFR1_EL1.XNX: guest has 2, this kernel has 1"),
            (MMFR1, 0x10213122, "ID_AA64MMFR1_EL1.HPDS: guest has 3, this kernel has 2"),
            (MIDR, 0x413FD0C0, "MIDR_EL1.Revision: guest has 0, this kernel has 1"),
            (WORKAROUND_2, 0x13, "KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2.enabled: guest has 1, this kernel has 0"),
        ],
    )
    def test_what_it_does_not_take(self, number: int, value: int, words: str) -> None:
        assert list(map(str, destination().refused(((number, value),)))) == [words]

    def test_a_value_wider_than_the_register_is_refused_as_a_whole(self) -> None:
        [refusal] = destination().refused(((MMFR1, 1 << 64),))
        assert refusal.fields == ()

    def test_a_register_that_another_takes_away(self) -> None:
        [refusal] = destination().refused(((MMFR3, 0), (SCTLR2, 0)))
        assert (refusal.number, refusal.why) == (SCTLR2, "not there with ID_AA64MMFR3_EL1.SCTLRX of 0")

    def test_a_register_that_is_not_there_is_for_the_lists_to_tell(self) -> None:
        assert destination().refused(((register_id("TPIDR_EL1"), 1),)) == ()

    def test_event_counters(self) -> None:
        assert [destination().pmu_counters(wanted) for wanted in (4, 6, 20)] == [4, 6, 6]

    def test_registers(self) -> None:
        there = destination()
        assert there.ids == tuple(sorted(MODEL.registers))
        assert dict(there.first_values())[MIDR] == 0x413FD0C1

    def test_the_features_may_come_in_any_order(self) -> None:
        host = documented(document())
        assert host.destination(FEATURES[::-1], "", 3, its=True).features == FEATURES

    def test_the_gic(self) -> None:
        there = destination()
        assert (there.gicd_iidr(), there.icc_ctlr_el1()) == (0x4B00343B, 0x400)
        assert (there.gits_iidr(), there.gits_typer()) == (0x4B00043B, 0x1EF71)
        assert (there.refuses_gicd_iidr(0x4B00243B), there.refuses_gicd_iidr(0x4B00143B)) == ("", "as probed")
        assert (there.refuses_gits_iidr(0x4B00043B), there.refuses_gits_iidr(0x4B00143B)) == ("", "as probed")

    @pytest.mark.parametrize(
        ("value", "taken"),
        [
            (0x400, True),
            (0x300, True),
            (0x500, False),
            (0x8400, False),
            (0x4400, False),
            (0xC00, False),
            (1 << 63, True),
        ],
        ids=["alike", "fewer priorities", "more priorities", "A3V", "SEIS", "wider INTIDs", "no field of these"],
    )
    def test_icc_ctlr_el1(self, value: int, taken: bool) -> None:
        """set_gic_ctlr of arch/arm64/kvm/vgic-sys-reg-v3.c."""
        assert (destination().refuses_icc_ctlr_el1(value) == "") is taken

    def test_a_gicv2_has_neither_icc_ctlr_el1_nor_an_its(self) -> None:
        there = destination(gic_version=2)
        assert (there.icc_ctlr_el1(), there.gits_iidr(), there.gits_typer()) == (None, None, None)

    def test_a_guest_without_an_its(self) -> None:
        assert destination(its=False).gits_iidr() is None

    @pytest.mark.parametrize(
        ("features", "target", "gic_version", "words"),
        [
            ((*FEATURES, "KVM_ARM_VCPU_SVE"), "", 3, r"does not tell of a vCPU with .*KVM_ARM_VCPU_SVE"),
            (FEATURES, "KVM_ARM_TARGET_CORTEX_A57", 3, "does not tell of a vCPU with KVM_ARM_TARGET_CORTEX_A57"),
            (FEATURES, "", 4, "does not tell of a GICv4"),
        ],
    )
    def test_what_the_document_does_not_tell(
        self, features: tuple[str, ...], target: str, gic_version: int, words: str
    ) -> None:
        with pytest.raises(HostDocumentError, match=words):
            documented(document()).destination(features, target, gic_version, its=True)

    def test_a_named_model_on_its_own_core_has_the_same_registers(self) -> None:
        machine = replace(ROOMY.machine, core_types=(CoreType(0x411FD070, (0,)),))
        host = documented(document(replace(ROOMY, machine=machine)))
        assert host.destination(FEATURES, "KVM_ARM_TARGET_CORTEX_A57", 3, its=True).ids


@pytest.mark.parametrize("other", [None, [], "text", {}, {"document": "x"}, {"document": "vgicmgr host capabilities"}])
def test_another_document(other: object) -> None:
    with pytest.raises(HostDocumentError, match="not"):
        documented(other)


@pytest.mark.parametrize("version", [0, 2, True, "1", None])
def test_another_version(version: object) -> None:
    with pytest.raises(HostDocumentError, match="not of version 1"):
        documented({**document(), "version": version})


def edited(*path: str | int, value: object) -> dict[str, Any]:
    whole = document()
    at: Any = whole
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    return whole


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("host", "page_size"), 0),
        (("host", "page_size"), 5000),
        (("host", "page_size"), 131072),
        (("host", "kernel"), "6.12\u001b]0;owned\u0007"),
        (("host", "name"), "node\n2"),
        (("host", "counter_frequency"), 0),
        (("host", "core_types", 0, "midr_el1"), "-0x1"),
        (("kvm", "ipa_bits"), "48"),
        (("kvm", "ipa_bits"), 8_000_000_000),
        (("kvm", "ipa_bits"), 31),
        (("kvm", "ipa_bits"), True),
        (("kvm", "capabilities"), {"KVM_CAP_\x1b": 1}),
        (("kvm", "capabilities", "KVM_CAP_ARM_SVE"), "1"),
        (("gic", "versions"), [2, 3, 4]),
        (("gic", "versions"), [3]),
        (("gic", "v2"), None),
        (("gic", "v3", "icc_ctlr_el1"), None),
        (("gic", "v3", "max_vcpus"), 0),
        (("its", "gits_typer"), 1),
        (("its", "abi_revisions"), [16]),
        (("vcpu", "sve_vector_lengths"), [100]),
        (("vcpu", "sve_vector_lengths"), [256, 128]),
        (("vcpu", "sve_vector_lengths"), [{}]),
        (("migration", "emulators"), {QEMU: "loose"}),
        (("migration", "emulators"), {"qemu\x07": "classic"}),
        (("migration", "programs", QEMU, "version"), "11"),
        (("migration", "programs", QEMU, "version"), "1111.1"),
        (("migration", "vcpus", 0, "registers", "NOT_A_REGISTER"), {"value": "0x0", "accepts": "anything"}),
        (("migration", "vcpus", 0, "registers", "S3_0_C1_C0_0"), {"value": "0x0", "accepts": "anything"}),
        (("migration", "vcpus", 0, "registers", "SCTLR_EL1", "accepts"), "everything"),
        (("migration", "vcpus", 0, "registers", "SCTLR_EL1", "accepts"), {"M": []}),
        (("migration", "vcpus", 0, "registers", "SCTLR_EL1", "value"), "0x10000000000000000"),
        (("migration", "vcpus", 0, "pmu_counters"), 32),
        (("migration", "vcpus", 0, "depends", 0, "gone"), ["nothing"]),
        (("migration", "refusing_pmu_off"), "all"),
    ],
)
def test_members_out_of_bounds(path: tuple[str | int, ...], value: object) -> None:
    with pytest.raises(HostDocumentError) as error:
        documented(edited(*path, value=value))
    assert error.value.message.isprintable()


def test_a_member_that_is_missing_is_named() -> None:
    whole = document()
    del whole["gic"]["v3"]["icc_ctlr_el1"]
    with pytest.raises(HostDocumentError, match=r"gic\.v3\.icc_ctlr_el1 is missing"):
        documented(whole)


def places(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for name, one in inner for place in places(one, (*at, name)))]


PLACES = [place for place in places(document()) if place and place[0] not in ("findings", "qemu")]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 64), 1 << 65),
    st.text(max_size=20),
    st.sampled_from(["0x0", "0xffffffffffffffff", "-0x1", "anything", "6.12\x1b", "1" * 5000, [], {}, [{}], [[]], 1.5]),
    st.lists(st.integers(-2, 1 << 70), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


def uses(host: DocumentedHost) -> None:
    """All that is asked of a document."""
    facts: list[Callable[[], object]] = [
        lambda: host.name.isprintable() or pytest.fail("unprintable"),
        lambda: host.kernel.isprintable() or pytest.fail("unprintable"),
        lambda: 1 / host.page_size,
        lambda: 1 << host.ipa_bits,
        lambda: host.capability("KVM_CAP_ARM_SVE") + 1,
        lambda: sum(host.sve_vector_lengths),
        lambda: (host.gits_typer or 0) >> 8,
        lambda: host.takes_target("KVM_ARM_TARGET_CORTEX_A57"),
        lambda: host.refuses_pmu_off(QEMU),
    ]
    for ask in facts:
        with suppress(HostDocumentError):
            ask()
    for gic_version in (0, 2, 3):
        try:
            there = host.destination(FEATURES, "", gic_version, its=True)
        except HostDocumentError:
            continue
        there.refused([(number, register.value ^ 0x11) for number, register in MODEL.registers.items()])
        [str(refusal) for refusal in there.refused([(number, 0) for number in there.ids])]
        there.first_values()
        there.pmu_counters(8)
        for value in (0, 0x8C00, (1 << 64) - 1):
            there.refuses_icc_ctlr_el1(value)
            there.refuses_gicd_iidr(value)
            there.refuses_gits_iidr(value)
        (there.icc_ctlr_el1(), there.gicd_iidr(), there.gits_iidr(), there.gits_typer())


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), ODD | st.just("delete")), min_size=1, max_size=3))
def test_mutations_raise_the_documents_error_or_nothing(mutations: list[tuple[tuple[str | int, ...], Any]]) -> None:
    whole = document()
    for place, value in mutations:
        at: Any = whole
        try:
            for name in place[:-1]:
                at = at[name]
            if value == "delete":
                del at[place[-1]]
            else:
                at[place[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue
    try:
        host = documented(whole)
    except HostDocumentError as error:
        assert str(error).isprintable()
    else:
        uses(host)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_raise_the_documents_error_or_nothing(data: st.DataObject) -> None:
    content = bytearray(json.dumps(document()).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        uses(read_document(bytes(content)))
    except HostDocumentError as error:
        assert str(error).isprintable()
