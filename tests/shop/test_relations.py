"""Tables as they come: each shape through `migrate`, `check` and one pass's reading and writing, on
a real PostgreSQL.
"""

import asyncio
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from order_monitor.core.answer import Completed, Waiting
from order_monitor.core.check_result import WriteStatus
from order_monitor.core.decision import StuckReason, Write
from order_monitor.core.errors import RightsError, SettingsError, ShopError
from order_monitor.core.outcome import Outcome
from order_monitor.core.pin import Pin
from order_monitor.shop.migration import Migration, as_sql
from order_monitor.shop.writing.parameters import UPDATE, Change, record_of
from order_monitor.watch.system_clock import SystemClock
from tests.support.orders import found, prepared
from tests.support.schema import examined, explained, indexes, lines, migration, of
from tests.support.shops import LAYOUT, NOW, SHOP, Shop
from tests.support.writing import write_all

PIN = "PIN-CANARY-1"


async def works(shop: Shop) -> None:
    """Three orders: one ends with its PIN, one waits, one is not asked.

    Each as in a plain table, each end with one event.
    """
    done, waits, _ = [await shop.add() for _ in range(3)]
    orders = shop.orders()
    scan = await orders.scan()
    assert len(scan.orders) == 3
    by_id = {order.id: order for order in scan.orders}
    findings = [
        found(by_id[done], Completed(Pin(PIN), "tamam")),
        found(by_id[waits], Waiting("wait")),
    ]
    assert {r.fate for r in await write_all(orders, findings)} == {WriteStatus.WRITTEN}
    row = await shop.row(done)
    assert (row["external_status"].strip(), row["pin_code"].strip(), row["note"]) == (
        "completed",
        PIN,
        "tamam",
    )
    assert (await shop.row(waits))["external_status"].strip() == "processing"
    assert [order.id for order in (await orders.scan()).orders].count(done) == 0
    events = await shop.connection.fetch(
        "SELECT order_id::text AS id, to_status FROM order_monitor_events ORDER BY 2"
    )
    assert [(event["id"].strip(), event["to_status"]) for event in events] == [
        (done, "completed"),
        (waits, "processing"),
    ]


async def refused(shop: Shop, pattern: str) -> None:
    """`migrate`, `check` and reading say the same, and nothing was added."""
    before = await shop.connection.fetchval(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    )
    with pytest.raises(SettingsError, match=pattern):
        await lines(shop)
    (error,) = of(await examined(shop), "error")
    # `check` shows what to do apart from what is wrong.
    assert re.search(pattern, f"database: {error}".replace(" -> ", "; "))
    with pytest.raises(SettingsError, match=pattern):
        await shop.orders().scan()
    after = await shop.connection.fetchval(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    )
    assert before == after


# --- views


async def test_an_updatable_view_is_worked_through_and_its_indexes_are_left_to_the_table_behind_it(
    bare_shop: Shop,
) -> None:
    shop = bare_shop
    await shop.connection.execute(
        "ALTER TABLE product_orders RENAME TO base; CREATE VIEW product_orders AS SELECT * FROM base"
    )
    told = await lines(shop)
    ours = (
        "events",
        "deliveries",
        "pauses",
        "review",
        "timing",
        "dispatches",
        "pins",
        "settings",
        "presence",
    )
    assert told[: len(ours)] == [f"added table order_monitor_{n}" for n in ours]
    assert "behind it: public.base" in told[-1]
    assert "set database.table" in told[-1]
    assert len(await lines(shop)) == 1
    seen = await examined(shop)
    assert of(seen, "error") == []
    (warning,) = of(seen, "warning")
    assert "is a view" in warning
    await works(shop)


async def test_a_view_without_the_reference_says_where_to_add_it(plain_shop: Shop) -> None:
    await plain_shop.connection.execute(
        "ALTER TABLE product_orders DROP COLUMN provider_referans; ALTER TABLE product_orders RENAME TO base; "
        "CREATE VIEW product_orders AS SELECT * FROM base"
    )
    await refused(
        plain_shop, r"no column provider_referans; it is a view: add provider_referans .* behind it"
    )


@pytest.mark.parametrize(
    "view",
    ["SELECT DISTINCT * FROM base", "SELECT b.* FROM base b, other", "SELECT * FROM base LIMIT 9"],
)
async def test_a_view_that_cannot_be_written_names_the_tables_behind_it(
    shop: Shop, view: str
) -> None:
    await shop.connection.execute(
        f"ALTER TABLE product_orders RENAME TO base; CREATE TABLE other (); CREATE VIEW product_orders AS {view}"
    )
    await refused(
        shop,
        r"product_orders is a view that cannot be written .*set database\.table .*public\.base",
    )


async def instead(shop: Shop, view: str) -> None:
    await shop.connection.execute(
        f"ALTER TABLE product_orders RENAME TO base; CREATE TABLE other (); INSERT INTO other DEFAULT VALUES; "
        f"CREATE VIEW product_orders AS {view}; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE base SET external_status = NEW.external_status, pin_code = NEW.pin_code, note = NEW.note WHERE id = NEW.id; "
        "RETURN NEW; END $$; CREATE TRIGGER t INSTEAD OF UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION f()"
    )


async def test_a_view_written_by_a_trigger_works_where_its_rows_can_be_locked(
    plain_shop: Shop,
) -> None:
    await instead(plain_shop, "SELECT b.* FROM base b, other")
    await lines(plain_shop)
    assert of(await examined(plain_shop), "error") == []
    order_id = await _into_base(plain_shop)
    (result,) = await write_all(
        plain_shop.orders(), [found(plain_shop.order(order_id), Completed(Pin(PIN)))]
    )
    assert result.fate is WriteStatus.WRITTEN
    assert (await plain_shop.row(order_id))["pin_code"] == PIN


