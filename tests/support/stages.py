"""The complete web edge over an engine with its orders in memory: quiet, busy, crowded, or on
fire.
"""

import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from order_monitor.cluster.members import Cluster
from order_monitor.cluster.membership import Member, Membership, View
from order_monitor.core.answer import Blocked, Cancelled, Completed, Refused, Unreachable, Waiting
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import StuckReason, Write
from order_monitor.core.errors import ShopUnavailableError
from order_monitor.core.gate import Pace, Pause
from order_monitor.core.order import Order, Route, SkipReason
from order_monitor.core.outcome import Outcome
from order_monitor.core.pin import Pin
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.providers.provider import Balance, NoBalance, Reply
from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from order_monitor.shop.reading.orders import ALL, Apart, Part, Scan, Take
from order_monitor.shop.reviews import Review
from order_monitor.tell.health import Access, HealthServer
from order_monitor.tell.metrics import Metrics
from order_monitor.tell.page import Dashboard
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.status_view import StatusView
from order_monitor.timing.planner import Terms, Timing
from order_monitor.watch.account import NOT_HELD, Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.observer import Observers
from order_monitor.watch.policy import Policy
from tests.support.clocks import UpForLong

PIN = "PIN-CANARY-5511"
HOSTILE = (
    '<img src=x onerror="document.title=1">" & a name that goes on and on without any end at all'
)


class NeverAsked:
    """A provider that is never asked."""

    async def ask(self, reference: str) -> Reply:
        return Reply(Waiting(""))

    async def balance(self) -> Balance | NoBalance:
        return Balance("0")

    async def aclose(self) -> None:
        pass


@dataclass
class ShopInMemory:
    """A shop with given open orders, whose clock is this machine's."""

    clock: Any
    orders: list[Order] = field(default_factory=list)
    waiting: tuple[int, float | None] | None = None
    away: bool = False
    more: dict[str, Any] = field(default_factory=dict)
    read_again: set[str] = field(default_factory=set)
    """The accounts that were read by themselves."""
    records_every_check = False

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        if self.away:
            raise ShopUnavailableError("ConnectionRefusedError")
        return [order for order in self.orders if order.id in {one.id for one in orders}]

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        if self.away:
            raise ShopUnavailableError("ConnectionRefusedError")
        now = self.clock.time()
        if part.of is not None:
            self.read_again |= set(part.of)
        orders = [o for o in self.orders if part.of is None or o.integration in part.of]
        return Scan(now, orders, **{"unknown": [], "waiting": self.waiting, **self.more})

    async def record(
        self, findings: list[CheckResult], lock_wait: float = 1.0
    ) -> list[WriteResult]:
        return []


@dataclass
class Accounts:
    """Each order goes to the account of its integration."""

    accounts: dict[str, Account]

    @property
    def by_key(self) -> dict[str, Account]:
        return self.accounts

    def account_of(self, order: Order) -> Account | SkipReason:
        if order.route is Route.NOBODYS:
            return SkipReason.NO_PROVIDER
        return self.accounts[order.integration or next(iter(self.accounts))]

    def note_pauses(self, pauses: Any) -> None:
        pass

    def update(self, integrations: Any) -> list[Any]:
        return []


class Stage:
    """An engine, its view and its endpoint."""

    def __init__(
        self, names: tuple[str, ...] = ("default",), clock: Any = None, *, is_shared: bool = False
    ) -> None:
        self.clock = clock or UpForLong()
        self.shelf = ShopInMemory(self.clock)
        self.accounts = {name: Account(name, NeverAsked(), pace=Pace(10.0)) for name in names}
        self.view = StatusView(self.clock)
        self.metrics = Metrics(self.view, lambda: 0)
        directory: Any = Accounts(self.accounts)
        observer = Observers([self.metrics, self.view.history])
        self.engine = Engine(
            self.shelf, directory, Policy(Continuous(Schedule())), self.clock, observer
        )
        self.observer = observer
        if is_shared:
            database = Database(parse_dsn("postgresql://x/y"))
            membership = Membership(database, "public.product_orders", "a", "m")
            self.view.cluster = Cluster(self.engine, membership, self.clock)
        self.probe = Readiness(self.engine, self.clock, 10.0, self.view.cluster)
        self.view.watch(self.engine, self.probe, 86_400.0)
        self.view.learned = Timing(Schedule(), Terms())
        for n in range(40):
            self.view.learned.ended(("default", "3f9c12aa"), 30.0 + n, 60.0 + n, self.clock.time())
        while self.view.learned.refresh():
            pass
        self.server = HealthServer(self.probe, Access(port=0), Dashboard(self.view, self.metrics))
        self.chance = random.Random(3)

    def order(self, age: float, account: str = "default", **more: Any) -> Order:
        given = {"reference": "1760885915220128", "integration": account, **more}
        order_id = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
        return Order(order_id, "sent", self.clock.time() - age, **given)

    async def begin(self) -> None:
        """Scan once, and tick."""
        await self.engine.scan()
        self.engine.state.ticked_at = self.clock.monotonic()
        self.engine.queue.promote(self.engine.now())

    def ended(
        self, order: Order, *, pin: bool = True, account: str = "default", delay: float = 1.0
    ) -> None:
        """Report an end to the observers."""
        answer = Completed(Pin(PIN), PIN) if pin else Cancelled("x")
        outcome = Outcome.COMPLETED if pin else Outcome.FAILED
        write = Write(outcome, outcome, pin=Pin(PIN) if pin else None)
        result = WriteResult(
            CheckResult(order, answer, self.clock.time()),
            WriteStatus.WRITTEN,
            write=write,
            status="sent",
        )
        self.observer.checked(account, order, answer, 0.3)
        self.observer.settled(account, result, delay)

    def stuck(self, order: Order, why: StuckReason = StuckReason.PIN_TOO_WIDE) -> None:
        """Make an answer unwritable."""
        finding = CheckResult(order, Completed(Pin(PIN)), self.clock.time())
        self.engine.writer.results.handle(WriteResult(finding, WriteStatus.STUCK, stuck=why))

    def shut(self, name: str, why: str) -> None:
        account = self.accounts[name]
        account.last_error = why
        for _ in range(account.gate.limit):
            account.gate.failed(self.clock.monotonic(), why, probe=False)
            self.observer.checked(name, self.order(0, name), Blocked(why), 0.2)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        await self.server.start()
        host, port = self.server.bound()
        try:
            yield f"http://{host}:{port}"
        finally:
            await self.server.stop()


