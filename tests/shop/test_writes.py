"""Writes that must not stand still: whatever one row meets in the shop's database, the others are
written at once.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from order_monitor.core.answer import Cancelled, Completed, Waiting
from order_monitor.core.check_result import WriteStatus
from order_monitor.core.decision import StuckReason
from order_monitor.core.errors import ShopMisfitError
from order_monitor.core.pin import Pin
from order_monitor.demo.postgres import EmbeddedPostgres
from order_monitor.shop.repository import Orders
from tests.support import databases
from tests.support.events import prepared as with_tables
from tests.support.orders import found, prepared
from tests.support.shops import NOW, PLAIN, Shop, least_rights, migrate
from tests.support.sqlstates import CODES
from tests.support.writing import write_all, writing

ONE_A_CLASS = [
    next(code for code in CODES if code.startswith(name))
    for name in sorted({code[:2] for code in CODES})
]


async def raises(shop: Shop, code: str, *, at_commit: bool = False) -> None:
    """Let the shop have a trigger that raises ``code`` for orders whose PIN is POISON."""
    pin = shop.spelling.name("pin_code")
    kind = "CONSTRAINT TRIGGER t AFTER" if at_commit else "TRIGGER t BEFORE"
    await shop.connection.execute(
        f"CREATE OR REPLACE FUNCTION raises() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF NEW.\"{pin}\" LIKE 'POISON%' THEN RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = 'PIN-CANARY'; END IF; "
        f"RETURN NEW; END $$; DROP TRIGGER IF EXISTS t ON product_orders; "
        f"CREATE {kind} UPDATE ON product_orders {'DEFERRABLE INITIALLY DEFERRED' if at_commit else ''} "
        f"FOR EACH ROW EXECUTE FUNCTION raises()"
    )


async def with_one_bad(shop: Shop, orders: Orders, count: int = 8) -> tuple[str, list[Any]]:
    """Write an answer for each of ``count`` orders, one of them POISON.

    Return the bad one's id and the results.
    """
    ids = [await shop.add() for _ in range(count)]
    bad = ids[count // 3]
    findings = [
        found(shop.order(i), Completed(Pin(f"POISON-{i}" if i == bad else f"P-{i}"))) for i in ids
    ]
    return bad, await write_all(orders, findings)


def check_results(bad: str, results: list[Any], code: str) -> None:
    fates = {r.finding.order.id: r.fate for r in results}
    assert len(fates) == 8
    assert {i for i, fate in fates.items() if fate is not WriteStatus.WRITTEN} == {bad}
    (refused,) = [r for r in results if r.finding.order.id == bad]
    assert (refused.fate, refused.stuck) == (WriteStatus.STUCK, StuckReason.REJECTED_BY_DATABASE)
    assert code in refused.detail
    assert "CANARY" not in refused.detail


@pytest.mark.long
@pytest.mark.untraced
async def test_any_code_that_a_trigger_raises_is_its_rows_alone(plain_shop: Shop) -> None:
    """SQLSTATEs of every kind, of warnings, of lost connections, of the server: a code says no more
    than who raised it.
    """
    orders = await prepared(plain_shop)
    assert len(CODES) > 200
    with capture_logs() as logs:
        for code in [*CODES[::4], "U0001", "ZZZZZ"]:
            await raises(plain_shop, code)
            # PostgreSQL takes 00000 in a RAISE for "no code given".
            check_results(
                *await with_one_bad(plain_shop, orders), code if code != "00000" else "P0001"
            )
    assert [line for line in logs if line["event"] == "database.lost"] == []


@pytest.mark.parametrize("code", [*ONE_A_CLASS, "U0001"])
async def test_at_commit_too(plain_shop: Shop, code: str) -> None:
    """A deferred constraint speaks when the others have already been changed."""
    orders = await prepared(plain_shop)
    await raises(plain_shop, code, at_commit=True)
    check_results(*await with_one_bad(plain_shop, orders), code if code != "00000" else "P0001")


async def test_a_refused_row_is_put_up_for_review_with_its_code_and_taken_off_when_it_is_written(
    shop: Shop,
) -> None:
    orders = await with_tables(shop)
    await raises(shop, "42501")
    bad, _ = await with_one_bad(shop, orders)
    sql = (
        "SELECT order_id::text, kind, detail, closed_at IS NULL AS open, resolution "
        "FROM order_monitor_review WHERE kind <> 'pin_held'"
    )
    (row,) = await shop.connection.fetch(sql)
    assert (row["order_id"], row["kind"], row["open"]) == (bad, "rejected_by_database", True)
    assert "42501" in row["detail"]
    await shop.connection.execute("DROP TRIGGER t ON product_orders")
    anew = shop.orders()  # after a restart
    (result,) = await write_all(anew, [found(shop.order(bad), Completed(Pin("POISON")))])
    assert result.fate is WriteStatus.WRITTEN
    (row,) = await shop.connection.fetch(sql)
    assert (row["open"], row["resolution"]) == (False, "written after all")


async def test_without_the_list_for_review_nothing_is_written_until_it_is_back(
    plain_shop: Shop,
) -> None:
    """What is for a person must not be lost: the answers wait."""
    orders = await with_tables(plain_shop)
    await raises(plain_shop, "P0001")
    await plain_shop.connection.execute("DROP TABLE order_monitor_review")
    order_id = await plain_shop.add()
    finding = found(plain_shop.order(order_id), Completed(Pin("P-1234")))
    for _ in range(2):
        with pytest.raises(ShopMisfitError):
            await orders.record([finding])
    assert (await plain_shop.row(order_id))["external_status"] == "sent"
    await migrate(plain_shop.dsn)
    assert (await orders.record([finding]))[0].fate is WriteStatus.WRITTEN
    check_results(*await with_one_bad(plain_shop, orders), "P0001")


async def revoke(shop: Shop) -> None:
    await shop.connection.execute(f"REVOKE UPDATE ON product_orders FROM {ROLE}")


async def rename(shop: Shop) -> None:
    await shop.connection.execute("ALTER TABLE product_orders RENAME COLUMN pin_code TO pin_code_2")


ROLE = "the_monitor"


@pytest.mark.parametrize("harm", [revoke, rename])
async def test_what_concerns_the_whole_table_blames_no_order(
    plain_shop: Shop, harm: Callable[[Shop], Awaitable[None]]
) -> None:
    """Rights of the role itself, a column that is gone: told by asking, and every order keeps its
    answer.
    """
    shop = plain_shop
    await shop.connection.execute(
        f"CREATE ROLE {ROLE} LOGIN PASSWORD 'x'; GRANT SELECT, UPDATE ON product_orders TO {ROLE}; {least_rights(ROLE)}"
    )
    try:
        orders = shop.orders(shop.database(f"postgresql://{ROLE}:x@{shop.dsn.partition('@')[2]}"))
        await orders.scan()
        ids = [await shop.add() for _ in range(4)]
        await harm(shop)
        findings = [found(shop.order(i), Completed(Pin(i))) for i in ids]
        with pytest.raises(ShopMisfitError):
            await orders.record(findings)
        for finding in findings:
            with pytest.raises(ShopMisfitError):
                await orders.record([finding])
    finally:
        await shop.connection.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.long
async def test_a_batch_that_is_too_slow_is_made_smaller(plain_shop: Shop) -> None:
    """40 ms a row and 4 s a statement, ten times faster: 300 orders, none of which a batch of 200
    would ever write.
    """
    shop = plain_shop
    await shop.connection.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.004); RETURN NEW; END $$; "
        "CREATE TRIGGER t BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    ids = [await shop.add() for _ in range(300)]
    orders = shop.orders(shop.database(statement_timeout=0.4))
    await orders.scan()
    with capture_logs() as logs:
        results = await write_all(orders, [found(shop.order(i), Completed(Pin(i))) for i in ids])
    assert {r.fate for r in results} == {WriteStatus.WRITTEN}
    assert len(results) == 300
    assert [line for line in logs if line["event"] == "database.lost"] == []


async def test_one_row_that_is_always_too_slow_holds_up_no_other(plain_shop: Shop) -> None:
    shop = plain_shop
    await shop.connection.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.pin_code = 'SLOW' THEN PERFORM pg_sleep(9); END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER t BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    ids = [await shop.add() for _ in range(20)]
    orders = shop.orders(shop.database(statement_timeout=0.2))
    await orders.scan()
    async with writing(orders) as (writer, results):
        for n, order_id in enumerate(ids):
            writer.submit(
                found(shop.order(order_id), Completed(Pin("SLOW" if n == 7 else order_id)))
            )
        await until(lambda: len(results) == 19)
        assert list(writer.backlog) == [ids[7]]
        assert not writer.stands_still()


@pytest.mark.long
async def test_a_lock_behind_a_trigger_holds_up_its_own_orders_alone(plain_shop: Shop) -> None:
    """The shop holds one customer's wallet, which the trigger of each of his orders changes."""
    shop = plain_shop
    await shop.connection.execute(
        "CREATE TABLE wallet (tenant_id uuid PRIMARY KEY, orders int DEFAULT 0); "
        "CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE wallet SET orders = orders + 1 WHERE tenant_id = NEW.tenant_id; RETURN NEW; END $$; "
        "CREATE TRIGGER t BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION count_it(); "
        "INSERT INTO wallet VALUES ('11111111-1111-4111-8111-111111111111'), ('22222222-2222-4222-8222-222222222222')"
    )
    one, two = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
    held = [await shop.add(tenant_id=one) for _ in range(6)]
    free = [await shop.add(tenant_id=two) for _ in range(34)]
    mixed = [i for pair in zip(held, free[:6], strict=True) for i in pair] + free[6:]
    orders = shop.orders()
    await orders.scan()
    async with writing(orders) as (writer, results):
        async with shop.connection.transaction():
            await shop.connection.execute(
                "UPDATE wallet SET orders = 0 WHERE tenant_id = $1::uuid", one
            )
            for order_id in mixed:
                writer.submit(found(shop.order(order_id), Completed(Pin(order_id))))
            await until(lambda: len(results) == 34)
            assert {r.finding.order.id for r in results} == set(free)
        await until(lambda: len(results) == 40)
    assert {r.fate for r in results} == {WriteStatus.WRITTEN}


