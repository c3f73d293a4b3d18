"""``make bench``: the ratios of the README's table, on this machine and in hosts of the lab."""

import sys

from tests.bench import migration, ratios
from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.spec import HOSTS

IN_HOST = ("ratios", "gate", "rehearsal")


def main() -> int:
    """Exit status: 2 when the lab cannot be had."""
    print("On this machine:\n", flush=True)
    ratios.main()
    print("\nIn a host of the lab (trixie):", flush=True)
    try:
        with Host.start(HOSTS["trixie"]) as host:
            host.start_libvirtd()
            for name in IN_HOST:
                command = ["python3", "-m", f"tests.bench.{name}"]
                print(f"\n{host.run(command, cwd='/opt/vgicmgr', timeout=600, check=True).stdout}", end="", flush=True)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print("\nBetween two of them:\n", flush=True)
    return migration.main()


if __name__ == "__main__":
    sys.exit(main())
