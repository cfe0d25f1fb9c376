"""The open orders of accounts that other members of the cluster ask: counted, and not kept.

Each member keeps the orders of its own accounts alone, so that n members need a memory each of
about 1/n. When it gets another account, it reads that account's orders before it asks about any
(`order_monitor.cluster.takeover`).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from order_monitor.core.order import Order
from order_monitor.core.tracked_order import TrackedOrder

MINUTE: Final = 60.0
"""Seconds to which the age of a counted order is known."""

SHOWN: Final = 100
"""How many of the oldest counted orders are known by id."""


class Counted(NamedTuple):
    """One of the oldest orders that are counted; ``sent_at`` is epoch seconds."""

    sent_at: float
    order_id: str
    account: str
    reference: str


class Counts:
    """The orders that one scan counted, by account and by the minute in which they were sent.

    Those sent after ``horizon`` (epoch seconds) may be read again by the next scan, and are counted
    by id.
    """

    def __init__(self, horizon: float) -> None:
        """Start with none."""
        self.horizon = horizon
        self.minutes: dict[str, Counter[int]] = {}
        self.recent: dict[str, tuple[str, float]] = {}
        self.awaiting: dict[str, str] = {}
        self._oldest: list[tuple[float, Counted]] = []

    def count(self, order: Order | TrackedOrder, account: str) -> None:
        """Count an order of ``account``."""
        sent_at = order.sent_at or 0.0
        if order.awaits_pin:
            self.awaiting[order.id] = account
            return
        if sent_at > self.horizon:
            self.recent[order.id] = (account, sent_at)
            return
        self.minutes.setdefault(account, Counter())[int(sent_at // MINUTE)] += 1
        if len(self._oldest) < SHOWN or sent_at < -self._oldest[0][0]:
            counted = Counted(sent_at, order.id, account, order.reference)
            heapq.heappush(self._oldest, (-sent_at, counted))
            if len(self._oldest) > SHOWN:
                heapq.heappop(self._oldest)

    def forget(self, accounts: Collection[str]) -> None:
        """Count the orders of these accounts no longer."""
        for key in accounts:
            self.minutes.pop(key, None)
        self.recent = {i: one for i, one in self.recent.items() if one[0] not in accounts}
        self.awaiting = {i: key for i, key in self.awaiting.items() if key not in accounts}
        self._oldest = [one for one in self._oldest if one[1].account not in accounts]
        heapq.heapify(self._oldest)

    def oldest(self) -> list[Counted]:
        """Return some of the oldest orders that are not counted by id, the oldest first."""
        return sorted(counted for _, counted in self._oldest)


class Elsewhere:
    """What is known of the orders that other members ask about.

    ``accounts`` are the keys of the accounts whose orders are not kept here, or not all of them.
    ``reading`` are those of them that this process has got, and whose orders are being read.
    """

    def __init__(self) -> None:
        """Start with none: what no other member is known to ask is kept."""
        self.accounts: set[str] = set()
        self.reading: set[str] = set()
        self._counts = Counts(float("-inf"))
        self._whole: tuple[float, Counts] | None = None

    def has(self, account: str) -> bool:
        """Whether the orders of an account are only counted."""
        return account in self.accounts and account not in self.reading

    def begin(self, began: float, horizon: float, *, is_whole: bool) -> Counts:
        """Return what a scan that ``began`` now (monotonic seconds) counts into; a full one counts
        those sent after ``horizon`` by id.
        """
        counts = Counts(horizon if is_whole else self._counts.horizon)
        if is_whole:
            self._whole = (began, counts)
        return counts

    def finish(self, counts: Counts, *, is_whole: bool) -> None:
        """Take over what a scan has counted."""
        if is_whole:
            self._counts, self._whole = counts, None
        else:
            self._counts.recent |= counts.recent
            self._counts.awaiting = counts.awaiting

    def keep(self, accounts: Collection[str]) -> None:
        """Count the orders of these accounts no longer: they are all kept now."""
        self.accounts -= set(accounts)
        for counts in (self._counts, self._whole[1] if self._whole is not None else None):
            if counts is not None:
                counts.forget(accounts)

    def drop(self, entry: TrackedOrder, account: str) -> None:
        """Count an order of ``account`` that was kept until now."""
        self._counts.count(entry, account)
        # A full scan that has read it already does not count it itself.
        if self._whole is not None and entry.read_at >= self._whole[0]:
            self._whole[1].count(entry, account)

    def with_orders(self) -> set[str]:
        """Return the accounts of which orders are counted, open ones or those that wait for their
        PIN; also while they are being read.
        """
        recent = {account for account, _ in self._counts.recent.values()}
        awaiting = set(self._counts.awaiting.values())
        return (recent | awaiting | self._counts.minutes.keys()) & self.accounts

    def sent(self) -> Iterator[tuple[str, float, int]]:
        """Return accounts with a time (epoch seconds) and how many of their open orders were sent
        then, or up to `MINUTE` later.

        What is counted may change meanwhile.
        """
        counts = self._counts
        for account, minutes in list(counts.minutes.items()):
            if self.has(account):
                yield from ((account, n * MINUTE, count) for n, count in list(minutes.items()))
        for account, sent_at in list(counts.recent.values()):
            if self.has(account):
                yield account, sent_at, 1

    def steps(self) -> int:
        """Return how long `sent` is, at most."""
        return sum(map(len, self._counts.minutes.values())) + len(self._counts.recent)

    def __len__(self) -> int:
        """Return how many open orders are counted."""
        minutes, recent = self._counts.minutes.items(), self._counts.recent.values()
        in_minutes = sum(counter.total() for key, counter in minutes if self.has(key))
        return in_minutes + sum(self.has(key) for key, _ in recent)

    def awaiting(self) -> Counter[str]:
        """Return how many orders of each account have ended and wait for their PIN."""
        return Counter(key for key in self._counts.awaiting.values() if self.has(key))

    def oldest(self) -> list[Counted]:
        """Return some of the oldest open orders, the oldest first."""
        return [one for one in self._counts.oldest() if self.has(one.account)]
