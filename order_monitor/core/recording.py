"""What one check brought to light, on its way into the database, and what became of it there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from order_monitor.core.answer import Answer, Waiting
from order_monitor.core.decision import StuckReason, Write
from order_monitor.core.order import Order


@dataclass(slots=True)
class Finding:
    """An answer about one order. ``seen_at`` is epoch seconds by the database's clock; ``due`` the slot it was asked for.

    ``account`` is who answered, ``tries`` how often the database has put it off.
    ``attempted`` is the change whose commit may or may not have happened: it tells our own write from somebody else's
    when the row is read back. ``vouched`` tells whether the clocks agreed when the answer came: only then may the order's age
    end it. ``seen_utc`` is what this machine's clock showed then, epoch seconds.
    """

    order: Order
    answer: Answer
    seen_at: float
    due: float = 0.0
    checks: int = 0
    account: str = ""
    tries: int = 0
    attempted: Write | None = None
    vouched: bool = True
    seen_utc: float | None = None

    @property
    def is_urgent(self) -> bool:
        """Whether somebody waits for it: an order that still waits can be written a little later, and with more company."""
        return not isinstance(self.answer, Waiting)

    @property
    def age(self) -> float:
        """Seconds from ``sent_at`` to the answer, by the clock that makes them fewer: the age that may end the order."""
        if self.order.sent_at is None or self.seen_utc is None:
            return self.took
        return min(self.took, self.seen_utc - self.order.sent_at)

    @property
    def took(self) -> float:
        """The same by the database's clock alone, which ``sent_at`` was written by."""
        return self.seen_at - (self.order.sent_at if self.order.sent_at is not None else self.seen_at)


class Fate(StrEnum):
    """What became of a finding; a closed set."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    GONE = "gone"
    RESENT = "resent"
    LOCKED = "locked"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Result:
    """The fate of one finding. ``write`` where something was written; ``detail`` is fit to be shown.

    ``repeat`` tells that the order had an event of the same end before: somebody put an old copy of the row back.
    """

    finding: Finding
    fate: Fate
    write: Write | None = None
    stuck: StuckReason | None = None
    detail: str = ""
    status: str = ""
    repeat: bool = False
