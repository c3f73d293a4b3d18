"""The CPU model, its features and vector lengths, 32-bit guests."""

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
    resolved,
    with_arguments,
)
from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import CpuFeature, Domain
from vgicmgr.findings import Severity
from vgicmgr.guest.document import qemu_arguments
from vgicmgr.guest.resolve import resolve
from vgicmgr.qemu.program import KnownQEMU


def features(*required: str, off: tuple[str, ...] = ()) -> tuple[CpuFeature, ...]:
    return (*(CpuFeature(name, "require") for name in required), *(CpuFeature(name, "disable") for name in off))


NO_CPU = {"cpu_mode": "", "cpu_model": ""}
A57 = {"cpu_mode": "custom", "cpu_model": "cortex-a57"}


class TestVectorLengths:
    @pytest.mark.parametrize(
        ("chosen", "lengths"),
        [
            ((), (128, 256, 512)),
            (features(off=("sve",)), ()),
            (features("sve256"), (128, 256)),
            (features(off=("sve256",)), (128,)),
            (features(off=("sve512",)), (128, 256)),
        ],
    )
    def test_given(self, chosen: tuple[CpuFeature, ...], lengths: tuple[int, ...]) -> None:
        configuration = configured(resolve(guest(cpu_features=chosen), HOST))
        assert configuration.sve_vector_lengths == lengths
        assert ("KVM_ARM_VCPU_SVE" in configuration.features) == bool(lengths)

    @pytest.mark.parametrize(
        "domain",
        [
            guest(cpu_features=features("sve384")),
            guest(cpu_features=features("sve1024")),
            guest(cpu_features=features("sve512", off=("sve256",))),
            guest(cpu_features=features(off=("sve128",))),
            with_arguments("-cpu", "host,sve=off,sve128=on"),
        ],
    )
    def test_refused(self, domain: Domain) -> None:
        """target/arm/cpu64.c, arm_cpu_sve_finalize."""
        assert errors(resolve(domain, HOST)) == ["sve-vector-length"]

    def test_one_that_is_required_while_sve_is_off(self) -> None:
        """libvirt refuses it (qemuValidateDomainDefCpu), and QEMU would."""
        domain = guest(cpu_features=features("sve128", off=("sve",)))
        assert errors(resolve(domain, HOST)) != []
        # by the arguments alone, that is without libvirt's word
        assert errors(resolve(with_arguments("-cpu", "host,sve=off,sve128=on"), HOST)) == ["sve-vector-length"]

    @pytest.mark.parametrize(
        "name", ["sve0", "sve100", "sve2176", "sve1000000000000", "sve" + "9" * 5000, "sve\uff12\uff15\uff16"]
    )
    def test_what_is_no_length_is_no_property(self, name: str) -> None:
        resolution = resolve(guest(cpu_features=features(name)), HOST)
        assert "cpu-feature-unknown" in [finding.name for finding in resolution.findings]
        assert all(len(finding.evidence) < 300 for finding in resolution.findings)


class TestFeatures:
    @pytest.mark.parametrize("feature", ["sve", "pauth", "sve128"])
    def test_what_the_host_lacks(self, feature: str) -> None:
        domain = guest(cpu_features=features(feature))
        assert set(errors(resolve(domain, PLAIN_HOST))) == {"cpu-feature-unsupported"}
        assumed = replace(PLAIN_HOST, asked=False)
        assert set(names(resolve(domain, assumed))) == {"cpu-feature-unsupported"}

    def test_the_remedy_helps(self) -> None:
        [finding] = resolve(guest(cpu_features=features("pauth")), PLAIN_HOST).findings
        assert finding.remedy.startswith("remove <feature name='pauth'/>")
        assert names(resolve(GUEST, PLAIN_HOST)) == []

    def test_one_that_does_not_exist(self) -> None:
        resolution = resolve(guest(cpu_features=features("svee")), HOST)
        assert [finding.name for finding in resolution.findings] == ["cpu-feature-unknown"]
        assert "'svee'" in resolution.findings[0].evidence

    def test_an_argument_replaces_the_element(self) -> None:
        resolution = resolve(with_arguments("-cpu", "host,pmu=off,sve=off", pmu=True), HOST)
        assert (configured(resolution).pmu_intid, configured(resolution).sve_vector_lengths) == (None, ())

    @pytest.mark.parametrize(
        "arguments",
        [
            ("-cpu", "host,pauth=off"),
            ("-global", "host-arm-cpu.pauth=off"),
            ("-global", "driver=host-arm-cpu,property=pauth,value=off"),
        ],
    )
    def test_every_spelling(self, arguments: tuple[str, ...]) -> None:
        assert "KVM_ARM_VCPU_PTRAUTH_ADDRESS" not in configured(resolve(with_arguments(*arguments), HOST)).features

    @pytest.mark.parametrize("cpu", ["host,sve=maybe", "host,+sve", "host,-pauth"])
    def test_a_switch_that_is_none(self, cpu: str) -> None:
        """Signs are x86's alone: of Arm's, cpu_common_parse_features wants NAME=VALUE (hw/core/cpu-common.c)."""
        assert errors(resolve(with_arguments("-cpu", cpu), HOST)) == ["qemu-argument"]

    def test_psci_by_an_older_qemu(self) -> None:
        domain = with_arguments("-cpu", "host,kvm-psci-version=1.1")
        for known, found in ((False, ["cpu-property-unknown"]), (True, []), (None, [])):
            resolution = resolve(domain, HOST, qemu=KnownQEMU(psci_property=known))
            assert errors(resolution) == found
        assert configured(resolve(domain, HOST)).psci_version == 1 << 16 | 1

    @pytest.mark.parametrize("word", ["1" * 5000, "70000000000000000.1", "1", "a.b"])
    def test_a_psci_version_that_is_none_is_qemus_to_refuse(self, word: str) -> None:
        assert configured(resolve(with_arguments("-cpu", f"host,kvm-psci-version={word}"), HOST)).psci_version is None


