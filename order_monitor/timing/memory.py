"""What is known about each package: the ends seen, the table that plans its orders, and the level
that it borrows from while few ends were seen. All of it is stored together and removed together.

Three levels: (account, package), the account, all; and of some packages two parts of the day. A
level's curve is estimated with its parent's as the prior, worth ``CREDIT`` orders: after n orders
of its own, the parent's weight is CREDIT / (n + CREDIT) (Bühlmann's credibility 1967; as a
hierarchy of Dirichlet priors MacKay and Peto 1995). The root's prior is uniform: each
bin has the same probability.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Container, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Final

from order_monitor.timing.day import Day, is_part, key_of_part, whole
from order_monitor.timing.distribution import (
    BINS,
    FEW,
    SHARP,
    Curve,
    Ends,
    Span,
    estimating,
    finished,
    span,
)
from order_monitor.timing.hour import AT_MOST, LEADS, HourTable, RecentEnds, advantage
from order_monitor.timing.plan_table import PRICES, CallBudget, PlanTable, position
from order_monitor.timing.sketch import Sketch
from order_monitor.timing.surprise import UNUSUAL, Instant, Suspicion, known_near

Key = tuple[str, str]
"""(account, package); (account, "") is the account, and ("", "") all accounts."""

ALL: Final[Key] = ("", "")
CREDIT: Final = 2.0
"""How many orders a parent's curve counts for."""

ONCE: Final = 1.03
"""Backoff's calls an order up to which one check is to find nearly all of them."""

VAGUE: Final = [1 / BINS] * BINS

MOST_WAITING: Final = 65_535
"""The most orders that are counted at one edge: what they show outweighs all else long before."""

STALL: Final = 8.0
"""Ends that were due, and none came: one in three thousand by chance. Orders then follow backoff."""

LASTING: Final = 0.999
"""What an end leaves of the longest wait for one."""

PATIENCE: Final = 64
"""Calls of an account after which its price is recalculated."""

START: Final = 6.0
"""An account's initial place on the ladder of prices."""

LOOKED_AT: Final = 16
"""The number of places compared when memory is full; the lightest is removed."""


