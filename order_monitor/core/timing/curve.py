"""What is known of how long an order takes: a survival curve over the grid, and how many ends it rests on at each age."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from order_monitor.core.timing.bins import BINS, EDGES, LAST, MIDDLES, nearest


@dataclass(frozen=True, slots=True)
class Curve:
    """A distribution of the time to the end. All lists run over the edges of the grid.

    ``ended`` is the probability of having ended by then, ``moment`` the mean of the end's age counted only where it is by then
    (seconds), ``evidence`` how many ends were seen later than that (orders).
    """

    ended: Sequence[float]
    moment: Sequence[float]
    evidence: Sequence[float]

    @classmethod
    def of(cls, mass: Sequence[float], evidence: Sequence[float] | None = None) -> Curve:
        """Return the curve of the probabilities of the bins, each spread evenly over its bin."""
        ended = [0.0, *accumulate(mass[:LAST])]
        moment = [0.0, *accumulate(m * at for m, at in zip(mass, MIDDLES, strict=False))]
        return cls(ended, moment, [0.0] * BINS if evidence is None else evidence)

    def share_by(self, age: float) -> float:
        """Return the probability of having ended by ``age`` seconds."""
        return self.ended[nearest(age)]

    def quantile(self, share: float) -> float | None:
        """Return the age (seconds) by which ``share`` of the orders have ended; None if that is later than the grid."""
        k = bisect_left(self.ended, share)
        return EDGES[k] if k <= LAST else None
