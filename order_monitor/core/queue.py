"""The open orders in memory: which wait for their time, which are due, which are being asked about.

One line by the time they come due rather than a sleeping task an order: 100,000 orders cost a list, not 100,000 timers.
Pure: it is told the time. Times are epoch seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from order_monitor.core.due import Due, Rank
from order_monitor.core.entry import Entry, Stage
from order_monitor.core.known import KnownOrders
from order_monitor.core.line import Line
from order_monitor.core.order import Order

AT_A_TURN: Final = 500
"""How many orders become ready at a time: when all of 100,000 are due, the loop must not stand still."""

_LOOKED_AT: Final = 2000
"""How many of the orders whose time is near are looked at for those that are wanted: some milliseconds."""

NEVER: Final = float("-inf")

READ_AGAIN: Final = NEVER
"""When an order was read that is to be read again before it is asked about, however lately that was."""


class OrderQueue(KnownOrders):
    """The known orders, and whose turn it is when; ``ready`` are those that are due."""

    def __init__(self, rank: Rank | None = None) -> None:
        """Start with no orders. Of those that are due the newest goes first, or the least by ``rank``."""
        super().__init__()
        self.ready = Due(rank)
        self._timers = Line(lambda entry: entry.wake, lambda entry: entry.stage is Stage.SCHEDULED)

    def renew(self, entry: Entry, order: Order, account: str) -> None:
        """Let ``entry`` be what was read of its order now, and ``account``'s; where it was another's it is idle."""
        if account != entry.account:
            self.idle(entry)
        super().renew(entry, order, account)

    def schedule(self, entry: Entry, due: float, *, wake: float | None = None, now: float = NEVER) -> None:
        """Let ``entry`` become ready at ``wake``, by default when it is due; what is due by ``now`` is ready at once."""
        self._step(entry, Stage.SCHEDULED)
        entry.due = due
        held = None if wake == due else wake
        if held != entry.memo.held:
            entry.note(held=held)
        if entry.stage is Stage.SCHEDULED and entry.wake <= now:
            self._make_ready(entry)
        else:
            self._timers.add(entry)

    def next_wake(self) -> float | None:
        """When the next scheduled order becomes ready."""
        first = self._timers.first()
        return None if first is None else first.wake

    def coming(self, most: int, is_wanted: Callable[[Entry], bool] = lambda _: True) -> list[Entry]:
        """Return the next orders to come due that are wanted, soonest first.

        Of very many whose time is near some may be missing: a bounded part of them is looked at.
        """
        return self._timers.soonest(most, _LOOKED_AT, is_wanted)

    def promote(self, now: float) -> bool:
        """Make ready what has come due, `AT_A_TURN` orders at most; return whether there is more."""
        for _ in range(AT_A_TURN):
            entry = self._timers.first()
            if entry is None or entry.wake > now:
                return False
            self._make_ready(entry)
        return (wake := self.next_wake()) is not None and wake <= now

    def take(self, account: str, *, probe: int | None = None) -> Entry | None:
        """Take the next due order of ``account`` for asking, or one for a ``probe``, any number; None where nothing is due."""
        entry = self.ready.first(account) if probe is None else self.ready.best_for_a_probe(account, probe)
        if entry is not None:
            self._step(entry, Stage.ASKING)
        return entry

    def idle(self, entry: Entry) -> None:
        """Keep ``entry`` known without asking about it again."""
        self._step(entry, Stage.IDLE)

    def writing(self, entry: Entry) -> None:
        """Note that an answer was received and is on its way into the database."""
        self._step(entry, Stage.WRITING)

    def forget(self, order_id: str) -> None:
        """Drop an order: it is no longer open."""
        entry = self.remove(order_id)
        if entry is not None:
            self._step(entry, Stage.GONE)

    def _make_ready(self, entry: Entry) -> None:
        self._step(entry, Stage.READY)
        self.ready.add(entry)

    def _step(self, entry: Entry, stage: Stage) -> None:
        if entry.stage is Stage.READY:
            self.ready.left(entry)
        entry.step(stage)
