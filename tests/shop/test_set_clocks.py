"""Times without a zone in the hour that is twice when clocks are set back, and in the one that
never is when they are set forward.

The zone is made for the moment: its clocks are set so many seconds from now, so that the database's
own clock is in that hour.
"""

import datetime as dt
import uuid
from dataclasses import replace

import asyncpg
import pytest

from order_monitor.core.answer import Completed
from order_monitor.core.check_result import WriteStatus
from order_monitor.core.pin import Pin
from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from order_monitor.shop.migration import Migration
from order_monitor.shop.schema.columns import Column, Table
from order_monitor.watch.system_clock import SystemClock
from tests.support.orders import found, prepared
from tests.support.shops import LAYOUT, Shop

HOUR = 3600.0
UTC = dt.UTC


def zone(moment: float, *, back: bool) -> str:
    """Return a zone, at UTC and in summer an hour ahead, whose clocks are set back (or forward) at
    ``moment``, epoch seconds.
    """
    far = _rule(moment + 150 * 86_400.0, ahead=not back)
    near = _rule(moment, ahead=back)
    return f"XST0XDT-1,{far},{near}" if back else f"XST0XDT-1,{near},{far}"


def _rule(moment: float, *, ahead: bool) -> str:
    """A rule's time is by the clock that holds before it, and in whole seconds."""
    local = dt.datetime.fromtimestamp(moment + (HOUR if ahead else 0.0), UTC)
    is_leap = local.year % 4 == 0
    day = local.timetuple().tm_yday - (1 if is_leap and local.month > 2 else 0)
    return f"J{day}/{local:%H:%M:%S}"


async def now_of(connection: asyncpg.Connection) -> float:
    return float(
        await connection.fetchval("SELECT floor(extract(epoch FROM clock_timestamp()))::float8")
    )


def table_in(time_zone: str) -> Table:
    column = Column("sent_at", "timestamp without time zone")
    return Table("public", "product_orders", {"sent_at": column}, time_zone)


async def read(connection: asyncpg.Connection, table: Table, written: str) -> float:
    sql = table.epoch("sent_at", "o")
    return float(await connection.fetchval(f"SELECT {sql} FROM (SELECT {written} AS sent_at) o"))


async def written_at(connection: asyncpg.Connection, table: Table, at: float) -> dt.datetime:
    found = await connection.fetchval(f"SELECT {table.instant('sent_at', '$1::float8')}", at)
    assert isinstance(found, dt.datetime)
    return found


@pytest.mark.parametrize("until", [1.0, 600.0, 1800.0, 3500.0], ids="{}s before".format)
@pytest.mark.parametrize("age", [0.0, 60.0, 1500.0])
async def test_what_was_sent_before_clocks_are_set_back_is_not_in_the_future(
    plain_bare_shop: Shop, until: float, age: float
) -> None:
    connection = plain_bare_shop.connection
    now = await now_of(connection)
    table = table_in(zone(now + until, back=True))
    written = await written_at(connection, table, now - age)
    assert await read(connection, table, f"'{written}'::timestamp") == now - age


@pytest.mark.parametrize("since", [1.0, 600.0, 1800.0, 3500.0], ids="{}s behind".format)
@pytest.mark.parametrize("age", [0.0, 60.0, 1500.0, 5400.0, 9000.0])
async def test_what_was_sent_behind_it_is_as_old_as_it_is_or_younger(
    plain_bare_shop: Shop, since: float, age: float
) -> None:
    """Never older: it would be given up too early.

    What was sent in the first of the two hours reads as in the second.
    """
    connection = plain_bare_shop.connection
    now = await now_of(connection)
    moment = now - since
    table = table_in(zone(moment, back=True))
    written = await written_at(connection, table, now - age)
    came = await read(connection, table, f"'{written}'::timestamp")
    is_in_first = moment - HOUR <= now - age < moment
    reads_as_later = is_in_first and now - age + HOUR <= now + 300.0
    assert came == now - age + (HOUR if reads_as_later else 0.0)


@pytest.mark.parametrize("until", [-3000.0, -600.0, -1.0, 1.0, 600.0, 3000.0])
async def test_a_time_that_never_was_is_not_in_the_future_either(
    plain_bare_shop: Shop, until: float
) -> None:
    """Before clocks are set forward a shop that set its own too early writes such times, behind it
    one that sets them too late.
    """
    connection = plain_bare_shop.connection
    now = await now_of(connection)
    table = table_in(zone(now + until, back=False))
    shops_clock = dt.datetime.fromtimestamp(now + (HOUR if until > 0 else 0.0), UTC).replace(
        tzinfo=None
    )
    assert await connection.fetchval(
        "SELECT $1::timestamp AT TIME ZONE $2 AT TIME ZONE $2 <> $1", shops_clock, table.time_zone
    )
    assert await read(connection, table, f"'{shops_clock}'::timestamp") == now


