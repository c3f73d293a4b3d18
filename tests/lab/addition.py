"""Debian packages beyond those of a host's root, for the few tests that want them."""

import shutil
from pathlib import Path

from tests.lab import command
from tests.lab.cache import entry
from tests.lab.debian import Archive, unpack
from tests.lab.host import Host
from tests.lab.root import lay_out, root
from tests.lab.spec import Release


def add(host: Host, package: str) -> None:
    """Unpack a package, and what it needs that is not there, in a running host; no script of theirs is run."""
    host.push("/run/addition.tar", _addition(host.spec.userland, package).read_bytes())
    unpacking = "tar -xf /run/addition.tar -C / --keep-directory-symlink && rm /run/addition.tar"
    host.run(["sh", "-c", unpacking], check=True, timeout=120)


def _addition(release: Release, package: str) -> Path:
    def build(folder: Path) -> None:
        there = set((root(release).parent / "packages").read_text().split())
        debs = Archive(release).with_dependencies([package])
        tree = folder / "tree"
        lay_out(tree)
        unpack([deb for deb in debs if deb.stem not in there], tree)
        command.call("tar", "-cf", folder / "addition.tar", "-C", tree, "usr")
        shutil.rmtree(tree)

    recipe = (release, root(release).parent.name, Path(__file__).read_bytes())
    return entry(f"{package}-{release}", recipe, build) / "addition.tar"
