"""The table changes under a running program: it is looked at again by itself, and seldom."""

from dataclasses import replace
from typing import Any

import pytest

from order_monitor.core.answer import Completed
from order_monitor.core.errors import ShopError, ShopMisfitError
from order_monitor.core.pin import Pin
from order_monitor.shop.database import Database
from order_monitor.shop.repository import Orders
from order_monitor.shop.schema.cache import LOOK_EVERY
from tests.support.clocks import ManualClock
from tests.support.orders import found
from tests.support.shops import NOW, Shop
from tests.support.watching import watched

ENUM = (
    "CREATE TYPE word AS ENUM ({words}); ALTER TABLE product_orders ALTER {column} DROP DEFAULT, "
)
AS_ENUM = ENUM + "ALTER {column} TYPE word USING {column}::text::word"
WORDS = ("not_sent", "sent", "processing", "completed", "failed")


def as_enum(*words: str, column: str = "external_status") -> str:
    return AS_ENUM.format(words=", ".join(f"'{word}'" for word in words), column=column)


HEALED: dict[str, str] = {
    "an enum without a word that is waited by": as_enum(*WORDS),
    "a domain": "CREATE DOMAIN word AS varchar(30) CHECK (VALUE <> 'odd'); "
    "ALTER TABLE product_orders ALTER external_status TYPE word",
    "a domain over an enum": f"{as_enum(*WORDS)}; CREATE DOMAIN words AS word; "
    "ALTER TABLE product_orders ALTER external_status TYPE words",
    "another type for the PIN": "ALTER TABLE product_orders ALTER pin_code TYPE text",
    "a time without its zone": "ALTER TABLE product_orders ALTER sent_at TYPE timestamp USING sent_at AT TIME ZONE 'UTC'",
    "an optional column gone": "ALTER TABLE product_orders DROP note",
    "another table in its place": "ALTER TABLE product_orders RENAME TO before; "
    "CREATE TABLE product_orders (LIKE before INCLUDING ALL); INSERT INTO product_orders SELECT * FROM before",
}


def orders_of(
    shop: Shop, clock: ManualClock, database: Database | None = None, **changes: Any
) -> Orders:
    database = database or shop.database()
    return Orders(database, replace(shop.table_config, **changes), clock.monotonic)


async def end(orders: Orders, shop: Shop, order_id: str) -> None:
    """Read the open orders and write an end."""
    assert [order.id for order in (await orders.scan()).orders] == [order_id]
    results = await orders.record([found(shop.order(order_id), Completed(Pin("PIN-1")))])
    assert results[0].write is not None
    row = await shop.connection.fetchrow(
        "SELECT external_status::text AS s, pin_code FROM product_orders"
    )
    assert row is not None
    assert tuple(row) == ("completed", "PIN-1")


@pytest.mark.parametrize("change", HEALED)
async def test_it_goes_on_by_itself(plain_shop: Shop, change: str) -> None:
    """E6: also where nothing fails: a time that lost its zone would be read by another one without
    a word.
    """
    order_id = await plain_shop.add()
    orders = orders_of(plain_shop, ManualClock(), time_zone="UTC")
    assert len((await orders.scan()).orders) == 1
    for index in await plain_shop.connection.fetch(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'product_orders'::regclass AND NOT indisprimary"
    ):
        await plain_shop.connection.execute(f"DROP INDEX {index[0]}")
    await plain_shop.connection.execute(HEALED[change])
    await end(orders, plain_shop, order_id)


async def test_a_time_that_lost_its_zone_is_not_misread(plain_shop: Shop) -> None:
    await plain_shop.add(sent_at=NOW - 100)
    orders = orders_of(plain_shop, ManualClock(), time_zone="Asia/Baku")
    await orders.scan()
    await plain_shop.connection.execute(
        "ALTER TABLE product_orders ALTER sent_at TYPE timestamp USING sent_at AT TIME ZONE 'Asia/Baku'"
    )
    assert [order.sent_at for order in (await orders.scan()).orders] == [NOW - 100]


BROKEN: dict[str, tuple[str, str, str]] = {
    "an enum without the word for an end": (
        as_enum("not_sent", "sent", "processing", "completed"),
        "ALTER TYPE word ADD VALUE 'failed'",
        "statuses.failed: product_orders.external_status cannot hold this value",
    ),
    "a column gone": (
        "ALTER TABLE product_orders RENAME pin_code TO x",
        "ALTER TABLE product_orders RENAME x TO pin_code",
        "has no column pin_code",
    ),
    "the table gone": (
        "ALTER TABLE product_orders RENAME TO x",
        "ALTER TABLE x RENAME TO product_orders",
        "there is no table public.product_orders",
    ),
    "a type that holds no PIN": (
        "ALTER TABLE product_orders ALTER pin_code TYPE integer USING NULL",
        "ALTER TABLE product_orders ALTER pin_code TYPE text",
        "pin_code is of type integer: make it text",
    ),
}


@pytest.mark.parametrize("change", BROKEN)
async def test_what_no_look_mends_is_told_and_tried_again(plain_shop: Shop, change: str) -> None:
    wrong, right, told = BROKEN[change]
    clock, order_id = ManualClock(), await plain_shop.add()
    orders = orders_of(plain_shop, clock)
    await orders.scan()
    for index in await plain_shop.connection.fetch(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'product_orders'::regclass AND NOT indisprimary"
    ):
        await plain_shop.connection.execute(f"DROP INDEX {index[0]}")
    await plain_shop.connection.execute(wrong)
    said = ""
    for _ in range(3):
        clock.elapsed += 10
        with pytest.raises(ShopError) as caught:
            await orders.scan()
        said = str(caught.value)
    assert told in said
    assert "\n" not in said
    with pytest.raises(ShopMisfitError, match="product_orders"):
        await orders.record([found(plain_shop.order(order_id), Completed(Pin("PIN-1")))])
    await plain_shop.connection.execute(right)
    clock.elapsed += LOOK_EVERY
    await end(orders, plain_shop, order_id)


async def test_the_catalogue_is_read_once_a_minute_however_often_a_look_fails(
    plain_shop: Shop,
) -> None:
    await plain_shop.add()
    async with watched(plain_shop.dsn) as (database, asked):
        clock = ManualClock()
        orders = orders_of(plain_shop, clock, database=database)
        await orders.scan()
        await plain_shop.connection.execute("ALTER TABLE product_orders RENAME sent_at TO x")
        asked.clear()
        for _ in range(300):
            clock.elapsed += 1
            with pytest.raises(ShopError):
                await orders.scan()
        assert 4 <= sum("relpersistence" in sql for sql in asked) <= 6
