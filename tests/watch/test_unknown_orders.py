"""Orders that the provider does not know, beside good ones: nobody waits for them, and they wait
for a person.
"""

import random
from collections.abc import Callable
from statistics import median
from typing import Any

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from order_monitor.core.judge import SEARCHED
from order_monitor.tell.readiness import Readiness
from tests.support.clocks import Drive
from tests.support.engines import Bench, one_pass, text
from tests.support.shops import NOW, Shop

HOUR = 3600.0
ODD = {
    "refused": lambda: text("3|Sipariş bulunamadı"),
    "empty": lambda: text(""),
    "500": lambda: text("", 500),
    "text": lambda: text("kayit yok"),
    "unknown state": lambda: text("OK|9| |x"),
}


async def mixed(
    shop: Shop, good: int, odd: int, *, seed: int = 1, apart: float = 1.0
) -> tuple[list[str], list[str]]:
    """Orders sent one after the other, good and odd in a random order."""
    kinds = [True] * good + [False] * odd
    random.Random(seed).shuffle(kinds)
    found: dict[bool, list[str]] = {True: [], False: []}
    for n, is_good in enumerate(kinds):
        reference = f"good-{n}" if is_good else f"odd-{n}"
        found[is_good].append(await shop.add(sent_at=NOW - 100 - n * apart, reference=reference))
    return found[True], found[False]


def panel_of(
    odd: Callable[[], httpx.Response], answer: str = "OK|2| |tamam"
) -> Callable[[str], httpx.Response]:
    return lambda reference: text(answer) if reference.startswith("good") else odd()


async def marks(shop: Shop) -> dict[str, tuple[bool, bool]]:
    """Whether each order was understood, and whether it is odd."""
    rows = await shop.connection.fetch(
        "SELECT order_id::text AS id, first_understood_at IS NOT NULL AS known, first_odd_at IS NOT NULL AS odd "
        "FROM order_monitor_dispatches"
    )
    return {row["id"]: (row["known"], row["odd"]) for row in rows}


async def reviews(shop: Shop, kind: str = "not_known") -> list[str]:
    sql = "SELECT order_id::text AS id FROM order_monitor_review WHERE kind = $1 AND closed_at IS NULL"
    return [row["id"] for row in await shop.connection.fetch(sql, kind)]


@pytest.mark.long
@pytest.mark.parametrize("kind", ODD)
async def test_forty_that_are_not_known_keep_twenty_from_nothing(
    plain_shop: Shop, kind: str
) -> None:
    good, odd = await mixed(plain_shop, 20, 40)
    bench = Bench(plain_shop, panel_of(ODD[kind]), calls_per_second=10.0)
    with structlog.testing.capture_logs() as logs:
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(120, scan_every=10)
            assert {await bench.status(i) for i in good} == {"completed"}
            found_by = max(at for at, reference in bench.calls if reference.startswith("good"))
            await drive.run(2 * HOUR, scan_every=60)
            assert Readiness(bench.engine, bench.clock, 60.0).reasons() == []
            (late,) = [
                await plain_shop.add(sent_at=NOW + bench.clock.elapsed, reference="good-late")
            ]
            began = bench.clock.elapsed
            await drive.run(90, scan_every=10)
    assert found_by <= 30
    assert await bench.status(late) == "completed"
    assert [round(at - began) for at, r in bench.calls if r == "good-late"] == [60]
    closed = [line for line in logs if line["event"] == "account.closed"]
    assert len(closed) <= 1, "once at most, before anything was known"
    assert {await bench.status(i) for i in odd} == {"sent"}
    calls = [
        reference for at, reference in bench.calls if at > HOUR and reference.startswith("odd")
    ]
    assert len(calls) <= 40 * 7, "at the cap"
    assert len(set(calls)) == 40, "and asked for ever"
    assert {(await marks(plain_shop))[i] for i in odd} == {(False, True)}


@pytest.mark.parametrize("kind", ["refused", "text", "unknown state"])
async def test_one_pass_finds_all_that_are_good(plain_shop: Shop, kind: str) -> None:
    good, odd = await mixed(plain_shop, 20, 40)
    bench = Bench(plain_shop, panel_of(ODD[kind]), one_pass=True, concurrency=1)
    engine = await one_pass(bench)
    assert {await bench.status(i) for i in good} == {"completed"}
    assert (engine.state.asked, engine.state.eligible) == (60, 60)
    assert {(await marks(plain_shop))[i] for i in odd} == {(False, True)}


