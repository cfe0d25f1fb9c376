"""What one check brought to light, on its way into the database, and what became of it there."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from order_monitor.core.answer import AboutOrder, Answer, Completed, Waiting
from order_monitor.core.decision import StuckReason, Write
from order_monitor.core.order import CONFIGURED, Order
from order_monitor.core.pin import Pin

ANY_ORDER: Final = "*"
"""In place of an order's id: whichever order has the same code."""


@dataclass(slots=True)
class Finding:
    """An answer about one order. ``seen_at`` is epoch seconds by the database's clock; ``due`` the slot it was asked for.

    ``account`` is the key of who was asked, ``tries`` how often the database has put it off. ``by_person``: a person decides, in
    place of the provider; ``same_as`` is the order whose code that one says this order rightly has too.
    ``had`` is what stood in the PIN's place when the row was locked, ``had_none`` whether that is no PIN.
    ``attempted`` is the change whose commit may or may not have happened: it tells our own write from somebody else's
    when the row is read back. ``vouched`` tells whether the clocks agreed when the answer came: only then may the order's age
    end it. ``seen_utc`` is what this machine's clock showed then, epoch seconds. ``odd_since``: since when no answer about it was
    understood, by its own fault (epoch seconds), and ``is_odd_noted`` whether that is noted of its dispatch.
    ``others_understood``: another order of the account was, within the hour before this answer. ``nobody_understood``: none was
    for as long as orders may wait, or ever, so that nobody can say whose fault the answer is: then it is for a person.
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

    @property
    def is_urgent(self) -> bool:
        """Whether somebody waits for it: an order that still waits can be written a little later, and with more company."""
        return not isinstance(self.answer, Waiting)

    @property
    def age(self) -> float:
        """Seconds from ``sent_at`` to the answer, by the clock that makes them fewer: the age that may end the order."""
        return self.age_since(self.order.sent_at)

    @property
    def took(self) -> float:
        """The same by the database's clock alone, which ``sent_at`` was written by."""
        return self.seen_at - (self.order.sent_at if self.order.sent_at is not None else self.seen_at)

    def age_since(self, sent_at: float | None) -> float:
        """Return the seconds since ``sent_at``: the smaller of the two clocks' reckonings; 0 where it is not known."""
        if sent_at is None:
            return 0.0
        return min(self.seen_at, self.seen_at if self.seen_utc is None else self.seen_utc) - sent_at

    @property
    def is_told(self) -> bool:
        """Whether the provider has said how the order is; without that it may be given up all the same, if the settings say so."""
        return isinstance(self.answer, AboutOrder)

    @property
    def pin(self) -> Pin | None:
        """The PIN that was read, if any."""
        return self.answer.pin if isinstance(self.answer, Completed) else None


class Fate(StrEnum):
    """What became of a finding; a closed set."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    GONE = "gone"
    RESENT = "resent"
    LOCKED = "locked"
    STUCK = "stuck"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Result:
    """The fate of one finding. ``write`` where something was written; ``detail`` is fit to be shown.

    ``repeat`` tells that the order had an event of the same end before: somebody put an old copy of the row back. ``review`` is for
    a person although nothing is stuck, about ``review_of`` where that is another order. ``wait`` tells that a later answer may be
    believed: the order is asked again after the time of a first check. ``notice`` is worth a line in the log.
    An end that is ``HELD`` is kept back by the brake (``stuck`` says so), or because a person holds the account's ends.
    ``code`` is the digest that the PIN's code is known by. ``marked`` tells that it was noted of the dispatch whether
    its answers are understood. ``is_refused``: it was to be written, and the database stood against it, not our decision.
    ``is_partial``: some of it was left out, so that the same answer is to be written once more.
    """

    finding: Finding
    fate: Fate
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