async def quiet(clock: Any = None) -> Stage:
    """Nothing is open."""
    stage = Stage(clock=clock)
    stage.shelf.waiting = (0, None)
    stage.accounts["default"].balance = "1523.40"
    await stage.begin()
    return stage


async def busy(clock: Any = None) -> Stage:
    """Ten orders, and all is well."""
    stage = Stage(clock=clock)
    stage.shelf.orders = [stage.order(30 + 90 * n) for n in range(10)]
    stage.shelf.waiting = (2, stage.clock.time() - 12)
    await stage.begin()
    for n in range(12):
        stage.ended(stage.order(100), pin=n % 4 != 0, delay=0.4 + n / 3)
    return stage


async def crowded(clock: Any = None, count: int = 100_000) -> Stage:
    """Many orders in a few accounts."""
    names = ("İstanbul-7f3a91c2", "Baku-19c8e0d4", "القاهرة-5a20bb71")
    stage = Stage(names, clock)
    ages = (stage.chance.expovariate(1 / 7200) for _ in range(count))
    stage.shelf.orders = [stage.order(age, names[n % 3]) for n, age in enumerate(ages)]
    await stage.begin()
    for n in range(200):
        stage.ended(
            stage.order(400, names[n % 3]),
            pin=n % 9 != 0,
            account=names[n % 3],
            delay=stage.chance.expovariate(0.5),
        )
    return stage


async def on_fire(clock: Any = None) -> Stage:
    """All accounts closed, orders late, stuck and skipped, the database down, and names that look
    like markup.
    """
    names = ("default", HOSTILE, "Baku-19c8e0d4")
    stage = Stage(names, clock)
    late = [stage.order(90_000 + 3600 * n, names[n % 3]) for n in range(30)]
    lost = [stage.order(4000, reference="") for _ in range(7)]
    stage.shelf.orders = [*late, *lost, *(stage.order(60 * n, names[n % 3]) for n in range(60))]
    stage.shelf.waiting = (4210, stage.clock.time() - 86_000)
    await stage.begin()
    for order in late[:4]:
        stage.stuck(order)
    for name, why in zip(names, ("refused_8", "timeout", "http_503"), strict=True):
        stage.shut(name, why)
    stage.observer.checked("default", late[0], Unreachable("connect_error"), 5.0)
    stage.observer.checked("default", late[0], Refused("3", HOSTILE), 0.1)
    stage.observer.filled("default", 3)
    stage.observer.ignored("default", 2)
    stage.accounts[names[2]].paused = Pause(names[2], HOSTILE, "Ayşe", stage.clock.time() - 7200)
    stage.engine.state.reviews = 4
    stage.engine.state.oldest_reviews = [
        Review(order.id, "pin_too_wide", "", names[n % 3], stage.clock.time() - 60 * n)
        for n, order in enumerate(late[:4])
    ]
    stage.shelf.away = True
    with suppress(ShopUnavailableError):
        await stage.engine.scan()
    return stage


async def shared(clock: Any = None) -> Stage:
    """Three accounts on two processes, one of them currently on neither."""
    names = ("İstanbul-7f3a91c2", "Baku-19c8e0d4", "القاهرة-5a20bb71")
    stage = Stage(names, clock, is_shared=True)
    stage.shelf.orders = [stage.order(61 + n, names[n % 3]) for n in range(30)]
    stage.shelf.waiting = (2, stage.clock.time() - 12)
    assert stage.view.cluster is not None
    me = Member("shop-1-4711/20001", "m", frozenset(names[:1]), leads=False)
    other = Member("shop-2-815/20002", "m", frozenset(names[1:2]), leads=True)
    stage.view.cluster.view, stage.view.cluster.problem = View(me, (me, other)), ""
    for name in names[1:]:
        stage.accounts[name].lease_until = NOT_HELD
    await stage.begin()
    return stage


async def leftover(clock: Any = None) -> Stage:
    """Orders that are not asked about, each reason: no reference, the shop's codes, an unknown
    status, too old;
    ended and waiting for its PIN; and more reviews than are listed."""
    stage = Stage(clock=clock)
    now = stage.clock.time()
    lost = [stage.order(500 + n, reference="") for n in range(110)]
    by_hand = [stage.order(600, route=Route.NOBODYS) for _ in range(5)]
    stage.shelf.orders = [*(stage.order(300 * n) for n in range(42)), *lost, *by_hand]
    stage.shelf.more = {
        "unknown": [stage.order(100) for _ in range(3)],
        "awaiting": [stage.order(200, ended_at=now - 60) for _ in range(21)],
        "reviews": 340,
        "oldest_reviews": [
            Review(str(n), "pin_missing", "", "default", now - 3600 + n) for n in range(100)
        ],
        "apart": Apart(left_alone=9, held=2),
    }
    await stage.begin()
    return stage


STAGES = {
    "quiet": quiet,
    "busy": busy,
    "crowded": crowded,
    "on_fire": on_fire,
    "shared": shared,
    "leftover": leftover,
}
