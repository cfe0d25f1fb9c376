"""The due orders, each account's in two queues at once: newest first and longest waiting first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from order_monitor.core.lazy_heap import LazyHeap
from order_monitor.core.tracked_order import NOTHING, Stage, TrackedOrder

LONGEST_WAITING_EVERY: Final = 4
"""Every how many turns the order due longest goes first.

Otherwise the newest goes first, because its customer is still there. This exception keeps every
order from starving, however few calls the provider allows.
"""

STALE_ALLOWED: Final = 1000
_LOOKED_AT: Final = 200
"""Number of orders at the front among which a probe is chosen."""

_STRIDE: Final = 79
"""Steps between two choices. A prime, so that every order is reached in time, and neighbours, which
were sent together, are not chosen one after the other.
"""

_READY: Final = Stage.READY

_BEHIND: Final = 1e11
"""Seconds by which each failure moves an order behind all others: more than any two times differ.
"""

Rank: TypeAlias = Callable[[TrackedOrder], float]
"""Sort key of due orders, lowest first; computed when an order becomes due."""


def newest(entry: TrackedOrder) -> float:
    """Sort key: the newest order first."""
    return -(entry.sent_at or 0.0)


def _behind(entry: TrackedOrder) -> float:
    rare = entry.rare
    return (rare.failures + bool(rare.odd)) * _BEHIND


class AccountQueue:
    """The due orders of one account; an order taken from one queue has left the other too."""

    def __init__(self, account: str, rank: Rank) -> None:
        """Sort one queue by ``rank``, the other by due time."""

        def belongs(entry: TrackedOrder) -> bool:
            return entry.stage is _READY and entry.shared_fields.account == account

        # An order that could not be asked about, or whose answers were not understood, goes behind
        # the others: it must not be chosen for every probe.
        def ranked(entry: TrackedOrder) -> float:
            number = rank(entry)
            return number if entry.rare is NOTHING else number + _behind(entry)

        def longest(entry: TrackedOrder) -> float:
            return entry.due if entry.rare is NOTHING else entry.due + _behind(entry)

        self._ranked = LazyHeap(ranked, belongs)
        self._longest = LazyHeap(longest, belongs)
        self._turns = 0
        self.count = 0

    def __len__(self) -> int:
        """Return how many places there are, including those of entries that have left."""
        return len(self._ranked) + len(self._longest)

    def push(self, entry: TrackedOrder) -> None:
        """Add a ready order to both queues."""
        self._ranked.push(entry)
        self._longest.push(entry)
        self.count += 1

    def left(self) -> None:
        """Record that an order is no longer ready."""
        self.count -= 1
        for line in (self._ranked, self._longest):
            # Each order leaves a stale place in the queue it was not taken from: those must not
            # pile up.
            if len(line) > 2 * self.count + STALE_ALLOWED:
                line.tidy()

    def first(self) -> TrackedOrder | None:
        """Return the order whose turn it is."""
        self._turns += 1
        return (self._longest if self._turns % LONGEST_WAITING_EVERY == 0 else self._ranked).first()

    def best_for_a_probe(self, salt: int) -> TrackedOrder | None:
        """Return an order that was understood before, otherwise one that has not failed.

        ``salt`` varies the choice: orders next to each other may all be unknown to the provider.
        """
        self._turns += 1
        near = self._ranked.soonest(_LOOKED_AT, _LOOKED_AT)
        fresh = [entry for entry in near if not entry.rare.failures and not entry.rare.odd]
        understood = [entry for entry in near if entry.understood and not entry.rare.failures]
        best = understood or fresh
        return best[(salt + self._turns) * _STRIDE % len(best)] if best else self.first()


class ReadyQueues:
    """The due orders of all accounts."""

    def __init__(self, rank: Rank | None = None) -> None:
        """Sort each account's orders by ``rank``, by default newest first."""
        self.rank: Rank = rank or newest
        self.lines: dict[str, AccountQueue] = {}

    def push(self, entry: TrackedOrder) -> None:
        """Add a ready order."""
        account = entry.shared_fields.account
        lines = self.lines.get(account)
        if lines is None:
            lines = self.lines[account] = AccountQueue(account, self.rank)
        lines.push(entry)

    def left(self, entry: TrackedOrder) -> None:
        """Record that an order is no longer ready."""
        lines = self.lines[entry.account]
        lines.left()
        if not lines.count:
            del self.lines[entry.account]

    def first(self, account: str) -> TrackedOrder | None:
        """Return the order of an account whose turn it is; None if nothing is due."""
        lines = self.lines.get(account)
        return lines.first() if lines is not None else None

    def best_for_a_probe(self, account: str, salt: int) -> TrackedOrder | None:
        """Return the order best suited to probe an account, a different one for another ``salt``.

        None if nothing is due.
        """
        lines = self.lines.get(account)
        return lines.best_for_a_probe(salt) if lines is not None else None

    def count(self, account: str) -> int:
        """Return how many orders of an account are due."""
        lines = self.lines.get(account)
        return lines.count if lines is not None else 0

    def accounts(self) -> list[str]:
        """Return the accounts that have due orders: out of thousands, most have none."""
        return list(self.lines)
