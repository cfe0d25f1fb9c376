"""Learned timing as the program sees it: told what each answer said, it says when to ask next, and why.

Ages are seconds since ``sent_at``, times epoch seconds. Bad input raises nothing: it is counted in
``refused``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from typing import Final, NamedTuple

from order_monitor.core.schedule import Schedule
from order_monitor.core.timing.bins import nearest, span
from order_monitor.core.timing.book import Book
from order_monitor.core.timing.choice import Chooser
from order_monitor.core.timing.fit import changed
from order_monitor.core.timing.memory import ALL, Key, Memory
from order_monitor.core.timing.price import PlanTable
from order_monitor.core.timing.reference import Reference
from order_monitor.core.timing.sketch import Sketch
from order_monitor.core.timing.terms import Terms
from order_monitor.core.timing.words import explained

DOUBT: Final = 0.35
"""Ends seen later than an age at which half of the orders of that age would follow what was learned, half of them backoff."""


class Basis(NamedTuple):
    """What a product's plan is made of; while all of it is the same, so is the plan. ``place`` is the price's on its ladder."""

    table: PlanTable | None
    place: float
    schedule: Schedule


class Fresh:
    """What was learned and is not kept yet: a sketch for each key, as far as there is room."""

    def __init__(self, half_life: float, room: int) -> None:
        """Begin with nothing; what was seen fades by ``half_life`` (seconds)."""
        self._half_life = half_life
        self._room = room
        self._sketches: dict[Key, Sketch] = {}

    def of(self, key: Key) -> Sketch:
        """Return what is fresh of a key; beyond the room for keys its account's, or all's, stands for it."""
        while key not in self._sketches and key != ALL and len(self._sketches) >= self._room:
            key = (key[0], "") if key[1] else ALL
        return self._sketches.setdefault(key, Sketch(self._half_life))

    def take(self) -> dict[Key, Sketch]:
        """Return all of it, and begin anew."""
        fresh, self._sketches = self._sketches, {}
        return fresh


def nonsense(before: float, age: float, now: float) -> str | None:
    """Say why nothing can be learned from an answer; None where it can."""
    if not (math.isfinite(before) and math.isfinite(age) and math.isfinite(now)):
        return "no_number"
    if before < 0 or age < 0:
        return "before_sent"
    return "backwards" if age < before else None


class Outlook:
    """When to ask about which order, and what is known of when orders end; it only tells."""

    def __init__(self, schedule: Schedule, terms: Terms) -> None:
        """Begin with nothing known: every order is asked about as ``schedule`` has it."""
        self._schedule = schedule
        self._terms = terms
        self._memory = Memory(terms.half_life, terms.packages)
        self._book = Book(None if terms.budget is None else min(terms.budget, terms.ceiling))
        self._chooser = Chooser(schedule, terms.min_interval, self._book)

    def next_check(self, key: Key, order_id: str, age: float) -> float:
        """Return the age at which to ask next about an order that waited at ``age``, 0 where it was never asked about."""
        return self._chooser.next(key, order_id, age).age

    def explain(self, key: Key, order_id: str, age: float) -> str:
        """Return in one sentence when `next_check` asks, and why."""
        own, table = self._book.own(key), self._book.find(key)
        whose = "this package's orders" if own is not None or table is None else "orders like it"
        return explained(self._chooser.next(key, order_id, age), age, None if table is None else table.curve, whose)

    def chance(self, key: Key, before: float, age: float) -> float:
        """Return the probability that an order that waited at ``before`` has ended by ``age``, a half where nothing is known."""
        table = self._book.find(key)
        if table is None or not 0 <= before <= age:
            return 0.5
        done = table.curve.share_by(before)
        return (table.curve.share_by(age) - done) / (1 - done) if done < 1 else 0.5

    def orders(self) -> Mapping[str, float]:
        """Return for each account how many ends it has learned from, as far as they have not faded."""
        return {key[0]: place.sketch.total for key, place in self._memory.places.items() if key[0] and not key[1]}

    def learned(self) -> list[tuple[Key, float]]:
        """Return the products that have a table of their own, each with how many ends it rests on, those with most first."""
        found = [
            (key, place.sketch.total) for key, place in self._memory.places.items() if key[1] and self._book.own(key)
        ]
        return sorted(found, key=lambda one: (-one[1], one[0]))

    def basis(self, key: Key) -> Basis:
        """Return what a product's orders are planned by at present."""
        return Basis(self._book.find(key), self._book.account(key[0]).position, self._schedule)

    def quantile(self, key: Key, share: float) -> float | None:
        """Return the age (seconds) by which ``share`` of a product's orders have ended; None where that is not known."""
        table = self._book.find(key)
        return None if table is None else table.curve.quantile(share)

    def dump(self) -> Iterator[tuple[Key, str]]:
        """Yield each level's sketch as JSON, to be stored beside those of other processes."""
        for key, place in self._memory.places.items():
            yield key, place.sketch.dump()


