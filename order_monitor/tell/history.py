"""Recent activity, in rings of fixed size.

Contains no PIN, no secret and no data of the shop's customers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from order_monitor.core.answer import Answer, Blocked, Busy, Garbled, Refused, Unreachable
from order_monitor.core.check_result import WriteResult, WriteStatus
from order_monitor.core.clock import Clock
from order_monitor.core.order import Order
from order_monitor.watch.observer import Observer

_RECENT: Final = 50
_FAILURES: Final = 30
MINUTES: Final = 60
DELAYS: Final = 1000
_BUCKET_SECONDS: Final = 5.0
_BUCKETS: Final = 12


class Meter:
    """The number of events per second, over the last minute."""

    def __init__(self) -> None:
        """Start empty."""
        self._buckets: deque[tuple[int, int]] = deque(maxlen=_BUCKETS)

    def add(self, now: float) -> None:
        """Count one at ``now`` (monotonic seconds)."""
        slot = int(now / _BUCKET_SECONDS)
        count = self._buckets.pop()[1] if self._buckets and self._buckets[-1][0] == slot else 0
        self._buckets.append((slot, count + 1))

    def per_second(self, now: float) -> float:
        """Return the mean over the last minute."""
        first = int(now / _BUCKET_SECONDS) - _BUCKETS + 1
        return sum(count for slot, count in self._buckets if slot >= first) / (
            _BUCKETS * _BUCKET_SECONDS
        )


@dataclass(slots=True)
class Minute:
    """The counts of one minute; ``at`` is its start in epoch seconds."""

    at: float
    open: int
    checks: int = 0
    ended: int = 0


@dataclass(slots=True)
class Rings:
    """Recent activity, in rings of fixed size.

    Failures have their own ring, so that successes push none out.
    """

    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    failures: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_FAILURES))
    minutes: deque[Minute] = field(default_factory=lambda: deque(maxlen=MINUTES))
    delays: deque[float] = field(default_factory=lambda: deque(maxlen=DELAYS))
    rates: dict[str, Meter] = field(default_factory=dict)


class History(Observer):
    """Keeps the engine's recent activity for display."""

    def __init__(self, clock: Clock, count_open: Callable[[], int]) -> None:
        """Start empty; ``count_open`` returns the number of open orders."""
        self._clock = clock
        self._count_open = count_open
        self.rings = Rings()

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """Count a check, and keep a failure."""
        self.rings.rates.setdefault(account, Meter()).add(self._clock.monotonic())
        self._minute().checks += 1
        if isinstance(answer, (Blocked, Busy, Unreachable, Refused, Garbled)):
            why = f"refused_{answer.code}" if isinstance(answer, Refused) else answer.why
            said = "" if isinstance(answer, Unreachable) else answer.message
            failure = {"account": account, "outcome": answer.outcome, "why": why, "said": said}
            self.rings.failures.appendleft({"at": iso(self._clock.time()), **failure})

    def settled(self, account: str, result: WriteResult, delay: float) -> None:
        """Keep a change of status."""
        write, order = result.write, result.finding.order
        if result.fate is not WriteStatus.WRITTEN or write is None or write.status == result.status:
            return
        self.rings.recent.appendleft(
            {
                "order_id": order.id,
                "from": result.status,
                "to": write.status,
                "has_pin": write.pin is not None,
                "at": iso(self._clock.time()),
                "account": account,
                "referans": order.reference,
            }
        )
        if write.final:
            self._minute().ended += 1
            self.rings.delays.append(delay)

    def scanned(self, seconds: float) -> None:
        """Record the number of open orders."""
        self._minute().open = self._count_open()

    def remain(self, accounts: Mapping[str, str]) -> None:
        """Drop the rates of accounts that are gone."""
        names = set(accounts.values())
        self.rings.rates = {
            name: meter for name, meter in self.rings.rates.items() if name in names
        }

    def _minute(self) -> Minute:
        now = self._clock.time()
        minutes = self.rings.minutes
        if not minutes or now - minutes[-1].at >= 60:  # noqa: PLR2004 - a minute
            minutes.append(Minute(now - now % 60, minutes[-1].open if minutes else 0))
        return minutes[-1]


def iso(seconds: float | None, timespec: str = "milliseconds") -> str | None:
    """Format epoch seconds as UTC with the precision ``timespec``; None if they are not a valid
    date.
    """
    try:
        at = None if seconds is None else datetime.fromtimestamp(seconds, UTC)
        return None if at is None else at.isoformat(timespec=timespec)
    except (ValueError, OverflowError, OSError):
        return None
