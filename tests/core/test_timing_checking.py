"""When to ask, for a known distribution: against brute force and closed forms; and the price that meets the budget."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from order_monitor.core.schedule import Schedule
from order_monitor.core.timing.bins import BINS, EDGES, LAST, nearest
from order_monitor.core.timing.book import PATIENCE, Book
from order_monitor.core.timing.checking import cost_of, optimum
from order_monitor.core.timing.curve import Curve
from order_monitor.core.timing.fit import changed, surprising
from order_monitor.core.timing.memory import Place
from order_monitor.core.timing.precedence import precedence
from order_monitor.core.timing.price import DEAREST, MEMORY, WINDOW, PlanTable, Purse, position
from order_monitor.core.timing.reference import Reference
from order_monitor.core.timing.sketch import Sketch

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


def table(curve: Curve) -> PlanTable:
    return PlanTable(curve, 5.0, 600.0, REFERENCE.calls(curve), [1.0] * BINS)


def walked(following: list[float], n: int) -> list[float]:
    ages, k = [], 0
    for _ in range(n):
        ages.append(following[k])
        k = EDGES.index(ages[-1])
    return ages


# --- the optimum checking procedure


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


@given(bins=st.lists(st.integers(0, LAST - 1), min_size=1, max_size=30), price=st.floats(0.5, 200))
@settings(max_examples=5, deadline=None)
def test_stopping_the_search_at_the_next_ones_best_loses_nothing(bins: list[int], price: float) -> None:
    """The same recursion, searched in full."""
    curve = curve_at(*bins)
    cost = [0.0] * (LAST + 1)
    for a in range(LAST - 1, -1, -1):
        left = 1 - curve.ended[a]
        may = [b for b in range(a + 1, min(LAST, a + 420) + 1) if 5 <= EDGES[b] - EDGES[a] <= 600] or [min(LAST, a + 1)]
        cost[a] = price * left + min(
            EDGES[b] * (curve.ended[b] - curve.ended[a]) - (curve.moment[b] - curve.moment[a]) + cost[b] for b in may
        )
    found = optimum(curve, price, 5.0, 600.0)
    assert found.delay + price * found.calls == pytest.approx(cost[0], rel=1e-9)


@pytest.mark.parametrize(("mean", "price"), [(1200, 20), (600, 50), (3000, 8)])
def test_for_the_exponential_the_gap_is_barlow_hunter_and_proschans(mean: float, price: float) -> None:
    """It is constant, the root of e^x - x - 1 = price / mean in x = gap / mean; Keller's rule makes it the root of 2·price·mean."""
    low, high = 0.0, 5.0
    for _ in range(60):
        x = (low + high) / 2
        low, high = (x, high) if math.exp(x) - x - 1 < price / mean else (low, x)
    ages = walked(list(optimum(exponential(mean), price, 1.0, 6000.0).following), 6)
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
def test_gaps_keep_their_bounds(bins: list[int], price: float, shortest: float, longest: float) -> None:
    found = optimum(curve_at(*bins), price, shortest, longest)
    for k in range(LAST):
        gap = found.following[k] - EDGES[k]
        assert gap >= shortest or found.following[k] == EDGES[LAST]
        assert gap <= longest or EDGES[k + 1] - EDGES[k] > longest - shortest


@pytest.mark.parametrize("mean", [900.0, 40_000.0])
def test_what_a_procedure_says_it_costs_it_costs(mean: float) -> None:
    curve = exponential(mean)
    found = optimum(curve, 20.0, 5.0, 600.0)
    ages = walked(list(found.following), 400)
    assert cost_of(curve, ages[: ages.index(EDGES[LAST]) + 1]) == pytest.approx((found.calls, found.delay), rel=1e-6)


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


# --- the price


CURVES = st.lists(st.integers(0, LAST - 1), min_size=1, max_size=8).map(lambda bins: table(curve_at(*bins)))