class TestModel:
    """QEMU makes a vCPU with the model's target (target/arm/cpu64.c, kvm_target); the kernel takes its own."""

    def test_one_that_has_no_target(self) -> None:
        assert errors(resolve(guest(cpu_mode="custom", cpu_model="neoverse-n1"), HOST)) == ["cpu-model-unsupported"]
        assert names(resolve(guest(cpu_mode="host-passthrough"), HOST)) == []  # the remedy

    @pytest.mark.parametrize(("taken", "found"), [(False, ["cpu-model-unsupported"]), (True, []), (None, [])])
    def test_one_that_has(self, taken: bool | None, found: list[str]) -> None:
        on = host(targets={} if taken is None else {"KVM_ARM_TARGET_CORTEX_A57": taken})
        resolution = resolve(guest(**A57), on)
        assert errors(resolution) == found
        if not found:
            assert configured(resolution).target == "KVM_ARM_TARGET_CORTEX_A57"

    def test_by_an_argument(self) -> None:
        assert errors(resolve(with_arguments("-cpu", "cortex-a72"), HOST)) == ["cpu-model-unsupported"]

    @pytest.mark.parametrize("model", ["cortex-a53", "cortex-a57"])
    def test_features_of_the_hosts_own_cpu_are_none_of_its(self, model: str) -> None:
        configuration = configured(resolve(guest(cpu_mode="custom", cpu_model=model), HOST))
        assert configuration.sve_vector_lengths == ()
        assert configuration.features == ("KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_PMU_V3")

    def test_a_vector_length_is_none_of_its_properties(self) -> None:
        domain = guest(cpu_mode="custom", cpu_model="cortex-a53", cpu_features=features("sve512"))
        assert "cpu-feature-unknown" in [finding.name for finding in resolve(domain, HOST).findings]

    def test_openeulers_are_not_judged(self) -> None:
        """Its QEMU runs 'Kunpeng-920' under KVM, which is out of scope: refused, by name."""
        [finding] = resolve(guest(cpu_mode="custom", cpu_model="Kunpeng-920"), HOST).findings
        assert (finding.name, finding.severity) == ("cpu-model-unsupported", Severity.ERROR)


class TestEmulated:
    @pytest.mark.parametrize(
        "domain",
        [
            replace(EMULATED, cpu_mode="host-passthrough", cpu_model=""),
            replace(EMULATED, qemu_arguments=("-cpu", "host")),
        ],
    )
    def test_the_hosts_cpu_needs_kvm(self, domain: Domain) -> None:
        """libvirt's virQEMUCapsIsCPUModeSupported; QEMU has no model 'host' without KVM."""
        resolution = resolve(domain, HOST)
        assert errors(resolution) == ["cpu-model-unsupported"]
        assert resolution.findings[0].remedy == "set <cpu mode='maximum'/>, or <domain type='kvm'>"

    def test_the_remedies_help(self) -> None:
        domain = replace(EMULATED, cpu_mode="host-passthrough", cpu_model="")
        assert names(resolve(replace(domain, cpu_mode="maximum"), HOST)) == []
        assert names(resolve(replace(domain, virt_type="kvm"), HOST)) == []


