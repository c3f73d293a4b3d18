"""The drop-in in libvirt's hook directory: put there, looked at, taken away."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vgicmgr import cli, dropin
from vgicmgr.cli import hook
from vgicmgr.dropin import (
    Daemon,
    State,
    daemons,
    dropin_path,
    install,
    libvirt_version,
    script,
    state,
    to_reload,
    uninstall,
)
from vgicmgr.errors import HookInstallError
from vgicmgr.policy import POLICY_FILE, read_policy

SOURCE = Path(__file__).parents[2] / "hooks/qemu"

LIBVIRTD = Daemon("libvirtd", 812, 0, 0.0)
NOT_COUNTED = "the guests that run here could not be counted: libvirt cannot be reached\n"

# before a test puts a stand-in in its place
OPEN_TO_OTHERS = dropin._refuse_if_open_to_others


@pytest.fixture
def hooks_dir(tmp_path: Path) -> Path:
    """The hook directory of a host with libvirt that has no hook: it does not even exist."""
    (tmp_path / "libvirt").mkdir()
    return tmp_path / "libvirt/hooks"


@pytest.fixture(autouse=True)
def owned_by_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout that only its user can change, wherever these tests run."""
    monkeypatch.setattr(dropin, "_refuse_if_open_to_others", lambda path: None)


