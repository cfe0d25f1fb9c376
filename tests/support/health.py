"""The health server over a shop without orders."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from order_monitor.core.check_result import CheckResult, WriteResult
from order_monitor.core.errors import ShopUnavailableError
from order_monitor.core.order import Order
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.shop.reading.orders import ALL, Part, Scan, Take
from order_monitor.tell.connection_limiter import ConnectionLimiter
from order_monitor.tell.health import Access, HealthServer, Site
from order_monitor.tell.readiness import Readiness
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.policy import Policy
from order_monitor.watch.routing import ShopAccounts
from tests.support.clocks import ManualClock
from tests.support.market import Silent
from tests.support.shops import NOW


class EmptyShop:
    """A shop with no orders, which may be away."""

    records_every_check = False

    def __init__(self) -> None:
        self.away = False

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        return []

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        if self.away:
            raise ShopUnavailableError("ConnectionRefusedError")
        return Scan(NOW, [], [])

    async def record(
        self, findings: list[CheckResult], lock_wait: float = 1.0
    ) -> list[WriteResult]:
        return []


class Bench:
    def __init__(
        self,
        access: Access | None = None,
        *,
        accounts: bool = True,
        site: Site | None = None,
        door: ConnectionLimiter | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.shop = EmptyShop()
        self.account = Account("main", Silent())
        directory: Any = (
            {"main": self.account} if accounts else ShopAccounts(lambda _: self.account)
        )
        self.engine = Engine(self.shop, directory, Policy(Continuous(Schedule())), self.clock)
        self.server = HealthServer(
            Readiness(self.engine, self.clock, 10.0), access or Access(port=0), site, door=door
        )

    async def scan(self) -> None:
        await self.engine.scan()
        self.engine.dispatcher.start_calls()


@asynccontextmanager
async def listening(bench: Bench) -> AsyncIterator[httpx.AsyncClient]:
    await bench.server.start()
    host, port = bench.server.bound()
    place = f"[{host}]" if ":" in host else host
    try:
        async with httpx.AsyncClient(base_url=f"http://{place}:{port}", trust_env=False) as client:
            yield client
    finally:
        await bench.server.stop()
