"""When cancellations become a flood that is not believed at once, and what would let it through: pure, it is told what was counted.

A panel that answers "cancelled" for every open order, by a fault of its own, must not have them all refunded within a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
"""Seconds in which final answers are counted."""

USUAL_DAYS: Final = 7
"""Days before that, whose share of failures is a login's usual one."""

FEWEST: Final = 20
"""Final answers of which fewer never trip the brake."""

ASK_EVERY: Final = 600.0
"""Seconds after which a held order is asked about again, and the controls too."""

CONTROLS: Final = 3
"""How many orders that a login completed in the last day are asked as a control."""

FRESH: Final = 2.5 * ASK_EVERY
"""Seconds for which what the controls said counts."""

_TIMES_USUAL: Final = 3.0

FINE: Final = "fine"
CANCELLED: Final = "cancelled"
UNCLEAR: Final = "unclear"
FEW: Final = "few"
"""What the controls said: a closed set."""


@dataclass(frozen=True, slots=True)
class Ends:
    """How many orders ended as completed, and how many failed."""

    completed: int = 0
    failed: int = 0

    @property
    def share(self) -> float:
        """The failed ones' share; 0 where nothing ended."""
        total = self.completed + self.failed
        return self.failed / total if total else 0.0

    def __add__(self, other: Ends) -> Ends:
        """Count both."""
        return Ends(self.completed + other.completed, self.failed + other.failed)

    @property
    def may_trip(self) -> bool:
        """Whether these are so many, and so many of them failures, that the usual share must be looked at."""
        return self.completed + self.failed >= FEWEST and self.failed > self.completed


def trips(recent: Ends, usual: Ends) -> bool:
    """Whether what ended in `WINDOW` seconds is no more believed, given what ended in the `USUAL_DAYS` before."""
    return recent.may_trip and recent.share > _TIMES_USUAL * usual.share


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a login whose brake has tripped. Times are epoch seconds; what never was lies before all times.

    ``understood_at``: another of its orders was understood as waiting or completed. ``control_at``: when the controls were asked,
    and ``verdict`` what they said. What was held up to ``released_at`` a person has let through; ends up to ``counted_from`` are
    counted no more.
    """

    tripped_at: float = float("-inf")
    understood_at: float = float("-inf")
    control_at: float = float("-inf")
    verdict: str = ""
    released_at: float = float("-inf")
    counted_from: float = float("-inf")

    def lacks(self, since: float, now: float, hold: float) -> list[str]:
        """Say what an order that is held ``since`` then still lacks to be believed cancelled; nothing where it is believed."""
        if since <= self.released_at or not hold:
            return []
        missing = [f"{since + hold - now:.0f} s more"] if now - since < hold else []
        if self.understood_at <= self.tripped_at:
            missing.append("another order of the account that is understood as waiting or completed")
        if self.verdict == CANCELLED:
            missing.append("orders that were completed before and do not read cancelled now, as one of them does")
        elif self.verdict != FINE or now - self.control_at > FRESH:
            missing.append(
                f"{CONTROLS} orders completed in the last day, asked as a control, that do not read cancelled"
            )
        return missing


def verdict_of(answers: Sequence[Answer]) -> str:
    """Say what the answers about orders that were completed in the last day mean; FEW where there are too few such orders."""
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
    """Return the last of the times, `ASK_EVERY` apart, at which an order held ``since`` then is asked about, up to ``now``."""
    return since + max(0.0, (now - since) // ASK_EVERY) * ASK_EVERY