@dataclass(slots=True)
class Place:
    """One level's memory.

    ``sketch`` contains the ends, ``waiting`` the number of orders that wait, by the edge up to
    which that is known. ``seen`` is the number of ends, ``built`` the number when ``table`` was
    built; ``weight`` is how many orders the table represents in its account's costs. The latest
    change came with the order sent at ``since``, and ``untold`` is how many ends of such orders are
    to be seen before learning is used again. ``mass`` and
    ``ends`` are what the levels below borrow: a package has none below it and stores neither.
    ``recent`` are the ends from which the ``hour`` is learned; ``lead`` is its advantage over age,
    and ``by_hour`` whether it plans. ``day`` are a package's ends by the hour of the day.
    """

    sketch: Sketch
    waiting: array[int] = field(default_factory=lambda: array("H", bytes(2 * BINS)))
    seen: float = 0.0
    built: float = 0.0
    misfit: float = 0.0
    alert: float = 0.0
    overdue: float = 0.0
    usual: float = 0.0
    instant: Instant = field(default_factory=Instant)
    outage: Instant | None = None
    suspicion: Suspicion | None = None
    first_odd: float = math.inf
    since: float = -math.inf
    untold: int = 0
    table: PlanTable | None = None
    weight: float = 0.0
    mass: Sequence[float] | None = None
    ends: Sequence[float] = ()
    recent: RecentEnds = field(default_factory=RecentEnds)
    hour: HourTable | None = None
    lead: float = 0.0
    by_hour: bool = False
    day: Day | None = None

    @property
    def stale(self) -> bool:
        """Whether it has grown by a tenth, and at least one order, since its last estimate."""
        return self.seen >= self.built + max(1.0, 0.1 * min(self.built, self.sketch.total))

    @property
    def stalled(self) -> bool:
        """Whether nothing has ended for longer than chance explains, or than it did before."""
        return self.overdue > max(STALL, 2 * self.usual)

    @property
    def is_doubted(self) -> bool:
        """Whether its orders follow backoff: it stalls, or has changed and too few of its orders
        have ended since.
        """
        return self.untold > 0 or self.stalled

    @property
    def early_since(self) -> float:
        """From when on sent orders are asked about earlier than learned, in epoch seconds: minus
        infinity for all, infinity for none.
        """
        if self.alert > 0 or (self.suspicion is not None and self.suspicion.is_likely):
            return -math.inf
        return math.inf if self.suspicion is None else self.suspicion.since

    def precedes(self, age: float, now: float) -> bool:
        """Whether an order of this age was sent before the latest change.

        A clock that went back since then makes that unknown.
        """
        return now - age < self.since <= now

    def waits(self, before: float, age: float, now: float) -> None:
        """Note an order that still waits: how likely it was to have ended is added up until one
        does. By the hour it is not: orders that end together are also late together.
        """
        self.instant.waits(age, now)
        if self.suspicion is not None:
            self.suspicion.waits(before, age, now)
            self.suspicion = self.suspicion if self.suspicion.odds > 0 else None
        if self.table is not None and not self.by_hour:
            done = self.table.share_by(before)
            ended = self.table.share_by(age) - done
            self.overdue += ended / (1 - done) if done < 1 else 1.0

    def suspects(self, share: float, after: float, until: float, now: float) -> None:
        """Note an early end, near which only a ``share`` of the orders was known to end. How small
        that is cannot be known better than by one in all that were seen.
        """
        self.suspicion = self.suspicion or Suspicion(after, until)
        self.suspicion.ends(max(share, 1 / self.sketch.total), after, until, now)

    def starts_anew(self, *, ends_sooner: bool) -> None:
        """Forget all but a few orders: it has changed, with the first order that surprised.

        Orders sent earlier say nothing about those to come. Where orders end sooner than before,
        they follow backoff for a while: the first few ends tell least of all how early they come.
        """
        self.instant = Instant()
        self.built, self.alert = 0.0, WORRY
        self.sketch.scale(LEFT / self.sketch.total)
        self.since, self.untold = self.first_odd, AGAIN if ends_sooner else 0
        self.waiting = array("H", bytes(2 * BINS))

    def resumes(self) -> None:
        """Note an end: a wait for it that comes again and again is usual, and no outage."""
        self.usual = max(self.overdue, self.usual * LASTING)
        self.untold = max(0, self.untold - 1)
        self.overdue = 0.0

    @property
    def planning_hour(self) -> HourTable | None:
        """The table by the phase of the hour, where that plans."""
        return self.hour if self.by_hour else None

    @property
    def by_day(self) -> bool:
        """Whether the parts of the day plan."""
        return self.day is not None and self.day.plans and not self.by_hour

    def reads(self, before: float, age: float, now: float) -> bool:
        """Note an end for the phase of the hour, and let the better model plan.

        Return whether another plans from now on.
        """
        self.recent.add(before, age, now)
        if self.hour is None or self.table is None:
            return False
        gain = advantage(self.hour.hazard, self.table, (now - age, before, age))
        self.lead = min(AT_MOST, max(-AT_MOST, self.lead + gain))
        planned, self.by_hour = self.by_hour, self.lead > (0 if self.by_hour else LEADS)
        return planned is not self.by_hour

    def tells(self, hour: HourTable | None) -> None:
        """Install what the phase of the hour tells; None for nothing."""
        self.hour = hour
        if hour is None:
            self.lead, self.by_hour = 0.0, False

    def spans(self) -> Iterator[Span]:
        """Yield all evidence: closed intervals, and waiting orders as intervals without an end."""
        yield from self.sketch.spans()
        for lo, orders in enumerate(self.waiting):
            if orders:
                yield lo, BINS, float(orders)

    def later(self) -> list[float]:
        """Return, for each edge, how many ends lie, or may lie, after it."""
        until = [0.0] * BINS
        for _, hi, weight in self.sketch.spans():
            if hi < BINS:
                until[hi - 1] += weight
        return list(accumulate(reversed(until)))[::-1]


