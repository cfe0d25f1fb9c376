"""The interface of learned timing: it learns from each answer, and says when to ask next, and why.

Ages are seconds since ``sent_at``, times are epoch seconds. Bad input raises nothing: it is counted
in ``refused`` by its reason, and skipped or clipped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Generator, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from order_monitor.core.schedule import Schedule
from order_monitor.timing.day import Day, is_part, other_part, whole
from order_monitor.timing.distribution import LAST, Ends, nearest, span
from order_monitor.timing.hour import SPREAD, HourTable, making
from order_monitor.timing.memory import ALL, Key, Memory, Place, changed, parent
from order_monitor.timing.plan_table import DEAREST, KEPT, PRICES, PlanTable, Reference, solving
from order_monitor.timing.sketch import Sketch


@dataclass(frozen=True, slots=True)
class Terms:
    """``min_interval`` and ``half_life`` are seconds.

    ``budget`` is calls a second an account, never above ``ceiling``; None for as many as backoff
    would make for the same orders. ``packages`` limits how many products are remembered
    individually.
    """

    min_interval: float = 5.0
    budget: float | None = None
    ceiling: float = 10.0
    half_life: float = 7 * 86_400.0
    packages: int = 1000


SWAY: Final = 0.03
"""Width of the jitter, as a fraction of the gap: it separates orders sent together, and samples the
same product at different ages.
"""

GOLDEN: Final = 0.6180339887498949
"""An order's jitter shifts by this from bin to bin, so that it is spread evenly."""


ENOUGH: Final = 25.0
"""The fewest orders, of all packages, before learning is used: a few orders of many packages
predict less well than backoff's own pauses.
"""

INSTANT: Final = 1e-3
"""Seconds; a smaller difference is a rounding error."""


SCOUTS: Final = 0.2
"""The part of the orders that are asked about at an early slot of backoff, whatever was learned."""

EARLY: Final = 3
"""The number of backoff's slots of which each of them asks at one."""


PROBES: Final = 0.06
"""The part of the orders whose first check comes sooner than planned: where nearly all have ended by
the first check, only these tell that it can be earlier.
"""

SOONER: Final = 0.9


@dataclass(frozen=True, slots=True)
class Next:
    """The next check of an order: its age then (seconds), and whether learning decided it."""

    age: float
    learned: bool


@dataclass(frozen=True, slots=True)
class Chooser:
    """Chooses times from a memory's tables, within ``min_interval`` (seconds) and the schedule's
    cap and time limit.
    """

    schedule: Schedule
    min_interval: float
    memory: Memory

    def next(self, key: Key, order_id: str, age: float, sent_at: float) -> Next:
        """Return the next check of an order, sent at ``sent_at`` (epoch seconds), that waited at
        ``age`` (seconds), 0 if it was never asked about.
        """
        place, table = self.memory.planned_by(key, sent_at)
        if (
            table is None
            or self.memory.known < ENOUGH
            or not 0 <= age < self.schedule.give_up_after
        ):
            return self._backoff(order_id, max(0.0, age) if math.isfinite(age) else 0.0)
        here = nearest(age)
        fate, side, sway = _dice(order_id)
        is_doubted = place is not None and place.is_doubted
        if is_doubted:
            return self._backoff(order_id, age)
        price = self.memory.price(key[0])
        rung = int(price)
        rung += rung < DEAREST and side < price - rung
        hour = None if place is None else place.planning_hour
        if hour is not None:
            return self._by_hour(hour, rung, age, sent_at, sway)
        if here >= LAST or not table.trusts(here, fate):
            return self._backoff(order_id, age)
        gap = table.following(rung, here) - age
        gap *= 1 + SWAY * ((sway + here * GOLDEN) % 1 - 0.5)
        if age <= 0 and sway >= 1 - PROBES:
            gap *= SOONER
        gap = min(max(gap, self.min_interval), self.schedule.cap)
        early = self._early(place, order_id, age, sent_at, sway)
        if early is not None and early < age + gap:
            age = max(early, age + self.min_interval)
            return Next(min(age, self.schedule.give_up_after), learned=False)
        return Next(min(age + gap, self.schedule.give_up_after), learned=True)

    def _by_hour(self, hour: HourTable, rung: int, age: float, sent_at: float, dice: float) -> Next:
        """Return the next check at the phase of the hour that is likely to bring an end."""
        found = hour.following(rung, sent_at + age) + SPREAD * dice - sent_at
        found = min(max(found, age + self.min_interval), age + self.schedule.cap)
        return Next(min(found, self.schedule.give_up_after), learned=True)

    def _early(
        self, place: Place | None, order_id: str, age: float, sent_at: float, dice: float
    ) -> float | None:
        """Return backoff's next slot if it is to be asked as well; None otherwise.

        All orders of a product that surprises ask early, and those that a suspicion concerns about
        its age; of the others a part asks once, at one of the first slots, so that a product that
        has become fast can surprise.
        """
        suspicion = None if place is None else place.suspicion
        if suspicion is not None and suspicion.concerns(age, sent_at):
            return self.schedule.following(order_id, max(age, suspicion.after))
        if place is not None and place.alert > 0:
            return self.schedule.following(order_id, age)
        if age > 0 or dice >= SCOUTS:
            return None
        return self.schedule.slot(order_id, 1 + int(dice / SCOUTS * EARLY))

    def _backoff(self, order_id: str, age: float) -> Next:
        """Return backoff's next slot that is not too close to the last check.

        The time limit is never skipped.
        """
        slot = self.schedule.following(order_id, age)
        soonest = age + (INSTANT if slot == self.schedule.give_up_after else self.min_interval)
        return Next(
            slot if slot >= soonest else self.schedule.following(order_id, soonest), learned=False
        )


