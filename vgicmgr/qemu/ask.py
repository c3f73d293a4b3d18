"""Start an installed QEMU without a machine, ask it over QMP what it can do on this host, and end it.

What ``check-host`` runs as ``python3 -m vgicmgr.qemu.ask PATH...``, in a process of its own, since qemu.qmp is slow to
start: the answers come as JSON on standard output. No guest is made: the machine type is ``none``, as libvirt asks it.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from tempfile import TemporaryFile
from typing import IO

from vgicmgr.dataclass import replace
from vgicmgr.errors import CannotTell
from vgicmgr.qemu.answers import Answers, default_machine, from_answers
from vgicmgr.qemu.emulator import Emulator, Emulators, NotAsked
from vgicmgr.qemu.program import InstalledQEMU
from vgicmgr.qemu.qmp import CommandFailed, Monitor, connected_monitor

SECONDS = 60.0
"""How long one QEMU may take for everything; 1 on a host with KVM, 16 measured on a busy emulated one with SVE."""
_ENDING_SECONDS = 2.0
_COMPLAINT_BYTES = 2000


async def ask(path: str, *, seconds: float = SECONDS) -> Emulator:
    """Ask the QEMU at ``path``; raises :class:`~vgicmgr.errors.CannotTell` where it does not start or answer."""
    try:
        async with asyncio.timeout(seconds), _running(path, seconds) as monitor:
            answers = await _answers(monitor)
        emulator = from_answers(path, answers)
    except TimeoutError:
        raise CannotTell(f"{path} did not answer within {seconds:g} s") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise CannotTell(f"the answers of {path} have another form than QEMU's interface has it") from None
    return replace(emulator, program_differs=program_differences(emulator))


async def _answers(monitor: Monitor) -> Answers:
    kvm = await monitor.execute("query-kvm")
    machines = await monitor.execute("query-machines")
    default = default_machine(machines)
    properties = await monitor.execute("qom-list-properties", {"typename": f"{default}-machine"}) if default else []
    gics, model, cpu_properties = None, None, None
    if kvm["enabled"]:
        # without KVM, QEMU 10.0 on an arm64 host dies of the question
        gics = await monitor.execute("query-gic-capabilities")
        with suppress(CommandFailed):
            model = await monitor.execute("query-cpu-model-expansion", {"type": "full", "model": {"name": "host"}})
            cpu_properties = await monitor.execute("device-list-properties", {"typename": "host-arm-cpu"})
    return Answers(
        version=await monitor.execute("query-version"),
        kvm=kvm,
        gic_capabilities=gics,
        machines=machines,
        machine_properties=properties,
        cpu_model=model,
        cpu_properties=cpu_properties,
    )


@asynccontextmanager
async def _running(path: str, seconds: float) -> AsyncIterator[Monitor]:
    """A QEMU that nothing runs in, and its monitor; it is ended, whatever happens."""
    with TemporaryFile(prefix="vgicmgr-") as complaints:
        # connected from the start: with a socket that QEMU listens on, a client that comes while it starts is seen by
        # two of its threads, one of which then waits for good for another (QEMU 7.2)
        ours, its = socket.socketpair()
        with its:
            try:
                qemu = subprocess.Popen(
                    [path, *_ARGUMENTS, "-chardev", f"socket,id=qmp,fd={its.fileno()}"],
                    pass_fds=[its.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=complaints,
                )
            except OSError as error:
                ours.close()
                raise CannotTell(f"{path} cannot be run: {os.strerror(error.errno or 0)}") from None
        try:
            async with connected_monitor(ours, f"the monitor of {path}", seconds=seconds) as monitor:
                yield monitor
                with suppress(CannotTell):
                    await monitor.execute("quit")  # behind a wrapper script, a signal would not reach it
        except CannotTell as error:
            with suppress(subprocess.TimeoutExpired):
                status = qemu.wait(_ENDING_SECONDS)
                said = _last_line(complaints) or (f"exit status {status}" if status >= 0 else f"signal {-status}")
                raise CannotTell(f"{path} ended: {said}", "see whether it starts by itself") from error
            raise
        finally:
            qemu.kill()  # it has nothing to lose
            qemu.wait()


_ARGUMENTS = (
    *("-S", "-no-user-config", "-nodefaults", "-display", "none", "-machine", "none"),
    # as libvirt asks: with the second, a KVM that cannot be used is an answer
    *("-accel", "kvm", "-accel", "tcg"),
    *("-qmp", "chardev:qmp"),
)


def _last_line(complaints: IO[bytes]) -> str:
    complaints.seek(max(complaints.seek(0, os.SEEK_END) - _COMPLAINT_BYTES, 0))
    lines = complaints.read().decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip() and "warning:" not in line]
    return "".join(c if c.isprintable() else "?" for c in said[-1]) if said else ""


def program_differences(emulator: Emulator) -> tuple[str, ...]:
    """Where the program file, by which the hook goes, tells otherwise than QEMU itself; one sentence each."""
    program = InstalledQEMU(emulator.path)
    version, psci = program.version, program.psci_property
    if program.why:
        return (program.why,)
    differences = []
    told = "no version" if version is None else "version {}.{}".format(*version)
    if version is None or emulator.version.split(".")[:2] != [str(number) for number in version]:
        differences.append(f"its program file tells {told}, QEMU itself says that it is {emulator.version}")
    if emulator.cpu_properties:
        asked = "kvm-psci-version" in emulator.cpu_properties
        if psci != asked:
            differences.append(
                f"its program file has {'no' if asked else 'a'} text of the CPU property kvm-psci-version, QEMU itself "
                f"says that it has {'one' if asked else 'none'}"
            )
    return tuple(differences)


async def ask_all(paths: Sequence[str], *, seconds: float = SECONDS) -> Emulators:
    """Ask each; what does not answer stands among those not asked."""
    answered, failed = [], []
    for path in paths:
        try:
            answered.append(await ask(path, seconds=seconds))
        except CannotTell as error:
            failed.append(NotAsked(path, error.message, error.remedy, failed=True))
    return Emulators(tuple(answered), tuple(failed))


def main(paths: Sequence[str]) -> None:
    """Ask each and print the answers as JSON."""
    print(json.dumps(asyncio.run(ask_all(paths)).to_document()))


if __name__ == "__main__":
    main(sys.argv[1:])
