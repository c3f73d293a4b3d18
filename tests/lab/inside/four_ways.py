"""In a host: what is found about the start of domains by each way there is, as JSON by the domain's name.

``python3 -m tests.lab.inside.four_ways DOCUMENT FILE...`` asks the hook's judge, ``translate``, ``rehearse`` and, by
the host's own document, ``translate --host``.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vgicmgr.domain.xml import read_domain
from vgicmgr.guest.start import judge_start

VGICMGR = (sys.executable, "-m", "vgicmgr.cli")


def found(findings: Sequence[dict[str, str]]) -> list[str]:
    """Names and severities, in an order of their own."""
    return sorted(f"{one['name']} {one['severity']}" for one in findings)


def by_command(*arguments: str) -> list[str]:
    """What a command that prints a JSON document finds."""
    run = subprocess.run([*VGICMGR, *arguments, "--format", "json"], capture_output=True, check=False)
    return found(json.loads(run.stdout)["findings"])


def main(document: str, *files: str) -> None:
    json.dump(
        {
            Path(file).stem: {
                "hook": found(
                    [one.as_document() for one in judge_start(read_domain(Path(file).read_bytes())).findings]
                ),
                "translate": by_command("translate", file),
                "rehearse": by_command("rehearse", file),
                "document": by_command("translate", file, "--host", document),
            }
            for file in files
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
