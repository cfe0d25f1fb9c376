"""The model shop matches PostgreSQL: the same orders, answers and changes give the same result in
both.
"""

import asyncio
import random
import uuid
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from order_monitor.commands.exits import NotDoneError
from order_monitor.commands.resolve import Decision, result_of, write_decision
from order_monitor.core.answer import Answer, Cancelled, Completed, Garbled, Refused, Waiting
from order_monitor.core.check_result import CheckResult, WriteStatus
from order_monitor.core.decision import StuckReason
from order_monitor.core.errors import RowRejectedError
from order_monitor.core.order import CONFIGURED, Order
from order_monitor.core.pin import Pin
from order_monitor.shop.accounts.pauses import Pauses
from order_monitor.shop.reading.history import OrderHistory
from order_monitor.shop.reading.orders import Part
from order_monitor.shop.writing.reopening import Reopener, ReopenRefusedError
from order_monitor.timing.sketch import Sketch
from order_monitor.timing.store import Timings
from tests.simulation.hands import (
    ACCOUNTS,
    LATER,
    PACKAGES,
    Hand,
    Model,
    Real,
    by_order,
    made,
    order_of,
    seen,
    told,
)
from tests.simulation.shop import Pool, database_over, layout_for, ledger_for
from tests.support.shops import NOW, Shop


@pytest.fixture
async def both(plain_shop: Shop) -> tuple[Real, Model]:
    return await made(plain_shop, from_shop=True)


async def step(hand: Hand, chance: random.Random, ids: list[str]) -> list[Any]:
    """Do one random thing, the same to both; return its visible effects."""
    kind = chance.choice(("record", "record", "record", "set", "delete", "scan", "note", *PEOPLES))
    some = chance.sample(ids, chance.randint(1, 4))
    if kind == "set":
        status = chance.choice(("sent", "processing", "refunded", "completed", "unheard_of"))
        pin = chance.choice((None, "", "BY-HAND"))
        await hand.change(some[0], external_status=status, pin_code=pin)
        return []
    if kind in PEOPLES:
        return await PEOPLES[kind](hand, chance, some[0])
    if kind == "delete":
        if chance.random() < 0.2:
            await hand.delete(some[0])
        return []
    if kind == "scan":
        scan = await hand.orders.scan()
        return [
            seen(scan.orders),
            seen(scan.awaiting),
            scan.waiting and scan.waiting[0],
            scan.reviews,
            scan.unconfirmed,
        ]
    if kind == "note":
        return [seen(await hand.orders.reread([order_of(i) for i in some]))]
    later = LATER if hand.orders.row_writer.rules.confirm_cancelled else 0.0
    findings = [
        finding_of(order, answer(chance), chance, later)
        for order in await orders_of(hand, chance, some)
    ]
    if not findings:
        return []
    first = told(await hand.orders.record(findings))
    return [first, told(await hand.orders.record(findings)) if chance.random() < 0.2 else None]


async def orders_of(hand: Hand, chance: random.Random, some: list[str]) -> list[Order]:
    """Orders as a process may know them: as they were first sent, as they are now, or as they ended
    without their PIN.
    """
    kind = chance.choice(("first", "now", "now", "noted", "noted", "late"))
    if kind == "first":
        return [
            order_of(i, chance.choice((None, None, "old")), integration=chance.choice(ACCOUNTS))
            for i in some
        ]
    if kind == "noted":
        found = await hand.orders.reread([order_of(i) for i in some])
    else:
        scan = await hand.orders.scan()
        found = scan.awaiting if kind == "late" else scan.orders
    return sorted(order for order in found if order.id in some)


def finding_of(
    order: Order, answer: Answer, chance: random.Random, later: float = 0.0
) -> CheckResult:
    seen_at = NOW + later + chance.choice((0.0, 30.0, 200.0))
    finding = CheckResult(order, answer, seen_at, NOW, 3, account=order.integration or CONFIGURED)
    finding.odd_since = NOW - 50.0 if isinstance(answer, Refused) else None
    finding.is_odd_noted = order.odd_at is not None
    return finding


