"""How read_domain reads: what libvirt's parser takes, and the newer elements of libvirt."""

import resource
import time

import pytest

from vgicmgr.domain.domain import ABI_HOST, ABI_RECORD, IOMMU, QEMU_NAMESPACE, Domain, RecordElement
from vgicmgr.domain.hostdevices import HostDevice
from vgicmgr.domain.xml import MAX_BYTES, blank_metadata, read_domain, read_snapshot
from vgicmgr.errors import DomainXMLError

MIB, GIB = 1 << 20, 1 << 30


def domain(inside: str = "", *, attributes: str = "", memory: str = "<memory>1048576</memory>") -> bytes:
    return (
        f"<domain type='kvm' {attributes}><name>g</name>{memory}"
        f"<os><type arch='aarch64' machine='virt-10.0'>hvm</type></os>{inside}</domain>"
    ).encode()


def read(inside: str = "", **others: str) -> Domain:
    return read_domain(domain(inside, **others))


def refusal(inside: str, **others: str) -> str:
    with pytest.raises(DomainXMLError) as caught:
        read(inside, **others)
    return caught.value.message


SAYS = "version='1' sum='x'"
RECORD = f"<r:record xmlns:r='{ABI_RECORD}' version='1' sum='x'>\n AbC=\n</r:record>"
READ = RecordElement({"version": "1", "sum": "x"}, "AbC=")

# what libxml2 keeps: errors of namespaces are no errors of XML
KEPT = {
    "a namespace with blanks": "<a:app xmlns:a='My App 1.0'/>",
    "a namespace with a brace": "<a:app xmlns:a='urn:{x}'/>",
    "an element of an unbound prefix": "<a:app xmlns:a='urn:a'><b:x/></a:app>",
    "an attribute of an unbound prefix": "<a:app xmlns:a='urn:a' b:x='1'/>",
    "an element of two prefixes": "<a:app xmlns:a='urn:a'><a:b:x/></a:app>",
    "an element of no prefix and a colon": "<a:app xmlns:a='urn:a'><:x/></a:app>",
    "a prefix unbound by hand": "<a:app xmlns:a='urn:a'><z:x xmlns:z=''/></a:app>",
    "an attribute twice by its namespace": "<a:app xmlns:a='urn:a' xmlns:b='urn:a' a:x='1' b:x='2'/>",
    "an unbound child of metadata": "<b:x/>",
}
# and what libvirt writes though expat has other rules
UNREADABLE = {
    "a name of XML 1.0's fifth edition": "<a:app xmlns:a='urn:a'><a:\u0220/></a:app>",
    "a name beyond the first plane": "<a:app xmlns:a='urn:a'><a:\U00010000/></a:app>",
    "an unescaped namespace": '<a:app xmlns:a="a<b"/>',
    "an unescaped namespace like an end": "<a:app xmlns:a=\"</metadata><features><gic version='2'/></features>\"/>",
}


