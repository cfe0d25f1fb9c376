"""Learned timing as a whole: equal to backoff with nothing known, within its bounds always, and
never brought down by bad input.
"""

import gc
import math
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from order_monitor.commands.timing_words import duration, explained
from order_monitor.core.schedule import Schedule
from order_monitor.timing.day import CELLS, Day
from order_monitor.timing.distribution import BINS, EDGES, Curve, nearest
from order_monitor.timing.hour import RECENT
from order_monitor.timing.memory import AGAIN, ALL, PATIENCE, START, VAGUE, Memory, Place
from order_monitor.timing.plan_table import (
    DEAREST,
    PRICES,
    CallBudget,
    PlanTable,
    Reference,
    optimum,
    position,
)
from order_monitor.timing.planner import (
    EARLY,
    SCOUTS,
    Chooser,
    Next,
    Reason,
    SteadyTime,
    Terms,
    Timing,
)
from order_monitor.timing.sketch import Sketch
from tests.support.operations import operations
from tests.support.trained import KEY, NOW, SCHEDULE, teach, trained, well_trained

AGES = st.floats(0, 200_000)
IDS = st.text(max_size=30)


def table_of(curve: Curve, trust: float = 1.0, price: float | None = None) -> PlanTable:
    ladder = [optimum(curve, one, 5.0, 600.0) for one in PRICES]
    return PlanTable(curve, [trust] * BINS, 8.0, ladder, price)


def rebuilt(timing: Timing) -> Timing:
    """Return it with all its tables made of what it knows now."""
    while timing.refresh():
        pass
    return timing


def chances(timing: Timing) -> list[float]:
    """Return what is known about the product: for each age, how likely its orders have ended."""
    return [timing.chance(KEY, 0.0, edge) for edge in EDGES]


def ends_known(timing: Timing) -> float:
    """Return the number of the product's orders that are remembered, as it is stored."""
    sketch = Sketch.load(dict(timing.dump())[KEY], Terms().half_life, NOW)
    assert sketch is not None
    return sketch.total


@given(IDS, AGES)
@settings(max_examples=40, deadline=None)
def test_with_nothing_known_it_is_backoff(order_id: str, age: float) -> None:
    found = Timing(SCHEDULE, Terms()).next_check(KEY, order_id, age)
    slot = SCHEDULE.following(order_id, age)
    near = 5 if slot != SCHEDULE.give_up_after else 1e-3
    assert found == (slot if slot >= age + near else SCHEDULE.following(order_id, age + near))


@pytest.mark.parametrize(
    ("age", "following"),
    [(55.0, 60.0), (55.1, 90.0), (59.9, 90.0), (60.0, 90.0), (85.0, 90.0), (85.1, 150.0)],
)
def test_backoffs_slot_is_left_out_where_it_is_too_near(age: float, following: float) -> None:
    assert (
        Timing(Schedule(jitter=0), Terms(min_interval=5.0)).next_check(KEY, "x", age) == following
    )


def test_the_time_limit_is_never_left_out() -> None:
    plain = Schedule(jitter=0)
    timing = Timing(plain, Terms(min_interval=5.0))
    assert timing.next_check(KEY, "x", 86_399.9) == 86_400
    assert timing.next_check(KEY, "x", 86_399.9995) == plain.following("x", 86_400.0), (
        "it is that very moment"
    )


@given(IDS, st.floats(0, 86_399))
@settings(max_examples=60, deadline=None)
def test_every_order_is_asked_within_the_cap_and_not_too_soon(order_id: str, age: float) -> None:
    found = well_trained().next_check(KEY, order_id, age)
    assert age < found <= SCHEDULE.give_up_after
    assert found >= age + 5 - 1e-6 or found == SCHEDULE.give_up_after
    assert found <= age + SCHEDULE.cap * (1 + SCHEDULE.jitter) + 5  # a slot too near is left out
    if well_trained().reason(KEY, order_id, age).next.learned:
        assert found <= age + SCHEDULE.cap + 1e-6


@given(IDS, st.sampled_from([-1.0, -1e300, math.nan, math.inf, -math.inf]))
@settings(deadline=None)
def test_an_age_that_makes_no_sense_is_planned_as_backoff_from_the_start(
    order_id: str, age: float
) -> None:
    assert well_trained().next_check(KEY, order_id, age) == SCHEDULE.following(order_id, 0.0)


@given(IDS, st.floats(86_400, 1e7))
@settings(deadline=None)
def test_beyond_the_time_limit_it_is_backoff(order_id: str, age: float) -> None:
    assert well_trained().next_check(KEY, order_id, age) >= SCHEDULE.following(order_id, age)


def test_a_day_of_a_never_ending_order_is_walked_through() -> None:
    age, checks = 0.0, 0
    while age < 86_400:
        age, checks = well_trained().next_check(KEY, "never", age), checks + 1
    assert age == 86_400
    assert 130 <= checks <= 200


def test_it_asks_where_the_ends_are() -> None:
    """Nothing ends before 168 s: the first check is later than backoff's at 60 s, but for scouts,
    and then they are close.
    """
    first = [
        age
        for k in range(300)
        if (age := well_trained().next_check(KEY, str(k), 0.0)) not in scouted(k)
    ]
    assert sum(150 < age < 330 for age in first) > 180
    second = [well_trained().next_check(KEY, str(k), age) - age for k, age in enumerate(first)]
    assert sum(5 <= gap < 80 for gap in second) > 150


def scouted(k: int) -> list[float]:
    """The early slots of backoff, of which a scout asks at one."""
    return [SCHEDULE.slot(str(k), slot) for slot in range(1, 1 + EARLY)]


