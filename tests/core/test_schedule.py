"""The times at which an order is asked about."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_monitor.core.order import Order
from order_monitor.core.schedule import Continuous, Now, OnePass, Schedule

SENT = 1_790_000_000.0
SCHEDULES = st.builds(
    Schedule,
    first_check=st.floats(0, 300),
    base=st.floats(0.5, 60),
    cap=st.floats(60, 2000),
    jitter=st.floats(0, 1),
    give_up_after=st.floats(400, 200_000),
)


def order(order_id: str = "a", last_sync_at: float | None = None) -> Order:
    return Order(order_id, "sent", SENT, "1", last_sync_at=last_sync_at)


def test_the_seed_times_before_jitter() -> None:
    schedule = Schedule(jitter=0)
    assert [schedule.slot("x", k) for k in range(1, 9)] == [60, 90, 150, 270, 510, 990, 1590, 2190]


def test_an_orders_times_are_the_same_on_every_machine_and_in_every_version() -> None:
    """A new version must not ask about everything at once: what is planned anew after a restart is
    what was planned before it.
    """
    usual, spread = Schedule(), Schedule(base=0.5, cap=2000, jitter=1)
    assert [round(usual.slot("a", k), 3) for k in (1, 2, 3, 6, 7, 8, 9, 10, 11, 1001)] == [
        *(
            60.0,
            91.607,
            153.026,
            1015.192,
            1652.705,
            2275.192,
            2880.941,
            3535.192,
            4154.341,
            627868.025,
        ),
    ]
    assert [round(spread.slot("b", k), 3) for k in (2, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)] == [
        *(
            60.716,
            159.528,
            236.068,
            472.622,
            774.073,
            1749.62,
            2957.311,
            5299.063,
            8957.311,
            11547.553,
            14957.311,
        ),
    ]


def test_where_no_delay_doubles_all_are_as_long_as_the_cap() -> None:
    assert [Schedule(base=600, cap=600, jitter=0).slot("x", k) for k in (1, 2, 3)] == [
        60,
        660,
        1260,
    ]
    assert [Schedule(base=900, cap=600, jitter=0).slot("x", k) for k in (1, 2, 3)] == [
        60,
        660,
        1260,
    ]
    assert [Schedule(base=300, cap=500, jitter=0).slot("x", k) for k in (1, 2, 3)] == [60, 360, 860]


@pytest.mark.parametrize(
    ("give_up_after", "age", "latest", "following"),
    [
        (200.0, 59.9, None, 60.0),
        (200.0, 60.0, 60.0, 90.0),
        (200.0, 150.0, 150.0, 200.0),
        (200.0, 199.9, 150.0, 200.0),
        (200.0, 200.0, 200.0, 270.0),
        (200.0, 269.9, 200.0, 270.0),
        (200.0, 270.0, 270.0, 510.0),
        (270.0, 269.9, 150.0, 270.0),
        (270.0, 270.0, 270.0, 510.0),
        (30.0, 29.9, None, 30.0),
        (30.0, 30.0, 30.0, 60.0),
        (30.0, 60.0, 60.0, 90.0),
    ],
)
def test_the_deadline_is_one_slot_more(
    give_up_after: float, age: float, latest: float | None, following: float
) -> None:
    schedule = Schedule(jitter=0, give_up_after=give_up_after)
    assert (schedule.latest("x", age), schedule.following("x", age)) == (latest, following)


def test_the_seed_times_are_what_a_daemon_walks_through() -> None:
    schedule = Schedule(jitter=0)
    age, seen = 0.0, []
    for _ in range(8):
        age = schedule.following("x", age)
        seen.append(age)
    assert seen == [60, 90, 150, 270, 510, 990, 1590, 2190]


def test_the_deadline_is_always_a_slot() -> None:
    schedule = Schedule()
    before = schedule.latest("x", 86_399.9)
    assert before is not None
    assert before < 86_400
    assert schedule.following("x", before) == 86_400
    assert schedule.latest("x", 86_400.5) == 86_400
    after = schedule.following("x", 86_400)
    assert 86_400 < after <= 86_400 + 660


@given(schedule=SCHEDULES, order_id=st.text(max_size=40), k=st.integers(1, 400))
def test_each_delay_is_stretched_by_no_more_than_the_jitter(
    schedule: Schedule, order_id: str, k: int
) -> None:
    delay = schedule.slot(order_id, k + 1) - schedule.slot(order_id, k)
    plain = min(schedule.base * 2 ** (k - 1), schedule.cap)
    assert plain * (1 - 1e-9) - 1e-6 <= delay <= plain * (1 + schedule.jitter) * (1 + 1e-9) + 1e-6


@given(schedule=SCHEDULES, order_id=st.text(max_size=40), age=st.floats(0, 1e7))
def test_latest_and_following_are_neighbours(schedule: Schedule, order_id: str, age: float) -> None:
    latest, following = schedule.latest(order_id, age), schedule.following(order_id, age)
    assert following > age
    assert latest is None or latest <= age
    assert latest is None or schedule.following(order_id, latest) <= following
    if latest is None:
        assert age < schedule.first_check or age < schedule.give_up_after


def test_an_old_order_costs_no_more_than_a_young_one() -> None:
    schedule = Schedule()
    assert schedule.slot("x", 10**9) > 5e11
    assert schedule.latest("x", 1e12) is not None


def test_jitter_depends_on_the_order_and_on_nothing_else() -> None:
    schedule = Schedule()
    assert schedule.slot("a", 5) == Schedule().slot("a", 5)
    spread = {round(schedule.slot(str(i), 9), 3) for i in range(1000)}
    assert len(spread) > 900
    assert schedule.slot("\ud800", 3) > 0
    assert schedule.slot("\ud800", 7) > 0
    delays = [schedule.slot("a", k + 1) - schedule.slot("a", k) for k in range(10, 60)]
    assert len({round(d, 6) for d in delays}) > 40


def test_orders_do_not_ask_in_step() -> None:
    """100,000 orders sent in the same moment spread over their minutes."""
    schedule = Schedule()
    times = sorted(schedule.slot(str(i), 7) for i in range(2000))
    assert times[-1] - times[0] > 60
    assert max(b - a for a, b in itertools.pairwise(times[20:-20])) < 1


def test_the_daemon_goes_on_where_an_order_would_be() -> None:
    plan = Continuous(Schedule(jitter=0))
    assert plan.first(order(), SENT + 10) == SENT + 60
    assert plan.first(order(), SENT + 60) == SENT + 60
    assert plan.first(order(), SENT + 300) == SENT + 270, "missed while nobody ran: due at once"
    assert plan.first(order(last_sync_at=SENT + 271), SENT + 300) == SENT + 510, "not missed"
    assert plan.first(order(last_sync_at=SENT + 200), SENT + 300) == SENT + 270
    assert plan.first(order(last_sync_at=SENT + 270), SENT + 300) == SENT + 510, (
        "asked in that very moment"
    )
    assert plan.again(order(), SENT + 300) == SENT + 510
    assert plan.first(order(), SENT - 200) == SENT + 60, "clock skew is simply scheduled"


def test_one_pass_asks_what_is_old_enough_once() -> None:
    plan = OnePass(Schedule(jitter=0))
    assert plan.first(order(), SENT + 59) is None
    assert plan.first(order(), SENT + 61) == SENT + 60
    assert plan.first(order(last_sync_at=SENT + 60), SENT + 61) == SENT + 60, (
        "without --every it is asked all the same"
    )
    assert plan.again(order(), SENT + 61) is None


def test_every_asks_only_what_came_due() -> None:
    plan = OnePass(Schedule(jitter=0), every=60)
    assert plan.first(order(), SENT + 100) == SENT + 90
    assert plan.first(order(), SENT + 400) is None, "its last slot was at 270"
    assert plan.first(order(last_sync_at=SENT + 200), SENT + 400) == SENT + 270, (
        "missed since it was last asked"
    )
    assert plan.first(order(last_sync_at=SENT + 280), SENT + 400) is None
    assert plan.first(order(last_sync_at=SENT + 270), SENT + 400) is None, (
        "asked in that very moment"
    )
    assert plan.first(order(), SENT + 330) is None, "kept by the pass a minute ago"
    assert plan.first(order(), SENT + 329) == SENT + 270
    assert plan.first(order(), SENT + 59) is None


def test_a_last_check_that_lies_ahead_keeps_no_order_from_being_asked() -> None:
    """It was noted by a clock that has gone back since, by months perhaps."""
    plan = OnePass(Schedule(jitter=0), every=60)
    ahead = order(last_sync_at=SENT + 7_776_000)
    assert plan.first(ahead, SENT + 100) == SENT + 90
    assert plan.first(ahead, SENT + 400) is None, "as if it were not known when it was asked"
    assert plan.first(order(last_sync_at=SENT + 102), SENT + 100) is None, "by another's estimate"
    assert plan.since(SENT + 7_776_000, SENT + 100) == SENT + 40
    assert plan.since(SENT + 105, SENT + 100) == SENT + 105
    assert plan.since(SENT + 105.1, SENT + 100) == SENT + 40


def test_whoever_will_not_wait_asks_now_and_once() -> None:
    assert Now().first(order(), SENT - 5) == SENT - 5
    assert Now().again(order(), SENT) is None


def test_every_minute_makes_no_more_calls_than_the_daemon() -> None:
    """Cron's passes keep each of the daemon's slots once, as far as a minute's grain allows."""
    schedule = Schedule()
    plan = OnePass(schedule, every=60)
    asked = sum(plan.first(order(), SENT + t) is not None for t in range(0, 86_400, 60))
    daemon, age = 0, 0.0
    while (age := schedule.following("a", age)) < 86_400:
        daemon += 1
    assert daemon - 3 <= asked <= daemon


def test_a_slot_is_its_own_latest() -> None:
    """However far the jitter of single delays lies from its mean."""
    schedule = Schedule(base=600, cap=600, jitter=1)
    for i in range(200):
        for k in range(1, 12):
            at = schedule.slot(str(i), k)
            assert schedule.latest(str(i), at) == at
            assert schedule.following(str(i), at) == schedule.slot(str(i), k + 1)
            if k > 1:
                assert schedule.latest(str(i), at - 0.01) == schedule.slot(str(i), k - 1)
                assert schedule.following(str(i), at - 0.01) == at


def test_a_hair_before_a_slot_the_one_before_it_is_the_latest() -> None:
    """With this cap the count of whole pairs is rounded up there, past what has come."""
    schedule = Schedule(cap=700.0, give_up_after=1e12)
    for k in range(2, 400):
        at = schedule.slot("x", k)
        before = math.nextafter(at, 0)
        assert (schedule.latest("x", before), schedule.following("x", before)) == (
            schedule.slot("x", k - 1),
            at,
        )
