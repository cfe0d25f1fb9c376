"""The open orders in memory: which wait for their time, which are due, which are being asked about.

One heap of (due, sequence, id) rather than a sleeping task an order: 100,000 orders cost a heap, not 100,000 timers.
Pure: it is told the time. Times are epoch seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, TypeAlias

from order_monitor.core.order import Order

LONGEST_WAITING_EVERY: Final = 4
"""Of the orders that are due the newest goes first, its customer being still there; but each fourth turn goes to the
one due longest, so that no order starves however little the provider allows."""


AT_A_TURN: Final = 500
"""How many orders become ready at a time: when all of 100,000 are due, the loop must not stand still."""

_STALE_ALLOWED: Final = 1000
_LOOKED_THROUGH: Final = 50

READ_AGAIN: Final = float("-inf")
"""When an order was read that is to be read again before it is asked about, however lately that was."""

_Timer: TypeAlias = tuple[float, int, str]
_Place: TypeAlias = tuple[tuple[float, ...], int, str]
"""A place in a heap: what it is sorted by, a ticket that no other place has, the order's id."""


class Stage(Enum):
    """Where an order stands between two checks."""

    IDLE = auto()
    SCHEDULED = auto()
    READY = auto()
    ASKING = auto()
    WRITING = auto()


@dataclass(slots=True, eq=False)
class Entry:
    """One open order and what this process remembers of it; lost at a restart, and missed by nobody."""

    order: Order
    account: str
    due: float = 0.0
    stage: Stage = Stage.IDLE
    ticket: int = 0
    checks: int = 0
    failures: int = 0
    written: object = None
    stuck: str | None = None
    unknown: int = 0
    cancelled_at: float | None = None
    read_at: float = 0.0
    """How many answers in a row only a person can read; when an unconfirmed cancellation was read; when the order was last read
    (monotonic seconds)."""


@dataclass(slots=True)
class _Ready:
    """The due orders of one account, in two orders at once; entries no longer due are skipped when met."""

    newest: list[_Place] = field(default_factory=list)
    longest: list[_Place] = field(default_factory=list)
    turns: int = 0

    def clear(self) -> None:
        self.newest.clear()
        self.longest.clear()

    def next_heap(self) -> list[_Place]:
        self.turns += 1
        return self.longest if self.turns % LONGEST_WAITING_EVERY == 0 else self.newest


Rank: TypeAlias = Callable[[Entry], float]
"""What due orders are sorted by, the least first; it is asked once, when an order becomes due."""


def _newest(entry: Entry) -> float:
    return -(entry.order.sent_at or 0.0)


