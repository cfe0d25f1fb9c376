"""What the program knows of itself, as plain numbers in memory: the health endpoint and the summaries read it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from order_monitor.core.order import SkipReason


@dataclass(slots=True)
class Statistics:
    """Counted since the start. Times are seconds of the monotonic clock.

    ``held`` are orders that only the first start keeps from being failed by their age.
    ``stuck`` are orders whose answer cannot be written, each with its reason. ``late_pins`` came after their orders' end.
    ``scanned_at`` is when all that was looked for had been taken in, ``taking_at`` when some of it was.
    ``succeeded_at`` is epoch seconds: when an answer was last understood, or a scan found that nothing was due.
    """

    open: int = 0
    held: int = 0
    eligible: int = 0
    stuck: dict[str, str] = field(default_factory=dict)
    skipped: Counter[SkipReason] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    timeouts: int = 0
    late_pins: int = 0
    gone: int = 0
    resent: int = 0
    scans: int = 0
    scan_problem: str | None = None
    scanned_at: float | None = None
    taking_at: float | None = None
    clock_stood_still: bool = False
    succeeded_at: float | None = None
    reviews: int = 0
    events_waiting: tuple[int, float | None] | None = None
    ticked_at: float | None = None

    @property
    def asked(self) -> int:
        """How many questions brought an answer that was not the account's failure."""
        return sum(self.outcomes[name] for name in ("waiting", "completed", "cancelled", "refused", "garbled"))
