"""A running QEMU beside what a domain's settings come to: what is the same, and each thing that is not."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.unit.guest.examples import HOST
from tests.unit.qemu.fakemonitor import FakeMonitor
from vgicmgr.dataclass import replace
from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import DomainXMLError
from vgicmgr.guest.inspection import Basis, Inspection, Row, domain_of, inspect_machine, inspect_running
from vgicmgr.guest.inspectiondocument import SCHEMA, render, to_document
from vgicmgr.guest.resolve import Resolution, resolve
from vgicmgr.host.assumed import ASSUMED_HOST, AssumedHost
from vgicmgr.qemu.devicetree import GuestTree
from vgicmgr.qemu.program import KnownQEMU
from vgicmgr.qemu.running import RunningMachine, RunningVCPU, ask_running
from vgicmgr.qemu.virt import MemoryRegion

XML = """\
<domain type='kvm'>
  <name>g1</name><memory unit='MiB'>128</memory><vcpu>2</vcpu>
  <os><type arch='aarch64' machine='virt-10.0'>hvm</type></os>
  <features><gic version='3'/></features><cpu mode='host-passthrough'>{}</cpu>
</domain>
"""
TREE = GuestTree(
    gic_version=3,
    distributor=0x8000000,
    cpu_interface=None,
    redistributors=(0x80A0000,),
    its=0x8080000,
    gicv2m=None,
    pmu_intid=23,
    vcpus=2,
)
"""What QEMU's 'virt' tells such a guest."""
MACHINE = replace(asyncio.run(ask_running(FakeMonitor())), device_tree=TREE, no_device_tree="")
ASKED = AssumedHost(asked=True)


def resolution(xml: str = XML.format(""), host: AssumedHost = ASSUMED_HOST) -> Resolution:
    return resolve(read_domain(xml.encode()), host, qemu=KnownQEMU(version=(10, 0)))


def inspection(
    machine: RunningMachine = MACHINE, *, xml: str = XML.format(""), host: AssumedHost = ASSUMED_HOST
) -> Inspection:
    return inspect_running(machine, resolution(xml, host), Basis.DOMAIN_XML)


def differing(found: Inspection) -> dict[str, tuple[str | None, str | None, str | None]]:
    return {row.subject: (row.expected, row.running, row.device_tree) for row in found.rows if row.differs}


def test_a_guest_that_is_as_its_xml_says() -> None:
    found = inspection()
    assert differing(found) == {}
    assert found.same
    assert Row("PMU interrupt", "INTID 23", "INTID 23", "INTID 23") in found.rows
    assert Row("redistributors", "0x80a0000", "0x80a0000", "0x80a0000") in found.rows


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ({"machine": "virt-9.2"}, {"machine type": ("virt-10.0", "virt-9.2", None)}),
        ({"accelerator": "tcg"}, {"accelerator": ("KVM", "TCG", None)}),
        ({"gic_in_kernel": False}, {"GIC is in": ("KVM", "QEMU", None)}),
        ({"nr_irqs": 160}, {"interrupts": ("288", "160", None)}),
        ({"max_vcpus": 4}, {"vCPUs at most": ("2", "4", None)}),
        (
            {"distributor": MemoryRegion("gicv3_dist", 0x9000000, 0x10000)},
            {"distributor": ("0x8000000", "0x9000000", "0x8000000")},
        ),
        (
            {"redistributors": ((MemoryRegion("gicv3_redist_region[0]", 0x80A0000, 0x20000), 1),)},
            {"vCPUs of each": ("2", "1", None)},
        ),
        (
            {"its": None},
            {"MSI controller": ("an ITS", "none", "an ITS"), "ITS": ("0x8080000", "no", "0x8080000")},
        ),
        (
            {"vcpus": tuple(RunningVCPU(index, "host-arm-cpu", None) for index in range(2))},
            {"PMU interrupt": ("INTID 23", "no PMU", "INTID 23")},
        ),
        (
            {"vcpus": tuple(RunningVCPU(index, "host-arm-cpu", 23 + index) for index in range(2))},
            {"PMU interrupt": ("INTID 23", "INTID 23, INTID 24", "INTID 23")},
        ),
        (
            {"vcpus": tuple(RunningVCPU(index, "max-arm-cpu", 23) for index in range(3))},
            {"vCPUs": ("2", "3", "2"), "CPU": ("host", "max", None)},
        ),
        ({"device_tree": replace(TREE, pmu_intid=None)}, {"PMU interrupt": ("INTID 23", "INTID 23", "no PMU")}),
        ({"device_tree": replace(TREE, its=0)}, {"ITS": ("0x8080000", "0x8080000", "0x0")}),
        ({"device_tree": replace(TREE, gic_version=2)}, {"GIC version": ("3", "3", "2")}),
        ({"cpu_properties": {"aarch64": False}}, {"64-bit EL1": ("on", "off", None)}),
    ],
)
def test_each_difference_is_found_and_no_other(change: dict[str, Any], rows: dict[str, Any]) -> None:
    found = inspection(replace(MACHINE, **change))
    assert {subject: row for subject, row in differing(found).items() if row != rows.get(subject)} == {}
    assert differing(found).keys() == rows.keys()
    assert not found.same


def test_a_gicv4_is_a_gicv3_to_the_device_tree() -> None:
    found = inspection(replace(MACHINE, gic_version=4))
    assert differing(found) == {"GIC version": ("3", "4", "4")}


def test_an_alias_of_the_machine_type_says_no_version() -> None:
    assert inspection(xml=XML.format("").replace("virt-10.0", "virt")).same


