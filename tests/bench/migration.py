"""What the gate costs beside the live migration that it guards: a small idle guest between two hosts, there and back.

``python3 -m tests.bench.migration`` boots the hosts. The hook is asked before each migration and is out of its way.
"""

import sys
from statistics import median

from tests.lab.errors import LabError
from tests.lab.matrix.cases import PLAIN
from tests.lab.matrix.run import NAME, VGICMGR, ask, start
from tests.lab.pair import Pair
from tests.lab.spec import HOSTS

ROUNDS = 3


def main() -> int:
    """Exit status: 2 when the lab cannot be had, or the guest does not arrive."""
    verdicts, migrations = [], []
    try:
        with Pair.start(HOSTS["trixie"], HOSTS["trixie"]) as pair:
            pair.start_libvirtd()
            start(pair.first, PLAIN.xml(NAME))
            pair.first.run([*VGICMGR, "record", "write", NAME], check=True)
            for back in (False, True) * ROUNDS:
                source, target = (pair.second, pair.first) if back else (pair.first, pair.second)
                xml = source.run(["virsh", "dumpxml", "--migratable", NAME], check=True).stdout
                yes, reason, seconds = ask(target, "migrate", xml)
                if not yes:
                    raise LabError(f"the gate lets nobody in: {reason}")
                verdicts.append(seconds)
                migrations.append(pair.migrate(NAME, back=back, check=True).seconds)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    ours, theirs = median(verdicts), median(migrations)
    print("| what | against | median | median | ratio | aim |\n|---|---|---|---|---|---|")
    print(f"| hook, migrate | `virsh migrate --live`, 128 MiB | {ours:.2f} s | {theirs:.2f} s "
          f"| {ours / theirs:.2f} | 0.05 |")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
