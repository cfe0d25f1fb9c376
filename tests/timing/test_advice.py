"""What each strategy would have had on the past."""

import gc
import heapq
import random

import pytest

from order_monitor.core.schedule import Schedule
from order_monitor.tell.curve_cache import MOST, CurveCache, Picture
from order_monitor.timing.advice import FIXED, Past, _between, advise
from order_monitor.timing.distribution import BINS, Curve, span
from order_monitor.timing.plan import slot_before
from order_monitor.timing.planner import Terms, Timing

NOW = 1_790_000_000.0
SCHEDULE = Schedule()


def past(count: int, median: float, key: tuple[str, str] = ("a", "p")) -> list[Past]:
    """Orders of which each took about ``median`` seconds, as the schedule found them."""
    chance = random.Random(5)
    found = []
    for n in range(count):
        end, order_id = chance.lognormvariate(0, 0.2) * median, f"{key}-{n}"
        age = 0.0
        while age < end:
            age = SCHEDULE.following(order_id, age)
        found.append(Past(key, order_id, slot_before(SCHEDULE, order_id, age), age, NOW + 40.0 * n))
    return found


@pytest.mark.long
@pytest.mark.untraced
def test_what_repeats_is_found_sooner_for_no_more_calls() -> None:
    (advice,) = advise(past(600, 2000.0), SCHEDULE, Terms())
    assert advice.orders == 300
    assert advice.learned.delay < 0.6 * advice.backoff.delay
    assert advice.learned.calls == pytest.approx(advice.backoff.calls, rel=0.1)
    assert advice.fixed.delay <= FIXED
    assert advice.fixed.calls > 2 * advice.backoff.calls


def lived(count: int, start: int, timing: Timing | None) -> tuple[list[Past], float, float]:
    """Orders that came every 40 s and really took about 4 minutes, in the order they were found.

    Asked about by backoff, or by ``timing``. Also returned: mean delay and calls an order.
    """
    chance = random.Random(17 + start)
    events: list[tuple[float, int, float, float]] = []
    done: list[Past] = []
    delays = calls = 0.0
    for n in range(start, start + count):
        heapq.heappush(events, (NOW + 40.0 * n, n, -1.0, chance.lognormvariate(5.5, 0.8)))
    while events:
        now, n, before, end = heapq.heappop(events)
        sent, order_id = NOW + 40.0 * n, str(n)
        age = now - sent
        if before >= 0:
            calls += 1
            if age >= end:
                delays += age - end
                done.append(Past(("a", "p"), order_id, before, age, now))
                if timing is not None:
                    timing.ended(("a", "p"), before, age, now)
                    timing.refresh()
                continue
            if timing is not None:
                timing.waiting(("a", "p"), before, age, now)
        due = (
            SCHEDULE.following(order_id, age + 1e-3)
            if timing is None
            else timing.next_check(("a", "p"), order_id, age)
        )
        heapq.heappush(events, (sent + due, n, age, end))
    return done, delays / count, calls / count


@pytest.mark.long
@pytest.mark.untraced
def test_what_is_advised_is_what_the_next_day_brings() -> None:
    """The history of a day under backoff foretells delay and calls of the next one, learned."""
    history, _, _ = lived(2000, 0, None)
    (advice,) = advise(history, SCHEDULE, Terms())
    timing = Timing(SCHEDULE, Terms())
    for one in history:
        timing.recall(one.key, one.before, one.age, one.at)
    timing.refresh(3)
    _, delay, calls = lived(1000, 2100, timing)
    assert advice.learned.delay == pytest.approx(delay, rel=0.15)
    assert abs(advice.learned.delay - delay) < advice.learned.error < 0.3 * delay
    assert advice.learned.calls == pytest.approx(calls, rel=0.05)
    assert advice.learned.calls == pytest.approx(advice.backoff.calls, rel=0.05)


def test_an_end_is_taken_to_lie_where_the_products_ends_lie() -> None:
    """Of the orders between two checks, half have ended by the middle one.

    Where the curve knows of none between the two, all places between are alike.
    """
    mass = [0.0] * BINS
    mass[span(100.0, 102.0)[0]] = mass[span(180.0, 182.0)[0]] = 0.5
    curve = Curve.of(mass)
    one = Past(("a", "p"), "x", 60.0, 300.0, NOW)
    assert [round(_between(curve, one, luck)) for luck in (0.1, 0.45, 0.55, 0.9)] == [
        pytest.approx(at, abs=2) for at in (100, 101, 180, 181)
    ]
    empty = Past(("a", "p"), "x", 200.0, 300.0, NOW)
    assert _between(curve, empty, 0.25) == 225.0
    assert _between(curve, Past(("a", "p"), "x", 100.4, 101.0, NOW), 1.0) == 101.0


def with_one_rare(count: int) -> Timing:
    timing = Timing(SCHEDULE, Terms())
    for _ in range(3):
        timing.ended(("a", "rare"), 0.0, 3.0, NOW)
    told(timing, count, 600.0, ("a", "p"))
    return timing


def test_a_picture_shows_the_curve_and_the_checks() -> None:
    timing = with_one_rare(300)
    drawn = CurveCache().pictures(timing)
    assert [picture.key for picture in drawn] == [("a", "p"), ("a", "rare")]
    (first, _) = drawn
    shares = [share for _, share in first.curve]
    assert shares == sorted(shares)
    assert (shares[0] < 0.2, shares[-1] > 0.9, len(shares)) == (True, True, 24)
    assert first.half is not None
    assert 400 < first.half < 800
    assert first.checks == sorted(first.checks)
    assert CurveCache().pictures(Timing(SCHEDULE, Terms())) == []
    assert Timing(SCHEDULE, Terms()).quantile(("a", "p"), 0.5) is None


