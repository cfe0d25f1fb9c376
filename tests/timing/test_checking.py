"""When to ask, for a known distribution: against brute force and closed forms.

And the price that meets the budget.
"""

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from order_monitor.core.schedule import Schedule
from order_monitor.timing.distribution import BINS, EDGES, LAST, Curve, nearest
from order_monitor.timing.memory import (
    PATIENCE,
    WORRY,
    Account,
    Key,
    Memory,
    Place,
    changed,
)
from order_monitor.timing.plan import precedence
from order_monitor.timing.plan_table import (
    DEAREST,
    MEMORY,
    PRICES,
    WINDOW,
    CallBudget,
    PlanTable,
    Reference,
    cost_of,
    optimum,
    position,
)
from order_monitor.timing.sketch import Sketch
from order_monitor.timing.surprise import (
    Instant,
    known_near,
)

NOW = 1_790_000_000.0
REFERENCE = Reference(Schedule())


def curve_at(*bins: int) -> Curve:
    mass = [0.0] * BINS
    for k in bins:
        mass[k] += 1 / len(bins)
    return Curve.of(mass)


def exponential(mean: float) -> Curve:
    left = [math.exp(-edge / mean) for edge in EDGES]
    return Curve.of([*(a - b for a, b in itertools.pairwise(left)), left[-1]])


def table(curve: Curve, price: float | None = None) -> PlanTable:
    ladder = [optimum(curve, one, 5.0, 600.0) for one in PRICES]
    return PlanTable(curve, [1.0] * BINS, REFERENCE.calls(curve), ladder, price)


def walked(best: Sequence[int], n: int) -> list[float]:
    ages, k = [], 0
    for _ in range(n):
        k = best[k]
        ages.append(EDGES[k])
    return ages


# --- the optimum checking procedure


@pytest.mark.slow
@pytest.mark.untraced
@given(bins=st.sets(st.integers(10, 300), min_size=1, max_size=6), price=st.floats(0.1, 500))
@settings(max_examples=15, deadline=None)
def test_no_plan_is_better(bins: set[int], price: float) -> None:
    """Every plan that may be best asks only where mass ends, and at the last such place."""
    curve, ends = curve_at(*bins), sorted(k + 1 for k in bins)
    best = min(
        delay + price * calls
        for n in range(len(ends))
        for chosen in itertools.combinations(ends[:-1], n)
        for calls, delay in [cost_of(curve, [EDGES[k] for k in (*chosen, ends[-1])])]
    )
    found = optimum(curve, price, 0.0, EDGES[LAST])
    assert found.delay + price * found.calls == pytest.approx(best, rel=1e-9)


@pytest.mark.slow
@given(bins=st.lists(st.integers(0, LAST - 1), min_size=1, max_size=30), price=st.floats(0.5, 200))
@settings(max_examples=5, deadline=None)
def test_stopping_the_search_at_the_next_ones_best_loses_nothing(
    bins: list[int], price: float
) -> None:
    """The same recursion, searched in full."""
    curve = curve_at(*bins)
    cost = [0.0] * (LAST + 1)
    for a in range(LAST - 1, -1, -1):
        left = 1 - curve.ended[a]
        may = [
            b for b in range(a + 1, min(LAST, a + 420) + 1) if 5 <= EDGES[b] - EDGES[a] <= 600
        ] or [min(LAST, a + 1)]
        cost[a] = price * left + min(
            EDGES[b] * (curve.ended[b] - curve.ended[a])
            - (curve.moment[b] - curve.moment[a])
            + cost[b]
            for b in may
        )
    found = optimum(curve, price, 5.0, 600.0)
    assert found.delay + price * found.calls == pytest.approx(cost[0], rel=1e-9)


