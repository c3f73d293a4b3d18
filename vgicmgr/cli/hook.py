"""``vgicmgr hook``: have libvirt ask vgicmgr before it starts a guest."""

from argparse import Namespace, _SubParsersAction
from typing import TYPE_CHECKING

from vgicmgr import dropin
from vgicmgr.dataclass import replace
from vgicmgr.dropin import State
from vgicmgr.errors import PolicyError
from vgicmgr.findings import CATALOGUE, near_match
from vgicmgr.policy import FINDINGS, POLICY_FILE, read_policy

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import Any

    from vgicmgr.migration.survey import Found, Seen


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
        (status, "tell whether libvirt runs it, and count the running guests that have a good ABI record"),
        (uninstall, "take the drop-in away"),
    ):
        verb = verbs.add_parser(run_verb.__name__, help=words, description=f"{words[:1].upper()}{words[1:]}.")
        if run_verb is status:
            verb.add_argument("--format", choices=("text", "json"), default="text")
            verb.add_argument(
                "--connect",
                metavar="URI",
                default="qemu:///system",
                help="whose guests to count (default: %(default)s)",
            )
        verb.set_defaults(run=run, verb=run_verb)


def run(options: Namespace) -> int:
    """Carry out the verb; raises :class:`~vgicmgr.errors.HookInstallError`."""
    exit_status: int = options.verb(options)
    return exit_status


def install(_: Namespace) -> int:
    """Put the drop-in in place and say what is left to do."""
    version = dropin.libvirt_version()
    waiting = dropin.to_reload()
    changed = dropin.install(version=version)
    print(f"{dropin.dropin_path()}: {'installed' if changed else 'installed already'}")
    _say_what_is_left(version, waiting if changed else dropin.to_reload())
    return 0


def status(options: Namespace) -> int:
    """Say what stands there, whether libvirt sees it, and what the guests that run here have for a record."""
    state = dropin.state()
    there = state in (State.INSTALLED, State.DIFFERENT)
    policy, policy_is_good = _policy_lines()
    version = dropin.libvirt_version() if there else None
    waiting = dropin.to_reload() if there else ()
    guests = _guests(options.connect)
    if options.format == "json":
        import json

        document = {
            "document": "vgicmgr hook status",
            "version": 1,
            "drop_in": {"path": str(dropin.dropin_path()), "state": state.name.lower().replace("_", "-")},
            "reload": [daemon.reload for daemon in waiting],
            "policy": policy,
            "guests": _guests_member(guests),
        }
        print(json.dumps(document, indent=2))
    else:
        print(f"{dropin.dropin_path()}: {state.value}")
        if state is State.DIFFERENT:
            print("to bring it up to date: vgicmgr hook install")
        if there:
            _say_what_is_left(version, waiting)
            for line in policy:
                print(line)
        _say_guests(guests)
    return 0 if there and policy_is_good and dropin.reads_dropins(version) is not False else 1


def _guests(uri: str) -> "tuple[Found, ...] | str":
    """What the guests that run here have for a record, or why they could not be asked for."""
    from vgicmgr.domain.connection import connect
    from vgicmgr.errors import CannotTell, VgicmgrError
    from vgicmgr.migration.survey import survey

    try:
        with connect(uri) as connection:
            seen = [one for domain in connection.running_domains() if (one := _seen(domain)) is not None]
    except VgicmgrError as error:
        return error.message if isinstance(error, CannotTell) else str(error)
    failed = dropin.failed_units() if seen else frozenset()
    seen = [replace(one, unit_failed=one.guest.name in failed) for one in seen]
    return survey(seen, dropin.installed_since())


def _seen(domain: "Any") -> "Seen | None":
    """One of them; None where it has ended meanwhile."""
    from vgicmgr.domain.connection import LibvirtError, refusals
    from vgicmgr.domain.xml import read_domain
    from vgicmgr.errors import DomainXMLError
    from vgicmgr.migration.survey import Seen
    from vgicmgr.migration.writer import origin_of
    from vgicmgr.qemu.process import find_process

    try:
        with refusals("a running domain"):
            guest = read_domain(domain.XMLDesc(0).encode())
        process = find_process(guest.name, guest.uuid)
        return Seen(guest, origin_of(domain, guest, process), process)
    except (LibvirtError, DomainXMLError):
        return None


def _guests_member(guests: "tuple[Found, ...] | str") -> "dict[str, Any]":
    from vgicmgr.migration.survey import Standing

    if isinstance(guests, str):
        return {"asked": False, "why": guests}
    counts = {standing.value: sum(one.standing is standing for one in guests) for standing in Standing}
    return {
        "asked": True,
        "count": len(guests),
        "records": counts,
        "list": [{"name": one.name, "record": one.standing.value, "why": one.why} for one in guests],
    }


def _say_guests(guests: "tuple[Found, ...] | str") -> None:
    from vgicmgr.hook import printable, quoted
    from vgicmgr.migration.survey import Standing

    if isinstance(guests, str):
        print(f"the guests that run here could not be counted: {printable(guests)}")
        return
    counts = ", ".join(f"{sum(one.standing is standing for one in guests)} {standing.words}" for standing in Standing)
    print(f"{len(guests)} arm64 KVM guest{'' if len(guests) == 1 else 's'} running{f': {counts}' if guests else ''}")
    for one in guests:
        if one.standing is not Standing.GOOD:
            print(f"  {quoted(one.name)} {one.standing.words}: {printable(one.why)}")


def _policy_lines() -> tuple[list[str], bool]:
    """What is wrong with the policy, and whether it can be read."""
    try:
        policy = read_policy()
    except PolicyError as error:
        return [str(error)], False
    unknown = sorted(policy.findings.keys() - FINDINGS)
    return [f"{POLICY_FILE}: {_why_without_effect(name)}" for name in unknown], True


def _why_without_effect(name: str) -> str:
    if entry := CATALOGUE.get(name):
        stages = " and ".join(stage.value for stage in entry.stages)
        return f"'{name}' is a finding of {stages}, which the policy does not decide about"
    near = near_match(name)
    return f"no finding of this version is called '{name}'" + (f"; did you mean '{near}'?" if near else "")


def uninstall(_: Namespace) -> int:
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
