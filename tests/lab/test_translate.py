"""``translate`` and ``apply`` with real libvirt: what they write is taken, starts, and comes to the same again."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from tests.lab.addition import add
from tests.lab.conftest import LabHost
from tests.lab.domains import INITRD, KERNEL
from tests.lab.host import Host
from tests.lab.spec import HOSTS
from vgicmgr.domain.xml import read_domain

EXAMPLES = Path(__file__).parents[2] / "xml"
VGICMGR = ("python3", "-m", "vgicmgr.cli")
QEMU_SYSTEM = "qemu:///system"
WISHES = "urn:vgicmgr:domain:1"

HOST_KINDS = ("trixie", "bookworm", "sid", "gicv2")

DISKS_AND_FIRMWARE = (
    "os/loader",
    "os/nvram",
    "os/firmware",
    "os/boot",
    "resource",
    "seclabel",
    "devices/disk",
    "devices/interface",
    "devices/console",
    "devices/graphics",
    "devices/controller",
    "devices/memballoon",
    "features/acpi",  # wants firmware
    "cpu/numa",
    "maxMemory",  # memory that can grow wants NUMA cells
)
"""What the lab's hosts have not, and what has nothing to do with interrupt controllers."""


def child(parent: etree._Element, path: str) -> etree._Element:
    """The child at this path, which is made at its end where there is none."""
    found = parent.find(path)
    return found if found is not None else etree.SubElement(parent, path)


def fitted(path: Path) -> bytes:
    """An example domain, with the lab's kernel for disk and firmware, and the machine type every QEMU has."""
    domain = etree.fromstring(path.read_bytes())
    domain.attrib.pop("id", "")
    for place in DISKS_AND_FIRMWARE:
        parent = child(domain, place.rpartition("/")[0] or ".")
        for element in domain.findall(place):
            parent.remove(element)
    os = child(domain, "os")
    os.attrib.pop("firmware", "")
    child(os, "type").set("machine", "virt")
    child(os, "kernel").text = KERNEL
    child(os, "initrd").text = INITRD
    devices = child(domain, "devices")
    etree.SubElement(devices, "controller", type="usb", model="none")
    etree.SubElement(devices, "memballoon", model="none")
    return etree.tostring(domain)


def name_of(xml: bytes) -> str:
    return etree.fromstring(xml).findtext("name") or ""


ARM_EXAMPLES = [path for path in sorted(EXAMPLES.glob("*.xml")) if b"arch='aarch64'" in path.read_bytes()]


@pytest.fixture(scope="module", params=HOST_KINDS)
def host(request: pytest.FixtureRequest, lab_host: LabHost) -> Host:
    host = lab_host(HOSTS[request.param])
    host.run(["sysctl", "-qw", "vm.overcommit_memory=1"], check=True)
    host.start_libvirtd()
    return host


def translate(host: Host, *arguments: str) -> tuple[int, dict[str, Any] | None]:
    """Exit status, and the configuration without who decided what."""
    result = host.run([*VGICMGR, "translate", *arguments, "--format", "json"])
    assert result.exit_code in (0, 1), result.stderr
    configuration: dict[str, Any] | None = json.loads(result.stdout)["configuration"]
    if configuration:
        del configuration["decisions"]
    return result.exit_code, configuration


def undefine(host: Host, name: str) -> None:
    host.run(["virsh", "destroy", name])
    host.run(["virsh", "undefine", name])


def virsh_define(host: Host, xml: bytes) -> None:
    host.push("/tmp/domain.xml", xml)
    host.run(["virsh", "define", "--validate", "/tmp/domain.xml"], check=True)


@pytest.mark.parametrize("example", ARM_EXAMPLES, ids=lambda path: path.stem)
def test_an_example_goes_to_libvirt_and_back(host: Host, example: Path) -> None:
    xml = fitted(example)
    name = name_of(xml)
    host.push("/tmp/example.xml", xml)
    status, first = translate(host, "/tmp/example.xml")
    if first is None:
        # whatever stands against it for vgicmgr does for QEMU, too
        assert status == 1
        virsh_define(host, xml)
        assert host.run(["virsh", "start", "--paused", name]).exit_code != 0
        undefine(host, name)
        return
    written = host.run([*VGICMGR, "translate", "/tmp/example.xml", "--format", "libvirt-xml"], check=True).stdout
    virsh_define(host, written.encode())
    try:
        status, defined = translate(host, name, "-c", QEMU_SYSTEM)
        # libvirt puts the machine type that the alias stands for, and its own PCI controllers
        assert status == 0
        assert {**first, "machine": ""} == {**(defined or {}), "machine": ""}
        host.run(["virsh", "start", "--paused", name], check=True)
        status, running = translate(host, name, "-c", QEMU_SYSTEM)
        assert (status, running) == (0, defined)
        assert kernel_devices(host, name) == expected_devices(first, etree.fromstring(xml).get("type"))
    finally:
        undefine(host, name)


