"""When to ask, for a given curve and price of a call; what that costs; and what may be spent.

The plan is the optimum checking procedure of Barlow, Hunter and Proschan (1963). Minimised is the
mean of (seconds from the end until it is found) + ``price`` x (calls made), over all plans whose gaps
lie between two bounds. With F the probability of having ended and M its partial mean, the least cost
W of what is still to come for an order that waits at edge a, times the probability 1 - F(a) of that,
is

    W(a) = price·(1 - F(a)) + min over b of [b·(F(b) - F(a)) - (M(b) - M(a)) + W(b)]

The solution is exact on the grid, computed from its end to its start. The cost of a gap is a Monge
array, so the best b never falls as a grows (Hirschberg and Larmore 1987): the search for one a
stops at the best b of the next.

All orders of an account share one price, high enough to meet the budget: then every order's next
call saves as much delay as any other's, which is the best use of a given number of calls (the
Lagrangian of the allocation; its closed form for memoryless changes is the square-root rule of Cho
and Garcia-Molina 2003 and Azar et al. 2018). Between two prices of the ladder, each applies to a
share of the orders. An equal budget is defined by the calls that backoff would have made.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Final, NamedTuple, TypeVar

from order_monitor.core.schedule import Schedule
from order_monitor.timing.distribution import EDGES, LAST, Curve, Ends, finished, nearest

PIECE: Final = 4000
"""Plans compared in one piece of work."""


@dataclass(frozen=True, slots=True)
class Procedure:
    """A plan for all orders of a curve: ``best[k]`` is the edge of the next check after one at edge
    k.

    ``calls`` and ``delay`` (seconds) are what one order costs on average, if the curve is right.
    """

    best: Sequence[int]
    calls: float
    delay: float


@lru_cache(maxsize=16)
def _reach(shortest: float, longest: float) -> tuple[list[int], list[int]]:
    """Return, for each edge except the last, the first and the last edge that may follow it."""
    first = [
        min(LAST, max(k + 1, bisect_left(EDGES, edge + shortest)))
        for k, edge in enumerate(EDGES[:LAST])
    ]
    last = [bisect_right(EDGES, edge + longest) - 1 for edge in EDGES[:LAST]]
    return first, [max(a, b) for a, b in zip(first, last, strict=True)]


def optimum(curve: Curve, price: float, shortest: float, longest: float) -> Procedure:
    """Return the best procedure, as `solving` does, in one piece."""
    return finished(solving(curve, price, shortest, longest))


def solving(
    curve: Curve, price: float, shortest: float, longest: float
) -> Generator[None, None, Procedure]:
    """Find the best procedure at ``price`` (seconds of delay that one more call must save), with
    gaps within the two bounds.
    """
    first, last = _reach(shortest, longest)
    ended, moment = curve.ended, curve.moment
    offers = [0.0] * (LAST + 1)
    offers[LAST] = EDGES[LAST] * ended[LAST] - moment[LAST]
    best = [LAST] * (LAST + 1)
    calls = [0.0] * (LAST + 1)
    cost, compared = 0.0, 0
    for a in range(LAST - 1, -1, -1):
        done = ended[a]
        low, high = first[a], min(last[a], best[a + 1])
        compared += high - low + 5
        if compared >= PIECE:
            compared = 0
            yield
        chosen = low
        least = offers[low] - EDGES[low] * done
        for b in range(low + 1, high + 1):
            value = offers[b] - EDGES[b] * done
            if value <= least:
                least, chosen = value, b
        best[a] = chosen
        cost = price * (1 - done) + moment[a] + least
        calls[a] = 1 - done + calls[chosen]
        offers[a] = EDGES[a] * done - moment[a] + cost
    return Procedure(best, calls[0], cost - price * calls[0])


def cost_of(curve: Curve, ages: Sequence[float]) -> tuple[float, float]:
    """Return (calls, seconds of delay) that one order costs on average when checked at ``ages``, in
    ascending order, up to the last.
    """
    calls = delay = done = mean = 0.0
    for age in ages:
        k = min(LAST, bisect_left(EDGES, age))
        calls += 1 - done
        delay += age * (curve.ended[k] - done) - (curve.moment[k] - mean)
        done, mean = curve.ended[k], curve.moment[k]
    return calls, delay


@dataclass(frozen=True)
class Reference:
    """A backoff schedule with the mean jitter in place of each order's own."""

    schedule: Schedule

    @cached_property
    def ages(self) -> list[float]:
        """Its ages (seconds), up to and including the time limit."""
        stretch = 1 + self.schedule.jitter / 2
        plain = replace(
            self.schedule,
            base=self.schedule.base * stretch,
            cap=self.schedule.cap * stretch,
            jitter=0.0,
        )
        ages, k = [], 1
        while (age := plain.slot("", k)) < self.schedule.give_up_after:
            ages.append(age)
            k += 1
        return [*ages, self.schedule.give_up_after]

    def waited(self, after: float, until: float, found: float = 0.0) -> int:
        """Return how many calls it makes in (``after``, ``until``] for an order that keeps waiting.

        An order that was ``found`` late, with a call overdue, has that call then, and none before.
        """
        late = found > after
        since = min(until, max(after, found))
        return late + bisect_right(self.ages, until) - bisect_right(self.ages, since)

    def ended(self, after: float, until: float, ends: Ends | None, found: float = 0.0) -> float:
        """Return how many calls it makes after ``after`` until it finds an end in (``after``,
        ``until``]; ``found`` is as for `waited`.

        The result is a mean: weighted by the known ends, otherwise over equally likely numbers.
        """
        between = self.ages[bisect_right(self.ages, max(after, found)) :]
        between = between[: bisect_left(between, until)]
        if after < found < until:
            between.insert(0, found)
        held = 0.0 if ends is None else ends.share_by(until) - ends.share_by(after)
        if ends is None or held <= 0:
            return 1 + len(between) / 2
        last = ends.share_by(until)
        return 1 + sum((last - ends.share_by(slot)) / held for slot in between)

    def calls(self, curve: Curve) -> float:
        """Return the mean number of calls for an order of this curve."""
        return cost_of(curve, self.ages)[0]


