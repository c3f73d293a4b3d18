"""``python3 -m vgicmgr``: the command where no entry point is installed."""

import sys

from vgicmgr.cli import main

if __name__ == "__main__":
    sys.exit(main())
