"""What is found of assigned devices, by rules of the kernel and QEMU; ``tests/lab/test_assignment.py`` asks these."""

import subprocess
import sys
from collections.abc import Iterable

import pytest

from vgicmgr.dataclass import replace
from vgicmgr.domain.hostdevices import HostDevice
from vgicmgr.findings import Finding, Severity
from vgicmgr.guest.assignment import host_findings, migration_findings, msi_findings, vfio_files
from vgicmgr.host.assumed import AssumedHost
from vgicmgr.kvm import gicregs
from vgicmgr.qemu.gic import MSIController
from vgicmgr.vfio.assigned import AssignedDevice, AssignedDevices

NET, DISK, MDEV = "0000:01:00.0", "0000:02:00.0", "c2177883-f1bb-47f0-914d-32a22e3a8804"
GIVEN = (HostDevice("pci", NET), HostDevice("pci", DISK))
NIC = AssignedDevice(NET, "vfio-pci", 4, 5, True, (), (), True)
NVME = AssignedDevice(DISK, "vfio-pci", 5, 2048, True, (), (), True)
FOUND = AssignedDevices((NIC, NVME))


def test_a_domain_without_assigned_devices_is_spared_all_this() -> None:
    """Each guest's start waits for the hook."""
    program = (
        "import sys; from vgicmgr.guest.start import judge_start; from vgicmgr.guest.resolve import resolve; "
        "from vgicmgr.migration import arrival; from vgicmgr.host.assumed import ASSUMED_HOST; "
        "from vgicmgr.domain.xml import read_domain; "
        "domain = read_domain(b\"<domain type='kvm'><name>g</name><memory>1048576</memory><os><type arch='aarch64' "
        "machine='virt'/></os><cpu mode='host-passthrough'/><devices/></domain>\"); "
        "assert resolve(domain, ASSUMED_HOST).configuration; "
        "print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {
        "vgicmgr.domain.hostdevices",
        "vgicmgr.vfio",
        "vgicmgr.guest.assignment",
        "vgicmgr.qemu.hostdevices",
    } & set(modules)


def said(findings: Iterable[Finding]) -> list[tuple[str, Severity]]:
    return [(finding.name, finding.severity) for finding in findings]


def with_vectors(*vectors: int) -> AssignedDevices:
    devices = (replace(device, vectors=count) for device, count in zip((NIC, NVME), vectors, strict=False))
    return AssignedDevices(tuple(devices))


def its_with(**fields: int) -> AssumedHost:
    """A host whose GITS_TYPER has these fields, one less than the bits that they stand for."""
    typer = 0x1EF71
    for field in gicregs.GITS_TYPER.fields:
        if field.name in fields:
            typer = typer & ~field.mask | fields[field.name] << field.lsb
    return AssumedHost(gits_typer=typer)


class TestFiles:
    """What KVM's VFIO device is told of (hw/vfio/container.c: each group when it is opened)."""

    def test_each_group_in_the_order_of_the_devices(self) -> None:
        assert vfio_files(GIVEN, FOUND) == ("/dev/vfio/4", "/dev/vfio/5")
        assert vfio_files(GIVEN[::-1], FOUND) == ("/dev/vfio/5", "/dev/vfio/4")

    def test_a_group_of_two_devices_once(self) -> None:
        shared = AssignedDevices((NIC, replace(NVME, group=4)))
        assert vfio_files(GIVEN, shared) == ("/dev/vfio/4",)

    def test_a_device_that_is_not_known_here(self) -> None:
        assert vfio_files((HostDevice("mdev", MDEV),), FOUND) == (f"the group of {MDEV}",)

    def test_a_transient_device_is_plugged_later(self) -> None:
        assert vfio_files((replace(GIVEN[0], transient=True), GIVEN[1]), FOUND) == ("/dev/vfio/5",)


