"""The model shop cannot lie: the same orders, answers and hands over it and over a real PostgreSQL come to the same."""

import random
import uuid
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pytest
from order_monitor.core.pin_memory import PinMemory

from order_monitor.commands.resolve import Decision, _NotWrittenError, _write
from order_monitor.core.answer import Answer, Cancelled, Completed, Garbled, Refused, Waiting
from order_monitor.core.order import Order
from order_monitor.core.pin import Pin
from order_monitor.core.recording import Finding, Result
from order_monitor.core.timing.sketch import Sketch
from order_monitor.shop.database import Database
from order_monitor.shop.migration import Migration
from order_monitor.shop.order_history import OrderHistory
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.pauses import Pauses
from order_monitor.shop.reopening import Reopener, ReopenRefusedError
from order_monitor.shop.repository import Orders
from order_monitor.shop.timings import Timings
from order_monitor.watch.system_clock import SystemClock
from tests.shops import NOW, Shop
from tests.simulation.shop import ModelOrders, Pool, Store, Stored, database_over, layout_for, ledger_for

PACKAGES = [str(uuid.UUID(int=n)) for n in range(3)]


class Hand(Protocol):
    """The shop's own hand, in the model or in PostgreSQL."""

    orders: Orders
    outbox: Outbox
    database: Database

    async def add(self, order_id: str, package: str) -> None: ...
    async def consume(self, order_id: str) -> None: ...
    async def change(self, order_id: str, **values: Any) -> None: ...
    async def delete(self, order_id: str) -> None: ...
    async def rows(self) -> list[tuple[Any, ...]]: ...
    async def events(self) -> list[tuple[Any, ...]]: ...
    async def reviews(self) -> set[tuple[str, str]]: ...
    async def make_due(self) -> None: ...


@dataclass
class Real:
    """PostgreSQL."""

    shop: Shop
    orders: Orders
    outbox: Outbox
    database: Database

    async def add(self, order_id: str, package: str) -> None:
        await self.shop.add(order_id=order_id, package_id=package, referans=f"r-{order_id[-2:]}")

    async def consume(self, order_id: str) -> None:
        await self.shop.connection.execute(
            "UPDATE order_monitor_events SET consumed_at = now() WHERE order_id = $1::uuid AND consumed_at IS NULL",
            order_id,
        )

    async def change(self, order_id: str, **values: Any) -> None:
        await self.shop.set(order_id, **values)

    async def delete(self, order_id: str) -> None:
        await self.shop.connection.execute("DELETE FROM product_orders WHERE id = $1::uuid", order_id)

    async def rows(self) -> list[tuple[Any, ...]]:
        rows = await self.shop.connection.fetch(
            "SELECT id::text, external_status, pin_code, note, provider_referans FROM product_orders ORDER BY 1"
        )
        return [tuple(row) for row in rows]

    async def events(self) -> list[tuple[Any, ...]]:
        rows = await self.shop.connection.fetch(
            "SELECT order_id::text, from_status, to_status, has_pin, message, checks, decided_by, repeat, outcome, "
            "consumed_at IS NOT NULL FROM order_monitor_events ORDER BY id"
        )
        return [tuple(row) for row in rows]

    async def reviews(self) -> set[tuple[str, str]]:
        rows = await self.shop.connection.fetch(
            "SELECT order_id::text, kind FROM order_monitor_review WHERE closed_at IS NULL"
        )
        return {(row[0], row[1]) for row in rows}

    async def make_due(self) -> None:
        await self.shop.connection.execute("UPDATE order_monitor_deliveries SET next_at = clock_timestamp()")


