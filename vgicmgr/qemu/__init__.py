"""What QEMU does: the ``virt`` machine's memory map, and how it reads CPU properties."""
