"""The daemon's plan by what was learned: each order asked about when its product's orders are likely to end.

An order that has ended and only awaits its PIN keeps to the schedule: what was learned tells of ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from order_monitor.core.order import Order
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.core.timing.memory import Key
from order_monitor.core.timing.planner import Timing

ONE: str = "default"
"""The account of orders that name none."""


def key_of(order: Order) -> Key:
    """Return what an order's timing is learned under: its account and its package."""
    return order.integration or ONE, order.package or ""


def slot_before(schedule: Schedule, order_id: str, age: float) -> float:
    """Return the age at which an order that was found at ``age`` was last asked about, as ``schedule`` has it; 0 for never."""
    latest = schedule.latest(order_id, age)
    before = schedule.latest(order_id, latest - 1.0) if latest is not None and latest > 1.0 else None
    return before or 0.0


@dataclass(frozen=True, slots=True)
class Learned:
    """As `Continuous` is, with other times."""

    schedule: Schedule
    timing: Timing

    def first(self, order: Order, now: float) -> float | None:
        """The time after its last known check; one that has passed while nobody ran is due at once."""
        if order.awaits_pin or order.sent_at is None:
            return Continuous(self.schedule).first(order, now)
        asked = max(0.0, order.last_sync_at - order.sent_at) if order.last_sync_at is not None else 0.0
        return order.sent_at + self.timing.next_check(key_of(order), order.id, asked)

    def again(self, order: Order, now: float) -> float | None:
        """The next time after now."""
        if order.awaits_pin or order.sent_at is None:
            return Continuous(self.schedule).again(order, now)
        age = max(0.0, now - order.sent_at)
        return order.sent_at + self.timing.next_check(key_of(order), order.id, age)
