"""Found open: what a scan of the shop's table adds to the book, changes in it, and takes out of it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, Protocol

import structlog

from order_monitor.account import Pause
from order_monitor.book import Book, Entry, Stage
from order_monitor.clock import Clock
from order_monitor.directory import Directory
from order_monitor.errors import SettingsError, ShopError
from order_monitor.order import Order, SkipReason
from order_monitor.providers.seam import Provider
from order_monitor.schedule import Plan
from order_monitor.shop.orders import Scan
from order_monitor.state import State
from order_monitor.writer import Recorder

_REMEMBERED: Final = 20_000
_SLICE: Final = 2000
"""Orders merged before the loop may do something else: a scan of 100,000 must not hold up the calls."""


class Shop(Recorder, Protocol):
    """Where open orders are found and answers are written; `order_monitor.shop.orders.Orders` is it."""

    @property
    def records_every_check(self) -> bool:
        """Whether a check that changed nothing is written too."""

    async def scan(self) -> Scan:
        """Return the open orders."""


class Intake:
    """Keeps the book in step with the table."""

    def __init__(
        self,
        shop: Shop,
        directory: Directory,
        book: Book,
        plan: Plan,
        clock: Clock,
        state: State,
        *,
        give_up_after: float,
    ) -> None:
        """Fill ``book`` from ``shop``."""
        self._shop = shop
        self._directory = directory
        self._book = book
        self._plan = plan
        self._clock = clock
        self._state = state
        self._give_up_after = give_up_after
        self._skew = 0.0
        self._ended: OrderedDict[str, float] = OrderedDict()
        self.skips: dict[str, SkipReason] = {}
        self._log = structlog.get_logger("order_monitor.intake")

    def choose(self, shop: Shop) -> None:
        """Fill the book from another view of the shop."""
        self._shop = shop

    def adopt(self, plan: Plan, give_up_after: float) -> None:
        """Go on by another plan."""
        self._plan, self._give_up_after = plan, give_up_after

    def now(self) -> float:
        """Return epoch seconds by the database's clock, which ``sent_at`` was written by."""
        return self._clock.time() + self._skew

    def is_past_deadline(self, order: Order) -> bool:
        """Whether an order is older than the shop's patience."""
        return order.sent_at is not None and self.now() - order.sent_at >= self._give_up_after

    def ended(self, order: Order) -> None:
        """Note that we ended an order, so that a scan which read it before does not bring it back."""
        self._ended[order.id] = self._clock.monotonic()
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    async def scan(self) -> list[Provider]:
        """Look for open orders, and take up and let go accordingly; return clients that are no longer needed.

        Raises:
            ShopError: the database could not be asked; the orders known so far are kept.
            SettingsError: the table is not as it must be.
        """
        began = self._clock.monotonic()
        try:
            scan = await self._shop.scan()
        except (ShopError, SettingsError) as error:
            self._state.scan_problem = str(error)
            raise
        self._skew = scan.now - self._clock.time()
        dropped = self._directory.update(scan.integrations) if scan.integrations is not None else []
        await self.merge(scan, began)
        self._state.events_waiting, self._state.reviews = scan.waiting, scan.reviews
        self._pause(scan.pauses)
        self._state.scans += 1
        self._state.scan_problem = None
        self._state.scanned_at = self._clock.monotonic()
        return dropped

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
        """Bring the book in step with what a scan that ``began`` (monotonic seconds) read."""
        skips: dict[str, SkipReason] = {order.id: SkipReason.UNKNOWN_STATUS for order in scan.unknown}
        overdue = 0
        for n, order in enumerate(scan.orders, 1):
            account = order.skip_reason(scan.now) or self._directory.account_of(order)
            if isinstance(account, SkipReason):
                skips[order.id] = account
            elif not self._ended_since(order, began):
                self._take_up(order, account.name)
                overdue += self.is_past_deadline(order)
            if n % _SLICE == 0:
                await asyncio.sleep(0)
        for entry in self._book.missing_from(o.id for o in scan.orders if o.id not in skips):
            self._state.stuck.discard(entry.order.id)
            self._book.forget(entry.order.id)
        self._note_skips(skips, {o.id: o for o in (*scan.orders, *scan.unknown)})
        self._state.open = len(scan.orders)
        self._state.overdue = overdue

    def _ended_since(self, order: Order, began: float) -> bool:
        """Whether we ended this order while the scan was reading; if we ended it before, somebody reopened it."""
        ended = self._ended.get(order.id)
        if ended is None:
            return False
        if ended >= began:
            return True
        del self._ended[order.id]
        self._log.warning("order.reopened", order_id=order.id, tenant_id=order.tenant_id, status=order.status)
        return False

    def _take_up(self, order: Order, account: str) -> None:
        entry = self._book.get(order.id)
        if entry is None:
            self._plan_first(self._book.add(order, account))
        elif entry.stage not in (Stage.ASKING, Stage.WRITING):
            before = (entry.order.referans, entry.order.sent_at, entry.account)
            if entry.order.status != order.status:
                entry.written = None
            entry.order = order
            if before == (order.referans, order.sent_at, account):
                self._skip_asked(entry)
            else:
                self._book.idle(entry)
                entry.account = account
                self._plan_first(entry)

    def _skip_asked(self, entry: Entry) -> None:
        """Ask at the next time only, where somebody else has asked since the order came due (``last_sync_at`` tells)."""
        asked = entry.order.last_sync_at
        if asked is not None and entry.stage in (Stage.SCHEDULED, Stage.READY) and entry.due <= asked <= self.now():
            again = self._plan.again(entry.order, self.now())
            if again is not None:
                self._book.schedule(entry, again)

    def _plan_first(self, entry: Entry) -> None:
        due = self._plan.first(entry.order, self.now())
        if due is None:
            self._book.idle(entry)
        else:
            self._state.eligible += 1
            self._book.schedule(entry, due)

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
