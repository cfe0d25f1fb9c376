"""The open orders in memory: which wait for their time, which are due, which are being asked about.

One line by the time they come due rather than a sleeping task an order: 100,000 orders cost a list, not 100,000 timers.
Pure: it is told the time. Times are epoch seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Final, TypeAlias

from order_monitor.core.entry import NOTHING, Entry, Memo, Stage, Traits
from order_monitor.core.line import Line
from order_monitor.core.order import Order

LONGEST_WAITING_EVERY: Final = 4
"""Of the orders that are due the newest goes first, its customer being still there; but each fourth turn goes to the
one due longest, so that no order starves however little the provider allows."""


AT_A_TURN: Final = 500
"""How many orders become ready at a time: when all of 100,000 are due, the loop must not stand still."""

_STALE_ALLOWED: Final = 1000
_LOOKED_THROUGH: Final = 50
_TRAITS_KEPT: Final = 50_000
_BEHIND: Final = 1e11
"""Seconds by which each failure puts an order behind all others: longer than any time differs from another."""

NEVER: Final = float("-inf")

READ_AGAIN: Final = NEVER
"""When an order was read that is to be read again before it is asked about, however lately that was."""

Rank: TypeAlias = Callable[[Entry], float]
"""What due orders are sorted by, the least first; it is asked when an order becomes due."""


class _Ready:
    """The due orders of one account, in two lines at once; whoever was taken from one has left the other too."""

    def __init__(self, account: str, rank: Rank) -> None:
        def belongs(entry: Entry) -> bool:
            return entry.stage is Stage.READY and entry.traits.account == account

        # Whoever could not be asked stands behind the others: an order that always fails must not be every probe's choice.
        self._newest = Line(lambda entry: entry.memo.failures * _BEHIND + rank(entry), belongs)
        self._longest = Line(lambda entry: entry.memo.failures * _BEHIND + entry.due, belongs)
        self._turns = 0
        self.count = 0

    def __len__(self) -> int:
        """How many places there are, those of whoever has left included."""
        return len(self._newest) + len(self._longest)

    def add(self, entry: Entry) -> None:
        for line in (self._newest, self._longest):
            # Each order leaves a stale place in the line it was not taken from: those must not pile up.
            if len(line) > 2 * self.count + _STALE_ALLOWED:
                line.tidy()
            line.add(entry)
        self.count += 1

    def first(self) -> Entry | None:
        self._turns += 1
        return (self._longest if self._turns % LONGEST_WAITING_EVERY == 0 else self._newest).first()


def _newest(entry: Entry) -> float:
    return -(entry.sent_at or 0.0)


class OrderQueue:
    """Every open order this process knows, by id."""

    def __init__(self, rank: Rank | None = None) -> None:
        """Start with no orders. Of those that are due the newest goes first, or the least by ``rank``."""
        self.rank: Rank = rank or _newest
        self._entries: dict[str, Entry] = {}
        self._timers = Line(lambda entry: entry.wake, lambda entry: entry.stage is Stage.SCHEDULED)
        self._ready: dict[str, _Ready] = {}
        self._traits: dict[Traits, Traits] = {}
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many orders are known."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Go through all orders."""
        return iter(self._entries.values())

    def get(self, order_id: str) -> Entry | None:
        """Return an order's entry, None where it is not known."""
        return self._entries.get(order_id)

    def add(self, order: Order, account: str) -> Entry:
        """Take up an order that was not known; it is idle until `schedule` is called."""
        traits = self._traits_of(order, account)
        entry = Entry(order.id, traits, order.sent_at, order.referans, order.last_sync_at)
        if order.ended_at is not None:
            entry.memo = Memo(order.ended_at)
        self._entries[order.id] = entry
        self._count[account] += 1
        return entry

    def renew(self, entry: Entry, order: Order, account: str) -> None:
        """Let ``entry`` be what was read of its order now, and ``account``'s; where it is another's it is idle."""
        if account != entry.account:
            self.idle(entry)
            self._count[entry.account] -= 1
            self._count[account] += 1
        entry.traits = self._traits_of(order, account)
        entry.sent_at, entry.referans, entry.asked_at = order.sent_at, order.referans, order.last_sync_at
        if order.ended_at != entry.memo.ended_at:
            entry.note(ended_at=order.ended_at)

    def has_any(self, account: str) -> bool:
        """Whether there are orders of ``account``."""
        return self._count[account] > 0

    def schedule(self, entry: Entry, due: float, *, wake: float | None = None, now: float = NEVER) -> None:
        """Let ``entry`` become ready at ``wake``, by default when it is due; what is due by ``now`` is ready at once."""
        self._step(entry, Stage.SCHEDULED)
        entry.due = due
        if wake is not None or entry.memo is not NOTHING:
            entry.note(held=None if wake == due else wake)
        if entry.stage is Stage.SCHEDULED and entry.wake <= now:
            self._make_ready(entry)
        else:
            self._timers.add(entry)

    def next_wake(self) -> float | None:
        """When the next scheduled order becomes ready."""
        first = self._timers.first()
        return None if first is None else first.wake

    def coming(self, most: int, elsewhere: Collection[str] = ()) -> list[Entry]:
        """Return the next orders to come due, soonest first, save those of accounts asked ``elsewhere``.

        Of very many whose time is near some may be missing: a bounded part of them is looked at.
        """
        near = self._timers.soonest(most * (_LOOKED_THROUGH if elsewhere else 1), most * _LOOKED_THROUGH)
        return [entry for entry in near if entry.account not in elsewhere][:most]

    def promote(self, now: float) -> bool:
        """Make ready what has come due, `AT_A_TURN` orders at most; return whether there is more."""
        for _ in range(AT_A_TURN):
            entry = self._timers.first()
            if entry is None or entry.wake > now:
                return False
            self._make_ready(entry)
        return (wake := self.next_wake()) is not None and wake <= now

    def take(self, account: str) -> Entry | None:
        """Take the next due order of ``account`` for asking; None where nothing is due."""
        ready = self._ready.get(account)
        entry = ready.first() if ready is not None else None
        if entry is not None:
            self._step(entry, Stage.ASKING)
        return entry

    def due(self, account: str) -> int:
        """How many orders of ``account`` are ready."""
        ready = self._ready.get(account)
        return ready.count if ready is not None else 0

    def accounts_due(self) -> list[str]:
        """Return the accounts that have ready orders: of thousands most are idle."""
        return list(self._ready)

    def idle(self, entry: Entry) -> None:
        """Keep ``entry`` known without asking about it again."""
        self._step(entry, Stage.IDLE)

    def writing(self, entry: Entry) -> None:
        """Note that an answer was received and is on its way into the database."""
        self._step(entry, Stage.WRITING)

    def forget(self, order_id: str) -> None:
        """Drop an order: it is no longer open."""
        entry = self._entries.pop(order_id, None)
        if entry is not None:
            self._step(entry, Stage.GONE)
            self._count[entry.account] -= 1

    def _make_ready(self, entry: Entry) -> None:
        self._step(entry, Stage.READY)
        account = entry.account
        ready = self._ready.get(account)
        if ready is None:
            ready = self._ready[account] = _Ready(account, self.rank)
        ready.add(entry)

    def _step(self, entry: Entry, stage: Stage) -> None:
        if entry.stage is Stage.READY:
            ready = self._ready[entry.account]
            ready.count -= 1
            if not ready.count:
                del self._ready[entry.account]
        entry.step(stage)

    def _traits_of(self, order: Order, account: str) -> Traits:
        """Return the one copy of what this order has in common with others."""
        traits = Traits(account, order.status, order.tenant_id, order.integration, order.routed, order.package)
        if len(self._traits) >= _TRAITS_KEPT:
            self._traits.clear()
        return self._traits.setdefault(traits, traits)
