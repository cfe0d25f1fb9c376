"""The daemon's plan with learned timing: each order is asked about when its product's orders are
likely to end.

An order that has ended and only awaits its PIN keeps to the schedule: the learned times are those
of ends.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from order_monitor.core.order import Order
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.timing.memory import Key
from order_monitor.timing.planner import SKEW, Timing, longest_age

ONE: str = "default"
"""The account of orders that name none."""

LATE: Final = 20.0
"""Seconds after its slot within which an end is found while a process runs."""


def key_of(order: Order) -> Key:
    """Return the key of an order's timing: its account and its package."""
    return order.integration or ONE, order.package or ""


def slot_before(schedule: Schedule, order_id: str, age: float) -> float:
    """Return the age of the last check, under ``schedule``, of an order that was found at ``age``;
    0 if there was none.
    """
    latest = schedule.latest(order_id, age)
    before = (
        schedule.latest(order_id, latest - 1.0) if latest is not None and latest > 1.0 else None
    )
    return before or 0.0


def age_asked(order: Order, now: float) -> float | None:
    """Return the age (seconds) of an order's last check, according to its row.

    0 for never, or before it was sent; None if the row's time lies in the future.
    """
    if order.last_sync_at is None or order.sent_at is None:
        return 0.0
    if order.last_sync_at > now + SKEW:
        return None
    return max(0.0, min(order.last_sync_at, now) - order.sent_at)


class PastEnd(Protocol):
    """A past end; `order_monitor.timing.store.KeptEnd` implements it."""

    @property
    def key(self) -> Key:
        """The key of its timing."""

    @property
    def order_id(self) -> str:
        """The order's id."""

    @property
    def age(self) -> float:
        """Seconds from ``sent_at`` until it was found."""

    @property
    def at(self) -> float:
        """When it was found, in epoch seconds."""

    @property
    def is_end(self) -> bool:
        """Whether the provider ended it, rather than the time limit."""


def known_to_wait(past: Sequence[PastEnd], schedule: Schedule) -> list[float | None]:
    """Return, for each past end (in their order), the age at which the order was last seen to wait.

    An end that was found at its slot had waited at the slot before. One that was found late had not
    been asked about for a while: no process ran, or its row did not exist yet. It had waited at the
    last slot at which something else was decided. None for an impossible age: below zero, or far
    beyond the time limit.
    """
    found: list[float | None] = []
    times = sorted(end.at for end in past)
    for end in past:
        if not 0 <= end.age <= longest_age(schedule):
            found.append(None)
            continue
        before, slot = (
            slot_before(schedule, end.order_id, end.age),
            schedule.latest(end.order_id, end.age),
        )
        if slot is not None and end.age - slot > LATE:
            sent_at = end.at - end.age
            k = bisect_right(times, sent_at + slot)
            ran = times[k - 1] - sent_at if k else 0.0
            before = min(before, schedule.latest(end.order_id, ran) or 0.0 if ran > 0 else 0.0)
        found.append(before)
    return found


@dataclass(frozen=True, slots=True)
class Learned:
    """Like `Continuous`, with learned times."""

    schedule: Schedule
    timing: Timing

    def first(self, order: Order, now: float) -> float | None:
        """Return the time after its last known check.

        A time that passed while no process ran is due immediately.
        """
        if order.awaits_pin or order.sent_at is None:
            return Continuous(self.schedule).first(order, now)
        asked = age_asked(order, now) or 0.0
        due = self.timing.next_check(key_of(order), order.id, asked, order.sent_at)
        self.timing.found(order.id, asked, now - order.sent_at, due)
        return order.sent_at + due

    def again(self, order: Order, now: float) -> float | None:
        """Return the next time after now."""
        if order.awaits_pin or order.sent_at is None:
            return Continuous(self.schedule).again(order, now)
        age = max(0.0, now - order.sent_at)
        due = self.timing.next_check(key_of(order), order.id, age, order.sent_at)
        return order.sent_at + due


def precedence(due: float, chance: float, patience: float) -> float:
    """Return the sort key of an account's due orders; the smallest goes first.

    It never changes while an order waits. Asking one second sooner saves ``chance`` seconds of
    delay on average, where ``chance`` is the probability that the order has ended: so of orders due
    together the likelier goes first. No order starves: the key is at most ``due + patience``, so an
    order is overtaken only by those due less than ``patience`` seconds after it.
    """
    return due + patience * (1 - min(1.0, max(0.0, chance)))