async def test_what_is_in_the_future_by_more_than_clocks_are_set_stays_so(
    plain_bare_shop: Shop,
) -> None:
    connection = plain_bare_shop.connection
    now = await now_of(connection)
    for back in (True, False):
        for until in (-1800.0, 1800.0):
            table = table_in(zone(now + until, back=back))
            for ahead in (2.5 * HOUR, 86_400.0, 10 * 365 * 86_400.0):
                written = await written_at(connection, table, now + ahead)
                assert await read(connection, table, f"'{written}'::timestamp") == now + ahead
            assert await read(connection, table, "'infinity'::timestamp") == float("inf")
            assert await read(connection, table, "'-infinity'::timestamp") == float("-inf")
            assert await read(connection, table, "'200000-01-01'::timestamp") > now
            sql = f"SELECT {table.epoch('sent_at', 'o')} FROM (SELECT NULL::timestamp AS sent_at) o"
            assert await connection.fetchval(sql) is None


@pytest.mark.parametrize(
    "name",
    ["Asia/Baku", "Europe/Istanbul", "Europe/Berlin", "America/New_York", "Etc/GMT+4", "+04:30"],
)
async def test_on_all_other_days_nothing_is_read_otherwise(
    plain_bare_shop: Shop, name: str
) -> None:
    connection = plain_bare_shop.connection
    table = table_in(name)
    for days in range(1, 400, 7):
        at = await now_of(connection) - days * 86_400.0 - 40_000.0
        written = await written_at(connection, table, at)
        plain = await connection.fetchval(
            "SELECT extract(epoch FROM $1::timestamp AT TIME ZONE $2)::float8", written, name
        )
        assert await read(connection, table, f"'{written}'::timestamp") == plain


async def test_a_look_for_what_is_new_finds_what_was_sent_after_clocks_were_set_back(
    plain_bare_shop: Shop,
) -> None:
    """By the shop's clock it was sent earlier than what is known."""
    connection = plain_bare_shop.connection
    now = await now_of(connection)
    for moment in (now - 1200.0, now + 1200.0, now - 5000.0):
        table = table_in(zone(moment, back=True))
        for known in (now - 2400.0, now - 1100.0, now - 60.0):
            for sent in (known + 1.0, now):
                written = await written_at(connection, table, sent)
                is_found = await connection.fetchval(
                    f"SELECT $2::timestamp > {table.since('sent_at', '$1::float8')}", known, written
                )
                assert is_found, (moment - now, known - now, sent - now)
    assert (
        Table("s", "t", {"sent_at": Column("sent_at", "timestamp with time zone")}).since(
            "sent_at", "$1"
        )
        == "to_timestamp($1)"
    )


async def add(shop: Shop, written: dt.datetime) -> str:
    order_id = str(uuid.uuid4())
    await shop.connection.execute(
        "INSERT INTO product_orders (id, external_status, sent_at, provider_referans) VALUES ($1::uuid, 'sent', $2, $3)",
        order_id,
        written,
        order_id,
    )
    return order_id


async def test_an_order_sent_in_the_doubled_hour_is_found_young_and_ended(plain_shop: Shop) -> None:
    shop = plain_shop
    await shop.connection.execute("ALTER TABLE product_orders ALTER COLUMN sent_at TYPE timestamp")
    now = await now_of(shop.connection)
    time_zone = zone(now + 1800.0, back=True)
    order_id = await add(shop, await written_at(shop.connection, table_in(time_zone), now - 100))
    orders = await prepared(shop, time_zone=time_zone)
    (order,) = await orders.reread((await orders.scan()).orders)
    assert (order.sent_at, order.skip_reason(now)) == (now - 100, None)
    (result,) = await orders.record([found(order, Completed(Pin("PIN-1")), age=100)])
    assert result.fate is WriteStatus.WRITTEN
    assert (await shop.row(order_id))["pin_code"] == "PIN-1"


@pytest.mark.long
async def test_a_time_that_never_was_leads_to_its_own_partition(plain_bare_shop: Shop) -> None:
    """Read and written back it is another time: the row is found all the same."""
    shop = plain_bare_shop
    now = await now_of(shop.connection)
    time_zone = zone(now - 600.0, back=False)
    await shop.connection.execute(
        "DROP TABLE product_orders; CREATE TABLE product_orders (id uuid, external_status text, sent_at timestamp, pin_code text, "
        "note text, provider_referans text, PRIMARY KEY (id, sent_at)) PARTITION BY RANGE (sent_at)"
    )
    minutes = dt.timedelta(minutes=5)
    middle = dt.datetime.fromtimestamp(now // 300 * 300, UTC).replace(tzinfo=None)
    for n in range(-30, 30):
        first, last = middle + n * minutes, middle + (n + 1) * minutes
        await shop.connection.execute(
            f"CREATE TABLE part_{n + 30} PARTITION OF product_orders FOR VALUES FROM ('{first}') TO ('{last}')"
        )
    database = Database(parse_dsn(shop.dsn))
    try:
        migration = Migration(database, replace(LAYOUT, time_zone=time_zone), SystemClock())
        _ = [line async for line in migration.apply()]
    finally:
        await database.close()
    written = dt.datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
    order_id = await add(shop, written)
    orders = await prepared(shop, time_zone=time_zone, ignore_before="2000-01-01")
    (order,) = await orders.reread((await orders.scan()).orders)
    assert order.sent_at == now
    (result,) = await orders.record([found(order, Completed(Pin("PIN-1")), age=100)])
    assert result.fate is WriteStatus.WRITTEN
    row = await shop.connection.fetchrow(
        "SELECT pin_code, sent_at FROM product_orders WHERE id = $1::uuid", order_id
    )
    assert row is not None
    assert (row["pin_code"], row["sent_at"]) == ("PIN-1", written)
