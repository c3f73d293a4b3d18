"""A resolution as text and as a document."""

import json
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.unit.guest.examples import HOST
from vgicmgr.dataclass import replace
from vgicmgr.domain.metadata import read_wishes
from vgicmgr.domain.xml import read_domain
from vgicmgr.guest.configuration import Source
from vgicmgr.guest.document import SCHEMA, qemu_arguments, to_document
from vgicmgr.guest.map import printable, regions, render, size
from vgicmgr.guest.resolve import Resolution, resolve

EXAMPLES = Path(__file__).parents[3] / "xml"


def example(name: str) -> Resolution:
    xml = (EXAMPLES / name).read_bytes()
    return resolve(read_domain(xml), HOST, wished=read_wishes(xml))


def test_the_table_tells_who_decided() -> None:
    lines = render(example("guest-wishes.xml")).splitlines()
    for subject, source in (
        ("GIC version", "domain XML"),
        ("MSI controller", "vgicmgr metadata"),
        ("PMU interrupt", "vgicmgr metadata"),
        ("vCPU features", "QEMU default"),
        ("IPA size", "machine type"),
    ):
        [line] = [line for line in lines if line.startswith(f"  {subject} ")]
        assert line.endswith(f"  {source}")


def test_the_map_is_in_order_and_marks_what_the_kernel_makes() -> None:
    resolution = example("guest-gicv3.xml")
    found = regions(resolution)
    assert all(one.end <= other.base for (_, one, _), (_, other, _) in pairwise(found))
    text = render(resolution)
    assert "  0x0008080000 - 0x000809ffff     128 KiB  * ITS\n" in text
    assert "  0x0040000000 - 0x013fffffff       4 GiB    memory\n" in text


def test_a_refused_domain_has_findings_and_no_table() -> None:
    text = render(example("guest-x86.xml"))
    assert "ERROR: the domain is of type" in text
    assert "vGIC configuration" not in text


@pytest.mark.parametrize(
    ("number", "text"), [(24, "24 B"), (1 << 16, "64 KiB"), (3 << 20, "3 MiB"), (5 << 30, "5 GiB"), (1 << 40, "1 TiB")]
)
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text


@hypothesis_settings(deadline=None)
@given(st.text())
def test_nothing_unprintable_reaches_a_terminal(name: str) -> None:
    assert printable(name).isprintable()
    resolution = example("guest-gicv3.xml")
    shown = render(replace(resolution, domain=replace(resolution.domain, name=name)))
    assert all(line.isprintable() for line in shown.split("\n"))


def test_the_document() -> None:
    document = json.loads(json.dumps(to_document(example("guest-gicv3.xml"))))
    assert document["domain"] == "web1"
    configuration = document["configuration"]
    assert configuration["distributor"] == {"base": "0x8000000", "size": "0x10000"}
    assert configuration["redistributors"] == [{"index": 0, "base": "0x80a0000", "count": 4}]
    assert configuration["msi_controller"] == "its"
    assert to_document(example("guest-x86.xml"))["configuration"] is None


def test_qemu_arguments() -> None:
    assert qemu_arguments(example("guest-wishes.xml")) == (
        *("-accel", "kvm", "-machine", "virt,gic-version=3,its=off", "-cpu", "host"),
        *("-smp", "1,maxcpus=1", "-m", "size=131072k"),
    )
    assert qemu_arguments(example("guest-gicv2-hotplug.xml")) == (
        *("-accel", "kvm", "-machine", "virt-7.2,gic-version=2", "-cpu", "host,pmu=off"),
        *("-smp", "2,maxcpus=8", "-m", "size=2097152k,slots=16,maxmem=16777216k"),
    )
    assert qemu_arguments(example("guest-x86.xml")) == ()


def test_arguments_of_the_domain_are_said_again() -> None:
    words = ("highmem-ecam=off", "compact-highmem=on", "highmem-mmio-size=1T", "msi=auto", "iommu=smmuv3")
    domain = read_domain((EXAMPLES / "guest-gicv3.xml").read_bytes())
    arguments = qemu_arguments(resolve(replace(domain, qemu_arguments=("-machine", ",".join(words))), HOST))
    said = arguments[arguments.index("-machine") + 1].split(",")
    assert set(said) == {"virt-10.0", "gic-version=3", *words, f"highmem-mmio-size={1 << 40}"} - {words[2]}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.xml")), ids=lambda path: path.stem)
def test_every_document_keeps_to_the_schema(path: Path) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = to_document(example(path.name))
    jsonschema.validate(document, schema)
    sources = schema["$defs"]["configuration"]["properties"]["decisions"]["items"]["properties"]["source"]["enum"]
    assert sources == [source.value for source in Source]


def test_only_kvms_own_devices_are_in_the_kernel() -> None:
    assert [name for name, _, in_kernel in regions(example("guest-gicv3.xml")) if in_kernel] == [
        "GIC distributor",
        "ITS",
        "GIC redistributors of 4 vCPUs",
    ]
    assert not [name for name, _, in_kernel in regions(example("guest-emulated.xml")) if in_kernel]