class TestMetadata:
    """L1: what applications put into <metadata> does not stand in the way of a guest."""

    @pytest.mark.parametrize("name", KEPT)
    def test_settings_and_record_are_read_all_the_same(self, name: str) -> None:
        read_back = read(f"<metadata>{KEPT[name]}{RECORD}</metadata><features><gic version='3'/></features>")
        assert (read_back.gic_version, read_back.record, read_back.metadata_unreadable) == ("3", READ, "")

    @pytest.mark.parametrize("name", UNREADABLE)
    def test_where_it_cannot_be_read_the_rest_still_counts(self, name: str) -> None:
        read_back = read(f"<metadata>\n{UNREADABLE[name]}{RECORD}</metadata><features><gic version='3'/></features>")
        assert (read_back.gic_version, read_back.record) == ("3", None)
        assert read_back.metadata_unreadable == "not well-formed (invalid token) at line 2"

    @pytest.mark.parametrize("tag", ["metadata xmlns:q='urn:q' q:z='1'", "metadata\n", "metadata q:z='1'"])
    def test_metadata_may_have_attributes(self, tag: str) -> None:
        assert read(f"<{tag}>{RECORD}</metadata>").record == READ
        assert read(f"<{tag}><a:\u0220/></metadata>").metadata_unreadable

    def test_a_fault_elsewhere_is_not_excused(self) -> None:
        assert refusal("<metadata/><features>") == "the domain XML is malformed: mismatched tag at line 1"
        assert "at line 1" in refusal("<metadata><\u0220/></metadata><features>")

    def test_nothing_of_it_is_quoted(self) -> None:
        assert "s3cr3t" not in read("<metadata><s3cr3t></metadata>").metadata_unreadable

    def test_what_only_looks_like_metadata_is_not_cut(self) -> None:
        hidden = "<!-- <metadata> --><features><gic version='2'/></features><!-- </metadata> --><\u0220/>"
        assert "malformed" in refusal(hidden)
        assert "malformed" in refusal("<description><![CDATA[<metadata>]]></description><\u0220/></metadata>")

    def test_blanks_keep_every_place(self) -> None:
        xml = domain(f"<metadata>\n\u0220{UNREADABLE['an unescaped namespace']}\n</metadata>\n<features/>")
        blank = blank_metadata(xml)
        assert blank is not None
        assert len(blank) == len(xml)
        assert blank.index(b"<features") == xml.index(b"<features")
        assert blank.count(b"\n") == xml.count(b"\n")
        assert blank_metadata(domain()) is None


class TestRecords:
    @pytest.mark.parametrize(
        ("attributes", "metadata"),
        [
            ("", f"<metadata>{RECORD}</metadata>"),
            ("", f"<metadata><record xmlns='{ABI_RECORD}' version='1' sum='x'>AbC=</record></metadata>"),
            ("", f"<metadata xmlns:v='{ABI_RECORD}'><v:record version='1' sum='x'>AbC=</v:record></metadata>"),
            (f"xmlns:v='{ABI_RECORD}'", "<metadata><v:record version='1' sum='x'>AbC=</v:record></metadata>"),
            ("xmlns:r='urn:other'", f"<metadata>{RECORD}</metadata>"),
            # a declaration ends with its element, and an empty one is none
            (f"xmlns:v='{ABI_RECORD}'", f"<metadata><x xmlns:r='urn:x' xmlns:v='urn:x'/>{RECORD}</metadata>"),
            ("", f"<metadata xmlns:v='{ABI_RECORD}'><x xmlns:v='u'/><v:record {SAYS}>AbC=</v:record></metadata>"),
            ("", f"<metadata xmlns:v='{ABI_RECORD}'><v:record xmlns:v='' {SAYS}>AbC=</v:record></metadata>"),
        ],
    )
    def test_by_the_namespace_wherever_it_is_declared(self, attributes: str, metadata: str) -> None:
        assert read(metadata, attributes=attributes).record == READ

    def test_both(self) -> None:
        read_back = read(f"<metadata>{RECORD}<h:record xmlns:h='{ABI_HOST}' version='2'/></metadata>")
        assert (read_back.record, read_back.host_record) == (READ, RecordElement({"version": "2"}, ""))

    @pytest.mark.parametrize(
        "metadata",
        [
            "",
            "<metadata><record version='1'/></metadata>",
            "<metadata><r:record xmlns:r='urn:other' version='1'/></metadata>",
            "<metadata><r:record version='1'/></metadata>",
            f"<metadata><x xmlns:r='{ABI_RECORD}'><r:record version='1'/></x><r:record/></metadata>",
            f"<metadata><x>{RECORD}</x></metadata>",
            f"<description/>{RECORD}",
        ],
    )
    def test_none(self, metadata: str) -> None:
        assert read(metadata).record is None

    def test_twice(self) -> None:
        assert refusal(f"<metadata>{RECORD}{RECORD}</metadata>") == "the domain XML has an ABI record twice"


