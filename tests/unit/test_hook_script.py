"""hooks/qemu, run by the shell as libvirt runs it.

What it does on an arm64 host is tried with its one line about the host's architecture changed to name an arm64 host,
and with a stub in place of Python; the lab's hosts run it as it is.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "hooks/qemu"
GUEST = (ROOT / "xml/guest-gicv3.xml").read_bytes()
EMULATED = (ROOT / "xml/guest-emulated.xml").read_bytes()

SHELLS = [shell for shell in ("sh", "dash", "bash", "busybox") if shutil.which(shell)]

STUB_PYTHON = """\
#!/bin/sh
# a stub in place of Python: shows what it was given
printf '<%s>' "$@"
printf '\\n'
cat
echo why >&2
exit {status}
"""


@dataclass
class Hook:
    """A copy of the script, and how it is run."""

    path: Path
    shell: str

    def run(self, *argv: str, xml: bytes = GUEST) -> "subprocess.CompletedProcess[bytes]":
        shell = ["busybox", "sh"] if self.shell == "busybox" else [self.shell]
        # stdin is a pipe, as libvirt's; the environment is the one of a daemon
        return subprocess.run(
            [*shell, self.path, *argv],
            input=xml,
            capture_output=True,
            timeout=60,
            check=False,
            env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": "/nonexistent"},
        )

    def replace(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert text.count(old) == 1
        self.path.write_text(text.replace(old, new))

    def stub_python(self, status: int) -> None:
        stub = self.path.parent / "stub-python"
        stub.write_text(STUB_PYTHON.format(status=status))
        stub.chmod(0o755)
        self.replace("python=/usr/bin/python3", f"python='{stub}'")

    def real_python(self) -> None:
        self.replace("python=/usr/bin/python3", f"python='{sys.executable}'")
        self.replace("directory=''", f"directory='{ROOT}'")


@pytest.fixture(params=SHELLS)
def hook(request: pytest.FixtureRequest, tmp_path: Path) -> Hook:
    """The script as it is, in each shell."""
    shutil.copy(SCRIPT, tmp_path / "qemu")
    return Hook(tmp_path / "qemu", request.param)


@pytest.fixture
def arm64_hook(hook: Hook) -> Hook:
    """The script as if this host were an arm64 one."""
    hook.replace("case ${arch:-$(uname -m)} in", "case aarch64 in")
    return hook


SILENCE = (0, b"", b"")


def outcome(run: "subprocess.CompletedProcess[bytes]") -> tuple[int, bytes, bytes]:
    return run.returncode, run.stdout, run.stderr


class TestNothingToDecide:
    """It ends at once, and starts nothing."""

    @pytest.mark.parametrize("operation", ["start", "started", "stopped", "release", "reconnect", "attach", "new"])
    def test_other_operations(self, arm64_hook: Hook, operation: str) -> None:
        arm64_hook.stub_python(1)
        assert outcome(arm64_hook.run("web1", operation, "begin", "-")) == SILENCE

    def test_other_operations_end_before_any_process_is_started(self) -> None:
        before_case = SCRIPT.read_text().partition("\ncase ")[0]
        code = [line for line in before_case.splitlines() if line and not line.startswith("#")]
        assert code == ["python=/usr/bin/python3", "directory=''", "marks=/run/vgicmgr/arrived"]

    def test_no_arguments(self, arm64_hook: Hook) -> None:
        assert outcome(arm64_hook.run()) == SILENCE

    @pytest.mark.skipif(platform.machine() == "aarch64", reason="an arm64 host has something to decide")
    def test_host_that_is_not_arm64(self, hook: Hook) -> None:
        hook.stub_python(1)
        assert outcome(hook.run("web1", "prepare", "begin", "-")) == SILENCE

    @pytest.mark.skipif(platform.machine() == "aarch64", reason="an arm64 host has something to decide")
    def test_host_that_is_not_arm64_with_a_kernel_before_6_1(self, hook: Hook) -> None:
        hook.replace("[ ! -r /proc/sys/kernel/arch ] ||", "[ ! -r /nonexistent ] ||")
        hook.stub_python(1)
        assert outcome(hook.run("web1", "prepare", "begin", "-")) == SILENCE

    def test_emulated_guest(self, arm64_hook: Hook) -> None:
        arm64_hook.stub_python(1)
        assert outcome(arm64_hook.run("web1", "prepare", "begin", "-", xml=EMULATED)) == SILENCE


class TestStarted:
    """A guest runs: the writing of its record is started, and not waited for."""

    @pytest.mark.parametrize("operation", ["started", "reconnect"])
    def test_the_writer_runs_on_by_itself(self, arm64_hook: Hook, tmp_path: Path, operation: str) -> None:
        if Path("/run/systemd/system").exists() or os.geteuid() != 0:
            pytest.skip("here it is systemd's to run, or nobody's")
        stub = tmp_path / "stub-python"
        stub.write_text(f'#!/bin/sh\nsleep 2\nprintf "%s|" "$@" >{tmp_path}/asked\necho noise\necho noise >&2\n')
        stub.chmod(0o755)
        arm64_hook.replace("python=/usr/bin/python3", f"python='{stub}'")
        begin = time.monotonic()
        # the pipes of the output are read to their ends, as libvirt does
        assert outcome(arm64_hook.run("a guest's name", operation, "begin", "-")) == SILENCE
        assert time.monotonic() - begin < 2
        while not (asked := tmp_path / "asked").exists() or not asked.read_text():
            assert time.monotonic() - begin < 30
            time.sleep(0.1)
        assert "from vgicmgr.migration.writer import main" in asked.read_text()
        assert asked.read_text().endswith("|a guest's name|")

    def test_an_emulated_guest_has_none(self, arm64_hook: Hook, tmp_path: Path) -> None:
        arm64_hook.replace("python=/usr/bin/python3", f"python='{tmp_path}/touched'")
        assert outcome(arm64_hook.run("web1", "started", "begin", "-", xml=EMULATED)) == SILENCE


class TestMark:
    """A guest that arrives has a mark until it is gone."""

    @pytest.fixture
    def marks(self, arm64_hook: Hook, tmp_path: Path) -> Path:
        arm64_hook.replace("marks=/run/vgicmgr/arrived", f"marks={tmp_path}/run/arrived")
        return tmp_path / "run/arrived"

    @pytest.mark.parametrize("operation", ["migrate", "restore"])
    def test_a_guest_that_is_let_in_is_marked(self, arm64_hook: Hook, marks: Path, operation: str) -> None:
        arm64_hook.stub_python(0)
        for name in ("web1", "a guest's name"):
            assert arm64_hook.run(name, operation, "begin", "-").returncode == 0
        assert sorted(mark.name for mark in marks.iterdir()) == ["domain-a guest's name", "domain-web1"]

    def test_one_that_is_refused_is_not(self, arm64_hook: Hook, marks: Path) -> None:
        arm64_hook.stub_python(1)
        assert arm64_hook.run("web1", "migrate", "begin", "-").returncode == 1
        assert not marks.exists()

    def test_a_start_leaves_no_mark(self, arm64_hook: Hook, marks: Path) -> None:
        arm64_hook.stub_python(0)
        assert arm64_hook.run("web1", "prepare", "begin", "-").returncode == 0
        assert not marks.exists()

    @pytest.mark.parametrize("in_the_way", ["run", "run/arrived/domain-web1/x"])
    def test_a_mark_that_cannot_be_made_is_no_reason_to_refuse(
        self, arm64_hook: Hook, marks: Path, tmp_path: Path, in_the_way: str
    ) -> None:
        (tmp_path / in_the_way).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / in_the_way).touch()
        arm64_hook.stub_python(0)
        run = arm64_hook.run("web1", "migrate", "begin", "-")
        assert (run.returncode, run.stderr) == (0, b"why\n")

    def test_the_mark_goes_with_the_guest(self, hook: Hook, tmp_path: Path) -> None:
        hook.replace("marks=/run/vgicmgr/arrived", f"marks={tmp_path}")
        for name in ("web1", "a guest's name"):
            (tmp_path / f"domain-{name}").touch()
        assert outcome(hook.run("a guest's name", "release", "end", "-")) == SILENCE
        assert [path.name for path in tmp_path.glob("domain-*")] == ["domain-web1"]


class TestPrepare:
    """Python gets the arguments and every byte; its exit status and its words are the hook's."""

    @pytest.mark.parametrize("status", [0, 1])
    def test_python_decides(self, arm64_hook: Hook, status: int) -> None:
        arm64_hook.stub_python(status)
        run = arm64_hook.run("a guest's name *", "prepare", "begin", "-")
        assert (run.returncode, run.stderr) == (status, b"why\n")
        assert run.stdout.startswith(b"<-I><-c><")
        assert b"<a guest's name *><prepare><begin><-><<domain type='kvm' >\n" + GUEST[19:] in run.stdout

    @pytest.mark.parametrize("xml", [b"", b"\n", b"\n\n\n<domain type='kvm'>\n", b"<domain", GUEST, b"\xff\xfe" * 20])
    def test_no_byte_is_lost(self, arm64_hook: Hook, xml: bytes) -> None:
        probe = arm64_hook.path.parent / "stub-python"
        probe.write_text(
            f"#!{sys.executable}\nimport os, sys\n"  # a stub that puts together what the hook's module would read
            "sys.stdout.buffer.write(os.fsencode(sys.argv[-1]) + sys.stdin.buffer.read())\n"
        )
        probe.chmod(0o755)
        arm64_hook.replace("python=/usr/bin/python3", f"python='{probe}'")
        assert outcome(arm64_hook.run("web1", "prepare", "begin", "-", xml=xml)) == (0, xml, b"")

    def test_the_real_python_refuses_what_it_cannot_read(self, arm64_hook: Hook) -> None:
        arm64_hook.real_python()
        run = arm64_hook.run("web1", "prepare", "begin", "-", xml=GUEST[:300])
        assert (run.returncode, run.stdout) == (1, b"")
        assert run.stderr.startswith(
            b"vgicmgr: domain 'web1' is not started, since it cannot be judged: the domain XML"
        )
        assert run.stderr.count(b"\n") == 1

    def test_the_real_python_lets_an_x86_guest_through(self, arm64_hook: Hook) -> None:
        arm64_hook.real_python()
        xml = (ROOT / "xml/guest-x86.xml").read_bytes()
        assert outcome(arm64_hook.run("web1", "prepare", "begin", "-", xml=xml)) == SILENCE

    def test_standard_input_that_never_comes(self, arm64_hook: Hook) -> None:
        arm64_hook.replace("timeout 5 dd", "timeout 1 dd")
        arm64_hook.stub_python(1)
        stub = arm64_hook.path.parent / "stub-python"
        stub.write_text("#!/bin/sh\necho asked >&2\nexit 1\n")
        reader, writer = os.pipe()
        start = time.monotonic()
        run = subprocess.run(
            ["sh", arm64_hook.path, "web1", "prepare", "begin", "-"],
            stdin=reader,
            capture_output=True,
            timeout=30,
            check=False,
        )
        os.close(reader)
        os.close(writer)
        assert (run.returncode, run.stderr) == (1, b"asked\n")
        assert time.monotonic() - start < 5