@pytest.mark.long
def test_a_part_of_the_orders_asks_once_at_an_early_slot() -> None:
    """Each of the slots alike; a learned time that is earlier stands."""
    timing = trained(age=3600.0)
    found = Counter(
        scouted(k).index(age)
        for k in range(2000)
        if (age := timing.next_check(KEY, str(k), 0.0)) in scouted(k)
    )
    assert found.total() == pytest.approx(2000 * SCOUTS, rel=0.1)
    assert [found[slot] / 2000 for slot in range(EARLY)] == [
        pytest.approx(SCOUTS / EARLY, rel=0.25)
    ] * EARLY
    fast = trained(age=30.0)
    assert all(fast.next_check(KEY, str(k), 0.0) <= 60.0 for k in range(100))


@pytest.mark.long
@pytest.mark.untraced
def test_what_is_found_by_the_first_check_is_asked_about_sooner_and_sooner() -> None:
    """Orders of 40 s, found at the first check: a few are asked about a tenth sooner each time.

    Without them nothing would be known but that they end within the minute.
    """
    timing, firsts = Timing(SCHEDULE, Terms()), []
    for n in range(1500):
        age = timing.next_check(KEY, str(n), 0.0)
        firsts.append(age)
        if age < 40.0:
            timing.waiting(KEY, 0.0, age, NOW + 30 * n)
            timing.ended(KEY, age, age + 10.0, NOW + 30 * n + 10)
        else:
            timing.ended(KEY, 0.0, age, NOW + 30 * n)
        timing.refresh(3)
    assert sum(firsts[:25]) / 25 == 60.0
    assert sum(firsts[-200:]) / 200 < 52.0


@pytest.mark.long
def test_after_an_end_where_none_was_known_all_ask_early() -> None:
    """Orders of an hour; one has ended within 30 s. An order is asked about by backoff's slots."""
    timing = trained(age=3600.0)
    assert timing.next_check(KEY, "x", 400.0) > SCHEDULE.following("x", 400.0)
    timing.ended(KEY, 20.0, 30.0, NOW + 200)
    for k in range(50):
        for age in (0.0, 100.0, 400.0):
            slot = max(SCHEDULE.following(str(k), age), age + 5.0)
            assert timing.next_check(KEY, str(k), age) <= slot
    for _ in range(11):
        timing.ended(KEY, 3500.0, 3600.0, NOW + 210)
    assert timing.next_check(KEY, "x", 400.0) > SCHEDULE.following("x", 400.0)


@pytest.mark.long
def test_an_outage_leaves_no_trace() -> None:
    """Orders of four minutes wait for hours and end at one instant, at all ages.

    Meanwhile it is backoff; afterwards all is planned as before, and the table is made anew
    without them.
    """
    timing = trained()
    before = [timing.next_check(KEY, str(k), 0.0) for k in range(50)]
    for k in range(10):
        timing.waiting(KEY, 0.0, 300.0 + 600 * k, NOW + 6000)
    for k in range(50):
        assert timing.next_check(KEY, str(k), 300.0) == SCHEDULE.following(str(k), 300.0)
    twin = trained()
    for k in range(10):
        timing.ended(KEY, 300.0 + 600 * k, 700.0 + 600 * k, NOW + 6400)
    for k in range(5):
        twin.ended(KEY, 300.0 + 600 * k, 700.0 + 600 * k, NOW + 6400)
    assert [timing.next_check(KEY, str(k), 0.0) for k in range(50)] == before
    assert timing.orders() == {"shop": 125}, "the four that told it and one ordinary, none after"
    timing.refresh(9)
    for one in (timing, twin):
        one.ended(KEY, 230.0, 250.0, NOW + 9000)
        assert one.orders() == {"shop": 126}
    assert timing.refresh(0) == 3
    assert chances(rebuilt(timing)) == chances(rebuilt(twin)), "those after wait no longer"


def test_orders_sent_together_are_not_asked_together() -> None:
    assert len({well_trained().next_check(KEY, str(k), 0.0) for k in range(100)}) > 90
    assert well_trained().next_check(KEY, "7", 0.0) == well_trained().next_check(KEY, "7", 0.0)


@pytest.mark.long
@pytest.mark.untraced
def test_the_more_may_be_spent_the_closer_are_the_checks() -> None:
    gaps = []
    for budget, ceiling in ((0.5, 10.0), (5.0, 10.0), (50.0, 10.0), (50.0, 0.5)):
        timing = trained(terms=Terms(budget=budget, ceiling=ceiling))
        gaps.append(sum(timing.next_check(KEY, str(k), 200.0) - 200.0 for k in range(100)))
    assert gaps[0] > gaps[1] >= gaps[2]
    assert gaps[3] == gaps[0], "never above the ceiling"


def test_an_unknown_product_borrows_but_less() -> None:
    learned = sum(
        well_trained().reason(("shop", "new"), str(k), 0.0).next.learned for k in range(500)
    )
    own = sum(well_trained().reason(KEY, str(k), 0.0).next.learned for k in range(500))
    assert 200 < learned < own
    assert (
        200
        < sum(well_trained().reason(("other", "new"), str(k), 0.0).next.learned for k in range(500))
        < own
    )


@pytest.mark.slow
def test_a_package_with_one_order_is_half_backoffs() -> None:
    timing = Timing(SCHEDULE, Terms())
    for n in range(30):
        timing.lost((f"other {n}", ""), 1.0, NOW)
    timing.ended(KEY, 60.0, 90.0, NOW)
    assert timing.refresh(99) == 0
    timing.ended(KEY, 60.0, 90.0, NOW)
    assert timing.refresh(9) == 0
    learned = sum(timing.reason(KEY, str(k), 0.0).next.learned for k in range(500))
    assert 100 < learned < 450


