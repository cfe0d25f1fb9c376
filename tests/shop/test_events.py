"""Telling the shop: each change and its event are one statement, and a consumer acts on each
exactly once.
"""

import asyncio
import json
import random
import uuid
from dataclasses import replace

import asyncpg
import pytest

from order_monitor.core.answer import Answer, Cancelled, Completed, Waiting
from order_monitor.core.check_result import CheckResult, WriteStatus
from order_monitor.core.errors import ShopMisfitError, TableError
from order_monitor.core.outcome import Outcome
from order_monitor.core.pin import Pin
from order_monitor.shop.schema.own_tables import NEEDED
from tests.support import readme
from tests.support.events import events, prepared
from tests.support.orders import found
from tests.support.proxies import Proxy
from tests.support.shops import NOW, Shop, least_rights, migrate
from tests.support.webhooks import hooked

PIN = Pin("PIN-CANARY-99")


async def test_each_change_of_status_has_its_event(shop: Shop) -> None:
    tenant = str(uuid.uuid4())
    order_id = await shop.add(tenant_id=tenant)
    orders = await prepared(shop)
    await orders.record([found(shop.order(order_id), Waiting("bekleniyor"))])
    await orders.record([found(shop.order(order_id), Waiting("sırada"))])
    await orders.record([found(shop.order(order_id), Completed(PIN, "tamam"))])
    rows = await events(shop)
    assert [(r["from_status"], r["to_status"], r["has_pin"], r["message"]) for r in rows] == [
        ("sent", "processing", False, "bekleniyor"),
        ("processing", "completed", True, "tamam"),
    ]
    last = rows[-1]
    assert (str(last["order_id"]), str(last["tenant_id"])) == (order_id, tenant)
    assert (last["checks"], last["sent_at"].timestamp()) == (3, NOW - 100)
    assert (last["decided_by"], last["repeat"], last["consumed_at"]) == ("daemon", False, None)
    assert last["decided_at"] is not None


async def test_the_pin_is_in_no_event(shop: Shop) -> None:
    """Not even where the provider repeats it in its message."""
    order_id = await shop.add()
    orders = await prepared(shop)
    await orders.record(
        [found(shop.order(order_id), Completed(PIN, f"PIN: {PIN.reveal()} yüklendi"))]
    )
    (row,) = await events(shop)
    assert "CANARY" not in str(dict(row))
    assert row["message"] == "PIN: **** yüklendi"
    assert PIN.reveal() in (await shop.row(order_id))["note"], (
        "the shop's own note keeps what the provider said"
    )


async def test_a_lost_compare_records_nothing(shop: Shop) -> None:
    order_id = await shop.add("refunded")
    orders = await prepared(shop)
    assert (await orders.record([found(shop.order(order_id), Completed(PIN))]))[
        0
    ].fate is WriteStatus.GONE
    assert await events(shop) == []


async def test_an_old_copy_saved_over_our_write_makes_a_repeat(shop: Shop) -> None:
    """A2: the second event says so, and nobody refunds twice."""
    order_id = await shop.add()
    orders = await prepared(shop)
    first = (await orders.record([found(shop.order(order_id), Cancelled("iptal"))]))[0]
    assert not first.repeat
    await shop.set(order_id, external_status="sent", note=None)
    second = (await orders.record([found(shop.order(order_id), Cancelled("iptal"))]))[0]
    assert second.repeat
    assert [r["repeat"] for r in await events(shop)] == [False, True]


async def test_a_batch_gives_one_hint(shop: Shop) -> None:
    """A9, A10, F12: the hint is really given, once for many, and small however many."""
    ids = [await shop.add() for _ in range(150)]
    orders = await prepared(shop)
    heard: list[str] = []
    listener = await asyncpg.connect(shop.dsn)
    try:
        await listener.add_listener("order_monitor", lambda *args: heard.append(str(args[3])))
        await orders.record([found(shop.order(i), Cancelled("x")) for i in ids])
        await orders.record([found(shop.order(ids[0]), Cancelled("x"))])
        for _ in range(100):
            await listener.fetchval("SELECT 1")
            if heard:
                break
            await asyncio.sleep(0.01)
        await listener.fetchval("SELECT 1")
    finally:
        await listener.close()
    newest = (await events(shop))[-1]["id"]
    assert heard == [str(newest)], "one for the batch, none where nothing changed"


