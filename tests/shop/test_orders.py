"""Every statement that touches the shop's orders, on a real PostgreSQL, in both spellings."""

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_monitor.core.answer import Answer, Cancelled, Completed, Refused, Unreachable, Waiting
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import Rules, StuckReason, Write
from order_monitor.core.errors import (
    OrderMonitorError,
    RowRejectedError,
    SettingsError,
    ShopMisfitError,
    ShopUnavailableError,
)
from order_monitor.core.order import Order
from order_monitor.core.outcome import Outcome
from order_monitor.core.pin import Pin
from order_monitor.shop.reading import orders as reading
from order_monitor.shop.reading.orders import FETCHED, SLICE, Part, Slice, Take
from order_monitor.shop.repository import Orders
from order_monitor.shop.writing.parameters import UPDATE, Change, record_of
from tests.support.orders import found, prepared, reviews
from tests.support.shops import LAYOUT, NOW, SHOP, Shop, least_rights, migrate
from tests.support.writing import write_all

DAY = 86_400.0
PIN = Pin("AB12-CD34-EF56-GH78")


async def record_one(shop: Shop, order_id: str, answer: Answer, **changes: Any) -> WriteResult:
    orders = await prepared(shop)
    results = await orders.record([found(shop.order(order_id, **changes), answer)])
    assert len(results) == 1
    return results[0]


# --- reading


async def test_a_scan_reads_open_orders_only(shop: Shop) -> None:
    open_ids = {await shop.add(status) for status in ("sent", "pending", "processing", "queued")}
    for status in ("completed", "done", "failed", "not_sent", "cancelled", None):
        await shop.add(status)
    odd = await shop.add("teleported")
    scan = await shop.orders().scan()
    assert {o.id for o in scan.orders} == open_ids
    assert [(o.id, o.status) for o in scan.unknown] == [(odd, "teleported")]
    assert all(o.sent_at == NOW - 100 for o in scan.orders)


async def test_an_orders_columns_are_read_in_the_order_of_its_fields(shop: Shop) -> None:
    await shop.add()
    orders = await prepared(shop)
    (row,) = await shop.connection.fetch(orders.reader.queries.scan_sql())
    assert [*row.keys(), "ended_at"] == list(Order.__annotations__)


async def test_a_scan_gives_its_orders_as_they_are_read(plain_shop: Shop) -> None:
    """Of very many nobody holds all; what must be known before any is asked comes first."""
    ids = {await plain_shop.add() for _ in range(2)}
    await plain_shop.connection.execute(
        "INSERT INTO product_orders (id, external_status, sent_at, provider_referans) SELECT gen_random_uuid(), 'sent', "
        "now(), n::text FROM generate_series(1, 2 * $1::int) n",
        SLICE,
    )
    parts: list[Slice] = []
    scan = await plain_shop.orders().scan(take=parts.append)
    assert [len(part.orders) for part in parts] == [0, SLICE, SLICE, 2]
    assert scan.orders == []
    assert ids < {order.id for part in parts for order in part.orders}
    assert {part.now for part in parts} == {parts[0].now}
    assert parts[0].now <= scan.now


async def test_what_was_read_before_a_scan_was_cut_has_been_given(plain_shop: Shop) -> None:
    await plain_shop.connection.execute(
        "INSERT INTO product_orders (id, external_status, sent_at, provider_referans) SELECT gen_random_uuid(), 'sent', "
        "now(), n::text FROM generate_series(1, 3 * $1::int) n; ALTER TABLE product_orders RENAME TO base;"
        "CREATE SEQUENCE read; CREATE VIEW product_orders AS SELECT b.id, tenant_id, external_status, sent_at, pin_code, note,"
        "package_id, (1 / least(1, $1::int + 100 - nextval('read')))::text AS provider_referans FROM base b".replace(
            "$1::int", str(FETCHED * SLICE)
        )
    )
    parts: list[Slice] = []
    with pytest.raises(OrderMonitorError):
        await plain_shop.orders().scan(take=parts.append)
    assert [len(part.orders) for part in parts] == [0, *[SLICE] * FETCHED]


async def test_a_scan_reads_what_deciding_needs(shop: Shop) -> None:
    tenant = str(uuid.uuid4())
    order_id = await shop.add(tenant_id=tenant, reference="1760885915220128")
    (order,) = (await shop.orders().scan()).orders
    assert order == Order(order_id, "sent", NOW - 100, "1760885915220128", tenant, registered=True)
    if shop.spelling is SHOP:
        await shop.connection.execute(
            'UPDATE product_orders SET "lastSyncAt" = to_timestamp($1::float8)', NOW - 7
        )
        (order,) = (await shop.orders().scan()).orders
        assert order.last_sync_at == NOW - 7


