"""The library qemu.qmp inside a host: Debian has no package of it, but it is Python alone."""

import importlib.util
import io
import tarfile
from pathlib import Path

from tests.lab.errors import Prerequisite
from tests.lab.host import IN_HOST, Host


def push_library(host: Host) -> None:
    """Put this interpreter's own qemu.qmp beside the checkout in the host; raises Prerequisite without it."""
    found = importlib.util.find_spec("qemu.qmp") if importlib.util.find_spec("qemu") else None
    if found is None or found.origin is None:
        raise Prerequisite("the Python package qemu.qmp is not installed")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for file in sorted(Path(found.origin).parent.glob("*.py")):
            tar.add(file, arcname=f"qemu/qmp/{file.name}")
    host.push("/run/qmp.tar", stream.getvalue())
    host.run(["tar", "-xf", "/run/qmp.tar", "-C", IN_HOST], check=True)
