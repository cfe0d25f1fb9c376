"""The daemon's plan by what was learned, order by order."""

import math
from functools import cache

import pytest

from order_monitor.core.order import Order
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.timing.plan import Learned, age_asked, key_of, known_to_wait, slot_before
from order_monitor.timing.planner import Terms, Timing
from order_monitor.timing.store import KeptEnd
from tests.support.trained import KEY, SCHEDULE, well_trained

SENT = 1_790_000_000.0


@cache
def learned() -> Learned:
    return Learned(SCHEDULE, well_trained())


def order(last_sync_at: float | None = None, ended_at: float | None = None) -> Order:
    return Order(
        "id-1",
        "sent",
        SENT,
        "1",
        last_sync_at=last_sync_at,
        integration=KEY[0],
        ended_at=ended_at,
        package=KEY[1],
    )


def test_an_order_is_learned_of_under_its_account_and_its_package() -> None:
    assert key_of(order()) == KEY
    assert key_of(Order("a", "sent", SENT, "1")) == ("default", "")


@pytest.mark.parametrize(
    ("age", "before"),
    [(59.0, 0.0), (60.0, 0.0), (89.0, 0.0), (90.0, 60.0), (149.0, 60.0), (150.0, 90.0)],
)
def test_an_order_was_last_asked_about_a_slot_before_that_in_which_it_was_found(
    age: float, before: float
) -> None:
    assert slot_before(Schedule(jitter=0), "x", age) == before


def test_before_the_first_slot_of_all_there_is_none() -> None:
    assert slot_before(Schedule(first_check=0.0, jitter=0), "x", 5.0) == 0.0
    assert slot_before(Schedule(first_check=1.0, base=1.5, jitter=0), "x", 3.0) == 1.0


def test_an_order_just_found_is_due_after_its_last_known_check() -> None:
    assert learned().first(order(), SENT + 500) == SENT + well_trained().next_check(
        KEY, "id-1", 0.0
    )
    assert learned().first(order(SENT + 230), SENT + 500) == SENT + well_trained().next_check(
        KEY, "id-1", 230.0
    )
    assert learned().first(order(SENT + 230), SENT + 500) != learned().first(order(), SENT + 500)
    assert learned().first(order(SENT - 9), SENT) == learned().first(order(), SENT), (
        "asked about before it was sent: clocks differ"
    )


def test_an_order_just_asked_about_is_due_by_its_age() -> None:
    assert learned().again(order(), SENT + 230) == SENT + well_trained().next_check(
        KEY, "id-1", 230.0
    )
    assert learned().again(order(), SENT - 9) == SENT + well_trained().next_check(KEY, "id-1", 0.0)


def test_what_only_awaits_its_pin_keeps_to_the_schedule() -> None:
    usual, waits = Continuous(SCHEDULE), order(ended_at=SENT + 20)
    for age in (40.0, 230.0, 5000.0):
        assert learned().first(waits, SENT + age) == usual.first(waits, SENT + age)
        assert learned().again(waits, SENT + age) == usual.again(waits, SENT + age)
    assert learned().again(waits, SENT + 230) != learned().again(order(), SENT + 230)


def test_with_nothing_learned_the_times_are_the_schedules() -> None:
    plan = Learned(SCHEDULE, Timing(SCHEDULE, Terms()))
    assert plan.first(order(), SENT) == SENT + 60
    assert plan.again(order(), SENT + 300) == Continuous(SCHEDULE).again(order(), SENT + 300)


DAY = 86_400.0


@pytest.mark.parametrize(
    ("last_sync_at", "age"),
    [(None, 0.0), (-9.0, 0.0), (230.0, 230.0), (700.0, 500.0), (1099.0, 500.0), (1101.0, None)],
)
def test_when_it_was_asked_about_lies_between_when_it_was_sent_and_now(
    last_sync_at: float | None, age: float | None
) -> None:
    asked = order(None if last_sync_at is None else SENT + last_sync_at)
    assert age_asked(asked, SENT + 500) == age


def test_an_order_that_was_asked_about_in_the_future_is_asked_about_now() -> None:
    due = learned().first(order(SENT + 70 * 365 * DAY), SENT + 500)
    assert due == learned().first(order(), SENT + 500)
    assert learned().first(order(SENT + 700), SENT + 500) == learned().again(order(), SENT + 500)


def end(age: float, at: float) -> KeptEnd:
    return KeptEnd(KEY, "x", age, at, is_end=True)


def test_what_was_found_at_its_time_had_waited_at_the_slot_before() -> None:
    plain = Schedule(jitter=0)
    assert known_to_wait([end(155.0, SENT + 155), end(95.0, SENT + 7000)], plain) == [90.0, 60.0]


def test_what_was_found_after_a_downtime_had_waited_before_it() -> None:
    """Nothing was decided from 200 s after it was sent until three hours later."""
    plain = Schedule(jitter=0)
    others = [end(60.0, SENT + 200), end(65.0, SENT + 3 * 3600 - 3)]
    found = known_to_wait([*others, end(3 * 3600.0, SENT + 3 * 3600)], plain)
    assert found == [0.0, 0.0, 150.0]
    assert known_to_wait([end(3 * 3600.0, SENT + 3 * 3600)], plain) == [0.0], "nothing is known"


def test_what_cannot_be_an_age_was_never_seen_to_wait() -> None:
    odd = [end(-1.0, SENT), end(SENT, SENT), end(DAY + 1300.0, SENT), end(DAY + 1100.0, SENT)]
    assert [before is None for before in known_to_wait(odd, Schedule())] == [True] * 3 + [False]


@pytest.mark.parametrize(
    ("asked", "found", "late"),
    [
        (None, 5.0, 0.0),
        (None, 59.0, 0.0),
        (None, 61.0, 61.0),
        (65.0, 80.0, 0.0),
        (65.0, 110.0, 110.0),
        (None, 5000.0, math.inf),
    ],
)
def test_an_order_that_is_found_when_a_check_of_backoff_is_overdue_is_noted(
    asked: float | None, found: float, late: float
) -> None:
    """Until it is asked about, once; where it is overdue by what was learned too, for either."""
    timing = Timing(Schedule(jitter=0), Terms())
    timing.load(dict(well_trained().dump()), SENT)
    timing.refresh(3)
    plan = Learned(Schedule(jitter=0), timing)
    due = plan.first(order(None if asked is None else SENT + asked), SENT + found)
    assert due is not None
    assert (due <= SENT + found) == math.isinf(late)
    assert timing.late() == (["id-1"] if late else [])
    assert (timing.found_late("id-1"), timing.found_late("id-1")) == (late, 0.0)