def _dice(order_id: str) -> tuple[float, float, float]:
    """Return three numbers in [0, 1) for an order, the same on every machine."""
    digest = blake2b(order_id.encode("utf-8", "surrogatepass"), digest_size=12).digest()
    return (
        int.from_bytes(digest[:4]) / 2**32,
        int.from_bytes(digest[4:8]) / 2**32,
        int.from_bytes(digest[8:]) / 2**32,
    )


DOUBT: Final = 0.35
"""The number of ends seen later than an age at which half of the orders of that age follow
learning, and half backoff.
"""


class Basis(NamedTuple):
    """The inputs of a product's plan; while they are unchanged, so is the plan.

    ``place`` is the price's place on the ladder.
    """

    table: PlanTable | None
    place: float
    schedule: Schedule


class Reason(NamedTuple):
    """The reason for an order's next check.

    ``known`` describes when orders end, None if that is unknown; ``is_own`` is true if it is the
    package's own.
    """

    next: Next
    known: Ends | None
    is_own: bool


class Fresh:
    """What was learned and not stored yet: a sketch for each key, up to a limit."""

    def __init__(self, half_life: float, room: int) -> None:
        """Start empty; evidence fades with ``half_life`` (seconds)."""
        self._half_life = half_life
        self._room = room
        self._sketches: dict[Key, Sketch] = {}

    def of(self, key: Key) -> Sketch:
        """Return the new evidence of a key.

        Beyond the limit of keys, its account's sketch, or the overall one, is used.
        """
        while key not in self._sketches and key != ALL and len(self._sketches) >= self._room:
            key = (key[0], "") if key[1] else ALL
        return self._sketches.setdefault(key, Sketch(self._half_life))

    def give_back(self, learned: Mapping[Key, Sketch]) -> None:
        """Take back what could not be stored; only newer evidence is merged, one key at a time."""
        for key, sketch in learned.items():
            if key not in self._sketches and len(self._sketches) < self._room:
                self._sketches[key] = sketch
            else:
                self.of(key).merge(sketch)

    def drain(self) -> dict[Key, Sketch]:
        """Return everything, and start empty again."""
        fresh, self._sketches = self._sketches, {}
        return fresh


def nonsense(before: float, age: float, now: float) -> str | None:
    """Return the reason why nothing can be learned from an answer; None if it can."""
    if not (math.isfinite(before) and math.isfinite(age) and math.isfinite(now)):
        return "no_number"
    if before < 0 or age < 0:
        return "before_sent"
    return "backwards" if age < before else None


