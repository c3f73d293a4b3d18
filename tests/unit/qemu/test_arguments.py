"""QEMU's command line, as QEMU reads it: each row was given to QEMU 7.2, and ``test_oracle`` gives it some again."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vgicmgr.qemu.arguments import (
    ArgumentError,
    Arguments,
    CPUArgument,
    boolean,
    cpu_argument,
    machine_argument,
    number,
    read_arguments,
    size,
)
from vgicmgr.qemu.cpu import cpu_of, psci_version, sve_vector_lengths, unsupported_properties, vcpu_features
from vgicmgr.qemu.hostdevices import host_devices
from vgicmgr.qemu.iommu import smmu_devices
from vgicmgr.qemu.size import memory, vcpus
from vgicmgr.qemu.virt import libvirt_machine, machine_properties

from .test_cpu import DOMAIN


def machine(*arguments: str) -> dict[str, str]:
    read = read_arguments(arguments)
    return {"type": read.machine_type, **dict(read.machine)} if read.machine_type else dict(read.machine)


class TestMachine:
    @pytest.mark.parametrize(
        ("arguments", "options"),
        [
            ([], {}),
            (["-S", "-m", "1G"], {}),
            (["-machine", "its=off"], {"its": "off"}),
            (["--machine", "virt,its=off"], {"type": "virt", "its": "off"}),
            (["-M", "virt,"], {"type": "virt"}),
            (["-M", ""], {}),
            (["-M", "type=virt-2.7,its=on"], {"type": "virt-2.7", "its": "on"}),
            (["-M", "its=on,type=virt-2.7", "-M", "virt"], {"type": "virt", "its": "on"}),
            (["-M", "its=off", "-machine", "its=on,msi=auto"], {"its": "on", "msi": "auto"}),
            (["-M", "its=off,its=on"], {"its": "on"}),
            (["-M", "gic_version=3"], {"gic-version": "3"}),
            (["-machine", "kernel=/a,,b,its=no"], {"kernel": "/a,b", "its": "no"}),
            (["-machine", "firmware=,,"], {"firmware": ","}),
            (["-machine", "firmware="], {"firmware": ""}),
            (["-no-acpi"], {"acpi": "off"}),
            (["-no-acpi", "-M", "acpi=on"], {"acpi": "on"}),
        ],
    )
    def test_is_merged_over_all_its_options(self, arguments: list[str], options: dict[str, str]) -> None:
        assert machine(*arguments) == options

    @pytest.mark.parametrize(
        "arguments",
        [
            ["-machine"],
            ["-M", "virt,its"],
            ["-M", "virt,,its=off"],
            ["-M", ",virt"],
            ["-M", "=1"],
            ["-M", "1a=1"],
            ["-M", "a.=1"],
            ["-M", "help"],
            ["-M", "virt,help"],
            ["-M", "gic_version=3", "-M", "gic-version=3"],
        ],
    )
    def test_what_qemu_refuses(self, arguments: list[str]) -> None:
        with pytest.raises(ArgumentError):
            read_arguments(arguments)

    def test_an_options_value_is_no_option(self) -> None:
        """QEMU's options take the argument behind them, whatever it is; switches take none."""
        assert machine("-append", "-M", "-M", "its=off") == {"its": "off"}
        assert machine("-nographic", "-M", "its=off") == {"its": "off"}
        assert machine("-name", "-nographic", "-S", "--M", "its=off") == {"its": "off"}

    def test_what_has_no_hyphen_is_a_disk(self) -> None:
        assert machine("disk.img", "-M", "its=off") == {"its": "off"}

    def test_names_with_underscores_are_remembered(self) -> None:
        assert read_arguments(["-M", "gic_version=3,its=on"]).underscored == ("gic-version",)

    def test_a_message_has_no_control_characters(self) -> None:
        with pytest.raises(ArgumentError) as caught:
            read_arguments(["-M", "virt,\x1b]0;owned\x07" + "x" * 5000])
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 120


class TestCPU:
    @pytest.mark.parametrize(
        ("arguments", "cpu"),
        [
            (["-S"], None),
            (["-cpu", "max", "-cpu", "host,pmu=off"], CPUArgument("host", (("pmu", "off"),))),
            (["-cpu", "+broken", "-cpu", "host"], CPUArgument("host")),
            (["--cpu", "host"], CPUArgument("host")),
            (["-cpu", "host,"], CPUArgument("host")),
            (["-cpu", ",pmu=off"], CPUArgument("", (("pmu", "off"),))),
            # split by strtok: a doubled comma is no comma
            (["-cpu", "host,sve128=off,,pauth=off"], CPUArgument("host", (("sve128", "off"), ("pauth", "off")))),
            (["-cpu", "host,a=b=c"], CPUArgument("host", (("a", "b=c"),))),
            (["-cpu", "host,pmu=off,pmu=on"], CPUArgument("host", (("pmu", "off"), ("pmu", "on")))),
        ],
    )
    def test_is_the_last(self, arguments: list[str], cpu: CPUArgument | None) -> None:
        assert read_arguments(arguments).cpu == cpu

    @pytest.mark.parametrize("value", ["", "help", "host,+sve", "host,-sve", "host,sve"])
    def test_what_qemu_refuses_on_arm(self, value: str) -> None:
        """x86 alone knows ``+f`` and ``-f`` (cpu_common_parse_features)."""
        with pytest.raises(ArgumentError):
            read_arguments(["-cpu", value])