class Timing(Outlook):
    """When to ask about which order, learned from when orders ended."""

    def __init__(self, schedule: Schedule, terms: Terms) -> None:
        """Begin with nothing learned."""
        super().__init__(schedule, terms)
        self.refused: Counter[str] = Counter()
        self._reference = Reference(schedule)
        self._grown: dict[Key, None] = {}
        self._fresh = Fresh(terms.half_life, terms.packages)

    def adopt(self, schedule: Schedule) -> None:
        """Go on by another schedule: what was learned stays, and each table is made anew by it."""
        if schedule != self._schedule:
            self._schedule, self._reference = schedule, Reference(schedule)
            self._chooser = Chooser(schedule, self._terms.min_interval, self._book)
            self._grown.update(dict.fromkeys(self._book.keys()))

    def remain(self, accounts: Container[str]) -> None:
        """Forget the plans of accounts that are none of these; what was learned of them fades by itself."""
        self._book.remain(accounts, self._memory.places)

    def waiting(self, key: Key, before: float, age: float, now: float) -> None:
        """Learn that an order still waits at ``age``, as it did at ``before`` (0 where it was never asked about)."""
        if self._makes_sense(before, age, now):
            self._memory.moved(key, nearest(before) if before > 0 else None, nearest(age))
            self._book.spend(key[0], self._reference.waited(before, age), now)

    def ended(self, key: Key, before: float, age: float, now: float) -> None:
        """Learn that an order that waited at ``before`` was found at ``age`` to have ended; completed and cancelled alike."""
        if not self._makes_sense(before, age, now):
            return
        own, table = self._book.own(key), self._book.find(key)
        if own is not None and changed(self._memory.place(key), own.curve, before, age):
            self._book.drop(key)
        self._memory.moved(key, nearest(before) if before > 0 else None, None)
        self._learn(key, before, age, now)
        self._book.spend(key[0], self._reference.ended(before, age, None if table is None else table.curve), now)
        self._note_growth(key)

    def lost(self, key: Key, before: float, now: float) -> None:
        """Learn that no more will be heard of an order that waited at ``before``: its time was up, or a person closed it."""
        if self._makes_sense(before, before, now):
            self._memory.moved(key, nearest(before) if before > 0 else None, None)
            self._learn(key, before, math.inf, now)

    def refresh(self, most: int = 1) -> int:
        """Make up to ``most`` tables anew whose orders grew by a tenth, tens of milliseconds each; return how many are left."""
        for key in list(self._grown)[:most]:
            del self._grown[key]
            place = self._memory.place(key)
            curve = self._memory.curve(key)
            curve = curve if key[1] else self._memory.lent(key)
            trust = [ends / (ends + DOUBT) for ends in curve.evidence]
            equal = self._reference.calls(curve)
            table = PlanTable(curve, self._terms.min_interval, self._schedule.cap, equal, trust)
            self._book.put(key, place.sketch.total, table)
        return len(self._grown)

    def take(self) -> dict[Key, Sketch]:
        """Return what was learned since this was called last, to be added to what is kept."""
        return self._fresh.take()

    def give_back(self, learned: Mapping[Key, Sketch]) -> None:
        """Take back what could not be kept, for the next time."""
        for key, sketch in learned.items():
            self._fresh.of(key).merge(sketch)

    def load(self, stored: Mapping[Key, str], now: float) -> None:
        """Add stored sketches to what is known; those of another version, and broken ones, are counted and left out."""
        for key, text in stored.items():
            sketch = Sketch.load(text, self._terms.half_life, now)
            if sketch is None:
                self.refused["sketch"] += 1
                continue
            place = self._memory.place(key)
            place.sketch.merge(sketch)
            place.seen += sketch.total
            self._note_growth(key)

    def _learn(self, key: Key, before: float, age: float, now: float) -> None:
        self._memory.ended(key, before, age, now)
        for level in self._memory.lineage(key):
            self._fresh.of(level).add(span(before, age), now)

    def _makes_sense(self, before: float, age: float, now: float) -> bool:
        """Whether an answer can be learned from; counts the reason where it cannot."""
        reason = nonsense(before, age, now)
        self.refused.update([reason] if reason else [])
        return reason is None

    def _note_growth(self, key: Key) -> None:
        for level in self._memory.lineage(key):
            if self._memory.place(level).stale:
                self._grown[level] = None
