"""Count the open orders: how old, how late, whose, and which of them need a person: one walk over the queue.

Times are epoch seconds, durations seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from order_monitor.core.entry import Entry
from order_monitor.core.order import SkipReason
from order_monitor.core.queue import OrderQueue
from order_monitor.watch.turns import unhurried

AGES: Final = (300.0, 3600.0, 21_600.0, 86_400.0)
"""The upper ends of the groups by age; the last group has none."""

PROBLEMS: Final = 100
NEXT: Final = 20


@dataclass(slots=True)
class Share:
    """What one account has to do."""

    orders: int = 0
    due: int = 0
    oldest_due: float | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """An order that a person should look at: ``kind`` is ``stuck``, ``overdue`` or ``skipped``, ``why`` its rule."""

    order_id: str
    kind: str
    why: str
    account: str | None = None
    since: float | None = None
    referans: str = ""


@dataclass(slots=True)
class Census:
    """The open orders at one moment. ``problems`` are the first hundred."""

    overdue: int = 0
    by_age: list[int] = field(default_factory=lambda: [0] * (len(AGES) + 1))
    shares: dict[str, Share] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    next: list[Entry] = field(default_factory=list)

    @property
    def due(self) -> int:
        """How many orders wait to be asked about whose time has come."""
        return sum(share.due for share in self.shares.values())

    @property
    def oldest_due(self) -> float | None:
        """Since when the one waits that is due longest."""
        return min((s.oldest_due for s in self.shares.values() if s.oldest_due is not None), default=None)


class Counting:
    """Goes through the orders of a queue, at once or in turns with others, and says in the end what was counted."""

    def __init__(
        self,
        queue: OrderQueue,
        skips: Mapping[str, SkipReason],
        now: float,
        give_up_after: float,
        elsewhere: Collection[str] = (),
    ) -> None:
        """Count as of ``now``, with what is skipped; nothing is due here of accounts asked ``elsewhere``."""
        self._queue = queue
        self._skips = skips
        self._now = now
        self._give_up_after = give_up_after
        self._elsewhere = elsewhere
        self._census = Census()
        self._overdue: list[Problem] = []
        self._stuck: list[Problem] = []

    def at_once(self) -> Census:
        """Return the census."""
        for entry in self._queue:
            self._add(entry)
        return self._done()

    async def in_turns(self) -> Census:
        """Return the same, and let others have their turn meanwhile."""
        async for entry in unhurried(list(self._queue)):
            self._add(entry)
        return self._done()

    def _add(self, entry: Entry) -> None:
        census, now, sent = self._census, self._now, entry.sent_at
        age = now - sent if sent is not None else 0.0
        census.by_age[sum(age >= limit for limit in AGES)] += 1
        share = census.shares.setdefault(entry.account, Share())
        share.orders += 1
        is_due = entry.is_waiting and entry.due <= now
        if is_due and entry.account not in self._elsewhere:
            share.due += 1
            share.oldest_due = entry.due if share.oldest_due is None else min(share.oldest_due, entry.due)
        stuck, referans = entry.memo.stuck, entry.referans or ""
        if stuck:
            _keep(self._stuck, Problem(entry.id, "stuck", stuck, entry.account, sent, referans))
        census.overdue += age >= self._give_up_after
        if age >= self._give_up_after and not stuck:
            why = "past_give_up_after"
            _keep(self._overdue, Problem(entry.id, "overdue", why, entry.account, sent, referans))

    def _done(self) -> Census:
        """Add what is skipped, and what comes next."""
        # What the shop has settled itself is no problem of anybody's.
        skips = ((i, why) for i, why in self._skips.items() if why is not SkipReason.SETTLED_BY_SHOP)
        skipped = [Problem(order_id, "skipped", str(why)) for order_id, why in islice(skips, PROBLEMS)]
        self._census.problems = [*self._stuck, *self._overdue, *skipped][:PROBLEMS]
        self._census.next = self._queue.coming(NEXT, lambda entry: entry.account not in self._elsewhere)
        return self._census


def _keep(problems: list[Problem], problem: Problem) -> None:
    if len(problems) < PROBLEMS:
        problems.append(problem)
