"""What backoff, a fixed interval and learned timing would have cost and brought on ends of the past. Pure.

An end is only known to lie between two checks; here it is taken to lie in the middle. Learned timing is taught with the older half
and judged by the newer one, so that it is not asked what it was told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from order_monitor.core.schedule import Schedule
from order_monitor.core.timing.memory import Key
from order_monitor.core.timing.planner import Timing
from order_monitor.core.timing.terms import Terms

FIXED: Final = 60.0
"""The fixed interval it is compared with, in seconds."""

FEWEST: Final = 40
"""Ends of the past that it takes at the least to say anything."""

_MOST_CHECKS: Final = 10_000

Following = Callable[[str, float], float]
"""Returns the age of the check after one, of an order."""


@dataclass(frozen=True, slots=True)
class Past:
    """An order that ended between two ages (seconds), found at ``at`` (epoch seconds)."""

    key: Key
    order_id: str
    before: float
    age: float
    at: float

    @property
    def end(self) -> float:
        """When it is taken to have ended."""
        return (self.before + self.age) / 2


@dataclass(frozen=True, slots=True)
class Cost:
    """Mean seconds from end to found, and checks an order."""

    delay: float
    calls: float


@dataclass(frozen=True, slots=True)
class Advice:
    """One product's: how many orders it was judged by, and what each strategy would have had."""

    key: Key
    orders: int
    backoff: Cost
    fixed: Cost
    learned: Cost


def advise(past: Sequence[Past], schedule: Schedule, terms: Terms) -> list[Advice]:
    """Return the advice for each product of the newer half, the one with most orders first; ``past`` is oldest first."""
    older, newer = past[: len(past) // 2], past[len(past) // 2 :]
    timing = Timing(schedule, terms)
    for one in older:
        timing.ended(one.key, one.before, one.age, one.at)
        timing.refresh()
    timing.refresh(len(older) + 1)
    keys = sorted({one.key for one in newer}, key=lambda key: (-sum(one.key == key for one in newer), key))
    return [_of(key, [one for one in newer if one.key == key], schedule, timing) for key in keys]


def _of(key: Key, orders: Sequence[Past], schedule: Schedule, timing: Timing) -> Advice:
    return Advice(
        key,
        len(orders),
        _cost(orders, schedule.following),
        _cost(orders, lambda _, age: age + FIXED),
        _cost(orders, lambda order_id, age: timing.next_check(key, order_id, age)),
    )


def _cost(orders: Iterable[Past], following: Following) -> Cost:
    found = [_found(one, following) for one in orders]
    return Cost(fmean(delay for delay, _ in found), fmean(calls for _, calls in found))


def _found(one: Past, following: Following) -> tuple[float, int]:
    """Return how long after its end an order would have been found, and by which check."""
    age, calls = 0.0, 0
    while age < one.end and calls < _MOST_CHECKS:
        age, calls = following(one.order_id, age), calls + 1
    return max(0.0, age - one.end), calls
