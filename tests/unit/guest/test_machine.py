"""Machine type, its properties, accelerator, and who makes the GIC."""

import pytest

from tests.unit.guest.examples import (
    EMULATED,
    GUEST,
    HOST,
    PLAIN_HOST,
    AssumedHost,
    configured,
    errors,
    guest,
    host,
    names,
    qemu,
    resolved,
    with_arguments,
    with_machine,
)
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import Domain
from vgicmgr.domain.xml import read_domain
from vgicmgr.findings import Severity
from vgicmgr.guest.document import qemu_arguments
from vgicmgr.guest.resolve import resolve
from vgicmgr.qemu.gic import MSIController


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        (guest(arch="x86_64", machine="q35"), "machine-unsupported"),
        (guest(machine="raspi3b"), "machine-unsupported"),
        (guest(virt_type="hvf"), "machine-unsupported"),
        (guest(machine="virt-12.0"), "machine-unsupported"),
        (with_machine("its=maybe"), "qemu-argument"),
        (with_machine("kernel-irqchip=split"), "irqchip-userspace"),
        (with_machine("secure=on"), "secure-unsupported"),
        (with_machine("msi=its"), "qemu-argument"),  # QEMU 10.0 has no such property
        (with_machine("highmem-mmio-size=700G"), "qemu-argument"),
        (with_machine("highmem-mmio-size=0"), "qemu-argument"),
        (with_arguments("-machine"), "qemu-argument"),
    ],
)
def test_refused(domain: Domain, name: str) -> None:
    assert errors(resolved(domain, HOST, (10, 0))) == [name]


class TestType:
    def test_a_later_machine_argument_names_another(self) -> None:
        """QEMU merges all -machine, and the last type counts (system/vl.c, qemu_init)."""
        resolution = resolve(guest(machine="virt-2.6", qemu_arguments=("-machine", "virt,ras=on")), HOST)
        assert configured(resolution).machine == "virt"
        assert configured(resolution).msi is MSIController.ITS
        assert configured(resolution).pmu_intid == 23

    def test_libvirt_fills_in_virt(self) -> None:
        """libvirt's preferred machine of aarch64 (src/qemu/qemu_capabilities.c, preferredMachines)."""
        resolution = resolve(guest(machine=""), HOST)
        assert configured(resolution).machine == "virt"

    def test_but_not_for_armv7l(self) -> None:
        """There it is 'integratorcp'."""
        assert errors(resolve(guest(machine="", arch="armv7l"), PLAIN_HOST)) == ["machine-unsupported"]

    @pytest.mark.parametrize("type_", ["xen", "hvf", "test"])
    def test_another_hypervisor_is_not_judged(self, type_: str) -> None:
        """Not 'it has no GIC': a Xen guest has one, of which vgicmgr knows nothing."""
        [finding] = resolve(guest(virt_type=type_), HOST).findings
        assert "does not judge" in finding.evidence
        assert "GIC to configure" not in finding.evidence

    def test_one_that_is_not_known_is_taken_for_the_newest(self) -> None:
        assert names(resolve(guest(machine="virt-kunpeng"), HOST)) == ["machine-unknown"]

    @pytest.mark.parametrize("version", [(9, 0), (10, 0), (16, 0)])
    def test_what_a_distribution_keeps_its_version_does_not_say(self, version: tuple[int, int]) -> None:
        """RHEL's QEMU 10.0 has virt-rhel9.4.0 and no virt-9.2: upstream's list says nothing of its names."""
        resolution = resolved(guest(machine="virt-rhel9.4.0"), HOST, version)
        assert "machine-unsupported" not in names(resolution)

    @pytest.mark.parametrize(
        ("machine", "version", "refused"),
        [
            ("virt-10.0", (9, 2), True),
            ("virt-10.0", (10, 0), False),
            ("virt-10.0", (15, 2), False),
            ("virt-10.0", (16, 0), True),  # deleted after six major versions (include/hw/boards.h)
            ("virt", (16, 0), False),
        ],
    )
    def test_upstreams(self, machine: str, version: tuple[int, int], refused: bool) -> None:
        assert errors(resolved(guest(machine=machine), HOST, version)) == (["machine-unsupported"] if refused else [])

    def test_a_rhel_type_has_its_upstream_versions_rules(self) -> None:
        """virt-rhel7.6.0 is of 2.12, which knows neither stolen time (5.2) nor more than 255 vCPUs (3.0)."""
        assert not configured(resolve(guest(machine="virt-rhel7.6.0"), HOST)).steal_time
        assert configured(resolve(guest(machine="virt-rhel9.4.0"), HOST)).steal_time
        assert "vcpu-count" in errors(resolve(guest(machine="virt-rhel7.6.0", vcpus=256), HOST))


