"""What is learned of the time to the end: the grid, the estimate, the sketch and the levels."""

import json
import math
import random
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from order_monitor.core.schedule import Schedule
from order_monitor.timing import sketch as sketches
from order_monitor.timing.distribution import (
    BINS,
    EDGES,
    LAST,
    MIDDLES,
    ROUNDS,
    Curve,
    Span,
    estimate,
    nearest,
    span,
)
from order_monitor.timing.memory import ALL, CREDIT, MOST_WAITING, VAGUE, Memory, Place, parent
from order_monitor.timing.planner import Terms, Timing
from order_monitor.timing.sketch import MOST, ROOM, Sketch, _rounded

NOW = 1_790_000_000.0
DAY = 86_400.0
KEY = ("shop", "top-up")
SPANS = st.tuples(st.integers(0, LAST - 1), st.integers(1, 400)).map(
    lambda s: (s[0], min(LAST, s[0] + s[1]))
)

UNSMOOTHED = (0,) * 300
"""Rounds of Turnbull's own estimate."""


def weights(sketch: Sketch) -> dict[tuple[int, int], float]:
    return {(lo, hi): weight for lo, hi, weight in sketch.spans()}


# --- the grid


def test_the_grid_is_fine_at_first_and_a_half_percent_later() -> None:
    assert EDGES[0] == 0
    assert EDGES[LAST - 1] < DAY <= EDGES[LAST]
    assert EDGES[1] < 1.6
    assert EDGES[nearest(7200) + 1] / EDGES[nearest(7200)] < 1.006


def test_each_edge_is_its_own_nearest_and_what_lies_between_two_is_shared() -> None:
    assert [nearest(edge) for edge in EDGES] == list(range(LAST + 1))
    assert [nearest(EDGES[k] + (EDGES[k + 1] - EDGES[k]) * 0.4) for k in range(LAST)] == list(
        range(LAST)
    )
    assert [nearest(EDGES[k] + (EDGES[k + 1] - EDGES[k]) * 0.6) for k in range(LAST)] == list(
        range(1, LAST + 1)
    )


def test_an_interval_runs_from_the_edge_nearest_its_start_to_that_nearest_its_end() -> None:
    assert span(EDGES[100], EDGES[100]) == (100, 101)
    assert span(EDGES[100], EDGES[107]) == (100, 107)
    assert span(EDGES[100], EDGES[LAST]) == (100, LAST)
    assert span(EDGES[100], EDGES[LAST] + 1) == (100, BINS)
    assert span(EDGES[LAST], EDGES[LAST]) == (LAST, BINS)


@given(st.floats(0, 1e9))
def test_the_nearest_edge_is_nearest(age: float) -> None:
    k = nearest(age)
    assert 0 <= k <= LAST
    assert (
        age > EDGES[LAST]
        or abs(EDGES[k] - age) <= (EDGES[min(LAST, k + 1)] - EDGES[max(0, k - 1)]) * 0.51
    )


@given(st.floats(0, 1e6), st.floats(0, 1e6) | st.just(math.inf))
def test_an_interval_has_at_least_one_bin(after: float, until: float) -> None:
    lo, hi = span(after, max(after, until))
    assert 0 <= lo < hi <= BINS
    assert (hi == BINS) == (max(after, until) > EDGES[LAST] or lo == LAST)


# --- Turnbull's estimate


def test_without_censoring_it_counts() -> None:
    mass = estimate([(10, 11, 3.0), (20, 21, 1.0)], VAGUE, 0.0, UNSMOOTHED)
    assert mass[10] == pytest.approx(0.75)
    assert mass[20] == pytest.approx(0.25)


def test_with_censoring_it_is_kaplan_and_meiers() -> None:
    mass = estimate([(10, 11, 1.0), (15, BINS, 1.0), (20, 21, 1.0)], VAGUE, 0.0, UNSMOOTHED)
    assert mass[10] == pytest.approx(1 / 3)
    assert math.fsum(mass[15:]) == pytest.approx(2 / 3)