@pytest.mark.long
def test_while_a_few_orders_of_many_packages_are_known_it_is_backoff() -> None:
    timing = Timing(SCHEDULE, Terms())
    for n in range(24):
        timing.ended(("shop", f"package {n % 20}"), 200.0, 240.0, NOW + n)
    timing.refresh(99)
    for n in range(100):
        for age in (0.0, 60.0, 230.0):
            found = timing.next_check(("shop", f"package {n}"), str(n), age)
            assert found == Timing(SCHEDULE, Terms()).next_check(KEY, str(n), age)
    timing.ended(("shop", "package 1"), 200.0, 240.0, NOW + 30)
    assert any(timing.reason(("shop", "package 1"), str(n), 60.0).next.learned for n in range(100))


@pytest.mark.long
@pytest.mark.untraced
def test_while_few_were_seen_each_end_makes_its_table_anew() -> None:
    timing = Timing(SCHEDULE, Terms())
    for k in range(10):
        timing.ended(KEY, 60.0, 90.0, NOW + k)
        assert timing.refresh(0) == 3, "the package's, its account's and that of all"
        assert timing.refresh(3) == 0
    for k in range(30):
        timing.ended(KEY, 60.0, 90.0, NOW + 10 + k)
    assert timing.refresh(3) == 0
    timing.ended(KEY, 60.0, 90.0, NOW + 50)
    assert timing.refresh(0) == 0, "one more of forty is no news"


@pytest.mark.long
@pytest.mark.untraced
def test_a_change_is_followed() -> None:
    timing = trained(age=3600.0)
    assert sum(timing.next_check(KEY, str(k), 0.0) > 200 for k in range(100)) > 100 * 0.9 * (
        1 - SCOUTS
    )
    teach(timing, 60, 30.0)
    assert sum(timing.next_check(KEY, str(k), 0.0) < 80 for k in range(100)) > 75


BAD = [
    (math.nan, 1.0, NOW, "no_number"),
    (0.0, math.inf, NOW, "no_number"),
    (0.0, 1.0, math.nan, "no_number"),
    (-5.0, 1.0, NOW, "before_sent"),
    (0.0, -1.0, NOW, "before_sent"),
    (9.0, 3.0, NOW, "backwards"),
]


@pytest.mark.parametrize(("before", "age", "now", "reason"), BAD)
def test_what_makes_no_sense_is_counted_and_left_out(
    before: float, age: float, now: float, reason: str
) -> None:
    timing = Timing(SCHEDULE, Terms())
    timing.ended(KEY, before, age, now)
    timing.waiting(KEY, before, age, now)
    assert timing.refused == {reason: 2}
    timing.lost(KEY, -1.0, NOW)
    assert timing.refused.total() == 3
    assert dict(timing.dump()) == {}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["waiting", "ended"]), st.floats(), st.floats(), st.floats(-1e12, 1e12)
        ),
        max_size=12,
    )
)
@settings(max_examples=25, deadline=None)
def test_nothing_said_to_it_breaks_it(told: list[tuple[str, float, float, float]]) -> None:
    timing = Timing(SCHEDULE, Terms(packages=5))
    for k, (what, before, age, now) in enumerate(told):
        getattr(timing, what)(("shop", str(k % 3)), before, age, now)
        timing.refresh()
    assert 0 < timing.next_check(("shop", "0"), "a", 0.0) <= 660


def test_an_order_given_up_is_censored_not_ended() -> None:
    timing = Timing(SCHEDULE, Terms())
    timing.waiting(KEY, 0.0, 60.0, NOW)
    timing.lost(KEY, 60.0, NOW)
    timing.lost(KEY, 0.0, NOW)
    assert timing.orders() == {"shop": 2}
    assert all(hi == BINS for _, hi, _ in timing.drain()[KEY].spans()), "no end is known of either"


@pytest.mark.slow
def test_what_was_learned_outlives_the_process() -> None:
    stored = dict(well_trained().dump())
    timing = Timing(SCHEDULE, Terms())
    timing.load({**stored, ("shop", "old"): '{"v":0}'}, NOW + 60)
    assert timing.refused == {"sketch": 1}
    while timing.refresh():
        pass
    assert timing.chance(KEY, 0.0, 240.0) == pytest.approx(
        well_trained().chance(KEY, 0.0, 240.0), abs=0.05
    )


def test_the_chance_that_it_has_ended() -> None:
    assert well_trained().chance(KEY, 0.0, 100.0) < 0.05
    assert well_trained().chance(KEY, 100.0, 330.0) > 0.9
    assert well_trained().chance(KEY, 30.0, 20.0) == 0.5
    assert Timing(SCHEDULE, Terms()).chance(KEY, 0.0, 60.0) == 0.5
    assert 0 <= well_trained().chance(KEY, 1e9, 2e9) <= 1
    assert 0 <= well_trained().chance(KEY, 3000.0, 4000.0) <= 1


