"""What is done now and then: balances, the dead man's ping, and a second look at what has ended."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from order_monitor.core.answer import Answer, Cancelled, Completed, Waiting
from order_monitor.core.errors import ShopUnavailableError
from order_monitor.core.outcome import Outcome
from order_monitor.core.pin import Pin
from order_monitor.providers.provider import Balance, NoBalance, Reply
from order_monitor.shop.reading.orders import End
from order_monitor.tell.ping import Ping
from order_monitor.watch.balances import Balances
from order_monitor.watch.recheck import LATE, Recheck
from tests.support import stages
from tests.support.clocks import ManualClock
from tests.support.commands import call, daemon, prepare
from tests.support.events import prepared
from tests.support.orders import found
from tests.support.processes import Panel, once, panel, sent, settings
from tests.support.shops import Shop

__all__ = ["panel"]


class Bank:
    """A provider that has a balance and an answer."""

    def __init__(self) -> None:
        self.found: Balance | NoBalance = Balance("1523.40")
        self.answer: Answer = Waiting("")
        self.asked = 0
        self.read = 0

    async def balance(self) -> Balance | NoBalance:
        self.read += 1
        return self.found

    async def ask(self, reference: str) -> Reply:
        self.asked += 1
        return Reply(self.answer)

    async def aclose(self) -> None:
        pass


async def ticking(clock: ManualClock, work: Callable[[], Any], seconds: int) -> None:
    task = asyncio.create_task(work())
    for _ in range(seconds):
        await asyncio.sleep(0.0005)
        clock.ring(clock.elapsed + 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_balance_is_read_at_a_slow_pace() -> None:
    clock = ManualClock()
    stage = await stages.quiet(clock)
    bank = Bank()
    account = stage.accounts["default"]
    account.provider = bank
    balances = Balances(stage.engine, clock, 100.0, 1000.0)
    with capture_logs() as lines:
        await ticking(clock, balances.run, 58)
        assert bank.read == 0, "the orders come first"
        await ticking(clock, balances.run, 30)
        assert (bank.read, account.balance) == (1, "1523.40")
        bank.found = Balance("999,5")
        await ticking(clock, balances.run, 300)
        assert (3 <= bank.read <= 5, account.balance_amount) == (True, 999.5)
        bank.found = NoBalance("timeout")
        await ticking(clock, balances.run, 120)
        assert account.balance == "999,5", "what was known is kept"
    assert [line["event"] for line in lines] == ["account.low_balance"], "once, and not each time"
    read = bank.read
    account.gate.failed(clock.monotonic(), "x", probe=False, retry_after=3000)
    await ticking(clock, balances.run, 300)
    assert bank.read == read, "a closed account is not asked for its balance either"


async def test_a_balance_that_cannot_be_read_is_told_once() -> None:
    """It is no number: neither low nor high, and what was warned about before is not warned about
    again behind it.
    """
    clock = ManualClock()
    stage = await stages.quiet(clock)
    bank = Bank()
    account = stage.accounts["default"]
    account.provider = bank
    balances = Balances(stage.engine, clock, 10.0, 1000.0)
    with capture_logs() as lines:
        for found in (
            Balance("900"),
            Balance("1.2.3"),
            NoBalance("cut_short", "OK|…"),
            Balance("900"),
            NoBalance("timeout"),
        ):
            bank.found = found
            await ticking(clock, balances.run, 60)
            if found == Balance("1.2.3"):
                assert (account.balance, account.balance_amount) == ("1.2.3", None)
        bank.found = NoBalance("unknown_state", "OK|?|…")
        await ticking(clock, balances.run, 60)
    assert [(line["event"], line.get("said")) for line in lines] == [
        ("account.low_balance", None),
        ("account.balance_unreadable", "1.2.3"),
        ("account.balance_unreadable", "OK|?|…"),
    ]


@pytest.mark.parametrize("odd", ["", "x", "nan", "inf", "1.2.3"])
async def test_a_balance_that_is_no_number(odd: str) -> None:
    account = (await stages.quiet()).accounts["default"]
    account.balance = odd
    assert account.balance_amount is None


async def test_the_ping_tells_each_minute_how_it_is() -> None:
    clock = ManualClock()
    stage = await stages.quiet(clock)
    asked: list[str] = []
    status = 200

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if status == 0:
            raise httpx.ConnectError("no")
        return httpx.Response(status)

    ping = Ping(
        httpx.AsyncClient(transport=httpx.MockTransport(answer)), "https://ping.example/id/", clock
    )
    with capture_logs() as lines:
        await ticking(clock, lambda: ping.run(stage.probe), 62)
        assert asked == ["/id"]
        stage.shut("default", "timeout")
        await ticking(clock, lambda: ping.run(stage.probe), 62)
        assert asked == ["/id", "/id/fail"]
        status = 500
        await ticking(clock, lambda: ping.run(stage.probe), 125)
        status = 0
        await ticking(clock, lambda: ping.run(stage.probe), 62)
    assert [(line["event"], line["why"]) for line in lines] == [("ping.failed", "http_500")], "once"
    await ping.aclose()


async def test_a_pass_pings_too(plain_shop: Shop, panel: Panel, tmp_path: Path) -> None:
    from tests.support.servers import RawServer, says
    from tests.support.servers import answer as http

    async with RawServer(says(http(b"ok"))) as server:
        config = settings(
            plain_shop.dsn,
            panel.server.url,
            health={"ping_url": f"http://127.0.0.1:{server.port}/PING-CANARY"},
        )
        await sent(plain_shop, 2)
        assert (await once(tmp_path, config))[0] == 0
        await sent(plain_shop, 12)
        panel.body = ""
        code, _, errors = await once(tmp_path, config)
        assert code == 1
        assert [r.split()[1] for r in server.requests] == [b"/PING-CANARY", b"/PING-CANARY/fail"]
        assert "PING-CANARY" not in errors


class RecheckStore:
    def __init__(self) -> None:
        self.kept: list[tuple[str, str, str]] = []
        self.away = False
        self.ends: list[End] = []
        self.given: list[Pin] = []

    async def ended(self, within: float) -> list[End]:
        if self.away:
            raise ShopUnavailableError("gone")
        return self.ends

    async def review(self, order_id: str, kind: str, account: str) -> None:
        if self.away:
            raise ShopUnavailableError("gone")
        self.kept.append((order_id, kind, account))

    async def has_code(self, order_id: str, pin: Pin) -> bool:
        return pin in self.given

    async def has_ended_so(self, order_id: str, outcome: Outcome) -> bool:
        return True


@pytest.mark.parametrize(
    ("pin", "later", "kind"),
    [
        (False, Completed(None), "completed_after_failed"),
        (True, Cancelled("x"), "cancelled_after_completed"),
        (True, Completed(None), None),
        (True, Completed(Pin("GIVEN-1")), None),
        (True, Completed(Pin("OTHER-2")), "pin_for_ended"),
        (False, Completed(Pin("OTHER-2")), "completed_after_failed"),
        (False, Cancelled("x"), None),
        (False, Waiting(""), None),
    ],
)
async def test_a_second_look_reports_a_change_of_mind(
    *, pin: bool, later: Answer, kind: str | None
) -> None:
    clock = ManualClock()
    stage = await stages.quiet(clock)
    bank, desk = Bank(), RecheckStore()
    bank.answer, desk.given = later, [Pin("GIVEN-1")]
    stage.accounts["default"].provider = bank
    reconciliation = Recheck(desk, clock, 600.0)
    stage.observer.add(reconciliation)
    order = stage.order(100)
    stage.ended(order, pin=pin)
    clock.elapsed += 599
    await reconciliation.ask_due(stage.engine)
    assert bank.asked == 0
    clock.elapsed += 1
    await reconciliation.ask_due(stage.engine)
    await reconciliation.ask_due(stage.engine)
    assert bank.asked == 1, "once"
    assert desk.kept == ([(order.id, kind, "default")] if kind else [])


@pytest.mark.parametrize("since", ["sent again", "reopened", "failed still"])
async def test_an_end_that_is_no_more_cannot_be_contradicted(plain_shop: Shop, since: str) -> None:
    """The order was failed, and is completed by now: its answer is no change of mind."""
    clock = ManualClock()
    stage = await stages.quiet(clock)
    bank, orders = Bank(), await prepared(plain_shop)
    bank.answer = Completed(None)
    stage.accounts["default"].provider = bank
    reconciliation = Recheck(orders, clock, 600.0)
    stage.observer.add(reconciliation)
    order = plain_shop.order(await plain_shop.add())
    await orders.record([found(order, Cancelled("x"))])
    stage.ended(order, pin=False)
    if since != "failed still":
        await plain_shop.connection.execute(
            "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, outcome, source, cause) "
            "VALUES ($1::text::uuid, 'failed', 'sent', false, $2, 'person', 'person')",
            order.id,
            "reopened" if since == "reopened" else "processing",
        )
        await plain_shop.set(order.id, external_status="sent")
        if since == "sent again":
            await orders.record([found(order, Completed(None, "tamam"))])
    clock.elapsed += 601
    await reconciliation.ask_due(stage.engine)
    assert bank.asked == 1
    reviews = await plain_shop.connection.fetch("SELECT kind FROM order_monitor_review")
    told = ["completed_after_failed"] if since == "failed still" else []
    assert [row["kind"] for row in reviews] == told


async def test_a_second_look_waits_for_its_account_and_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = ManualClock()
    stage = await stages.quiet(clock)
    bank, desk = Bank(), RecheckStore()
    bank.answer = Cancelled("x")
    account = stage.accounts["default"]
    account.provider = bank
    reconciliation = Recheck(desk, clock, 10.0)
    stage.observer.add(reconciliation)
    stage.ended(stage.order(100))
    account.gate.failed(0.0, "x", probe=False, retry_after=100)
    for seconds in (11, 200):
        clock.elapsed += seconds
        await reconciliation.ask_due(stage.engine)
        assert bank.asked == 0, "nor where a probe may go: that is for an open order"
    account.gate.succeeded(probe=False)
    desk.away = True
    with capture_logs() as lines:
        await reconciliation.ask_due(stage.engine)
    assert [line["event"] for line in lines] == ["order.contradicted", "review.not_kept"]
    desk.away = False
    await reconciliation.ask_due(stage.engine)
    assert desk.kept == []
    clock.elapsed += 60
    await reconciliation.ask_due(stage.engine)
    assert [kind for _, kind, _ in desk.kept] == ["cancelled_after_completed"], "it is not lost"
    monkeypatch.setattr("order_monitor.watch.recheck.REMEMBERED", 20)
    for _ in range(70):
        stage.ended(stage.order(100))
    before = bank.asked
    clock.elapsed += 11
    for _ in range(70):
        await reconciliation.ask_due(stage.engine)
        clock.elapsed += 0.2  # what the account's pace takes
    assert bank.asked == before + 20


async def contradicted(clock: ManualClock) -> tuple[Any, Bank, RecheckStore, Recheck]:
    """A stage whose provider takes back each end, and the rechecks of it after ten minutes."""
    stage = await stages.quiet(clock)
    bank, desk = Bank(), RecheckStore()
    bank.answer = Cancelled("x")
    stage.accounts["default"].provider = bank
    return stage, bank, desk, Recheck(desk, clock, 600.0)


async def ring(clock: ManualClock, elapsed: float) -> None:
    """Let the sleeper go on at this time, once it sleeps."""
    while (clock.next_alarm() or 0) <= clock.elapsed:
        await asyncio.sleep(0)
    clock.ring(elapsed)
    await asyncio.sleep(0.01)


async def test_what_ended_before_the_start_is_looked_at_again() -> None:
    """At its time, or late; but not for ever late."""
    clock = ManualClock()
    stage, bank, desk, reconciliation = await contradicted(clock)
    orders = [stage.order(100) for _ in range(4)]
    ages = (10.0, 700.0, 600.0 + LATE + 1, 599.0)
    desk.ends = [
        End(order, Outcome.FAILED if n == 3 else Outcome.COMPLETED, ago)
        for n, (order, ago) in enumerate(zip(orders, ages, strict=True))
    ]
    desk.away = True
    task = asyncio.create_task(reconciliation.run(stage.engine))
    while clock.next_alarm() is None:
        await asyncio.sleep(0)
    desk.away = False
    for elapsed in (1, 2, 3, 580, 591, 592):
        await ring(clock, elapsed)
        if elapsed == 580:
            assert [kept[0] for kept in desk.kept] == [orders[1].id]
            assert bank.asked == 2, "the fourth was failed, and still is"
    assert [kept[0] for kept in desk.kept] == [orders[1].id, orders[0].id]
    task.cancel()
    await asyncio.wait([task])


async def test_what_ended_under_the_accounts_former_holder_is_looked_at_again() -> None:
    """But for what it has looked at itself, also of what ended here before that."""
    clock = ManualClock()
    stage, _, desk, reconciliation = await contradicted(clock)
    stage.observer.add(reconciliation)
    task = asyncio.create_task(reconciliation.run(stage.engine))
    await ring(clock, 1)
    here, there, made = [stage.order(100) for _ in range(3)]
    stage.ended(here)
    stage.observer.taken_over({"default": stage.engine.now() - 10, "gone": 0.0})
    desk.away = True
    await ring(clock, 2)
    desk.away = False
    desk.ends = [
        End(order, Outcome.COMPLETED, ago) for order, ago in ((there, 620.0), (made, 660.0))
    ]
    for elapsed in (3, 4, 602, 603):
        await ring(clock, elapsed)
    assert [kept[0] for kept in desk.kept] == [there.id], "the events alone are true"
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.long
async def test_a_look_again_outlives_a_restart(shop: Shop, panel: Panel, tmp_path: Path) -> None:
    config = settings(shop.dsn, panel.server.url, schedule={"recheck_after": 2})
    await prepare(shop)
    (order_id,) = await sent(shop, 1)
    async with daemon(shop, tmp_path, config) as run:
        await run.event("order.completed")
    panel.answer = Cancelled("iptal")
    async with daemon(shop, tmp_path, config) as run:
        told = await run.event("order.contradicted")
        assert (told["order_id"], told["kind"]) == (order_id, "cancelled_after_completed")


@pytest.mark.long
async def test_the_daemon_looks_again(plain_shop: Shop, panel: Panel, tmp_path: Path) -> None:
    config = settings(plain_shop.dsn, panel.server.url, schedule={"recheck_after": 1})
    await prepare(plain_shop)
    (order_id,) = await sent(plain_shop, 1)
    async with daemon(plain_shop, tmp_path, config) as run:
        await run.event("order.completed")
        panel.answer = Cancelled("iptal")
        told = await run.event("order.contradicted")
        assert (told["order_id"], told["kind"]) == (order_id, "cancelled_after_completed")
        async with asyncio.timeout(30):
            while True:
                found = json.loads((await call(tmp_path, config, "review", "--json"))[1])
                if found:
                    break
    assert [(r["order_id"], r["kind"], r["account"]) for r in found] == [
        (order_id, "cancelled_after_completed", "default")
    ]
    assert (await plain_shop.row(order_id))["external_status"] == "completed", "report only"