@pytest.mark.parametrize(
    "value", ["infinity", "-infinity", "20000-01-01", "0001-01-01 BC", "1970-01-01"]
)
async def test_times_that_are_no_dates_harm_nobody(plain_shop: Shop, value: str) -> None:
    """B4: one such row must not break the whole fetch, nor decide a deadline."""
    bad, good = await plain_shop.add(), await plain_shop.add()
    await plain_shop.connection.execute(
        f"UPDATE product_orders SET sent_at = '{value}' WHERE id = $1::uuid", bad
    )
    scan = await plain_shop.orders().scan()
    reasons = {o.id: o.skip_reason(NOW) for o in scan.orders}
    assert reasons[good] is None
    assert reasons[bad] in ("no_sent_at", "sent_in_future")


@pytest.mark.parametrize("session_zone", ["UTC", "Asia/Baku", "America/New_York"])
async def test_times_without_a_zone_mean_the_configured_one(
    plain_shop: Shop, session_zone: str
) -> None:
    """B3: whatever zone the role or the session has."""
    shop = plain_shop
    name = await shop.connection.fetchval("SELECT current_database()")
    await shop.connection.execute(f"ALTER DATABASE {name} SET timezone = '{session_zone}'")
    await shop.connection.execute("ALTER TABLE product_orders ALTER COLUMN sent_at TYPE timestamp")
    await shop.connection.execute("ALTER TABLE product_orders ADD COLUMN completed_at timestamp")
    order_id = str(uuid.uuid4())
    await shop.connection.execute(
        "INSERT INTO product_orders (id, external_status, sent_at, provider_referans) VALUES ($1::uuid, 'sent', $2, '1')",
        order_id,
        __import__("datetime").datetime(2026, 6, 1, 16, 0, 0),
    )
    orders = await prepared(shop, time_zone="Asia/Baku")
    (order,) = await orders.reread((await orders.scan()).orders)
    noon_utc = 1_780_315_200.0
    assert order.sent_at == noon_utc
    await orders.record([found(order, Completed(None), age=60)])
    row = await shop.row(order_id)
    assert str(row["completed_at"]) == "2026-06-01 16:01:00"


async def test_discovery_uses_its_index_and_not_the_final_rows(shop: Shop) -> None:
    """E5: also under a generic plan; the literals of the query are those of the index."""
    from order_monitor.shop.migration import Migration
    from order_monitor.watch.system_clock import SystemClock

    status = shop.spelling.name("external_status")
    await shop.connection.execute(
        f'INSERT INTO product_orders (id, "{status}", "{shop.spelling.name("sent_at")}", provider_referans) '
        "SELECT gen_random_uuid(), CASE WHEN n % 1000 = 0 THEN 'sent' ELSE 'completed' END, now(), n::text "
        "FROM generate_series(1, 50000) n"
    )
    database = shop.database()
    _ = [line async for line in Migration(database, LAYOUT, SystemClock()).apply()]
    await shop.connection.execute("ANALYZE product_orders")
    orders = await prepared(shop)
    unknown = orders.reader.queries.unknown_sql()
    assert unknown is not None
    await shop.connection.execute("SET plan_cache_mode = force_generic_plan")
    since = orders.reader.queries.since_sql().replace(
        "$1", "extract(epoch FROM now() - interval '1 minute')"
    )
    for sql in (orders.reader.queries.scan_sql(), unknown, since):
        plan = "\n".join(r[0] for r in await shop.connection.fetch(f"EXPLAIN {sql}"))
        assert "_om_" in plan, plan
        assert "Seq Scan" not in plan
    ids = [o.id for o in (await orders.scan()).orders[:5]]
    lock = orders.row_writer.statements.lock_sql().replace("$1", f"ARRAY{ids}")
    plan = "\n".join(r[0] for r in await shop.connection.fetch(f"EXPLAIN {lock}"))
    assert "Seq Scan" not in plan


async def test_a_quick_look_reads_what_was_sent_lately_and_nothing_else(shop: Shop) -> None:
    """However many are open: the index is entered at that time."""
    from order_monitor.shop.migration import Migration
    from order_monitor.watch.system_clock import SystemClock

    status, sent_at = shop.spelling.name("external_status"), shop.spelling.name("sent_at")
    await shop.connection.execute(
        f'INSERT INTO product_orders (id, "{status}", "{sent_at}", provider_referans) '
        "SELECT gen_random_uuid(), 'sent', now() - make_interval(mins => n), n::text FROM generate_series(1, 20000) n"
    )
    _ = [line async for line in Migration(shop.database(), LAYOUT, SystemClock()).apply()]
    await shop.connection.execute("ANALYZE product_orders")
    orders = await prepared(shop)
    now = (await orders.scan()).now
    scan = await orders.scan(Part(since=now - 605))
    assert (len(scan.orders), scan.is_whole) == (10, False)
    assert all(order.sent_at is not None and order.sent_at > now - 605 for order in scan.orders)
    sql = orders.reader.queries.since_sql().replace("$1", str(now - 605))
    (plan,) = json.loads(await shop.connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}"))
    node = plan["Plan"]
    while "Plans" in node:
        node = node["Plans"][0]
    assert "Index" in node["Node Type"], node
    assert node["Actual Rows"] + node.get("Rows Removed by Filter", 0) == 10


