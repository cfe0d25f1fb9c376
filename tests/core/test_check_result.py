"""The age of an order, by which it may be given up."""

import pytest

from order_monitor.core.answer import Completed, Waiting
from order_monitor.core.check_result import CheckResult
from order_monitor.core.order import Order

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
