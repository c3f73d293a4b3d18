"""Names, encodings and fields of system registers against the kernel headers of Debian's arm64 kernels.

``asm/sysreg.h`` is written by hand; ``asm/sysreg-defs.h`` is generated from ``arch/arm64/tools/sysreg``.
"""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.lab.cache import entry
from tests.lab.debian import Archive, unpack
from tests.lab.errors import Prerequisite
from tests.lab.spec import Release
from vgicmgr.kvm import idregs
from vgicmgr.kvm.bitfields import Field
from vgicmgr.kvm.registers import register_id, register_name
from vgicmgr.kvm.sysregs import _FAMILIES, encodings

pytestmark = pytest.mark.lab

CORE_REGISTERS = {"SP_EL1", "ELR_EL1", "SPSR_EL1", "SPSR_abt", "SPSR_und", "SPSR_irq", "SPSR_fiq", "FPCR", "FPSR"}
"""What KVM has as core registers."""
SECOND_NAMES = {
    "DBGDTRTX_EL0": "DBGDTRRX_EL0",
    "ICH_VSEIR_EL2": "ICH_HFGRTR_EL2",  # never was in a published architecture; GICv5 has the encoding now
    "AMEVCNTR0_CORE_EL0": "AMEVCNTR00_EL0",
    "AMEVCNTR0_CONST_EL0": "AMEVCNTR01_EL0",
    "AMEVCNTR0_INST_RET_EL0": "AMEVCNTR02_EL0",
    "AMEVCNTR0_MEM_STALL": "AMEVCNTR03_EL0",
}
"""Names whose encoding has another name here."""
NO_REGISTERS = re.compile("SVCR_SM|AARCH32_|AM_EL0$|FIELD_")
"""Instructions (MSR immediate), registers of AArch32, and helpers."""
ID_REGISTERS = re.compile(r"(ID_|MVFR|CTR_EL0|CLIDR|CCSIDR|DCZID|GMID|SMIDR|MPAMIDR)\w*")


@cache
def headers(release: Release) -> str:
    """Both headers of the release's kernel, lines continued by a backslash made one."""

    def build(folder: Path) -> None:
        archive = Archive(release)
        [flavour] = [name for name in archive.depends("linux-headers-arm64") if name.startswith("linux-headers-")]
        [common] = [name for name in archive.depends(flavour) if name.endswith("-common")]
        debs = archive.alone([flavour, common], folder)
        root = folder / "root"
        root.mkdir()
        unpack(debs, root)
        for name in ("sysreg.h", "sysreg-defs.h"):
            [path] = root.glob(f"usr/src/*/arch/arm64/include/**/asm/{name}")
            path.rename(folder / name)
        shutil.rmtree(root)
        for deb in debs:
            deb.unlink()

    folder = entry(f"sysreg-headers-{release}", (release,), build)
    return "".join((folder / name).read_text() for name in ("sysreg.h", "sysreg-defs.h")).replace("\\\n", " ")


def macros(release: Release) -> dict[str, str]:
    """The headers' macros, as ``#define`` lines by name."""
    return {name: line for line, name in re.findall(r"^(#define[ \t]+(\w+).*)$", headers(release), re.MULTILINE)}


def registers(release: Release) -> tuple[set[str], set[str]]:
    """The names the headers have for registers, and for numbered registers (macros with an argument)."""
    single: set[str] = set()
    numbered: set[str] = set()
    for name, line in macros(release).items():
        found = re.match(r"#define\s+SYS_\w+(\(\w+\))?\s+(?:sys_reg|SYS_\w+|__SYS__\w+)\(", line)
        if found and not NO_REGISTERS.match(name.removeprefix("SYS_")):
            (numbered if found[1] else single).add(name.removeprefix("SYS_"))
    return single, numbered


def family_macro(template: str, numbered: set[str]) -> str:
    """The name the headers have for a family of registers: DBGBVR{}_EL1 is DBGBVRn_EL1, BRBINF{}_EL1 is BRBINF_EL1."""
    return template.format("n") if template.format("n") in numbered else template.format("")


