"""QEMU's command line: what of it changes the guest, read once, and the parts of it that say a configuration.

A domain can carry arguments of its own (``<qemu:commandline>``), which QEMU reads after those of libvirt.

Sources: QEMU's ``system/vl.c`` (qemu_init, lookup_opt, keyval_dashify, configure_accelerators), ``util/keyval.c``
(keyval_parse_one), ``util/qemu-option.c`` (get_opt_name_value), ``hw/core/cpu-common.c`` (cpu_common_parse_features),
``system/qdev-monitor.c`` (qemu_global_option), ``qapi/qapi-util.c`` (qapi_bool_parse) and
``util/cutils.c`` (qemu_strtosz).
"""

from collections.abc import Iterable, Iterator, Sequence

from vgicmgr.dataclass import dataclass
from vgicmgr.errors import VgicmgrError


class ArgumentError(VgicmgrError):
    """An argument that QEMU itself refuses, or by which it only prints something and ends."""


@dataclass(frozen=True)
class CPUArgument:
    """A ``-cpu``: model and properties, in their order; of two values of one property QEMU takes the last."""

    model: str
    properties: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Arguments:
    """What these arguments say; names of ``-machine`` properties with hyphens.

    ``machine_type`` is empty where they leave it to libvirt. ``machine`` is merged over all ``-machine``, each property
    with its last value, and without the type, the accelerator and ``kernel-irqchip``. ``underscored`` are those of its
    names that were spelt with ``_``: QEMU refuses one in both spellings, libvirt's own arguments included.

    ``accelerators`` are all that are named. ``machine_accelerator`` is the value of ``-machine accel=``, which
    ``-enable-kvm`` sets, too: QEMU refuses it beside ``-accel``, which newer libvirt writes.

    ``smp`` and ``memory`` are merged over ``-smp``, ``-m`` and ``-machine smp.cpus=``, ``memory.size=`` and the like; a
    bare number of ``-m`` has its unit here. ``unread`` are options that may change the guest in ways not known here.
    """

    machine_type: str = ""
    machine: tuple[tuple[str, str], ...] = ()
    cpu: CPUArgument | None = None
    globals: tuple[tuple[str, str, str], ...] = ()
    accelerators: tuple[str, ...] = ()
    kernel_irqchip: str = ""
    devices: tuple[tuple[tuple[str, str], ...], ...] = ()
    smp: tuple[tuple[str, str], ...] = ()
    memory: tuple[tuple[str, str], ...] = ()
    machine_accelerator: str = ""
    underscored: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


def read_arguments(arguments: Sequence[str]) -> Arguments:
    """Read arguments as QEMU does, after the program's name; raises :class:`ArgumentError` for what QEMU refuses."""
    reader = _Reader()
    for option, value in _options(arguments):
        reader.take(option, value)
    return reader.arguments()


def boolean(name: str, value: str) -> bool:
    """A switch's value (qapi_bool_parse); raises :class:`ArgumentError`."""
    if value in ("on", "yes", "true", "y"):
        return True
    if value in ("off", "no", "false", "n"):
        return False
    raise ArgumentError(f"QEMU expects 'on' or 'off' for {printable(name)}")


