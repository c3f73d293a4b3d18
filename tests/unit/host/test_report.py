"""The report as an operator reads it."""

import pytest

from tests.unit.host.examples import BARE, GICV2_ONLY, ROOMY
from vgicmgr.dataclass import replace
from vgicmgr.host.capabilities import HostCapabilities
from vgicmgr.host.judge import judge_host
from vgicmgr.host.report import render


def report(host: HostCapabilities) -> str:
    return render(host, judge_host(host), colour=False)


def line(text: str, label: str) -> str:
    return next(line for line in text.splitlines() if f"  {label}  " in line)


def test_a_host_that_has_everything() -> None:
    text = report(ROOMY)
    assert "MISSING" not in text
    assert "warning" not in text
    assert text.endswith("Guests can have all that they normally need on this host.\n")


def test_registers_and_revisions_are_shown_with_their_names() -> None:
    text = report(ROOMY)
    assert "GICD_IIDR 0x4b00343b, revisions accepted: 2, 3" in line(text, "GICv3")
    assert "GITS_IIDR 0x4b00043b, table ABI revisions accepted: 0" in line(text, "ITS")
    # GITS_TYPER 0x1ef71 by the fields of Arm IHI 0069: Devbits 0xf, ID_bits 0xf, ITT_entry_size 7
    assert "16 device id bits, 16 event id bits, 8 bytes an ITT entry" in line(text, "GITS_TYPER")
    # MIDR_EL1 0x413fd0c1 is a Neoverse N1 r3p1
    assert "implementer 0x41, part 0xd0c, r3p1" in line(text, "CPU")
    assert "CPUs 0-1,3" in line(text, "CPU")


def test_what_is_missing_stands_at_its_line_with_its_remedy() -> None:
    lines = report(GICV2_ONLY).splitlines()
    place = next(number for number, text in enumerate(lines) if "MISSING" in text)
    assert lines[place].split() == ["MISSING", "GICv3", "no"]
    assert lines[place + 1].endswith("[gicv3-missing]")
    assert lines[place + 2].lstrip().startswith("remedy: ")


@pytest.mark.parametrize(
    "host", [GICV2_ONLY, BARE, replace(BARE, unanswered=("refused",)), replace(ROOMY, ipa_bits=36)]
)
def test_no_finding_is_left_out(host: HostCapabilities) -> None:
    text = report(host)
    for finding in judge_host(host).findings:
        assert finding.evidence in text
        assert finding.remedy in text


@pytest.mark.parametrize("host", [ROOMY, GICV2_ONLY, BARE])
def test_colour_only_where_it_is_wanted(host: HostCapabilities) -> None:
    assert "\x1b" not in report(host)
    assert "\x1b[" in render(host, judge_host(host), colour=True)


def test_the_counters_frequency_as_the_kernel_log_has_it() -> None:
    assert "62.50 MHz" in report(replace(ROOMY, counter_frequency=62_500_000))
    assert "24.00 MHz" in report(replace(ROOMY, counter_frequency=24_000_000))
    assert "MHz" not in report(ROOMY)
