"""Written; forgotten, or still open: what this process takes note of when a finding has met its fate."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final

import structlog

from order_monitor.core.answer import Waiting
from order_monitor.core.decision import StuckReason
from order_monitor.core.entry import Entry
from order_monitor.core.order import Order
from order_monitor.core.queue import READ_AGAIN
from order_monitor.core.recording import Fate, Result
from order_monitor.watch.board import Board
from order_monitor.watch.held import HeldEnds

_DIGEST_EVERY: Final = 3600.0
"""Seconds between two lines about orders that an account's provider does not know."""


class Settlement:
    """Keeps queue, state and log in step with the database."""

    def __init__(self, board: Board, held: HeldEnds, on_end: Callable[[Order], None]) -> None:
        """Take note on ``board``, and of what is ``held``, and tell its observer; ``on_end`` is told which orders we ended."""
        self._held = held
        self._board = board
        self._queue = board.queue
        self._state = board.state
        self._on_end = on_end
        self._texts: set[str] = set()
        self._told: dict[str, float] = {}
        self._log = structlog.get_logger("order_monitor.engine")

    def remain(self, accounts: Container[str]) -> None:
        """Forget what was said of accounts that are there no more; ``accounts`` are the keys of the others."""
        self._texts = {key for key in self._texts if key in accounts}
        self._told = {key: at for key, at in self._told.items() if key in accounts}

    def take(self, result: Result) -> None:
        """Take note of a finding's fate; an order that is still open is due again."""
        self._board.wake.set()
        order = result.finding.order
        entry = self._queue.get(order.id)
        delay = max(0.0, self._board.now() - result.finding.due)
        self._board.observer.settled(self._board.name_of(result.finding.account), result, delay)
        self._see_text(result)
        self._forget(result, entry)
        if result.notice:
            self._log.warning("order.changed_in_table", order_id=order.id, why=result.notice)
        if result.review is not None:
            self._log.warning("order.for_review", order_id=order.id, kind=str(result.review), detail=result.detail)
        match result.fate:
            case Fate.WRITTEN if order.awaits_pin:
                self._pin_came(result)
            case Fate.WRITTEN if result.write is not None and result.write.final:
                self._end(result)
            case Fate.HELD:
                self._held.keep(entry, result)
            case Fate.GONE:
                self._gone(result)
            case Fate.RESENT:
                self._state.resent += 1
                self._log.info("order.resent", order_id=order.id)
                self._read_again(entry, order.id, self._board.policy.first_check if result.wait else 0.0)
            case _:
                if entry is not None:
                    self._still_open(entry, result)
                    self._board.again(entry)
        if self._queue.get(order.id) is None:
            self._state.odd.pop(order.id, None)

    def _forget(self, result: Result, entry: Entry | None) -> None:
        """It is not stuck any more, nor held, unless it is so again; and whether it is understood is noted by now."""
        if entry is not None and result.marked:
            entry.understood = entry.understood or result.finding.is_told
            entry.note(odd_noted=not result.finding.is_told)
        for fate, those in ((Fate.STUCK, self._state.stuck), (Fate.HELD, self._state.kept)):
            if result.fate is not fate:
                those.pop(result.finding.order.id, None)

    def _gone(self, result: Result) -> None:
        self._state.gone += 1
        self._queue.forget(result.finding.order.id)
        self._log.warning(
            "order.gone",
            order_id=result.finding.order.id,
            status=result.status,
            why=result.detail or "somebody else ended it first",
            pin_not_written=result.review is not None,
        )

    def _read_again(self, entry: Entry | None, order_id: str, wait: float) -> None:
        """It is not as it was known: it is read again, and asked about by what it is now; one pass has had its turn."""
        if entry is None or self._board.policy.one_pass:
            self._queue.forget(order_id)
        else:
            entry.read_at = READ_AGAIN
            self._queue.schedule(entry, self._board.now() + wait)

    def _see_text(self, result: Result) -> None:
        """Say once of an account that what stands in a PIN's place has no code, as with top-ups: any order may have it."""
        has_pin = result.fate is Fate.WRITTEN and result.write is not None and result.write.pin is not None
        account = result.finding.account
        if has_pin and result.code is None and account not in self._texts:
            self._texts.add(account)
            self._log.warning("pin.is_text", account=self._board.name_of(account), order_id=result.finding.order.id)

    def _pin_came(self, result: Result) -> None:
        order = result.finding.order
        self._queue.forget(order.id)
        self._on_end(order)
        after = round(result.finding.seen_at - (order.ended_at or result.finding.seen_at), 1)
        self._log.info("order.pin_came", order_id=order.id, tenant_id=order.tenant_id, after=after)

    def _end(self, result: Result) -> None:
        finding, write = result.finding, result.write
        assert write is not None
        self._state.ends[write.outcome] += 1
        self._state.timeouts += isinstance(finding.answer, Waiting)
        self._queue.forget(finding.order.id)
        self._on_end(finding.order)
        if result.repeat:
            self._log.warning("order.repeated", order_id=finding.order.id, status=write.status)
        self._log.info(
            f"order.{write.outcome}",
            order_id=finding.order.id,
            tenant_id=finding.order.tenant_id,
            status=write.status,
            has_pin=write.pin is not None,
            age=round(finding.age, 1),
            checks=finding.checks,
        )

    def _still_open(self, entry: Entry, result: Result) -> None:
        order = result.finding.order
        if result.fate is Fate.STUCK:
            self._stuck(entry, result)
        else:
            entry.note(stuck=None)
        if result.write is not None and order.status != result.write.status:
            known = order._replace(status=result.write.status, understood=entry.understood)
            self._queue.renew(entry, known, entry.account)
            self._log.info("order.processing", order_id=order.id, tenant_id=order.tenant_id)
        if result.is_refused or result.is_partial:
            # What is not in the table as it was said is to be written with the next answer, even if that is the same.
            entry.written = None
        elif result.finding.is_told:
            entry.written = result.finding.answer

    def _stuck(self, entry: Entry, result: Result) -> None:
        reason = str(result.stuck)
        self._state.stuck[entry.id] = reason
        if entry.memo.stuck != reason and result.stuck is StuckReason.NOT_KNOWN:
            self._not_known(result)
        elif entry.memo.stuck != reason:
            self._log.error("order.stuck", order_id=entry.id, reason=reason, detail=result.detail)
        entry.note(stuck=reason)

    def _not_known(self, result: Result) -> None:
        """Say that there are orders which the provider does not know: one line for an account, and not again for a while."""
        account, now = result.finding.account, self._board.clock.monotonic()
        if now - self._told.get(account, float("-inf")) < _DIGEST_EVERY:
            return
        self._told[account] = now
        stuck = sum(e.account == account and e.memo.stuck == StuckReason.NOT_KNOWN for e in self._queue)
        count = max(sum(key == account for key in self._state.odd.values()), stuck + 1)
        self._log.error(
            "account.not_known",
            account=self._board.name_of(account),
            orders=count,
            order_id=result.finding.order.id,
            detail=result.detail,
        )
