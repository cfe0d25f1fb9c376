"""Ends by the phase of the hour: a rival of age, for orders that a provider ends in batches or at
fixed minutes, however old they are.

The model is a hazard that depends on the phase alone. It is estimated from a package's recent ends,
each known to lie between two times, by expectation and maximisation as in `distribution`; what is
divided by is how many orders waited at that phase. A background share keeps every phase possible.
The plan is the optimum checking procedure of `plan_table` on a circle. Which of the two models
plans is decided by their likelihood of ends that neither had seen (prequential: Dawid 1984).
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from statistics import fmean
from typing import Final

from order_monitor.timing.distribution import EDGES as AGES
from order_monitor.timing.distribution import LAST, Ends, span
from order_monitor.timing.plan_table import PRICES, Rungs

PERIOD: Final = 3600.0
FINE: Final = 2.0
"""Seconds of phase in a bin of the estimate."""

COARSE: Final = 60.0
"""The same for the first look, which tells whether an estimate is worth its cost."""

RECENT: Final = 96
"""The number of ends that are kept of a package."""

AN_HOUR: Final = 12
"""How many of them may have come in one hour: many at one instant are one event."""

HOURS: Final = 4
"""The fewest hours in which the ends came."""

FEWEST: Final = 16
"""The fewest ends from which a phase is read."""

BACKGROUND: Final = 0.03
"""The part of the hazard that is spread evenly over the hour."""

MOST_HAZARD: Final = 8.0
"""The most that the hazard of one hour adds up to, so that what is left after two is no rounding
error.
"""

PROMISING: Final = 0.7
"""Mean advantage over age, in log likelihood an end, on the very ends it was read from, from which
the estimate is made.
"""

LEADS: Final = 10.0
"""The advantage in log likelihood over age, on ends not seen before, from which the hour plans."""

AT_MOST: Final = 20.0
A_STEP: Final = 3.0
"""The most that one end counts: a single odd one decides nothing."""

LEAST: Final = 1e-4
"""The least probability that a model gives to an end."""

SPREAD: Final = 1.0
"""Seconds over which the checks of one phase are spread, by order."""

End = tuple[float, float, float]
"""When an order was sent (epoch seconds), and the two ages (seconds) between which it ended."""

EDGES: Final = 160
"""The most edges of a table: half are spread evenly over the hour, half where orders end."""

SWEEPS: Final = 4
"""Hours ahead for which a plan is computed."""

KEPT: Final = 3
"""The number of prices whose plans are stored."""

_FINELY: Final = (64, 32, 16, 8, 4, 2, 1, 1)
_COARSELY: Final = (4, 2, 1, 1)
_GOLDEN: Final = 0.6180339887498949
_ROOT: Final = 0.4142135623730951


@dataclass(slots=True)
class RecentEnds:
    """A package's recent ends: when each order was sent (epoch seconds), and the two ages (seconds)
    between which it ended. Of an hour's ends a random few are kept.
    """

    _sent: array[float] = field(default_factory=lambda: array("d"))
    _before: array[float] = field(default_factory=lambda: array("f"))
    _age: array[float] = field(default_factory=lambda: array("f"))
    _added: int = 0
    _hour: float = -math.inf
    _in_hour: int = 0

    def add(self, before: float, age: float, now: float) -> None:
        """Keep an end that was found at ``now``, or not, by chance."""
        hour = now // PERIOD
        if hour != self._hour:
            self._hour, self._in_hour = hour, 0
        self._in_hour += 1
        n = self._in_hour
        if n <= AN_HOUR:
            self._put(self._added % RECENT, before, age, now)
            self._added += 1
        elif n * _GOLDEN % 1 < AN_HOUR / n:
            back = 1 + int(n * _ROOT % 1 * AN_HOUR)
            self._put((self._added - back) % RECENT, before, age, now)

    def _put(self, k: int, before: float, age: float, now: float) -> None:
        if k == len(self._sent):
            self._sent.append(now - age)
            self._before.append(before)
            self._age.append(age)
        else:
            self._sent[k], self._before[k], self._age[k] = now - age, before, age

    def __iter__(self) -> Iterator[End]:
        """Yield (sent, before, age) of each end."""
        return zip(self._sent, self._before, self._age, strict=True)

    @property
    def are_enough(self) -> bool:
        """Whether there are enough, from enough hours, to read a phase from."""
        if len(self._sent) < FEWEST:
            return False
        hours = {(sent + age) // PERIOD for sent, _, age in self}
        return len(hours) >= HOURS


Steps = tuple[int, int, int]
"""Bins of phase: in which an order was sent (0 up to the number of bins), was last seen to wait,
and was found.
"""


def _stepped(ends: RecentEnds, width: float) -> list[Steps]:
    """Return the ends in bins; one that was found an hour or more after the last look tells no
    phase and is left out.
    """
    size = round(PERIOD / width)
    found = []
    for sent, before, age in ends:
        phase = sent % PERIOD
        start, last = int(phase / width), int((phase + before) / width + 0.5)
        until = max(last + 1, int((phase + age) / width + 0.5))
        if until - last < size:
            found.append((min(start, size - 1), max(last, start), max(until, start + 1)))
    return found


def hazards(
    ends: Sequence[Steps], size: int, rounds: Sequence[int]
) -> Generator[None, None, list[float]]:
    """Find the hazard of each of ``size`` bins of phase, half a round a piece.

    ``rounds`` are the smoothing radii, in bins.
    """
    waits = [0.0] * (2 * size + 1)
    for start, last, _ in ends:
        whole, rest = divmod(last - start, size)
        waits[0] += whole
        waits[size] -= whole
        waits[start] += 1
        waits[start + rest] -= 1
    waited = _folded(list(accumulate(waits)), size)
    hazard = [1.0 / size] * size
    for radius in rounds:
        left = _left(hazard)
        share, beyond = [0.0] * (2 * size + 1), [0.0] * (2 * size + 1)
        for _, last, until in ends:
            lo = last % size
            hi = lo + until - last
            part = 1 / (left[lo] - left[hi])
            share[lo] += part
            share[hi] -= part
            beyond[lo] += part * left[hi]
            beyond[hi] -= part * left[hi]
        yield
        parts, gone = list(accumulate(share)), list(accumulate(beyond))
        ended = _folded(
            [p * (a - b) for p, (a, b) in zip(parts, pairwise(left), strict=False)], size
        )
        risked = _folded([p * a - g for p, a, g in zip(parts, left, gone, strict=True)], size)
        risked = [a + b for a, b in zip(risked, waited, strict=True)]
        ended, risked = _around(ended, radius), _around(risked, radius)
        usual = math.fsum(ended) / max(1.0, math.fsum(risked))
        hazard = [
            -math.log1p(-min(0.99, max(0.0, (e + usual) / (max(e, r) + 1))))
            for e, r in zip(ended, risked, strict=True)
        ]
        scale = min(1.0, MOST_HAZARD / math.fsum(hazard))
        hazard = [one * scale for one in hazard]
        yield
    even = BACKGROUND * math.fsum(hazard) / size
    return [one * (1 - BACKGROUND) + even for one in hazard]


def _left(hazard: Sequence[float]) -> list[float]:
    """Return the share that still waits at each edge of two hours."""
    return [math.exp(-sum_) for sum_ in accumulate([0.0, *hazard, *hazard])]


def _folded(two: Sequence[float], size: int) -> list[float]:
    """Return the sums of two hours' bins."""
    return [a + b for a, b in zip(two[:size], two[size : 2 * size], strict=True)]


