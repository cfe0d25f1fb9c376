"""A contestant's input: all addresses, how many calls may be in flight, and when to ask again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Self

from order_monitor.core.schedule import Schedule

VARIABLE: Final = "BENCHMARK_LOAD"
KOD: Final = "demo-dealer"
SIFRE: Final = "demo-password"
OPEN: Final = ["sent", "pending", "processing", "queued"]
BATCH: Final = 100
OLDEST_SQL: Final = (
    "SELECT id::text FROM product_orders WHERE external_status = ANY($1) AND sent_at < now() - make_interval(secs => $2) "
    "ORDER BY sent_at LIMIT $3"
)
"""The query of the plan's batch."""

READ: Final = "SELECT external_status, provider_referans FROM product_orders WHERE id = "


@dataclass(frozen=True, slots=True)
class Times:
    """Every duration of any contestant, in seconds, with production values."""

    first: float = 60.0
    base: float = 30.0
    cap: float = 600.0
    jitter: float = 0.1
    scan: float = 10.0
    """How often order-monitor scans for new orders."""
    batch: float = 300.0
    """How often the plan's batch of 100 starts."""
    poll: float = 5.0
    """How often procrastinate polls for due jobs."""
    dequeue: float = 30.0
    """How long pgqueuer waits for a notification before it polls."""

    def faster(self, times: float) -> Times:
        """Return a copy with every duration divided by the same factor, and without jitter, so that
        slots can be counted.
        """
        names = ("first", "base", "cap", "scan", "batch", "poll", "dequeue")
        return Times(jitter=0.0, **{name: getattr(self, name) / times for name in names})

    def pause(self, retries: int) -> float:
        """Return the pause after an order's ``retries + 1``-th check."""
        return float(min(self.base * 2 ** min(retries, 30), self.cap))

    def schedule(self) -> Schedule:
        """Return the program's own schedule with these times."""
        return Schedule(self.first, self.base, self.cap, self.jitter)


@dataclass(frozen=True, slots=True)
class Load:
    """One run of one contestant.

    The addresses contain passwords: they are passed in the environment, never on a command line.
    """

    url: str = field(repr=False)
    dsn: str = field(repr=False)
    directory: str
    in_flight: int
    times: Times = field(default_factory=Times)

    def environ(self) -> dict[str, str]:
        """Return the environment from which a child process reads this with `told`."""
        return {**os.environ, VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def told(cls) -> Self:
        """Return the load that the parent process passed."""
        values = json.loads(os.environ[VARIABLE])
        return cls(**{**values, "times": Times(**values["times"])})


def order_id(number: int) -> str:
    """Return the id of the ``number``-th order."""
    return f"00000000-0000-4000-8000-{number:012x}"


def referans(number: int) -> str:
    """Return the provider's reference of the ``number``-th order."""
    return f"R{number}"


def excess(asked: Sequence[float], sent: float, schedule: Schedule) -> int:
    """Return how many checks of an order exceeded its schedule.

    Args:
        asked: when, epoch seconds. sent: when the order was sent. schedule: without jitter. A check
        may come late; each slot that has passed by the last one pays for one.
    """
    return max(0, len(asked) - slots_by(schedule, max(asked) - sent)) if asked else 0


def slots_by(schedule: Schedule, age: float) -> int:
    """Return how many checks are due by ``age`` (seconds), without jitter."""
    slots = 0
    while schedule.slot("", slots + 1) <= age:
        slots += 1
    return slots
