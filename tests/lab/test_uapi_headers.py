"""The numbers and structures of vgicmgr.kvm.uapi and vgicmgr.vfio.uapi against the kernel's own headers, by a C
compiler for arm64."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from struct import calcsize
from types import ModuleType

import pytest

from tests.lab import debian
from tests.lab.errors import Prerequisite
from tests.lab.spec import Release
from vgicmgr.kvm import uapi as kvm
from vgicmgr.kvm.uapi import Struct
from vgicmgr.vfio import uapi as vfio

pytestmark = pytest.mark.lab

NEWEST = Release.SID

# kvm.h uses these macros of the kernel but does not define them for user space (Linux 6.1 has GENMASK).
KVM_HEADERS = """
#include <stddef.h>
#include <linux/kvm.h>
#ifndef __GENMASK
#define __GENMASK(high, low) ((~0ULL << (low)) & (~0ULL >> (63 - (high))))
#endif
#define GENMASK(high, low) __GENMASK(high, low)
"""

VFIO_HEADERS = """
#include <stddef.h>
#include <linux/vfio.h>
"""


@dataclass(frozen=True)
class Interface:
    """A module of numbers and structures, and the headers they are from."""

    module: ModuleType
    headers: str
    least: int
    """How many of them the oldest kernel's headers have at least."""

    @property
    def numbers(self) -> dict[str, int]:
        return {name: value for name, value in vars(self.module).items() if name[0] != "_" and isinstance(value, int)}

    @property
    def structs(self) -> tuple[Struct, ...]:
        structs: tuple[Struct, ...] = self.module.STRUCTS
        return structs


KVM = Interface(kvm, KVM_HEADERS, 200)
VFIO = Interface(vfio, VFIO_HEADERS, 100)
INTERFACES = pytest.mark.parametrize("interface", [KVM, VFIO], ids=["kvm", "vfio"])


def compiler(include: Path) -> list[str]:
    """The command that compiles with the headers of ``include``; nothing is run, so any LP64 compiler will do."""
    cc = shutil.which("aarch64-linux-gnu-gcc") or shutil.which("cc")
    if not cc:
        raise Prerequisite("no C compiler: install gcc or gcc-aarch64-linux-gnu")
    return [cc, "-x", "c", "-std=gnu11", "-isystem", str(include), "-"]


def names_in(include: Path, interface: Interface) -> set[str]:
    """Every word of the headers that is not in a comment: macros, enumerators, structures, members."""
    command = [*compiler(include), "-E", "-dD"]
    done = subprocess.run(command, input=interface.headers, capture_output=True, text=True, check=True)
    return set(re.findall(r"\w+", done.stdout))


def offsets(struct: Struct) -> dict[str, int]:
    """Offset in bytes of each member."""
    items = re.findall(r"\d*\w", struct.format)
    return {member: calcsize("=" + "".join(items[:place])) for place, member in enumerate(struct.members)}


def assertions(known: set[str], interface: Interface) -> dict[str, str]:
    """The C expressions that must hold, by what they are about."""
    holds = {name: f"({name}) == {value:#x}ULL" for name, value in interface.numbers.items() if name in known}
    for struct in interface.structs:
        if struct.name in known:
            # a structure that tells its own length may have grown since
            relation = ">=" if struct.members[0] == "argsz" else "=="
            holds[f"size of {struct.name}"] = f"sizeof(struct {struct.name}) {relation} {struct.size}"
            for member, offset in offsets(struct).items():
                holds[f"{struct.name}.{member}"] = f"offsetof(struct {struct.name}, {member}) == {offset}"
    return holds


def failures(include: Path, interface: Interface, holds: dict[str, str]) -> str:
    """What the compiler has to say against these expressions; empty when all hold."""
    lines = (f'_Static_assert({expression}, "{subject}: {expression}");' for subject, expression in holds.items())
    command = [*compiler(include), "-fsyntax-only"]
    program = interface.headers + "\n".join(lines)
    done = subprocess.run(command, input=program, capture_output=True, text=True, check=False)
    return done.stderr


@INTERFACES
@pytest.mark.parametrize("release", Release)
def test_numbers_sizes_and_offsets_are_those_of_the_headers(release: Release, interface: Interface) -> None:
    include = debian.headers(release)
    holds = assertions(names_in(include, interface), interface)
    assert len(holds) > interface.least
    assert failures(include, interface, holds) == ""


@INTERFACES
def test_the_newest_headers_have_every_name(interface: Interface) -> None:
    names = {*interface.numbers, *(struct.name for struct in interface.structs)}
    assert names - names_in(debian.headers(NEWEST), interface) == set()


def test_a_wrong_number_is_found() -> None:
    include = debian.headers(NEWEST)
    wrong = {"KVM_CAP_IRQCHIP": "(KVM_CAP_IRQCHIP) == 1", "kvm_one_reg.addr": "offsetof(struct kvm_one_reg, addr) == 4"}
    found = failures(include, KVM, wrong)
    assert all(subject in found for subject in wrong)
