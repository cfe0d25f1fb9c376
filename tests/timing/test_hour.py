"""The phase of the hour as a rival of age: chosen where orders end in batches, and only there."""

import math
from copy import deepcopy
from functools import cache
from itertools import pairwise

import pytest

from order_monitor.core.order import Order
from order_monitor.core.schedule import Schedule
from order_monitor.timing.distribution import BINS, Curve, finished
from order_monitor.timing.hour import (
    AN_HOUR,
    EDGES,
    FEWEST,
    HOURS,
    LEADS,
    PERIOD,
    RECENT,
    SPREAD,
    Hazard,
    HourTable,
    RecentEnds,
    advantage,
    hazards,
    making,
)
from order_monitor.timing.plan import Learned
from order_monitor.timing.plan_table import PRICES
from order_monitor.timing.planner import Terms, Timing

KEY = ("shop", "top-up")
SCHEDULE = Schedule()
START = 1_789_999_200.0
"""A full hour."""

PHASE = 700.0
VAGUE = Curve.of([1 / BINS] * BINS)


def batch(timing: Timing, hour: int, orders: int = 24, phase: float = PHASE) -> None:
    """End an hour's orders together, found by checks every 90 s."""
    at = START + hour * PERIOD + phase
    for k in range(orders):
        age = (k + 0.5) * PERIOD / orders
        before = max(0.0, age - 80 * ((k + hour) * 0.618 % 1))
        timing.waiting(KEY, 0.0, before, at - age + before)
        timing.ended(KEY, before, before + 90, at - age + before + 90)


def rebuilt(timing: Timing) -> Timing:
    while timing.refresh():
        pass
    return timing


@cache
def taught() -> Timing:
    """Return a timing that has seen enough batches to read the hour, and more to trust it."""
    timing = Timing(SCHEDULE, Terms())
    for hour in range(HOURS):
        batch(timing, hour)
    rebuilt(timing)
    for hour in range(HOURS, HOURS + 2):
        batch(timing, hour)
    return rebuilt(timing)


def asked(timing: Timing, order_id: str, sent_at: float) -> list[float]:
    """Return the times of an order's checks in the first hour and a half after it was sent."""
    found, age = [], 0.0
    while age < 1.5 * PERIOD:
        age = timing.next_check(KEY, order_id, age, sent_at)
        found.append(sent_at + age)
    return found


@pytest.mark.parametrize("ago", [30.0, 400.0, 1500.0, 3000.0])
def test_orders_that_end_in_batches_are_asked_about_right_after_the_next(ago: float) -> None:
    at = START + 20 * PERIOD + PHASE
    for order_id in ("a", "b", "c"):
        checks = asked(taught(), order_id, at - ago)
        late = min(check - at for check in checks if check >= at)
        assert late < 20, "whenever it was sent"
        assert all(5 <= after - before <= 600 for before, after in pairwise(checks))


def test_checks_of_one_phase_are_spread_by_order() -> None:
    sent_at = START + 20 * PERIOD
    firsts = {asked(taught(), str(k), sent_at)[-1] % PERIOD for k in range(9)}
    assert len(firsts) == 9


def test_the_plan_gives_the_time_of_sending() -> None:
    order = Order("a", "sent", START + 500.0, "1", integration=KEY[0], package=KEY[1])
    plan = Learned(SCHEDULE, taught())
    age = taught().next_check(KEY, "a", 0.0, START + 500.0)
    assert plan.first(order, START + 500.0) == START + 500.0 + age
    age = taught().next_check(KEY, "a", 100.0, START + 500.0)
    assert plan.again(order, START + 600.0) == START + 500.0 + age


def test_without_a_time_of_sending_the_latest_answer_counts_as_now() -> None:
    timing = deepcopy(taught())
    timing.waiting(KEY, 0.0, 100.0, START + 20 * PERIOD + 600.0)
    found = timing.next_check(KEY, "a", 100.0)
    assert found == timing.next_check(KEY, "a", 100.0, START + 20 * PERIOD + 500.0)
    assert timing.reason(KEY, "a", 100.0).next.age == found
    assert timing.reason(KEY, "a", 100.0).next.learned


def test_the_time_limit_is_kept() -> None:
    assert taught().next_check(KEY, "a", 86_399.0, START) == 86_400.0


@pytest.mark.slow
def test_orders_whose_age_tells_more_are_asked_about_by_age() -> None:
    timing = Timing(SCHEDULE, Terms())
    for k in range(200):
        now, age = START + k * 97.0, 200.0 + 30 * (k * 0.618 % 1)
        timing.ended(KEY, age - 20, age + 20, now)
    rebuilt(timing)
    for k in range(50):
        sent_at = START + 40_000 + k * 71.0
        assert timing.next_check(KEY, str(k), 0.0, sent_at) == timing.next_check(
            KEY, str(k), 0.0, 0
        )


def test_where_batches_cease_age_plans_again() -> None:
    timing = deepcopy(taught())
    for k in range(20):
        now = START + 12 * PERIOD + PHASE + 1500.0 + 70 * k
        timing.ended(KEY, 200.0, 700.0, now)
    assert timing.next_check(KEY, "a", 0.0, START) == timing.next_check(KEY, "a", 0.0, START + 555)


def test_a_batch_that_comes_late_is_no_stall() -> None:
    timing = deepcopy(taught())
    at = START + 13 * PERIOD + PHASE
    for k in range(60):
        timing.waiting(KEY, 0.0, 1800.0 + k, at + 300)
        timing.waiting(KEY, 1800.0 + k, 2100.0 + k, at + 600)
    assert timing.reason(KEY, "a", 0.0, at + 600).next.learned


