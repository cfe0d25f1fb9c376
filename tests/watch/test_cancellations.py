"""When an order is asked again whose cancellation waits for a second answer, however many processes
ask, and after a restart.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from order_monitor.core.answer import Answer, Cancelled, Garbled, Waiting
from order_monitor.core.order import Order
from order_monitor.core.queue import OrderQueue
from order_monitor.watch.answer_handler import needs_a_person
from tests.clocks import Drive
from tests.commands.test_people import call, daemon, prepare
from tests.commands.test_process import Panel, panel, sent, settings
from tests.shop.test_cancellations import kept
from tests.shop.test_events import prepared as with_tables
from tests.shops import NOW, Shop
from tests.watch.test_engine import Bench, text

__all__ = ["panel"]

CONFIRM = 120.0
IPTAL = "OK|3| |iptal"


def bench(shop: Shop, answer: str = IPTAL, **options: Any) -> Bench:
    return Bench(shop, lambda _: text(answer), confirm_cancelled=CONFIRM, **options)


async def is_waiting(shop: Shop) -> dict[str, bool]:
    return {order_id: is_open for order_id, is_open, _ in await kept(shop)}


async def cancelled_once(shop: Shop) -> tuple[str, Bench]:
    """An order whose cancellation was read after a minute, and the process that did."""
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW)
    made = bench(shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(61, scan_every=10)
    return order_id, made


async def test_it_is_asked_about_again_when_the_wait_is_over(shop: Shop) -> None:
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW)
    made = bench(shop)
    with capture_logs() as logs:
        async with Drive(made.engine, made.clock) as drive:
            await drive.run(181, scan_every=10)
    assert made.times(order_id) == [60, 180]
    assert await made.status(order_id) == "failed"
    assert made.engine.state.unconfirmed == {}
    told = [line for line in logs if line["event"].startswith("order.cancel")]
    assert told == [
        {
            "event": "order.cancel_unconfirmed",
            "log_level": "info",
            "order_id": order_id,
            "again_in": CONFIRM,
        }
    ]


async def test_another_process_goes_on_waiting_where_it_was_left(shop: Shop) -> None:
    """After a restart, and as another member that takes the account over."""
    order_id, _ = await cancelled_once(shop)
    again = bench(shop)
    again.clock.elapsed = 100.0
    await again.engine.scan()
    async with Drive(again.engine, again.clock) as drive:
        await drive.run(100, scan_every=10)
    assert again.times(order_id) == [180], "neither at its next slot, nor two minutes after that"
    assert await again.status(order_id) == "failed"
    assert await is_waiting(shop) == {order_id: False}


async def test_another_answer_withdraws_it_and_the_wait_begins_again(shop: Shop) -> None:
    order_id, made = await cancelled_once(shop)
    made.panel = lambda _: text("OK|1| |islemde")
    with capture_logs() as logs:
        async with Drive(made.engine, made.clock) as drive:
            await drive.run(120, scan_every=10)
            made.panel = lambda _: text(IPTAL)
            first = len(made.times(order_id))
            await drive.run(600, scan_every=10)
    told = [line["outcome"] for line in logs if line["event"] == "order.cancel_withdrawn"]
    assert told == ["waiting"]
    later = made.times(order_id)[first:]
    assert later[1] - later[0] == CONFIRM
    assert await made.status(order_id) == "failed"


async def test_one_that_another_process_withdrew_waits_anew(shop: Shop) -> None:
    order_id, made = await cancelled_once(shop)
    other = bench(shop, "OK|1| |islemde")
    other.clock.elapsed = 100.0
    async with Drive(other.engine, other.clock) as drive:
        await drive.run(90, scan_every=90)
    assert await is_waiting(shop) == {order_id: False}
    with capture_logs() as logs:
        async with Drive(made.engine, made.clock) as drive:
            await drive.run(400, scan_every=10)
    told = [line["outcome"] for line in logs if line["event"] == "order.cancel_withdrawn"]
    assert told == ["elsewhere"]
    later = made.times(order_id)[1:]
    assert later[-1] - later[0] >= CONFIRM
    assert await made.status(order_id) == "failed"


async def test_a_repeated_waiting_withdraws_what_another_process_was_answered(shop: Shop) -> None:
    """Nothing changes in the order's row, and so it would not be written otherwise."""
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW)
    made, other = bench(shop, "OK|1| |islemde"), bench(shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(100, scan_every=10)
        other.clock.elapsed = 100.0
        async with Drive(other.engine, other.clock) as beside:
            await beside.run(60, scan_every=60)
        assert await is_waiting(shop) == {order_id: True}
        made.engine.discovery.whole_again_at = float("-inf")
        await drive.run(300, scan_every=10)
    assert await is_waiting(shop) == {order_id: False}


async def test_one_that_is_completed_is_withdrawn(shop: Shop) -> None:
    order_id, made = await cancelled_once(shop)
    made.panel = lambda _: text("OK|2|PIN-1|tamam")
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(150, scan_every=10)
    assert await made.status(order_id) == "completed"
    assert await is_waiting(shop) == {order_id: False}


async def test_while_it_is_stuck_it_is_asked_about_at_its_own_times(shop: Shop) -> None:
    """A confirmed cancellation of an order that holds a PIN is for a person, and its row stays."""
    order_id, made = await cancelled_once(shop)
    await shop.set(order_id, pin_code="PIN-12345678")
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(1000, scan_every=10)
    assert made.engine.state.stuck == {order_id: "failed_with_pin"}
    assert len(made.times(order_id)) < 8


async def test_a_single_pass_waits_for_the_second_answer(shop: Shop) -> None:
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW - 3600)
    made = bench(shop, one_pass=True)
    await made.engine.scan()
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(200)
    assert made.times(order_id) == [0, CONFIRM]
    assert await made.status(order_id) == "failed"
    assert made.engine.dispatcher.is_idle()


