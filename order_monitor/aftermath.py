"""Written; forgotten, or still open: what this process takes note of when a finding has met its fate."""

from __future__ import annotations

from dataclasses import replace

import structlog

from order_monitor.answer import Completed, Waiting
from order_monitor.book import Book, Entry
from order_monitor.finding import Fate, Result
from order_monitor.intake import Intake
from order_monitor.observer import Observer
from order_monitor.state import State


class Aftermath:
    """Keeps book, state and log in step with the database."""

    def __init__(self, book: Book, state: State, intake: Intake, observer: Observer) -> None:
        """Take note in ``book`` and ``state``, and tell ``observer``."""
        self._book = book
        self._state = state
        self._intake = intake
        self._observer = observer
        self._log = structlog.get_logger("order_monitor.engine")

    def take(self, result: Result, delay: float) -> Entry | None:
        """Take note of a finding's fate, ``delay`` seconds after its slot; return the order's entry if it is still open."""
        order = result.finding.order
        entry = self._book.get(order.id)
        self._observer.settled(entry.account if entry else "", result, delay)
        if result.fate is not Fate.STUCK:
            self._state.stuck.discard(order.id)
        match result.fate:
            case Fate.WRITTEN if result.write is not None and result.write.final:
                self._end(result)
            case Fate.GONE:
                self._state.gone += 1
                self._book.forget(order.id)
                has_pin = isinstance(result.finding.answer, Completed) and result.finding.answer.pin is not None
                self._log.warning(
                    "order.gone",
                    order_id=order.id,
                    status=result.status,
                    why=result.detail or "somebody else ended it first",
                    pin_not_written=has_pin,
                )
            case Fate.RESENT:
                self._state.resent += 1
                self._book.forget(order.id)
                self._log.info("order.resent", order_id=order.id)
            case _:
                if entry is not None:
                    self._still_open(entry, result)
                return entry
        return None

    def _end(self, result: Result) -> None:
        finding, write = result.finding, result.write
        assert write is not None  # noqa: S101 - matched by the caller
        outcome = "completed" if isinstance(finding.answer, Completed) else "failed"
        self._state.ends[outcome] += 1
        self._state.timeouts += isinstance(finding.answer, Waiting)
        self._book.forget(finding.order.id)
        self._intake.ended(finding.order)
        if result.repeat:
            self._log.warning("order.repeated", order_id=finding.order.id, status=write.status)
        self._log.info(
            f"order.{outcome}",
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
            entry.stuck = None
        if result.write is not None:
            entry.order = replace(order, status=result.write.status)
            if order.status != result.write.status:
                self._log.info("order.processing", order_id=order.id, tenant_id=order.tenant_id)
        entry.written = result.finding.answer

    def _stuck(self, entry: Entry, result: Result) -> None:
        reason = str(result.stuck)
        self._state.stuck.add(entry.order.id)
        if entry.stuck != reason:
            self._log.error("order.stuck", order_id=entry.order.id, reason=reason, detail=result.detail)
        entry.stuck = reason