def longest_age(schedule: Schedule) -> float:
    """Return the age (seconds) beyond which no order that is asked about in time is still
    checked.
    """
    return schedule.give_up_after + 2 * schedule.cap


SILENCE: Final = 86_400.0
"""The most seconds counted between two answers."""

SKEW: Final = 600.0
"""Seconds by which answers may arrive out of order."""


class SteadyTime:
    """The time by which evidence fades: it never goes back, and never jumps.

    A clock that was set ahead ages everything by ``SILENCE`` at most, and one that was set back
    continues from there.
    """

    def __init__(self) -> None:
        """Start with the first time that is read."""
        self._read = -math.inf
        self._steady = -math.inf

    def resume(self, at: float) -> None:
        """Continue from a stored time (epoch seconds), if it is the newest."""
        if at > self._read:
            self._read = self._steady = at

    def read(self, now: float) -> tuple[float, bool]:
        """Return the time (epoch seconds) when a clock shows ``now``, and whether it has jumped."""
        since = now - self._read
        if math.isinf(self._read):
            self._read = self._steady = now
            return now, False
        if since > 0 or since < -SKEW:
            self._read = now
            self._steady += min(max(0.0, since), SILENCE)
        return self._steady, not -SKEW <= since <= SILENCE


class Outlook:
    """When to ask about which order, and what is known about their ends; read-only."""

    def __init__(self, schedule: Schedule, terms: Terms) -> None:
        """Start with nothing known: every order follows ``schedule``."""
        self._schedule = schedule
        self._terms = terms
        budget = None if terms.budget is None else min(terms.budget, terms.ceiling)
        self._memory = Memory(terms.half_life, terms.packages, budget)
        self._chooser = Chooser(schedule, terms.min_interval, self._memory)
        self._latest = 0.0

    def next_check(
        self, key: Key, order_id: str, age: float, sent_at: float | None = None
    ) -> float:
        """Return the age of the next check of an order that waited at ``age``, 0 if it was never
        asked about.

        ``sent_at`` (epoch seconds) tells its phase of the hour. Without it, it counts as having
        that age at the latest answer.
        """
        return self._next(key, order_id, age, sent_at).age

    def _next(self, key: Key, order_id: str, age: float, sent_at: float | None) -> Next:
        return self._chooser.next(key, order_id, age, self._sent(age, sent_at))

    def _sent(self, age: float, sent_at: float | None) -> float:
        return self._latest - age if sent_at is None else sent_at

    def reason(self, key: Key, order_id: str, age: float, sent_at: float | None = None) -> Reason:
        """Return when `next_check` asks, and what is known about such orders."""
        _, table = self._memory.planned_by(key, self._sent(age, sent_at))
        is_own = table is None or self._memory.own(key) is not None
        return Reason(self._next(key, order_id, age, sent_at), table, is_own=is_own)

    def chance(self, key: Key, before: float, age: float) -> float:
        """Return the probability that an order that waited at ``before`` has ended by ``age``, a
        half if nothing is known.
        """
        table = self._memory.find(key)
        if table is None or not 0 <= before <= age:
            return 0.5
        done = table.share_by(before)
        return (table.share_by(age) - done) / (1 - done) if done < 1 else 0.5

    def orders(self) -> Mapping[str, float]:
        """Return, for each account, the number of ends it has learned from, after fading."""
        return {
            key[0]: place.sketch.total
            for key, place in self._memory.places.items()
            if key[0] and not key[1]
        }

    def learned(self) -> list[tuple[Key, float]]:
        """Return the products that have their own table, with the number of ends behind it, those
        with most first.
        """
        found = [
            (key, place.sketch.total)
            for key, place in self._memory.places.items()
            if key[1] and place.table and not is_part(key)
        ]
        return sorted(found, key=lambda one: (-one[1], one[0]))

    def basis(self, key: Key) -> Basis:
        """Return the current plan inputs of a product."""
        return Basis(self._memory.find(key), self._memory.price(key[0]), self._schedule)

    def quantile(self, key: Key, share: float) -> float | None:
        """Return the age (seconds) by which ``share`` of a product's orders have ended.

        None if that is unknown.
        """
        table = self._memory.find(key)
        return None if table is None else table.quantile(share)

    def dump(self) -> Iterator[tuple[Key, str]]:
        """Yield each level's sketch as JSON, to be stored with those of other processes."""
        for key, place in self._memory.places.items():
            if not is_part(key):
                yield key, place.sketch.dump()


