"""hooks/qemu, run by the shell as libvirt runs it.

What it does on an arm64 host is tried with its one line about the host's architecture changed to name an arm64 host,
and with a stub in place of Python; the lab's hosts run it as it is.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from vgicmgr.errors import PolicyError
from vgicmgr.policy import Mode, read_policy

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "hooks/qemu"
GUEST = (ROOT / "xml/guest-gicv3.xml").read_bytes()
EMULATED = (ROOT / "xml/guest-emulated.xml").read_bytes()

SHELLS = [shell for shell in ("sh", "dash", "bash", "busybox") if shutil.which(shell)]

LET_IN, REFUSED, NO_PACKAGE = 40, 41, 42
"""What Python answers by: statuses that it does not end with for reasons of its own."""

COMMANDS = (
    *("id", "mkdir", "rm", "dd", "timeout", "uname", "grep", "cat", "true", "sleep", "setsid"),
    *("systemctl", "systemd-escape"),
)

STUB_PYTHON = """\
#!/bin/sh
# a stub in place of Python: shows what it was given
printf '<%s>' "$@"
printf '\\n'
cat
echo why >&2
exit {status}
"""


POLICIES = [
    "",
    "[hook]\nmode = warn\n",
    "[hook]\nmode = warn",
    "[hook]\nmode=off\n",
    "[hook]\r\nmode = warn\r\n",
    "[hook]\nmode\t=\twarn \n",
    "[hook]\n# mode = warn\n",
    "# a comment: [hook]\n; another\n\n[hook]\n\nmode = warn\n",
    "[hook]\nmode = warn # as long as we try\n",
    "[hook]\nmode = perhaps\n",
    "[hook]\nmode = Warn\n",
    "[hook]\nMODE = warn\n",
    "[hook]\nmode = warn\nmode = warn\n",
    "[hook]\nmode = warn\n[hook]\n",
    "[hook]\nmode = warn\nother = warn\n",
    "[hook]\nmode = warn\n nonsense\n",
    "[hook]\nmode = warn\n mode = off\n",
    "[hook]\nmode = warn\nnonsense\n",
    "[other]\nmode = warn\n",
    "[hook]\nmode = warn\n[other]\n",
    "mode = warn\n",
    "mode = warn\n[hook]\n",
    "[findings]\nmode = warn\n",
    "[hook]\nmode = warn\n[findings]\nits-refused = enforce\nvcpu-count = off\n",
    "[hook]\nmode = warn\n[findings]\nits-refused = perhaps\n",
    "[hook]\nmode = warn\n[findings]\nits-refused = off\nits-refused = off\n",
    "[hook]\nmode = warn\n[findings]\nIts = off\n",
    "[hook]\nmode = warn\n[findings]\nits refused = off\n",
    "[findings]\nits-refused = warn\n[hook]\nmode = off\n",
    "[hook]\nmode = enforce\n[findings]\nits-refused = off\n",
    "[hook\nmode = warn\n",
    "[hook]\nmode = warn = off\n",
    "[hook]\n= warn\nmode = warn\n",
    "[hook]\nmode = warn\n" + "# " + "x" * 70000 + "\n",
    "\ufeff[hook]\nmode = warn\n",
]


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
        self.replace("marks=/run/vgicmgr/arrived", f"marks='{self.path.parent}/vgicmgr/arrived'")

    def deny_commands(self) -> None:
        """Let the hook find no command but those that AppArmor denies it: they exit 126, as the shell does then."""
        folder = self.path.parent / "denied"
        folder.mkdir()
        for name in COMMANDS:
            (folder / name).write_text("#!/bin/sh\nexit 126\n")
            (folder / name).chmod(0o755)
        self.replace("PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"PATH='{folder}'")


@pytest.fixture(params=SHELLS)
def hook(request: pytest.FixtureRequest, tmp_path: Path) -> Hook:
    """The script as it is, in each shell."""
    shutil.copy(SCRIPT, tmp_path / "qemu")
    return Hook(tmp_path / "qemu", request.param)


@pytest.fixture
def arm64_hook(hook: Hook) -> Hook:
    """The script as if this host were an arm64 one."""
    hook.replace("case ${arch:-$(uname -m 2>/dev/null)} in", "case aarch64 in")
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

    @pytest.mark.parametrize("operation", ["start", "stopped", "attach", "new"])
    def test_other_operations_end_before_any_process_is_started(self, operation: str) -> None:
        """The shell's own trace has assignments and the end, and no command."""
        command = ["sh", "-x", str(SCRIPT), "web1", operation, "begin", "-"]
        trace = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
        assert trace[-1] == "+ exit 0"
        assert all(re.match(r"\+ (case |[a-z]+=)", line) for line in trace[:-1]), trace

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

    @pytest.fixture(params=["commands", "no commands"])
    def commands(self, arm64_hook: Hook, request: pytest.FixtureRequest) -> None:
        """AppArmor denies what a link in /usr/bin leads to, as Ubuntu's do from 25.10 on (I1)."""
        if request.param == "no commands":
            arm64_hook.deny_commands()

    @pytest.mark.usefixtures("commands")
    @pytest.mark.parametrize("operation", ["started", "reconnect"])
    def test_the_writer_runs_on_by_itself(self, arm64_hook: Hook, tmp_path: Path, operation: str) -> None:
        if Path("/run/systemd/system").exists() or os.geteuid() != 0:
            pytest.skip("here it is systemd's to run, or nobody's")
        stub = tmp_path / "stub-python"
        stub.write_text(f'#!/bin/sh\n/bin/sleep 2\nprintf "%s|" "$@" >{tmp_path}/asked\necho noise\necho noise >&2\n')
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
        assert "os.setsid()" in asked.read_text()
        assert asked.read_text().endswith("|a guest's name|")

    def test_an_emulated_guest_has_none(self, arm64_hook: Hook, tmp_path: Path) -> None:
        arm64_hook.replace("python=/usr/bin/python3", f"python='{tmp_path}/touched'")
        assert outcome(arm64_hook.run("web1", "started", "begin", "-", xml=EMULATED)) == SILENCE