async def test_orders_are_read_again_as_they_are_now(shop: Shop) -> None:
    same, ended, changed = [await shop.add() for _ in range(3)]
    orders = await prepared(shop)
    known = (await orders.scan()).orders
    await shop.set(ended, external_status="failed")
    await shop.set(changed, provider_referans="another")
    found = {order.id: order for order in await orders.reread(known)}
    assert found.keys() == {same, changed}
    assert found[changed].reference == "another"
    assert found[same] == next(order for order in (await orders.scan()).orders if order.id == same)


# --- writing


async def test_a_completed_order_gets_its_pin(shop: Shop) -> None:
    order_id = await shop.add()
    before = await shop.row(order_id)
    result = await record_one(shop, order_id, Completed(PIN, "Yüklendi"))
    assert result.fate is WriteStatus.WRITTEN
    row = await shop.row(order_id)
    assert (row["external_status"], row["pin_code"], row["note"]) == (
        "completed",
        PIN.reveal(),
        "Yüklendi",
    )
    written = {"external_status", "pin_code", "note"}
    if shop.spelling is SHOP:
        assert row["duration_ms"] == 130_500
        assert row["completed_at"].timestamp() == NOW - 100 + 130.5
        assert row["last_sync_at"] == row["completed_at"]
        assert row["provider_message"] == "Yüklendi"
        written |= {"duration_ms", "completed_at", "last_sync_at", "provider_message"}
        assert row["status"] == "pending"
    assert {k: v for k, v in row.items() if k not in written} == {
        k: v for k, v in before.items() if k not in written
    }


async def test_a_top_up_without_pin_leaves_the_column_alone(shop: Shop) -> None:
    order_id = await shop.add(note="first")
    await record_one(shop, order_id, Completed(None, "Yüklendi"))
    row = await shop.row(order_id)
    assert (row["external_status"], row["pin_code"], row["note"]) == (
        "completed",
        None,
        "first | Yüklendi",
    )


async def test_a_cancelled_order_fails_without_pin(shop: Shop) -> None:
    order_id = await shop.add()
    await record_one(shop, order_id, Cancelled("Oyuncu bulunamadı"))
    row = await shop.row(order_id)
    assert (row["external_status"], row["pin_code"], row["note"]) == (
        "failed",
        None,
        "Oyuncu bulunamadı",
    )


async def test_the_shops_own_words_are_written(shop: Shop) -> None:
    orders = await prepared(shop, rules=Rules(completed="done", failed="rejected"))
    one, two = await shop.add(), await shop.add()
    await orders.record(
        [found(shop.order(one), Completed(None)), found(shop.order(two), Cancelled())]
    )
    assert (await shop.row(one))["external_status"] == "done"
    assert (await shop.row(two))["external_status"] == "rejected"


async def test_waiting_is_written_once(shop: Shop) -> None:
    order_id, other = await shop.add(), await shop.add()
    untouched = await shop.row(other)
    orders = await prepared(shop)
    first = (await orders.record([found(shop.order(order_id), Waiting("bekleniyor"))]))[0]
    assert first.fate is WriteStatus.WRITTEN
    row = await shop.row(order_id)
    assert (row["external_status"], row["note"]) == ("processing", "bekleniyor")
    again = (await orders.record([found(shop.order(order_id), Waiting("bekleniyor"), age=200)]))[0]
    assert again.fate is WriteStatus.UNCHANGED
    after = await shop.row(order_id)
    if shop.spelling is SHOP:
        assert after.pop("last_sync_at") > row.pop("last_sync_at")
    assert after == row
    assert await shop.row(other) == untouched


async def test_record_sync_can_be_switched_off(shop: Shop) -> None:
    orders = await prepared(shop, record_sync=False)
    assert not orders.records_every_check
    order_id = await shop.add()
    await orders.record([found(shop.order(order_id), Waiting())])
    await orders.record([found(shop.order(order_id), Waiting())])
    assert (await shop.row(order_id)).get("last_sync_at") is None


@pytest.mark.parametrize("status", ["completed", "done", "failed", "refunded", "not_sent", None])
async def test_only_open_rows_are_ever_changed(shop: Shop, status: str | None) -> None:
    """A6: a NULL status is no open one."""
    order_id = await shop.add(status)
    before = await shop.row(order_id)
    result = await record_one(shop, order_id, Completed(None, "x"))
    assert result.fate is WriteStatus.GONE
    assert await shop.row(order_id) == before


@pytest.mark.parametrize("status", ["failed", "refunded", "not_sent", None])
async def test_a_pin_for_an_order_that_ended_otherwise_is_a_persons(
    shop: Shop, status: str | None
) -> None:
    order_id = await shop.add(status)
    before = await shop.row(order_id)
    result = await record_one(shop, order_id, Completed(PIN, "x"))
    assert (result.fate, result.review) == (WriteStatus.GONE, StuckReason.PIN_FOR_ENDED)
    assert await shop.row(order_id) == before
    assert await reviews(shop) == {(order_id, "pin_for_ended")}


