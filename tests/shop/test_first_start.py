"""The first start on a table that may be old: marks, what is left alone, what its age does not end;
what the shop settled.
"""

import json
import math
import uuid
from dataclasses import replace
from typing import Any

import pytest

from order_monitor.commands.check_orders import check_orders
from order_monitor.core.answer import Answer, Cancelled, Completed, Unreachable, Waiting
from order_monitor.core.check_result import WriteResult, WriteStatus
from order_monitor.core.decision import Rules, StuckReason
from order_monitor.core.errors import SettingsError
from order_monitor.core.gate import Gate, Pace
from order_monitor.core.order import SkipReason
from order_monitor.core.pin import Pin
from order_monitor.shop.first_start import Start, held_before, release
from order_monitor.shop.migration import Migration, as_django, as_sql
from order_monitor.shop.reading.orders import Apart, Part
from order_monitor.shop.repository import Orders
from order_monitor.watch.account import Account
from order_monitor.watch.routing import OneAccount
from order_monitor.watch.system_clock import SystemClock
from tests.support.orders import found
from tests.support.schema import BEFORE
from tests.support.shops import LAYOUT, NOW, Shop

DAY = 86_400.0
OURS = replace(LAYOUT, ignore_before="")
"""As the settings have it by default."""


async def apply(shop: Shop) -> list[str]:
    return [line async for line in Migration(shop.database(), OURS, SystemClock()).apply()]


async def marks(shop: Shop) -> dict[str, float]:
    rows = await shop.connection.fetch(
        "SELECT name, value FROM order_monitor_settings WHERE name LIKE 'first%'"
    )
    return {row["name"]: float(row["value"]) for row in rows}


async def start(shop: Shop, at: float) -> None:
    """Let the first start have been then."""
    await shop.connection.execute(
        "UPDATE order_monitor_settings SET value = $1 WHERE name IN ('first_migrate', 'first_start')",
        repr(at),
    )


async def let_go(shop: Shop) -> float | None:
    async with shop.database().transaction() as connection:
        return await release(connection, "public", "Ayşe")


async def now(shop: Shop) -> float:
    return float(
        await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    )


async def told(
    orders: Orders, order_id: str, answer: Answer, *, age: float = 2 * DAY, **more: Any
) -> WriteResult:
    (order,) = (await orders.scan(Part(only=[order_id]))).orders
    finding = found(order, answer, age=age)
    for name, value in more.items():
        setattr(finding, name, value)
    (result,) = await orders.record([finding])
    return result


# --- the marks


def test_before_which_time_orders_are_left_alone() -> None:
    first = Start(NOW, NOW, NOW)
    assert first.ignored_before(None) == -math.inf
    assert first.ignored_before("") == NOW - 7 * DAY
    assert first.ignored_before("0") == NOW
    assert first.ignored_before("2592000") == NOW - 30 * DAY
    assert first.ignored_before("2026-09-21T14:13:20+00:00") == NOW
    older = Start(-math.inf, -math.inf, NOW)
    assert older.ignored_before("") == -math.inf, (
        "an installation that has run before ignores nothing by itself"
    )
    assert older.ignored_before("3600") == NOW - 3600, "a person says so"
    assert older.ignored_before("2026-09-21T14:13:20+00:00") == NOW


async def test_the_first_migrate_keeps_its_moment_once(bare_shop: Shop) -> None:
    before = await now(bare_shop)
    await apply(bare_shop)
    first = await marks(bare_shop)
    assert first["first_migrate"] == first["first_start"]
    assert before <= first["first_start"] <= await now(bare_shop)
    assert await apply(bare_shop) == []
    assert await marks(bare_shop) == first


