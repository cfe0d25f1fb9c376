"""When an order is asked about again whose cancellation waits for a second answer.

The rows of the shared table decide whether it is believed (`order_monitor.shop.writing.cancellations`);
this only plans the questions, and logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from order_monitor.core.answer import Completed, Waiting
from order_monitor.core.check_result import WriteResult
from order_monitor.core.confirmation import Unconfirmed
from order_monitor.core.schedule import OnePass
from order_monitor.core.tracked_order import Stage, TrackedOrder
from order_monitor.shop.writing.cancellations import SHOWN
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
        """Process a cancellation not believed yet: its order is asked again after the wait."""
        assert result.again_at is not None
        finding, policy = result.finding, self._context.policy
        now, before = self._context.clock.monotonic(), self._waiting.get(finding.order.id)
        if before is None or result.is_first:
            again_in = round(result.again_at - finding.seen_at, 3)
            self._log.info("order.cancel_unconfirmed", order_id=finding.order.id, again_in=again_in)
        began_at = None if before is None else before.began_at
        if result.is_first:
            # The commit may have taken a while since the row was dated.
            dated = result.again_at - policy.confirm_cancelled - finding.seen_at
            began_at = now - max(0.0, finding.since_read() - dated)
        self._waiting[finding.order.id] = UnconfirmedState(now, began_at)
        self._over.pop(finding.order.id, None)
        if entry is None:
            return
        entry.note(stuck=None)
        entry.written = finding.answer
        if policy.one_pass and before is not None and result.is_first:
            # Another process was answered otherwise meanwhile: the next pass goes on.
            self._context.queue.idle(entry)
        else:
            self._context.queue.schedule(entry, max(self._context.now(), result.again_at))

    def answered(self, result: WriteResult) -> None:
        """Note that an order's cancellation waits no longer, if a written answer closed it."""
        order_id, answer = result.order_id, result.finding.answer
        is_over = result.is_end or result.withdraws_cancellation
        if not is_over or not self._context.policy.confirm_cancelled:
            return
        self._over[order_id] = self._context.clock.monotonic()
        if self._waiting.pop(order_id, None) and isinstance(answer, Completed | Waiting):
            self._log.warning("order.cancel_withdrawn", order_id=order_id, outcome=answer.outcome)

    def after_scan(
        self, waiting: Sequence[Unconfirmed] | None, began: float, *, is_whole: bool
    ) -> None:
        """Take over what a scan that ``began`` at this time (monotonic seconds) read; None if it
        read no such rows. ``is_whole``: it read all open orders.
        """
        self._over = {i: at for i, at in self._over.items() if at >= began}
        if waiting is None:
            return
        stored = {one.order_id for one in waiting}
        # After a quick scan, an order in the queue may have ended: by this cancellation.
        if is_whole and len(stored) < SHOWN:
            self._forget(stored, began)
        for one in waiting:
            if one.order_id not in self._over:
                self._plan(one)

    def _forget(self, stored: set[str], began: float) -> None:
        """Forget cancellations whose rows another process has closed."""
        gone = [i for i, s in self._waiting.items() if i not in stored and s.seen_at < began]
        for order_id in gone:
            del self._waiting[order_id]
            entry = self._context.queue.get(order_id)
            if entry is not None and entry.read_at >= began:
                self._log.warning("order.cancel_withdrawn", order_id=order_id, outcome=_ELSEWHERE)

    def _plan(self, one: Unconfirmed) -> None:
        """Ask when the wait is over that another process, or this one before a restart, began."""
        queue, policy, now = self._context.queue, self._context.policy, self._context.now()
        entry = queue.get(one.order_id)
        if entry is None or not one.is_about(entry.account, entry.reference):
            # Another member's order, or one that was sent again.
            self._waiting.pop(one.order_id, None)
            return
        if not (entry.is_waiting or entry.stage is Stage.IDLE):
            return
        if isinstance(entry.written, Waiting):
            # A repeated "waiting" closes the row, so it must be written.
            entry.written = None
        if one.order_id in self._waiting:
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
        """Whether a wait has ended since the order was asked, or within this pass's period."""
        plan = self._context.policy.plan
        since = plan.since(entry.asked_at, now) if isinstance(plan, OnePass) else None
        return since is not None and since < at <= now
