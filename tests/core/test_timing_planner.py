"""Learned timing as a whole: equal to backoff with nothing known, within its bounds always, and never brought down by bad input."""

import math
from hashlib import blake2b
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from order_monitor.core.schedule import Schedule
from order_monitor.core.timing.bins import BINS, EDGES, nearest
from order_monitor.core.timing.choice import Next
from order_monitor.core.timing.curve import Curve
from order_monitor.core.timing.planner import Timing
from order_monitor.core.timing.price import DEAREST, PlanTable
from order_monitor.core.timing.reference import Reference
from order_monitor.core.timing.terms import Terms
from order_monitor.core.timing.words import duration, explained

NOW = 1_790_000_000.0
KEY = ("shop", "top-up")
SCHEDULE = Schedule()
SLOTS = Reference(SCHEDULE).ages
AGES = st.floats(0, 200_000)
IDS = st.text(max_size=30)


def trained(n: int = 120, age: float = 240.0, terms: Terms | None = None) -> Timing:
    """A product whose orders end around ``age``, seen at backoff's cost and a little more sharply."""
    timing = Timing(SCHEDULE, terms or Terms())
    teach(timing, n, age)
    return timing


def teach(timing: Timing, n: int, age: float) -> None:
    for k in range(n):
        end = age * (0.7 + 0.6 * (k * 0.618 % 1))
        before = 0.0
        for slot in [*[s for s in SLOTS if s < end * 0.9][:-1], end * 0.95]:
            timing.waiting(KEY, before, slot, NOW + k)
            before = slot
        timing.ended(KEY, before, end * 1.05, NOW + k)
        if k % 20 == 19:
            while timing.refresh(2):
                pass


TRAINED = trained()


@given(IDS, AGES)
@settings(max_examples=40, deadline=None)
def test_with_nothing_known_it_is_backoff(order_id: str, age: float) -> None:
    found = Timing(SCHEDULE, Terms()).next_check(KEY, order_id, age)
    slot = SCHEDULE.following(order_id, age)
    near = 5 if slot != SCHEDULE.give_up_after else 1e-3
    assert found == (slot if slot >= age + near else SCHEDULE.following(order_id, age + near))


@pytest.mark.parametrize(
    ("age", "following"), [(55.0, 60.0), (55.1, 90.0), (59.9, 90.0), (60.0, 90.0), (85.0, 90.0), (85.1, 150.0)]
)
def test_backoffs_slot_is_left_out_where_it_is_too_near(age: float, following: float) -> None:
    assert Timing(Schedule(jitter=0), Terms(min_interval=5.0)).next_check(KEY, "x", age) == following


def test_the_time_limit_is_never_left_out() -> None:
    plain = Schedule(jitter=0)
    timing = Timing(plain, Terms(min_interval=5.0))
    assert timing.next_check(KEY, "x", 86_399.9) == 86_400
    assert timing.next_check(KEY, "x", 86_399.9995) == plain.following("x", 86_400.0), "it is that very moment"


@given(IDS, st.floats(0, 86_399))
@settings(max_examples=60, deadline=None)
def test_every_order_is_asked_within_the_cap_and_not_too_soon(order_id: str, age: float) -> None:
    found = TRAINED.next_check(KEY, order_id, age)
    assert age < found <= SCHEDULE.give_up_after
    assert found >= age + 5 - 1e-6 or found == SCHEDULE.give_up_after
    assert found <= age + SCHEDULE.cap * (1 + SCHEDULE.jitter) + 5  # a slot too near is left out
    if TRAINED._chooser.next(KEY, order_id, age).learned:
        assert found <= age + SCHEDULE.cap + 1e-6


@given(IDS, st.sampled_from([-1.0, -1e300, math.nan, math.inf, -math.inf]))
@settings(deadline=None)
def test_an_age_that_makes_no_sense_is_planned_as_backoff_from_the_start(order_id: str, age: float) -> None:
    assert TRAINED.next_check(KEY, order_id, age) == SCHEDULE.following(order_id, 0.0)


@given(IDS, st.floats(86_400, 1e7))
@settings(deadline=None)
def test_beyond_the_time_limit_it_is_backoff(order_id: str, age: float) -> None:
    assert TRAINED.next_check(KEY, order_id, age) >= SCHEDULE.following(order_id, age)


def test_a_day_of_a_never_ending_order_is_walked_through() -> None:
    age, checks = 0.0, 0
    while age < 86_400:
        age, checks = TRAINED.next_check(KEY, "never", age), checks + 1
    assert age == 86_400
    assert 130 <= checks <= 200