def _around(values: Sequence[float], radius: int) -> list[float]:
    """Return the mean over ``radius`` bins to either side, on the circle."""
    until = [0.0, *accumulate([*values[-radius:], *values, *values[:radius]])]
    width = 2 * radius + 1
    return [(b - a) / width for a, b in zip(until, until[width:], strict=False)]


@dataclass(frozen=True, slots=True)
class Hazard:
    """Hazards summed up from phase 0 to each edge ``at`` (seconds of phase, from 0 to the hour)."""

    at: Sequence[float]
    sums: Sequence[float]

    @classmethod
    def of(cls, hazard: Sequence[float]) -> Hazard:
        """Return the sums over bins of one width."""
        width = PERIOD / len(hazard)
        at = array("f", [k * width for k in range(len(hazard) + 1)])
        return cls(at, array("f", accumulate([0.0, *hazard])))

    def some(self) -> Hazard:
        """Return the same on at most `EDGES` edges: half of them spread evenly, half where orders
        end.
        """
        total = self.sums[-1]
        places = [
            int(EDGES * (at / PERIOD + done / total) / 2)
            for at, done in zip(self.at, self.sums, strict=True)
        ]
        kept = [0, *(k for k in range(1, len(places)) if places[k] > places[k - 1])]
        return Hazard(
            array("f", [self.at[k] for k in kept]), array("f", [self.sums[k] for k in kept])
        )

    def index(self, phase: float) -> int:
        """Return the last edge at or before a phase (seconds, below the hour)."""
        return bisect_right(self.at, phase) - 1

    def chance(self, sent: float, before: float, age: float) -> float:
        """Return the probability that an order sent at ``sent`` (epoch seconds) ends between two
        ages (seconds).
        """
        last = self._until(sent + before)
        return math.exp(self._until(sent) - last) * -math.expm1(last - self._until(sent + age))

    def _until(self, time: float) -> float:
        hour, phase = divmod(time, PERIOD)
        k = self.index(phase)
        part = (phase - self.at[k]) / (self.at[k + 1] - self.at[k])
        return hour * self.sums[-1] + self.sums[k] + part * (self.sums[k + 1] - self.sums[k])


