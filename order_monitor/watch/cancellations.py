"""When an order is asked about again whose cancellation waits for a second answer.

The rows of the shared table decide whether it is believed (`order_monitor.shop.writing.cancellations`);
this only plans the questions, and logs.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from order_monitor.core.answer import Completed, Waiting
from order_monitor.core.check_result import WriteResult
from order_monitor.core.tracked_order import Stage, TrackedOrder
from order_monitor.shop.writing.cancellations import Unconfirmed
from order_monitor.watch.context import Context


class UnconfirmedCancellations:
    """Keeps the queue and the log in step with the cancellations that wait."""

    def __init__(self, context: Context) -> None:
        """Plan on ``context``."""
        self._context = context
        self._waiting = context.state.unconfirmed
        self._log = structlog.get_logger("order_monitor.engine")

    def keep(self, entry: TrackedOrder | None, result: WriteResult) -> None:
        """Process a cancellation that is not believed yet: its order is asked about again when the
        wait is over.
        """
        assert result.again_at is not None
        order_id, now = result.finding.order.id, self._context.now()
        if order_id not in self._waiting:
            again_in = round(result.again_at - result.finding.seen_at, 3)
            self._log.info("order.cancel_unconfirmed", order_id=order_id, again_in=again_in)
        self._waiting[order_id] = self._context.clock.monotonic()
        if entry is not None:
            entry.note(stuck=None)
            entry.written = result.finding.answer
            self._context.queue.schedule(entry, max(now, result.again_at))

    def answered(self, result: WriteResult) -> None:
        """Note that an order's cancellation waits no longer, if the write of an answer closed its
        row.
        """
        order_id, answer = result.finding.order.id, result.finding.answer
        if order_id not in self._waiting or not (result.is_end or result.withdraws_cancellation):
            return
        del self._waiting[order_id]
        if isinstance(answer, Completed | Waiting):
            self._log.warning("order.cancel_withdrawn", order_id=order_id, outcome=answer.outcome)

    def look(self, waiting: Sequence[Unconfirmed], began: float) -> None:
        """Take over what a scan that ``began`` at this time (monotonic seconds) read."""
        stored = {one.order_id for one in waiting}
        for order_id in [i for i, at in self._waiting.items() if i not in stored and at < began]:
            del self._waiting[order_id]
            if self._context.queue.get(order_id) is not None:
                self._log.warning("order.cancel_withdrawn", order_id=order_id, outcome="elsewhere")
        for one in waiting:
            self._plan(one)

    def _plan(self, one: Unconfirmed) -> None:
        """Ask when the wait is over that another process, or this one before a restart, began."""
        queue, policy, now = self._context.queue, self._context.policy, self._context.now()
        entry = queue.get(one.order_id)
        if entry is None:
            # Another member asks about it.
            self._waiting.pop(one.order_id, None)
        if entry is None or not (entry.is_waiting or entry.stage is Stage.IDLE):
            return
        if isinstance(entry.written, Waiting):
            # A repeated "waiting" closes the row, so it must be written.
            entry.written = None
        if one.order_id in self._waiting:
            return
        at = max(now, min(one.since, now) + policy.confirm_cancelled)
        if not policy.one_pass:
            self._waiting[one.order_id] = self._context.clock.monotonic()
            if entry.is_waiting:
                queue.schedule(entry, at)
        elif entry.stage is Stage.IDLE and not entry.checks and at <= now:
            self._context.state.eligible += 1
            queue.schedule(entry, now)