@dataclass
class Model:
    """The model."""

    store: Store
    orders: Orders
    outbox: Outbox
    database: Database

    async def add(self, order_id: str, package: str) -> None:
        self.store.rows[order_id] = Stored(order_id, "sent", NOW - 100, f"r-{order_id[-2:]}", "", package)

    async def consume(self, order_id: str) -> None:
        for event in self.store.events:
            if event.order_id == order_id and event.consumed_at is None:
                event.consumed_at = NOW

    async def change(self, order_id: str, **values: Any) -> None:
        names = {"external_status": "status", "pin_code": "pin", "provider_referans": "referans"}
        if order_id in self.store.rows:
            changed: dict[str, Any] = {names[name]: value for name, value in values.items()}
            self.store.rows[order_id] = replace(self.store.rows[order_id], **changed)

    async def delete(self, order_id: str) -> None:
        self.store.rows.pop(order_id, None)

    async def rows(self) -> list[tuple[Any, ...]]:
        return sorted((r.id, r.status, r.pin, r.note, r.referans) for r in self.store.rows.values())

    async def events(self) -> list[tuple[Any, ...]]:
        names = (
            "order_id",
            "from_status",
            "to_status",
            "has_pin",
            "message",
            "checks",
            "decided_by",
            "repeat",
            "outcome",
        )
        return [(*(getattr(e, name) for name in names), e.consumed_at is not None) for e in self.store.events]

    async def reviews(self) -> set[tuple[str, str]]:
        return set(self.store.reviews)

    async def make_due(self) -> None:
        for delivery in self.store.deliveries.values():
            delivery.next_at = 0.0


@pytest.fixture
async def both(plain_shop: Shop) -> tuple[Real, Model]:
    layout = layout_for(webhook=True, give_up_after=86_400.0, last_sync=False)
    _ = [line async for line in Migration(plain_shop.database(), layout, SystemClock()).apply()]
    database = plain_shop.database()
    real = Real(plain_shop, Orders(database, layout, PinMemory(b"k")), Outbox(database, "public"), database)
    await real.orders.prepare()
    store = Store(NOW, random.Random(1), quick=True)
    pool = Pool(store, ledger_for(layout, last_sync=False))
    over = database_over(pool)
    return real, Model(store, ModelOrders(pool, over, PinMemory(b"k")), Outbox(over, "public"), over)


def order_of(order_id: str, referans: str | None = None, **more: Any) -> Order:
    return Order(order_id, "sent", NOW - 100, referans or f"r-{order_id[-2:]}", **more)


def told(results: list[Result]) -> list[tuple[Any, ...]]:
    """What became of each, without what only a moment decides."""
    return sorted(
        (r.finding.order.id, str(r.fate), str(r.stuck), r.status, r.repeat, r.write and (r.write.status, r.write.final))
        for r in results
    )


async def step(hand: Hand, chance: random.Random, ids: list[str]) -> list[Any]:
    """Do one thing that ``chance`` decides, the same to both; return what is seen of it."""
    kind = chance.choice(("record", "record", "record", "set", "delete", "scan", "late", "post", "twice", *PEOPLES))
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
        return [sorted((o.id, o.status, o.referans) for o in scan.orders), sorted(o.id for o in scan.awaiting)]
    if kind == "post":
        claimed = sorted(await hand.outbox.claim(100, 60), key=lambda d: str(d.event["order_id"]))
        for delivery in claimed:
            is_taken = chance.random() < 0.6
            await (hand.outbox.delivered(delivery.event_id) if is_taken else hand.outbox.died(delivery.event_id, "x"))
        await hand.make_due()
        return [sorted((d.event["order_id"], d.event["outcome"], d.attempts) for d in claimed)]
    findings = [
        Finding(order_of(i, chance.choice((None, None, None, "old"))), answer(chance), NOW, NOW, 3) for i in some
    ]
    if kind == "late":
        awaiting = {order.id: order for order in (await hand.orders.scan()).awaiting}
        findings = [Finding(awaiting[i], answer(chance), NOW, NOW, 5) for i in some if i in awaiting]
    if not findings:
        return []
    seen = told(await hand.orders.record(findings))
    return [seen, told(await hand.orders.record(findings)) if kind == "twice" else None]