def test_the_better_model_is_the_likelier_on_ends_not_seen_before() -> None:
    timing = Timing(SCHEDULE, Terms())
    for hour in range(HOURS):
        batch(timing, hour)
    rebuilt(timing)
    sent_at = START + 20 * PERIOD
    by_age = timing.next_check(KEY, "a", 0.0, sent_at)
    assert by_age == timing.next_check(KEY, "a", 0.0, sent_at + 333), "a look alone decides nothing"
    batch(timing, HOURS, orders=2 * math.ceil(LEADS))
    assert timing.next_check(KEY, "a", 3.0, sent_at) != timing.next_check(
        KEY, "a", 3.0, sent_at + 333
    )


def recent(ends: list[tuple[float, float, float]]) -> RecentEnds:
    found = RecentEnds()
    for sent, before, age in ends:
        found.add(before, age, sent + age)
    return found


def test_few_ends_and_few_hours_tell_no_phase() -> None:
    def made(hours: int, number: int) -> HourTable | None:
        ends = [
            (START + (k % hours) * PERIOD + 100 + k, 400.0, 430.0) for k in sorted(range(number))
        ]
        return finished(making(recent(ends), VAGUE, 3.0, 5.0, 600.0))

    assert made(HOURS - 1, 2 * FEWEST) is None
    assert made(HOURS, FEWEST - 1) is None
    assert made(HOURS, FEWEST) is not None


def test_of_an_hours_ends_a_random_few_are_kept_and_the_newest_hours() -> None:
    found = recent([(START + k, 1.0, 2.0) for k in range(600)])
    ours = [sent - START for sent, _, _ in found]
    assert len(ours) == AN_HOUR
    assert max(ours) > 400
    assert min(ours) < 200
    found = recent([(START + k * 200.0, 1.0, 2.0) for k in range(600)])
    assert len(list(found)) == RECENT
    assert min(sent for sent, _, _ in found) > START + 200.0 * 400


def test_ends_found_an_hour_late_tell_no_phase() -> None:
    sharp = [(START + k * PERIOD + 100.0, 380.0, 420.0) for k in range(20)]
    vague = [(START + k * PERIOD + 50.0, 100.0, 3800.0) for k in range(20)]
    with_them = finished(making(recent(sharp + vague), VAGUE, 3.0, 5.0, 600.0))
    without = finished(making(recent(sharp), VAGUE, 3.0, 5.0, 600.0))
    assert with_them is not None
    assert without is not None
    assert with_them.hazard == without.hazard


def test_the_hazard_is_that_of_the_orders_at_risk() -> None:
    """Half of those who wait at minute 10 end there; the others at minute 40."""
    ends = []
    for k in range(60):
        start = k % 10
        ends.append((start, 9, 11) if k % 20 < 10 else (start, 39, 41))
    found = finished(hazards(ends, 60, (4, 2, 1, 1)))
    assert math.fsum(found[7:13]) == pytest.approx(-math.log(0.5), rel=0.35)
    assert math.fsum(found[7:13]) < math.fsum(found[37:43])
    assert math.fsum(found[15:35]) < 0.1


def test_chances_add_up_over_the_hours() -> None:
    hazard = Hazard.of([0.0] * 10 + [1.0] * 10 + [0.0] * 40)
    sent = START + 900.0
    assert hazard.chance(sent, 0.0, 300.0) == pytest.approx(1 - math.exp(-5), rel=1e-5)
    assert hazard.chance(sent, 300.0, 2000.0) == 0.0
    parts = [hazard.chance(sent, at, at + 500.0) for at in range(0, 7000, 500)]
    assert math.fsum(parts) == pytest.approx(1 - math.exp(-15), rel=1e-5)
    assert hazard.chance(sent + 600.0, 600.0, 700.0) == 0.0


def test_one_end_counts_within_bounds() -> None:
    hazard = Hazard.of([0.0] * 10 + [1.0] * 10 + [0.0] * 40)
    assert advantage(hazard, VAGUE, (START, 0.0, 300.0)) == -advantage(
        hazard, VAGUE, (START, 600.0, 610.0)
    )
    assert abs(advantage(hazard, VAGUE, (START, 650.0, 650.0))) <= 3


def test_an_even_hazard_is_asked_about_at_even_gaps() -> None:
    """Where nothing but time counts, the gap is √(2c / h) (Keller 1974)."""
    ends = [(START + k * 370.0, 100.0 + k, 700.0 + k) for k in range(RECENT)]
    narrow = Curve.of([1.0] + [0.0] * (BINS - 1))
    table = finished(making(recent(ends), narrow, float(PRICES.index(16.0)), 5.0, 600.0))
    assert table is not None
    hazard = table.hazard.sums[-1] / PERIOD
    for price in (8.0, 16.0):
        rung = PRICES.index(price)
        gaps = [table.following(rung, START + at) - START - at for at in table.hazard.at[:-1]]
        assert sum(gaps) / len(gaps) == pytest.approx(math.sqrt(2 * price / hazard), rel=0.2)


def test_calls_fall_with_the_price_and_a_table_is_small() -> None:
    ends = [(START + k * 380.0 - k * 380.0 % PERIOD, 680.0, 720.0 + k % 7) for k in range(RECENT)]
    table = finished(making(recent(ends), VAGUE, 0.0, 5.0, 600.0))
    assert table is not None
    assert list(table.calls) == sorted(table.calls, reverse=True)
    assert len(table.hazard.at) <= EDGES + 1
    assert table.following(10, START) == table.following(2, START), "the nearest that is stored"
    assert 0 < SPREAD < 5
