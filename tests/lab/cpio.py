"""cpio archives in the "newc" format, as the kernel's initramfs wants them.

Source: the kernel's ``Documentation/driver-api/early-userspace/buffer-format.rst``.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

MAGIC = "070701"
TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """One file of an archive: its path without a leading slash, its mode with the type, its content."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    """Major and minor number, of a device node."""


def file(path: str, data: bytes, permissions: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path, stat.S_IFREG | permissions, data)


def folder(path: str, permissions: int = 0o755) -> Entry:
    """A directory."""
    return Entry(path, stat.S_IFDIR | permissions)


def link(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int) -> Entry:
    """A character device node; writing it into an archive needs no privilege."""
    return Entry(path, stat.S_IFCHR | 0o600, device=(major, minor))


def with_parents(entries: Iterable[Entry]) -> list[Entry]:
    """The entries, each after the folders it lies in, which the kernel does not make by itself."""
    made: dict[str, Entry] = {}
    for entry in entries:
        parts = entry.path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            made.setdefault(path, folder(path))
        made[entry.path] = entry
    return list(made.values())


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive with these entries in this order, all owned by root; archives may follow each other in one file."""
    everything = [*entries, Entry(TRAILER, 0)]
    return b"".join(_record(number, entry) for number, entry in enumerate(everything, 1))


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = (MAGIC + "".join(f"{field:08X}" for field in fields)).encode()
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