async def _into_base(shop: Shop) -> str:
    await shop.connection.execute(
        "ALTER VIEW product_orders RENAME TO v; ALTER TABLE base RENAME TO product_orders"
    )
    order_id = await shop.add()
    await shop.connection.execute(
        "ALTER TABLE product_orders RENAME TO base; ALTER VIEW v RENAME TO product_orders"
    )
    return order_id


async def test_a_view_written_by_a_trigger_whose_rows_cannot_be_locked_is_refused(
    plain_shop: Shop,
) -> None:
    await instead(plain_shop, "SELECT DISTINCT * FROM base")
    await refused(plain_shop, r"is a view that cannot have its rows locked .*public\.base")


async def test_a_computed_pin_in_a_view_is_refused_and_a_computed_note_is_left_out(
    plain_shop: Shop,
) -> None:
    rest = "id, tenant_id, external_status, sent_at, package_id, provider_referans"
    await plain_shop.connection.execute(
        f"ALTER TABLE product_orders RENAME TO base; "
        f"CREATE VIEW product_orders AS SELECT {rest}, upper(pin_code) AS pin_code, note FROM base"
    )
    await refused(
        plain_shop,
        r"pin_code is generated or computed, and cannot be written: make it a plain column",
    )
    await plain_shop.connection.execute(
        f"DROP VIEW product_orders; CREATE VIEW product_orders AS SELECT {rest}, pin_code, upper(note) AS note FROM base"
    )
    await lines(plain_shop)
    seen = await examined(plain_shop)
    assert of(seen, "error") == []
    assert any("left out: note is generated or computed" in line for line in of(seen, "warning"))
    order_id = await _into_base(plain_shop)
    (result,) = await write_all(
        plain_shop.orders(), [found(plain_shop.order(order_id), Completed(Pin(PIN), "x"))]
    )
    assert result.fate is WriteStatus.WRITTEN


async def test_a_materialized_view_names_the_table_behind_it(shop: Shop) -> None:
    await shop.connection.execute(
        "ALTER TABLE product_orders RENAME TO base; CREATE VIEW between AS SELECT * FROM base; "
        "CREATE MATERIALIZED VIEW product_orders AS SELECT * FROM between"
    )
    await refused(shop, r"materialized view.*set database\.table .*public\.base")


# --- tables that are elsewhere


async def test_a_foreign_table_sends_to_its_own_database(plain_shop: Shop) -> None:
    await plain_shop.connection.execute(
        "ALTER TABLE product_orders RENAME TO base; CREATE FOREIGN DATA WRAPPER d; CREATE SERVER far FOREIGN DATA WRAPPER d; "
        "CREATE FOREIGN TABLE product_orders (id uuid, external_status text, sent_at timestamptz, pin_code text, "
        "provider_referans text) SERVER far"
    )
    await refused(plain_shop, r"foreign table \(server far\).*set database\.dsn to that database")


async def test_a_temporary_table_of_the_shops_session_is_no_table(plain_shop: Shop) -> None:
    await plain_shop.connection.execute(
        "CREATE TEMP TABLE product_orders_t (LIKE product_orders); DROP TABLE product_orders; "
        "ALTER TABLE product_orders_t RENAME TO product_orders"
    )
    await refused(plain_shop, r"there is no table public\.product_orders.*set database\.table")


async def test_a_table_in_another_case_or_schema_is_named(plain_shop: Shop) -> None:
    await plain_shop.connection.execute(
        'CREATE SCHEMA s; ALTER TABLE product_orders RENAME TO "ProductOrders"'
    )
    await refused(
        plain_shop, r"there is no table .* there is public\.ProductOrders; set database\.schema"
    )
    await plain_shop.connection.execute('ALTER TABLE "ProductOrders" SET SCHEMA s')
    await refused(plain_shop, r"there is s\.ProductOrders")


async def test_a_table_that_may_not_be_seen_says_which_right_is_missing(plain_shop: Shop) -> None:
    await plain_shop.connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'x'")
    try:
        orders = plain_shop.orders(
            plain_shop.database(f"postgresql://stranger:x@{plain_shop.dsn.partition('@')[2]}")
        )
        with pytest.raises(
            RightsError,
            match=r'lacks rights; run: GRANT SELECT \(.*ON "public"\."product_orders" TO stranger',
        ):
            await orders.scan()
    finally:
        await plain_shop.connection.execute("DROP OWNED BY stranger; DROP ROLE stranger")


async def test_an_unlogged_table_works_and_is_warned_about(plain_shop: Shop) -> None:
    await plain_shop.connection.execute("ALTER TABLE product_orders SET UNLOGGED")
    await lines(plain_shop)
    assert any(
        "crash of the server empties it -> ALTER TABLE" in line
        for line in of(await examined(plain_shop), "warning")
    )
    await works(plain_shop)


# --- partitions


