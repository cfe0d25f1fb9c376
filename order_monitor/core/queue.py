"""The open orders in memory: scheduled, due, or being asked about.

One queue sorted by due time instead of a sleeping task per order: 100,000 orders cost a list, not
100,000 timers. Pure: the caller passes the time. Times are epoch seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from order_monitor.core.known import KnownOrders
from order_monitor.core.lazy_heap import LazyHeap
from order_monitor.core.order import Order
from order_monitor.core.ready_queues import Rank, ReadyQueues
from order_monitor.core.tracked_order import Stage, TrackedOrder

AT_A_TURN: Final = 500
"""Maximum number of orders that become ready at a time, so that 100,000 due orders do not block the
event loop.
"""

_LOOKED_AT: Final = 2000
"""Number of nearly due orders that are examined for wanted ones: this takes some milliseconds."""

NEVER: Final = float("-inf")

_READY: Final = Stage.READY
_SCHEDULED: Final = Stage.SCHEDULED

READ_AGAIN: Final = NEVER
"""Value of ``read_at`` for an order that must be read again before it is asked about, however
recently it was read.
"""


class OrderQueue(KnownOrders):
    """The known orders and when each is due; ``ready`` holds those that are due now."""

    def __init__(self, rank: Rank | None = None) -> None:
        """Start with no orders.

        Among due orders the newest goes first, or the one with the lowest ``rank``.
        """
        super().__init__()
        self.ready = ReadyQueues(rank)
        self._filled: set[str] = set()
        self._timers = LazyHeap(lambda entry: entry.wake, lambda entry: entry.stage is _SCHEDULED)

    def renew(self, entry: TrackedOrder, order: Order, account: str) -> None:
        """Update ``entry`` with the newly read ``order`` and its ``account``.

        If the account has changed, the entry becomes idle.
        """
        if account != entry.account:
            self.idle(entry)
        super().renew(entry, order, account)

    def schedule(
        self, entry: TrackedOrder, due: float, *, wake: float | None = None, now: float = NEVER
    ) -> None:
        """Make ``entry`` ready at ``wake``, by default when it is due.

        If that is not after ``now``, it is ready at once.
        """
        held = None if wake == due else wake
        if held != entry.rare.held:
            entry.note(held=held)
        entry.due = due
        is_ready = (due if held is None else held) <= now
        self._step(entry, _READY if is_ready else _SCHEDULED)
        if entry.stage is _READY:
            self.ready.push(entry)
        else:
            self._timers.push(entry)

    def next_wake(self) -> float | None:
        """Return when the next scheduled order becomes ready, None if there is none."""
        first = self._timers.first()
        return None if first is None else first.wake

    def coming(
        self, most: int, is_wanted: Callable[[TrackedOrder], bool] = lambda _: True
    ) -> list[TrackedOrder]:
        """Return the next orders to come due that are wanted, soonest first.

        Only a limited number is examined: if very many are nearly due, some may be missing.
        """
        return self._timers.soonest(most, _LOOKED_AT, is_wanted)

    def promote(self, now: float) -> bool:
        """Make orders ready that have come due, at most `AT_A_TURN`.

        Return whether there are more.
        """
        for _ in range(AT_A_TURN):
            entry = self._timers.first()
            if entry is None or entry.wake > now:
                return False
            self._make_ready(entry)
        return (wake := self.next_wake()) is not None and wake <= now

    def take(self, account: str, *, probe: int | None = None) -> TrackedOrder | None:
        """Take the next due order of ``account`` for asking, or, with a number as ``probe``, one
        that is suitable for a probe.

        None if nothing is due.
        """
        entry = (
            self.ready.first(account)
            if probe is None
            else self.ready.best_for_a_probe(account, probe)
        )
        if entry is not None:
            self._step(entry, Stage.ASKING)
        return entry

    def fill(self, entry: TrackedOrder) -> None:
        """Take an order that is not due yet, to be asked about together with due ones."""
        self._step(entry, Stage.ASKING)
        self._filled.add(entry.id)

    def is_filled(self, entry: TrackedOrder) -> bool:
        """Whether an order is asked about before its due time, which does not change."""
        return entry.id in self._filled

    def idle(self, entry: TrackedOrder) -> None:
        """Keep ``entry`` known without asking about it again."""
        self._step(entry, Stage.IDLE)

    def writing(self, entry: TrackedOrder) -> None:
        """Mark that an answer was received and is on its way into the database."""
        self._step(entry, Stage.WRITING)

    def forget(self, order_id: str) -> None:
        """Remove an order that is no longer open."""
        entry = self.remove(order_id)
        if entry is not None:
            self._step(entry, Stage.GONE)

    def _make_ready(self, entry: TrackedOrder) -> None:
        self._step(entry, _READY)
        self.ready.push(entry)

    def _step(self, entry: TrackedOrder, stage: Stage) -> None:
        if entry.stage is _READY:
            self.ready.left(entry)
        if self._filled and stage is not Stage.WRITING:
            self._filled.discard(entry.id)
        entry.step(stage)