class TestAccelerator:
    def test_an_emulated_domain_that_is_given_kvm_by_an_argument(self) -> None:
        """libvirt writes -accel tcg; QEMU 7.2 then takes either, newer ones refuse."""
        domain = replace(EMULATED, cpu_mode="maximum", cpu_model="", qemu_arguments=("-enable-kvm",))
        resolution = resolve(domain, HOST)
        assert errors(resolution) == ["accelerator-twice"]
        assert resolution.findings[0].remedy.startswith("set <domain type='kvm'>")

    @pytest.mark.parametrize(
        "arguments", [("-machine", "accel=tcg"), ("-machine", "accel=kvm"), ("-accel", "tcg"), ("-accel", "hvf")]
    )
    def test_whatever_says_it_beside_libvirts(self, arguments: tuple[str, ...]) -> None:
        """-machine accel= beside -accel: 'the -accel and "-machine accel=" options are incompatible' (system/vl.c)."""
        assert errors(resolve(with_arguments(*arguments), HOST)) == ["accelerator-twice"]

    def test_the_same_once_more_is_no_matter(self) -> None:
        assert names(resolve(with_arguments("-accel", "kvm"), HOST)) == []

    def test_but_not_in_the_older_spelling(self) -> None:
        """-enable-kvm is -machine accel=kvm (system/vl.c, QEMU_OPTION_enable_kvm)."""
        assert errors(resolve(with_arguments("-enable-kvm"), HOST)) == ["accelerator-twice"]

    def test_the_remedy_helps(self) -> None:
        domain = replace(EMULATED, cpu_mode="maximum", cpu_model="", qemu_arguments=("-enable-kvm",))
        assert names(resolve(replace(domain, virt_type="kvm", qemu_arguments=()), HOST)) == []


class TestArguments:
    def test_vcpus_and_memory_are_the_last_ones(self) -> None:
        resolution = resolve(with_arguments("-smp", "16,maxcpus=16", "-m", "4G"), HOST)
        configuration = configured(resolution)
        assert (configuration.vcpus, configuration.max_vcpus) == (16, 16)
        assert resolution.domain.memory == 4 << 30

    def test_more_vcpus_by_an_argument_are_refused_as_by_the_element(self) -> None:
        assert errors(resolve(with_arguments("-smp", "513,maxcpus=513"), HOST)) == ["vcpu-count"]

    @pytest.mark.parametrize("arguments", [("-smp", "x"), ("-m", "x"), ("-m", "1G,slots=x")])
    def test_what_qemu_refuses(self, arguments: tuple[str, ...]) -> None:
        assert errors(resolve(with_arguments(*arguments), HOST)) == ["qemu-argument"]

    def test_what_is_not_read_is_said(self) -> None:
        assert names(resolve(guest(qemu_overrides=True), HOST)) == ["argument-not-judged"]


class TestIRQChip:
    """Where KVM makes no GIC, QEMU emulates a GICv2 (accel/kvm/kvm-all.c, hw/arm/virt.c, hw/intc/arm_gic.c)."""

    NONE = host(PLAIN_HOST, KVM_CAP_IRQCHIP=0, gics=frozenset(), makes_its=False)

    @pytest.mark.parametrize("wish", ["2", "host", ""])
    @pytest.mark.parametrize("machine", [(), ("kernel-irqchip=off",)])
    def test_a_gicv2_starts_on_a_kvm_without_any(self, wish: str, machine: tuple[str, ...]) -> None:
        resolution = resolve(with_machine(*machine, gic_version=wish), self.NONE)
        configuration = configured(resolution)
        assert (configuration.gic_version, configuration.in_kernel) == (2, False)
        assert configuration.msi is MSIController.GICV2M
        assert names(resolution) == ["emulated-gic"]

    def test_a_gicv3_does_not(self) -> None:
        """'KVM with kernel-irqchip=off does not support GICv3 emulation'."""
        assert "gic-version-unsupported" in errors(resolve(guest(gic_version="3"), self.NONE))

    @pytest.mark.parametrize("spelling", ["kernel-irqchip=off", "kernel_irqchip=off"])
    def test_a_host_with_a_gic_is_told_to_leave_it(self, spelling: str) -> None:
        resolution = resolve(with_machine(spelling, gic_version="2"), PLAIN_HOST)
        assert (configured(resolution).gic_version, configured(resolution).in_kernel) == (2, False)
        [finding] = resolution.findings
        assert (finding.name, finding.severity) == ("emulated-gic", Severity.WARNING)
        assert finding.remedy == "remove kernel-irqchip=off"

    def test_at_most_8_vcpus(self) -> None:
        assert "vcpu-count" in errors(resolve(guest(gic_version="2", vcpus=9), self.NONE))

    def test_interrupts_of_user_space_are_needed(self) -> None:
        """KVM_CAP_ARM_USER_IRQ, of Linux 4.12 (hw/intc/arm_gic.c, arm_gic_realize)."""
        old = host(self.NONE, KVM_CAP_ARM_USER_IRQ=0)
        assert errors(resolve(guest(gic_version="2"), old)) == ["irqchip-userspace"]

    def test_an_emulated_guest_is_not_concerned(self) -> None:
        assert names(resolve(EMULATED, self.NONE)) == []