async def change(hand: Hand, chance: random.Random, order_id: str) -> list[Any]:
    """The shop sends an order again: at another account, under another reference, under that of
    another order, or at another time.
    """
    values: dict[str, Any] = {}
    if chance.random() < 0.5:
        values["provider_referans"] = chance.choice(
            ("ref-000001", "ref-000002", " ref-000003 ", "old", "new")
        )
    if chance.random() < 0.5:
        values["provider_id"] = chance.choice((*ACCOUNTS, ""))
    if chance.random() < 0.4:
        values |= {"external_status": "sent", "pin_code": None}
    if chance.random() < 0.5 or not values:
        values["sent_at"] = NOW - chance.choice((1000.0, 100.0, 99.5, 10.0, 1.0))
    await hand.change(order_id, **values)
    return []


async def end(hand: Hand, chance: random.Random, order_id: str) -> list[Any]:
    """An order is asked about in its current state, ends, and may be sent again and end again."""
    told_of: list[Any] = []
    for _ in range(chance.randint(1, 3)):
        found = await hand.orders.reread([order_of(order_id)])
        pin = Pin(f"PIN-{order_id[-2:]}-{chance.randint(1, 2):05}")
        ended = chance.choice(
            (Completed(pin, ""), Completed(pin, ""), Completed(None, ""), Cancelled("iptal"))
        )
        findings = [
            CheckResult(order, ended, NOW + 500, NOW, 1, account=order.integration or CONFIGURED)
            for order in found
        ]
        if findings and chance.random() < 0.3:
            await change(hand, chance, order_id)
        told_of.append(told(await hand.orders.record(findings)) if findings else None)
        await change(hand, chance, order_id)
    return told_of


async def post(hand: Hand, chance: random.Random, order_id: str) -> list[Any]:
    """The first process sets the webhook's address; a process with another mark gets no events."""
    mark = await hand.outbox.mark()
    if mark is None:
        mark = await hand.outbox.set_first("x")
    swept = await hand.outbox.sweep(mark.since) if chance.random() < 0.3 else None
    if chance.random() < 0.1:
        mark = replace(mark, value="another")
    claimed = sorted(await hand.outbox.claim(100, 60, mark), key=lambda d: str(d.event["order_id"]))
    for delivery in claimed:
        match chance.choice(("delivered", "delivered", "died", "failed")):
            case "delivered":
                await hand.outbox.delivered(delivery.event_id)
            case "died":
                await hand.outbox.died(delivery.event_id, "x")
            case _:
                await hand.outbox.failed(
                    delivery.event_id,
                    chance.choice(("x", "http_429")),
                    chance.choice((5.0, 5000.0)),
                )
    let_go = await hand.outbox.let_go(100.0, 1000.0, 5.0)
    counts = await hand.outbox.counts()
    await hand.make_due()
    known = sorted(
        (d.event["order_id"], d.event["outcome"], d.event["dispatch"], d.attempts) for d in claimed
    )
    return [swept, known, let_go, counts, [bool(d.event["uid"]) for d in claimed]]


async def mean(hand: Hand, chance: random.Random, order_id: str) -> list[Any]:
    async with hand.database.transaction() as connection:
        return [await hand.orders.row_writer.dispatches.mean(connection, order_id, "Ayşe")]


async def resolve(hand: Hand, chance: random.Random, order_id: str) -> list[Any]:
    pin = chance.choice((None, Pin(f"BY-HAND-{order_id[-2:]}")))
    decision = Decision(chance.choice(("completed", "failed")), "x", "Ayşe", pin)
    known = await hand.orders.scan(Part(only=[order_id]))
    order = next(iter(known.orders), order_of(order_id))
    finding = result_of(hand.orders, OrderHistory(order, has_pin=False, note="", now=NOW), decision)
    assert finding is not None
    try:
        return told([await write_decision(hand.database, hand.orders, finding, decision)])
    except NotDoneError as error:
        return [str(error)]