class TestMark:
    """A guest that arrives has a mark until it is gone; Python makes it, and is told where."""

    @pytest.mark.parametrize("operation", ["migrate", "restore", "prepare"])
    def test_python_is_told_the_folder(self, arm64_hook: Hook, operation: str) -> None:
        arm64_hook.stub_python(LET_IN)
        run = arm64_hook.run("web1", operation, "begin", "-")
        assert run.returncode == 0
        assert b"</run/vgicmgr/arrived><web1><" + operation.encode() in run.stdout

    def test_the_mark_goes_with_the_guest(self, hook: Hook, tmp_path: Path) -> None:
        hook.replace("marks=/run/vgicmgr/arrived", f"marks={tmp_path}")
        names = ["web1", "a guest's name", "-rf", "*"]
        for name in names:
            (tmp_path / f"domain-{name}").touch()
        for name in names[1:]:
            assert outcome(hook.run(name, "release", "end", "-")) == SILENCE
        assert [path.name for path in tmp_path.glob("domain-*")] == ["domain-web1"]

    def test_a_mark_that_cannot_be_removed_is_silent(self, hook: Hook, tmp_path: Path) -> None:
        hook.replace("marks=/run/vgicmgr/arrived", f"marks={tmp_path}")
        (tmp_path / "domain-web1").mkdir()
        for name in ("web1", "g" * 300):
            assert outcome(hook.run(name, "release", "end", "-")) == SILENCE


