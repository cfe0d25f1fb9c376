"""The way of an order through the running engine: virtual time, a real PostgreSQL, the real client
over a scripted transport.
"""

import asyncio
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import httpx
import pytest

from order_monitor.core.decision import Rules
from order_monitor.core.errors import ShopUnavailableError
from order_monitor.core.order import SkipReason
from order_monitor.providers.provider import Reply
from order_monitor.shop.reading.orders import ALL, Part, Scan, Take
from order_monitor.watch.system_clock import SystemClock
from tests.support.clocks import Drive
from tests.support.engines import DAY, AtClock, Bench, Panel, one_pass, text
from tests.support.orders import prepared
from tests.support.shops import NOW, SHOP, Shop


@pytest.mark.long
async def test_an_order_is_asked_about_at_its_times_and_ended(shop: Shop) -> None:
    order_id = await shop.add(sent_at=NOW)
    ends = 600.0
    bench = Bench(
        shop,
        lambda _: text("OK|2|PIN-1|tamam" if bench.clock.elapsed >= ends else "OK|1| |bekleniyor"),
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(1100, scan_every=10)
    assert bench.times(order_id) == [60, 90, 150, 270, 510, 990]
    row = await shop.row(order_id)
    assert (row["external_status"], row["pin_code"], row["note"]) == (
        "completed",
        "PIN-1",
        "bekleniyor | tamam",
    )
    assert len(bench.engine.queue) == 0
    assert bench.engine.state.ends == Counter(completed=1)


async def test_last_sync_is_written_at_each_check_where_the_column_is(shop: Shop) -> None:
    order_id = await shop.add(sent_at=NOW)
    bench = Bench(shop, lambda _: text("OK|1| |bekleniyor"))
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(200, scan_every=10)
    row = await shop.row(order_id)
    assert (row["external_status"], row["note"]) == ("processing", "bekleniyor")
    if shop.spelling is SHOP:
        assert abs(row["last_sync_at"].timestamp() - bench.engine.now()) < 60
    assert bench.times(order_id) == [60, 90, 150]


async def test_a_restart_goes_on_where_an_order_would_be(plain_shop: Shop) -> None:
    order_id = await plain_shop.add(sent_at=NOW - 400)
    bench = Bench(plain_shop, lambda _: text("OK|1| |x"))
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(120, scan_every=10)
    assert bench.times(order_id) == [0, 110], (
        "the slot at 270 was missed: at once; then 510, not 30 s later"
    )


async def test_the_newest_of_a_backlog_goes_first(plain_shop: Shop) -> None:
    ids = [await plain_shop.add(sent_at=NOW - 1000 - n) for n in range(12)]
    bench = Bench(plain_shop, lambda _: text("OK|1| |x"), calls_per_second=1.0)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(3.5, scan_every=100)
    assert [r for _, r in bench.calls][:3] == [f"r-{i[:8]}" for i in ids[:3]]


async def test_the_rate_and_the_concurrency_are_ceilings(plain_shop: Shop) -> None:
    for n in range(60):
        await plain_shop.add(sent_at=NOW - 1000 - n)
    bench = Bench(plain_shop, lambda _: text("OK|1| |x"), calls_per_second=10.0, concurrency=3)
    gate = asyncio.Event()

    async def slow(_: str) -> httpx.Response:
        await gate.wait()
        return text("OK|1| |x")

    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(3.0, scan_every=100)
        spaced = [b - a for (a, _), (b, _) in zip(bench.calls, bench.calls[1:], strict=False)]
        assert 28 <= len(bench.calls) <= 32
        assert min(spaced) > 0.07
        bench.panel = slow
        task = asyncio.create_task(asyncio.sleep(0.05))
        bench.clock.ring(bench.clock.elapsed + 5)
        for _ in range(50):
            await asyncio.sleep(0.001)
            bench.clock.ring(bench.clock.elapsed + 1)
        assert bench.most_at_once == 3
        gate.set()
        await task
        await drive.settle()


@pytest.mark.parametrize("ends_well", [True, False])
async def test_each_request_of_a_question_counts_in_the_pace(
    plain_shop: Shop, *, ends_well: bool
) -> None:
    """A connection that fails is tried once more: the provider counts both."""
    for n in range(40):
        await plain_shop.add(sent_at=NOW - 1000 - n)
    tried: Counter[str] = Counter()

    def panel(reference: str) -> httpx.Response:
        tried[reference] += 1
        if tried[reference] == 1 or not ends_well:
            raise httpx.ConnectError("no route")
        return text("OK|1| |x")

    bench = Bench(plain_shop, panel, calls_per_second=2.0, concurrency=20, gate_after=1000)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(10, scan_every=100)
    assert len(tried) in range(8, 13), "half as many questions as requests"
    assert len(bench.calls) in range(18, 24)


@pytest.mark.long
@pytest.mark.parametrize(
    ("panel", "reason"),
    [
        (lambda _: text(""), "empty_answer"),
        (lambda _: text("8|Bağlantı Hatası"), "refused_8"),
        (lambda _: text("<!DOCTYPE html>"), "html_answer"),
        (lambda _: text("", 302, location="/x"), "redirect"),
        (lambda _: text("", 403), "http_403"),
        (lambda _: text("", 500), "http_500"),
    ],
    ids=["empty", "code 8", "html", "redirect", "403", "500"],
)
async def test_an_outage_shuts_the_account_and_fails_no_order(
    plain_shop: Shop, panel: Panel, reason: str
) -> None:
    ids = [await plain_shop.add(sent_at=NOW - 2 * DAY - n) for n in range(30)]
    bench = Bench(plain_shop, panel, gate_after=5, concurrency=1)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(4, scan_every=2)
        assert len(bench.calls) == 5
        assert bench.account.gate.reason == reason
        await drive.run(1000, scan_every=10)
        probes = [round(at) for at, _ in bench.calls[5:]]
        assert probes == [5, 15, 35, 75, 155, 315, 615, 915]
        assert len({r for _, r in bench.calls}) > 8, (
            "each probe is another order's: one bad order locks nobody out"
        )
        assert sum(map(bench.engine.context.is_past_deadline, bench.engine.queue)) == 30
        assert {await bench.status(i) for i in ids} == {"sent"}
        bench.panel = lambda _: text("OK|2| |tamam")
        await drive.run(400, scan_every=10)
    assert {await bench.status(i) for i in ids} == {"completed"}
    assert bench.account.gate.is_open


async def test_retry_after_is_obeyed(plain_shop: Shop) -> None:
    for n in range(5):
        await plain_shop.add(sent_at=NOW - 1000 - n)
    bench = Bench(
        plain_shop,
        lambda _: text("", 429, retry_after="42") if bench.clock.elapsed < 40 else text("OK|1| |x"),
        concurrency=1,
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(100, scan_every=200)
    times = [round(at) for at, _ in bench.calls]
    assert times[:2] == [0, 42]
    assert len(times) >= 6


@pytest.mark.long
async def test_a_refused_question_concerns_its_order_alone(plain_shop: Shop) -> None:
    refused = await plain_shop.add(sent_at=NOW, reference="bad")
    fine = await plain_shop.add(sent_at=NOW)
    bench = Bench(
        plain_shop,
        lambda r: text("3|Sipariş bulunamadı" if r == "bad" else "OK|1| |x"),
        gate_after=2,
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(1000, scan_every=10)
    assert [round(at) for at, r in bench.calls if r == "bad"] == [60, 90, 690], "asked at the cap"
    assert bench.account.gate.is_open
    assert bench.times(fine) == [60, 90, 150, 270, 510, 990]
    assert await bench.status(refused) == "sent"


@pytest.mark.long
@pytest.mark.parametrize("body", ["OK|7|a|b", "OK", "OK|2", "hello"])
async def test_a_garbled_answer_changes_nothing(plain_shop: Shop, body: str) -> None:
    order_id = await plain_shop.add(sent_at=NOW - 3 * DAY)
    bench = Bench(plain_shop, lambda _: text(body), gate_after=1)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(2000, scan_every=10)
    assert await bench.status(order_id) == "sent"
    assert bench.engine.state.outcomes["garbled"] >= 3
    assert bench.account.gate.is_open


@pytest.mark.long
async def test_the_deadline_needs_a_definitive_answer(plain_shop: Shop) -> None:
    order_id = await plain_shop.add(sent_at=NOW - DAY + 30)
    late = await plain_shop.add(sent_at=NOW - DAY + 30, reference="late")
    bench = Bench(
        plain_shop, lambda r: text("OK|1| |bekleniyor" if r != "late" else "3|?"), first_check=60
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(29, scan_every=10)
        assert await bench.status(order_id) in ("sent", "processing")
        await drive.run(5, scan_every=10)
        assert 30.0 in bench.times(order_id), "one last check at the deadline itself"
        assert await bench.status(order_id) == "failed"
        assert (await plain_shop.row(order_id))["note"].endswith("Timeout: No response after 24h")
        await drive.run(700, scan_every=10)
    assert await bench.status(late) == "sent"
    assert sum(map(bench.engine.context.is_past_deadline, bench.engine.queue)) == 1
    assert bench.engine.state.ends == Counter(failed=1)


@pytest.mark.parametrize("body", ["3|?", "", "OK|7|x|y"], ids=["refused", "outage", "garbled"])
async def test_give_up_blind_restores_the_plain_rule(plain_shop: Shop, body: str) -> None:
    ids = [await plain_shop.add(sent_at=NOW - DAY - n) for n in range(8)]
    bench = Bench(plain_shop, lambda _: text(body), give_up_blind=True, gate_after=2, concurrency=1)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(60, scan_every=10)
    assert {await bench.status(i) for i in ids} == {"failed"}


async def test_what_cannot_be_asked_about_is_skipped_counted_and_told_once(
    plain_shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = await plain_shop.add(sent_at=NOW - 100)
    await plain_shop.add(reference="")
    await plain_shop.add(sent_at=None)
    await plain_shop.add("teleported")
    ahead = await plain_shop.add(sent_at=NOW + 301)
    skewed = await plain_shop.add(sent_at=NOW + 299)
    bench = Bench(plain_shop, lambda _: text("OK|1| |x"))
    async with Drive(bench.engine, bench.clock) as drive:
        for _ in range(3):
            await bench.engine.scan()
        await drive.run(5)
    assert bench.engine.state.skipped == Counter(
        {
            SkipReason.NO_REFERENCE: 1,
            SkipReason.NO_SENT_AT: 1,
            SkipReason.UNKNOWN_STATUS: 1,
            SkipReason.SENT_IN_FUTURE: 1,
        }
    )
    assert {r for _, r in bench.calls} == {f"r-{fine[:8]}"}
    out = capsys.readouterr().out
    assert out.count("order.skipped") == 4
    assert ahead in out
    assert skewed not in out


async def test_an_order_that_gets_its_reference_later_is_taken_up(plain_shop: Shop) -> None:
    order_id = await plain_shop.add(reference="", sent_at=NOW - 100)
    bench = Bench(plain_shop, lambda _: text("OK|2| |x"))
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(20, scan_every=10)
        await plain_shop.set(order_id, provider_referans="123")
        await drive.run(20, scan_every=10)
    assert await bench.status(order_id) == "completed"
    assert bench.engine.state.skipped == Counter()


async def test_orders_ended_by_another_hand_are_dropped(plain_shop: Shop) -> None:
    one, two = await plain_shop.add(sent_at=NOW), await plain_shop.add(sent_at=NOW)
    bench = Bench(plain_shop, lambda _: text("OK|3| |iptal"))
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(30, scan_every=10)
        await plain_shop.set(one, external_status="completed")
        await drive.run(20, scan_every=10)
        assert len(bench.engine.queue) == 1
        await plain_shop.set(two, external_status="done")
        await drive.run(30)
    assert bench.times(one) == []
    assert bench.times(two) == [60]
    assert await bench.status(two) == "done"
    assert bench.engine.state.gone == 1


async def test_an_order_sent_anew_starts_anew(plain_shop: Shop) -> None:
    order_id = await plain_shop.add(sent_at=NOW, reference="old")
    bench = Bench(plain_shop, lambda r: text("OK|3| |iptal" if r == "old" else "OK|1| |x"))
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(55, scan_every=10)
        await plain_shop.set(order_id, provider_referans="new")
        await plain_shop.connection.execute(
            "UPDATE product_orders SET sent_at = to_timestamp($1::float8)", NOW + 50
        )
        await drive.run(10, scan_every=5)
        assert bench.calls == []
        await drive.run(60, scan_every=5)
    assert {r for _, r in bench.calls} == {"new"}
    assert await bench.status(order_id) == "processing"


async def test_a_resent_order_met_while_writing_is_asked_under_its_new_reference(
    plain_shop: Shop,
) -> None:
    order_id = await plain_shop.add(sent_at=NOW - 100, reference="old")

    async def panel(reference: str) -> httpx.Response:
        if reference == "old":
            await plain_shop.set(order_id, provider_referans="new")
            return text("OK|3| |iptal")
        return text("OK|2|PIN|x")

    bench = Bench(plain_shop, panel)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(25, scan_every=10)
    assert await bench.status(order_id) == "completed"
    assert bench.engine.state.resent == 1


async def test_an_order_put_back_by_a_stale_save_is_written_again(
    plain_shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """A2: the shop's ORM saves its old copy over our write; the provider still has the PIN."""
    order_id = await plain_shop.add(sent_at=NOW - 100)
    bench = Bench(plain_shop, lambda _: text("OK|2|PIN-1|x"))
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(5, scan_every=10)
        assert await bench.status(order_id) == "completed"
        await plain_shop.set(order_id, external_status="sent", pin_code=None, note=None)
        await drive.run(30, scan_every=10)
    row = await plain_shop.row(order_id)
    assert (row["external_status"], row["pin_code"]) == ("completed", "PIN-1")
    assert capsys.readouterr().out.count("order.reopened") == 1


async def test_a_scan_that_began_before_our_write_does_not_ask_again(plain_shop: Shop) -> None:
    await plain_shop.add(sent_at=NOW - 100)
    bench = Bench(plain_shop, lambda _: text("OK|2|PIN-1|x"))
    stale = await bench.orders.scan()
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(5, scan_every=10)
        assert len(bench.calls) == 1
        await bench.engine.discovery.merge(stale, began=-1.0)
        await drive.run(5)
    assert len(bench.calls) == 1


@pytest.mark.long
async def test_stuck_orders_are_shown_and_asked_again(
    plain_shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    order_id = await plain_shop.add(sent_at=NOW - 100)
    bench = Bench(plain_shop, lambda _: text(f"OK|2|{'X' * 121}|tamam"))
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(1000, scan_every=10)
        assert set(bench.engine.state.stuck) == {order_id}
        assert len(bench.calls) > 2
        assert await bench.status(order_id) == "sent"
        await plain_shop.connection.execute(
            "ALTER TABLE product_orders ALTER COLUMN pin_code TYPE varchar(200)"
        )
        await drive.run(700, scan_every=10)
    assert await bench.status(order_id) == "completed"
    assert set(bench.engine.state.stuck) == set()
    out = capsys.readouterr().out
    assert out.count("order.stuck") == 1
    assert "XXX" not in out


async def test_one_bad_order_does_not_disturb_the_others(plain_shop: Shop) -> None:
    """E7: a failure in one call's own code is that call's alone."""
    ids = [await plain_shop.add(sent_at=NOW - 100 - n) for n in range(20)]
    bench = Bench(plain_shop, lambda _: text("OK|2| |x"))
    znet, bad = bench.account.provider, f"r-{ids[7][:8]}"

    class Faulty:
        async def ask(self, reference: str) -> Reply:
            if reference == bad:
                msg = "a fault in an adapter, holding a PIN-CANARY"
                raise ZeroDivisionError(msg)
            return await znet.ask(reference)

        async def balance(self) -> Any:
            return await znet.balance()

        async def aclose(self) -> None:
            await znet.aclose()

    bench.account.provider = Faulty()
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(10, scan_every=100)
    assert [await bench.status(i) for i in ids] == [
        "sent" if n == 7 else "completed" for n in range(20)
    ]


async def test_answers_wait_for_a_database_that_is_away(plain_shop: Shop) -> None:
    from tests.support.proxies import Proxy

    ids = [await plain_shop.add(sent_at=NOW - 100 - n) for n in range(30)]
    async with Proxy(plain_shop.dsn) as proxy:
        bench = Bench(
            plain_shop, lambda r: text(f"OK|2|PIN-{r}|x"), database=plain_shop.database(proxy.dsn)
        )
        await bench.engine.scan()
        port = proxy.port
        await proxy.stop()
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(20)
            assert len(bench.engine.writer) == 30
            with pytest.raises(ShopUnavailableError):
                await bench.engine.scan()
            await proxy.start_again(port)
            await drive.run(60)
    assert {await bench.status(i) for i in ids} == {"completed"}
    assert len(bench.calls) == 30, "each answer was fetched once and kept"


async def test_a_machine_that_slept_looks_at_the_clock_again(plain_shop: Shop) -> None:
    """E11: timers stand still in suspend.

    The clock that goes on meanwhile is looked at every few seconds.
    """
    order_id = await plain_shop.add(sent_at=NOW)
    bench = Bench(plain_shop, lambda _: text("OK|1| |x"))
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(1, scan_every=10)
        bench.clock.elapsed += 3600
        await drive.run(6)
    assert len(bench.times(order_id)) == 1


def test_the_clock_for_durations_goes_on_in_suspend() -> None:
    """E11."""
    assert abs(SystemClock().monotonic() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1


async def test_the_databases_clock_decides(plain_shop: Shop) -> None:
    """The daemon's own clock may be wrong by hours; ``sent_at`` was written by the database's."""
    clock = await plain_shop.connection.fetchval(
        "SELECT extract(epoch FROM clock_timestamp())::float8"
    )
    order_id = await plain_shop.add(sent_at=clock - 30)
    bench = Bench(plain_shop, lambda _: text("OK|1| |x"), wrapped=lambda orders, _: orders)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(20, scan_every=100)
        assert bench.times(order_id) == []
        await drive.run(20)
    assert len(bench.times(order_id)) == 1


# --- one pass


async def test_one_pass_asks_each_order_once(plain_shop: Shop) -> None:
    ids = [await plain_shop.add(sent_at=NOW - 100 - n) for n in range(10)]
    young = await plain_shop.add(sent_at=NOW - 30)
    bench = Bench(plain_shop, lambda _: text("OK|1| |x"), one_pass=True)
    engine = await one_pass(bench)
    assert Counter(r for _, r in bench.calls) == Counter({f"r-{i[:8]}": 1 for i in ids})
    assert bench.times(young) == []
    assert (engine.state.asked, engine.state.eligible, engine.state.open) == (10, 10, 11)


async def test_one_pass_does_not_wait_at_a_shut_gate(plain_shop: Shop) -> None:
    for n in range(10):
        await plain_shop.add(sent_at=NOW - 100 - n)
    bench = Bench(plain_shop, lambda _: text(""), one_pass=True, gate_after=3, concurrency=1)
    engine = await one_pass(bench)
    assert len(bench.calls) == 3 + 3, "as many others are tried at once"
    assert (engine.state.asked, engine.state.eligible) == (0, 10)
    assert bench.clock.elapsed < 5


async def test_one_pass_every_minute_asks_what_came_due(plain_shop: Shop) -> None:
    due = await plain_shop.add(sent_at=NOW - 100)
    await plain_shop.add(sent_at=NOW - 400)
    bench = Bench(plain_shop, lambda _: text("OK|1| |x"), one_pass=True, every=60.0)
    await one_pass(bench)
    assert [r for _, r in bench.calls] == [f"r-{due[:8]}"]


async def test_one_pass_gives_up_on_what_is_overdue(plain_shop: Shop) -> None:
    order_id = await plain_shop.add(sent_at=NOW - 2 * DAY)
    engine = await one_pass(Bench(plain_shop, lambda _: text("OK|1| |x"), one_pass=True))
    assert (await plain_shop.row(order_id))["external_status"] == "failed"
    assert (engine.state.timeouts, engine.state.ends["failed"]) == (1, 1)


def test_rules_are_the_layouts() -> None:
    assert Rules().give_up_after == DAY


@pytest.mark.long
@pytest.mark.untraced
async def test_a_long_outage_is_summarised(plain_shop: Shop) -> None:
    """One line when it begins, one an hour while it lasts, one when it ends, however many questions
    failed.
    """
    from structlog.testing import capture_logs

    down = True
    bench = Bench(plain_shop, lambda _: text("", 503) if down else text("OK|3| |x"))
    for _ in range(20):
        await plain_shop.add()
    with capture_logs() as lines:
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(7 * 3600 + 100, scan_every=600)
            down = False
            await drive.run(700, scan_every=600)
    told = [line for line in lines if line["event"].startswith("account.")]
    assert told[0]["event"] == "account.closed"
    assert {line["event"] for line in told[1:-1]} == {"account.still_closed"}
    assert told[-1]["event"] == "account.opened"
    assert len(told[1:-1]) in (6, 7), "once an hour"
    assert told[1]["failures"] > 10
    assert 3600 <= told[1]["closed_for"] < 4000
    assert told[-1]["closed_for"] > 7 * 3600


async def test_a_cancellation_is_believed_when_a_second_answer_agrees(plain_shop: Shop) -> None:
    order_id = await plain_shop.add(sent_at=NOW)
    bench = Bench(plain_shop, lambda _: text("OK|3| |iptal"), confirm_cancelled=300.0)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(200, scan_every=10)
        assert await bench.status(order_id) == "sent"
        await drive.run(300, scan_every=10)
    assert await bench.status(order_id) == "failed"
    assert bench.times(order_id) == [60, 360]


@pytest.mark.long
async def test_a_cancellation_that_is_withdrawn_ends_nothing(plain_shop: Shop) -> None:
    order_id = await plain_shop.add(sent_at=NOW)
    said = iter(["OK|3| |iptal", "OK|1| |bekleniyor", "OK|3| |iptal", "OK|2|PIN-1|tamam"])
    bench = Bench(plain_shop, lambda _: text(next(said)), confirm_cancelled=100.0)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(1500, scan_every=10)
    row = await plain_shop.row(order_id)
    assert (row["external_status"], row["pin_code"]) == ("completed", "PIN-1")
    assert bench.engine.state.ends == Counter(completed=1)


async def test_one_pass_waits_for_the_second_answer(plain_shop: Shop) -> None:
    order_id = await plain_shop.add()
    bench = Bench(plain_shop, lambda _: text("OK|3| |iptal"), confirm_cancelled=60.0, one_pass=True)
    await bench.engine.scan()
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(100)
        assert drive.tasks[1].done()
    assert await bench.status(order_id) == "failed"


@pytest.mark.long
async def test_a_state_nobody_knows_is_for_a_person_after_a_while(plain_shop: Shop) -> None:
    order_id = await plain_shop.add(sent_at=NOW)
    bench = Bench(
        plain_shop,
        lambda _: text("OK|7| |?" if bench.clock.elapsed < 2000 else "OK|1| |bekleniyor"),
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(100, scan_every=10)
        assert set(bench.engine.state.stuck) == set()
        await drive.run(100, scan_every=10)
        assert set(bench.engine.state.stuck) == {order_id}
        assert await bench.status(order_id) == "sent"
        await drive.run(3000, scan_every=10)
    assert set(bench.engine.state.stuck) == set(), "the provider is understood again"
    assert await bench.status(order_id) == "processing"


async def test_somebody_elses_question_makes_ours_needless(shop: Shop) -> None:
    """Where the column tells it: an order that was asked about after it came due is not asked about
    again at once.
    """
    if shop.spelling is not SHOP:
        await shop.connection.execute(
            "ALTER TABLE product_orders ADD COLUMN last_sync_at timestamptz"
        )
    order_id = await shop.add(sent_at=NOW)
    bench = Bench(shop, lambda _: text("OK|1| |x"), calls_per_second=0.01)
    first = await shop.add(sent_at=NOW + 1)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(70, scan_every=10)
        assert len(bench.calls) == 1
        waiting = order_id if bench.times(first) else first
        await shop.connection.execute(
            f'UPDATE product_orders SET "{shop.spelling.name("last_sync_at")}" = to_timestamp($1::float8) WHERE id = $2::uuid',
            NOW + 65,
            waiting,
        )
        await drive.run(15, scan_every=10)
        assert bench.times(waiting) == []
        assert len(bench.engine.queue) == 2
        assert bench.engine.queue.ready.count("default") == 0


@pytest.mark.parametrize("step", [4000.0, -4000.0])
async def test_a_step_of_this_machines_clock_changes_no_orders_age(
    plain_shop: Shop, step: float
) -> None:
    """Between two scans the database's time is told by a clock that nobody can set: no order is
    failed as too old, none waits.
    """
    order_id = await plain_shop.add(sent_at=NOW)
    bench = Bench(plain_shop, lambda _: text("OK|1| |bekliyor"), give_up_after=1800.0)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(50, scan_every=100)
        bench.clock.epoch += step
        await drive.run(45)
    assert bench.times(order_id) == [60, 90]
    assert await bench.status(order_id) == "processing"


async def test_a_clock_that_goes_back_a_little_has_no_slot_asked_twice(plain_shop: Shop) -> None:
    """Each scan reads the database's clock anew, and two readings need not agree to the
    millisecond.
    """
    order_id = await plain_shop.add(sent_at=NOW)
    answers = asyncio.Event()

    async def slow(_: str) -> httpx.Response:
        await answers.wait()
        return text("OK|1| |x")

    bench = Bench(plain_shop, slow)
    reader = bench.orders
    assert isinstance(reader, AtClock)
    real = reader.scan

    async def behind(part: Part = ALL, take: Take | None = None) -> Scan:
        scan = await real(Part(since=part.since))
        return replace(scan, now=scan.now - 2.0)

    await bench.engine.scan()
    tasks = [
        asyncio.create_task(bench.engine.writer.run()),
        asyncio.create_task(bench.engine.run(), name="engine"),
    ]
    while not bench.clock.asleep.get("engine"):
        await asyncio.sleep(0)
    bench.clock.ring(60.5)
    while not bench.calls:
        await asyncio.sleep(0)
    reader.scan = behind  # type: ignore[method-assign]
    await bench.engine.scan()
    answers.set()
    entry = bench.engine.queue.get(order_id)
    assert entry is not None
    async with asyncio.timeout(30):
        while entry.due == NOW + 60:
            await asyncio.sleep(0.001)
            bench.clock.ring(bench.clock.elapsed + 0.01)
    assert (entry.due, len(bench.calls)) == (NOW + 90, 1)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_the_databases_clock_is_not_behind_by_what_the_reading_took(plain_shop: Shop) -> None:
    await plain_shop.add()
    orders = await prepared(plain_shop)
    real = orders.reader.queries.scan_sql
    orders.reader.queries.scan_sql = lambda: f"{real()} AND pg_sleep(0.3) IS NOT NULL"  # type: ignore[method-assign]
    before = await plain_shop.connection.fetchval(
        "SELECT extract(epoch FROM clock_timestamp())::float8"
    )
    scan = await orders.scan()
    assert len(scan.orders) == 1
    assert scan.now - before >= 0.3
