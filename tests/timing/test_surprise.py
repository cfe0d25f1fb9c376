"""Early ends that few of a product's orders were known for: when they are chance, and when the
product has become faster.
"""

import math

import pytest

from order_monitor.timing.distribution import EDGES, Curve
from order_monitor.timing.memory import Memory, Place, changed
from order_monitor.timing.planner import Terms, Timing
from order_monitor.timing.sketch import Sketch
from order_monitor.timing.surprise import CERTAIN, LIKELY, UNUSUAL, Suspicion
from tests.support.trained import KEY, NOW, SCHEDULE

HOUR = 3600.0


def suspected(ends: int = 1, share: float = 0.03) -> Suspicion:
    """Return a suspicion of ends after 30 to 60 s, of orders sent each ten seconds."""
    suspicion = Suspicion(30.0, 60.0)
    for k in range(ends):
        suspicion.ends(share, 30.0, 60.0, NOW + 60 + 10 * k)
    return suspicion


def test_each_early_end_multiplies_the_odds_and_each_order_that_waits_halves_them() -> None:
    suspicion = suspected()
    assert suspicion.odds == pytest.approx(math.log(0.5 / 0.03))
    suspicion.waits(30.0, 61.0, NOW + 70)
    assert suspicion.odds == pytest.approx(math.log(0.25 / 0.03))


@pytest.mark.parametrize(
    ("before", "age", "sent"),
    [
        pytest.param(0.0, 59.0, 0.0, id="it has not reached that age"),
        pytest.param(60.0, 90.0, 0.0, id="it was known before that it waits"),
        pytest.param(30.0, 90.0, -1.0, id="it was sent before the first early end's order"),
    ],
)
def test_an_order_that_waits_counts_once_and_only_if_it_was_sent_since(
    before: float, age: float, sent: float
) -> None:
    suspicion = suspected()
    odds = suspicion.odds
    suspicion.waits(before, age, NOW + sent + age)
    assert suspicion.odds == odds


def test_an_end_at_another_age_does_not_count() -> None:
    suspicion = suspected()
    odds = suspicion.odds
    suspicion.ends(0.03, 300.0, 400.0, NOW + 500)
    suspicion.ends(0.03, 1.0, 20.0, NOW + 500)
    assert (suspicion.odds, suspicion.after, suspicion.until) == (odds, 30.0, 60.0)


def test_an_end_near_by_widens_what_is_asked() -> None:
    suspicion = suspected()
    suspicion.ends(0.03, 20.0, 40.0, NOW + 30)
    assert (suspicion.after, suspicion.until, suspicion.since) == (20.0, 60.0, NOW - 10)


def test_first_it_concerns_orders_sent_since_and_when_it_is_likely_all() -> None:
    begun, likely = suspected(1), suspected(2)
    assert begun.odds < LIKELY <= likely.odds
    assert [begun.concerns(0.0, NOW), begun.concerns(0.0, NOW - 1)] == [True, False]
    assert [likely.concerns(0.0, NOW), likely.concerns(0.0, NOW - 1)] == [True, True]
    assert not likely.concerns(60.0, NOW), "it has reached that age"


def test_four_ends_in_a_row_where_three_percent_were_known_make_it_certain() -> None:
    assert [suspected(ends).is_certain for ends in (3, 4)] == [False, True]
    assert pytest.approx(math.log(10_000)) == CERTAIN


# --- in a product's memory


def curve_of(early: float) -> Curve:
    """Return what is known of a product of which an ``early`` share ends in a minute, and all
    others in an hour.
    """
    mass = [0.0] * len(EDGES)
    minute = next(k for k, edge in enumerate(EDGES) if edge >= 55)
    hour = next(k for k, edge in enumerate(EDGES) if edge >= HOUR)
    mass[minute], mass[hour] = early, 1 - early
    return Curve.of(mass, [100.0] * len(mass))


def place_of(orders: int = 500) -> Place:
    """Return a package of which so many orders were seen."""
    place = Place(Sketch(Terms().half_life))
    for _ in range(orders):
        place.sketch.add((100, 101), NOW)
    return place