@pytest.fixture
async def parted(bare_shop: Shop) -> Shop:
    """By time, and one part by status again: a leaf each for old, and for new orders in two."""
    shop = bare_shop
    sent = shop.spelling.name("sent_at")
    ddl = shop.spelling.ddl.replace("PRIMARY KEY", "").rstrip().removesuffix(")")
    await shop.connection.execute(
        f'DROP TABLE product_orders; {ddl}, PRIMARY KEY (id, "{sent}")) PARTITION BY RANGE ("{sent}"); '
        "CREATE TABLE old PARTITION OF product_orders FOR VALUES FROM (MINVALUE) TO ('2026-01-01'); "
        "CREATE TABLE new PARTITION OF product_orders FOR VALUES FROM ('2026-01-01') TO ('2030-01-01') PARTITION BY HASH (id); "
        "CREATE TABLE new_0 PARTITION OF new FOR VALUES WITH (MODULUS 2, REMAINDER 0); "
        "CREATE TABLE new_1 PARTITION OF new FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
    )
    return shop


async def valid(shop: Shop) -> dict[str, bool]:
    """The partitioned table's own indexes: each whole only if every leaf has its part."""
    return await indexes(shop)


async def test_a_partitioned_table_gets_its_indexes_partition_by_partition(parted: Shop) -> None:
    await lines(parted)
    assert len(await valid(parted)) == 3
    assert all((await valid(parted)).values()), "attached everywhere"
    assert await lines(parted) == [], "idempotent"
    seen = await examined(parted)
    assert of(seen, "error") == of(seen, "warning") == [], (
        "a key that holds the id and the time is fine"
    )
    await works(parted)


async def test_the_index_of_a_partitioned_table_is_used_for_open_orders(parted: Shop) -> None:
    await lines(parted)
    orders = await prepared(parted)
    await parted.connection.execute("SET enable_seqscan = off")
    plan = "\n".join(
        row[0]
        for row in await parted.connection.fetch(f"EXPLAIN {orders.reader.queries.scan_sql()}")
    )
    assert plan.count("_om_open_") == 3, "one a leaf"


async def test_what_is_read_again_and_written_is_looked_for_in_its_own_partition(
    parted: Shop,
) -> None:
    """Of a hundred partitions one is entered, not a hundred."""
    await lines(parted)
    await parted.add(sent_at=NOW)
    orders = await prepared(parted, unique_pins=False)
    (order,) = (await orders.scan()).orders
    statements = orders.row_writer.statements
    span = statements.span([order])
    ids = [order.id]
    write = Write(Outcome.COMPLETED, "completed")
    values = record_of(UPDATE, Change(found(order, Completed(Pin("P"))), write, "sent"))
    wanted: list[tuple[str, list[object]]] = [
        (statements.lock_sql(span), [ids]),
        (statements.doubled_sql(span), [ids]),
        (orders.reader.queries.among_sql() + span, [ids]),
        (statements.update_sql(span), [[value] for value in values]),
    ]
    if parted.spelling is SHOP:
        wanted.append((statements.touch_sql(span), [ids, [NOW]]))
    for sql, arguments in wanted:
        plan = await explained(parted, sql, *arguments)
        assert " new_" in plan, plan
        assert " old" not in plan, plan
    assert statements.span([order, order._replace(sent_at=None)]) == "", (
        "whose time nobody knows may be anywhere"
    )
    assert " old" in await explained(parted, statements.lock_sql(), ids), (
        "without it all are entered"
    )


async def test_an_order_that_was_sent_again_is_found_in_another_partition(parted: Shop) -> None:
    """Its time is no longer within those that were read: it is looked for everywhere."""
    await lines(parted)
    ids = [await parted.add(sent_at=NOW + n) for n in range(3)]
    orders = await prepared(parted)
    read = (await orders.scan()).orders
    sent = parted.spelling.name("sent_at")
    await parted.connection.execute(
        f'UPDATE product_orders SET "{sent}" = to_timestamp({NOW} - 3e7) WHERE id = $1::uuid',
        ids[1],
    )
    assert {order.id for order in await orders.reread(read)} == set(ids)


async def test_of_two_rows_with_one_id_none_gets_a_late_pin(parted: Shop) -> None:
    """Whatever tenants and times they have: a late PIN finds its row wherever that is."""
    await lines(parted)
    twice, tenants = str(uuid.uuid4()), [str(uuid.UUID(int=n)) for n in (1, 2)]
    await parted.add("completed", order_id=twice, sent_at=NOW, tenant_id=tenants[0])
    await parted.add("completed", order_id=twice, sent_at=1_700_000_000.0, tenant_id=tenants[1])
    orders = await prepared(parted)
    order = parted.order(twice, status="completed", ended_at=NOW, tenant_id=tenants[0], sent_at=NOW)
    (result,) = await orders.record([found(order, Completed(Pin("LATE")), age=60)])
    assert (result.fate, result.stuck) == (WriteStatus.STUCK, StuckReason.REJECTED_BY_DATABASE)
    pin = parted.spelling.name("pin_code")
    assert await parted.connection.fetchval(f'SELECT count("{pin}") FROM product_orders') == 0


async def test_of_two_tenants_rows_with_one_id_none_is_written(parted: Shop) -> None:
    await lines(parted)
    twice, tenants = str(uuid.uuid4()), [str(uuid.UUID(int=n)) for n in (1, 2)]
    for n, tenant in enumerate(tenants):
        await parted.add(order_id=twice, sent_at=NOW + n / 10, tenant_id=tenant)
    orders = await prepared(parted)
    order = parted.order(twice, tenant_id=tenants[0], sent_at=NOW)
    (result,) = await orders.record([found(order, Completed(Pin("P")), age=60)])
    assert (result.fate, result.stuck) == (WriteStatus.STUCK, StuckReason.REJECTED_BY_DATABASE)


