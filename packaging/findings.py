#!/usr/bin/env python3
"""Write the catalogue of findings into what lists them: the policy file, the manual page and docs/FINDINGS.md.

Run it after a change of vgicmgr/findings.py: python3 packaging/findings.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from vgicmgr.findings import CATALOGUE, Entry, Severity, Stage  # noqa: E402

_ARRIVAL = "Of guests that are about to arrive (migrate, restore), besides those of a start"
_POLICY_GROUPS = {Stage.START: "Of a guest's start", Stage.ARRIVAL: _ARRIVAL}
_GROUPS = {
    Stage.HOST: "Of check\\-host",
    Stage.DEVICES: "Of lsvfio",
    Stage.TRANSLATE: "Of translate alone, of wishes and address maps",
    **_POLICY_GROUPS,
    Stage.DEPARTURE: "Of check\\-migration alone, of the host that a guest is to leave",
}


def policy_file(former: str) -> str:
    """``packaging/vgicmgr.conf``: each finding that a policy can decide about, with what is done by default."""
    words = {Severity.ERROR: "enforce", Severity.WARNING: "warn", Severity.NOTE: "off"}
    lines = []
    for stage, title in _POLICY_GROUPS.items():
        lines += ["#", f"# {title}:"]
        lines += [f"#{entry.name} = {words[entry.severity]}" for entry in _group(stage)]
    kept = former.partition("#\n# Of a guest's start:\n")[0]
    return kept + "".join(f"{line}\n" for line in lines)


def manual_page(former: str) -> str:
    """``packaging/vgicmgr.1``: the section FINDINGS."""
    before, heading, rest = former.partition(".SH FINDINGS\n")
    after = ".SH " + f"\n{rest}".partition("\n.SH ")[2]
    lines = ["What a message's name in brackets means;", ".B vgicmgr explain", "shows the same."]
    for stage, title in _GROUPS.items():
        lines.append(f".SS {title}")
        for entry in _group(stage):
            meaning = entry.meaning.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
            lines += [".TP", f".B {entry.name.replace('-', chr(92) + '-')} \\fR({entry.severity.value})", meaning]
    return before + heading + "".join(f"{line}\n" for line in lines) + after


def table(_: str) -> str:
    """``docs/FINDINGS.md``, whole."""
    return "\n".join(_table())


def _table() -> Iterator[str]:
    yield "# Findings"
    yield ""
    yield "Made from `vgicmgr/findings.py` by `packaging/findings.py`; `vgicmgr explain` shows the same."
    yield ""
    yield "An error means that it will not work, a warning that it works and somebody should know; a finding may weigh"
    yield "otherwise where circumstances do. The policy decides about those of start and arrival."
    yield ""
    yield "| name | severity | reported at | meaning |"
    yield "|---|---|---|---|"
    for entry in CATALOGUE.values():
        stages = ", ".join(stage.value for stage in entry.stages)
        meaning = entry.meaning.replace("<", "&lt;").replace("|", "\\|")
        yield f"| `{entry.name}` | {entry.severity.value} | {stages} | {meaning} |"
    yield ""


def _group(stage: Stage) -> list[Entry]:
    """The findings listed under this stage: each once, a start's and an arrival's under these."""
    return [entry for entry in CATALOGUE.values() if _place(entry) is stage]


def _place(entry: Entry) -> Stage:
    for stage in (Stage.START, Stage.ARRIVAL):
        if stage in entry.stages:
            return stage
    return entry.stages[0]


FILES = {"packaging/vgicmgr.conf": policy_file, "packaging/vgicmgr.1": manual_page, "docs/FINDINGS.md": table}
"""What makes each file of what it was before."""


def main() -> None:
    """Write all of them."""
    for name, made_of in FILES.items():
        path = ROOT / name
        path.write_text(made_of(path.read_text() if path.exists() else ""))


if __name__ == "__main__":
    main()