@pytest.mark.parametrize("early", [0.0, 0.02, 0.04, 0.055])
def test_a_product_of_which_some_were_always_fast_is_known_to_have_become_fast(
    early: float,
) -> None:
    """Surprises alone would never tell it above 3 %: each such end was known to come."""
    place, curve = place_of(), curve_of(early)
    found = [changed(place, curve, 30.0, 60.0, NOW + 10 * k) for k in range(6)]
    assert True in found[:5]
    assert place.suspicion is None or found[-1] is False


def test_where_many_were_fast_an_early_end_is_no_suspicion() -> None:
    place = place_of()
    changed(place, curve_of(UNUSUAL), 30.0, 60.0, NOW)
    assert place.suspicion is None


def test_a_late_end_is_no_suspicion_of_early_ends() -> None:
    place = place_of()
    changed(place, curve_of(0.0), 3 * HOUR, 4 * HOUR, NOW)
    assert place.suspicion is None
    assert place.misfit == 1


def test_it_ends_when_the_orders_sent_since_wait_beyond_that_age() -> None:
    place = place_of()
    changed(place, curve_of(0.03), 30.0, 60.0, NOW + 60)
    for k in range(4):
        assert place.suspicion is not None
        place.waits(0.0, 70.0, NOW + 80 + k)
    assert place.suspicion is not None, "at 17 : 1 four that wait leave it at 1.04 : 1"
    place.waits(0.0, 70.0, NOW + 84)
    assert place.suspicion is None


def test_how_rare_an_end_is_cannot_be_known_better_than_from_what_was_seen() -> None:
    few, many = place_of(40), place_of(400)
    for place in (few, many):
        changed(place, curve_of(0.0), 30.0, 60.0, NOW)
    assert few.suspicion is not None
    assert many.suspicion is not None
    assert few.suspicion.odds == pytest.approx(math.log(0.5 * 40))
    assert many.suspicion.odds == pytest.approx(math.log(0.5 * 400))


def test_early_ends_at_one_instant_are_an_outages() -> None:
    """All open orders end at once, and the young ones of them early: nothing has changed."""
    place, curve = place_of(), curve_of(0.03)
    for k in range(6):
        age = 12.0 * 1.7**k
        if changed(place, curve, age / 1.5, age, NOW + k):
            pytest.fail("the product was taken for changed")
    assert place.sketch.total == 500


# --- as it is asked


def learned() -> Timing:
    """A product of which one in 83 ends in a minute, all others in an hour; 250 ends were seen."""
    timing = Timing(SCHEDULE, Terms())
    for k in range(250):
        is_fast = k % 83 == 0
        timing.ended(
            KEY, 20.0 if is_fast else 3000.0, 60.0 if is_fast else HOUR, NOW - 25_000 + 100 * k
        )
    while timing.refresh():
        pass
    timing.surprised()
    return timing


@pytest.mark.long
def test_the_orders_sent_since_an_early_end_are_asked_at_that_age_until_they_wait_beyond_it() -> (
    None
):
    timing, ids = learned(), [str(k) for k in range(100)]

    def early(sent_at: float) -> int:
        return sum(not timing.reason(KEY, name, 0.0, sent_at).next.learned for name in ids)

    scouts = early(NOW + 10)
    assert 5 < scouts < 50
    timing.ended(KEY, 20.0, 60.0, NOW + 60)
    assert list(timing.surprised()) == [KEY], "those that wait already are planned again"
    assert early(NOW + 10) == 100
    assert early(NOW - 500) == scouts, "it says nothing yet about orders sent before"
    timing.ended(KEY, 20.0, 60.0, NOW + 70)
    assert early(NOW - 500) == 100, "by now it is likely"
    for k in range(20):
        timing.waiting(KEY, 0.0, 130.0, NOW + 260 + k)
    assert early(NOW + 10) == scouts


def test_a_package_that_is_not_suspected_keeps_nothing_for_it() -> None:
    memory = Memory(Terms().half_life)
    assert memory.place(KEY).suspicion is None
