"""A cancellation that waits for a second answer outlives a restart."""

import asyncio
from pathlib import Path
from typing import Any

from order_monitor.core.answer import Cancelled
from order_monitor.core.errors import ShopUnavailableError
from order_monitor.watch.doubts import Doubts
from tests.clocks import Drive
from tests.commands.test_people import daemon, prepare
from tests.commands.test_process import Panel, panel, sent, settings
from tests.shop.test_events import prepared as with_tables
from tests.shops import NOW, Shop
from tests.watch.test_engine import AtClock, Bench, text

__all__ = ["panel"]

CONFIRM = 120.0


def cancelled(shop: Shop, **options: Any) -> tuple[Bench, Doubts]:
    made = Bench(shop, lambda _: text("OK|3| |iptal"), confirm_cancelled=CONFIRM, **options)
    assert isinstance(made.orders, AtClock)
    return made, Doubts(made.engine, made.orders.orders.unconfirmed, made.clock, CONFIRM)


async def kept(shop: Shop) -> list[tuple[str, bool]]:
    rows = await shop.connection.fetch(
        "SELECT order_id::text AS id, closed_at IS NULL AS is_open FROM order_monitor_review "
        "WHERE kind = 'cancel_unconfirmed' ORDER BY id"
    )
    return [(row["id"], row["is_open"]) for row in rows]


async def test_it_goes_on_waiting_where_it_was_left(shop: Shop) -> None:
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW)
    made, doubts = cancelled(shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(61, scan_every=10)
        await doubts.step()
    assert await kept(shop) == [(order_id, True)]
    scan = await made.orders.scan()
    assert scan.reviews == 0, "it is no matter for a person"
    await shop.connection.execute(f"UPDATE order_monitor_review SET opened_at = to_timestamp({NOW + 60})")
    again, doubts = cancelled(shop)
    again.clock.elapsed = 100.0
    await again.engine.scan()
    await doubts.step()
    async with Drive(again.engine, again.clock) as drive:
        await drive.run(100, scan_every=10)
        await doubts.step()
    assert again.times(order_id) == [180], "neither at its next slot, nor two minutes after that"
    assert await again.status(order_id) == "failed"
    assert await kept(shop) == [(order_id, False)]


async def test_one_that_is_withdrawn_is_kept_no_longer(plain_shop: Shop) -> None:
    await with_tables(plain_shop)
    order_id = await plain_shop.add(sent_at=NOW)
    made, doubts = cancelled(plain_shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(61, scan_every=10)
        await doubts.step()
        made.panel = lambda _: text("OK|2|PIN-1|tamam")
        await drive.run(150, scan_every=10)
        await doubts.step()
    assert await made.status(order_id) == "completed"
    assert await kept(plain_shop) == [(order_id, False)]


async def test_what_was_ended_by_others_is_kept_no_longer(plain_shop: Shop) -> None:
    """While it waited, and while nobody ran."""
    await with_tables(plain_shop)
    waiting, gone = [await plain_shop.add(sent_at=NOW) for _ in range(2)]
    made, doubts = cancelled(plain_shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(61, scan_every=10)
        await doubts.step()
        await plain_shop.set(gone, external_status="completed")
        await drive.run(20, scan_every=10)
        await doubts.step()
    assert sorted(await kept(plain_shop)) == sorted([(waiting, True), (gone, False)])
    assert made.engine.confirmations.open == {waiting}
    await plain_shop.set(waiting, external_status="completed")
    again, doubts = cancelled(plain_shop)
    await again.engine.scan()
    await doubts.step()
    assert {is_open for _, is_open in await kept(plain_shop)} == {False}


async def test_while_the_database_is_away_nothing_is_forgotten(plain_shop: Shop) -> None:
    await with_tables(plain_shop)
    order_id = await plain_shop.add(sent_at=NOW)
    made, doubts = cancelled(plain_shop)
    shelf: Any = doubts._shelf
    keep = shelf.keep

    async def away(*_: Any) -> None:
        raise ShopUnavailableError("ConnectionRefusedError")

    async with Drive(made.engine, made.clock) as drive:
        await drive.run(61, scan_every=10)
        shelf.keep = away
        task = asyncio.create_task(doubts.run())
        while made.clock.asleep.get(task.get_name(), 0) == 0:
            await asyncio.sleep(0.001)
        assert await kept(plain_shop) == []
        shelf.keep = keep
        while not await kept(plain_shop):
            made.clock.ring(made.clock.elapsed + 1)
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
    assert await kept(plain_shop) == [(order_id, True)]


async def test_without_the_table_the_wait_begins_anew(plain_shop: Shop) -> None:
    order_id = await plain_shop.add(sent_at=NOW)
    made, doubts = cancelled(plain_shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(200, scan_every=10)
        await doubts.step()
    assert await made.status(order_id) == "failed"


async def test_the_program_goes_on_waiting_after_a_restart(shop: Shop, panel: Panel, tmp_path: Path) -> None:
    """It has waited for an hour already, and need not wait for another."""
    panel.answer = Cancelled("iptal")
    config = settings(shop.dsn, panel.server.url, schedule={"confirm_cancelled": 3600})
    await prepare(shop)
    (order_id,) = await sent(shop, 1)
    async with daemon(shop, tmp_path, config) as run:
        await run.event("order.cancel_unconfirmed")
        while await kept(shop) != [(order_id, True)]:
            await asyncio.sleep(0.02)
    await shop.connection.execute("UPDATE order_monitor_review SET opened_at = now() - interval '1 hour'")
    async with daemon(shop, tmp_path, config) as run:
        await run.event("order.failed")
        while await kept(shop) != [(order_id, False)]:
            await asyncio.sleep(0.02)
