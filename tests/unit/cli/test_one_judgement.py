"""The hook, ``record verify``, ``check-migration`` and the library answer one question, and in one way."""

import json
import os
import re
import syslog
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hosts import GICV2_HOST, NEOVERSE_N1, HostKind
from tests.fakes.kernel import FakeKernel, installed, pretend_arm64
from tests.unit.migration.examples import boot, document_of, domain, emulator, with_record
from vgicmgr import check_arrival, hook, read_document, read_domain
from vgicmgr.cli import main
from vgicmgr.dataclass import replace
from vgicmgr.domain import connection
from vgicmgr.host.documented import Program
from vgicmgr.qemu.rules import Rules

SMALL = replace(NEOVERSE_N1, pmu=False, el1_32bit=False)
"""With one set of vCPU features only, whose document is soon made."""
DISABLED_PMU = "<cpu mode='host-passthrough'><feature policy='disable' name='pmu'/></cpu>"

Settings = dict[str, Any]
CASES: dict[str, tuple[HostKind, tuple[str, ...], Settings, HostKind, list[str]]] = {
    "nothing in the way": (SMALL, (), {}, SMALL, []),
    "another CPU": (SMALL, (), {}, SMALL.with_registers(MIDR_EL1=0x411FD070), ["register-value"]),
    "a field": (SMALL, (), {}, SMALL.with_registers(ID_AA64MMFR1_EL1=0x20212122), ["register-value"]),
    "a register less": (SMALL, (), {}, SMALL.with_registers(ACTLR_EL1=None), ["register-list"]),
    "a register that vanishes": (
        SMALL, (), {}, SMALL.with_registers(ID_AA64MMFR3_EL1=0x10), ["register-value"],
    ),
    "no such GIC": (GICV2_HOST, (), {"gic": "2"}, SMALL, ["gic-version-unsupported"]),
    "no ITS": (SMALL, (), {}, replace(SMALL, its=False), ["its-unsupported"]),
    "too many vCPUs": (NEOVERSE_N1, (), {"vcpus": 16}, GICV2_HOST, ["vcpu-count"]),
    "a property that QEMU does not have": (NEOVERSE_N1, (), {"cpu": DISABLED_PMU}, SMALL, ["pmu-unsupported"]),
    "the CPU interface": (SMALL, (), {}, replace(SMALL, icc_ctlr_el1=0x4400), ["icc-ctlr"]),
    "the ITS's tables": (replace(SMALL, gits_revisions=frozenset((5,))), (), {}, SMALL, ["its-abi-revision"]),
    "what the guest will see": (
        SMALL, (), {}, replace(SMALL, gicd_revision=2, gits_typer=0x1EF51), ["gicd-iidr", "gits-typer"],
    ),
    "stolen time": (SMALL, (), {}, replace(SMALL, steal_time=False), ["steal-time"]),
    "the memory map": (SMALL, (), {}, replace(SMALL, ipa_limit=36), ["memory-map"]),
    "the machine's own map": (SMALL, ("-machine", "highmem=off"), {}, replace(SMALL, ipa_limit=36), []),
}  # fmt: skip


class Running:
    """A running domain, and libvirt's connection to it."""

    def __init__(self, xml: bytes) -> None:
        self.xml = xml

    def running_xml(self, name: str) -> bytes:
        assert name == "web1"
        return self.xml


@pytest.mark.parametrize("case", CASES)
def test_one_question(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, arguments, settings, destination, expected = CASES[case]
    qemu = emulator(tmp_path, Rules.CLASSIC)
    record = boot(source, domain(*arguments, **settings))
    xml = with_record(record, emulator=qemu, **settings)
    if arguments:
        passed = "".join(f"<qemu:arg value='{argument}'/>" for argument in arguments)
        xml = xml.replace(b"<qemu:commandline>", f"<qemu:commandline>{passed}".encode())
    document = json.dumps(document_of(destination, {qemu: Program((10, 0), Rules.CLASSIC, psci_property=False)}))
    (tmp_path / "host.json").write_text(document)

    @contextmanager
    def connect(uri: str, *, read_only: bool = True) -> Iterator[Running]:
        yield Running(xml)

    monkeypatch.setattr(connection, "connect", connect)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    logged: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda priority, line: logged.append(line))
    pretend_arm64(monkeypatch)
    with installed(monkeypatch, FakeKernel(destination)):
        assert main(["record", "verify", "web1"]) == (1 if any(map(_is_error, expected)) else 0)
        verified = re.findall(r"\[([a-z-]+)\]", capsys.readouterr().out)
        (tmp_path / "guest.xml").write_bytes(xml)
        with (tmp_path / "guest.xml").open("rb") as stdin:
            hook.main(["web1", "migrate", "begin", "-"], stdin.fileno(), policy_file="/nonexistent")
    asked = [name for names in re.findall(r" (?:refused|warned)=([a-z,-]+)", logged[0]) for name in names.split(",")]
    status = main(["check-migration", "web1", "--to", str(tmp_path / "host.json")])
    told = re.findall(r"\[([a-z-]+)\]", capsys.readouterr().out)
    assert status == (1 if any(map(_is_error, expected)) else 0)
    library = check_arrival(read_domain(xml), read_document(document.encode())).findings
    assert verified == told == [one.name for one in library] == expected
    assert sorted(asked) == sorted(expected)


def _is_error(name: str) -> bool:
    return name not in ("gicd-iidr", "gits-typer")
