"""How an account does, by its answers: its gate, what was said last, and one line in the log where that changes."""

from __future__ import annotations

from typing import Final

import structlog

from order_monitor.core.judge import Fault
from order_monitor.watch.account import Account
from order_monitor.watch.board import Board
from order_monitor.watch.writer import Writer

_STILL_CLOSED_EVERY: Final = 3600.0


class AccountHealth:
    """Notes what an answer means for its account. Times are monotonic seconds."""

    def __init__(self, board: Board, writer: Writer) -> None:
        """Note successes on ``board``, as long as ``writer`` does not stand still."""
        self._board = board
        self._writer = writer
        self._log = structlog.get_logger("order_monitor.engine")

    def answered(self, account: Account, now: float, *, probe: bool) -> None:
        """Note an answer that was understood."""
        account.last_error = account.said = ""
        account.answered_at = self._board.now()
        self.reached(account, now, probe=probe)
        if not self._writer.stands_still():
            self._board.state.succeeded_at = account.answered_at

    def reached(self, account: Account, now: float, *, probe: bool) -> None:
        """Note that it answers at all, which ends an outage."""
        if account.gate.succeeded(probe=probe):
            closed_for = round(now - account.closed_at, 1)
            self._log.info("account.opened", account=account.name, closed_for=closed_for, failures=account.failures)

    def failed(self, account: Account, why: str, now: float, *, is_shut: bool, fault: Fault) -> None:
        """Note a failure: an outage is the account's, and one line in the log; the order keeps its place."""
        account.last_error, account.fault = why, fault
        if is_shut:
            account.closed_at = account.told_at = now
            account.failures = 0
            self._log.error("account.closed", account=account.name, reason=why, message=account.said, fault=str(fault))
        account.failures += 1
        if not account.gate.is_open and now - account.told_at >= _STILL_CLOSED_EVERY:
            account.told_at = now
            self._log.warning(
                "account.still_closed",
                account=account.name,
                reason=why,
                closed_for=round(now - account.closed_at, 1),
                failures=account.failures,
                due=self._board.queue.ready.count(account.key),
            )
