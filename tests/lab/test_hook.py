"""The hook under a real libvirtd: what the operator sees, what the policy changes, and what it never disturbs."""

import re
from collections.abc import Iterator

import pytest

from tests.lab.conftest import LabHost
from tests.lab.connection import Result
from tests.lab.domains import Guest
from tests.lab.host import Host
from tests.lab.spec import HOSTS

FITS = Guest("fits", gic="<gic version='3'/>")
DOES_NOT_FIT = Guest("no-fit", gic="<gic version='2'/>")
POLICY = "/etc/vgicmgr/vgicmgr.conf"
DROP_IN = "/etc/libvirt/hooks/qemu.d/50-vgicmgr"
VGICMGR = ["python3", "-m", "vgicmgr.cli"]


@pytest.fixture(params=["bookworm", "trixie", "sid"], scope="module")
def host(request: pytest.FixtureRequest, lab_host: LabHost) -> Iterator[Host]:
    """A host without GICv2, with the hook in place and libvirtd running."""
    host = lab_host(HOSTS[request.param])
    host.run([*VGICMGR, "hook", "install"], check=True)
    host.show_hooks()
    yield host
    host.run([*VGICMGR, "hook", "uninstall"], check=True)
    host.reload_libvirtd()


@pytest.fixture(autouse=True)
def clean(host: Host) -> Iterator[None]:
    """No guest and no policy is left from the test before."""
    yield
    host.run(["sh", "-c", f"rm -f {POLICY}; virsh list --name | xargs -r -n1 virsh destroy"], check=True)


def create(host: Host, guest: Guest) -> Result:
    host.push("/tmp/guest.xml", guest.xml())
    return host.run(["virsh", "create", "--paused", "/tmp/guest.xml"])


def hook(host: Host, operation: str, xml: bytes | str = b"") -> Result:
    return host.run([DROP_IN, "guest", operation, "begin", "-"], stdin=xml)


def test_a_domain_that_fits_starts(host: Host) -> None:
    assert create(host, FITS).exit_code == 0


def test_a_domain_that_does_not_fit_is_refused_before_qemu_starts(host: Host) -> None:
    host.run(["rm", "-f", "/var/log/libvirt/qemu/no-fit.log"], check=True)
    result = create(host, DOES_NOT_FIT)
    assert result.exit_code == 1
    assert "Hook script execution failed" in result.stderr
    assert "vgicmgr: domain 'no-fit' cannot start here: <gic version='2'/> is asked for" in result.stderr
    assert "KVM_DEV_TYPE_ARM_VGIC_V2: ENODEV" in result.stderr
    assert "set <gic version='3'/>" in result.stderr
    assert "starting up" not in host.run(["cat", "/var/log/libvirt/qemu/no-fit.log"]).stdout


@pytest.mark.parametrize(
    "policy", ["[hook]\nmode = warn\n", "[hook]\nmode = off\n", "[findings]\ngic-version-unsupported = warn\n"]
)
def test_a_policy_that_does_not_enforce_leaves_the_refusal_to_qemu(host: Host, policy: str) -> None:
    host.push(POLICY, policy)
    result = create(host, DOES_NOT_FIT)
    assert result.exit_code == 1
    assert "Hook script" not in result.stderr
    assert "GICv2 emulation" in result.stderr


def test_a_policy_that_cannot_be_understood_refuses_and_says_why(host: Host) -> None:
    host.push(POLICY, "[hook]\nmode = perhaps\n")
    result = create(host, FITS)
    assert result.exit_code == 1
    assert f"the policy {POLICY} cannot be understood: 'mode' is 'perhaps'" in result.stderr


def test_a_restarted_daemon_keeps_its_running_guests(host: Host) -> None:
    """libvirt runs the hook with 'reconnect' then, and kills the guest where it fails."""
    create(host, FITS)
    host.push(POLICY, "nonsense")
    host.stop_libvirtd()
    host.start_libvirtd()
    assert host.run(["virsh", "domstate", "fits"], check=True).stdout.strip() == "paused"


OTHERS = ("start", "started", "stopped", "release", "reconnect", "from-the-future")


@pytest.mark.parametrize("operation", OTHERS)
def test_other_operations_pass_whatever_they_get(host: Host, operation: str) -> None:
    result = hook(host, operation, "<domain")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


BOMB = (
    b'<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    b"<domain type='kvm'><name>&b;</name></domain>"
)


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        (b"", "the domain XML is empty"),
        (FITS.xml().encode()[:200], "the domain XML is malformed"),
        (b"\xff\xfe\x00garbage", "the domain XML is not in UTF-8"),
        (BOMB, "DOCTYPE"),
        (b"<domain type='kvm'>" + b" " * (9 << 20), "larger than 8 MiB"),
        (b"<network/>", "its root is not <domain>"),
    ],
    ids=["nothing", "truncated", "garbage", "entities", "huge", "no domain"],
)
def test_xml_that_cannot_be_read_is_one_line_and_a_refusal(host: Host, xml: bytes, why: str) -> None:
    result = hook(host, "prepare", xml)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "since it cannot be judged: " in result.stderr
    assert why in result.stderr


def test_a_missing_standard_input_does_not_hang(host: Host) -> None:
    result = host.run(["sh", "-c", f"{DROP_IN} guest prepare begin - <&-"], timeout=30)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


def test_an_emulated_guest_passes_in_silence(host: Host) -> None:
    emulated = Guest(gic="<gic version='2'/>", domain_type="qemu")
    result = hook(host, "prepare", emulated.xml())
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_a_daemon_without_root_is_not_harmed(host: Host) -> None:
    """qemu:///session runs the same file as its user, who may not be allowed to open /dev/kvm."""
    host.run(["chmod", "0600", "/dev/kvm"], check=True)
    command = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        DROP_IN,
        "guest",
        "prepare",
        "begin",
        "-",
    ]
    result = host.run(command, stdin=DOES_NOT_FIT.xml())
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


LISTENER = """
import socket
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind("/dev/log")
print("listening", flush=True)
server.settimeout(30)
line = "record domain="
while "record domain=" in line:  # of writers that other tests have started
    line = server.recv(65536).decode()
print(line)
"""


def test_a_refusal_is_logged_in_one_line_without_xml(host: Host) -> None:
    listener = LISTENER.replace('"', "'")
    host.push("/tmp/guest.xml", DOES_NOT_FIT.xml())
    script = (
        f'rm -f /dev/log; python3 -c "{listener}" >/tmp/log & '
        "until grep -q listening /tmp/log 2>/dev/null; do sleep 0.1; done; "
        f"{DROP_IN} no-fit prepare begin - </tmp/guest.xml 2>/dev/null; wait; cat /tmp/log; rm -f /dev/log"
    )
    lines = host.run(["sh", "-c", script], check=True).stdout.splitlines()
    assert lines[0] == "listening"
    assert len(lines) == 2
    assert re.search(r"vgicmgr\[\d+\]: prepare domain='no-fit' uuid='[^']*' decision=refused", lines[1])
    assert "refused=gic-version-unsupported" in lines[1]
    assert "<domain" not in lines[1]
