"""The hour of the day at which an order was sent: a rival of its age alone, for products whose orders
take longer by night than by day.

The day (UTC) is cut into cells of a quarter of an hour, and the cells into two parts, at the two times
between which the ages of the orders sent differ most (the likelihood ratio of two histograms against
one). Each part is learned as a product of its own. Whether the parts plan is decided by how likely
they and the whole product had held each end before it was seen (prequential: Dawid 1984).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from order_monitor.timing.distribution import EDGES, LAST, Ends, span
from order_monitor.timing.hour import A_STEP, AT_MOST, LEADS, LEAST

DAY: Final = 86_400.0
CELLS: Final = 96
"""Quarter hours of the day."""

CLASSES: Final = 5
"""Classes of ages in a cell: up to `FIRST` seconds, and then up to `TIMES` times as old each."""

FIRST: Final = 30.0
TIMES: Final = 4.0
FULL: Final = 16
"""The most ends a cell counts; beyond it they are halved, so that the last days show."""

FEWEST: Final = 100
"""The fewest ends in all cells from which parts are read."""

STRIDE: Final = 4
"""Cells between two times that are compared at first; a part has twice as many at least."""

PROMISING: Final = 0.2
"""Mean advantage of two parts over one, in log likelihood an end, on the very ends they were read
from, from which they are learned.
"""

MOVES: Final = 6.0
"""The advantage in log likelihood, of all ends that are counted, from which the parts move."""

_MARK: Final = "\0"
"""Between a package and its part: no text of PostgreSQL contains it."""

Key = tuple[str, str]


def key_of_part(key: Key, part: int) -> Key:
    """Return the key of a part of a package's day."""
    return key[0], f"{key[1]}{_MARK}{part}"


def is_part(key: Key) -> bool:
    """Whether a key is that of a part of the day."""
    return _MARK in key[1]


def other_part(key: Key) -> Key:
    """Return the key of the other part of the same day."""
    return key_of_part(whole(key), 1 - int(key[1][-1]))


def whole(key: Key) -> Key:
    """Return the key of the package that a key is of, or of a part of."""
    return key[0], key[1].partition(_MARK)[0]


@dataclass(slots=True)
class Day:
    """A package's ends by the quarter hour of the day at which the order was sent, and the two parts
    of the day that are learned: a bit for each cell, none set for none.

    ``lead`` is the parts' advantage over the whole, and ``plans`` whether they plan. ``since`` is
    when the first order was sent (epoch seconds), ``is_long`` whether others were a day later.
    """

    parts: int = 0
    lead: float = 0.0
    plans: bool = False
    since: float = math.inf
    is_long: bool = False
    _counts: array[int] = field(default_factory=lambda: array("B", bytes(CELLS * CLASSES)))

    def count(self, sent: float, before: float, age: float) -> None:
        """Count an order that was sent at ``sent`` and ended between two ages (seconds)."""
        self.since = min(self.since, sent)
        self.is_long = self.is_long or sent - self.since >= DAY
        middle = (before + age) / 2
        grade = 0
        if middle > FIRST:
            grade = min(CLASSES - 1, 1 + int(math.log(middle / FIRST) / math.log(TIMES)))
        low = _cell(sent) * CLASSES
        ours = self._counts[low : low + CLASSES]
        if sum(ours) >= FULL:
            ours = array("B", [one // 2 for one in ours])
        ours[grade] += 1
        self._counts[low : low + CLASSES] = ours

    def part(self, sent: float) -> int:
        """Return the part to which an order sent at ``sent`` (epoch seconds) belongs."""
        return self.parts >> _cell(sent) & 1

    def judge(self, sent: float, part: Ends, all_day: Ends, before: float, age: float) -> bool:
        """Note an end between two ages, by what was known of its part and of the whole.

        Return whether another plans from now on. Orders sent within a quarter hour of the change of
        parts tell nothing: they may be of either, and many may come in a row.
        """
        if len({self.part(sent + beyond) for beyond in (-DAY / CELLS, 0.0, DAY / CELLS)}) > 1:
            return False
        lo, hi = span(before, age)
        until = EDGES[min(hi, LAST)]
        ours, theirs = (
            max(LEAST, known.share_by(until) - known.share_by(EDGES[lo]))
            for known in (part, all_day)
        )
        gain = min(A_STEP, max(-A_STEP, math.log(ours / theirs)))
        self.lead = min(AT_MOST, max(-AT_MOST, self.lead + gain))
        planned, self.plans = self.plans, self.lead > (0 if self.plans else LEADS)
        return planned is not self.plans

    def find_parts(self) -> bool:
        """Read the two parts again; return whether they are others than before."""
        until = [[0] * CLASSES]
        for k in range(0, CELLS * CLASSES, CLASSES):
            cell = self._counts[k : k + CLASSES]
            until.append([x + y for x, y in zip(until[-1], cell, strict=True)])
        total = sum(until[CELLS])
        if not self.is_long or total < FEWEST:
            return False
        gain, start, end = _best(until)
        if gain < PROMISING * total:
            if not self.parts or self.plans:
                return False
            self.parts, self.lead = 0, 0.0
            return True
        parts = (1 << end) - (1 << start)
        if not self.parts:
            self.parts, self.lead = parts, 0.0
            return True
        if 2 * (parts ^ self.parts).bit_count() > CELLS:
            parts ^= (1 << CELLS) - 1
        if gain < self._gain(until) + MOVES:
            return False
        self.parts = parts
        return True

    def _gain(self, until: Sequence[Sequence[int]]) -> float:
        """Return the advantage of the parts as they are."""
        ours = [0] * CLASSES
        for k, (before, after) in enumerate(pairwise(until)):
            if self.parts >> k & 1:
                ours = [n + y - x for n, x, y in zip(ours, before, after, strict=True)]
        return _advantage(ours, until[CELLS])


def _best(until: Sequence[Sequence[int]]) -> tuple[float, int, int]:
    """Return the best advantage of two parts, and from which cell to which the second one is: on the
    full hours first, and then around them.
    """

    def gain(start: int, end: int) -> tuple[float, int, int]:
        ours = [y - x for x, y in zip(until[start], until[end], strict=True)]
        return _advantage(ours, until[CELLS]), start, end

    least = 2 * STRIDE
    hours = range(0, CELLS + 1, STRIDE)
    best = max(gain(a, b) for a in hours for b in hours if least <= b - a <= CELLS - least)
    for _ in range(2):
        _, a, b = best
        starts = range(max(0, a - STRIDE), min(a + STRIDE, b - least) + 1)
        best = max(best, *(gain(start, b) for start in starts))
        _, a, b = best
        ends = range(max(a + least, b - STRIDE), min(CELLS, b + STRIDE) + 1)
        best = max(best, *(gain(a, end) for end in ends))
    return best


def _cell(sent: float) -> int:
    return int(sent % DAY / DAY * CELLS) % CELLS


_LOGS: Final = [0.0, *(n * math.log(n) for n in range(1, CELLS * FULL + 1))]


def _advantage(ours: Sequence[int], every: Sequence[int]) -> float:
    """Return by how much two histograms, one of them ``ours``, fit better than one."""
    return _fit(ours) + _fit([y - x for x, y in zip(ours, every, strict=True)]) - _fit(every)


def _fit(counts: Sequence[int]) -> float:
    """Return the log likelihood of a histogram by itself."""
    return sum([_LOGS[n] for n in counts]) - _LOGS[sum(counts)]
