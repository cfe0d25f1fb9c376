"""One look at the shop's table: what it reads is taken in as it is read, and remembered as far as the end of the look needs it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Final

import structlog

from order_monitor.core.gate import Pause
from order_monitor.core.order import Order, SkipReason
from order_monitor.providers.provider import Provider
from order_monitor.shop.order_reader import Scan, Slice
from order_monitor.watch.board import Board
from order_monitor.watch.intake import Intake
from order_monitor.watch.routing import Directory
from order_monitor.watch.turns import unhurried

NAMED: Final = 100
"""How many skipped orders are told one by one at a look."""


class Look:
    """What one look has met so far; ``began`` is monotonic seconds.

    ``named`` are some of those that were not skipped before. ``met`` are the orders taken in; where all are read, which may be very
    many, only those that bear no mark of it themselves (`Entry.read_at`): what is in hand just then.
    """

    def __init__(
        self,
        board: Board,
        directory: Directory,
        intake: Intake,
        known: Mapping[str, SkipReason],
        began: float,
        *,
        is_whole: bool,
    ) -> None:
        """Take orders in by ``intake``; ``known`` are those that were skipped before, ``is_whole`` tells that all are read."""
        self._board = board
        self._directory = directory
        self._intake = intake
        self._is_open = False
        self._known = known
        self.began = began
        self.is_whole = is_whole
        self.met: set[str] = set()
        self.awaiting: set[str] = set()
        self.skips: dict[str, SkipReason] = {}
        self.named: dict[str, Order] = {}
        self.found = 0
        self.last_sent = float("-inf")
        self._took_at = began
        self.dropped: list[Provider] = []
        self._log = structlog.get_logger("order_monitor.intake")

    def take(self, part: Slice) -> None:
        """Take in some orders, and first what must be known before them."""
        if part.integrations is not None:
            self.dropped += self._directory.update(part.integrations)
        if not self._is_open:
            self._board.follow(part.now, self.began)
        if not self._is_open or part.integrations is not None:
            self._pause(part.pauses)
        self._is_open = True
        for order in part.orders:
            self._meet(order, part.now)
        self._board.state.taking_at = self._took_at = self._board.clock.monotonic()
        self._board.wake.set()

    async def rest(self, scan: Scan) -> None:
        """Take in what is not read part by part."""
        since = self._took_at
        if not self._is_open:
            self.take(Slice(scan.now, (), scan.integrations, scan.pauses))
        self._board.follow(scan.now, since)
        await self.meet_all(scan)

    async def meet_all(self, scan: Scan) -> None:
        """Take in the orders of a scan."""
        for order in scan.unknown:
            self._skip(order, SkipReason.UNKNOWN_STATUS)
        async for order in unhurried(chain(scan.orders, scan.awaiting)):
            if not order.awaits_pin or not self._has_met(order.id):
                self._meet(order, scan.now)

    def _has_met(self, order_id: str) -> bool:
        entry = self._board.queue.get(order_id)
        is_marked = entry is not None and entry.read_at == self.began and not entry.awaits_pin
        return is_marked or order_id in self.met or order_id in self.skips

    def _meet(self, order: Order, now: float) -> None:
        reason = self._intake.take(order, now, self.began)
        if order.awaits_pin:
            self.awaiting |= {order.id} if reason is None else set()
        else:
            self.found += 1
            if order.sent_at is not None and self.last_sent < order.sent_at:
                self.last_sent = min(order.sent_at, now)
        if reason is not None:
            self._skip(order, reason)
            return
        entry = self._board.queue.get(order.id) if self.is_whole else None
        if not self.is_whole or (entry is not None and entry.is_in_hand):
            self.met.add(order.id)

    def _skip(self, order: Order, reason: SkipReason) -> None:
        self.skips[order.id] = reason
        if self._known.get(order.id) is not reason and len(self.named) < NAMED:
            self.named[order.id] = order

    def _pause(self, pauses: Mapping[str, Pause]) -> None:
        """Take over what people have paused and resumed."""
        for key, account in self._directory.accounts.items():
            before, account.paused = account.paused, pauses.get(key)
            if account.paused is not None and before is None:
                self._log.warning(
                    "account.paused", account=account.name, reason=account.paused.reason, by=account.paused.by
                )
            elif account.paused is None and before is not None:
                account.gate.start_anew()
                self._log.info("account.resumed", account=account.name)