@pytest.mark.parametrize("status", ["completed", "done", "delivered"])
async def test_a_pin_goes_into_an_order_that_somebody_else_completed_without(
    shop: Shop, status: str
) -> None:
    order_id = await shop.add(status)
    before = await shop.row(order_id)
    result = await record_one(shop, order_id, Completed(PIN, "x"))
    assert (result.fate, result.repeat) == (WriteStatus.WRITTEN, True)
    assert await shop.row(order_id) == {**before, "pin_code": PIN.reveal()}
    assert await reviews(shop) == set()


async def test_a_row_that_is_gone_is_gone(shop: Shop) -> None:
    result = await record_one(shop, str(uuid.uuid4()), Completed(PIN))
    assert (result.fate, result.detail) == (WriteStatus.GONE, "the row is deleted")


async def test_somebody_elses_uncommitted_end_is_not_overwritten(shop: Shop) -> None:
    """A1: the shop holds an uncommitted ``refunded``.

    Our write waits for nothing and overwrites nothing.
    """
    order_id = await shop.add()
    orders = await prepared(shop)
    finding = found(shop.order(order_id), Completed(PIN))
    transaction = shop.connection.transaction()
    await transaction.start()
    await shop.set(order_id, external_status="refunded")
    assert (await orders.record([finding]))[0].fate is WriteStatus.LOCKED
    await transaction.commit()
    assert (await orders.record([finding]))[0].fate is WriteStatus.GONE
    row = await shop.row(order_id)
    assert (row["external_status"], row["pin_code"]) == ("refunded", None)


async def test_a_locked_row_does_not_hold_up_the_others(shop: Shop) -> None:
    """E4: no waiting for rows, so no deadlock with the shop."""
    ids = [await shop.add() for _ in range(3)]
    orders = await prepared(shop)
    async with shop.connection.transaction():
        await shop.set(ids[1], note="busy")
        results = await orders.record([found(shop.order(i), Completed(Pin(i))) for i in ids])
    fates = {r.finding.order.id: r.fate for r in results}
    assert fates == {
        ids[0]: WriteStatus.WRITTEN,
        ids[1]: WriteStatus.LOCKED,
        ids[2]: WriteStatus.WRITTEN,
    }


async def test_an_order_sent_anew_is_not_ended_by_the_old_answer(shop: Shop) -> None:
    """The answer was about another reference."""
    order_id = await shop.add(reference="111")
    await shop.set(order_id, provider_referans="222")
    result = await record_one(shop, order_id, Cancelled("iptal"), reference="111")
    assert result.fate is WriteStatus.RESENT
    assert (await shop.row(order_id))["external_status"] == "sent"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Completed(Pin("X" * 121)), StuckReason.PIN_TOO_WIDE),
        (Completed(Pin("A\0B")), StuckReason.PIN_NOT_STORABLE),
        (Completed(Pin("OTHER")), StuckReason.PIN_DIFFERS),
        (Cancelled("iptal"), StuckReason.FAILED_WITH_PIN),
    ],
)
async def test_stuck_orders_stay_open(shop: Shop, answer: Answer, reason: StuckReason) -> None:
    order_id = await shop.add(
        pin="STORED" if reason in ("pin_differs", "failed_with_pin") else None
    )
    before = await shop.row(order_id)
    result = await record_one(shop, order_id, answer)
    assert (result.fate, result.stuck) == (WriteStatus.STUCK, reason)
    after = await shop.row(order_id)
    before.pop("last_sync_at", None)
    after.pop("last_sync_at", None)
    assert after == before


async def test_messages_fit_the_column_from_the_old_end(shop: Shop) -> None:
    width = 250 if shop.spelling is SHOP else None
    order_id = await shop.add(note="o" * 245)
    await record_one(shop, order_id, Completed(PIN, "yeni mesaj"))
    expected = "o" * 245 + " | yeni mesaj"
    assert (await shop.row(order_id))["note"] == (expected[-width:] if width else expected)


async def test_control_characters_do_not_reach_the_table(shop: Shop) -> None:
    order_id = await shop.add()
    await record_one(shop, order_id, Cancelled("a\0b\r\nc\ud800"))
    assert (await shop.row(order_id))["note"] == "ab  c"


async def poisoned(shop: Shop, check: str) -> None:
    await shop.connection.execute(
        f"ALTER TABLE product_orders ADD CONSTRAINT poison CHECK ({check})"
    )


