"""The cost and delay that backoff, a fixed interval and learned timing would have on the shop's own
orders. Pure.

Learned timing starts with the older half of the past ends, as the daemon does at its first start,
and the newer half is replayed as it would have met it: each order is sent when it was sent, asked
about when the plan says so, and each answer is learned from and paid from the purse of calls. So
neither is it judged on what it was taught with, nor without what it learns on the way.

A past end is only known to lie between two checks. Where between them is drawn from the product's
own curve. The middle would be wrong for both: most ends of a long gap lie early in it, and ends
that all lie in the middle of gaps are easily found. Example: orders that mostly end after 70 s are
found by backoff's checks at about 60 and 91 s; the middle would be 76 s, the curve draws most from
65 to 75 s.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, pvariance
from typing import Final

from order_monitor.core.schedule import Schedule
from order_monitor.timing.distribution import EDGES, LAST, Curve
from order_monitor.timing.memory import Key, Memory
from order_monitor.timing.planner import GOLDEN, Terms, Timing, longest_age

FIXED: Final = 60.0
"""The fixed interval for comparison, in seconds."""

FEWEST: Final = 40
"""The fewest past ends on which advice is given."""

Following = Callable[[str, float], float]
"""Returns the age of an order's next check after a given age."""


@dataclass(frozen=True, slots=True)
class Past:
    """An order that ended between two ages (seconds), and was found at ``at`` (epoch seconds)."""

    key: Key
    order_id: str
    before: float
    age: float
    at: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Mean seconds from end to discovery, and mean checks an order.

    ``error`` is how far (seconds) the mean delay of as many other orders may well be from
    ``delay``, either way: computed for nine of ten cases, and about six of seven when measured.
    """

    delay: float
    calls: float
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class Advice:
    """One product: the number of orders it was judged on, and each strategy's result."""

    key: Key
    orders: int
    backoff: Cost
    fixed: Cost
    learned: Cost


NINE_OF_TEN: Final = 1.645
"""Standard errors to either side of a mean that hold nine of ten."""

DRAWN: Final = 0.1
"""The standard error, as a part of a delay, that comes from drawing where an end lies."""


@dataclass(frozen=True, slots=True)
class _Order:
    """A past order, with the age (seconds) at which it is taken to have ended."""

    past: Past
    end: float


def advise(past: Sequence[Past], schedule: Schedule, terms: Terms) -> list[Advice]:
    """Return the advice for each product of the newer half, the product with most orders first.

    ``past`` is oldest first. Impossible ages are skipped: below zero, or far beyond the time limit.
    """
    past = [one for one in past if 0 <= one.before <= one.age <= longest_age(schedule)]
    older, newer = past[: len(past) // 2], past[len(past) // 2 :]
    timing = Timing(schedule, terms)
    for one in older:
        timing.recall(one.key, one.before, one.age, one.at)
    timing.refresh(len(older) + 3)
    orders = _drawn(past, newer, terms)
    results = _replayed(orders, timing)
    found: dict[Key, list[int]] = {}
    for n, order in enumerate(orders):
        found.setdefault(order.past.key, []).append(n)
    return [
        Advice(
            key,
            len(ours),
            _cost(_found(orders[n], schedule.following) for n in ours),
            _cost(_found(orders[n], lambda _, age: age + FIXED) for n in ours),
            _cost(results[n] for n in ours),
        )
        for key, ours in sorted(found.items(), key=lambda one: (-len(one[1]), one[0]))
    ]


def _drawn(past: Iterable[Past], newer: Iterable[Past], terms: Terms) -> list[_Order]:
    """Return orders with an end each, drawn from the product's curve between the two checks.

    The same history always gives the same draws.
    """
    memory, curves = Memory(terms.half_life, terms.packages), dict[Key, Curve]()
    for one in past:
        memory.ended(one.key, one.before, one.age, one.at)
    found = []
    for n, one in enumerate(newer):
        if one.key not in curves:
            for level in reversed([*memory.lineage(one.key)]):
                curves[level] = curves.get(level) or memory.curve(level)
        found.append(_Order(one, _between(curves[one.key], one, n * GOLDEN % 1)))
    return found


def _between(curve: Curve, one: Past, luck: float) -> float:
    """Return the age by which a share ``luck`` of the orders that end between the two checks have
    ended.
    """
    low, high = curve.share_by(one.before), curve.share_by(one.age)
    if high <= low:
        return one.before + luck * (one.age - one.before)
    wanted = low + luck * (high - low)
    k = min(LAST, max(1, bisect_left(curve.ended, wanted)))
    held = curve.ended[k] - curve.ended[k - 1]
    part = (wanted - curve.ended[k - 1]) / held if held > 0 else 0.0
    age = EDGES[k - 1] + part * (EDGES[k] - EDGES[k - 1])
    return min(one.age, max(one.before, age))


def _replayed(orders: Sequence[_Order], timing: Timing) -> list[tuple[float, int]]:
    """Return how long after its end each order would have been found, and by which check."""
    results = [(0.0, 0)] * len(orders)
    sent = [order.past.at - order.past.age for order in orders]
    events = [(at, n, -1.0) for n, at in enumerate(sent)]
    heapq.heapify(events)
    made = [0] * len(orders)
    while events:
        now, n, before = heapq.heappop(events)
        order, age = orders[n], max(0.0, now - sent[n])
        key, order_id = order.past.key, order.past.order_id
        if before >= 0:
            made[n] += 1
            if age >= order.end:
                timing.ended(key, before, age, now)
                results[n] = age - order.end, made[n]
                timing.refresh()
                continue
            timing.waiting(key, before, age, now)
            timing.refresh()
        due = timing.next_check(key, order_id, age, sent[n])
        heapq.heappush(events, (sent[n] + due, n, age))
    return results


def _found(order: _Order, following: Following) -> tuple[float, int]:
    """Return how long after its end an order would have been found, and by which check."""
    age, calls = 0.0, 0
    while calls == 0 or age < order.end:
        age, calls = following(order.past.order_id, age), calls + 1
    return age - order.end, calls


def _cost(found: Iterable[tuple[float, int]]) -> Cost:
    """Return the means, and by how much the delay of as many other orders may differ."""
    results = [*found]
    delays = [delay for delay, _ in results]
    delay = fmean(delays)
    spread = math.hypot(math.sqrt(2 * pvariance(delays) / len(delays)), DRAWN * delay)
    return Cost(delay, fmean(calls for _, calls in results), NINE_OF_TEN * spread)