async def test_the_word_of_a_commit_is_lost_and_the_event_stands_once(shop: Shop) -> None:
    """A3."""
    order_id = await shop.add()
    async with Proxy(shop.dsn) as proxy:
        orders = await prepared(shop, proxy.dsn)
        finding = found(shop.order(order_id), Completed(PIN))
        proxy.cut_after = b"COMMIT"
        with pytest.raises(Exception, match="connection does not exist"):
            await orders.record([finding])
        assert (await orders.record([finding]))[0].fate is WriteStatus.WRITTEN
    assert len(await events(shop)) == 1


@pytest.mark.parametrize("table", sorted(NEEDED))
async def test_without_a_table_of_ours_nothing_is_read_and_nothing_ends(
    shop: Shop, table: str
) -> None:
    """No end without its event, and no PIN without its claim.

    It goes on where the table is there.
    """
    order_id = await shop.add()
    await shop.connection.execute(f"DROP TABLE {table} CASCADE")
    orders = shop.orders()
    for work in (orders.scan(), orders.record([found(shop.order(order_id), Completed(PIN))])):
        with pytest.raises(
            ShopMisfitError, match=rf"{table} is missing or out of date; run: order-monitor migrate"
        ):
            await work
    assert (await shop.row(order_id))["external_status"] == "sent"
    await migrate(shop.dsn)
    await shop.note(order_id)
    assert len((await orders.scan()).orders) == 1
    assert (await orders.record([found(shop.order(order_id), Completed(PIN))]))[
        0
    ].fate is WriteStatus.WRITTEN


async def test_least_rights_on_the_events(shop: Shop) -> None:
    """E13: which rights the events need, and that lacking them is an error and not a change without
    its event.
    """
    orders = await prepared(shop)
    order_id = await shop.add()
    role = f"r{uuid.uuid4().hex}"
    columns = ", ".join(
        c.sql
        for name, c in orders.table.columns.items()
        if name not in ("id", "tenant_id", "sent_at")
    )
    await shop.connection.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'secret-of-the-role'; GRANT SELECT ON product_orders TO {role};"
        f"GRANT UPDATE ({columns}) ON product_orders TO {role}; {least_rights(role)};"
        f"REVOKE INSERT ON order_monitor_events FROM {role}"
    )
    theirs = shop.orders(
        shop.database(f"postgresql://{role}:secret-of-the-role@{shop.dsn.partition('@')[2]}")
    )
    with pytest.raises(
        ShopMisfitError, match=rf'run: GRANT INSERT ON "public"\."order_monitor_events" TO {role};'
    ):
        await theirs.record([found(shop.order(order_id), Completed(PIN))])
    assert (await shop.row(order_id))["external_status"] == "sent"
    await shop.connection.execute(f"GRANT INSERT ON order_monitor_events TO {role}")
    assert (await theirs.record([found(shop.order(order_id), Completed(PIN))]))[
        0
    ].fate is WriteStatus.WRITTEN
    await shop.connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("late", [True, False])
async def test_what_the_consumers_leave_alone_does_not_wait(
    plain_shop: Shop, *, late: bool
) -> None:
    """Otherwise an alert would last for ever: nobody takes the events before their start."""
    shop = plain_shop
    orders = await prepared(shop)
    for _ in range(5):
        order_id = await shop.add()
        await orders.record([found(shop.order(order_id), Waiting("x"))])
    ids = [row["id"] for row in await events(shop)]

    async def waiting() -> int | None:
        scan = await orders.scan()
        return scan.waiting[0] if scan.waiting else None

    assert await waiting() == 5
    column = ", late bigint[] NOT NULL DEFAULT '{}'" if late else ""
    await shop.connection.execute(
        f"CREATE TABLE order_monitor_consumer (id smallint PRIMARY KEY, since bigint NOT NULL{column})"
    )
    assert await waiting() == 5, "no consumer has started yet"
    await shop.connection.execute("INSERT INTO order_monitor_consumer VALUES (1, $1)", ids[3])
    assert await waiting() == 2
    if late:
        await shop.connection.execute("UPDATE order_monitor_consumer SET late = $1", [ids[1]])
        assert await waiting() == 3
    await shop.connection.execute("UPDATE order_monitor_events SET consumed_at = now()")
    assert await waiting() == 0