def test_it_asks_where_the_ends_are() -> None:
    """Nothing ends before 168 s: the first check is later than backoff's at 60 s, and then they are close."""
    first = [TRAINED.next_check(KEY, str(k), 0.0) for k in range(200)]
    assert sum(150 < age < 330 for age in first) > 180
    second = [TRAINED.next_check(KEY, str(k), age) - age for k, age in enumerate(first)]
    assert sum(5 <= gap < 80 for gap in second) > 150


def test_orders_sent_together_are_not_asked_together() -> None:
    assert len({TRAINED.next_check(KEY, str(k), 0.0) for k in range(100)}) > 90
    assert TRAINED.next_check(KEY, "7", 0.0) == TRAINED.next_check(KEY, "7", 0.0)


@pytest.mark.untraced
def test_the_more_may_be_spent_the_closer_are_the_checks() -> None:
    gaps = []
    for budget in (0.5, 5.0, 50.0):
        timing = trained(terms=Terms(budget=budget, ceiling=10.0))
        assert timing._book.account("shop").purse.budget == min(budget, 10.0)
        gaps.append(sum(timing.next_check(KEY, str(k), 200.0) - 200.0 for k in range(100)))
    assert gaps[0] > gaps[1] >= gaps[2]


def test_an_unknown_product_borrows_but_less() -> None:
    learned = sum(TRAINED._chooser.next(("shop", "new"), str(k), 0.0).learned for k in range(500))
    own = sum(TRAINED._chooser.next(KEY, str(k), 0.0).learned for k in range(500))
    assert 300 < learned < own
    assert 300 < sum(TRAINED._chooser.next(("other", "new"), str(k), 0.0).learned for k in range(500)) < own


def test_a_package_with_one_order_is_half_backoffs() -> None:
    timing = Timing(SCHEDULE, Terms())
    timing.ended(KEY, 60.0, 90.0, NOW)
    assert timing.refresh(9) == 0
    timing.ended(KEY, 60.0, 90.0, NOW)
    assert timing.refresh(9) == 0
    learned = sum(timing._chooser.next(KEY, str(k), 0.0).learned for k in range(500))
    assert 100 < learned < 450


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


@pytest.mark.untraced
def test_a_change_is_followed() -> None:
    timing = trained(age=3600.0)
    assert sum(timing.next_check(KEY, str(k), 0.0) > 200 for k in range(100)) > 90
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
def test_what_makes_no_sense_is_counted_and_left_out(before: float, age: float, now: float, reason: str) -> None:
    timing = Timing(SCHEDULE, Terms())
    timing.ended(KEY, before, age, now)
    timing.waiting(KEY, before, age, now)
    assert timing.refused == {reason: 2}
    timing.lost(KEY, -1.0, NOW)
    assert timing.refused.total() == 3
    assert dict(timing.dump()) == {}


