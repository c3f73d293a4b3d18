"""Why a running QEMU does not migrate its guest, in its own words (qapi/migration.json, MigrationInfo)."""

import asyncio
from typing import Any

import pytest

from tests.unit.qemu.fakemonitor import FakeMonitor
from vgicmgr.qemu.qmp import MonitorGarbled
from vgicmgr.qemu.running import blocked_reasons

MTE = "Live migration disabled due to MTE enabled"


def asked(answer: Any) -> tuple[str, ...]:
    return asyncio.run(blocked_reasons(FakeMonitor({"query-migrate": answer})))


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        ({}, ()),
        ({"status": "completed", "total-time": 5}, ()),
        ({"blocked-reasons": [MTE]}, (MTE,)),
        ({"blocked-reasons": [MTE, "0000:01:00.0: VFIO migration is not supported"]}, None),
    ],
)
def test_what_qemu_says(answer: Any, reasons: tuple[str, ...] | None) -> None:
    assert asked(answer) == (tuple(answer["blocked-reasons"]) if reasons is None else reasons)


def test_it_is_said_in_one_line_of_what_can_be_printed() -> None:
    [reason] = asked({"blocked-reasons": ["a\nb\x1b]0;owned\x07" + "c" * 10_000]})
    assert reason.isprintable()
    assert len(reason) <= 500


@pytest.mark.parametrize("answer", [None, [], "no", {"blocked-reasons": "no"}, {"blocked-reasons": [1]}])
def test_an_answer_of_another_shape_is_garbled(answer: Any) -> None:
    with pytest.raises(MonitorGarbled, match="query-migrate"):
        asked(answer)


def test_nothing_else_is_asked_of_a_guest_at_work() -> None:
    monitor = FakeMonitor({"query-migrate": {}})
    asyncio.run(blocked_reasons(monitor))
    assert monitor.asked == ["query-migrate"]