def calls_at(weighed: list[tuple[float, PlanTable]], place: float) -> float:
    low = min(int(place), DEAREST - 1)
    part = place - low
    return math.fsum(w * ((1 - part) * t.at(low).calls + part * t.at(low + 1).calls) for w, t in weighed)


@given(st.lists(st.tuples(st.floats(0.5, 50), CURVES), min_size=1, max_size=3), st.floats(0.05, 3), st.floats(1, 3))
@settings(max_examples=6, deadline=None)
def test_the_price_meets_the_budget_and_falls_as_it_grows(
    tables: list[tuple[float, PlanTable]], ratio: float, more: float
) -> None:
    place = position(tables, ratio)
    assert 0 <= place <= DEAREST
    assert position(tables, ratio * more) <= place + 1e-9
    wanted = ratio * math.fsum(w * t.equal for w, t in tables)
    if 0 < place < DEAREST:
        assert calls_at(tables, place) == pytest.approx(wanted, rel=1e-6)
    elif place == DEAREST:
        assert calls_at(tables, place) >= wanted * (1 - 1e-6)
    else:
        assert calls_at(tables, place) <= wanted * (1 + 1e-6)


@pytest.mark.parametrize("place", [0.25, 0.5, 1.0, 1.75, 3.0, 6.5, DEAREST - 0.5])
def test_the_price_is_found_wherever_on_the_ladder_it_lies(place: float) -> None:
    tables = [(3.0, table(exponential(900))), (1.0, table(exponential(200)))]
    ratio = calls_at(tables, place) / math.fsum(orders * one.equal for orders, one in tables)
    assert position(tables, ratio) == pytest.approx(place)


def test_a_purse_pays_back_and_never_saves_up_without_bound() -> None:
    purse = Purse()
    assert purse.ratio == 1
    for _ in range(10_000):
        purse.spend(0.0, NOW)
    assert (purse.credit, purse.ratio) == (-WINDOW / 2, 0.5)
    for _ in range(10_000):
        purse.spend(9.0, NOW)
    assert (purse.credit, purse.ratio) == (WINDOW / 2, 1.5)


def test_no_second_is_granted_twice() -> None:
    purse, kept = Purse(budget=0.5), []
    for at in (0, 0, 10, 4, 10, 12):
        purse.spend(1.0, NOW + at)
        kept.append(purse.credit)
    assert kept == [-1, -2, 2, 1, 0, 0], "neither where none went by nor where the clock went back"


def test_a_budget_in_calls_a_second_is_met_in_proportion() -> None:
    purse = Purse(budget=2.0)
    assert purse.ratio == 1
    for k in range(40_000):
        purse.spend(1.0, NOW + k)
    assert purse.ratio == pytest.approx(2 * (1 + purse.credit / WINDOW), rel=0.01)
    assert purse.credit == WINDOW / 2
    purse.spend(1.0, NOW - 1e9)
    purse.spend(1.0, NOW + 1e12)
    assert purse.credit == WINDOW / 2
    assert purse._rate < 1
    assert MEMORY > 0


def test_an_account_sets_its_price_anew_after_some_calls() -> None:
    book = Book(None)
    book.spend("shop", 1.0, NOW)
    book.put(("shop", ""), 10.0, table(exponential(900)))
    lent = book.account("shop").position
    book.put(("shop", "a"), 10.0, table(exponential(300)))
    before = book.account("shop").position
    assert before != lent
    for _ in range(PATIENCE):
        book.spend("shop", 0.0, NOW)
    assert book.account("shop").position > before
    assert book.own(("shop", "a")) is book.find(("shop", "a"))
    book.drop(("shop", "a"))
    assert book.own(("shop", "a")) is None
    assert book.find(("shop", "a")) is book.find(("shop", ""))
    assert book.find(("other", "a")) is None
    assert book.own(("other", "a")) is None


