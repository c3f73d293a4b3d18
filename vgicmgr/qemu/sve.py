"""Which SVE vector lengths QEMU gives a KVM guest for the properties ``sve`` and ``sve<N>`` (target/arm/cpu64.c)."""

from collections.abc import Mapping

ARM_MAX_VQ = 16
"""Quadwords of the longest vector QEMU knows: 2048 bits."""


def unmet_vector_length(wishes: Mapping[int, bool], supported: frozenset[int]) -> str:
    """Why QEMU refuses these ``sve<N>`` properties under KVM; empty when it does not (arm_cpu_sve_finalize).

    ``wishes`` maps lengths in bits to on or off, ``supported`` are the lengths in bits that the kernel offers; SVE
    itself is on. The sentence names the length in the way.
    """
    enabled = {bits for bits, on in wishes.items() if on}
    disabled = {bits for bits, on in wishes.items() if not on}
    if enabled:
        longest = max(enabled)
        chosen = enabled | {bits for bits in supported - disabled if bits <= longest}
    else:
        # a supported length that is off takes all longer ones with it
        ceiling = min(disabled & supported, default=128 * ARM_MAX_VQ + 1)
        chosen = {bits for bits in supported if bits < ceiling}
        if not chosen:
            return f"without the vector length of {ceiling} bits none is left"
        longest = max(chosen)
    if too_many := chosen - supported:
        return f"the kernel has no vectors of {max(too_many)} bits"
    if left_out := {bits for bits in supported if bits < longest} - chosen:
        return f"the kernel gives no vectors of {longest} bits without those of {max(left_out)} bits"
    return ""