@pytest.mark.parametrize("form", ["sql", "django"])
@pytest.mark.parametrize("is_old", [False, True])
async def test_sql_that_somebody_runs_by_hand_keeps_it_too(
    plain_bare_shop: Shop, form: str, *, is_old: bool
) -> None:
    shop = plain_bare_shop
    if is_old:
        await shop.connection.execute(BEFORE)
        await shop.connection.execute(
            "INSERT INTO order_monitor_events (order_id, to_status, has_pin) VALUES (gen_random_uuid(), 'failed', false)"
        )
    plan = Migration(shop.database(), OURS, SystemClock())
    changes = await plan.missing(await plan.table())
    statements = as_sql(changes).split(";\n")
    if form == "django":
        wanted = plan.wanted(await plan.table())
        assert "first_start" in as_django(wanted)
        statements = [statement for change in wanted for statement in change.sql.split(";\n")]
    before = await now(shop)
    for statement in statements:
        await shop.connection.execute(statement)
    kept = await marks(shop)
    if is_old:
        assert kept == {"first_migrate": -math.inf, "first_start": -math.inf}
    else:
        assert before <= kept["first_start"] <= await now(shop)
    assert not [line for line in await apply(shop) if "added" in line]
    await shop.orders().complete()
    assert await marks(shop) == kept


@pytest.mark.parametrize("has_events", [False, True])
async def test_an_installation_without_the_mark_gets_it_by_what_is_there(
    plain_shop: Shop, *, has_events: bool
) -> None:
    """A version before this had the moment of its migrate, and its events may be about orders from
    before that.
    """
    shop = plain_shop
    await shop.connection.execute("DELETE FROM order_monitor_settings WHERE name = 'first_start'")
    first = (await marks(shop))["first_migrate"]
    if has_events:
        await shop.connection.execute(
            "INSERT INTO order_monitor_events (order_id, to_status, has_pin) VALUES (gen_random_uuid(), 'failed', false)"
        )
    plan = Migration(shop.database(), OURS, SystemClock())
    assert [change.what for change in await plan.missing(await plan.table())] == [
        "the moment of the first start"
    ]
    await shop.orders().complete()
    assert (await marks(shop))["first_start"] == (-math.inf if has_events else first), (
        "a process makes it as well"
    )
    assert not [line for line in await apply(shop) if "added" in line]


async def test_it_is_kept_by_a_migrate_too(plain_shop: Shop) -> None:
    await plain_shop.connection.execute(
        "DELETE FROM order_monitor_settings WHERE name = 'first_start'"
    )
    assert await apply(plain_shop) == ["added the moment of the first start"]
    assert await apply(plain_shop) == []


# --- what is left alone


async def test_what_was_sent_long_before_the_start_is_not_read_and_counted(shop: Shop) -> None:
    await start(shop, NOW)
    old = [await shop.add(sent_at=NOW - 7 * DAY - n - 1) for n in range(3)]
    odd = await shop.add("teleported", sent_at=NOW - 8 * DAY)
    young = {await shop.add(sent_at=NOW - 7 * DAY), await shop.add(sent_at=NOW - 100)}
    undated = {await shop.add(sent_at=None), await shop.add(sent_at=0.0)}
    odd_young = await shop.add("teleported")
    orders = shop.orders(ignore_before="")
    scan = await orders.scan()
    assert {order.id for order in scan.orders} == young | undated
    assert [order.id for order in scan.unknown] == [odd_young]
    assert scan.apart.left_alone == 3
    reasons = [order.skip_reason(scan.now) for order in scan.orders if order.id in undated]
    assert reasons == [SkipReason.NO_SENT_AT] * 2, (
        "a default is no date, and nobody's wish to leave an order alone"
    )
    assert [order.id for order in await orders.reader.left_alone(2)] == old[:0:-1]
    assert await orders.reread([shop.order(old[0])]) == [], "one that is dated back is let go"
    assert {order.id for order in (await orders.scan(Part(since=NOW - 30 * DAY))).orders} == young
    everything = await shop.orders().scan()
    assert {order.id for order in everything.orders} == {*old, *young, *undated}
    assert odd in {order.id for order in everything.unknown}
    assert (everything.apart.left_alone, await shop.orders().reader.left_alone(9)) == (0, [])


