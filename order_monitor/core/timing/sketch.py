"""What was seen of one product's orders, in bounded room: how much weight lies on which interval of bins.

Weights are orders, and fade: half of a weight is left after ``half_life`` (exponential decay, as a landmark's weights in Cormode,
Shkapenyuk, Srivastava and Xu 2009). Two sketches add up to what one would hold that had seen both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from order_monitor.core.timing.bins import BINS, KNEE, LAST, RATE
from order_monitor.core.timing.turnbull import Span

VERSION: Final = 1
GRID: Final = f"{KNEE:g}/{RATE:g}/{BINS}"
ROOM: Final = 2000
"""Different intervals at most. Beyond it their ends are rounded, to the nearest: outward would let orders seem to last longer."""

MOST: Final = 2500.0
"""Orders at most: beyond it all weights are halved, so that a busy product's change is seen as soon as a quiet one's."""

STEP: Final = 1 / 64
"""Weights fade in steps of this part of a half-life."""

NEGLIGIBLE: Final = 0.02


@dataclass(slots=True)
class Sketch:
    """Weights by (first bin, bin after the last). ``half_life`` is seconds, ``at`` the epoch second the weights are faded to."""

    half_life: float
    at: float = -math.inf
    total: float = 0.0
    _level: int = 0
    _weights: dict[tuple[int, int], float] = field(default_factory=dict)

    def add(self, span: tuple[int, int], now: float, weight: float = 1.0) -> None:
        """Count an order whose end lies in ``span``, as `bins.span` gives it, seen at ``now`` (epoch seconds)."""
        self.fade(now)
        self._put(span, weight)
        if self.total > MOST:
            self.scale(0.5)
        self._bound()

    def fade(self, now: float) -> None:
        """Let the weights fade up to ``now``; a clock that went back makes nothing younger."""
        if now - self.at < self.half_life * STEP:
            return
        if self._weights:
            self.scale(2 ** ((self.at - now) / self.half_life))
        self.at = now

    def scale(self, factor: float) -> None:
        """Multiply every weight; what has become negligible is dropped."""
        kept = {span: weight * factor for span, weight in self._weights.items() if weight * factor >= NEGLIGIBLE}
        self._weights = kept
        self.total = math.fsum(kept.values())
        if len(kept) < ROOM // 4:
            self._level = max(0, self._level - 1)

    def merge(self, other: Sketch) -> None:
        """Add what another process has seen."""
        theirs = Sketch(self.half_life, other.at, other.total, other._level, dict(other._weights))
        theirs.fade(self.at)
        self.fade(theirs.at)
        for span, weight in theirs._weights.items():
            self._put(span, weight)
        self._bound()

    def spans(self) -> Iterator[Span]:
        """Yield each interval of bins with its weight."""
        for (lo, hi), weight in self._weights.items():
            yield lo, hi, weight

    def dump(self) -> str:
        """Return it as JSON, about 15 bytes an interval."""
        rows = [[lo, hi, round(weight, 4)] for (lo, hi), weight in self._weights.items()]
        at = None if math.isinf(self.at) else self.at
        return json.dumps({"v": VERSION, "grid": GRID, "at": at, "w": rows}, separators=(",", ":"))

    @classmethod
    def load(cls, text: str, half_life: float, now: float) -> Sketch | None:
        """Return what `dump` wrote; None for another version's, another grid's or a broken one. A time ahead counts as ``now``."""
        try:
            data = json.loads(text)
            if data["v"] != VERSION or data["grid"] != GRID:
                return None
            found = cls(half_life, -math.inf if data["at"] is None else min(_number(data["at"]), now))
            for lo, hi, weight in data["w"]:
                found._put(_checked(lo, hi), _positive(weight))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        found._bound()
        return found

    def _put(self, span: tuple[int, int], weight: float) -> None:
        span = _rounded(span, self._level)
        self._weights[span] = self._weights.get(span, 0.0) + weight
        self.total += weight

    def _bound(self) -> None:
        """Round the intervals until there are few enough of them."""
        while len(self._weights) > ROOM:
            old, self._weights, self.total = self._weights, {}, 0.0
            self._level += 1
            for span, weight in old.items():
                self._put(span, weight)


def _rounded(span: tuple[int, int], level: int) -> tuple[int, int]:
    """Return the span rounded: up to level 3 to ever larger parts of its width, beyond it to ever coarser steps.

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
