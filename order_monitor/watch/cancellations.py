"""Answers that are not believed at once: a cancellation that needs confirmation, and answers that
only a person can interpret. No I/O.
"""

from __future__ import annotations

import structlog

from order_monitor.core.answer import Answer, Cancelled, Garbled
from order_monitor.core.decision import FOR_A_PERSON
from order_monitor.core.tracked_order import TrackedOrder


class UnconfirmedCancellations:
    """Remembers the doubtful answers, in the orders' entries. Times are epoch seconds."""

    def __init__(self, confirm_cancelled: float) -> None:
        """Believe a cancellation when a second answer confirms it ``confirm_cancelled`` seconds
        later.

        With 0 the first answer is believed.
        """
        self._confirm = confirm_cancelled
        self.open: dict[str, str] = {}
        """The account's key of each order whose cancellation waits."""
        self.answered: set[str] | None = None
        """While stored cancellations are still to be restored: the orders that were answered
        otherwise since, and whose stored ones are withdrawn.
        """
        self._fresh: dict[str, str] = {}
        self._settled: set[str] = set()
        self._log = structlog.get_logger("order_monitor.engine")

    def ask_again_at(self, entry: TrackedOrder, answer: Answer, now: float) -> float | None:
        """Return when to confirm a cancellation, None if the answer can be believed.

        Any other answer in the meantime withdraws the cancellation.
        """
        self.open.pop(entry.id, None)
        before = entry.rare.cancelled_at
        if not isinstance(answer, Cancelled):
            if self.answered is not None:
                self.answered.add(entry.id)
            if before is not None:
                entry.note(cancelled_at=None)
                self._settle(entry)
                self._log.warning(
                    "order.cancel_withdrawn", order_id=entry.id, outcome=answer.outcome
                )
            return None
        if not self._confirm:
            return None
        if before is not None and now - before >= self._confirm:
            self._settle(entry)
            return None
        if before is None:
            # Also one that was withdrawn just now: it is stored anew, with its own time.
            self._fresh[entry.id] = entry.account
        since = now if before is None else before
        entry.note(cancelled_at=since)
        self.open[entry.id] = entry.account
        self._log.info("order.cancel_unconfirmed", order_id=entry.id, again_in=self._confirm)
        return since + self._confirm

    def _settle(self, entry: TrackedOrder) -> None:
        self._fresh.pop(entry.id, None)
        self._settled.add(entry.id)

    def changes(self) -> tuple[dict[str, str], set[str]]:
        """Return the cancellations that began to wait since the last call, each with its account,
        and the orders whose waiting ended.
        """
        told = self._fresh, self._settled
        self._fresh, self._settled = {}, set()
        return told

    def is_for_a_person(self, entry: TrackedOrder, answer: Answer) -> bool:
        """Whether the number of odd answers has reached the limit, so that a person must look."""
        allowed = FOR_A_PERSON.get(answer.why) if isinstance(answer, Garbled) else None
        unknown = entry.rare.unknown + 1 if allowed else 0
        entry.note(unknown=unknown)
        return allowed is not None and unknown == allowed[1]

    def forget(self, entry: TrackedOrder) -> None:
        """Stop waiting for a confirmation of this order."""
        self.open.pop(entry.id, None)