async def test_times_without_a_zone_are_compared_in_their_own(plain_shop: Shop) -> None:
    await plain_shop.connection.execute(
        "ALTER TABLE product_orders ALTER COLUMN sent_at TYPE timestamp"
    )
    await start(plain_shop, NOW)
    at = "to_timestamp($2::float8) AT TIME ZONE 'Asia/Baku'"
    for name, sent in (("old", NOW - 7 * DAY - 60), ("young", NOW - 7 * DAY + 60)):
        await plain_shop.connection.execute(
            "INSERT INTO product_orders (id, external_status, provider_referans, sent_at) "
            f"VALUES (gen_random_uuid(), 'sent', $1, {at})",
            name,
            sent,
        )
    scan = await plain_shop.orders(ignore_before="", time_zone="Asia/Baku").scan()
    assert ([order.reference for order in scan.orders], scan.apart.left_alone) == (["young"], 1)


@pytest.mark.long
@pytest.mark.parametrize("count", [3_000, 200_000])
async def test_a_look_costs_what_is_young_however_much_looks_open(
    plain_bare_shop: Shop, count: int
) -> None:
    """Of 200,000 old rows some or all look open: neither the scan nor the count reads the rest of
    the table.
    """
    shop = plain_bare_shop
    await shop.connection.execute(
        "INSERT INTO product_orders (id, external_status, sent_at, provider_referans) SELECT gen_random_uuid(), "
        "CASE WHEN n <= $1 THEN 'sent' ELSE 'completed' END, now() - interval '30 days' - n * interval '1 minute', n::text "
        "FROM generate_series(1, 200000) n",
        count,
    )
    await shop.connection.execute(
        "INSERT INTO product_orders (id, external_status, sent_at, provider_referans) "
        "SELECT gen_random_uuid(), 'sent', now() - interval '1 hour', 'y' || n FROM generate_series(1, 20) n"
    )
    await apply(shop)
    await shop.connection.execute("ANALYZE product_orders")
    orders = shop.orders(ignore_before="")
    scan = await orders.scan()
    assert (len(scan.orders), scan.apart) == (20, Apart(count, 0))
    sql = orders.reader.queries.scan_sql()
    async with shop.connection.transaction():
        await shop.connection.execute(f"DECLARE c CURSOR FOR {sql}")
        plan = json.loads(await shop.connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}"))[
            0
        ]
        declared = "\n".join(
            row[0] for row in await shop.connection.fetch(f"EXPLAIN DECLARE d CURSOR FOR {sql}")
        )
    assert "Seq Scan on product_orders" not in declared, "a cursor is planned for its first rows"
    assert "Seq Scan" not in json.dumps(plan)
    assert sum(reads(plan["Plan"])) <= 200, plan
    counts = orders.reader.queries.counts_sql()
    plan = json.loads(await shop.connection.fetchval(f"EXPLAIN (FORMAT JSON) {counts}"))[0]
    assert count > 100_000 or "Seq Scan" not in json.dumps(plan)


def reads(node: dict[str, Any]) -> list[float]:
    """How many rows each step that reads a table or an index has met."""
    own = (
        node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
        if "Scan" in node["Node Type"]
        else 0
    )
    return [own, *(count for below in node.get("Plans", []) for count in reads(below))]


async def test_counting_takes_a_hundredth_of_the_time_at_most(plain_shop: Shop) -> None:
    await start(plain_shop, NOW)
    await plain_shop.add(sent_at=NOW - 30 * DAY)
    orders = plain_shop.orders(ignore_before="")
    assert (await orders.scan()).apart.left_alone == 1
    await plain_shop.add(sent_at=NOW - 31 * DAY)
    orders.reader.counted = (0.0, math.inf)
    assert (await orders.scan()).apart.left_alone == 1, "the last count stands"
    orders.reader.counted = (math.inf, math.inf)
    assert (await orders.scan()).apart.left_alone == 2, (
        "a clock that went back keeps nothing from being counted"
    )


