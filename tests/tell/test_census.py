"""Counting the queue: ages, what is due and since when, and what needs a person."""

from order_monitor.core.order import Order, SkipReason
from order_monitor.core.queue import OrderQueue
from order_monitor.tell import census
from tests.shops import NOW


def order(order_id: str, age: float | None) -> Order:
    return Order(order_id, "sent", None if age is None else NOW - age, "1")


def test_an_empty_book() -> None:
    taken = census.take(OrderQueue(), {}, NOW, 100)
    assert (taken.due, taken.oldest_due, taken.overdue, taken.problems, taken.next) == (0, None, 0, [], [])


def test_each_order_is_counted_where_it_belongs() -> None:
    queue = OrderQueue()
    for n, age in enumerate((0, 299.9, 300, 3600, 21_600, 86_399, 86_400, None)):
        entry = queue.add(order(str(n), age), "a" if n % 2 else "b")
        queue.schedule(entry, NOW - 10 + n * 5)
    queue.promote(NOW - 8)
    taken = census.take(queue, {"x": SkipReason.NO_REFERENCE}, NOW, 86_400)
    assert taken.by_age == [3, 1, 1, 2, 1]
    assert taken.overdue == 1
    assert taken.due == 3, "ready, or scheduled and due"
    assert taken.oldest_due == NOW - 10
    assert {name: share.orders for name, share in taken.shares.items()} == {"a": 4, "b": 4}
    assert [(p.order_id, p.kind) for p in taken.problems] == [("6", "overdue"), ("x", "skipped")]
    assert [entry.order.id for entry in taken.next][:2] == ["1", "2"]


def test_the_lists_are_bounded() -> None:
    queue = OrderQueue()
    for n in range(500):
        entry = queue.add(order(str(n), 200), "a")
        queue.schedule(entry, NOW + 1000 - n)
        entry.stuck = "pin_too_wide" if n < 20 else None
    taken = census.take(queue, {str(n): SkipReason.NO_REFERENCE for n in range(500)}, NOW, 100)
    assert taken.overdue == 500
    assert len(taken.problems) == census.PROBLEMS
    assert [p.kind for p in taken.problems[:21]] == ["stuck"] * 20 + ["overdue"]
    assert [e.order.id for e in taken.next] == [str(n) for n in range(499, 479, -1)]