class TestWithoutOne:
    """libvirt hands on no -cpu (its tests aarch64-default-cpu-kvm-virt-*)."""

    @pytest.mark.parametrize(
        ("version", "severity"),
        [
            ((10, 0), Severity.ERROR),
            ((10, 1), Severity.ERROR),
            (None, Severity.WARNING),
            ((10, 2), None),
            ((11, 1), None),
        ],
    )
    def test_qemus_default_under_kvm(self, version: tuple[int, int] | None, severity: Severity | None) -> None:
        """cortex-a15, and 'max' since 10.2 (hw/arm/virt.c, virt_get_default_cpu_type)."""
        resolution = resolved(guest(machine="virt", **NO_CPU), HOST, version)
        assert [finding.severity for finding in resolution.findings] == ([severity] if severity else [])
        if severity is not Severity.ERROR:
            assert configured(resolution).sve_vector_lengths == (128, 256, 512)

    def test_a_distributions_qemu_is_judged_by_its_version(self) -> None:
        """RHEL's 10.2 has no machine type virt-10.2."""
        assert names(resolved(guest(machine="virt-rhel9.6.0", **NO_CPU), HOST, (10, 2))) == []

    @pytest.mark.parametrize(("version", "kvm"), [((10, 2), True), (None, True), ((10, 0), False)])
    def test_no_cpu_is_said(self, version: tuple[int, int] | None, kvm: bool) -> None:
        domain = guest(machine="virt", virt_type="kvm" if kvm else "qemu", **NO_CPU)
        resolution = resolved(domain, HOST, version)
        assert configured(resolution)
        assert "-cpu" not in qemu_arguments(resolution)

    @pytest.mark.parametrize("domain", [guest(pmu=True, **NO_CPU), guest(no_adjvtime=True, **NO_CPU)])
    def test_with_what_belongs_to_one_libvirt_refuses(self, domain: Domain) -> None:
        """qemuBuildCpuCommandLine."""
        resolution = resolved(domain, HOST, (11, 1))
        assert errors(resolution) == ["cpu-model-unsupported"]
        assert names(resolved(replace(domain, cpu_mode="host-passthrough"), HOST, (11, 1))) == []

    def test_an_argument_is_one(self) -> None:
        """libvirt writes no -cpu, and the domain's own argument is the only one."""
        resolution = resolved(with_arguments("-cpu", "host", **NO_CPU), HOST, (10, 0))
        assert names(resolution) == []

    def test_host_model_is_refused_by_libvirt_on_arm(self) -> None:
        resolution = resolve(guest(cpu_mode="host-model"), HOST)
        assert errors(resolution) == ["cpu-model-unsupported"]
        assert "host-model" in resolution.findings[0].evidence
        assert resolution.findings[0].remedy == "set <cpu mode='host-passthrough'/>"


class TestAArch32:
    """Guests whose EL1 is 32-bit."""

    NARROW = guest(arch="armv7l")
    SWITCHED = guest(cpu_features=features(off=("aarch64",)))

    @pytest.mark.parametrize("domain", [NARROW, SWITCHED, with_arguments("-cpu", "host,aarch64=off")])
    def test_on_a_host_that_runs_them(self, domain: Domain) -> None:
        configuration = configured(resolve(domain, PLAIN_HOST))
        assert configuration.features == ("KVM_ARM_VCPU_EL1_32BIT", "KVM_ARM_VCPU_PSCI_0_2", "KVM_ARM_VCPU_PMU_V3")
        # target/arm/kvm.c, kvm_arm_steal_time_finalize: off, as it is no 64-bit one
        assert not configuration.steal_time

    @pytest.mark.parametrize("domain", [NARROW, SWITCHED])
    def test_the_vcpu_is_made_32_bit(self, domain: Domain) -> None:
        """qemuBuildCpuCommandLine: 'host,aarch64=off' for armv7l."""
        said = qemu_arguments(resolve(domain, PLAIN_HOST))
        assert said[said.index("-cpu") + 1] == "host,aarch64=off"

    @pytest.mark.parametrize("domain", [NARROW, SWITCHED])
    def test_on_a_host_without_32_bit_el1(self, domain: Domain) -> None:
        without = host(PLAIN_HOST, KVM_CAP_ARM_EL1_32BIT=0)
        assert errors(resolve(domain, without)) == ["el1-32bit-unsupported"]

    @pytest.mark.parametrize(
        "on",
        [
            HOST,
            host(PLAIN_HOST, KVM_CAP_ARM_SVE=1, sve_vector_lengths=(128,)),
            host(PLAIN_HOST, KVM_CAP_ARM_PTRAUTH_ADDRESS=1, KVM_CAP_ARM_PTRAUTH_GENERIC=1),
        ],
        ids=["both", "SVE", "pointer authentication"],
    )
    @pytest.mark.parametrize("domain", [NARROW, SWITCHED])
    def test_on_a_host_whose_features_qemu_asks_for_all_the_same(self, domain: Domain, on: AssumedHost) -> None:
        """kvm_arch_init_vcpu fails with EINVAL there: seen with 7.2, 10.0, 11.1."""
        assert errors(resolve(domain, on)) == ["el1-32bit-features"]

    def test_stolen_time_that_is_asked_for(self) -> None:
        domain = guest(arch="armv7l", cpu_features=features("kvm-steal-time"))
        assert errors(resolve(domain, PLAIN_HOST)) == ["cpu-feature-unsupported"]
