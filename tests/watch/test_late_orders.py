"""An order that is open for long is told of once, and nothing else follows from that."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from structlog.testing import capture_logs

from order_monitor.core.answer import Cancelled
from order_monitor.core.check_result import CheckResult, WriteStatus
from order_monitor.core.clocks import SETTLING
from order_monitor.core.decision import Rules
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.shop.repository import Orders
from order_monitor.shop.writing.late import LateTable
from order_monitor.tell.webhook import Receiver, Sender
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.late_orders import LateOrders
from order_monitor.watch.policy import Policy
from order_monitor.watch.routing import OneAccount
from tests.support import stages
from tests.support.clocks import ManualClock
from tests.support.market import Market, market
from tests.support.shops import Shop

__all__ = ["market"]

HOUR = 3600.0


async def events(shop: Shop) -> list[asyncpg.Record]:
    return await shop.connection.fetch("SELECT * FROM order_monitor_events ORDER BY id")


@asynccontextmanager
async def watching(orders: Orders, after: float) -> AsyncIterator[tuple[LateOrders, Engine]]:
    clock = ManualClock()
    account = OneAccount(Account("a", stages.NeverAsked()))
    engine: Any = Engine(orders, account, Policy(Continuous(Schedule())), clock)
    engine.state.scans = 1
    engine.context.compare(clock.time())
    yield LateOrders(engine, LateTable(orders.schema_cache), clock, after), engine


async def test_an_open_order_is_told_of_once_a_dispatch(shop: Shop) -> None:
    now = time.time()
    late = await shop.add(sent_at=now - 2 * HOUR)
    young = await shop.add(sent_at=now - HOUR / 2)
    for sent_at in (None, 0.0):
        await shop.add(sent_at=sent_at)
    await shop.add("completed", sent_at=now - 2 * HOUR)
    orders = shop.orders()
    async with watching(orders, HOUR) as (told, engine):
        with capture_logs() as logs:
            for _ in range(3):
                await told.step()
        assert [(line["event"], line["orders"]) for line in logs] == [("orders.late", [late])]
        (event,) = await events(shop)
        assert (str(event["order_id"]), event["outcome"], event["repeat"], event["has_pin"]) == (
            *(late, "late"),
            *(False, False),
        )
        assert event["from_status"] == event["to_status"] == "sent"
        assert (event["source"], event["account"], event["consumed_at"]) == (
            *("program", "default"),
            None,
        )
        await shop.set(late, provider_referans="another")
        await told.step()
        assert [row["reference"] for row in await events(shop)] == [f"r-{late[:8]}", "another"]
        engine.context.hold_for("settings", "they differ")
        await shop.connection.execute(
            f"UPDATE product_orders SET \"{shop.spelling.name('sent_at')}\" = now() - interval '2 h' "
            f"WHERE id = '{young}'"
        )
        await told.step()
        assert len(await events(shop)) == 2, "nothing is written while the board is held"


async def test_sent_elsewhere_under_its_reference_it_is_told_of_again(market: Market) -> None:
    sent_at, accounts = time.time() - 2 * HOUR, [await market.integration(None) for _ in range(2)]
    one, other = [
        await market.shop.add(sent_at=sent_at, reference="1", provider_id=accounts[0]),
        await market.shop.add(sent_at=sent_at + 60, reference="2", provider_id=accounts[0]),
    ]
    async with watching(market.orders(), HOUR) as (told, _):
        await told.step()
        await market.shop.set(one, provider_id=accounts[1])
        await market.shop.set(other, provider_referans="1")
        await told.step()
    found = [
        (str(row["order_id"]), row["account"], row["reference"])
        for row in await events(market.shop)
    ]
    assert found == [
        (one, accounts[0], "1"),
        (other, accounts[0], "2"),
        (one, accounts[1], "1"),
        (other, accounts[0], "1"),
    ]


async def test_while_a_clock_is_not_to_be_trusted_no_order_is_late(shop: Shop) -> None:
    """Each dispatch is reported once: after a false event, none would come when it is late."""
    await shop.add(sent_at=time.time() - 2 * HOUR)
    async with watching(shop.orders(), HOUR) as (told, engine):
        clock: Any = engine.context.clock
        engine.context.compare(clock.time() + 7 * 24 * HOUR)
        await told.step()
        assert await events(shop) == []
        engine.context.compare(clock.time())
        await told.step()
        assert await events(shop) == []
        clock.elapsed += SETTLING
        await told.step()
        assert len(await events(shop)) == 1


async def test_the_end_that_comes_then_is_no_repeat(shop: Shop) -> None:
    await shop.add(sent_at=time.time() - 2 * HOUR)
    orders = shop.orders()
    async with watching(orders, HOUR) as (told, _):
        await told.step()
    (order,) = await orders.reread((await orders.scan()).orders)
    (result,) = await orders.record([CheckResult(order, Cancelled("yok"), time.time())])
    assert (result.fate, result.repeat) == (WriteStatus.WRITTEN, False)
    assert [(row["outcome"], row["repeat"]) for row in await events(shop)] == [
        *(("late", False), ("failed", False))
    ]
    async with watching(orders, HOUR) as (told, _):
        await told.step()
    assert len(await events(shop)) == 2


async def test_what_nobody_is_asked_about_by_design_is_not_late(market: Market) -> None:
    now = time.time()
    for own in ("MANUAL", "__codes__"):
        await market.shop.add(provider_id=own, sent_at=now - 2 * HOUR)
    settled = await market.shop.add(
        provider_id=await market.integration(None), sent_at=now - 2 * HOUR
    )
    await market.shop.connection.execute(
        f"UPDATE product_orders SET status = 'approved' WHERE id = '{settled}'"
    )
    asked = await market.shop.add(provider_id=await market.integration(None), sent_at=now - 7200)
    orders = market.shop.orders(accounts_from_shop=True, settled=("approved",))
    assert await LateTable(orders.schema_cache).tell(HOUR) == [asked]


async def test_an_order_that_is_ending_just_now_is_left_for_later(shop: Shop) -> None:
    order_id = await shop.add(sent_at=time.time() - 2 * HOUR)
    table = LateTable(shop.orders().schema_cache)
    async with shop.connection.transaction():
        await shop.connection.execute(
            f"UPDATE product_orders SET \"{shop.spelling.name('external_status')}\" = 'failed' "
            f"WHERE id = '{order_id}'"
        )
        assert await table.tell(HOUR) == []
    assert await table.tell(HOUR) == []


async def test_what_is_told_of_already_is_not_locked_again(shop: Shop) -> None:
    """A lock is a write to the row, at each look, for as long as the order is open."""
    order_id = await shop.add(sent_at=time.time() - 2 * HOUR)
    table = LateTable(shop.orders().schema_cache)
    assert await table.tell(HOUR) == [order_id]
    locker = "SELECT xmax::text FROM product_orders"
    locked_by = await shop.connection.fetchval(locker)
    assert await table.tell(HOUR) == []
    assert await shop.connection.fetchval(locker) == locked_by


async def test_while_the_shop_is_observed_nothing_is_written(shop: Shop) -> None:
    """By another process, which this one need not know of."""
    await shop.add(sent_at=time.time() - 2 * HOUR)
    async with watching(shop.orders(), HOUR) as (told, _):
        await shop.connection.execute(
            "INSERT INTO order_monitor_settings (name, value) VALUES ('money.schedule.observe', 'true') "
            "ON CONFLICT (name) DO UPDATE SET value = 'true'"
        )
        await told.step()
        assert await events(shop) == []
        await shop.connection.execute(
            "UPDATE order_monitor_settings SET value = 'false' WHERE name = 'money.schedule.observe'"
        )
        await told.step()
        assert len(await events(shop)) == 1


async def test_two_processes_tell_once(shop: Shop) -> None:
    import asyncio

    for _ in range(50):
        await shop.add(sent_at=time.time() - 2 * HOUR)
    tables = [LateTable(shop.orders().schema_cache) for _ in range(4)]
    found = await asyncio.gather(*(table.tell(HOUR) for table in tables))
    assert sorted(map(len, found)) == [0, 0, 0, 50] or sum(map(len, found)) == 50
    assert len(await events(shop)) == 50


async def test_it_is_posted_as_an_event_of_its_own(shop: Shop) -> None:
    order_id = await shop.add(sent_at=time.time() - 2 * HOUR)
    await shop.connection.execute(
        "INSERT INTO order_monitor_settings (name, value) VALUES ('webhook', '1 x')"
    )
    await LateTable(shop.orders().schema_cache).tell(HOUR)
    rows = await shop.connection.fetch("SELECT order_id::text AS id FROM order_monitor_deliveries")
    assert [row["id"] for row in rows] == [order_id]
    receiver: Any = Receiver("https://x.example", "whsec_AA==", Rules(), 5.0, 3)
    body = Sender.body(type("S", (), {"_to": receiver})(), {"outcome": "late", "decided_at": "t"})
    assert json.loads(body)["type"] == "order.late"
