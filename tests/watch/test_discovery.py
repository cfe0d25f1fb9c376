"""Many orders: what the quick looks find, what only reading all finds, and that nothing is asked on
stale knowledge.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from order_monitor.core.check_result import CheckResult, WriteResult
from order_monitor.core.errors import ShopUnavailableError
from order_monitor.core.gate import Pace, Pause
from order_monitor.core.order import Order, SkipReason
from order_monitor.core.queue import READ_AGAIN
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.providers.provider import Reply
from order_monitor.shop.accounts.pauses import Pauses
from order_monitor.shop.migration import Migration
from order_monitor.shop.reading.orders import ALL, Apart, Part, Scan, Slice, Take
from order_monitor.watch.account import NOT_HELD, Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.policy import Policy, Reading
from order_monitor.watch.refresh import AT_A_TIME, FEWEST
from order_monitor.watch.routing import ShopAccounts
from order_monitor.watch.system_clock import SystemClock
from tests.support import stages
from tests.support.clocks import Drive, ManualClock
from tests.support.engines import AtClock, Bench, text
from tests.support.market import Market, Panels, market
from tests.support.shops import LAYOUT, NOW, Shop

__all__ = ["market"]

QUICK = Reading(small=0, share=1000.0, longest=300.0, overlap=60.0, fresh_for=15.0)
"""As with very many orders: of a second's reading, all are read again after five minutes."""


def bench(
    shop: Shop, panel: Any = lambda _: text("OK|1| |x"), **options: Any
) -> tuple[Bench, AtClock]:
    made = Bench(shop, panel, **{"reading": QUICK, **options})
    reader = made.orders
    assert isinstance(reader, AtClock)
    reader.cost = 1.0
    return made, reader


async def test_few_orders_are_all_read_at_each_look(plain_shop: Shop) -> None:
    await plain_shop.add(sent_at=NOW)
    made, reader = bench(plain_shop, reading=Reading())
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(300, scan_every=10)
    assert set(reader.looks) == {None}
    assert reader.rereads == [], "what was read at the last look is not read again"


