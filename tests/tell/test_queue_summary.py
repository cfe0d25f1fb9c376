"""Counting the queue: ages, what is due and since when, and what needs a person."""

import asyncio
import random

import pytest

from order_monitor.core.order import Order, SkipReason
from order_monitor.core.queue import OrderQueue
from order_monitor.tell import queue_summarizer, queue_summary
from order_monitor.watch.elsewhere import Elsewhere
from tests.support import stages
from tests.support.clocks import ManualClock
from tests.support.shops import NOW


def order(order_id: str, age: float | None) -> Order:
    return Order(order_id, "sent", None if age is None else NOW - age, "1")


def test_an_empty_book() -> None:
    taken = queue_summary.Counting(OrderQueue(), {}, NOW, 100).at_once()
    assert (taken.due, taken.oldest_due, taken.overdue, taken.problems, taken.next) == (
        0,
        None,
        0,
        [],
        [],
    )


def test_each_order_is_counted_where_it_belongs() -> None:
    queue = OrderQueue()
    for n, age in enumerate((0, 299.9, 300, 3600, 21_600, 86_399, 86_400, None)):
        entry = queue.add(order(str(n), age), "a" if n % 2 else "b")
        queue.schedule(entry, NOW - 10 + n * 5)
    queue.promote(NOW - 8)
    skips = {"done": SkipReason.SETTLED_BY_SHOP, "x": SkipReason.NO_REFERENCE}
    taken = queue_summary.Counting(queue, skips, NOW, 86_400).at_once()
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
        entry.note(stuck="pin_too_wide" if n < 20 else None)
    taken = queue_summary.Counting(
        queue, {str(n): SkipReason.NO_REFERENCE for n in range(500)}, NOW, 100
    ).at_once()
    assert taken.overdue == 500
    assert len(taken.problems) == queue_summary.PROBLEMS
    assert [p.kind for p in taken.problems[:21]] == ["stuck"] * 20 + ["overdue"]
    assert [e.order.id for e in taken.next] == [str(n) for n in range(499, 479, -1)]


def test_what_comes_next_is_found_without_sorting_all() -> None:
    """Among very many, with timers that no longer count between them."""
    queue = OrderQueue()
    chance = random.Random(3)
    wakes = [chance.uniform(0, 1000) for _ in range(5000)]
    for n, wake in enumerate(wakes):
        entry = queue.add(order(str(n), 200), "a" if n % 3 else "elsewhere")
        queue.schedule(entry, NOW + 2000)
        queue.schedule(entry, NOW + wake)
    mine = sorted((wake, str(n)) for n, wake in enumerate(wakes) if n % 3)
    coming = queue.coming(20, lambda entry: entry.account != "elsewhere")
    assert [entry.order.id for entry in coming] == [name for _, name in mine[:20]]
    assert queue.coming(0) == []
    assert OrderQueue().coming(20) == []


async def test_counted_in_slices_it_is_the_same() -> None:
    queue = OrderQueue()
    for n in range(3500):
        entry = queue.add(order(str(n), n * 30.0), f"a{n % 3}")
        queue.schedule(entry, NOW - 50 + n / 10)
        entry.note(stuck="pin_too_wide" if n % 100 == 0 else None)
    skips = {"x": SkipReason.NO_REFERENCE}
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    elsewhere = Elsewhere()
    elsewhere.accounts = {"b"}
    counts = elsewhere.begin(0.0, NOW, is_whole=True)
    for n in range(3000):
        counts.count(order(f"b{n}", n * 60.0), "b")
    elsewhere.finish(counts, is_whole=True)
    for known, least in ((None, 7), (elsewhere, 12)):
        counting = queue_summary.Counting(queue, skips, NOW, 86_400, known, {"a1"})
        turns, task = 0, asyncio.create_task(others())
        slowly = await counting.in_turns()
        task.cancel()
        at_once = queue_summary.Counting(queue, skips, NOW, 86_400, known, {"a1"}).at_once()
        assert slowly == at_once
        assert turns >= least


async def test_of_very_many_orders_of_others_it_does_not_wait_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue_summarizer, "MANY", 5)
    clock = ManualClock()
    stage = stages.Stage(("default",), clock)
    stage.engine.context.elsewhere.accounts = {"default"}
    stage.shelf.orders = [stage.order(1000 + 90 * n) for n in range(10)]
    await stage.begin()
    task = asyncio.create_task(stage.view.queue_summary.run())
    await asyncio.sleep(0)
    before = stage.view.count()
    assert before.shares == {}
    task.cancel()


async def test_of_very_many_orders_the_page_never_waits_for_the_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue_summarizer, "MANY", 5)
    clock = ManualClock()
    stage = await stages.busy(clock)
    assert stage.view.count().due > 0, "before anybody counts beside, at once"
    clock.elapsed += 1
    task = asyncio.create_task(stage.view.queue_summary.run(), name="census")
    while not clock.asleep.get("census"):
        await asyncio.sleep(0)
    stage.shelf.orders = stage.shelf.orders[:6]
    await stage.begin()
    clock.elapsed += 100
    before = stage.view.count()
    assert before.shares["default"].orders == 10, "what was counted last"
    clock.ring(clock.elapsed + 1)
    while stage.view.count() is before:
        await asyncio.sleep(0)
    assert stage.view.count().shares["default"].orders == 6
    clock.elapsed += 100
    while clock.next_alarm() is not None and clock.elapsed < 400:
        clock.ring(clock.elapsed + 1)
        await asyncio.sleep(0)
    last = stage.view.queue_summary.counted_at
    clock.ring(clock.elapsed + 50)
    await asyncio.sleep(0.01)
    assert stage.view.queue_summary.counted_at == last, "it is no longer requested"
    task.cancel()
    await asyncio.wait([task])
