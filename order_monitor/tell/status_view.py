"""The state of the program, gathered from memory for the page, the metrics and the command line.

Bounded: rings of fixed size, labels from closed sets. It contains no PIN, no secret and no data of
the shop's customers.
"""

from __future__ import annotations

from typing import Any

from order_monitor.cluster.members import Cluster
from order_monitor.core.clock import Clock
from order_monitor.core.gate import Pause
from order_monitor.shop.accounts.pauses import EVERY_ACCOUNT
from order_monitor.tell.curve_cache import CurveCache
from order_monitor.tell.history import History
from order_monitor.tell.queue_summarizer import QueueSummarizer
from order_monitor.tell.queue_summary import QueueSummary
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.webhook import Sender
from order_monitor.timing.planner import Timing
from order_monitor.watch.engine import Engine
from order_monitor.watch.held import BY_PERSON


class StatusView:
    """Shows the state of an engine; its ``history`` observes the engine."""

    engine: Engine
    """The watched engine, and its readiness, from `watch` on."""
    probe: Readiness

    def __init__(self, clock: Clock) -> None:
        """Start with an empty history."""
        self.clock = clock
        self.history = History(clock, lambda: self.engine.state.open)
        self.started = clock.time()
        self.queue_summary = QueueSummarizer(lambda: self.engine, clock)
        self.sender: Sender | None = None
        self.cluster: Cluster | None = None
        self.learned: Timing | None = None
        self.gallery = CurveCache()

    def watch(
        self, engine: Engine, probe: Readiness, give_up_after: float, sender: Sender | None = None
    ) -> None:
        """Show ``engine``, with the judgement of ``probe``.

        Orders count as overdue after ``give_up_after`` seconds.
        """
        self.engine, self.probe, self.sender = engine, probe, sender
        self.queue_summary.give_up_after = give_up_after

    def count(self) -> QueueSummary:
        """Return the summary of orders, which may be slightly old."""
        return self.queue_summary.count()

    def read_seconds_ago(self) -> float | None:
        """Return the age in seconds of the order numbers: since the last full scan, or since the
        summary if that is older.
        """
        scanned = self.engine.state.scanned_at
        if scanned is None:
            return None
        return round(
            max(0.0, self.clock.monotonic() - min(scanned, self.queue_summary.counted_at)), 1
        )

    def oldest_due(self) -> float:
        """Return how many seconds the oldest due answer is overdue.

        0 if nothing is due.
        """
        oldest = self.count().oldest_due
        return round(max(0.0, self.engine.now() - oldest), 1) if oldest is not None else 0.0

    def held(self) -> int:
        """Return how many orders' ends are held: all that the brake holds, and those held by a
        person that this process read.
        """
        state = self.engine.state
        return sum(state.held.values()) + sum(why == BY_PERSON for why in state.kept.values())

    def ends_paused(self, account: str) -> Pause | None:
        """Return the pause, set by a person, that holds an account's ends, for this account or for
        all.

        None if they are not held.
        """
        paused = self.engine.state.ends_paused
        return paused.get(account) or paused.get(EVERY_ACCOUNT)

    @property
    def speaks(self) -> bool:
        """Whether this process reports the values that are the same in every process, so that a sum
        over all processes counts them once.
        """
        return self.cluster is None or self.cluster.leads

    def events(self) -> dict[str, Any] | None:
        """Return what the shop has not consumed yet; None if unknown."""
        known = self.engine.state.events_waiting
        if known is None:
            return None
        waiting, since = known
        age = max(0.0, self.engine.now() - since) if since is not None else 0.0
        return {"waiting": waiting, "oldest_waiting_seconds": round(age, 1)}