def test_the_version_of_a_program_file_is_the_one_it_prints(host: Host) -> None:
    told = (
        "from vgicmgr.qemu.program import InstalledQEMU; found = InstalledQEMU('/usr/bin/qemu-system-aarch64'); "
        "print(*found.version, found.release)"
    )
    major, minor, release = host.run(["python3", "-c", told], check=True).stdout.split()
    printed = host.run(["qemu-system-aarch64", "--version"], check=True).stdout.split()
    assert printed[:4] == ["QEMU", "emulator", "version", release]
    assert release.startswith(f"{major}.{minor}.")


GROWING = """\
<domain type='kvm'>
  <name>growing</name>
  <maxMemory slots='4' unit='GiB'>8</maxMemory>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os><type arch='aarch64' machine='virt'>hvm</type></os>
  <cpu mode='host-passthrough'><numa><cell id='0' cpus='0' memory='512' unit='MiB'/></numa></cpu>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <memory model='dimm'><target><size unit='MiB'>1024</size><node>0</node></target></memory>
  </devices>
</domain>
"""


@pytest.mark.parametrize("memory", [1536, 512], ids=["the whole", "less than the whole"])
def test_the_memory_at_boot_is_what_libvirt_tells_qemu(host: Host, memory: int) -> None:
    written = GROWING.format(memory=memory).encode()
    virsh_define(host, written)
    try:
        kept = host.run(["virsh", "dumpxml", "--inactive", "growing"], check=True).stdout
        told = host.run(["virsh", "domxml-to-native", "qemu-argv", "--domain", "growing"], check=True).stdout
    finally:
        undefine(host, "growing")
    size = re.search(r"-m (?:size=)?(\d+)k", told)
    assert size, told
    assert read_domain(kept.encode()).memory == read_domain(written).memory == int(size[1]) << 10


def kernel_devices(host: Host, name: str) -> set[str]:
    """The interrupt controller's devices as the running QEMU has them in its object tree."""
    tree = host.run(["virsh", "qemu-monitor-command", name, "--hmp", "info qom-tree"], check=True).stdout
    kinds = ("kvm-arm-gicv3", "kvm-arm-gic", "arm_gic", "arm-gicv3", "arm-its-kvm", "arm-gicv3-its", "arm-gicv2m")
    return {kind for kind in kinds if f"({kind})" in tree}


def expected_devices(configuration: dict[str, Any], virt_type: str | None) -> set[str]:
    kvm = virt_type == "kvm"
    gic = {2: ("arm_gic", "kvm-arm-gic"), 3: ("arm-gicv3", "kvm-arm-gicv3")}[configuration["gic_version"]][kvm]
    msi = {"its": ("arm-gicv3-its", "arm-its-kvm")[kvm], "gicv2m": "arm-gicv2m", "none": ""}
    return {gic, msi[configuration["msi_controller"]]} - {""}


def wishing(name: str, its: str) -> bytes:
    """A domain that libvirt has not seen yet: no GIC version, and a wish about the ITS."""
    domain = etree.fromstring(fitted(EXAMPLES / "guest-wishes.xml"))
    child(domain, "name").text = name
    domain.remove(child(domain, "uuid"))
    domain.remove(child(domain, "features"))
    wishes = child(domain, f"metadata/{{{WISHES}}}interrupts")
    for wish in list(wishes):
        wishes.remove(wish)
    etree.SubElement(wishes, f"{{{WISHES}}}its", state=its)
    return etree.tostring(domain)


