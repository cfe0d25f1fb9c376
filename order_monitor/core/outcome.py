"""What a change of an order means: one closed type that determines its words, its event and whether
money moves.

After adding a member, the type checker reports every place that must handle it: each `match` here
ends in ``assert_never``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never


class Outcome(StrEnum):
    """The meaning of an order's status, whatever word the shop uses for it.

    The value is the word in events, metrics and pages.
    """

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
        """Whether the customer gets the money back. The brake holds these back, and a row with a
        PIN never becomes one.
        """
        match self:
            case Outcome.FAILED:
                return True
            case Outcome.PROCESSING | Outcome.COMPLETED:
                return False
            case _:
                assert_never(self)

    @property
    def usual_words(self) -> tuple[str, ...]:
        """Common status words of shops for this outcome, in addition to those in the settings."""
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
    """What caused a change; the value is the word in events."""

    ANSWER = "answer"
    TIME_LIMIT = "time_limit"
    PERSON = "person"
    CHILD = "child"

    @property
    def is_providers(self) -> bool:
        """Whether it tells when a provider ended the order itself: what timing is learned from."""
        match self:
            case Cause.ANSWER:
                return True
            case Cause.TIME_LIMIT | Cause.PERSON | Cause.CHILD:
                return False
            case _:
                assert_never(self)

    @property
    def is_counted(self) -> bool:
        """Whether the brake counts it: an order's end that its own provider's answers have led to."""
        match self:
            case Cause.ANSWER | Cause.TIME_LIMIT:
                return True
            case Cause.PERSON | Cause.CHILD:
                return False
            case _:
                assert_never(self)
