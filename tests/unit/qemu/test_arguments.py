"""QEMU's arguments: what is read of them, and what is written (system/vl.c, util/keyval.c)."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vgicmgr.qemu.arguments import (
    ArgumentError,
    cpu_argument,
    cpu_options,
    machine_argument,
    machine_options,
    machine_properties,
)
from vgicmgr.qemu.virt import Properties


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], {}),
        (["-S", "-m", "1G"], {}),
        (["-machine", "its=off"], {"its": "off"}),
        (["--machine", "virt,its=off"], {"type": "virt", "its": "off"}),
        (["-M", "its=off", "-machine", "its=on,msi=auto"], {"its": "on", "msi": "auto"}),
        (["-machine", "kernel_irqchip=off"], {"kernel-irqchip": "off"}),
        (["-accel", "kvm,kernel-irqchip=split"], {"kernel-irqchip": "split"}),
        (["-machine", "kernel=/a,,b"], {"kernel": "/a,b"}),
        (["-device", "-machine", "-S"], {"type": "-S"}),  # no option's arity is known here but those asked for
    ],
)
def test_machine_options(arguments: list[str], options: dict[str, str]) -> None:
    assert machine_options(arguments) == options


@pytest.mark.parametrize("arguments", [["-machine"], ["-machine", "virt,its"]])
def test_what_qemu_would_refuse(arguments: list[str]) -> None:
    with pytest.raises(ArgumentError):
        machine_options(arguments)


def test_cpu_options() -> None:
    assert cpu_options(["-S"]) is None
    assert cpu_options(["-cpu", "max", "-cpu", "host,pmu=off,sve=on,kvm-psci-version=1.1"]) == (
        "host",
        {"pmu": False, "sve": True},
    )


def test_an_empty_cpu_argument_names_no_model() -> None:
    assert cpu_options(["-cpu", ""]) == ("", {})


@pytest.mark.parametrize(
    ("options", "properties"),
    [
        ({}, Properties()),
        ({"type": "virt", "usb": "off", "gic-version": "host"}, Properties(gic_version="host")),
        ({"its": "off", "msi": "gicv2m"}, Properties(its=False, msi="gicv2m")),
        ({"highmem": "no", "highmem-ecam": "off"}, Properties(highmem=False, highmem_ecam=False)),
        ({"highmem-mmio-size": "1T"}, Properties(highmem_mmio_size=1 << 40)),
        ({"highmem-mmio-size": "1048576"}, Properties(highmem_mmio_size=1 << 20)),
        ({"kernel-irqchip": "off"}, Properties(kernel_irqchip="off")),
    ],
)
def test_machine_properties(options: dict[str, str], properties: Properties) -> None:
    assert machine_properties(options) == properties


@pytest.mark.parametrize(
    "options",
    [{"its": "maybe"}, {"highmem": ""}, {"highmem-mmio-size": "big"}, {"highmem-mmio-size": "1TB2"},
     {"highmem-mmio-size": "٣"}, {"highmem-mmio-size": "9" * 5000}],
)  # fmt: skip
def test_values_qemu_would_refuse(options: dict[str, str]) -> None:
    with pytest.raises(ArgumentError):
        machine_properties(options)


def test_written() -> None:
    assert machine_argument("virt-10.0", [("gic-version", "3"), ("its", "off")]) == "virt-10.0,gic-version=3,its=off"
    assert cpu_argument("host", [("pmu", False), ("sve", True)]) == "host,pmu=off,sve=on"


_name = st.text("abcdefg-", min_size=1, max_size=8).map(lambda name: f"x{name}")


@hypothesis_settings(deadline=None)
@given(st.dictionaries(_name, st.sampled_from(["on", "off", "3"])))
def test_what_is_written_is_read(options: dict[str, str]) -> None:
    assert machine_options(["-machine", machine_argument("virt", options.items())]) == {"type": "virt", **options}


@hypothesis_settings(deadline=None)
@given(st.lists(st.sampled_from(["-machine", "-M", "-cpu", "-accel"]) | st.text(",=-machine٣\0", max_size=12)))
def test_arbitrary_arguments(arguments: list[str]) -> None:
    try:
        machine_properties(machine_options(arguments))
        cpu_options(arguments)
    except ArgumentError as error:
        assert "\n" not in str(error)