async def test_one_bad_row_never_sinks_its_batch(shop: Shop) -> None:
    """A7: of many, the one that a constraint refuses stays open; the others land."""
    ids = [await shop.add() for _ in range(9)]
    await poisoned(shop, f"\"{shop.spelling.name('pin_code')}\" <> 'POISON'")
    orders = await prepared(shop)
    findings = [
        found(shop.order(i), Completed(Pin("POISON" if n == 4 else f"P-{n}")))
        for n, i in enumerate(ids)
    ]
    results = {r.finding.order.id: r for r in await write_all(orders, findings)}
    for n, order_id in enumerate(ids):
        row = await shop.row(order_id)
        if n == 4:
            assert results[order_id].fate is WriteStatus.STUCK
            assert results[order_id].stuck is StuckReason.REJECTED_BY_DATABASE
            assert "constraint poison" in results[order_id].detail
            assert "POISON" not in results[order_id].detail, "C4"
            assert row["external_status"] == "sent"
        else:
            assert (row["external_status"], row["pin_code"]) == ("completed", f"P-{n}")


async def test_a_message_the_database_refuses_does_not_cost_the_pin(shop: Shop) -> None:
    order_id = await shop.add()
    await poisoned(shop, f"\"{shop.spelling.name('note')}\" <> 'bad words'")
    assert (
        await record_one(shop, order_id, Completed(PIN, "bad words"))
    ).fate is WriteStatus.WRITTEN
    row = await shop.row(order_id)
    assert (row["external_status"], row["pin_code"], row["note"]) == (
        "completed",
        PIN.reveal(),
        None,
    )


async def test_a_database_that_cannot_store_the_text_gets_the_pin(server_latin: str) -> None:
    """A7: characters outside the database's encoding."""
    from tests.support.shops import PLAIN

    async with Shop.create(server_latin, PLAIN) as shop:
        order_id = await shop.add()
        assert (
            await record_one(shop, order_id, Completed(PIN, "İşlem tamam ✓"))
        ).fate is WriteStatus.WRITTEN
        assert (await shop.row(order_id))["pin_code"] == PIN.reveal()


