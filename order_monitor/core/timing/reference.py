"""What backoff would have cost: the measure of an equal budget."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from functools import cached_property

from order_monitor.core.schedule import Schedule
from order_monitor.core.timing.checking import cost_of
from order_monitor.core.timing.curve import Curve


@dataclass(frozen=True)
class Reference:
    """A schedule of backoff, with the mean of its jitter in place of each order's own."""

    schedule: Schedule

    @cached_property
    def ages(self) -> list[float]:
        """The ages (seconds) at which it asks, up to the time limit, which is the last."""
        stretch = 1 + self.schedule.jitter / 2
        plain = replace(self.schedule, base=self.schedule.base * stretch, cap=self.schedule.cap * stretch, jitter=0.0)
        ages, k = [], 1
        while (age := plain.slot("", k)) < self.schedule.give_up_after:
            ages.append(age)
            k += 1
        return [*ages, self.schedule.give_up_after]

    def waited(self, after: float, until: float) -> int:
        """Return how many calls it makes in (``after``, ``until``] of an order that goes on waiting."""
        return bisect_right(self.ages, until) - bisect_right(self.ages, after)

    def ended(self, after: float, until: float, curve: Curve | None) -> float:
        """Return how many calls it makes after ``after`` until it finds an end that lies in (``after``, ``until``].

        That is a mean: over the curve where there is one, else as if each number were as likely.
        """
        between = self.ages[bisect_right(self.ages, after) : bisect_left(self.ages, until)]
        held = 0.0 if curve is None else curve.share_by(until) - curve.share_by(after)
        if curve is None or held <= 0:
            return 1 + len(between) / 2
        last = curve.share_by(until)
        return 1 + sum((last - curve.share_by(slot)) / held for slot in between)

    def calls(self, curve: Curve) -> float:
        """Return how many calls an order of this curve costs on average."""
        return cost_of(curve, self.ages)[0]
