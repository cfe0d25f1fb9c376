"""The result of one check on its way into the database, and what became of it there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, assert_never

from order_monitor.core.answer import AboutOrder, Answer, Completed, Waiting
from order_monitor.core.decision import StuckReason, Write
from order_monitor.core.order import CONFIGURED, Order
from order_monitor.core.pin import Pin

ANY_ORDER: Final = "*"
"""Stands for an order's id: any order with the same code."""


@dataclass(slots=True)
class CheckResult:
    """An answer about one order.

    ``seen_at`` is epoch seconds by the database's clock; ``due`` is the slot it was asked for.
    ``account`` is the key of the account that was asked; ``tries`` counts how often the database
    put the write off. ``by_person``: a person decides instead of the provider; ``same_as`` is the
    order that, according to that person, rightly has the same code. ``had`` is the PIN column's
    value when the row was locked; ``had_none``: that counts as no PIN. ``attempted`` is a change
    whose commit may or may not have happened: when the row is read back, it distinguishes
    our own write from another one. ``vouched``: the clocks agreed when the answer came; only then
    may the order's age end it. ``seen_utc`` is this machine's clock at that time, epoch seconds.
    ``odd_since``: since when no answer about the order was understood, through the order's own
    fault (epoch seconds), and ``is_odd_noted`` whether its dispatch has that noted.
    ``others_understood``: another order of the account was understood within the hour before this
    answer. ``nobody_understood``: no order was understood for as long as orders may wait, or at
    all, so it cannot be determined whose fault the answer is; a person has to look. ``child`` is
    the order whose end this answer repeats, if no provider was asked. ``other_at``: when this
    process last had another answer about the order than a cancellation (epoch seconds);
    ``waited``: seconds by its own clock since the first cancellation was written, if it wrote that.
    ``since_read`` returns the seconds since the answer was read.
    """

    order: Order
    answer: Answer
    seen_at: float
    due: float = 0.0
    checks: int = 0
    account: str = CONFIGURED
    tries: int = 0
    attempted: Write | None = None
    had: str | None = None
    had_none: bool = True
    by_person: bool = False
    same_as: str | None = None
    vouched: bool = True
    seen_utc: float | None = None
    odd_since: float | None = None
    is_odd_noted: bool = False
    others_understood: bool = False
    nobody_understood: bool = False
    child: str | None = None
    other_at: float | None = None
    waited: float | None = None
    since_read: Callable[[], float] = field(default=float, repr=False)

    @property
    def is_urgent(self) -> bool:
        """Whether the write should not be delayed. An order that still waits can be written a
        little later, in a larger batch.
        """
        return not isinstance(self.answer, Waiting)

    @property
    def age(self) -> float:
        """Seconds from ``sent_at`` to the answer, by the clock that gives the lower age: the age
        that may end the order.
        """
        return self.age_since(self.order.sent_at)

    @property
    def took(self) -> float:
        """The age by the database's clock alone, which also wrote ``sent_at``."""
        return self.seen_at - (
            self.order.sent_at if self.order.sent_at is not None else self.seen_at
        )

    def age_since(self, sent_at: float | None) -> float:
        """Return the seconds since ``sent_at``, the lower of both clocks' values.

        0 if ``sent_at`` is unknown.
        """
        if sent_at is None:
            return 0.0
        return min(self.seen_at, self.seen_at if self.seen_utc is None else self.seen_utc) - sent_at

    @property
    def is_told(self) -> bool:
        """Whether the provider answered with the order's state.

        Without that the order may still be given up, if the settings allow it.
        """
        return isinstance(self.answer, AboutOrder)

    @property
    def pin(self) -> Pin | None:
        """The PIN that was read, None if there is none."""
        return self.answer.pin if isinstance(self.answer, Completed) else None


class WriteStatus(StrEnum):
    """What became of a result; a closed set."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    GONE = "gone"
    RESENT = "resent"
    LOCKED = "locked"
    STUCK = "stuck"
    HELD = "held"
    UNCONFIRMED = "unconfirmed"
    OBSERVED = "observed"


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of one result.

    ``write`` is set if something was written; ``detail`` is safe to show. ``repeat``: the order
    already had an event of the same end, because an old copy of the row was restored. ``review`` is
    a matter for a person although nothing is stuck; it concerns ``review_of`` if that is another
    order. ``wait``: a later answer may be believed, so the order is asked about again after the
    delay of a first check. ``notice`` is worth a line in the log. A ``HELD`` end is held back by
    the brake (then ``stuck`` says so) or because a person holds the account's ends. An ``OBSERVED``
    order is not asked about any more; ``write`` is what would have been written. ``code`` is the
    digest that identifies the PIN's code. ``marked``: the dispatch now records whether its answers
    are understood. ``is_refused``: we decided to write, but the database refused. ``is_partial``:
    part of it was left out, so the same answer has to be written again. An ``UNCONFIRMED``
    cancellation is believed when a second answer confirms it ``again_at`` or later (epoch seconds);
    ``is_first``: the wait begins with this one.
    """

    finding: CheckResult
    fate: WriteStatus
    write: Write | None = None
    stuck: StuckReason | None = None
    detail: str = ""
    status: str = ""
    repeat: bool = False
    review: StuckReason | None = None
    review_of: str | None = None
    wait: bool = False
    notice: str = ""
    event_id: int | None = None
    marked: bool = False
    code: bytes | None = field(default=None, repr=False)
    is_refused: bool = False
    is_partial: bool = False
    again_at: float | None = None
    is_first: bool = False

    def kept_back(self, fate: WriteStatus, stuck: StuckReason | None, detail: str) -> WriteResult:
        """Return it with nothing to write, and why."""
        return replace(self, fate=fate, write=None, stuck=stuck, detail=detail)

    @property
    def order_id(self) -> str:
        """The order's id."""
        return self.finding.order.id

    @property
    def is_end(self) -> bool:
        """Whether the order has ended by this result."""
        return self.write is not None and self.write.final

    @property
    def is_withdrawal(self) -> bool:
        """Whether the order has a different answer now, or has changed, so that an end of it that
        was held is no longer held.
        """
        match self.fate:
            case WriteStatus.GONE:
                return True
            case WriteStatus.RESENT:
                return not self.wait
            case WriteStatus.WRITTEN | WriteStatus.UNCHANGED | WriteStatus.STUCK:
                is_other = isinstance(self.finding.answer, Completed | Waiting)
                return is_other and not self.is_end
            case (
                WriteStatus.LOCKED
                | WriteStatus.HELD
                | WriteStatus.UNCONFIRMED
                | WriteStatus.OBSERVED
            ):
                return False
            case _:
                assert_never(self.fate)

    @property
    def withdraws_cancellation(self) -> bool:
        """Whether a cancellation of the order no longer waits for a second answer, because of this
        one, which may itself be held.
        """
        is_other = isinstance(self.finding.answer, Completed | Waiting)
        return self.is_withdrawal or (is_other and self.fate is not WriteStatus.LOCKED)
