"""What read_domain takes from a domain XML, and what it will not read."""

import resource
import time
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vgicmgr.domain.domain import CpuFeature, Devices, Domain, EmulatedDevice
from vgicmgr.domain.xml import MAX_BYTES, MAX_DEPTH, read_domain
from vgicmgr.errors import DomainXMLError

EXAMPLES = Path(__file__).parents[3] / "xml"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def example_domain(name: str) -> Domain:
    return read_domain((EXAMPLES / name).read_bytes())


def domain(
    inside: str = "",
    *,
    attributes: str = "type='kvm'",
    memory: str = "<memory>1048576</memory>",
    os: str = "<os><type arch='aarch64' machine='virt-10.0'>hvm</type></os>",
) -> bytes:
    """A domain with what each domain has, and ``inside``."""
    return f"<domain {attributes}><name>g</name>{memory}{os}{inside}</domain>".encode()


def refusal(xml: bytes) -> str:
    with pytest.raises(DomainXMLError) as caught:
        read_domain(xml)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestExamples:
    """The example domains, as libvirt writes them."""

    def test_running_guest(self) -> None:
        assert example_domain("guest-gicv3.xml") == Domain(
            name="web1",
            uuid="3f0a4f5e-52c2-4f0e-9a0b-6d5d1f7d4c11",
            virt_type="kvm",
            arch="aarch64",
            machine="virt-10.0",
            emulator="/usr/bin/qemu-system-aarch64",
            vcpus=4,
            current_vcpus=4,
            memory=4 * GIB,
            max_memory=0,
            memory_slots=0,
            gic_version="3",
            pmu=None,
            cpu_mode="host-passthrough",
            cpu_model="",
            cpu_features=(),
            devices=Devices(
                root_ports=1,
                emulated=tuple(EmulatedDevice(kind, port=True) for kind in ("disk", "interface", "memballoon")),
            ),
            acpi=True,
            firmware=True,
        )

    def test_guest_that_can_grow(self) -> None:
        settings = example_domain("guest-gicv2-hotplug.xml")
        assert (settings.vcpus, settings.current_vcpus) == (8, 2)
        assert (settings.memory, settings.max_memory, settings.memory_slots) == (2 * GIB, 16 * GIB, 16)
        assert (settings.gic_version, settings.pmu) == ("2", False)

    def test_what_memory_devices_have_is_not_there_at_boot(self) -> None:
        devices = "".join(
            f"<memory model='{model}'><target><size unit='MiB'>{size}</size><node>0</node></target></memory>"
            for model, size in (("dimm", 512), ("virtio-mem", 1024))
        )
        xml = domain(f"<devices>{devices}</devices>", memory="<memory unit='GiB'>2</memory>")
        assert read_domain(xml).memory == 512 * MIB

    def test_numa_cells_say_what_is_there_at_boot_whatever_the_whole_is_said_to_be(self) -> None:
        cells = "<cpu><numa><cell memory='1' unit='GiB'/><cell memory='1048576'/></numa></cpu>"
        assert read_domain(domain(cells, memory="<memory unit='GiB'>5</memory>")).memory == 2 * GIB

    def test_guest_with_features_and_arguments(self) -> None:
        settings = example_domain("guest-sve-commandline.xml")
        assert settings.cpu_features == (
            CpuFeature("sve", "require"),
            CpuFeature("sve256", "require"),
            CpuFeature("sve512", "disable"),
        )
        assert (settings.gic_version, settings.pmu) == ("host", True)
        assert settings.qemu_arguments == ("-global", "virtio-net-pci.mrg_rxbuf=off")

    def test_a_domain_inside_the_metadata_is_not_the_domain(self) -> None:
        assert example_domain("guest-sve-commandline.xml").virt_type == "kvm"

    def test_emulated_guest(self) -> None:
        settings = example_domain("guest-emulated.xml")
        assert (settings.virt_type, settings.cpu_mode, settings.cpu_model) == ("qemu", "custom", "cortex-a72")

    @pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.xml")), ids=lambda path: path.name)
    def test_each_begins_as_the_hook_script_expects(self, path: Path) -> None:
        assert path.read_bytes().startswith((b"<domain type='kvm'", b"<domain type='qemu'"))


