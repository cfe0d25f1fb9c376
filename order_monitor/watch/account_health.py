"""The health of an account, judged by its answers: its gate, its last message, and one log line per
change.
"""

from __future__ import annotations

from typing import Final

import structlog

from order_monitor.core.judge import Fault
from order_monitor.watch.account import Account
from order_monitor.watch.context import Context
from order_monitor.watch.write_queue import WriteQueue

_STILL_CLOSED_EVERY: Final = 3600.0


class AccountHealth:
    """Records what an answer means for its account. Times are monotonic seconds."""

    def __init__(self, context: Context, writer: WriteQueue) -> None:
        """Record successes on ``context``, unless the writes of ``writer`` stand still."""
        self._context = context
        self._writer = writer
        self._log = structlog.get_logger("order_monitor.engine")

    def answered(self, account: Account, now: float, *, probe: bool) -> None:
        """Record an answer that was understood."""
        account.last_error = account.said = ""
        account.answered_at = self._context.now()
        self.reached(account, now, probe=probe)
        if not self._writer.stands_still():
            self._context.state.succeeded_at = account.answered_at

    def reached(self, account: Account, now: float, *, probe: bool) -> None:
        """Record that the account answers, which ends an outage."""
        if account.gate.succeeded(probe=probe):
            closed_for = round(now - account.closed_at, 1)
            self._log.info(
                "account.opened",
                account=account.name,
                closed_for=closed_for,
                failures=account.failures,
            )

    def failed(
        self, account: Account, why: str, now: float, *, is_shut: bool, fault: Fault
    ) -> None:
        """Record a failure. An outage counts for the account, and is one log line.

        The order keeps its place.
        """
        account.last_error, account.fault = why, fault
        if is_shut:
            account.closed_at = account.told_at = now
            account.failures = 0
            self._log.error(
                "account.closed",
                account=account.name,
                reason=why,
                message=account.said,
                fault=str(fault),
            )
        account.failures += 1
        if not account.gate.is_open and now - account.told_at >= _STILL_CLOSED_EVERY:
            account.told_at = now
            self._log.warning(
                "account.still_closed",
                account=account.name,
                reason=why,
                closed_for=round(now - account.closed_at, 1),
                failures=account.failures,
                due=self._context.queue.ready.count(account.key),
            )