async def reopen(hand: Hand, chance: random.Random, order_id: str) -> list[Any]:
    row_writer = hand.orders.row_writer
    reopener = Reopener(row_writer.table, row_writer.table_config)
    try:
        async with hand.database.transaction() as connection:
            return [await reopener.reopen(connection, order_id, "x", "Ayşe")]
    except ReopenRefusedError as error:
        return [str(error).partition("(")[0]]


async def consume(hand: Hand, chance: random.Random, order_id: str) -> list[Any]:
    await hand.consume(order_id)
    return []


async def pause(hand: Hand, chance: random.Random, order_id: str) -> list[Any]:
    pauses, name = Pauses("public"), chance.choice(("a", "b"))
    async with hand.database.transaction() as connection:
        if chance.random() < 0.5:
            await pauses.pause(connection, name, "x", "Ayşe", chance.choice((None, 1000.0)))
            resumed = None
        else:
            resumed = await pauses.resume(connection, [name])
    async with hand.database.transaction() as connection:
        return [
            resumed,
            sorted((p.account, p.until is None) for p in (await pauses.read(connection)).values()),
        ]


async def learn(hand: Hand, chance: random.Random, order_id: str) -> list[Any]:
    timings = Timings(hand.database, hand.orders, "public", 86_400.0, 100)
    sketch = Sketch(86_400.0)
    sketch.add((1, chance.randint(2, 9)), NOW)
    await timings.save({("a", chance.choice("xy")): sketch, ("", ""): sketch})
    past = [(end.order_id, end.key[1], end.is_end) for end in await timings.history()]
    return [await timings.read(), sorted(past)]


PEOPLES = {
    "change": change,
    "end": end,
    "post": post,
    "mean": mean,
    "resolve": resolve,
    "reopen": reopen,
    "consume": consume,
    "pause": pause,
    "learn": learn,
}


def answer(chance: random.Random) -> Answer:
    pin = Pin(f"PIN-{chance.randint(1, 9):05}")
    made: list[Answer] = [
        Completed(pin, "tamam"),
        Completed(pin, f"kod {pin.reveal()}"),
        Completed(Pin(f"kullanıcı adı oyuncu1234 kod {pin.reveal()}"), "tamam"),
        Completed(Pin("ayrıntılar sms1234567 ile gelir"), "tamam"),
        Completed(Pin("ref-000001"), "its own reference is no code"),
        Completed(None, "onaylandı"),
        Completed(None, "onaylandı"),
        Completed(Pin("X" * 121), "uzun"),
        Cancelled("iptal"),
        Waiting("bekliyor"),
        Waiting(""),
        Refused("3", "x"),
        Garbled("unknown_state"),
    ]
    return chance.choice(made)


@pytest.mark.long
@pytest.mark.parametrize("seed", [*range(30), 253, 285, 328])
async def test_both_come_to_the_same(plain_shop: Shop, seed: int) -> None:
    confirm = 25.0 if seed % 4 == 1 else 0.0
    hands = await made(plain_shop, from_shop=seed % 3 > 0, confirm_cancelled=confirm)
    ids = [str(uuid.UUID(int=n)) for n in range(1, 9)]
    for n, order_id in enumerate(ids):
        for hand in hands:
            await hand.add(order_id, PACKAGES[n % 3], ACCOUNTS[n % 3])
    for n in range(60):
        real, model = [await step(hand, random.Random(f"{seed} {n}"), ids) for hand in hands]
        assert real == model, f"at step {n}"
        await compare(*hands, f"at step {n}")


async def compare(real: Real, model: Model, when: str) -> None:
    assert await real.rows() == await model.rows(), when
    assert by_order(await real.events()) == by_order(await model.events()), when
    assert await real.reviews() == await model.reviews(), when
    assert await real.dispatches() == await model.dispatches(), when
    assert await real.pins() == await model.pins(), when
    assert await real.settings() == await model.settings(), when


