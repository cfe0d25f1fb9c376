"""What is left out where the database does not take it: the hint beside an event, and the word for
waiting.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from order_monitor.core.answer import Answer, Cancelled, Completed, Waiting
from order_monitor.core.check_result import WriteResult, WriteStatus
from order_monitor.core.decision import StuckReason
from order_monitor.core.errors import ShopMisfitError, ShopUnavailableError
from order_monitor.core.pin import Pin
from order_monitor.demo.postgres import EmbeddedPostgres
from order_monitor.shop.repository import Orders
from order_monitor.shop.reviews import WORD_REFUSED
from order_monitor.shop.writing import left_out
from order_monitor.shop.writing.left_out import ENOUGH, PROCESSING, orders_of
from tests.support import databases
from tests.support.obstacles import check, domain, keeping, key, raising, shadowed
from tests.support.orders import found, prepared
from tests.support.shops import PLAIN, Shop, migrate
from tests.support.writing import write_all


@pytest.fixture
def minutes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let what is left out be tried again after so many seconds."""
    return lambda seconds: monkeypatch.setattr(left_out, "LOOK_AGAIN", seconds)


async def write(shop: Shop, orders: Orders, answers: dict[str, Answer]) -> dict[str, WriteResult]:
    rows = {i: (await shop.row(i))["external_status"] for i in answers}
    findings = [found(shop.order(i, status=rows[i]), answer) for i, answer in answers.items()]
    return {r.finding.order.id: r for r in await write_all(orders, findings)}


async def statuses(shop: Shop, ids: list[str]) -> set[str]:
    return {(await shop.row(i))["external_status"] for i in ids}


async def reviews(shop: Shop) -> list[tuple[str, bool, str]]:
    rows = await shop.connection.fetch(
        "SELECT kind, closed_at IS NULL AS open, detail FROM order_monitor_review "
        "WHERE kind <> 'pin_held'"
    )
    return [(row["kind"], row["open"], row["detail"]) for row in rows]


async def with_note(shop: Shop, ids: list[str], text: str) -> int:
    return sum([text in ((await shop.row(i))["note"] or "") for i in ids])


async def mark(shop: Shop) -> Any:
    return await shop.connection.fetchval(
        f"SELECT value FROM order_monitor_settings WHERE name = '{PROCESSING}'"
    )


def named(logs: list[Any], name: str) -> int:
    return sum(line["event"] == name for line in logs)


# --- the hint


@pytest.mark.parametrize("code", ["54000", "42501"])
async def test_a_hint_that_is_refused_is_left_out_told_once_and_tried_again(
    plain_shop: Shop, minutes: Callable[[float], None], code: str
) -> None:
    shop = plain_shop
    await shadowed(shop, code)
    orders = await prepared(shop)
    ids = [await shop.add() for _ in range(6)]
    with capture_logs() as logs:
        for order_id in ids[:4]:
            results = await write(shop, orders, {order_id: Completed(Pin(f"P-{order_id}"))})
            assert results[order_id].fate is WriteStatus.WRITTEN
    assert named(logs, "hints.left_out") == 1
    assert (
        await shop.connection.fetchval("SELECT count(*) FROM order_monitor_events WHERE has_pin")
        == 4
    )
    assert await reviews(shop) == []
    minutes(0.0)
    with capture_logs() as logs:
        await write(shop, orders, {ids[4]: Completed(Pin("P-5"))})
        assert named(logs, "hints.left_out") == 0, "told before"
        await shop.connection.execute("DROP FUNCTION shadow.pg_notify")
        await write(shop, orders, {ids[5]: Completed(Pin("P-6"))})
    assert named(logs, "hints.given_again") == 1


async def test_a_row_of_which_a_trigger_says_the_same_is_its_own_matter(plain_shop: Shop) -> None:
    """54000 says no more than any other code: the others are written with their hint."""
    shop = plain_shop
    await shop.connection.execute(
        "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.pin_code LIKE 'POISON%' THEN "
        "RAISE EXCEPTION USING ERRCODE = '54000'; END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER t BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION t()"
    )
    orders = await prepared(shop)
    ids = [await shop.add() for _ in range(5)]
    with capture_logs() as logs:
        results = await write(
            shop,
            orders,
            {i: Completed(Pin(f"{'POISON' if i == ids[2] else 'P'}-{i}")) for i in ids},
        )
    assert {i for i, r in results.items() if r.fate is WriteStatus.WRITTEN} == {*ids} - {ids[2]}
    assert results[ids[2]].is_refused
    assert named(logs, "hints.left_out") == 0


