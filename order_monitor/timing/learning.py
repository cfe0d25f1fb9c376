"""Learns from each answer when orders end, and saves the result in the shop's database now and
then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import structlog

from order_monitor.core.answer import Answer, Cancelled, Completed, Waiting
from order_monitor.core.check_result import WriteResult, WriteStatus
from order_monitor.core.clock import Clock
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.core.order import Order
from order_monitor.core.outcome import Cause
from order_monitor.core.schedule import Schedule
from order_monitor.core.tracked_order import NOTHING, Stage, TrackedOrder
from order_monitor.timing.memory import Key
from order_monitor.timing.plan import ONE, PastEnd, age_asked, key_of, known_to_wait, precedence
from order_monitor.timing.planner import Timing
from order_monitor.timing.sketch import Sketch
from order_monitor.watch.engine import Engine
from order_monitor.watch.observer import Observer
from order_monitor.watch.turns import unhurried


class TimingStore(Protocol):
    """The store of sketches: `order_monitor.timing.store.Timings`."""

    async def read(self) -> Mapping[Key, str] | None:
        """Return the stored sketches, None if there is no table for them."""

    async def history(self) -> Sequence[PastEnd]:
        """Return past ends, oldest first."""

    async def save(self, learned: Mapping[Key, Sketch]) -> None:
        """Add what was learned since the last call to the store."""


class TimingSync:
    """Loads and saves a timing's learning."""

    def __init__(self, timing: Timing, store: TimingStore) -> None:
        """Save what ``timing`` has learned in ``store``."""
        self._timing = timing
        self._store = store
        self._kept = True
        self._log = structlog.get_logger("order_monitor.timing")

    async def save(self) -> None:
        """Save what was learned; while the database is unavailable it waits for the next time."""
        learned = self._timing.drain()
        if not learned:
            return
        try:
            await self._store.save(learned)
        except ShopError as error:
            self._timing.give_back(learned)
            self._log_failure(str(error))

    async def read(self) -> tuple[Mapping[Key, str], Sequence[PastEnd]]:
        """Return the stored sketches or, if there are none, past ends to learn from."""
        try:
            kept = await self._store.read()
            past = [] if kept else await self._store.history()
        except (ShopError, SettingsError) as error:
            self._log_failure(str(error))
            return {}, []
        if kept is None:
            self._log_failure("there is no table order_monitor_timing; run order-monitor migrate")
        return kept or {}, past

    def _log_failure(self, why: str) -> None:
        if self._kept:
            self._kept = False
            self._log.warning("timing.not_kept", why=why)


SAVE_EVERY: Final = 300.0
_LOOK: Final = 2.0
_PURGE_EVERY: Final = 300.0
_PIECES: Final = 60
"""Pieces of table rebuilding between two scans: about one table, and 2 % of a CPU."""

_AT_ONCE: Final = 20
"""Orders learned from in one step, when a large number is available."""


