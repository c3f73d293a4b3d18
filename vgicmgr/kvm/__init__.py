"""KVM's user-space interface on arm64: System, VM, vCPU and Device over file descriptors, and nothing else.

Sources: the kernel's ``Documentation/virt/kvm/api.rst`` and ``Documentation/virt/kvm/devices/``.
"""
