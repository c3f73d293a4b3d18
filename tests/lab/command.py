"""Programs of this machine that the lab uses."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.lab.errors import BuildError, Prerequisite

PACKAGES = {
    "apt-get": "apt",
    "apt-cache": "apt",
    "dpkg-deb": "dpkg",
    "tar": "tar",
    "mke2fs": "e2fsprogs",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "qemu-system-aarch64": "qemu-system-arm",
}
"""The Debian package each is in."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def missing() -> list[str]:
    """The Debian packages to install before the lab can work here; empty where it can."""
    packages = {package for program, package in PACKAGES.items() if not find(program)}
    if not KEYRING.exists():
        packages.add("debian-archive-keyring")
    return sorted(packages)


def find(program: str) -> str | None:
    """The program's path; /sbin is looked into too, where mke2fs is and a user's PATH may not go."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def require() -> None:
    """Raise :class:`Prerequisite` unless everything is there."""
    if packages := missing():
        raise Prerequisite(f"the lab needs: apt-get install {' '.join(packages)}")


def call(
    *argv: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: bytes | None = None
) -> str:
    """Run a program to its end and return its standard output; raises :class:`BuildError` with its last words."""
    program = find(str(argv[0]))
    if program is None:
        raise Prerequisite(f"{argv[0]} is missing: apt-get install {PACKAGES.get(str(argv[0]), argv[0])}")
    done = subprocess.run(
        [program, *map(str, argv[1:])],
        env={**os.environ, "LC_ALL": "C", **(env or {})},
        cwd=cwd,
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-5:]
        raise BuildError(f"{' '.join(map(str, argv))[:200]} ended with {done.returncode}: {' / '.join(words)}")
    return done.stdout.decode(errors="replace")
