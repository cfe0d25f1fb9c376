"""What waits to be written, and in which company: fresh findings, halves of a batch that was refused, and what somebody holds up.

The three take turns, so that nothing waits for what cannot be written just now. Pure: it is told the time. Times are seconds of the
monotonic clock.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterator
from itertools import count

from order_monitor.core.recording import Finding


class Parked:
    """What somebody holds up, each finding until its time; those to be tried alone also until all such ones may be tried again."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._heap: list[tuple[float, int, Finding, bool]] = []
        self._tickets = count()
        self._alone_from = float("-inf")

    def add(self, finding: Finding, until: float, *, alone: bool) -> None:
        """Hold a finding until then."""
        heapq.heappush(self._heap, (until, next(self._tickets), finding, alone))

    def rest(self, until: float) -> None:
        """Try nothing alone before then: waiting for others' locks must not take up the time for what is free."""
        self._alone_from = until

    def hurry(self, now: float) -> None:
        """Try everything now: what held it up seems to be over."""
        self._heap = [(now, ticket, finding, alone) for _, ticket, finding, alone in self._heap]
        heapq.heapify(self._heap)
        self._alone_from = now

    def next_at(self) -> float | None:
        """When the next one can be tried; None where there is none."""
        if not self._heap:
            return None
        at, _, _, alone = self._heap[0]
        return max(at, self._alone_from) if alone else at

    def take(self, now: float, limit: int) -> list[Finding]:
        """Return what can be tried together now: one alone, or at most ``limit`` of the others."""
        batch: list[Finding] = []
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
    """Every finding that is not in the database yet, by its order's id; goes through the ids, the one that waits longest first.

    ``free`` counts for each account what could be written now, for all that is known: what somebody holds up does not count.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self._since: dict[str, float] = {}
        self._fresh: deque[Finding] = deque()
        self._parts: deque[list[Finding]] = deque()
        self._turn = 0
        self._is_last_round = False
        self.parked = Parked()
        self.free: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many findings are not in the database yet."""
        return len(self._since)

    def __contains__(self, order_id: str) -> bool:
        """Whether an order's finding is on its way."""
        return order_id in self._since

    def __iter__(self) -> Iterator[str]:
        """Go through the orders."""
        return iter(self._since)

    def oldest(self) -> float | None:
        """Since when the one waits that waits longest."""
        return next(iter(self._since.values()), None)

    def could_grow_to(self, limit: int, *, unhurried: bool = False) -> bool:
        """Whether what can be written now is less than a batch of ``limit``, which more findings would fill.

        With ``unhurried`` also whether nobody waits for any of it.
        """
        if self._parts or len(self._fresh) >= limit or not self.free.total():
            return False
        return not unhurried or (bool(self._fresh) and not any(finding.is_urgent for finding in self._fresh))

    def add(self, finding: Finding, now: float) -> None:
        """Take up a fresh finding."""
        self._since[finding.order.id] = now
        self._fresh.append(finding)
        self.free[finding.account] += 1

    def split(self, batch: list[Finding]) -> None:
        """Put the halves of a refused batch up, to be tried by themselves."""
        middle = len(batch) // 2
        self._parts += [batch[:middle], batch[middle:]]

    def park(self, finding: Finding, until: float, *, alone: bool) -> None:
        """Let a finding wait until then; with ``alone`` it is tried by itself, for its company would wait with it."""
        self.free[finding.account] -= 1
        if not self._is_last_round:
            self.parked.add(finding, until, alone=alone)

    def done(self, finding: Finding) -> None:
        """Forget a finding that has met its fate."""
        del self._since[finding.order.id]
        self.free[finding.account] -= 1

    def tidy(self) -> None:
        """Forget the accounts of which nothing waits."""
        self.free = +self.free

    def last_round(self, now: float) -> None:
        """Try everything once more, and leave alone what then is still held up: the end has come."""
        self.parked.hurry(now)
        self._is_last_round = True

    def next(self, now: float, limit: int) -> list[Finding]:
        """Return the next batch of at most ``limit``, from each kind in turn; nothing where all must wait."""
        for _ in range(3):
            self._turn = (self._turn + 1) % 3
            if self._turn == 0:
                batch = self.parked.take(now, limit)
                self.free.update(finding.account for finding in batch)
            else:
                batch = _first(self._fresh, limit) if self._turn == 1 else _first_part(self._parts, limit)
            if batch:
                return batch
        return []


def _first(findings: deque[Finding], limit: int) -> list[Finding]:
    return [findings.popleft() for _ in range(min(limit, len(findings)))]


def _first_part(parts: deque[list[Finding]], limit: int) -> list[Finding]:
    part = parts.popleft() if parts else []
    if len(part) > limit:
        parts.appendleft(part[limit:])
    return part[:limit]