def test_of_overlapping_intervals_it_takes_what_they_share() -> None:
    mass = estimate([(0, 10, 1.0), (5, 15, 1.0)], VAGUE, 0.0, UNSMOOTHED)
    assert math.fsum(mass[5:10]) == pytest.approx(1, abs=1e-3)


def test_a_known_case_in_closed_form() -> None:
    """Two overlapping intervals and one end: p in the shared bin maximises (p + q) · p · q, so that
    it is 1/2.
    """
    mass = estimate([(0, 2, 1.0), (0, 1, 1.0), (1, 2, 1.0)], VAGUE, 0.0, UNSMOOTHED)
    assert mass[:2] == pytest.approx([0.5, 0.5])


@given(
    st.lists(
        st.tuples(SPANS, st.floats(0.1, 5)).map(lambda s: (*s[0], s[1])), min_size=1, max_size=8
    )
)
@settings(max_examples=20, deadline=None)
def test_each_round_makes_what_was_seen_more_likely(spans: list[Span]) -> None:
    def likelihood(rounds: int) -> float:
        until = [0.0, *accumulate(estimate(spans, VAGUE, 0.0, (0,) * rounds))]
        return math.fsum(
            weight * math.log(max(1e-300, until[hi] - until[lo])) for lo, hi, weight in spans
        )

    values = [likelihood(rounds) for rounds in range(6)]
    assert all(later >= sooner - 1e-6 for sooner, later in pairwise(values))


def test_the_prior_counts_for_as_many_orders_as_it_is_strong() -> None:
    prior = [0.0] * BINS
    prior[100] = 1.0
    mass = estimate(
        [(10, 11, 3.0)],
        [0.5 * p + 0.5 * v for p, v in zip(prior, VAGUE, strict=True)],
        9.0,
        UNSMOOTHED,
    )
    assert mass[10] == pytest.approx(0.25, abs=1e-3)


def test_with_nothing_seen_it_is_the_prior() -> None:
    assert estimate([], VAGUE, 1.0) == VAGUE
    assert math.fsum(estimate([(0, 1, 1.0)], [0.0, *VAGUE[1:]], 1.0)) == pytest.approx(1)


def test_smoothing_leaves_no_piles_and_keeps_the_totals() -> None:
    overlapping = [(lo, lo + 60, 1.0) for lo in range(100, 160)]
    exact, smooth = estimate(overlapping, VAGUE, 0.1, UNSMOOTHED), estimate(overlapping, VAGUE, 0.1)
    assert max(smooth) < max(exact) / 2
    assert math.fsum(smooth) == pytest.approx(1)


def test_of_a_few_ends_it_foretells_the_next_better_than_when_taken_narrowly() -> None:
    chance = random.Random(3)
    gain = 0.0
    for _ in range(10):
        seen = [
            span(end * 0.9, end * 1.1)
            for end in (chance.lognormvariate(5.5, 0.8) for _ in range(12))
        ]
        coming = [
            span(end * 0.99, end * 1.01)
            for end in (chance.lognormvariate(5.5, 0.8) for _ in range(100))
        ]
        few, narrow = (
            estimate([(*s, 1.0) for s in seen], VAGUE, CREDIT, rounds) for rounds in (None, ROUNDS)
        )
        gain += sum(math.log(sum(few[lo:hi]) / sum(narrow[lo:hi])) for lo, hi in coming)
    assert gain / 1000 > 0.1


@pytest.mark.parametrize(
    ("ends", "least", "most"), [(20, 0.3, 0.6), (60, 0.9, 1.0), (1000, 0.99, 1.0)]
)
def test_the_more_ends_were_seen_the_more_narrowly_they_are_taken(
    ends: int, least: float, most: float
) -> None:
    mass = estimate([(500, 504, float(ends))], VAGUE, CREDIT)
    assert least < math.fsum(mass[490:514]) < most


# --- the curve


