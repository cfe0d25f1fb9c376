"""The orders of other members' accounts: counted by the minute, and recent ones by id."""

from collections.abc import Sequence

from order_monitor.core.order import Order
from order_monitor.core.tracked_order import TrackedOrder
from order_monitor.watch.elsewhere import SHOWN, Elsewhere
from order_monitor.watch.intake import LeftTo
from tests.support import stages
from tests.support.clocks import ManualClock
from tests.support.shops import NOW


def order(name: str, sent_at: float, account: str = "a", ended_at: float | None = None) -> Order:
    return Order(name, "sent", sent_at, name, integration=account, ended_at=ended_at)


def counted(elsewhere: Elsewhere) -> dict[str, int]:
    found: dict[str, int] = {}
    for account, _, count in elsewhere.sent():
        found[account] = found.get(account, 0) + count
    return found


def test_a_full_scan_counts_anew_and_a_quick_one_adds_what_is_new() -> None:
    elsewhere = Elsewhere()
    elsewhere.accounts = {"a", "b"}
    for _ in range(2):
        counts = elsewhere.begin(0.0, NOW - 120, is_whole=True)
        counts.count(order("old", NOW - 5000), "a")
        counts.count(order("young", NOW - 60), "b")
        elsewhere.finish(counts, is_whole=True)
        assert counted(elsewhere) == {"a": 1, "b": 1}
    for _ in range(2):
        counts = elsewhere.begin(1.0, NOW, is_whole=False)
        counts.count(order("young", NOW - 60), "b")
        counts.count(order("new", NOW), "b")
        elsewhere.finish(counts, is_whole=False)
        assert counted(elsewhere) == {"a": 1, "b": 2}, "an order that is read again is one"
    assert len(elsewhere) == 3
    assert elsewhere.with_orders() == {"a", "b"}
    counts = elsewhere.begin(2.0, NOW, is_whole=True)
    elsewhere.finish(counts, is_whole=True)
    assert (counted(elsewhere), elsewhere.with_orders()) == ({}, set())


def test_an_account_that_is_kept_again_is_not_counted() -> None:
    elsewhere = Elsewhere()
    elsewhere.accounts = {"a", "b"}
    counts = elsewhere.begin(0.0, NOW, is_whole=True)
    for n in range(4):
        counts.count(order(str(n), NOW - 1000, "ab"[n % 2]), "ab"[n % 2])
        counts.count(order(str(n), NOW - 1000, ended_at=NOW), "ab"[n % 2])
    elsewhere.finish(counts, is_whole=True)
    elsewhere.reading = {"a"}
    assert counted(elsewhere) == {"b": 2}
    assert elsewhere.awaiting() == {"b": 2}
    assert {one.account for one in elsewhere.oldest()} == {"b"}


def test_the_oldest_are_known_by_id() -> None:
    elsewhere = Elsewhere()
    elsewhere.accounts = {"a"}
    counts = elsewhere.begin(0.0, NOW, is_whole=True)
    for n in range(3 * SHOWN):
        counts.count(order(str(n), NOW - 1000 - n * 7919 % 1009), "a")
    elsewhere.finish(counts, is_whole=True)
    sent = sorted(NOW - 1000 - n * 7919 % 1009 for n in range(3 * SHOWN))
    assert [one.sent_at for one in elsewhere.oldest()] == sent[:SHOWN]


async def test_orders_dropped_in_the_middle_of_a_full_scan_are_counted_once() -> None:
    """Those that it has read already, and those that it reads afterwards."""
    clock = ManualClock()
    stage = stages.Stage(("a",), clock)
    stage.shelf.orders = [stage.order(5000.0 + n, "a") for n in range(4)]
    await stage.begin()
    elsewhere, discovery = stage.engine.context.elsewhere, stage.engine.discovery
    clock.elapsed += 1
    counts = elsewhere.begin(clock.monotonic(), stage.engine.now(), is_whole=True)
    for known in stage.shelf.orders[:2]:
        assert isinstance(
            discovery.intake.take_in(known, stage.engine.now(), clock.monotonic()), TrackedOrder
        )
    elsewhere.accounts = {"a"}
    await discovery.leave_accounts({"a"})
    assert (len(stage.engine.queue), len(elsewhere)) == (0, 4)
    for known in stage.shelf.orders[2:]:
        left = discovery.intake.take_in(known, stage.engine.now(), clock.monotonic())
        assert isinstance(left, LeftTo)
        counts.count(known, "a")
    elsewhere.finish(counts, is_whole=True)
    assert len(elsewhere) == 4


