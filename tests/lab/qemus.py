"""QEMUs of Debian's releases that run on this machine, whatever is installed on it."""

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.lab.cache import entry
from tests.lab.debian import Archive, native_architecture, unpack
from tests.lab.root import lay_out
from tests.lab.spec import Release
from vgicmgr.qemu.machine import Version


@dataclass(frozen=True)
class Qemu:
    """A QEMU of this machine's architecture, run by the loader and the libraries of its own release."""

    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, **dict(self.environment)}
        return subprocess.run(
            [*self.command, *arguments], capture_output=True, text=True, timeout=120, check=False, env=environment
        )

    @property
    def version(self) -> Version:
        found = re.search(r"version (\d+)\.(\d+)", self.run("--version").stdout)
        assert found
        return int(found[1]), int(found[2])

    def machines(self) -> list[Version]:
        listed = re.findall(r"^virt-(\d+)\.(\d+) ", self.run("-machine", "help").stdout, re.MULTILINE)
        return sorted((int(major), int(minor)) for major, minor in listed)


@cache
def qemu(release: Release) -> Qemu:
    def build(folder: Path) -> None:
        debs = Archive(release, native_architecture()).with_dependencies(["qemu-system-arm"])
        lay_out(folder)
        unpack(debs, folder)

    root = entry(f"qemu-{release}", (release, native_architecture()), build)
    libraries = next(root.glob("usr/lib/*-linux-gnu"))
    loader = next(libraries.glob("ld-linux-*.so.*"))
    return Qemu(
        (
            *(str(loader), "--library-path", str(libraries)),
            *(str(root / "usr/bin/qemu-system-aarch64"), "-L", str(root / "usr/share/qemu")),
        ),
        (("QEMU_MODULE_DIR", str(libraries / "qemu")),),
    )