@pytest.mark.parametrize(
    ("held", "width", "smooth"),
    [
        ({50: 3}, 1, {49: 1, 50: 1, 51: 1}),
        ({0: 3}, 1, {0: 1.5, 1: 1.5}),
        ({LAST - 1: 3}, 1, {LAST - 2: 1.5, LAST - 1: 1.5}),
        ({50: 5, 52: 10}, 2, {48: 1, 49: 1, 50: 3, 51: 3, 52: 3, 53: 2, 54: 2}),
    ],
)
def test_each_bin_becomes_the_mean_of_those_about_it_and_the_open_one_stays(
    held: dict[int, float], width: int, smooth: dict[int, float]
) -> None:
    """What is at the edge of the grid stays on it; an order of which nothing is known changes
    nothing.
    """
    total = sum(held.values())
    prior = [held.get(k, 0.0) / total / 2 for k in range(LAST)] + [0.5]
    found = estimate([(0, BINS, 1e-6)], prior, 1.0, (width,))
    inside = sum(smooth.values())
    assert found[:LAST] == pytest.approx(
        [smooth.get(k, 0.0) / inside * sum(found[:LAST]) for k in range(LAST)], abs=1e-6
    )
    assert found[LAST] > 0.49


def test_a_curve_adds_up_from_nothing() -> None:
    mass = [0.0] * BINS
    mass[3], mass[LAST - 1] = 0.25, 0.75
    curve = Curve.of(mass, [2.0] * BINS)
    assert [curve.ended[k] for k in (0, 3, 4, LAST)] == [0, 0, 0.25, 1]
    assert [curve.moment[k] for k in (0, 3, 4)] == [0, 0, 0.25 * MIDDLES[3]]
    assert curve.moment[LAST] == pytest.approx(0.25 * MIDDLES[3] + 0.75 * MIDDLES[LAST - 1])
    assert (curve.evidence, Curve.of(mass).evidence) == ([2.0] * BINS, [0.0] * BINS)
    assert (curve.quantile(0.25), curve.quantile(0.26)) == (EDGES[4], EDGES[LAST])


def test_a_curve_tells_shares_and_quantiles() -> None:
    mass = [0.0] * BINS
    mass[50] = mass[100] = 0.4
    mass[LAST] = 0.2
    curve = Curve.of(mass)
    assert curve.share_by(EDGES[51]) == pytest.approx(0.4)
    assert curve.quantile(0.5) == EDGES[101]
    assert curve.quantile(0.9) is None
    assert curve.moment[LAST] == pytest.approx(
        0.4 * (EDGES[50] + EDGES[51]) / 2 + 0.4 * (EDGES[100] + EDGES[101]) / 2
    )


# --- the sketch


def test_a_weight_is_halved_in_a_half_life_and_gone_at_last() -> None:
    sketch = Sketch(DAY)
    sketch.add((1, 2), NOW)
    sketch.fade(NOW + DAY)
    assert sketch.total == pytest.approx(0.5)
    sketch.fade(NOW - DAY)
    assert sketch.total == pytest.approx(0.5)
    sketch.fade(NOW + 10 * DAY)
    assert weights(sketch) == {}


@given(st.lists(st.tuples(SPANS, st.booleans(), st.floats(0, 3 * DAY)), max_size=60))
@settings(max_examples=50, deadline=None)
def test_two_processes_sketches_add_up_to_one(
    seen: list[tuple[tuple[int, int], bool, float]],
) -> None:
    both, one, other = Sketch(DAY), Sketch(DAY), Sketch(DAY)
    for found, mine, later in sorted(seen, key=lambda s: s[2]):
        both.add(found, NOW + later)
        (one if mine else other).add(found, NOW + later)
    one.merge(other)
    both.fade(one.at)
    for sketch in (one, both):
        sketch.fade(NOW + 4 * DAY)
    assert one.total == pytest.approx(both.total, rel=0.05, abs=0.1)
    assert Sketch.load(one.dump(), DAY, NOW + 9 * DAY) is not None