PRICES: Final = tuple(0.25 * 2**k for k in range(12))
"""Seconds of delay that one more call must save."""

DEAREST: Final = len(PRICES) - 1
WINDOW: Final = 1000.0
"""Calls over which an over- or underspent purse is corrected."""

LEARNS: Final = 1.0
"""How fast the scale follows the credit."""

USUAL: Final = 100.0
"""Credit, or debt, explained by chance: the scale follows only the excess, so that the price stays
stable.
"""

MOST_SCALE: Final = 10.0

MEMORY: Final = 1800.0
"""Seconds over which backoff's hypothetical calls are averaged."""


KEPT: Final = 5
"""The number of prices whose plans a table stores: two below and two above the price in force when
it was built.
"""


_BYTE: Final = 255


_Rung = TypeVar("_Rung")


class Rungs(NamedTuple):
    """The neighbouring prices of the ladder whose plans are stored: ``size`` of them from ``low``
    on.
    """

    low: int
    size: int

    @classmethod
    def around(cls, price: float, size: int) -> Rungs:
        """Return ``size`` prices around a place on the ladder."""
        return cls(min(max(0, round(price) - size // 2), len(PRICES) - size), size)

    def of(self, ladder: Sequence[_Rung]) -> Sequence[_Rung]:
        """Return what stands at these prices."""
        return ladder[self.low : self.low + self.size]

    def nearest(self, rung: int) -> int:
        """Return which of them, counted from 0, is a rung of the ladder, or nearest to it."""
        return min(max(0, rung - self.low), self.size - 1)

    def keep(self, price: float) -> bool:
        """Whether they surround a place on the ladder."""
        high = self.low + self.size - 1
        return (self.low <= price or not self.low) and (price <= high or high == DEAREST)


class PlanTable:
    """The plans for a package's orders, in 11 kB of arrays.

    ``calls`` is the number of calls an order costs at each price of the ladder, ``equal`` the
    number that backoff makes.
    """

    __slots__ = ("_ended", "_gaps", "_rungs", "_trust", "calls", "equal")

    def __init__(
        self,
        curve: Curve,
        trust: Sequence[float],
        equal: float,
        ladder: Sequence[Procedure],
        price: float | None = None,
        kept: int = KEPT,
    ) -> None:
        """Store what is needed of a curve and of its procedures at all prices (``ladder``), and of
        ``kept`` of them the plans.

        ``trust`` is, by edge, the share of the orders that follow the table; it never rises.
        ``price`` is the account's place on the ladder; None means the price at which these orders
        alone cost as much as backoff.
        """
        self.calls = array("d", [procedure.calls for procedure in ladder])
        self.equal = equal
        self._ended = array("f", curve.ended)
        levels = [-round(part * _BYTE) for part in trust]
        self._trust = array("H", [bisect_left(levels, -level) for level in range(_BYTE)])
        near = position(self.calls, equal) if price is None else price
        self._rungs = Rungs.around(near, kept)
        gaps = [
            [following - k for k, following in enumerate(procedure.best)]
            for procedure in self._rungs.of(ladder)
        ]
        narrow = max(map(max, gaps)) <= _BYTE
        self._gaps = [array("B" if narrow else "H", steps) for steps in gaps]

    def costs_as(self, tables: Sequence[tuple[float, PlanTable]]) -> None:
        """Take the mean costs of others that plan in its place, each with its weight in orders."""
        weight = math.fsum(orders for orders, _ in tables)
        if weight > 0:
            self.equal = math.fsum(orders * one.equal for orders, one in tables) / weight
            self.calls = array(
                "d",
                [
                    math.fsum(orders * one.calls[k] for orders, one in tables) / weight
                    for k in range(len(PRICES))
                ],
            )

    def following(self, rung: int, edge: int) -> float:
        """Return the age (seconds) of the check after one at an edge, at a rung or the nearest
        stored one.
        """
        kept = self._gaps[self._rungs.nearest(rung)]
        return EDGES[edge + kept[edge]]

    def keeps(self, price: float) -> bool:
        """Whether the plans at a place on the ladder of prices are stored."""
        return self._rungs.keep(price)

    def trusts(self, edge: int, fate: float) -> bool:
        """Whether an order that waits at an edge follows the table; ``fate`` in [0, 1) is the
        order's own.
        """
        return edge < self._trust[int(fate * _BYTE)]

    def share_by(self, age: float) -> float:
        """Return the probability that an order has ended by ``age`` seconds."""
        return self._ended[nearest(age)]

    def quantile(self, share: float) -> float | None:
        """Return the age (seconds) by which ``share`` of the orders have ended.

        None if it lies beyond the grid.
        """
        k = bisect_left(self._ended, share)
        return EDGES[k] if k <= LAST else None


def position(calls: Sequence[float], wanted: float) -> float:
    """Return the place on the ladder of prices that costs ``wanted`` calls.

    ``calls`` is the cost at each price; the last price is the highest and costs the fewest calls.
    """
    dear = bisect_left(calls, -wanted, key=lambda cost: -cost)
    if not dear:
        return 0.0
    if dear == len(calls):
        return float(DEAREST)
    above, below = calls[dear - 1], calls[dear]
    return dear - (wanted - below) / (above - below)


@dataclass(slots=True)
class CallBudget:
    """An account's budget and spending.

    ``budget`` is in calls a second; None allows as many as backoff. ``credit`` is the number of
    saved calls (negative: owed), at most half a ``WINDOW``. ``scale`` is the factor by which the
    tables' costs are off, learned from persistent credit: orders that are found late cost less than
    their curves say, and orders on backoff cost the same at any price.
    """

    budget: float | None = None
    credit: float = 0.0
    scale: float = 1.0
    _rate: float = 0.0
    _at: float | None = None

    def spend(self, backoff: float, now: float, price: float | None = None) -> None:
        """Count one call, and the calls that backoff would have made for the same order in the same
        time.

        ``price`` is the account's place on the ladder: at its ends, no scale would change anything.
        """
        since = 0.0 if self._at is None else min(max(0.0, now - self._at), MEMORY)
        self._at = now if self._at is None else max(self._at, now)
        self._rate = self._rate * math.exp(-since / MEMORY) + backoff / MEMORY
        granted = backoff if self.budget is None else self.budget * since
        self.credit = min(WINDOW / 2, max(-WINDOW / 2, self.credit + granted - 1))
        if price is None or (price > 0 if self.credit > 0 else price < DEAREST):
            beyond = math.copysign(max(0.0, abs(self.credit) - USUAL), self.credit)
            scale = self.scale * math.exp(LEARNS * beyond / WINDOW**2)
            self.scale = min(MOST_SCALE, max(1 / MOST_SCALE, scale))

    @property
    def ratio(self) -> float:
        """Return the target number of calls as a multiple of backoff's."""
        plain = 1.0 if self.budget is None or self._rate <= 0 else self.budget / self._rate
        return plain * self.scale * (1 + self.credit / WINDOW)