@given(
    st.lists(
        st.tuples(st.sampled_from(["waiting", "ended"]), st.floats(), st.floats(), st.floats(-1e12, 1e12)), max_size=12
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
    place = timing._memory.place(KEY)
    assert place.later()[0] == 0
    assert place.waiting.total() == 0
    assert place.seen == 2


def test_what_was_learned_outlives_the_process() -> None:
    stored = dict(TRAINED.dump())
    timing = Timing(SCHEDULE, Terms())
    timing.load({**stored, ("shop", "old"): '{"v":0}'}, NOW + 60)
    assert timing.refused == {"sketch": 1}
    while timing.refresh():
        pass
    assert timing.chance(KEY, 0.0, 240.0) == pytest.approx(TRAINED.chance(KEY, 0.0, 240.0), abs=0.05)


def test_the_chance_that_it_has_ended() -> None:
    assert TRAINED.chance(KEY, 0.0, 100.0) < 0.05
    assert TRAINED.chance(KEY, 100.0, 330.0) > 0.9
    assert TRAINED.chance(KEY, 30.0, 20.0) == 0.5
    assert Timing(SCHEDULE, Terms()).chance(KEY, 0.0, 60.0) == 0.5
    assert 0 <= TRAINED.chance(KEY, 1e9, 2e9) <= 1
    assert 0 <= TRAINED.chance(KEY, 3000.0, 4000.0) <= 1


def test_the_chance_is_of_those_that_still_waited() -> None:
    timing, mass = Timing(SCHEDULE, Terms()), [0.0] * BINS
    for age, share in ((75, 0.5), (120, 0.3), (200, 0.2)):
        mass[nearest(age)] = share
    timing._book.put(KEY, 10.0, PlanTable(Curve.of(mass), 5.0, 600.0, 1.0, [1.0] * BINS))
    assert timing.chance(KEY, 90.0, 160.0) == pytest.approx(0.6)
    assert timing.chance(KEY, 0.0, 160.0) == pytest.approx(0.8)
    assert timing.chance(KEY, 90.0, 90.0) == 0
    assert timing.chance(KEY, 300.0, 400.0) == 0.5, "all should have ended long ago"
    assert timing.chance(KEY, -1.0, 90.0) == 0.5


def test_what_was_stored_is_added_to_what_is_known_whatever_else_is_broken() -> None:
    stored = dict(TRAINED.dump())
    timing = Timing(SCHEDULE, Terms())
    timing.load({("shop", "old"): '{"v":0}', **stored, ("shop", "odd"): "["}, NOW + 200)
    assert timing.refused == {"sketch": 2}
    place = timing._memory.place(KEY)
    assert place.seen == pytest.approx(place.sketch.total)
    assert place.sketch.total == pytest.approx(TRAINED._memory.place(KEY).sketch.total, rel=0.01)
    assert timing.refresh(0) == 3, "the package, its account, and all"
    timing.load({KEY: stored[KEY]}, NOW + 200)
    assert place.seen == pytest.approx(place.sketch.total)


def test_each_call_is_paid_from_its_accounts_purse_at_what_backoff_would_have_made() -> None:
    timing = Timing(Schedule(jitter=0), Terms())
    timing.waiting(KEY, 0.0, 60.0, NOW)
    timing.ended(KEY, 60.0, 150.0, NOW)
    assert timing._book.account("shop").purse.credit == pytest.approx(0.5), "one slot between may have been spared"
    timing.ended(KEY, 150.0, 600.0, NOW)
    timing.refresh(3)
    before, table = timing._book.account("shop").purse.credit, timing._book.find(KEY)
    assert table is not None
    told = timing._reference.ended(60.0, 600.0, table.curve)
    assert told != timing._reference.ended(60.0, 600.0, None)
    timing.ended(KEY, 60.0, 600.0, NOW)
    assert timing._book.account("shop").purse.credit == pytest.approx(before + told - 1)
    assert set(timing._book._accounts) == {"shop", ""}, "and from no other's"


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
    assert timing.quantile(("a", "few"), 0.5) == timing._book.find(("a", "few")).curve.quantile(0.5)  # type: ignore[union-attr]


def test_what_is_fresh_is_taken_once_and_what_could_not_be_kept_comes_again() -> None:
    timing = Timing(SCHEDULE, Terms(packages=4))
    timing.ended(KEY, 60.0, 90.0, NOW)
    taken = timing.take()
    assert {key: sketch.total for key, sketch in taken.items()} == {KEY: 1, ("shop", ""): 1, ("", ""): 1}
    assert timing.take() == {}
    timing.ended(KEY, 60.0, 90.0, NOW)
    timing.give_back(taken)
    assert {key: sketch.total for key, sketch in timing.take().items()} == {KEY: 2, ("shop", ""): 2, ("", ""): 2}
    for n in range(3):
        timing.ended(("shop", str(n)), 60.0, 90.0, NOW)
    told = {key: sketch.total for key, sketch in timing.take().items()}
    assert told == {("shop", "0"): 1, ("shop", "1"): 1, ("shop", ""): 4, ("", ""): 3}, (
        "beyond the room it is the account's"
    )


def test_an_orders_learned_times_are_its_tables_moved_by_dice_of_its_own() -> None:
    """On every machine the same dice: whether it goes by backoff, which of two prices it has, and how far it is swayed."""
    left = [math.exp(-edge / 900) for edge in EDGES]
    curve = Curve.of([*(a - b for a, b in pairwise(left)), left[-1]])
    timing, table, here = Timing(SCHEDULE, Terms()), PlanTable(curve, 5.0, 600.0, 8.0, [0.5] * BINS), nearest(230.0)
    timing._book.put(KEY, 10.0, table)
    timing._book.account("shop").position = 3.4
    seen = set()
    for order_id in ["\ud800", *map(str, range(200))]:
        digest = blake2b(order_id.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        fate, side, sway = (int.from_bytes(digest[n : n + 4]) / 2**32 for n in (0, 4, 8))
        found = timing._chooser.next(KEY, order_id, 230.0)
        assert found.learned == (fate < 0.5)
        if found.learned:
            gap = table.at(4 if side < 0.4 else 3).following[here] - 230.0
            moved = 1 + 0.03 * ((sway + here * 0.6180339887498949) % 1 - 0.5)
            assert found.age == pytest.approx(230.0 + gap * moved)
            seen.add(side < 0.4)
    assert seen == {True, False}
    timing._book.account("shop").position = float(DEAREST)
    dearest = table.at(DEAREST).following[here] - 230.0
    assert timing.next_check(KEY, "3", 230.0) - 230.0 == pytest.approx(min(dearest, 600.0), rel=0.016)


def test_what_is_remembered_fades_and_is_bounded_as_it_was_set() -> None:
    timing = Timing(SCHEDULE, Terms(half_life=1000.0, packages=3))
    timing.ended(KEY, 60.0, 90.0, NOW)
    timing.ended(KEY, 60.0, 90.0, NOW + 1000)
    assert timing.orders() == {"shop": pytest.approx(1.5)}
    timing.ended(("shop", "other"), 60.0, 90.0, NOW + 1000)
    assert len(timing._memory.places) == 3


def test_a_product_that_changed_is_learned_anew_at_once() -> None:
    timing = trained(60, 240.0)
    assert timing._book.own(KEY) is not None
    for n in range(4):
        timing.ended(KEY, 5000.0, 6000.0, NOW + 60 + n)
    assert timing._book.own(KEY) is None
    assert timing._memory.place(KEY).sketch.total < 10


def test_each_account_tells_how_many_ends_it_learned_from() -> None:
    timing = Timing(SCHEDULE, Terms())
    for account, package in (("a", "x"), ("a", "y"), ("b", "x")):
        timing.ended((account, package), 60.0, 90.0, NOW)
    assert timing.orders() == {"a": 2.0, "b": 1.0}


def test_an_order_that_was_lost_early_is_waited_for_no_more() -> None:
    timing = Timing(SCHEDULE, Terms())
    timing.waiting(KEY, 0.0, 1.0, NOW)
    assert timing._memory.place(KEY).waiting.total() == 1
    timing.lost(KEY, 1.0, NOW)
    assert timing._memory.place(KEY).waiting.total() == 0


def test_the_sentence_says_whose_orders_end_when_and_how_long_it_is_until_it_is_asked() -> None:
    mass = [0.0] * BINS
    mass[nearest(240)] = 1.0
    curve = Curve.of(mass)
    assert explained(Next(300.0, learned=True), 100.0, curve, "theirs") == (
        "half of theirs end within 4 min; asked again in 3 min"
    )
    assert explained(Next(130.0, learned=False), 100.0, curve, "theirs") == (
        "half of theirs end within 4 min; asked again in 30 s, as backoff has it: too few ends were seen of this age"
    )


def test_it_explains_itself_in_a_sentence() -> None:
    assert Timing(SCHEDULE, Terms()).explain(KEY, "a", 0.0) == (
        "no end of this package's orders was seen yet; asked again in 60 s, as backoff has it"
    )
    learned = next(str(k) for k in range(99) if TRAINED._chooser.next(KEY, str(k), 230.0).learned)
    assert TRAINED.explain(KEY, learned, 230.0).startswith(
        "half of this package's orders end within 4 min; asked again in "
    )
    assert TRAINED.explain(KEY, "a", 20_000.0).endswith(", as backoff has it: too few ends were seen of this age")
    assert TRAINED.explain(("shop", "new"), "a", 0.0).startswith("half of orders like it end within ")


def test_orders_that_mostly_never_end_are_told_so() -> None:
    timing = Timing(SCHEDULE, Terms())
    timing.ended(KEY, 60.0, 90.0, NOW)
    for _ in range(50):
        timing.lost(KEY, 86_400.0, NOW)
    timing.ended(KEY, 60.0, 90.0, NOW)
    timing.refresh(3)
    assert timing.explain(KEY, "a", 0.0).startswith(
        "most of this package's orders take longer than a day; asked again in "
    )


def test_durations_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (35.2, 240, 9000)] == ["35 s", "4 min", "2.5 h"]
    assert [duration(s) for s in (89, 90, 5399, 5400)] == ["89 s", "2 min", "90 min", "1.5 h"]
    assert duration(3_600_000) == "1000.0 h"


def test_another_schedule_is_kept_to_with_all_that_was_learned() -> None:
    """As after SIGHUP: its cap and its slots hold at once, and the tables are made anew by it."""
    timing = trained()
    other = Schedule(first_check=20.0, cap=120.0)
    known = timing.quantile(KEY, 0.5)
    assert timing.next_check(KEY, "x", 5000.0) - 5000.0 > other.cap
    timing.adopt(other)
    assert timing.next_check(KEY, "x", 5000.0) - 5000.0 <= other.cap
    assert timing.refresh(0) > 0, "its tables are to be made anew"
    while timing.refresh(2):
        pass
    assert timing.quantile(KEY, 0.5) == pytest.approx(known)
    assert timing.next_check(KEY, "x", 5000.0) - 5000.0 <= other.cap
    fresh = Timing(SCHEDULE, Terms())
    fresh.adopt(other)
    assert fresh.next_check(KEY, "x", 0.0) == other.following("x", 0.0)
    timing.adopt(other)
    assert timing.refresh(0) == 0, "nothing to be done for the same one"
