"""What QEMU does: the ``virt`` machine's memory map, and how it reads CPU properties."""

EMULATORS = ("/usr/bin/qemu-system-aarch64", "/usr/bin/qemu-kvm", "/usr/libexec/qemu-kvm")
"""Where distributions put it."""