class TestNamesOfLibvirt:
    """L11: libvirt takes some elements by their local name, and a text with that of the children (XPath)."""

    @pytest.mark.parametrize(
        "inside",
        [
            "<features><x:gic xmlns:x='urn:x' version='2'/></features>",
            "<features><gic xmlns='urn:x' version='2'/></features>",
            "<features><x:gic version='2'/></features>",
            "<features><:gic version='2'/></features>",
            "<features xmlns='urn:x'><gic version='2'/></features>",
            "<x:features xmlns:x='urn:x'><gic version='2'/></x:features>",
            "<x:vcpu xmlns:x='urn:x'>4</x:vcpu>",
            "<cpu><x:feature xmlns:x='urn:x' name='sve'/></cpu>",
            "<devices><x:hostdev xmlns:x='urn:x'/></devices>",
        ],
    )
    def test_an_element_in_another_namespace(self, inside: str) -> None:
        assert "in a namespace that is not libvirt's" in refusal(inside)

    def test_an_attribute_in_another_namespace(self) -> None:
        inside = "<features><gic xmlns:x='urn:x' x:version='2'/></features>"
        assert refusal(inside) == "the domain XML has an attribute with a prefix in <gic>"

    @pytest.mark.parametrize("inside", ["<vcpu>1<x>6</x></vcpu>", "<cpu><model>a<b/></model></cpu>"])
    def test_an_element_within_a_text(self, inside: str) -> None:
        assert "has an element within <" in refusal(inside)

    def test_what_is_not_read_may_be_in_any_namespace(self) -> None:
        assert (
            read("<x:other xmlns:x='urn:x'><vcpu>4</vcpu></x:other><devices><disk><x:a/></disk></devices>").vcpus == 1
        )

    def test_several_features_and_devices_are_one(self) -> None:
        read_back = read("<features><acpi/></features><features><gic version='2'/></features><devices/><devices/>")
        assert (read_back.acpi, read_back.gic_version) == (True, "2")

    def test_comments_within_a_text(self) -> None:
        assert read("<vcpu>1<!-- x -->6</vcpu>").vcpus == 16


class TestSizesOfLibvirt:
    """F19: qemuDomainAlignMemorySizes."""

    def test_rounded_up_to_a_mebibyte(self) -> None:
        assert read(memory="<memory unit='KiB'>1048577</memory>").memory == 1025 * MIB
        assert read(memory="<memory unit='b'>1</memory>").memory == MIB
        assert read("<maxMemory slots='1' unit='KiB'>2097153</maxMemory>").max_memory == 2049 * MIB

    def test_each_cell_by_itself(self) -> None:
        cells = "<cell memory='1048577' unit='KiB'/>" * 2
        assert read(f"<cpu><numa>{cells}</numa></cpu>").memory == 2 * 1025 * MIB

    def test_cells_do_without_a_memory(self) -> None:
        cells = "<cpu><numa><cell memory='1' unit='GiB'/></numa></cpu>"
        assert read(cells, memory="").memory == GIB


class TestFeatures:
    def test_none(self) -> None:
        bare = read()
        assert (bare.acpi, bare.ras, bare.virtualization, bare.no_adjvtime) == (False, None, None, None)
        assert (bare.launch_security, bare.firmware, bare.hotpluggable_vcpus) == ("", False, False)
        assert (bare.cpuset, bare.vcpu_pins, bare.emulator_pin) == ("", (), "")

    def test_switches(self) -> None:
        read_back = read("<features><acpi/><ras state='on'/><virtualization state='off'/></features>")
        assert (read_back.acpi, read_back.ras, read_back.virtualization) == (True, True, False)
        assert "attribute 'state' of <ras>" in refusal("<features><ras state='maybe'/></features>")

    @pytest.mark.parametrize(("policy", "expected"), [("discard", True), ("delay", False), ("catchup", None)])
    def test_the_virtual_timer(self, policy: str, expected: bool | None) -> None:
        timers = f"<timer name='rtc' tickpolicy='delay'/><timer name='armvtimer' tickpolicy='{policy}'/>"
        assert read(f"<clock offset='utc'>{timers}</clock>").no_adjvtime is expected

    def test_launch_security(self) -> None:
        assert read("<launchSecurity type='cca'><x/></launchSecurity>").launch_security == "cca"

    @pytest.mark.parametrize(
        ("attributes", "loader", "firmware"),
        [
            ("", "", False),
            (" firmware='efi'", "", True),
            (" firmware='bios'", "", False),
            ("", "<loader readonly='yes' type='pflash'>/usr/share/AAVMF/AAVMF_CODE.fd</loader>", True),
            ("", "<loader type='rom'>/usr/share/x</loader>", False),
        ],
    )
    def test_firmware(self, attributes: str, loader: str, firmware: bool) -> None:
        os = f"<os{attributes}><type arch='aarch64' machine='virt'>hvm</type>{loader}</os>"
        xml = f"<domain type='kvm'><name>g</name><memory>1</memory>{os}</domain>"
        assert read_domain(xml.encode()).firmware is firmware


