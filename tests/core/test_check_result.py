"""The age of an order, by which it may be given up, and what a result means for held ends."""

from typing import Any

import pytest

from order_monitor.core.answer import Answer, Cancelled, Completed, Garbled, Waiting
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import StuckReason, Write
from order_monitor.core.order import Order
from order_monitor.core.outcome import Outcome

ORDER = Order("a", "sent", 1000.0, "1")


@pytest.mark.parametrize(
    ("seen_utc", "age"), [(None, 60.0), (1050.0, 50.0), (1060.0, 60.0), (1070.0, 60.0)]
)
def test_the_clock_that_gives_the_lower_age_counts(seen_utc: float | None, age: float) -> None:
    finding = CheckResult(ORDER, Waiting(), 1060.0, seen_utc=seen_utc)
    assert finding.age == age
    assert finding.age_since(900.0) == age + 100
    assert finding.age_since(None) == 0.0
    assert finding.took == 60.0, "by the clock that also wrote when it was sent"


def test_only_an_order_that_still_waits_may_be_written_later() -> None:
    assert not CheckResult(ORDER, Waiting(), 1060.0).is_urgent
    assert CheckResult(ORDER, Completed(None), 1060.0).is_urgent


END = Write(Outcome.FAILED, "failed")


@pytest.mark.parametrize(
    ("fate", "more", "answer", "told"),
    [
        (WriteStatus.GONE, {}, Cancelled(""), (True, True)),
        (WriteStatus.RESENT, {}, Cancelled(""), (True, True)),
        (WriteStatus.RESENT, {"wait": True}, Cancelled(""), (False, False)),
        (WriteStatus.RESENT, {"wait": True}, Waiting(), (False, True)),
        (WriteStatus.UNCHANGED, {}, Waiting(), (True, True)),
        (WriteStatus.STUCK, {}, Completed(None), (True, True)),
        (WriteStatus.STUCK, {}, Cancelled(""), (False, False)),
        (WriteStatus.UNCHANGED, {}, Garbled("unknown_state"), (False, False)),
        (WriteStatus.WRITTEN, {"write": END}, Waiting(), (False, True)),
        (WriteStatus.HELD, {}, Completed(None), (False, True)),
        (WriteStatus.UNCONFIRMED, {}, Cancelled(""), (False, False)),
        (WriteStatus.OBSERVED, {}, Cancelled(""), (False, False)),
        (WriteStatus.LOCKED, {}, Waiting(), (False, False)),
    ],
)
def test_what_withdraws_a_held_end_and_what_a_cancellation(
    fate: WriteStatus, more: dict[str, Any], answer: Answer, told: tuple[bool, bool]
) -> None:
    result = WriteResult(CheckResult(ORDER, answer, 1060.0), fate, **more)
    assert (result.is_withdrawal, result.withdraws_cancellation) == told
    assert result.is_end is bool(more.get("write"))


def test_what_is_kept_back_writes_nothing_and_says_why() -> None:
    finding = CheckResult(ORDER, Cancelled(""), 1060.0)
    ended = WriteResult(finding, WriteStatus.WRITTEN, END, status="sent")
    held = ended.kept_back(WriteStatus.HELD, StuckReason.HELD_BY_BRAKE, "too many")
    assert held == WriteResult(
        *(finding, WriteStatus.HELD, None, StuckReason.HELD_BY_BRAKE, "too many"), status="sent"
    )
