"""The distribution of the time to the end, from intervals in which the end is known to lie.

Turnbull's self-consistent estimate (1976) by expectation and maximisation: each interval's weight is shared out over its bins in
proportion to what the bins hold. A censored order is an interval without an upper end. What is known beforehand goes in as a
Dirichlet prior of ``strength`` orders distributed as ``prior`` (Ferguson 1973; Susarla and Van Ryzin 1976 for censored data).

Left to itself the estimate piles mass up in the few bins where intervals overlap; the checks are then put right behind the piles,
which makes them higher. So each round is smoothed (Silverman, Jones, Wilson and Nychka 1990), broadly at first, finely at last, and
as long as few ends were seen broadly throughout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from order_monitor.core.timing.bins import BINS

ROUNDS: Final = (16,) * 3 + (8,) * 3 + (4,) * 3 + (2,) * 2 + (1,) * 3
"""For each round over how many bins to either side it is smoothed; a bin is half a percent of the age."""

FEW: Final = 40.0
"""Ends up to which the rounds are broader: a few tell where an order may end, but not how narrowly."""

BROAD: Final = (128,) * 2 + (64,) * 2 + (32,) * 3

Span = tuple[int, int, float]
"""First bin, bin after the last, weight in orders."""


def estimate(
    spans: Iterable[Span], prior: Sequence[float], strength: float, rounds: Sequence[int] | None = None
) -> list[float]:
    """Return the probability of each bin. ``prior`` sums to one; the last bin is open, and is never smoothed into the others.

    Without ``rounds`` they are those that suit how many ends are known.
    """
    known = list(spans)
    total = strength + sum(weight for _, _, weight in known)
    mass = list(prior)
    if not known:
        return mass
    pull = [strength * share / total for share in prior]
    for width in _rounds(known) if rounds is None else rounds:
        gains = accumulate(_gains(known, mass, total))
        mass = [held * max(0.0, gain) + own for held, gain, own in zip(mass, gains, pull, strict=False)]
        if width:
            mass = _smoothed(mass, width)
    scale = 1 / sum(mass)
    return [held * scale for held in mass]


def _rounds(known: Sequence[Span]) -> Sequence[int]:
    return BROAD if sum(weight for _, hi, weight in known if hi < BINS) <= FEW else ROUNDS


def _gains(spans: Sequence[Span], mass: Sequence[float], total: float) -> list[float]:
    """Return, as differences from bin to bin, by how much each bin's probability is to be multiplied."""
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
    """Return the mean over ``width`` bins to either side; beyond the first and the last closed bin there is nothing."""
    until = [*[0.0] * (width + 1), *accumulate(mass[:-1])]
    until += [until[-1]] * width
    share = 1 / (2 * width + 1)
    return [*((after - before) * share for before, after in zip(until, until[2 * width + 1 :], strict=False)), mass[-1]]
