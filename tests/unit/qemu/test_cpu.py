"""Which CPU libvirt and QEMU's arguments ask for, and which vCPU QEMU then asks of KVM."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgicmgr.dataclass import replace
from vgicmgr.domain.domain import CpuFeature, Domain
from vgicmgr.qemu.arguments import ArgumentError, CPUArgument, read_arguments
from vgicmgr.qemu.cpu import (
    AARCH64_FEATURES,
    CPU,
    cpu_of,
    default_model,
    has_steal_time,
    libvirt_cpu,
    libvirt_refuses,
    psci_version,
    sve_vector_lengths,
    sve_wishes,
    takes_pmu_off,
    unknown_properties,
    unsupported_properties,
    vcpu_features,
    vector_length,
)

DOMAIN = Domain(
    name="g",
    uuid="",
    virt_type="kvm",
    arch="aarch64",
    machine="virt-10.0",
    emulator="",
    vcpus=1,
    current_vcpus=1,
    memory=1 << 30,
    max_memory=0,
    memory_slots=0,
    gic_version="3",
    pmu=None,
    cpu_mode="host-passthrough",
    cpu_model="",
    cpu_features=(),
)
ALL = frozenset(
    (
        "KVM_CAP_ARM_PMU_V3",
        "KVM_CAP_ARM_SVE",
        "KVM_CAP_ARM_PTRAUTH_ADDRESS",
        "KVM_CAP_ARM_PTRAUTH_GENERIC",
        "KVM_CAP_STEAL_TIME",
        "KVM_CAP_ARM_EL1_32BIT",
        "KVM_CAP_ARM_EL2",
    )
)
PSCI, PMU, SVE, EL1_32BIT, EL2 = (
    f"KVM_ARM_VCPU_{name}" for name in ("PSCI_0_2", "PMU_V3", "SVE", "EL1_32BIT", "HAS_EL2")
)
WIDE = "sve\uff12\uff15\uff16"
"""In digits that are decimal to Python, and none to QEMU."""
PAUTH = ("KVM_ARM_VCPU_PTRAUTH_ADDRESS", "KVM_ARM_VCPU_PTRAUTH_GENERIC")


def kernel(*without: str) -> Callable[[str], int]:
    """Has all capabilities but these."""
    return lambda name: int(name in ALL - set(without))


def domain(**features: str) -> Domain:
    """With CPU features: ``sve="disable"``."""
    return replace(DOMAIN, cpu_features=tuple(CpuFeature(name, policy) for name, policy in features.items()))


def cpu(text: str = "host", *, aarch32: bool = False) -> CPU:
    """Of a ``-cpu`` argument."""
    argument = read_arguments(["-cpu", text]).cpu
    assert argument
    return CPU(argument.model, argument.properties, aarch32)


KERNEL = kernel()


def features(one: CPU, capability: Callable[[str], int] = KERNEL, *, pmu: bool = True, el2: bool = False) -> set[str]:
    return set(vcpu_features(one, capability, pmu=pmu, el2=el2))


class TestLibvirt:
    """qemuBuildCpuCommandLine, and what the parser makes of SVE before it."""

    @pytest.mark.parametrize(
        ("changes", "written"),
        [
            ({}, "host"),
            ({"cpu_mode": "maximum"}, "max"),
            ({"cpu_mode": "custom", "cpu_model": "cortex-a57"}, "cortex-a57"),
            ({"arch": "armv7l"}, "host,aarch64=off"),
            ({"pmu": False}, "host,pmu=off"),
            ({"no_adjvtime": True}, "host,kvm-no-adjvtime=on"),
        ],
    )
    def test_what_it_writes(self, changes: dict[str, Any], written: str) -> None:
        assert libvirt_cpu(replace(DOMAIN, **changes)) == read_arguments(["-cpu", written]).cpu

    def test_it_writes_none_for_a_domain_that_names_no_cpu(self) -> None:
        assert libvirt_cpu(replace(DOMAIN, cpu_mode="")) is None

    @pytest.mark.parametrize(
        ("policy", "value"), [("", "on"), ("force", "on"), ("require", "on"), ("disable", "off"), ("forbid", "off")]
    )
    def test_policies(self, policy: str, value: str) -> None:
        assert libvirt_cpu(domain(pauth=policy)) == CPUArgument("host", (("pauth", value),))

    def test_optional_features_are_not_handed_on(self) -> None:
        """So <pmu state='on'/> stands beside <feature policy='optional' name='pmu'/>."""
        assert libvirt_cpu(replace(domain(pmu="optional"), pmu=True)) == CPUArgument("host", (("pmu", "on"),))

    def test_a_vector_length_requires_sve(self) -> None:
        assert cpu_of(domain(sve256="require"), read_arguments(())).on("sve", default=False)
        assert cpu_of(domain(sve="optional", sve256="disable"), read_arguments(())).on("sve", default=False)

    @pytest.mark.parametrize(
        ("one", "refused"),
        [
            (DOMAIN, False),
            (domain(sve="disable", sve128="require"), True),
            (domain(sve="disable"), False),
            (replace(DOMAIN, virt_type="qemu"), True),
            (replace(DOMAIN, virt_type="qemu", cpu_mode="maximum"), False),
            (replace(DOMAIN, cpu_mode="host-model"), True),
            (replace(DOMAIN, cpu_mode="", pmu=True), True),
            (replace(DOMAIN, cpu_mode="", no_adjvtime=True), True),
            (replace(DOMAIN, cpu_mode=""), False),
        ],
    )
    def test_what_it_refuses(self, one: Domain, refused: bool) -> None:
        assert bool(libvirt_refuses(one)) is refused


class TestCPU:
    def test_an_argument_replaces_libvirts(self) -> None:
        one = cpu_of(domain(sve="disable"), read_arguments(["-cpu", "host,pmu=off"]))
        assert one == CPU("host", (("pmu", "off"),))

    def test_a_global_property_gives_way_to_cpus(self) -> None:
        arguments = read_arguments(
            ["-global", "host-arm-cpu.sve=on", "-global", "driver=arm-cpu,property=pauth,value=off",
             "-global", "max-arm-cpu.pmu=off"]
        )  # fmt: skip
        one = cpu_of(domain(sve="disable"), arguments)
        assert (one.on("sve"), one.on("pauth"), one.on("pmu")) == (False, False, True)

    def test_the_last_value_counts(self) -> None:
        assert cpu("host,pmu=off,pmu=on").on("pmu")

    def test_a_switch_takes_qemus_words_alone(self) -> None:
        assert not cpu("host,pmu=n").on("pmu")
        with pytest.raises(ArgumentError):
            cpu("host,pmu=1").on("pmu")

    @pytest.mark.parametrize(
        ("one", "arguments", "aarch32"),
        [
            (DOMAIN, [], False),
            (replace(DOMAIN, arch="armv7l"), [], True),
            (replace(DOMAIN, arch="armv7l", cpu_mode=""), [], True),
            (domain(aarch64="disable"), [], True),
            (DOMAIN, ["-cpu", "host,aarch64=no"], True),
            (DOMAIN, ["-global", "host-arm-cpu.aarch64=off"], True),
            (replace(DOMAIN, arch="armv7l"), ["-cpu", "host"], False),  # as QEMU has it
        ],
    )
    def test_is_32_bit(self, one: Domain, arguments: list[str], aarch32: bool) -> None:
        assert cpu_of(one, read_arguments(arguments)).aarch32 is aarch32

    def test_what_qemu_says_of_the_hosts_cpu_counts_where_nobody_set_it(self) -> None:
        answered = {"sve": True, "sve128": True, "sve256": False, "pauth": False, "pmu": False}
        one = cpu("host,pmu=on").as_answered(answered)
        assert features(one) == {PSCI, PMU, SVE}
        assert sve_vector_lengths(one, (128, 256)) == (128,)
        shorter = cpu("host,sve128=on").as_answered({"sve": True, "sve128": True, "sve256": True})
        assert sve_vector_lengths(shorter, (128, 256)) == (128,)
        assert cpu("cortex-a57").as_answered(answered) == cpu("cortex-a57")

    @pytest.mark.parametrize(
        ("qemu", "model"), [(None, None), ((10, 1), "cortex-a15"), ((10, 2), "max"), ((7, 2), "cortex-a15")]
    )
    def test_qemus_default_under_kvm(self, qemu: tuple[int, int] | None, model: str | None) -> None:
        assert default_model(qemu) == model
        assert default_model(qemu, kvm=False) == "cortex-a15"

    @pytest.mark.parametrize(
        ("qemu", "takes"), [(None, None), ((7, 2), True), ((8, 2), True), ((9, 0), None), ((9, 1), False),
                            ((10, 0), False), ((16, 0), False)],
    )  # fmt: skip
    def test_pmu_off_where_kvm_has_no_pmu(self, qemu: tuple[int, int] | None, takes: bool | None) -> None:
        assert takes_pmu_off(qemu) is takes


class TestFeatures:
    def test_the_hosts_own_cpu_gets_all_that_kvm_has_by_bits(self) -> None:
        assert vcpu_features(cpu(), kernel(), pmu=True, el2=True) == (PSCI, PMU, SVE, *PAUTH, EL2)

    @pytest.mark.parametrize(
        ("capability", "left"),
        [
            ("KVM_CAP_ARM_PMU_V3", {PSCI, SVE, *PAUTH}),
            ("KVM_CAP_ARM_SVE", {PSCI, PMU, *PAUTH}),
            ("KVM_CAP_ARM_PTRAUTH_GENERIC", {PSCI, PMU, SVE}),
        ],
    )
    def test_what_kvm_does_not_support(self, capability: str, left: set[str]) -> None:
        assert features(cpu(), kernel(capability)) == left

    def test_what_is_off(self) -> None:
        assert features(cpu("host,sve=off,pauth=no")) == {PSCI, PMU}
        assert features(cpu("host,pmu=off")) == {PSCI, SVE, *PAUTH}
        assert features(cpu(), pmu=False) == {PSCI, SVE, *PAUTH}
        assert EL2 not in features(cpu(), kernel("KVM_CAP_ARM_EL2"), el2=True)

    def test_a_named_model_has_neither_sve_nor_pointer_authentication(self) -> None:
        assert features(cpu("cortex-a57,sve=on")) == {PSCI, PMU}
        assert cpu("cortex-a57").target == "KVM_ARM_TARGET_CORTEX_A57"

    def test_a_32_bit_one_keeps_what_kvm_then_refuses(self) -> None:
        """QEMU 7.2, 10.0 and 11.1 fail so: only SVE can be switched off (arm_cpu_finalize_features)."""
        assert features(cpu("host,aarch64=off", aarch32=True)) == {EL1_32BIT, PSCI, PMU, SVE, *PAUTH}
        off = features(cpu("host,sve=off,pauth=off", aarch32=True))
        assert off & AARCH64_FEATURES == set(PAUTH)
        neither = kernel("KVM_CAP_ARM_SVE", "KVM_CAP_ARM_PTRAUTH_ADDRESS")
        assert features(cpu(aarch32=True), neither) == {EL1_32BIT, PSCI, PMU}


class TestUnsupported:
    @pytest.mark.parametrize(
        ("text", "missing", "refused"),
        [
            ("host,pmu=on", "KVM_CAP_ARM_PMU_V3", ["pmu"]),
            ("host,pmu=off", "KVM_CAP_ARM_PMU_V3", []),
            ("host", "KVM_CAP_ARM_PMU_V3", []),
            ("host,sve=on", "KVM_CAP_ARM_SVE", ["sve"]),
            ("host,sve256=on,sve=on", "KVM_CAP_ARM_SVE", ["sve", "sve256"]),
            ("host,sve256=off", "KVM_CAP_ARM_SVE", []),
            ("host,pauth=on", "KVM_CAP_ARM_PTRAUTH_GENERIC", ["pauth"]),
            ("host,kvm-steal-time=on", "KVM_CAP_STEAL_TIME", ["kvm-steal-time"]),
            ("host,kvm-steal-time=on", "", []),
            ("cortex-a53,pmu=on", "KVM_CAP_ARM_PMU_V3", ["pmu"]),
        ],
    )
    def test_properties(self, text: str, missing: str, refused: list[str]) -> None:
        found = unsupported_properties(cpu(text), kernel(missing), None)
        assert [one.name for one in found] == refused
        assert {one.capability for one in found} <= {missing}

    def test_32_bit_guests(self) -> None:
        refused = unsupported_properties(
            cpu("host,kvm-steal-time=on", aarch32=True), kernel("KVM_CAP_ARM_EL1_32BIT"), None
        )
        assert [one.name for one in refused] == ["aarch64", "kvm-steal-time"]

    def test_a_machine_type_without_stolen_time_switches_it_off_first(self) -> None:
        assert unsupported_properties(cpu("host,kvm-steal-time=on"), kernel("KVM_CAP_STEAL_TIME"), (5, 1)) == ()

    @pytest.mark.parametrize(
        ("text", "unknown"),
        [
            ("host,pmu=on,sve=on,sve2048=on,pauth=off,aarch64=on", ()),
            ("host,svee=on", ("svee",)),
            ("host,sve0=on,sve99999=on,sve130=on", ("sve0", "sve99999", "sve130")),
            (f"host,{WIDE}=on", (WIDE,)),
            ("host,sve0256=on", ("sve0256",)),
            ("cortex-a53,sve512=on,pauth=off", ("sve512", "pauth")),  # the host's own CPU's alone
            ("host,kvm-psci-version=1.1", ()),
        ],
    )
    def test_unknown_properties(self, text: str, unknown: tuple[str, ...]) -> None:
        assert unknown_properties(cpu(text)) == unknown


class TestVectorLengths:
    """arm_cpu_sve_finalize; QEMU's tests/qtest/arm-cpu-features.c has the same cases."""

    @pytest.mark.parametrize(
        ("text", "lengths"),
        [
            ("host", (128, 256, 512)),
            ("max", (128, 256, 512)),
            ("host,sve=off", ()),
            ("host,sve256=on", (128, 256)),
            ("host,sve128=on,sve256=off", (128,)),
            ("host,sve256=off", (128,)),
            ("host,sve512=off", (128, 256)),
            ("host,sve1024=off", (128, 256, 512)),
            ("host,sve=off,sve256=off", ()),
            ("cortex-a57", ()),
        ],
    )
    def test_given(self, text: str, lengths: tuple[int, ...]) -> None:
        assert sve_vector_lengths(cpu(text), (128, 256, 512)) == lengths

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("host,sve1024=on", "no vectors of 1024 bits"),
            ("host,sve128=off", "without the vector length of 128 bits none is left"),
            ("host,sve512=on,sve256=off", "no vectors of 512 bits without those of 256 bits"),
            ("host,sve=off,sve128=on", "of 128 bits needs SVE, which is off"),
        ],
    )
    def test_refused(self, text: str, why: str) -> None:
        reason = sve_vector_lengths(cpu(text), (128, 256, 512))
        assert isinstance(reason, str)
        assert why in reason

    def test_a_host_without_sve(self) -> None:
        assert sve_vector_lengths(cpu(), ()) == ()
        assert isinstance(sve_vector_lengths(cpu("host,sve128=on"), ()), str)

    @pytest.mark.parametrize(
        ("name", "bits"),
        [("sve128", 128), ("sve2048", 2048), ("sve", None), ("sve0", None), ("sve2176", None), ("sve100", None),
         ("sve0128", None), ("sve" + "9" * 5000, None), ("sve1000000000000", None), (WIDE, None),
         ("sme128", None)],
    )  # fmt: skip
    def test_names(self, name: str, bits: int | None) -> None:
        assert vector_length(name) == bits

    @given(
        st.dictionaries(st.integers(1, 16).map(lambda vq: 128 * vq), st.booleans()),
        st.sets(st.integers(1, 16).map(lambda vq: 128 * vq)),
    )
    def test_what_is_given_is_what_kvm_takes(self, wishes: dict[int, bool], supported: set[int]) -> None:
        """KVM takes all its lengths up to the longest, and no other set (arch/arm64/kvm/guest.c, set_sve_vls)."""
        text = ",".join(("host", *(f"sve{bits}={'on' if on else 'off'}" for bits, on in wishes.items())))
        assert sve_wishes(cpu(text)) == wishes
        lengths = sve_vector_lengths(cpu(text), supported)
        if not isinstance(lengths, str) and supported:
            assert lengths == tuple(sorted(bits for bits in supported if bits <= max(lengths)))
            assert not {bits for bits, on in wishes.items() if on} - set(lengths)