class TestVcpus:
    def test_fewer_than_there_may_be(self) -> None:
        assert read("<vcpu current='2'>4</vcpu>").hotpluggable_vcpus
        assert not read("<vcpu current='4'>4</vcpu>").hotpluggable_vcpus

    def test_each_by_itself(self) -> None:
        vcpus = "<vcpu id='0' enabled='yes' hotpluggable='no'/><vcpu id='1' enabled='{}' hotpluggable='{}'/>"
        both = read(f"<vcpu>2</vcpu><vcpus>{vcpus.format('yes', 'no')}</vcpus>")
        assert (both.current_vcpus, both.hotpluggable_vcpus) == (2, False)
        assert read(f"<vcpu>2</vcpu><vcpus>{vcpus.format('yes', 'yes')}</vcpus>").hotpluggable_vcpus
        assert read(f"<vcpu>2</vcpu><vcpus>{vcpus.format('no', 'yes')}</vcpus>").current_vcpus == 1

    def test_pinning_as_it_stands(self) -> None:
        pinned = read(
            "<vcpu placement='static' cpuset='0-3,^2'>2</vcpu><cputune><vcpupin vcpu='0' cpuset='0-1'/>"
            "<vcpupin vcpu='1' cpuset='3'/><emulatorpin cpuset='0'/><iothreadpin iothread='1' cpuset='5'/></cputune>"
        )
        assert (pinned.cpuset, pinned.emulator_pin) == ("0-3,^2", "0")
        assert pinned.vcpu_pins == ((0, "0-1"), (1, "3"))


class TestDevices:
    def test_none(self) -> None:
        devices = read().devices
        assert (devices.iommus, devices.root_ports, devices.pcihole64, devices.host_devices) == ((), 0, 0, ())

    def test_iommus(self) -> None:
        inside = (
            "<iommu model='smmuv3'/><iommu model='smmuv3'><driver pciBus='1'/></iommu>"
            "<iommu model='smmuv3'><driver pciBus='2' accel='on' ats='on' ssidsize='20' oas='44'/></iommu>"
        )
        assert read(f"<devices>{inside}</devices>").devices.iommus == (
            IOMMU("smmuv3"),
            IOMMU("smmuv3", 1),
            IOMMU("smmuv3", 2, accel=True),
        )

    def test_the_host_bridges_window(self) -> None:
        root = "<controller type='pci' index='0' model='{}'><pcihole64 unit='{}'>2048</pcihole64></controller>"
        assert read(f"<devices>{root.format('pcie-root', 'GiB')}</devices>").devices.pcihole64 == 2048 * GIB
        assert read(f"<devices>{root.format('pcie-root', 'KiB')}</devices>").devices.pcihole64 == 2 * MIB
        assert read(f"<devices>{root.format('pci-root', 'GiB')}</devices>").devices.pcihole64 == 0

    def test_ports_need_msis_and_other_controllers_do_not(self) -> None:
        controllers = "".join(
            f"<controller type='{kind}' model='{model}'/>"
            for kind, model in (
                ("pci", "pcie-root"),
                ("pci", "pcie-root-port"),
                ("pci", "pcie-switch-upstream-port"),
                ("pci", "pcie-switch-downstream-port"),
                ("pci", "pcie-to-pci-bridge"),
                ("usb", "pcie-root-port"),
            )
        )
        assert read(f"<devices>{controllers}</devices>").devices.root_ports == 3

    def test_iommufd_for_all(self) -> None:
        address = "<source><address bus='6'/></source>"
        devices = (
            f"<hostdev mode='subsystem' type='pci'>{address}</hostdev>"
            f"<hostdev mode='subsystem' type='pci'><driver iommufd='no'/>{address}</hostdev>"
        )
        assert read(f"<iommufd enabled='yes'/><devices>{devices}</devices>").devices.host_devices == (
            HostDevice("pci", "0000:06:00.0", iommufd=True),
            HostDevice("pci", "0000:06:00.0"),
        )

    def test_those_within_the_metadata_are_not_the_domains(self) -> None:
        inner = "<metadata><domain><devices><iommu model='smmuv3'/></devices></domain></metadata>"
        assert read(inner).devices.iommus == ()


