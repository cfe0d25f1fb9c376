"""When an order is asked about again whose cancellation waits for a second answer.

The rows of the shared table decide whether it is believed (`order_monitor.shop.writing.cancellations`);
this only plans the questions, and logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from order_monitor.core.answer import Cancelled, Completed, Waiting
from order_monitor.core.check_result import WriteResult
from order_monitor.core.schedule import OnePass
from order_monitor.core.tracked_order import Stage, TrackedOrder
from order_monitor.shop.writing.cancellations import SHOWN, Unconfirmed
from order_monitor.watch.context import Context
from order_monitor.watch.counters import UnconfirmedState

_ELSEWHERE: Final = "elsewhere"


class UnconfirmedCancellations:
    """Keeps the queue and the log in step with the cancellations that wait."""

    def __init__(self, context: Context) -> None:
        """Plan on ``context``."""
        self._context = context
        self._waiting = context.state.unconfirmed
        self._over: dict[str, float] = {}
        """Orders whose cancellation waits no longer, each with the time when that was written here
        (monotonic seconds): a scan that began before may still have read its row.
        """
        self._log = structlog.get_logger("order_monitor.engine")

    def keep(self, entry: TrackedOrder | None, result: WriteResult) -> None:
        """Process a cancellation that is not believed yet: its order is asked about again when the
        wait is over.
        """
        assert result.again_at is not None
        order_id, now = result.finding.order.id, self._context.clock.monotonic()
        before = self._waiting.get(order_id)
        if before is None:
            again_in = round(result.again_at - result.finding.seen_at, 3)
            self._log.info("order.cancel_unconfirmed", order_id=order_id, again_in=again_in)
        began_at = now if result.is_first else before.began_at if before is not None else None
        self._waiting[order_id] = UnconfirmedState(now, began_at)
        self._over.pop(order_id, None)
        if entry is not None:
            entry.note(stuck=None, other_at=None)
            entry.written = result.finding.answer
            self._context.queue.schedule(entry, max(self._context.now(), result.again_at))

    def answered(self, result: WriteResult) -> None:
        """Note that an order's cancellation waits no longer, if the write of an answer closed its
        row.
        """
        order_id, answer = result.finding.order.id, result.finding.answer
        if order_id not in self._waiting or not (result.is_end or result.withdraws_cancellation):
            return
        del self._waiting[order_id]
        self._over[order_id] = self._context.clock.monotonic()
        if isinstance(answer, Completed | Waiting):
            self._log.warning("order.cancel_withdrawn", order_id=order_id, outcome=answer.outcome)

    def look(self, waiting: Sequence[Unconfirmed] | None, began: float, *, is_whole: bool) -> None:
        """Take over what a scan that ``began`` at this time (monotonic seconds) read; None if it
        read no such rows. ``is_whole``: it read all open orders.
        """
        if waiting is None:
            return
        stored = {one.order_id for one in waiting}
        if len(stored) < SHOWN:
            self._forget(stored, began, is_whole=is_whole)
        self._over = {i: at for i, at in self._over.items() if at >= began}
        for one in waiting:
            if one.order_id not in self._over:
                self._plan(one)

    def _forget(self, stored: set[str], began: float, *, is_whole: bool) -> None:
        """Forget cancellations whose rows another process has closed."""
        gone = [i for i, s in self._waiting.items() if i not in stored and s.seen_at < began]
        for order_id in gone:
            del self._waiting[order_id]
            # After a quick scan, an order in the queue may have ended: by this cancellation.
            if is_whole and self._context.queue.get(order_id) is not None:
                self._log.warning("order.cancel_withdrawn", order_id=order_id, outcome=_ELSEWHERE)

    def _plan(self, one: Unconfirmed) -> None:
        """Ask when the wait is over that another process, or this one before a restart, began."""
        queue, policy, now = self._context.queue, self._context.policy, self._context.now()
        entry = queue.get(one.order_id)
        if entry is None or (entry.account, entry.reference.strip()) != (
            one.account,
            one.reference,
        ):
            # Another member's order, or one that was sent again.
            self._waiting.pop(one.order_id, None)
            return
        if not (entry.is_waiting or entry.stage is Stage.IDLE):
            return
        is_new, asked_at = one.order_id not in self._waiting, entry.asked_at
        if is_new and entry.checks and asked_at is not None and asked_at > one.since:
            # Its row was opened by another process, and this one has read another answer since.
            entry.note(other_at=None if isinstance(entry.written, Cancelled) else asked_at)
        if isinstance(entry.written, Waiting):
            # A repeated "waiting" closes the row, so it must be written.
            entry.written = None
        if not is_new:
            return
        at = min(one.since, now) + policy.confirm_cancelled
        if not policy.one_pass:
            self._waiting[one.order_id] = UnconfirmedState(self._context.clock.monotonic())
            # If it was over long ago, the order was asked about since, and its own time comes.
            if entry.is_waiting and at > now - policy.cap:
                queue.schedule(entry, max(now, at))
        elif entry.stage is Stage.IDLE and not entry.checks and self._is_due(entry, at, now):
            self._context.state.eligible += 1
            queue.schedule(entry, now)

    def _is_due(self, entry: TrackedOrder, at: float, now: float) -> bool:
        """Whether a wait has ended since the order was last asked about, or within the period of
        this pass.
        """
        plan = self._context.policy.plan
        if not isinstance(plan, OnePass) or plan.every is None:
            return False
        asked_at = now - plan.every if entry.asked_at is None else entry.asked_at
        return asked_at < at <= now
