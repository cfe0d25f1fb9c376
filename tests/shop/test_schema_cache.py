"""Finding the shop's columns, in a table this program was never told about."""

import pytest

from order_monitor.core.decision import Rules
from order_monitor.core.errors import SettingsError
from order_monitor.shop.schema.columns import Table
from order_monitor.shop.schema.search import find_table
from order_monitor.shop.schema.table_config import TableConfig
from tests.support.shops import PLAIN, SHOP, Shop


async def look(
    shop: Shop, time_zone: str | None = None, table: str = "product_orders", **overrides: str
) -> Table:
    async with shop.database().transaction() as connection:
        config = TableConfig("public", table, overrides, time_zone, (), (), Rules())
        return await find_table(connection, config)


async def test_both_spellings_are_found_without_being_told(shop: Shop) -> None:
    table = await look(shop)
    assert table["external_status"].name == shop.spelling.name("external_status")
    assert table["pin_code"].width == 120
    assert table["note"].name == shop.spelling.name("note")
    assert table["note"].width == (250 if shop.spelling is SHOP else None)
    assert (table.get("duration_ms") is not None) == (shop.spelling is SHOP)


async def test_an_override_wins(plain_shop: Shop) -> None:
    await plain_shop.connection.execute(
        'ALTER TABLE product_orders ADD COLUMN "externalOrderId" varchar(255)'
    )
    assert (await look(plain_shop, provider_referans="externalOrderId"))[
        "provider_referans"
    ].name == "externalOrderId"


async def test_an_override_to_nowhere_is_named(plain_shop: Shop) -> None:
    with pytest.raises(
        SettingsError,
        match=r"database\.columns\.pin_code: public\.product_orders has no column nope",
    ):
        await look(plain_shop, pin_code="nope")


async def test_a_missing_column_is_named_with_what_to_do(shop: Shop) -> None:
    await shop.connection.execute("ALTER TABLE product_orders DROP COLUMN provider_referans")
    with pytest.raises(
        SettingsError,
        match=r"product_orders has no column provider_referans; run: order-monitor migrate",
    ):
        await look(shop)
    await shop.connection.execute(
        f'ALTER TABLE product_orders DROP COLUMN "{shop.spelling.name("pin_code")}"'
    )
    with pytest.raises(SettingsError) as error:
        await look(shop)
    assert len(error.value.problems) == 2, "all at once"
    assert 'pin_code (or "pinCode")' in str(error.value)


async def test_a_missing_table_is_named(plain_shop: Shop) -> None:
    with pytest.raises(SettingsError, match=r"no table public\.nowhere"):
        await look(plain_shop, table="nowhere")


async def test_times_without_a_zone_need_one_named(shop: Shop) -> None:
    """B3: a naive column read in the session's zone is hours off."""
    column = shop.spelling.name("sent_at")
    await shop.connection.execute(
        f'ALTER TABLE product_orders ALTER COLUMN "{column}" TYPE timestamp'
    )
    with pytest.raises(SettingsError, match=rf"database\.time_zone: missing; .*{column}"):
        await look(shop)
    assert (await look(shop, "Asia/Baku"))["sent_at"].is_naive


async def test_names_are_quoted(database_dsn: str) -> None:
    async with Shop.create(database_dsn, PLAIN) as shop:
        await shop.connection.execute('ALTER TABLE product_orders RENAME TO "odd "" name"')
        table = await look(shop, table='odd " name')
        assert table.sql == '"public"."odd "" name"'
        order_id = "00000000-0000-4000-8000-000000000001"
        await shop.connection.execute(
            'INSERT INTO "odd "" name" (id, external_status, sent_at, provider_referans) '
            f"VALUES ('{order_id}', 'sent', now(), '1')"
        )
        scan = await shop.orders(table='odd " name').scan()
        assert [order.id for order in scan.orders] == [order_id]
