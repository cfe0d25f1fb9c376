"""What was learned of each product, and from whom a product borrows of which little has been seen.

Three levels: (account, package), the account, all. A level's curve is estimated with its parent's as the prior, worth ``CREDIT``
orders: after n orders of its own the parent counts for CREDIT / (n + CREDIT) (Bühlmann's credibility 1967; as a hierarchy of
Dirichlet priors MacKay and Peto 1995). The root's prior knows nothing: each bin alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from order_monitor.core.timing.bins import BINS, span
from order_monitor.core.timing.curve import Curve
from order_monitor.core.timing.sketch import Sketch
from order_monitor.core.timing.turnbull import Span, estimate

Key = tuple[str, str]
"""(account, package); (account, "") is the account, ("", "") all."""

ALL: Final[Key] = ("", "")
CREDIT: Final = 2.0
"""How many orders a parent's curve counts for."""

VAGUE: Final = [1 / BINS] * BINS


@dataclass(slots=True)
class Place:
    """One level's memory: what ended, who is still waiting by the edge until which that is known, and what was made of it."""

    sketch: Sketch
    waiting: Counter[int] = field(default_factory=Counter)
    mass: list[float] | None = None
    ends: list[float] = field(default_factory=list)
    seen: float = 0.0
    built: float = 0.0
    misfit: float = 0.0

    @property
    def stale(self) -> bool:
        """Whether it has grown by a tenth since it was last estimated, by one order at least."""
        return self.seen >= self.built + max(1.0, 0.1 * min(self.built, self.sketch.total))

    def spans(self) -> Iterator[Span]:
        """Yield all that is known: closed intervals, and those still waiting as intervals without an end."""
        yield from self.sketch.spans()
        for lo, orders in self.waiting.items():
            if orders > 0:
                yield lo, BINS, float(orders)

    def later(self) -> list[float]:
        """Return for each edge how many ends were seen that lie, or may lie, after it."""
        until = [0.0] * BINS
        for _, hi, weight in self.sketch.spans():
            if hi < BINS:
                until[hi - 1] += weight
        return list(accumulate(reversed(until)))[::-1]


def parent(key: Key) -> Key | None:
    """Return whose curve stands in for this one's; None for the root."""
    if key == ALL:
        return None
    return (key[0], "") if key[1] else ALL


class Memory:
    """The places of all levels. At most ``room`` of them: beyond it the lightest tenth goes, and lives on in its account's."""

    def __init__(self, half_life: float, room: int = 1000) -> None:
        """Begin with nothing; ``half_life`` (seconds) says how fast what was seen fades."""
        self.half_life = half_life
        self.room = room
        self.places: dict[Key, Place] = {}

    def lineage(self, key: Key) -> Iterator[Key]:
        """Yield the key and those above it."""
        level: Key | None = key
        while level is not None:
            yield level
            level = parent(level)

    def place(self, key: Key) -> Place:
        """Return the memory of a key, made where there is none."""
        found = self.places.get(key)
        if found is None:
            if len(self.places) >= self.room:
                self._thin()
            found = self.places[key] = Place(Sketch(self.half_life))
        return found

    def ended(self, key: Key, after: float, until: float, now: float) -> None:
        """Learn that an order ended between two ages; ``until`` infinite for one of which no more will be heard."""
        found = span(after, until)
        for level in self.lineage(key):
            place = self.place(level)
            place.sketch.add(found, now)
            place.seen += 1

    def moved(self, key: Key, lo: int | None, to: int | None) -> None:
        """Learn that an order that waited at edge ``lo`` waits at edge ``to``; None for not yet, and for no more."""
        for level in self.lineage(key):
            waiting = self.place(level).waiting
            if lo is not None and waiting[lo] > 0:
                waiting[lo] -= 1
            if to is not None:
                waiting[to] += 1

    def curve(self, key: Key) -> Curve:
        """Return what is known of a key's orders, estimated anew. Its parents are taken as they are."""
        place = self.place(key)
        above = parent(key)
        prior, borrowed = self._stand_in(above)
        place.mass = estimate(place.spans(), prior, CREDIT)
        place.ends = place.later()
        place.built = place.seen
        return Curve.of(place.mass, [own + lent for own, lent in zip(place.ends, borrowed, strict=True)])

    def lent(self, key: Key) -> Curve:
        """Return the curve for an order of which nothing is known but that ``key`` stands above it."""
        return Curve.of(*self._stand_in(key))

    def _stand_in(self, key: Key | None) -> tuple[list[float], list[float]]:
        """Return the prior a key gives to those below it, and the ends it counts for: never more than ``CREDIT``."""
        place = None if key is None else self.places.get(key)
        if place is None or place.mass is None:
            return (VAGUE, [0.0] * BINS) if key is None else self._stand_in(parent(key))
        return place.mass, [CREDIT * ends / (ends + CREDIT) for ends in place.ends]

    def _thin(self) -> None:
        """Let go of the lightest tenth: of the packages while there are any."""
        lower = sorted(self.places.keys() - {ALL}, key=lambda key: (not key[1], self.places[key].sketch.total, key))
        for key in lower[: max(1, self.room // 10)]:
            del self.places[key]