@pytest.mark.parametrize("way", ["LIST", "HASH"])
async def test_of_a_table_partitioned_by_tenant_only_the_tenants_own_part_is_entered(
    shop: Shop, way: str
) -> None:
    tenants = [str(uuid.UUID(int=n)) for n in range(1, 9)]
    column = shop.spelling.name("tenant_id")
    ddl = shop.spelling.ddl.replace("PRIMARY KEY", "").rstrip().removesuffix(")")
    parts = [
        f"FOR VALUES IN ('{tenant}')"
        if way == "LIST"
        else f"FOR VALUES WITH (MODULUS 8, REMAINDER {n})"
        for n, tenant in enumerate(tenants)
    ]
    await shop.connection.execute(
        f'DROP TABLE product_orders; {ddl}, PRIMARY KEY (id, "{column}")) PARTITION BY {way} ("{column}"); '
        + "; ".join(
            f"CREATE TABLE part_{n} PARTITION OF product_orders {values}"
            for n, values in enumerate(parts)
        )
    )
    await lines(shop)
    ids = [await shop.add(sent_at=NOW, tenant_id=tenant) for tenant in tenants]
    orders = await prepared(shop, unique_pins=False)
    known = {order.id: order for order in (await orders.scan()).orders}
    statements = orders.row_writer.statements
    span = statements.span([known[ids[3]]])
    for sql in (statements.lock_sql(span), orders.reader.queries.among_sql() + span):
        plan = await explained(shop, sql, [ids[3]])
        assert len(set(re.findall(r"part_\d", plan))) == 1, plan
    assert statements.span([known[ids[3]], known[ids[4]]._replace(tenant_id=None)]) == "", (
        "whose it is nobody knows"
    )
    assert (
        len(set(re.findall(r"part_\d", await explained(shop, statements.lock_sql(), [ids[3]]))))
        == 8
    )
    await shop.set(ids[0], tenant_id=uuid.UUID(tenants[5]))
    results = await orders.record(
        [found(order, Completed(Pin(f"P-{order.id}")), age=60) for order in known.values()]
    )
    assert {result.fate for result in results} == {WriteStatus.WRITTEN}, (
        "the one that another has now too"
    )
    assert {(await shop.row(i))["pin_code"] for i in ids} == {f"P-{i}" for i in ids}


async def test_an_order_that_was_moved_to_another_partition_meanwhile_is_written_all_the_same(
    parted: Shop,
) -> None:
    await lines(parted)
    moved, stayed = await parted.add(sent_at=NOW), await parted.add(sent_at=NOW)
    orders = await prepared(parted)
    known = {order.id: order for order in (await orders.scan()).orders}
    await parted.set(moved, sent_at=datetime(2025, 6, 1, tzinfo=UTC))
    answers = [found(known[i], Completed(Pin(f"P-{i}")), age=60) for i in (moved, stayed)]
    results = await orders.record(answers)
    assert {result.fate for result in results} == {WriteStatus.WRITTEN}
    for order_id in (moved, stayed):
        assert (await parted.row(order_id))["pin_code"] == f"P-{order_id}"
    assert await orders.reread(list(known.values())) == [], "both have ended"


async def test_an_order_that_was_moved_meanwhile_is_read_again_all_the_same(parted: Shop) -> None:
    await lines(parted)
    moved, stayed = await parted.add(sent_at=NOW), await parted.add(sent_at=NOW)
    orders = await prepared(parted)
    known = (await orders.scan()).orders
    await parted.set(moved, sent_at=datetime(2025, 6, 1, tzinfo=UTC))
    assert {order.id for order in await orders.reread(known)} == {moved, stayed}


async def test_of_two_rows_with_one_id_none_is_written_though_another_order_moved(
    parted: Shop,
) -> None:
    """Looking for the one that moved leads to all partitions, and so to the other row of that id."""
    await lines(parted)
    twice, moved = str(uuid.uuid4()), await parted.add(sent_at=NOW)
    await parted.add(order_id=twice, sent_at=NOW, reference="one")
    await parted.add(order_id=twice, sent_at=1_700_000_000.0, reference="another")
    orders = await prepared(parted)
    known = {(order.id, order.reference): order for order in (await orders.scan()).orders}
    await parted.set(moved, sent_at=datetime(2025, 6, 1, tzinfo=UTC))
    answers = [
        found(known[twice, "one"], Completed(Pin("PIN-OF-ONE")), age=60),
        found(
            next(o for o in known.values() if o.id == moved), Completed(Pin("PIN-OF-MOVED")), age=60
        ),
    ]
    fates = {result.finding.order.id: result.fate for result in await orders.record(answers)}
    assert fates == {twice: WriteStatus.STUCK, moved: WriteStatus.WRITTEN}
    pin = parted.spelling.name("pin_code")
    rows = await parted.connection.fetch(
        f'SELECT provider_referans AS r, "{pin}" AS pin FROM product_orders'
    )
    assert sorted((row["pin"] or "") for row in rows) == ["", "", "PIN-OF-MOVED"]


async def test_a_partition_that_comes_or_goes_while_running_stops_nothing(parted: Shop) -> None:
    await lines(parted)
    there = await parted.add(sent_at=NOW)
    await parted.add(sent_at=1_700_000_000.0)
    orders = await prepared(parted)
    assert len((await orders.scan()).orders) == 2
    await parted.connection.execute("ALTER TABLE product_orders DETACH PARTITION old")
    await parted.connection.execute(
        "CREATE TABLE older PARTITION OF product_orders FOR VALUES FROM (MINVALUE) TO ('2025-01-01')"
    )
    early = await parted.add(sent_at=1_700_000_000.0)
    scan = await orders.scan()
    assert {order.id for order in scan.orders} == {there, early}
    results = await orders.record(
        [found(order, Completed(Pin(f"P-{order.id}")), age=60) for order in scan.orders]
    )
    assert {result.fate for result in results} == {WriteStatus.WRITTEN}


