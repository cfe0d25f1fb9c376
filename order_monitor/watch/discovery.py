"""Found open: what a scan of the shop's table adds to the queue, changes in it, and takes out of it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, Protocol

import structlog

from order_monitor.core.bounded import forget_oldest
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.core.gate import Pause
from order_monitor.core.order import Order, SkipReason
from order_monitor.core.queue import Entry, Stage
from order_monitor.providers.provider import Provider
from order_monitor.shop.order_reader import Scan
from order_monitor.watch.board import Board
from order_monitor.watch.routing import Directory
from order_monitor.watch.writer import Recorder

_REMEMBERED: Final = 20_000
_CLOCK_TICK: Final = 1.0
_SLICE: Final = 2000
"""Orders merged before the loop may do something else: a scan of 100,000 must not hold up the calls."""


class Shop(Recorder, Protocol):
    """Where open orders are found and answers are written; `order_monitor.shop.orders.Orders` is it."""

    @property
    def records_every_check(self) -> bool:
        """Whether a check that changed nothing is written too."""

    async def scan(self) -> Scan:
        """Return the open orders."""


class Discovery:
    """Keeps the queue in step with the table."""

    def __init__(self, board: Board, shop: Shop, directory: Directory) -> None:
        """Fill the board's queue from ``shop``."""
        self._board = board
        self._queue = board.queue
        self._state = board.state
        self.shop = shop
        self._directory = directory
        self._ended: OrderedDict[str, float] = OrderedDict()
        self.skips: dict[str, SkipReason] = {}
        self._clock_read: tuple[float, float] | None = None
        self._log = structlog.get_logger("order_monitor.intake")

    def ended(self, order: Order) -> None:
        """Note that we ended an order, so that a scan which read it before does not bring it back."""
        self._ended[order.id] = self._board.clock.monotonic()
        forget_oldest(self._ended, _REMEMBERED)

    async def scan(self) -> list[Provider]:
        """Look for open orders, and take up and let go accordingly; return clients that are no longer needed.

        Raises:
            ShopError: the database could not be asked; the orders known so far are kept.
            SettingsError: the table is not as it must be.
        """
        began = self._board.clock.monotonic()
        try:
            scan = await self.shop.scan()
        except (ShopError, SettingsError) as error:
            self._state.scan_problem = str(error)
            raise
        self._look_at_clock(scan.now, began)
        dropped = self._directory.update(scan.integrations) if scan.integrations is not None else []
        await self.merge(scan, began)
        self._state.events_waiting, self._state.reviews = scan.waiting, scan.reviews
        self._pause(scan.pauses)
        self._state.scans += 1
        self._state.scan_problem = None
        self._state.scanned_at = self._board.clock.monotonic()
        return dropped

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
        overdue = 0
        open_ids = {order.id for order in scan.orders}
        asked = [*scan.orders, *(order for order in scan.awaiting if order.id not in open_ids)]
        for n, order in enumerate(asked, 1):
            account = order.skip_reason(scan.now) or self._directory.account_of(order)
            if isinstance(account, SkipReason):
                skips[order.id] = account
            elif not self._ended_since(order, began):
                self._take_up(order, account.name)
                overdue += self._board.is_past_deadline(order)
            if n % _SLICE == 0:
                await asyncio.sleep(0)
        for entry in self._queue.missing_from(o.id for o in asked if o.id not in skips):
            self._state.stuck.pop(entry.order.id, None)
            self._queue.forget(entry.order.id)
        self._note_skips(skips, {o.id: o for o in (*asked, *scan.unknown)})
        self._state.open = len(scan.orders)
        self._state.overdue = overdue

    def _ended_since(self, order: Order, began: float) -> bool:
        """Whether we ended this order while the scan was reading; if we ended it before, somebody reopened it."""
        ended = self._ended.get(order.id)
        if ended is None:
            return False
        if ended >= began or order.awaits_pin:
            return ended >= began
        del self._ended[order.id]
        self._log.warning("order.reopened", order_id=order.id, tenant_id=order.tenant_id, status=order.status)
        return False

    def _take_up(self, order: Order, account: str) -> None:
        entry = self._queue.get(order.id)
        if entry is None:
            self._plan_first(self._queue.add(order, account))
        elif entry.stage not in (Stage.ASKING, Stage.WRITING):
            before = (entry.order.referans, entry.order.sent_at, entry.account, entry.order.awaits_pin)
            if entry.order.status != order.status:
                entry.written = None
            entry.order = order
            if before == (order.referans, order.sent_at, account, order.awaits_pin):
                self._skip_asked(entry)
            else:
                self._queue.idle(entry)
                entry.account = account
                self._plan_first(entry)

    def _skip_asked(self, entry: Entry) -> None:
        """Ask at the next time only, where somebody else has asked since the order came due (``last_sync_at`` tells)."""
        asked = entry.order.last_sync_at
        if (
            asked is not None
            and entry.stage in (Stage.SCHEDULED, Stage.READY)
            and entry.due <= asked <= self._board.now()
        ):
            again = self._board.policy.plan.again(entry.order, self._board.now())
            if again is not None:
                self._queue.schedule(entry, again)

    def _plan_first(self, entry: Entry) -> None:
        order, plan = entry.order, self._board.policy.plan
        due = plan.first(order, self._board.now())
        if order.ended_at is not None and due is not None and due <= order.ended_at:
            again = plan.again(order, order.ended_at)
            due = due if again is None else again  # one pass has no second time, and asks all the same
        if due is None:
            self._queue.idle(entry)
        else:
            self._state.eligible += 1
            self._queue.schedule(entry, due)

    def _note_skips(self, skips: dict[str, SkipReason], orders: Mapping[str, Order]) -> None:
        for order_id, reason in skips.items():
            if self.skips.get(order_id) is not reason:
                order = orders[order_id]
                tenant, status = order.tenant_id, order.status
                self._log.warning(
                    "order.skipped", order_id=order_id, tenant_id=tenant, reason=str(reason), status=status
                )
        self.skips = skips
        self._state.skipped.clear()
        self._state.skipped.update(skips.values())