@pytest.fixture(scope="module")
def tiny() -> Iterator[EmbeddedPostgres]:
    """A server with room for very few notifications."""
    with EmbeddedPostgres({"max_notify_queue_pages": "64"}) as running:
        yield running


@pytest.mark.long
async def test_a_queue_that_is_really_full(
    tiny: EmbeddedPostgres, minutes: Callable[[float], None]
) -> None:
    """Somebody listens, and stays in a transaction."""
    dsn = tiny.dsn(databases.create(tiny))
    async with Shop.create(dsn, PLAIN) as shop:
        listener, filler = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
        await listener.execute("LISTEN order_monitor")
        await listener.execute("BEGIN; SELECT 1")
        with pytest.raises(asyncpg.ProgramLimitExceededError):
            for _ in range(200):
                await filler.execute(
                    "SELECT pg_notify('x', repeat('x', 7000) || n) FROM generate_series(1, 20) n"
                )
        orders = await prepared(shop)
        ids = [await shop.add() for _ in range(30)]
        with capture_logs() as logs:
            results = await write(shop, orders, {i: Completed(Pin(f"P-{i}")) for i in ids[:20]})
            results |= await write(shop, orders, {i: Cancelled("x") for i in ids[20:29]})
        assert {r.fate for r in results.values()} == {WriteStatus.WRITTEN}
        assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_events") == 29
        assert (named(logs, "hints.left_out"), await reviews(shop)) == (1, [])
        # Where a trigger of the shop's notifies too, it is nobody's row, and passes.
        await shop.connection.execute(
            "CREATE FUNCTION n() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('shop', repeat('y', 7000)); "
            "RETURN NEW; END $$; CREATE TRIGGER n BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION n()"
        )
        last = found(shop.order(ids[29]), Completed(Pin("LAST-1")))
        with pytest.raises(ShopUnavailableError, match="queue of notifications"):
            await orders.record([last])
        assert await reviews(shop) == []
        await listener.execute("COMMIT")
        minutes(0.0)
        async with asyncio.timeout(20):
            while (await shop.row(ids[29]))["external_status"] == "sent":
                with suppress(ShopUnavailableError):
                    await orders.record([last])
                await asyncio.sleep(0.05)
        await listener.close()
        await filler.close()


# --- the word for waiting


async def mend(shop: Shop) -> None:
    for sql in (
        "ALTER TABLE product_orders DROP CONSTRAINT c",
        "ALTER DOMAIN state DROP CONSTRAINT c",
        "DROP TRIGGER c ON product_orders",
    ):
        try:
            await shop.connection.execute(sql)
        except asyncpg.PostgresError:
            continue


Wall = Callable[[Shop], Awaitable[None]]