async def test_partitions_added_later_have_the_indexes_already(parted: Shop) -> None:
    await lines(parted)
    await parted.connection.execute(
        "CREATE TABLE newer PARTITION OF product_orders FOR VALUES FROM ('2030-01-01') TO (MAXVALUE)"
    )
    assert await lines(parted) == []
    assert of(await examined(parted), "warning") == []


@pytest.mark.parametrize("steps", range(1, 21, 3))
async def test_a_break_at_any_step_is_finished_by_the_next_run(parted: Shop, steps: int) -> None:
    plan = migration(parted)
    for change in (await plan.missing(await plan.table()))[:steps]:
        await parted.connection.execute(change.sql)
    await lines(parted)
    assert all((await valid(parted)).values())
    assert await lines(parted) == []


async def test_a_partitions_index_left_half_built_is_built_anew(parted: Shop) -> None:
    plan = migration(parted)
    leaf = next(
        c for c in await plan.missing(await plan.table()) if c.index and "CONCURRENTLY" in c.sql
    )
    other = await asyncpg.connect(parted.dsn)
    try:
        async with other.transaction():
            await other.execute("LOCK TABLE old, new_0, new_1 IN ROW EXCLUSIVE MODE")
            await parted.connection.execute("SET statement_timeout = '300ms'")
            with pytest.raises(asyncpg.QueryCanceledError):
                await parted.connection.execute(leaf.sql)
            await parted.connection.execute("RESET statement_timeout")
    finally:
        await other.close()
    told = await lines(parted)
    assert f"dropped {leaf.what}, which was left half-built" in told
    assert all((await valid(parted)).values())


async def test_other_statuses_give_a_partitioned_table_other_indexes_and_take_the_old_ones(
    parted: Shop,
) -> None:
    await lines(parted)
    await lines(parted, replace(LAYOUT, open=("sent", "processing")))
    assert len(await valid(parted)) == 3
    assert all((await valid(parted)).values())
    count = await parted.connection.fetchval(
        "SELECT count(*) FROM pg_class WHERE relname LIKE '%\\_om\\_%'"
    )
    assert count == 3 * 5, "root, sub-partitioned part and three leaves; nothing of the old ones"


async def test_the_dry_run_for_a_partitioned_table_runs_as_printed(parted: Shop) -> None:
    plan = migration(parted)
    sql = as_sql(await plan.missing(await plan.table()))
    for statement in sql.split(";\n"):
        await parted.connection.execute(statement)
    assert all((await valid(parted)).values())
    assert as_sql(await plan.missing(await plan.table())) == "-- nothing to do"


async def test_the_reference_is_added_to_every_partition(parted: Shop) -> None:
    await parted.connection.execute("ALTER TABLE product_orders DROP COLUMN provider_referans")
    await lines(parted)
    await works(parted)


@pytest.mark.long
async def test_the_shop_never_queues_behind_the_index_of_a_partitioned_table(parted: Shop) -> None:
    """The empty index of the parent needs a lock for a moment: it is had at once, or asked for
    again. Otherwise it would be waited for until the transaction here ends, which it does not.
    """
    async with parted.connection.transaction():
        await parted.connection.execute("LOCK TABLE product_orders IN ROW EXCLUSIVE MODE")
        task = asyncio.create_task(lines(parted))
        other = await asyncpg.connect(parted.dsn)
        try:
            for _ in range(30):
                await asyncio.sleep(0.1)
                await other.execute(
                    "SET statement_timeout = '20s'; UPDATE product_orders SET status = status WHERE false"
                )
        finally:
            await other.close()
    assert "added table order_monitor_review" in await task


async def test_one_partition_as_the_table_sends_to_the_whole(plain_shop: Shop) -> None:
    await plain_shop.connection.execute(
        "ALTER TABLE product_orders DROP CONSTRAINT product_orders_pkey; ALTER TABLE product_orders RENAME TO part; "
        "CREATE TABLE whole (LIKE part) PARTITION BY LIST (tenant_id); ALTER TABLE whole ATTACH PARTITION part DEFAULT; "
        "ALTER TABLE part RENAME TO product_orders"
    )
    await lines(plain_shop)
    assert any(
        "is one partition of whole" in line for line in of(await examined(plain_shop), "warning")
    )
    await plain_shop.connection.execute("ALTER TABLE whole DROP COLUMN provider_referans")
    await refused(plain_shop, r"is a partition of whole; set database\.table to that")


async def test_a_foreign_partition_is_warned_about_and_the_others_are_indexed(parted: Shop) -> None:
    columns = ", ".join(
        f'"{row[0]}" {row[1]}'
        for row in await parted.connection.fetch(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = 'product_orders'::regclass AND attnum > 0"
        )
    )
    sent = parted.spelling.name("sent_at")
    key = await parted.connection.fetchval(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'product_orders'::regclass AND contype = 'p'"
    )
    await parted.connection.execute(
        f"ALTER TABLE product_orders DROP CONSTRAINT {key}; "
        f"CREATE FOREIGN DATA WRAPPER d; CREATE SERVER far FOREIGN DATA WRAPPER d; "
        f"CREATE FOREIGN TABLE cold ({columns}) SERVER far; "
        f'ALTER TABLE cold ALTER "{sent}" SET NOT NULL, ALTER id SET NOT NULL, ALTER status SET NOT NULL; '
        "ALTER TABLE product_orders ATTACH PARTITION cold FOR VALUES FROM ('2030-01-01') TO (MAXVALUE)"
    )
    await lines(parted)
    assert await lines(parted) == []
    database = parted.database()
    table = await Migration(database, LAYOUT, SystemClock()).table()
    from order_monitor.shop.schema.relations import remarks_of

    ((text, do),) = remarks_of(table.relation, "x")
    assert "public.cold" in text
    assert "foreign" in do


