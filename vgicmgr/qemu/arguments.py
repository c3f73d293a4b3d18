"""QEMU's command line: what of it changes the ``virt`` machine, and the parts of it that say a configuration.

A domain can carry arguments of its own (``<qemu:commandline>``), which QEMU reads after those of libvirt: a later
``-machine`` property replaces an earlier one, the other properties stay (system/vl.c, keyval_parse_into).
"""

from collections.abc import Iterable, Sequence

from vgicmgr.errors import VgicmgrError
from vgicmgr.qemu.virt import Properties

_SWITCHES = {
    "its": "its",
    "virtualization": "virtualization",
    "secure": "secure",
    "highmem": "highmem",
    "compact-highmem": "compact_highmem",
    "highmem-redists": "highmem_redists",
    "highmem-ecam": "highmem_ecam",
    "highmem-mmio": "highmem_mmio",
}
_WORDS = {"gic-version": "gic_version", "msi": "msi", "iommu": "iommu", "kernel-irqchip": "kernel_irqchip"}
_ON = ("on", "yes", "true", "y")
_OFF = ("off", "no", "false", "n")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50, "e": 1 << 60}


class ArgumentError(VgicmgrError):
    """An argument that QEMU would refuse: ``-machine`` without a value, a switch that is neither on nor off."""


def machine_options(arguments: Sequence[str]) -> dict[str, str]:
    """The properties that ``-machine`` (``-M``) options among these arguments set; of several, the last.

    The machine type itself is ``type``. Raises :class:`ArgumentError`.
    """
    options: dict[str, str] = {}
    for option in _values(arguments, ("machine", "M")):
        for number, part in enumerate(_split(option)):
            name, equals, value = part.partition("=")
            if equals:
                options[name.replace("_", "-")] = value
            elif number == 0:
                options["type"] = name
            else:
                raise ArgumentError(f"QEMU expects a value after '{name}' in -machine")
    for option in _values(arguments, ("accel",)):
        for part in _split(option):
            name, _, value = part.partition("=")
            if name == "kernel-irqchip":
                options[name] = value
    return options


def cpu_options(arguments: Sequence[str]) -> tuple[str, dict[str, bool]] | None:
    """Model and switches of the last ``-cpu``, which replaces the one before; None where there is none."""
    cpu = None
    for option in _values(arguments, ("cpu",)):
        model, *parts = _split(option) or [""]
        switches = {}
        for part in parts:
            name, _, value = part.partition("=")
            if value in _ON or value in _OFF:
                switches[name] = value in _ON
        cpu = model, switches
    return cpu


def machine_properties(options: dict[str, str]) -> Properties:
    """What these ``-machine`` options come to; those that do not matter here are passed over.

    Raises :class:`ArgumentError`.
    """
    values: dict[str, bool | int | str] = {}
    for name, value in options.items():
        if name in _SWITCHES:
            if value not in (*_ON, *_OFF):
                raise ArgumentError(f"QEMU expects 'on' or 'off' for {name}")
            values[_SWITCHES[name]] = value in _ON
        elif name in _WORDS:
            values[_WORDS[name]] = value
        elif name == "highmem-mmio-size":
            values["highmem_mmio_size"] = _size(name, value)
    return Properties(**values)  # type: ignore[arg-type]


def machine_argument(machine: str, options: Iterable[tuple[str, str]]) -> str:
    """The value of ``-machine`` for a machine type and its options."""
    return ",".join((machine, *(f"{name}={value}" for name, value in options)))


def cpu_argument(model: str, switches: Iterable[tuple[str, bool]]) -> str:
    """The value of ``-cpu``."""
    return ",".join((model, *(f"{name}={'on' if on else 'off'}" for name, on in switches)))


def _values(arguments: Sequence[str], names: Sequence[str]) -> Iterable[str]:
    """The values of the options of these names; QEMU takes one hyphen or two."""
    rest = iter(arguments)
    for argument in rest:
        option = argument.removeprefix("-").removeprefix("-")
        if argument.startswith("-") and option in names:
            value = next(rest, None)
            if value is None:
                raise ArgumentError(f"QEMU expects a value after {argument}")
            yield value


def _split(option: str) -> list[str]:
    """The parts between commas; two commas stand for one (util/keyval.c)."""
    return [part.replace("\0", ",") for part in option.replace(",,", "\0").split(",") if part]


def _size(name: str, value: str) -> int:
    digits = value.rstrip("bBkKmMgGtTpPeE")
    unit = value[len(digits) :].lower()
    if not (digits.isascii() and digits.isdigit()) or unit not in _UNITS or len(digits) > 20:
        raise ArgumentError(f"QEMU expects a size for {name}")
    return int(digits) * _UNITS[unit]