class TestWithoutPython:
    """Without Python or the package nothing can be judged: one line, and a refusal."""

    @pytest.fixture(autouse=True)
    def as_root(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("a hook without root lets the guest through")

    @pytest.fixture(autouse=True)
    def without_policy(self) -> None:
        if Path("/etc/vgicmgr/vgicmgr.conf").exists():
            pytest.skip("this machine has a policy")

    def refuses(self, hook: Hook) -> None:
        run = hook.run("web1", "prepare", "begin", "-")
        assert (run.returncode, run.stdout) == (1, b"")
        assert run.stderr.endswith(f"cannot load the package vgicmgr; install it, or remove {hook.path}\n".encode())
        assert run.stderr.startswith(b"vgicmgr: this guest cannot be judged: ")
        assert run.stderr.count(b"\n") == 1

    def test_no_python(self, arm64_hook: Hook) -> None:
        arm64_hook.replace("python=/usr/bin/python3", "python=/nonexistent/python3")
        self.refuses(arm64_hook)

    def test_no_package(self, arm64_hook: Hook, tmp_path: Path) -> None:
        if (
            subprocess.run(
                ["/usr/bin/python3", "-I", "-c", "import vgicmgr"], capture_output=True, check=False
            ).returncode
            == 0
        ):
            pytest.skip("this machine has the package")
        self.refuses(arm64_hook)

    def test_package_that_is_broken(self, arm64_hook: Hook, tmp_path: Path) -> None:
        (tmp_path / "vgicmgr").mkdir()
        (tmp_path / "vgicmgr/__init__.py").write_text("this is no Python")
        arm64_hook.replace("directory=''", f"directory='{tmp_path}'")
        self.refuses(arm64_hook)

    def test_python_that_is_killed(self, arm64_hook: Hook) -> None:
        arm64_hook.stub_python(1)
        (arm64_hook.path.parent / "stub-python").write_text("#!/bin/sh\nkill -KILL $$\n")
        run = arm64_hook.run("web1", "prepare", "begin", "-")
        assert (run.returncode, run.stdout) == (1, b"")
        assert run.stderr.endswith(b"was ended in the middle of it (status 137); try again\n")

    def test_policy_that_does_not_enforce(self, arm64_hook: Hook, tmp_path: Path) -> None:
        policy = tmp_path / "vgicmgr.conf"
        arm64_hook.replace("/etc/vgicmgr/vgicmgr.conf ||", f"{policy} ||")
        arm64_hook.replace("python=/usr/bin/python3", "python=/nonexistent/python3")
        for mode, status in (("enforce", 1), ("warn", 0), ("off", 0)):
            policy.write_text(f"[hook]\nmode = {mode}\n")
            assert arm64_hook.run("web1", "prepare", "begin", "-").returncode == status


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck() -> None:
    assert subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, check=False).stdout == ""


def test_it_is_executable() -> None:
    assert SCRIPT.stat().st_mode & 0o111 == 0o111
