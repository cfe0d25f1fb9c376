"""Answers that are not believed at once: a cancellation that is to be confirmed, and what only a person can read. No I/O."""

from __future__ import annotations

import structlog

from order_monitor.core.answer import Answer, Cancelled, Garbled
from order_monitor.core.decision import FOR_A_PERSON
from order_monitor.core.entry import Entry


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
        self.open.discard(entry.id)
        before = entry.memo.cancelled_at
        if not isinstance(answer, Cancelled):
            if before is not None:
                entry.note(cancelled_at=None)
                self._settle(entry)
                self._log.warning("order.cancel_withdrawn", order_id=entry.id, outcome=answer.outcome)
            return None
        if not self._confirm:
            return None
        if before is not None and now - before >= self._confirm:
            self._settle(entry)
            return None
        if before is None:
            self._fresh[entry.id] = entry.account
            self._settled.discard(entry.id)
        since = now if before is None else before
        entry.note(cancelled_at=since)
        self.open.add(entry.id)
        self._log.info("order.cancel_unconfirmed", order_id=entry.id, again_in=self._confirm)
        return since + self._confirm

    def _settle(self, entry: Entry) -> None:
        self._fresh.pop(entry.id, None)
        self._settled.add(entry.id)

    def changes(self) -> tuple[dict[str, str], set[str]]:
        """Return what began to wait since the last call, each with its account, and what waits no more."""
        told = self._fresh, self._settled
        self._fresh, self._settled = {}, set()
        return told

    def is_for_a_person(self, entry: Entry, answer: Answer) -> bool:
        """Whether this is the odd answer that is one too many, so that a person is asked to look."""
        allowed = FOR_A_PERSON.get(answer.why) if isinstance(answer, Garbled) else None
        unknown = entry.memo.unknown + 1 if allowed else 0
        entry.note(unknown=unknown)
        return allowed is not None and unknown == allowed[1]

    def forget(self, entry: Entry) -> None:
        """Wait for no confirmation of this order any more."""
        self.open.discard(entry.id)
