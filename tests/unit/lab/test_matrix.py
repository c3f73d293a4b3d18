"""The matrix's bookkeeping: what counts as agreement, and what it prints."""

import json
from collections import Counter

import pytest

from tests.lab.matrix.cases import ALL_HOSTS, FULL, GUESTS, SMALL, Case
from tests.lab.matrix.run import Outcome
from tests.lab.matrix.table import counts, markdown, row
from vgicmgr.dataclass import replace
from vgicmgr.domain.xml import read_domain

RIGHT = Outcome(
    Case("trixie", "bookworm"),
    verdict=False,
    reason="vgicmgr: domain 'guest' cannot arrive here: TCR2_EL1 is not there [register-list]; boot it anew",
    arrived=False,
    error="error: load of migration failed | QEMU: Invalid value 258",
    copying=True,
    seconds=1.5,
    document=False,
    document_reason="",
)
FALSE_YES = replace(RIGHT, verdict=True)
FALSE_NO = replace(RIGHT, arrived=True)
NOT_JUDGED = replace(RIGHT, case=replace(RIGHT.case, record=False), verdict=None, document=None)


def test_counts() -> None:
    assert counts([RIGHT, FALSE_YES, FALSE_NO, NOT_JUDGED], ["lab"]) == (
        "4 moves, 3 judged: 1 agreed, 1 false yes, 1 false no (1 arrived, 3 did not; 1 could not be tried); "
        "by documents alone 2 of 3 agreed"
    )


@pytest.mark.parametrize(
    ("outcome", "word"), [(RIGHT, "agree"), (FALSE_YES, "FALSE YES"), (FALSE_NO, "FALSE NO"), (NOT_JUDGED, "agree")]
)
def test_a_row_begins_with_the_agreement(outcome: Outcome, word: str) -> None:
    assert row(outcome).startswith(f"{word}  trixie -> bookworm: plain")


def test_the_table_gives_the_gates_reason() -> None:
    assert markdown([RIGHT]).splitlines()[-1] == (
        "| trixie -> bookworm: plain | no | no | failed | TCR2_EL1 is not there |"
    )


def test_an_outcome_comes_back_from_its_file() -> None:
    assert Outcome.from_json(json.loads(json.dumps(RIGHT.to_json()))) == RIGHT


def test_the_full_matrix_is_one() -> None:
    assert len(FULL) >= 130
    assert len(SMALL) <= 12
    assert [name for name, times in Counter(case.name for case in FULL).items() if times > 1] == []


@pytest.mark.parametrize("case", dict.fromkeys((*FULL, *SMALL)), ids=lambda case: case.name)
def test_each_case_has_its_hosts_and_a_guest_that_can_be_read(case: Case) -> None:
    assert set(case.route) <= ALL_HOSTS.keys()
    assert read_domain(GUESTS[case.guest].xml("guest").encode()).needs_gic