class TestGlobal:
    @pytest.mark.parametrize(
        ("value", "read"),
        [
            ("host-arm-cpu.pauth=off", ("host-arm-cpu", "pauth", "off")),
            ("driver=host-arm-cpu,property=pauth,value=off", ("host-arm-cpu", "pauth", "off")),
            ("value=off,property=pauth,driver=host-arm-cpu", ("host-arm-cpu", "pauth", "off")),
            ("a.b.c=d=e", ("a", "b.c", "d=e")),
            ("a.b=off,c", ("a", "b", "off,c")),
            ("a.b=", ("a", "b", "")),
            ("driver=a,property=b,value=c,,d", ("a", "b", "c,d")),
        ],
    )
    def test_has_two_spellings(self, value: str, read: tuple[str, str, str]) -> None:
        assert read_arguments(["-global", value]).globals == (read,)

    @pytest.mark.parametrize("value", ["", "a", "a.b", "driver=a,property=b", "driver=a,property=b,value=c,x=y"])
    def test_what_qemu_refuses(self, value: str) -> None:
        with pytest.raises(ArgumentError):
            read_arguments(["-global", value])


class TestAccelerator:
    @pytest.mark.parametrize(
        ("arguments", "named", "of_machine"),
        [
            ([], (), ""),
            (["-enable-kvm"], ("kvm",), "kvm"),
            (["-accel", "kvm", "-accel", "tcg,thread=single"], ("kvm", "tcg"), ""),
            (["-accel", "accel=kvm"], ("kvm",), ""),
            (["-M", "virt,accel=kvm:tcg"], ("kvm", "tcg"), "kvm:tcg"),
            (["-enable-kvm", "-M", "accel=tcg"], ("tcg",), "tcg"),
            (["-M", "accel=tcg", "-enable-kvm"], ("kvm",), "kvm"),
        ],
    )
    def test_names(self, arguments: list[str], named: tuple[str, ...], of_machine: str) -> None:
        read = read_arguments(arguments)
        assert (read.accelerators, read.machine_accelerator) == (named, of_machine)
        assert "accel" not in dict(read.machine)

    @pytest.mark.parametrize("other", [["-enable-kvm"], ["-M", "accel=kvm"]])
    def test_two_ways_at_once_are_refused(self, other: list[str]) -> None:
        with pytest.raises(ArgumentError):
            read_arguments(["-accel", "kvm", *other])

    @pytest.mark.parametrize(
        ("arguments", "irqchip"),
        [
            (["-M", "kernel_irqchip=off"], "off"),
            (["-M", "kernel-irqchip=split"], "split"),
            (["-accel", "kvm,kernel-irqchip=split"], "split"),
            (["-accel", "tcg,kernel-irqchip=split"], ""),
        ],
    )
    def test_kernel_irqchip(self, arguments: list[str], irqchip: str) -> None:
        assert read_arguments(arguments).kernel_irqchip == irqchip


class TestDevices:
    @pytest.mark.parametrize(
        ("value", "device"),
        [
            ("vfio-pci,host=01:00.0", (("driver", "vfio-pci"), ("host", "01:00.0"))),
            ("host=01:00.0,driver=vfio-pci", (("driver", "vfio-pci"), ("host", "01:00.0"))),
            ("virtio-net-pci,mq,nomrg_rxbuf", (("driver", "virtio-net-pci"), ("mq", "on"), ("mrg_rxbuf", "off"))),
            ("pl011,chardev=a,,b", (("driver", "pl011"), ("chardev", "a,b"))),
            ('{"driver":"vfio-pci","host":"01:00.0"}', (("driver", "vfio-pci"), ("host", "01:00.0"))),
            ("{'driver':'pl011'}", (("driver", "pl011"),)),
            ('{"driver":"a","n":3,"on":true,"l":[1]}', (("driver", "a"), ("n", "3"), ("on", "on"), ("l", "[1]"))),
        ],
    )
    def test_have_two_forms(self, value: str, device: tuple[tuple[str, str], ...]) -> None:
        assert read_arguments(["-device", value]).devices == (device,)

    @pytest.mark.parametrize(
        "value",
        ["", "help", "a=b", '{"driver":', '{"a":1}', '{"driver":' + "[" * 99999, '{"driver":' + "9" * 5000 + "}"],
    )
    def test_what_qemu_refuses(self, value: str) -> None:
        with pytest.raises(ArgumentError):
            read_arguments(["-device", value])


