"""Taken in: what an order that was read means for the queue."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import structlog

from order_monitor.core.bounded import forget_oldest
from order_monitor.core.order import Order, SkipReason
from order_monitor.core.queue import Entry, Stage
from order_monitor.watch.board import Board
from order_monitor.watch.routing import Directory

_REMEMBERED: Final = 20_000


class Intake:
    """Puts orders into the queue, and keeps them there as they are in the table."""

    def __init__(self, board: Board, directory: Directory) -> None:
        """Fill the board's queue; ``directory`` knows whose each order is."""
        self._board = board
        self._queue = board.queue
        self._directory = directory
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._log = structlog.get_logger("order_monitor.intake")

    def ended(self, order: Order) -> None:
        """Note that we ended an order, so that a scan which read it before does not bring it back."""
        self._ended[order.id] = self._board.clock.monotonic()
        forget_oldest(self._ended, _REMEMBERED)

    def take(self, order: Order, now: float, read_at: float) -> SkipReason | None:
        """Take in an order as it was read at ``read_at`` (monotonic seconds; ``now`` epoch seconds); return why it is skipped."""
        account = order.skip_reason(now) or self._directory.account_of(order)
        if isinstance(account, SkipReason):
            return account
        if not self._ended_since(order, read_at):
            self._take_up(order, account.name, read_at)
        return None

    def let_go(self, entry: Entry) -> None:
        """Forget an order that is open no more."""
        self._board.state.stuck.pop(entry.order.id, None)
        self._queue.forget(entry.order.id)

    def _ended_since(self, order: Order, read_at: float) -> bool:
        """Whether we ended this order while it was being read; if we ended it before, somebody reopened it."""
        ended = self._ended.get(order.id)
        if ended is None:
            return False
        if ended >= read_at or order.awaits_pin:
            return ended >= read_at
        del self._ended[order.id]
        self._log.warning("order.reopened", order_id=order.id, tenant_id=order.tenant_id, status=order.status)
        return False

    def _take_up(self, order: Order, account: str, read_at: float) -> None:
        entry = self._queue.get(order.id)
        if entry is None:
            entry = self._queue.add(order, account)
            entry.read_at = read_at
            self._plan_first(entry)
        elif entry.stage not in (Stage.ASKING, Stage.WRITING) and entry.read_at <= read_at:
            before = (entry.order.referans, entry.order.sent_at, entry.account, entry.order.awaits_pin)
            if entry.order.status != order.status:
                entry.written = None
            entry.order, entry.read_at = order, read_at
            if before == (order.referans, order.sent_at, account, order.awaits_pin):
                self._skip_asked(entry)
            else:
                self._queue.idle(entry)
                self._queue.move(entry, account)
                self._plan_first(entry)

    def _skip_asked(self, entry: Entry) -> None:
        """Ask at the next time only, where somebody else has asked since the order came due (``last_sync_at`` tells)."""
        asked = entry.order.last_sync_at
        if (
            asked is not None
            and entry.stage in (Stage.SCHEDULED, Stage.READY)
            and entry.due <= asked <= self._board.now()
        ):
            again = self._board.next_time(entry)
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
            self._board.state.eligible += 1
            self._queue.schedule(entry, due)