def test_merging_loses_nothing() -> None:
    one, other = Sketch(DAY), Sketch(DAY)
    one.add((1, 5), NOW)
    other.add((1, 5), NOW + DAY)
    other.add((2, 9), NOW + DAY)
    one.merge(other)
    assert weights(one) == pytest.approx({(1, 5): 1.5, (2, 9): 1.0})
    assert weights(other) == {(1, 5): 1.0, (2, 9): 1.0}


def test_a_sketch_comes_back_as_it_was() -> None:
    sketch = Sketch(DAY)
    assert Sketch.load(sketch.dump(), DAY, NOW) == sketch
    sketch.add((1, 5), NOW)
    sketch.add((7, BINS), NOW)
    assert Sketch.load(sketch.dump(), DAY, NOW) == sketch
    ahead = Sketch.load(sketch.dump(), DAY, NOW - 5)
    assert ahead is not None
    assert ahead.at == NOW - 5


def test_what_is_stored_is_plain_json_and_short() -> None:
    sketch = Sketch(DAY)
    assert json.loads(sketch.dump())["at"] is None
    sketch.add((1, 5), NOW, 1 / 3)
    assert sketch.dump() == f'{{"v":1,"grid":"{sketches.GRID}","at":{NOW},"w":[[1,5,0.3333]]}}'


GOOD = {"v": 1, "grid": sketches.GRID, "at": NOW, "w": [[1, 2, 1.0]]}


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"grid": "1/2/3"},
        {"at": "yesterday"},
        {"at": math.nan},
        {"at": -(10**400)},
        {"w": [[2, 1, 1.0]]},
        {"w": [[2, 2, 1.0]]},
        {"w": [[1, BINS + 1, 1.0]]},
        {"w": [[1.5, 2, 1.0]]},
        {"w": [[1, 2, -1.0]]},
        {"w": [[1, 2, 0]]},
        {"w": [[1, 2, math.nan]]},
        {"w": [[1, 2, 1e9]]},
        {"w": [[1, 2]]},
        {"w": 7},
    ],
)
def test_another_versions_or_a_broken_sketch_is_ignored(change: dict[str, object]) -> None:
    assert Sketch.load(json.dumps({**GOOD, **change}), DAY, NOW) is None


def test_the_heaviest_weight_there_can_be_is_taken() -> None:
    found = Sketch.load(json.dumps({**GOOD, "w": [[0, BINS, MOST]]}), DAY, NOW)
    assert found is not None
    assert (weights(found), found.total) == ({(0, BINS): MOST}, MOST)


def test_a_broken_time_takes_nothing_of_what_is_known_with_it() -> None:
    timing = Timing(Schedule(), Terms())
    timing.load({KEY: json.dumps(GOOD), ("shop", ""): json.dumps({**GOOD, "at": math.nan})}, NOW)
    timing.load({KEY: json.dumps({**GOOD, "at": math.nan})}, NOW)
    assert timing.refused == {"sketch": 2}
    assert json.loads(dict(timing.dump())[KEY])["w"] == [[1, 2, 1.0]]


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 100_000])
def test_no_sketch_at_all_is_ignored(text: str) -> None:
    assert Sketch.load(text, DAY, NOW) is None


def test_a_sketch_stays_small() -> None:
    sketch = Sketch(DAY)
    for k in range(20_000):
        lo = k * 7 % LAST
        sketch.add((lo, min(BINS, lo + 1 + k % 400)), NOW)
    assert len(weights(sketch)) <= ROOM
    assert sketch.total <= MOST
    assert all(0 <= lo < hi <= BINS for lo, hi in weights(sketch))
    assert len(sketch.dump()) < 60_000