class OrderQueue:
    """Every open order this process knows, by id."""

    def __init__(self, rank: Rank | None = None) -> None:
        """Start with no orders. Of those that are due the newest goes first, or the least by ``rank``."""
        self.rank: Rank = rank or _newest
        self._entries: dict[str, Entry] = {}
        self._timers: list[_Timer] = []
        self._ready: dict[str, _Ready] = {}
        self._tickets = 0
        self._due_count: dict[str, int] = {}
        self._count: dict[str, int] = {}

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
        entry = self._entries[order.id] = Entry(order, account)
        self._count[account] = self._count.get(account, 0) + 1
        return entry

    def move(self, entry: Entry, account: str) -> None:
        """Make ``entry`` another account's."""
        self._count[entry.account] -= 1
        self._count[account] = self._count.get(account, 0) + 1
        entry.account = account

    def has_any(self, account: str) -> bool:
        """Whether there are orders of ``account``."""
        return self._count.get(account, 0) > 0

    def schedule(self, entry: Entry, due: float, *, wake: float | None = None) -> None:
        """Let ``entry`` become ready at ``wake``, by default when it is due."""
        self._leave(entry)
        entry.due = due
        entry.stage = Stage.SCHEDULED
        heapq.heappush(self._timers, (due if wake is None else wake, self._ticket(entry), entry.order.id))

    def next_wake(self) -> float | None:
        """When the next scheduled order becomes ready."""
        while self._timers and self._valid(self._timers[0], Stage.SCHEDULED) is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def coming(self, count: int, elsewhere: Collection[str] = ()) -> list[Entry]:
        """Return the next orders to come due, soonest first, save those of accounts asked ``elsewhere``.

        Of very many whose time has passed or changed some may be missing: a bounded part of the timers is looked at.
        """
        timers, found = self._timers, list[Entry]()
        # The least of a heap stands first, and each one's followers at twice its place: no need to sort them all.
        front = [(timers[0], 0)] if timers else []
        for _ in range(count * _LOOKED_THROUGH):
            if not front or len(found) == count:
                break
            place, index = heapq.heappop(front)
            for below in range(2 * index + 1, min(2 * index + 3, len(timers))):
                heapq.heappush(front, (timers[below], below))
            entry = self._valid(place, Stage.SCHEDULED)
            if entry is not None and entry.account not in elsewhere:
                found.append(entry)
        return found

    def promote(self, now: float) -> bool:
        """Make ready what has come due, `AT_A_TURN` orders at most; return whether there is more."""
        for _ in range(AT_A_TURN):
            if (wake := self.next_wake()) is None or wake > now:
                return False
            _, _, order_id = heapq.heappop(self._timers)
            self._make_ready(self._entries[order_id])
        return (wake := self.next_wake()) is not None and wake <= now

    def take(self, account: str) -> Entry | None:
        """Take the next due order of ``account`` for asking; None where nothing is due."""
        ready = self._ready.get(account)
        if ready is None or not self.due(account):
            return None
        heap = ready.next_heap()
        while heap:
            entry = self._valid(heapq.heappop(heap), Stage.READY)
            if entry is not None:
                self._leave(entry)
                entry.stage = Stage.ASKING
                return entry
        return None  # pragma: no cover - each ready order stands in both heaps

    def due(self, account: str) -> int:
        """How many orders of ``account`` are ready."""
        return self._due_count.get(account, 0)

    def accounts_due(self) -> list[str]:
        """Return the accounts that have ready orders: of thousands most are idle."""
        return list(self._due_count)

    def idle(self, entry: Entry) -> None:
        """Keep ``entry`` known without asking about it again."""
        self._leave(entry)
        entry.stage = Stage.IDLE

    def writing(self, entry: Entry) -> None:
        """Note that an answer was received and is on its way into the database."""
        self._leave(entry)
        entry.stage = Stage.WRITING

    def forget(self, order_id: str) -> None:
        """Drop an order: it is no longer open."""
        entry = self._entries.pop(order_id, None)
        if entry is not None:
            self._leave(entry)
            # Whoever still has it in hand must not take it out of its line once more.
            entry.stage = Stage.IDLE
            self._count[entry.account] -= 1

    def _make_ready(self, entry: Entry) -> None:
        ready = self._ready.setdefault(entry.account, _Ready())
        self._compact(ready, self.due(entry.account))
        entry.stage = Stage.READY
        ticket = self._ticket(entry)
        self._due_count[entry.account] = self.due(entry.account) + 1
        # Whoever could not be asked stands behind the others: an order that always fails must not be every probe's choice.
        heapq.heappush(ready.newest, ((entry.failures, self.rank(entry)), ticket, entry.order.id))
        heapq.heappush(ready.longest, ((entry.failures, entry.due), ticket, entry.order.id))

    def _compact(self, ready: _Ready, due: int) -> None:
        """Each order leaves a stale item in the heap it was not taken from; keep those from piling up."""
        if due == 0:
            ready.clear()
        for heap in (ready.newest, ready.longest):
            if len(heap) > 2 * due + _STALE_ALLOWED:
                heap[:] = [item for item in heap if self._valid(item, Stage.READY)]
                heapq.heapify(heap)

    def _leave(self, entry: Entry) -> None:
        if entry.stage is Stage.READY:
            self._due_count[entry.account] -= 1
            if not self._due_count[entry.account]:
                del self._due_count[entry.account]
        entry.ticket = 0

    def _ticket(self, entry: Entry) -> int:
        self._tickets += 1
        entry.ticket = self._tickets
        return self._tickets

    def _valid(self, item: _Timer | _Place, stage: Stage) -> Entry | None:
        entry = self._entries.get(item[2])
        return entry if entry is not None and entry.ticket == item[1] and entry.stage is stage else None