def parent(key: Key) -> Key | None:
    """Return the key whose curve substitutes for this one's; None for the root."""
    if key == ALL:
        return None
    if is_part(key):
        return whole(key)
    return (key[0], "") if key[1] else ALL


@dataclass(slots=True)
class Account:
    """One account: its purse, its place on the ladder of prices, and its packages' costs.

    ``costs`` are the calls at each price, ``equal`` those of backoff, both summed over the orders
    of the ``packages`` that have a table.
    """

    purse: CallBudget
    position: float = START
    calls: int = 0
    packages: int = 0
    costs: list[float] = field(default_factory=lambda: [0.0] * len(PRICES))
    equal: float = 0.0

    def count(self, table: PlanTable, orders: float) -> None:
        """Add a package's table with a weight in orders; a negative weight removes it."""
        self.packages += 1 if orders > 0 else -1
        self.equal += orders * table.equal
        self.costs = [
            cost + orders * calls for cost, calls in zip(self.costs, table.calls, strict=True)
        ]
        if not self.packages:
            self.costs, self.equal = [0.0] * len(PRICES), 0.0

    def settle(self, lent: PlanTable | None) -> None:
        """Recalculate the price: over the packages if there are any, otherwise for the ``lent``
        table.
        """
        self.calls = 0
        if self.packages:
            self.position = position(self.costs, self.purse.ratio * self.equal)
        elif lent is not None:
            self.position = position(lent.calls, self.purse.ratio * lent.equal)