@pytest.mark.parametrize(
    ("span", "level", "rounded"),
    [
        ((10, 20), 0, (10, 20)),
        ((100, 740), 1, (96, 736)),
        ((100, 164), 3, (104, 168)),
        ((100, 107), 3, (100, 107)),
        ((100, 164), 4, (104, 168)),
        ((7, BINS), 3, (7, BINS)),
        ((7, BINS), 4, (8, BINS)),
        ((5, BINS), 5, (4, BINS)),
        ((6, BINS), 5, (8, BINS)),
        ((LAST, BINS), 9, (LAST, BINS)),
        ((3, 5), 6, (0, 8)),
        ((1, 2), 6, (0, 1)),
        ((LAST - 1, LAST), 6, (LAST - 1, LAST)),
    ],
)
def test_rounding_is_to_parts_of_the_width_and_later_to_coarser_steps(
    span: tuple[int, int], level: int, rounded: tuple[int, int]
) -> None:
    assert _rounded(span, level) == rounded


def test_a_full_sketch_is_halved_and_what_it_holds_adds_up() -> None:
    sketch = Sketch(DAY)
    sketch.add((1, 5), NOW, MOST)
    assert sketch.total == MOST
    sketch.add((1, 5), NOW, 2.0)
    assert (sketch.total, weights(sketch)) == (MOST / 2 + 1, {(1, 5): MOST / 2 + 1})
    for n in range(ROOM + 1):
        sketch.add((n % 1000, n % 1000 + 100 + n // 1000), NOW, 0.5)
    assert len(weights(sketch)) <= ROOM
    assert sketch.total == pytest.approx(sum(weights(sketch).values()))


def test_a_sketch_with_room_again_is_exact_again() -> None:
    sketch = Sketch(DAY)
    for k in range(ROOM + 200):
        sketch.add((k % 1000, k % 1000 + 1 + k // 1000), NOW, 0.03)
    odd = (101, 203)
    sketch.add(odd, NOW, 1.0)
    assert odd not in weights(sketch), "too many to be exact"
    for day in range(9, 20):
        sketch.add((3, 4), NOW + day * DAY, 1.0)
    sketch.add(odd, NOW + 20 * DAY, 1.0)
    assert weights(sketch)[odd] == 1.0


# --- the levels


def learned(memory: Memory, key: tuple[str, str], age: float, n: int) -> None:
    for _ in range(n):
        memory.ended(key, age * 0.9, age * 1.1, NOW)
    for level in reversed(list(memory.lineage(key))):
        memory.curve(level)


def test_a_product_unknown_borrows_and_one_well_known_does_not() -> None:
    memory = Memory(DAY)
    learned(memory, KEY, 60, 400)
    learned(memory, ("shop", "manual"), 3000, 400)
    assert memory.curve(("shop", "manual")).share_by(500) < 0.03
    unknown = memory.curve(("shop", "new"))
    assert 0.3 < unknown.share_by(500) < 0.7
    assert unknown.evidence[0] < CREDIT
    assert memory.curve(("other", "new")).share_by(500) == pytest.approx(
        memory.lent(ALL).share_by(500), abs=0.01
    )


def test_with_nothing_seen_nothing_is_known() -> None:
    memory = Memory(DAY)
    assert memory.lent(KEY) == Curve.of(VAGUE)
    assert list(memory.lineage(("", ""))) == [ALL]


def test_those_still_waiting_count_as_censored() -> None:
    memory = Memory(DAY)
    learned(memory, KEY, 60, 20)
    before = memory.curve(KEY).share_by(100)
    for _ in range(20):
        memory.moved(KEY, None, nearest(100))
    assert memory.curve(KEY).share_by(100) < before * 0.7
    for _ in range(25):
        memory.moved(KEY, nearest(100), None)
    assert memory.curve(KEY).share_by(100) == pytest.approx(before, abs=0.02)


def test_one_of_which_no_more_is_heard_is_censored() -> None:
    place = Place(Sketch(DAY))
    place.sketch.add(span(30, 60), NOW)
    place.sketch.add(span(86_400, math.inf), NOW)
    assert place.later()[0] == 1


def test_a_million_packages_take_bounded_room() -> None:
    memory = Memory(DAY, room=50)
    learned(memory, ("shop", "busy"), 60, 30)
    for k in range(2000):
        memory.ended(("shop", f"package {k}"), 30, 60, NOW)
    assert len(memory.places) <= 52
    assert ("shop", "busy") in memory.places
    assert memory.places[ALL].seen == 2030
    for k in range(200):
        memory.ended((f"account {k}", ""), 30, 60, NOW)
    assert len(memory.places) <= 52
    assert ALL in memory.places


def test_without_room_only_what_is_asked_for_last_is_kept() -> None:
    memory = Memory(DAY, room=0)
    memory.ended(KEY, 30, 60, NOW)
    assert ALL in memory.places
    assert memory.places[ALL].seen == 1


def test_who_waits_is_counted_at_one_edge_only_and_never_below_none() -> None:
    memory = Memory(DAY)
    memory.moved(KEY, 5, None)
    memory.moved(KEY, None, 5)
    memory.moved(KEY, None, 5)
    assert memory.place(KEY).waiting[5] == 2
    memory.moved(KEY, None, 0)
    assert memory.place(KEY).waiting[0] == 1
    memory.moved(KEY, 0, None)
    memory.moved(KEY, 5, 9)
    for level in memory.lineage(KEY):
        waiting = enumerate(memory.place(level).waiting)
        assert {edge: orders for edge, orders in waiting if orders} == {5: 1, 9: 1}


def test_beyond_a_great_number_no_more_orders_are_counted_at_an_edge() -> None:
    memory = Memory(DAY)
    memory.place(KEY).waiting[5] = MOST_WAITING - 1
    for _ in range(3):
        memory.moved(KEY, None, 5)
    assert memory.place(KEY).waiting[5] == MOST_WAITING
    assert memory.place(ALL).waiting[5] == 3


def test_a_place_knows_who_waits_and_how_many_ended_later() -> None:
    place = Place(Sketch(DAY))
    for found in ((3, 7), (3, 7), (1, 7), (2, 5), (4, BINS)):
        place.sketch.add(found, NOW)
    place.waiting[8], place.waiting[10] = 1, 2
    assert sorted(place.spans()) == [
        (1, 7, 1),
        (2, 5, 1),
        (3, 7, 2),
        (4, BINS, 1),
        (8, BINS, 1),
        (10, BINS, 2),
    ]
    assert place.later() == [4.0] * 5 + [3.0] * 2 + [0.0] * (BINS - 7)


def test_a_package_borrows_from_its_account_and_that_from_all() -> None:
    assert [parent(("a", "p")), parent(("a", "")), parent(ALL)] == [("a", ""), ALL, None]
    memory = Memory(DAY)
    for n in range(10):
        memory.ended(KEY if n < 2 else ("shop", "other"), 100.0, 110.0, NOW)
    _, _, curve = [memory.curve(key) for key in (ALL, ("shop", ""), KEY)]
    assert curve.evidence[0] == pytest.approx(2 + CREDIT * 10 / (10 + CREDIT))
    assert (memory.place(KEY).built, memory.place(KEY).stale) == (2, False)
    assert memory.lent(("new", "")).evidence[0] == pytest.approx(CREDIT * 10 / (10 + CREDIT))


def test_the_room_for_places_is_kept_to() -> None:
    memory = Memory(DAY, room=3)
    for n in range(9):
        memory.place(("a", str(n)))
        assert len(memory.places) == min(n + 1, 3), "one goes for each that comes"


def test_the_last_rounds_leave_nothing_where_a_quarter_shows_that_nothing_is() -> None:
    """Of 400 orders that ended within 60 s, 100 had ended by 50 s: nearly all had, as far as is
    known.

    Smoothed to the end it was twice as much that might come later.
    """
    known = [(0, nearest(60.0), 300.0), (0, nearest(50.0), 100.0)]
    mass = estimate(known, VAGUE, 2.0)
    assert sum(mass[nearest(50.0) :]) < 0.015