@pytest.fixture
async def server_latin(server: Any) -> Any:
    name = f"l{uuid.uuid4().hex}"
    admin = await asyncpg.connect(server.dsn())
    await admin.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0")
    yield server.dsn(name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


TRIGGER = """
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
CREATE TRIGGER meddle BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION meddle();
"""


@pytest.mark.parametrize(
    "body",
    [
        "RETURN NULL;",
        "NEW.\"{pin}\" := 'FORGED'; RETURN NEW;",
        'NEW."{status}" := OLD."{status}"; RETURN NEW;',
        "RAISE EXCEPTION 'no, %', NEW.\"{pin}\";",
    ],
    ids=["vetoed", "other pin", "kept open", "raises"],
)
async def test_a_meddling_trigger_is_seen(shop: Shop, body: str) -> None:
    """A11: zero rows do not mean that somebody else was faster, and what is returned is compared
    with what was meant.
    """
    names = {"pin": shop.spelling.name("pin_code"), "status": shop.spelling.name("external_status")}
    order_id = await shop.add()
    await shop.connection.execute(TRIGGER.format(body=body.format(**names)))
    result = await record_one(shop, order_id, Completed(PIN))
    row = await shop.row(order_id)
    if "FORGED" in body:
        assert (result.fate, row["external_status"], row["pin_code"]) == (
            WriteStatus.WRITTEN,
            "completed",
            "FORGED",
        )
        assert result.notice == "the table holds another PIN than was written"
        return
    assert result.fate is WriteStatus.STUCK
    assert PIN.reveal() not in result.detail
    assert (row["external_status"], row["pin_code"]) == ("sent", None)


async def test_our_own_commit_is_recognised_when_its_word_was_lost(shop: Shop) -> None:
    """A3: the outcome of a cut write is unknown; the row tells it apart from somebody else's."""
    ours, theirs = await shop.add(), await shop.add()
    orders = await prepared(shop)
    first = found(shop.order(ours), Completed(PIN))
    other = found(shop.order(theirs), Completed(PIN))
    await orders.record([first])
    other.attempted = Write(Outcome.COMPLETED, "completed", pin=PIN)
    await shop.set(theirs, external_status="completed", pin_code="ELSE")
    results = {r.finding.order.id: r.fate for r in await orders.record([first, other])}
    assert results == {ours: WriteStatus.WRITTEN, theirs: WriteStatus.GONE}


async def test_two_findings_about_one_order_are_a_mistake(shop: Shop) -> None:
    """A5: which of the two would win is arbitrary."""
    order_id = await shop.add()
    orders = await prepared(shop)
    with pytest.raises(AssertionError):
        await orders.record(
            [found(shop.order(order_id), Completed(PIN)), found(shop.order(order_id), Cancelled())]
        )
    assert (await shop.row(order_id))["external_status"] == "sent"


async def test_a_large_batch_lands_each_pin_on_its_own_order(shop: Shop) -> None:
    """A4: arrays of equal length from one list of records."""
    ids = [await shop.add() for _ in range(200)]
    orders = await prepared(shop)
    answers: Sequence[Answer] = [
        Completed(Pin(f"P-{n}"), "ok")
        if n % 3 == 0
        else Cancelled("no")
        if n % 3 == 1
        else Waiting()
        for n in range(200)
    ]
    results = await orders.record(
        [found(shop.order(i), a) for i, a in zip(ids, answers, strict=True)]
    )
    assert {r.fate for r in results} == {WriteStatus.WRITTEN}
    for n, order_id in enumerate(ids):
        row = await shop.row(order_id)
        assert row["pin_code"] == (f"P-{n}" if n % 3 == 0 else None)
        assert row["external_status"] == ("completed", "failed", "processing")[n % 3]


@given(
    st.lists(
        st.tuples(st.none() | st.text(max_size=5), st.none() | st.text(max_size=5), st.booleans()),
        min_size=1,
        max_size=20,
    )
)
def test_arrays_are_built_from_whole_records(
    writes: list[tuple[str | None, str | None, bool]],
) -> None:
    """A4."""
    rows = [
        record_of(
            UPDATE,
            Change(
                found(Order(str(n), "sent", NOW, "1"), Waiting()),
                Write(
                    Outcome.COMPLETED if final else Outcome.PROCESSING,
                    "s",
                    pin=Pin(pin) if pin is not None else None,
                    note=note,
                ),
                "sent",
            ),
        )
        for n, (pin, note, final) in enumerate(writes)
    ]
    assert {len(row) for row in rows} == {len(UPDATE)}
    assert [row[2] for row in rows] == [pin for pin, _, _ in writes]


async def test_giving_up(shop: Shop) -> None:
    ids = [await shop.add() for _ in range(4)]
    orders = await prepared(shop)
    answers: list[Answer] = [
        Waiting("b"),
        Refused("3", "x"),
        Unreachable("timeout"),
        Completed(PIN),
    ]
    await orders.record(
        [found(shop.order(i), a, age=DAY + 5) for i, a in zip(ids, answers, strict=True)]
    )
    rows = [await shop.row(i) for i in ids]
    assert [r["external_status"] for r in rows] == ["failed", "sent", "sent", "completed"]
    assert rows[0]["note"] == "Timeout: No response after 24h"


async def test_a_very_old_order_has_a_duration_that_fits(shop: Shop) -> None:
    order_id = await shop.add(sent_at=NOW - 100)
    orders = await prepared(shop)
    await orders.record([found(shop.order(order_id), Completed(None), age=90 * DAY)])
    row = await shop.row(order_id)
    assert row["external_status"] == "completed"
    if shop.spelling is SHOP:
        assert row["duration_ms"] == 2**31 - 1


async def test_an_enum_column_works(plain_bare_shop: Shop) -> None:
    """F3: statuses may be an enum, which lacks some of our words."""
    shop = plain_bare_shop
    await shop.connection.execute(
        "CREATE TYPE st AS ENUM ('not_sent', 'sent', 'processing', 'completed', 'failed', 'limbo');"
        "ALTER TABLE product_orders ALTER COLUMN external_status DROP DEFAULT;"
        "ALTER TABLE product_orders ALTER COLUMN external_status TYPE st USING external_status::st"
    )
    await migrate(shop.dsn)
    order_id, odd = await shop.add(), await shop.add("limbo")
    orders = await prepared(shop)
    scan = await orders.scan()
    assert [o.id for o in scan.orders] == [order_id]
    assert [o.id for o in scan.unknown] == [odd]
    await orders.record([found(shop.order(order_id), Completed(PIN))])
    assert (await shop.row(order_id))["external_status"] == "completed"
    with pytest.raises(
        SettingsError, match=r"statuses\.completed: product_orders\.external_status cannot hold"
    ):
        await shop.orders(rules=Rules(completed="done")).prepare()


async def test_an_id_need_not_be_a_uuid(plain_bare_shop: Shop) -> None:
    shop = plain_bare_shop
    await shop.connection.execute("ALTER TABLE product_orders ALTER COLUMN id TYPE varchar(40)")
    await migrate(shop.dsn)
    await shop.connection.execute(
        "INSERT INTO product_orders (id, external_status, sent_at, provider_referans) VALUES ('A-17', 'sent', now(), '9')"
    )
    orders = await prepared(shop)
    (order,) = await orders.reread((await orders.scan()).orders)
    assert (await orders.record([found(order, Completed(PIN))]))[0].fate is WriteStatus.WRITTEN
    assert (
        await shop.connection.fetchval("SELECT pin_code FROM product_orders WHERE id = 'A-17'")
        == PIN.reveal()
    )


# --- rights, and a table that changes


async def test_row_level_security_is_an_error_and_not_silence(plain_shop: Shop) -> None:
    """B5: a policy that hides the orders must not look like an empty shop."""
    shop = plain_shop
    await shop.add()
    role = f"r{uuid.uuid4().hex}"
    await shop.connection.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'secret-of-the-role'; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};"
        "ALTER TABLE product_orders ENABLE ROW LEVEL SECURITY"
    )
    host = shop.dsn.partition("@")[2]
    orders = shop.orders(shop.database(f"postgresql://{role}:secret-of-the-role@{host}"))
    with pytest.raises(ShopMisfitError, match="42501"):
        await orders.scan()
    await shop.connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_the_least_rights_are_enough(shop: Shop) -> None:
    """E13: SELECT on the table and UPDATE on the columns written."""
    role = f"r{uuid.uuid4().hex}"
    table = (await prepared(shop)).table
    columns = ", ".join(
        c.sql for name, c in table.columns.items() if name not in ("id", "tenant_id", "sent_at")
    )
    await shop.connection.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'secret-of-the-role'; GRANT SELECT ON product_orders TO {role};"
        f"GRANT UPDATE ({columns}) ON product_orders TO {role}; {least_rights(role)}"
    )
    host = shop.dsn.partition("@")[2]
    orders = shop.orders(shop.database(f"postgresql://{role}:secret-of-the-role@{host}"))
    order_id, waiting = await shop.add(), await shop.add()
    scan = await orders.scan()
    assert len(scan.orders) == 2
    results = await orders.record(
        [found(shop.order(order_id), Completed(PIN)), found(shop.order(waiting), Waiting())]
    )
    assert {r.fate for r in results} == {WriteStatus.WRITTEN}
    await shop.connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_the_table_may_change_under_us(plain_shop: Shop) -> None:
    """E6: a column added, widened or renamed between two runs."""
    shop = plain_shop
    first, second = await shop.add(), await shop.add()
    orders = await prepared(shop)
    await orders.scan()
    await shop.connection.execute(
        "ALTER TABLE product_orders ALTER COLUMN pin_code TYPE varchar(500), ADD COLUMN extra int"
    )
    assert len((await orders.scan()).orders) == 2
    assert (await orders.record([found(shop.order(first), Completed(PIN))]))[
        0
    ].fate is WriteStatus.WRITTEN
    await shop.connection.execute('ALTER TABLE product_orders RENAME COLUMN pin_code TO "pinCode"')
    finding = found(shop.order(second), Completed(Pin("Y" * 400)))
    with pytest.raises(ShopMisfitError, match="42703"):
        await orders.record([finding])
    assert (await orders.record([finding]))[0].fate is WriteStatus.WRITTEN, "it looks again"
    assert (
        await shop.connection.fetchval(
            'SELECT "pinCode" FROM product_orders WHERE id = $1::uuid', second
        )
        == "Y" * 400
    )
    await shop.connection.execute("ALTER TABLE product_orders DROP COLUMN sent_at")
    with pytest.raises(ShopMisfitError, match="sent_at"):
        await orders.scan()


