"""A cancellation that waits for a second answer outlives a restart."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from order_monitor.core.answer import Cancelled, Waiting
from order_monitor.core.errors import ShopUnavailableError
from order_monitor.shop.writing.cancellation_table import Unconfirmed
from order_monitor.watch.cancellation_sync import CancellationSync
from tests.clocks import Drive
from tests.commands.test_people import call, daemon, prepare
from tests.commands.test_process import Panel, panel, sent, settings
from tests.shop.test_events import prepared as with_tables
from tests.shops import NOW, Shop
from tests.watch.test_engine import AtClock, Bench, text

__all__ = ["panel"]

CONFIRM = 120.0


def cancelled(shop: Shop, **options: Any) -> tuple[Bench, CancellationSync]:
    made = Bench(shop, lambda _: text("OK|3| |iptal"), confirm_cancelled=CONFIRM, **options)
    assert isinstance(made.orders, AtClock)
    return made, CancellationSync(made.engine, made.orders.orders.unconfirmed, made.clock, CONFIRM)


async def kept(shop: Shop) -> list[tuple[str, bool]]:
    rows = await shop.connection.fetch(
        "SELECT order_id::text AS id, closed_at IS NULL AS is_open FROM order_monitor_review "
        "WHERE kind = 'cancel_unconfirmed' ORDER BY id"
    )
    return [(row["id"], row["is_open"]) for row in rows]


async def stored(shop: Shop) -> tuple[str, Bench, CancellationSync]:
    """An order whose cancellation was read and stored after a minute, and the process that did."""
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW)
    made, doubts = cancelled(shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(61, scan_every=10)
        await doubts.step()
    await shop.connection.execute(
        f"UPDATE order_monitor_review SET opened_at = to_timestamp({NOW + 60})"
    )
    return order_id, made, doubts


async def test_it_goes_on_waiting_where_it_was_left(shop: Shop) -> None:
    order_id, made, _ = await stored(shop)
    assert await kept(shop) == [(order_id, True)]
    scan = await made.orders.scan()
    assert scan.reviews == 0, "it is no matter for a person"
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


async def test_one_that_another_process_stored_is_taken_over_with_its_account(shop: Shop) -> None:
    await with_tables(shop)
    taker, doubts = cancelled(shop)
    await taker.engine.scan()
    await doubts.step()
    order_id, _, _ = await stored(shop)
    taker.clock.elapsed = 100.0
    await taker.engine.scan()
    doubts.taken_over({"another account": 0.0})
    await doubts.step()
    assert not taker.engine.cancellations.open
    doubts.taken_over({taker.account.key: 0.0})
    await doubts.step()
    async with Drive(taker.engine, taker.clock) as drive:
        await drive.run(100, scan_every=10)
    assert taker.times(order_id) == [180]
    assert await taker.status(order_id) == "failed"


async def test_one_waits_on_where_the_account_goes_to_another_process(shop: Shop) -> None:
    """Neither who leaves the account settles it, nor who starts without it."""
    order_id, giver, doubts = await stored(shop)
    key = giver.account.key
    starter, early = cancelled(shop)
    for made, sync in ((giver, doubts), (starter, early)):
        elsewhere = made.engine.context.elsewhere
        elsewhere.accounts.add(key)
        await made.engine.leave_accounts({key})
        await made.engine.scan()
        assert len(made.engine.queue) == 0
        await sync.step()
        assert await kept(shop) == [(order_id, True)]
    starter.engine.context.elsewhere.reading.add(key)
    await starter.engine.read_accounts({key})
    starter.engine.context.elsewhere.accounts.clear()
    early.taken_over({key: 0.0})
    await early.step()
    assert starter.engine.cancellations.open.keys() == {order_id}


async def test_one_that_another_process_withdrew_waits_anew(shop: Shop) -> None:
    """Its row in the shared table decides, and not what this process remembers."""
    order_id, made, doubts = await stored(shop)
    await made.orders.orders.unconfirmed.keep({}, [order_id])
    with capture_logs() as lines:
        made.clock.elapsed += 10
        await doubts.step()
    assert [line["order_id"] for line in lines if line["event"] == "order.cancel_withdrawn"] == [
        order_id
    ]
    first = made.times(order_id)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(400, scan_every=10)
    later = made.times(order_id)[len(first) :]
    assert later[-1] - later[0] >= CONFIRM
    assert await made.status(order_id) == "failed"


async def without_the_account(shop: Shop) -> tuple[str, Bench, CancellationSync]:
    """An order whose cancellation is stored, and a process that starts without its account."""
    order_id, _, _ = await stored(shop)
    taker, doubts = cancelled(shop)
    taker.engine.context.elsewhere.accounts.add(taker.account.key)
    await taker.engine.scan()
    await doubts.step()
    return order_id, taker, doubts


async def test_one_of_an_account_that_has_gone_on_before_it_was_restored_waits_there(
    shop: Shop,
) -> None:
    """Taken and given again within a second: its orders are kept here no longer."""
    order_id, taker, doubts = await without_the_account(shop)
    key, elsewhere = taker.account.key, taker.engine.context.elsewhere
    elsewhere.reading.add(key)
    await taker.engine.read_accounts({key})
    elsewhere.keep({key})
    elsewhere.reading.clear()
    doubts.taken_over({key: 0.0})
    elsewhere.accounts.add(key)
    await taker.engine.leave_accounts({key})
    await doubts.step()
    assert await kept(shop) == [(order_id, True)]


async def test_one_whose_order_ended_elsewhere_is_settled_by_who_takes_the_account(
    shop: Shop,
) -> None:
    order_id, taker, doubts = await without_the_account(shop)
    key, elsewhere = taker.account.key, taker.engine.context.elsewhere
    await shop.set(order_id, external_status="failed")
    elsewhere.reading.add(key)
    await taker.engine.read_accounts({key})
    elsewhere.accounts.clear()
    doubts.taken_over({key: 0.0})
    await doubts.step()
    assert await kept(shop) == [(order_id, False)]


async def test_an_answer_that_comes_before_the_stored_ones_are_read_withdraws_too(
    plain_shop: Shop,
) -> None:
    """After a start the first answers may come sooner than what was stored."""
    order_id, _, _ = await stored(plain_shop)
    again, doubts = cancelled(plain_shop)
    again.clock.elapsed = 100.0
    again.panel = lambda _: text("OK|1| |islemde")
    async with Drive(again.engine, again.clock) as drive:
        await drive.run(100, scan_every=10)
        assert again.times(order_id) != []
        again.panel = lambda _: text("OK|3| |iptal")
        await doubts.step()
        assert await kept(plain_shop) == [(order_id, False)]
        first = len(again.times(order_id))
        await drive.run(600, scan_every=10)
    later = again.times(order_id)[first:]
    assert later[1] - later[0] >= CONFIRM
    assert await again.status(order_id) == "failed"


class Shelf:
    """A store in memory, which lets something happen while it is read."""

    def __init__(self, kept: dict[str, float]) -> None:
        self.kept = {order_id: Unconfirmed("", since) for order_id, since in kept.items()}
        self.meanwhile: list[Callable[[], None]] = []

    async def read(self) -> dict[str, Unconfirmed]:
        kept = dict(self.kept)
        while self.meanwhile:
            self.meanwhile.pop()()
        return kept

    async def keep(self, fresh: Mapping[str, str], settled: Sequence[str]) -> None:
        for order_id in settled:
            self.kept.pop(order_id, None)
        self.kept |= {order_id: Unconfirmed(account, 0.0) for order_id, account in fresh.items()}


@pytest.mark.parametrize("when", ["before the first is read", "while another is read"])
async def test_what_is_withdrawn_stays_so_however_accounts_are_taken_over(
    plain_shop: Shop, when: str
) -> None:
    order_id = await plain_shop.add(sent_at=NOW)
    made, _ = cancelled(plain_shop)
    shelf = Shelf({order_id: NOW - 500.0})
    doubts = CancellationSync(made.engine, shelf, made.clock, CONFIRM)
    await made.engine.scan()
    entry = made.engine.queue.get(order_id)
    assert entry is not None

    def withdraw() -> None:
        made.engine.cancellations.ask_again_at(entry, Waiting(""), NOW)

    if when == "while another is read":
        shelf.kept.clear()
        await doubts.step()
        shelf.kept[order_id] = Unconfirmed("", NOW - 500.0)
        doubts.taken_over({"another": NOW})
        shelf.meanwhile.append(lambda: doubts.taken_over({made.account.key: NOW}))
        await doubts.step()
        withdraw()
    else:
        doubts.taken_over({made.account.key: NOW})
        withdraw()
    for _ in range(3):
        await doubts.step()
        assert entry.rare.cancelled_at is None
    assert shelf.kept == {}
    assert made.engine.cancellations.answered is None


async def test_one_withdrawn_and_read_anew_within_a_moment_waits_anew(plain_shop: Shop) -> None:
    order_id, made, doubts = await stored(plain_shop)
    entry = made.engine.queue.get(order_id)
    assert entry is not None
    for answer in (Waiting(""), Cancelled("iptal")):
        made.engine.cancellations.ask_again_at(entry, answer, NOW + 100)
    await doubts.step()
    assert await kept(plain_shop) == [(order_id, False), (order_id, True)]


async def test_what_was_read_just_before_a_stop_is_stored(plain_shop: Shop) -> None:
    await with_tables(plain_shop)
    order_id = await plain_shop.add(sent_at=NOW)
    made, doubts = cancelled(plain_shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(61, scan_every=10)
    await doubts.leave()
    assert await kept(plain_shop) == [(order_id, True)]


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
    """While it waited, and while no process ran."""
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
    assert made.engine.cancellations.open.keys() == {waiting}
    await plain_shop.set(waiting, external_status="completed")
    again, doubts = cancelled(plain_shop)
    await again.engine.scan()
    await doubts.step()
    assert {is_open for _, is_open in await kept(plain_shop)} == {False}


async def test_while_the_database_is_away_nothing_is_forgotten(plain_shop: Shop) -> None:
    await with_tables(plain_shop)
    order_id = await plain_shop.add(sent_at=NOW)
    made, doubts = cancelled(plain_shop)
    assert isinstance(made.orders, AtClock)
    shelf: Any = made.orders.orders.unconfirmed
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


@pytest.mark.parametrize("command", [("ask",), ("--once",)])
async def test_what_a_person_or_cron_is_answered_withdraws_it_for_the_daemon(
    shop: Shop, panel: Panel, tmp_path: Path, command: tuple[str, ...]
) -> None:
    panel.answer = Cancelled("iptal")
    config = settings(shop.dsn, panel.server.url, schedule={"confirm_cancelled": 3600})
    await prepare(shop)
    (order_id,) = await sent(shop, 1)
    async with daemon(shop, tmp_path, config, rate=10) as run:
        async with asyncio.timeout(60):
            while await kept(shop) != [(order_id, True)]:
                await asyncio.sleep(0.05)
            panel.answer = Waiting("")
            code, _, err = await call(
                tmp_path, config, *command, *[order_id][: command == ("ask",)]
            )
            assert code == 0, err
            assert await kept(shop) == [(order_id, False)]
            while "order.cancel_withdrawn" not in [event["event"] for event in run.events()]:
                await asyncio.sleep(0.05)
    assert (await shop.row(order_id))["external_status"] != "failed"


async def test_the_program_goes_on_waiting_after_a_restart(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """It has waited for an hour already, and need not wait for another."""
    panel.answer = Cancelled("iptal")
    config = settings(shop.dsn, panel.server.url, schedule={"confirm_cancelled": 3600})
    await prepare(shop)
    (order_id,) = await sent(shop, 1)
    async with daemon(shop, tmp_path, config) as run:
        await run.event("order.cancel_unconfirmed")
        while await kept(shop) != [(order_id, True)]:
            await asyncio.sleep(0.02)
    await shop.connection.execute(
        "UPDATE order_monitor_review SET opened_at = now() - interval '1 hour'"
    )
    async with daemon(shop, tmp_path, config) as run:
        await run.event("order.failed")
        while await kept(shop) != [(order_id, False)]:
            await asyncio.sleep(0.02)
