"""``vgicmgr check-restore``: what lies saved, by a libvirt that stands in for one; what comes back, by fake kernels."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.fakes.hosts import NEOVERSE_N1, HostKind
from tests.fakes.kernel import FakeKernel, install, pretend_arm64
from tests.unit.migration.examples import boot, document_of, domain_xml, kernel_of, with_record
from vgicmgr.cli import main
from vgicmgr.dataclass import replace
from vgicmgr.domain.xml import read_domain
from vgicmgr.host import kernel as host_kernel
from vgicmgr.migration.arrival import check_arrival
from vgicmgr.migration.restore import SCHEMA, ImageKind, SavedGuest, check_restore

SMALL = replace(NEOVERSE_N1, pmu=False, el1_32bit=False)
"""With one set of vCPU features only, whose document is soon made."""
OTHER = SMALL.with_registers(MIDR_EL1=0x411FD070)
"""Of another CPU, which its guests have seen."""
Output = pytest.CaptureFixture[str]
NO_DOMAIN = 42


class Refusal(Exception):
    """What stands for libvirt.libvirtError."""

    def get_error_code(self) -> int:
        return int(self.args[0])

    def __str__(self) -> str:
        return str(self.args[1])


class Snapshot:
    """A virDomainSnapshot."""

    def __init__(self, name: str, xml: str | Refusal) -> None:
        self.name, self.xml = name, xml

    def getName(self) -> str:
        return self.name

    def getXMLDesc(self, flags: int) -> str:
        return given(self.xml, flags)


class Domain:
    """A virDomain, with what it has saved."""

    def __init__(self, name: str, managed_save: str | Refusal | None = None, **snapshots: str | Refusal) -> None:
        self._name, self.managed_save = name, managed_save
        self.snapshots = {label: Snapshot(label, xml) for label, xml in snapshots.items()}
        self.gone = False

    def name(self) -> str:
        return self._name

    def hasManagedSaveImage(self, flags: int) -> int:
        assert flags == 0
        if self.gone:
            raise Refusal(NO_DOMAIN, "Domain not found")
        return int(self.managed_save is not None)

    def managedSaveGetXMLDesc(self, flags: int) -> str:
        assert self.managed_save is not None
        return given(self.managed_save, flags)

    def listAllSnapshots(self, flags: int) -> list[Snapshot]:
        assert flags == 0
        return list(self.snapshots.values())

    def snapshotLookupByName(self, name: str, flags: int) -> Snapshot:
        assert flags == 0
        return self.snapshots[name]


def given(xml: str | Refusal, flags: int) -> str:
    assert flags == 0, "what is secret is not asked for"
    if isinstance(xml, Refusal):
        raise xml
    return xml


class Daemon:
    """A libvirtd: its domains, and the files of saved guests on its host."""

    def __init__(self, *domains: Domain, **files: str) -> None:
        self.domains, self.files = list(domains), {f"/srv/{name}": xml for name, xml in files.items()}
        self.read_only: list[bool] = []

    def opened(self, *, read_only: bool) -> "Daemon":
        self.read_only.append(read_only)
        return self

    def listAllDomains(self, flags: int) -> list[Domain]:
        assert flags == 0
        found = list(self.domains)
        self.domains = [domain for domain in self.domains if not domain.gone]
        return found

    def lookupByName(self, name: str) -> Domain:
        for domain in self.domains:
            if domain.name() == name:
                return domain
        raise Refusal(NO_DOMAIN, f"Domain not found: {name}")

    def lookupByUUIDString(self, uuid: str) -> Domain:
        raise Refusal(8, "invalid UUID")

    def saveImageGetXMLDesc(self, path: str, flags: int) -> str:
        """As libvirt has it (virDomainSaveImageGetXMLDesc, virCheckReadOnlyGoto)."""
        assert flags == 0
        if self.read_only[-1]:
            raise Refusal(38, "operation forbidden: read only access prevents virDomainSaveImageGetXMLDesc")
        if path not in self.files:
            raise Refusal(38, "Failed to open file")
        return self.files[path]

    def close(self) -> None:
        pass


@pytest.fixture
def libvirt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Daemon], Daemon]:
    """Have this libvirtd connected to."""

    def put(daemon: Daemon) -> Daemon:
        module = ModuleType("libvirt")
        members = {
            "libvirtError": Refusal,
            "VIR_ERR_NO_DOMAIN": NO_DOMAIN,
            "registerErrorHandler": lambda _handler, _context: None,
            "open": lambda _uri: daemon.opened(read_only=False),
            "openReadOnly": lambda _uri: daemon.opened(read_only=True),
        }
        for name, member in members.items():
            setattr(module, name, member)
        monkeypatch.setitem(sys.modules, "libvirt", module)
        return daemon

    return put


Libvirt = Callable[[Daemon], Daemon]


@pytest.fixture
def this_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKernel]:
    """We are on such a host."""
    pretend_arm64(monkeypatch)
    kernel = install(monkeypatch, FakeKernel(SMALL))
    yield kernel
    assert kernel.open_descriptors() == []


def guest(kind: HostKind) -> str:
    """The domain XML that libvirt keeps with the memory of a guest that was booted on such a host."""
    return with_record(boot(kind)).decode()


GOOD, BAD = guest(SMALL), guest(OTHER)


def snapshot(xml: str, state: str = "running", memory: str = "<memory snapshot='internal'/>", more: str = "") -> str:
    """As libvirt writes one (virDomainSnapshotDefFormatInternal)."""
    return (
        f"<domainsnapshot><name>s</name><description>&lt;domain&gt;</description><state>{state}</state>{memory}"
        f"<disks><disk name='vda' snapshot='internal'/></disks>{xml}{more}</domainsnapshot>"
    )


def inactive(xml: str) -> str:
    return xml.replace("<domain ", "<inactiveDomain ").replace("</domain>", "</inactiveDomain>")


EXTERNAL = "<memory snapshot='external' file='/srv/s.mem'/>"


class TestWhatIsFound:
    def test_every_kind(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        libvirt(Daemon(Domain("db", GOOD), Domain("a", None, i=snapshot(GOOD), e=snapshot(GOOD, memory=EXTERNAL))))
        assert main(["check-restore"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "web1  external snapshot 'e'  comes back",
            "web1  internal snapshot 'i'  comes back",
            "web1  managed save           comes back",
            "3 of 3 saved guests would come back under Linux 6.12.0",
        ]

    def test_nothing(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        libvirt(Daemon(Domain("a")))
        assert main(["check-restore"]) == 0
        assert capsys.readouterr().out == "no guest lies saved with its memory\n"

    @pytest.mark.parametrize("state", ["running", "paused"])
    def test_snapshots_whose_memory_is_loaded(
        self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output, state: str
    ) -> None:
        """qemuSnapshotRevert starts QEMU with the state for these two (VIR_DOMAIN_SNAPSHOT_RUNNING, _PAUSED)."""
        libvirt(Daemon(Domain("a", None, s=snapshot(BAD, state))))
        assert main(["check-restore"]) == 1

    @pytest.mark.parametrize(
        ("state", "memory"),
        [
            ("shutoff", "<memory snapshot='no'/>"),
            ("shutdown", "<memory snapshot='no'/>"),
            ("crashed", "<memory snapshot='internal'/>"),
            ("disk-snapshot", "<memory snapshot='no'/>"),
            ("disk-snapshot", ""),
        ],
    )
    def test_snapshots_without_memory(
        self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output, state: str, memory: str
    ) -> None:
        libvirt(Daemon(Domain("a", None, s=snapshot(BAD, state, memory))))
        assert main(["check-restore"]) == 0
        assert capsys.readouterr().out == "no guest lies saved with its memory\n"

    def test_an_old_snapshot_does_not_say_where_its_memory_is(
        self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output
    ) -> None:
        """It is internal (virDomainSnapshotDefParse)."""
        libvirt(Daemon(Domain("a", None, s=snapshot(BAD, memory=""))))
        assert main(["check-restore"]) == 1
        assert "internal snapshot 's'" in capsys.readouterr().out

    @pytest.mark.parametrize(("ran", "later", "status"), [(GOOD, BAD, 0), (BAD, GOOD, 1)])
    def test_the_definition_that_ran_counts(
        self, libvirt: Libvirt, this_host: FakeKernel, ran: str, later: str, status: int
    ) -> None:
        """<inactiveDomain> is what the guest would have been started with the next time."""
        libvirt(Daemon(Domain("a", None, s=snapshot(ran, more=inactive(later)))))
        assert main(["check-restore"]) == status

    def test_a_domain_by_name(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        daemon = libvirt(Daemon(Domain("a", BAD), Domain("b", GOOD)))
        assert main(["check-restore", "b"]) == 0
        assert main(["check-restore", "b", "a"]) == 1
        assert daemon.read_only == [True, True]

    @pytest.mark.parametrize("arguments", [["/srv/image"], ["--file", "/srv/image"]])
    def test_a_file(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output, arguments: list[str]) -> None:
        libvirt(Daemon(Domain("a", GOOD), image=BAD))
        assert main(["check-restore", *arguments]) == 1
        assert capsys.readouterr().out.startswith("web1  saved image /srv/image  does not  ")

    def test_a_name_that_is_no_domain(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        libvirt(Daemon())
        assert main(["check-restore", "image"]) == 2
        assert "Domain not found" in capsys.readouterr().err

    def test_a_domain_that_is_gone_before_it_is_asked(self, libvirt: Libvirt, this_host: FakeKernel) -> None:
        gone = Domain("a", BAD)
        gone.gone = True
        libvirt(Daemon(gone, Domain("b", GOOD)))
        assert main(["check-restore"]) == 0


class TestTheAnswer:
    def test_one_that_does_not_come_back(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        libvirt(Daemon(Domain("a", GOOD, s=snapshot(BAD))))
        assert main(["check-restore"]) == 1
        first, second, last = capsys.readouterr().out.splitlines()
        assert first == "web1  managed save           comes back"
        assert second.startswith("web1  internal snapshot 's'  does not    MIDR_EL1")
        assert second.endswith(" [register-value]")
        assert last == "1 of 2 saved guests would not come back under Linux 6.12.0"

    def test_the_worst_comes_first(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        """A warning is found before the error."""
        record = replace(boot(OTHER), counter_frequency=None)
        libvirt(Daemon(Domain("a", with_record(record).decode())))
        assert main(["check-restore", "--format", "json"]) == 1
        found = json.loads(capsys.readouterr().out)["saved"][0]["findings"]
        assert [one["severity"] for one in found] == ["error", "warning"]

    def test_all_findings_and_what_to_do(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        libvirt(Daemon(Domain("a", BAD), Domain("b", GOOD)))
        assert main(["check-restore", "-v"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "web1  managed save  does not"
        assert lines[1].startswith("  error: MIDR_EL1")
        assert "[register-value]; use a host with the CPU that the guest was booted on" in lines[1]
        assert lines[2] == "web1  managed save  comes back"

    def test_without_a_record(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        """As the hook has it: let in, and said so, in the result, too."""
        libvirt(Daemon(Domain("a", domain_xml().decode()), Domain("b", GOOD)))
        assert main(["check-restore"]) == 0
        first, _, last = capsys.readouterr().out.splitlines()
        assert first.endswith(" [missing-record]")
        assert last == "2 of 2 saved guests would come back under Linux 6.12.0, 1 of them judged by its XML alone"

    def test_with_a_record_that_is_not_its_own(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        libvirt(Daemon(Domain("a", BAD.replace("<vcpu>4</vcpu>", "<vcpu>2</vcpu>"))))
        assert main(["check-restore"]) == 0
        first, last = capsys.readouterr().out.splitlines()
        assert first.endswith(" [record-of-another-boot]")
        assert last.endswith(", 1 of them judged by its XML alone")

    def test_other_guests(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        libvirt(Daemon(Domain("a", BAD.replace("type='kvm'", "type='qemu'"))))
        assert main(["check-restore"]) == 0
        assert "comes back  it is no arm64 KVM guest" in capsys.readouterr().out

    def test_another_host_by_its_document(
        self, libvirt: Libvirt, this_host: FakeKernel, tmp_path: Path, capsys: Output
    ) -> None:
        """The question before an upgrade: what this kernel takes, and that one does not."""
        (tmp_path / "host.json").write_text(json.dumps(document_of(OTHER)))
        libvirt(Daemon(Domain("a", GOOD)))
        assert main(["check-restore"]) == 0
        this_host.requests.clear()
        assert main(["check-restore", "--host", str(tmp_path / "host.json")]) == 1
        assert "MIDR_EL1" in capsys.readouterr().out
        assert not this_host.requests, "this kernel is not asked"

    def test_a_name_cannot_draw_on_the_terminal(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        libvirt(Daemon(Domain("a", None, **{"s\x1b[2J": snapshot(GOOD)})))
        main(["check-restore"])
        assert "\x1b" not in capsys.readouterr().out

    def test_quiet(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        libvirt(Daemon(Domain("a", BAD)))
        assert main(["check-restore", "-q"]) == 1
        assert capsys.readouterr().out == ""

    def test_one_kernel_for_all(self, libvirt: Libvirt, this_host: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[object] = []

        class Counted(host_kernel.Kernel):
            def __init__(self) -> None:
                made.append(self)
                super().__init__()

        monkeypatch.setattr(host_kernel, "Kernel", Counted)
        libvirt(Daemon(*(Domain(name, GOOD) for name in "abc")))
        assert main(["check-restore"]) == 0
        assert len(made) == 1


REFUSED = Refusal(1, "cannot read\n  the header")


class TestWhatCannotBeTold:
    """It is no no, and no reason to say nothing of the others."""

    @pytest.mark.parametrize(
        "damaged",
        [
            Domain("a", REFUSED),
            Domain("a", "<domain"),
            Domain("a", "<!DOCTYPE domain><domain/>"),
            Domain("a", None, s=REFUSED),
            Domain("a", None, s=GOOD),
            Domain("a", None, s=snapshot("")),
            Domain("a", None, s=snapshot(GOOD + GOOD)),
            Domain("a", None, s=snapshot("<domain><uuid>4f</uuid></domain>")),  # as before libvirt 0.9.5
            Domain("a", None, s="<!DOCTYPE x>" + snapshot(GOOD)),
            Domain("a", None, s=snapshot(GOOD).replace("<state>running</state>", "")),
            Domain("a", None, s=snapshot("<a>" * 2000 + "</a>" * 2000)),
        ],
    )
    def test_one_that_is_damaged(
        self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output, damaged: Domain
    ) -> None:
        libvirt(Daemon(damaged, Domain("b", GOOD)))
        assert main(["check-restore"]) == 2
        first, second, last = capsys.readouterr().out.splitlines()
        assert "  not known   " in first
        assert second.startswith("web1  managed save")
        assert second.endswith("  comes back")
        assert last == "it cannot be told whether 1 of 2 saved guests would come back under Linux 6.12.0"

    def test_a_no_beside_it_is_a_no(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        libvirt(Daemon(Domain("a", REFUSED), Domain("b", BAD)))
        assert main(["check-restore"]) == 1
        assert "cannot read the header" in capsys.readouterr().out

    def test_a_file_that_is_not_there(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        libvirt(Daemon(image=GOOD))
        assert main(["check-restore", "/srv/none", "/srv/image"]) == 2
        captured = capsys.readouterr().out
        assert captured.startswith("-     saved image /srv/none   not known   saved image '/srv/none': ")
        assert "web1  saved image /srv/image  comes back" in captured

    def test_a_kernel_that_refuses_to_be_asked(
        self, libvirt: Libvirt, this_host: FakeKernel, monkeypatch: pytest.MonkeyPatch, capsys: Output
    ) -> None:
        kernel = install(monkeypatch, FakeKernel(SMALL, refuse={("KVM_CREATE_VM", 1): errno.ENOMEM}))
        libvirt(Daemon(Domain("a", GOOD), Domain("b", GOOD)))
        assert main(["check-restore"]) == 2
        first, second, _ = capsys.readouterr().out.splitlines()
        assert "not known" in first
        assert "ENOMEM" in first
        assert second.endswith("comes back")
        assert kernel.open_descriptors() == []

    def test_a_document_that_says_too_little(
        self, libvirt: Libvirt, this_host: FakeKernel, tmp_path: Path, capsys: Output
    ) -> None:
        document = document_of(SMALL)
        del document["migration"]
        (tmp_path / "host.json").write_text(json.dumps(document))
        libvirt(Daemon(Domain("a", GOOD)))
        assert main(["check-restore", "--host", str(tmp_path / "host.json")]) == 2
        assert "not known" in capsys.readouterr().out

    def test_the_kernel_of_another_host(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> None:
        libvirt(Daemon(Domain("a", GOOD)))
        assert main(["check-restore", "-c", "qemu+ssh://away/system"]) == 2
        assert "--host FILE" in capsys.readouterr().err

    def test_a_host_that_is_not_arm64(self, libvirt: Libvirt, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
        pretend_arm64(monkeypatch, machine="x86_64")
        libvirt(Daemon(Domain("a", GOOD)))
        assert main(["check-restore"]) == 2
        assert "this host is x86_64" in capsys.readouterr().err

    def test_without_kvm(self, libvirt: Libvirt, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
        pretend_arm64(monkeypatch)
        monkeypatch.setattr("vgicmgr.kvm.system.System.__init__.__defaults__", ("/nonexistent",))
        libvirt(Daemon(Domain("a", GOOD)))
        assert main(["check-restore"]) == 2
        assert capsys.readouterr().out == ""

    def test_without_libvirts_module(
        self, this_host: FakeKernel, monkeypatch: pytest.MonkeyPatch, capsys: Output
    ) -> None:
        monkeypatch.setitem(sys.modules, "libvirt", None)
        assert main(["check-restore"]) == 2
        assert "install python3-libvirt" in capsys.readouterr().err


def test_post_copy_is_nothing_that_a_saved_guest_does() -> None:
    """Which the same guest is told of where it arrives alive."""
    saved = SavedGuest("web1", ImageKind.MANAGED_SAVE, domain=read_domain(GOOD.encode()))
    assert saved.domain is not None
    with kernel_of(SMALL, page_size=16384) as kernel:
        alive = {finding.name for finding in check_arrival(saved.domain, kernel).findings}
        here = {finding.name for finding in check_restore(saved, kernel).findings}
    assert alive - here == {"post-copy-page-size"}


class TestDocument:
    VALIDATOR = Draft202012Validator(json.loads(SCHEMA.read_text()))

    @pytest.fixture
    def document(self, libvirt: Libvirt, this_host: FakeKernel, capsys: Output) -> dict[str, object]:
        libvirt(Daemon(Domain("a", REFUSED, s=snapshot(BAD)), Domain("b", GOOD), image=GOOD))
        assert main(["check-restore", "a", "b", "/srv/image", "/srv/none", "--format", "json"]) == 1
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    def test_meets_the_schema(self, document: dict[str, object]) -> None:
        Draft202012Validator.check_schema(self.VALIDATOR.schema)
        self.VALIDATOR.validate(document)

    def test_says_what_the_text_says(self, document: dict[str, object]) -> None:
        saved = document["saved"]
        assert isinstance(saved, list)
        assert (document["document"], document["version"], document["ok"]) == ("vgicmgr restore check", 1, False)
        assert (document["host"], document["kernel"]) == ("this host", "6.12.0")
        members = ("domain", "kind", "snapshot", "memory", "path", "ok")
        assert [tuple(one[member] for member in members) for one in saved] == [
            ("a", "managed-save", None, None, None, None),
            ("web1", "snapshot", "s", "internal", None, False),
            ("web1", "managed-save", None, None, None, True),
            ("web1", "saved-image", None, None, "/srv/image", True),
            (None, "saved-image", None, None, "/srv/none", None),
        ]
        assert [finding["name"] for finding in saved[1]["findings"]] == ["register-value"]

    @pytest.mark.parametrize("member", ["document", "version", "host", "kernel", "ok", "saved"])
    def test_every_member_is_missed(self, document: dict[str, object], member: str) -> None:
        del document[member]
        with pytest.raises(ValidationError):
            self.VALIDATOR.validate(document)

    @pytest.mark.parametrize(
        "member", ["domain", "uuid", "kind", "snapshot", "memory", "path", "ok", "why", "findings"]
    )
    def test_every_member_of_a_saved_guest_is_missed(self, document: dict[str, object], member: str) -> None:
        saved = document["saved"]
        assert isinstance(saved, list)
        del saved[0][member]
        with pytest.raises(ValidationError):
            self.VALIDATOR.validate(document)


_CHILD = """
import sys, libvirt
from vgicmgr.cli import main
libvirt.registerErrorHandler(lambda *_: None, None)
xml, host, image = sys.argv[1:]
connection = libvirt.open("test:///default")
domain = connection.defineXML(xml)
domain.create()
domain.snapshotCreateXML("<domainsnapshot><name>ran</name></domainsnapshot>", 0)
domain.save(image)
domain.snapshotCreateXML("<domainsnapshot><name>off</name></domainsnapshot>", 0)
status = main(["check-restore", "-c", "test:///default", "web1", image, "--host", host, "--format", "json"])
connection.close()
sys.exit(status)
"""


@pytest.mark.skipif(find_spec("libvirt") is None, reason="libvirt-python is missing")
@pytest.mark.parametrize(("host", "status"), [(SMALL, 0), (OTHER, 1)], ids=["same", "other"])
def test_under_libvirts_own_test_driver(tmp_path: Path, host: HostKind, status: int) -> None:
    """Snapshots and images that libvirt itself writes; its test driver has no XML of managed saves."""
    (tmp_path / "host.json").write_text(json.dumps(document_of(host)))
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, GOOD, str(tmp_path / "host.json"), str(tmp_path / "image")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (child.returncode, child.stderr) == (status, "")
    saved = json.loads(child.stdout)["saved"]
    assert [(one["domain"], one["kind"], one["snapshot"], one["memory"], one["ok"]) for one in saved] == [
        ("web1", "snapshot", "ran", "internal", status == 0),
        ("web1", "saved-image", None, None, status == 0),
    ]
