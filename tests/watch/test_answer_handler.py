"""Never well while nothing is understood: an account that answers, and says nothing about any
order.
"""

from typing import Any

import pytest
import structlog

from order_monitor.tell.readiness import Readiness
from tests.support.clocks import Drive
from tests.support.engines import Bench, text
from tests.support.shops import NOW, Shop

TEXTS = {
    "maintenance": "Sistem bakımdadır, lütfen daha sonra deneyiniz",
    "a new version": "OK|AB12-CD34|2|tamam",
    "JSON": '{"state": 1}',
    "unknown states": "OK|7| |x",
    "cut short": "OK|2",
    "refusals": "3|Açıklama",
}


async def orders(shop: Shop, count: int) -> list[str]:
    return [await shop.add(sent_at=NOW - 100 - n) for n in range(count)]


def probe_of(bench: Bench) -> Readiness:
    return Readiness(bench.engine, bench.clock, 10.0)


@pytest.mark.parametrize("kind", TEXTS)
async def test_an_account_of_which_nothing_is_understood_is_shut(
    plain_shop: Shop, kind: str
) -> None:
    await orders(plain_shop, 60)
    bench = Bench(plain_shop, lambda _: text(TEXTS[kind]))
    with structlog.testing.capture_logs() as logs:
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(22, scan_every=10)
            assert not bench.account.gate.is_open
            assert bench.account.gate.reason == (
                "refused" if kind == "refusals" else "not_understood"
            )
            assert probe_of(bench).reasons() != []
    assert len(bench.calls) <= 20 + 4, "twenty were under way; then one probe at a time"
    assert bench.engine.state.succeeded_at is None
    (closed,) = [line for line in logs if line["event"] == "account.closed"]
    assert closed["message"] == bench.account.said
    assert "AB12" not in str(logs)
    assert (
        sum(line["event"].startswith("order.") and line["log_level"] != "debug" for line in logs)
        <= 5
    )


async def test_it_opens_with_the_first_answer_understood_and_nobody_has_lost_his_slot(
    plain_shop: Shop,
) -> None:
    ids = await orders(plain_shop, 12)
    answers = {"body": TEXTS["maintenance"]}
    bench = Bench(plain_shop, lambda _: text(answers["body"]))
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(60, scan_every=10)
        answers["body"] = "OK|2| |tamam"
        await drive.run(400, scan_every=10)
        assert probe_of(bench).reasons() == []
    assert bench.account.gate.is_open
    assert {await bench.status(i) for i in ids} == {"completed"}
    assert bench.account.said == ""


@pytest.mark.long
async def test_the_odd_answers_of_one_order_shut_nothing(plain_shop: Shop) -> None:
    odd, *_ = await orders(plain_shop, 8)
    bench = Bench(plain_shop, lambda r: text("3|x") if r == f"r-{odd[:8]}" else text("OK|1| |x"))
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(3000, scan_every=10)
        assert probe_of(bench).reasons() == []
    assert bench.account.gate.is_open
    assert len(bench.times(odd)) > 5


@pytest.mark.long
async def test_an_order_all_alone_speaks_for_itself_only(plain_shop: Shop) -> None:
    (odd,) = await orders(plain_shop, 1)
    bench = Bench(plain_shop, lambda _: text("3|x"), gate_after=1)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(3000, scan_every=10)
        assert probe_of(bench).reasons() == []
    assert len(bench.times(odd)) > 5


@pytest.mark.long
async def test_three_orders_are_too_few_to_shut_the_gate_and_enough_to_be_unwell(
    plain_shop: Shop,
) -> None:
    await orders(plain_shop, 3)
    answers = {"body": TEXTS["maintenance"]}
    bench = Bench(plain_shop, lambda _: text(answers["body"]))
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(130, scan_every=10)
        assert bench.account.gate.is_open
        assert probe_of(bench).reasons() == ["account main: nothing it answers is understood"]
        assert bench.engine.state.succeeded_at is None
        answers["body"] = "OK|1| |x"
        await drive.run(1200, scan_every=10)
        assert probe_of(bench).reasons() == []


