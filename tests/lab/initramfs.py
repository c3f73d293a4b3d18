"""What runs before a host's or a guest's user space: archives for the kernel to unpack."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.lab import cpio, modules

HERE = Path(__file__).parent
GUEST_INIT = HERE / "guest-init.sh"
IN_HOST = {
    "init": HERE / "host-init.sh",
    "lab/init": HERE / "host-main.sh",
    "lab/agent.py": HERE / "agent.py",
    "lab/frames.py": HERE / "frames.py",
}
"""What every boot brings along, by path in the host; so a change of it rebuilds nothing."""


def for_kernel(
    version: str, loaded: Iterable[modules.Module], at_hand: Iterable[modules.Module], busybox: bytes
) -> bytes:
    """The cached part of a host's initramfs: busybox and modules; ``loaded`` are loaded at boot, in this order."""
    loaded = list(loaded)
    folder = f"lib/modules/{version}"
    return cpio.archive(
        cpio.with_parents(
            [
                cpio.folder("proc"),
                cpio.folder("sys"),
                cpio.folder("dev"),
                cpio.folder("newroot"),
                cpio.character_device("dev/console", 5, 1),
                cpio.file("bin/busybox", busybox, 0o755),
                cpio.file("modules", "".join(f"{folder}/{module.name}.ko\n" for module in loaded).encode()),
                *(cpio.file(f"{folder}/{module.name}.ko", module.read()) for module in (*loaded, *at_hand)),
            ]
        )
    )


def for_boot(settings: Mapping[str, str]) -> bytes:
    """The part of a host's initramfs that is of this boot: its scripts, its agent, and shell variables."""
    text = "".join(f"{name}='{value}'\n" for name, value in settings.items())
    return cpio.archive(
        cpio.with_parents(
            [cpio.file(path, source.read_bytes(), 0o755) for path, source in IN_HOST.items()]
            + [cpio.file("lab/settings", text.encode())]
        )
    )


def for_guest(busybox: bytes, at_boot: Iterable[modules.Module]) -> bytes:
    """A nested guest's initramfs: says ``guest: up`` on its console and idles."""
    at_boot = list(at_boot)
    return cpio.archive(
        cpio.with_parents(
            [
                cpio.folder("proc"),
                cpio.folder("sys"),
                cpio.folder("dev"),
                cpio.character_device("dev/console", 5, 1),
                cpio.file("bin/busybox", busybox, 0o755),
                cpio.file("init", GUEST_INIT.read_bytes(), 0o755),
                cpio.file("modules", "".join(f"lib/modules/{module.name}.ko\n" for module in at_boot).encode()),
                *(cpio.file(f"lib/modules/{module.name}.ko", module.read()) for module in at_boot),
            ]
        )
    )
