"""The brake: when a flood of cancellations is held back, and what releases it.

Pure: the caller passes the counts. A panel that answers "cancelled" for every open order, through a
fault of its own, must not have them all refunded within a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, assert_never

from order_monitor.core.answer import (
    Answer,
    Blocked,
    Busy,
    Cancelled,
    Completed,
    Garbled,
    Refused,
    Unreachable,
    Waiting,
)

WINDOW: Final = 600.0
"""Length in seconds of the window in which final answers are counted."""

USUAL_DAYS: Final = 7
"""Number of days before the window that give a login's usual share of failures."""

FEWEST: Final = 20
"""Minimum number of final answers; fewer never trip the brake."""

ASK_EVERY: Final = 600.0
"""Seconds after which a held order and the control orders are asked about again."""

CONTROLS: Final = 3
"""Number of orders, completed on a login in the last day, that are asked about as a control."""

FRESH: Final = 2.5 * ASK_EVERY
"""Seconds for which the verdict of the controls stays valid."""

LEAP: Final = 5.0
"""Seconds by which a stored time may be ahead, since processes estimate the database's clock. One
further ahead is from before that clock went back.
"""

_TIMES_USUAL: Final = 3.0
_NEVER: Final = float("-inf")

FINE: Final = "fine"
CANCELLED: Final = "cancelled"
UNCLEAR: Final = "unclear"
FEW: Final = "few"
"""The possible verdicts of the controls: a closed set."""


@dataclass(frozen=True, slots=True)
class Ends:
    """How many orders ended as completed and how many as failed."""

    completed: int = 0
    failed: int = 0

    @property
    def share(self) -> float:
        """The share of failed ones; 0 if nothing ended."""
        total = self.completed + self.failed
        return self.failed / total if total else 0.0

    def __add__(self, other: Ends) -> Ends:
        """Add both counts."""
        return Ends(self.completed + other.completed, self.failed + other.failed)

    @property
    def may_trip(self) -> bool:
        """Whether there are enough ends, and enough failures among them, that the usual share must
        be looked up.
        """
        return self.completed + self.failed >= FEWEST and self.failed > self.completed


def trips(recent: Ends, usual: Ends) -> bool:
    """Whether the ends of the last `WINDOW` seconds are too unusual to be believed, compared with
    the `USUAL_DAYS` before.
    """
    return recent.may_trip and recent.share > _TIMES_USUAL * usual.share


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about a login whose brake has tripped.

    Times are epoch seconds, minus infinity for what has not happened. ``understood_at``: another
    order of the login was understood as waiting or completed. ``control_at``: the controls were
    asked, with the result ``verdict``. A person has released what was held up to ``released_at``;
    ends up to ``counted_from`` are no longer counted.
    """

    tripped_at: float = _NEVER
    understood_at: float = _NEVER
    control_at: float = _NEVER
    verdict: str = ""
    released_at: float = _NEVER
    counted_from: float = _NEVER

    def as_of(self, now: float) -> Evidence:
        """Return what of it counts at ``now``.

        What is dated later was noted before the database's clock went back, and proves nothing. A
        brake that tripped then is taken to have tripped now.
        """

        def known(at: float) -> float:
            return at if at <= now + LEAP else _NEVER

        return replace(
            self,
            tripped_at=self.tripped_at if self.tripped_at <= now + LEAP else now,
            understood_at=known(self.understood_at),
            control_at=known(self.control_at),
            counted_from=known(self.counted_from),
        )

    def is_released(self, since: float, now: float) -> bool:
        """Whether a person has released an order held ``since`` then.

        Not by a release from before the clock went back, unless the order was held before that too.
        """
        was_before = self.released_at <= now + LEAP or since > now + LEAP
        return since <= self.released_at and was_before

    def lacks(self, since: float, now: float, hold: float) -> list[str]:
        """Return what is still missing before an order held ``since`` then is believed cancelled.

        Empty if it is believed.
        """
        if self.is_released(since, now) or not hold:
            return []
        missing = [f"{since + hold - now:.0f} s more"] if now - since < hold else []
        if self.understood_at <= self.tripped_at:
            missing.append(
                "another order of the account that is understood as waiting or completed"
            )
        if self.verdict == CANCELLED:
            missing.append(
                "orders that were completed before and do not read cancelled now, as one of them does"
            )
        elif self.verdict != FINE or now - self.control_at > FRESH:
            missing.append(
                f"{CONTROLS} orders completed in the last day, asked as a control, that do not read cancelled"
            )
        return missing


def verdict_of(answers: Sequence[Answer]) -> str:
    """Return the verdict on answers about orders that were completed in the last day.

    FEW if there are too few such orders.
    """
    understood = 0
    for answer in answers:
        match answer:
            case Cancelled():
                return CANCELLED
            case Completed() | Waiting():
                understood += 1
            case Refused() | Garbled() | Blocked() | Busy() | Unreachable():
                pass
            case _:
                assert_never(answer)
    if len(answers) < CONTROLS:
        return FEW
    return FINE if understood >= CONTROLS else UNCLEAR


def next_slot(since: float, now: float) -> float:
    """Return the latest time, at or before ``now``, at which an order held ``since`` then is asked
    about. These times are `ASK_EVERY` apart.
    """
    return since + max(0.0, (now - since) // ASK_EVERY) * ASK_EVERY
