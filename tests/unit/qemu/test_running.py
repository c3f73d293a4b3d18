"""What is made of a running QEMU's answers, and of answers that are none."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.qemu.fakemonitor import GIC, MTREE, FakeMonitor
from tests.unit.qemu.test_devicetree import SAMPLE
from vgicmgr.errors import CannotTell
from vgicmgr.qemu.qmp import MonitorGarbled, MonitorLost, MonitorSilent
from vgicmgr.qemu.running import (
    RunningMachine,
    RunningVCPU,
    ask_running,
    domain_folder,
    socket_folder,
)
from vgicmgr.qemu.virt import MemoryRegion

CPU = "/machine/unattached/device[0]"


def ask(changed: Mapping[object, Any] | None = None) -> RunningMachine:
    return asyncio.run(ask_running(FakeMonitor(changed)))


def test_what_a_gicv3_of_kvms_is_told_as() -> None:
    machine = ask()
    assert machine.monitor == "monitor /run/g1"
    assert (machine.qemu, machine.version, machine.package) == ((10, 0, 2), (10, 0), "Debian")
    assert (machine.status, machine.machine, machine.accelerator) == ("running", "virt-10.0", "kvm")
    assert (machine.gic_version, machine.gic_in_kernel, machine.nr_irqs) == (3, True, 288)
    assert machine.distributor == MemoryRegion("gicv3_dist", 0x8000000, 0x10000)
    assert machine.redistributors == ((MemoryRegion("gicv3_redist_region[0]", 0x80A0000, 0x40000), 2),)
    assert machine.its == MemoryRegion("gicv3_its", 0x8080000, 0x20000)
    assert (machine.gicv2m, machine.cpu_interface) == (None, None)
    assert machine.vcpus == (RunningVCPU(0, "host-arm-cpu", 23), RunningVCPU(1, "host-arm-cpu", 23))
    assert (machine.max_vcpus, machine.pmu_intid) == (2, 23)
    assert (machine.memory, machine.max_memory, machine.memory_slots) == (128 << 20, 0, 0)
    assert machine.cpu_properties["midr"] == 0x414FD0C1
    assert machine.sve_vector_lengths == (128,)


def test_the_guests_command_line_and_files_are_not_asked_for() -> None:
    assert ask().properties == {"its": True, "gic-version": "3"}


def test_a_guest_at_work_is_asked_only_for_what_qemu_reads_from_its_own_state() -> None:
    """query-gic-capabilities, for one, crashes QEMU 10.0 under TCG."""
    monitor = FakeMonitor()
    asyncio.run(ask_running(monitor))
    assert set(monitor.asked) == {
        *("query-commands", "query-version", "query-status", "query-kvm", "query-cpus-fast"),
        *("qom-list", "qom-get", "human-monitor-command"),
    }


def test_an_array_property_as_qemu_7_2_has_it() -> None:
    old: dict[object, Any] = {
        GIC: [{"name": "len-redist-region-count", "type": "uint32"}],
        (GIC, "len-redist-region-count"): 2,
        (GIC, "redist-region-count[0]"): 123,
        (GIC, "redist-region-count[1]"): 7,
        "human-monitor-command": MTREE
        + "    0000004000000000-00000040000dffff (prio 0, i/o): gicv3_redist_region[1]\n",
    }
    assert [(region.base, count) for region, count in ask(old).redistributors] == [(0x80A0000, 123), (0x4000000000, 7)]


def test_a_gicv2_of_qemus() -> None:
    machine = ask(
        {
            "/machine/unattached": [
                {"name": "device[0]", "type": "child<cortex-a57-arm-cpu>"},
                {"name": "device[2]", "type": "child<arm_gic>"},
                {"name": "device[3]", "type": "child<arm-gicv2m>"},
            ],
            "query-kvm": {"enabled": False, "present": False},
            (GIC, "revision"): 2,
            "human-monitor-command": """\
address-space: memory
    0000000008000000-0000000008000fff (prio 0, i/o): gic_dist
    0000000008010000-0000000008011fff (prio 0, i/o): gic_cpu
    0000000008020000-0000000008020fff (prio 0, i/o): gicv2m
