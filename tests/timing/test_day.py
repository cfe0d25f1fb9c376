"""The part of the day as a rival of age alone: chosen where orders take longer by night, and only
there.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from functools import cache

import pytest

from order_monitor.core.schedule import Schedule
from order_monitor.timing.day import CELLS, DAY, FEWEST, FULL, Day, is_part, key_of_part
from order_monitor.timing.distribution import BINS, Curve
from order_monitor.timing.memory import Memory, Place, changed
from order_monitor.timing.plan_table import KEPT, PRICES, PlanTable, optimum
from order_monitor.timing.planner import Terms, Timing
from order_monitor.timing.sketch import Sketch
from tests.support.operations import operations

KEY = ("shop", "top-up")
SCHEDULE = Schedule()
START = 1_789_948_800.0
"""A midnight in UTC."""

DAWN, DUSK = 8 * 3600.0, 20 * 3600.0
EVERY = 240.0

Lasting = Callable[[float], float]
"""How long an order takes (seconds) that was sent at a time (epoch seconds)."""


def by_night(sent: float) -> float:
    return 60.0 if DAWN <= sent % DAY < DUSK else 3000.0


def always(_: float) -> float:
    return 600.0


def teach(timing: Timing, lasting: Lasting, start: float, end: float) -> Timing:
    """Answer about orders that are sent evenly between two times: each is seen to wait once."""
    answers = []
    for n in range(int((end - start) / EVERY)):
        sent = start + n * EVERY
        takes = lasting(sent) * (0.8 + 0.4 * (n * 0.618 % 1))
        answers += [(sent + takes * 0.9, takes, n, False), (sent + takes * 1.1, takes, n, True)]
    for k, (now, takes, _, is_end) in enumerate(sorted(answers)):
        if is_end:
            timing.ended(KEY, takes * 0.9, takes * 1.1, now)
        else:
            timing.waiting(KEY, 0.0, takes * 0.9, now)
        if k % 120 == 0:
            rebuilt(timing)
    return rebuilt(timing)


def rebuilt(timing: Timing) -> Timing:
    while timing.refresh():
        pass
    return timing


def first_checks(timing: Timing, sent: float) -> list[float]:
    return [timing.next_check(KEY, str(n), 0.0, sent) for n in range(20)]


@cache
def taught() -> Timing:
    return teach(Timing(SCHEDULE, Terms()), by_night, START, START + 2.5 * DAY)


NOON, MIDNIGHT = START + 3 * DAY + 12 * 3600.0, START + 3 * DAY + 3600.0


def median(ages: list[float]) -> float:
    return sorted(ages)[len(ages) // 2]


def test_orders_are_asked_about_by_the_part_of_the_day_in_which_they_were_sent() -> None:
    by_day, night = first_checks(taught(), NOON), first_checks(taught(), MIDNIGHT)
    assert 45 < median(by_day) < 80
    assert median(night) > 1.5 * median(by_day)
    for sent, low, high in ((NOON, 45, 75), (MIDNIGHT, 2300, 3700)):
        known = taught().reason(KEY, "a", 0.0, sent).known
        assert known is not None
        assert low < (known.quantile(0.5) or 0) < high
    sent = START + 3 * DAY
    edges = [
        cell for cell in range(CELLS) if first_checks(taught(), sent + cell * DAY / CELLS) != night
    ]
    assert edges == list(range(32, 80)), "from eight to eight"


@pytest.mark.parametrize("hours", [0.0, 5.0, 12.0, 23.9])
def test_before_a_day_has_passed_no_part_is_read(hours: float) -> None:
    day = Day()
    for n in range(300):
        sent = START + n * hours * 12
        day.count(sent, 0.0, 2 * by_night(sent))
    assert not day.find_parts()
    assert not day.parts


def seen(lasting: Lasting, days: float, every: float = EVERY, start: float = START) -> Day:
    return shown(Day(), lasting, days, every, start)


def shown(day: Day, lasting: Lasting, days: float, every: float, start: float) -> Day:
    for n in range(math.ceil(days * DAY / every) + 1):
        sent = start + n * every
        takes = lasting(sent) * (0.5 + n * 0.618 % 1)
        day.count(sent, takes * 0.9, takes * 1.1)
    return day


def border(day: Day) -> list[int]:
    """Return the cells at which another part begins."""
    parts = [day.part(START + (cell + 0.5) * DAY / CELLS) for cell in range(-1, CELLS)]
    return [cell for cell in range(CELLS) if parts[cell] != parts[cell + 1]]


def test_parts_are_read_to_the_quarter_of_an_hour() -> None:
    day = seen(lambda sent: 900.0 if 9_900 <= sent % DAY < 41_400 else 90.0, 1.5)
    assert day.find_parts()
    assert border(day) == [11, 46]
    assert not day.find_parts(), "the same again"


def test_a_product_without_a_law_of_the_day_has_no_parts() -> None:
    assert not seen(always, 4.0).find_parts()
    few = seen(by_night, 1.0, DAY / (FEWEST - 2))
    assert not few.find_parts()
    assert seen(by_night, 1.0, DAY / FEWEST).find_parts()


def test_parts_follow_when_the_clocks_are_set_and_keep_their_numbers() -> None:
    day = seen(by_night, 3.0)
    assert day.find_parts()
    night = day.part(MIDNIGHT)
    shown(day, lambda sent: by_night(sent + 3600), 3.0, EVERY, START + 3 * DAY)
    assert day.find_parts()
    assert border(day) == [28, 76]
    assert day.part(MIDNIGHT) == night
    half_round = seen(by_night, 1.5)
    half_round.find_parts()
    assert half_round.part(NOON) != half_round.part(MIDNIGHT)


def test_a_part_that_lay_at_midnight_keeps_its_number() -> None:
    day = seen(lambda sent: 60.0 if sent % DAY < 36_000 else 3000.0, 3.0)
    assert day.find_parts()
    quick = day.part(MIDNIGHT)
    shown(day, lambda s: 60.0 if (s - 3600) % DAY < 36_000 else 3000.0, 5, EVERY, START + 3 * DAY)
    assert day.find_parts()
    assert border(day) == [4, 44]
    assert day.part(NOON - 4 * 3600) == quick


def test_parts_that_plan_nothing_go_when_the_law_does() -> None:
    day = seen(by_night, 2.0)
    assert day.find_parts()
    shown(day, always, 2 * FULL * EVERY * CELLS / DAY, EVERY, START + 2 * DAY)
    day.plans = True
    assert not day.find_parts(), "while they plan, their lead decides"
    day.plans = False
    assert day.find_parts()
    assert not day.parts


def test_the_parts_plan_once_they_were_ahead_on_ends_not_seen_before() -> None:
    day, sharp, vague = Day(), Curve.of([0.0] * 40 + [1.0] + [0.0] * (BINS - 41)), flat()
    ahead = [day.judge(NOON, sharp, vague, 0.0, 600.0) for _ in range(4)]
    assert ahead == [False] * 3 + [True], "3 each"
    assert day.plans
    behind = [day.judge(NOON, vague, sharp, 0.0, 600.0) for _ in range(5)]
    assert behind == [False] * 3 + [True, False]
    assert not day.plans


def test_orders_sent_near_the_change_of_parts_do_not_count() -> None:
    sharp, vague = Curve.of([0.0] * 40 + [1.0] + [0.0] * (BINS - 41)), flat()
    for minutes, counts in ((-16, True), (-14, False), (0, False), (14, False), (16, True)):
        day = Day(parts=2**CELLS - 2**48)
        day.judge(START + DAY / 2 + minutes * 60, sharp, vague, 0.0, 600.0)
        assert (day.lead > 0) is counts


def flat() -> Curve:
    return Curve.of([1e-6] * (BINS - 1) + [1 - 1e-6 * (BINS - 1)])


@pytest.mark.slow
def test_what_is_known_of_a_plain_product_is_planned_as_without_the_day() -> None:
    timing = teach(Timing(SCHEDULE, Terms()), always, START, START + 2 * DAY)
    for sent in (NOON, MIDNIGHT, START + 3 * DAY + DUSK):
        assert first_checks(timing, sent) == first_checks(timing, START)
    assert [key for key, _ in timing.learned()] == [KEY]


def test_parts_are_stored_nowhere_and_are_no_products() -> None:
    timing = deepcopy(taught())
    assert not [key for key in [*timing.drain(), *dict(timing.dump())] if is_part(key)]
    assert [key for key, _ in timing.learned()] == [KEY]
    other = Timing(SCHEDULE, Terms())
    other.load(dict(timing.dump()), MIDNIGHT)
    rebuilt(other)
    assert first_checks(other, NOON) == first_checks(other, MIDNIGHT), "a restart loses them"


@pytest.mark.slow
def test_where_the_law_ceases_the_whole_plans_again() -> None:
    timing = deepcopy(taught())
    teach(timing, lambda _: 60.0, START + 2.5 * DAY, START + 3 * DAY)
    assert median(first_checks(timing, MIDNIGHT)) < 80


@pytest.mark.slow
def test_an_order_that_is_lost_or_found_late_waits_in_no_part() -> None:
    """Were it left waiting, all later orders would seem to take long."""
    sent = START + 2.5 * DAY + 60.0
    checks = []
    for was_seen in (True, False):
        lost, late = deepcopy(taught()), deepcopy(taught())
        for at in (sent + n for n in range(40 if was_seen else 0)):
            lost.waiting(KEY, 0.0, 50.0, at + 50.0)
            late.waiting(KEY, 0.0, 50.0, at + 50.0)
        for at in (sent + n for n in range(40)):
            lost.lost(KEY, 50.0, at + 50.0)
            late.ended(KEY, 50.0, 2 * DAY, at + 2 * DAY)
        for one in (lost, late):
            one.reconfigure(Schedule(cap=500))
            checks.append(median(first_checks(rebuilt(one), NOON)))
    # The calls made for the waiting ones move the price a little.
    assert checks[:2] == pytest.approx(checks[2:], rel=0.01)


def test_an_end_that_the_other_part_expects_shows_no_change() -> None:
    quick, slow = narrow(60), narrow(600)
    for other, is_change in ((None, True), (quick, False), (slow, True)):
        place = Place(Sketch(Terms().half_life))
        for n in range(40):
            place.sketch.add((600, 601), START + n)
        found = [changed(place, slow, 90.0, 95.0, START + 100 * n, other) for n in range(6)]
        assert any(found) is is_change
        assert (place.alert > 0) is is_change, "by night no other end would calm it until morning"


def narrow(k: int) -> Curve:
    return Curve.of([0.0] * k + [1.0] + [0.0] * (BINS - k - 1))


def test_parts_go_with_their_package_and_count_as_places() -> None:
    memory = Memory(Terms().half_life, room=4)
    for n, key in enumerate((KEY, key_of_part(KEY, 0), key_of_part(KEY, 1))):
        memory.place(key).sketch.add((1, 2), START, float(n + 1))
    memory.place(("shop", "heavy")).sketch.add((1, 2), START, 9.0)
    memory.place(("shop", "new"))
    assert {*memory.places} == {("shop", "heavy"), ("shop", "new")}


def test_of_other_parts_nothing_is_known_to_wait_and_without_parts_none_are_kept() -> None:
    memory, part = Memory(Terms().half_life), key_of_part(KEY, 1)
    memory.moved(part, None, 5)
    memory.part_again(KEY, Day(parts=2))
    assert sum(memory.places[part].waiting) == 0
    memory.part_again(KEY, Day())
    assert part not in memory.places


def test_without_its_part_an_order_is_planned_by_its_package() -> None:
    memory = Memory(Terms().half_life)
    memory.put(KEY, table_of(narrow(60)))
    place = memory.place(KEY)
    place.day = Day(parts=(1 << CELLS) - 1, plans=True)
    assert memory.planned_by(KEY, START) == (place, place.table)
    assert memory.costs_by_day(KEY) == []
    part = memory.place(key_of_part(KEY, 1))
    assert memory.planned_by(KEY, START) == (part, place.table), "it has no table yet"
    memory.put(key_of_part(KEY, 1), table_of(narrow(600)))
    assert memory.planned_by(KEY, START) == (part, part.table)
    assert memory.account("shop").packages == 1, "its package's costs stand for it"
    place.by_hour = True
    assert memory.planned_by(KEY, START) == (place, place.table)


def table_of(curve: Curve) -> PlanTable:
    ladder = [optimum(curve, one, 5.0, 600.0) for one in PRICES]
    return PlanTable(curve, [1.0] * BINS, 8.0, ladder, None, KEPT)


def test_costs_are_the_parts_by_their_orders() -> None:
    one, two, mixed = table_of(narrow(60)), table_of(narrow(600)), table_of(flat())
    one.equal, two.equal = 2.0, 6.0
    mixed.costs_as([])
    assert mixed.equal == 8.0
    mixed.costs_as([(30.0, one), (10.0, two)])
    assert mixed.equal == 3.0
    assert list(mixed.calls) == [
        pytest.approx(0.75 * a + 0.25 * b) for a, b in zip(one.calls, two.calls, strict=True)
    ]


@pytest.mark.untraced
def test_a_look_is_a_short_step() -> None:
    day = seen(by_night, 3.0)
    assert operations(day.find_parts) < 150_000


def test_an_outage_leaves_no_trace_in_a_part_of_the_day() -> None:
    """Orders sent by day wait for hours, and end at one instant, at all ages."""
    now = NOON + 7.5 * 3600.0
    long, short = deepcopy(taught()), deepcopy(taught())
    for timing, count in ((long, 40), (short, 8)):
        for k in range(count):
            timing.ended(KEY, 19_600.0 + 200 * k, 20_000.0 + 200 * k, now)
    plans = [first_checks(rebuilt(timing), NOON) for timing in (long, short, deepcopy(taught()))]
    assert plans[0] == plans[1]
    assert median(plans[0]) < 1.1 * median(plans[2])