@pytest.mark.long
@pytest.mark.parametrize("kind", ODD)
async def test_passes_find_them_one_after_the_other(plain_shop: Shop, kind: str) -> None:
    """Each pass knows from the table what those before it have found out."""
    good, odd = await mixed(plain_shop, 20, 40, seed=7)
    bench = Bench(plain_shop, panel_of(ODD[kind]))
    state = bench.engine.state
    for number in range(6):
        bench = Bench(plain_shop, panel_of(ODD[kind]), one_pass=True, concurrency=1)
        bench.clock.elapsed = 60.0 * number
        engine = await one_pass(bench)
        state = engine.state
        assert min(state.outcomes.values(), default=0) >= 0
        assert 0 <= state.asked <= state.eligible
    assert {await bench.status(i) for i in good} == {"completed"}
    assert (state.asked, state.eligible) == (40, 40)
    assert bench.account.gate.is_open
    assert {(await marks(plain_shop))[i] for i in odd} == {(False, True)}


@pytest.mark.parametrize("body", ["3|x", "", "bakim"])
async def test_counts_of_a_pass_are_never_below_zero(plain_shop: Shop, body: str) -> None:
    for n in range(30):
        await plain_shop.add(sent_at=NOW - 100 - n)
    for concurrency in (1, 3, 20):
        bench = Bench(plain_shop, lambda _: text(body), one_pass=True, concurrency=concurrency)
        state = (await one_pass(bench)).state
        assert state.asked == 0
        assert min(state.outcomes.values()) >= 0


@pytest.mark.long
async def test_after_long_enough_they_are_for_a_person_one_line_for_all(plain_shop: Shop) -> None:
    _, odd = await mixed(plain_shop, 0, 12)
    await plain_shop.add(sent_at=NOW, reference="good-waits")
    bench = Bench(plain_shop, panel_of(ODD["refused"], "OK|1| |x"), give_up_after=HOUR)
    with structlog.testing.capture_logs() as logs:
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(0.8 * HOUR, scan_every=60)
            assert await reviews(plain_shop) == []
            await drive.run(2 * HOUR, scan_every=60)
    assert sorted(await reviews(plain_shop)) == sorted(odd)
    assert {await bench.status(i) for i in odd} == {"sent"}
    told = [line["event"] for line in logs if line["event"] in ("order.stuck", "account.not_known")]
    assert 1 <= told.count("account.not_known") <= 3
    assert "order.stuck" not in told
    assert set(bench.engine.state.stuck.values()) == {"not_known"}