@pytest.mark.slow
def test_the_chance_is_of_those_that_still_waited() -> None:
    timing = Timing(SCHEDULE, Terms())
    for age in (75.0, 120.0, 75.0, 200.0, 75.0, 120.0, 75.0, 200.0, 75.0, 120.0) * 100:
        timing.recall(KEY, age - 1, age + 1, NOW)
    rebuilt(timing)
    assert timing.chance(KEY, 90.0, 160.0) == pytest.approx(0.6, abs=0.01)
    assert timing.chance(KEY, 0.0, 160.0) == pytest.approx(0.8, abs=0.01)
    assert timing.chance(KEY, 90.0, 90.0) == 0
    assert timing.chance(KEY, -1.0, 90.0) == 0.5
    timing.recall(KEY, 74.0, 76.0, NOW)
    for _ in range(3):
        timing.load(dict(timing.dump()), NOW)
        rebuilt(timing)
    assert timing.chance(KEY, 0.0, 300.0) == 1.0
    assert timing.chance(KEY, 300.0, 400.0) == 0.5, "all should have ended long ago"


def test_what_was_stored_is_added_to_what_is_known_whatever_else_is_broken() -> None:
    stored = dict(well_trained().dump())
    timing = Timing(SCHEDULE, Terms())
    timing.load({("shop", "old"): '{"v":0}', **stored, ("shop", "odd"): "["}, NOW + 200)
    assert timing.refused == {"sketch": 2}
    assert timing.refresh(0) == 3, "the package, its account, and all"
    rebuilt(timing)
    assert timing.orders() == {"shop": pytest.approx(well_trained().orders()["shop"], rel=0.01)}
    own = dict(well_trained().learned())[KEY]
    assert dict(timing.learned()) == {KEY: pytest.approx(own, rel=0.01)}
    timing.load({KEY: stored[KEY]}, NOW + 200)
    assert dict(timing.learned()) == {KEY: pytest.approx(2 * own, rel=0.01)}
    assert timing.refresh(0) == 1, "as many orders as it had come new to the package"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0, 1, exclude_max=True))
def test_of_each_age_a_share_of_the_orders_follows_the_table(
    shares: list[float], fate: float
) -> None:
    curve = Curve.of(VAGUE)
    trust = sorted(shares, reverse=True) + [0.0] * (BINS - len(shares))
    table = PlanTable(curve, trust, 8.0, [optimum(curve, 8.0, 5.0, 600.0)] * len(PRICES))
    for edge, share in enumerate(trust[:40]):
        assert table.trusts(edge, fate) == (fate * 255 < round(share * 255))


def even(timing: Timing) -> float:
    """Return the place on the ladder of prices at which a table alone costs what backoff does."""
    table = timing.basis(KEY).table
    assert table is not None
    return position(table.calls, table.equal)


@pytest.mark.slow
def test_each_call_is_paid_from_its_accounts_purse_at_what_backoff_would_have_made() -> None:
    """The price in force shows what the purse holds: it is settled with each table and after
    ``PATIENCE`` calls.
    """
    plain = Schedule(jitter=0)
    timing, reference, purse = Timing(plain, Terms()), Reference(plain), CallBudget()
    for after, until in ((60.0, 150.0), (150.0, 600.0)):
        timing.waiting(KEY, 0.0, after, NOW)
        purse.spend(reference.waited(0.0, after, 0.0), NOW)
        timing.ended(KEY, after, until, NOW)
        purse.spend(reference.ended(after, until, None, 0.0), NOW)
    rebuilt(timing)
    table = timing.basis(KEY).table
    assert table is not None
    assert reference.ended(60.0, 600.0, table) != reference.ended(60.0, 600.0, None)
    assert timing.basis(KEY).place == pytest.approx(
        position(table.calls, purse.ratio * table.equal)
    )
    for _ in range(PATIENCE):
        timing.ended(KEY, 60.0, 600.0, NOW)
        purse.spend(reference.ended(60.0, 600.0, table), NOW, timing.basis(KEY).place)
    assert timing.basis(KEY).place == pytest.approx(
        position(table.calls, purse.ratio * table.equal)
    )
    assert abs(timing.basis(KEY).place - even(timing)) > 0.01, "not what it would be unspent"
    assert timing.basis(("other", "")).place == START, "and from no other's"


@pytest.mark.slow
def test_products_with_a_table_of_their_own_are_told_the_best_known_first() -> None:
    timing = Timing(SCHEDULE, Terms())
    for package, count in (("few", 2), ("many", 3), ("as few", 2)):
        for _ in range(count):
            timing.ended(("a", package), 60.0, 90.0, NOW)
    assert (timing.learned(), timing.quantile(("a", "few"), 0.5)) == ([], None)
    while timing.refresh():
        pass
    timing.waiting(("a", "none yet"), 0.0, 60.0, NOW)
    assert timing.learned() == [(("a", "many"), 3.0), (("a", "as few"), 2.0), (("a", "few"), 2.0)]
    assert timing.quantile(("a", "few"), 0.5) == timing.basis(("a", "few")).table.quantile(0.5)  # type: ignore[union-attr]


def test_what_is_fresh_is_taken_once_and_what_could_not_be_kept_comes_again() -> None:
    timing = Timing(SCHEDULE, Terms(packages=4))
    timing.ended(KEY, 60.0, 90.0, NOW)
    taken = timing.drain()
    assert {key: sketch.total for key, sketch in taken.items()} == {
        KEY: 1,
        ("shop", ""): 1,
        ("", ""): 1,
    }
    assert timing.drain() == {}
    timing.ended(KEY, 60.0, 90.0, NOW)
    timing.give_back(taken)
    assert {key: sketch.total for key, sketch in timing.drain().items()} == {
        KEY: 2,
        ("shop", ""): 2,
        ("", ""): 2,
    }
    for n in range(3):
        timing.ended(("shop", str(n)), 60.0, 90.0, NOW)
    told = {key: sketch.total for key, sketch in timing.drain().items()}
    assert told == {("shop", "0"): 1, ("shop", "1"): 1, ("shop", ""): 4, ("", ""): 3}, (
        "beyond the room it is the account's"
    )