class TestPrepare:
    """Python gets the arguments and every byte; its exit status and its words are the hook's."""

    @pytest.mark.parametrize(("answer", "status"), [(LET_IN, 0), (REFUSED, 1)])
    def test_python_decides(self, arm64_hook: Hook, answer: int, status: int) -> None:
        arm64_hook.stub_python(answer)
        run = arm64_hook.run("a guest's name *", "prepare", "begin", "-")
        assert (run.returncode, run.stderr) == (status, b"why\n")
        assert run.stdout.startswith(b"<-I><-c><")
        assert b"<a guest's name *><prepare><begin><-><<domain type='kvm' >\n" + GUEST[19:] in run.stdout

    @pytest.mark.parametrize(("answer", "status"), [(LET_IN, 0), (REFUSED, 1)])
    def test_python_decides_where_every_command_is_denied(self, arm64_hook: Hook, answer: int, status: int) -> None:
        arm64_hook.deny_commands()
        stub = arm64_hook.path.parent / "stub-python"
        stub.write_text(f"#!{sys.executable}\nimport sys\nsys.stdout.write(sys.stdin.read())\nsys.exit({answer})\n")
        stub.chmod(0o755)
        arm64_hook.replace("python=/usr/bin/python3", f"python='{stub}'")
        run = arm64_hook.run("web1", "prepare", "begin", "-")
        assert (run.returncode, run.stdout, run.stderr) == (status, GUEST, b"")

    def test_the_real_python_where_every_command_is_denied(self, hook: Hook) -> None:
        """uname, too: then Python tells that this is no guest of ours."""
        hook.replace("[ ! -r /proc/sys/kernel/arch ] ||", "[ ! -r /nonexistent ] ||")
        hook.deny_commands()
        hook.real_python()
        xml = (ROOT / "xml/guest-x86.xml").read_bytes()
        assert outcome(hook.run("web1", "prepare", "begin", "-", xml=xml)) == SILENCE
        assert outcome(hook.run("web1", "prepare", "begin", "-", xml=EMULATED)) == SILENCE
        assert hook.run("web1", "prepare", "begin", "-", xml=GUEST[:300]).returncode == 1

    @pytest.mark.parametrize("xml", [b"", b"\n", b"\n\n\n<domain type='kvm'>\n", b"<domain", GUEST, b"\xff\xfe" * 20])
    def test_no_byte_is_lost(self, arm64_hook: Hook, xml: bytes) -> None:
        probe = arm64_hook.path.parent / "stub-python"
        probe.write_text(
            f"#!{sys.executable}\nimport os, sys\n"  # a stub that puts together what the hook's module would read
            "sys.stdout.buffer.write(os.fsencode(sys.argv[-1]) + sys.stdin.buffer.read())\n"
            f"sys.stdout.flush()\nos._exit({LET_IN})\n"
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
        """libvirt writes it at once; ten seconds are promised, the script's own among them."""
        arm64_hook.real_python()
        reader, writer = os.pipe()
        start = time.monotonic()
        run = subprocess.run(
            [arm64_hook.shell, arm64_hook.path, "web1", "prepare", "begin", "-"],
            stdin=reader,
            capture_output=True,
            timeout=30,
            check=False,
        )
        os.close(reader)
        os.close(writer)
        assert run.returncode == 1
        assert b"did not end within 8 s" in run.stderr
        assert 9 < time.monotonic() - start < 12


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

    def refuses(self, hook: Hook, *, shell_speaks: bool = False) -> None:
        """In one line, besides the shell's own where it cannot run Python."""
        run = hook.run("web1", "prepare", "begin", "-")
        assert (run.returncode, run.stdout) == (1, b"")
        if shell_speaks:
            assert b"vgicmgr: this guest cannot be judged: " in run.stderr
            return
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

    @pytest.mark.parametrize("status", [0, 1, 2, 3, 39, 43, 120])
    def test_python_that_ends_by_itself(self, arm64_hook: Hook, status: int) -> None:
        """With its library away or without memory it ends with 1 before a line of ours runs (L6)."""
        arm64_hook.stub_python(status)
        run = arm64_hook.run("web1", "prepare", "begin", "-")
        assert run.returncode == 1
        assert run.stderr.endswith(f"ended without an answer (status {status}); try again\n".encode())
        self.policy(arm64_hook, "[hook]\nmode = warn\n")
        assert arm64_hook.run("web1", "prepare", "begin", "-").returncode == 0

    def test_a_library_that_is_away(self, arm64_hook: Hook, tmp_path: Path) -> None:
        arm64_hook.real_python()
        stub = tmp_path / "stub-python"
        stub.write_text(f'#!/bin/sh\nPYTHONHOME=/nonexistent exec "{sys.base_prefix}/bin/python3" -c "$3"\n')
        stub.chmod(0o755)
        arm64_hook.replace(f"python='{sys.executable}'", f"python='{stub}'")
        self.policy(arm64_hook, "[hook]\nmode = warn\n")
        run = arm64_hook.run("web1", "prepare", "begin", "-")
        assert run.returncode == 0
        assert b"ended without an answer (status 1)" in run.stderr

    @pytest.mark.parametrize("python", ["exits 126", "cannot be run"])
    def test_every_command_and_python_denied(self, arm64_hook: Hook, tmp_path: Path, python: str) -> None:
        """Who cannot tell who it is lets nobody in (I1)."""
        arm64_hook.deny_commands()
        stub = tmp_path / "stub-python"
        stub.write_text("#!/bin/sh\nexit 126\n" if python == "exits 126" else "#!/nonexistent/interpreter\n")
        stub.chmod(0o755)
        arm64_hook.replace("python=/usr/bin/python3", f"python='{stub}'")
        speaks = python == "cannot be run"
        self.refuses(arm64_hook, shell_speaks=speaks)
        arm64_hook.replace("</proc/self/status", "</nonexistent")
        self.refuses(arm64_hook, shell_speaks=speaks)
        arm64_hook.replace("</nonexistent", f"<{tmp_path}/status")
        (tmp_path / "status").write_text("Name:\tsh\n")
        self.refuses(arm64_hook, shell_speaks=speaks)

    @pytest.mark.parametrize(
        ("status", "exit_status"), [("Uid:\t0\t0\t0\t0", 1), ("Uid:\t0\t1000\t0\t0", 0), ("Uid:\t1000\t0\t0\t0", 1)]
    )
    def test_a_daemon_without_root(self, arm64_hook: Hook, tmp_path: Path, status: str, exit_status: int) -> None:
        """The effective user is the second of proc_pid_status(5)."""
        arm64_hook.replace("python=/usr/bin/python3", "python=/nonexistent/python3")
        arm64_hook.replace("</proc/self/status", f"<{tmp_path}/status")
        (tmp_path / "status").write_text(f"Name:\tsh\nUmask:\t0022\n{status}\nGid:\t7\t7\t7\t7\n")
        assert arm64_hook.run("web1", "prepare", "begin", "-").returncode == exit_status

    # --- the policy, where Python cannot be asked

    def policy(self, hook: Hook, text: str | bytes) -> Path:
        path = hook.path.parent / "vgicmgr.conf"
        if "policy=/etc/vgicmgr/vgicmgr.conf" in hook.path.read_text():
            hook.replace("policy=/etc/vgicmgr/vgicmgr.conf", f"policy='{path}'")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    @pytest.mark.parametrize("denied", [True, False])
    def test_policy_that_does_not_enforce(self, arm64_hook: Hook, denied: bool) -> None:
        if denied:
            arm64_hook.deny_commands()
        arm64_hook.replace("python=/usr/bin/python3", "python=/nonexistent/python3")
        for mode, status in (("enforce", 1), ("warn", 0), ("off", 0)):
            self.policy(arm64_hook, f"[hook]\nmode = {mode}\n")
            assert arm64_hook.run("web1", "prepare", "begin", "-").returncode == status

    @pytest.mark.parametrize("text", POLICIES)
    def test_a_policy_is_read_by_the_same_rule_as_pythons(self, arm64_hook: Hook, tmp_path: Path, text: str) -> None:
        arm64_hook.replace("python=/usr/bin/python3", "python=/nonexistent/python3")
        path = self.policy(arm64_hook, text)
        try:
            enforces = read_policy(str(path)).mode is Mode.ENFORCE
        except PolicyError:
            enforces = True
        assert arm64_hook.run("web1", "prepare", "begin", "-").returncode == enforces

    def test_the_policy_that_is_shipped(self, arm64_hook: Hook) -> None:
        arm64_hook.replace("python=/usr/bin/python3", "python=/nonexistent/python3")
        text = (ROOT / "packaging/vgicmgr.conf").read_text()
        assert text.count("\nmode = enforce\n") == 1
        for mode, status in (("enforce", 1), ("warn", 0)):
            self.policy(arm64_hook, text.replace("\nmode = enforce\n", f"\nmode = {mode}\n"))
            assert arm64_hook.run("web1", "prepare", "begin", "-").returncode == status

    @pytest.mark.parametrize("kind", ["device", "fifo", "folder", "dangling"])
    def test_a_policy_that_is_no_file(self, arm64_hook: Hook, tmp_path: Path, kind: str) -> None:
        arm64_hook.replace("python=/usr/bin/python3", "python=/nonexistent/python3")
        path = self.policy(arm64_hook, "")
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero" if kind == "device" else "/nonexistent")
        assert arm64_hook.run("web1", "prepare", "begin", "-").returncode == 1


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck() -> None:
    assert subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, check=False).stdout == ""


def test_it_is_executable() -> None:
    assert SCRIPT.stat().st_mode & 0o111 == 0o111