async def test_a_widened_column_frees_a_stuck_pin(shop: Shop) -> None:
    order_id = await shop.add()
    orders = await prepared(shop)
    finding = found(shop.order(order_id), Completed(Pin("Y" * 121)))
    assert (await orders.record([finding]))[0].stuck is StuckReason.PIN_TOO_WIDE
    column = shop.spelling.name("pin_code")
    await shop.connection.execute(
        f'ALTER TABLE product_orders ALTER COLUMN "{column}" TYPE varchar(200)'
    )
    assert (await orders.record([finding]))[0].fate is WriteStatus.WRITTEN
    assert (await shop.row(order_id))["pin_code"] == "Y" * 121


async def test_two_writers_end_an_order_once(shop: Shop) -> None:
    """E1: correctness rests on the compare, not on a lock: two daemons and a cron job may overlap."""
    ids = [await shop.add() for _ in range(40)]
    one, two = await prepared(shop), await prepared(shop)
    batches = [
        one.record([found(shop.order(i), Completed(Pin("ONE"))) for i in ids]),
        two.record([found(shop.order(i), Completed(Pin("TWO"))) for i in reversed(ids)]),
    ]
    results = [r for batch in await asyncio.gather(*batches) for r in batch]
    for order_id in ids:
        fates = sorted(str(r.fate) for r in results if r.finding.order.id == order_id)
        assert fates.count("written") <= 1
        winner = [
            r for r in results if r.finding.order.id == order_id and r.fate is WriteStatus.WRITTEN
        ]
        row = await shop.row(order_id)
        if winner:
            answer = winner[0].finding.answer
            assert isinstance(answer, Completed)
            assert answer.pin == Pin(row["pin_code"])


async def test_an_unreachable_database_says_so(plain_shop: Shop) -> None:
    orders = plain_shop.orders(plain_shop.database("postgresql://nobody:secret-pw@127.0.0.1:1/x"))
    with pytest.raises(ShopUnavailableError) as error:
        await orders.scan()
    assert "secret-pw" not in str(error.value)
    with pytest.raises(RowRejectedError):
        raise RowRejectedError("x")


def test_the_table_comes_first() -> None:
    from order_monitor.shop.database import Database
    from order_monitor.shop.dsn import parse_dsn

    with pytest.raises(AssertionError):
        _ = Orders(Database(parse_dsn("postgresql://x/y")), LAYOUT).table


