"""Several processes over one shop, and the provider that sees who asks."""

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from order_monitor.core.answer import Completed
from order_monitor.core.pin import Pin
from order_monitor.demo.standin import Script, StandIn
from tests.support.commands import prepare
from tests.support.market import PLAIN_TABLES
from tests.support.processes import KOD, PIN, SIFRE, Run, running, settings
from tests.support.shops import Shop

ANSWER_TIME = 0.02
NEVER = float("inf")


@dataclass
class Panel:
    """The provider, which sees who asks about which account, and whether two do at once."""

    asked: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    under_way: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    overlaps: list[str] = field(default_factory=list)
    scripts: dict[str, Script] = field(default_factory=dict)

    async def behave(self, request: web.Request) -> None:
        account = request.query.get("tahsilat_api_islem_id", "").rpartition(".")[0]
        member = request.headers["User-Agent"]
        others = set(self.under_way[account]) - {member}
        self.overlaps += [f"{account}: {member} and {other}" for other in others]
        self.asked[account].append(member)
        self.under_way[account].append(member)
        try:
            await asyncio.sleep(ANSWER_TIME)
        finally:
            self.under_way[account].remove(member)

    def forget(self) -> None:
        self.asked.clear()

    def owners(self) -> dict[str, set[str]]:
        """Who asked about which account since `forget`."""
        return {account: set(members) for account, members in self.asked.items()}


class ManyLogins(StandIn):
    """A panel where each account has a login of its own: what is one login's, one process asks."""

    def _knows(self, request: web.Request) -> bool:
        return request.query.get("kod", "").startswith(KOD) and request.query.get("sifre") == SIFRE


class Theatre:
    """A shop with accounts and orders, and the processes over it."""

    def __init__(
        self, shop: Shop, panel: Panel, url: str, path: Path, stack: AsyncExitStack
    ) -> None:
        self.shop, self.panel, self.url, self.path = shop, panel, url, path
        self._stack = stack
        self.accounts: list[str] = []
        self.runs: dict[str, Run] = {}

    async def open(self, accounts: int, orders: int) -> None:
        await self.shop.connection.execute(PLAIN_TABLES)
        await prepare(self.shop)
        for n in range(accounts):
            integration = str(uuid.uuid4())
            await self.shop.connection.execute(
                "INSERT INTO integrations (id, name, provider, base_url, kod, sifre) VALUES ($1::uuid, $2, 'znet', $3, $4, $5)",
                *(integration, f"shop{n}", self.url, f"{KOD}{n}", SIFRE),
            )
            self.accounts.append(f"shop{n}")
            for m in range(orders):
                await self.place(n, m, integration)

    async def place(self, account: int, number: int, integration: str) -> None:
        reference = f"shop{account}.{number}"
        self.panel.scripts[reference] = Script(Completed(Pin(f"{PIN}-{reference}"), "tamam"), NEVER)
        order_id = await self.shop.add(reference=reference, sent_at=time.time() - 5)
        await self.shop.connection.execute(
            "UPDATE product_orders SET provider_id = $1 WHERE id = $2::uuid", integration, order_id
        )

    def config(self, name: str, **more: dict[str, Any]) -> str:
        given: dict[str, dict[str, Any]] = {
            "provider": {"source": "database", "allow_private": True, "user_agent": name},
            "schedule": {"first_check": 0.2, "base": 0.3, "cap": 0.3, "scan_interval": 0.5},
            "cluster": {"enabled": True},
        }
        for section, values in more.items():
            given[section] = given.get(section, {}) | values
        return settings(self.shop.dsn, self.url, **given)

    async def start(self, name: str, *, ahead: float = 0.0, **more: dict[str, Any]) -> Run:
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        run = await self._stack.enter_async_context(
            running(folder, self.config(name, **more), ahead=ahead)
        )
        self.runs[name] = run
        await run.event("cluster.joined")
        return run

    async def kill(self, name: str) -> None:
        """End it at once, and let what it sent before be heard: that is not asked afterwards."""
        self.runs[name].process.kill()
        await self.runs[name].end()
        await asyncio.sleep(5 * ANSWER_TIME)

    async def shared(self, counts: list[int], seconds: float = 60.0) -> dict[str, set[str]]:
        """Wait until each account is asked by one, and each of the processes asks so many of them.

        Return who asks what.
        """
        async with asyncio.timeout(seconds):
            while True:
                self.panel.forget()
                await asyncio.sleep(1.0)
                owners = self.panel.owners()
                found: dict[str, int] = defaultdict(int)
                for members in owners.values():
                    for member in members:
                        found[member] += 1
                is_whole = set(owners) == set(self.accounts) and all(
                    len(members) == 1 for members in owners.values()
                )
                if is_whole and sorted(found.values()) == counts:
                    return owners

    async def finish(self) -> None:
        """Let every order end, and compare row by row."""
        for script in self.panel.scripts.values():
            script.ends_at = 0.0
        async with asyncio.timeout(30):
            while await self.shop.connection.fetchval(
                "SELECT count(*) FROM product_orders WHERE external_status <> 'completed'"
            ):
                await asyncio.sleep(0.1)
        rows = await self.shop.connection.fetch(
            "SELECT id, provider_referans AS r, pin_code FROM product_orders"
        )
        assert {row["r"]: row["pin_code"] for row in rows} == {
            r: f"{PIN}-{r}" for r in self.panel.scripts
        }
        told = await self.shop.connection.fetch(
            "SELECT order_id, count(*) AS n FROM order_monitor_events WHERE outcome = 'completed' AND NOT repeat GROUP BY 1"
        )
        assert {row["order_id"]: row["n"] for row in told} == {row["id"]: 1 for row in rows}


@pytest.fixture
async def theatre(plain_shop: Shop, tmp_path: Path) -> AsyncIterator[Theatre]:
    panel = Panel()
    server = ManyLogins(panel.scripts, sifre=SIFRE, behave=panel.behave)
    async with server, AsyncExitStack() as stack:
        yield Theatre(plain_shop, panel, server.url, tmp_path, stack)
