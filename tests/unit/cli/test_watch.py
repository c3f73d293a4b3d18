"""``vgicmgr watch``'s outside where there is no libvirt, and its sources where they are not libvirt."""

import json
import subprocess
import sys
import time
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from tests.lab.domains import Guest
from vgicmgr.watch.events import Decision, Event
from vgicmgr.watch.sources import journal, rejudge


def test_without_libvirts_module_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['libvirt'] = None; from vgicmgr.cli import main; sys.exit(main(['watch']))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == ("vgicmgr: libvirt's Python module is missing (install python3-libvirt (libvirt-python))\n")


ENTRY = {"MESSAGE": "prepare domain='a' uuid='' decision=passed", "__REALTIME_TIMESTAMP": "5000000"}


@pytest.fixture
def fake_journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake: it notes what it is asked for, says what is no entry and then one, and waits. See the lab."""
    program = tmp_path / "journalctl"
    (tmp_path / "entries").write_text(f"{{\n{json.dumps(ENTRY)}\n")
    program.write_text(f'#!/bin/sh\necho $$ "$@" >{tmp_path}/asked\ncat {tmp_path}/entries\nexec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_the_journal_is_followed_and_let_go(fake_journalctl: Path) -> None:
    events: SimpleQueue[Event] = SimpleQueue()
    with journal(events) as there:
        assert there
        assert events.get(timeout=10) == Decision(5.0, "a", "prepare", "passed")
        pid, *asked = (fake_journalctl / "asked").read_text().split()
    assert not Path(f"/proc/{pid}").exists()
    assert "--follow" in asked
    assert "--identifier=vgicmgr" in asked
    assert any(word.startswith("_UID=") for word in asked), "others can log under this name"
    with pytest.raises(Empty):
        events.get(timeout=0)


def test_without_journalctl_there_is_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with journal(SimpleQueue()) as there:
        assert not there


def test_a_guest_that_is_none_of_the_hooks_business_is_not_judged() -> None:
    emulated = Guest(domain_type="qemu").xml().encode()
    assert rejudge("guest", emulated, "prepare") is None


def test_what_cannot_be_judged_is_said_and_no_error() -> None:
    before = time.time()
    decision = rejudge("a", b"<domain", "migrate")
    assert decision is not None
    assert (decision.guest, decision.operation, decision.decision, decision.anew) == (
        "a",
        "migrate",
        "not-judged",
        True,
    )
    assert "malformed" in decision.why
    assert before <= decision.time <= time.time()
