"""read_domain against lxml: whatever a well-formed document holds, both find the same by XPath."""

from xml.sax.saxutils import escape, quoteattr

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from lxml import etree

from vgicmgr.domain.domain import ABI_ELEMENT, ABI_RECORD, QEMU_NAMESPACE
from vgicmgr.domain.xml import read_domain
from vgicmgr.errors import DomainXMLError

_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"))
_word = st.sampled_from(
    ["", "on", "off", "yes", "2", "3", "host", "sve", "virt", "aarch64", "pci", "hostdev", "é", "a b"]
)
_prefix = st.sampled_from(["", "", "", "", "", "a:", "q:", "r:", "unbound:"])
_OF_GUEST = ["name", "uuid", "vcpu", "os", "type", "features", "gic", "pmu", "acpi", "cpu", "model", "feature", "numa"]
_OF_DEVICES = ["devices", "controller", "emulator", "iommu", "driver", "clock", "timer", "launchSecurity", "other"]
_local = st.sampled_from([*_OF_GUEST, *_OF_DEVICES, "cell", "metadata", "record", "commandline", "arg"])
_attribute = st.sampled_from(["version", "name", "value", "type", "model", "arch", "machine", "cpuset", "a:x", "other"])
_declaration = st.sampled_from(
    [
        "",
        "",
        "",
        " xmlns='urn:a'",
        " xmlns=''",
        f" xmlns='{QEMU_NAMESPACE}'",
        f" xmlns:q='{QEMU_NAMESPACE}'",
        f" xmlns:r='{ABI_RECORD}'",
        " xmlns:a='My App'",
        " xmlns:r='urn:other'",
    ]
)


def _element(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def spell(prefix: str, local: str, declaration: str, attributes: dict[str, str], inside: list[str]) -> str:
        name = f"{prefix}{local}"
        shown = "".join(f" {attribute}={quoteattr(value)}" for attribute, value in attributes.items())
        return f"<{name}{declaration}{shown}>{''.join(inside)}</{name}>"

    return st.builds(
        spell,
        _prefix,
        _local,
        _declaration,
        st.dictionaries(_attribute, _word, max_size=3),
        st.lists(inner, max_size=4),
    )


_leaf = st.one_of(
    _word.map(escape), _text.map(escape), st.sampled_from(["<!-- c -->", "<?p i?>", "<![CDATA[<x>]]>", "&#65;"])
)
_elements = st.recursive(_leaf, _element, max_leaves=12)
_SEEDS = [
    "<metadata>{}</metadata>",
    f"<metadata xmlns:r='{ABI_RECORD}'>{{}}<r:record a:x='1' n='2'>t<!-- c -->u</r:record></metadata>",
    "<features>{}<gic version='3'/></features>",
    "<features><pmu state='off'/>{}</features>",
    "<cpu><feature name='sve'/>{}</cpu>",
    "<devices><controller type='pci' model='pcie-root-port'/>{}</devices>",
    "<q:commandline><q:arg value='-S'/>{}</q:commandline>",
    f"<commandline xmlns='{QEMU_NAMESPACE}'>{{}}<arg value='-a'/></commandline>",
    "<launchSecurity type='cca'>{}</launchSecurity>",
    "{}",
]
_documents = st.lists(st.builds(str.replace, st.sampled_from(_SEEDS), st.just("{}"), _elements), max_size=5).map(
    lambda parts: (
        f"<domain type='kvm' xmlns:q='{QEMU_NAMESPACE}'><name>g</name><memory>1</memory>"
        f"<os><type arch='aarch64'>hvm</type></os>{''.join(parts)}</domain>"
    ).encode()
)
_NAMESPACES = {"q": QEMU_NAMESPACE, "r": ABI_RECORD}


@hypothesis_settings(max_examples=300, deadline=None)
@given(_documents)
def test_what_xpath_finds(xml: bytes) -> None:
    # namespaces alone are recovered from, as libvirt does: expat has found everything else well-formed
    try:
        domain = read_domain(xml)
    except DomainXMLError as error:
        assert error.message.isprintable()
        return
    root = etree.fromstring(xml, etree.XMLParser(encoding="utf-8", recover=not domain.metadata_unreadable))

    def strings(path: str) -> list[str]:
        found = root.xpath(path, namespaces=_NAMESPACES)
        assert isinstance(found, list)
        return [str(each) for each in found]

    assert [domain.name] == [root.xpath("string(name[1])")]
    assert [domain.gic_version] == (strings("features/*[local-name()='gic']/@version") or [""])
    assert [feature.name for feature in domain.cpu_features] == strings("cpu/feature/@name")
    assert [iommu.model for iommu in domain.devices.iommus if iommu.model] == strings("devices/iommu/@model")
    assert domain.devices.root_ports == len(strings("devices/controller[@type='pci'][@model='pcie-root-port']/@type"))
    assert [each for each in domain.qemu_arguments if each] == [
        each for each in strings("q:commandline/q:arg/@value") if each
    ]
    assert domain.acpi is bool(root.xpath("features/*[local-name()='acpi']"))
    assert [domain.launch_security] == (strings("launchSecurity/@type") or [""])
    assert domain.cpu_model == root.xpath("string(cpu/model[1])")
    if domain.metadata_unreadable:
        return
    records = root.xpath(f"metadata[1]/r:{ABI_ELEMENT}", namespaces=_NAMESPACES)
    assert isinstance(records, list)
    assert bool(records) is (domain.record is not None)
    for record in records:
        assert isinstance(record, etree._Element)
        assert domain.record is not None
        assert domain.record.text == "".join(str(each) for each in record.xpath("text()")).strip()  # type: ignore[union-attr]
        attributes = {name: value for name, value in domain.record.attributes.items() if ":" not in name}
        assert attributes == {
            name: value for name, value in record.attrib.items() if not str(name).startswith(("{", "a:"))
        }