async def test_what_neither_the_webhook_nor_a_consumer_has_taken_waits(plain_shop: Shop) -> None:
    """The mark stays where a shop goes back from the webhook to the table, and where no process that
    posts runs any more: both are seen.
    """
    shop = plain_shop
    orders = await hooked(shop, "https://shop.example/hook")
    for _ in range(4):
        await orders.record([found(shop.order(await shop.add()), Completed(None))])

    async def waiting() -> tuple[int, float | None] | None:
        return (await orders.scan()).waiting

    oldest = await shop.connection.fetchval(
        "UPDATE order_monitor_events SET decided_at = decided_at - interval '1 hour' WHERE id = 1 "
        "RETURNING extract(epoch FROM decided_at)::float8"
    )
    assert await waiting() == (4, oldest)
    await shop.connection.execute(
        "UPDATE order_monitor_deliveries SET delivered_at = now() WHERE event_id = 1; "
        "UPDATE order_monitor_deliveries SET dead_at = now() WHERE event_id = 2"
    )
    found_waiting = await waiting()
    assert found_waiting is not None
    assert found_waiting[0] == 2, "a dead letter is counted as such"
    await shop.connection.execute("UPDATE order_monitor_events SET consumed_at = now()")
    assert await waiting() == (0, None)


async def test_a_consumers_start_that_may_not_be_read_changes_nothing(plain_shop: Shop) -> None:
    shop = plain_shop
    orders = await prepared(shop)
    order_id = await shop.add()
    await orders.record([found(shop.order(order_id), Completed(PIN))])
    await shop.connection.execute(
        "CREATE TABLE order_monitor_consumer (id smallint PRIMARY KEY, since bigint NOT NULL); "
        "INSERT INTO order_monitor_consumer VALUES (1, 1000)"
    )
    role = f"r{uuid.uuid4().hex}"
    await shop.connection.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT SELECT, UPDATE ON product_orders TO {role}; {least_rights(role)}"
    )
    try:
        dsn = f"postgresql://{role}:pw@{shop.dsn.partition('@')[2]}"
        theirs = shop.orders(shop.database(dsn))
        await theirs.prepare()
        scan = await theirs.scan()
        assert scan.waiting is not None
        assert scan.waiting[0] == 1
        await shop.connection.execute(f"GRANT SELECT ON order_monitor_consumer TO {role}")
        scan = await theirs.scan()
        assert scan.waiting == (0, None)
    finally:
        await shop.connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_the_history_keeps_each_message(plain_shop: Shop) -> None:
    shop = plain_shop
    await shop.connection.execute("ALTER TABLE product_orders ADD COLUMN notes jsonb")
    order_id, odd = await shop.add(), await shop.add()
    await shop.connection.execute(
        'UPDATE product_orders SET notes = \'{"not": "ours"}\' WHERE id = $1::uuid', odd
    )
    orders = await prepared(shop)
    await orders.record(
        [found(shop.order(order_id), Waiting("bekleniyor")), found(shop.order(odd), Waiting("x"))]
    )
    await orders.record([found(shop.order(order_id), Completed(PIN, 'tamam "iyi"'), age=150.25)])
    history = __import__("json").loads((await shop.row(order_id))["notes"])
    assert history == [
        {"by": "order-monitor", "text": "bekleniyor", "at": "2026-09-21T14:13:50.500Z"},
        {"by": "order-monitor", "text": 'tamam "iyi"', "at": "2026-09-21T14:14:10.250Z"},
    ]
    assert __import__("json").loads((await shop.row(odd))["notes"]) == {"not": "ours"}, (
        "what is no list is left alone"
    )