@pytest.mark.parametrize(("mean", "price"), [(1200, 20), (600, 50), (3000, 8)])
def test_for_the_exponential_the_gap_is_barlow_hunter_and_proschans(
    mean: float, price: float
) -> None:
    """It is constant, the root of e^x - x - 1 = price / mean in x = gap / mean.

    Keller's rule makes it the root of 2·price·mean.
    """
    low, high = 0.0, 5.0
    for _ in range(60):
        x = (low + high) / 2
        low, high = (x, high) if math.exp(x) - x - 1 < price / mean else (low, x)
    ages = walked(optimum(exponential(mean), price, 1.0, 6000.0).best, 6)
    for gap in (b - a for a, b in itertools.pairwise(ages)):
        assert gap == pytest.approx(low * mean, rel=0.12)
        assert gap == pytest.approx(math.sqrt(2 * price * mean), rel=0.2)


@given(
    st.lists(st.integers(0, LAST - 1), min_size=1, max_size=20),
    st.floats(0.5, 500),
    st.floats(5, 60),
    st.floats(100, 600),
)
@settings(max_examples=8, deadline=None)
def test_gaps_keep_their_bounds(
    bins: list[int], price: float, shortest: float, longest: float
) -> None:
    found = optimum(curve_at(*bins), price, shortest, longest)
    for k in range(LAST):
        gap = EDGES[found.best[k]] - EDGES[k]
        assert gap >= shortest or found.best[k] == LAST
        assert gap <= longest or EDGES[k + 1] - EDGES[k] > longest - shortest


@pytest.mark.parametrize("mean", [900.0, 40_000.0])
def test_what_a_procedure_says_it_costs_it_costs(mean: float) -> None:
    curve = exponential(mean)
    found = optimum(curve, 20.0, 5.0, 600.0)
    ages = walked(found.best, 400)
    assert cost_of(curve, ages[: ages.index(EDGES[LAST]) + 1]) == pytest.approx(
        (found.calls, found.delay), rel=1e-6
    )


# --- what backoff would have cost


def test_backoffs_calls_are_counted() -> None:
    assert REFERENCE.ages[:4] == pytest.approx([60, 91.5, 154.5, 280.5])
    assert REFERENCE.ages[-1] == 86_400
    assert REFERENCE.waited(0, 100) == 2
    assert REFERENCE.waited(60, 90) == 0
    assert REFERENCE.ended(0, 50, None) == 1
    assert REFERENCE.ended(0, 100, None) == 2
    assert REFERENCE.ended(0, 100, curve_at(5)) == pytest.approx(1)
    assert REFERENCE.ended(0, 100, curve_at(40)) == pytest.approx(2)
    assert REFERENCE.ended(0, 100, curve_at(400)) == 2
    assert REFERENCE.calls(curve_at(5)) == pytest.approx(1)


def test_backoffs_calls_until_an_end_are_a_mean_over_the_curve() -> None:
    plain = Reference(Schedule(jitter=0))
    curve = curve_at(nearest(75), nearest(75), nearest(120), nearest(200))
    assert plain.ages[:5] == [60, 90, 150, 270, 510]
    assert plain.ended(0, 160, curve) == pytest.approx(1 + 1 + 1 / 3)
    assert plain.ended(90, 280, curve) == pytest.approx(1.5)
    assert plain.ended(0, 280, None) == 3
    assert plain.ended(0, 270, None) == 2.5, "its last call is the one that finds it"
    assert plain.waited(60, 150) == 2


def test_of_an_order_that_was_found_late_backoff_asks_from_then_on() -> None:
    plain = Reference(Schedule(jitter=0))
    curve = curve_at(nearest(75), nearest(200), nearest(400), nearest(600))
    assert plain.ages[:6] == [60, 90, 150, 270, 510, 990]
    assert plain.waited(0, 300, found=300) == 1, "at once, and not at four slots"
    assert plain.waited(0, 520, found=300) == 2
    assert plain.waited(150, 520, found=100) == plain.waited(150, 520), "that was before"
    assert plain.waited(0, 520, found=math.inf) == 1, "either asks when its turn comes"
    assert plain.ended(0, 300, curve, found=300) == 1
    assert plain.ended(0, 520, curve, found=300) == pytest.approx(1 + 1 / 3), (
        "one in three ends after 300 s"
    )
    assert plain.ended(0, 700, curve, found=300) == pytest.approx(1 + 2 / 4 + 1 / 4)
    assert plain.ended(0, 700, None, found=math.inf) == 1


