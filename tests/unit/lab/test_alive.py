"""When a guest that runs is not alive."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.matrix import alive
from tests.lab.matrix.alive import Life


@pytest.mark.parametrize(
    ("life", "fault"),
    [
        (Life(5, 1.01, None), ""),
        (Life(5, 0.92, 9), ""),
        (Life(0, None, None), "its console does not go on"),
        (Life(1, None, None), "its console does not go on"),
        (Life(5, 0.4, None), "a second of the guest takes 2.50 s"),
        (Life(20, 2.0, None), "a second of the guest takes 0.50 s"),
        (Life(5, 0.0, None), "its clock stands still"),
        (Life(5, 1.0, 0), "its devices' MSIs no longer come"),
    ],
)
def test_fault(life: Life, fault: str) -> None:
    assert life.fault == fault


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> str:
    """The same program, which looks for a second."""
    program = alive.WATCH
    for seconds, less in (("MOST", 0.8), ("LEAST", 0.4), ("SILENT", 1.5)):
        program = program.replace(str(getattr(alive, f"{seconds}_SECONDS")), str(less))
    return program


@pytest.mark.parametrize(
    ("speed", "counts", "rate", "msis"), [(1.0, False, 1.0, False), (2.5, False, 2.5, False), (0.4, True, 0.4, True)]
)
def test_the_rate_is_of_the_guests_seconds_to_the_hosts(
    quick: str, tmp_path: Path, speed: float, counts: bool, rate: float, msis: bool
) -> None:
    console = tmp_path / "console"
    console.write_text("[    0.1] noise\nguest: up\nguest: 7.00 s\n")
    with subprocess.Popen(
        [sys.executable, "-I", "-c", quick, console], stdout=subprocess.PIPE, text=True
    ) as watching, console.open("a", newline="") as writer:  # fmt: skip
        start = time.monotonic()
        while watching.poll() is None:
            passed = time.monotonic() - start
            count = f", {int(passed * 100)} MSIs" if counts else ""
            writer.write(f"guest: {100 + passed * speed:.2f} s{count}\r\n")
            writer.flush()
            time.sleep(0.1)
        assert watching.stdout
        life = Life(*json.loads(watching.stdout.read()))
    assert life.rate == pytest.approx(rate, rel=0.15)
    assert (life.msis is not None and life.msis > 0) == msis


def test_a_guest_that_says_nothing_more_has_no_rate(quick: str, tmp_path: Path) -> None:
    console = tmp_path / "console"
    console.write_text("guest: up\nguest: 7.00 s\nguest: 8.00 s\n")
    done = subprocess.run([sys.executable, "-I", "-c", quick, console], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, None, None]
