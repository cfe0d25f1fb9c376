"""Several processes over one shop: real ones, that come, go, are killed and lose their locks."""

import asyncio
import signal
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from order_monitor.core.answer import Cancelled, Completed
from order_monitor.core.pin import Pin
from order_monitor.demo.standin import Script, StandIn
from tests.commands.test_people import prepare
from tests.commands.test_process import KOD, PIN, SIFRE, Run, running, settings
from tests.shop.test_accounts import PLAIN_TABLES
from tests.support.shops import Shop

ANSWER_TIME = 0.02
NEVER = float("inf")
SLOW_RATE = {"calls_per_second": 5}
ONCE_A_MINUTE = {"first_check": 4, "base": 60, "cap": 60}


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


@asynccontextmanager
async def status_of(run: Run) -> AsyncIterator[Callable[[], Any]]:
    where = await run.event("health.listening")
    async with httpx.AsyncClient(
        trust_env=False, base_url=f"http://127.0.0.1:{where['port']}"
    ) as client:

        async def ask() -> dict[str, Any]:
            return dict((await client.get("/api/status")).json())

        yield ask


@pytest.mark.timeout(300)
async def test_each_account_is_asked_by_one_whoever_comes_dies_or_leaves(theatre: Theatre) -> None:
    await theatre.open(accounts=6, orders=4)
    first = await theatre.start("first")
    await theatre.shared([6])
    await theatre.start("second")
    await theatre.shared([3, 3])
    await theatre.start("third")
    before = await theatre.shared([2, 2, 2])
    await theatre.kill("second")
    after = await theatre.shared([3, 3])
    kept = [a for a in before if before[a] != {"second"}]
    assert all(after[account] == before[account] for account in kept), "what nobody lost was moved"
    first.process.terminate()
    assert await first.end() == 0
    await theatre.shared([6])
    await theatre.finish()
    assert theatre.panel.overlaps == []


async def test_exchanged_one_after_the_other_they_ask_nothing_twice_and_lose_nothing(
    theatre: Theatre,
) -> None:
    """As a new version is rolled out from 0.2 on: each new process before the old one goes, under
    load, with a migrate before.
    """
    await theatre.open(accounts=4, orders=60)
    for script in theatre.panel.scripts.values():
        script.ends_at = 0.0

    async def all_ask(*names: str) -> None:
        async with asyncio.timeout(30):
            while not {
                member for members in theatre.panel.asked.values() for member in members
            } >= set(names):
                await asyncio.sleep(0.05)

    old = [
        await theatre.start(f"old{n}", limits=SLOW_RATE, schedule=ONCE_A_MINUTE) for n in range(2)
    ]
    async with running(theatre.path, theatre.config("migrate"), "migrate") as run:
        assert await run.end() == 0
    assert run.out.decode() == "nothing to do: everything is there\n"
    await all_ask("old0", "old1")
    for n, leaving in enumerate(old):
        await theatre.start(f"new{n}", limits=SLOW_RATE, schedule=ONCE_A_MINUTE)
        leaving.process.terminate()
        assert await leaving.end() == 0
    await all_ask("new0", "new1")
    await theatre.finish()
    assert sum(map(len, theatre.panel.asked.values())) == len(theatre.panel.scripts), "each once"
    assert theatre.panel.overlaps == []


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM])
async def test_who_takes_an_account_makes_the_rechecks_that_its_holder_owed(
    theatre: Theatre, way: signal.Signals
) -> None:
    schedule = {"recheck_after": 8}
    await theatre.open(accounts=1, orders=3)
    first = await theatre.start("first", schedule=schedule)
    await theatre.shared([1])
    second = await theatre.start("second", schedule=schedule)
    await theatre.finish()
    for script in theatre.panel.scripts.values():
        script.end = Cancelled("iptal")
    first.process.send_signal(way)
    await first.end()
    async with asyncio.timeout(40):
        while sum(line["event"] == "order.contradicted" for line in second.events()) < 3:
            await asyncio.sleep(0.1)


