"""The brake in the writing transaction, on a real PostgreSQL: whose ends are counted together, and
what two writers do at once.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from order_monitor.core.answer import Answer, Cancelled, Completed, Refused, Waiting
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import StuckReason
from order_monitor.core.login import Credentials
from order_monitor.core.order import CONFIGURED
from order_monitor.core.pin import Pin
from order_monitor.shop.repository import Orders
from order_monitor.shop.writing.brake import KIND
from tests.support.shops import NOW, Shop
from tests.support.watching import watched

HOUR = 3600.0
DAY = 86_400.0


def braked(shop: Shop, **changes: Any) -> Orders:
    rules = replace(
        shop.table_config.rules, brake_hold=changes.pop("hold", HOUR), **changes.pop("rules", {})
    )
    return shop.orders(rules=rules, **changes)


async def found(
    shop: Shop, count: int, answer: Answer | None = None, *, account: str = CONFIGURED, **more: Any
) -> list[CheckResult]:
    """Findings about so many new orders, noted as they were sent to ``account``."""
    findings = []
    for _ in range(count):
        order_id = await shop.add(noted=False)
        await shop.note(order_id, account)
        findings.append(
            CheckResult(
                shop.order(order_id), answer or Cancelled("iptal"), NOW, account=account, **more
            )
        )
    return findings


def fates(results: Sequence[WriteResult]) -> Counter[WriteStatus]:
    return Counter(result.fate for result in results)


async def held(shop: Shop) -> int:
    return int(
        await shop.connection.fetchval(
            "SELECT count(*) FROM order_monitor_review WHERE closed_at IS NULL AND kind = $1", KIND
        )
    )


async def move(shop: Shop, seconds: float) -> None:
    """Let it be so much later: all that was noted is as much older."""
    for sql in (
        "UPDATE order_monitor_review SET opened_at = opened_at - make_interval(secs => $1)",
        "UPDATE order_monitor_events SET decided_at = decided_at - make_interval(secs => $1)",
        "UPDATE order_monitor_dispatches SET found_at = found_at - make_interval(secs => $1)",
    ):
        await shop.connection.execute(sql, seconds)
    await shop.connection.execute(
        "UPDATE order_monitor_settings SET value = concat_ws(' ', split_part(value, ' ', 1)::float8 - $1::float8, "
        "NULLIF(split_part(value, ' ', 2), '')) WHERE name LIKE 'brake %'",
        seconds,
    )


async def let_through(orders: Orders, shop: Shop) -> None:
    """All that it takes but the time."""
    now = float(
        await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    )
    await orders.brake.understood({CONFIGURED: now})
    await orders.brake.answered(orders.row_writer.brake.login_of(CONFIGURED), "fine")


async def test_a_batch_that_trips_it_is_held_as_a_whole(shop: Shop) -> None:
    orders = braked(shop)
    assert fates(await orders.record(await found(shop, 19))) == {WriteStatus.WRITTEN: 19}
    results = await orders.record(await found(shop, 30))
    assert fates(results) == {WriteStatus.HELD: 30}
    assert {result.stuck for result in results} == {StuckReason.HELD_BY_BRAKE}
    assert await held(shop) == 30
    assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_events") == 19


async def test_five_hundred_in_one_batch_are_held_and_held_again(plain_shop: Shop) -> None:
    orders = braked(plain_shop)
    findings = await found(plain_shop, 500)
    assert fates(await orders.record(findings, 5.0)) == {WriteStatus.HELD: 500}
    since = await plain_shop.connection.fetchval("SELECT max(opened_at) FROM order_monitor_review")
    assert fates(await orders.record(findings, 5.0)) == {WriteStatus.HELD: 500}
    assert await held(plain_shop) == 500
    assert since == await plain_shop.connection.fetchval(
        "SELECT max(opened_at) FROM order_monitor_review"
    )


async def test_completions_of_the_same_batch_count_and_go_on(plain_shop: Shop) -> None:
    orders = braked(plain_shop)
    batch = await found(plain_shop, 30) + [
        replace(one, answer=Completed(Pin(f"PIN-1000{n}"), "x"))
        for n, one in enumerate(await found(plain_shop, 31))
    ]
    assert fates(await orders.record(batch)) == {WriteStatus.WRITTEN: 61}
    batch = await found(plain_shop, 40) + [
        replace(one, answer=Completed(Pin(f"PIN-2000{n}"), "x"))
        for n, one in enumerate(await found(plain_shop, 5))
    ]
    assert fates(await orders.record(batch)) == {WriteStatus.HELD: 40, WriteStatus.WRITTEN: 5}
    stored = await plain_shop.connection.fetchval(
        "SELECT count(*) FROM product_orders WHERE pin_code LIKE 'PIN-2000%'"
    )
    assert stored == 5


async def test_while_some_are_held_each_further_one_is(plain_shop: Shop) -> None:
    orders = braked(plain_shop)
    await orders.record(await found(plain_shop, 20))
    assert fates(await orders.record(await found(plain_shop, 1))) == {WriteStatus.HELD: 1}
    await move(plain_shop, 1200)
    assert fates(await orders.record(await found(plain_shop, 1))) == {WriteStatus.HELD: 1}, (
        "nothing else in ten minutes"
    )


async def test_it_is_believed_after_its_hour_with_the_evidence(plain_shop: Shop) -> None:
    orders = braked(plain_shop)
    findings = await found(plain_shop, 25)
    await orders.record(findings)
    await let_through(orders, plain_shop)
    assert fates(await orders.record(findings)) == {WriteStatus.HELD: 25}, "not before its hour"
    await move(plain_shop, HOUR)
    assert fates(await orders.record(findings)) == {WriteStatus.HELD: 25}, (
        "the controls were asked too long ago"
    )
    await let_through(orders, plain_shop)
    assert fates(await orders.record(findings[:10])) == {WriteStatus.WRITTEN: 10}
    assert await held(plain_shop) == 15
    assert fates(await orders.record(findings[10:])) == {WriteStatus.WRITTEN: 15}
    assert await held(plain_shop) == 0
    assert fates(await orders.record(await found(plain_shop, 19))) == {WriteStatus.WRITTEN: 19}, (
        "those are counted no more"
    )
    assert fates(await orders.record(await found(plain_shop, 1))) == {WriteStatus.HELD: 1}


async def test_a_steady_flow_of_cancellations_is_not_held_for_ever(plain_shop: Shop) -> None:
    """What let the first ones through lets the next through too, although some are held still:
    until they are a flood again.
    """
    orders = braked(plain_shop)
    first = await found(plain_shop, 25)
    await orders.record(first)
    await move(plain_shop, HOUR)
    assert fates(await orders.record(await found(plain_shop, 1))) == {WriteStatus.HELD: 1}, (
        "no evidence yet"
    )
    await let_through(orders, plain_shop)
    assert fates(await orders.record(await found(plain_shop, 1))) == {WriteStatus.WRITTEN: 1}
    assert await held(plain_shop) == 26
    assert fates(await orders.record(await found(plain_shop, 30))) == {WriteStatus.HELD: 30}
    assert fates(await orders.record(await found(plain_shop, 1))) == {WriteStatus.HELD: 1}


async def test_waiting_or_completed_withdraws_it(shop: Shop) -> None:
    orders = braked(shop)
    findings = await found(shop, 20)
    await orders.record(findings)
    again = [replace(one, answer=Waiting("x")) for one in findings[:5]]
    assert fates(await orders.record(again)) == {WriteStatus.WRITTEN: 5}
    assert await held(shop) == 15
    done = [
        replace(one, answer=Completed(Pin(f"PIN-3000{n}"), "x"))
        for n, one in enumerate(findings[5:10])
    ]
    assert fates(await orders.record(done)) == {WriteStatus.WRITTEN: 5}
    assert await held(shop) == 10
    refused = [replace(one, answer=Refused("3")) for one in findings[10:]]
    await orders.record(refused)
    assert await held(shop) == 10, "what says nothing of an order withdraws nothing"
    closed = await shop.connection.fetch(
        "SELECT closed_by, resolution, count(*) FROM order_monitor_review WHERE closed_at IS NOT NULL GROUP BY 1, 2 ORDER BY 2"
    )
    assert [tuple(row) for row in closed] == [
        ("daemon", "withdrawn", 5),
        ("daemon", "written after all", 5),
    ]


async def test_an_end_by_age_and_a_cancellation_are_braked_alike(plain_shop: Shop) -> None:
    orders = braked(plain_shop, rules={"give_up_after": 50.0})
    findings = await found(plain_shop, 12) + await found(plain_shop, 12, Waiting("x"))
    assert fates(await orders.record(findings)) == {WriteStatus.HELD: 24}
    overdue = [replace(one, answer=Waiting("x")) for one in findings]
    assert fates(await orders.record(overdue)) == {WriteStatus.HELD: 24}, (
        "held, and not failed by age meanwhile"
    )


async def test_a_person_is_not_braked_and_not_counted(plain_shop: Shop) -> None:
    orders = braked(plain_shop)
    assert fates(await orders.record(await found(plain_shop, 30, by_person=True))) == {
        WriteStatus.WRITTEN: 30
    }
    assert fates(await orders.record(await found(plain_shop, 19))) == {WriteStatus.WRITTEN: 19}
    assert fates(await orders.record(await found(plain_shop, 5, by_person=True))) == {
        WriteStatus.WRITTEN: 5
    }


async def test_repeats_and_consumed_events(plain_shop: Shop) -> None:
    orders = braked(plain_shop)
    await orders.record(await found(plain_shop, 19))
    await plain_shop.connection.execute("UPDATE order_monitor_events SET consumed_at = now()")
    assert fates(await orders.record(await found(plain_shop, 1))) == {WriteStatus.HELD: 1}, (
        "consumed events count"
    )
    await plain_shop.connection.execute("UPDATE order_monitor_events SET repeat = true")
    await plain_shop.connection.execute("UPDATE order_monitor_review SET closed_at = now()")
    assert fates(await orders.record(await found(plain_shop, 1))) == {WriteStatus.WRITTEN: 1}, (
        "repeats do not"
    )


async def test_what_usually_is_cancelled_is_no_flood(plain_shop: Shop) -> None:
    orders = braked(plain_shop)
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, decided_at, outcome, source, cause, account) "
        "SELECT gen_random_uuid(), 'sent', 'x', false, now() - interval '2 days', "
        "CASE WHEN n <= 60 THEN 'failed' ELSE 'completed' END, "
        "'program', 'answer', $1 FROM generate_series(1, 100) n",
        CONFIGURED,
    )
    assert fates(await orders.record(await found(plain_shop, 100))) == {WriteStatus.WRITTEN: 100}
    await move(plain_shop, 6 * DAY)
    await plain_shop.connection.execute(
        "DELETE FROM order_monitor_events WHERE decided_at > now() - interval '7 days'"
    )
    assert fates(await orders.record(await found(plain_shop, 20))) == {WriteStatus.HELD: 20}, (
        "eight days ago is not usual"
    )


async def test_two_accounts_of_one_login_are_counted_together_and_another_login_apart(
    plain_shop: Shop,
) -> None:
    orders = braked(plain_shop)
    await orders.prepare()
    logins = orders.row_writer.logins
    one, other = (
        Credentials("znet", "https://a.example", "k"),
        Credentials("znet", "https://b.example", "k"),
    )
    async with plain_shop.database().transaction() as connection:
        await logins.note(connection, {"a": one, "b": one, "c": other})
    batch = await found(plain_shop, 15, account="a") + await found(plain_shop, 15, account="b")
    batch += await found(plain_shop, 15, account="c")
    results = await orders.record(batch)
    assert Counter((r.finding.account, r.fate) for r in results) == {
        ("a", WriteStatus.HELD): 15,
        ("b", WriteStatus.HELD): 15,
        ("c", WriteStatus.WRITTEN): 15,
    }
    assert await orders.brake.release("c", "x") == {}
    assert await orders.brake.release("a", "x") == {"a": 15, "b": 15}
    assert fates(await orders.record([r.finding for r in results if r.finding.account != "c"])) == {
        WriteStatus.WRITTEN: 30
    }


async def test_a_login_that_is_changed_meanwhile_lets_nothing_through(plain_shop: Shop) -> None:
    """Its panel has moved, or its token was renewed: what is held is so still."""
    orders = braked(plain_shop)
    await orders.prepare()
    logins = orders.row_writer.logins
    async with plain_shop.database().transaction() as connection:
        await logins.note(connection, {"a": Credentials("client_api", "https://a.example", "1")})
    findings = await found(plain_shop, 25, account="a")
    assert fates(await orders.record(findings)) == {WriteStatus.HELD: 25}
    async with plain_shop.database().transaction() as connection:
        await logins.note(connection, {"a": Credentials("client_api", "https://a.example", "2")})
    for finding in findings[:5]:
        assert fates(await orders.record([finding])) == {WriteStatus.HELD: 1}
    await move(plain_shop, HOUR)
    now = await plain_shop.connection.fetchval("SELECT extract(epoch FROM now())::float8")
    await orders.brake.understood({"a": now})
    await orders.brake.answered(orders.row_writer.brake.login_of("a"), "fine")
    assert fates(await orders.record(findings)) == {WriteStatus.WRITTEN: 25}


async def test_two_that_write_at_the_same_moment_count_each_other(plain_shop: Shop) -> None:
    first, second = braked(plain_shop), braked(plain_shop)
    batches = [await found(plain_shop, 15) for _ in range(4)]
    results = await asyncio.gather(
        *(
            orders.record(batch, 5.0)
            for orders, batch in zip([first, second] * 2, batches, strict=True)
        )
    )
    told = sum((fates(result) for result in results), Counter())
    assert told == {WriteStatus.WRITTEN: 15, WriteStatus.HELD: 45}, (
        "whoever comes second sees what the first wrote"
    )


async def test_many_writers_with_ends_and_pins_meet_no_deadlock(plain_shop: Shop) -> None:
    writers = [braked(plain_shop) for _ in range(4)]
    mixed = []
    for n in range(8):
        batch = await found(plain_shop, 6)
        batch += [
            replace(one, answer=Completed(Pin(f"PIN-{n}-{i}-555"), "x"))
            for i, one in enumerate(await found(plain_shop, 6))
        ]
        mixed.append(batch)
    results = await asyncio.gather(
        *(writers[n % 4].record(batch, 10.0) for n, batch in enumerate(mixed))
    )
    assert sum(len(result) for result in results) == 96
    assert not [r for result in results for r in result if r.fate is WriteStatus.LOCKED]


async def test_another_dispatch_begins_its_hour_anew(plain_shop: Shop) -> None:
    orders = braked(plain_shop)
    findings = await found(plain_shop, 21)
    await orders.record(findings)
    await move(plain_shop, 2 * HOUR)
    order_id = findings[0].order.id
    await plain_shop.set(order_id, provider_referans="anew")
    await plain_shop.note(order_id)
    anew = replace(findings[0], order=findings[0].order._replace(reference="anew"))
    assert fates(await orders.record([anew])) == {WriteStatus.HELD: 1}
    kinds = await plain_shop.connection.fetch(
        "SELECT resolution FROM order_monitor_review WHERE order_id::text = $1 ORDER BY id",
        order_id,
    )
    assert [row["resolution"] for row in kinds] == ["sent anew", None]
    await let_through(orders, plain_shop)
    assert fates(await orders.record(findings[1:])) == {WriteStatus.WRITTEN: 20}


async def test_an_order_that_was_sent_elsewhere_is_held_no_more(plain_shop: Shop) -> None:
    orders = braked(plain_shop)
    findings = await found(plain_shop, 20)
    await orders.record(findings)
    await plain_shop.set(findings[0].order.id, provider_referans="anew")
    await plain_shop.set(findings[1].order.id, external_status="failed")
    assert fates(await orders.record(findings)) == {
        WriteStatus.RESENT: 1,
        WriteStatus.GONE: 1,
        WriteStatus.HELD: 18,
    }
    assert await held(plain_shop) == 18


async def test_a_look_lets_go_what_is_open_no_more(plain_shop: Shop) -> None:
    orders = braked(plain_shop)
    findings = await found(plain_shop, 20)
    await orders.record(findings)
    await plain_shop.set(findings[0].order.id, external_status="completed")
    await plain_shop.connection.execute(
        "DELETE FROM product_orders WHERE id::text = $1", findings[1].order.id
    )
    assert len((await orders.scan()).held) == 18
    assert await held(plain_shop) == 18
    assert {one.is_released for one in (await orders.scan()).held} == {False}
    await orders.brake.release(CONFIGURED, "x")
    assert {one.is_released for one in (await orders.scan()).held} == {True}


# --- a database whose clock goes back, as after a fail-over to a server that is behind


async def test_a_clock_that_goes_back_makes_a_flood_no_less_of_one(plain_shop: Shop) -> None:
    """What was let through until then is counted no more, but what ends now is."""
    orders = braked(plain_shop)
    findings = await found(plain_shop, 25)
    await orders.record(findings)
    await move(plain_shop, HOUR)
    await let_through(orders, plain_shop)
    assert fates(await orders.record(findings)) == {WriteStatus.WRITTEN: 25}
    await move(plain_shop, -10 * HOUR)
    for _ in range(2):
        assert fates(await orders.record(await found(plain_shop, 9))) == {WriteStatus.WRITTEN: 9}
    assert fates(await orders.record(await found(plain_shop, 9))) == {WriteStatus.HELD: 9}


async def test_a_release_before_a_clock_goes_back_lets_nothing_later_through(
    plain_shop: Shop,
) -> None:
    orders = braked(plain_shop)
    before = await found(plain_shop, 20)
    await orders.record(before)
    await orders.brake.release(CONFIGURED, "x")
    await move(plain_shop, -10 * HOUR)
    assert fates(await orders.record(before)) == {WriteStatus.WRITTEN: 20}, "released"
    flood = await found(plain_shop, 30)
    assert fates(await orders.record(flood)) == {WriteStatus.HELD: 30}
    assert fates(await orders.record(flood)) == {WriteStatus.HELD: 30}
    assert {one.is_released for one in (await orders.scan()).held} == {False}


async def test_a_release_after_a_clock_went_back_is_of_all_that_is_held(plain_shop: Shop) -> None:
    orders = braked(plain_shop)
    findings = await found(plain_shop, 20)
    await orders.record(findings)
    await move(plain_shop, -10 * HOUR)
    assert await orders.brake.release(CONFIGURED, "x") == {CONFIGURED: 20}
    assert fates(await orders.record(findings)) == {WriteStatus.WRITTEN: 20}


async def test_what_was_held_before_a_clock_went_back_begins_again(plain_shop: Shop) -> None:
    """It neither waits until the clock is there again, nor is it believed the sooner."""
    orders = braked(plain_shop)
    findings = await found(plain_shop, 20)
    await orders.record(findings)
    await move(plain_shop, -10 * HOUR)
    for finding in findings:
        assert fates(await orders.record([finding])) == {WriteStatus.HELD: 1}
    await move(plain_shop, HOUR)
    await let_through(orders, plain_shop)
    assert fates(await orders.record(findings)) == {WriteStatus.WRITTEN: 20}


async def test_evidence_from_before_a_clock_went_back_proves_nothing(plain_shop: Shop) -> None:
    orders = braked(plain_shop)
    await orders.record(await found(plain_shop, 20))
    await let_through(orders, plain_shop)
    await move(plain_shop, -10 * HOUR)
    assert [one.login for one in await orders.brake.questions()], "asked again at once"
    flood = await found(plain_shop, 30)
    assert fates(await orders.record(flood)) == {WriteStatus.HELD: 30}
    await move(plain_shop, HOUR)
    assert fates(await orders.record(flood)) == {WriteStatus.HELD: 30}, "no control since"
    await let_through(orders, plain_shop)
    assert fates(await orders.record(flood)) == {WriteStatus.WRITTEN: 30}


async def test_a_look_lets_go_what_the_shop_has_settled(plain_shop: Shop) -> None:
    """It is not asked about any more, and holds up no other order's end."""
    orders = braked(plain_shop, settled=("rejected",))
    await orders.record(await found(plain_shop, 20))
    await plain_shop.connection.execute("UPDATE product_orders SET status = 'rejected'")
    assert len((await orders.scan()).held) == 0
    assert await held(plain_shop) == 0
    await move(plain_shop, 1200)
    assert fates(await orders.record(await found(plain_shop, 1))) == {WriteStatus.WRITTEN: 1}