async def test_the_customer_reads_an_ends_message_without_its_pin(shop: Shop) -> None:
    """Where nothing stands there; the count of what is appended is kept, under the author's name."""
    count, note = shop.spelling.name("notes_count"), shop.spelling.name("manual_note")
    await shop.connection.execute(
        f'ALTER TABLE product_orders ADD "{count}" int NOT NULL DEFAULT 7, ADD "{note}" text, '
        "ADD notes jsonb NOT NULL DEFAULT '[]'"
    )
    first, taken, odd, failed = [await shop.add() for _ in range(4)]
    await shop.set(taken, manual_note="a person's word")
    await shop.connection.execute("UPDATE product_orders SET notes = '{}' WHERE id = $1::uuid", odd)
    orders = shop.orders(has_customer_notes=True, note_author="system")
    await orders.prepare()
    long, code = f"{'x' * 490} {PIN.reveal()} " * 2, PIN.reveal()
    await orders.record([found(shop.order(first), Waiting("bekleniyor"))])
    assert (await shop.row(first))["manual_note"] is None, "only an end is the customer's"
    answers: list[Answer] = [Completed(PIN, long), Completed(None, "tamam")]
    answers += [Cancelled("yok"), Cancelled("stok")]
    every = zip((first, taken, odd, failed), answers, strict=True)
    await orders.record([found(shop.order(i), answer) for i, answer in every])
    rows = [await shop.row(i) for i in (first, taken, odd, failed)]
    assert len(rows[0]["manual_note"]) == 500
    assert code not in rows[0]["manual_note"]
    assert [row["manual_note"] for row in rows[1:]] == ["a person's word", "yok", "stok"]
    assert [row["notes_count"] for row in rows] == [2, 1, 7, 1]
    entries = json.loads(rows[0]["notes"])
    assert [(e["by"], e["text"][:4]) for e in entries] == [("system", "bekl"), ("system", "xxxx")]
    plain = shop.orders()
    again = await shop.add()
    await plain.prepare()
    await plain.record([found(shop.order(again), Cancelled("stok"))])
    assert (await shop.row(again))["manual_note"] is None, "off by default"


async def test_a_customers_column_that_is_not_there_is_named(shop: Shop) -> None:
    overrides = {"manual_note": "nowhere"}
    with pytest.raises(TableError, match=r"notes\.customer_column: .* has no column nowhere"):
        await shop.orders(has_customer_notes=True, overrides=overrides).prepare()


CONSUME = readme.block("sql", "INSERT INTO refunds")


async def test_a_consumer_killed_at_random_points_refunds_each_order_once(shop: Shop) -> None:
    await shop.connection.execute("CREATE TABLE refunds (order_id uuid)")
    ids = [await shop.add() for _ in range(40)]
    orders = await prepared(shop)
    await orders.record([found(shop.order(i), Cancelled("x")) for i in ids[:20]])
    await orders.record([found(shop.order(i), Completed(None)) for i in ids[20:]])
    for order_id in ids[:5]:
        await shop.set(order_id, external_status="sent")
    await orders.record([found(shop.order(i), Cancelled("x")) for i in ids[:5]])
    chance = random.Random(4)

    async def consumer() -> None:
        while await shop_left(shop.dsn):
            connection = await asyncpg.connect(shop.dsn)
            task = asyncio.create_task(connection.execute(CONSUME))
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random() * 0.004)
                connection.terminate()
            await asyncio.gather(task, return_exceptions=True)
            connection.terminate()

    await asyncio.gather(consumer(), consumer())
    refunds = await shop.connection.fetch("SELECT order_id::text, count(*) FROM refunds GROUP BY 1")
    assert {r["order_id"]: r["count"] for r in refunds} == dict.fromkeys(ids[:20], 1)


async def shop_left(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM order_monitor_events WHERE consumed_at IS NULL"
            )
        )
    finally:
        await connection.close()


def test_the_values_of_an_event_hide_a_pin_only_where_there_is_one() -> None:
    from order_monitor.core.decision import Write
    from order_monitor.core.order import Order
    from order_monitor.shop.writing.parameters import Change

    order = Order("a", "sent", NOW, "1")
    finding = CheckResult(order, Completed(PIN, "x"), NOW)
    write = Write(Outcome.COMPLETED, "completed", message=f"see {PIN.reveal()}")
    assert Change(finding, write, "sent").told == "see ****"
    bare = replace(finding, answer=Completed(None, "x"))
    write = Write(Outcome.COMPLETED, "completed", message="see this")
    assert Change(bare, write, "sent").told == "see this"
