"""What a QEMU answers over QMP, and the values that come of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.dataclass import replace
from vgicmgr.qemu.answers import Answers, default_machine, from_answers
from vgicmgr.qemu.emulator import Emulators, NotAsked, emulators_from_document

PATH = "/usr/bin/qemu-system-aarch64"

ANSWERS = Answers(
    version={"qemu": {"micro": 13, "minor": 0, "major": 10}, "package": "Debian 1:10.0.13+ds-0+deb13u1"},
    kvm={"enabled": True, "present": True},
    gic_capabilities=[
        {"emulated": True, "version": 3, "kernel": True},
        {"emulated": True, "version": 2, "kernel": False},
    ],
    machines=[
        {"name": "virt-10.0", "alias": "virt", "cpu-max": 512, "deprecated": False},
        {"name": "raspi3b", "cpu-max": 4, "deprecated": False},
        {"name": "virt-2.6", "cpu-max": 255, "deprecated": True},
        {"name": "virt-9.2", "cpu-max": 512, "deprecated": False},
    ],
    machine_properties=[
        {"name": "its", "type": "bool", "description": "Set on/off to enable/disable ITS instantiation"},
        {"name": "gic-version", "type": "string", "description": "Set GIC version. Valid values are 2, 3 and host"},
        {"name": "peripheral", "type": "child<container>"},
        {"name": "virt.flash0", "type": "child<cfi.pflash01>"},
        {"name": "x-oem-id", "type": "string"},
    ],
    cpu_model={"model": {"name": "host", "props": {"sve": True, "sve128": True, "sve1024": False, "sve256": True}}},
    cpu_properties=[{"name": "pmu", "type": "bool"}, {"name": "unnamed-gpio-in[0]", "type": "child<irq>"}],
)
"""A QEMU's, shortened: what it is asked gives hundreds of lines."""


def test_the_version_is_three_numbers_and_the_distributions_own_word() -> None:
    emulator = from_answers(PATH, ANSWERS)
    assert (emulator.path, emulator.version, emulator.package) == (PATH, "10.0.13", "Debian 1:10.0.13+ds-0+deb13u1")


def test_gic_versions_are_those_in_the_kernel_and_those_emulated() -> None:
    emulator = from_answers(PATH, ANSWERS)
    assert (emulator.gic_kernel, emulator.gic_emulated) == ((3,), (2, 3))


def test_machine_types_are_those_of_virt_and_sort_by_their_numbers() -> None:
    emulator = from_answers(PATH, ANSWERS)
    assert emulator.machines == ("virt-2.6", "virt-9.2", "virt-10.0")
    assert emulator.deprecated_machines == ("virt-2.6",)
    assert (emulator.default_machine, emulator.max_cpus) == ("virt-10.0", 512)


def test_properties_are_those_that_a_user_sets() -> None:
    emulator = from_answers(PATH, ANSWERS)
    assert emulator.properties == ("gic-version", "its")
    assert emulator.cpu_properties == ("pmu",)


def test_the_values_of_a_property_are_those_in_its_description() -> None:
    msi = {"name": "msi", "description": "Set MSI settings. Valid values are auto, gicv2m, its and off"}
    newer = replace(ANSWERS, machine_properties=[*ANSWERS.machine_properties, msi])
    assert from_answers(PATH, newer).msi == ("auto", "gicv2m", "its", "off")
    assert from_answers(PATH, ANSWERS).msi == ()
    assert from_answers(PATH, ANSWERS).gic_versions == ("2", "3", "host")


def test_sve_vector_lengths_are_the_properties_that_are_on() -> None:
    assert from_answers(PATH, ANSWERS).sve_vector_lengths == (128, 256)


def test_without_kvm_nothing_is_said_of_gic_and_cpu() -> None:
    kvm = {"enabled": False, "present": False}
    emulator = from_answers(PATH, replace(ANSWERS, kvm=kvm, gic_capabilities=None, cpu_model=None, cpu_properties=None))
    assert (emulator.kvm, emulator.gic_kernel, emulator.gic_emulated) == (False, (), ())
    assert (emulator.cpu, emulator.cpu_properties, emulator.sve_vector_lengths) == ({}, (), ())


def test_a_qemu_without_virt_has_no_default() -> None:
    others = [{"name": "raspi3b", "cpu-max": 4, "deprecated": False}]
    emulator = from_answers(PATH, replace(ANSWERS, machines=others, machine_properties=[]))
    assert default_machine(others) == ""
    assert (emulator.machines, emulator.default_machine, emulator.max_cpus) == ((), "", 0)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(Answers.__match_args__)), anything)
def test_answers_of_another_form_are_values_or_a_value_error(member: str, answer: Any) -> None:
    changed: dict[str, Any] = {member: answer}
    try:
        from_answers(PATH, replace(ANSWERS, **changed))
    except ValueError as error:
        assert str(error) == "its answers have another form than QEMU's interface has it"


EMULATORS = Emulators(
    (replace(from_answers(PATH, ANSWERS), program_differs=("its program file is a script",)),),
    (NotAsked("/usr/libexec/qemu-kvm", "it ended: no", "look", failed=True),),
)


def test_what_is_kept_as_json_comes_back_as_it_was() -> None:
    assert emulators_from_document(json.loads(json.dumps(EMULATORS.to_document()))) == EMULATORS


@given(anything)
def test_json_of_another_form_is_a_value_error(document: Any) -> None:
    with pytest.raises(ValueError, match="no answers"):
        emulators_from_document(document)


@given(st.sampled_from(sorted(EMULATORS.answered[0].to_document())), anything)
def test_a_changed_member_is_a_value_of_its_kind_or_a_value_error(member: str, value: Any) -> None:
    document = EMULATORS.to_document()
    document["emulators"][0][member] = value
    kind = type(getattr(EMULATORS.answered[0], member))
    try:
        read = emulators_from_document(document)
    except ValueError:
        return
    assert isinstance(getattr(read.answered[0], member), kind)