def foreign(path: Path, text: str = "#!/bin/sh\nexit 0\n", mode: int = 0o755) -> Path:
    """A hook that somebody else put there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def daemon_in(proc: Path, name: str, *, pid: int, started: float, uptime: float = 1000) -> None:
    """A /proc with a process; ``started`` in seconds since the epoch."""
    boot = int(started - uptime)
    (proc / str(pid)).mkdir(parents=True)
    (proc / "stat").write_text(f"cpu 1 2 3\nbtime {boot}\nprocesses 9\n")
    (proc / str(pid) / "comm").write_text(f"{name}\n")
    ticks = int((started - boot) * os.sysconf("SC_CLK_TCK"))
    # field 22 is the start time; the name in field 2 may hold anything
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) ) S " + " ".join(["0"] * 18) + f" {ticks} 0 0\n")


class TestScript:
    """The drop-in is hooks/qemu, told which Python to run."""

    def test_only_two_lines_differ_from_the_source(self) -> None:
        pairs = zip(SOURCE.read_text().splitlines(), script().splitlines(), strict=True)
        assert [new for old, new in pairs if old != new][:1] == [f"python={sys.executable}"]

    def test_it_is_what_the_package_carries(self) -> None:
        assert (Path(dropin.__file__).with_name("hook.sh")).read_text() == SOURCE.read_text()

    def test_it_loads_this_package(self) -> None:
        loads = script().replace("case ${arch:-$(uname -m 2>/dev/null)} in", "case aarch64 in")
        run = subprocess.run(
            ["sh", "-c", loads, "qemu", "web1", "prepare", "begin", "-"],
            input=b"<network/>",
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert (run.returncode, run.stdout) == (1, b"")
        assert b"the document is no domain XML" in run.stderr

    def test_a_path_is_quoted_for_the_shell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/opt/it's here; $(reboot)/python3")
        monkeypatch.setattr(dropin, "_finds_package", lambda python: True)
        line = next(line for line in script().splitlines() if line.startswith("python="))
        shown = subprocess.run(["sh", "-c", f'{line}\nprintf %s "$python"'], capture_output=True, text=True, check=True)
        assert shown.stdout == "/opt/it's here; $(reboot)/python3"

    def test_no_directory_where_python_finds_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dropin, "_finds_package", lambda python: True)
        assert "\ndirectory=''\n" in script()

    def test_the_directory_where_it_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dropin, "_finds_package", lambda python: False)
        assert f"\ndirectory={SOURCE.parents[1]}\n" in script()


class TestInstall:
    """The drop-in appears whole, executable for everybody, and beside what is there."""

    def test_where_there_was_nothing(self, hooks_dir: Path) -> None:
        assert state(hooks_dir) is State.ABSENT
        assert install(hooks_dir) is True
        assert state(hooks_dir) is State.INSTALLED
        assert dropin_path(hooks_dir).read_text() == script()
        assert [path.name for path in (hooks_dir / "qemu.d").iterdir()] == ["50-vgicmgr"]

    def test_session_daemons_can_run_it_too(self, hooks_dir: Path) -> None:
        umask = os.umask(0o077)
        try:
            install(hooks_dir)
        finally:
            os.umask(umask)
        for path in (hooks_dir, hooks_dir / "qemu.d", dropin_path(hooks_dir)):
            assert path.stat().st_mode & 0o777 == 0o755

    def test_twice(self, hooks_dir: Path) -> None:
        install(hooks_dir)
        before = dropin_path(hooks_dir).stat()
        assert install(hooks_dir) is False
        assert dropin_path(hooks_dir).stat().st_ino == before.st_ino

    def test_over_another_version(self, hooks_dir: Path) -> None:
        install(hooks_dir)
        with dropin_path(hooks_dir).open("a") as file:
            file.write("# as it was in an older version\n")
        assert state(hooks_dir) is State.DIFFERENT
        assert install(hooks_dir) is True
        assert state(hooks_dir) is State.INSTALLED

    def test_over_one_that_is_not_executable(self, hooks_dir: Path) -> None:
        install(hooks_dir)
        dropin_path(hooks_dir).chmod(0o644)
        assert state(hooks_dir) is State.NOT_EXECUTABLE
        assert install(hooks_dir) is True
        assert state(hooks_dir) is State.INSTALLED

    def test_other_hooks_stay(self, hooks_dir: Path) -> None:
        others = [foreign(hooks_dir / "qemu"), foreign(hooks_dir / "qemu.d/10-site")]
        before = [(path.read_text(), path.stat().st_ino) for path in others]
        install(hooks_dir)
        uninstall(hooks_dir)
        assert [(path.read_text(), path.stat().st_ino) for path in others] == before

    def test_never_over_somebody_elses(self, hooks_dir: Path) -> None:
        path = foreign(dropin_path(hooks_dir))
        assert state(hooks_dir) is State.FOREIGN
        for change in (install, uninstall):
            with pytest.raises(HookInstallError, match="is not vgicmgr's and is left as it is"):
                change(hooks_dir)
        assert path.read_text() == "#!/bin/sh\nexit 0\n"

    @pytest.mark.parametrize("kind", ["directory", "dangling link"])
    def test_never_over_what_is_no_file(self, hooks_dir: Path, kind: str) -> None:
        path = dropin_path(hooks_dir)
        path.parent.mkdir(parents=True)
        path.mkdir() if kind == "directory" else path.symlink_to("/nonexistent/hook")
        assert state(hooks_dir) is State.FOREIGN
        with pytest.raises(HookInstallError, match="is not vgicmgr's"):
            install(hooks_dir)
        assert os.path.lexists(path)

    def test_without_libvirt(self, tmp_path: Path) -> None:
        with pytest.raises(HookInstallError, match="libvirt is not there"):
            install(tmp_path / "libvirt/hooks")

    @pytest.mark.parametrize("version", [(6, 4, 0), (5, 10, 0), (6, 4, 99)])
    def test_libvirt_that_reads_no_dropins(self, hooks_dir: Path, version: tuple[int, ...]) -> None:
        with pytest.raises(HookInstallError, match=r"only 6\.5\.0 and later do"):
            install(hooks_dir, version)
        assert not hooks_dir.exists()

    @pytest.mark.parametrize("version", [(6, 5, 0), (6, 10, 0), (11, 3, 0), None])
    def test_libvirt_that_does_or_may(self, hooks_dir: Path, version: tuple[int, ...] | None) -> None:
        assert install(hooks_dir, version) is True

    def test_a_failed_write_leaves_nothing(self, hooks_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_space(fd: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", no_space)
        with pytest.raises(HookInstallError, match=r"cannot write .*: No space left on device"):
            install(hooks_dir)
        assert list((hooks_dir / "qemu.d").iterdir()) == []

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_without_permission(self, hooks_dir: Path) -> None:
        hooks_dir.parent.chmod(0o555)
        with pytest.raises(HookInstallError, match="run as root"):
            install(hooks_dir)


class TestWhoCanChangeIt:
    """Root runs the interpreter and the package: nobody else may be able to change them."""

    def refused(self, path: Path) -> str:
        with pytest.raises(HookInstallError) as caught:
            OPEN_TO_OTHERS(path)
        return caught.value.message

    def test_only_ours(self, tmp_path: Path) -> None:
        (tmp_path / "vgicmgr").mkdir(mode=0o755)
        (tmp_path / "vgicmgr/hook.py").touch(mode=0o644)
        OPEN_TO_OTHERS(tmp_path / "vgicmgr")

    @pytest.mark.parametrize("open_to_all", [".", "hook.py", "..", "kvm"])
    def test_writable_by_everybody(self, tmp_path: Path, open_to_all: str) -> None:
        package = tmp_path / "lib/vgicmgr"
        (package / "kvm").mkdir(parents=True)
        (package / "hook.py").touch()
        place = (package / open_to_all).resolve()
        place.chmod(0o777)
        assert f"would run {package} as root, but others can change {place}" in self.refused(package)

    def test_behind_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        (tmp_path / "open/python3").touch()
        (tmp_path / "python3").symlink_to(tmp_path / "open/python3")
        assert f"others can change {tmp_path / 'open'}" in self.refused(tmp_path / "python3")

    def test_a_sticky_directory_keeps_others_from_it(self, tmp_path: Path) -> None:
        (tmp_path / "lib/vgicmgr").mkdir(parents=True)
        (tmp_path / "lib").chmod(0o1777)
        OPEN_TO_OTHERS(tmp_path / "lib/vgicmgr")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_somebody_elses(self, tmp_path: Path) -> None:
        (tmp_path / "vgicmgr").mkdir()
        os.chown(tmp_path / "vgicmgr", 1000, 1000)
        assert f"others can change {tmp_path / 'vgicmgr'}" in self.refused(tmp_path / "vgicmgr")


class TestUninstall:
    """What was put there is taken away."""

    def test_installed(self, hooks_dir: Path) -> None:
        install(hooks_dir)
        assert uninstall(hooks_dir) is True
        assert state(hooks_dir) is State.ABSENT

    def test_not_installed(self, hooks_dir: Path) -> None:
        assert uninstall(hooks_dir) is False


class TestReload:
    """A daemon that found no hook at its start looks for none until it is reloaded; one that did sees new ones."""

    def seen_by(self, hooks_dir: Path, tmp_path: Path, *, started: float) -> bool:
        daemon_in(tmp_path / "proc", "libvirtd", pid=812, started=started)
        waiting = to_reload(hooks_dir, tmp_path / "proc")
        assert [daemon.pid for daemon in waiting] in ([], [812])
        return not waiting

    def test_first_hook(self, hooks_dir: Path, tmp_path: Path) -> None:
        install(hooks_dir)
        assert not self.seen_by(hooks_dir, tmp_path, started=time.time() - 60)

    def test_daemon_started_after_it(self, hooks_dir: Path, tmp_path: Path) -> None:
        install(hooks_dir)
        assert self.seen_by(hooks_dir, tmp_path, started=time.time() + 60)

    @pytest.mark.parametrize("other", ["qemu", "qemu.d/10-site"])
    def test_another_hook_stood_there_when_it_started(self, hooks_dir: Path, tmp_path: Path, other: str) -> None:
        foreign(hooks_dir / other)
        assert self.seen_by(hooks_dir, tmp_path, started=time.time() + 60)

    def test_another_hook_that_is_not_executable_counts_for_nothing(self, hooks_dir: Path, tmp_path: Path) -> None:
        foreign(hooks_dir / "qemu", mode=0o644)
        assert not self.seen_by(hooks_dir, tmp_path, started=time.time() + 60)

    def test_no_daemon(self, hooks_dir: Path, tmp_path: Path) -> None:
        daemon_in(tmp_path / "proc", "sshd", pid=9, started=time.time())
        assert to_reload(hooks_dir, tmp_path / "proc") == ()

    def test_system_daemon_is_reloaded_by_systemd(self) -> None:
        assert LIBVIRTD.reload == "systemctl reload libvirtd"

    def test_session_daemon_by_its_process(self) -> None:
        assert Daemon("virtqemud", 4711, 1000, 0.0).reload == "kill -HUP 4711"


class TestDaemons:
    """libvirt's daemons are found in /proc."""

    def test_start_time_is_boot_time_and_ticks(self, tmp_path: Path) -> None:
        daemon_in(tmp_path, "virtqemud", pid=812, started=1_700_000_000)
        assert daemons(tmp_path) == (Daemon("virtqemud", 812, os.geteuid(), 1_700_000_000.0),)

    def test_others_are_passed_over(self, tmp_path: Path) -> None:
        for pid, name in enumerate(["libvirtd", "virtlogd", "libvirtd-tls", "qemu-system-aar"], 1):
            daemon_in(tmp_path, name, pid=pid, started=1_700_000_000)
        assert [daemon.pid for daemon in daemons(tmp_path)] == [1]

    def test_one_that_ends_meanwhile(self, tmp_path: Path) -> None:
        daemon_in(tmp_path, "libvirtd", pid=812, started=1_700_000_000)
        (tmp_path / "812/stat").unlink()
        assert daemons(tmp_path) == ()

    def test_a_process_started_when_this_machine_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as child:
            assert child.stdin and child.stdout
            child.stdin.write(b"x")
            child.stdout.read(1)  # now it runs under its own name
            monkeypatch.setattr(dropin, "DAEMONS", ("cat",))
            found = {daemon.pid: daemon.started for daemon in daemons()}
            child.stdin.close()
        assert abs(found[child.pid] - time.time()) < 5


