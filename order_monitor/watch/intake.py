"""Taken in: what an order that was read means for the queue."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

import structlog

from order_monitor.core.entry import ODD, Entry
from order_monitor.core.order import Order, SkipReason
from order_monitor.watch.board import Board
from order_monitor.watch.routing import Directory, asked_of

_REMEMBERED: Final = 20_000


class Intake:
    """Puts orders into the queue, and keeps them there as they are in the table."""

    def __init__(self, board: Board, directory: Directory) -> None:
        """Fill the board's queue; ``directory`` knows whose each order is.

        While a look goes on, ``looking_since`` (monotonic seconds), it may still read as open what has ended since it began.
        """
        self._board = board
        self._queue = board.queue
        self._directory = directory
        self._ended: OrderedDict[str, float] = OrderedDict()
        self.looking_since = math.inf
        self._log = structlog.get_logger("order_monitor.intake")

    def ended(self, order: Order) -> None:
        """Note that we ended an order, so that a scan which read it before does not bring it back."""
        ended = self._ended
        ended[order.id] = self._board.clock.monotonic()
        while len(ended) > _REMEMBERED and next(iter(ended.values())) < self.looking_since:
            ended.popitem(last=False)

    def take(self, order: Order, now: float, read_at: float) -> SkipReason | None:
        """Take in an order as it was read at ``read_at`` (monotonic seconds; ``now`` epoch seconds); return why it is skipped."""
        account = asked_of(self._directory, order, now)
        if isinstance(account, SkipReason):
            return account
        if not self._ended_since(order, read_at):
            self._take_up(order, account.key, read_at)
        return None

    def let_go(self, entry: Entry) -> None:
        """Forget an order that is open no more."""
        self._board.state.stuck.pop(entry.id, None)
        self._board.state.odd.pop(entry.id, None)
        self._board.state.kept.pop(entry.id, None)
        self._queue.forget(entry.id)

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
            self._board.note_odd(entry)
            self._plan_first(entry, order)
        elif entry.is_in_hand or entry.read_at > read_at:
            return
        elif entry.is_still(order, account):
            entry.read_at, entry.asked_at, entry.registered = read_at, order.last_sync_at, order.registered
            if entry.referans is None and not self._board.is_many:
                entry.referans = order.referans
            self._skip_asked(entry)
        else:
            self._renew(entry, order, account, read_at)

    def _renew(self, entry: Entry, order: Order, account: str, read_at: float) -> None:
        """Take over what has changed. Another time alone postpones nothing: the backoff goes on from the one it had before."""
        referans = order.referans if entry.referans is None else entry.referans
        before, sent_at = (referans, entry.account, entry.awaits_pin), entry.sent_at
        if entry.traits.status != order.status:
            entry.written = None
        is_kept = entry.referans is not None
        self._queue.renew(entry, order, account)
        entry.read_at = read_at
        if before != (order.referans, account, order.awaits_pin):
            # What was said of the dispatch before is no first half of anything that is said of this one.
            entry.note(anchor=None, cancelled_at=None, unknown=0)
            is_odd = order.odd_at is not None
            entry.note(odd=ODD if is_odd else 0, odd_at=order.odd_at, odd_noted=is_odd)
            self._board.note_odd(entry)
            self._queue.idle(entry)
            # When it was last asked about is of no concern: that was another dispatch.
            self._plan_first(entry, order._replace(last_sync_at=None))
            return
        if sent_at != order.sent_at:
            entry.note(anchor=sent_at if entry.memo.anchor is None else entry.memo.anchor)
        entry.referans = order.referans if is_kept or not self._board.is_many else None
        self._skip_asked(entry)

    def _skip_asked(self, entry: Entry) -> None:
        """Ask at the next time only, where somebody else has asked since the order came due (``last_sync_at`` tells)."""
        asked = entry.asked_at
        if asked is not None and entry.is_waiting and entry.due <= asked <= self._board.now():
            again = self._board.next_time(entry)
            if again is not None:
                self._board.plan(entry, again)

    def _plan_first(self, entry: Entry, order: Order) -> None:
        plan = self._board.policy.plan
        due = plan.first(order, self._board.now())
        if order.ended_at is not None and due is not None and due <= order.ended_at:
            again = plan.again(order, order.ended_at)
            due = due if again is None else again  # one pass has no second time, and asks all the same
        self._board.state.eligible += due is not None
        self._board.plan(entry, due)