@pytest.mark.long
async def test_one_that_is_known_after_all_is_no_matter_for_a_person(plain_shop: Shop) -> None:
    (odd,) = (await mixed(plain_shop, 0, 1))[1]
    await plain_shop.add(sent_at=NOW, reference="good-waits")
    answers = {"odd": "3|x"}
    bench = Bench(
        plain_shop,
        lambda r: text("OK|1| |x" if r.startswith("good") else answers["odd"]),
        give_up_after=HOUR,
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(2.5 * HOUR, scan_every=60)
        assert await reviews(plain_shop) == [odd]
        bench.engine.reconfigure(bench.engine.context.policy)
        answers["odd"] = "OK|2| |tamam"
        await drive.run(700, scan_every=60)
    assert await bench.status(odd) == "completed"
    assert await reviews(plain_shop) == []
    assert bench.engine.state.odd == {}


@pytest.mark.long
@pytest.mark.parametrize("by", ["failover", "another process"])
async def test_a_mark_that_is_gone_from_the_table_is_made_again(plain_shop: Shop, by: str) -> None:
    """A fail-over may lose it, and another process may have had an answer that was understood."""
    (order_id,) = (await mixed(plain_shop, 0, 1))[1]
    await plain_shop.add(sent_at=NOW, reference="good-waits")
    bench = Bench(plain_shop, panel_of(ODD["refused"], "OK|1| |x"), give_up_after=2 * HOUR)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(HOUR, scan_every=60)
        assert (await marks(plain_shop))[order_id] == (False, True)
        understood = "now()" if by == "another process" else "NULL"
        await plain_shop.connection.execute(
            f"UPDATE order_monitor_dispatches SET first_odd_at = NULL, first_understood_at = {understood} "
            "WHERE order_id = $1::uuid",
            order_id,
        )
        await drive.run(1.5 * HOUR, scan_every=60)
        assert await reviews(plain_shop) == [], "it may have been known an hour and a half ago"
        assert (await marks(plain_shop))[order_id] == (by == "another process", True)
        await drive.run(HOUR, scan_every=60)
        assert await reviews(plain_shop) == [order_id]


@pytest.mark.long
async def test_an_answer_that_is_understood_clears_the_mark(plain_shop: Shop) -> None:
    (odd,) = (await mixed(plain_shop, 0, 1))[1]
    await plain_shop.add(sent_at=NOW, reference="good-waits")
    answers = {"odd": "3|x"}
    bench = Bench(
        plain_shop, lambda r: text("OK|1| |x" if r.startswith("good") else answers["odd"])
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(HOUR, scan_every=60)
        assert (await marks(plain_shop))[odd] == (False, True)
        answers["odd"] = "OK|1| |x"
        await drive.run(700, scan_every=60)
        assert (await marks(plain_shop))[odd] == (True, False)
        answers["odd"] = "3|x"
        await drive.run(2 * HOUR, scan_every=60)
    assert (await marks(plain_shop))[odd] == (True, True)


def rules(shop: Shop) -> dict[str, Any]:
    from dataclasses import replace

    return {
        "table_config": {"rules": replace(shop.table_config.rules, give_up_unknown=True)},
        "give_up_unknown": True,
    }


@pytest.mark.long
@pytest.mark.parametrize("kind", ["refused", "empty", "500", "text"])
async def test_where_the_settings_say_so_they_are_failed(plain_shop: Shop, kind: str) -> None:
    (odd,) = (await mixed(plain_shop, 0, 1))[1]
    await plain_shop.add(sent_at=NOW, reference="good-waits")
    bench = Bench(
        plain_shop, panel_of(ODD[kind], "OK|1| |x"), give_up_after=2 * HOUR, **rules(plain_shop)
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(1.9 * HOUR, scan_every=60)
        assert await bench.status(odd) == "sent"
        await drive.run(HOUR, scan_every=60)
    assert await bench.status(odd) == "failed"
    assert await reviews(plain_shop) == []
    event = await plain_shop.connection.fetchrow(
        "SELECT * FROM order_monitor_events WHERE order_id::text = $1", odd
    )
    assert event is not None
    assert (event["cause"], event["outcome"]) == ("time_limit", "failed")


@pytest.mark.long
async def test_never_by_an_answer_that_nothing_vouches_for(plain_shop: Shop) -> None:
    """The good one has ended hours ago: who knows whether the panel is well?"""
    (odd,) = (await mixed(plain_shop, 0, 1))[1]
    await plain_shop.add(sent_at=NOW, reference="good-waits")
    answers = {"good": "OK|1| |x"}
    panel = lambda r: text(answers["good"] if r.startswith("good") else "3|x")  # noqa: E731
    bench = Bench(plain_shop, panel, give_up_after=4 * HOUR, **rules(plain_shop))
    with structlog.testing.capture_logs() as logs:
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(HOUR, scan_every=60)
            answers["good"] = "OK|2| |x"
            await drive.run(6 * HOUR, scan_every=60)
            assert await bench.status(odd) == "sent"
            assert await reviews(plain_shop) == [odd]
            await plain_shop.add(sent_at=NOW + bench.clock.elapsed, reference="good-again")
            await drive.run(1000, scan_every=60)
    assert await bench.status(odd) == "failed"
    assert await reviews(plain_shop) == []
    assert [line["event"] for line in logs].count("order.refused") == 1, (
        "said once, however often it is written"
    )


@pytest.mark.long
@pytest.mark.parametrize("body", ["OK|9| |x", "OK|2|A<script>|x"])
async def test_never_what_is_known_and_cannot_be_read(plain_shop: Shop, body: str) -> None:
    (odd,) = (await mixed(plain_shop, 0, 1))[1]
    await plain_shop.add(sent_at=NOW, reference="good-waits")
    bench = Bench(
        plain_shop,
        panel_of(lambda: text(body), "OK|1| |x"),
        give_up_after=HOUR,
        **rules(plain_shop),
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(4 * HOUR, scan_every=60)
    assert await bench.status(odd) == "sent"


@pytest.mark.long
async def test_time_outs_neither_count_nor_reset(plain_shop: Shop) -> None:
    (odd,) = (await mixed(plain_shop, 0, 1))[1]
    await plain_shop.add(sent_at=NOW, reference="good-waits")
    answers = {"odd": "3|x"}

    def panel(reference: str) -> httpx.Response:
        if reference.startswith("good"):
            return text("OK|1| |x")
        if answers["odd"] == "time-out":
            raise httpx.ReadTimeout("")
        return text(answers["odd"])

    bench = Bench(plain_shop, panel, give_up_after=2 * HOUR)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(0.5 * HOUR, scan_every=60)
        since = await plain_shop.connection.fetchval(
            "SELECT max(first_odd_at) FROM order_monitor_dispatches"
        )
        answers["odd"] = "time-out"
        await drive.run(3 * HOUR, scan_every=60)
        assert bench.account.gate.is_open
        assert await reviews(plain_shop) == []
        assert since == await plain_shop.connection.fetchval(
            "SELECT max(first_odd_at) FROM order_monitor_dispatches"
        )
        answers["odd"] = "3|x"
        await drive.run(0.5 * HOUR, scan_every=60)
    assert await reviews(plain_shop) == [odd]


@pytest.mark.long
async def test_an_outage_of_three_hours_leaves_no_trace(plain_shop: Shop) -> None:
    """Of a shop whose orders are asked once and are done: those that come meanwhile were never
    understood before.
    """
    answers: dict[str, Any] = {"status": 200}
    bench = Bench(
        plain_shop,
        lambda _: text("OK|2| |tamam") if answers["status"] == 200 else text("", answers["status"]),
        calls_per_second=10.0,
    )
    with structlog.testing.capture_logs() as logs:
        async with Drive(bench.engine, bench.clock) as drive:

            async def minutes(count: int) -> None:
                for _ in range(count):
                    await plain_shop.add(sent_at=NOW + bench.clock.elapsed)
                    await drive.run(60, scan_every=20)

            await minutes(10)
            answers["status"], before = 500, len(bench.calls)
            await minutes(180)
            during = len(bench.calls) - before
            assert not bench.account.gate.is_open
            answers["status"] = 200
            await drive.run(400, scan_every=20)
    assert during <= 180
    assert {
        row["external_status"]
        for row in await plain_shop.connection.fetch("SELECT * FROM product_orders")
    } == {"completed"}
    assert await plain_shop.connection.fetchval("SELECT count(*) FROM order_monitor_review") == 0
    assert [line["event"] for line in logs if line["event"].startswith("account.")].count(
        "account.closed"
    ) == 1
    assert not any(odd for _, odd in (await marks(plain_shop)).values())


@pytest.mark.long
async def test_whose_questions_alone_time_out_shuts_nothing(plain_shop: Shop) -> None:
    await mixed(plain_shop, 3, 12)

    def panel(reference: str) -> httpx.Response:
        if reference.startswith("good"):
            return text("OK|1| |x")
        raise httpx.ReadTimeout("")

    bench = Bench(plain_shop, panel)
    with structlog.testing.capture_logs() as logs:
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(HOUR, scan_every=60)
            late = [line for line in logs if line["event"] == "account.closed"]
            logs.clear()
            await drive.run(2 * HOUR, scan_every=60)
    assert len(late) <= 8
    assert bench.account.gate.is_open


async def delays(shop: Shop, good: int, odd: int, kind: str, seed: int) -> list[float]:
    """How long after it was due each good order is asked about, where orders come due one after the
    other.
    """
    await shop.connection.execute(
        "TRUNCATE product_orders, order_monitor_dispatches, order_monitor_events CASCADE"
    )
    kinds = ["good"] * good + ["odd"] * odd
    random.Random(seed).shuffle(kinds)
    due = {f"{name}-{n}": 60.0 + n / 4 for n, name in enumerate(kinds)}
    for reference, at in due.items():
        await shop.add(sent_at=NOW + at - 60.0, reference=reference)
    bench = Bench(shop, panel_of(ODD[kind]), calls_per_second=10.0)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(900, scan_every=10)
    # Many examples share one server, which has so many connections and no more.
    for database in shop.databases:
        await database.close()
    return [at - due[reference] for at, reference in bench.calls if reference.startswith("good")]


@pytest.mark.long
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(1, 30),
    st.integers(0, 60),
    st.sampled_from(["refused", "text", "unknown state"]),
    st.integers(0, 10**6),
)
async def test_the_good_ones_are_found_as_soon_as_without(
    plain_shop: Shop, good: int, odd: int, kind: str, seed: int
) -> None:
    """Where they are as many as the odd ones at once, and at the worst within twice the time of a
    first check.

    A few among very many odd ones are searched for more slowly: from outside that is an account
    that is closed.
    """
    found = await delays(plain_shop, good, odd, kind, seed)
    if odd <= max(4 * good, SEARCHED):
        assert len(found) == good
        assert max(found) <= 600.0
    if good >= odd:
        assert median(found) <= 1.0
        assert max(found) <= 60.0


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "count"), [("refused", 1), ("text", 2), ("empty", 6), ("unknown state", 6)]
)
async def test_where_nobody_was_ever_understood_a_person_sees_them(
    plain_shop: Shop, kind: str, count: int
) -> None:
    """The account stays shut, and nothing vouches for it: they are shown in one line, and never
    failed.
    """
    _, odd = await mixed(plain_shop, 0, count)
    bench = Bench(plain_shop, panel_of(ODD[kind]), give_up_after=HOUR, **rules(plain_shop))
    with structlog.testing.capture_logs() as logs:
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(0.9 * HOUR, scan_every=300)
            assert await reviews(plain_shop) == []
            await drive.run(HOUR, scan_every=300)
            shown = [*await reviews(plain_shop), *await reviews(plain_shop, "unknown_state")]
            assert sorted(shown) == sorted(odd)
            await drive.run(3 * HOUR, scan_every=1800)
    assert {await bench.status(i) for i in odd} == {"sent"}
    told = [line for line in logs if line["event"] == "account.not_known"]
    assert len(told) <= 2
    if kind != "unknown state":
        assert len(told) >= 1
        assert bench.engine.state.stuck == dict.fromkeys(odd, "not_known")
    assert not any(odd for _, odd in (await marks(plain_shop)).values()), (
        "whose fault it is nobody knows"
    )
    assert await plain_shop.connection.fetchval("SELECT count(*) FROM order_monitor_events") == 0


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 12])
async def test_what_was_shown_so_is_closed_when_it_is_understood(
    plain_shop: Shop, count: int
) -> None:
    _, odd = await mixed(plain_shop, 0, count)
    answers = {"odd": "3|x"}
    bench = Bench(plain_shop, lambda _: text(answers["odd"]), give_up_after=HOUR)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(2 * HOUR, scan_every=300)
        assert sorted(await reviews(plain_shop)) == sorted(odd)
        answers["odd"] = "OK|2| |tamam"
        await drive.run(2 * HOUR, scan_every=300)
    assert {await bench.status(i) for i in odd} == {"completed"}
    assert await reviews(plain_shop) == []
    assert bench.engine.state.stuck == {}


