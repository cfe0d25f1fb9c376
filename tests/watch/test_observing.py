"""Observing beside another monitor: virtual time, a real PostgreSQL, and the other monitor's hands in
the same table.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from order_monitor.commands.report_observed import summarise
from order_monitor.core.errors import ShopUnavailableError
from order_monitor.core.order import Order
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.shop.observations import EndedElsewhere, ObservationStore
from order_monitor.shop.reading.comparison import Compared, Verdict, read_comparison
from order_monitor.watch.engine import Engine
from order_monitor.watch.observing import ObservingPlan, ObservingShop
from order_monitor.watch.policy import Policy, Reading
from order_monitor.watch.routing import OneAccount
from tests.support.clocks import Drive
from tests.support.engines import AtClock, Bench, text
from tests.support.observing import counts, end, stands
from tests.support.shops import NOW, SHOP, Shop

GROUPS = 25
KINDS = 8
APART = 300.0
"""Seconds between two groups of orders."""


class Watched(Bench):
    """An engine that observes, as the program puts it together."""

    def __init__(
        self,
        shop: Shop,
        panel: Callable[[str], httpx.Response],
        reading: Reading | None = None,
        store: Callable[[ObservationStore], Any] = lambda store: store,
    ) -> None:
        shop.table_config = replace(shop.table_config, observes=True)
        super().__init__(shop, panel)
        assert isinstance(self.orders, AtClock)
        self.real = self.orders.orders
        directory = OneAccount(self.account)
        self.observed = ObservingShop(
            self.orders, store(self.real.observations), directory, self.clock
        )
        plan = ObservingPlan(Continuous(Schedule(jitter=0)), shop.table_config)
        policy = Policy(plan) if reading is None else Policy(plan, reading=reading)
        self.engine = Engine(self.observed, {"main": self.account}, policy, self.clock)

    async def compared(self) -> dict[str, Compared]:
        found = await read_comparison(self.shop.database(), self.real, 1e9)
        return {one.order_id: one for one in found}


@pytest.mark.long
async def test_hours_beside_another_monitor(shop: Shop) -> None:
    """200 orders, which the other monitor ends before us, after us, otherwise, or never."""
    kinds: dict[str, tuple[int, float]] = {}

    def panel(reference: str) -> httpx.Response:
        kind, sent = kinds[reference]
        age = made.clock.elapsed - sent
        if kind == 5 or age < (5 if kind == 7 else 100):
            return text("OK|1| |bekleniyor")
        return text(f"OK|2|PIN-{reference}|tamam" if kind not in (2, 4) else "OK|3| |iptal")

    made = Watched(shop, panel)
    ids: dict[int, list[str]] = {kind: [] for kind in range(KINDS)}
    theirs: list[tuple[float, Callable[[], Any]]] = []
    for group in range(GROUPS):
        sent = group * APART

        async def send(sent: float = sent) -> None:
            for kind in range(KINDS):
                order_id = await shop.add(sent_at=NOW + sent, noted=False)
                kinds[f"r-{order_id[:8]}"] = kind, sent
                ids[kind].append(order_id)

        def ending(
            kind: int, at: float, status: str, pin: str = "", group: int = group
        ) -> tuple[float, Callable[[], Any]]:
            def ended() -> Any:
                order_id = ids[kind][group]
                return end(shop, order_id, status, at, pin.format(f"r-{order_id[:8]}") or None)

            return at, ended

        theirs += [
            (sent, send),
            ending(0, sent + 120, "done", "PIN-{}"),
            ending(1, sent + 400, "completed", "PIN-{}\n"),
            ending(2, sent + 400, "failed"),
            ending(3, sent + 400, "completed", "PIN-other-{}"),
            ending(4, sent + 120, "completed"),
            ending(5, sent + 600, "failed"),
            ending(7, sent + 30, "completed", "PIN-{}"),
        ]
    with capture_logs() as lines:
        async with Drive(made.engine, made.clock) as drive:
            table = await stands(shop)
            for at in sorted({at for at, _ in theirs}):
                await drive.run(at - made.clock.elapsed, scan_every=60)
                assert await stands(shop) == table
                for _, act in [one for one in theirs if one[0] == at]:
                    await act()
                table = await stands(shop)
            await drive.run(2000, scan_every=60)
            assert await stands(shop) == table
    assert counts_are_none(await counts(shop))
    compared = await made.compared()
    assert len(compared) == GROUPS * KINDS
    told = {
        kind: Counter(
            (one.verdict, one.why, one.were_they_first, one.lead and round(one.lead))
            for one in (compared[order_id] for order_id in ids[kind])
        )
        for kind in ids
    }
    same, different, none = Verdict.SAME, Verdict.DIFFERENT, Verdict.NOT_COMPARABLE
    assert told == {
        0: {(same, "", True, -30): GROUPS},
        1: {(same, "", False, 250): GROUPS},
        2: {(same, "", False, 250): GROUPS},
        3: {(different, "pin", False, 250): GROUPS},
        4: {(different, "outcome", True, -30): GROUPS},
        5: {(different, "outcome", None, None): GROUPS},
        6: {(none, "not_ended_by_them", None, None): GROUPS},
        7: {(same, "", True, -30): GROUPS},
    }
    assert summarise(list(compared.values())) == {
        "compared": 7 * GROUPS,
        "same": 4 * GROUPS,
        "different_count": 3 * GROUPS,
        "ours_first": {
            "count": 2 * GROUPS,
            "timed": 2 * GROUPS,
            "seconds_median": 250.0,
            "seconds_p95": 250.0,
        },
        "theirs_first": {
            "count": 2 * GROUPS,
            "timed": 2 * GROUPS,
            "seconds_median": 30.0,
            "seconds_p95": 30.0,
        },
        "not_comparable": {"not_ended_by_them": GROUPS},
    }
    # Each dispatch until its end was observed, and after another's end once more.
    asked = {kind: {len(made.times(i)) for i in ids[kind]} for kind in ids}
    assert asked == {0: {3}, 1: {3}, 2: {3}, 3: {3}, 4: {3}, 5: {6}, 6: {3}, 7: {1}}
    seen = [line for line in lines if line["event"] == "order.observed"]
    assert len(seen) == GROUPS * KINDS == made.engine.state.observed
    whole = str(lines) + str(await shop.connection.fetch("SELECT * FROM order_monitor_observed"))
    assert "PIN-" not in whole


def counts_are_none(found: dict[str, int]) -> bool:
    return not any(found.values())


@pytest.mark.long
async def test_of_very_many_too_each_is_asked_at_its_times(shop: Shop) -> None:
    """What is not kept whole is read again before each question: what has ended elsewhere too."""
    ended = [await shop.add("completed", sent_at=NOW - 50, noted=False) for _ in range(3)]
    ids = [await shop.add(sent_at=NOW, noted=False) for _ in range(3)]
    made = Watched(
        shop,
        lambda reference: text(
            f"OK|2|PIN-{reference}|x" if made.clock.elapsed > 100 else "OK|1| |x"
        ),
        Reading(small=0, share=1e6, longest=1e6, fresh_for=1.0),
    )
    table = await stands(shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(400, scan_every=10)
    assert {made.times(i)[-1] for i in ids} == {150.0}
    assert {len(made.times(i)) for i in ids} == {3}
    assert {len(made.times(i)) for i in ended} == {1}
    assert await stands(shop) == table
    compared = await made.compared()
    assert {compared[i].verdict for i in ids} == {Verdict.NOT_COMPARABLE}
    assert {(compared[i].why, compared[i].were_they_first) for i in ended} == {("outcome", None)}


@pytest.mark.long
async def test_what_was_over_before_the_start_counts_as_found_late_by_nobody(shop: Shop) -> None:
    before = await shop.add("sent", sent_at=NOW - 3000, noted=False)
    await end(shop, before, "failed", -2000)
    made = Watched(shop, lambda _: text("OK|3| |x"))
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(5, scan_every=10)
        after = await shop.add("sent", sent_at=NOW + 5, noted=False)
        await end(shop, after, "failed", 6)
        await drive.run(700, scan_every=10)
    compared = await made.compared()
    told = {i: (compared[i].verdict, compared[i].were_they_first) for i in (before, after)}
    assert told == {before: (Verdict.SAME, True), after: (Verdict.SAME, True)}
    assert compared[before].lead is None
    lead = compared[after].lead
    assert lead is not None
    assert -60 <= lead <= -54, "the first scan after it, or what the row says, and our first check"


@pytest.mark.long
async def test_an_order_sent_anew_is_observed_anew(shop: Shop) -> None:
    order_id = await shop.add(sent_at=NOW - 100, noted=False)
    made = Watched(shop, lambda _: text("OK|3| |x"))
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(30, scan_every=10)
        assert len(made.calls) == 1
        await drive.run(1000, scan_every=10)
        assert len(made.calls) == 1, "it is open still, and asked no more"
        await shop.set(order_id, provider_referans="another")
        await drive.run(1000, scan_every=10)
    assert [reference for _, reference in made.calls] == [f"r-{order_id[:8]}", "another"]
    kept = await shop.connection.fetch("SELECT reference FROM order_monitor_observed")
    assert len(kept) == 2


@pytest.mark.long
async def test_another_process_asks_no_more_either(shop: Shop) -> None:
    order_id = await shop.add(sent_at=NOW - 100, noted=False)
    for calls in (1, 0):
        made = Watched(shop, lambda _: text("OK|3| |x"))
        async with Drive(made.engine, made.clock) as drive:
            await drive.run(700, scan_every=10)
        assert len(made.times(order_id)) == calls


class Failing:
    """A shop's observations, of which those are not found that another monitor has ended."""

    def __init__(self, store: ObservationStore) -> None:
        self.store = store
        self.done, self.record = self.store.done, self.store.record

    async def ended_elsewhere(self, now: float) -> list[EndedElsewhere]:
        raise ShopUnavailableError("a statement took too long")