# --- the price


CURVES = st.lists(st.integers(0, LAST - 1), min_size=1, max_size=8).map(
    lambda bins: table(curve_at(*bins))
)


def summed(weighed: list[tuple[float, PlanTable]]) -> Account:
    """Return the account of packages that count for so many orders."""
    account = Account(CallBudget())
    for orders, one in weighed:
        account.count(one, orders)
    return account


def calls_at(account: Account, place: float) -> float:
    low = min(int(place), DEAREST - 1)
    part = place - low
    return (1 - part) * account.costs[low] + part * account.costs[low + 1]


@pytest.mark.long
@given(
    st.lists(st.tuples(st.floats(0.5, 50), CURVES), min_size=1, max_size=3),
    st.floats(0.05, 3),
    st.floats(1, 3),
)
@settings(max_examples=6, deadline=None)
def test_the_price_meets_the_budget_and_falls_as_it_grows(
    tables: list[tuple[float, PlanTable]], ratio: float, more: float
) -> None:
    account = summed(tables)
    wanted = ratio * account.equal
    place = position(account.costs, wanted)
    assert 0 <= place <= DEAREST
    assert position(account.costs, more * wanted) <= place + 1e-9
    if 0 < place < DEAREST:
        assert calls_at(account, place) == pytest.approx(wanted, rel=1e-6)
    elif place == DEAREST:
        assert calls_at(account, place) >= wanted * (1 - 1e-6)
    else:
        assert calls_at(account, place) <= wanted * (1 + 1e-6)


@pytest.mark.parametrize("place", [0.25, 0.5, 1.0, 1.75, 3.0, 6.5, DEAREST - 0.5])
def test_the_price_is_found_wherever_on_the_ladder_it_lies(place: float) -> None:
    account = summed([(3.0, table(exponential(900))), (1.0, table(exponential(200)))])
    assert position(account.costs, calls_at(account, place)) == pytest.approx(place)


@pytest.mark.parametrize(
    ("price", "low"), [(0.0, 0), (4.4, 2), (7.0, 5), (float(DEAREST), DEAREST - 4)]
)
def test_a_table_keeps_the_plans_about_the_price_in_force(price: float, low: int) -> None:
    curve = exponential(900)
    kept = table(curve, price)
    for rung in range(len(PRICES)):
        nearest_kept = min(max(rung, low), low + 4)
        best = optimum(curve, PRICES[nearest_kept], 5.0, 600.0).best
        assert [kept.following(rung, k) for k in (0, 100, LAST)] == [
            EDGES[best[k]] for k in (0, 100, LAST)
        ]
    assert kept.keeps(price)
    assert [place for place in range(len(PRICES)) if kept.keeps(place)] == [*range(low, low + 5)]


def test_a_budget_of_four_times_backoffs_calls_can_be_spent() -> None:
    """The lowest price of the ladder is that of a generous budget: nothing is cheaper."""
    curve = exponential(2700)
    cheapest = optimum(curve, PRICES[0], 5.0, 600.0)
    assert cheapest.calls > 4.5 * REFERENCE.calls(curve)


def test_gaps_of_any_width_are_kept() -> None:
    curve = exponential(50_000)
    ladder = [optimum(curve, price, 5.0, 40_000.0) for price in PRICES]
    kept = PlanTable(curve, [1.0] * BINS, 5.0, ladder, float(DEAREST))
    assert max(following - k for k, following in enumerate(ladder[-1].best)) > 255
    assert [kept.following(DEAREST, k) for k in range(BINS)] == [EDGES[k] for k in ladder[-1].best]