async def test_an_account_that_was_understood_today_shows_none(plain_shop: Shop) -> None:
    """An outage of the panel is no matter of single orders, however old they are."""
    await plain_shop.add(sent_at=NOW - 100, reference="good")
    answers = {"good": "OK|1| |x"}
    bench = Bench(
        plain_shop, lambda r: text(answers["good"] if r == "good" else "bakim"), give_up_after=HOUR
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(300, scan_every=60)
        answers["good"] = "bakim"
        for n in range(6):
            await plain_shop.add(sent_at=NOW - 2 * HOUR, reference=f"odd-{n}")
        await drive.run(0.7 * HOUR, scan_every=300)
        assert len({reference for _, reference in bench.calls}) > 4
        assert await reviews(plain_shop) == []
        await drive.run(HOUR, scan_every=300)
        shown = {entry.reference for entry in bench.engine.queue if entry.rare.stuck}
        assert shown == {f"odd-{n}" for n in range(6)}, "the other one was understood, once"


async def test_an_old_order_is_not_shown_at_the_first_answer(plain_shop: Shop) -> None:
    """A pass, and a daemon that has just started, cannot know that nobody is understood."""
    _, odd = await mixed(plain_shop, 0, 3)
    bench = Bench(plain_shop, panel_of(ODD["refused"]), one_pass=True, give_up_after=100.0)
    await one_pass(bench)
    assert await reviews(plain_shop) == []
    bench = Bench(plain_shop, panel_of(ODD["refused"]), give_up_after=2 * HOUR)
    bench.clock.epoch += 24 * HOUR
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(0.9 * HOUR, scan_every=300)
        assert await reviews(plain_shop) == []
        await drive.run(0.3 * HOUR, scan_every=300)
    assert sorted(await reviews(plain_shop)) == sorted(odd)