# --- tables that inherit, and identity


async def test_tables_that_inherit_are_indexed_read_and_written(shop: Shop) -> None:
    await shop.connection.execute("CREATE TABLE child (PRIMARY KEY (id)) INHERITS (product_orders)")
    await lines(shop)
    assert (
        await shop.connection.fetchval("SELECT count(*) FROM pg_indexes WHERE tablename = 'child'")
        == 4
    )
    assert await lines(shop) == []
    seen = await examined(shop)
    assert of(seen, "error") == []
    assert any("nothing keeps id unique" in line for line in of(seen, "warning"))
    await works(shop)
    order_id = await shop.add()
    await shop.connection.execute(
        "WITH gone AS (DELETE FROM product_orders WHERE id = $1::uuid RETURNING *) INSERT INTO child SELECT * FROM gone",
        order_id,
    )
    (result,) = await write_all(
        shop.orders(), [found(shop.order(order_id), Completed(Pin("CHILD-1")))]
    )
    assert result.fate is WriteStatus.WRITTEN


async def test_without_a_key_all_works_and_check_says_how_to_make_one(shop: Shop) -> None:
    await shop.connection.execute("ALTER TABLE product_orders DROP CONSTRAINT product_orders_pkey")
    await lines(shop)
    (warning,) = of(await examined(shop), "warning")
    assert (
        'nothing keeps id unique -> ALTER TABLE "public"."product_orders" ADD PRIMARY KEY ("id")'
        in warning
    )
    await works(shop)
    await shop.connection.execute(warning.partition("-> ")[2])
    assert of(await examined(shop), "warning") == []


async def test_two_rows_of_one_id_keep_no_other_order_from_being_read_again(shop: Shop) -> None:
    """All of a batch were put off, each time that they came due."""
    await shop.connection.execute("ALTER TABLE product_orders DROP CONSTRAINT product_orders_pkey")
    await lines(shop)
    twice, other = [await shop.add(noted=False) for _ in range(2)]
    await shop.add(order_id=twice, reference=f"r-{twice[:8]}", sent_at=NOW - 50, noted=False)
    orders = shop.orders()
    read = (await orders.scan()).orders
    assert [order.id for order in read].count(twice) == 2
    again = await orders.reread(read)
    assert {order.id for order in again} == {twice, other}
    assert all(order.registered for order in again)


@pytest.mark.parametrize("second", ["sent", "failed"])
async def test_two_rows_of_one_id_are_both_left_and_the_others_are_written(
    shop: Shop, second: str
) -> None:
    """Written twice, an order would have two events, and be paid back twice."""
    await shop.connection.execute("ALTER TABLE product_orders DROP CONSTRAINT product_orders_pkey")
    await lines(shop)
    twice, other = await shop.add(), await shop.add()
    await shop.add(second, order_id=twice)
    orders = shop.orders()
    await orders.scan()
    results = await write_all(
        orders, [found(shop.order(i), Completed(Pin(PIN))) for i in (twice, other)]
    )
    fates = {r.finding.order.id: (r.fate, r.stuck) for r in results}
    assert fates == {
        twice: (WriteStatus.STUCK, StuckReason.REJECTED_BY_DATABASE),
        other: (WriteStatus.WRITTEN, None),
    }
    pins = await shop.connection.fetch(
        f'SELECT "{shop.spelling.name("pin_code")}" FROM product_orders WHERE id = $1::uuid', twice
    )
    assert [row[0] for row in pins] == [None, None]
    assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_events") == 1
    errors = of(await examined(shop), "error")
    assert any(
        "shares its id with another row: none of these is written -> give each row" in line
        for line in errors
    )
    assert any("more rows than one have this id" in line for line in errors)


# --- columns


async def retyped(shop: Shop, logical: str, kind: str) -> None:
    name = shop.spelling.name(logical)
    await shop.connection.execute(
        f'ALTER TABLE product_orders ALTER "{name}" DROP DEFAULT; ALTER TABLE product_orders ALTER "{name}" TYPE {kind}'
    )


async def test_columns_of_padded_text_hold_what_they_should(shop: Shop) -> None:
    await shop.connection.execute("CREATE UNIQUE INDEX ON product_orders (provider_referans)")
    for logical, kind in (
        ("pin_code", "char(20)"),
        ("external_status", "char(30)"),
        ("provider_referans", "char(40)"),
    ):
        await retyped(shop, logical, kind)
    await lines(shop)
    assert of(await examined(shop), "error") == []
    await works(shop)
    blank = await shop.add(pin="   ")
    wide = await shop.add()
    orders = shop.orders()
    await orders.scan()
    results = await write_all(
        orders,
        [
            found(shop.order(blank), Completed(Pin("B-1"))),
            found(shop.order(wide), Completed(Pin("W" * 21))),
        ],
    )
    fates = {r.finding.order.id: (r.fate, r.stuck) for r in results}
    assert fates == {
        blank: (WriteStatus.WRITTEN, None),
        wide: (WriteStatus.STUCK, StuckReason.PIN_TOO_WIDE),
    }
    has_pin = await shop.connection.fetchval(
        "SELECT bool_and(has_pin) FROM order_monitor_events WHERE to_status = 'completed'"
    )
    assert has_pin


