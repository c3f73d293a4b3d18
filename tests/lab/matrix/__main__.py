"""Move guests between emulated hosts, and hold what happens against what the gate said.

Exits 0 when the gate was right each time.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from tests.lab.matrix.cases import FULL, SMALL, Case
from tests.lab.matrix.run import Outcome, run
from tests.lab.matrix.table import counts, markdown, row


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.matrix", description=__doc__)
    parser.add_argument("--small", action="store_true", help="every kind of failure, in few moves")
    parser.add_argument("--only", default="", metavar="REGEX", help="the cases whose line matches")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="groups of hosts at once (default: 1)")
    parser.add_argument("--list", action="store_true", help="print the cases, and move nothing")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="add each outcome to this file, a line each, and leave out the moves that are in it",
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a --json file, and move nothing")
    options = parser.parse_args()
    if options.table:
        saved = [Outcome.from_json(json.loads(line)) for line in options.table.read_text().splitlines()]
        print(f"{markdown(saved)}\n\n{counts(saved, [])}")
        return 0
    done = set()
    if options.json and options.json.exists():
        done = {json.loads(line)["name"] for line in options.json.read_text().splitlines()}
    words = re.compile(options.only)
    cases = [case for case in (SMALL if options.small else FULL) if words.search(case.name) and case.name not in done]
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    outcomes: list[Outcome] = []
    troubles: list[str] = []

    def show(outcome: Outcome) -> None:
        outcomes.append(outcome)
        print(row(outcome), flush=True)
        if options.json:
            with options.json.open("a") as file:
                file.write(json.dumps(outcome.to_json()) + "\n")

    def trouble(case: Case, why: str) -> None:
        troubles.append(case.name)
        print(f"LAB   {case.name}: {why}", flush=True)

    run(cases, show, trouble, options.jobs)
    print(counts(outcomes, troubles))
    return 0 if all(outcome.agreed for outcome in outcomes) and not troubles else 1


if __name__ == "__main__":
    sys.exit(main())
