"""How a QEMU takes the list of registers that comes with a guest, and which of two ways an installed QEMU has.

Sources: QEMU's ``target/arm/machine.c`` (cpu_post_load) and ``target/arm/kvm.c`` (kvm_arm_set_cpreg_mig_tolerances).
Distributions have taken the newer way into older versions, so that the program file is asked, not its version.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import Enum

from vgicmgr.dataclass import dataclass
from vgicmgr.errors import CannotTell
from vgicmgr.kvm import uapi
from vgicmgr.kvm.registers import sysreg
from vgicmgr.qemu import EMULATORS
from vgicmgr.qemu.program import has_constant, has_machine_type


class Rules(Enum):
    """What QEMU does about a register that only one side has."""

    CLASSIC = "classic"
    """No more registers than this side has; one that this side has not ends the load, and one that only this side has
    keeps the value it has after a reset. What follows this side's last register is not looked at."""
    TOLERANT = "tolerant"
    """Both lists are walked to their ends; what only the stream has ends the load unless it is known to be harmless.
    The last such register alone decides, as the code stands in QEMU 11."""


@dataclass(frozen=True)
class Comparison:
    """What comes of two lists: ids only in the stream that end the load (``fatal``) or are left out (``dropped``).

    ``missing`` are only here. ``overflow``: the stream's list is too long by itself.
    """

    fatal: tuple[int, ...]
    dropped: tuple[int, ...]
    missing: tuple[int, ...]
    overflow: bool = False

    @property
    def loads(self) -> bool:
        """Whether the load gets past the lists."""
        return not self.fatal and not self.overflow


_NOT_ON_BOTH_ENDS = frozenset(
    (sysreg(3, 0, 2, 0, 3), sysreg(3, 0, 10, 2, 2), sysreg(3, 0, 10, 2, 3))
)  # TCR2_EL1, PIRE0_EL1, PIR_EL1, which Linux before 6.13 listed by mistake
_IF_ZERO = frozenset((uapi.KVM_REG_ARM_VENDOR_HYP_BMAP_2,))


def compare_lists(
    rules: Rules, incoming: Sequence[tuple[int, int]], here: Iterable[int], *, own_cpu: bool = True
) -> Comparison:
    """Compare the ids and values of a stream with the ids here, as this QEMU does.

    ``own_cpu``: the guest has the host's own CPU (``-cpu host``), for which alone registers are known as harmless.
    """
    ids = frozenset(here)
    stream = [number for number, _ in incoming]
    only_incoming = sorted(set(stream) - ids)
    missing = tuple(sorted(ids - set(stream)))
    if rules is Rules.CLASSIC:
        if len(stream) > len(ids):
            return Comparison(tuple(only_incoming), (), missing, overflow=True)
        last = max(ids, default=0)
        fatal = tuple(number for number in only_incoming if number < last)
        return Comparison(fatal, tuple(number for number in only_incoming if number > last), missing)
    values = dict(incoming)

    def harmless(number: int) -> bool:
        return own_cpu and (number in _NOT_ON_BOTH_ENDS or (number in _IF_ZERO and values[number] == 0))

    if not only_incoming or harmless(only_incoming[-1]):
        return Comparison((), tuple(only_incoming), missing)
    fatal = tuple(number for number in only_incoming if not harmless(number))
    return Comparison(fatal, tuple(number for number in only_incoming if harmless(number)), missing)


_MESSAGE = b"in the incoming stream but unknown on the destination"
"""Of handle_cpreg_only_in_incoming_stream, which came with the tolerances."""


def rules_of(emulator: str) -> Rules:
    """The rules of an installed QEMU, by a message that only the newer code has; errors as :func:`has_constant`."""
    return Rules.TOLERANT if has_constant(emulator, _MESSAGE) else Rules.CLASSIC


def installed() -> dict[str, Rules]:
    """The rules of the QEMUs that are where distributions put them, by path."""
    found = {}
    for path in EMULATORS:
        with suppress(CannotTell):
            found[path] = rules_of(path)
    return found


def refusing_pmu_off() -> tuple[str, ...]:
    """Those of them that end when they are told ``pmu=off`` where KVM has no PMU, as QEMU does since 10.0."""
    return tuple(path for path in installed() if has_machine_type(path, "10.0"))