async def test_an_account_moves_to_the_process_that_can_reach_its_provider(
    theatre: Theatre,
) -> None:
    """To the first process nothing answers in time."""
    await theatre.open(accounts=1, orders=3)
    first = await theatre.start("first", provider={"timeout": ANSWER_TIME / 2})
    await first.event("account.closed")
    await theatre.start("second")
    await first.event("cluster.unreached")
    await theatre.shared([1])
    await theatre.finish()
    assert theatre.panel.owners() == {"shop0": {"second"}}


async def test_clocks_that_are_hours_apart_change_nothing(theatre: Theatre) -> None:
    """Leases go by each process's own steady clock, and what is due by the database's."""
    await theatre.open(accounts=4, orders=3)
    first = await theatre.start("first", ahead=3 * 3600.0)
    async with status_of(first) as ask:
        shown = datetime.fromisoformat((await ask())["now"])
        assert abs(shown.timestamp() - time.time() - 3 * 3600) < 60, "its clock is wrong indeed"
    await theatre.start("second", ahead=-5 * 3600.0)
    before = await theatre.shared([2, 2])
    theatre.runs["second"].process.kill()
    after = await theatre.shared([4])
    assert all(after[account] == {"first"} for account in before)
    await theatre.start("third", ahead=86_400.0)
    await theatre.shared([2, 2])
    await theatre.finish()
    assert theatre.panel.overlaps == []
    decided = await theatre.shop.connection.fetchval(
        "SELECT max(abs(extract(epoch FROM now() - decided_at))) FROM order_monitor_events"
    )
    assert decided < 600, "nor is it written by them"


async def test_with_one_account_the_second_is_a_hot_standby(theatre: Theatre) -> None:
    await theatre.open(accounts=1, orders=8)
    first = await theatre.start("first")
    await theatre.shared([1])
    second = await theatre.start("second")
    async with status_of(second) as ask:
        async with asyncio.timeout(20):
            while not ((found := await ask())["ready"] and found["accounts"][0]["owner"]):
                await asyncio.sleep(0.1)
        assert found["accounts"][0]["owner"] == (await first.event("cluster.joined"))["member"]
        assert (found["orders"]["open"], found["orders"]["due"]) == (8, 0)
        assert {"first"} == (await theatre.shared([1]))["shop0"]
        await theatre.kill("first")
        assert {"second"} == (await theatre.shared([1]))["shop0"]
        (member,) = (await ask())["cluster"]["members"]
        assert (member["accounts"], member["leads"]) == ([found["accounts"][0]["name"]], True)
    await theatre.finish()
    assert theatre.panel.overlaps == []


async def test_who_loses_the_locks_stops_asking_at_once_and_says_so(theatre: Theatre) -> None:
    await theatre.open(accounts=2, orders=4)
    first = await theatre.start("first")
    await theatre.start("second")
    await theatre.shared([1, 1])
    await theatre.shop.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'order-monitor %'"
    )
    assert (await first.event("cluster.lost"))["why"]
    await theatre.shared([1, 1])
    await theatre.finish()
    assert theatre.panel.overlaps == []


async def test_a_member_with_another_schedule_is_named(theatre: Theatre) -> None:
    await theatre.open(accounts=2, orders=1)
    first = await theatre.start("first")
    second = await theatre.start("second", schedule={"cap": 0.4})
    told = await first.event("cluster.schedules_differ")
    assert told["members"] == [(await second.event("cluster.joined"))["member"]]
    await theatre.shared([1, 1])


async def test_one_whose_schedule_was_reloaded_shows_the_new_one(theatre: Theatre) -> None:
    await theatre.open(accounts=2, orders=1)
    first, second = await theatre.start("first"), await theatre.start("second")
    await theatre.shared([1, 1])
    (theatre.path / "second" / "monitor.toml").write_text(
        theatre.config("second", schedule={"cap": 0.4})
    )
    second.process.send_signal(signal.SIGHUP)
    told = await first.event("cluster.schedules_differ")
    assert told["members"] == [(await second.event("cluster.joined"))["member"]]
