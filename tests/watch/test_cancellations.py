"""When an order is asked again whose cancellation waits for a second answer, however many processes
ask, and after a restart.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from order_monitor.core.answer import Answer, Cancelled, Garbled, Waiting
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import FOR_A_PERSON
from order_monitor.core.order import Order
from order_monitor.core.queue import OrderQueue
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.core.tracked_order import TrackedOrder
from order_monitor.shop.reading.orders import ALL, Part, Scan, Take
from order_monitor.shop.writing import cancellations as writing
from order_monitor.watch import cancellations as watching
from order_monitor.watch.answer_handler import count_unreadable
from order_monitor.watch.engine import Engine
from order_monitor.watch.observing import ObservingPlan, ObservingShop
from order_monitor.watch.policy import Policy, Reading
from order_monitor.watch.routing import OneAccount
from tests.support.clocks import Drive
from tests.support.commands import call, daemon, prepare
from tests.support.engines import AtClock, Bench, text
from tests.support.events import prepared as with_tables
from tests.support.orders import kept
from tests.support.processes import Panel, panel, sent, settings
from tests.support.shops import NOW, Shop

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


async def cancelled_elsewhere(made: Bench, order_id: str, at: float) -> WriteResult:
    """Another process reads and writes a cancellation, this many seconds after `NOW`."""
    entry = made.engine.queue.get(order_id)
    assert entry is not None
    assert isinstance(made.orders, AtClock)
    answer = Cancelled("iptal")
    finding = CheckResult(entry.order, answer, NOW + at, checks=1, account=entry.account)
    (result,) = await made.orders.orders.record([finding])
    return result


def observing(shop: Shop) -> Bench:
    shop.table_config = replace(shop.table_config, observes=True)
    made = bench(shop)
    store = made.orders.orders.observations
    observed = ObservingShop(made.orders, store, OneAccount(made.account), made.clock, CONFIRM)
    plan = ObservingPlan(Continuous(Schedule(jitter=0)), shop.table_config)
    policy = Policy(plan, confirm_cancelled=CONFIRM)
    made.engine = Engine(observed, {"main": made.account}, policy, made.clock)
    return made


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


@pytest.mark.long
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


@pytest.mark.long
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
        made.engine.discovery.full_scan_at = float("-inf")
        await drive.run(300, scan_every=10)
    assert await is_waiting(shop) == {order_id: False}


async def test_one_that_is_completed_is_withdrawn(shop: Shop) -> None:
    order_id, made = await cancelled_once(shop)
    made.panel = lambda _: text("OK|2|PIN-1|tamam")
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(150, scan_every=10)
    assert await made.status(order_id) == "completed"
    assert await is_waiting(shop) == {order_id: False}


@pytest.mark.long
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
    assert seen_by_a_person(one, [answer] * len(told)) == told
    assert not count_unreadable(one, Waiting("w"))
    assert one.rare.unknown == 0, "an answer in between restarts the count"
    one.note(stuck=None)
    assert seen_by_a_person(one, [answer] * len(told)) == told


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        (["two_answers", "unreadable_pin", "unreadable_pin"], [False, True, False]),
        (["unknown_state"] * 3 + ["unreadable_pin"], [False, False, True, True]),
        (["unknown_state", "two_answers", "two_answers"], [False, False, True]),
        (["unreadable_pin", "two_answers", "two_answers"], [True, False, True]),
    ],
)
def test_a_person_looks_at_each_kind_whatever_came_before_it(
    kinds: list[str], told: list[bool]
) -> None:
    one = OrderQueue().add(Order("x", "sent", NOW, "1"), "a")
    assert seen_by_a_person(one, [Garbled(kind) for kind in kinds]) == told


def seen_by_a_person(one: TrackedOrder, answers: list[Answer]) -> list[bool]:
    """Say of each answer whether it went to a person, as the queue of writes notes it."""
    told = []
    for answer in answers:
        told.append(count_unreadable(one, answer))
        if told[-1]:
            assert isinstance(answer, Garbled)
            one.note(stuck=str(FOR_A_PERSON[answer.why][0]))
    return told


@pytest.mark.long
async def test_an_answer_that_is_not_understood_does_not_prolong_the_wait(shop: Shop) -> None:
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW)
    made = bench(shop)
    made.panel = lambda _: text(IPTAL if len(made.calls) % 2 else "?")
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(600, scan_every=10)
    assert await made.status(order_id) == "failed", made.times(order_id)


@pytest.mark.long
async def test_an_end_that_the_database_refuses_stays_confirmed(shop: Shop) -> None:
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW)
    made = bench(shop)
    await shop.connection.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW::text LIKE '%failed%' THEN RAISE EXCEPTION 'no' USING ERRCODE = '23514'; END IF; "
        "RETURN NEW; END $$; CREATE TRIGGER t BEFORE UPDATE ON product_orders "
        "FOR EACH ROW EXECUTE FUNCTION no()"
    )
    with capture_logs() as logs:
        async with Drive(made.engine, made.clock) as drive:
            await drive.run(3000, scan_every=10)
    assert [line["event"] for line in logs].count("order.stuck") == 1
    assert await is_waiting(shop) == {order_id: True}
    assert len(await kept(shop)) == 1


async def test_what_is_only_observed_is_confirmed_too(shop: Shop) -> None:
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW)
    made = observing(shop)
    with capture_logs() as logs:
        async with Drive(made.engine, made.clock) as drive:
            await drive.run(200, scan_every=10)
    told = [line["event"] for line in logs if line["event"].startswith("order.")]
    assert [event for event in told if event != "order.asked"] == [
        "order.cancel_unconfirmed",
        "order.observed",
    ]
    assert made.times(order_id) == [60, 180]
    assert await is_waiting(shop) == {}, "nothing but observations is written"


@pytest.mark.long
@pytest.mark.parametrize("is_held", [False, True])
async def test_cron_asks_what_cannot_be_ended_no_more_often_than_others(
    plain_shop: Shop, *, is_held: bool
) -> None:
    """Confirmed, but its row holds a PIN, or the brake holds its end: its row stays open."""
    order_id, made = await cancelled_once(plain_shop)
    rules = replace(plain_shop.table_config.rules, brake_hold=1e6)
    if is_held:
        await plain_shop.connection.execute(
            "INSERT INTO order_monitor_review (order_id, kind, account, opened_at) "
            "VALUES ($1::uuid, 'held_by_brake', 'default', to_timestamp($2))",
            order_id,
            NOW + 180,
        )
    else:
        await plain_shop.set(order_id, pin_code="PIN-12345678")
        async with Drive(made.engine, made.clock) as drive:
            await drive.run(200, scan_every=10)
        assert made.engine.state.stuck == {order_id: "failed_with_pin"}
    asked = 0
    for at in range(2000, 3800, 60):
        table_config = {"rules": rules} if is_held else {}
        cron = bench(plain_shop, one_pass=True, every=60.0, table_config=table_config)
        cron.clock.elapsed = float(at)
        await cron.engine.scan()
        entry = cron.engine.queue.get(order_id)
        asked += entry is not None and entry.is_waiting
    assert asked <= 7


async def test_a_new_dispatch_is_asked_about_at_its_own_time_after_a_restart(shop: Shop) -> None:
    order_id, _ = await cancelled_once(shop)
    sent_at = datetime.fromtimestamp(NOW + 70, UTC)
    await shop.set(order_id, provider_referans="r-anew", sent_at=sent_at)
    again = bench(shop)
    again.clock.elapsed = 75.0
    await again.engine.scan()
    async with Drive(again.engine, again.clock) as drive:
        await drive.run(200, scan_every=10)
    assert again.calls[0] == (130.0, "r-anew")


@pytest.mark.long
@pytest.mark.parametrize("change", ["none", "sent_at", "garbage"])
async def test_a_waiting_that_was_not_written_counts_whatever_comes_after_it(
    plain_shop: Shop, change: str
) -> None:
    """Another process's first cancellation comes, then a "waiting" here that changes nothing and so
    is not written; then the shop saves the row, or an answer is garbled.
    """
    await with_tables(plain_shop)
    order_id = await plain_shop.add(sent_at=NOW)
    made = bench(plain_shop, "OK|1| |islemde")
    assert isinstance(made.orders, AtClock)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(145, scan_every=10)
        await cancelled_elsewhere(made, order_id, 145)
        await drive.run(15)
        assert made.times(order_id)[-1] == 150
        if change == "sent_at":
            sent_at = datetime.fromtimestamp(NOW + 1.5, UTC)
            await plain_shop.set(order_id, sent_at=sent_at)
        answers = iter(["?"] if change == "garbage" else [])
        made.panel = lambda _: text(next(answers, IPTAL))
        await drive.run(600, scan_every=10)
    since = [round(since - NOW) for _, _, since in await kept(plain_shop)]
    assert len(since) == 2
    assert since[1] > 150
    assert await made.status(order_id) == "failed"


async def test_garbage_after_another_process_began_the_wait_does_not_prolong_it(shop: Shop) -> None:
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW)
    made = bench(shop, "?")
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(55, scan_every=10)
        await cancelled_elsewhere(made, order_id, 55)
        await drive.run(10)
        assert made.times(order_id) == [60]
        made.panel = lambda _: text(IPTAL)
        await drive.run(400, scan_every=10)
    assert [round(since - NOW) for _, _, since in await kept(shop)] == [55]
    assert await made.status(order_id) == "failed"


async def test_a_single_pass_ends_though_another_process_withdraws_each_time(shop: Shop) -> None:
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW - 3600)
    made = bench(shop, one_pass=True)
    assert isinstance(made.orders, AtClock)
    await made.engine.scan()
    entry = made.engine.queue.get(order_id)
    assert entry is not None
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(60)
        finding = CheckResult(entry.order, Waiting("islemde"), NOW + 60, account=entry.account)
        await made.orders.orders.record([finding])
        await drive.run(200)
        assert made.times(order_id) == [0, CONFIRM]
        assert drive.tasks[1].done()
    assert [is_open for _, is_open, _ in await kept(shop)] == [False, True], "the next goes on"


@pytest.mark.long
async def test_what_only_observes_remembers_no_order_that_is_over(shop: Shop) -> None:
    await with_tables(shop)
    ids = [await shop.add(sent_at=NOW) for _ in range(3)]
    made = observing(shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(61, scan_every=10)
        assert made.engine.state.unconfirmed.keys() == set(ids)
        await shop.connection.execute("DELETE FROM product_orders WHERE id = $1::uuid", ids[0])
        await drive.run(20, scan_every=10)
        assert made.engine.state.unconfirmed.keys() == set(ids[1:])
        await drive.run(300, scan_every=10)
    assert made.engine.state.unconfirmed == {}


async def test_what_was_withdrawn_while_a_scan_was_under_way_is_not_planned(shop: Shop) -> None:
    """The scan has still read the row."""
    order_id, made = await cancelled_once(shop)
    made.panel = lambda _: text("OK|1| |islemde")
    entry = made.engine.queue.get(order_id)
    assert entry is not None
    assert isinstance(made.orders, AtClock)
    scan = made.orders.scan

    async def old(part: Part = ALL, take: Take | None = None) -> Scan:
        found = await scan(part, take)
        made.engine.queue.schedule(entry, made.engine.now())
        made.engine.context.wake.set()
        await drive.run(2)
        assert await is_waiting(shop) == {order_id: False}
        return found

    async with Drive(made.engine, made.clock) as drive:
        await drive.run(1)
        made.orders.scan = old  # type: ignore[method-assign]
        await made.engine.scan()
        assert not made.engine.state.unconfirmed
        assert entry.due < NOW + 60 + CONFIRM


async def test_one_that_another_process_confirmed_is_not_said_to_be_withdrawn(shop: Shop) -> None:
    """With many orders, most scans read only what was sent recently."""
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW)
    made = bench(shop, reading=Reading(small=0, share=1e9, longest=1e9))
    with capture_logs() as logs:
        async with Drive(made.engine, made.clock) as drive:
            await drive.run(61, scan_every=10)
            made.engine.discovery.full_scan_at = 1e9
            result = await cancelled_elsewhere(made, order_id, 60 + CONFIRM)
            assert result.fate is WriteStatus.WRITTEN
            await drive.run(20, scan_every=10)
            made.engine.discovery.full_scan_at = float("-inf")
            await drive.run(20, scan_every=10)
    assert made.engine.state.unconfirmed == {}
    assert "order.cancel_withdrawn" not in [line["event"] for line in logs]


async def test_more_of_them_than_are_read_are_not_said_to_be_withdrawn(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (writing, watching):
        monkeypatch.setattr(module, "SHOWN", 3)
    await with_tables(shop)
    ids = [await shop.add(sent_at=NOW) for _ in range(6)]
    made = bench(shop)
    with capture_logs() as logs:
        async with Drive(made.engine, made.clock) as drive:
            await drive.run(100, scan_every=10)
    assert made.engine.state.unconfirmed.keys() == set(ids)
    assert "order.cancel_withdrawn" not in [line["event"] for line in logs]


async def test_the_checks_of_another_process_do_not_prolong_the_wait(shop: Shop) -> None:
    """Each check is recorded in the row, where the table has a column for that."""
    await with_tables(shop)
    order_id = await shop.add(sent_at=NOW)
    made = bench(shop, "OK|1| |islemde")
    async with Drive(made.engine, made.clock) as drive:
        for at in (100.0, 160.0):
            await drive.run(at - made.clock.elapsed, scan_every=10)
            result = await cancelled_elsewhere(made, order_id, at)
            assert result.fate is WriteStatus.UNCONFIRMED
            made.panel = lambda _: text(IPTAL)
        await drive.run(200, scan_every=10)
    assert [(is_open, round(since - NOW)) for _, is_open, since in await kept(shop)] == [
        (False, 100)
    ]


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
