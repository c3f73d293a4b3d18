"""The systemd unit that writes a guest's record; the lab runs it under a real systemd."""

import configparser
from argparse import ArgumentParser
from pathlib import Path

from vgicmgr.cli.record import add_parser

UNIT = Path(__file__).parents[2] / "packaging/vgicmgr-record@.service"


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return parser


def test_it_ends_by_itself() -> None:
    """systemd.unit(5): the limit is of [Unit]; the writer alone tries again (I3)."""
    parser = unit()
    assert parser["Unit"]["StartLimitIntervalSec"] == "60"
    assert 1 < int(parser["Unit"]["StartLimitBurst"]) <= 20
    assert "Restart" not in parser["Service"]


def test_the_guests_name_is_its_own() -> None:
    """systemd.service(5): a ':' before the program keeps systemd from putting variables into a name like $HOME."""
    line = unit()["Service"]["ExecStart"]
    assert line.startswith(":/usr/bin/vgicmgr record write ")
    assert line.endswith(" -- %I")


def test_its_command_is_one() -> None:
    words = unit()["Service"]["ExecStart"].split()
    parser = ArgumentParser()
    add_parser(parser.add_subparsers())
    options = parser.parse_args([*words[1:-1], "-rf $HOME"])
    assert (options.domain, options.retry, options.force) == ("-rf $HOME", True, False)


def test_it_can_see_qemu_and_pin_itself() -> None:
    """QEMU's command line and the pinning to the guest's CPUs are what it needs beyond libvirt and KVM (G4, G6)."""
    service = unit()["Service"]
    assert service.get("ProtectProc", "default") == "default"
    assert service.get("ProcSubset", "all") == "all"
    assert "@resources" not in service.get("SystemCallFilter", "")