async def test_a_single_pass_ends_though_the_account_closes_while_one_waits(shop: Shop) -> None:
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW - 3600)
    made = bench(shop, one_pass=True, gate_after=1)
    await made.engine.scan()
    run = asyncio.create_task(made.engine.run(), name="engine")
    writer = asyncio.create_task(made.engine.writer.run(), name="writer")
    async with asyncio.timeout(60):
        while not made.engine.state.unconfirmed:
            await asyncio.sleep(0.001)
        made.panel = lambda _: text("", 500)
        while not run.done():
            await asyncio.sleep(0.001)
            made.clock.ring(made.clock.elapsed + 1)
    writer.cancel()
    await asyncio.wait([run, writer])
    assert len(made.times(order_id)) >= 2
    assert await is_waiting(shop) == {order_id: True}, "the next pass goes on"


async def test_a_pass_confirms_what_the_pass_before_it_began(shop: Shop) -> None:
    order_id, _ = await cancelled_once(shop)
    made = bench(shop, one_pass=True, every=300.0)
    made.clock.elapsed = 200.0
    await made.engine.scan()
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(1)
    assert made.times(order_id) == [200]
    assert await made.status(order_id) == "failed"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Garbled("unknown_state"), [False, False, True, False]),
        (Garbled("two_answers"), [False, False, True, False]),
        (Garbled("unreadable_pin"), [True, False, False, False]),
        (Garbled("cut_short"), [False] * 4),
        (Waiting("w"), [False] * 4),
    ],
)
def test_a_person_looks_once_at_what_only_a_person_can_read(
    answer: Answer, told: list[bool]
) -> None:
    one = OrderQueue().add(Order("x", "sent", NOW, "1"), "a")
    assert [needs_a_person(one, answer) for _ in told] == told
    assert not needs_a_person(one, Waiting("w"))
    assert one.rare.unknown == 0, "an answer in between restarts the count"
    assert [needs_a_person(one, answer) for _ in told] == told


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
            while await is_waiting(shop) != {order_id: True}:
                await asyncio.sleep(0.05)
            panel.answer = Waiting("")
            code, _, err = await call(
                tmp_path, config, *command, *[order_id][: command == ("ask",)]
            )
            assert code == 0, err
            assert await is_waiting(shop) == {order_id: False}
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
        assert await is_waiting(shop) == {order_id: True}
    await shop.connection.execute(
        "UPDATE order_monitor_review SET opened_at = now() - interval '1 hour'"
    )
    async with daemon(shop, tmp_path, config) as run:
        await run.event("order.failed")
    assert await is_waiting(shop) == {order_id: False}
