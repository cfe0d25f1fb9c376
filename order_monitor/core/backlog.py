"""Results waiting to be written: new ones, halves of refused batches, and ones blocked by locks.

The three groups take turns, so that a blocked write does not delay the others. Pure: the caller
passes the time. Times are seconds of the monotonic clock.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterator
from itertools import count

from order_monitor.core.check_result import CheckResult


class BlockedWrites:
    """Results that a lock holds up, each with the time of its next try.

    Results marked ``alone`` also wait until `rest` allows the next such try.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._heap: list[tuple[float, int, CheckResult, bool]] = []
        self._tickets = count()
        self._alone_from = float("-inf")

    def add(self, finding: CheckResult, until: float, *, alone: bool) -> None:
        """Keep a result until the given time."""
        heapq.heappush(self._heap, (until, next(self._tickets), finding, alone))

    def rest(self, until: float) -> None:
        """Do not try a result marked ``alone`` before ``until``: waiting for other sessions' locks
        must not use up the time for writes that are not blocked.
        """
        self._alone_from = until

    def hurry(self, now: float) -> None:
        """Try everything now: the lock seems to be gone."""
        self._heap = [(now, ticket, finding, alone) for _, ticket, finding, alone in self._heap]
        heapq.heapify(self._heap)
        self._alone_from = now

    def next_at(self) -> float | None:
        """Return when the next result can be tried, None if there is none."""
        if not self._heap:
            return None
        at, _, _, alone = self._heap[0]
        return max(at, self._alone_from) if alone else at

    def pop_due(self, now: float, limit: int) -> list[CheckResult]:
        """Return a batch that can be tried now: one ``alone``, or at most ``limit`` others."""
        batch: list[CheckResult] = []
        kept = []
        while self._heap and self._heap[0][0] <= now and len(batch) < limit:
            item = heapq.heappop(self._heap)
            if not item[3]:
                batch.append(item[2])
            elif batch or now < self._alone_from:
                kept.append(item)
            else:
                batch.append(item[2])
                break
        for item in kept:
            heapq.heappush(self._heap, item)
        return batch


class Backlog:
    """Every result that is not in the database yet, by order id.

    Iterates over the ids, longest waiting first. ``free`` counts, per account, the results that can
    be written now as far as we know; results held up by a lock are not counted.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._since: dict[str, float] = {}
        self._fresh: deque[CheckResult] = deque()
        self._parts: deque[list[CheckResult]] = deque()
        self._turn = 0
        self._is_last_round = False
        self.blocked = BlockedWrites()
        self.free: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many results are not in the database yet."""
        return len(self._since)

    def __contains__(self, order_id: str) -> bool:
        """Whether a result for this order is waiting."""
        return order_id in self._since

    def __iter__(self) -> Iterator[str]:
        """Iterate over the order ids, longest waiting first."""
        return iter(self._since)

    def oldest(self) -> float | None:
        """Return the time since which the longest waiting result waits, None if empty."""
        return next(iter(self._since.values()), None)

    def could_grow_to(self, limit: int, *, unhurried: bool = False) -> bool:
        """Whether the results that can be written now are fewer than ``limit``, so that waiting
        for more would fill the batch.

        With ``unhurried``, also require that none of them is urgent.
        """
        if self._parts or len(self._fresh) >= limit or not self.free.total():
            return False
        return not unhurried or (
            bool(self._fresh) and not any(finding.is_urgent for finding in self._fresh)
        )

    def add(self, finding: CheckResult, now: float) -> None:
        """Add a new result."""
        self._since[finding.order.id] = now
        self._fresh.append(finding)
        self.free[finding.account] += 1

    def split(self, batch: list[CheckResult]) -> None:
        """Queue both halves of a refused batch, to be tried separately."""
        middle = len(batch) // 2
        self._parts += [batch[:middle], batch[middle:]]

    def block(self, finding: CheckResult, until: float, *, alone: bool) -> None:
        """Keep a result until the given time.

        With ``alone`` it is tried in a batch of its own, because a batch would wait with it.
        """
        self.free[finding.account] -= 1
        if not self._is_last_round:
            self.blocked.add(finding, until, alone=alone)

    def done(self, finding: CheckResult) -> None:
        """Remove a result that has been dealt with."""
        del self._since[finding.order.id]
        self.free[finding.account] -= 1

    def tidy(self) -> None:
        """Drop the accounts for which nothing waits."""
        self.free = +self.free

    def last_round(self, now: float) -> None:
        """Try everything once more before shutdown; do not keep what is still held up then."""
        self.blocked.hurry(now)
        self._is_last_round = True

    def next(self, now: float, limit: int) -> list[CheckResult]:
        """Return the next batch of at most ``limit``, from each group in turn.

        Empty if everything must wait.
        """
        for _ in range(3):
            self._turn = (self._turn + 1) % 3
            if self._turn == 0:
                batch = self.blocked.pop_due(now, limit)
                self.free.update(finding.account for finding in batch)
            else:
                batch = (
                    _first(self._fresh, limit)
                    if self._turn == 1
                    else _first_part(self._parts, limit)
                )
            if batch:
                return batch
        return []


def _first(findings: deque[CheckResult], limit: int) -> list[CheckResult]:
    return [findings.popleft() for _ in range(min(limit, len(findings)))]


def _first_part(parts: deque[list[CheckResult]], limit: int) -> list[CheckResult]:
    part = parts.popleft() if parts else []
    if len(part) > limit:
        parts.appendleft(part[limit:])
    return part[:limit]
