"""What was learned of a product, to be drawn: how many of its orders have ended by which age, and
when one is asked about.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from order_monitor.timing.memory import Key
from order_monitor.timing.planner import Basis, Timing

MOST: Final = 8
POINTS: Final = 24
CHECKS: Final = 16
_FIRST: Final = 5.0
_NEARLY_ALL: Final = 0.98


@dataclass(frozen=True, slots=True)
class Picture:
    """Ages are seconds.

    ``curve`` is (age, share of orders that have ended by then), ``checks`` are the ages of planned
    checks.
    """

    key: Key
    orders: float
    half: float | None
    curve: list[tuple[float, float]]
    checks: list[float]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A picture, and what it was made of."""

    basis: Basis
    last: float
    picture: Picture


class CurveCache:
    """Draws the products of which most orders were seen, ``MOST`` at most, and draws none again of
    which nothing has changed.
    """

    def __init__(self) -> None:
        """Begin with nothing drawn."""
        self._drawn: dict[Key, _Drawn] = {}

    def pictures(self, timing: Timing) -> list[Picture]:
        """Return a picture of each of them, the one with most orders first.

        A curve is kept for as long as its product's table stands, the planned checks until the
        price or the schedule moves too.
        """
        shown = timing.learned()[:MOST]
        self._drawn = {key: _of(timing, key, self._drawn.get(key)) for key, _ in shown}
        return [replace(self._drawn[key].picture, orders=orders) for key, orders in shown]


def _of(timing: Timing, key: Key, before: _Drawn | None) -> _Drawn:
    basis = timing.basis(key)
    if before is None or before.basis.table is not basis.table:
        return _anew(timing, key, basis)
    if before.basis == basis:
        return before
    return _Drawn(
        basis, before.last, replace(before.picture, checks=_checks(timing, key, before.last))
    )


def _anew(timing: Timing, key: Key, basis: Basis) -> _Drawn:
    half, last = timing.quantile(key, 0.5), timing.quantile(key, _NEARLY_ALL) or 86_400.0
    last = max(last, 2 * _FIRST)
    step = math.log(last / _FIRST) / (POINTS - 1)
    ages = [_FIRST * math.exp(n * step) for n in range(POINTS)]
    curve = [(round(age, 1), round(timing.chance(key, 0.0, age), 4)) for age in ages]
    return _Drawn(basis, last, Picture(key, 0.0, half, curve, _checks(timing, key, last)))


def _checks(timing: Timing, key: Key, last: float) -> list[float]:
    """Return when an order is asked about that goes by what was learned, until nearly all have
    ended.
    """
    ages = [0.0]
    while ages[-1] < last and len(ages) <= CHECKS:
        ages.append(timing.next_check(key, key[1], ages[-1]))
    assert all(a < b for a, b in pairwise(ages))
    return [round(age, 1) for age in ages[1:]]
