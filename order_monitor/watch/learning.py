"""What the answers teach of when orders end: told to the timing as they come, kept in the shop's database now and then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from order_monitor.core.answer import Answer, Waiting
from order_monitor.core.clock import Clock
from order_monitor.core.entry import Entry
from order_monitor.core.order import Order
from order_monitor.core.outcome import Cause
from order_monitor.core.recording import Fate, Result
from order_monitor.core.schedule import Schedule
from order_monitor.core.timing.memory import Key
from order_monitor.core.timing.plan import key_of, slot_before
from order_monitor.core.timing.planner import Timing
from order_monitor.core.timing.precedence import precedence
from order_monitor.watch.engine import Engine
from order_monitor.watch.observer import Observer
from order_monitor.watch.timing_shelf import Keeper, PastEnd, TimingShelf

SAVE_EVERY: Final = 300.0
_LOOK: Final = 2.0
_PURGE_EVERY: Final = 300.0


class Learning(Observer):
    """Watches the engine, and teaches the timing."""

    def __init__(self, timing: Timing, keeper: Keeper, clock: Clock, schedule: Schedule) -> None:
        """Teach ``timing``, and keep what it has learned with ``keeper``; ends of the past were found by ``schedule``."""
        self.timing = timing
        self._shelf = TimingShelf(timing, keeper)
        self._clock = clock
        self._schedule = schedule
        self._engine: Engine | None = None
        self._asked: dict[str, tuple[Key, float]] = {}

    def adopt(self, schedule: Schedule) -> None:
        """Go on by another schedule."""
        self._schedule = schedule
        self.timing.adopt(schedule)

    def watch(self, engine: Engine) -> None:
        """Learn from ``engine``, and let its due orders go in the order that saves the most delay."""
        self._engine = engine
        engine.queue.ready.rank = self._rank

    def _rank(self, entry: Entry) -> float:
        """Sort an order by when it was due, and by how likely it has ended since it was last asked about."""
        order = entry.order
        age = entry.due - (order.sent_at or entry.due)
        chance = self.timing.chance(key_of(order), self._before(order), max(0.0, age))
        return precedence(entry.due, chance, self._schedule.cap)

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """Learn that an order still waits."""
        if self._engine is None or order.sent_at is None or order.awaits_pin or not isinstance(answer, Waiting):
            return
        now = self._engine.now()
        age = now - order.sent_at
        self.timing.waiting(key_of(order), self._before(order), age, now)
        self._asked[order.id] = (key_of(order), max(0.0, age))

    def settled(self, account: str, result: Result, delay: float) -> None:
        """Learn that an order has ended; one that the time limit ended, or somebody else, tells only that it had waited."""
        finding, write = result.finding, result.write
        order = finding.order
        is_end = result.fate is Fate.WRITTEN and write is not None and write.final
        if order.sent_at is None or order.awaits_pin or not (is_end or result.fate in (Fate.GONE, Fate.RESENT)):
            return
        before = self._before(order)
        self._asked.pop(order.id, None)
        if is_end and write is not None and write.cause is Cause.ANSWER:
            self.timing.ended(key_of(order), before, finding.took, finding.seen_at)
        else:
            self.timing.lost(key_of(order), before, finding.seen_at)

    def remain(self, accounts: Mapping[str, str]) -> None:
        """Forget what was spent on accounts that are gone; what was learned of them fades by itself."""
        self.timing.remain(accounts)

    def _before(self, order: Order) -> float:
        """Return the age at which an order was known to wait, 0 where it was never asked about."""
        _, age = self._asked.get(order.id, (None, None))
        if age is None and order.last_sync_at is not None and order.sent_at is not None:
            age = order.last_sync_at - order.sent_at
        return max(0.0, age or 0.0)

    async def run(self) -> None:
        """Make tables anew as they grow, one at a time, and keep what was learned every few minutes, for ever."""
        await self.begin()
        saved = purged = self._clock.monotonic()
        while True:
            await self._clock.sleep(_LOOK)
            self.timing.refresh()
            now = self._clock.monotonic()
            if now - purged >= _PURGE_EVERY:
                purged = now
                self._purge()
            if now - saved >= SAVE_EVERY:
                saved = now
                await self._shelf.save()

    async def begin(self) -> None:
        """Take up what is kept; at the first start, learn from the past."""
        self.seed(await self._shelf.read(self._engine.now() if self._engine else self._clock.time()))
        while self.timing.refresh():
            await self._clock.sleep(0)

    async def save(self) -> None:
        """Keep what was learned; while the database is away it waits for the next time."""
        await self._shelf.save()

    def seed(self, past: Sequence[PastEnd]) -> None:
        """Learn from the past, at the first start."""
        for end in past:
            before = slot_before(self._schedule, end.order_id, end.age)
            if end.is_end:
                self.timing.ended(end.key, before, end.age, end.at)
            else:
                self.timing.lost(end.key, before, end.at)

    def _purge(self) -> None:
        """Forget orders that are no longer open: somebody else ended them."""
        queue = self._engine.queue if self._engine else None
        for order_id in [i for i in self._asked if queue is None or queue.get(i) is None]:
            key, age = self._asked.pop(order_id)
            self.timing.lost(key, age, self._engine.now() if self._engine else 0.0)
