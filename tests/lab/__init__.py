"""Emulated arm64 hosts with real kernels, real KVM and a real libvirtd, for the tests.

A host is described by data (:mod:`~tests.lab.spec`), built from Debian packages alone (``debian``, ``kernel``,
``root``, ``initramfs``, ``image``, kept by ``cache``), started by the machine's QEMU under TCG (``machine``, ``host``)
and spoken to through an agent inside it (``agent``, ``frames``). ``pair`` joins two of them for migrations.
By hand: ``python -m tests.lab --help``.
"""