@pytest.mark.long
@pytest.mark.parametrize("wall", [check, key, domain, raising, keeping])
async def test_the_word_that_the_column_refuses_is_left_out_and_all_else_goes_on(
    shop: Shop, wall: Wall, minutes: Callable[[float], None]
) -> None:
    waiting = [await shop.add(reference=f"w{n}") for n in range(45)]
    ending = [await shop.add() for _ in range(5)]
    await wall(shop)
    orders = await prepared(shop)
    with capture_logs() as logs:
        mixed = [*waiting[:20], *ending, *waiting[20:]]
        answers = {i: Completed(Pin(f"P-{i}")) if i in ending else Waiting("sirada") for i in mixed}
        rows = {i: (await shop.row(i))["provider_referans"] for i in answers}
        findings = [found(shop.order(i, reference=rows[i]), a) for i, a in answers.items()]
        results = {r.finding.order.id: r for r in await write_all(orders, findings)}
    assert {results[i].fate for i in ending} == {WriteStatus.WRITTEN}
    stuck = [i for i in waiting if results[i].fate is WriteStatus.STUCK]
    assert len(stuck) < ENOUGH
    assert all(results[i].is_refused and results[i].detail.startswith(WORD_REFUSED) for i in stuck)
    assert all(results[i].is_partial for i in waiting if i not in stuck)
    assert named(logs, "processing.left_out") == 1
    assert await statuses(shop, waiting) == {"sent"}
    written = [i for i in waiting if i not in stuck]
    assert await with_note(shop, written, "sirada") == len(written), "the message goes on"
    assert {is_open for _, is_open, _ in await reviews(shop)} <= {False}
    assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_events") == len(
        ending
    )
    # A process that starts later knows it, and nothing is refused any more.
    anew = await prepared(shop)
    with capture_logs() as logs:
        findings = [found(shop.order(i, reference=rows[i]), Waiting("devam")) for i in waiting]
        fates = {r.fate for r in await write_all(anew, findings)}
    assert (fates, named(logs, "processing.left_out")) == ({WriteStatus.WRITTEN}, 1)
    assert await with_note(shop, waiting, "devam") == len(waiting)
    # The wall comes down: the next look finds it, and the same answer is enough to write the word.
    await mend(shop)
    minutes(0.0)
    with capture_logs() as logs:
        findings = [found(shop.order(i, reference=rows[i]), Waiting("devam")) for i in waiting]
        fates = {r.fate for r in await write_all(anew, findings)}
    assert (fates, named(logs, "processing.written_again")) == ({WriteStatus.WRITTEN}, 1)
    assert await statuses(shop, waiting) == {"processing"}
    assert (
        orders_of(
            await shop.connection.fetchval(
                f"SELECT value FROM order_monitor_settings WHERE name = '{PROCESSING}'"
            )
        )
        == set()
    )
    minutes(60.0)
    (result,) = (await write(shop, orders, {ending[0]: Waiting("x")})).values()
    assert result.fate is WriteStatus.GONE


async def test_a_row_that_is_refused_with_any_status_says_nothing_of_the_word(
    plain_shop: Shop,
) -> None:
    shop = plain_shop
    await shop.connection.execute(
        "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$; "
        "CREATE TRIGGER t BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION t()"
    )
    orders = await prepared(shop)
    ids = [await shop.add() for _ in range(ENOUGH + 5)]
    with capture_logs() as logs:
        results = await write(shop, orders, {i: Waiting("x") for i in ids})
    assert {r.stuck for r in results.values()} == {StuckReason.REJECTED_BY_DATABASE}
    assert all(r.is_refused and not r.detail.startswith(WORD_REFUSED) for r in results.values())
    assert named(logs, "processing.left_out") == 0


async def test_a_word_is_tried_on_the_refused_row_and_on_no_other(plain_shop: Shop) -> None:
    """Whatever another row of the shop's refuses says nothing of this one."""
    shop = plain_shop
    await check(shop)
    other = await shop.add()
    await shop.connection.execute(
        f"CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = '{other}' THEN "
        "RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER t BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION t()"
    )
    orders = await prepared(shop)
    ids = [await shop.add() for _ in range(ENOUGH + 5)]
    with capture_logs() as logs:
        await write(shop, orders, {i: Waiting("x") for i in ids})
    assert named(logs, "processing.left_out") == 1


async def test_a_table_of_events_that_refuses_is_not_the_columns_fault(plain_shop: Shop) -> None:
    """Without the status there would be no event, and the write would pass: the word is not to be
    left out for that.
    """
    shop = plain_shop
    await shop.connection.execute(
        "ALTER TABLE order_monitor_events ADD COLUMN shop_code text NOT NULL"
    )
    orders = await prepared(shop)
    ids = [await shop.add() for _ in range(ENOUGH + 5)]
    results = await write(shop, orders, {i: Waiting("x") for i in ids})
    assert {r.stuck for r in results.values()} == {StuckReason.REJECTED_BY_DATABASE}
    assert not any(r.detail.startswith(WORD_REFUSED) for r in results.values())


