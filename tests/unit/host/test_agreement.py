"""A document and the kernel that it was probed from, held against each other: register by register, value by value."""

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.fakes.hosts import (
    GICV2_HOST,
    NEOVERSE_N1,
    NESTED,
    NO_GIC,
    SMALL_IPA,
    SVE_HOST,
    HostKind,
)
from tests.fakes.kernel import FakeKernel, install, pretend_arm64
from tests.fakes.registers import firmware
from vgicmgr.host.counter import same_frequency
from vgicmgr.host.document import SCHEMA, migration_member, to_document
from vgicmgr.host.documented import DocumentedHost, DocumentedVCPU, Program, documented
from vgicmgr.host.judge import judge_host
from vgicmgr.host.kernel import Kernel
from vgicmgr.host.models import probe_models
from vgicmgr.host.probe import probe_host, probe_vm
from vgicmgr.kvm import uapi
from vgicmgr.kvm.errors import KvmError
from vgicmgr.kvm.refusal import register_layout
from vgicmgr.kvm.registers import register_id
from vgicmgr.kvm.system import System
from vgicmgr.kvm.vcpu import VCPU

BOTH_GICS = replace(NEOVERSE_N1, gic_versions=frozenset({2, 3}))
KINDS = {
    "Neoverse N1": NEOVERSE_N1,
    "SVE": SVE_HOST,
    "GICv2": GICV2_HOST,
    "both GICs": BOTH_GICS,
    "no vGIC": NO_GIC,
    "EL2": NESTED,
    "36 bits": SMALL_IPA,
    "no mitigations": NEOVERSE_N1.with_register_ids(firmware(levels=(0, 3, 1))),
    "old PSCI": NEOVERSE_N1.with_register_ids(firmware(psci=0x10000)),
}


@dataclass(frozen=True)
class World:
    """A host, whose kernel is /dev/kvm, and its document."""

    kind: HostKind
    kernel: FakeKernel
    document: dict[str, Any]

    @property
    def host(self) -> DocumentedHost:
        return documented(self.document)

    @property
    def gic_version(self) -> int:
        return max(self.kind.gic_versions, default=0)


_documents: dict[str, dict[str, Any]] = {}


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    """Each document is probed once, which takes a second."""
    name: str = request.param
    pretend_arm64(monkeypatch)
    if name not in _documents:
        install(monkeypatch, FakeKernel(KINDS[name]))
        capabilities = probe_host()
        member = {"migration": migration_member(probe_models(), {"/usr/bin/qemu-system-aarch64": Program()})}
        text = json.dumps({**to_document(capabilities, judge_host(capabilities)), **member})
        _documents[name] = json.loads(text)
    return World(KINDS[name], install(monkeypatch, FakeKernel(KINDS[name])), _documents[name])


def test_the_facts_are_the_same(world: World) -> None:
    host, kind = world.host, world.kind
    with Kernel() as kernel:
        for name in host.capabilities.capabilities:
            if name not in ("KVM_CAP_MAX_VCPUS", "KVM_CAP_MSI_DEVID"):
                assert host.capability(name) == kernel.capability(name), name
        bits = kernel.ipa_bits
        assert host.ipa_bits == bits
        assert host.gic_versions(bits) == kernel.gic_versions(bits) == kind.gic_versions
        assert host.its(bits) == kernel.its(bits)
        assert host.sve_vector_lengths == kernel.sve_vector_lengths == kind.sve
        assert host.redistributor_regions == kernel.redistributor_regions
        assert (host.gits_typer, host.msi_devid) == (kernel.gits_typer, kernel.msi_devid)
        assert (host.kernel, host.page_size) == (kernel.kernel, kernel.page_size)


def test_the_document_meets_its_schema(world: World) -> None:
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(world.document)


def test_the_targets(world: World) -> None:
    """kvm_vcpu_set_target: the core's own, and the generic one."""
    own = {world.kind.target} & {"KVM_ARM_TARGET_CORTEX_A53", "KVM_ARM_TARGET_CORTEX_A57"}
    assert set(world.host.capabilities.targets or ()) == own


def test_the_counters_frequency(world: World) -> None:
    frequency = world.host.counter_frequency
    assert frequency is not None
    assert same_frequency(frequency, world.kind.counter_frequency)


def test_four_vms_at_most_and_nothing_stays_open(world: World) -> None:
    probe_host()
    assert world.kernel.vms_made <= 4
    with Kernel() as host:
        host.gic_versions(host.ipa_bits)
        _ = host.sve_vector_lengths, host.gits_typer, host.redistributor_regions
    assert world.kernel.open_descriptors() == []


def takes(vcpu: VCPU, number: int, value: int) -> bool:
    before = vcpu.get_register(number)
    try:
        vcpu.set_register(number, value)
    except KvmError:
        return False
    vcpu.set_register(number, before)
    return True


def values(number: int, own: int) -> list[int]:
    """Values that guests may bring: of each field all or some, and of small registers all."""
    if number & uapi.KVM_REG_ARM_COPROC_MASK == uapi.KVM_REG_ARM_FW:
        return [*range(32), *range(0x10000, 0x10006)]
    layout = register_layout(number)
    if layout is None:
        return [0, 1, own]
    return [
        own & ~field.mask | value << field.lsb
        for field in layout.all_fields
        for value in (range(1 << field.width) if field.width <= 6 else (0, 1, (1 << field.width) - 1))
    ]


def destinations(world: World) -> list[DocumentedVCPU]:
    """Of the most features and of the fewest."""
    host = world.host
    sets = [model.features for model in host.models or ()]
    assert len(sets) == len(set(sets)) > 0
    chosen = {max(sets, key=len), min(sets, key=len)}
    return [host.destination(features, "", world.gic_version, its=True) for features in chosen]


def test_what_the_kernel_takes_the_document_takes_and_nothing_else(world: World) -> None:
    for there in destinations(world):
        with System() as system, probe_vm(system, there.features, world.gic_version) as here:
            assert dict(there.first_values()).keys() <= set(here.ids)
            for number, own in there.first_values():
                for value in values(number, own):
                    says = number not in {refusal.number for refusal in there.refused([(number, value)])}
                    assert says == (value == own or takes(here.vcpu, number, value)), (hex(number), hex(value))


def test_registers_that_go_with_a_field_are_told(world: World) -> None:
    """Written in QEMU's order, ascending: what the document refuses, the kernel does not have any more."""
    for there in destinations(world):
        first = dict(there.first_values())
        for rule in there.model.depends or ():
            layout = register_layout(rule.register)
            assert layout is not None
            [field] = [one for one in layout.all_fields if one.name == rule.field]
            guest = {**first, rule.register: first[rule.register] & ~field.mask | rule.value << field.lsb}
            refused = []
            with System() as system, probe_vm(system, there.features, world.gic_version) as here:
                for number in sorted(guest):
                    try:
                        here.vcpu.set_register(number, guest[number])
                    except KvmError:
                        refused.append(number)
            assert [one.number for one in there.refused(sorted(guest.items()))] == refused
            assert set(refused) == {number for number in rule.gone if number in first}


@pytest.mark.parametrize("world", ["SVE"], indirect=True)
def test_sctlr2_goes_with_its_field(world: World) -> None:
    fields = {rule.field: rule.gone for there in destinations(world) for rule in there.model.depends or ()}
    assert register_id("SCTLR2_EL1") in fields["SCTLRX"]
