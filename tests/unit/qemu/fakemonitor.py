"""A fake monitor that answers from a table, for what a real QEMU does not answer."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from vgicmgr.qemu.qmp import CommandFailed

GIC, ITS = "/machine/unattached/device[2]", "/machine/unattached/device[3]"
MTREE = """\
address-space: memory
  0000000000000000-ffffffffffffffff (prio 0, container): system
    0000000008000000-000000000800ffff (prio 0, i/o): gicv3_dist
    0000000008080000-000000000809ffff (prio 0, i/o): gicv3_its
    00000000080a0000-00000000080dffff (prio 0, i/o): gicv3_redist_region[0]
"""


class FakeMonitor:
    """QEMU 10.0 with two vCPUs, a GICv3 of KVM's and an ITS, in the shapes of the real one.

    ``changed`` replaces answers: by a command, or by path and property for ``qom-get``. ``dumped`` is what ``dumpdtb``
    writes to the file.
    """

    name = "monitor /run/g1"

    def __init__(
        self, changed: Mapping[object, Any] | None = None, dumped: Callable[[str], None] | None = None
    ) -> None:
        commands = ("query-version", "query-kvm", "human-monitor-command", "dumpdtb")
        self.dumped = dumped
        self.asked: list[str] = []
        self.answers: dict[object, Any] = {
            "query-commands": [{"name": name} for name in commands],
            "query-version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": "Debian"},
            "query-status": {"status": "running", "running": True},
            "query-kvm": {"enabled": True, "present": True},
            "query-cpus-fast": [
                {"cpu-index": index, "qom-path": f"/machine/unattached/device[{index}]", "target": "aarch64"}
                for index in range(2)
            ],
            "human-monitor-command": MTREE,
            "/machine": [
                {"name": "its", "type": "bool"},
                {"name": "gic-version", "type": "string"},
                {"name": "append", "type": "string"},
                {"name": "unattached", "type": "child<container>"},
            ],
            "/machine/unattached": [
                {"name": "device[0]", "type": "child<host-arm-cpu>"},
                {"name": "device[1]", "type": "child<host-arm-cpu>"},
                {"name": "device[2]", "type": "child<kvm-arm-gicv3>"},
                {"name": "device[3]", "type": "child<arm-its-kvm>"},
                {"name": "device[4]", "type": "child<pl011>"},
            ],
            GIC: [{"name": "redist-region-count", "type": "list"}],
            "/machine/unattached/device[0]": [
                {"name": "pmu", "type": "bool"},
                {"name": "aarch64", "type": "bool"},
                {"name": "sve128", "type": "bool"},
                {"name": "sve256", "type": "bool"},
                {"name": "midr", "type": "uint64"},
                {"name": "legacy-memory", "type": "str"},
                {"name": "pmu-interrupt[0]", "type": "link<irq>"},
            ],
            ("/machine", "type"): "virt-10.0-machine",
            ("/machine", "its"): True,
            ("/machine", "gic-version"): "3",
            ("/machine", "append"): "secret=1",
            ("/machine", "smp"): {"cpus": 2, "maxcpus": 2},
            ("/machine", "memory"): {"size": 128 << 20},
            (GIC, "num-irq"): 288,
            (GIC, "revision"): 3,
            (GIC, "redist-region-count"): [2],
            ("/machine/unattached/device[0]", "pmu"): True,
            ("/machine/unattached/device[0]", "aarch64"): True,
            ("/machine/unattached/device[0]", "sve128"): True,
            ("/machine/unattached/device[0]", "sve256"): False,
            ("/machine/unattached/device[0]", "midr"): 0x414FD0C1,
            ("/machine/unattached/device[0]", "pmu-interrupt[0]"): f"{GIC}/unnamed-gpio-in[279]",
            ("/machine/unattached/device[1]", "pmu-interrupt[0]"): f"{GIC}/unnamed-gpio-in[311]",
        } | dict(changed or {})

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """The answer of the table; where it has none, what QEMU says then."""
        await asyncio.sleep(0)
        key: object = command
        given = arguments or {}
        if command == "qom-list":
            key = given["path"]
        elif command == "qom-get":
            key = (given["path"], given["property"])
        elif command == "dumpdtb" and self.dumped:
            self.dumped(str(given["filename"]))
            return {}
        self.asked.append(command)
        if key not in self.answers:
            raise CommandFailed(self.name, command, "GenericError", f"{key} not found")
        answer = self.answers[key]
        if isinstance(answer, Exception):
            raise answer
        return answer