def test_an_orders_learned_times_are_its_tables_moved_by_dice_of_its_own() -> None:
    """On every machine the same dice: whether it goes by backoff, which of two prices it has, and
    how far it is swayed.
    """
    left = [math.exp(-edge / 900) for edge in EDGES]
    curve = Curve.of([*(a - b for a, b in pairwise(left)), left[-1]])
    ladder = [optimum(curve, one, 5.0, 600.0) for one in PRICES]
    memory, here = Memory(Terms().half_life), nearest(230.0)
    chooser = Chooser(SCHEDULE, Terms().min_interval, memory)
    for _ in range(25):
        memory.place(ALL).sketch.add((1, BINS), NOW)
    memory.put(KEY, PlanTable(curve, [0.5] * BINS, 8.0, ladder, 3.4))
    memory.account("shop").position = 3.4
    seen = set()
    for order_id in ["\ud800", *map(str, range(200))]:
        digest = blake2b(order_id.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        fate, side, sway = (int.from_bytes(digest[n : n + 4]) / 2**32 for n in (0, 4, 8))
        found = chooser.next(KEY, order_id, 230.0, NOW)
        assert found.learned == (fate < 0.5)
        if found.learned:
            gap = EDGES[ladder[4 if side < 0.4 else 3].best[here]] - 230.0
            moved = 1 + 0.03 * ((sway + here * 0.6180339887498949) % 1 - 0.5)
            assert found.age == pytest.approx(230.0 + gap * moved)
            seen.add(side < 0.4)
    assert seen == {True, False}
    memory.put(KEY, PlanTable(curve, [1.0] * BINS, 8.0, ladder, float(DEAREST)))
    memory.account("shop").position = float(DEAREST)
    dearest = EDGES[ladder[DEAREST].best[here]] - 230.0
    assert chooser.next(KEY, "3", 230.0, NOW).age - 230.0 == pytest.approx(
        min(dearest, 600.0), rel=0.016
    )


def test_what_is_remembered_fades_and_is_bounded_as_it_was_set() -> None:
    timing = Timing(SCHEDULE, Terms(half_life=1000.0, packages=3))
    timing.ended(KEY, 60.0, 90.0, NOW)
    timing.ended(KEY, 60.0, 90.0, NOW + 1000)
    assert timing.orders() == {"shop": pytest.approx(1.5)}
    timing.ended(("shop", "other"), 60.0, 90.0, NOW + 1000)
    assert len(dict(timing.dump())) == 3


@pytest.mark.slow
def test_a_product_that_changed_is_learned_anew_at_once() -> None:
    timing = trained(60, 240.0)
    assert KEY in dict(timing.learned())
    for n in range(4):
        timing.ended(KEY, 5000.0, 6000.0, NOW + 60 + n)
    assert KEY not in dict(timing.learned())
    assert ends_known(timing) < 10


def test_each_account_tells_how_many_ends_it_learned_from() -> None:
    timing = Timing(SCHEDULE, Terms())
    for account, package in (("a", "x"), ("a", "y"), ("b", "x")):
        timing.ended((account, package), 60.0, 90.0, NOW)
    assert timing.orders() == {"a": 2.0, "b": 1.0}


@pytest.mark.slow
def test_an_order_that_was_lost_is_waited_for_no_more() -> None:
    """It tells as much as one that was lost without having been found waiting before."""
    seen, unseen, waits = (Timing(SCHEDULE, Terms()) for _ in range(3))
    seen.waiting(KEY, 0.0, 400.0, NOW)
    waits.waiting(KEY, 0.0, 900.0, NOW)
    for timing in (seen, unseen, waits):
        timing.lost(KEY, 400.0, NOW)
        timing.ended(KEY, 200.0, 300.0, NOW)
        rebuilt(timing)
    assert chances(seen) == chances(unseen)
    assert chances(waits) != chances(unseen), "one that waits does tell something"


def test_the_sentence_says_whose_orders_end_when_and_how_long_it_is_until_it_is_asked() -> None:
    mass = [0.0] * BINS
    mass[nearest(240)] = 1.0
    curve = Curve.of(mass)
    assert explained(Reason(Next(300.0, learned=True), curve, is_own=False), 100.0) == (
        "half of orders like it end within 4 min; asked again in 3 min"
    )
    assert explained(Reason(Next(130.0, learned=False), curve, is_own=False), 100.0) == (
        "half of orders like it end within 4 min; asked again in 30 s, as backoff has it: too few ends were seen of this age"
    )


def test_it_explains_itself_in_a_sentence() -> None:
    assert explained(Timing(SCHEDULE, Terms()).reason(KEY, "a", 0.0), 0.0) == (
        "no end of this package's orders was seen yet; asked again in 60 s, as backoff has it"
    )
    learned = next(
        str(k) for k in range(99) if well_trained().reason(KEY, str(k), 230.0).next.learned
    )
    assert explained(well_trained().reason(KEY, learned, 230.0), 230.0).startswith(
        "half of this package's orders end within 4 min; asked again in "
    )
    assert explained(well_trained().reason(KEY, "a", 20_000.0), 20_000.0).endswith(
        ", as backoff has it: too few ends were seen of this age"
    )
    assert explained(well_trained().reason(("shop", "new"), "a", 0.0), 0.0).startswith(
        "half of orders like it end within "
    )


def test_orders_that_mostly_never_end_are_told_so() -> None:
    timing = Timing(SCHEDULE, Terms())
    timing.ended(KEY, 60.0, 90.0, NOW)
    for _ in range(50):
        timing.lost(KEY, 86_400.0, NOW)
    timing.ended(KEY, 60.0, 90.0, NOW)
    timing.refresh(3)
    assert explained(timing.reason(KEY, "a", 0.0), 0.0).startswith(
        "most of this package's orders take longer than a day; asked again in "
    )


def test_durations_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (35.2, 240, 9000)] == ["35 s", "4 min", "2.5 h"]
    assert [duration(s) for s in (89, 90, 5399, 5400)] == ["89 s", "2 min", "90 min", "1.5 h"]
    assert duration(3_600_000) == "1000.0 h"