def test_a_purse_pays_back_and_never_saves_up_without_bound() -> None:
    purse = CallBudget()
    assert purse.ratio == 1
    for _ in range(10_000):
        purse.spend(0.0, NOW)
    assert (purse.credit, purse.ratio) == (-WINDOW / 2, 0.5 * purse.scale)
    assert purse.scale < 0.11
    for _ in range(10_000):
        purse.spend(9.0, NOW)
    assert (purse.credit, purse.ratio) == (WINDOW / 2, 1.5 * purse.scale)


@pytest.mark.parametrize("answers", [0.3, 0.95, 1.0, 3.0])
def test_what_was_granted_is_spent_however_far_off_the_tables_are(answers: float) -> None:
    """An account spends ``answers`` times what its tables say: after some thousand calls it spends
    what it is granted, and no more than half a window is left over.
    """
    purse, granted, spent = CallBudget(), 0.0, []
    for n in range(12_000):
        backoff = 1 / (answers * purse.ratio)
        granted += backoff
        purse.spend(backoff, NOW + n)
        spent.append(granted)
    assert (spent[-1] - spent[6000]) / 5999 == pytest.approx(1, abs=0.03)
    assert abs(purse.credit) < WINDOW / 5
    assert purse.scale == 1 or answers not in {0.95, 1.0}


def test_where_no_price_would_change_anything_the_scale_stays() -> None:
    purse = CallBudget()
    for _ in range(5000):
        purse.spend(0.0, NOW, float(DEAREST))
    assert (purse.credit, purse.scale) == (-WINDOW / 2, 1.0)
    for _ in range(5000):
        purse.spend(9.0, NOW, 0.0)
    assert purse.credit == WINDOW / 2
    assert purse.scale < 1.0
    for _ in range(90_000):
        purse.spend(9.0, NOW, 5.0)
    assert purse.scale == 10.0


def test_no_second_is_granted_twice() -> None:
    purse, kept = CallBudget(budget=0.5), []
    for at in (0, 0, 10, 4, 10, 12):
        purse.spend(1.0, NOW + at)
        kept.append(purse.credit)
    assert kept == [-1, -2, 2, 1, 0, 0], "neither where none went by nor where the clock went back"


def test_a_budget_in_calls_a_second_is_met_in_proportion() -> None:
    purse = CallBudget(budget=2.0)
    assert purse.ratio == 1
    for k in range(40_000):
        purse.spend(1.0, NOW + k)
    assert purse.ratio == pytest.approx(2 * purse.scale * (1 + purse.credit / WINDOW), rel=0.01)
    assert purse.credit == WINDOW / 2
    purse.spend(1.0, NOW - 1e9)
    purse.spend(1.0, NOW + 1e12)
    assert purse.credit == WINDOW / 2
    assert purse.ratio > 2.5 * purse.scale * (1 + purse.credit / WINDOW), "backoff made fewer"
    assert MEMORY > 0


def put(memory: Memory, key: Key, orders: float, one: PlanTable) -> None:
    memory.place(key).sketch.add((1, 2), NOW, orders)
    memory.put(key, one)


def test_an_account_sets_its_price_anew_after_some_calls() -> None:
    memory = Memory(86_400.0)
    memory.spend("shop", 1.0, NOW)
    put(memory, ("shop", ""), 10.0, table(exponential(900)))
    lent = memory.price("shop")
    put(memory, ("shop", "a"), 10.0, table(exponential(300)))
    before = memory.price("shop")
    assert before != lent
    for _ in range(PATIENCE):
        memory.spend("shop", 0.0, NOW)
    assert memory.price("shop") > before
    assert memory.own(("shop", "a")) is memory.find(("shop", "a"))
    memory.drop(("shop", "a"))
    assert memory.own(("shop", "a")) is None
    assert memory.find(("shop", "a")) is memory.find(("shop", ""))
    assert memory.find(("other", "a")) is None
    assert memory.own(("other", "a")) is None


def test_a_budget_reaches_each_accounts_purse() -> None:
    memory = Memory(86_400.0, budget=0.5)
    memory.spend("a", 1.0, NOW)
    memory.spend("a", 1.0, NOW + 100)
    assert (memory.account("a").purse.credit, memory.account("b").purse.budget) == (48.0, 0.5)


