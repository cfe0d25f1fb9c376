"""Takes orders in: what an order that was read means for the queue."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, NamedTuple

import structlog

from order_monitor.core.order import Order, SkipReason
from order_monitor.core.tracked_order import ODD, TrackedOrder
from order_monitor.watch.context import Context
from order_monitor.watch.routing import Directory, asked_of

REMEMBERED: Final = 20_000


class LeftTo(NamedTuple):
    """Another process asks about an order, by the ``account`` with this key."""

    account: str


class Intake:
    """Puts orders into the queue, and keeps them in step with the table."""

    def __init__(self, context: Context, directory: Directory) -> None:
        """Fill the context's queue; ``directory`` finds the account of each order.

        A scan, which runs since ``scanning_since`` (monotonic seconds), may still read orders as
        open that have ended since it began.
        """
        self._context = context
        self._queue = context.queue
        self._directory = directory
        self.recent_ends: OrderedDict[str, float] = OrderedDict()
        self.scanning_since = math.inf
        self._log = structlog.get_logger("order_monitor.intake")

    def ended(self, order: Order) -> None:
        """Record that we ended an order, so that a scan that read it before does not bring it
        back.
        """
        ended = self.recent_ends
        ended[order.id] = self._context.clock.monotonic()
        while len(ended) > REMEMBERED and next(iter(ended.values())) < self.scanning_since:
            ended.popitem(last=False)

    def take_in(
        self, order: Order, now: float, read_at: float
    ) -> SkipReason | LeftTo | TrackedOrder | None:
        """Take in an order that was read at ``read_at`` (monotonic seconds), with ``now`` in epoch
        seconds.

        Return its entry in the queue; or why it is skipped, or whose account it is if another
        process asks about it; None if we ended it while it was being read.
        """
        account = asked_of(self._directory, order, now)
        if isinstance(account, SkipReason):
            return account
        if self._context.elsewhere.has(account.key):
            return self._leave(order, account.key, read_at)
        if self.recent_ends and self._ended_since(order, read_at):
            return None
        return self._take_up(order, account.key, read_at)

    def let_go(self, entry: TrackedOrder) -> None:
        """Forget an order that is no longer open."""
        self._context.state.stuck.pop(entry.id, None)
        self._context.state.odd.pop(entry.id, None)
        self._context.state.kept.pop(entry.id, None)
        self._context.state.unconfirmed.pop(entry.id, None)
        self._queue.forget(entry.id)

    def drop(self, entry: TrackedOrder) -> None:
        """Keep an order no longer, because another process asks about it."""
        self._context.elsewhere.drop(entry, entry.account)
        self.let_go(entry)

    def _leave(self, order: Order, account: str, read_at: float) -> LeftTo | TrackedOrder:
        """Leave an order to the process that asks its account, unless it is in hand here."""
        entry = self._queue.get(order.id)
        if entry is not None:
            if entry.is_in_hand or entry.read_at > read_at:
                return entry
            self.let_go(entry)
        return LeftTo(account)

    def _ended_since(self, order: Order, read_at: float) -> bool:
        """Whether we ended this order while it was being read.

        If we ended it before that, someone has reopened it.
        """
        ended = self.recent_ends.get(order.id)
        if ended is None:
            return False
        if ended >= read_at or order.awaits_pin:
            return ended >= read_at
        del self.recent_ends[order.id]
        self._log.warning(
            "order.reopened", order_id=order.id, tenant_id=order.tenant_id, status=order.status
        )
        return False

    def _take_up(self, order: Order, account: str, read_at: float) -> TrackedOrder:
        entry, is_new = self._queue.enter(order, account)
        if is_new:
            entry.read_at = read_at
            if order.odd_at is not None or self._context.state.odd:
                self._context.note_odd(entry)
            self._plan_first(entry, order)
        elif entry.is_in_hand or entry.read_at > read_at:
            return entry
        elif entry.is_still(order, account):
            entry.read_at, entry.registered = read_at, order.registered
            # Not every check is recorded in the row.
            if order.last_sync_at is not None and order.last_sync_at > (entry.asked_at or 0.0):
                entry.asked_at = order.last_sync_at
            self._follow_odd(entry, order)
            self._skip_asked(entry)
        else:
            self._renew(entry, order, account, read_at)
        return entry

    def _renew(self, entry: TrackedOrder, order: Order, account: str, read_at: float) -> None:
        """Take over what has changed.

        A new time alone postpones nothing: the backoff continues from the previous one.
        """
        before = (entry.reference, entry.account, entry.awaits_pin)
        sent_at = entry.sent_at
        if entry.shared_fields.status != order.status:
            entry.written = None
        self._queue.renew(entry, order, account)
        entry.read_at = read_at
        if before != (order.reference, account, order.awaits_pin):
            entry.note(anchor=None, unknown=0)
            entry.other_at = None
            is_odd = order.odd_at is not None
            entry.note(odd=ODD if is_odd else 0, odd_at=order.odd_at, odd_noted=is_odd)
            self._context.note_odd(entry)
            self._queue.idle(entry)
            # The time of the last check does not matter: it was about another dispatch.
            self._plan_first(entry, order._replace(last_sync_at=None))
            return
        if sent_at != order.sent_at:
            entry.note(anchor=sent_at if entry.rare.anchor is None else entry.rare.anchor)
        self._follow_odd(entry, order)
        self._skip_asked(entry)

    def _follow_odd(self, entry: TrackedOrder, order: Order) -> None:
        """Take over whether the order's dispatch has it noted that answers are not understood.

        What decides is in the table, and it may differ from what this process has noted: another
        process was answered otherwise, or the database has failed over and lost the mark.
        """
        is_noted = order.odd_at is not None
        if order.registered and is_noted is not entry.rare.odd_noted:
            odd = max(entry.rare.odd, ODD) if is_noted else 0
            entry.note(odd=odd, odd_at=order.odd_at, odd_noted=is_noted)
            self._context.note_odd(entry)

    def _skip_asked(self, entry: TrackedOrder) -> None:
        """Move an order to its next time if another process has asked about it since it came due
        (see ``last_sync_at``).
        """
        asked = entry.asked_at
        if asked is not None and entry.is_waiting and entry.due <= asked <= self._context.now():
            again = self._context.next_time(entry)
            if again is not None:
                self._context.plan(entry, again)

    def _plan_first(self, entry: TrackedOrder, order: Order) -> None:
        plan, now = self._context.policy.plan, self._context.now()
        due = plan.first(order, now)
        if due is None:
            self._queue.idle(entry)
            return
        # An end later than now was before the database's clock went back.
        ended_at = None if order.ended_at is None else min(order.ended_at, now)
        if ended_at is not None and due <= ended_at:
            again = plan.again(order, ended_at)
            # A single pass has no second time, and asks anyway.
            due = due if again is None else again
        self._context.state.eligible += 1
        self._queue.schedule(entry, due, now=now)