class TestQemu:
    @pytest.mark.parametrize(
        ("attributes", "commandline"),
        [
            (f"xmlns:qemu='{QEMU_NAMESPACE}'", "<qemu:commandline><qemu:arg value='-S'/></qemu:commandline>"),
            ("", f"<q:commandline xmlns:q='{QEMU_NAMESPACE}'><q:arg value='-S'/></q:commandline>"),
            ("", f"<commandline xmlns='{QEMU_NAMESPACE}'><arg value='-S'/></commandline>"),
        ],
    )
    def test_arguments_by_the_namespace(self, attributes: str, commandline: str) -> None:
        assert read(commandline, attributes=attributes).qemu_arguments == ("-S",)

    def test_arguments_of_several_command_lines_in_order(self) -> None:
        one = "<qemu:commandline><qemu:arg value='{}'/><qemu:env name='a'/></qemu:commandline>"
        read_back = read(one.format("-a") + one.format("-b"), attributes=f"xmlns:qemu='{QEMU_NAMESPACE}'")
        assert read_back.qemu_arguments == ("-a", "-b")
        assert not read_back.qemu_overrides

    @pytest.mark.parametrize("name", ["commandline", "qemu:commandline", "x:commandline"])
    def test_not_of_qemu(self, name: str) -> None:
        inside = f"<{name}><{name.replace('commandline', 'arg')} value='-S'/></{name}>"
        assert read(inside, attributes="xmlns:x='urn:x'").qemu_arguments == ()

    @pytest.mark.parametrize("name", ["override", "capabilities", "deprecation"])
    def test_overrides(self, name: str) -> None:
        assert read(f"<qemu:{name}/>", attributes=f"xmlns:qemu='{QEMU_NAMESPACE}'").qemu_overrides

    def test_more_arguments_than_are_read(self) -> None:
        def commandline(count: int) -> str:
            return f"<qemu:commandline>{'<qemu:arg/>' * count}</qemu:commandline>"

        attributes = f"xmlns:qemu='{QEMU_NAMESPACE}'"
        assert len(read(commandline(10000), attributes=attributes).qemu_arguments) == 10000
        assert "more than 10000 <arg>" in refusal(commandline(10001), attributes=attributes)