@pytest.mark.long
def test_another_schedule_is_kept_to_with_all_that_was_learned() -> None:
    """As after SIGHUP: its cap and its slots hold at once, and the tables are made anew by it."""
    timing = trained()
    other = Schedule(first_check=20.0, cap=120.0)
    known = timing.quantile(KEY, 0.5)
    assert timing.next_check(KEY, "x", 5000.0) - 5000.0 > other.cap
    timing.reconfigure(other)
    assert timing.next_check(KEY, "x", 5000.0) - 5000.0 <= other.cap
    assert timing.refresh(0) > 0, "its tables are to be made anew"
    while timing.refresh(2):
        pass
    assert timing.quantile(KEY, 0.5) == pytest.approx(known)
    assert timing.next_check(KEY, "x", 5000.0) - 5000.0 <= other.cap
    fresh = Timing(SCHEDULE, Terms())
    fresh.reconfigure(other)
    assert fresh.next_check(KEY, "x", 0.0) == other.following("x", 0.0)
    timing.reconfigure(other)
    assert timing.refresh(0) == 0, "nothing to be done for the same one"


def counted() -> Counter[type]:
    gc.collect()
    return Counter(
        # Not isinstance, which other libraries' lazy objects answer by coming to life.
        type(one)
        for one in gc.get_objects()
        if type(one) in {PlanTable, Sketch, Place}
    )


@pytest.mark.long
def test_what_is_kept_of_a_package_goes_with_it() -> None:
    """Ten times as many packages as there is room for: their tables go too."""
    before = counted()
    timing = Timing(SCHEDULE, Terms(packages=20))
    for n in range(200):
        key = ("shop", f"package {n}")
        timing.waiting(key, 0.0, 60.0, NOW + n)
        timing.ended(key, 60.0, 90.0 + n, NOW + n)
        if n % 10 == 9:
            timing.refresh(30)
    assert len(dict(timing.dump())) == 20
    counts = counted() - before
    assert counts[Place] == 20
    assert counts[Sketch] <= 20 + 20, "the second twenty wait to be stored"
    assert counts[PlanTable] <= 20
    assert timing.refresh(0) <= 20


def test_what_a_package_weighs_in_its_accounts_price_goes_with_it() -> None:
    memory, one = Memory(Terms().half_life, room=20), table_of(Curve.of(VAGUE))
    for n in range(200):
        memory.put(("shop", f"package {n}"), one)
    account = memory.account("shop")
    assert account.packages == len(memory.places) == 20
    assert account.equal == pytest.approx(20 * one.equal)


def test_what_is_kept_of_a_busy_package_is_bounded() -> None:
    memory = Memory(Terms().half_life)
    for n in range(3000):
        age = 10.0 + n * 7919 % 40_000
        memory.moved(KEY, None, nearest(age))
        memory.ended(KEY, age, age * (1.01 + n % 97 / 100), NOW + n)
        memory.place(KEY).reads(age, age, NOW + 300 * n)
    memory.put(KEY, table_of(memory.curve(KEY)))
    place = memory.place(KEY)
    place.day = Day(parts=2**CELLS - 1, lead=0.5, since=NOW)
    assert len(list(place.recent)) == RECENT
    assert sum(place.waiting) == 3000
    assert (place.mass, place.ends) == (None, ())
    assert size_of(place) < 20 * 1024


def size_of(root: object) -> int:
    """Return the bytes of an object and all that hangs on it."""
    seen, waiting, total = set[int](), [root], 0
    while waiting:
        found = waiting.pop()
        if id(found) not in seen and not isinstance(found, type):
            seen.add(id(found))
            total += sys.getsizeof(found)
            waiting += gc.get_referents(found)
    return total


def crowded(packages: int) -> Timing:
    """Return a timing that is full, with a sketch at its largest."""
    timing, one = Timing(SCHEDULE, Terms(packages=packages + 2)), Sketch(Terms().half_life)
    one.add((1, 2), NOW, 0.5)  # too little for a table
    timing.load({("shop", str(n)): one.dump() for n in range(packages)}, NOW)
    for n in range(600):
        timing.ended(KEY, 10.0 + 7919 * n % 40_000, 50_000.0 - n, NOW)
    return timing


STEP = 250_000
"""Bytecodes, a few milliseconds."""

LATER = NOW + 900_000


def longest_steps(packages: int) -> tuple[int, int, int]:
    """Return the most bytecodes of a step of making tables, of learning from an answer, and of
    keeping the tables and prices of a full memory.
    """
    timing, steps = crowded(packages), [0]
    while timing.refresh(0):
        steps.append(operations(timing.step))
    assert len(steps) > 30
    answers = [
        *(partial(timing.ended, ("shop", str(n)), 60.0, 90.0, LATER) for n in range(5)),
        *(partial(timing.ended, ("shop", f"new {n}"), 60.0, 90.0, LATER) for n in range(5)),
        *[partial(timing.waiting, KEY, 60.0, 90.0, LATER)] * PATIENCE,
    ]
    memory, one = Memory(Terms().half_life, packages + 2), table_of(Curve.of(VAGUE))
    for key in (ALL, ("shop", ""), *(("shop", str(n)) for n in range(packages))):
        memory.put(key, one)
    moves: list[Callable[[], object]] = [
        *(partial(memory.put, ("shop", name), one) for name in ("0", "1", "new 0", "new 1")),
        *[partial(memory.spend, "shop", 1.5, LATER)] * PATIENCE,
        partial(memory.find, ("shop", "none")),
    ]
    return max(steps), max(map(operations, answers)), max(map(operations, moves))