class TestNeedsGic:
    """Whether KVM is to give the guest an Arm GIC."""

    @pytest.mark.parametrize(
        ("virt_type", "arch", "machine", "needs"),
        [
            ("kvm", "aarch64", "virt", True),
            ("kvm", "aarch64", "virt-10.0", True),
            ("kvm", "aarch64", "virt-rhel9.4.0", True),
            ("kvm", "armv7l", "virt-7.2", True),
            ("kvm", "aarch64", "virtual", False),
            ("kvm", "aarch64", "raspi3b", False),
            ("kvm", "riscv64", "virt", False),
            ("kvm", "x86_64", "pc-q35-7.2", False),
            ("kvm", "", "virt", False),
            ("qemu", "aarch64", "virt", False),
            ("hvf", "aarch64", "virt", False),
            ("", "aarch64", "virt", False),
            # libvirt fills in 'virt' for AArch64, and another board for 32 bits (virQEMUCapsGetPreferredMachine)
            ("kvm", "aarch64", "", True),
            ("kvm", "armv7l", "", False),
        ],
    )
    def test_type_arch_and_machine_decide(self, virt_type: str, arch: str, machine: str, needs: bool) -> None:
        os = f"<os><type arch='{arch}' machine='{machine}'>hvm</type></os>"
        assert read_domain(domain(attributes=f"type='{virt_type}'", os=os)).needs_gic is needs


class TestDefaults:
    """What holds when the document says nothing; libvirt's defaults."""

    def test_bare_domain(self) -> None:
        settings = read_domain(domain())
        assert (settings.uuid, settings.emulator, settings.gic_version) == ("", "", "")
        assert (settings.vcpus, settings.current_vcpus) == (1, 1)
        assert (settings.max_memory, settings.memory_slots) == (0, 0)
        assert settings.pmu is None
        assert (settings.cpu_mode, settings.cpu_model, settings.cpu_features) == ("", "", ())

    def test_gic_without_version(self) -> None:
        assert read_domain(domain("<features><gic/></features>")).gic_version == ""

    def test_pmu_without_state_is_on(self) -> None:
        assert read_domain(domain("<features><pmu/></features>")).pmu is True

    def test_cpu_with_a_model_and_no_mode_is_custom(self) -> None:
        assert read_domain(domain("<cpu><model>max</model></cpu>")).cpu_mode == "custom"

    def test_cpu_with_a_topology_alone_has_no_mode(self) -> None:
        assert read_domain(domain("<cpu><topology sockets='1' cores='1' threads='1'/></cpu>")).cpu_mode == ""

    def test_feature_without_policy_is_required(self) -> None:
        assert read_domain(domain("<cpu><feature name='sve'/></cpu>")).cpu_features == (CpuFeature("sve", "require"),)


