"""Answers of an installed QEMU over QMP, to values. Pure.

Sources: QEMU's ``qapi/machine.json``, ``qapi/misc-arm.json``, ``qapi/qom.json``; ``hw/arm/virt.c`` and
``target/arm/arm-qmp-cmds.c`` for what stands in them.
"""

import re
from typing import Any

from vgicmgr.dataclass import dataclass
from vgicmgr.qemu.emulator import Emulator


@dataclass(frozen=True)
class Answers:
    """What the commands returned, as they are named; of the GIC's and the CPU's, None without KVM."""

    version: Any
    kvm: Any
    gic_capabilities: Any
    machines: Any
    machine_properties: Any
    cpu_model: Any
    cpu_properties: Any


def default_machine(machines: Any) -> str:
    """The machine type that ``virt`` is short for, in what query-machines returned; empty without one.

    Raises KeyError or TypeError for what that command never returns.
    """
    return next((str(one["name"]) for one in machines if one.get("alias") == "virt"), "")


def from_answers(path: str, answers: Answers) -> Emulator:
    """The values of what QEMU answered; raises ValueError for what these commands never return."""
    try:
        return _from_answers(path, answers)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise ValueError("its answers have another form than QEMU's interface has it") from None


def _from_answers(path: str, answers: Answers) -> Emulator:
    number = answers.version["qemu"]
    virt = [one for one in answers.machines if one["name"].startswith("virt-")]
    virt.sort(key=lambda one: _natural(one["name"]))
    default = default_machine(answers.machines)
    values = {one["name"]: _valid_values(one.get("description", "")) for one in answers.machine_properties}
    gics = answers.gic_capabilities or ()
    props = answers.cpu_model["model"]["props"] if answers.cpu_model else {}
    return Emulator(
        path=path,
        version=f"{int(number['major'])}.{int(number['minor'])}.{int(number['micro'])}",
        package=str(answers.version["package"]),
        kvm=bool(answers.kvm["enabled"]),
        gic_kernel=tuple(sorted(int(one["version"]) for one in gics if one["kernel"])),
        gic_emulated=tuple(sorted(int(one["version"]) for one in gics if one["emulated"])),
        machines=tuple(str(one["name"]) for one in virt),
        deprecated_machines=tuple(str(one["name"]) for one in virt if one["deprecated"]),
        default_machine=default,
        max_cpus=next((int(one["cpu-max"]) for one in virt if one["name"] == default), 0),
        properties=tuple(sorted(filter(_settable, values))),
        gic_versions=values.get("gic-version", ()),
        msi=values.get("msi", ()),
        cpu={str(name): value for name, value in sorted(props.items()) if isinstance(value, bool)},
        cpu_properties=tuple(sorted(filter(_settable, (str(one["name"]) for one in answers.cpu_properties or ())))),
        program_differs=(),
    )


def _settable(name: str) -> bool:
    """Whether it is a property that users know: neither a child nor a wire, nor one of QEMU's own testing."""
    return re.fullmatch(r"[a-z0-9-]+", name) is not None and not name.startswith(("x-", "unnamed-", "peripheral"))


def _valid_values(description: str) -> tuple[str, ...]:
    """The values in a property's description: ``Set GIC version. Valid values are 2, 3, 4, host and max``."""
    listed = description.partition("Valid values are ")[2].rstrip(".")
    return tuple(re.split(r", | and ", listed)) if listed else ()


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers in a name sort as numbers: virt-9.2 before virt-10.0."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
