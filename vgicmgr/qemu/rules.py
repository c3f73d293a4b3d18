"""The two ways in which QEMUs take the list of registers that comes with a guest (target/arm/machine.c)."""

from enum import Enum


class Rules(Enum):
    """What QEMU does about a register that only one side has."""

    CLASSIC = "classic"
    """No more registers than this side has; a register that this side lacks ends the load, and one that only this side
    has keeps the value it has after a reset. What follows this side's last register is not looked at."""
    TOLERANT = "tolerant"
    """Both lists are walked to their ends; what only the stream has ends the load unless it is known to be harmless.
    The last such register alone decides, as the code stands in QEMU 11."""