class Learning(Observer):
    """Observes the engine, and trains the timing."""

    def __init__(
        self, timing: Timing, store: TimingStore, clock: Clock, schedule: Schedule
    ) -> None:
        """Train ``timing``, and save what it has learned in ``store``.

        Past ends were found by ``schedule``.
        """
        self.timing = timing
        self._sync = TimingSync(timing, store)
        self._clock = clock
        self._schedule = schedule
        self._engine: Engine | None = None
        self._asked: dict[str, tuple[Key, float]] = {}

    def reconfigure(self, schedule: Schedule) -> None:
        """Switch to another schedule."""
        self._schedule = schedule
        self.timing.reconfigure(schedule)

    def watch(self, engine: Engine) -> None:
        """Learn from ``engine``, and take its due orders in the order that saves the most delay."""
        self._engine = engine
        engine.queue.ready.rank = self._rank
        engine.dispatcher.filler.chance = self._chance

    def _rank(self, entry: TrackedOrder) -> float:
        """Return an order's sort key: when it was due, and how likely it has ended since its last
        check.
        """
        order = entry.order
        age = entry.due - (order.sent_at or entry.due)
        chance = self.timing.chance(key_of(order), self._before(order), max(0.0, age))
        return precedence(entry.due, chance, self._schedule.cap)

    def _chance(self, entry: TrackedOrder) -> float:
        """Return the probability that an order has ended since its last check."""
        order, now = entry.order, self._engine.now() if self._engine else self._clock.time()
        age = max(0.0, now - (order.sent_at if order.sent_at is not None else now))
        return self.timing.chance(key_of(order), self._before(order), age)

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """Learn that an order still waits; for one that has ended, note until when it had waited.

        Only this method knows that age: an order settled later has this check as its last one.
        """
        if (
            self._engine is None
            or order.sent_at is None
            or order.awaits_pin
            or not isinstance(answer, Waiting | Completed | Cancelled)
        ):
            return
        key, before = key_of(order), self._before(order)
        if isinstance(answer, Waiting):
            now = self._engine.now()
            age = now - order.sent_at
            self.timing.waiting(key, before, age, now, self.timing.found_late(order.id))
            before = max(0.0, age)
        self._asked[order.id] = key, before

    def settled(self, account: str, result: WriteResult, delay: float) -> None:
        """Learn that an order has ended.

        An order ended by the time limit or by another party only shows that it had waited.
        """
        finding, write = result.finding, result.write
        order = finding.order
        is_end = result.fate is WriteStatus.WRITTEN and write is not None and write.final
        if (
            order.sent_at is None
            or order.awaits_pin
            or finding.child is not None
            or not (is_end or result.fate in (WriteStatus.GONE, WriteStatus.RESENT))
        ):
            return
        _, before = self._asked.pop(order.id, None) or ("", 0.0)
        if is_end and write is not None and write.cause is Cause.ANSWER:
            found = self.timing.found_late(order.id)
            self.timing.ended(key_of(order), before, finding.took, finding.seen_at, found)
        else:
            self.timing.found_late(order.id)
            self.timing.lost(key_of(order), before, finding.seen_at)

    def remain(self, accounts: Mapping[str, str]) -> None:
        """Forget the spending of removed accounts.

        What was learned about them fades without further action.
        """
        self.timing.remain(accounts)

    def _before(self, order: Order) -> float:
        """Return the age at which an order was known to wait, 0 if it was never asked about."""
        asked = self._asked.get(order.id)
        if asked is not None:
            return asked[1]
        age = age_asked(order, self._engine.now() if self._engine else self._clock.time())
        if age is None:
            self.timing.refused["ahead"] += 1
        return age or 0.0

    async def run(self) -> None:
        """Rebuild tables as they grow, in pieces with other work in between, and save what was
        learned every few minutes, until cancelled.
        """
        await self.begin()
        saved = purged = self._clock.monotonic()
        while True:
            await self._clock.sleep(_LOOK)
            await self._make_tables(_PIECES)
            await self.plan_again()
            now = self._clock.monotonic()
            if now - purged >= _PURGE_EVERY:
                purged = now
                await self._purge()
            if now - saved >= SAVE_EVERY:
                saved = now
                await self._sync.save()

    async def begin(self) -> None:
        """Load the store; at the first start, learn from the past."""
        kept, past = await self._sync.read()
        now = self._engine.now() if self._engine else self._clock.time()
        for key, sketch in kept.items():
            self.timing.load({key: sketch}, now)
            await self._clock.sleep(0)
        await self.seed(past)
        while await self._make_tables(_PIECES):
            pass

    async def _make_tables(self, pieces: int) -> bool:
        """Run some pieces of rebuilding tables; return whether there is more to do."""
        for _ in range(pieces):
            if not self.timing.step():
                return False
            await self._clock.sleep(0)
        return True

    async def plan_again(self) -> None:
        """Plan again the waiting orders of products that have surprised: their times are those of
        before, and may be late by minutes.
        """
        engine, keys = self._engine, self.timing.surprised()
        if engine is None or not keys:
            return
        planned, since = 0, min(keys.values())
        # Most often only the last few orders are meant: of very many, not all are looked through.
        waiting = list(engine.queue) if math.isinf(since) else engine.queue.newest(since)
        async for entry in unhurried(waiting):
            fields = entry.shared_fields
            if (
                entry.stage is Stage.SCHEDULED
                and entry.rare is NOTHING
                and (fields.integration or ONE, fields.package or "") in keys
            ):
                self._plan_sooner(engine, entry)
                planned += 1
                if planned % _AT_ONCE == 0:
                    await self._clock.sleep(0)
        engine.context.wake.set()

    def _plan_sooner(self, engine: Engine, entry: TrackedOrder) -> None:
        """Make an order due at its plan's time after its last check, if that is sooner."""
        order, now = entry.order, engine.now()
        if order.sent_at is None:
            return
        before = self._before(order)
        age = self.timing.next_check(key_of(order), order.id, before, order.sent_at)
        due = max(now, order.sent_at + age)
        if due < entry.due:
            engine.queue.schedule(entry, due, now=now)

    async def save(self) -> None:
        """Save what was learned; while the database is unavailable it waits for the next time."""
        await self._sync.save()

    async def seed(self, past: Sequence[PastEnd]) -> None:
        """Learn from the past, at the first start."""
        for n, (end, before) in enumerate(
            zip(past, known_to_wait(past, self._schedule), strict=True)
        ):
            if n % _AT_ONCE == 0:
                await self._clock.sleep(0)
            if before is None:
                self.timing.refused["too_long" if end.age > 0 else "before_sent"] += 1
            elif end.is_end:
                self.timing.recall(end.key, before, end.age, end.at)
            else:
                self.timing.lost(end.key, before, end.at)

    async def _purge(self) -> None:
        """Forget orders that are no longer open: another party ended them."""
        for n, order_id in enumerate([*self._asked, *self.timing.late()]):
            if n % _AT_ONCE == 0:
                await self._clock.sleep(0)
            engine = self._engine
            if engine is not None and engine.queue.get(order_id) is not None:
                continue
            self.timing.found_late(order_id)
            if order_id in self._asked:
                key, age = self._asked.pop(order_id)
                self.timing.lost(key, age, engine.now() if engine else 0.0)