class TestVcpusAndMemory:
    @pytest.mark.parametrize(
        ("arguments", "smp"),
        [
            (["-smp", "4"], {"cpus": "4"}),
            (["-smp", "cpus=4", "-smp", "maxcpus=8"], {"cpus": "4", "maxcpus": "8"}),
            (["-smp", "4", "-M", "smp.cpus=2"], {"cpus": "2"}),
        ],
    )
    def test_smp(self, arguments: list[str], smp: dict[str, str]) -> None:
        assert dict(read_arguments(arguments).smp) == smp

    @pytest.mark.parametrize(
        ("arguments", "memory"),
        [
            (["-m", "4G"], {"size": "4G"}),
            (["-m", "512"], {"size": "512M"}),  # a bare number is in MiB
            (["-m", "0x200"], {"size": "512M"}),
            (["-m", "size=1G,maxmem=8G", "-m", "slots=4"], {"size": "1G", "maxmem": "8G", "slots": "4"}),
            (["-M", "memory.size=1073741824"], {"size": "1073741824"}),  # and here in bytes
        ],
    )
    def test_memory(self, arguments: list[str], memory: dict[str, str]) -> None:
        assert dict(read_arguments(arguments).memory) == memory


def test_options_that_may_change_anything_are_named() -> None:
    assert read_arguments(["-readconfig", "f", "-set", "device.a.b=c"]).unread == ("readconfig", "set")


@pytest.mark.parametrize("option", ["-h", "--help", "-version"])
def test_options_by_which_qemu_only_prints(option: str) -> None:
    with pytest.raises(ArgumentError):
        read_arguments([option])


class TestValues:
    @pytest.mark.parametrize("word", ["on", "yes", "true", "y"])
    def test_words_for_on(self, word: str) -> None:
        assert boolean("its", word)

    @pytest.mark.parametrize("word", ["off", "no", "false", "n"])
    def test_words_for_off(self, word: str) -> None:
        assert not boolean("its", word)

    @pytest.mark.parametrize("word", ["", "On", "1", "0", "enable", "ON", " on"])
    def test_no_other_words(self, word: str) -> None:
        with pytest.raises(ArgumentError):
            boolean("its", word)

    @pytest.mark.parametrize(
        ("text", "value"),
        [("1G", 1 << 30), ("1g", 1 << 30), ("1.5G", 3 << 29), ("0.5K", 512), ("1.G", 1 << 30), ("01G", 1 << 30),
         ("1B", 1), ("7", 7), (" 1k", 1 << 10), ("+1M", 1 << 20), ("0x100000", 1 << 20), ("0X10", 16),
         ("18446744073709551615", 2**64 - 1), ("1.0", 1)],
    )  # fmt: skip
    def test_sizes(self, text: str, value: int) -> None:
        assert size("memory", text) == value

    @pytest.mark.parametrize(
        "text", ["", "G", "1e3", "1KB", ".5G", "0x1.0", "1T1", "-1G", "7.5", "20000000000000000000", "٣", "1٣G", "0x",
                 "9" * 5000, "1." + "٣", "16E", "1GG"],
    )  # fmt: skip
    def test_what_is_no_size(self, text: str) -> None:
        with pytest.raises(ArgumentError):
            size("memory", text)

    @pytest.mark.parametrize(("text", "value"), [("8", 8), ("0x10", 16), ("010", 8), ("0", 0), ("+8", 8)])
    def test_numbers(self, text: str, value: int) -> None:
        assert number("cpus", text) == value

    @pytest.mark.parametrize("text", ["", "x", "1.0", "-1", "09", "8 ", "٣", "9" * 5000, "18446744073709551616"])
    def test_what_is_no_number(self, text: str) -> None:
        with pytest.raises(ArgumentError):
            number("cpus", text)


def test_written() -> None:
    assert machine_argument("virt-10.0", [("gic-version", "3"), ("its", "off")]) == "virt-10.0,gic-version=3,its=off"
    assert cpu_argument("host", [("pmu", False), ("sve", True), ("x", "1")]) == "host,pmu=off,sve=on,x=1"


# --- one value in every spelling that QEMU takes

_names = st.text("abcdefg0-", min_size=1, max_size=8).map(lambda name: f"x{name}")
_values = st.text("abc=/.,-", max_size=6)
_properties = st.dictionaries(_names, _values, max_size=5)
_hyphens = st.sampled_from(["-", "--"])