@pytest.mark.long
@pytest.mark.untraced
def test_a_step_is_as_long_however_many_packages_there_are() -> None:
    few, many = longest_steps(20), longest_steps(1200)
    assert max(many) < STEP
    assert [kind for kind in range(3) if many[kind] >= few[kind] * 1.2] == []


def two_to_make(age: float) -> tuple[Timing, Timing]:
    """Return two of the same knowledge: in the first, the product's new table is in the making."""
    made, twin = rebuilt(trained(60, age)), rebuilt(trained(60, age))
    more = {KEY: dict(made.dump())[KEY]}
    for timing in (made, twin):
        timing.load(more, NOW + 60)
        assert timing.refresh(0) == 1, "the product's own"
    for _ in range(20):
        assert made.step()
    return made, twin


def calls_of_the_next_table(timing: Timing) -> list[float]:
    """Return what the product's orders cost at each price by the first table that comes."""
    table = before = timing.basis(KEY).table
    while table is before:
        assert timing.refresh(0) > 0
        timing.step()
        table = timing.basis(KEY).table
    assert table is not None
    return list(table.calls)


@pytest.mark.long
def test_a_table_in_the_making_is_begun_anew_where_its_product_has_changed() -> None:
    made, twin = two_to_make(240.0)
    for timing in (made, twin):
        for n in range(4):
            timing.ended(KEY, 5000.0, 6000.0, NOW + 70 + n)
        assert KEY not in dict(timing.learned())
    assert calls_of_the_next_table(made) == calls_of_the_next_table(twin)


@pytest.mark.long
def test_a_table_in_the_making_is_begun_anew_where_the_schedule_has_changed() -> None:
    made, twin = two_to_make(3600.0)
    for timing in (made, twin):
        timing.reconfigure(Schedule(cap=100.0))
    assert calls_of_the_next_table(made) == calls_of_the_next_table(twin)


def test_a_table_of_a_package_that_was_forgotten_meanwhile_is_not_kept() -> None:
    timing = Timing(SCHEDULE, Terms(packages=3))
    timing.ended(KEY, 60.0, 90.0, NOW)
    assert timing.step()
    timing.ended(("shop", "other"), 60.0, 90.0, NOW)
    assert KEY not in dict(timing.dump()), "there was no room for both"
    while timing.step():
        assert KEY not in dict(timing.dump())
    assert [key for key, _ in timing.learned()] == [("shop", "other")]


DAY = 86_400.0


@pytest.mark.parametrize("leap", [60 * DAY, -60 * DAY])
def test_a_clock_that_leaps_wipes_nothing_and_fading_goes_on(leap: float) -> None:
    timing = Timing(SCHEDULE, Terms())
    for n in range(100):
        timing.ended(KEY, 60.0, 90.0, NOW + n)
    timing.ended(KEY, 60.0, 90.0, NOW + 200 + leap)
    assert timing.refused == {"leap": 1}
    timing.ended(KEY, 60.0, 90.0, NOW + 300)
    assert timing.refused == {"leap": 2}
    assert 85 < timing.orders()["shop"] <= 102, "by a day at the most"
    known = timing.orders()["shop"]
    for n in range(1, 8):
        timing.ended(KEY, 60.0, 90.0, NOW + 300 + n * DAY)
    assert timing.orders()["shop"] == pytest.approx(known / 2 + 4, rel=0.1)


def test_a_process_that_starts_with_a_wrong_clock_wipes_nothing() -> None:
    timing = Timing(SCHEDULE, Terms())
    timing.load(dict(well_trained().dump()), NOW + 60 * DAY)
    timing.ended(KEY, 60.0, 90.0, NOW + 60 * DAY)
    assert timing.orders()["shop"] > 100
    assert timing.refused == {"leap": 1}


def test_answers_that_come_in_another_order_age_nothing() -> None:
    time = SteadyTime()
    read = [time.read(NOW + at)[0] - NOW for at in (0, 10, 8, 11, 9, 12, 2, 13)]
    assert read == [0, 10, 10, 11, 11, 12, 12, 13]


def test_what_lasts_longer_than_the_time_limit_is_bounded_or_left_out_and_counted() -> None:
    timing = Timing(SCHEDULE, Terms())
    timing.ended(KEY, 300.0, 3 * DAY, NOW)
    assert timing.refused == {"too_long": 1}
    assert list(timing.drain()[KEY].spans()) == [(nearest(300.0), BINS, 1.0)]
    timing.ended(KEY, 2 * DAY, 3 * DAY, NOW)
    timing.waiting(KEY, 2 * DAY, 3 * DAY, NOW)
    timing.lost(KEY, NOW, NOW)
    assert timing.refused == {"too_long": 4}
    timing.ended(KEY, 0.0, NOW, NOW)
    assert timing.refused == {"too_long": 5}
    assert timing.orders() == {"shop": 1}, "of an order that was never asked about it is none"
    timing.ended(KEY, 300.0, DAY + 700, NOW)
    assert timing.refused == {"too_long": 5}, "asked about at the limit, and late"


