"""Processes the result of a write: the order is forgotten, or stays open."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

import structlog

from order_monitor.core.answer import Waiting
from order_monitor.core.check_result import WriteResult, WriteStatus
from order_monitor.core.decision import StuckReason
from order_monitor.core.queue import READ_AGAIN
from order_monitor.core.tracked_order import TrackedOrder
from order_monitor.watch.cancellations import UnconfirmedCancellations
from order_monitor.watch.context import Context
from order_monitor.watch.held import HeldEnds
from order_monitor.watch.intake import Intake

_DIGEST_EVERY: Final = 3600.0
"""Seconds between two log lines about orders that an account's provider does not know."""


class ResultHandler:
    """Keeps queue, state and log in step with the database."""

    def __init__(
        self,
        context: Context,
        held: HeldEnds,
        cancellations: UnconfirmedCancellations,
        intake: Intake,
    ) -> None:
        """Record results on ``context``, held ends on ``held``, and those that wait for a second
        answer on ``cancellations``, and notify the context's observer.

        ``intake`` receives the orders that we ended.
        """
        self._held = held
        self._cancellations = cancellations
        self._context = context
        self._queue = context.queue
        self._state = context.state
        self._intake = intake
        self._texts: set[str] = set()
        self._told: dict[str, float] = {}
        self._log = structlog.get_logger("order_monitor.engine")

    def remain(self, accounts: Container[str]) -> None:
        """Drop what was logged of accounts other than these (by key)."""
        self._texts = {key for key in self._texts if key in accounts}
        self._told = {key: at for key, at in self._told.items() if key in accounts}

    def wrote(self, count: int, seconds: float) -> None:
        """Report how many results a batch wrote to the database, and in how many seconds."""
        self._context.observer.wrote(count, seconds)

    def is_stuck(self, order_id: str) -> bool:
        """Whether an order whose write was refused is still open, ours, and not written."""
        return order_id in self._state.stuck

    def handle(self, result: WriteResult) -> None:
        """Process the result of a write; an order that is still open becomes due again."""
        self._context.wake.set()
        order = result.finding.order
        entry = self._queue.get(order.id)
        delay = max(0.0, self._context.now() - result.finding.due)
        self._context.observer.settled(self._context.name_of(result.finding.account), result, delay)
        self._see_text(result)
        self._forget(result, entry)
        self._warn(result)
        self._cancellations.answered(result)
        match result.fate:
            case WriteStatus.WRITTEN if order.awaits_pin:
                self._pin_came(result)
            case WriteStatus.WRITTEN if result.write is not None and result.write.final:
                self._end(result)
            case WriteStatus.HELD:
                self._held.keep(entry, result)
            case WriteStatus.UNCONFIRMED:
                self._cancellations.keep(entry, result)
            case WriteStatus.OBSERVED:
                self._observed(result)
            case WriteStatus.GONE:
                self._gone(result)
            case WriteStatus.RESENT:
                self._resent(entry, result)
            case _:
                if entry is not None:
                    self._still_open(entry, result)
                    self._context.again(entry)
        if self._queue.get(order.id) is None:
            self._state.odd.pop(order.id, None)
            self._state.unconfirmed.pop(order.id, None)

    def _warn(self, result: WriteResult) -> None:
        """Say what a person should know of it, whatever its fate."""
        order_id = result.order_id
        if result.notice:
            self._log.warning("order.changed_in_table", order_id=order_id, why=result.notice)
        if result.review is not None:
            self._log.warning(
                "order.for_review", order_id=order_id, kind=str(result.review), detail=result.detail
            )

    def _forget(self, result: WriteResult, entry: TrackedOrder | None) -> None:
        """Clear stuck and held marks that do not apply again; keep what is noted as odd."""
        if entry is not None and result.marked:
            entry.understood = entry.understood or result.finding.is_told
            entry.note(odd_noted=not result.finding.is_told)
        for fate, those in (
            (WriteStatus.STUCK, self._state.stuck),
            (WriteStatus.HELD, self._state.kept),
        ):
            if result.fate is not fate:
                those.pop(result.order_id, None)

    def _observed(self, result: WriteResult) -> None:
        """Its end was only noted: whether it is open still is another monitor's matter."""
        finding, write = result.finding, result.write
        self._state.observed += 1
        self._queue.forget(finding.order.id)
        self._log.info(
            "order.observed",
            order_id=finding.order.id,
            tenant_id=finding.order.tenant_id,
            answer=finding.answer.outcome,
            would_be=write.status if write is not None else None,
            has_pin=write is not None and write.pin is not None,
            row=result.status,
            age=round(finding.age, 1),
            checks=finding.checks,
        )

    def _gone(self, result: WriteResult) -> None:
        self._state.gone += 1
        self._queue.forget(result.order_id)
        self._log.warning(
            "order.gone",
            order_id=result.order_id,
            status=result.status,
            why=result.detail or "another writer ended it first",
            pin_not_written=result.review is not None,
        )

    def _resent(self, entry: TrackedOrder | None, result: WriteResult) -> None:
        """Read a changed order again, and ask about its new row; a single pass is done with it. One
        that has ended is read by the next scan alone.
        """
        order_id, policy = result.order_id, self._context.policy
        self._state.resent += 1
        self._log.info("order.resent", order_id=order_id)
        if entry is None or policy.one_pass or entry.awaits_pin:
            self._queue.forget(order_id)
        else:
            entry.read_at = READ_AGAIN
            wait = policy.first_check if result.wait else 0.0
            self._queue.schedule(entry, self._context.now() + wait)

    def _see_text(self, result: WriteResult) -> None:
        """Log once per account that the text in the PIN's place contains no code, as with top-ups:
        several orders may have the same text.
        """
        has_pin = result.write is not None and result.write.pin is not None
        is_written = result.fate is WriteStatus.WRITTEN
        account = result.finding.account
        if is_written and has_pin and result.code is None and account not in self._texts:
            self._texts.add(account)
            self._log.warning(
                "pin.is_text", account=self._context.name_of(account), order_id=result.order_id
            )

    def _pin_came(self, result: WriteResult) -> None:
        order = result.finding.order
        self._queue.forget(order.id)
        self._intake.ended(order)
        after = round(result.finding.seen_at - (order.ended_at or result.finding.seen_at), 1)
        self._log.info("order.pin_came", order_id=order.id, tenant_id=order.tenant_id, after=after)

    def _end(self, result: WriteResult) -> None:
        finding, write = result.finding, result.write
        assert write is not None
        self._state.ends[write.outcome] += 1
        self._state.timeouts += isinstance(finding.answer, Waiting)
        self._queue.forget(finding.order.id)
        self._intake.ended(finding.order)
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

    def _still_open(self, entry: TrackedOrder, result: WriteResult) -> None:
        order = result.finding.order
        if result.fate is WriteStatus.STUCK:
            self._stuck(entry, result)
        else:
            entry.note(stuck=None)
        if result.write is not None and order.status != result.write.status:
            known = order._replace(status=result.write.status, understood=entry.understood)
            self._queue.renew(entry, known, entry.account)
            self._log.info("order.processing", order_id=order.id, tenant_id=order.tenant_id)
        if result.is_refused or result.is_partial:
            # If the table does not contain what was to be written, the next answer must be written
            # even if it is the same.
            entry.written = None
        elif result.finding.is_told:
            entry.written = result.finding.answer

    def _stuck(self, entry: TrackedOrder, result: WriteResult) -> None:
        reason = str(result.stuck)
        self._state.stuck[entry.id] = reason
        if entry.rare.stuck != reason and result.stuck is StuckReason.NOT_KNOWN:
            self._not_known(result)
        elif entry.rare.stuck != reason:
            self._log.error("order.stuck", order_id=entry.id, reason=reason, detail=result.detail)
        entry.note(stuck=reason)

    def _not_known(self, result: WriteResult) -> None:
        """Log once an hour per account that its provider does not know some orders."""
        account, now = result.finding.account, self._context.clock.monotonic()
        if now - self._told.get(account, float("-inf")) < _DIGEST_EVERY:
            return
        self._told[account] = now
        stuck = sum(
            e.account == account and e.rare.stuck == StuckReason.NOT_KNOWN for e in self._queue
        )
        count = max(sum(key == account for key in self._state.odd.values()), stuck + 1)
        self._log.error(
            "account.not_known",
            account=self._context.name_of(account),
            orders=count,
            order_id=result.order_id,
            detail=result.detail,
        )