@pytest.mark.long
async def test_what_somebody_holds_does_not_count_against_the_others(plain_shop: Shop) -> None:
    """2,500 rows locked by the shop: the account may be asked on, and fresh answers are written."""
    shop = plain_shop
    await shop.connection.execute(
        "INSERT INTO product_orders (id, external_status, sent_at, provider_referans) "
        "SELECT gen_random_uuid(), 'sent', now() - interval '2 minutes', n::text FROM generate_series(1, 2500) n"
    )
    locked = await shop.connection.fetch(
        "SELECT id::text, provider_referans AS referans FROM product_orders"
    )
    await shop.note_all(account="a")
    orders = shop.orders()
    await orders.scan()
    async with writing(orders) as (writer, results):
        async with shop.connection.transaction():
            await shop.connection.execute("SELECT 1 FROM product_orders FOR UPDATE")
            for row in locked:
                order = shop.order(row["id"], reference=row["referans"])
                writer.submit(found(order, Completed(Pin(order.id)), account="a"))
            assert writer.backlog.free["a"] >= 2000
            assert not (writer.backlog.free["b"] >= 2000), "one account's answers are not another's"
            await until(lambda: not (writer.backlog.free["a"] >= 1))
            assert len(writer) == 2500
        await until(lambda: len(results) == 2500)
    assert {r.fate for r in results} == {WriteStatus.WRITTEN}


