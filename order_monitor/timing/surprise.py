"""Ends that come where few were known to: whether they came at one instant, as after an outage, or
because a product's orders end sooner than before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from order_monitor.timing.distribution import Ends

NEAR: Final = 1.5

UNUSUAL: Final = 0.06
"""Where fewer of the orders were known to end near an early end, it begins a suspicion."""

SPLIT: Final = 0.5
"""The part of the orders that ends there, by the suspicion."""

LIKELY: Final = math.log(100)
"""Odds (their logarithm) at which all waiting orders are asked about early."""

CERTAIN: Final = math.log(10_000)
"""Odds (their logarithm) at which a product has changed."""


@dataclass(slots=True)
class Instant:
    """Whether surprising ends can all have come at one instant, as after a provider's outage,
    rather than each at its order's own age.

    Each end gives two intervals: of time, and of age. Orders that ended at one instant share a
    time; orders of a product that has changed share an age. Example: at noon all open orders end,
    and are found within ten minutes, one at an age of 20 minutes and one of 2 hours: one noon, no
    common age. An order that was sent before an instant and still waits after it rules it out.
    Times are epoch seconds, ages seconds.
    """

    since: float = -math.inf
    until: float = math.inf
    oldest: float = -math.inf
    youngest: float = math.inf

    def end(self, before: float, age: float, now: float) -> None:
        """Count a surprising end; where no instant is left, start again with this one."""
        if max(self.since, now - age + before) > min(self.until, now):
            self.since, self.until, self.oldest, self.youngest = (
                -math.inf,
                math.inf,
                -math.inf,
                math.inf,
            )
        self.since = max(self.since, now - age + before)
        self.until = min(self.until, now)
        self.oldest = max(self.oldest, before)
        self.youngest = min(self.youngest, age)

    def waits(self, age: float, now: float) -> None:
        """Count an order that still waits: nothing that was sent earlier has ended all at once."""
        if now - age < self.since:
            self.since = max(self.since, now)

    @property
    def is_one(self) -> bool:
        """Whether the ends share an instant and no age."""
        return self.since <= self.until and self.oldest > self.youngest

    def holds(self, before: float, age: float, now: float) -> bool:
        """Whether another end can have come at the same instant."""
        return self.is_one and now - age + before <= self.until and now >= self.since


@dataclass(slots=True)
class Suspicion:
    """The suspicion that a product's orders end much sooner than known: a sequential probability
    ratio test (Wald 1945).

    It begins with an early end, and counts the orders that were sent since that one: by the
    suspicion every second of them ends at about that age, by what was known only a few do. Example:
    3 % are known to end in a minute. An end after a minute makes the odds 17 : 1, and each order
    that still waits at that age halves them; meanwhile the next orders are asked about at that age
    as well. After two ends the odds are 280 : 1, and all waiting orders are asked.

    The orders counted as ends ended between the ages ``after`` and ``until`` (seconds), ``since`` is
    when the first of them was sent (epoch seconds), and ``odds`` are the odds' logarithm.
    """

    after: float
    until: float
    since: float = math.inf
    odds: float = 0.0
    instant: Instant = field(default_factory=Instant)

    def ends(self, share: float, after: float, until: float, now: float) -> None:
        """Count an early end, if it is near the others; a ``share`` of the orders was known to end
        near it.
        """
        if until < self.after or after > self.until:
            return
        self.odds += math.log(SPLIT / share)
        self.since = min(self.since, now - until)
        self.after, self.until = min(self.after, after), max(self.until, until)
        self.instant.end(after, until, now)

    def waits(self, before: float, age: float, now: float) -> None:
        """Count an order that still waits."""
        self.instant.waits(age, now)
        if now - age >= self.since and before < self.until <= age:
            self.odds += math.log(1 - SPLIT)

    def concerns(self, age: float, sent_at: float) -> bool:
        """Whether an order that waits at ``age`` is to be asked about early."""
        return age < self.until and (sent_at >= self.since or self.is_likely)

    @property
    def is_likely(self) -> bool:
        """Whether it concerns the orders that were sent before as well."""
        return self.odds >= LIKELY

    @property
    def is_certain(self) -> bool:
        """Whether the product has changed."""
        return self.odds >= CERTAIN


def known_near(curve: Ends, after: float, until: float) -> float:
    """Return the share of the orders that were known to end near: from ``after`` / 1.5 to ``until``
    x 1.5.
    """
    return curve.share_by(until * NEAR) - curve.share_by(after / NEAR)