def test_apply_and_the_way_back(lab_host: LabHost) -> None:
    host = lab_host(HOSTS["trixie"])
    host.start_libvirtd()
    virsh_define(host, wishing("applied", "off"))
    try:
        before = host.run(["virsh", "dumpxml", "--inactive", "applied"], check=True).stdout
        apply = [*VGICMGR, "apply", "applied", "-c", QEMU_SYSTEM, "--backup", "/tmp/backup"]
        dry = host.run([*apply, "--dry-run"], check=True).stdout
        assert "+    <qemu:arg value='its=off'/>" in dry
        assert "passwd" not in dry
        assert host.run(["virsh", "dumpxml", "--inactive", "applied"]).stdout == before
        assert host.run(apply).exit_code == 2, "there is nobody to ask"
        done = host.run([*apply, "--yes"], check=True).stdout
        after = host.run(["virsh", "dumpxml", "--inactive", "applied"], check=True).stdout
        assert "value='its=off'" in after
        assert WISHES in after
        assert host.run([*apply, "--yes"], check=True).stdout == "domain applied: nothing to change\n"
        host.run(["virsh", "start", "--paused", "applied"], check=True)
        assert kernel_devices(host, "applied") == {"kvm-arm-gicv3"}
        kept = done.rpartition("virsh define ")[2].strip()
        assert host.run(["stat", "-c", "%a", kept]).stdout == "600\n"
        host.run(["virsh", "define", kept], check=True)
        assert host.run(["virsh", "dumpxml", "--inactive", "applied"]).stdout == before
    finally:
        undefine(host, "applied")


def test_an_unknown_domain_and_an_unreachable_libvirt_are_told_in_one_line(lab_host: LabHost) -> None:
    host = lab_host(HOSTS["trixie"])
    host.start_libvirtd()
    for arguments, words in (
        (("no-such-domain", "-c", QEMU_SYSTEM), "no-such-domain"),
        (("any", "-c", "qemu+unix:///system?socket=/nonexistent"), "libvirt cannot be reached"),
    ):
        result = host.run([*VGICMGR, "translate", *arguments])
        assert result.exit_code == 2
        assert words in result.stderr
        assert result.stderr.count("\n") == 1


def test_virtinst_makes_and_edits_such_domains(lab_host: LabHost) -> None:
    host = lab_host(HOSTS["trixie"])
    host.start_libvirtd()
    add(host, "virtinst")
    # what ca-certificates' own script would have made; without it, python3-requests does not load
    certificates = (
        "mkdir -p /etc/ssl/certs && cat /usr/share/ca-certificates/*/*.crt >/etc/ssl/certs/ca-certificates.crt"
    )
    host.run(["sh", "-c", certificates], check=True)
    options = (
        *("--connect", QEMU_SYSTEM, "--name", "made", "--memory", "128", "--vcpus", "1", "--import", "--print-xml"),
        *("--disk", "none", "--network", "none", "--graphics", "none", "--boot", f"kernel={KERNEL}"),
        *("--osinfo", "detect=off,require=off", "--xml", "xpath.delete=./features/acpi"),
    )
    made = host.run(["virt-install", *options], timeout=300, check=True).stdout
    virsh_define(host, made.encode())
    virsh_define(host, wishing("edited", "off"))
    try:
        wish = "<interrupts><its state='on'/><pmu intid='23'/></interrupts>"
        host.run(["virsh", "metadata", "made", WISHES, "--key", "vgicmgr", "--set", wish, "--config"], check=True)
        host.run([*VGICMGR, "apply", "edited", "-c", QEMU_SYSTEM, "--yes"], check=True)
        for name in ("made", "edited"):
            before = translate(host, name, "-c", QEMU_SYSTEM)
            command_line = ["virt-xml", "--connect", QEMU_SYSTEM, name, "--edit", "--metadata", "title=edited"]
            host.run(command_line, timeout=300, check=True)
            assert "<title>edited</title>" in host.run(["virsh", "dumpxml", "--inactive", name], check=True).stdout
            assert translate(host, name, "-c", QEMU_SYSTEM) == before
            told = host.run([*VGICMGR, "translate", name, "-c", QEMU_SYSTEM], check=True).stdout
            assert "vgicmgr metadata" in told
        applied = host.run([*VGICMGR, "apply", "edited", "-c", QEMU_SYSTEM, "--yes"], check=True).stdout
        assert applied == "domain edited: nothing to change\n"
    finally:
        undefine(host, "made")
        undefine(host, "edited")
