"""What the program shows of itself, gathered from memory for the page, the metrics and the command line alike.

Bounded: rings of fixed size, labels from closed sets. No PIN, no secret, and nothing of the shop's customers.
"""

from __future__ import annotations

from typing import Any

from order_monitor.core.clock import Clock
from order_monitor.core.gate import Pause
from order_monitor.core.timing.picture import Gallery
from order_monitor.core.timing.planner import Timing
from order_monitor.shop.pauses import EVERY_ACCOUNT
from order_monitor.tell.census import Census
from order_monitor.tell.counter import CensusTaker
from order_monitor.tell.history import History
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.webhook import Sender
from order_monitor.watch.cluster import Cluster
from order_monitor.watch.engine import Engine
from order_monitor.watch.held import BY_PERSON


class Overview:
    """Says how an engine is; its ``history`` watches it."""

    def __init__(self, clock: Clock) -> None:
        """Begin with an empty history."""
        self.clock = clock
        self.history = History(clock, lambda: self.engine.state.open)
        self.started = clock.time()
        self._engine: Engine | None = None
        self._probe: Readiness | None = None
        self.census = CensusTaker(lambda: self.engine, clock)
        self.sender: Sender | None = None
        self.cluster: Cluster | None = None
        self.learned: Timing | None = None
        self.gallery = Gallery()

    def watch(self, engine: Engine, probe: Readiness, give_up_after: float, sender: Sender | None = None) -> None:
        """Show ``engine``, as ``probe`` judges it; orders count as overdue after ``give_up_after`` seconds."""
        self._engine, self._probe, self.sender = engine, probe, sender
        self.census.give_up_after = give_up_after

    @property
    def engine(self) -> Engine:
        """What is watched."""
        assert self._engine is not None, "watch() comes first"
        return self._engine

    @property
    def probe(self) -> Readiness:
        """Its judge."""
        assert self._probe is not None, "watch() comes first"
        return self._probe

    def count(self) -> Census:
        """Return the census, at most a little old."""
        return self.census.count()

    def oldest_due(self) -> float:
        """Return for how many seconds the answer is overdue that is overdue longest; 0 where nothing is due."""
        oldest = self.count().oldest_due
        return round(max(0.0, self.engine.now() - oldest), 1) if oldest is not None else 0.0

    def held(self) -> int:
        """Return how many orders' ends are held: by the brake, whoever read them, and by a person as far as this process did."""
        state = self.engine.state
        return sum(state.held.values()) + sum(why == BY_PERSON for why in state.kept.values())

    def ends_paused(self, account: str) -> Pause | None:
        """Return a person's word that an account's ends are held, of it alone or of all; None where they are not."""
        paused = self.engine.state.ends_paused
        return paused.get(account) or paused.get(EVERY_ACCOUNT)

    @property
    def speaks(self) -> bool:
        """Whether it tells what is the same in every process: summed up over all of them, the table's numbers count once."""
        return self.cluster is None or self.cluster.leads

    def events(self) -> dict[str, Any] | None:
        """Return what the shop has not consumed yet; None where that is not known."""
        told = self.engine.state.events_waiting
        if told is None:
            return None
        waiting, since = told
        age = max(0.0, self.engine.now() - since) if since is not None else 0.0
        return {"waiting": waiting, "oldest_waiting_seconds": round(age, 1)}