async def test_an_outage_ends_with_an_odd_answer_and_that_is_no_success(plain_shop: Shop) -> None:
    await orders(plain_shop, 3)
    answers: dict[str, Any] = {"status": 503, "body": ""}
    bench = Bench(plain_shop, lambda _: text(answers["body"], answers["status"]), gate_after=4)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(30, scan_every=10)
        assert bench.account.gate.reason == "http_503"
        answers |= {"status": 200, "body": "3|x"}
        await drive.run(20, scan_every=10)
        assert bench.account.gate.is_open
    assert bench.engine.state.succeeded_at is None


async def test_garbled_and_failing_by_turns_is_not_understood_either(plain_shop: Shop) -> None:
    await orders(plain_shop, 30)
    turns = {"n": 0}

    def by_turns(_: str) -> Any:
        turns["n"] += 1
        return text("", 503) if turns["n"] % 2 else text("OK")

    bench = Bench(plain_shop, by_turns)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(60, scan_every=10)
    assert not bench.account.gate.is_open
    assert len(bench.calls) < 40


async def test_one_pass_over_an_account_that_makes_no_sense_counts_nobody_as_asked(
    plain_shop: Shop,
) -> None:
    await orders(plain_shop, 60)
    bench = Bench(plain_shop, lambda _: text(TEXTS["maintenance"]), one_pass=True)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(30, scan_every=100)
    assert bench.engine.state.asked == 0
    assert bench.engine.state.eligible == 60


async def test_a_clock_that_stands_still_is_told(plain_shop: Shop) -> None:
    await orders(plain_shop, 1)
    bench = Bench(plain_shop, lambda _: text("OK|1| |x"))
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(30, scan_every=10)
        assert probe_of(bench).reasons() == []
        bench.engine.context.follow(NOW + 30)
        bench.clock.elapsed += 10
        bench.engine.context.follow(NOW + 30)
        assert probe_of(bench).reasons() == [
            "the database's clock has stopped: nothing becomes due"
        ]
        await drive.run(20, scan_every=10)
        assert probe_of(bench).reasons() == []


@pytest.mark.long
async def test_after_an_outage_each_order_is_asked_at_the_slot_it_had(plain_shop: Shop) -> None:
    """The answers of the outage are taken back whole, with the time at which they came: else the
    next scan takes each order for one that was asked just now.
    """
    ids = [await plain_shop.add(sent_at=NOW - 3000 - 37 * n) for n in range(8)]
    is_ill = False
    bench = Bench(plain_shop, lambda _: text("3|Bakim" if is_ill else "OK|1| |islemde"))
    queue = bench.engine.queue
    async with Drive(bench.engine, bench.clock) as drive:
        while not all((entry := queue.get(i)) and entry.understood for i in ids):
            await drive.run(10, scan_every=10)
        is_ill = True
        while bench.account.gate.is_open:
            await drive.run(1, scan_every=10)
        is_ill = False
        late = [i for i in ids if (entry := queue.get(i)) and entry.due <= bench.clock.time()]
        before = len(bench.calls)
        await drive.run(70, scan_every=10)
        asked = {name for _, name in bench.calls[before:]}
    assert len(late) >= 4
    assert asked >= {f"r-{i[:8]}" for i in late}


async def test_a_pin_that_cannot_be_read_is_told_whatever_was_said_before_it(
    plain_shop: Shop,
) -> None:
    """Answers of another kind counted, and so its own was not the first, and never told."""
    (order_id,) = await orders(plain_shop, 1)
    before = ["OK|1| |x\nOK|2|AB12|x"]
    bench = Bench(
        plain_shop, lambda _: text(before.pop() if before else "OK|2|<img src='pin.png'>|x")
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(200, scan_every=10)
    assert bench.engine.state.stuck == {order_id: "pin_unreadable"}