async def test_a_locked_row_is_named_and_does_not_hold_up_the_end(plain_shop: Shop) -> None:
    shop = plain_shop
    ids = [await shop.add() for _ in range(5)]
    orders = await prepared(shop)
    async with shop.connection.transaction():
        await shop.set(ids[2], note="busy")
        began = time.monotonic()
        with capture_logs() as logs:
            results = await write_all(
                orders, [found(shop.order(i), Completed(Pin(i))) for i in ids]
            )
        assert time.monotonic() - began < 20
    assert {r.finding.order.id for r in results} == {*ids} - {ids[2]}
    (line,) = [line for line in logs if line["event"] == "writes.held_up"]
    assert line["order_id"] == ids[2]


async def many(shop: Shop, count: int) -> list[str]:
    """Orders as ``shop.add`` makes them, in one statement; return their ids."""
    names = [
        shop.spelling.name(name) for name in ("external_status", "sent_at", "provider_referans")
    ]
    columns = ", ".join(f'"{name}"' for name in names)
    rows = await shop.connection.fetch(
        f"INSERT INTO product_orders (id, {columns}) SELECT i, 'sent', to_timestamp({NOW - 100}), 'r-' || left(i::text, 8) "
        f"FROM (SELECT gen_random_uuid() AS i FROM generate_series(1, {count})) AS made RETURNING id::text"
    )
    await shop.note_all()
    return [row["id"] for row in rows]


