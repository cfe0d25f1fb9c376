"""How large a batch of writes may be, and how long it may wait for a lock.

Pure; times are seconds of the monotonic clock.
"""

from __future__ import annotations

from typing import Final

from order_monitor.core.errors import RowRejectedError

BATCH: Final = 200
LOCK_WAIT: Final = 1.0
HURRIED_LOCK_WAIT: Final = 0.2
"""Seconds to wait for another session's lock behind a trigger: normally, and just after one blocked
us.
"""

CALM_AFTER: Final = 60.0
"""Seconds after which the last problem is forgotten."""

QUERY_CANCELED: Final = "57014"


class Throttle:
    """Halves the batch if it was too slow, and lets it grow again slowly."""

    def __init__(self) -> None:
        """Start with the maximum."""
        self.limit = BATCH
        self._ceiling = BATCH
        self._slow_at = self._blocked_at = float("-inf")

    def lock_wait(self, now: float) -> float:
        """Return the seconds to wait for another session's lock."""
        return HURRIED_LOCK_WAIT if now - self._blocked_at < CALM_AFTER else LOCK_WAIT

    def refused(self, count: int, error: RowRejectedError, now: float) -> None:
        """Record a refused batch that might have passed if it were smaller, or alone."""
        if not error.is_passing:
            return
        if error.code != QUERY_CANCELED:
            self._blocked_at = now
        elif count > 1:
            self.limit = count // 2
            self._ceiling, self._slow_at = count, now

    def passed(self, count: int, now: float) -> None:
        """Record a written batch; only a full one shows that a larger one would pass."""
        if count < self.limit:
            return
        top = BATCH if now - self._slow_at > CALM_AFTER else self._ceiling * 3 // 4
        self.limit = max(self.limit, min(top, self.limit + max(1, self.limit // 4)))