@pytest.mark.parametrize("answer", [Completed(Pin("PIN-1")), Cancelled("x"), Waiting("y")])
async def test_a_table_without_tenants_is_written_as_any_other(
    plain_bare_shop: Shop, answer: Answer
) -> None:
    """The event's tenant is of a type of its own: a bare NULL would be text."""
    await plain_bare_shop.connection.execute("ALTER TABLE product_orders DROP COLUMN tenant_id")
    await migrate(plain_bare_shop.dsn)
    order_id = str(uuid.uuid4())
    await plain_bare_shop.connection.execute(
        "INSERT INTO product_orders (id, external_status, sent_at, provider_referans) "
        "VALUES ($1::uuid, 'sent', to_timestamp($2::float8), 'R-1')",
        order_id,
        NOW - 100,
    )
    orders = await prepared(plain_bare_shop)
    (order,) = await orders.reread((await orders.scan()).orders)
    (result,) = await orders.record([found(order, answer)])
    assert result.fate is WriteStatus.WRITTEN
    assert (
        await plain_bare_shop.connection.fetchval("SELECT count(*) FROM order_monitor_events") == 1
    )
    assert (await plain_bare_shop.row(order_id))["external_status"] != "sent"


async def test_reading_very_many_ends_however_long_it_takes(
    plain_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part has a statement's time of its own; only one that does not come ends the scan."""
    monkeypatch.setattr(reading, "SLICE", 2)
    monkeypatch.setattr(reading, "FETCHED", 1)
    ids = {await plain_shop.add() for _ in range(12)}
    database = plain_shop.database(statement_timeout=0.3, margin=0.1)
    orders = plain_shop.orders(database)
    await orders.prepare()
    seen: list[str] = []

    def slowly(part: Slice) -> None:
        time.sleep(0.15)
        seen.extend(order.id for order in part.orders)

    await orders.scan(take=slowly)
    assert sorted(seen) == sorted(ids)


@pytest.mark.parametrize(("pool_size", "at_once"), [(2, 1), (3, 2)])
async def test_reads_of_all_orders_leave_a_connection_to_the_writer(
    plain_shop: Shop, monkeypatch: pytest.MonkeyPatch, pool_size: int, at_once: int
) -> None:
    monkeypatch.setattr(reading, "SLICE", 2)
    (order_id, *_) = [await plain_shop.add() for _ in range(12)]
    orders = plain_shop.orders(plain_shop.database(pool_size=pool_size))
    await orders.prepare()
    await orders.reader.claims.fill()
    reads, most = set[int](), 0
    written: list[asyncio.Task[Any]] = []

    def taking(number: int) -> Take:
        def take(_: Slice) -> None:
            nonlocal most
            reads.add(number)
            most = max(most, len(reads))
            if not written:
                finding = CheckResult(plain_shop.order(order_id), Completed(None, "x"), time.time())
                written.append(asyncio.create_task(orders.record([finding])))

        return take

    async def read(number: int) -> None:
        await orders.scan(take=taking(number))
        reads.discard(number)

    await asyncio.gather(*map(read, range(4)))
    assert most == at_once
    ((result,),) = await asyncio.gather(*written)
    assert result.fate is WriteStatus.WRITTEN


@pytest.mark.parametrize("ends", ["error", "cancelled"])
async def test_a_scan_that_is_cut_leaves_its_connection_usable(
    plain_shop: Shop, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """By an error in what takes its orders in, or by being cancelled meanwhile."""
    monkeypatch.setattr(reading, "SLICE", 2)
    ids = [await plain_shop.add() for _ in range(5 * FETCHED)]
    orders = plain_shop.orders(plain_shop.database(pool_size=1))
    await orders.prepare()
    seen: list[str] = []

    def take(part: Slice) -> None:
        seen.extend(order.id for order in part.orders)
        if part.orders and ends == "error":
            raise ZeroDivisionError
        if part.orders:
            scanning.cancel()

    scanning = asyncio.create_task(orders.scan(take=take))
    with pytest.raises((ZeroDivisionError, asyncio.CancelledError)):
        await scanning
    assert len(seen) == 2
    assert sorted(order.id for order in (await orders.scan()).orders) == sorted(ids)


async def test_what_is_sent_while_very_many_are_read_is_found_meanwhile_and_once(
    plain_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SLICE", 2)
    monkeypatch.setattr(reading, "LOOK_FOR_NEW_EVERY", 0.0)
    ids = [await plain_shop.add(sent_at=time.time() - 3600 * (n % 2)) for n in range(60)]
    orders = plain_shop.orders()
    await orders.prepare()
    seen: list[str] = []
    sent: list[asyncio.Task[str]] = []

    def take(part: Slice) -> None:
        seen.extend(order.id for order in part.orders)
        if not sent:
            sent.append(asyncio.create_task(plain_shop.add(sent_at=time.time())))

    await orders.scan(take=take)
    assert sorted(seen) == sorted([*ids, await sent[0]])
