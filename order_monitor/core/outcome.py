"""What a change of an order means: one closed type, from which its words, its event and whether money moves all follow.

Whoever adds a member is shown by the type checker every place that must know it: each `match` here ends in ``assert_never``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never


class Outcome(StrEnum):
    """What an order's status means, whatever word the shop has for it; the value is the word in events, metrics and pages."""

    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether the order has ended."""
        match self:
            case Outcome.PROCESSING:
                return False
            case Outcome.COMPLETED | Outcome.FAILED:
                return True
            case _:
                assert_never(self)

    @property
    def is_refund(self) -> bool:
        """Whether the customer gets the money back: what the brake holds, and what a row with a PIN never becomes."""
        match self:
            case Outcome.FAILED:
                return True
            case Outcome.PROCESSING | Outcome.COMPLETED:
                return False
            case _:
                assert_never(self)

    @property
    def usual_words(self) -> tuple[str, ...]:
        """The words that shops commonly have for it, besides those in the settings."""
        match self:
            case Outcome.PROCESSING:
                return ()
            case Outcome.COMPLETED:
                return "completed", "delivered", "done", "approved"
            case Outcome.FAILED:
                return "failed", "rejected", "cancelled", "canceled", "refunded"
            case _:
                assert_never(self)


FINAL = tuple(outcome for outcome in Outcome if outcome.is_final)
"""The outcomes that end an order."""


class Cause(StrEnum):
    """What made a change; the value is the word in events."""

    ANSWER = "answer"
    TIME_LIMIT = "time_limit"
    PERSON = "person"
