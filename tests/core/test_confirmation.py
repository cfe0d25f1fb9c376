"""When a second cancellation confirms a first one, at the edges."""

from typing import Any

import pytest

from order_monitor.core.answer import Cancelled
from order_monitor.core.check_result import CheckResult
from order_monitor.core.confirmation import Confirmation, Unconfirmed, confirmation
from order_monitor.core.order import Order
from tests.support.shops import NOW

CONFIRM = 120.0
FIRST = Unconfirmed("x", NOW, "a", "17")


def finding(at: float, *, account: str = "a", reference: str = "17", **more: float) -> CheckResult:
    found = CheckResult(
        Order("x", "sent", NOW - 60, reference), Cancelled("iptal"), NOW + at, account=account
    )
    for name, value in more.items():
        setattr(found, name, value)
    return found


def judged(
    first: Unconfirmed | None, found: CheckResult, resent_at: float | None = None
) -> tuple[float | None, float | None]:
    """When to ask again, and since when the wait is, in seconds after `NOW`."""
    made = confirmation(first, found, CONFIRM, None if resent_at is None else NOW + resent_at)
    again_at, since = made.again_at, made.since
    return (
        None if again_at is None else round(again_at - NOW, 3),
        None if since is None else round(since - NOW, 3),
    )


def test_the_first_one_begins_the_wait() -> None:
    assert judged(None, finding(7)) == (127, 7)


def test_one_that_is_written_late_begins_it_then() -> None:
    late = finding(7)
    late.since_read = lambda: 30.0
    assert judged(None, late) == (157, 37)
    assert judged(FIRST, late) == (120, None), "a later one counts when it was read"


@pytest.mark.parametrize(
    ("at", "again_at"), [(0, 120), (60, 120), (119.99, 120), (120, None), (9000, None)]
)
def test_a_later_one_is_believed_when_the_wait_is_over(at: float, again_at: float | None) -> None:
    assert judged(FIRST, finding(at)) == (again_at, None)


def test_a_rounded_time_asks_no_third_question() -> None:
    first = FIRST._replace(since=NOW + 0.0005)
    assert judged(first, finding(120)) == (None, None)
    assert judged(FIRST._replace(since=NOW + 0.01), finding(120)) == (120.01, None)


def test_a_wait_of_a_roundings_length_is_none() -> None:
    assert confirmation(None, finding(7), 0.001, None) == Confirmation(None, NOW + 7)
    assert confirmation(None, finding(7), 0.01, None).again_at == NOW + 7.01


@pytest.mark.parametrize(
    ("more", "counts"),
    [
        ({"account": "b"}, False),
        ({"reference": "18"}, False),
        ({"reference": " 17 "}, True),
        ({"other_at": NOW - 1}, True),
        ({"other_at": NOW}, True),
        ({"other_at": NOW + 0.1}, False),
    ],
)
def test_only_one_about_the_same_dispatch_with_nothing_in_between_counts(
    more: dict[str, Any], *, counts: bool
) -> None:
    assert judged(FIRST, finding(200, **more)) == ((None, None) if counts else (320, 200))


@pytest.mark.parametrize(
    ("resent_at", "counts"),
    [(-1, True), (0, True), (0.1, False), (200, False), (200.1, True), (9000, True)],
)
def test_one_before_the_order_was_sent_again_does_not_count(
    resent_at: float, *, counts: bool
) -> None:
    """A time in the future is none at which it was sent."""
    assert judged(FIRST, finding(200), resent_at) == ((None, None) if counts else (320, 200))


@pytest.mark.parametrize(("at", "expected"), [(-1, (120, None)), (-1.1, (118.9, -1.1))])
def test_one_from_the_future_begins_again(at: float, expected: tuple[float, float | None]) -> None:
    """The database's clock has gone back; a second is what two estimates of it may differ by."""
    assert judged(FIRST, finding(at)) == expected


@pytest.mark.parametrize(
    ("waited", "again_at"), [(115.0, None), (114.9, 205.1), (10.0, 310), (9000.0, None)]
)
def test_a_database_clock_that_is_set_ahead_confirms_nothing(
    waited: float, again_at: float | None
) -> None:
    at = 120.0 if waited == 115.0 else 200.0
    assert judged(FIRST, finding(at, waited=waited)) == (again_at, None)


def test_what_is_believed_has_no_time() -> None:
    assert Confirmation() == confirmation(FIRST, finding(500), CONFIRM, None)
