"""What the program knows about itself, as numbers in memory, for health and the summaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from order_monitor.core.answer import Blocked, Busy
from order_monitor.core.gate import Pause
from order_monitor.core.order import SkipReason
from order_monitor.shop.reviews import Review


class UnconfirmedState(NamedTuple):
    """What this process knows of a cancellation that waits for a second answer: when it last saw
    that, and when the wait began, if this process began it (both monotonic seconds).
    """

    seen_at: float
    began_at: float | None = None


@dataclass(slots=True)
class Counters:
    """Counts since the start. Times are seconds of the monotonic clock.

    ``first_start_held`` counts orders that only the first start keeps from being failed by their
    age. ``stuck`` are orders whose answer cannot be written, each with the reason. ``odd`` are
    orders whose answers are not understood, by their own fault, each with the account's key.
    ``odd_failures`` counts answers that look like a failure of the account but were their orders'
    own. ``kept`` are orders whose end this process read and that is held, each with the reason;
    ``unconfirmed`` are orders whose cancellation waits for a second answer; ``held`` counts the
    orders that the brake holds for any process, by account, and ``ends_paused`` are the accounts
    whose ends a person holds. ``short_of`` is the resource that this machine has run out of, if
    that and not the database is the scan's problem. ``scanned_at`` is when a scan had taken in
    everything, ``taking_at`` when a part of it was taken in. ``reviews`` is the number
    of reviews that wait for a person, ``oldest_reviews`` are the first of them. ``beside`` are
    other daemons that work on the same shop without sharing its accounts. ``succeeded_at`` is epoch
    seconds: when an answer was last understood, or a scan found that nothing was due.
    """

    open: int = 0
    first_start_held: int = 0
    eligible: int = 0
    stuck: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    unconfirmed: dict[str, UnconfirmedState] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    ends_paused: dict[str, Pause] = field(default_factory=dict)
    skipped: Counter[SkipReason] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    odd_failures: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    timeouts: int = 0
    observed: int = 0
    gone: int = 0
    resent: int = 0
    scans: int = 0
    scan_problem: str | None = None
    short_of: str = ""
    scanned_at: float | None = None
    taking_at: float | None = None
    clock_stood_still: bool = False
    succeeded_at: float | None = None
    reviews: int = 0
    oldest_reviews: Sequence[Review] = ()
    beside: tuple[str, ...] = ()
    events_waiting: tuple[int, float | None] | None = None
    ticked_at: float | None = None

    @property
    def asked(self) -> int:
        """The number of checks with an answer that was not a failure of the account."""
        names = ("waiting", "completed", "cancelled", "refused", "garbled")
        return sum(self.outcomes[name] for name in names) + self.odd_failures

    def answered(self, outcome: str, count: int) -> None:
        """Count answers about orders, odd ones too; ``count`` is negative to take them back."""
        self.outcomes[outcome] += count
        if outcome in (Blocked.outcome, Busy.outcome):
            self.odd_failures += count