async def test_of_many_all_are_read_now_and_then_and_what_is_new_at_each_look(
    plain_shop: Shop,
) -> None:
    old = await plain_shop.add(sent_at=NOW - 50_000)
    made, reader = bench(plain_shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(20, scan_every=10)
        fresh = await plain_shop.add(sent_at=made.clock.time())
        await drive.run(20, scan_every=10)
        assert made.engine.queue.get(fresh) is not None
        assert (made.engine.state.open, made.engine.queue.get(old) is not None) == (2, True)
        await drive.run(620, scan_every=10)
    whole = [n for n, since in enumerate(reader.looks) if since is None]
    assert len(whole) == 3
    assert len(reader.looks) > 50
    since = [since for since in reader.looks if since is not None]
    assert since[0] == NOW - 50_000 - QUICK.overlap
    assert since[-1] > NOW - QUICK.overlap


async def test_what_ended_elsewhere_is_not_asked_about(plain_shop: Shop) -> None:
    """The shop ended one, and gave another reference to one, since they were read."""
    gone, resent, same = [await plain_shop.add(sent_at=NOW + 60) for _ in range(3)]
    made, reader = bench(plain_shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(30, scan_every=10)
        await plain_shop.set(gone, external_status="completed")
        await plain_shop.set(resent, provider_referans="another")
        await drive.run(200, scan_every=10)
    asked = {reference for _, reference in made.calls}
    assert asked == {f"r-{same[:8]}", "another"}
    assert made.engine.queue.get(gone) is None
    assert reader.rereads


async def test_while_the_database_is_away_what_is_recorded_is_asked_and_the_rest_when_it_is_back(
    plain_shop: Shop,
) -> None:
    """Also of very many orders, which are read again before they are asked about."""
    order_id, known = await plain_shop.add(sent_at=NOW), await plain_shop.add(sent_at=NOW)
    made, reader = bench(plain_shop)
    real, tries = reader.reread, 0

    async def away(_: Any) -> list[Order]:
        nonlocal tries
        tries += 1
        raise ShopUnavailableError("ConnectionRefusedError")

    async with Drive(made.engine, made.clock) as drive:
        await drive.run(30, scan_every=10)
        entry = made.engine.queue.get(order_id)
        assert entry is not None
        entry.registered = False
        reader.reread = away  # type: ignore[assignment,method-assign]
        await drive.run(40)
        assert (made.times(order_id), made.times(known)) == ([], [60])
        assert 1 < tries < 6, "not again and again at once"
        reader.reread = real  # type: ignore[method-assign]
        await drive.run(10)
    assert 70 <= made.times(order_id)[0] <= 75


@pytest.mark.long
async def test_orders_that_are_due_together_are_read_again_together(plain_shop: Shop) -> None:
    """At most one statement for four hundred checks."""
    count = 4 * AT_A_TIME
    for _ in range(count):
        await plain_shop.add(sent_at=NOW - 100)
    await plain_shop.add(sent_at=NOW + 200)
    made, reader = bench(plain_shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(75, scan_every=10)
    assert len(made.calls) == 2 * count, "at once, and at their slot after 150 seconds"
    assert [len(batch) for batch in reader.rereads] == [AT_A_TIME] * 4, "not those just read"
    assert len({order_id for batch in reader.rereads for order_id in batch}) == count


@pytest.mark.long
async def test_orders_that_come_due_one_after_the_other_are_read_again_together(
    plain_shop: Shop,
) -> None:
    """Whoever reads one reads those due soon as well, whatever account they are of: not a statement
    for each check.
    """
    for n in range(120):
        await plain_shop.add(sent_at=NOW + 0.25 * n)
    made, reader = bench(plain_shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(89, scan_every=10)
    assert len(made.calls) > 100
    assert len(reader.rereads) <= len(made.calls) / 25


@pytest.mark.long
async def test_reading_again_waits_for_nobody_elses_account(plain_shop: Shop) -> None:
    """A backlog that the pace lets through slowly is not read again and again."""
    for n in range(300):
        await plain_shop.add(sent_at=NOW - 1000 - n)
    made, reader = bench(plain_shop, calls_per_second=5.0)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(50, scan_every=10)
    assert 240 <= len(made.calls) <= 260
    assert len(reader.rereads) <= len(made.calls) / FEWEST


async def test_what_is_skipped_is_counted_at_each_look(plain_shop: Shop) -> None:
    await plain_shop.add(sent_at=NOW)
    without = await plain_shop.add(sent_at=NOW, reference="")
    made, reader = bench(plain_shop)
    engine = made.engine
    async with Drive(engine, made.clock) as drive:
        await drive.run(30, scan_every=10)
        odd = await plain_shop.add("who knows", sent_at=made.clock.time())
        await drive.run(20, scan_every=10)
        assert reader.looks[-1] is not None
        assert engine.skips == {without: SkipReason.NO_REFERENCE, odd: SkipReason.UNKNOWN_STATUS}
        assert (engine.state.open, engine.state.skipped.total()) == (2, 2)
        await plain_shop.set(odd, external_status="sent")
        await plain_shop.set(without, provider_referans="now there is one")
        await drive.run(20, scan_every=10)
        assert engine.skips == {}
        assert (engine.state.open, len(engine.queue)) == (3, 3)


async def test_an_order_that_lost_its_reference_is_not_asked_about(plain_shop: Shop) -> None:
    order_id = await plain_shop.add(sent_at=NOW)
    made, _ = bench(plain_shop)
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(30, scan_every=10)
        await plain_shop.set(
            order_id, provider_referans=None, sent_at=datetime.fromtimestamp(NOW - 5000, UTC)
        )
        await drive.run(100, scan_every=10)
    assert made.calls == []
    assert made.engine.skips == {order_id: SkipReason.NO_REFERENCE}


async def test_the_first_orders_are_asked_about_while_the_rest_is_read() -> None:
    clock = ManualClock()
    table, asked, go_on = Table(clock), asyncio.Event(), asyncio.Event()

    class Asked(stages.NeverAsked):
        async def ask(self, reference: str) -> Reply:
            asked.set()
            return await super().ask(reference)

    async def slow(part: Part = ALL, take: Take | None = None) -> Scan:
        assert take is not None
        take(Slice(NOW, [Order("first", "sent", NOW - 1000, "r", registered=True)]))
        await go_on.wait()
        return Scan(NOW, [], [])

    table.scan = slow  # type: ignore[method-assign]
    engine = Engine(
        table, {"main": Account("main", Asked())}, Policy(Continuous(Schedule())), clock
    )
    tasks = [asyncio.create_task(engine.run()), asyncio.create_task(engine.writer.run())]
    scan = asyncio.create_task(engine.scan())
    async with asyncio.timeout(30):
        await asked.wait()
    assert not scan.done()
    go_on.set()
    await scan
    assert engine.queue.get("first") is not None, (
        "in hand or asked meanwhile, it is not taken for one that is gone"
    )
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_what_was_read_before_a_look_failed_stays_and_nothing_is_let_go() -> None:
    clock = ManualClock()
    table = Table(clock)
    table.open = {name: Order(name, "sent", NOW - 1000, name) for name in "ab"}
    engine = engine_over(table, clock)
    await engine.scan()
    real, looks = table.scan, list[float | None]()

    async def cut(part: Part = ALL, take: Take | None = None) -> Scan:
        assert take is not None
        looks.append(part.since)
        take(Slice(NOW, [Order("c", "sent", NOW - 1000, "c"), Order("d", "sent", NOW, "")]))
        raise ShopUnavailableError("timeout")

    table.scan = cut  # type: ignore[method-assign]
    clock.elapsed += 10
    with pytest.raises(ShopUnavailableError):
        await engine.scan()
    assert {entry.id for entry in engine.queue} == {"a", "b", "c"}
    table.scan = real  # type: ignore[method-assign]
    del table.open["a"]
    table.open["c"] = Order("c", "sent", NOW - 1000, "c")
    await engine.scan()
    assert {entry.id for entry in engine.queue} == {"b", "c"}


async def test_what_is_to_be_read_again_at_once_is_not_taken_for_gone() -> None:
    """It was met by the look, and lost its mark before the look was through: its row has another
    reference now.
    """
    clock = ManualClock()
    table = Table(clock)
    order = Order("o", "sent", NOW - 1000, "r")
    table.open = {"o": order}
    engine = engine_over(table, clock)

    async def long(part: Part = ALL, take: Take | None = None) -> Scan:
        assert take is not None
        take(Slice(NOW, [order]))
        entry = engine.queue.get("o")
        assert entry is not None
        entry.read_at = READ_AGAIN
        return Scan(NOW, [], [])

    table.scan = long  # type: ignore[method-assign]
    await engine.scan()
    assert engine.queue.get("o") is not None


async def test_of_what_is_due_soon_only_what_this_process_asks_is_read_along() -> None:
    clock = ManualClock()
    table = Table(clock)
    accounts: dict[str, Account] = {
        name: Account(name, stages.NeverAsked()) for name in ("ours", "theirs")
    }
    accounts["theirs"].lease_until = NOT_HELD
    read: list[str] = []

    async def reread(orders: Sequence[Order]) -> list[Order]:
        read.extend(order.id for order in orders)
        return [order._replace(registered=True) for order in orders]

    table.reread = reread  # type: ignore[method-assign]
    for name in accounts:
        table.open |= {
            f"{name}{n}": Order(f"{name}{n}", "sent", NOW - 59.0 + n, "r", integration=name)
            for n in range(6)
        }
    directory: Any = stages.Accounts(accounts)
    engine = Engine(table, directory, Policy(Continuous(Schedule()), reading=QUICK), clock)
    await engine.scan()
    clock.elapsed += 1.0
    engine.queue.promote(engine.context.now())
    engine.dispatcher.start_calls()
    while engine.dispatcher.refresh.reads:
        await asyncio.sleep(0)
    assert sorted(read) == [f"ours{n}" for n in range(6)]


async def test_an_order_that_ended_while_very_many_were_read_is_not_brought_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many others have ended since the look began."""
    monkeypatch.setattr("order_monitor.watch.intake.REMEMBERED", 3)
    clock = ManualClock()
    table = Table(clock)
    engine = engine_over(table, clock)
    orders = [Order(f"o{n}", "sent", NOW - 1000, "r") for n in range(10)]

    async def long(part: Part = ALL, take: Take | None = None) -> Scan:
        assert take is not None
        clock.elapsed += 1
        for order in orders:
            engine.discovery.intake.ended(order)
        take(Slice(NOW, orders))
        return Scan(NOW, [], [])

    table.scan = long  # type: ignore[method-assign]
    await engine.scan()
    assert len(engine.queue) == 0
    engine.discovery.intake.ended(Order("another", "sent", NOW, "r"))
    assert len(engine.discovery.intake.recent_ends) == 3


def engine_over(table: "Table", clock: ManualClock, **more: Any) -> Engine:
    policy = Policy(Continuous(Schedule()), **more)
    return Engine(table, {"main": Account("main", stages.NeverAsked())}, policy, clock)


class Table:
    """A model of the shop's table, and of what it does to its rows."""

    records_every_check = False

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.open: dict[str, Order] = {}
        self.closed: dict[str, Order] = {}
        self._late: list[Order] = []
        self._number = 0

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        since = part.since
        self.clock.elapsed += 0.3 if since is None else 0.0
        found = [
            order for order in self.open.values() if since is None or (order.sent_at or 0) > since
        ]
        return Scan(self.clock.time(), found, [], is_whole=since is None)

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        return [self.open[order.id] for order in orders if order.id in self.open]

    async def record(
        self, findings: list[CheckResult], lock_wait: float = 1.0
    ) -> list[WriteResult]:
        return []

    def change(self, kind: str) -> None:
        while self._late:
            order = self._late.pop()
            self.open[order.id] = order
        self._number += 1
        order = Order(
            f"o{self._number}",
            "sent",
            self.clock.time() - (40_000 if kind == "back-dated" else 0),
            "r",
        )
        if kind == "late commit":
            self._late.append(order)
        elif kind in ("new", "back-dated"):
            self.open[order.id] = order
        elif kind == "ended" and self.open:
            self._move(self.open, self.closed)
        elif kind == "reopened" and self.closed:
            self._move(self.closed, self.open)

    @staticmethod
    def _move(source: dict[str, Order], target: dict[str, Order]) -> None:
        order_id = min(source)
        target[order_id] = source.pop(order_id)


KINDS = st.sampled_from(["new", "back-dated", "late commit", "ended", "reopened", "nothing"])
LONGEST_STEP = 40.0


@pytest.mark.long
@settings(max_examples=60)
@given(st.lists(st.tuples(KINDS, st.floats(0, LONGEST_STEP)), max_size=25))
def test_no_order_is_missed_for_longer_than_it_takes_to_read_all(
    changes: list[tuple[str, float]],
) -> None:
    """Whatever the shop does to its rows: what is open is known, and what is known is open, within
    that time.
    """
    asyncio.run(_follow(changes))


async def _follow(changes: list[tuple[str, float]]) -> None:
    clock = ManualClock()
    table = Table(clock)
    policy = Policy(Continuous(Schedule()), reading=QUICK)
    engine = Engine(table, {"main": Account("main", stages.NeverAsked())}, policy, clock)
    wrong_since: dict[str, float] = {}
    for kind, pause in [*changes, *[("nothing", 10.0)] * 40]:
        table.change(kind)
        clock.elapsed += pause
        await engine.scan()
        wrong = {entry.order.id for entry in engine.queue} ^ table.open.keys()
        wrong_since = {order_id: wrong_since.get(order_id, clock.elapsed) for order_id in wrong}
        assert all(
            clock.elapsed - since <= QUICK.longest + LONGEST_STEP for since in wrong_since.values()
        )
    assert not wrong_since


async def test_what_is_gone_is_let_go_unless_it_is_in_use() -> None:
    clock = ManualClock()
    table = Table(clock)
    table.open = {name: Order(name, "sent", NOW - 1000, name) for name in "abcd"}
    engine = engine_over(table, clock)
    await engine.scan()
    asking, writing = engine.queue.take("default"), engine.queue.take("default")
    assert asking is not None
    assert writing is not None
    engine.queue.writing(writing)
    table.open = {}
    await engine.scan()
    assert {entry.order.id for entry in engine.queue} == {asking.order.id, writing.order.id}
    engine.queue.schedule(asking, NOW)
    await engine.scan()
    assert {entry.order.id for entry in engine.queue} == {writing.order.id}


async def test_another_reference_given_while_it_is_asked_about_is_asked_at_once(
    plain_shop: Shop,
) -> None:
    """The answer was about the old one; nobody waits for all to be read."""
    order_id = await plain_shop.add(sent_at=NOW - 500, reference="first")

    async def resent(_: str) -> httpx.Response:
        await plain_shop.set(order_id, provider_referans="second")
        return text("OK|3| |iptal")

    made, _ = bench(
        plain_shop,
        lambda reference: resent(reference) if reference == "first" else text("OK|2|PIN-1|tamam"),
    )
    async with Drive(made.engine, made.clock) as drive:
        await drive.run(15, scan_every=10)
    assert [reference for _, reference in made.calls] == ["first", "second"]
    assert (await plain_shop.row(order_id))["pin_code"] == "PIN-1"
    assert made.engine.state.resent == 1


async def test_sent_again_under_another_reference_it_is_due_as_if_never_asked() -> None:
    stage = stages.Stage()
    now = stage.clock.time()
    order = stage.order(5000, registered=True, last_sync_at=now - 1)
    stage.shelf.orders = [order]
    await stage.begin()
    entry = stage.engine.queue.get(order.id)
    assert entry is not None
    assert entry.due > now, "asked a second ago"
    stage.shelf.orders = [order._replace(reference="another", registered=False)]
    await stage.engine.scan()
    assert (entry.due <= now, entry.registered) == (True, False)


async def test_an_account_that_is_met_during_a_look_is_paused_if_a_person_says_so(
    market: Market,
) -> None:
    panels = Panels(market, lambda _: text("OK|1| |x"))
    await market.integration(None, kod="A")
    await panels.engine.scan()
    _ = [line async for line in Migration(market.shop.database(), LAYOUT, SystemClock()).apply()]
    new = await market.integration(None, kod="B")
    await market.shop.add(provider_id=new, sent_at=NOW - 1000)
    async with market.shop.database().transaction() as connection:
        await Pauses("public").pause(connection, new, "x", "Ay", None)
    await panels.engine.scan()
    assert panels.engine.accounts[new].paused is not None


async def test_an_account_that_a_quick_look_finds_lets_all_orders_be_read_again(
    market: Market,
) -> None:
    """Those that were skipped may be its own, and were sent long before that look begins."""
    lost = str(uuid.uuid4())
    order_id = await market.shop.add(provider_id=lost, sent_at=NOW - 50_000)
    await market.shop.add(provider_id=await market.integration(None, kod="A"), sent_at=NOW)
    panels = Panels(market, lambda _: text("OK|1| |x"), reading=QUICK)
    discovery = panels.engine.discovery
    discovery.shop.cost = 1.0  # type: ignore[attr-defined]
    await panels.engine.scan()
    await panels.engine.scan()
    assert panels.engine.queue.get(order_id) is None
    column = '"tenantId"' if market.is_shop else "tenant_id"
    await market.shop.connection.execute(
        f"INSERT INTO integrations (id, {column}, name, provider, kod, sifre) "
        "SELECT $1::uuid, NULL, 'again', provider, kod, sifre FROM integrations",
        lost,
    )
    discovery.shop.orders.reader.accounts_read_at = float("-inf")  # type: ignore[attr-defined]
    for _ in range(2):
        await panels.engine.scan()
    assert panels.engine.queue.get(order_id) is not None


async def test_what_awaits_its_pin_is_not_let_go_by_reading_open_orders_again() -> None:
    clock = ManualClock()
    table = Table(clock)
    ended = Order("ended", "completed", NOW - 1500, "r", ended_at=NOW - 500)
    table.open = {f"o{n}": Order(f"o{n}", "sent", NOW - 1000 - n, "r") for n in range(20)}
    account = Account("main", stages.NeverAsked(), pace=Pace(0.001))
    engine = Engine(table, {"main": account}, Policy(Continuous(Schedule()), reading=QUICK), clock)
    await engine.discovery.merge(Scan(NOW, list(table.open.values()), [], awaiting=[ended]), 0.0)
    engine.queue.promote(NOW)
    engine.context.stale_before = 1.0
    engine.dispatcher.start_calls()
    while engine.dispatcher.refresh.reads:
        await asyncio.sleep(0)
    assert engine.queue.get("ended") is not None
    assert len(engine.queue) == 21
    assert {entry.read_at for entry in engine.queue} == {0.0}, (
        "read again at this moment, or awaited as it was"
    )


async def test_what_ended_before_the_databases_clock_went_back_is_asked_for_its_pin() -> None:
    """It waited until that clock was there again: a day, or months."""
    clock = ManualClock()
    engine = engine_over(Table(clock), clock)
    ended = Order("ended", "completed", NOW - 1500, "r", ended_at=NOW + 86_400)
    await engine.discovery.merge(Scan(NOW, [], [], awaiting=[ended]), 0.0)
    entry = engine.queue.get("ended")
    assert entry is not None
    assert NOW < entry.due < NOW + 661


async def test_one_order_dated_ahead_does_not_hide_what_is_sent_after_it() -> None:
    clock = ManualClock()
    table = Table(clock)
    table.open = {"ahead": Order("ahead", "sent", NOW + 250, "r")}
    engine = engine_over(table, clock, reading=QUICK)
    await engine.scan()
    clock.elapsed += 200
    table.open["late"] = Order("late", "sent", NOW + 5, "r")
    await engine.scan()
    assert engine.queue.get("late") is not None


async def test_what_was_read_later_is_known_better() -> None:
    """A long scan began before an order was read again: it changes nothing about it."""
    clock = ManualClock()
    table = Table(clock)
    old, new = Order("o", "sent", NOW - 100, "old"), Order("o", "sent", NOW - 100, "new")
    table.open = {"o": new}
    engine = engine_over(table, clock)
    clock.elapsed = 10
    await engine.scan()
    await engine.discovery.merge(Scan(NOW, [old], []), 5.0)
    entry = engine.queue.get("o")
    assert entry is not None
    assert entry.order.reference == "new"
    await engine.discovery.merge(Scan(NOW, [], []), 5.0)
    assert engine.queue.get("o") is entry
    await engine.discovery.merge(Scan(NOW, [], []), 11.0)
    assert engine.queue.get("o") is None


async def test_what_is_paused_at_the_start_is_not_asked_while_orders_are_taken_in() -> None:
    clock = ManualClock()
    table = Table(clock)
    account = Account("main", stages.NeverAsked())
    engine = Engine(table, {"main": account}, Policy(Continuous(Schedule())), clock)
    orders = [Order(f"o{n}", "sent", NOW - 1000, "r") for n in range(3000)]
    pauses = {"default": Pause("default", "x", "x", NOW)}

    async def paused(part: Part = ALL, take: Take | None = None) -> Scan:
        return Scan(NOW, orders, [], pauses=pauses)

    table.scan = paused  # type: ignore[method-assign]
    scan = asyncio.create_task(engine.scan())
    while not scan.done():
        engine.dispatcher.start_calls()
        assert not account.calls
        await asyncio.sleep(0)
    await scan


async def test_of_ten_thousand_accounts_only_those_with_something_due_are_looked_at() -> None:
    """However many are idle, a turn costs what is due: counted in accounts looked at."""
    clock = ManualClock()
    table = Table(clock)
    looked: Counter[str] = Counter()

    class Counted(Account):
        def may_start(self, now: float) -> bool:
            looked[self.name] += 1
            return super().may_start(now)

        def may_start_at(self) -> float | None:
            looked[self.name] += 1
            return super().may_start_at()

    accounts: dict[str, Account] = {
        f"a{n}": Counted(f"a{n}", stages.NeverAsked()) for n in range(10_000)
    }
    directory: Any = stages.Accounts(accounts)
    engine = Engine(table, directory, Policy(Continuous(Schedule())), clock)
    table.open = {
        f"o{n}": Order(f"o{n}", "sent", NOW - 1000, "r", integration=f"a{n}", registered=True)
        for n in range(5)
    }
    await engine.scan()
    looked.clear()
    engine.dispatcher.start_calls()
    assert set(looked) == {f"a{n}" for n in range(5)}
    assert engine.queue.ready.accounts() == []
    assert len(engine.dispatcher.calls) == 5
    await engine.dispatcher.calls.finish(1.0)


@pytest.mark.long
async def test_very_many_orders_that_cannot_be_asked_about_are_told_in_few_lines() -> None:
    clock = ManualClock()
    table = Table(clock)
    table.open = {
        f"o{n}": Order(f"o{n}", "sent", NOW - 1000, "" if n % 10 else "r") for n in range(100_000)
    }
    engine = engine_over(table, clock)
    with capture_logs() as lines:
        await engine.scan()
        await engine.scan()
    assert [line["event"] for line in lines] == ["order.skipped"] * 100 + ["orders.skipped"]
    assert lines[-1]["more"] == {"no_reference": 90_000 - 100}
    assert engine.state.skipped[SkipReason.NO_REFERENCE] == 90_000
    assert len(engine.queue) == 10_000


async def test_what_is_left_alone_is_counted_and_told_once(plain_shop: Shop) -> None:
    """However many they are: one line, and no quick look forgets the number."""
    made, _ = bench(plain_shop)
    table, discovery = made.engine, made.engine.discovery
    with capture_logs() as logs:
        for count in (3000, 3000, 2990):
            await discovery.merge(
                Scan(NOW, [Order("o", "sent", NOW - 1000, "r")], [], apart=Apart(count, 7)), 5.0
            )
            quick = Scan(NOW, [], [], is_whole=False, apart=Apart(count, 7))
            await discovery.merge(quick, 6.0)
            assert table.state.skipped == {SkipReason.BEFORE_START: count}
            assert (table.state.open, table.state.first_start_held, discovery.skips) == (
                count + 1,
                7,
                {},
            )
    assert [(line["event"], line["count"]) for line in logs] == [("orders.left_alone", 3000)]
    await discovery.merge(Scan(NOW, [], []), 9.0)
    assert (table.state.skipped, table.state.open, table.state.first_start_held) == ({}, 0, 0)


async def test_codes_and_orders_by_hand_are_one_count(plain_shop: Shop) -> None:
    clock, nobody = ManualClock(), ShopAccounts(lambda made: Account(made.id, stages.NeverAsked()))
    policy = Policy(Continuous(Schedule()))
    made = Engine(AtClock(plain_shop.orders(), clock), nobody, policy, clock)
    orders = [
        Order(str(n), "sent", None, "", integration=word)
        for n, word in enumerate(("MANUAL", "__codes__", "internal_codes"))
    ]
    with capture_logs() as logs:
        await made.discovery.merge(Scan(NOW, orders, []), 5.0)
        await made.discovery.merge(Scan(NOW, orders[:2], []), 6.0)
    assert made.state.skipped == {SkipReason.NO_PROVIDER: 2}
    told = [(line["event"], line["count"], line["log_level"]) for line in logs]
    assert told == [("orders.left_alone", 3, "info")]


async def test_what_the_shop_settles_is_let_go_and_taken_up_again(plain_shop: Shop) -> None:
    """With a look, or where it is read again before it is asked about."""
    made, _ = bench(plain_shop)
    discovery, order = made.engine.discovery, Order("o", "sent", NOW - 1000, "r")
    await discovery.merge(Scan(NOW, [order], []), 5.0)
    with capture_logs() as logs:
        await discovery.merge(Scan(NOW, [order._replace(settled=True)], []), 6.0)
    assert made.engine.queue.get("o") is None
    assert discovery.skips == {"o": SkipReason.SETTLED_BY_SHOP}
    assert [(line["event"], line["log_level"]) for line in logs] == [("order.skipped", "info")]
    await discovery.merge(Scan(NOW, [order], []), 7.0)
    assert made.engine.queue.get("o") is not None
    assert discovery.skips == {}