def differences(release: Release, encoded: dict[str, str]) -> str:
    """What a C compiler has to say against these macros having the encodings of our names; empty when all have."""
    cc = shutil.which("cc")
    if not cc:
        raise Prerequisite("no C compiler: install gcc")
    needed = re.compile(r"#define\s+(SYS_|__|sys_reg|\w+_shift)")
    lines = [line for line in macros(release).values() if needed.match(line)]
    for macro, name in encoded.items():
        arguments = ", ".join(map(str, encodings()[name]))
        lines.append(f'_Static_assert({macro} == sys_reg({arguments}), "{macro} is {arguments}");')
    command = [cc, "-x", "c", "-std=gnu11", "-w", "-fsyntax-only", "-"]
    return subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False).stderr


def header_fields(release: Release) -> dict[str, dict[str, Field]]:
    """The fields of the ID registers, from the ``<register>_<field>_SHIFT`` of the generated header."""
    text = headers(release)
    numbers = dict(re.findall(r"^#define\s+(\w+_(?:SHIFT|WIDTH|SIGNED))\s+(\w+)$", text, re.MULTILINE))
    found: dict[str, dict[str, Field]] = {}
    for register in {name for name in registers(release)[0] if ID_REGISTERS.fullmatch(name)}:
        for key, lsb in numbers.items():
            start = key.removesuffix("_SHIFT")
            field = start.removeprefix(f"{register}_")
            if field != start != key and f"{start}_WIDTH" in numbers:
                signed = numbers.get(f"{start}_SIGNED") == "true"
                found.setdefault(register, {})[field] = Field(field, int(lsb), int(numbers[f"{start}_WIDTH"]), signed)
    return found


@pytest.mark.parametrize("release", Release)
def test_every_register_of_the_headers_has_its_name_here(release: Release) -> None:
    single, _ = registers(release)
    assert len(single) > 200
    assert single - encodings().keys() - CORE_REGISTERS - SECOND_NAMES.keys() == set()
    encoded = {f"SYS_{name}": SECOND_NAMES.get(name, name) for name in single - CORE_REGISTERS}
    assert differences(release, encoded) == ""


@pytest.mark.parametrize("release", Release)
def test_every_family_of_the_headers_is_numbered_alike(release: Release) -> None:
    _, numbered = registers(release)
    families = {family_macro(template, numbered): (template, numbers) for template, numbers, _ in _FAMILIES}
    assert numbered - families.keys() == set()
    encoded = {f"SYS_{macro}({n})": families[macro][0].format(n) for macro in numbered for n in families[macro][1]}
    assert differences(release, encoded) == ""


def test_every_name_here_is_in_the_newest_headers() -> None:
    single, numbered = registers(Release.SID)
    families = {
        template.format(n)
        for template, numbers, _ in _FAMILIES
        for n in numbers
        if family_macro(template, numbered) in numbered
    }
    assert encodings().keys() - single - families == set()


def test_a_wrong_encoding_is_found() -> None:
    assert "SYS_TCR_EL1 is 3, 0, 2, 0, 3" in differences(Release.SID, {"SYS_TCR_EL1": "TCR2_EL1"})


def test_names_and_ids_go_both_ways() -> None:
    single, _ = registers(Release.SID)
    for name in single & encodings().keys():
        assert register_name(register_id(name)) == name


@pytest.mark.parametrize("release", Release)
def test_every_field_of_the_headers_is_here(release: Release) -> None:
    found = header_fields(release)
    assert len(found) > 10
    for register, theirs in found.items():
        ours = {field.name: field for field in idregs.fields(register)}
        for name, field in theirs.items():
            assert (ours[name].lsb, ours[name].width) == (field.lsb, field.width), f"{register}.{name}"
            assert ours[name].signed or not field.signed, f"{register}.{name}"


def test_every_field_here_is_in_the_newest_headers() -> None:
    found = header_fields(Release.SID)
    ours = {register: set(idregs.fields(register)) for register in idregs.names()}
    theirs = {register: set(fields.values()) for register, fields in found.items()}
    del ours["MIDR_EL1"], ours["MPIDR_EL1"]  # the headers have no fields of these
    ours["ID_AA64ISAR0_EL1"].remove(Field("TME", 24, 4))  # gone, see idregs.py
    assert ours == theirs