async def test_few_are_for_a_person_until_they_are_written(plain_shop: Shop) -> None:
    """Fewer than twenty: as ever.

    And what was opened for the word alone is closed with it, by any end too.
    """
    shop = plain_shop
    await check(shop)
    orders = await prepared(shop)
    ids = [await shop.add() for _ in range(4)]
    results = await write(shop, orders, {i: Waiting("x") for i in ids})
    assert {r.fate for r in results.values()} == {WriteStatus.STUCK}
    assert [is_open for _, is_open, _ in await reviews(shop)] == [True] * 4
    anew = await prepared(shop)
    await write(shop, anew, {ids[0]: Cancelled("x")})
    assert sum(is_open for _, is_open, _ in await reviews(shop)) == 3
    await mend(shop)
    await write(shop, anew, {i: Waiting("x") for i in ids[1:]})
    assert sum(is_open for _, is_open, _ in await reviews(shop)) == 0
    assert await mark(shop) == ""


@pytest.mark.long
async def test_a_pin_that_was_refused_before_stays_for_a_person(plain_shop: Shop) -> None:
    """Whatever is closed for the word: that review is about a PIN."""
    shop = plain_shop
    await check(shop)
    await shop.connection.execute(
        "ALTER TABLE product_orders ADD CONSTRAINT p CHECK (pin_code <> 'BAD-1')"
    )
    orders = await prepared(shop)
    ids = [await shop.add() for _ in range(ENOUGH + 5)]
    await write(shop, orders, {ids[0]: Completed(Pin("BAD-1"))})
    await write(shop, orders, {i: Waiting("x") for i in ids})
    await write(shop, orders, {i: Waiting("y") for i in ids})
    still_open = [detail for _, is_open, detail in await reviews(shop) if is_open]
    assert len(still_open) == 1
    assert not still_open[0].startswith(WORD_REFUSED)


@pytest.mark.long
async def test_passes_from_cron_find_it_together(plain_shop: Shop) -> None:
    """None of them meets twenty orders by itself."""
    shop = plain_shop
    await check(shop)
    for n in range(6):
        orders = await prepared(shop)
        ids = [await shop.add() for _ in range(5)]
        results = await write(shop, orders, {i: Waiting("x") for i in ids})
        stuck = sum(r.fate is WriteStatus.STUCK for r in results.values())
        assert stuck == (5 if n < 3 else 4 if n == 3 else 0)
    assert sum(is_open for _, is_open, _ in await reviews(shop)) == 0


async def test_an_enum_without_the_word_is_known_from_the_start(plain_bare_shop: Shop) -> None:
    shop = plain_bare_shop
    await shop.connection.execute(
        "CREATE TYPE st AS ENUM ('not_sent', 'sent', 'completed', 'failed'); "
        "ALTER TABLE product_orders ALTER external_status DROP DEFAULT, "
        "ALTER external_status TYPE st USING external_status::text::st"
    )
    await migrate(shop.dsn)
    orders = await prepared(shop)
    ids = [await shop.add() for _ in range(3)]
    with capture_logs() as logs:
        results = await write(
            shop,
            orders,
            {ids[0]: Waiting("x"), ids[1]: Completed(Pin("P-1")), ids[2]: Cancelled("y")},
        )
    assert {r.fate for r in results.values()} == {WriteStatus.WRITTEN}
    assert [(await shop.row(i))["external_status"] for i in ids] == ["sent", "completed", "failed"]
    assert named(logs, "processing.left_out") == 1
    assert await reviews(shop) == []


async def test_a_mark_that_cannot_be_read_names_nothing() -> None:
    assert [orders_of(mark) for mark in (None, "", "{", '{"a": 1}', json.dumps(["a", "b"]))] == [
        *[set()] * 4,
        {"a", "b"},
    ]


async def test_the_table_of_marks_gone_before_the_first_write_is_named(plain_shop: Shop) -> None:
    """Whoever writes first reads what others have found: that it cannot is no answer's fault, and
    says what to run.
    """
    orders = await prepared(plain_shop)
    finding = found(plain_shop.order(await plain_shop.add()), Waiting("x"))
    await plain_shop.connection.execute("ALTER TABLE order_monitor_settings RENAME TO away")
    with pytest.raises(ShopMisfitError):
        await orders.record([finding])
    with pytest.raises(ShopMisfitError, match="order_monitor_settings"):
        await orders.record([finding])
    await plain_shop.connection.execute("ALTER TABLE away RENAME TO order_monitor_settings")
    assert (await orders.record([finding]))[0].fate is WriteStatus.WRITTEN
