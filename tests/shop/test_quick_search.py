"""The page's search: any of an order's names, by indexes alone, and never for long."""

import uuid

import pytest

from order_monitor.shop import quick_search as module
from order_monitor.shop.quick_search import Found, quick_search
from tests.support.shops import NOW, Shop


async def search(shop: Shop, typed: str, **table_config: object) -> Found:
    database = shop.database()
    return await quick_search(database, shop.orders(database, **table_config), typed)


def ids(found: Found) -> list[str]:
    return [hit.order_id for hit in found.hits]


async def test_an_order_is_found_by_its_id_its_beginning_and_its_reference(shop: Shop) -> None:
    await shop.connection.execute("CREATE INDEX ON product_orders (provider_referans)")
    order_id = await shop.add(reference="R-4711")
    await shop.add(reference="R-4712")
    for typed in (
        order_id,
        order_id.upper(),
        order_id.replace("-", ""),
        order_id[:9],
        "R-4711",
        " R-4711 ",
    ):
        found = await search(shop, typed)
        assert ids(found) == [order_id], typed
        assert (found.has_more, found.not_searched) == (False, ())
    assert ids(await search(shop, "R-471")) == []


async def test_it_finds_what_has_ended_too(plain_shop: Shop) -> None:
    order_id = await plain_shop.add("completed", pin="1", reference="R-1")
    (hit,) = (await search(plain_shop, order_id)).hits
    assert (hit.status, hit.reference, hit.sent_at) == ("completed", "R-1", NOW - 100)


async def test_without_an_index_on_the_reference_our_own_table_knows_it(plain_shop: Shop) -> None:
    """What was asked about is noted there; the rest is said to be left out."""
    await plain_shop.connection.execute(
        "DO $$ DECLARE i text; BEGIN FOR i IN SELECT indexrelid::regclass FROM pg_index JOIN pg_attribute a "
        "ON a.attrelid = indrelid AND a.attnum = indkey[0] WHERE indrelid = 'product_orders'::regclass "
        "AND attname = 'provider_referans' LOOP EXECUTE 'DROP INDEX ' || i; END LOOP; END $$"
    )
    order_id = await plain_shop.add(reference="R-4711", noted=False)
    found = await search(plain_shop, "R-4711")
    assert (ids(found), found.not_searched) == ([], ("provider_referans",))
    await plain_shop.note(order_id)
    assert ids(await search(plain_shop, "R-4711")) == [order_id]


async def test_further_columns_are_searched_where_an_index_leads_with_them(
    plain_shop: Shop,
) -> None:
    await plain_shop.connection.execute("ALTER TABLE product_orders ADD number integer")
    order_id = await plain_shop.add()
    await plain_shop.connection.execute(
        "UPDATE product_orders SET number = 4711 WHERE id::text = $1", order_id
    )
    found = await search(plain_shop, "4711", lookup=("number",))
    assert (ids(found), "number" in found.not_searched) == ([], True)
    await plain_shop.connection.execute("CREATE INDEX ON product_orders (number)")
    found = await search(plain_shop, "4711", lookup=("number",))
    assert (ids(found), "number" in found.not_searched) == ([order_id], False)
    assert ids(await search(plain_shop, "no number", lookup=("number",))) == []


async def test_many_hits_are_cut_and_odd_text_finds_nothing(plain_shop: Shop) -> None:
    for n in range(12):
        await plain_shop.add(order_id=f"abcd1234-0000-4000-8000-{n:012d}")
    found = await search(plain_shop, "abcd1234")
    assert (len(found.hits), found.has_more) == (10, True)
    for typed in (
        "",
        "   ",
        "\0",
        "x" * 5000,
        "'; DROP TABLE product_orders; --",
        "\ud800",
        str(uuid.uuid4()),
    ):
        assert (await search(plain_shop, typed)).hits == [], typed


async def test_it_gives_up_where_the_table_is_held(
    plain_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In time, and without taking the database for lost."""
    order_id = await plain_shop.add()
    database = plain_shop.database()
    orders = plain_shop.orders(database)
    await orders.complete()
    monkeypatch.setattr(module, "LIMIT", 0.3)
    async with plain_shop.connection.transaction():
        await plain_shop.connection.execute("LOCK TABLE product_orders IN ACCESS EXCLUSIVE MODE")
        found = await quick_search(database, orders, order_id)
    assert found.hits == []
    assert "id" in found.not_searched
    assert database.problem is None
    assert ids(await quick_search(database, orders, order_id)) == [order_id]
