"""Domains and hosts of all kinds, for tests of what must agree about each of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.fakes.hosts import GICV2_HOST, NEOVERSE_N1, SVE_HOST, HostKind
from tests.fakes.kernel import FakeKernel, installed, pretend_arm64
from vgicmgr.dataclass import replace
from vgicmgr.host import counter, models
from vgicmgr.host.document import migration_member, to_document
from vgicmgr.host.documented import DocumentedHost, read_document
from vgicmgr.host.judge import judge_host
from vgicmgr.host.probe import probe_system
from vgicmgr.host.qemu import programs
from vgicmgr.kvm.registers import register_id
from vgicmgr.kvm.system import System
from vgicmgr.qemu.program import _ONLY_INCOMING

PROGRAMS = {
    "qemu-7.2": b"QEMU emulator version 7.2.17\0",
    "qemu-9.0": b"QEMU emulator version 9.0.4\0",
    "qemu-10.0": b"QEMU emulator version 10.0.13\0",
    "qemu-10.2": b"QEMU emulator version 10.2.0\0",
    "qemu-11.1": b"QEMU emulator version 11.1.3\0kvm-psci-version\0" + _ONLY_INCOMING + b"\0",
}
"""What of a QEMU's program file is read."""
SCRIPT = "wrapper"
"""An emulator that is a script: nothing of it can be told."""


def write_programs(folder: Path) -> tuple[str, ...]:
    """The emulators of a host, in this folder; their paths."""
    for name, constants in PROGRAMS.items():
        (folder / name).write_bytes(b"\x7fELF\x02\0" + constants)
    (folder / SCRIPT).write_text("#!/bin/sh\n")
    return tuple(str(folder / name) for name in (*PROGRAMS, SCRIPT))


# --- domains


def _mostly(usual: Any, *others: Any, weight: int = 8) -> st.SearchStrategy[Any]:
    """One of ``others`` now and then: a guest that differs from a usual one in everything never gets far."""
    return st.integers(0, weight).flatmap(
        lambda number: st.sampled_from(others) if number == weight else st.just(usual)
    )


def _element(name: str, usual: str, *others: str) -> st.SearchStrategy[str]:
    return _mostly(usual, *others).map(lambda attributes: f"<{name} {attributes}/>" if attributes else "")


MACHINES = (
    *("virt", "virt-10.0", "virt-11.1", "virt-6.1", "virt-2.6", "virt-2.7", "virt-2.12", "virt-5.1", "virt-99.0"),
    *("virt-rhel9.6.0", "virt-kunpeng", ""),
)
FEATURES = (
    *("sve", "pauth", "pmu", "aarch64", "sve128", "sve256", "sve384", "sve512", "sve9999", "svee", "kvm-steal-time"),
    *("kvm-no-adjvtime",),
)
POLICIES = ("require", "disable", "optional", "force", "forbid")
CPUS = (
    *("", "<cpu/>", "<cpu mode='host-passthrough'>{}</cpu>", "<cpu mode='host-passthrough'>{}</cpu>"),
    *("<cpu mode='maximum'>{}</cpu>", "<cpu mode='host-model'/>"),
    *(
        f"<cpu mode='custom' match='exact'><model fallback='forbid'>{model}</model>{{}}</cpu>"
        for model in ("cortex-a53", "cortex-a57", "cortex-a72", "host")
    ),
)
ARGUMENTS = (
    *(("-machine", value) for value in ("its=off", "its=no", "its=on", "its=maybe", "gic-version=2", "gic-version=3")),
    *(("-machine", value) for value in ("gic-version=max", "gic-version=4", "kernel-irqchip=off", "msi=gicv2m")),
    *(("-machine", value) for value in ("virtualization=on", "mte=on", "secure=on", "highmem=off", "accel=tcg")),
    *(("-M", value) for value in ("virt,ras=on", "virt-2.6", "highmem-mmio-size=1T", "kernel_irqchip=split")),
    *(("-M", value) for value in ("compact-highmem=off", "highmem-redists=off", "iommu=smmuv3", "msi=off", "raspi3b")),
    *(("-cpu", value) for value in ("host", "max", "cortex-a57", "host,pmu=off", "host,sve=off,sve128=on")),
    *(("-cpu", value) for value in ("host,aarch64=off", "host,sve=maybe", "host,kvm-psci-version=0.2", "host,x=1")),
    *(("-global", value) for value in ("host-arm-cpu.pauth=off", "driver=host-arm-cpu,property=pmu,value=off")),
    *(("-smp", value) for value in ("1,maxcpus=1", "9,maxcpus=9", "300,maxcpus=300", "x")),
    *(("-m", value) for value in ("4G", "700G", "2G,slots=2,maxmem=1T")),
    *(("-accel", value) for value in ("kvm", "tcg")),
    *(("-enable-kvm",), ("-S",), ("-machine",)),
)