async def test_a_padded_id_is_found_by_its_index(plain_bare_shop: Shop) -> None:
    await retyped(plain_bare_shop, "id", "char(40)")
    await lines(plain_bare_shop)
    orders = await prepared(plain_bare_shop)
    order_id = await plain_bare_shop.add()
    (result,) = await orders.record([found(plain_bare_shop.order(order_id), Completed(Pin(PIN)))])
    assert result.fate is WriteStatus.WRITTEN
    await plain_bare_shop.connection.execute("SET enable_seqscan = off")
    sql = orders.row_writer.statements.lock_sql().replace("$1", "ARRAY['x']")
    plan = "\n".join(row[0] for row in await plain_bare_shop.connection.fetch(f"EXPLAIN {sql}"))
    assert "product_orders_pkey" in plan


async def test_generated_columns_are_left_out_where_that_is_possible(plain_shop: Shop) -> None:
    await plain_shop.connection.execute(
        "ALTER TABLE product_orders ADD provider_message text GENERATED ALWAYS AS (upper(pin_code)) STORED, "
        "ADD duration_ms int GENERATED ALWAYS AS (1) STORED, ADD last_sync_at bigint, ADD completed_at text"
    )
    await lines(plain_shop)
    seen = await examined(plain_shop)
    assert of(seen, "error") == []
    left = {
        line.text.removeprefix("left out: ").split()[0]: line.do
        for line in seen
        if line.text.startswith("left out")
    }
    assert left.keys() == {"provider_message", "duration_ms", "last_sync_at", "completed_at"}
    assert all(do.startswith("make it") for do in left.values())
    await works(plain_shop)


@pytest.mark.parametrize("logical", ["pin_code", "external_status"])
async def test_a_generated_pin_or_status_is_refused(shop: Shop, logical: str) -> None:
    name = shop.spelling.name(logical)
    await shop.connection.execute(
        f'ALTER TABLE product_orders DROP COLUMN "{name}", ADD COLUMN "{name}" text GENERATED ALWAYS AS (\'sent\'::text) STORED'
    )
    await refused(
        shop, rf"{name} is generated or computed, and cannot be written: make it a plain column"
    )


@pytest.mark.parametrize(
    ("logical", "kind", "wish"),
    [("sent_at", "bigint", "timestamp"), ("pin_code", "bigint", "text")],
)
async def test_a_column_of_a_type_of_no_use_is_refused(
    shop: Shop, logical: str, kind: str, wish: str
) -> None:
    """A PIN kept as a number would lose its leading zeros."""
    name = shop.spelling.name(logical)
    await shop.connection.execute(
        f'ALTER TABLE product_orders DROP COLUMN "{name}", ADD COLUMN "{name}" {kind}'
    )
    await refused(shop, rf"{name} is of type {kind}: make it {wish}")


async def test_an_identity_column_as_the_id_works(bare_shop: Shop) -> None:
    shop = bare_shop
    await shop.connection.execute(
        "ALTER TABLE product_orders DROP COLUMN id, ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
    )
    await lines(shop)
    assert of(await examined(shop), "error") == []
    status, sent = shop.spelling.name("external_status"), shop.spelling.name("sent_at")
    await shop.connection.execute(
        f"INSERT INTO product_orders (\"{status}\", \"{sent}\", provider_referans) VALUES ('sent', now() - interval '1 h', 'r')"
    )
    orders = shop.orders()
    (order,) = await orders.reread((await orders.scan()).orders)
    (result,) = await write_all(orders, [found(order, Completed(Pin(PIN)))])
    assert result.fate is WriteStatus.WRITTEN
    assert await shop.connection.fetchval("SELECT order_id FROM order_monitor_events") == int(
        order.id
    )


async def test_domains_are_the_types_under_them_nested_ones_too(bare_shop: Shop) -> None:
    shop = bare_shop
    await shop.connection.execute(
        "CREATE DOMAIN code AS varchar(20); CREATE DOMAIN pin AS code; CREATE DOMAIN key AS uuid; CREATE DOMAIN key2 AS key; "
        "CREATE DOMAIN moment AS timestamptz; CREATE DOMAIN state AS text CHECK (value <> 'done')"
    )
    for logical, kind in (
        ("pin_code", "pin"),
        ("id", "key2"),
        ("sent_at", "moment"),
        ("external_status", "state"),
    ):
        await retyped(shop, logical, kind)
    await lines(shop)
    assert of(await examined(shop), "error") == []
    await works(shop)
    orders = await prepared(shop, rules=replace(LAYOUT.rules, completed="done"))
    assert (orders.table["pin_code"].width, orders.table["id"].data_type) == (20, "uuid")
    wide, denied = await shop.add(), await shop.add()
    results = await write_all(
        orders,
        [
            found(shop.order(wide), Completed(Pin("W" * 21))),
            found(shop.order(denied), Completed(Pin("DENIED-1"))),
        ],
    )
    told = {r.finding.order.id: (r.stuck, r.detail) for r in results}
    assert told[wide][0] is StuckReason.PIN_TOO_WIDE
    assert told[denied][0] is StuckReason.REJECTED_BY_DATABASE
    assert "[23514]; " in told[denied][1]


