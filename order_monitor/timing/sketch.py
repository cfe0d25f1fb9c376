"""The evidence of one package's orders in bounded memory: the weight on each interval of bins.

Weights are orders, and fade: half of a weight is left after ``half_life`` (exponential decay, as a
landmark's weights in Cormode, Shkapenyuk, Srivastava and Xu 2009). Adding two sketches gives the
sketch of both inputs.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from order_monitor.timing.distribution import BINS, KNEE, LAST, RATE, Span

VERSION: Final = 1
GRID: Final = f"{KNEE:g}/{RATE:g}/{BINS}"
ROOM: Final = 600
"""The maximum number of entries, in arrays: 5 kB.

At the limit, equal intervals are merged. If more than three quarters remain, their ends are rounded
to the nearest: rounding outward would make orders seem to last longer.
"""

MOST: Final = 2500.0
"""The maximum number of orders: beyond it all weights are halved, so that a busy product's change
shows as soon as a quiet one's.
"""

STEP: Final = 1 / 64
"""The step of fading, as a fraction of a half-life."""

NEGLIGIBLE: Final = 0.02
_ENDS: Final = BINS + 1
"""An interval is stored as one number: its first bin times this, plus the bin after its last."""


@dataclass(slots=True)
class Sketch:
    """Weights by (first bin, bin after the last).

    ``half_life`` is in seconds, ``at`` is the epoch second up to which the weights have faded.
    """

    half_life: float
    at: float = -math.inf
    total: float = 0.0
    _level: int = 0
    _where: array[int] = field(default_factory=lambda: array("I"))
    _weights: array[float] = field(default_factory=lambda: array("f"))
    _merged: int = field(default=0, compare=False)
    """The number of entries, from the first, that are known to be distinct intervals."""

    def add(self, span: tuple[int, int], now: float, weight: float = 1.0) -> None:
        """Count an order whose end lies in ``span``, as returned by `distribution.span`, seen at ``now``
        (epoch seconds).
        """
        self.fade(now)
        self._put(span, weight)
        if self.total > MOST:
            self.scale(0.5)

    def fade(self, now: float) -> None:
        """Fade the weights up to ``now``; a clock that went back makes nothing younger."""
        if now - self.at < self.half_life * STEP:
            return
        if self._where:
            self.scale(2 ** ((self.at - now) / self.half_life))
        self.at = now

    def scale(self, factor: float) -> None:
        """Multiply every weight; drop negligible ones."""
        self._merge()
        kept = [
            (where, weight * factor)
            for where, weight in zip(self._where, self._weights, strict=True)
            if weight * factor >= NEGLIGIBLE
        ]
        self._fill(kept)
        if len(kept) < ROOM // 4:
            self._level = max(0, self._level - 1)

    def merge(self, other: Sketch) -> None:
        """Add another process's sketch."""
        theirs = Sketch(self.half_life, other.at, other.total, other._level)
        theirs._where, theirs._weights = other._where[:], other._weights[:]
        theirs.fade(self.at)
        self.fade(theirs.at)
        for lo, hi, weight in theirs.spans():
            self._put((lo, hi), weight)

    def spans(self) -> Iterator[Span]:
        """Yield each interval of bins with its weight."""
        self._merge()
        for where, weight in zip(self._where, self._weights, strict=True):
            yield where // _ENDS, where % _ENDS, weight

    def dump(self) -> str:
        """Return it as JSON, about 15 bytes an interval."""
        rows = [[lo, hi, round(weight, 4)] for lo, hi, weight in self.spans()]
        at = None if math.isinf(self.at) else self.at
        return json.dumps({"v": VERSION, "grid": GRID, "at": at, "w": rows}, separators=(",", ":"))

    @classmethod
    def load(cls, text: str, half_life: float, now: float) -> Sketch | None:
        """Return a sketch that `dump` wrote; None for another version, another grid or a broken
        one.

        A time in the future counts as ``now``.
        """
        try:
            data = json.loads(text)
            if data["v"] != VERSION or data["grid"] != GRID:
                return None
            found = cls(
                half_life, -math.inf if data["at"] is None else min(_number(data["at"]), now)
            )
            for lo, hi, weight in data["w"]:
                found._put(_checked(lo, hi), _positive(weight))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        found._merge()
        return found

    def _put(self, span: tuple[int, int], weight: float) -> None:
        lo, hi = _rounded(span, self._level)
        self._where.append(lo * _ENDS + hi)
        self._weights.append(weight)
        self.total += weight
        if len(self._where) > ROOM:
            self._merge()

    def _merge(self) -> None:
        """Merge equal intervals, and round them until there are few enough."""
        if self._merged == len(self._where):
            return
        sums: dict[int, float] = {}
        for where, weight in zip(self._where, self._weights, strict=True):
            sums[where] = sums.get(where, 0.0) + weight
        while len(sums) > ROOM * 3 // 4:
            old, sums = sums, {}
            self._level += 1
            for where, weight in old.items():
                lo, hi = _rounded((where // _ENDS, where % _ENDS), self._level)
                sums[lo * _ENDS + hi] = sums.get(lo * _ENDS + hi, 0.0) + weight
        self._fill(list(sums.items()))

    def _fill(self, kept: list[tuple[int, float]]) -> None:
        """Replace the entries with these distinct intervals."""
        self._where = array("I", [where for where, _ in kept])
        self._weights = array("f", [weight for _, weight in kept])
        self._merged = len(kept)
        self.total = math.fsum(weight for _, weight in kept)


def _rounded(span: tuple[int, int], level: int) -> tuple[int, int]:
    """Return the span rounded: up to level 3 to larger and larger fractions of its width, beyond it
    to coarser and coarser steps.

    An open end stays open, and a closed one closed.
    """
    lo, hi = span
    if not level:
        return span
    finest = 1 << max(0, level - 3)
    if hi == BINS:
        return min(LAST, (lo + finest // 2) // finest * finest), hi
    step = max(finest, 1 << max(0, (((hi - lo) << min(level, 3)) // 64).bit_length() - 1))
    lo = min(LAST - 1, (lo + step // 2) // step * step)
    return lo, min(LAST, max(lo + 1, (hi + step // 2) // step * step))


def _checked(lo: object, hi: object) -> tuple[int, int]:
    if isinstance(lo, int) and isinstance(hi, int) and 0 <= lo < hi <= BINS:
        return lo, hi
    raise ValueError("no interval of bins")


def _number(at: object) -> float:
    if isinstance(at, int | float) and not math.isnan(at):
        return float(at)
    raise ValueError("no time")


def _positive(weight: object) -> float:
    if isinstance(weight, int | float) and 0 < weight <= MOST:
        return float(weight)
    raise ValueError("no weight")
