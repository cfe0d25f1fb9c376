"""What the program knows of itself, as plain numbers in memory: the health endpoint and the summaries read it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from order_monitor.core.answer import Blocked, Busy
from order_monitor.core.gate import Pause
from order_monitor.core.order import SkipReason


@dataclass(slots=True)
class Statistics:
    """Counted since the start. Times are seconds of the monotonic clock.

    ``first_start_held`` are orders that only the first start keeps from being failed by their age.
    ``stuck`` are orders whose answer cannot be written, each with its reason.
    ``odd`` are those whose answers are not understood, by their own fault, each with its account's key.
    ``odd_failures`` are answers that look like a failure of the account, and were their orders' own.
    ``kept`` are those whose end this process read and that is held, each with why; ``held`` how many the brake holds, by account,
    in whatever process, and ``ends_paused`` whose ends a person holds.
    ``short_of`` is what this machine has run out of, where that is the scan's problem and not the database.
    ``scanned_at`` is when all that was looked for had been taken in, ``taking_at`` when some of it was.
    ``beside`` are other daemons that work on the same shop although no sharing is set.
    ``succeeded_at`` is epoch seconds: when an answer was last understood, or a scan found that nothing was due.
    """

    open: int = 0
    first_start_held: int = 0
    eligible: int = 0
    stuck: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    ends_paused: dict[str, Pause] = field(default_factory=dict)
    skipped: Counter[SkipReason] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    odd_failures: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    timeouts: int = 0
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
    beside: tuple[str, ...] = ()
    events_waiting: tuple[int, float | None] | None = None
    ticked_at: float | None = None

    @property
    def asked(self) -> int:
        """How many questions brought an answer that was not the account's failure."""
        return (
            sum(self.outcomes[name] for name in ("waiting", "completed", "cancelled", "refused", "garbled"))
            + self.odd_failures
        )

    def answered(self, outcome: str, count: int) -> None:
        """Count answers that were about their orders, or odd by their orders' own fault; fewer where some are taken back."""
        self.outcomes[outcome] += count
        if outcome in (Blocked.outcome, Busy.outcome):
            self.odd_failures += count