def test_an_order_that_was_found_late_is_worth_no_more_calls_than_backoff_makes() -> None:
    timing = Timing(Schedule(jitter=0), Terms())
    for _ in range(100):
        timing.recall(KEY, 0.0, 300.0, NOW)
    rebuilt(timing)
    for _ in range(PATIENCE):
        timing.waiting(KEY, 0.0, 300.0, NOW, found=300.0)
    for _ in range(PATIENCE):
        timing.ended(KEY, 0.0, 300.0, NOW, found=math.inf)
    assert timing.basis(KEY).place == pytest.approx(even(timing)), "nothing saved, nothing owed"
    for _ in range(PATIENCE):
        timing.ended(KEY, 0.0, 300.0, NOW)
    assert timing.basis(KEY).place < even(timing) - 0.01, "more can be spent"


def test_a_history_is_learned_from_and_not_spent() -> None:
    """No call is counted for a past end: the purse is as before, however long the history is."""
    timing = Timing(SCHEDULE, Terms())
    for n in range(300):
        timing.recall(KEY, 60.0, 150.0, NOW + n)
    assert timing.orders() == {KEY[0]: 300}
    rebuilt(timing)
    assert timing.basis(KEY).place == pytest.approx(even(timing))
    timing.recall(KEY, 90.0, 60.0, NOW)
    assert timing.refused["backwards"] == 1
    assert timing.orders() == {KEY[0]: 300}


def changed_to_a_minute() -> Timing:
    """A product whose orders took an hour, and of which three have ended within a minute."""
    timing = trained(age=3600.0)
    for k in range(3):
        timing.ended(KEY, 0.0, 60.0, NOW + 1000 + k)
    return timing


@pytest.mark.slow
def test_where_one_check_finds_all_orders_it_is_soon_after_the_last_end() -> None:
    """Three of four orders were asked about at 60 s, and one at 50 s: all had ended."""
    timing = Timing(SCHEDULE, Terms())

    def chance_after(orders: int) -> float:
        for k in range(orders):
            timing.ended(KEY, 0.0, 50.0 if k % 4 == 0 else 60.0, NOW + k)
        return rebuilt(timing).chance(KEY, 0.0, 50.0)

    first = chance_after(400)
    assert 1 - chance_after(100) < (1 - first) * 0.8, "the table showed that one check is enough"


@pytest.mark.long
def test_a_surprise_is_told_once_so_that_waiting_orders_are_planned_again() -> None:
    timing = trained(age=3600.0)
    assert not timing.surprised()
    timing.ended(KEY, 0.0, 60.0, NOW + 200)
    assert list(timing.surprised()) == [KEY]
    timing.ended(KEY, 0.0, 60.0, NOW + 201)
    assert not timing.surprised(), "all ask early already"
    timing.ended(KEY, 0.0, 60.0, NOW + 202)
    assert list(timing.surprised()) == [KEY], "it has changed, and is planned in another way"


@pytest.mark.long
def test_a_product_that_changed_follows_backoff_until_enough_is_known_of_it_again() -> None:
    timing = changed_to_a_minute()
    ids = [str(k) for k in range(50)]
    slots = [SCHEDULE.following(order_id, 0.0) for order_id in ids]
    for k in range(AGAIN):
        timing.refresh(9)
        assert [timing.next_check(KEY, order_id, 0.0) for order_id in ids] == slots
        timing.ended(KEY, 30.0, 45.0, NOW + 1100 + 10 * k)
    timing.refresh(9)
    assert [timing.next_check(KEY, order_id, 0.0) for order_id in ids] != slots


@pytest.mark.long
def test_a_product_that_became_slower_is_planned_by_what_it_does_since_then() -> None:
    """Its orders outlast all that is known, so backoff asks about them until their table is made."""
    timing = trained(age=60.0)
    for k in range(16):
        timing.ended(KEY, 3400.0, 3600.0, NOW + 5000 + k)
    rebuilt(timing)
    ids = [str(k) for k in range(50)]
    learned = [timing.reason(KEY, order_id, 3000.0).next.learned for order_id in ids]
    assert sum(learned) > 40


@pytest.mark.long
def test_orders_sent_before_a_change_tell_nothing_about_those_sent_after_it() -> None:
    """They took an hour: neither their ends nor their waiting count for the package."""
    timing, other = changed_to_a_minute(), changed_to_a_minute()
    now = NOW + 1100
    for k in range(40):
        timing.waiting(KEY, 2000.0, 2600.0, now + k)
        timing.ended(KEY, 3500.0, 3600.0, now + k)
        timing.ended(KEY, 0.0, 2 * SCHEDULE.give_up_after, now + k)
        timing.ended(KEY, 2000.0, 2 * SCHEDULE.give_up_after, now + k)
        timing.lost(KEY, 3600.0, now + k)
    for one in (timing, other):
        for k in range(AGAIN):
            one.ended(KEY, 30.0, 45.0, now + 50 + k)
            one.refresh(9)
    for age in (45.0, 1000.0, 3000.0):
        assert timing.chance(KEY, 0.0, age) == pytest.approx(other.chance(KEY, 0.0, age), abs=0.02)
    assert timing.orders()["shop"] > other.orders()["shop"] + 100, "the account has seen them"


@pytest.mark.long
def test_after_a_clock_that_went_back_every_order_counts_again() -> None:
    timing = changed_to_a_minute()
    before = timing.chance(KEY, 0.0, 45.0)
    for k in range(40):
        timing.ended(KEY, 30.0, 45.0, NOW - 86_400 + k)
        timing.refresh(9)
    assert timing.chance(KEY, 0.0, 45.0) > max(before, 0.5)