class TestPSCI:
    @pytest.mark.parametrize(
        ("version", "register"), [("1.1", 0x10001), ("0.2", 2), ("1", None), ("", None), ("1." + "9" * 5000, None),
                                  ("70000000000000000.1", None), ("1.1.1", None), ("\u0661.\u0661", None)],
    )  # fmt: skip
    def test_version(self, version: str, register: int | None) -> None:
        assert psci_version(cpu(f"host,kvm-psci-version={version}")) == register
        assert psci_version(cpu()) is None

    def test_psci_0_1_is_a_vcpu_without_the_feature(self) -> None:
        assert PSCI not in features(cpu("host,kvm-psci-version=0.1"))


class TestStolenTime:
    @pytest.mark.parametrize(("machine", "given"), [((5, 1), False), ((5, 2), True), ((10, 0), True), (None, True)])
    def test_by_machine_type(self, machine: tuple[int, int] | None, given: bool) -> None:
        assert has_steal_time(cpu(), machine, kernel()) is given
        assert not has_steal_time(cpu(), machine, kernel("KVM_CAP_STEAL_TIME"))
        assert not has_steal_time(cpu("host,kvm-steal-time=off"), machine, kernel())

    def test_never_for_32_bit_guests(self) -> None:
        one = cpu_of(domain(aarch64="disable"), read_arguments(()))
        assert not has_steal_time(one, None, kernel())