async def test_with_the_brake_taken_out_of_the_settings_what_is_held_is_believed(
    plain_shop: Shop,
) -> None:
    findings = await found(plain_shop, 20)
    await braked(plain_shop).record(findings)
    orders = braked(plain_shop, hold=0.0)
    assert {one.is_released for one in (await orders.scan()).held} == {True}
    assert fates(await orders.record(findings)) == {WriteStatus.WRITTEN: 20}
    assert await held(plain_shop) == 0


async def test_reviews_of_other_kinds_hold_nothing_and_say_nothing_of_since_when(
    plain_shop: Shop,
) -> None:
    async def review(findings: list[CheckResult]) -> None:
        await plain_shop.connection.execute(
            "INSERT INTO order_monitor_review (order_id, kind, account, detail, opened_at) "
            "SELECT id::uuid, 'unknown_state', $2, '', now() - interval '2 hours' FROM unnest($1::text[]) AS id",
            [one.order.id for one in findings],
            CONFIGURED,
        )

    orders = braked(plain_shop)
    usual = await found(plain_shop, 60, Completed(None))
    assert fates(await orders.record(usual)) == {WriteStatus.WRITTEN: 60}
    await move(plain_shop, DAY)
    few, many = await found(plain_shop, 19), await found(plain_shop, 30)
    await review(few)
    assert not await orders.brake.held()
    assert fates(await orders.record(few)) == {WriteStatus.WRITTEN: 19}
    assert fates(await orders.record(many)) == {WriteStatus.HELD: 30}
    await review(many)
    await let_through(orders, plain_shop)
    assert fates(await orders.record(many)) == {WriteStatus.HELD: 30}
    assert len(await orders.brake.held()) == 30
    await move(plain_shop, HOUR + 60)
    await let_through(orders, plain_shop)
    assert fates(await orders.record(many)) == {WriteStatus.WRITTEN: 30}


