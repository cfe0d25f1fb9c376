"""When orders end, as a distribution: its grid of ages, the curve on that grid, and its estimate
from intervals that contain the ends.

The k-th edge of the grid is ``KNEE · (e^(k·RATE) - 1)`` seconds after ``sent_at``: about linear
below ``KNEE`` (steps of 1.5 s), log time above it (steps of half a percent), so that one order
needs the same few numbers as a thousand. Bin k contains the ages in (edge k, edge k+1]; the last
one contains everything after 24 hours.

The estimate is Turnbull's self-consistent one (1976) by expectation and maximisation: each
interval's weight is distributed over its bins in proportion to their mass. A censored order is an
interval without an upper end. Prior knowledge enters as a Dirichlet prior of ``strength`` orders
distributed as ``prior`` (Ferguson 1973; Susarla and Van Ryzin 1976 for censored data).

Without smoothing the estimate concentrates mass in the few bins where intervals overlap; the checks
are then placed right behind these peaks, which makes them higher. So each round is smoothed
(Silverman, Jones, Wilson and Nychka 1990), broadly at first and finely at the end, or broadly
throughout while few ends were seen.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, Protocol, TypeVar

KNEE: Final = 300.0
RATE: Final = 0.005
LAST: Final = math.ceil(math.log1p(86_400.0 / KNEE) / RATE)
"""Index of the last edge: the first at or after 24 hours."""

BINS: Final = LAST + 1
"""The number of bins, including the open one at the end."""

EDGES: Final = tuple(KNEE * math.expm1(k * RATE) for k in range(LAST + 1))
MIDDLES: Final = tuple((a + b) / 2 for a, b in pairwise(EDGES))


def nearest(age: float) -> int:
    """Return the index of the edge nearest to ``age`` (seconds, not negative).

    Never beyond the last edge.
    """
    return min(LAST, int(math.log1p(age / KNEE) / RATE + 0.5))


def span(after: float, until: float) -> tuple[int, int]:
    """Return the bins ``lo <= k < hi`` that hold the ages in (``after``, ``until``], at least one.

    ``BINS`` as the end means no end. Both are rounded to the nearest edge: rounding outward would
    make orders seem to last longer than they do.
    """
    lo = nearest(after)
    if until > EDGES[LAST] or lo == LAST:
        return lo, BINS
    return lo, max(lo + 1, nearest(until))


class Ends(Protocol):
    """What is known about when orders have ended, by their age."""

    def share_by(self, age: float) -> float:
        """Return the probability that an order has ended by ``age`` seconds."""

    def quantile(self, share: float) -> float | None:
        """Return the age (seconds) by which ``share`` of the orders have ended, None if it lies
        beyond the grid.
        """


@dataclass(frozen=True, slots=True)
class Curve:
    """A distribution of the time to the end. All lists run over the edges of the grid.

    ``ended`` is the probability of having ended by that edge, ``moment`` the mean of the end's age
    counted only up to that edge (seconds), ``evidence`` how many ends were seen later than it
    (orders).
    """

    ended: Sequence[float]
    moment: Sequence[float]
    evidence: Sequence[float]

    @classmethod
    def of(cls, mass: Sequence[float], evidence: Sequence[float] | None = None) -> Curve:
        """Return the curve for the bins' probabilities, each spread evenly over its bin."""
        ended = [0.0, *accumulate(mass[:LAST])]
        moment = [0.0, *accumulate(m * at for m, at in zip(mass, MIDDLES, strict=False))]
        return cls(ended, moment, [0.0] * BINS if evidence is None else evidence)

    def share_by(self, age: float) -> float:
        """Return the probability that an order has ended by ``age`` seconds."""
        return self.ended[nearest(age)]

    def quantile(self, share: float) -> float | None:
        """Return the age (seconds) by which ``share`` of the orders have ended.

        None if it lies beyond the grid.
        """
        k = bisect_left(self.ended, share)
        return EDGES[k] if k <= LAST else None


ROUNDS: Final = (16,) * 3 + (8,) * 3 + (4,) * 3 + (2,) * 2 + (0,) * 6
"""The smoothing radius of each round, in bins to either side.

A bin is half a percent of the age.
"""

SHARP: Final = (*ROUNDS, *(0,) * 14)
"""The rounds where backoff finds nearly every order at its first check: what little the smoothing
leaves beyond the last end then keeps the only check late.
"""

FEW: Final = 40.0
"""The number of ends up to which the rounds are broader: a few ends show where an order may end,
but not how narrowly.
"""

BROAD: Final = (128,) * 2 + (64,) * 2 + (32,) * 3

Span = tuple[int, int, float]
"""First bin, bin after the last, weight in orders."""


T = TypeVar("T")


def finished(pieces: Generator[None, None, T]) -> T:
    """Run all pieces of some work, and return its result."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def estimate(
    spans: Iterable[Span],
    prior: Sequence[float],
    strength: float,
    rounds: Sequence[int] | None = None,
) -> list[float]:
    """Return the probability of each bin, as `estimating` does, in one piece."""
    return finished(estimating(spans, prior, strength, rounds))


def estimating(
    spans: Iterable[Span],
    prior: Sequence[float],
    strength: float,
    rounds: Sequence[int] | None = None,
) -> Generator[None, None, list[float]]:
    """Find the probability of each bin, one round a piece.

    ``prior`` sums to one; the last bin is open, and is never smoothed into the others. The default
    ``rounds`` depend on how many ends are known.
    """
    known = list(spans)
    total = strength + sum(weight for _, _, weight in known)
    mass = list(prior)
    if not known:
        return mass
    pull = [strength * share / total for share in prior]
    for width in _rounds(known) if rounds is None else rounds:
        gains = accumulate(_gains(known, mass, total))
        mass = [
            held * max(0.0, gain) + own for held, gain, own in zip(mass, gains, pull, strict=False)
        ]
        if width:
            mass = _smoothed(mass, width)
        yield
    scale = 1 / sum(mass)
    return [held * scale for held in mass]


def _rounds(known: Sequence[Span]) -> Sequence[int]:
    return BROAD if sum(weight for _, hi, weight in known if hi < BINS) <= FEW else ROUNDS


def _gains(spans: Sequence[Span], mass: Sequence[float], total: float) -> list[float]:
    """Return the factor for each bin's probability, as differences from bin to bin."""
    until = [0.0, *accumulate(mass)]
    steps = [0.0] * (len(mass) + 1)
    for lo, hi, weight in spans:
        held = until[hi] - until[lo]
        if held > 0:
            share = weight / (held * total)
            steps[lo] += share
            steps[hi] -= share
    return steps


def _smoothed(mass: Sequence[float], width: int) -> list[float]:
    """Return the mean over ``width`` bins to either side.

    Bins beyond the first and the last closed bin count as empty.
    """
    until = [*[0.0] * (width + 1), *accumulate(mass[:-1])]
    until += [until[-1]] * width
    share = 1 / (2 * width + 1)
    return [
        *(
            (after - before) * share
            for before, after in zip(until, until[2 * width + 1 :], strict=False)
        ),
        mass[-1],
    ]