def test_a_budget_reaches_each_accounts_purse() -> None:
    book = Book(0.5)
    book.spend("a", 1.0, NOW)
    book.spend("a", 1.0, NOW + 100)
    assert (book.account("a").purse.credit, book.account("b").purse.budget) == (48.0, 0.5)


def test_an_accounts_price_is_that_of_its_packages_each_by_its_orders() -> None:
    book, soon, late = Book(None), table(exponential(300)), table(exponential(3000))
    book.put(("a", ""), 50.0, late)
    assert book.account("a").position == position([(50.0, late)], 1.0)
    book.put(("a", "p"), 0.2, soon)
    assert book.account("a").position == position([(1.0, soon)], 1.0), "what the account lends counts no more"
    book.put(("a", "q"), 3.0, late)
    assert book.account("a").position == position([(1.0, soon), (3.0, late)], 1.0)
    assert sorted(book.keys()) == [("a", ""), ("a", "p"), ("a", "q")]


def test_the_price_is_set_anew_after_so_many_calls_and_not_sooner() -> None:
    book = Book(None)
    for _ in range(PATIENCE + 3):
        book.spend("a", 1.0, NOW)
    assert book.account("a").calls == PATIENCE + 3, "there is no table to set a price for"
    book.put(("a", "p"), 5.0, table(exponential(300)))
    calls = []
    for _ in range(PATIENCE + 1):
        book.spend("a", 1.0, NOW)
        calls.append(book.account("a").calls)
    assert calls == [*range(1, PATIENCE), 0, 1]


def test_a_table_that_was_never_there_may_be_forgotten() -> None:
    book = Book(None)
    book.drop(("a", "p"))
    assert book.keys() == []


# --- whether a product still behaves as learned


def test_what_ends_elsewhere_is_a_surprise() -> None:
    curve = curve_at(100)
    at = EDGES[100]
    assert not surprising(curve, at * 0.9, at * 1.1)
    assert surprising(curve, at * 2, at * 3)
    assert surprising(curve, 0, at / 3)


def test_after_some_surprises_most_is_forgotten() -> None:
    place = Place(Sketch(86_400.0))
    curve = curve_at(100)
    assert not changed(place, curve, 5000, 6000)
    for _ in range(200):
        place.sketch.add((100, 101), NOW)
    assert not changed(place, curve, EDGES[100], EDGES[101])
    told = [changed(place, curve, 5000, 6000) for _ in range(4)]
    assert told == [False, False, False, True]
    assert place.sketch.total == pytest.approx(8)
    assert (place.misfit, place.built) == (0.0, 0.0)


def test_what_ends_as_expected_makes_up_for_surprises() -> None:
    place, curve = Place(Sketch(86_400.0)), curve_at(100)
    for _ in range(30):
        place.sketch.add((100, 101), NOW)
    for _ in range(3):
        assert not changed(place, curve, 5000, 6000), "thirty orders are enough to be surprised"
    assert place.misfit == pytest.approx(3)
    for _ in range(4):
        assert not changed(place, curve, EDGES[100], EDGES[101])
    assert place.misfit == pytest.approx(2.4)
    assert not changed(place, curve, 5000, 6000)
    for _ in range(60):
        changed(place, curve, EDGES[100], EDGES[101])
    assert place.misfit == 0


# --- which goes first


def test_of_orders_due_together_the_likelier_goes_first() -> None:
    assert precedence(NOW, 0.9, 600) < precedence(NOW, 0.1, 600)
    assert precedence(NOW, 7, 600) == NOW
    assert precedence(NOW, -1, 600) == NOW + 600


@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(0, 1)), min_size=1, max_size=60), st.floats(0.02, 1))
@settings(deadline=None)
def test_no_order_starves(due: list[tuple[float, float]], per_second: float) -> None:
    """Taken one by one at the ceiling, an order waits for at most those due before it, and within the patience after it."""
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
