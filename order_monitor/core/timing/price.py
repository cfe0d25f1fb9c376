"""One price of a call for all orders of an account: so dear that the budget is met.

At a common price every order's next call saves as much delay as any other's, which is the best use of a given number of calls
(the Lagrangian of the allocation; its closed form for memoryless changes is the square-root rule of Cho and Garcia-Molina 2003
and Azar et al. 2018). Between two prices of the ladder each takes its part of the orders.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from order_monitor.core.timing.checking import Procedure, optimum
from order_monitor.core.timing.curve import Curve

PRICES: Final = tuple(0.5 * 2**k for k in range(11))
"""Seconds of delay that one more call must save."""

DEAREST: Final = len(PRICES) - 1
WINDOW: Final = 1000.0
"""Calls over which a purse that was over- or underspent is put right."""

MEMORY: Final = 1800.0
"""Seconds over which the calls that backoff would make are averaged."""


@dataclass(slots=True)
class PlanTable:
    """A curve's procedures at the ladder's prices, made when first wanted; ``equal`` is backoff's calls an order."""

    curve: Curve
    shortest: float
    longest: float
    equal: float
    trust: list[float]
    _made: dict[int, Procedure] = field(default_factory=dict)

    def at(self, rung: int) -> Procedure:
        """Return the procedure at a rung of the ladder."""
        made = self._made.get(rung)
        if made is None:
            made = self._made[rung] = optimum(self.curve, PRICES[rung], self.shortest, self.longest)
        return made


def position(tables: Collection[tuple[float, PlanTable]], ratio: float) -> float:
    """Return where on the ladder ``tables`` (each with its weight in orders) cost ``ratio`` times what backoff costs them."""
    wanted = ratio * math.fsum(orders * table.equal for orders, table in tables)

    def cost(rung: int) -> float:
        return math.fsum(orders * table.at(rung).calls for orders, table in tables)

    low, high = -1, DEAREST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle) <= wanted else (middle, high)
    if low < 0:
        return 0.0
    dear, cheap = cost(low), cost(high)
    return high - min(1.0, max(0.0, (wanted - cheap) / (dear - cheap))) if dear > cheap else float(high)


@dataclass(slots=True)
class Purse:
    """What an account may spend and what it did. ``budget`` is calls a second, None for as many as backoff.

    ``credit`` is calls saved up (or owed, below zero), never more than half a ``WINDOW`` of them.
    """

    budget: float | None = None
    credit: float = 0.0
    _rate: float = 0.0
    _at: float | None = None

    def spend(self, backoff: float, now: float) -> None:
        """Note one call, and the calls that backoff would have made for the same order in the same time."""
        since = 0.0 if self._at is None else min(max(0.0, now - self._at), MEMORY)
        self._at = now if self._at is None else max(self._at, now)
        self._rate = self._rate * math.exp(-since / MEMORY) + backoff / MEMORY
        granted = backoff if self.budget is None else self.budget * since
        self.credit = min(WINDOW / 2, max(-WINDOW / 2, self.credit + granted - 1))

    @property
    def ratio(self) -> float:
        """How many times backoff's calls are to be made."""
        plain = 1.0 if self.budget is None or self._rate <= 0 else self.budget / self._rate
        return plain * (1 + self.credit / WINDOW)