class Memory:
    """All levels' places, at most ``room`` of them, and the accounts.

    Beyond that limit a light place is removed; its account's place keeps its data.
    """

    def __init__(self, half_life: float, room: int = 1000, budget: float | None = None) -> None:
        """Start empty; ``half_life`` (seconds) sets how fast evidence fades.

        ``budget`` is in calls a second an account; None allows as many calls as backoff would make.
        """
        self.half_life = half_life
        self.room = room
        self.places: dict[Key, Place] = {}
        self.grown: dict[Key, None] = {}
        self._budget = budget
        self._accounts: dict[str, Account] = {}

    @property
    def known(self) -> float:
        """The number of orders seen of all packages, after fading."""
        place = self.places.get(ALL)
        return 0.0 if place is None else place.sketch.total

    def lineage(self, key: Key) -> Iterator[Key]:
        """Yield the key and its ancestors. A part of the day stands alone: its package learns all that
        it learns.
        """
        level: Key | None = key
        while level is not None:
            yield level
            level = None if is_part(level) else parent(level)

    def part(self, key: Key, sent: float) -> Key | None:
        """Return the key of the part of the day in which an order was sent (epoch seconds); None if
        its package learns no parts.
        """
        place = self.places.get(key)
        if place is None or place.day is None or not place.day.parts:
            return None
        return key_of_part(key, place.day.part(sent))

    def planned_by(self, key: Key, sent: float) -> tuple[Place | None, PlanTable | None]:
        """Return what plans an order that was sent at ``sent``: its package or, where they plan, its
        part of the day; and the table.
        """
        place, table = self.places.get(key), self.find(key)
        if place is not None and place.day is not None and place.by_day:
            part = self.places.get(key_of_part(key, place.day.part(sent)))
            if part is not None:
                return part, part.table or table
        return place, table

    def part_again(self, key: Key, day: Day) -> None:
        """Take notice that the parts of a package's day are others than before: which part each
        waiting order belongs to is not known any more.
        """
        for name in (key_of_part(key, 0), key_of_part(key, 1)):
            part = self.places.get(name)
            if part is not None and day.parts:
                part.waiting = array("H", bytes(2 * BINS))
            elif part is not None:
                self._remove(name)

    def costs_by_day(self, key: Key) -> list[tuple[float, PlanTable]]:
        """Return the tables of the parts of a package's day, each with the orders seen, if they
        plan.
        """
        place = self.places.get(key)
        if place is None or not place.by_day:
            return []
        parts = [self.places.get(key_of_part(key, part)) for part in (0, 1)]
        return [(part.seen, part.table) for part in parts if part and part.table]

    def place(self, key: Key) -> Place:
        """Return the memory of a key, created if missing."""
        found = self.places.get(key)
        if found is None:
            if len(self.places) >= self.room:
                self._make_room()
            found = self.places[key] = Place(Sketch(self.half_life))
        return found

    def ended(self, key: Key, after: float, until: float, now: float) -> None:
        """Learn that an order ended between two ages.

        ``until`` is infinite if no further answer about the order will come.
        """
        found = span(after, until)
        for level in self.lineage(key):
            place = self.place(level)
            place.sketch.add(found, now)
            place.seen += 1

    def moved(self, key: Key, lo: int | None, to: int | None) -> None:
        """Learn that an order that waited at edge ``lo`` waits at edge ``to``.

        None as ``lo`` means not waiting yet, None as ``to`` not waiting any more.
        """
        for level in self.lineage(key):
            waiting = self.place(level).waiting
            if lo is not None and waiting[lo]:
                waiting[lo] -= 1
            if to is not None and waiting[to] < MOST_WAITING:
                waiting[to] += 1

    def curve(self, key: Key) -> Curve:
        """Return a fresh estimate for a key's orders, in one piece."""
        return finished(self.estimating(key))

    def estimating(self, key: Key) -> Generator[None, None, Curve]:
        """Re-estimate a key's orders, in pieces.

        Its ancestors' estimates are used unchanged.
        """
        place = self.place(key)
        prior, borrowed = self._stand_in(parent(key))
        place.built = place.seen
        ends = place.later()
        is_one = place.table is not None and place.table.equal < ONCE
        rounds = SHARP if is_one and place.sketch.total > FEW else None
        mass = yield from estimating(place.spans(), prior, CREDIT, rounds)
        if not key[1]:
            place.mass, place.ends = array("f", mass), array("f", ends)
        return Curve.of(mass, [own + lent for own, lent in zip(ends, borrowed, strict=True)])

    def lent(self, key: Key) -> Curve:
        """Return the curve for an order about which only an ancestor ``key`` is known."""
        return Curve.of(*self._stand_in(key))

    def _stand_in(self, key: Key | None) -> tuple[Sequence[float], list[float]]:
        """Return the prior that a key gives to the levels below, and its weight in ends: never more
        than ``CREDIT``.
        """
        place = None if key is None else self.places.get(key)
        if place is None or place.mass is None:
            return (VAGUE, [0.0] * BINS) if key is None else self._stand_in(parent(key))
        return place.mass, [CREDIT * ends / (ends + CREDIT) for ends in place.ends]

    def _make_room(self) -> None:
        """Remove one: among a few, checked in turn, the lightest package, or an account if there is
        none.
        """
        looked_at = [key for key in islice(self.places, LOOKED_AT + 1) if key != ALL]
        if not looked_at:
            return
        newest = max(self.places[key].sketch.at for key in looked_at)

        def worth(key: Key) -> tuple[bool, float]:
            sketch = self.places[key].sketch
            return not key[1], sketch.total * 2 ** ((sketch.at - newest) / self.half_life)

        for key in looked_at:
            self.places[key] = self.places.pop(key)
        gone = min(looked_at, key=worth)
        self._remove(gone)
        for part in (key_of_part(gone, 0), key_of_part(gone, 1)):
            if part in self.places:
                self._remove(part)

    def _remove(self, key: Key) -> None:
        self.drop(key)
        self.grown.pop(key, None)
        del self.places[key]

    # --- tables and prices

    def account(self, name: str) -> Account:
        """Return an account, created if missing."""
        found = self._accounts.get(name)
        if found is None:
            found = self._accounts[name] = Account(CallBudget(self._budget))
        return found

    def price(self, name: str) -> float:
        """Return an account's place on the ladder of prices."""
        found = self._accounts.get(name)
        return START if found is None else found.position

    def remain(self, accounts: Container[str]) -> None:
        """Forget the purses and tables of all accounts except these.

        What was seen of them fades without further action.
        """
        gone = {name for name in self._accounts if name != ALL[0] and name not in accounts}
        for key in [key for key in self.places if key[0] in gone]:
            self.drop(key)
        for name in gone:
            del self._accounts[name]

    def put(self, key: Key, table: PlanTable) -> None:
        """Install a key's table."""
        self.drop(key)
        place, account = self.place(key), self.account(key[0])
        place.table = table
        if key[1] and not is_part(key):
            place.weight = max(place.sketch.total, 1.0)
            account.count(table, place.weight)
        account.settle(self.own((key[0], "")))

    def drop(self, key: Key) -> None:
        """Remove a key's table."""
        place = self.places.get(key)
        if place is not None and place.table is not None:
            if place.weight:
                self.account(key[0]).count(place.table, -place.weight)
            place.table, place.weight = None, 0.0

    def find(self, key: Key) -> PlanTable | None:
        """Return the table for an order: its package's, otherwise the one its account lends,
        otherwise the one all accounts lend.
        """
        for level in (key, (key[0], ""), ALL):
            place = self.places.get(level)
            if place is not None and place.table is not None:
                return place.table
        return None

    def own(self, key: Key) -> PlanTable | None:
        """Return a key's own table."""
        place = self.places.get(key)
        return None if place is None else place.table

    def spend(self, name: str, backoff: float, now: float) -> None:
        """Count a call of an account, and the calls that backoff would have made for the same order
        in the same time.
        """
        account = self.account(name)
        account.purse.spend(backoff, now, account.position)
        account.calls += 1
        if account.calls >= PATIENCE:
            account.settle(self.own((name, "")))