def test_cpu_features_of_the_xml_are_rows_of_their_own() -> None:
    switched = XML.format("<feature policy='disable' name='sve'/><feature policy='require' name='kvm-steal-time'/>")
    properties = {**MACHINE.cpu_properties, "sve": True, "kvm-steal-time": "on"}
    found = inspection(replace(MACHINE, cpu_properties=properties), xml=switched)
    assert differing(found) == {"CPU property sve": ("off", "on", None)}
    assert Row("CPU property kvm-steal-time", "on", "on") in found.rows


def test_what_the_host_decides_is_compared_only_with_a_host_that_was_asked() -> None:
    """The fake's vCPUs have SVE with 128 bits."""
    assert "SVE vectors" not in {row.subject for row in inspection().rows}
    assert differing(inspection(host=ASKED)) == {"SVE vectors": ("no", "128", None)}
    assert inspection(host=replace(ASKED, capabilities={"KVM_CAP_ARM_SVE": 1}, sve_vector_lengths=(128,))).same


def test_settings_that_come_to_nothing_are_not_the_same_as_a_machine_that_runs() -> None:
    found = inspection(xml=XML.format("").replace("virt-10.0", "virt-99.0"))
    assert not found.same
    assert differing(found) == {}
    assert "machine-unsupported" in render(found)
    assert "come to no configuration, but QEMU runs with one" in render(found)


def test_the_whole_way_from_an_xml_and_a_hosts_capabilities() -> None:
    xml = XML.format("").encode()
    assert inspect_machine(MACHINE, xml).same
    assert differing(inspect_machine(MACHINE, xml, host=HOST)) == {
        "SVE vectors": ("128, 256, 512", "128", None),
        "pointer authentication": ("on", "off", None),
    }
    with pytest.raises(DomainXMLError):
        inspect_machine(MACHINE, b"<domain>")


# --- without a domain XML


def own(machine: RunningMachine) -> Inspection:
    return inspect_machine(machine)


def test_a_machine_is_what_its_own_properties_come_to() -> None:
    found = own(MACHINE)
    assert differing(found) == {}
    assert found.same
    assert {row.subject for row in found.rows if row.expected is None} == set()


def test_properties_that_its_devices_do_not_have_are_found() -> None:
    found = own(replace(MACHINE, properties={"gic-version": "3", "its": False}))
    assert differing(found) == {
        "MSI controller": ("none", "an ITS", "an ITS"),
        "ITS": ("no", "0x8080000", "0x8080000"),
    }


def test_its_only_repeats_msi_where_there_is_msi() -> None:
    newest = replace(MACHINE, qemu=(11, 1, 0), machine="virt-11.1")
    assert own(replace(newest, properties={"gic-version": "3", "its": False, "msi": "its"})).same


ANY = st.text(st.characters())  # with what no UTF-8 can hold, which JSON can


@given(ANY, ANY, ANY)
def test_no_answer_of_qemus_breaks_out_of_its_place_in_the_xml(machine: str, cpu: str, option: str) -> None:
    named = replace(
        MACHINE,
        machine=machine,
        vcpus=(RunningVCPU(0, cpu, None),),
        properties={"gic-version": option},
        monitor=f"monitor {option}",
    )
    try:
        settings = read_domain(domain_of(named))
    except DomainXMLError:  # a character that XML has not
        return
    assert (settings.virt_type, settings.memory) == ("kvm", 128 << 20)


# --- shown


def test_text() -> None:
    shown = render(inspection(replace(MACHINE, its=None)))
    assert shown.startswith("monitor /run/g1: QEMU 10.0.2, running\n\n")
    lines = shown.splitlines()
    assert "domain XML" in lines[2]
    assert "device tree" in lines[2]
    assert [line for line in lines if line.startswith("*")] == [
        "* MSI controller  an ITS      none       an ITS",
        "* ITS             0x8080000   no         0x8080000",
    ]
    assert lines[-1] == "2 differences, marked with '*'."
    assert render(inspection()).endswith("QEMU has what the domain XML comes to.\n")


def test_text_without_device_tree_says_why_and_has_no_column_of_it() -> None:
    machine = replace(MACHINE, device_tree=None, no_device_tree="dumpdtb: no\x1b[31m")
    shown = render(inspection(machine))
    assert "The guest's device tree was not read: dumpdtb: no\\x1b[31m." in shown
    assert "device tree" not in shown.splitlines()[2]
    assert not any(line.endswith(" ") for line in shown.splitlines())


def test_text_without_domain_xml_says_what_was_compared() -> None:
    shown = render(own(MACHINE))
    assert "no domain XML was given to compare with" in shown
    assert "QEMU's properties" in shown.splitlines()[2]


@pytest.mark.parametrize(
    "found",
    [
        inspection(),
        inspection(replace(MACHINE, its=None, device_tree=None, no_device_tree="why")),
        inspection(xml=XML.format("").replace("virt-10.0", "virt-99.0")),
        own(MACHINE),
    ],
)
def test_the_document_fits_its_schema(found: Inspection) -> None:
    document = json.loads(json.dumps(to_document(found)))
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(document)
    assert set(document) == set(schema["properties"])
    assert set(document["running"]) == set(schema["$defs"]["running"]["properties"])
    assert document["same"] is found.same


def test_the_document_says_what_differs() -> None:
    document = to_document(inspection(replace(MACHINE, nr_irqs=160)))
    assert [row for row in document["rows"] if row["differs"]] == [
        {"subject": "interrupts", "expected": "288", "running": "160", "device_tree": None, "differs": True}
    ]
    assert (document["domain"], document["same"], document["compared_with"]) == ("g1", False, "domain XML")
    assert document["running"]["distributor"] == {"base": "0x8000000", "size": "0x10000"}
    assert document["device_tree"]["its"] == "0x8080000"
