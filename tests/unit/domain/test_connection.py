"""The libvirt connection as far as it needs no libvirt; with one: ``tests/lab/test_translate.py``."""

import sys
from types import ModuleType
from typing import Any

import pytest

from vgicmgr.domain.connection import LibvirtError, connect
from vgicmgr.errors import CannotTell


def test_without_the_python_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(CannotTell, match="install python3-libvirt"), connect():
        pass


class Refusal(Exception):
    """What stands for libvirt.libvirtError."""

    def get_error_code(self) -> int:
        return int(self.args[0])


class Domain:
    """A domain that tells with which flags its XML was asked for."""

    def __init__(self, *, persistent: bool) -> None:
        self.persistent = persistent

    def isPersistent(self) -> bool:
        return self.persistent

    def XMLDesc(self, flags: int) -> str:
        return f"<domain flags='{flags}'/>"


class Daemon:
    """A libvirtd with two domains."""

    closed = False

    def lookupByName(self, name: str) -> Domain:
        if name not in ("kept", "passing"):
            raise Refusal(42)
        return Domain(persistent=name == "kept")

    def lookupByUUIDString(self, uuid: str) -> Domain:
        if uuid != "3f0a4f5e-52c2-4f0e-9a0b-6d5d1f7d4c11":
            raise Refusal(8)
        return Domain(persistent=True)

    def getVersion(self) -> int:
        return 10_000_013

    def getLibVersion(self) -> int:
        return 11_003_000

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    daemon, module = Daemon(), ModuleType("libvirt")

    def openable(uri: str | None) -> Any:
        if uri == "qemu+ssh://away/system":
            raise Refusal(38, "no\n  route")
        return daemon

    members = {
        "libvirtError": Refusal,
        "VIR_ERR_NO_DOMAIN": 42,
        "VIR_DOMAIN_XML_SECURE": 1,
        "VIR_DOMAIN_XML_INACTIVE": 2,
        "registerErrorHandler": lambda _handler, _context: None,
        "open": openable,
        "openReadOnly": openable,
    }
    for name, member in members.items():
        setattr(module, name, member)
    monkeypatch.setitem(sys.modules, "libvirt", module)
    return daemon


def test_secrets_are_asked_for_only_where_they_could_be_lost(daemon: Daemon) -> None:
    with connect(read_only=True) as connection:
        assert connection.domain_xml("kept") == b"<domain flags='0'/>"
        assert connection.domain_xml("kept", persistent=True) == b"<domain flags='2'/>"
    with connect(read_only=False) as connection:
        assert connection.domain_xml("kept", persistent=True) == b"<domain flags='3'/>"
    assert daemon.closed


def test_a_domain_by_its_uuid(daemon: Daemon) -> None:
    with connect() as connection:
        assert connection.domain_xml("3f0a4f5e-52c2-4f0e-9a0b-6d5d1f7d4c11")
        assert connection.emulator_version() == (10, 0)
        assert connection.libvirt_version() == "11.3.0"


@pytest.mark.parametrize(
    ("uri", "name", "words"),
    [("", "unknown", "domain 'unknown'"), ("", "passing", "is transient"), ("qemu+ssh://away/system", "", "no")],
)
def test_refusals_are_one_line(daemon: Daemon, uri: str, name: str, words: str) -> None:
    with pytest.raises(LibvirtError) as caught, connect(uri) as connection:
        connection.domain_xml(name, persistent=True)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
