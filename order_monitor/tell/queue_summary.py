"""Count the open orders in one pass over the queue: how old, how late, which account's, and which
of them need a person.

An order that has ended and only waits for its PIN is not open, and is counted separately.

Times are epoch seconds, durations seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from order_monitor.core.order import SkipReason
from order_monitor.core.queue import OrderQueue
from order_monitor.core.tracked_order import TrackedOrder
from order_monitor.watch.elsewhere import MINUTE, Elsewhere
from order_monitor.watch.scan_run import Skipped
from order_monitor.watch.turns import unhurried

AGES: Final = (300.0, 3600.0, 21_600.0, 86_400.0)
"""Upper limits of the age groups; the last group has none."""

PROBLEMS: Final = 100
_LATE: Final = "past_give_up_after"
NEXT: Final = 20


@dataclass(slots=True)
class Share:
    """The workload of one account: its open orders, those that have ended and wait for their PIN,
    and how many of both are due.
    """

    orders: int = 0
    awaiting_pin: int = 0
    due: int = 0
    oldest_due: float | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """An order that a person should look at: ``kind`` is ``stuck``, ``overdue`` or ``skipped``,
    ``why`` the reason.
    """

    order_id: str
    kind: str
    why: str
    account: str | None = None
    since: float | None = None
    reference: str = ""


@dataclass(slots=True)
class QueueSummary:
    """The open orders at one moment.

    All numbers are from the same moment, so that the parts add up to the total. ``open`` counts
    all: those in the ``shares`` of accounts, grouped by age in ``by_age``, and those that are not
    asked about, by reason in ``skipped``. Orders with an unknown status are not included, because
    they may not be open. ``awaiting_pin`` have ended. ``problems`` are the first hundred of
    ``all_problems``. ``oldest_open`` is the age of the oldest order that is asked about, in seconds.
    """

    open: int = 0
    awaiting_pin: int = 0
    all_problems: int = 0
    skipped: Counter[SkipReason] = field(default_factory=Counter)
    overdue: int = 0
    oldest_open: float = 0.0
    by_age: list[int] = field(default_factory=lambda: [0] * (len(AGES) + 1))
    shares: dict[str, Share] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    next: list[TrackedOrder] = field(default_factory=list)

    @property
    def due(self) -> int:
        """The number of waiting orders that are due."""
        return sum(share.due for share in self.shares.values())

    @property
    def oldest_due(self) -> float | None:
        """The due time of the order that has been due longest."""
        return min(
            (s.oldest_due for s in self.shares.values() if s.oldest_due is not None), default=None
        )


class Counting:
    """Walks over the orders of a queue, at once or in slices, and returns what it counted."""

    def __init__(
        self,
        queue: OrderQueue,
        skips: Mapping[str, SkipReason],
        now: float,
        give_up_after: float,
        elsewhere: Elsewhere | None = None,
        asked_elsewhere: Collection[str] = (),
        shown: Mapping[str, Skipped] | None = None,
        skipped: Mapping[SkipReason, int] | None = None,
    ) -> None:
        """Count as of ``now``, including what is skipped.

        ``elsewhere`` are the orders that other processes keep; for accounts ``asked_elsewhere``
        nothing is due here. ``shown`` holds details of some
        skipped orders, ``skipped`` the number of all skipped orders, including those that are only
        counted.
        """
        self._queue = queue
        self._skips = skips
        self._shown = shown or {}
        self._skipped_by_reason = Counter(skips.values() if skipped is None else skipped)
        self._now = now
        self._give_up_after = give_up_after
        self._elsewhere = elsewhere or Elsewhere()
        self._asked_elsewhere = asked_elsewhere
        self._queue_summary = QueueSummary()
        self._overdue: list[Problem] = []
        self._stuck: list[Problem] = []
        self._problems = 0

    def at_once(self) -> QueueSummary:
        """Return the summary."""
        for entry in self._queue:
            self._add(entry)
        for account, sent, count in self._elsewhere.sent():
            self._add_counted(account, sent, count)
        return self._done()

    async def in_turns(self) -> QueueSummary:
        """Return the same, and yield to other tasks in between."""
        async for entry in unhurried(list(self._queue)):
            self._add(entry)
        async for account, sent, count in unhurried(self._elsewhere.sent()):
            self._add_counted(account, sent, count)
        return self._done()

    def _add(self, entry: TrackedOrder) -> None:
        queue_summary, now, sent = self._queue_summary, self._now, entry.sent_at
        age = now - sent if sent is not None else 0.0
        share = queue_summary.shares.setdefault(entry.account, Share())
        if entry.awaits_pin:
            queue_summary.awaiting_pin += 1
            share.awaiting_pin += 1
        else:
            queue_summary.oldest_open = max(queue_summary.oldest_open, age)
            queue_summary.by_age[sum(age >= limit for limit in AGES)] += 1
            share.orders += 1
        is_due = entry.is_waiting and entry.due <= now
        if is_due and entry.account not in self._asked_elsewhere:
            share.due += 1
            oldest = share.oldest_due
            share.oldest_due = entry.due if oldest is None else min(oldest, entry.due)
        stuck, reference = entry.rare.stuck, entry.reference
        is_overdue = age >= self._give_up_after and not entry.awaits_pin
        queue_summary.overdue += is_overdue
        self._problems += is_overdue or stuck is not None
        if stuck:
            _keep(self._stuck, Problem(entry.id, "stuck", stuck, entry.account, sent, reference))
        elif is_overdue:
            late = Problem(entry.id, "overdue", _LATE, entry.account, sent, reference)
            _keep(self._overdue, late)

    def _add_counted(self, account: str, sent: float, count: int) -> None:
        """Add open orders that another process keeps: their ages are known to the minute."""
        queue_summary, age = self._queue_summary, self._now - sent
        queue_summary.oldest_open = max(queue_summary.oldest_open, age)
        queue_summary.by_age[sum(age >= limit for limit in AGES)] += count
        queue_summary.shares.setdefault(account, Share()).orders += count
        is_overdue = age - MINUTE >= self._give_up_after
        queue_summary.overdue += count if is_overdue else 0
        self._problems += count if is_overdue else 0

    def _add_elsewhere(self) -> None:
        """Add what else is known of the orders that other processes keep."""
        queue_summary, now = self._queue_summary, self._now
        for account, count in self._elsewhere.awaiting().items():
            queue_summary.awaiting_pin += count
            queue_summary.shares.setdefault(account, Share()).awaiting_pin += count
        for one in self._elsewhere.oldest():
            if now - one.sent_at >= self._give_up_after:
                sent = (one.account, one.sent_at, one.reference)
                _keep(self._overdue, Problem(one.order_id, "overdue", _LATE, *sent))

    def _done(self) -> QueueSummary:
        """Add what other processes keep, what is skipped, and what comes next."""
        self._add_elsewhere()
        queue_summary, skips, skipped = self._queue_summary, self._skips, self._skipped_by_reason
        queue_summary.skipped = skipped
        queue_summary.open = (
            sum(queue_summary.by_age) + skipped.total() - skipped[SkipReason.UNKNOWN_STATUS]
        )
        # Orders that are skipped on purpose are not a problem.
        queue_summary.all_problems = self._problems + sum(
            n for why, n in skipped.items() if why.is_mendable
        )
        mendable = (order_id for order_id, why in skips.items() if why.is_mendable)
        named = dict.fromkeys((*self._shown, *islice(mendable, PROBLEMS)))
        found = [
            *self._stuck,
            *self._overdue,
            *(self._skipped(i, skips[i]) for i in named if i in skips),
        ]
        queue_summary.problems = found[:PROBLEMS]
        queue_summary.next = self._queue.coming(
            NEXT, lambda entry: entry.account not in self._asked_elsewhere
        )
        return queue_summary

    def _skipped(self, order_id: str, why: SkipReason) -> Problem:
        sent, reference, account = self._shown.get(order_id, Skipped(None, "", None))
        return Problem(order_id, "skipped", str(why), account, sent, reference)


def _keep(problems: list[Problem], problem: Problem) -> None:
    if len(problems) < PROBLEMS:
        problems.append(problem)
