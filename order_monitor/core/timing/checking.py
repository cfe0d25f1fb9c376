"""When to ask, for a curve and a price of a call: the optimum checking procedure of Barlow, Hunter and Proschan (1963).

Minimised is the mean of (seconds from the end until it is found) + ``price`` x (calls made), over all plans whose gaps lie
between two bounds. With F the probability of having ended and M its partial mean, the least cost W of what is still to come for
an order that waits at edge a, times the probability 1 - F(a) of that, is

    W(a) = price·(1 - F(a)) + min over b of [b·(F(b) - F(a)) - (M(b) - M(a)) + W(b)]

which is solved exactly on the grid, from its end to its start. The cost of a gap is a Monge array, so the best b never falls
as a grows (Hirschberg and Larmore 1987): the search for one a stops at the best b of the next.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from order_monitor.core.timing.bins import EDGES, LAST
from order_monitor.core.timing.curve import Curve


@dataclass(frozen=True, slots=True)
class Procedure:
    """A plan for all orders of a curve: ``following[k]`` is the age (seconds) of the check after one at edge k.

    ``calls`` and ``delay`` (seconds) are what one order costs on average, if the curve is right.
    """

    following: Sequence[float]
    calls: float
    delay: float


@lru_cache(maxsize=16)
def _reach(shortest: float, longest: float) -> tuple[list[int], list[int]]:
    """Return for each edge but the last which edges may follow: the first and the last of them."""
    first = [min(LAST, max(k + 1, bisect_left(EDGES, edge + shortest))) for k, edge in enumerate(EDGES[:LAST])]
    last = [bisect_right(EDGES, edge + longest) - 1 for edge in EDGES[:LAST]]
    return first, [max(a, b) for a, b in zip(first, last, strict=True)]


def optimum(curve: Curve, price: float, shortest: float, longest: float) -> Procedure:
    """Return the best procedure at ``price`` (seconds of delay that one more call must save), gaps within the two bounds."""
    first, last = _reach(shortest, longest)
    ended, moment = curve.ended, curve.moment
    offers = [0.0] * (LAST + 1)
    offers[LAST] = EDGES[LAST] * ended[LAST] - moment[LAST]
    best = [LAST] * (LAST + 1)
    calls = [0.0] * (LAST + 1)
    cost = 0.0
    for a in range(LAST - 1, -1, -1):
        done = ended[a]
        low, high = first[a], min(last[a], best[a + 1])
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
    return Procedure([EDGES[b] for b in best], calls[0], cost - price * calls[0])


def cost_of(curve: Curve, ages: Sequence[float]) -> tuple[float, float]:
    """Return (calls, seconds of delay) that one order costs on average when asked at ``ages``, which rise, up to the last."""
    calls = delay = done = mean = 0.0
    for age in ages:
        k = min(LAST, bisect_left(EDGES, age))
        calls += 1 - done
        delay += age * (curve.ended[k] - done) - (curve.moment[k] - mean)
        done, mean = curve.ended[k], curve.moment[k]
    return calls, delay