class TestSize:
    """L13: what 8 MiB of one thing cost."""

    @pytest.mark.parametrize(
        ("before", "each", "after", "why"),
        [
            ("<cpu>", "<feature name='a'/>", "</cpu>", "more than 1024 <feature>"),
            ("<cpu><numa>", "<cell memory='1'/>", "</numa></cpu>", "more than 1024 <cell>"),
            ("<devices>", "<controller type='pci'/>", "</devices>", "more than 4096 <controller>"),
            ("<cputune>", "<vcpupin vcpu='0'/>", "</cputune>", "more than 16384 <vcpupin>"),
        ],
    )
    def test_too_many(self, before: str, each: str, after: str, why: str) -> None:
        assert why in refusal(before + each * ((8 << 20) // len(each) - 100) + after)

    @pytest.mark.parametrize(
        ("before", "each", "after"),
        [
            ("<devices>", "<interface/>", "</devices>"),
            ("", "<features/>", ""),
            ("<metadata>", "<a xmlns:b='c'/>", "</metadata>"),
            ("<x>", "<a>", "</a>" * 1000 + "</x>"),
        ],
    )
    def test_much_of_what_is_passed_over(self, before: str, each: str, after: str) -> None:
        count = 1000 if "</a>" in after else (4 << 20) // len(each)
        memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        read(before + each * count + after)
        assert time.monotonic() - start < 10
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 64 << 10  # in KiB

    def test_many_declarations_are_not_copied_for_each_child(self) -> None:
        many = " ".join(f"xmlns:a{number}='u'" for number in range(50000))
        start = time.monotonic()
        read(f"<metadata {many}>" + "<b xmlns:c='d'/>" * 50000 + "</metadata>")
        assert time.monotonic() - start < 10


class TestSnapshots:
    """A <domainsnapshot>, by the rules that hold for the domain within it."""

    MEMORY = "<memory snapshot='external' file='/srv/s.mem'/>"

    def snapshot(self, inside: str = "", *, state: str = "running", memory: str = MEMORY, more: str = "") -> bytes:
        definition = domain(inside).decode()
        return f"<domainsnapshot><state>{state}</state>{memory}{definition}{more}</domainsnapshot>".encode()

    def test_the_domain_is_read_as_any(self) -> None:
        inside = f"<metadata>{RECORD}</metadata><vcpu>3</vcpu>"
        found = read_snapshot(self.snapshot(inside))
        assert (found.state, found.memory, found.domain) == ("running", "external", read(inside))

    def test_what_else_is_in_it_is_passed_over(self) -> None:
        """As libvirt orders it: name, parent, disks, and the definition of the next start after the one that ran."""
        definition = domain("<vcpu>9</vcpu>").decode().replace("domain", "inactiveDomain")
        more = f"<parent><name>p</name></parent>{definition}<cookie><slirpHelper/></cookie>"
        found = read_snapshot(self.snapshot("<vcpu>3</vcpu>", more=more)).domain
        assert found is not None
        assert found.vcpus == 3

    @pytest.mark.parametrize("state", ["shutoff", "disk-snapshot", "shutdown", "crashed", "pmsuspended", "blocked"])
    def test_whose_guest_is_not_brought_back_running(self, state: str) -> None:
        assert read_snapshot(self.snapshot(state=state)).domain is None

    @pytest.mark.parametrize(("state", "expected"), [("running", "internal"), ("shutoff", "no")])
    def test_memory_that_is_not_told(self, state: str, expected: str) -> None:
        assert read_snapshot(self.snapshot(state=state, memory="")).memory == expected

    @pytest.mark.parametrize(
        ("xml", "why"),
        [
            (domain(), "its root is not <domainsnapshot>"),
            (b"<domainsnapshot/>", "has no <state>"),
            (b"<domainsnapshot><state>running</state></domainsnapshot>", "has no <domain>"),
            (b"<!DOCTYPE d><domainsnapshot/>", "DOCTYPE"),
            (b"<domainsnapshot>" + b" " * MAX_BYTES, "is larger than"),
            (b"<domainsnapshot><state>running</state>", "is malformed"),
            (b"<x:domainsnapshot xmlns:x='urn:x'/>", "its root is not <domainsnapshot>"),
            (b"<domainsnapshot xmlns:x='urn:x'><x:state>running</x:state></domainsnapshot>", "not libvirt's"),
            (b" ", "is empty"),
            (b"<\0d\0", "is not in UTF-8"),
        ],
    )
    def test_refused(self, xml: bytes, why: str) -> None:
        with pytest.raises(DomainXMLError) as caught:
            read_snapshot(xml)
        assert why in caught.value.message

    def test_the_definition_twice(self) -> None:
        with pytest.raises(DomainXMLError, match="<domain> twice"):
            read_snapshot(self.snapshot(more=domain().decode()))

    def test_a_domain_is_no_snapshot(self) -> None:
        with pytest.raises(DomainXMLError, match="its root is not <domain>"):
            read_domain(self.snapshot())