async def test_what_is_overdue_elsewhere_is_counted_and_shown() -> None:
    clock = ManualClock()
    stage = stages.Stage(("a", "b"), clock)
    stage.engine.context.elsewhere.accounts = {"b"}
    ages = [90_000.0, 86_300.0, 100.0]
    stage.shelf.orders = [stage.order(age, name) for name in ("a", "b") for age in ages]
    waiting = stage.order(7000.0, "b", ended_at=clock.time() - 60)
    stage.shelf.more = {"awaiting": [waiting]}
    await stage.begin()
    assert {entry.account for entry in stage.engine.queue} == {"a"}
    found = stage.view.count()
    assert (found.open, found.overdue, found.awaiting_pin) == (6, 2, 1)
    assert found.by_age == [2, 0, 0, 2, 2]
    assert found.shares["b"].orders == 3
    assert found.shares["b"].due == 0
    overdue = [problem for problem in found.problems if problem.kind == "overdue"]
    assert {problem.account for problem in overdue} == {"a", "b"}
    assert stage.engine.state.open == 6


async def test_an_order_in_hand_stays_until_its_answer_is_written() -> None:
    stage = stages.Stage(("a",))
    stage.shelf.orders = [stage.order(5000.0, "a"), stage.order(5001.0, "a")]
    await stage.begin()
    entry = stage.engine.queue.take("a")
    assert entry is not None
    stage.engine.context.elsewhere.accounts = {"a"}
    await stage.engine.discovery.leave_accounts({"a"})
    assert [one.id for one in stage.engine.queue] == [entry.id]
    await stage.engine.scan()
    assert [one.id for one in stage.engine.queue] == [entry.id]
    stage.engine.queue.idle(entry)
    await stage.engine.scan()
    assert len(stage.engine.queue) == 0
    assert stage.engine.state.open == 2


async def test_an_account_that_comes_and_goes_is_counted_once() -> None:
    clock = ManualClock()
    stage = stages.Stage(("a", "b"), clock)
    elsewhere = stage.engine.context.elsewhere
    elsewhere.accounts = {"b"}
    stage.shelf.orders = [stage.order(5000.0 + n, "b") for n in range(3)]
    stage.shelf.orders.append(stage.order(1.0, "b"))
    await stage.begin()
    counts = elsewhere.begin(clock.monotonic(), stage.engine.now() - 100, is_whole=True)
    for known in stage.shelf.orders:
        counts.count(known, "b")
    for _ in range(2):
        assert len(elsewhere) == 4
        clock.elapsed += 1
        elsewhere.reading = {"b"}
        await stage.engine.discovery.read_accounts({"b"})
        elsewhere.keep({"b"})
        elsewhere.reading = set()
        assert (len(stage.engine.queue), len(elsewhere), elsewhere.oldest()) == (4, 0, [])
        elsewhere.accounts = {"b"}
        await stage.engine.discovery.leave_accounts({"b"})
        assert len(elsewhere.oldest()) == 3
    elsewhere.finish(counts, is_whole=True)
    assert len(elsewhere) == 4


async def test_an_order_that_is_read_again_and_is_another_members_now_is_counted() -> None:
    clock = ManualClock()
    stage = stages.Stage(("a", "b"), clock)
    known = stage.order(5000.0, "a")
    stage.shelf.orders = [known]
    await stage.begin()
    stage.engine.context.elsewhere.accounts = {"b"}
    entry = stage.engine.queue.get(known.id)
    assert entry is not None

    async def rerouted(orders: Sequence[Order]) -> list[Order]:
        return [order._replace(integration="b") for order in orders]

    stage.shelf.reread = rerouted  # type: ignore[method-assign]
    clock.elapsed += 1
    await stage.engine.discovery.refresh([entry])
    assert len(stage.engine.queue) == 0
    assert counted(stage.engine.context.elsewhere) == {"b": 1}


def test_an_account_with_nothing_but_a_pin_to_come_or_that_is_being_read_has_orders() -> None:
    """Beyond many accounts, one without would be held by nobody, or given up while it is read."""
    elsewhere = Elsewhere()
    elsewhere.accounts = {"a", "b"}
    counts = elsewhere.begin(0.0, NOW, is_whole=True)
    counts.count(order("ended", NOW - 1000, ended_at=NOW), "a")
    counts.count(order("open", NOW - 1000), "b")
    elsewhere.finish(counts, is_whole=True)
    elsewhere.reading = {"b"}
    assert elsewhere.with_orders() == {"a", "b"}