Plan = tuple[float, Sequence[int]]
"""The calls an order costs on average, and how many edges after each edge the next check is."""


class HourTable:
    """The plans by phase, in 2 kB of arrays.

    ``calls`` is the number of calls an order costs at each price of the ladder.
    """

    __slots__ = ("_next", "_rungs", "calls", "hazard")

    def __init__(self, hazard: Hazard, ladder: Sequence[Plan], price: float) -> None:
        """Store what is needed of the plans at all prices (``ladder``); ``price`` is the account's
        place on it.
        """
        self.hazard = hazard
        self.calls = array("d", [calls for calls, _ in ladder])
        self._rungs = Rungs.around(price, KEPT)
        self._next = [array("B", ahead) for _, ahead in self._rungs.of(ladder)]

    def keeps(self, price: float) -> bool:
        """Whether the plans at a place on the ladder of prices are stored."""
        return self._rungs.keep(price)

    def following(self, rung: int, now: float) -> float:
        """Return the time (epoch seconds) of the check after one at ``now``, at a rung of the
        prices or the nearest stored one.
        """
        hour, phase = divmod(now, PERIOD)
        ahead = self._next[self._rungs.nearest(rung)]
        k = self.hazard.index(phase)
        more, k = divmod(k + ahead[k], len(ahead))
        return (hour + more) * PERIOD + self.hazard.at[k]


def advantage(hazard: Hazard, known: Ends, end: End) -> float:
    """Return by how much the log likelihood of an end by the hour is above that by age."""
    sent, before, age = end
    lo, hi = span(before, age)
    until = AGES[min(hi, LAST)]
    by_age = known.share_by(until) - known.share_by(AGES[lo])
    by_age *= min(1.0, (age - before) / max(1e-9, until - AGES[lo]))
    by_hour = hazard.chance(sent, before, age)
    found = math.log(max(LEAST, by_hour) / max(LEAST, by_age))
    return min(A_STEP, max(-A_STEP, found))


