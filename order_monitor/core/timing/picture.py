"""What was learned of a product, to be drawn: how many of its orders have ended by which age, and when one is asked about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from order_monitor.core.timing.learning import Key
from order_monitor.core.timing.planner import Timing

POINTS: Final = 24
CHECKS: Final = 16
_FIRST: Final = 5.0
_NEARLY_ALL: Final = 0.98


@dataclass(frozen=True, slots=True)
class Picture:
    """Ages are seconds. ``curve`` is (age, share of orders that have ended by then), ``checks`` are the ages of planned checks."""

    key: Key
    orders: float
    half: float | None
    curve: list[tuple[float, float]]
    checks: list[float]


def pictures(timing: Timing, most: int = 8) -> list[Picture]:
    """Return a picture of each product of which most orders were seen, at most ``most``."""
    return [_of(timing, key, orders) for key, orders in timing.learned()[:most]]


def _of(timing: Timing, key: Key, orders: float) -> Picture:
    half, last = timing.quantile(key, 0.5), timing.quantile(key, _NEARLY_ALL) or 86_400.0
    last = max(last, 2 * _FIRST)
    step = math.log(last / _FIRST) / (POINTS - 1)
    ages = [_FIRST * math.exp(n * step) for n in range(POINTS)]
    curve = [(round(age, 1), round(timing.chance(key, 0.0, age), 4)) for age in ages]
    return Picture(key, orders, half, curve, _checks(timing, key, last))


def _checks(timing: Timing, key: Key, last: float) -> list[float]:
    """Return when an order is asked about that goes by what was learned, until nearly all have ended."""
    ages = [0.0]
    while ages[-1] < last and len(ages) <= CHECKS:
        ages.append(timing.next_check(key, key[1], ages[-1]))
    assert all(a < b for a, b in pairwise(ages))
    return [round(age, 1) for age in ages[1:]]
