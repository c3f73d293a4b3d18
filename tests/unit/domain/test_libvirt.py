"""read_domain against libvirt's own parser and formatter: libvirt's test driver, which needs no daemon and no Arm.

What libvirt writes back is what its hook is given. libvirt runs in a process of its own, since some documents end it.
"""

import json
import subprocess
import sys
from functools import cache
from importlib.util import find_spec

import pytest

from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import ABI_HOST, ABI_RECORD, Domain
from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import DomainXMLError

pytestmark = pytest.mark.skipif(find_spec("libvirt") is None, reason="libvirt-python is missing")

RECORD = f"<r:record xmlns:r='{ABI_RECORD}' version='1'>AbC=</r:record><h:record xmlns:h='{ABI_HOST}' version='1'/>"


def domain(inside: str = "", memory: str = "<memory>1048576</memory>", prolog: str = "", attributes: str = "") -> str:
    return (
        f"{prolog}<domain type='kvm'{attributes}><name>g</name>{memory}<os><type arch='aarch64' machine='virt-10.0'>hvm"
        f"</type></os>{inside}</domain>"
    )


def odd(metadata: str) -> str:
    """A guest with many settings, and this in its metadata."""
    return domain(
        f"<metadata>{metadata}{RECORD}</metadata><vcpu current='2'>4</vcpu><features><acpi/><gic version='3'/>"
        "<pmu state='off'/></features><cpu mode='host-passthrough'><feature policy='require' name='sve'/></cpu>"
    )


METADATA = {
    "nothing": "",
    "a namespace with blanks": "<a:app xmlns:a='My App 1.0'/>",
    "a namespace with a brace": "<a:app xmlns:a='urn:{x}'/>",
    "an element of an unbound prefix": "<a:app xmlns:a='urn:a'><b:x/></a:app>",
    "an attribute of an unbound prefix": "<a:app xmlns:a='urn:a' b:x='1'/>",
    "an element of two prefixes": "<a:app xmlns:a='urn:a'><a:b:x/></a:app>",
    "an element of no prefix and a colon": "<a:app xmlns:a='urn:a'><:x/></a:app>",
    "a prefix that is taken back": "<a:app xmlns:a='urn:a'><z:x xmlns:z=''/></a:app>",
    "an attribute twice by its namespace": "<a:app xmlns:a='urn:a' xmlns:b='urn:a' a:x='1' b:x='2'/>",
    "a record's prefix in another's hands": "<r:app xmlns:r='urn:a'><r:record/></r:app>",
    "a comment, an instruction and a section": "<!-- <metadata> --><?app x?><![CDATA[</metadata>]]>",
    "words of ours": "<features xmlns=''><gic version='2'/></features><name>h</name>",
}
UNREADABLE = {
    "a name of XML 1.0's fifth edition": "<a:app xmlns:a='urn:a'><a:\u0220/></a:app>",
    "a name beyond the first plane": "<a:app xmlns:a='urn:a'><a:\U00010000/></a:app>",
}
FORGED = "</metadata><features><gic version='2'/></features><vcpu>9</vcpu><metadata>"
ESCAPED = FORGED.replace("<", "&lt;").replace("'", "&apos;")
# libxml2 2.9 does not escape what it writes as a namespace
UNESCAPED = {
    "a namespace with an angle": "<a:app xmlns:a='a&lt;b'/>",
    "a namespace that would end the metadata": f"<a:app xmlns:a='{ESCAPED}'/>",
    "an attribute that would end the metadata": f"<a:app xmlns:a='urn:a' x='{ESCAPED}'>{ESCAPED}</a:app>",
}
SETTINGS = {
    "numbers as strtoul has them": domain("<vcpu current=' +02'>\n+4</vcpu>", "<memory unit='b'> +1048577</memory>"),
    "each vCPU": domain(
        "<vcpu>3</vcpu><vcpus><vcpu id='0' enabled='yes' hotpluggable='no'/><vcpu id='1' enabled='yes' "
        "hotpluggable='yes'/><vcpu id='2' enabled='no' hotpluggable='yes'/></vcpus>"
    ),
    "pinning": domain(
        "<vcpu cpuset='0-3'>2</vcpu><cputune><vcpupin vcpu='0' cpuset='0-1'/><vcpupin vcpu='1' cpuset='3'/>"
        "<emulatorpin cpuset='0'/></cputune>"
    ),
    "NUMA cells": domain(
        "<vcpu>2</vcpu><cpu><numa><cell cpus='0' memory='1048577'/><cell cpus='1' memory='1' unit='GB'/></numa></cpu>"
    ),
    "room to grow": domain("<maxMemory slots='16' unit='MB'>8000</maxMemory>"),
    "two of what XPath takes together": domain("<features><acpi/></features><features><gic version='2'/></features>"),
    "the virtual timer": domain("<clock offset='utc'><timer name='armvtimer' tickpolicy='discard'/></clock>"),
    "the host bridge's window": domain(
        "<devices><controller type='pci' index='0' model='pcie-root'><pcihole64 unit='TiB'>2</pcihole64></controller>"
        "<controller type='pci' index='1' model='pcie-root-port'/></devices>"
    ),
    "an SMMU": domain("<devices><iommu model='smmuv3'/></devices>"),
    "a PCI device": domain(
        "<devices><hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='1' bus='010' slot='0x1F' "
        "function='+7'/></source></hostdev></devices>"
    ),
    "a mediated device": domain(
        "<devices><hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address "
        "uuid=' C2177883f1bb47f0914d32a22e3a8804'/></source></hostdev></devices>"
    ),
    "comments within": domain("<vcpu>1<!-- x -->6</vcpu>"),
    "another's elements beside": domain("<x:other xmlns:x='urn:x'><vcpu>2</vcpu></x:other>"),
    "XML 1.1": domain(prolog="<?xml version='1.1'?>"),
    "US-ASCII": domain(prolog="<?xml version='1.0' encoding='US-ASCII'?>"),
    "a byte order mark": domain(prolog="\ufeff"),
}
# neither takes these
REFUSED = {
    "XML 2.0": domain(prolog="<?xml version='2.0'?>"),
    "an encoding of that name is not known": domain(prolog="<?xml version='1.0' encoding='foo'?>"),
    "a blank behind a number": domain("<vcpu>1 </vcpu>"),
    "a number in hexadecimal": domain("<vcpu current='0x1'>1</vcpu>"),
    "more present than there may be": domain("<vcpu current='3'>2</vcpu>"),
    "a feature in a prefix that is not bound": domain("<features><x:gic version='2'/></features>"),
    "a bus beyond the last": domain(
        "<devices><hostdev mode='subsystem' type='pci'><source><address bus='256'/></source></hostdev></devices>"
    ),
    "a bus that is no number": domain(
        "<devices><hostdev mode='subsystem' type='pci'><source><address bus='zz'/></source></hostdev></devices>"
    ),
    "a mediated device of no UUID": domain(
        "<devices><hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address "
        f"uuid='{'x' * 256}'/></source></hostdev></devices>"
    ),
}