""",
        }
    )
    assert (machine.accelerator, machine.gic_in_kernel, machine.gic_version) == ("tcg", False, 2)
    assert (machine.cpu_interface, machine.gicv2m) == (
        MemoryRegion("gic_cpu", 0x8010000, 0x2000),
        MemoryRegion("gicv2m", 0x8020000, 0x1000),
    )
    assert (machine.redistributors, machine.its) == ((), None)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({(CPU, "pmu"): False}, id="switched off"),
        pytest.param({CPU: [{"name": "aarch64", "type": "bool"}]}, id="a CPU that has none"),
    ],
)
def test_a_vcpu_without_pmu_has_no_interrupt_of_it_though_its_output_is_wired(changed: Mapping[object, Any]) -> None:
    assert [vcpu.pmu_intid for vcpu in ask(changed).vcpus] == [None, None]


@pytest.mark.parametrize(
    ("wired", "intid"),
    [
        (f"{GIC}/unnamed-gpio-in[256]", 0),
        (f"{GIC}/unnamed-gpio-in[287]", 31),
        (f"{GIC}/unnamed-gpio-in[288]", None),
        (f"{GIC}/unnamed-gpio-in[23]", None),
        ("/machine/unattached/device[9]/unnamed-gpio-in[279]", None),
        ("", None),
    ],
)
def test_the_ppi_is_told_from_the_input_of_the_gic(wired: str, intid: int | None) -> None:
    assert ask({(CPU, "pmu-interrupt[0]"): wired}).pmu_intid == intid


def test_the_accelerator_is_asked_by_the_newer_command_where_it_is() -> None:
    commands = [{"name": "query-accelerators"}, {"name": "human-monitor-command"}]
    machine = ask({"query-commands": commands, "query-accelerators": {"enabled": "hvf", "present": []}})
    assert machine.accelerator == "hvf"


def test_what_this_qemu_cannot_be_asked_is_left_out() -> None:
    monitor = FakeMonitor({"query-commands": [{"name": "human-monitor-command"}]})
    machine = asyncio.run(ask_running(monitor, exchange=Path("/nonexistent")))
    assert machine.device_tree is None
    assert machine.no_device_tree == "this QEMU has no dumpdtb"
    assert "dumpdtb" not in monitor.asked


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({("/machine", "type"): "pc-q35-10.0-machine"}, "no 'virt' machine"),
        ({("/machine", "type"): "virtual-machine"}, "no 'virt' machine"),
        ({"/machine/unattached": [{"name": "device[2]", "type": "child<pl011>"}]}, "no GICv2 or GICv3"),
        ({"query-commands": []}, "has no human-monitor-command"),
    ],
)
def test_a_machine_that_cannot_be_told(changed: Mapping[object, Any], words: str) -> None:
    with pytest.raises(CannotTell, match=words) as caught:
        ask(changed)
    assert not isinstance(caught.value, MonitorGarbled)


@pytest.mark.parametrize(
    "changed",
    [
        {"query-cpus-fast": []},
        {"query-cpus-fast": [{"cpu-index": True, "qom-path": CPU}]},
        {"human-monitor-command": "nothing"},
        {(GIC, "num-irq"): -1},
        {(GIC, "num-irq"): "288"},
        {("/machine", "smp"): []},
        {(GIC, "redist-region-count"): [2, 3]},
        {GIC: [{"name": "len-redist-region-count", "type": "uint32"}], (GIC, "len-redist-region-count"): 1 << 31},
        {"query-version": {}},
    ],
)
def test_an_answer_of_another_shape_is_garbled(changed: Mapping[object, Any]) -> None:
    with pytest.raises(MonitorGarbled, match="not what QEMU answers"):
        ask(changed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "type", "qemu", "major", "size", "enabled", "cpu-index", "qom-path", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(FakeMonitor().answers, key=str)), JSON)
def test_no_answer_causes_any_other_error(key: object, answer: Any) -> None:
    try:
        machine = ask({key: answer})
    except CannotTell:
        pass
    else:
        assert isinstance(machine, RunningMachine)


def test_a_lost_monitor_is_lost_not_garbled() -> None:
    with pytest.raises(MonitorLost):
        ask({"query-status": MonitorLost("monitor /run/g1: QEMU ended")})


def test_all_questions_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(FakeMonitor):
        async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
            await asyncio.sleep(0.05)
            return await super().execute(command, arguments)

    with pytest.raises(MonitorSilent, match=r"not all was answered within 0\.2 s"):
        asyncio.run(ask_running(Slow(), seconds=0.2))


# --- the device tree, by way of a file


def dump(exchange: Path, monitor: FakeMonitor) -> RunningMachine:
    machine = asyncio.run(ask_running(monitor, exchange=exchange))
    assert list(exchange.iterdir()) == []
    return machine


def writing(blob: bytes) -> Callable[[str], None]:
    def write(path: str) -> None:
        Path(path).write_bytes(blob)

    return write


def test_the_device_tree_is_read_and_its_file_removed(tmp_path: Path) -> None:
    machine = dump(tmp_path, FakeMonitor(dumped=writing(SAMPLE)))
    assert machine.no_device_tree == ""
    assert machine.device_tree
    assert (machine.device_tree.distributor, machine.device_tree.pmu_intid) == (0x8000000, 23)


def test_without_a_folder_in_common_it_is_not_dumped() -> None:
    machine = ask()
    assert machine.device_tree is None
    assert "on its own host" in machine.no_device_tree


def secret(path: str) -> None:
    """A link to a file that the reader may read and QEMU may not."""
    Path(path).symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("dumped", "why"),
    [
        pytest.param(lambda path: None, "No such file", id="nothing, as on another host"),
        pytest.param(writing(b"x" * 100), "damaged", id="no tree"),
        pytest.param(writing(bytes(2 << 20)), "larger", id="large"),
        pytest.param(secret, "symbolic link", id="a link"),
        pytest.param(os.mkfifo, "damaged", id="a pipe"),
    ],
)
def test_a_file_that_is_no_tree_is_said_to_be(tmp_path: Path, dumped: Any, why: str) -> None:
    machine = dump(tmp_path, FakeMonitor(dumped=dumped))
    assert machine.device_tree is None
    assert why in machine.no_device_tree


def test_qemu_may_not_write_there(tmp_path: Path) -> None:
    machine = dump(tmp_path, FakeMonitor())
    assert machine.no_device_tree == "dumpdtb: dumpdtb not found"


def test_a_unix_sockets_folder_is_one_in_common() -> None:
    assert socket_folder("/run/g1/qmp") == Path("/run/g1")
    assert socket_folder("qmp") == Path.cwd()
    assert socket_folder("localhost:4444") is None


def test_libvirts_folder_of_a_domain_is_one_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    mine = tmp_path / "libvirt/qemu/lib/domain-7-g1"
    mine.mkdir(parents=True)
    (tmp_path / "libvirt/qemu/lib/domain-70-other").mkdir()

    def domain(uri: str, number: int) -> Any:
        return SimpleNamespace(ID=lambda: number, connect=lambda: SimpleNamespace(getURI=lambda: uri))

    assert domain_folder(domain("qemu:///session", 7)) == mine
    assert domain_folder(domain("qemu:///session", 8)) is None
    assert domain_folder(domain("qemu+ssh://h2/session", 7)) is None
