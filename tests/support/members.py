"""Members of a cluster in one process: engines that are never run."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from order_monitor.cluster import members as module
from order_monitor.cluster import sharing
from order_monitor.cluster.members import Cluster
from order_monitor.cluster.membership import Membership
from order_monitor.watch.account import NOT_HELD
from tests.support import stages
from tests.support.shops import Shop


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(module, "REJOIN_AFTER", 0.01)
    # Else what one gives up goes back to it where the other's look takes a moment, and stays.
    monkeypatch.setattr(sharing, "PATIENCE", 50)


NAMES = ("a", "b", "c", "d")


class Process:
    """One process: an engine that is never run, and its part in the membership."""

    def __init__(self, shop: Shop, name: str, accounts: tuple[str, ...]) -> None:
        self.stage = stages.Stage(accounts)
        self.accounts = self.stage.accounts
        for account in self.accounts.values():
            account.lease_until = NOT_HELD
        self.cluster = Cluster(
            self.stage.engine,
            Membership(shop.database(), "public.product_orders", name, "m"),
            self.stage.clock,
        )

    def held(self) -> set[str]:
        now = self.stage.clock.monotonic()
        return {name for name, account in self.accounts.items() if account.is_held(now)}


class House:
    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, accounts: tuple[str, ...] = NAMES) -> Process:
        process = Process(self.shop, name, accounts)
        self.join(name, process)
        return process

    def join(self, name: str, process: Process) -> None:
        self.tasks[name] = asyncio.create_task(process.cluster.run())

    async def stop(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def house(plain_shop: Shop) -> AsyncIterator[House]:
    made = House(plain_shop)
    yield made
    for name in list(made.tasks):
        await made.stop(name)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)
