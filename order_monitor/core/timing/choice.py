"""One order's next check: a look-up in its table, or backoff's next slot where too little is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from order_monitor.core.schedule import Schedule
from order_monitor.core.timing.bins import LAST, nearest
from order_monitor.core.timing.book import Book
from order_monitor.core.timing.memory import Key
from order_monitor.core.timing.price import DEAREST

SWAY: Final = 0.03
"""Width of the jitter, as a part of the gap: it parts orders sent together, and lets the same product be seen at different ages."""

GOLDEN: Final = 0.6180339887498949
"""An order's jitter moves on by this from bin to bin, so that it is spread evenly."""


INSTANT: Final = 1e-3
"""Seconds; less is a rounding of the same moment."""


@dataclass(frozen=True, slots=True)
class Next:
    """The next check of an order: its age then (seconds), and whether what was learned decided it."""

    age: float
    learned: bool


@dataclass(frozen=True, slots=True)
class Chooser:
    """Chooses by the tables of a book, within ``min_interval`` (seconds) and the schedule's cap and time limit."""

    schedule: Schedule
    min_interval: float
    book: Book

    def next(self, key: Key, order_id: str, age: float) -> Next:
        """Return the next check of an order that waited at ``age`` (seconds), 0 where it was never asked about."""
        table = self.book.find(key)
        if table is None or not 0 <= age < self.schedule.give_up_after:
            return self._backoff(order_id, max(0.0, age) if math.isfinite(age) else 0.0)
        here = nearest(age)
        fate, side, sway = _dice(order_id)
        if here >= LAST or fate >= table.trust[here]:
            return self._backoff(order_id, age)
        place = self.book.account(key[0]).position
        rung = int(place)
        rung += rung < DEAREST and side < place - rung
        gap = table.at(rung).following[here] - age
        gap *= 1 + SWAY * ((sway + here * GOLDEN) % 1 - 0.5)
        gap = min(max(gap, self.min_interval), self.schedule.cap)
        return Next(min(age + gap, self.schedule.give_up_after), learned=True)

    def _backoff(self, order_id: str, age: float) -> Next:
        """Return backoff's next slot that is not too near to the last check; the time limit is never left out."""
        slot = self.schedule.following(order_id, age)
        soonest = age + (INSTANT if slot == self.schedule.give_up_after else self.min_interval)
        return Next(slot if slot >= soonest else self.schedule.following(order_id, soonest), learned=False)


def _dice(order_id: str) -> tuple[float, float, float]:
    """Return three numbers in [0, 1) of an order's own, the same on every machine."""
    digest = blake2b(order_id.encode("utf-8", "surrogatepass"), digest_size=12).digest()
    return (
        int.from_bytes(digest[:4]) / 2**32,
        int.from_bytes(digest[4:8]) / 2**32,
        int.from_bytes(digest[8:]) / 2**32,
    )
