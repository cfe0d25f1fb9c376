"""The daemon's plan by what was learned, order by order."""

import pytest

from order_monitor.core.order import Order
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.core.timing.plan import Learned, key_of, slot_before
from order_monitor.core.timing.planner import Timing
from order_monitor.core.timing.terms import Terms
from tests.core.test_timing_planner import KEY, SCHEDULE, TRAINED

SENT = 1_790_000_000.0
PLAN = Learned(SCHEDULE, TRAINED)


def order(last_sync_at: float | None = None, ended_at: float | None = None) -> Order:
    return Order(
        "id-1", "sent", SENT, "1", last_sync_at=last_sync_at, integration=KEY[0], ended_at=ended_at, package=KEY[1]
    )


def test_an_order_is_learned_of_under_its_account_and_its_package() -> None:
    assert key_of(order()) == KEY
    assert key_of(Order("a", "sent", SENT, "1")) == ("default", "")


@pytest.mark.parametrize(
    ("age", "before"), [(59.0, 0.0), (60.0, 0.0), (89.0, 0.0), (90.0, 60.0), (149.0, 60.0), (150.0, 90.0)]
)
def test_an_order_was_last_asked_about_a_slot_before_that_in_which_it_was_found(age: float, before: float) -> None:
    assert slot_before(Schedule(jitter=0), "x", age) == before


def test_before_the_first_slot_of_all_there_is_none() -> None:
    assert slot_before(Schedule(first_check=0.0, jitter=0), "x", 5.0) == 0.0
    assert slot_before(Schedule(first_check=1.0, base=1.5, jitter=0), "x", 3.0) == 1.0


def test_an_order_just_found_is_due_after_its_last_known_check() -> None:
    assert PLAN.first(order(), SENT + 500) == SENT + TRAINED.next_check(KEY, "id-1", 0.0)
    assert PLAN.first(order(SENT + 230), SENT + 500) == SENT + TRAINED.next_check(KEY, "id-1", 230.0)
    assert PLAN.first(order(SENT + 230), SENT + 500) != PLAN.first(order(), SENT + 500)
    assert PLAN.first(order(SENT - 9), SENT) == PLAN.first(order(), SENT), (
        "asked about before it was sent: clocks differ"
    )


def test_an_order_just_asked_about_is_due_by_its_age() -> None:
    assert PLAN.again(order(), SENT + 230) == SENT + TRAINED.next_check(KEY, "id-1", 230.0)
    assert PLAN.again(order(), SENT - 9) == SENT + TRAINED.next_check(KEY, "id-1", 0.0)


def test_what_only_awaits_its_pin_keeps_to_the_schedule() -> None:
    usual, waits = Continuous(SCHEDULE), order(ended_at=SENT + 20)
    for age in (40.0, 230.0, 5000.0):
        assert PLAN.first(waits, SENT + age) == usual.first(waits, SENT + age)
        assert PLAN.again(waits, SENT + age) == usual.again(waits, SENT + age)
    assert PLAN.again(waits, SENT + 230) != PLAN.again(order(), SENT + 230)


def test_with_nothing_learned_the_times_are_the_schedules() -> None:
    plan = Learned(SCHEDULE, Timing(SCHEDULE, Terms()))
    assert plan.first(order(), SENT) == SENT + 60
    assert plan.again(order(), SENT + 300) == Continuous(SCHEDULE).again(order(), SENT + 300)
