"""How large a batch may be, and how long it may wait for a lock."""

import pytest

from order_monitor.core.errors import RowRejectedError
from order_monitor.core.throttle import (
    BATCH,
    CALM_AFTER,
    HURRIED_LOCK_WAIT,
    LOCK_WAIT,
    QUERY_CANCELED,
    Throttle,
)

TOO_SLOW = RowRejectedError("too slow", QUERY_CANCELED, is_passing=True)
LOCKED = RowRejectedError("locked", "55P03", is_passing=True)
AT_FAULT = RowRejectedError("too long", "22001")


def slowed(count: int, now: float = 1000.0) -> Throttle:
    throttle = Throttle()
    throttle.refused(count, TOO_SLOW, now)
    return throttle


def test_it_begins_with_the_most() -> None:
    throttle = Throttle()
    assert (throttle.limit, throttle.lock_wait(0.0)) == (BATCH, LOCK_WAIT)
    throttle.passed(BATCH, 0.0)
    assert throttle.limit == BATCH


@pytest.mark.parametrize(("count", "limit"), [(200, 100), (101, 50), (3, 1), (2, 1)])
def test_a_batch_that_was_too_slow_is_halved(count: int, limit: int) -> None:
    assert slowed(count).limit == limit


def test_one_row_alone_cannot_be_halved() -> None:
    throttle = Throttle()
    throttle.refused(1, TOO_SLOW, 1000.0)
    assert throttle.limit == BATCH


def test_what_stays_refused_says_nothing_of_the_size_nor_of_locks() -> None:
    throttle = Throttle()
    throttle.refused(200, AT_FAULT, 1000.0)
    throttle.refused(200, RowRejectedError("x", QUERY_CANCELED), 1000.0)
    assert (throttle.limit, throttle.lock_wait(1000.0)) == (BATCH, LOCK_WAIT)


def test_it_grows_by_a_quarter_up_to_what_was_surely_not_too_slow() -> None:
    throttle, limits = slowed(200), []
    for _ in range(4):
        throttle.passed(throttle.limit, 1000.0 + CALM_AFTER)
        limits.append(throttle.limit)
    assert limits == [125, 150, 150, 150]


def test_small_batches_grow_too() -> None:
    throttle, limits = slowed(7), []
    for _ in range(3):
        throttle.passed(throttle.limit, 1001.0)
        limits.append(throttle.limit)
    assert limits == [4, 5, 5]
    throttle = slowed(3)
    throttle.passed(1, 1001.0)
    assert throttle.limit == 2


def test_after_a_calm_while_it_grows_to_the_most() -> None:
    throttle, limits = slowed(200), []
    for _ in range(5):
        throttle.passed(throttle.limit, 1000.1 + CALM_AFTER)
        limits.append(throttle.limit)
    assert limits == [125, 156, 195, BATCH, BATCH]


def test_only_a_full_batch_shows_that_more_would_pass() -> None:
    throttle = slowed(200)
    throttle.passed(99, 1001.0)
    assert throttle.limit == 100
    throttle.passed(101, 1001.0)
    assert throttle.limit == 125


def test_while_a_lock_is_about_nobody_waits_long_for_one() -> None:
    throttle = Throttle()
    throttle.refused(1, LOCKED, 1000.0)
    assert throttle.limit == BATCH
    assert throttle.lock_wait(1000.0 + CALM_AFTER - 0.1) == HURRIED_LOCK_WAIT
    assert throttle.lock_wait(1000.0 + CALM_AFTER) == LOCK_WAIT
    assert slowed(200).lock_wait(1001.0) == LOCK_WAIT
