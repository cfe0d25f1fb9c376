"""What would refuse a write: read in the catalogue, and tried on a real row and rolled back."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from order_monitor.core.answer import Completed, Waiting
from order_monitor.core.pin import Pin
from order_monitor.shop.check.dry_run import DryRun
from order_monitor.shop.check.line import CheckLine
from order_monitor.shop.check.obstacles import crowded, walls_of
from order_monitor.shop.check.tables import TableCheck
from order_monitor.shop.migration import Migration
from order_monitor.shop.schema.table_config import TableConfig
from order_monitor.shop.writing.left_out import ENOUGH
from order_monitor.watch.system_clock import SystemClock
from tests.support.obstacles import check, domain, keeping, key, raising, shadowed
from tests.support.orders import found, prepared
from tests.support.shops import LAYOUT, Shop, migrate
from tests.support.writing import write_all

Lines = list[CheckLine]


async def walls(shop: Shop, **words: str) -> Lines:
    database, table_config = shop.database(), with_words(**words)
    migration = Migration(database, table_config, SystemClock())
    return await walls_of(database, migration, await migration.table(), table_config)


def with_words(**words: str) -> TableConfig:
    return replace(LAYOUT, rules=replace(LAYOUT.rules, **words))  # type: ignore[arg-type]


async def rehearsed(shop: Shop) -> Lines:
    orders = shop.orders()
    await orders.complete()
    return await DryRun(shop.database(), orders).lines()


def told(lines: Lines) -> list[tuple[str, str]]:
    return [(line.level, line.subject) for line in lines]


async def test_where_nothing_stands_in_the_way_nothing_is_said(shop: Shop) -> None:
    assert await walls(shop) == []


@pytest.mark.parametrize("wall", [check, key, domain])
async def test_a_wall_before_the_word_for_waiting_is_a_warning(
    shop: Shop, wall: Callable[[Shop], Awaitable[None]]
) -> None:
    await wall(shop)
    lines = await walls(shop)
    assert told(lines) == [("warning", "statuses.processing")]
    assert "'processing' is refused by" in lines[0].text
    assert "set statuses.processing" in lines[0].do


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE product_orders ADD CONSTRAINT c CHECK (external_status IN ('sent', 'processing', 'done', 'failed'))",
        "ALTER TABLE product_orders ADD CONSTRAINT c CHECK (length(external_status) < 12 AND external_status !~ 'comp') NOT VALID",
        (
            "CREATE TABLE w (word text PRIMARY KEY); INSERT INTO w VALUES ('sent'), ('processing'), ('failed'); "
            "ALTER TABLE product_orders ADD CONSTRAINT c FOREIGN KEY (external_status) REFERENCES w"
        ),
        (
            "CREATE DOMAIN base AS varchar(30) CHECK (VALUE <> 'completed'); CREATE DOMAIN above AS base; "
            "ALTER TABLE product_orders ALTER external_status DROP DEFAULT, ALTER external_status TYPE above"
        ),
    ],
)
async def test_a_wall_before_a_word_that_ends_an_order_is_an_error(
    plain_shop: Shop, sql: str
) -> None:
    await plain_shop.connection.execute(sql)
    lines = await walls(plain_shop)
    assert told(lines) == [("error", "statuses.completed")]
    assert await walls(plain_shop, completed="failed") == []


async def test_what_only_looks_like_a_wall_is_none(plain_shop: Shop) -> None:
    """Null is not false; a constraint over two columns, or one that cannot be computed, is for the
    rehearsal.
    """
    await plain_shop.connection.execute(
        "ALTER TABLE product_orders ADD CHECK (external_status <> NULL), "
        "ADD CHECK (external_status <> 'completed' OR pin_code IS NOT NULL OR pin_code IS NULL), "
        "ADD CHECK (external_status::text !~ '^[0-9]+$' OR external_status::int > 0)"
    )
    assert await walls(plain_shop) == []


async def test_walls_behind_a_view_and_of_a_partition_are_seen(plain_bare_shop: Shop) -> None:
    connection = plain_bare_shop.connection
    await check(plain_bare_shop)
    await connection.execute(
        "ALTER TABLE product_orders RENAME TO behind; CREATE VIEW product_orders AS SELECT * FROM behind"
    )
    assert told(await walls(plain_bare_shop)) == [("warning", "statuses.processing")]
    await connection.execute(
        "DROP VIEW product_orders; CREATE TABLE product_orders (LIKE behind) PARTITION BY RANGE (sent_at); "
        "CREATE TABLE part PARTITION OF product_orders (CONSTRAINT own CHECK (external_status <> 'failed')) DEFAULT"
    )
    assert told(await walls(plain_bare_shop)) == [("error", "statuses.failed")]


async def test_a_column_of_our_own_tables_that_nobody_fills_is_an_error(plain_shop: Shop) -> None:
    await plain_shop.connection.execute(
        "ALTER TABLE order_monitor_events ADD COLUMN shop_code text NOT NULL, ADD COLUMN fine text NOT NULL DEFAULT '', "
        "ADD COLUMN empty text, ADD COLUMN number int GENERATED ALWAYS AS IDENTITY; "
        "CREATE DOMAIN given AS text NOT NULL; ALTER TABLE order_monitor_pins ADD COLUMN other given"
    )
    lines = await walls(plain_shop)
    assert told(lines) == [
        ("error", "table order_monitor_events"),
        ("error", "table order_monitor_pins"),
    ]
    for line in lines:
        await plain_shop.connection.execute(
            line.do.partition(" (")[0].replace("DROP NOT NULL", "SET DEFAULT ''")
        )
    assert await walls(plain_shop) == []


@pytest.mark.long
async def test_check_tells_what_the_processes_have_found_out(plain_shop: Shop) -> None:
    shop = plain_shop
    await raising(shop)
    orders = await prepared(shop)
    database, table_config = shop.database(), LAYOUT
    for count, words in ((1, "from 20 on"), (ENOUGH + 5, "it is left out")):
        ids = [await shop.add() for _ in range(count)]
        await write_all(orders, [found(shop.order(i), Waiting("x")) for i in ids])
        table_check = TableCheck(
            database, shop.orders(), Migration(database, table_config, SystemClock()), table_config
        )
        (line,) = [
            line async for line in table_check.examine() if line.subject == "statuses.processing"
        ]
        assert words in line.text


def test_a_queue_that_is_more_than_half_full_is_told() -> None:
    assert crowded(0.4) == []
    assert "73% full" in crowded(0.73)[0].text


# --- the rehearsal


async def state(shop: Shop) -> Any:
    tables = (
        "product_orders",
        "order_monitor_events",
        "order_monitor_pins",
        "order_monitor_review",
        "order_monitor_deliveries",
    )
    return [await shop.connection.fetch(f"SELECT * FROM {table} ORDER BY 1") for table in tables]


async def ended(shop: Shop) -> str:
    """An order that we have ended, beside others before and after it."""
    await shop.add("failed", order_id="00000000-0000-4000-8000-000000000001", pin=None)
    order_id = await shop.add(tenant_id="11111111-1111-4111-8111-111111111111", note="before")
    await (await prepared(shop)).record(
        [found(shop.order(order_id), Completed(Pin("4444-5555"), "ok"))]
    )
    await shop.add()
    return order_id


async def test_all_three_words_are_tried_and_nothing_is_left_of_it(shop: Shop) -> None:
    order_id = await ended(shop)
    before, heard = await state(shop), []
    await shop.connection.add_listener("order_monitor", lambda *given: heard.append(given))
    lines = await rehearsed(shop)
    assert [line.level for line in lines] == ["ok"] * 4, lines
    assert f"order {order_id}, our newest event's" in lines[0].text
    assert await state(shop) == before
    await asyncio.sleep(0.1)
    assert heard == []


async def test_without_an_event_it_is_the_first_row_that_is_not_open(shop: Shop) -> None:
    ids = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 5)]
    for order_id, status in zip(ids, ("sent", "failed", "completed", "sent"), strict=True):
        await shop.add(
            status, order_id=order_id, sent_at=None if status == "failed" else 1_790_000_000.0
        )
    assert ids[1] in (await rehearsed(shop))[0].text
    async with shop.connection.transaction():
        await shop.connection.execute(
            f"SELECT 1 FROM product_orders WHERE id = '{ids[1]}' FOR UPDATE"
        )
        lines = await rehearsed(shop)
        assert ids[2] in lines[0].text, "what somebody holds is passed over"
        assert {line.level for line in lines} == {"ok"}


async def test_where_no_row_is_fit_it_says_so(plain_shop: Shop) -> None:
    await plain_shop.add()
    (line,) = await rehearsed(plain_shop)
    assert (line.level, line.text[:9]) == ("warning", "not tried")


async def failing_later(shop: Shop) -> None:
    await shop.connection.execute(
        "CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF NEW.\"{shop.spelling.name('external_status')}\" = 'processing' THEN RAISE EXCEPTION 'CANARY'; END IF; "
        "RETURN NEW; END $$; "
        "CREATE CONSTRAINT TRIGGER c AFTER UPDATE ON product_orders DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION later()"
    )


@pytest.mark.parametrize("wall", [check, key, domain, raising, keeping, failing_later])
async def test_a_word_that_is_refused_is_an_error_and_the_others_are_tried(
    shop: Shop, wall: Callable[[Shop], Awaitable[None]]
) -> None:
    await ended(shop)
    await wall(shop)
    before = await state(shop)
    lines = await rehearsed(shop)
    assert [line.level for line in lines] == ["ok", "error", "ok", "ok"], lines
    assert "'processing' is refused on a row at 'completed'" in lines[1].text
    assert "CANARY" not in str(lines)
    assert await state(shop) == before


UNFILLED = """
ALTER TABLE order_monitor_events ADD COLUMN shop_code text NOT NULL DEFAULT 'x';
ALTER TABLE order_monitor_events ALTER shop_code DROP DEFAULT
"""
EVERYTHING = """
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$;
CREATE TRIGGER no BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION no()
"""


@pytest.mark.parametrize(
    "sql",
    [
        EVERYTHING,
        UNFILLED,
        "ALTER TABLE order_monitor_events ADD CONSTRAINT c CHECK (source = 'shop') NOT VALID",
        "CREATE RULE r AS ON INSERT TO order_monitor_events DO INSTEAD SELECT 1/0",
    ],
)
async def test_what_refuses_every_write_refuses_every_word(plain_shop: Shop, sql: str) -> None:
    await ended(plain_shop)
    await plain_shop.connection.execute(sql)
    assert [line.level for line in await rehearsed(plain_shop)] == ["ok", "error", "error", "error"]


async def test_a_pin_that_is_refused_or_taken_away_is_seen(plain_shop: Shop) -> None:
    await ended(plain_shop)
    await plain_shop.connection.execute(
        "CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.pin_code = NULL; RETURN NEW; END $$; "
        "CREATE TRIGGER away BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION away()"
    )
    lines = await rehearsed(plain_shop)
    assert [line.level for line in lines] == ["ok", "ok", "error", "ok"]
    assert "took the PIN away" in lines[2].text


async def test_a_word_that_a_trigger_makes_another_is_a_warning(plain_shop: Shop) -> None:
    await ended(plain_shop)
    await plain_shop.connection.execute(
        "CREATE FUNCTION w() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.external_status = 'failed' THEN "
        "NEW.external_status = 'rejected'; END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER w BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION w()"
    )
    lines = await rehearsed(plain_shop)
    assert [line.level for line in lines] == ["ok", "ok", "ok", "warning"]
    assert "another status" in lines[3].text


async def test_a_hint_that_is_refused_is_a_warning(plain_shop: Shop) -> None:
    await ended(plain_shop)
    await shadowed(plain_shop)
    lines = await rehearsed(plain_shop)
    assert [line.level for line in lines] == ["ok", "warning", "warning", "warning"]
    assert "the notification with it is refused" in lines[1].text


@pytest.mark.long
async def test_what_a_trigger_must_wait_for_is_no_refusal(plain_shop: Shop) -> None:
    shop = plain_shop
    await ended(shop)
    await shop.connection.execute(
        "CREATE TABLE wallet (n int); INSERT INTO wallet VALUES (0); "
        "CREATE FUNCTION w() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE wallet SET n = n + 1; RETURN NEW; END $$; "
        "CREATE TRIGGER w BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION w()"
    )
    other = await asyncpg.connect(shop.dsn)
    async with other.transaction():
        await other.execute("UPDATE wallet SET n = 0")
        assert [line.level for line in await rehearsed(shop)] == [
            "ok",
            "warning",
            "warning",
            "warning",
        ]
    await other.close()


async def test_a_view_is_tried_through(plain_bare_shop: Shop) -> None:
    await plain_bare_shop.connection.execute(
        "ALTER TABLE product_orders RENAME TO behind; CREATE VIEW product_orders AS SELECT * FROM behind"
    )
    await migrate(plain_bare_shop.dsn)
    await plain_bare_shop.add("failed")
    assert [line.level for line in await rehearsed(plain_bare_shop)] == ["ok"] * 4
    await plain_bare_shop.connection.execute(
        "ALTER TABLE behind ADD CHECK (external_status <> 'completed' OR note <> 'x')"
    )
    assert [line.level for line in await rehearsed(plain_bare_shop)] == ["ok"] * 4