@pytest.mark.long
@pytest.mark.untraced
async def test_of_five_hundred_the_fifty_that_are_refused_are_named_and_the_others_written(
    shop: Shop,
) -> None:
    """Wherever they stand among the others."""
    await raises(shop, "P0001")
    ids = await many(shop, 500)
    poisonous = set(random.Random(7).sample(ids, 50))
    orders = await prepared(shop)
    findings = [
        found(shop.order(i), Completed(Pin(f"{'POISON' if i in poisonous else 'P'}-{i}")))
        for i in ids
    ]
    results = await write_all(orders, findings)
    assert {r.finding.order.id for r in results if r.fate is WriteStatus.WRITTEN} == set(
        ids
    ) - poisonous
    stuck = {r.finding.order.id: r.stuck for r in results if r.fate is WriteStatus.STUCK}
    assert stuck == dict.fromkeys(poisonous, StuckReason.REJECTED_BY_DATABASE)
    pin, status = shop.spelling.name("pin_code"), shop.spelling.name("external_status")
    rows = await shop.connection.fetch(
        f'SELECT id::text AS id, "{status}" AS status, "{pin}" AS pin FROM product_orders'
    )
    assert {r["id"]: (r["status"], r["pin"]) for r in rows} == {
        i: ("sent", None) if i in poisonous else ("completed", f"P-{i}") for i in ids
    }


HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "\x00\ud800\udfff\u200f\u202e\u2066\ufeff\ufffe\U0001f600\U00100000'\"\\|$%{}\n\t\x1b"
        ),
    ),
    max_size=40,
)
MESSAGES = st.one_of(
    HOSTILE, st.builds(lambda text, times: (text or "x") * times, HOSTILE, st.integers(1, 30_000))
)
ANSWERS = st.one_of(
    st.builds(Completed, st.one_of(st.none(), HOSTILE.filter(str.strip).map(Pin)), MESSAGES),
    st.builds(Cancelled, MESSAGES),
    st.builds(Waiting, MESSAGES),
)


@pytest.mark.long
def test_whatever_the_provider_says_is_written_exactly_or_left_to_a_person(
    server: EmbeddedPostgres,
) -> None:
    """NULs, lone surrogates, direction marks, every plane, a megabyte: what stands in a row is what
    was said, or nothing does.
    """

    @given(st.lists(ANSWERS, min_size=1, max_size=30))
    @settings(max_examples=25)
    def check(answers: list[Any]) -> None:
        asyncio.run(_written_or_left(server, answers))

    check()


async def _written_or_left(server: EmbeddedPostgres, answers: list[Any]) -> None:
    name = databases.create(server)
    try:
        async with Shop.create(server.dsn(name), PLAIN) as shop:
            ids = await many(shop, len(answers))
            orders = await prepared(shop, unique_pins=False)
            results = await write_all(
                orders, [found(shop.order(i), a) for i, a in zip(ids, answers, strict=True)]
            )
            fates = {r.finding.order.id: r for r in results}
            assert fates.keys() == set(ids)
            for order_id, answer in zip(ids, answers, strict=True):
                row, fate = await shop.row(order_id), fates[order_id]
                assert fate.fate in (
                    WriteStatus.WRITTEN,
                    WriteStatus.STUCK,
                    WriteStatus.UNCHANGED,
                ), fate
                pin = answer.pin.reveal() if isinstance(answer, Completed) and answer.pin else None
                if fate.fate is WriteStatus.STUCK:
                    assert (row["external_status"], row["pin_code"]) == ("sent", None)
                else:
                    assert row["pin_code"] == pin
                    assert row["external_status"] == EXPECTED[type(answer)]
    finally:
        databases.drop(server, name)


EXPECTED = {Completed: "completed", Cancelled: "failed", Waiting: "processing"}
