"""A table that Citus has distributed: each statement that locks goes to one node, and says to
which.

What needs no Citus runs on any PostgreSQL, with a catalogue like Citus's own; the rest with ``make
citus CITUS_DSN=...``.
"""

import re
import uuid

import asyncpg
import pytest

from order_monitor.core.answer import Answer, Cancelled, Completed, Waiting
from order_monitor.core.check_result import WriteStatus
from order_monitor.core.errors import SettingsError
from order_monitor.core.pin import Pin
from tests.conftest import CITUS
from tests.support.orders import found, prepared
from tests.support.schema import examined, explained, lines, of
from tests.support.shops import NOW, Shop
from tests.support.watching import watched
from tests.support.writing import write_all

TENANTS = [str(uuid.UUID(int=n)) for n in range(1, 4)]
CATALOGUE = """
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char", partkey text);
CREATE FUNCTION pg_catalog.column_to_column_name(regclass, text) RETURNS text LANGUAGE sql AS 'SELECT $2';
"""


async def distribute(shop: Shop, column: str) -> None:
    """Distribute the table by a column, where there is no Citus in words only."""
    if CITUS is None:
        await shop.connection.execute(CATALOGUE)
        await shop.connection.execute(
            f"INSERT INTO pg_catalog.pg_dist_partition VALUES ('product_orders', 'h', '{column}')"
        )
        return
    await shop.connection.execute("SELECT undistribute_table('product_orders')")
    await shop.connection.execute("ALTER TABLE product_orders DROP CONSTRAINT product_orders_pkey")
    await shop.connection.execute(f'ALTER TABLE product_orders ADD PRIMARY KEY (id, "{column}")')
    await shop.connection.execute(
        "SELECT create_distributed_table('product_orders', $1::text, shard_count => 4)", column
    )


def locks(asked: list[str]) -> list[str]:
    return [sql for sql in asked if "FOR NO KEY UPDATE" in sql]


@pytest.mark.parametrize("logical", ["tenant_id", "id"])
async def test_what_is_locked_together_is_on_one_node(shop: Shop, logical: str) -> None:
    if logical == "tenant_id" or CITUS is None:
        await distribute(shop, shop.spelling.name(logical))
    await lines(shop)
    ids = [await shop.add(tenant_id=TENANTS[n % 3]) for n in range(12)]
    async with watched(shop.dsn) as (database, asked):
        orders = shop.orders(database)
        known = {order.id: order for order in (await orders.scan()).orders}
        answers: list[Answer] = [
            Completed(Pin("P-0"), "tamam"),
            Cancelled("iptal"),
            Waiting("wait"),
            Completed(None, "no PIN yet"),
        ]
        findings = [found(known[i], answers[n % 4]) for n, i in enumerate(ids)]
        findings[0::4] = [
            found(f.order, Completed(Pin(f"P-{f.order.id}"), "tamam")) for f in findings[0::4]
        ]
        asked.clear()
        results = await orders.record(findings)
        assert {result.fate for result in results} == {WriteStatus.WRITTEN}
        assert len(locks(asked)) == (3 if logical == "tenant_id" else 12)
        if logical == "tenant_id":
            assert all(len(re.findall(r"'[0-9a-f-]{36}'", sql)) == 1 for sql in locks(asked)), (
                locks(asked)
            )
        rows = [await shop.row(i) for i in ids]
        assert [row["external_status"] for row in rows] == [
            "completed",
            "failed",
            "processing",
            "completed",
        ] * 3
        assert [row["pin_code"] for row in rows[0::4]] == [f"P-{i}" for i in ids[0::4]]
        assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_events") == 12
        late = [known[i]._replace(status="completed", ended_at=NOW) for i in ids[3::4]]
        asked.clear()
        results = await orders.record(
            [found(order, Completed(Pin(f"P-{order.id}"))) for order in late]
        )
        assert [(result.fate, result.repeat) for result in results] == [
            (WriteStatus.WRITTEN, True)
        ] * 3
        assert len(locks(asked)) == 3
        assert [(await shop.row(i))["pin_code"] for i in ids[3::4]] == [f"P-{i}" for i in ids[3::4]]
        (again,) = await orders.record([found(known[ids[1]], Completed(Pin("P-1")))])
        assert (again.fate, (await shop.row(ids[1]))["pin_code"]) == (WriteStatus.GONE, None)


async def test_what_somebody_holds_there_is_tried_again(shop: Shop) -> None:
    await distribute(shop, shop.spelling.name("tenant_id"))
    ids = [await shop.add(tenant_id=tenant) for tenant in TENANTS]
    orders = await prepared(shop)
    known = {order.id: order for order in (await orders.scan()).orders}
    other = await asyncpg.connect(shop.dsn)
    async with other.transaction():
        await other.execute("UPDATE product_orders SET note = 'busy' WHERE id = $1::uuid", ids[1])
        results = await orders.record([found(known[i], Completed(Pin(f"P-{i}"))) for i in ids])
        fates = {result.finding.order.id: result.fate for result in results}
        assert fates == {
            ids[0]: WriteStatus.WRITTEN,
            ids[1]: WriteStatus.LOCKED,
            ids[2]: WriteStatus.WRITTEN,
        }
    await other.close()
    (result,) = await write_all(orders, [found(known[ids[1]], Completed(Pin(f"P-{ids[1]}")))])
    assert (result.fate, (await shop.row(ids[1]))["pin_code"]) == (
        WriteStatus.WRITTEN,
        f"P-{ids[1]}",
    )