@pytest.mark.slow
def test_a_picture_is_drawn_as_the_orders_go() -> None:
    """From five seconds to when nearly all have ended, in even steps of log time.

    The checks are those of one order.
    """
    timing = with_one_rare(100)
    for picture in CurveCache().pictures(timing):
        key = picture.key
        last = max(timing.quantile(key, 0.98) or 86_400.0, 10.0)
        ages = [5.0 * (last / 5.0) ** (n / 23) for n in range(24)]
        assert [age for age, _ in picture.curve] == pytest.approx(ages, abs=0.051)
        assert [share for _, share in picture.curve] == [
            round(timing.chance(key, 0.0, age), 4) for age in ages
        ]
        walked = [timing.next_check(key, key[1], 0.0)]
        while walked[-1] < last and len(walked) < 16:
            walked.append(timing.next_check(key, key[1], walked[-1]))
        assert picture.checks == [round(age, 1) for age in walked]
        assert picture.orders == dict(timing.learned())[key]


def told(timing: Timing, count: int, median: float, key: tuple[str, str]) -> None:
    for one in past(count, median, key):
        timing.ended(one.key, one.before, one.age, one.at)
    while timing.refresh():
        pass


@pytest.mark.slow
def test_a_curve_is_drawn_anew_only_when_its_own_table_was_made_anew() -> None:
    timing, gallery = Timing(SCHEDULE, Terms()), CurveCache()
    told(timing, 60, 600.0, ("a", "p"))
    told(timing, 40, 300.0, ("b", "q"))
    p, q = gallery.pictures(timing)
    again = gallery.pictures(timing)
    assert [
        (one.curve is two.curve, one.checks is two.checks)
        for one, two in zip((p, q), again, strict=True)
    ] == [(True, True)] * 2
    told(timing, 20, 300.0, ("b", "q"))
    same, anew = gallery.pictures(timing)
    assert same.curve is p.curve
    assert same.checks is p.checks
    assert anew.curve is not q.curve
    assert (anew.orders, q.orders) == (60, 40)


def test_planned_checks_are_drawn_anew_when_the_price_or_the_schedule_moves() -> None:
    timing, gallery = Timing(SCHEDULE, Terms()), CurveCache()
    told(timing, 60, 600.0, ("a", "p"))
    (before,) = gallery.pictures(timing)
    for n in range(640):
        timing.waiting(("a", "p"), 10.0, 20.0, NOW + 100 + n)
    (dearer,) = gallery.pictures(timing)
    assert dearer.curve is before.curve
    assert dearer.checks != before.checks
    timing.reconfigure(Schedule(cap=100.0))
    (other,) = gallery.pictures(timing)
    assert other.curve is before.curve
    assert other.checks != dearer.checks


def pictures_alive() -> int:
    gc.collect()
    return sum(type(one) is Picture for one in gc.get_objects())


@pytest.mark.long
def test_what_is_no_longer_shown_is_not_kept() -> None:
    timing, gallery = Timing(SCHEDULE, Terms()), CurveCache()
    before = pictures_alive()
    for n in range(MOST + 3):
        told(timing, n + 5, 300.0, ("a", f"p{n}"))
        gallery.pictures(timing)
    assert pictures_alive() - before == MOST
    assert len(gallery.pictures(timing)) == MOST


@pytest.mark.long
@pytest.mark.untraced
def test_each_product_is_judged_by_itself_the_largest_first() -> None:
    mixed = [*past(100, 300.0), *past(40, 2000.0, ("a", "q"))]
    random.Random(1).shuffle(mixed)
    found = advise(mixed, SCHEDULE, Terms())
    assert [advice.key for advice in found] == [("a", "p"), ("a", "q")]
    assert sum(advice.orders for advice in found) == 70


@pytest.mark.long
def test_what_cannot_be_an_age_is_left_out() -> None:
    """One ``sent_at`` of 1970, and one that is still to come, change nothing."""
    odd = [Past(("a", "p"), "x", 0.0, NOW, NOW), Past(("a", "p"), "y", 0.0, -5.0, NOW)]
    sound = past(100, 300.0)
    assert advise([*odd, *sound], SCHEDULE, Terms()) == advise(sound, SCHEDULE, Terms())
    assert advise(odd, SCHEDULE, Terms()) == []


def test_what_could_not_be_kept_is_taken_back() -> None:
    timing = Timing(SCHEDULE, Terms())
    timing.ended(("a", "p"), 10.0, 20.0, NOW)
    taken = timing.drain()
    assert timing.drain() == {}
    timing.give_back(taken)
    assert timing.drain() == taken
    timing.ended(("a", "p"), 10.0, 30.0, NOW)
    timing.give_back(taken)
    assert {key: sketch.total for key, sketch in timing.drain().items()} == {
        ("a", "p"): 2,
        ("a", ""): 2,
        ("", ""): 2,
    }


def test_what_is_fresh_is_bounded_too() -> None:
    """Beyond the room a package's ends are kept as its account's, and an account's as everybody's.

    None is lost.
    """
    timing = Timing(SCHEDULE, Terms(packages=3))
    for n in range(50):
        timing.ended((f"a{n}", f"p{n}"), 10.0, 20.0, NOW)
    fresh = timing.drain()
    assert len(fresh) == 3
    assert sum(sketch.total for sketch in fresh.values()) == 150
