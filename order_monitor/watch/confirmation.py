"""Answers that are not believed at once: a cancellation that is to be confirmed, and what only a person can read. No I/O."""

from __future__ import annotations

import structlog

from order_monitor.core.answer import Answer, Cancelled, Garbled
from order_monitor.core.decision import FOR_A_PERSON
from order_monitor.core.queue import Entry


class Confirmations:
    """Remembers, in the orders' entries, what was doubted. Times are epoch seconds."""

    def __init__(self, confirm_cancelled: float) -> None:
        """Believe a cancellation when a second answer agrees ``confirm_cancelled`` seconds later; 0 believes the first."""
        self._confirm = confirm_cancelled
        self.open: set[str] = set()
        self._fresh: dict[str, str] = {}
        self._settled: set[str] = set()
        self._log = structlog.get_logger("order_monitor.engine")

    def ask_again_at(self, entry: Entry, answer: Answer, now: float) -> float | None:
        """Return when a cancellation must be confirmed, None for an answer that is to be believed.

        Whatever else is said meanwhile withdraws the cancellation.
        """
        self.open.discard(entry.order.id)
        before = entry.cancelled_at
        if not isinstance(answer, Cancelled):
            entry.cancelled_at = None
            if before is not None:
                self._settle(entry)
                self._log.warning("order.cancel_withdrawn", order_id=entry.order.id, outcome=answer.outcome)
            return None
        if not self._confirm:
            return None
        if before is not None and now - before >= self._confirm:
            self._settle(entry)
            return None
        if before is None:
            self._fresh[entry.order.id] = entry.account
            self._settled.discard(entry.order.id)
        entry.cancelled_at = now if before is None else before
        self.open.add(entry.order.id)
        self._log.info("order.cancel_unconfirmed", order_id=entry.order.id, again_in=self._confirm)
        return entry.cancelled_at + self._confirm

    def _settle(self, entry: Entry) -> None:
        self._fresh.pop(entry.order.id, None)
        self._settled.add(entry.order.id)

    def changes(self) -> tuple[dict[str, str], set[str]]:
        """Return what began to wait since the last call, each with its account, and what waits no more."""
        told = self._fresh, self._settled
        self._fresh, self._settled = {}, set()
        return told

    def is_for_a_person(self, entry: Entry, answer: Answer) -> bool:
        """Whether this is the odd answer that is one too many, so that a person is asked to look."""
        allowed = FOR_A_PERSON.get(answer.why) if isinstance(answer, Garbled) else None
        entry.unknown = entry.unknown + 1 if allowed else 0
        return allowed is not None and entry.unknown == allowed[1]

    def forget(self, entry: Entry) -> None:
        """Wait for no confirmation of this order any more."""
        self.open.discard(entry.order.id)