def making(
    ends: RecentEnds, known: Ends, price: float, shortest: float, longest: float
) -> Generator[None, None, HourTable | None]:
    """Make the table from a package's recent ends, in pieces of a few milliseconds.

    None where a first look shows no phase that tells more than age, of which ``known`` is known.
    ``price`` is the account's place on the ladder; gaps lie between ``shortest`` and ``longest``
    (seconds).
    """
    if not ends.are_enough:
        return None
    looked = yield from hazards(_stepped(ends, COARSE), round(PERIOD / COARSE), _COARSELY)
    first = Hazard.of(looked)
    if fmean(advantage(first, known, end) for end in ends) < PROMISING:
        return None
    found = yield from hazards(_stepped(ends, FINE), round(PERIOD / FINE), _FINELY)
    fine = Hazard.of(found)
    some = fine.some()
    circle = _Circle.of(fine, some, shortest, longest)
    ladder = []
    for one in PRICES:
        yield
        ladder.append((yield from circle.solving(one)))
    return HourTable(some, ladder, price)


@dataclass(frozen=True, slots=True)
class _Circle:
    """Two hours of edges: their times (seconds), the share that still waits at each, and the
    seconds waited until then by an order that waits at the first. ``first`` and ``last`` are the
    edges that may follow each edge of the first hour.
    """

    at: Sequence[float]
    left: Sequence[float]
    waited: Sequence[float]
    first: Sequence[int]
    last: Sequence[int]

    @classmethod
    def of(cls, fine: Hazard, some: Hazard, shortest: float, longest: float) -> _Circle:
        """Return the circle of some edges; what is waited between two is added up finely."""
        size = len(some.at) - 1
        at = [*some.at[:-1], *(PERIOD + one for one in some.at)]
        total = some.sums[-1]
        left = [math.exp(-one) for one in [*some.sums[:-1], *(total + one for one in some.sums)]]
        share = [math.exp(-one) for one in fine.sums]
        means = [(a + b) / 2 * FINE for a, b in pairwise(share)]
        sums = [0.0, *accumulate(means)]
        within = [sums[round(one / FINE)] for one in some.at]
        waited = [*within[:-1], *(within[-1] + one * math.exp(-total) for one in within)]
        first = [min(a + size, max(a + 1, bisect_left(at, at[a] + shortest))) for a in range(size)]
        last = [min(a + size, bisect_right(at, at[a] + longest) - 1) for a in range(size)]
        return cls(at, left, waited, first, [max(a, b) for a, b in zip(first, last, strict=True)])

    def solving(self, price: float) -> Generator[None, None, Plan]:
        """Find the best plan at a price, one hour a piece, from the last of several hours back."""
        size = len(self.first)
        at, left, waited = self.at, self.left, self.waited
        costs, calls, best = [price] * size, [1.0] * size, list(self.last)
        for _ in range(SWEEPS):
            offers = [
                share * cost - gone
                for share, cost, gone in zip(left, costs + costs, waited, strict=False)
            ]
            offers.append(left[-1] * costs[0] - waited[-1])
            bound = 2 * size
            for a in range(size - 1, -1, -1):
                low, done = self.first[a], left[a]
                high = max(low, min(self.last[a], bound))
                chosen, least = low, offers[low] + at[low] * done
                for b in range(low + 1, high + 1):
                    value = offers[b] + at[b] * done
                    if value <= least:
                        chosen, least = b, value
                bound = best[a] = chosen
                costs[a] = price + (least + waited[a]) / done - at[a]
                calls[a] = 1 + left[chosen] / done * calls[chosen % size]
                offers[a] = done * costs[a] - waited[a]
            yield
        ahead = [b - a for a, b in enumerate(best)]
        widths = [b - a for a, b in pairwise(at[: size + 1])]
        mean = math.fsum(w * c for w, c in zip(widths, calls, strict=True)) / PERIOD
        return mean, ahead
