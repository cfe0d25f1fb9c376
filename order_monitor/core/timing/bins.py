"""The grid of ages: bins whose width grows with the age, so that one order and a thousand need the same few numbers.

The k-th edge is ``KNEE · (e^(k·RATE) - 1)`` seconds after ``sent_at``: about linear below ``KNEE`` (steps of 1.5 s), log time above
it (steps of half a percent). Bin k holds the ages in (edge k, edge k+1]; the last one everything after 24 hours.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final

KNEE: Final = 300.0
RATE: Final = 0.005
LAST: Final = math.ceil(math.log1p(86_400.0 / KNEE) / RATE)
"""Index of the last edge: the first at or after 24 hours."""

BINS: Final = LAST + 1
"""How many bins there are, the open one at the end included."""

EDGES: Final = tuple(KNEE * math.expm1(k * RATE) for k in range(LAST + 1))
MIDDLES: Final = tuple((a + b) / 2 for a, b in pairwise(EDGES))


def nearest(age: float) -> int:
    """Return the index of the edge nearest to ``age`` (seconds, not negative); never beyond the last."""
    return min(LAST, int(math.log1p(age / KNEE) / RATE + 0.5))


def span(after: float, until: float) -> tuple[int, int]:
    """Return the bins ``lo <= k < hi`` that hold the ages in (``after``, ``until``], at least one; ``BINS`` is no end at all.

    Both are rounded to the nearest edge: outward would let orders seem to last longer than they do.
    """
    lo = nearest(after)
    if until > EDGES[LAST] or lo == LAST:
        return lo, BINS
    return lo, max(lo + 1, nearest(until))