# --- what its age does not end


@pytest.mark.parametrize("blind", [False, True])
async def test_age_ends_nothing_from_before_the_start_until_it_is_released(
    shop: Shop, *, blind: bool
) -> None:
    await start(shop, NOW)
    answer: Answer = Unreachable("timeout") if blind else Waiting("bekleniyor")
    ids = [await shop.add(sent_at=NOW - 100) for _ in range(2)]
    later = await shop.add(sent_at=NOW)
    orders = shop.orders(ignore_before="", rules=Rules(give_up_blind=blind))
    assert (await told(orders, later, answer)).write is not None, (
        "what was sent since fails as ever"
    )
    assert (await shop.row(later))["external_status"] == "failed"
    assert (await told(orders, ids[0], answer)).fate is (
        WriteStatus.UNCHANGED if blind else WriteStatus.WRITTEN
    )
    assert (await shop.row(ids[0]))["external_status"] == ("sent" if blind else "processing")
    assert (await orders.scan()).apart == Apart(0, 2)
    assert await let_go(shop) == NOW
    assert (await told(orders, ids[0], answer)).write is not None, "at once, in a process that runs"
    assert (await shop.row(ids[0]))["external_status"] == "failed"
    assert await let_go(shop) is None, "once"
    row = await shop.connection.fetchrow(
        "SELECT * FROM order_monitor_settings WHERE name = 'first_start_released'"
    )
    assert row is not None
    assert row["stored_by"] == "Ayşe"
    orders.reader.counted = (-math.inf, -math.inf)
    assert (await orders.scan()).apart == Apart()


async def test_the_providers_word_ends_what_was_sent_before_the_start(shop: Shop) -> None:
    await start(shop, NOW)
    cancelled, completed = await shop.add(), await shop.add()
    orders = shop.orders(ignore_before="")
    await told(orders, cancelled, Cancelled("iptal"))
    await told(orders, completed, Completed(Pin("AB12-CD34"), "tamam"))
    assert (await shop.row(cancelled))["external_status"] == "failed"
    assert (
        (await shop.row(completed))["external_status"],
        (await shop.row(completed))["pin_code"],
    ) == (
        "completed",
        "AB12-CD34",
    )


async def test_what_counts_is_the_row_as_it_is_under_the_lock(plain_shop: Shop) -> None:
    """The shop may date an order back or forth while it is asked about: the age is that of its row."""
    await start(plain_shop, NOW)
    order_id = await plain_shop.add(sent_at=NOW + 10)
    orders = plain_shop.orders(ignore_before="")
    (order,) = (await orders.scan(Part(only=[order_id]))).orders
    await plain_shop.connection.execute(
        "UPDATE product_orders SET sent_at = to_timestamp($1)", NOW - 5 * DAY
    )
    (result,) = await orders.record([found(order, Waiting("x"), age=3 * DAY)])
    assert result.write is None or not result.write.final
    assert (await plain_shop.row(order_id))["external_status"] in ("sent", "processing")


async def test_an_old_installation_holds_nothing(plain_shop: Shop) -> None:
    async with plain_shop.database().transaction() as connection:
        assert await held_before(connection, "public") == -math.inf, (
            "the fixture is one that has run for long"
        )
        assert await release(connection, "public", "x") is None
        await connection.execute("DELETE FROM order_monitor_settings WHERE name = 'first_start'")
        assert await held_before(connection, "public") == -math.inf


async def test_check_counts_both(plain_shop: Shop) -> None:
    at = await now(plain_shop)
    await start(plain_shop, at)
    for age in (2 * DAY, 3 * DAY, 8 * DAY, 100):
        await plain_shop.add(sent_at=at - age)
    orders = plain_shop.orders(plain_shop.database(), ignore_before="")
    account = Account("a", None, Gate(5), Pace(1.0))  # type: ignore[arg-type]
    found, _ = await check_orders(orders, OneAccount(account))
    lines = {line.text: line for line in found}
    (held,) = [line for text, line in lines.items() if "would fail" in text]
    assert (held.level, held.text) == (
        "warning",
        "2 orders sent before the first start would fail by age",
    )
    assert held.do == "order-monitor release --first-start"
    (alone,) = [line for text, line in lines.items() if "left alone" in text]
    assert (alone.level, alone.text.partition(":")[0]) == ("ok", "1 left alone (before_start)")