async def test_controls_are_what_answers_completed_in_the_last_day(plain_shop: Shop) -> None:
    orders = braked(plain_shop)
    await orders.prepare()
    good = {
        "account": CONFIGURED,
        "reference": "r",
        "outcome": "completed",
        "source": "program",
        "cause": "answer",
        "repeat": False,
        "days": 0.9,
    }
    for change in (
        {},
        {"account": "another"},
        {"reference": ""},
        {"outcome": "failed"},
        {"outcome": "processing"},
        {"source": "person"},
        {"cause": "time_limit"},
        {"repeat": True},
        {"days": 1.1},
        {"reference": "newer"},
    ):
        await plain_shop.connection.execute(
            "INSERT INTO order_monitor_events (order_id, to_status, has_pin, account, reference, outcome, source, cause, "
            "repeat, decided_at) "
            "SELECT gen_random_uuid(), 'x', false, $1, $2, $3, $4, $5, $6, now() - make_interval(secs => 86400 * $7::float8)",
            *(good | change).values(),
        )
    brake = orders.row_writer.brake
    connection: Any = plain_shop.connection
    controls = await brake.controls(connection, brake.login_of(CONFIGURED))
    assert [(one.account, one.reference) for one in controls] == [
        (CONFIGURED, "newer"),
        (CONFIGURED, "r"),
    ]