async def test_an_enum_under_a_domain_is_an_enum(plain_bare_shop: Shop) -> None:
    await plain_bare_shop.connection.execute(
        "CREATE TYPE state AS ENUM ('sent', 'processing', 'completed', 'failed', 'not_sent'); CREATE DOMAIN state2 AS state"
    )
    await retyped(plain_bare_shop, "external_status", "state2 USING external_status::state")
    await lines(plain_bare_shop)
    assert of(await examined(plain_bare_shop), "error") == []
    await works(plain_bare_shop)


@pytest.mark.parametrize("odd", ["External_Status", "externalstatus", "EXTERNAL_STATUS"])
async def test_a_column_in_another_case_is_named_with_the_setting_that_finds_it(
    shop: Shop, odd: str
) -> None:
    await shop.connection.execute(
        f'ALTER TABLE product_orders RENAME COLUMN "{shop.spelling.name("external_status")}" TO "{odd}"'
    )
    with pytest.raises(SettingsError, match=rf'columns = {{ external_status = "{odd}" }}'):
        await lines(shop)
    if shop.spelling is not SHOP:  # there the status is what the spelling is told by
        await lines(shop, replace(LAYOUT, overrides={"external_status": odd}))


async def test_a_reference_in_another_case_is_not_added_a_second_time(shop: Shop) -> None:
    await shop.connection.execute(
        'ALTER TABLE product_orders RENAME provider_referans TO "providerReferans"'
    )
    await refused(shop, r'columns = { provider_referans = "providerReferans" }')


# --- what refuses


async def raising(shop: Shop, when: str, body: str) -> None:
    await shop.connection.execute(
        f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$; "
        f"CREATE {when} EXECUTE FUNCTION f()"
    )


async def test_what_a_trigger_raises_is_told_by_its_code_and_never_by_its_words(shop: Shop) -> None:
    """Every field of an error may be filled with the row: message, detail, hint, and the names of
    things.
    """
    pin = f'NEW."{shop.spelling.name("pin_code")}"'
    fields = ", ".join(
        f"{name} = {pin}"
        for name in ("MESSAGE", "DETAIL", "HINT", "TABLE", "COLUMN", "CONSTRAINT", "SCHEMA")
    )
    await raising(
        shop,
        "TRIGGER t BEFORE UPDATE ON product_orders FOR EACH ROW",
        f"RAISE EXCEPTION USING ERRCODE = '23505', {fields};",
    )
    await lines(shop)
    order_id = await shop.add()
    (result,) = await write_all(shop.orders(), [found(shop.order(order_id), Completed(Pin(PIN)))])
    assert result.stuck is StuckReason.REJECTED_BY_DATABASE
    assert result.detail.startswith(
        "a trigger or function of the shop's refused it [23505]; see which"
    )
    assert "CANARY" not in result.detail
    (error,) = of(await examined(shop), "error")
    assert "[23505]" in error
    assert "CANARY" not in error


async def test_a_trigger_for_each_statement_that_raises_is_an_error_in_check(
    plain_shop: Shop,
) -> None:
    await raising(
        plain_shop,
        "TRIGGER t BEFORE UPDATE ON product_orders FOR EACH STATEMENT",
        "RAISE EXCEPTION 'CANARY';",
    )
    (error,) = of(await examined(plain_shop), "error")
    assert (
        "a statement of the work is refused: a trigger or function of the shop's refused it [P0001]; see which"
        in error
    )


async def test_a_trigger_on_changes_of_tables_is_told_by_migrate(plain_bare_shop: Shop) -> None:
    await plain_bare_shop.connection.execute(
        "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'CANARY'; END $$; "
        "CREATE EVENT TRIGGER t ON ddl_command_start EXECUTE FUNCTION f()"
    )
    with pytest.raises(
        ShopError, match=r"a trigger or function of the shop's refused it \[P0001\]; see which"
    ) as error:
        await lines(plain_bare_shop)
    assert "CANARY" not in str(error.value)


DEFERRED = {
    "unique": 'ALTER TABLE product_orders ADD UNIQUE ("{pin}") DEFERRABLE INITIALLY DEFERRED',
    "foreign key": (
        "CREATE TABLE pins (pin varchar(120) PRIMARY KEY); INSERT INTO pins SELECT 'P-' || n FROM generate_series(0, 7) n; "
        'ALTER TABLE product_orders ADD FOREIGN KEY ("{pin}") REFERENCES pins DEFERRABLE INITIALLY DEFERRED'
    ),
}


@pytest.mark.parametrize("rule", DEFERRED)
async def test_one_row_that_fails_at_commit_sinks_no_batch(shop: Shop, rule: str) -> None:
    await shop.connection.execute(DEFERRED[rule].format(pin=shop.spelling.name("pin_code")))
    if rule == "unique":
        await shop.add("completed", pin="P-TAKEN")
    await lines(shop)
    ids = [await shop.add() for _ in range(8)]
    orders = shop.orders()
    await orders.scan()
    findings = [
        found(shop.order(i), Completed(Pin("P-TAKEN" if n == 3 else f"P-{n}")))
        for n, i in enumerate(ids)
    ]
    results = await write_all(orders, findings)
    assert {r.finding.order.id for r in results if r.fate is WriteStatus.WRITTEN} == {*ids} - {
        ids[3]
    }
    (bad,) = [r for r in results if r.fate is WriteStatus.STUCK]
    assert ("[23505]" if rule == "unique" else "[23503]") in bad.detail
    assert "TAKEN" not in bad.detail
    assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_events") == 7