class TestSizes:
    """libvirt's units (virScaleInteger): powers of 1024 for k and KiB, of 1000 for KB; KiB when none is given."""

    @pytest.mark.parametrize(
        ("unit", "scale"),
        [
            ("b", 1),
            ("byte", 1),
            ("bytes", 1),
            ("k", 1024),
            ("KiB", 1024),
            ("KB", 1000),
            ("M", 1024**2),
            ("MiB", 1024**2),
            ("MB", 1000**2),
            ("G", 1024**3),
            ("GiB", 1024**3),
            ("gib", 1024**3),
            ("GB", 1000**3),
            ("T", 1024**4),
            ("TiB", 1024**4),
            ("TB", 1000**4),
            ("P", 1024**5),
            ("PiB", 1024**5),
            ("PB", 1000**5),
            ("E", 1024**6),
            ("EiB", 1024**6),
            ("EB", 1000**6),
        ],
    )
    def test_unit(self, unit: str, scale: int) -> None:
        assert read_domain(domain(memory=f"<memory unit='{unit}'>3</memory>")).memory == -(3 * scale // -MIB) * MIB

    def test_no_unit_is_kib(self) -> None:
        assert read_domain(domain(memory="<memory>2048</memory>")).memory == 2 * MIB

    @pytest.mark.parametrize("number", ["2048", " 2048", "\n2048", "+2048", "02048"])
    def test_numbers_are_read_as_by_strtoul(self, number: str) -> None:
        assert read_domain(domain(memory=f"<memory>{number}</memory>")).memory == 2 * MIB
        assert read_domain(domain(f"<vcpu current='{number}'>4096</vcpu>")).current_vcpus == 2048

    @pytest.mark.parametrize("unit", ["x", "KiBi", "bit", "bb", "K iB", "ZiB"])
    def test_unknown_unit(self, unit: str) -> None:
        assert refusal(domain(memory=f"<memory unit='{unit}'>3</memory>")) == (
            "the domain XML has an unknown attribute 'unit' of <memory>"
        )


class TestRefused:
    """What libvirt would never write is not read."""

    @pytest.mark.parametrize("number", ["", "-1", "++1", "+ 1", "1 ", "1.5", "0x10", "1e3", "four", "1 2", "٣", "1_0"])
    def test_not_a_whole_number(self, number: str) -> None:
        assert "no whole number in <vcpu>" in refusal(domain(f"<vcpu>{number}</vcpu>"))

    @pytest.mark.parametrize(
        "inside",
        [
            "<vcpu>0</vcpu>",
            "<vcpu>4294967296</vcpu>",
            "<vcpu current='5'>4</vcpu>",
            "<vcpu current='0'>4</vcpu>",
            f"<vcpu>{'9' * 5000}</vcpu>",
            "<maxMemory unit='EiB'>8</maxMemory>",
            "<maxMemory slots='4294967296'>8</maxMemory>",
            "<features><gic version='4294967296'/></features>",
        ],
    )
    def test_number_out_of_range(self, inside: str) -> None:
        assert "a number out of range" in refusal(domain(inside))

    @pytest.mark.parametrize(
        ("xml", "why"),
        [
            (b"", "empty"),
            (b" \n", "empty"),
            (b"<network><name>default</name></network>", "its root is not <domain>"),
            (b"<domain type='kvm'><name>g</name>", "malformed: no element found at line 1"),
            (b"<domain type='kvm", "malformed: unclosed token at line 1"),
            (b"<domain><name>g</domain>", "malformed: mismatched tag"),
            (b"<domain>&lol;</domain>", "malformed: undefined entity"),
            (b"\x01", "malformed"),
            (b"<domain>\xff</domain>", "malformed: not well-formed (invalid token)"),
            (b"<domain><name>g</name><memory>1</memory></domain>", "no <type>"),
            (b"<domain><memory>1</memory><os><type>hvm</type></os></domain>", "no <name>"),
            (b"<domain><name>g</name><os><type>hvm</type></os></domain>", "no <memory>"),
            (domain("<name>h</name>"), "<name> twice"),
            (domain("<features><gic version='2'/></features><features><gic version='3'/></features>"), "<gic> twice"),
            (domain("<os/>"), "<os> twice"),
            (domain("<metadata/><metadata/>"), "<metadata> twice"),
            (domain("<features><gic version='three'/></features>"), "attribute 'version' of <gic>"),
            (domain("<features><pmu state='maybe'/></features>"), "attribute 'state' of <pmu>"),
            (domain("<cpu><feature policy='require'/></cpu>"), "no attribute 'name' of <feature>"),
            (domain("<devices><memory><target><size unit='EiB'>1</size></target></memory></devices>"), "<memory>"),
        ],
    )
    def test_one_line_says_why(self, xml: bytes, why: str) -> None:
        assert why in refusal(xml)

    @pytest.mark.parametrize(
        "doctype",
        [
            "<!DOCTYPE domain>",
            "<!DOCTYPE domain SYSTEM 'file:///etc/shadow'>",
            "<!DOCTYPE domain [<!ENTITY a 'b'>]>",
            "<!DOCTYPE domain [<!ENTITY % p SYSTEM 'http://192.0.2.1/'> %p;]>",
        ],
    )
    def test_doctype(self, doctype: str) -> None:
        assert "has a DOCTYPE" in refusal(doctype.encode() + domain())

    def test_entities_are_never_expanded(self) -> None:
        lol = "".join(f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, 12))
        bomb = f"<!DOCTYPE domain [<!ENTITY l0 'lol'>{lol}]><domain><name>&l11;</name></domain>".encode()
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        assert "has a DOCTYPE" in refusal(bomb)
        assert time.monotonic() - start < 1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10 * KIB  # in KiB

    def test_larger_than_anything_libvirt_writes(self) -> None:
        assert "larger than 8 MiB" in refusal(domain(" " * MAX_BYTES))

    def test_as_deep_as_is_read(self) -> None:
        depth = MAX_DEPTH - 1
        assert read_domain(domain("<a>" * depth + "</a>" * depth)).name == "g"

    def test_deeper(self) -> None:
        assert "nested deeper than 1024" in refusal(domain("<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH))

    @pytest.mark.parametrize(
        "declaration",
        [
            "<?xml version='1.0'?>",
            "<?xml version='1.1'?>",
            "<?xml version='1.0' encoding='utf-8'?>",
            "<?xml version='1.0' encoding='US-ASCII' standalone='yes'?>",
            "\ufeff",
        ],
    )
    def test_declarations_that_are_taken(self, declaration: str) -> None:
        assert read_domain(declaration.encode() + domain()).name == "g"

    @pytest.mark.parametrize(
        ("declaration", "why"),
        [
            ("<?xml version='2.0'?>", "an unknown version of XML"),
            ("<?xml version='1.0' encoding='foo'?>", "an encoding other than UTF-8"),
            ("<?xml version='1.0' encoding='punycode'?>", "an encoding other than UTF-8"),
            ("<?xml version='1.0' encoding='ISO-8859-1'?>", "an encoding other than UTF-8"),
        ],
    )
    def test_declarations_that_are_refused(self, declaration: str, why: str) -> None:
        assert why in refusal(declaration.encode() + domain())

    @pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
    def test_other_encodings(self, codec: str) -> None:
        assert "is not in UTF-8" in refusal(domain().decode().encode(codec))

    def test_what_stands_in_the_document_is_not_quoted(self) -> None:
        secret = "s3cr3t"
        for xml in (
            domain(f"<vcpu>{secret}</vcpu>"),
            domain(f"<vcpu current='{secret}'>1</vcpu>"),
            domain(memory=f"<memory unit='{secret}'>1</memory>"),
            domain(f"<features><gic version='{secret}'/><pmu state='{secret}'/></features>"),
            domain(f"<devices><graphics passwd='{secret}'</devices>"),
            domain(f"<{secret}>"),
            f"<{secret}/>".encode(),
            domain(f"&{secret};"),
            domain(f"<{secret}:vcpu/>"),
        ):
            assert secret not in refusal(xml)


class TestProperties:
    """For whatever comes."""

    @given(st.binary(max_size=300))
    @example(b"\xfe\xff\x00<")
    @example(b"<?xml version='1.0' encoding='utf-16'?><domain/>")
    def test_arbitrary_bytes(self, xml: bytes) -> None:
        try:
            read_domain(xml)
        except DomainXMLError as error:
            assert error.message.isprintable()

    @given(st.data())
    def test_a_domain_cut_or_damaged_anywhere(self, data: st.DataObject) -> None:
        xml = bytearray((EXAMPLES / "guest-sve-commandline.xml").read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(xml) - 1))
            xml[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=8))
        try:
            read_domain(bytes(xml))
        except DomainXMLError as error:
            assert error.message.isprintable()

    # what XML can carry: no control characters but these, no surrogates, no carriage return (read as a newline)
    _text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"))
    _attribute = _text.filter(lambda text: text == text.strip())

    @given(
        name=_text,
        strings=st.tuples(*[_attribute] * 5),
        vcpus=st.integers(1, 4096),
        memory=st.integers(0, 2**62 // MIB),
        growth=st.none() | st.tuples(st.integers(0, 2**62 // MIB), st.integers(0, 256)),
        gic=st.none() | st.sampled_from(["", "2", "3", "4", "host"]),
        pmu=st.none() | st.booleans(),
        features=st.lists(st.tuples(_attribute.filter(bool), st.sampled_from(["require", "disable"])), max_size=4),
        arguments=st.booleans(),
    )
    def test_what_is_written_is_read(
        self,
        name: str,
        strings: tuple[str, str, str, str, str],
        vcpus: int,
        memory: int,
        growth: tuple[int, int] | None,
        gic: str | None,
        pmu: bool | None,
        features: list[tuple[str, str]],
        arguments: bool,
    ) -> None:
        virt_type, arch, machine, emulator, model = strings
        xml = (
            f"<domain type={quoteattr(virt_type)} xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
            f"<name>{escape(name)}</name><memory unit='MiB'>{memory}</memory>"
            + (f"<maxMemory slots='{growth[1]}' unit='MiB'>{growth[0]}</maxMemory>" if growth else "")
            + f"<vcpu>{vcpus}</vcpu><os><type arch={quoteattr(arch)} machine={quoteattr(machine)}>hvm</type></os>"
            + "<features>"
            + ("" if gic is None else f"<gic version='{gic}'/>" if gic else "<gic/>")
            + ("" if pmu is None else f"<pmu state='{'on' if pmu else 'off'}'/>")
            + f"</features><cpu mode='custom'><model>{escape(model)}</model>"
            + "".join(f"<feature policy='{policy}' name={quoteattr(feature)}/>" for feature, policy in features)
            + f"</cpu><devices><emulator>{escape(emulator)}</emulator></devices>"
            + ("<qemu:commandline><qemu:arg value='-S'/></qemu:commandline>" if arguments else "")
            + "</domain>"
        )
        assert read_domain(xml.encode()) == Domain(
            name=name,
            uuid="",
            virt_type=virt_type,
            arch=arch,
            machine=machine,
            emulator=emulator,
            vcpus=vcpus,
            current_vcpus=vcpus,
            memory=memory * MIB,
            max_memory=growth[0] * MIB if growth else 0,
            memory_slots=growth[1] if growth else 0,
            gic_version=gic or "",
            pmu=pmu,
            cpu_mode="custom",
            cpu_model=model,
            cpu_features=tuple(CpuFeature(*feature) for feature in features),
            qemu_arguments=("-S",) if arguments else (),
        )