class Timing(Outlook):
    """When to ask about which order, learned from past ends."""

    def __init__(self, schedule: Schedule, terms: Terms) -> None:
        """Start with nothing learned."""
        super().__init__(schedule, terms)
        self.refused: Counter[str] = Counter()
        self._reference = Reference(schedule)
        self._fresh = Fresh(terms.half_life, terms.packages)
        self._time = SteadyTime()
        self._late: dict[str, float] = {}
        self._surprised: dict[Key, float] = {}
        self._making: tuple[Key, Generator[None, None, None]] | None = None

    def reconfigure(self, schedule: Schedule) -> None:
        """Switch to another schedule: evidence stays, and each table is rebuilt for it."""
        if schedule != self._schedule:
            self._schedule, self._reference = schedule, Reference(schedule)
            self._chooser = Chooser(schedule, self._terms.min_interval, self._memory)
            self._abandon()
            self._memory.grown |= {
                key: None for key, place in self._memory.places.items() if place.table
            }

    def remain(self, accounts: Container[str]) -> None:
        """Forget the plans of all accounts except these.

        What was learned about them fades without further action.
        """
        self._memory.remain(accounts)

    def found(self, order_id: str, asked: float, age: float, due: float) -> None:
        """Note that an order was found at ``age``, last asked about at ``asked``, and is ``due``.

        If backoff had a check in between, it would have asked only now. That is stored until
        `found_late` reads it.
        """
        slot = self._schedule.latest(order_id, age)
        if slot is not None and slot > asked:
            self._late[order_id] = age if due > age else math.inf
        else:
            self._late.pop(order_id, None)

    def found_late(self, order_id: str) -> float:
        """Return, once, the age at which an order was found with backoff's check overdue.

        0 if it was not overdue; infinite if learning's check was overdue as well, so that both ask
        at the same time, however long the queue is.
        """
        return self._late.pop(order_id, 0.0)

    def waiting(self, key: Key, before: float, age: float, now: float, found: float = 0.0) -> None:
        """Learn that an order still waits at ``age``, as it did at ``before`` (0 if it was never
        asked about); ``found`` is the result of `found_late`.
        """
        steady = self._checked(before, age, now)
        if steady is not None:
            level = self._level(key, age, now)
            self._memory.moved(level, nearest(before) if before > 0 else None, nearest(age))
            if level == key:
                self._memory.place(key).waits(before, age, now)
            part = self._part(key, age, now)
            if part is not None:
                self._memory.moved(part, nearest(before) if before > 0 else None, nearest(age))
                self._memory.place(part).waits(before, age, now)
            self._memory.spend(key[0], self._reference.waited(before, age, found), steady)

    def ended(self, key: Key, before: float, age: float, now: float, found: float = 0.0) -> None:
        """Learn that an order that waited at ``before`` was found ended at ``age``.

        Completed and cancelled count alike. An order found long after the time limit, after a
        downtime or with a wrong ``sent_at``, only shows that it had waited.
        """
        table = self._memory.find(key)
        steady = self._end_learned(key, before, age, now)
        if steady is not None:
            self._memory.spend(key[0], self._reference.ended(before, age, table, found), steady)
            self._note_growth(key)

    def recall(self, key: Key, before: float, age: float, now: float) -> None:
        """Learn from a past end, as `ended` does, without counting a call: none was made now.

        Counted, each would look as if backoff had made a little more than one call for it, and a
        long history would be spent like a gift.
        """
        if self._end_learned(key, before, age, now) is not None:
            self._note_growth(key)

    def _end_learned(self, key: Key, before: float, age: float, now: float) -> float | None:
        """Learn from an end; return its steady time, None if it tells nothing."""
        steady = self._checked(before, age, now)
        if steady is None:
            return None
        if age > longest_age(self._schedule):
            self.refused["too_long"] += 1
            if before > 0:
                self._lost(key, before, age, now, steady)
            return None
        self._learn_by_day(key, before, age, now, steady)
        level = self._level(key, age, now)
        if level == key and not self._is_to_be_learned(key, before, age, now):
            return steady
        self._memory.moved(level, nearest(before) if before > 0 else None, None)
        self._learn(level, before, age, steady)
        return steady

    def _part(self, key: Key, age: float, now: float) -> Key | None:
        """Return the part of the day that an order's answers are evidence of, if any."""
        part = self._memory.part(key, now - age)
        if part is not None and part in self._memory.places:
            return None if self._memory.places[part].precedes(age, now) else part
        return part

    def _learn_by_day(self, key: Key, before: float, age: float, now: float, steady: float) -> None:
        """Learn from an end by the part of the day in which the order was sent, and let the better of
        the parts and the whole plan.
        """
        place = self._memory.place(key)
        day = place.day = place.day or Day()
        part = self._part(key, age, now)
        if part is not None:
            own = self._memory.own(part)
            if own and place.table and day.judge(now - age, own, place.table, before, age):
                self._memory.grown[key] = None
            if self._is_to_be_learned(part, before, age, now):
                self._memory.moved(part, nearest(before) if before > 0 else None, None)
                self._memory.ended(part, before, age, steady)
            for one in (part, other_part(part)):
                self._note_growth(one)
        day.count(now - age, before, age)

    def _is_to_be_learned(self, key: Key, before: float, age: float, now: float) -> bool:
        """Judge an end by what was known of its package, and return whether it is to be learned:
        not if it came with an outage.
        """
        own, place = self._memory.own(key), self._memory.place(key)
        was = place.early_since
        place.resumes()
        if place.outage is not None:
            if place.outage.holds(before, age, now):
                self._memory.moved(key, nearest(before) if before > 0 else None, None)
                return False
            place.outage = None
            self._memory.grown |= dict.fromkeys(self._memory.lineage(key))
        if not is_part(key) and place.reads(before, age, now):
            self._memory.grown[key] = None
        other = self._memory.own(other_part(key)) if is_part(key) else None
        if own is not None and not place.by_hour and changed(place, own, before, age, now, other):
            self._memory.drop(key)
            self._abandon(key)
            was = math.inf
        if place.early_since < was:
            name = whole(key)
            self._surprised[name] = min(place.early_since, self._surprised.get(name, math.inf))
        return True

    def surprised(self) -> dict[Key, float]:
        """Return, once, the packages whose orders are asked earlier from now on, with the time
        (epoch seconds) since which they were sent: those that wait are to be planned again.
        """
        found, self._surprised = self._surprised, {}
        return found

    def _level(self, key: Key, age: float, now: float) -> Key:
        """Return what an order's answers are evidence of: its package, or only the level above if
        it was sent before the package changed.
        """
        place = self._memory.places.get(key)
        is_old = place is not None and place.precedes(age, now)
        return (parent(key) or key) if is_old else key

    def late(self) -> list[str]:
        """Return the orders that were found late and not asked about since then."""
        return list(self._late)

    def lost(self, key: Key, before: float, now: float) -> None:
        """Learn that there will be no more news of an order that waited at ``before``: its time was
        up, or a person closed it.
        """
        steady = self._checked(before, before, now)
        if steady is not None:
            self._lost(key, before, before, now, steady)

    def _lost(self, key: Key, before: float, age: float, now: float, steady: float) -> None:
        level, part = self._level(key, age, now), self._part(key, age, now)
        for one in (level,) if part is None else (level, part):
            self._memory.moved(one, nearest(before) if before > 0 else None, None)
        self._learn(level, before, math.inf, steady)
        if part is not None:
            self._memory.ended(part, before, math.inf, steady)

    def step(self) -> bool:
        """Run one piece of rebuilding the tables whose orders grew by a tenth.

        A piece takes about a millisecond, whatever the number of packages, and a table about fifty
        pieces. Return whether there is more to do.
        """
        if self._making is None:
            key = next(iter(self._memory.grown), None)
            if key is None:
                return False
            del self._memory.grown[key]
            self._making = key, self._made(key)
        if next(self._making[1], True):
            self._making = None
        return self._making is not None or bool(self._memory.grown)

    def refresh(self, most: int = 1) -> int:
        """Rebuild up to ``most`` tables, tens of milliseconds each.

        Return how many are left.
        """
        for _ in range(most):
            while self.step() and self._making is not None:
                pass
        return len(self._memory.grown) + (self._making is not None)

    def _made(self, key: Key) -> Generator[None, None, None]:
        """Build a key's table from what is known, and install it."""
        place = self._memory.place(key)
        curve = yield from self._memory.estimating(key)
        curve = curve if key[1] else self._memory.lent(key)
        trust = [ends / (ends + DOUBT) for ends in curve.evidence]
        ladder = []
        for price in PRICES:
            yield
            found = yield from solving(curve, price, self._terms.min_interval, self._schedule.cap)
            ladder.append(found)
        price_now = self._memory.price(key[0]) if self._memory.account(key[0]).packages else None
        yield
        equal = self._reference.calls(curve)
        hour = yield from making(
            place.recent,
            curve,
            self._memory.price(key[0]),
            self._terms.min_interval,
            self._schedule.cap,
        )
        place.tells(hour)
        planning = place.planning_hour
        table = PlanTable(curve, trust, equal, ladder, price_now, KEPT if planning is None else 1)
        if planning is not None:
            table.calls = planning.calls
        if self._memory.places.get(key) is not place:
            return
        if place.day is not None and place.day.find_parts():
            self._memory.part_again(key, place.day)
        if by_day := self._memory.costs_by_day(key):
            table.costs_as(by_day)
        self._memory.put(key, table)

    def _abandon(self, key: Key | None = None) -> None:
        """Restart the table being built: any, or a key's."""
        if self._making is not None and key in (None, self._making[0]):
            self._memory.grown[self._making[0]] = None
            self._making = None

    def drain(self) -> dict[Key, Sketch]:
        """Return what was learned since the last call, to be added to the store."""
        return self._fresh.drain()

    def give_back(self, learned: Mapping[Key, Sketch]) -> None:
        """Take back what could not be stored, for the next time."""
        self._fresh.give_back(learned)

    def load(self, stored: Mapping[Key, str], now: float) -> None:
        """Add stored sketches to what is known.

        Sketches of another version, and broken ones, are counted and skipped.
        """
        for key, text in stored.items():
            sketch = Sketch.load(text, self._terms.half_life, now)
            if sketch is None:
                self.refused["sketch"] += 1
                continue
            place = self._memory.place(key)
            place.sketch.merge(sketch)
            place.seen += sketch.total
            self._time.resume(sketch.at)
            self._note_growth(key)

    def _learn(self, key: Key, before: float, age: float, now: float) -> None:
        self._memory.ended(key, before, age, now)
        for level in self._memory.lineage(key):
            self._fresh.of(level).add(span(before, age), now)

    def _checked(self, before: float, age: float, now: float) -> float | None:
        """Return the steady time of an answer.

        None if nothing can be learned from it; the reason is counted.
        """
        reason = nonsense(before, age, now)
        if reason is None and before > longest_age(self._schedule):
            reason = "too_long"
        if reason is not None:
            self.refused[reason] += 1
            return None
        self._latest = now
        steady, has_leapt = self._time.read(now)
        self.refused.update(["leap"] if has_leapt else [])
        return steady

    def _note_growth(self, key: Key) -> None:
        for level in self._memory.lineage(key):
            place = self._memory.places.get(level)
            if place is not None and (place.stale or self._is_off_price(level)):
                self._memory.grown[level] = None

    def _is_off_price(self, key: Key) -> bool:
        """Whether a key's table lacks the plans of the price in force."""
        place, price = self._memory.places.get(key), self._memory.price(key[0])
        table = None if place is None else place.planning_hour or place.table
        return table is not None and not table.keeps(price)