@st.composite
def domains(draw: st.DrawFn) -> str:
    """The XML of a KVM guest on ``virt``, to be completed by :func:`xml_of`."""
    arch = draw(_mostly("aarch64", "armv7l"))
    machine = draw(_mostly("virt-7.2", *(MACHINES if arch == "aarch64" else MACHINES[:-1]), weight=2))
    most = draw(_mostly(2, 1, 8, 9, 124, 257, 300, 512, 513, weight=3))
    current = draw(_mostly(most, 1))
    memory = draw(_mostly(1, 4, 40, 300, 600, 2000, weight=3))
    growth = draw(_mostly("", "<maxMemory slots='{}' unit='GiB'>{}</maxMemory>", weight=4)).format(
        draw(st.sampled_from([1, 8, 300])), draw(st.sampled_from([2, 64, 1000, 1020]))
    )
    features = draw(_element("gic", "version='host'", "", "version='2'", "version='3'", "version='4'"))
    features += draw(_element("pmu", "", "state='on'", "state='off'")) + draw(_element("ras", "", "state='on'"))
    chosen = draw(st.lists(st.tuples(st.sampled_from(FEATURES), st.sampled_from(POLICIES)), max_size=2))
    cpu = draw(_mostly("<cpu mode='host-passthrough'>{}</cpu>", *CPUS, weight=4)).format(
        "".join(f"<feature policy='{policy}' name='{name}'/>" for name, policy in draw(_mostly([], chosen, weight=2)))
    )
    timer = draw(_mostly("", "<clock><timer name='armvtimer' tickpolicy='discard'/></clock>"))
    security = draw(_mostly("", "<launchSecurity type='cca'/>", weight=20))
    ports = draw(_mostly(0, 3))
    devices = "<controller type='pci' index='0' model='pcie-root'/>" + "".join(
        f"<controller type='pci' index='{number + 1}' model='pcie-root-port'/>" for number in range(ports)
    )
    devices += draw(_element("iommu", "", "model='smmuv3'", "model='virtio'"))
    arguments = draw(_mostly([], *([argument] for argument in ARGUMENTS), weight=1))
    arguments += draw(_mostly([], *([argument] for argument in ARGUMENTS)))
    words = "".join(f"<q:arg value='{word}'/>" for argument in arguments for word in argument)
    return (
        "<domain type='kvm' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name>"
        f"<metadata>METADATA</metadata><memory unit='GiB'>{memory}</memory>{growth}"
        f"<vcpu current='{current}'>{most}</vcpu>"
        f"<os><type arch='{arch}'{machine and f' machine={machine!r}'}>hvm</type></os>"
        f"<features>{features}</features>{cpu}{timer}{security}"
        f"<devices><emulator>FOLDER/{draw(st.sampled_from((*PROGRAMS, SCRIPT)))}</emulator>{devices}</devices>"
        f"<q:commandline>{words}</q:commandline></domain>"
    )


def xml_of(domain: str, folder: Path, metadata: str = "") -> bytes:
    """With emulators of this folder, and with that in ``<metadata>``."""
    return domain.replace("FOLDER", str(folder)).replace("METADATA", metadata).encode()


# --- hosts