class TestMSIs:
    """MSIs and the guest's MSI controller."""

    @staticmethod
    def judge(
        assigned: AssignedDevices = FOUND,
        msi: MSIController = MSIController.ITS,
        *,
        host: AssumedHost = AssumedHost(),  # noqa: B008
    ) -> list[Finding]:
        return list(msi_findings(GIVEN, host, msi, assigned, gicv2m_spis=64))

    def test_an_its_takes_them(self) -> None:
        assert self.judge() == []
        assert self.judge(AssignedDevices()) == []

    def test_without_an_msi_controller_there_are_only_lines(self) -> None:
        [finding] = self.judge(msi=MSIController.NONE)
        assert (finding.name, finding.severity) == ("msi-none", Severity.WARNING)
        assert "2 assigned devices can send no MSIs" in finding.evidence
        assert "need the ITS" in finding.remedy

    def test_a_virtual_function_has_no_line_either(self) -> None:
        [finding] = self.judge(AssignedDevices((replace(NIC, intx=False),)), MSIController.NONE)
        assert finding.severity is Severity.ERROR
        assert f"({NET} has no interrupt line either)" in finding.evidence

    def test_a_gicv2m_has_few(self) -> None:
        assert said(self.judge(msi=MSIController.GICV2M)) == [("msi-vectors", Severity.WARNING)]
        assert self.judge(with_vectors(33, 31), MSIController.GICV2M) == []

    def test_events_of_a_device(self) -> None:
        """GITS_TYPER.ID_bits: 8 bits are 256 events."""
        [finding] = self.judge(with_vectors(256, 257), host=its_with(ID_bits=7))
        assert finding.evidence.startswith(f"{DISK} has 257 MSI vectors, but the ITS takes 256 events")

    def test_lpis_of_all_devices(self) -> None:
        """INTIDs of 16 bits, of which the LPIs begin at 8192 (Arm IHI 0069, 2.2)."""
        assert self.judge(with_vectors(57344 - 2048, 2048)) == []
        [finding] = self.judge(with_vectors(57344 - 2047, 2048))
        assert "have 57345 MSI vectors, but the guest has 57344 LPIs" in finding.evidence

    def test_device_ids(self) -> None:
        [finding] = self.judge(host=its_with(Devbits=9))
        assert finding.remedy == "plug the devices into buses below 4"

    def test_msis_without_a_device_id(self) -> None:
        assert said(self.judge(host=AssumedHost(msi_devid=False))) == [("msi-devid-missing", Severity.ERROR)]

    def test_what_the_host_does_not_tell_is_not_judged(self) -> None:
        assert self.judge(with_vectors(256, 257), host=AssumedHost(msi_devid=None, gits_typer=None)) == []


class TestHost:
    """What VFIO on the host refuses."""

    def test_a_host_that_gives_them(self) -> None:
        assert said(host_findings(GIVEN, FOUND)) == []
        assert said(host_findings(GIVEN, AssignedDevices())) == []

    def test_a_group_with_a_member_in_the_hosts_hands(self) -> None:
        shared = AssignedDevices((replace(NIC, in_the_way=(("0000:01:00.1", "e1000e"),)),))
        [finding] = host_findings(GIVEN, shared)
        assert (finding.name, finding.severity) == ("group-not-viable", Severity.ERROR)
        assert "of its group 4, 0000:01:00.1 is bound to e1000e" in finding.evidence

    def test_a_member_that_libvirt_will_take_from_the_host(self) -> None:
        shared = AssignedDevices((replace(NIC, in_the_way=((DISK, "nvme"),)),))
        assert said(host_findings(GIVEN, shared)) == [("group-not-viable", Severity.ERROR)]
        assert said(host_findings((GIVEN[0], replace(GIVEN[1], managed=True)), shared)) == []

    def test_msis_that_cannot_be_isolated(self) -> None:
        alone = AssignedDevices((replace(NIC, msi_isolated=False),))
        assert said(host_findings(GIVEN, alone)) == [("msi-not-isolated", Severity.ERROR)]

    def test_unsafe_interrupts(self) -> None:
        allowed = AssignedDevices((replace(NIC, msi_isolated=None),), unsafe_interrupts=True)
        assert said(host_findings(GIVEN, allowed)) == [("unsafe-interrupts", Severity.WARNING)]


class TestMigration:
    """What keeps a guest where it is."""

    def test_each_device_that_cannot_is_named(self) -> None:
        findings = list(migration_findings(GIVEN, FOUND))
        assert said(findings) == [("device-migration", Severity.ERROR)] * 2
        assert [name in finding.evidence for name, finding in zip((NET, DISK), findings, strict=True)] == [True, True]

    def test_one_that_is_unplugged_before_does_not(self) -> None:
        assert said(migration_findings((replace(GIVEN[0], transient=True),), FOUND, "4")) == []

    def test_one_that_can(self) -> None:
        able = AssignedDevices((replace(NIC, driver="mlx5_vfio_pci", migration=("stop-copy", "p2p")),))
        assert said(migration_findings(GIVEN[:1], able)) == []

    @pytest.mark.parametrize(
        ("assigned", "why"),
        [
            (AssignedDevices(), "it was not asked"),
            (AssignedDevices((replace(NIC, driver="e1000e", migration=None),)), "it is bound to e1000e"),
            (AssignedDevices((replace(NIC, driver=None, migration=None),)), "it is bound to no driver"),
        ],
    )
    def test_not_known(self, assigned: AssignedDevices, why: str) -> None:
        [finding] = migration_findings(GIVEN[:1], assigned)
        assert (finding.name, finding.severity) == ("device-migration-unknown", Severity.WARNING)
        assert finding.evidence.endswith(why)

    @pytest.mark.parametrize(("version", "names"), [("4", ["its-save"]), ("4.1", []), ("", [])])
    def test_direct_injection(self, version: str, names: list[str]) -> None:
        """Documentation/virt/kvm/devices/arm-vgic-its.rst, KVM_DEV_ARM_ITS_SAVE_TABLES: -EACCES."""
        able = AssignedDevices((replace(NIC, migration=("stop-copy",)),))
        assert [finding.name for finding in migration_findings(GIVEN[:1], able, version)] == names
