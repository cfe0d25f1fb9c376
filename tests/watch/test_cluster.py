"""Leases on accounts, over a real PostgreSQL; the looks follow each other quickly."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from order_monitor.core.gate import Pace
from order_monitor.core.queue import Stage as At
from order_monitor.shop.membership import Membership
from order_monitor.watch import cluster as module
from order_monitor.watch.account import NOT_HELD, Account
from order_monitor.watch.cluster import LEASE, Cluster
from tests import stages
from tests.shops import Shop


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(module, "REJOIN_AFTER", 0.01)


NAMES = ("a", "b", "c", "d")


class Process:
    """One process: an engine that is never run, and its part in the membership."""

    def __init__(self, shop: Shop, name: str, accounts: tuple[str, ...]) -> None:
        self.stage = stages.Stage(accounts)
        self.accounts = self.stage.accounts
        for account in self.accounts.values():
            account.lease_until = NOT_HELD
        self.cluster = Cluster(
            self.stage.engine, Membership(shop.database(), "public.product_orders", name, "m"), self.stage.clock
        )

    def held(self) -> set[str]:
        now = self.stage.clock.monotonic()
        return {name for name, account in self.accounts.items() if account.is_held(now)}


class House:
    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, accounts: tuple[str, ...] = NAMES) -> Process:
        process = Process(self.shop, name, accounts)
        self.tasks[name] = asyncio.create_task(process.cluster.run())
        return process

    async def stop(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def house(plain_shop: Shop) -> AsyncIterator[House]:
    made = House(plain_shop)
    yield made
    for name in list(made.tasks):
        await made.stop(name)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_shares_follow_who_is_there(house: House) -> None:
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES) and one.cluster.leads)
    two = house.start("two")
    await until(lambda: len(one.held()) == len(two.held()) == 2 and not one.held() & two.held())
    assert {one.cluster.owners()[name] for name in one.held()} == {one.cluster.view.me.name}  # type: ignore[union-attr]
    await house.stop("one")
    assert one.held() == set(), "who leaves asks nothing"
    await until(lambda: two.held() == set(NAMES) and two.cluster.leads)


async def test_an_account_is_given_when_nothing_of_it_is_under_way(house: House) -> None:
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    for account in one.accounts.values():
        account.calls["a call"] = 0.0
    two = house.start("two")
    await until(lambda: len(one.held()) == 2)
    await asyncio.sleep(0.2)
    assert two.held() == set()
    for account in one.accounts.values():
        account.calls.clear()
    await until(lambda: len(two.held()) == 2)
    assert not one.held() & two.held()


async def test_what_another_does_not_know_is_kept_and_moved_no_more(house: House) -> None:
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    two = house.start("two", ("x",))
    await until(lambda: two.held() == {"x"})
    await until(lambda: one.held() == set(NAMES))
    for _ in range(50):
        await asyncio.sleep(0.01)
        assert one.held() == set(NAMES)


async def test_an_account_that_is_gone_is_given(house: House) -> None:
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    gone = one.accounts.pop("a")
    two = house.start("two", ("a",))
    await until(lambda: two.held() == {"a"})
    assert gone.name == "a"


async def test_a_new_account_is_taken(house: House) -> None:
    one, two = house.start("one"), house.start("two")
    await until(lambda: len(one.held() | two.held()) == 4)
    for process in (one, two):
        process.accounts["e"] = Account("e", stages.Nobody(), pace=Pace(10.0), lease_until=NOT_HELD)
    await until(lambda: len(one.held() | two.held()) == 5 and not one.held() & two.held())


async def test_of_very_many_accounts_only_those_with_orders_are_held(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lock takes room that the shop's own statements need too."""
    monkeypatch.setattr(module, "MANY", 3)
    one = Process(house.shop, "one", NAMES)
    one.stage.shelf.orders = [one.stage.order(100, "b"), one.stage.order(100, "d")]
    await one.stage.begin()
    house.tasks["one"] = asyncio.create_task(one.cluster.run())
    await until(lambda: one.held() == {"b", "d"})


async def test_who_is_stopping_takes_nothing_more(house: House) -> None:
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    one.stage.engine.dispatcher.stop()
    one.accounts["e"] = Account("e", stages.Nobody(), pace=Pace(10.0), lease_until=NOT_HELD)
    await asyncio.sleep(0.2)
    assert one.held() == set(NAMES), "what it holds it holds until its last question is answered"


async def test_a_lease_runs_out_by_itself(house: House) -> None:
    """Whoever stood still asks nothing when it comes to: its clock has gone on."""
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    account = one.accounts["a"]
    now = one.stage.clock.monotonic()
    assert account.may_start(now)
    assert not account.may_start(now + LEASE + 0.1)
    assert account.lease_until <= now + LEASE


async def test_a_lost_connection_ends_the_leases_and_is_sought_anew(house: House) -> None:
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    first = one.cluster.view
    await house.shop.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'order-monitor one%'"
    )
    await until(lambda: one.cluster.view is None)
    assert one.held() == set()
    assert one.cluster.problem
    await until(lambda: one.held() == set(NAMES))
    assert one.cluster.view != first


@asynccontextmanager
async def taken_over(house: House, ages: list[float]) -> AsyncIterator[tuple[Process, float]]:
    """A process that has seen another hold the account, and takes it over; and when."""
    async with AsyncExitStack():
        other = house.start("other", ("a",))
        await until(lambda: other.held() == {"a"})
        process = Process(house.shop, "process", ("a",))
        process.stage.shelf.orders = [process.stage.order(age, "a") for age in ages]
        await process.stage.begin()
        process.accounts["a"].gate.shut(process.stage.clock.monotonic(), "timeout", probe=False)
        house.tasks["process"] = asyncio.create_task(process.cluster.run())
        await until(lambda: process.cluster.view and len(process.cluster.view.members) == 2)
        await house.stop("other")
        await until(lambda: process.held() == {"a"})
        yield process, process.stage.engine.now()


async def test_what_the_holder_before_has_asked_is_not_asked_again(house: House) -> None:
    """Its latest slots, save those of the last seconds, whose answers may be lost with it."""
    # Slots are at 60, 90, 150, 270 s …, a little stretched.
    async with taken_over(house, [61, 80, 140, 30]) as (process, now):
        ages = {order.id: age for order, age in zip(process.stage.shelf.orders, (61, 80, 140, 30), strict=True)}
        due = {ages[entry.order.id]: entry.due - now for entry in process.stage.engine.queue}
        assert due[61] < 0, "its slot was a second ago"
        assert due[80] < 0, "its slot was 20 s ago"
        assert due[140] > 0, "its slot was 50 s ago: it was asked"
        assert 0 < due[30] < 31
        assert process.accounts["a"].gate.is_open, "what was known of the account is long out of date"
        assert {e.stage for e in process.stage.engine.queue} <= {At.SCHEDULED, At.READY}