def _doubled(value: str) -> str:
    return value.replace(",", ",,")


@st.composite
def _spelt(draw: st.DrawFn) -> tuple[Arguments, list[str]]:
    """A command line's value, and one of the ways to write it."""
    kind, properties = draw(st.sampled_from(["", "virt", "virt-10.0"])), draw(_properties)
    arguments: list[str] = []
    for name, value in properties.items():
        if draw(st.booleans()):  # a value before the last counts for nothing
            arguments += [draw(_hyphens) + "M", f"{name}=former"]
        spelling = name.replace("-", "_") if draw(st.booleans()) and len(properties) == 1 and not arguments else name
        arguments += [draw(_hyphens) + draw(st.sampled_from(["M", "machine"])), f"{spelling}={_doubled(value)}"]
    if kind:
        arguments += [draw(_hyphens) + "machine", draw(st.sampled_from([kind, f"type={kind}", f"{kind},"]))]
    cpu = draw(st.none() | st.builds(CPUArgument, st.sampled_from(["host", "max"]), st.tuples()))
    if cpu:
        settings = draw(st.dictionaries(_names, st.text("abc=-", max_size=4), max_size=3))
        cpu = CPUArgument(cpu.model, tuple(settings.items()))
        arguments += [
            draw(_hyphens) + "cpu",
            cpu_argument(cpu.model, cpu.properties) + draw(st.sampled_from(["", ","])),
        ]
    globals_ = draw(st.lists(st.tuples(_names, _names, _values), max_size=2))
    for driver, name, value in globals_:
        by_names = f"driver={driver},value={_doubled(value)},property={name}"
        arguments += ["-global", draw(st.sampled_from([f"{driver}.{name}={value}", by_names]))]
    devices = draw(st.lists(st.tuples(_names, _properties), max_size=2))
    for driver, settings in devices:
        plain = ",".join((driver, *(f"{name}={_doubled(value)}" for name, value in settings.items())))
        json = "{" + ",".join(f'"{name}":"{value}"' for name, value in (("driver", driver), *settings.items())) + "}"
        arguments += ["-device", draw(st.sampled_from([plain, json]))]
    read = Arguments(
        machine_type=kind,
        machine=tuple(properties.items()),
        cpu=cpu,
        globals=tuple(globals_),
        devices=tuple((("driver", driver), *settings.items()) for driver, settings in devices),
    )
    return read, arguments


@hypothesis_settings(deadline=None)
@given(_spelt())
def test_every_spelling_is_read_alike(spelt: tuple[Arguments, list[str]]) -> None:
    expected, arguments = spelt
    read = read_arguments(arguments)
    assert dict(read.machine) == dict(expected.machine)
    assert read.machine_type == expected.machine_type
    assert (read.cpu, read.globals, read.devices) == (expected.cpu, expected.globals, expected.devices)


_options = st.sampled_from(["-machine", "-M", "-cpu", "-accel", "-global", "-device", "-smp", "-m", "-enable-kvm"])
_likely = st.builds(
    "{},{}={}".format,
    st.sampled_from(["host", "virt", "vfio-pci", "vfio-platform", "arm-smmuv3", "4", "1G"]),
    st.sampled_from(["sve", "sve128", "aarch64", "pmu", "kvm-psci-version", "its", "highmem-mmio-size", "gic-version",
                     "host", "sysfsdev", "accel", "maxcpus", "maxmem", "slots"]),
    st.sampled_from(["on", "off", "n", "1.1", "0.1", "9" * 5000, "1T"]) | st.text(max_size=12),
)  # fmt: skip


@hypothesis_settings(deadline=None)
@given(st.lists(_options | _likely | st.text() | st.text(",=-.{}'\"machine0x٣\0", max_size=12)))
def test_any_arguments_are_read_or_refused(arguments: list[str]) -> None:
    try:
        read = read_arguments(arguments)
        machine_properties(read, libvirt_machine(DOMAIN))
        host_devices(read)
        smmu_devices((), read)
        vcpus(DOMAIN, read)
        memory(DOMAIN, read)
        cpu = cpu_of(DOMAIN, read)
        sve_vector_lengths(cpu, (128, 256))
        vcpu_features(cpu, lambda _: 1, pmu=True, el2=True)
        unsupported_properties(cpu, lambda _: 0, None)
        psci_version(cpu)
    except ArgumentError as error:
        assert str(error).isprintable()


@hypothesis_settings(deadline=None)
@given(st.text() | st.text("0123456789.xXeEkKmMgG+- ", max_size=30))
def test_any_text_is_a_size_and_a_number_or_refused(text: str) -> None:
    for reader in (size, number):
        try:
            assert 0 <= reader("x", text) < 1 << 64
        except ArgumentError as error:
            assert str(error).isprintable()
