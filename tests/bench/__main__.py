"""``make bench``: the ratios of the README's table, on this machine and in a host of the lab."""

import sys

from tests.bench import ratios
from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.spec import HOSTS


def main() -> int:
    """Exit status: 2 when the lab cannot be had."""
    print("On this machine:\n", flush=True)
    ratios.main()
    try:
        with Host.start(HOSTS["trixie"]) as host:
            host.start_libvirtd()
            table = host.run(["python3", "-m", "tests.bench.ratios"], cwd="/opt/vgicmgr", timeout=600, check=True)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(f"\nIn a host of the lab (trixie):\n\n{table.stdout}", end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