def test_an_accounts_price_is_that_of_its_packages_each_by_its_orders() -> None:
    memory, soon, late = Memory(86_400.0), table(exponential(300)), table(exponential(3000))

    def price(*weighed: tuple[float, PlanTable]) -> float:
        account = summed(list(weighed))
        return position(account.costs, account.equal)

    put(memory, ("a", ""), 50.0, late)
    assert memory.price("a") == price((50.0, late))
    put(memory, ("a", "p"), 0.2, soon)
    assert memory.price("a") == price((1.0, soon)), "what the account lends counts no more"
    put(memory, ("a", "q"), 3.0, late)
    assert memory.price("a") == price((1.0, soon), (3.0, late))
    put(memory, ("a", "q"), 4.0, soon)
    assert memory.price("a") == pytest.approx(price((8.0, soon))), "a table takes another's place"
    memory.drop(("a", "p"))
    memory.drop(("a", "q"))
    account = memory.account("a")
    assert (account.packages, account.equal, set(account.costs)) == (0, 0.0, {0.0})
    memory.put(("a", ""), late)
    assert memory.price("a") == price((50.0, late))


def test_the_price_is_set_anew_after_so_many_calls_and_not_sooner() -> None:
    memory, calls = Memory(86_400.0), []
    put(memory, ("a", "p"), 5.0, table(exponential(300)))
    for _ in range(PATIENCE + 1):
        memory.spend("a", 1.0, NOW)
        calls.append(memory.account("a").calls)
    assert calls == [*range(1, PATIENCE), 0, 1]


def test_a_table_that_was_never_there_may_be_forgotten() -> None:
    memory = Memory(86_400.0)
    memory.drop(("a", "p"))
    assert memory.places == {}


# --- whether a product still behaves as learned


def test_what_ends_elsewhere_is_a_surprise() -> None:
    curve = curve_at(100)
    at = EDGES[100]
    assert known_near(curve, at * 0.9, at * 1.1) == 1
    assert known_near(curve, at * 2, at * 3) == 0
    assert known_near(curve, 0, at / 3) == 0


def test_after_some_surprises_most_is_forgotten() -> None:
    place = Place(Sketch(86_400.0))
    curve = curve_at(100)
    assert not changed(place, curve, 5000, 6000, NOW)
    for _ in range(200):
        place.sketch.add((100, 101), NOW)
    assert not changed(place, curve, EDGES[100], EDGES[101], NOW)
    told = [changed(place, curve, 5000, 6000, NOW) for _ in range(4)]
    assert told == [False, False, False, True]
    assert place.sketch.total == pytest.approx(8)
    assert (place.misfit, place.built) == (0.0, 0.0)


def test_what_ends_as_expected_makes_up_for_surprises() -> None:
    place, curve = Place(Sketch(86_400.0)), curve_at(100)
    for _ in range(30):
        place.sketch.add((100, 101), NOW)
    for _ in range(3):
        assert not changed(place, curve, 5000, 6000, NOW), (
            "thirty orders are enough to be surprised"
        )
    assert place.misfit == pytest.approx(3)
    for _ in range(4):
        assert not changed(place, curve, EDGES[100], EDGES[101], NOW)
    assert place.misfit == pytest.approx(2.4)
    assert not changed(place, curve, 5000, 6000, NOW)
    for _ in range(60):
        changed(place, curve, EDGES[100], EDGES[101], NOW)
    assert place.misfit == 0


def known(orders: int) -> Place:
    place = Place(Sketch(86_400.0))
    for _ in range(orders):
        place.sketch.add((100, 101), NOW)
    return place


def test_one_end_where_none_was_known_is_reason_to_ask_early_for_ten_ends() -> None:
    place, curve = known(5), curve_at(100)
    assert not changed(place, curve, 5000, 6000, NOW)
    assert place.alert == WORRY
    for _ in range(9):
        changed(place, curve, EDGES[100], EDGES[101], NOW)
    assert place.alert > 0
    for _ in range(2):
        changed(place, curve, EDGES[100], EDGES[101], NOW)
    assert place.alert == 0


