"""This terminal on a host's serial console."""

import os
import select
import socket
import sys
import termios
import tty
from pathlib import Path

LEAVE = b"\x1d"
"""Ctrl-]"""


def attach(console: Path) -> None:
    """Join standard input and output to a console's socket until Ctrl-] or the host's end."""
    print("lab: leave with Ctrl-]", file=sys.stderr)
    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    before = termios.tcgetattr(stdin) if os.isatty(stdin) else None
    with socket.socket(socket.AF_UNIX) as host:
        host.connect(str(console))
        host.sendall(b"\n")  # the shell starts for whoever presses Enter
        if before:
            tty.setraw(stdin)
        try:
            while True:
                ready, _, _ = select.select([stdin, host], [], [])
                if host in ready:
                    if not (data := host.recv(4096)):
                        return
                    os.write(stdout, data)
                if stdin in ready:
                    typed = os.read(stdin, 4096)
                    if not typed or LEAVE in typed:
                        return
                    host.sendall(typed)
        finally:
            if before:
                termios.tcsetattr(stdin, termios.TCSADRAIN, before)