class TestVirtualization:
    """A guest with EL2, by QEMU's argument or libvirt's newest element."""

    NESTING = host(KVM_CAP_ARM_EL2=1)

    @pytest.mark.parametrize("domain", [with_machine("virtualization=on"), guest(virtualization=True)])
    def test_el2_and_its_maintenance_interrupt(self, domain: Domain) -> None:
        resolution = resolved(domain, self.NESTING, (10, 1))
        assert configured(resolution).features[-1] == "KVM_ARM_VCPU_HAS_EL2"
        assert "INTID 25 (PPI 9)" in [item.value for item in resolution.decisions]

    @pytest.mark.parametrize(
        ("changes", "on", "version"),
        [
            ({}, NESTING, (10, 0)),
            ({}, HOST, (10, 1)),
            ({"gic_version": "2"}, NESTING, (10, 1)),
            ({"arch": "armv7l"}, host(NESTING, KVM_CAP_ARM_SVE=0, KVM_CAP_ARM_PTRAUTH_ADDRESS=0), (10, 1)),
        ],
        ids=["an older QEMU", "a kernel that does not nest", "a GICv2", "a 32-bit guest"],
    )
    def test_refused(self, changes: dict[str, str], on: AssumedHost, version: tuple[int, int]) -> None:
        domain = with_machine("virtualization=on", **changes)
        assert errors(resolved(domain, on, version)) == ["virtualization-unsupported"]

    def test_without_the_argument_a_nesting_host_gives_none(self) -> None:
        assert "KVM_ARM_VCPU_HAS_EL2" not in configured(resolved(GUEST, self.NESTING, (10, 1))).features

    def test_an_assumed_host_only_warns_as_it_does_of_sve(self) -> None:
        assumed = AssumedHost()
        assert names(resolve(with_machine("virtualization=on"), assumed)) == ["virtualization-unsupported"]
        assert names(resolve(with_machine("mte=on"), assumed)) == ["mte-unsupported"]


class TestMTE:
    """hw/arm/virt.c: mte=on needs KVM_CAP_ARM_MTE, and takes no memory hotplug."""

    MTE = host(KVM_CAP_ARM_MTE=1)

    def test_with_and_without(self) -> None:
        assert errors(resolve(with_machine("mte=on"), HOST)) == ["mte-unsupported"]
        assert names(resolve(with_machine("mte=on"), self.MTE)) == []

    def test_it_is_said_again(self) -> None:
        said = qemu_arguments(resolve(with_machine("mte=on"), self.MTE))
        assert "mte=on" in said[said.index("-machine") + 1].split(",")

    def test_no_memory_can_be_plugged(self) -> None:
        """hw/arm/virt.c, virt_memory_pre_plug refuses it later; a start is not concerned."""
        domain = with_machine("mte=on", max_memory=8 << 30, memory_slots=2)
        assert configured(resolve(domain, self.MTE))


def test_a_realm_is_not_judged() -> None:
    resolution = resolve(guest(launch_security="cca"), HOST)
    assert names(resolution) == ["launch-security"]
    assert names(resolve(with_machine("confidential-guest-support=rme0"), HOST)) == ["launch-security"]
    assert "not judge" in resolution.findings[0].evidence


def test_ras_and_virtual_time_are_said_again() -> None:
    """libvirt's qemuBuildMachineCommandLine and qemuBuildCpuCommandLine."""
    xml = (
        b"<domain type='kvm'><name>g</name><memory unit='GiB'>1</memory><vcpu>1</vcpu>"
        b"<os><type arch='aarch64' machine='virt-10.0'>hvm</type></os><features><gic version='3'/><ras state='on'/>"
        b"</features><cpu mode='host-passthrough'/><clock offset='utc'><timer name='armvtimer' tickpolicy='discard'/>"
        b"</clock></domain>"
    )
    said = qemu_arguments(resolve(read_domain(xml), HOST))
    assert "ras=on" in said[said.index("-machine") + 1].split(",")
    assert said[said.index("-cpu") + 1] == "host,kvm-no-adjvtime=on"


def test_a_qemu_of_which_nothing_is_known_refuses_no_property() -> None:
    assert names(resolve(with_machine("msi=its"), HOST, qemu=qemu())) == []
