"""``vgicmgr hook``: have libvirt ask vgicmgr before it starts a guest."""

from argparse import Namespace, _SubParsersAction
from typing import TYPE_CHECKING

from vgicmgr import dropin
from vgicmgr.dropin import State
from vgicmgr.errors import PolicyError
from vgicmgr.findings import CATALOGUE, near_match
from vgicmgr.policy import FINDINGS, POLICY_FILE, read_policy

if TYPE_CHECKING:
    from argparse import ArgumentParser


def add_parser(commands: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its verbs."""
    parser = commands.add_parser(
        "hook",
        help="have libvirt ask vgicmgr before it starts a guest",
        description=f"Put the drop-in {dropin.dropin_path()} in place, by which libvirt asks vgicmgr before it starts "
        "a guest; tell whether it is there; take it away. What is done about a guest that does not fit is set in "
        "/etc/vgicmgr/vgicmgr.conf. Exits 0 when it is done or in place, 1 when 'status' finds that libvirt does not "
        "run it or the policy cannot be read, 2 when it could not be done.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for run_verb, words in (
        (install, "put the drop-in in place, or bring it up to date"),
        (status, "tell whether libvirt runs it"),
        (uninstall, "take the drop-in away"),
    ):
        verb = verbs.add_parser(run_verb.__name__, help=words, description=f"{words[:1].upper()}{words[1:]}.")
        verb.set_defaults(run=run, verb=run_verb)


def run(options: Namespace) -> int:
    """Carry out the verb; raises :class:`~vgicmgr.errors.HookInstallError`."""
    exit_status: int = options.verb()
    return exit_status


def install() -> int:
    """Put the drop-in in place and say what is left to do."""
    version = dropin.libvirt_version()
    waiting = dropin.to_reload()
    changed = dropin.install(version=version)
    print(f"{dropin.dropin_path()}: {'installed' if changed else 'installed already'}")
    _say_what_is_left(version, waiting if changed else dropin.to_reload())
    return 0


def status() -> int:
    """Say what stands there, and whether libvirt sees it."""
    state = dropin.state()
    print(f"{dropin.dropin_path()}: {state.value}")
    if state is State.DIFFERENT:
        print("to bring it up to date: vgicmgr hook install")
    if state not in (State.INSTALLED, State.DIFFERENT):
        return 1
    version = dropin.libvirt_version()
    _say_what_is_left(version, dropin.to_reload())
    return 0 if _policy_can_be_read() and dropin.reads_dropins(version) is not False else 1


def _policy_can_be_read() -> bool:
    """Say what is wrong with the policy, if something is."""
    try:
        policy = read_policy()
    except PolicyError as error:
        print(error)
        return False
    for name in sorted(policy.findings.keys() - FINDINGS):
        print(f"{POLICY_FILE}: {_why_without_effect(name)}")
    return True


def _why_without_effect(name: str) -> str:
    if entry := CATALOGUE.get(name):
        stages = " and ".join(stage.value for stage in entry.stages)
        return f"'{name}' is a finding of {stages}, which the policy does not decide about"
    near = near_match(name)
    return f"no finding of this version is called '{name}'" + (f"; did you mean '{near}'?" if near else "")


def uninstall() -> int:
    """Take the drop-in away."""
    removed = dropin.uninstall()
    print(f"{dropin.dropin_path()}: {'removed' if removed else 'was not installed'}")
    return 0


def _say_what_is_left(version: tuple[int, ...] | None, waiting: tuple[dropin.Daemon, ...]) -> None:
    reads = dropin.reads_dropins(version)
    if reads is None:
        print("libvirt's version cannot be told; the drop-in needs 6.5.0 or later")
    elif not reads:
        print(f"libvirt {'.'.join(map(str, version or ()))} does not read it, only 6.5.0 and later do")
    for daemon in waiting:
        print(
            f"{daemon.name} (process {daemon.pid}) may have been started before it had any hook to see; "
            f"unless it was reloaded since: {daemon.reload}"
        )