async def resolve(hand: Hand, chance: random.Random, order_id: str) -> list[Any]:
    pin = chance.choice((None, Pin(f"BY-HAND-{order_id[-2:]}")))
    decision = Decision(chance.choice(("completed", "failed")), "x", "Ayşe", pin)
    history = OrderHistory(order_of(order_id), has_pin=False, note="", now=NOW)
    try:
        return told([await _write(hand.database, hand.orders, history, decision)])
    except _NotWrittenError as error:
        return [str(error)]


async def reopen(hand: Hand, chance: random.Random, order_id: str) -> list[Any]:
    ledger = hand.orders.ledger
    reopener = Reopener(ledger.table, ledger.layout, webhook=chance.random() < 0.5)
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
        return [resumed, sorted((p.account, p.until is None) for p in (await pauses.read(connection)).values())]


async def doubt(hand: Hand, chance: random.Random, order_id: str) -> list[Any]:
    settled = sorted(await hand.orders.unconfirmed.read())[:1] if chance.random() < 0.5 else []
    await hand.orders.unconfirmed.keep({order_id: "a"} if order_id not in settled else {}, settled)
    return [sorted(await hand.orders.unconfirmed.read())]


async def learn(hand: Hand, chance: random.Random, order_id: str) -> list[Any]:
    timings = Timings(hand.database, hand.orders, "public", 86_400.0, 100)
    sketch = Sketch(86_400.0)
    sketch.add((1, chance.randint(2, 9)), NOW)
    await timings.add({("a", chance.choice("xy")): sketch, ("", ""): sketch})
    past = [(end.order_id, end.key[1], end.is_end) for end in await timings.history()]
    return [await timings.read(), sorted(past)]


PEOPLES = {"resolve": resolve, "reopen": reopen, "consume": consume, "pause": pause, "doubt": doubt, "learn": learn}


def answer(chance: random.Random) -> Answer:
    pin = Pin(f"PIN-{chance.randint(1, 6)}")
    made: list[Answer] = [
        Completed(pin, "tamam"),
        Completed(pin, f"kod {pin.reveal()}"),
        Completed(None, "onaylandı"),
        Completed(Pin("X" * 121), "uzun"),
        Cancelled("iptal"),
        Waiting("bekliyor"),
        Waiting(""),
        Refused("3", "x"),
        Garbled("unknown_state"),
    ]
    return chance.choice(made)


def by_order(events: list[tuple[Any, ...]]) -> dict[str, list[tuple[Any, ...]]]:
    """Each order's events in their order; within one statement PostgreSQL numbers those of different orders as it likes."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for event in events:
        found.setdefault(event[0], []).append(event)
    return found


@pytest.mark.parametrize("seed", range(25))
async def test_both_come_to_the_same(both: tuple[Real, Model], seed: int) -> None:
    ids = [str(uuid.UUID(int=n)) for n in range(1, 9)]
    for n, order_id in enumerate(ids):
        for hand in both:
            await hand.add(order_id, PACKAGES[n % 3])
    for n in range(40):
        real, model = [await step(hand, random.Random(f"{seed} {n}"), ids) for hand in both]
        assert real == model, f"at step {n}"
        assert await both[0].rows() == await both[1].rows(), f"at step {n}"
        assert by_order(await both[0].events()) == by_order(await both[1].events()), f"at step {n}"
        assert await both[0].reviews() == await both[1].reviews(), f"at step {n}"


async def test_the_model_knows_no_statement_that_is_not_ours(both: tuple[Real, Model]) -> None:
    store = both[1].store
    pool = Pool(store, ledger_for(layout_for(webhook=True, give_up_after=1.0, last_sync=True), last_sync=True))
    async with database_over(pool).transaction() as connection:
        with pytest.raises(AssertionError, match="does not know"):
            await connection.fetch("SELECT 1")
