"""Each optional column left out, alone and with each other one: the work goes on, or it is said
which column is in the way.
"""

import itertools
import uuid
from dataclasses import replace
from typing import Any

import pytest

from order_monitor.core.answer import Completed, Waiting
from order_monitor.core.check_result import WriteStatus
from order_monitor.core.errors import SettingsError
from order_monitor.core.pin import Pin
from order_monitor.shop.migration import Migration
from order_monitor.shop.schema.columns import REQUIRED
from order_monitor.watch.system_clock import SystemClock
from tests.support.market import PLAIN_TABLES
from tests.support.orders import found
from tests.support.shops import LAYOUT, NOW, Shop

OPTIONAL = {
    "tenant_id": "uuid",
    "note": "text",
    "package_id": "uuid",
    "provider_message": "text",
    "last_sync_at": "timestamptz",
    "completed_at": "timestamptz",
    "duration_ms": "integer",
    "notes": "jsonb",
    "provider_id": "varchar(64)",
}
FEWER = [
    (),
    *itertools.combinations(OPTIONAL, 1),
    *itertools.combinations(OPTIONAL, 2),
    tuple(OPTIONAL),
]
REQUIRED_DDL = (
    "id uuid PRIMARY KEY, external_status varchar(30), sent_at timestamptz, pin_code varchar(120), "
    "provider_referans varchar(255)"
)


async def anew(shop: Shop, left_out: tuple[str, ...]) -> None:
    """Give the shop a table without some columns, on which nothing of ours has been yet."""
    columns = ", ".join(
        [REQUIRED_DDL, *(f"{n} {kind}" for n, kind in OPTIONAL.items() if n not in left_out)]
    )
    ours = await shop.connection.fetch(
        "SELECT relname FROM pg_class WHERE relname ~ '^order_monitor_[a-z]+$' AND relkind = 'r'"
    )
    drops = ", ".join(row[0] for row in ours)
    await shop.connection.execute(
        f"DROP TABLE IF EXISTS product_orders{f', {drops}' if drops else ''} CASCADE"
    )
    await shop.connection.execute(f"CREATE TABLE product_orders ({columns})")


async def worked(shop: Shop, **changes: Any) -> None:
    """Migrate, find two orders, and write a message into one and the end of the other, each with
    its event.
    """
    table_config = replace(LAYOUT, **changes)
    database = shop.database()
    _ = [line async for line in Migration(database, table_config, SystemClock()).apply()]
    waits, ends = [
        await shop.connection.fetchval(
            "INSERT INTO product_orders (id, external_status, sent_at, provider_referans) "
            "VALUES (gen_random_uuid(), 'sent', to_timestamp($1), $2) RETURNING id::text",
            NOW - 100,
            ref,
        )
        for ref in ("r1", "r2")
    ]
    orders = shop.orders(database, **changes)
    scan = await orders.scan()
    known = {order.id: order for order in await orders.reread(scan.orders)}
    assert set(known) == {waits, ends}
    results = await orders.record(
        [
            found(known[waits], Waiting("bekleniyor")),
            found(known[ends], Completed(Pin("P-1"), "tamam")),
        ]
    )
    assert {result.fate for result in results} == {WriteStatus.WRITTEN}
    rows = await shop.connection.fetch(
        "SELECT external_status, pin_code FROM product_orders ORDER BY external_status"
    )
    assert [tuple(row) for row in rows] == [("completed", "P-1"), ("processing", None)]
    assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_events") == 2
    await database.close()


@pytest.mark.long
@pytest.mark.parametrize("half", [0, 1])
async def test_each_optional_column_and_each_pair_may_be_left_out(
    plain_bare_shop: Shop, half: int
) -> None:
    for left_out in FEWER[half::2]:
        await anew(plain_bare_shop, left_out)
        try:
            await worked(plain_bare_shop)
        except Exception as error:
            raise AssertionError(left_out) from error


@pytest.mark.long
async def test_with_accounts_of_the_shops_each_is_found_or_said_to_be_unknown(
    plain_bare_shop: Shop,
) -> None:
    shop = plain_bare_shop
    await shop.connection.execute(PLAIN_TABLES)
    integration = str(uuid.uuid4())
    await shop.connection.execute(
        "INSERT INTO integrations (id, name, provider, base_url, kod, sifre) "
        "VALUES ($1::uuid, 'a', 'znet', 'https://x.example', 'k', 's')",
        integration,
    )
    package = str(uuid.uuid4())
    await shop.connection.execute(
        "INSERT INTO package_routing (package_id, primary_provider_id) VALUES ($1::uuid, $2)",
        package,
        integration,
    )
    routing = ("tenant_id", "package_id", "provider_id")
    for count in range(4):
        for left_out in itertools.combinations(routing, count):
            await anew(shop, left_out)
            database = shop.database()
            table_config = replace(LAYOUT, accounts_from_shop=True)
            _ = [line async for line in Migration(database, table_config, SystemClock()).apply()]
            values = {"package_id": package, "provider_id": integration}
            given = {name: value for name, value in values.items() if name not in left_out}
            names = "".join(f", {name}" for name in given)
            marks = "".join(
                f", ${n}::text{'::uuid' if name == 'package_id' else ''}"
                for n, name in enumerate(given, 2)
            )
            await shop.connection.execute(
                f"INSERT INTO product_orders (id, external_status, sent_at, provider_referans{names}) "
                f"VALUES (gen_random_uuid(), 'sent', to_timestamp($1), 'r'{marks})",
                NOW - 100,
                *given.values(),
            )
            scan = await shop.orders(database, accounts_from_shop=True).scan()
            assert [o.integration for o in scan.orders] == [integration if given else None], (
                left_out
            )
            await database.close()


@pytest.mark.parametrize("name", [n for n in REQUIRED if n != "provider_referans"])
async def test_what_is_required_is_named(plain_bare_shop: Shop, name: str) -> None:
    await plain_bare_shop.connection.execute(
        f"ALTER TABLE product_orders DROP COLUMN {name} CASCADE"
    )
    database = plain_bare_shop.database()
    with pytest.raises(SettingsError, match=rf"has no column {name}|id"):
        _ = [line async for line in Migration(database, LAYOUT, SystemClock()).apply()]