# --- what the shop has settled

TYPES = {
    "varchar": "varchar(20)",
    "char": "char(12)",
    "enum": "word",
    "domain": "a_word",
    "text": "text",
}


@pytest.mark.parametrize("kind", list(TYPES))
async def test_words_are_compared_as_text_whatever_the_column_is(
    plain_shop: Shop, kind: str
) -> None:
    await plain_shop.connection.execute(
        "CREATE TYPE word AS ENUM ('pending', 'Approved', 'REJECTED')"
    )
    await plain_shop.connection.execute("CREATE DOMAIN a_word AS word")
    await plain_shop.connection.execute(
        "ALTER TABLE product_orders DROP COLUMN status; ALTER TABLE product_orders ADD COLUMN status "
        + TYPES[kind]
    )
    by_word = {word: await plain_shop.add() for word in ("pending", "Approved", "REJECTED", None)}
    for word, order_id in by_word.items():
        await plain_shop.connection.execute(
            f"UPDATE product_orders SET status = $2::text::{TYPES[kind]} WHERE id = $1::uuid",
            order_id,
            word,
        )
    orders = plain_shop.orders(settled=("approved", "rejected", "no such label"))
    scan = await orders.scan()
    assert {o.id for o in scan.orders if o.skip_reason(scan.now) is SkipReason.SETTLED_BY_SHOP} == {
        by_word["Approved"],
        by_word["REJECTED"],
    }
    assert {o.id for o in scan.orders if o.skip_reason(scan.now) is None} == {
        by_word["pending"],
        by_word[None],
    }
    assert not any(order.settled for order in (await plain_shop.orders().scan()).orders), (
        "none by default"
    )


async def test_the_column_is_looked_for_only_where_it_is_needed(shop: Shop) -> None:
    await shop.connection.execute("ALTER TABLE product_orders RENAME COLUMN status TO state")
    order_id = await shop.add()
    table = await shop.orders().prepare()
    assert table.get("shop_status") is None
    wrong = "statuses.settled: public.product_orders has no column status, in which to look for these words; name it under"
    with pytest.raises(SettingsError, match=wrong):
        await shop.orders(settled=("approved",)).prepare()
    await shop.connection.execute("UPDATE product_orders SET state = 'approved'")
    named = shop.orders(settled=("approved",), overrides={"shop_status": "state"})
    assert [o.settled for o in (await named.scan()).orders] == [True]
    assert (await named.prepare())["shop_status"].name == "state"
    with pytest.raises(
        SettingsError, match=r"database\.columns\.shop_status: .* has no column nope"
    ):
        await shop.orders(settled=("approved",), overrides={"shop_status": "nope"}).prepare()
    assert [o.id for o in (await shop.orders(overrides={"shop_status": "nope"}).scan()).orders] == [
        order_id
    ]


async def test_an_order_settled_while_its_answer_was_on_its_way_gets_no_end(shop: Shop) -> None:
    """The money has moved already.

    A PIN that was read is for a person, and moves nothing either.
    """
    orders = shop.orders(settled=("approved", "rejected"))
    answers: list[Answer] = [
        Cancelled("iptal"),
        Completed(None, "tamam"),
        Waiting("x"),
        Completed(Pin("AB12-CD34"), "x"),
    ]
    for answer in answers:
        order_id = await shop.add()
        (order,) = (await orders.scan(Part(only=[order_id]))).orders
        await shop.connection.execute(
            "UPDATE product_orders SET status = 'Rejected' WHERE id = $1::uuid", order_id
        )
        before = await shop.row(order_id)
        (result,) = await orders.record([found(order, answer, age=2 * DAY)])
        has_pin = result.finding.pin is not None
        assert (result.fate, result.review) == (
            WriteStatus.GONE,
            StuckReason.PIN_FOR_ENDED if has_pin else None,
        )
        after = await shop.row(order_id)
        assert {**after, "last_sync_at": None} == {**before, "last_sync_at": None}
        kinds = await shop.connection.fetch(
            "SELECT kind FROM order_monitor_review WHERE order_id = $1::uuid", order_id
        )
        assert [row["kind"] for row in kinds] == (["pin_for_ended"] if has_pin else [])
    assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_events") == 0