def size(name: str, value: str) -> int:
    """A size in bytes (qemu_strtosz); raises :class:`ArgumentError`."""
    text = value.lstrip(" \t\n\v\f\r")
    if text[:2] in ("0x", "0X"):
        digits, unit, fraction = text[2:], "", ""
        whole = int(digits, 16) if 0 < len(digits) <= _MOST_DIGITS and _only(digits, _HEX) else None
    else:
        text, unit = (text[:-1], text[-1].lower()) if text[-1:].lower() in _UNITS else (text, "")
        digits, _, fraction = text.removeprefix("+").partition(".")
        whole = int(digits) if 0 < len(digits) <= _MOST_DIGITS and _only(digits, _DECIMAL) else None
    scale = _UNITS[unit or "b"]
    short = fraction[:_MOST_DIGITS]
    if whole is None or not _only(fraction, _DECIMAL) or (scale == 1 and fraction.strip("0")):
        raise ArgumentError(f"QEMU expects a size for {printable(name)}")
    number = whole * scale + (int(short) * scale // 10 ** len(short) if short else 0)
    if number >= 1 << 64:
        raise ArgumentError(f"QEMU expects a size below 2^64 for {printable(name)}")
    return number


def number(name: str, value: str) -> int:
    """A whole number, decimal, octal or hexadecimal as in C (qemu_strtou64); raises :class:`ArgumentError`."""
    text = value.lstrip(" \t\n\v\f\r").removeprefix("+")
    digits, base = (text[2:], 16) if text[:2] in ("0x", "0X") else (text, 8 if text.startswith("0") else 10)
    allowed = {8: "01234567", 10: _DECIMAL, 16: _HEX}[base]
    if not (0 < len(digits) <= _MOST_DIGITS and _only(digits, allowed)) or int(digits, base) >= 1 << 64:
        raise ArgumentError(f"QEMU expects a number for {printable(name)}")
    return int(digits, base)


def machine_argument(machine: str, options: Iterable[tuple[str, str]]) -> str:
    """The value of ``-machine`` for a machine type and its options."""
    return ",".join((machine, *(f"{name}={value}" for name, value in options)))


def cpu_argument(model: str, properties: Iterable[tuple[str, str | bool]]) -> str:
    """The value of ``-cpu``."""
    parts = ((name, value if isinstance(value, str) else "on" if value else "off") for name, value in properties)
    return ",".join((model, *(f"{name}={value}" for name, value in parts)))


def printable(text: str) -> str:
    """What a message quotes of an argument: its beginning, without control characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:40])


_DECIMAL, _HEX = "0123456789", "0123456789abcdefABCDEF"
_MOST_DIGITS = 22
"""Of a number below 2^64, in octal."""
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50, "e": 1 << 60}

_WITHOUT_VALUE = frozenset(
    [
        "S",
        "s",
        "h",
        "help",
        "version",
        "snapshot",
        "enable-kvm",
        "no-acpi",
        "no-hpet",
        "no-fd-bootchk",
        "no-reboot",
        "no-shutdown",
        "no-quit",
        "no-user-config",
        "nodefaults",
        "nographic",
        "usb",
        "full-screen",
        "portrait",
        "preconfig",
        "daemonize",
        "semihosting",
        "singlestep",
        "one-insn-per-tb",
        "old-param",
        "only-migratable",
        "mem-prealloc",
        "enable-sync-profile",
        "async-teardown",
        "audio-help",
        "xen-attach",
        "xen-domid-restrict",
        "win2k-hack",
        "enable-fips",
    ]
)
"""The options that take no value (qemu-options.hx); every other one takes the argument behind it."""
_ENDING = ("h", "help", "version")


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each option and its value; one hyphen or two (lookup_opt). What has no hyphen is a disk image."""
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            continue
        option = argument.removeprefix("-").removeprefix("-")
        if option in _WITHOUT_VALUE:
            yield option, ""
            continue
        value = next(rest, None)
        if value is None:
            raise ArgumentError(f"QEMU expects a value after {printable(argument)}")
        yield option, value


class _Reader:
    """Gathers what options say, in their order."""

    def __init__(self) -> None:
        self.machine: dict[str, str] = {}
        self.cpu: str | None = None
        self.globals: list[tuple[str, str, str]] = []
        self.accel_options: list[dict[str, str]] = []
        self.devices: list[tuple[tuple[str, str], ...]] = []
        self.smp: dict[str, str] = {}
        self.memory: dict[str, str] = {}
        self.unread: list[str] = []

    def take(self, option: str, value: str) -> None:
        if option in ("machine", "M"):
            self._machine(value)
        elif option == "cpu":
            self.cpu = value  # QEMU parses the last one only
        elif option == "global":
            self.globals.append(_global(value))
        elif option == "accel":
            self.accel_options.append(_opts(option, value, "accel"))
        elif option == "enable-kvm":
            self.machine["accel"] = "kvm"
        elif option == "no-acpi":
            self.machine["acpi"] = "off"
        elif option == "device":
            self.devices.append(_device(value))
        elif option == "smp":
            self.smp |= _opts(option, value, "cpus")
        elif option == "m":
            self._memory(value)
        elif option in _ENDING:
            raise ArgumentError(f"with -{option} QEMU prints something and ends")
        elif option in ("readconfig", "set"):
            self.unread.append(option)

    def _machine(self, value: str) -> None:
        for name, setting in _keyval(value, "type"):
            group, dot, member = name.partition(".")
            if dot and group == "smp":
                self.smp[member] = setting
            elif dot and group == "memory":
                self.memory[member] = setting
            else:
                self.machine[name] = setting

    def _memory(self, value: str) -> None:
        self.memory |= (options := _opts("m", value, "size"))
        bare = options.get("size", "")
        if bare[-1:] in tuple(_DECIMAL) and "." not in bare:
            self.memory["size"] = f"{size('size', bare)}M"

    def arguments(self) -> Arguments:
        machine: dict[str, str] = {}
        underscored = tuple(name.replace("_", "-") for name in self.machine if "_" in name)
        for name, value in self.machine.items():
            hyphened = name.replace("_", "-")
            if hyphened in machine:
                raise ArgumentError(f"QEMU takes '{printable(hyphened)}' in one spelling, but -machine has both")
            machine[hyphened] = value
        machine_type, accelerator = machine.pop("type", ""), machine.pop("accel", None)
        if accelerator is not None and self.accel_options:
            raise ArgumentError("QEMU refuses -accel beside '-machine accel=' or -enable-kvm")
        irqchip = machine.pop("kernel-irqchip", "")
        named = accelerator.split(":") if accelerator else []
        for options in self.accel_options:
            named.append(options.get("accel", ""))
            if named[-1] == "kvm" and not irqchip:
                irqchip = options.get("kernel-irqchip", "")
        return Arguments(
            machine_type=machine_type,
            machine=tuple(machine.items()),
            cpu=None if self.cpu is None else _cpu(self.cpu),
            globals=tuple(self.globals),
            accelerators=tuple(named),
            kernel_irqchip=irqchip,
            devices=tuple(self.devices),
            smp=tuple(self.smp.items()),
            memory=tuple(self.memory.items()),
            machine_accelerator=accelerator or "",
            underscored=underscored,
            unread=tuple(self.unread),
        )


def _keyval(option: str, implied: str) -> Iterator[tuple[str, str]]:
    """``KEY=VALUE,…`` where two commas in a value stand for one, and the first may be a bare value (util/keyval.c)."""
    at = 0
    while at < len(option):
        stop = _first_of(option, "=,", at)
        name = option[at:stop]
        if name and option[stop : stop + 1] != "=":
            if name in ("help", "?"):
                raise ArgumentError("with -machine help QEMU prints something and ends")
            if at:
                raise ArgumentError(f"QEMU expects a value after '{printable(name)}' in -machine")
            yield implied, name
            at = stop + 1
            continue
        if not _is_name(name):
            raise ArgumentError(f"QEMU takes '{printable(name)}' for no property in -machine")
        value, at = _value(option, stop + 1)
        yield name, value


def _opts(option: str, value: str, implied: str) -> dict[str, str]:
    """The older form of ``KEY=VALUE,…``, in which ``f`` and ``nof`` are switches, too (util/qemu-option.c)."""
    options: dict[str, str] = {}
    at = 0
    while at < len(value):
        stop = _first_of(value, "=,", at)
        name = value[at:stop]
        if value[stop : stop + 1] == "=":
            setting, at = _value(value, stop + 1)
        elif at == 0 and implied:
            name = implied
            setting, at = _value(value, 0)
        else:
            at = stop + 1
            if name in ("help", "?"):
                raise ArgumentError(f"with -{option} help QEMU prints something and ends")
            name, setting = (name[2:], "off") if name.startswith("no") else (name, "on")
        options[name] = setting
    if options.get(implied) in ("help", "?"):
        raise ArgumentError(f"with -{option} help QEMU prints something and ends")
    return options


def _value(option: str, at: int) -> tuple[str, int]:
    """The value that begins there, and where the next parameter does; two commas stand for one."""
    end = at
    while end < len(option):
        comma = option.find(",", end)
        if comma < 0:
            end = len(option)
        elif option[comma + 1 : comma + 2] == ",":
            end = comma + 2
        else:
            return option[at:comma].replace(",,", ","), comma + 1
    return option[at:].replace(",,", ","), len(option)


def _first_of(text: str, characters: str, at: int) -> int:
    return min((place for c in characters if (place := text.find(c, at)) >= 0), default=len(text))


def _is_name(name: str) -> bool:
    """Whether each part between dots is a name or, but the first, an index (parse_qapi_name, key_to_index)."""
    first, *others = name.split(".")
    return _is_part(first) and all(_is_part(part) or (part and _only(part, _DECIMAL)) for part in others)


def _is_part(part: str) -> bool:
    return part[:1].isalpha() and part.isascii() and part.replace("-", "").replace("_", "").isalnum()


def _cpu(option: str) -> CPUArgument:
    """``MODEL,KEY=VALUE,…``: split at every comma (strtok), so that a doubled comma is nothing, and no ``+f``."""
    model, *parts = option.split(",")
    if option in ("", "help", "?"):
        raise ArgumentError("QEMU expects a model after -cpu")
    properties = []
    for part in filter(None, parts):
        name, equals, value = part.partition("=")
        if not equals:
            raise ArgumentError(f"QEMU expects NAME=VALUE in -cpu, not '{printable(part)}'")
        properties.append((name, value))
    return CPUArgument(model, tuple(properties))


def _global(option: str) -> tuple[str, str, str]:
    """``DRIVER.PROPERTY=VALUE``, or the three by their names (qemu_global_option)."""
    driver, dot, rest = option.partition(".")
    name, equals, value = rest.partition("=")
    if dot and equals and 0 < len(driver) < 64 and "=" not in driver and 0 < len(name) < 64:
        return driver, name, value
    options = _opts("global", option, "")
    if options.keys() != {"driver", "property", "value"}:
        raise ArgumentError("QEMU expects DRIVER.PROPERTY=VALUE after -global")
    return options["driver"], options["property"], options["value"]


def _device(value: str) -> tuple[tuple[str, str], ...]:
    options = _json_device(value) if value.startswith("{") else _opts("device", value, "driver")
    driver = options.pop("driver", "")
    if not driver:
        raise ArgumentError("QEMU expects a driver after -device")
    return ("driver", driver), *options.items()


def _json_device(value: str) -> dict[str, str]:
    """QEMU's JSON, which has strings in single quotes, too."""
    import json

    text = value if '"' in value else value.replace("'", '"')
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ArgumentError("QEMU expects JSON after -device {") from None
    words = {True: "on", False: "off"}
    return {
        name: part if isinstance(part, str) else words[part] if isinstance(part, bool) else json.dumps(part)
        for name, part in document.items()
    }


def _only(text: str, allowed: str) -> bool:
    return all(character in allowed for character in text)