BASES = {"N1": NEOVERSE_N1, "SVE": SVE_HOST, "GICv2": GICV2_HOST}
_MOSTLY = _mostly(True, False, weight=5)
HOSTS = st.fixed_dictionaries(
    {
        "base": st.sampled_from(list(BASES)),
        "gic_versions": _mostly({3}, {2, 3}, {2}, set(), weight=2).map(frozenset),
        "its": _MOSTLY,
        "ipa_limit": _mostly(48, 52, 44, 40, 39, 36, 32, 0, weight=2),
        "pmu": _MOSTLY,
        "sve": st.sampled_from([(), (128,), (128, 256), (128, 256, 512)]),
        "pauth": st.booleans(),
        "el1_32bit": st.booleans(),
        "el2": st.booleans(),
        "mte": st.booleans(),
        "steal_time": _MOSTLY,
        "user_irq": _MOSTLY,
        "irq_line_layout_2": _MOSTLY,
        "redistributor_regions": _MOSTLY,
        "max_vcpus": st.sampled_from([512, 512, 64]),
        "target": st.sampled_from([f"KVM_ARM_TARGET_{name}" for name in ("GENERIC_V8", "CORTEX_A57", "CORTEX_A53")]),
    }
)
"""What hosts within the bounds of real ones differ in; :func:`host_kind` makes one."""


def host_kind(base: str, **changes: Any) -> HostKind:
    """The fake's host of such a draw."""
    changes["its"] = changes["its"] and 3 in changes["gic_versions"]
    return replace(BASES[base], **changes)


@contextmanager
def running_on(kind: HostKind, release: str = "6.12.0") -> Iterator[FakeKernel]:
    """This machine is a host of that kind."""
    with pytest.MonkeyPatch.context() as patch, installed(patch, FakeKernel(kind)) as kernel:
        pretend_arm64(patch, release=release)
        yield kernel


def document_of(
    kind: HostKind, emulators: tuple[str, ...], *features: tuple[str, ...], release: str = "6.12.0"
) -> DocumentedHost:
    """What ``check-host --format json`` writes there, read again, with the registers of these vCPUs alone.

    A vCPU's take their time.
    """
    with running_on(kind, release), pytest.MonkeyPatch.context() as patch, System() as system:
        patch.setattr(counter, "measure", lambda *_: kind.counter_frequency)  # it takes its time
        patch.setattr(models, "feature_sets", lambda _: features)
        capabilities = probe_system(system)
        vcpus = models.probe_system_models(system) if features else ()
        document = {
            **to_document(capabilities, judge_host(capabilities)),
            "migration": migration_member(vcpus, programs(emulators)),
        }
    return read_document(json.dumps(document).encode())


# --- what a guest brings along

CHANGED = st.dictionaries(
    st.sampled_from(
        ["MIDR_EL1", "ID_AA64ISAR0_EL1", "ID_AA64PFR0_EL1", "ID_AA64MMFR0_EL1", "CTR_EL0", "CLIDR_EL1", "ID_ISAR5_EL1"]
    ),
    st.integers(0, 63).map(lambda bit: 1 << bit),
    max_size=2,
)
"""Bits of registers in which a host differs from its kind."""
SOURCES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["N1", "N1", "N1", "SVE", "GICv2"]),
        "changed": _mostly({}, None, weight=2).flatmap(lambda none: CHANGED if none is None else st.just(none)),
        "ipa_limit": _mostly(48, 40, 52, weight=4),
        "steal_time": _MOSTLY,
        "its": _MOSTLY,
        "gicd_revision": _mostly(3, 2),
        "icc_ctlr_el1": _mostly(0x400, 0x500, 0x4400, 0x8400, weight=4),
        "gits_typer": _mostly(0x1EF71, 0x1FF71, weight=4),
        "pmu_counters": _mostly(6, 8, 4, weight=4),
    }
)


def source_kind(kind: str, changed: dict[str, int], its: bool, **changes: Any) -> HostKind:
    """The fake's host of such a draw."""
    base = BASES[kind]
    registers = {name: base.registers[register_id(name)].value ^ bit for name, bit in changed.items()}
    return replace(base, its=its and base.its, **changes).with_registers(**registers)