def test_ends_at_one_instant_change_nothing() -> None:
    """After an outage open orders of all ages end at once: no common age, but a common instant."""
    place, curve = known(200), curve_at(100)
    for k in range(4):
        before = 5000.0 + 1000 * k
        assert not changed(place, curve, before, before + 300, NOW + 10 * k)
    assert place.sketch.total == 200
    assert (place.misfit, place.alert) == (0, 0)
    assert place.outage is not None
    assert place.outage.holds(50.0, 100.0, NOW + 5)
    assert not place.outage.holds(50.0, 100.0, NOW + 500), "asked about after the instant as well"
    assert not place.outage.holds(50.0, 100.0, NOW - 500), "found before it"
    assert place.instant == Instant()


def test_ends_that_can_have_one_age_are_a_change_even_at_one_instant() -> None:
    place, curve = known(200), curve_at(100)
    told = [changed(place, curve, 5000 + k, 6000 + k, NOW + k) for k in range(4)]
    assert told == [False, False, False, True]
    assert (place.outage, place.alert) == (None, WORRY)


def test_an_order_that_still_waits_rules_an_instant_out() -> None:
    instant = Instant()
    instant.end(5000.0, 5300.0, NOW)
    instant.end(8000.0, 8300.0, NOW + 50)
    assert instant.is_one
    instant.waits(10.0, NOW + 60)
    assert instant.is_one, "it was sent after the instant"
    instant.waits(9000.0, NOW + 60)
    assert not instant.is_one
    instant.end(7000.0, 7100.0, NOW + 200)
    assert instant == Instant(NOW + 100, NOW + 200, 7000.0, 7100.0), "and begins again"


def test_ends_that_were_due_and_did_not_come_are_a_stall() -> None:
    """Each wait counts by how likely it was; once it has come to as much before, it is usual."""
    place, curve = known(200), curve_at(100)
    place.waits(0.0, EDGES[99], NOW)
    assert place.overdue == 0, "without a table nothing was due"
    place.table = table(curve)
    for _ in range(8):
        place.waits(0.0, EDGES[200], NOW)
    assert not place.stalled
    place.waits(EDGES[200], EDGES[300], NOW)
    assert place.stalled
    assert place.overdue == 9, "beyond all that was known an end is due at each check"
    place.resumes()
    assert not place.stalled
    for _ in range(18):
        place.waits(0.0, EDGES[200], NOW)
    assert not place.stalled
    place.resumes()
    for _ in range(3000):
        place.resumes()
    for _ in range(9):
        place.waits(0.0, EDGES[200], NOW)
    assert place.stalled, "what was usual long ago is not"


# --- which goes first


def test_of_orders_due_together_the_likelier_goes_first() -> None:
    assert precedence(NOW, 0.9, 600) < precedence(NOW, 0.1, 600)
    assert precedence(NOW, 7, 600) == NOW
    assert precedence(NOW, -1, 600) == NOW + 600


@given(
    st.lists(st.tuples(st.floats(0, 5000), st.floats(0, 1)), min_size=1, max_size=60),
    st.floats(0.02, 1),
)
@settings(deadline=None)
def test_no_order_starves(due: list[tuple[float, float]], per_second: float) -> None:
    """Taken one by one at the ceiling, an order waits for at most those due before it, and within
    the patience after it.
    """
    waiting, now, served = sorted(due), 0.0, []
    while waiting:
        now = max(now, waiting[0][0])
        there = [order for order in waiting if order[0] <= now]
        first = min(there, key=lambda order: precedence(order[0], order[1], 600))
        waiting.remove(first)
        served.append((first, now))
        now += 1 / per_second
    for order, at in served:
        others = sum(other[0] <= order[0] + 600 for other in due) - 1
        assert at - order[0] <= (others + 1) / per_second + 1e-6