async def test_counts_and_controls_read_the_newest_events_by_their_numbers(
    plain_shop: Shop,
) -> None:
    """Ten million events are no reason to read them all at each batch."""
    async with watched(plain_shop.dsn) as (database, asked):
        orders = braked(plain_shop, database=database)
        await orders.record(await found(plain_shop, 30, Completed(Pin("PIN-1"))))
        assert fates(await orders.record(await found(plain_shop, 70))) == {WriteStatus.HELD: 70}
        assert await orders.brake.questions()
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, decided_at, outcome, source, cause, account) "
        "SELECT gen_random_uuid(), 'sent', 'x', false, now() - interval '30 days', 'completed', 'program', 'answer', 'z' "
        "FROM generate_series(1, 60000) n"
    )
    await plain_shop.connection.execute("ANALYZE order_monitor_events")
    limits = []
    for statement in dict.fromkeys(asked):
        if (limit := re.search(r"LIMIT (\d+)\) e ", statement)) is not None:
            # Of so few events, all would be read.
            fewer = statement.replace(limit[0], "LIMIT 1000) e ").replace("$1", "'{a}'")
            plan = await plain_shop.connection.fetch(f"EXPLAIN {re.sub(r'[$][23]', '0', fewer)}")
            assert any("Index Scan Backward" in row[0] for row in plan), statement
            limits.append(int(limit[1]))
    assert sorted(limits) == [20_000, 200_000, 200_000]
