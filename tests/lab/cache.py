"""What is built once: directories under XDG_CACHE_HOME, named by a hash of what they are made from.

The archive's state is no part of it: who wants newer packages removes the directory.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def directory() -> Path:
    """``$XDG_CACHE_HOME/vgicmgr/lab``, or under ``~/.cache``; not necessarily there yet."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vgicmgr" / "lab"


def key(*recipe: str | bytes) -> str:
    """16 hex digits that differ when any part of the recipe, or their order, differs."""
    digest = hashlib.sha256()
    for part in recipe:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()[:16]


def progress(text: str) -> None:
    """One line about a step that takes seconds, on standard error."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one process at a time is inside, by name."""
    directory().mkdir(parents=True, exist_ok=True)
    with (directory() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def entry(name: str, recipe: tuple[str | bytes, ...], build: Callable[[Path], None]) -> Path:
    """The directory made by ``build`` from ``recipe``: the one that is there, or a new one.

    ``build`` gets an empty directory, which gets its final name only when ``build`` has returned; so an interrupted
    build leaves nothing that counts, and what it leaves is removed by the next one.
    """
    final = directory() / f"{name}-{key(*recipe)}"
    if final.is_dir():
        return final
    with locked(final.name):
        if final.is_dir():
            return final
        for leftover in directory().glob(f".{final.name}.*"):
            shutil.rmtree(leftover)
        partial = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=directory()))
        try:
            partial.chmod(0o755)
            build(partial)
            partial.rename(final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return final