class _UndoneError(Exception):
    """Rolls back a transaction."""


@pytest.mark.parametrize("commits", [True, False])
async def test_both_wait_for_the_claim_of_another_transaction(
    both: tuple[Real, Model], *, commits: bool
) -> None:
    """A committed claim belongs to the other order.

    A rolled-back one leaves no claim.
    """
    ids = [str(uuid.UUID(int=n)) for n in (1, 2)]
    for hand in both:
        for order_id in ids:
            await hand.add(order_id, PACKAGES[0], "a")
        orders = await hand.orders.reread([order_of(i) for i in ids])
        first, second = (
            finding_of(o, Completed(Pin("PIN-00001"), "x"), random.Random(1))
            for o in sorted(orders)
        )
        with suppress(_UndoneError):
            async with hand.database.transaction() as connection:
                (result,) = await hand.orders.row_writer.write(connection, [first], with_notes=True)
                assert result.fate is WriteStatus.WRITTEN
                waiting = asyncio.create_task(hand.orders.record([second], 5.0))
                await asyncio.sleep(0.3)
                assert not waiting.done()
                if not commits:
                    raise _UndoneError
        (result,) = await waiting
        assert (result.fate, result.stuck) == (
            (WriteStatus.STUCK, StuckReason.PIN_DUPLICATE)
            if commits
            else (WriteStatus.WRITTEN, None)
        )
    await compare(*both, "in the end")


async def test_both_wait_no_longer_than_a_lock_may_take(both: tuple[Real, Model]) -> None:
    ids = [str(uuid.UUID(int=n)) for n in (1, 2)]
    for hand in both:
        for order_id in ids:
            await hand.add(order_id, PACKAGES[0], "a")
        orders = await hand.orders.reread([order_of(i) for i in ids])
        first, second = (
            finding_of(o, Completed(Pin("PIN-00001"), "x"), random.Random(1))
            for o in sorted(orders)
        )
        async with hand.database.transaction() as connection:
            await hand.orders.row_writer.write(connection, [first], with_notes=True)
            with pytest.raises(RowRejectedError) as refused:
                await hand.orders.record([second], 0.2)
            assert refused.value.is_passing


@pytest.mark.parametrize("is_same", [True, False])
async def test_a_pin_of_another_dispatch_waits_until_this_one_brings_it_too(
    both: tuple[Real, Model], *, is_same: bool
) -> None:
    """Any further end of the order, once or repeated: its claim is no evidence for the other."""
    order_id = str(uuid.UUID(int=1))
    first, second = Pin("PIN-00001"), Pin("PIN-00001" if is_same else "PIN-00002")
    for hand in both:
        await hand.add(order_id, PACKAGES[0], "a")
        before = await hand.orders.reread([order_of(order_id)])
        await hand.change(order_id, provider_referans="another")
        await hand.orders.record(
            [finding_of(o, Completed(first, ""), random.Random(1)) for o in before]
        )
        for _ in range(2):
            assert await hand.reviews() == {(order_id, "pin_for_other_dispatch")}
            now = await hand.orders.reread([order_of(order_id)])
            await hand.orders.record(
                [finding_of(o, Completed(second, ""), random.Random(1)) for o in now]
            )
            if is_same:
                break
            await hand.change(order_id, external_status="sent", pin_code=None)
        assert await hand.reviews() == (
            set() if is_same else {(order_id, "pin_for_other_dispatch")}
        )
    await compare(*both, "in the end")


async def test_the_model_knows_no_statement_that_is_not_ours(both: tuple[Real, Model]) -> None:
    pool = Pool(
        both[1].store, ledger_for(layout_for(give_up_after=1.0, last_sync=True), last_sync=True)
    )
    async with database_over(pool).transaction() as connection:
        with pytest.raises(AssertionError, match="does not know"):
            await connection.fetch("SELECT 1")