_CHILD = """
import json, sys, libvirt
libvirt.registerErrorHandler(lambda *_: None, None)
connection = libvirt.open("test:///default")
written = {}
for name, document in json.load(sys.stdin).items():
    try:
        domain = connection.defineXML(document)
        written[name] = domain.XMLDesc(0)
        domain.undefine()
    except libvirt.libvirtError:
        written[name] = None
json.dump(written, sys.stdout)
"""


@cache
def written() -> dict[str, str | None]:
    """What libvirt makes of each document; None where it does not take it."""
    documents = (
        {name: odd(metadata) for name, metadata in (METADATA | UNREADABLE | UNESCAPED).items()} | SETTINGS | REFUSED
    )
    process = subprocess.run(
        [sys.executable, "-c", _CHILD], input=json.dumps(documents), capture_output=True, text=True, check=True
    )
    result: dict[str, str | None] = json.loads(process.stdout)
    return result


def settings(document: str | None) -> Domain:
    assert document is not None, "libvirt does not take it"
    return replace(read_domain(document.encode()), uuid="")  # libvirt chooses one


@pytest.mark.parametrize("name", METADATA)
def test_metadata(name: str) -> None:
    read = settings(written()[name])
    assert read == settings(odd(METADATA[name]))
    assert read.record is not None
    assert (read.gic_version, read.current_vcpus, read.metadata_unreadable) == ("3", 2, "")


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_metadata(name: str) -> None:
    read = settings(written()[name])
    assert read.metadata_unreadable
    assert replace(read, metadata_unreadable="") == replace(settings(odd("")), record=None, host_record=None)


@pytest.mark.parametrize("name", UNESCAPED)
def test_metadata_that_may_be_written_unescaped(name: str) -> None:
    read, plain = settings(written()[name]), settings(odd(""))
    assert (read.record is None) is bool(read.metadata_unreadable)
    assert replace(read, metadata_unreadable="", record=plain.record, host_record=plain.host_record) == plain


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name: str) -> None:
    assert settings(written()[name]) == settings(SETTINGS[name])


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_both(name: str) -> None:
    assert written()[name] is None
    with pytest.raises(DomainXMLError):
        read_domain(REFUSED[name].encode())


@pytest.mark.parametrize(
    "features",
    [
        "<x:gic xmlns:x='urn:x' version='2'/>",
        "<gic xmlns='urn:x' version='2'/>",
        "<gic xmlns:x='urn:x' x:version='2'/>",
    ],
)
def test_libvirt_goes_by_the_local_name_where_we_refuse(features: str) -> None:
    document = domain(f"<features>{features}</features>")
    process = subprocess.run(
        [sys.executable, "-c", _CHILD], input=json.dumps({"": document}), capture_output=True, text=True, check=True
    )
    assert "<gic version='2'/>" in json.loads(process.stdout)[""]
    with pytest.raises(DomainXMLError):
        read_domain(document.encode())