class TestVersion:
    """libvirt's version is what its daemon says."""

    def stub(self, directory: Path, name: str, prints: str) -> None:
        """A stub in place of the daemon."""
        (directory / name).write_text(f"#!/bin/sh\n[ $1 = --version ] && {prints}\n")
        (directory / name).chmod(0o755)

    @pytest.mark.parametrize("name", ["libvirtd", "virtqemud"])
    def test_told(self, tmp_path: Path, name: str) -> None:
        self.stub(tmp_path, name, f"echo '/usr/sbin/{name} (libvirt) 11.3.0'")
        assert libvirt_version((str(tmp_path),)) == (11, 3, 0)

    @pytest.mark.parametrize("prints", ["echo libvirt", "false", "echo '(libvirt) 11.3.0' && false"])
    def test_not_told(self, tmp_path: Path, prints: str) -> None:
        self.stub(tmp_path, "libvirtd", prints)
        assert libvirt_version((str(tmp_path),)) is None

    def test_no_libvirt(self, tmp_path: Path) -> None:
        assert libvirt_version((str(tmp_path),)) is None


class TestCommand:
    """``vgicmgr hook``: 0 it is in place or done, 1 libvirt does not run it, 2 it could not be done."""

    @pytest.fixture(autouse=True)
    def host(self, hooks_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A host with libvirt 11.3.0 and a libvirtd that was started before there was any hook."""
        monkeypatch.setattr(dropin, "libvirt_version", lambda: (11, 3, 0))
        monkeypatch.setattr(dropin, "daemons", lambda proc: (LIBVIRTD,))
        monkeypatch.setattr(hook, "_guests", lambda uri: "libvirt cannot be reached")
        for function in (dropin_path, state, install, uninstall, to_reload):
            monkeypatch.setattr(function, "__defaults__", (hooks_dir, *(function.__defaults__ or ())[1:]))

    def test_from_nothing_to_nothing(self, hooks_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = dropin_path(hooks_dir)
        reload = (
            "libvirtd (process 812) may have been started before it had any hook to see; "
            "unless it was reloaded since: systemctl reload libvirtd\n"
        )
        for verb, status, said in (
            ("status", 1, f"{path}: not installed\n{NOT_COUNTED}"),
            ("install", 0, f"{path}: installed\n{reload}"),
            ("status", 0, f"{path}: installed\n{reload}{NOT_COUNTED}"),
            ("install", 0, f"{path}: installed already\n{reload}"),
            ("uninstall", 0, f"{path}: removed\n"),
            ("uninstall", 0, f"{path}: was not installed\n"),
            ("status", 1, f"{path}: not installed\n{NOT_COUNTED}"),
        ):
            assert cli.main(["hook", verb]) == status
            assert capsys.readouterr() == (said, "")

    def test_no_reload_where_another_hook_has_long_been(
        self, hooks_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        foreign(hooks_dir / "qemu")
        monkeypatch.setattr(dropin, "daemons", lambda proc: (Daemon("libvirtd", 812, 0, time.time() + 60),))
        assert cli.main(["hook", "install"]) == 0
        assert capsys.readouterr() == (f"{dropin_path(hooks_dir)}: installed\n", "")

    def test_another_version(self, hooks_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        foreign(dropin_path(hooks_dir), SOURCE.read_text() + "# older\n")
        assert cli.main(["hook", "status"]) == 0
        out = capsys.readouterr().out
        assert "installed, but by another version of vgicmgr or for another Python\n" in out
        assert "vgicmgr hook install\n" in out

    @pytest.mark.parametrize("verb", ["install", "uninstall"])
    def test_somebody_elses(self, hooks_dir: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
        path = foreign(dropin_path(hooks_dir))
        assert cli.main(["hook", verb]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"vgicmgr: {path} is not vgicmgr's and is left as it is")

    def test_status_of_somebody_elses(self, hooks_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = foreign(dropin_path(hooks_dir))
        assert cli.main(["hook", "status"]) == 1
        assert capsys.readouterr() == (f"{path}: not vgicmgr's file\n{NOT_COUNTED}", "")

    def test_status_tells_what_is_wrong_with_the_policy(
        self, hooks_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        foreign(hooks_dir / "qemu")
        install(hooks_dir)
        policy = tmp_path / "vgicmgr.conf"
        monkeypatch.setattr(read_policy, "__defaults__", (str(policy),))
        monkeypatch.setattr(dropin, "daemons", lambda proc: ())
        for text, status, said in (
            ("[findings]\npmu-counters = off\n", 0, ""),
            (
                "[findings]\npmu-counter = off\n",
                0,
                f"{POLICY_FILE}: no finding of this version is called 'pmu-counter'; did you mean 'pmu-counters'?\n",
            ),
            (
                "[findings]\nits-save = off\npmu-off = off\n",
                0,
                f"{POLICY_FILE}: 'its-save' is a finding of check-migration, which the policy does not decide about\n",
            ),
            ("[hook]\nmod = off\n", 1, f"the policy {policy} cannot be understood: unknown key 'mod' in [hook]\n"),
        ):
            policy.write_text(text)
            assert cli.main(["hook", "status"]) == status
            assert capsys.readouterr() == (f"{dropin_path(hooks_dir)}: installed\n{said}{NOT_COUNTED}", "")

    def test_old_libvirt(
        self, hooks_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        install(hooks_dir)
        monkeypatch.setattr(dropin, "libvirt_version", lambda: (6, 0, 0))
        assert cli.main(["hook", "status"]) == 1
        assert "libvirt 6.0.0 does not read it, only 6.5.0 and later do\n" in capsys.readouterr().out
        assert cli.main(["hook", "install"]) == 2

    def test_unknown_libvirt(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(dropin, "libvirt_version", lambda: None)
        assert cli.main(["hook", "install"]) == 0
        assert "libvirt's version cannot be told; the drop-in needs 6.5.0 or later\n" in capsys.readouterr().out
