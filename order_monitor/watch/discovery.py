"""Found open: what looks at the shop's table add to the queue, change in it, and take out of it.

Of few orders all are read at each look. Of many the looks are quick: they read what was sent lately, from one end of an index;
and now and then all are read, to find what the quick looks cannot (put back by hand, sent late or with another date, ended by
others). In between nothing is asked on stale knowledge: an order that was not read lately is read again before it is asked about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Final, Protocol

import structlog

from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.core.gate import Pause
from order_monitor.core.order import Order, SkipReason
from order_monitor.core.queue import Entry, Stage
from order_monitor.providers.provider import Provider
from order_monitor.shop.order_reader import Scan
from order_monitor.watch.board import Board
from order_monitor.watch.intake import Intake
from order_monitor.watch.routing import Directory
from order_monitor.watch.turns import unhurried
from order_monitor.watch.writer import Recorder

_CLOCK_TICK: Final = 1.0
_NAMED: Final = 100
"""How many skipped orders are told one by one at a look."""


class Shop(Recorder, Protocol):
    """Where open orders are found and answers are written; `order_monitor.shop.orders.Orders` is it."""

    @property
    def records_every_check(self) -> bool:
        """Whether a check that changed nothing is written too."""

    async def scan(self, *, since: float | None = None) -> Scan:
        """Return the open orders, all of them or those sent ``since`` (epoch seconds)."""

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        """Return those among some orders that are open, as they are now."""


class Discovery:
    """Keeps the queue in step with the table."""

    def __init__(self, board: Board, shop: Shop, directory: Directory) -> None:
        """Fill the board's queue from ``shop``."""
        self._board = board
        self._queue = board.queue
        self._state = board.state
        self.shop = shop
        self._directory = directory
        self.intake = Intake(board, directory)
        self.skips: dict[str, SkipReason] = {}
        self._awaiting: AbstractSet[str] = frozenset()
        self._whole_again_at = float("-inf")
        self._last_sent = float("-inf")
        self._clock_read: tuple[float, float] | None = None
        self._log = structlog.get_logger("order_monitor.intake")

    async def scan(self) -> list[Provider]:
        """Look for open orders, and take up and let go accordingly; return clients that are no longer needed.

        Raises:
            ShopError: the database could not be asked; the orders known so far are kept.
            SettingsError: the table is not as it must be.
        """
        began = self._board.clock.monotonic()
        is_whole = began >= self._whole_again_at
        try:
            scan = await (self.shop.scan() if is_whole else self.shop.scan(since=self._since()))
        except (ShopError, SettingsError) as error:
            self._state.scan_problem = str(error)
            raise
        self._look_at_clock(scan.now, began)
        known = set(self._directory.by_key) if scan.integrations is not None else set()
        dropped = self._directory.update(scan.integrations) if scan.integrations is not None else []
        self._pause(scan.pauses)
        await self.merge(scan, began)
        self._plan_looks(scan, began)
        if scan.integrations is not None and (dropped or known != set(self._directory.by_key)):
            # Whose orders were skipped may have an account now.
            self._whole_again_at = float("-inf")
        self._state.events_waiting, self._state.reviews = scan.waiting, scan.reviews
        self._state.scans += 1
        self._state.scan_problem = None
        self._state.scanned_at = self._board.clock.monotonic()
        return dropped

    def _since(self) -> float:
        return min(self._last_sent, self._board.now()) - self._board.policy.reading.overlap

    def _plan_looks(self, scan: Scan, began: float) -> None:
        """Decide when all are read again, and which orders have not been read lately."""
        reading, now = self._board.policy.reading, self._board.clock.monotonic()
        self._last_sent = max(
            [self._last_sent, *(min(o.sent_at, scan.now) for o in scan.orders if o.sent_at is not None)]
        )
        if not scan.is_whole:
            self._board.stale_before = now - reading.fresh_for
            return
        self._board.stale_before = float("-inf")
        is_small = len(scan.orders) <= reading.small
        pause = 0.0 if is_small else min(reading.longest, (now - began) * reading.share)
        self._whole_again_at = now + pause

    async def look_again(self, entries: Sequence[Entry]) -> None:
        """Read again orders that are to be asked about and were not read lately; they are asked all the same where that fails."""
        read_at, queue = self._board.clock.monotonic(), self._queue
        found: dict[str, Order] | None = None
        try:
            found = {order.id: order for order in await self.shop.reread([entry.order for entry in entries])}
        except (ShopError, SettingsError) as error:
            self._log.debug("order.not_reread", why=str(error))
        finally:
            for entry in entries:
                if queue.get(entry.order.id) is entry:
                    queue.schedule(entry, entry.due, wake=self._board.now())
                    entry.read_at = read_at
        if found is None:
            return
        for entry in entries:
            if queue.get(entry.order.id) is entry:
                self._compare(entry, found.get(entry.order.id), read_at)

    def _compare(self, entry: Entry, order: Order | None, read_at: float) -> None:
        if order is None:
            self.intake.let_go(entry)
        elif reason := self.intake.take(order, self._board.now(), read_at):
            self.intake.let_go(entry)
            self._note_skips({**self.skips, order.id: reason}, {order.id: order})

    def _look_at_clock(self, now: float, began: float) -> None:
        """Follow the database's clock, which decides what is due; one that does not go on while ours does is told."""
        before, self._clock_read = self._clock_read, (now, began)
        stood = before is not None and began - before[1] >= _CLOCK_TICK and now - before[0] <= 0
        if stood and not self._state.clock_stood_still:
            self._log.error("database.clock_stands_still")
        self._state.clock_stood_still = stood
        self._board.read_at = (now, self._board.clock.monotonic())

    def _pause(self, pauses: Mapping[str, Pause]) -> None:
        """Take over what people have paused and resumed."""
        for name, account in self._directory.accounts.items():
            before, account.paused = account.paused, pauses.get(name)
            if account.paused is not None and before is None:
                self._log.warning("account.paused", account=name, reason=account.paused.reason, by=account.paused.by)
            elif account.paused is None and before is not None:
                account.gate.start_anew()
                self._log.info("account.resumed", account=name)

    async def merge(self, scan: Scan, began: float) -> None:
        """Bring the queue in step with what a scan that ``began`` (monotonic seconds) read."""
        skips: dict[str, SkipReason] = {order.id: SkipReason.UNKNOWN_STATUS for order in scan.unknown}
        skipped = {order.id: order for order in scan.unknown}
        taken: set[str] = set()
        awaiting: set[str] = set()
        overdue = 0
        async for order in unhurried(chain(scan.orders, scan.awaiting)):
            if order.awaits_pin and (order.id in taken or order.id in skips):
                continue
            reason = self.intake.take(order, scan.now, began)
            if reason is None:
                taken.add(order.id)
                overdue += self._board.is_past_deadline(order)
                awaiting |= {order.id} if order.awaits_pin else set()
            else:
                skips[order.id], skipped[order.id] = reason, order
        gone = await self._gone(scan, taken, skips.keys(), awaiting)
        for entry in gone:
            # What was read again since the scan began is known better than by it.
            if entry.read_at <= began and entry.stage not in (Stage.ASKING, Stage.WRITING):
                self.intake.let_go(entry)
        if scan.is_whole:
            self._state.open, self._state.overdue = len(scan.orders), overdue
        else:
            kept = {i: r for i, r in self.skips.items() if i not in taken and r is not SkipReason.UNKNOWN_STATUS}
            skips = {**kept, **skips}
            nobodys = sum(reason is not SkipReason.UNKNOWN_STATUS for reason in skips.values())
            self._state.open = max(0, len(self._queue) - len(awaiting)) + nobodys
        self._note_skips(skips, skipped)

    async def _gone(
        self, scan: Scan, taken: AbstractSet[str], skipped: AbstractSet[str], awaiting: AbstractSet[str]
    ) -> list[Entry]:
        """Return what is open no more, what is skipped, and whose PIN is not awaited any more."""
        before, self._awaiting = self._awaiting, awaiting
        if scan.is_whole:
            return [entry async for entry in unhurried(list(self._queue)) if entry.order.id not in taken]
        known = [self._queue.get(order_id) for order_id in before - taken | skipped]
        return [e for e in known if e is not None and (e.order.awaits_pin or e.order.id in skipped)]

    def _note_skips(self, skips: dict[str, SkipReason], orders: Mapping[str, Order]) -> None:
        """Say what is skipped from now on, some by name and of very many the rest in one line."""
        fresh = [(order_id, reason) for order_id, reason in skips.items() if self.skips.get(order_id) is not reason]
        for order_id, reason in fresh[:_NAMED]:
            order = orders[order_id]
            tenant, status = order.tenant_id, order.status
            self._log.warning("order.skipped", order_id=order_id, tenant_id=tenant, reason=str(reason), status=status)
        if more := Counter(str(reason) for _, reason in fresh[_NAMED:]):
            self._log.warning("orders.skipped", more=dict(more))
        self.skips = skips
        self._state.skipped.clear()
        self._state.skipped.update(skips.values())