async def test_check_finds_it_in_order(shop: Shop) -> None:
    await distribute(shop, shop.spelling.name("tenant_id"))
    await lines(shop)
    await shop.add(tenant_id=TENANTS[0])
    seen = await examined(shop)
    assert (of(seen, "error"), of(seen, "warning")) == ([], [])


@pytest.mark.skipif("CITUS is not None", reason="another table there")
async def test_one_distributed_by_what_no_order_is_known_by_is_refused(plain_shop: Shop) -> None:
    await distribute(plain_shop, "package_id")
    with pytest.raises(
        SettingsError, match=r"is distributed by package_id: distribute it by tenant_id or id"
    ):
        await prepared(plain_shop)


@pytest.mark.skipif(
    "CITUS is not None", reason="there it is distributed by id, and the node is known by that"
)
async def test_on_any_table_a_statement_about_known_orders_says_whose_they_are(shop: Shop) -> None:
    await lines(shop)
    column = shop.spelling.name("tenant_id")
    ids = [await shop.add(tenant_id=tenant) for tenant in TENANTS]
    async with watched(shop.dsn) as (database, asked):
        orders = shop.orders(database)
        known = (await orders.scan()).orders
        asked.clear()
        await orders.reread(known)
        await orders.record([found(order, Completed(Pin(f"P-{order.id}"))) for order in known])
        # Others with the same reference may be anybody's.
        about = [sql for sql in asked if '"product_orders"' in sql and "<> ALL(" not in sql]
        assert len(about) == 4
        told = re.compile(rf'o\."{column}" IN \(')
        assert all(told.search(sql) for sql in about), about
    assert {(await shop.row(i))["pin_code"] for i in ids} == {f"P-{i}" for i in ids}


@pytest.mark.skipif("CITUS is not None", reason="there no row changes its tenant")
async def test_an_order_that_has_become_another_tenants_gets_its_pin(shop: Shop) -> None:
    ids = [await shop.add(tenant_id=TENANTS[0]) for _ in range(2)]
    orders = await prepared(shop)
    known = {order.id: order for order in (await orders.scan()).orders}
    await shop.set(ids[0], tenant_id=uuid.UUID(TENANTS[1]))
    assert {order.id for order in await orders.reread(list(known.values()))} == set(ids)
    results = await orders.record([found(known[i], Completed(Pin(f"P-{i}"))) for i in ids])
    assert {result.fate for result in results} == {WriteStatus.WRITTEN}
    assert {(await shop.row(i))["pin_code"] for i in ids} == {f"P-{i}" for i in ids}


async def test_distributed_by_id_an_order_that_has_become_another_tenants_gets_its_pin(
    shop: Shop,
) -> None:
    if CITUS is None:
        await distribute(shop, "id")
    order_id = await shop.add(tenant_id=TENANTS[0])
    orders = await prepared(shop)
    (order,) = (await orders.scan()).orders
    await shop.set(order_id, tenant_id=uuid.UUID(TENANTS[1]))
    (result,) = await orders.record([found(order, Completed(Pin("P-1")))])
    assert (result.fate, (await shop.row(order_id))["pin_code"]) == (WriteStatus.WRITTEN, "P-1")


@pytest.mark.skipif("CITUS is not None", reason="there it is distributed by id")
async def test_a_tenant_without_letters_is_one(plain_shop: Shop) -> None:
    orders = await prepared(plain_shop)
    orders_of = [
        plain_shop.order(str(uuid.UUID(int=n)), tenant_id=tenant)
        for n, tenant in enumerate(("", "a'b"))
    ]
    assert orders.row_writer.statements.span(orders_of) == " AND o.\"tenant_id\" IN ('', 'a''b')"
    assert orders.row_writer.statements.span(orders_of, only_places=True) == ""


@pytest.mark.skipif("CITUS is not None", reason="each shard has indexes of other names")
async def test_the_tenants_index_does_not_take_the_place_of_the_key(plain_shop: Shop) -> None:
    await plain_shop.connection.execute("CREATE INDEX ON product_orders (tenant_id)")
    await plain_shop.connection.execute(
        "INSERT INTO product_orders (id, external_status, sent_at, tenant_id, provider_referans) "
        "SELECT gen_random_uuid(), 'sent', now(), $1::uuid, n::text FROM generate_series(1, 20000) n",
        uuid.UUID(TENANTS[0]),
    )
    await plain_shop.connection.execute("ANALYZE product_orders")
    orders = await prepared(plain_shop)
    some = (await orders.scan()).orders[:100]
    plan = await explained(
        plain_shop,
        orders.row_writer.statements.lock_sql(orders.row_writer.statements.span(some)),
        [o.id for o in some],
    )
    assert "product_orders_pkey" in plan
    assert "tenant_id_idx" not in plan
