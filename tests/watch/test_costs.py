"""What it costs, as counts: statements for each check, writes where nothing changes, rows for each
look.

No clock is read here: a count is the same on every machine. Bytes an order are counted in
``tests/core/test_queue.py``.
"""

import re
from collections import Counter

import pytest

from order_monitor.shop.reading.orders import Part, Slice
from order_monitor.watch.policy import Reading
from tests.support.clocks import Drive
from tests.support.engines import Bench, text
from tests.support.schema import lines
from tests.support.shops import NOW, Shop
from tests.support.watching import watched

MANY = 600
ENDING = 1200
LOOK = 13
"""Statements of one look at the most, its transaction included: they are the same however much is
open.
"""

WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|WITH changed)", re.IGNORECASE)


async def fill(shop: Shop, count: int, *, age: str) -> None:
    """Open orders that stand as the provider says: nothing is to be written about them."""
    status, note, sent, reference = (
        f'"{shop.spelling.name(n)}"'
        for n in ("external_status", "note", "sent_at", "provider_referans")
    )
    await shop.connection.execute(
        f"INSERT INTO product_orders (id, {status}, {note}, {sent}, {reference}) SELECT gen_random_uuid(), 'processing', 'x', "
        f"to_timestamp($2::float8) - {age}, 'r-' || n FROM generate_series(1, $1::int) n",
        count,
        NOW,
    )


@pytest.mark.long
@pytest.mark.parametrize("small", [5000, 0], ids=["few", "as of very many"])
async def test_where_nothing_changes_nothing_is_written_and_a_statement_serves_fifty_checks(
    shop: Shop, small: int
) -> None:
    await lines(shop)
    await fill(shop, MANY, age="interval '1 hour'")
    async with watched(shop.dsn) as (database, asked):
        reading = Reading(small=small, share=1e6, longest=1e6)
        made = Bench(
            shop,
            lambda _: text("OK|1| |x"),
            database=database,
            reading=reading,
            table_config={"record_sync": False},
        )
        async with Drive(made.engine, made.clock) as drive:
            await drive.run(700, scan_every=100)
            first = len(made.calls)
            assert first >= MANY
            asked.clear()
            await drive.run(2000, scan_every=1000)
        checks = len(made.calls) - first
        assert checks >= 3 * MANY
        assert not [sql for sql in asked if WRITES.match(sql)]
        assert len(asked) - 2 * LOOK <= checks / 50, Counter(sql[:60] for sql in asked)


@pytest.mark.long
async def test_what_ends_is_written_many_at_a_time(shop: Shop) -> None:
    """A thousand answers a second, each of which waits fifty milliseconds for company."""
    await lines(shop)
    await fill(shop, ENDING, age="interval '1 hour'")
    async with watched(shop.dsn) as (database, asked):
        made = Bench(shop, lambda reference: text(f"OK|2|PIN-{reference}|tamam"), database=database)
        async with Drive(made.engine, made.clock) as drive:
            await drive.run(20, scan_every=100)
        assert made.engine.state.ends == Counter(completed=ENDING)
        assert sum(1 for sql in asked if WRITES.match(sql)) <= ENDING / 20
        assert len(asked) <= 0.35 * ENDING, Counter(sql.strip()[:40] for sql in asked)
    assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_events") == ENDING


async def test_a_quick_look_reads_what_is_new_however_much_is_open(shop: Shop) -> None:
    await lines(shop)
    await fill(shop, MANY, age="interval '1 day' * n")
    fresh = {await shop.add(sent_at=NOW) for _ in range(3)}
    async with watched(shop.dsn) as (database, asked):
        orders = shop.orders(database)
        await orders.prepare()
        # The first look also takes over what is older than our tables.
        await orders.scan(Part(since=NOW - 1), lambda _: None)
        asked.clear()
        parts: list[Slice] = []
        await orders.scan(Part(since=NOW - 120), parts.append)
        assert {order.id for part in parts for order in part.orders} == fresh
        assert len(asked) <= LOOK
        asked.clear()
        parts.clear()
        await orders.scan(take=parts.append)
        assert sum(len(part.orders) for part in parts) == MANY + 3
        assert len(asked) <= LOOK + 1 + len(parts)