async def test_a_person_ends_what_the_shop_has_settled(plain_shop: Shop) -> None:
    order_id = await plain_shop.add()
    await plain_shop.connection.execute("UPDATE product_orders SET status = 'approved'")
    orders = plain_shop.orders(settled=("approved",))
    await told(orders, order_id, Completed(Pin("AB12-CD34"), "by hand"), by_person=True)
    assert (await plain_shop.row(order_id))["pin_code"] == "AB12-CD34"


async def test_a_pin_that_is_awaited_is_asked_for_whatever_the_shop_says(plain_shop: Shop) -> None:
    """A completed order is one that the shop approves: that settles nothing about its PIN."""
    order = plain_shop.order(str(uuid.uuid4()), settled=True, ended_at=NOW)
    assert order.skip_reason(NOW) is None
    assert order._replace(ended_at=None).skip_reason(NOW) is SkipReason.SETTLED_BY_SHOP
    assert (
        order._replace(ended_at=None, reference="").skip_reason(NOW) is SkipReason.SETTLED_BY_SHOP
    ), "nobody's fault"


@pytest.mark.parametrize("word", ["Rejected", "refunded"])
async def test_a_late_pin_is_not_written_into_an_order_that_the_shop_has_paid_back(
    shop: Shop, word: str
) -> None:
    """The shop ends orders by its own status alone, and rejects what came without a PIN."""
    orders = shop.orders(settled=("approved", "rejected", "refunded"), await_pin=900.0)
    package = uuid.uuid4()
    ids = [await shop.add(package_id=package) for _ in range(4)]
    pins = [Pin("AB12-CD34"), None, None, None]
    for order_id, pin in zip(ids, pins, strict=True):
        await orders.record([found(shop.order(order_id), Completed(pin))])
    awaiting = {order.id: order for order in (await orders.scan()).awaiting}
    assert awaiting.keys() == {*ids[1:]}
    approved, rejected, by_hand = ids[1:]
    await shop.connection.execute("UPDATE product_orders SET status = 'approved'")
    for order_id in (rejected, by_hand):
        await shop.connection.execute(
            "UPDATE product_orders SET status = $2 WHERE id = $1::uuid", order_id, word
        )
    assert [order.id for order in (await orders.scan()).awaiting] == [approved]
    answers = {i: Completed(Pin(f"LATE-{n}-CODE")) for n, i in enumerate(awaiting)}
    findings = [found(order, answers[i]) for i, order in awaiting.items() if i != by_hand]
    # Another process had asked about it before it ended.
    findings.append(found(shop.order(by_hand), answers[by_hand]))
    results = {r.order_id: r for r in await orders.record(findings)}
    assert {i: results[i].fate for i in ids[1:]} == {
        approved: WriteStatus.WRITTEN,
        rejected: WriteStatus.GONE,
        by_hand: WriteStatus.GONE,
    }
    rows = await shop.connection.fetch(
        "SELECT order_id::text AS id, kind FROM order_monitor_review WHERE closed_at IS NULL"
    )
    assert {(row["id"], row["kind"]) for row in rows} == {
        (rejected, "pin_for_ended"),
        (by_hand, "pin_for_ended"),
    }
    stored = [(await shop.row(i))["pin_code"] for i in (rejected, by_hand)]
    assert stored == [None, None]
