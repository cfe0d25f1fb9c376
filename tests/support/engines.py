"""An engine on the shop's real database, in virtual time."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx

from order_monitor.core.check_result import CheckResult, WriteResult
from order_monitor.core.gate import Gate, Pace
from order_monitor.core.order import Order
from order_monitor.core.schedule import Continuous, OnePass, Plan, Schedule
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.shop.reading.orders import ALL, Part, Scan, Take
from order_monitor.shop.repository import Orders
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.policy import Policy
from tests.support.clocks import Drive, ManualClock
from tests.support.shops import Shop

DAY = 86_400.0
Panel = Callable[[str], Awaitable[httpx.Response] | httpx.Response]


def text(body: str, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(
        status,
        stream=httpx.ByteStream(body.encode()),
        headers={k.replace("_", "-"): v for k, v in headers.items()},
    )


class AtClock:
    """The shop's real orders, read at the virtual time instead of the database's."""

    def __init__(self, orders: Orders, clock: ManualClock) -> None:
        self.orders = orders
        self._clock = clock
        self.looks: list[float | None] = []
        self.rereads: list[list[str]] = []
        self.cost = 0.0
        """Seconds that reading all orders takes."""

    @property
    def records_every_check(self) -> bool:
        return self.orders.records_every_check

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        self.rereads.append([order.id for order in orders])
        return await self.orders.reread(orders)

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        self.looks.append(part.since)
        self._clock.elapsed += self.cost if part.since is None else 0.0
        give = None if take is None else lambda piece: take(replace(piece, now=self._clock.time()))
        scan, now = await self.orders.scan(part._replace(of=None), give), self._clock.time()
        awaiting = [order._replace(ended_at=now) for order in scan.awaiting]
        return replace(scan, now=now, awaiting=awaiting)

    async def record(
        self, findings: list[CheckResult], lock_wait: float = 1.0
    ) -> list[WriteResult]:
        return await self.orders.record(findings)


class Bench:
    """An engine on the shop's real database, asking a panel that is a function."""

    def __init__(self, shop: Shop, panel: Panel, **options: Any) -> None:
        self.shop = shop
        self.clock = ManualClock()
        self.calls: list[tuple[float, str]] = []
        self.panel = panel
        self.most_at_once = 0
        self.at_once = 0
        schedule = Schedule(
            jitter=0,
            **{k: options.pop(k) for k in ("first_check", "give_up_after") if k in options},
        )
        plan: Plan = (
            OnePass(schedule, options.pop("every", None))
            if options.get("one_pass")
            else Continuous(schedule)
        )
        znet = Znet(
            ZnetAccount("https://x.example", "k", "s"),
            httpx.MockTransport(self._answer),
            self.clock,
        )
        self.account = Account(
            "main",
            znet,
            Gate(options.pop("gate_after", 5)),
            Pace(options.pop("calls_per_second", 1000.0)),
        )
        table_config = replace(shop.table_config, **options.pop("table_config", {}))
        table_config = replace(
            table_config,
            rules=replace(
                table_config.rules,
                give_up_after=schedule.give_up_after,
                give_up_blind=options.get("give_up_blind", False),
                confirm_cancelled=options.get("confirm_cancelled", 0.0),
            ),
        )
        orders = shop.orders(
            options.pop("database", None),
            **{
                f: getattr(table_config, f)
                for f in ("open", "known", "rules", "record_sync", "await_pin")
            },
        )
        wrapped: Callable[[Orders, ManualClock], Any] = options.pop("wrapped", AtClock)
        self.orders = wrapped(orders, self.clock)
        self.engine = Engine(
            self.orders,
            {"main": self.account},
            Policy(plan, give_up_after=schedule.give_up_after, **options),
            self.clock,
        )

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        reference = request.url.params["tahsilat_api_islem_id"]
        self.calls.append((self.clock.elapsed, reference))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            answer = self.panel(reference)
            return answer if isinstance(answer, httpx.Response) else await answer
        finally:
            self.at_once -= 1

    def times(self, order_id: str) -> list[float]:
        return [round(at, 1) for at, reference in self.calls if reference == f"r-{order_id[:8]}"]

    async def status(self, order_id: str) -> str:
        return str((await self.shop.row(order_id))["external_status"])


async def one_pass(bench: Bench) -> Engine:
    await bench.engine.scan()
    async with Drive(bench.engine, bench.clock) as drive:
        while not drive.tasks[1].done():
            await drive.run(1)
    return bench.engine