RARE: Final = 0.03
EXPECTED: Final = 0.15
ALARM: Final = 4.0
ENOUGH: Final = 30.0
"""The fewest orders on which a judgement is made."""

NEVER: Final = 0.005
"""So few orders were known to end near an end that it alone is reason to ask early."""

WORRY: Final = 1.5
"""After such an end, backoff's early checks are made in addition to the learned ones, until ten
ordinary ends were seen.
"""

LEFT: Final = 8.0
"""Orders that are remembered of a product after it has changed."""

AGAIN: Final = 25
"""Ends of a changed product before what is learned of it is used again: the first few tell least of
all how early its orders end.
"""

SOONER: Final = 0.5
"""Where fewer were known to have ended before the end that shows a change, orders end sooner."""


def changed(
    place: Place, curve: Ends, after: float, until: float, now: float, other: Ends | None = None
) -> bool:
    """Note one more end between two ages, found at ``now``.

    If that makes too many surprises, or a suspicion certain, forget all but ``LEFT`` orders and
    return True. By chance that happens once in tens of thousands of orders. Surprises that came at
    one instant change nothing. An end that the ``other`` part of the day expects is none: it came
    where one follows the other.
    """
    share = known_near(curve, after, until)
    if other is not None:
        share = max(share, known_near(other, after, until))
    is_surprise = share < RARE
    place.alert = WORRY if share < NEVER else max(0.0, place.alert - EXPECTED)
    if place.sketch.total < ENOUGH:
        return False
    if not place.misfit:
        place.first_odd = math.inf
    place.misfit = max(0.0, place.misfit + (1.0 if is_surprise else -EXPECTED))
    if is_surprise:
        place.first_odd = min(place.first_odd, now - until)
        place.instant.end(after, until, now)
    if share < UNUSUAL and curve.share_by(until) < SOONER:
        place.suspects(share, after, until, now)
    suspicion = place.suspicion
    if suspicion is not None and suspicion.is_certain:
        place.instant, place.first_odd = suspicion.instant, suspicion.since
    elif place.misfit < ALARM:
        return False
    place.misfit, place.suspicion = 0.0, None
    if place.instant.is_one:
        place.outage, place.instant = place.instant, Instant()
        place.alert = 0.0
        return False
    place.starts_anew(ends_sooner=curve.share_by(after) < SOONER)
    return True
