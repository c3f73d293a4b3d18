"""The registers that QEMU carries over in a migration: which ones, and how it takes the list that comes with a guest.

Sources: QEMU's ``target/arm/machine.c`` (cpu_post_load) and ``target/arm/kvm.c`` (kvm_arm_reg_syncs_via_cpreg_list,
kvm_arm_set_cpreg_mig_tolerances).
"""

from collections.abc import Iterable, Sequence

from vgicmgr.dataclass import dataclass
from vgicmgr.kvm import uapi
from vgicmgr.kvm.registers import sysreg
from vgicmgr.qemu.rules import Rules


def migrates_in_list(register_id: int) -> bool:
    """Whether QEMU carries this register in its list; core and SVE registers have places of their own in the stream."""
    return register_id & uapi.KVM_REG_ARM_COPROC_MASK not in (uapi.KVM_REG_ARM_CORE, uapi.KVM_REG_ARM64_SVE)


@dataclass(frozen=True)
class Comparison:
    """What comes of two lists: ids only in the stream that end the load (``fatal``) or are left out (``dropped``).

    ``missing`` are only here. ``overflow``: the stream's list is too long by itself. ``forgotten``: QEMU calls these
    fatal, and goes on because a later one is harmless: a slip of its code.
    """

    fatal: tuple[int, ...]
    dropped: tuple[int, ...]
    missing: tuple[int, ...]
    overflow: bool = False
    forgotten: tuple[int, ...] = ()

    @property
    def loads(self) -> bool:
        """Whether the load gets past the lists."""
        return not self.fatal and not self.overflow

    @property
    def fragile(self) -> bool:
        """Whether it gets past them by a slip alone, which a later QEMU may mend."""
        return self.loads and bool(self.forgotten)


_NOT_ON_BOTH_ENDS = frozenset(
    (sysreg(3, 0, 2, 0, 3), sysreg(3, 0, 10, 2, 2), sysreg(3, 0, 10, 2, 3))
)  # TCR2_EL1, PIRE0_EL1, PIR_EL1, which Linux before 6.13 listed by mistake
_IF_ZERO = frozenset((uapi.KVM_REG_ARM_VENDOR_HYP_BMAP_2,))


def compare_lists(
    rules: Rules, incoming: Sequence[tuple[int, int]], here: Iterable[int], *, host_cpu: bool = True
) -> Comparison:
    """Compare the ids and values of a stream with the ids here, as this QEMU does.

    ``host_cpu``: the guest has the host's own CPU (``-cpu host``), for which alone registers are known as harmless.
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
        return host_cpu and (number in _NOT_ON_BOTH_ENDS or (number in _IF_ZERO and values[number] == 0))

    intolerable = tuple(number for number in only_incoming if not harmless(number))
    if not only_incoming or harmless(only_incoming[-1]):
        return Comparison((), tuple(only_incoming), missing, forgotten=intolerable)
    return Comparison(intolerable, tuple(filter(harmless, only_incoming)), missing)