async def test_what_cannot_be_compared_holds_nothing_up(plain_shop: Shop) -> None:
    order_id = await plain_shop.add(sent_at=NOW - 100, noted=False)
    made = Watched(plain_shop, lambda _: text("OK|3| |x"), store=Failing)
    with capture_logs() as lines:
        async with Drive(made.engine, made.clock) as drive:
            await drive.run(30, scan_every=10)
    assert len(made.times(order_id)) == 1
    assert "observe.not_compared" in {line["event"] for line in lines}


@pytest.mark.long
async def test_an_answer_that_says_nothing_about_what_has_ended_is_the_last(shop: Shop) -> None:
    """A network failure is tried again; a refusal is not."""
    order_id = await shop.add("completed", sent_at=NOW - 100, noted=False)
    answers = [httpx.Response(500), httpx.Response(500), text("3|bilinmiyor")]
    made = Watched(shop, lambda _: answers.pop(0) if answers else text("3|bilinmiyor"))
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(5000, scan_every=50)
    assert 3 <= len(made.times(order_id)) <= 12


def test_an_order_that_has_ended_has_one_time() -> None:
    shop_config = Shop("", SHOP, None).table_config  # type: ignore[arg-type]
    plan = ObservingPlan(Continuous(Schedule(jitter=0)), shop_config)
    order = Order("a", "sent", NOW, "r")
    assert plan.first(order, NOW) == NOW + 60
    assert plan.again(order, NOW + 61) == NOW + 90
    assert plan.again(order._replace(status="completed"), NOW + 61) is None
    assert plan.again(order._replace(status="done"), NOW + 61) is None
